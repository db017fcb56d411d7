"""A systemd of each release that rpinfs is for, in a chroot of its own: it tells what it makes of unit files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.oracle.systemd import Systemd
from tests.package import chroot
from tests.support import TOP

GUARDED = ("docker.service", "containerd.service")


@pytest.fixture(scope="session", params=chroot.RELEASES)
def systemd(request: pytest.FixtureRequest) -> Iterator[Systemd]:
    """The static units are installed as the package installs them, beside a Docker of no content."""
    with chroot.chroot(request.param) as root:
        system = root.path("/usr/lib/systemd/system")
        for path in (TOP / "units").glob("*.service"):
            shutil.copy(path, system)
        for name in GUARDED:
            shutil.copytree(TOP / "units" / f"{name}.d", system / f"{name}.d")
            (system / name).write_text("[Service]\nExecStart=/bin/true\n")
            (system / "multi-user.target.wants" / name).symlink_to(f"../{name}")
        shutil.copy(TOP / "units" / "rpinfs", root.path("/usr/bin/rpinfs"))
        yield Systemd(root)


@pytest.fixture(scope="session")
def imported(installed: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Placeholder."""
    del installed, tmp_path_factory, subprocess
