"""debian/tests by autopkgtest(1) itself, in a root of each release with the package that make has built."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.package import chroot
from tests.package.conftest import TREE
from tests.package.test_package import copy_tree, install

NAMES = " ".join(re.findall(r"^Tests:(.*)", (TREE / "debian/tests/control").read_text(), re.MULTILINE)).split()
# Devices of this machine, of which autopkgtest's chroot runner knows nothing; gone with the namespace.
ENTER = 'mount --rbind /dev "$0/dev"; mount -t proc proc "$0/proc"; mount --rbind /sys "$0/sys"; exec "$@"'


@pytest.mark.root
def test_what_a_distribution_would_run(deb: Path, release: str, tmp_path: Path) -> None:
    copy_tree(tmp_path / "source")
    with chroot.chroot(release) as root:
        # Installed beforehand: to do it itself it would want the archive, for apt-utils.
        install(root, deb)
        done = subprocess.run(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", ENTER, str(root.root)),
                # The devices are there all the same: what runs as root in this chroot may be trusted with them.
                *("autopkgtest", "--ignore-restrictions=isolation-machine", "--no-built-binaries"),
                *("--summary-file", str(tmp_path / "summary"), f"{tmp_path}/source/"),
                *("--", "chroot", str(root.root)),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    found = dict(line.split()[:2] for line in (tmp_path / "summary").read_text().splitlines())
    assert found == dict.fromkeys(NAMES, "PASS"), said
