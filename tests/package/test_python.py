"""The unit tests and golden trees by the newest Python, with Debian's own modules and its own pytest."""

from __future__ import annotations

import pytest

from tests.lab.releases import RELEASES
from tests.package import chroot
from tests.package.test_package import copy_tree

NEWEST = list(RELEASES)[-1]
PACKAGES = (
    *("python3-pytest", "python3-pytest-xdist", "python3-hypothesis"),
    # What the tests start, and what is not there already.
    *("git", "bash-completion", "man-db", "strace", "openssh-client", "fdisk", "dnsmasq-base"),
)
# A chroot has no terminals and no devices to freeze.
LEFT_OUT = ("tests/unit/commands/test_cli.py::test_colour_on_a_terminal", "tests/unit/test_watch.py")
LONGEST = 3600.0


@pytest.mark.long
@pytest.mark.root
def test_the_newest_python() -> None:
    """Also with no warning of what a later one will refuse."""
    with chroot.chroot(NEWEST) as root:
        copy_tree(root.path("/srv/rpinfs"))
        root.run("apt-get", "-qq", "update")
        root.run("apt-get", "-qq", "install", "--no-install-recommends", "--yes", *PACKAGES)
        left_out = " ".join(f"--deselect {name}" for name in LEFT_OUT)
        runner = f"python3 -W error::DeprecationWarning -m pytest -q -n2 tests/unit tests/golden {left_out}"
        # As the Makefile has it: what is bound of byte code differs from what is bound of sources.
        tests = ("env", "PYTHONDONTWRITEBYTECODE=1", "sh", "-euc", f"cd /srv/rpinfs && exec {runner}")
        assert " passed" in root.run(*tests, seconds=LONGEST).stdout
