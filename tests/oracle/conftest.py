"""A systemd of each release that rpinfs is for, in a chroot of its own: it tells what it makes of unit files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.oracle.systemd import Systemd
from tests.package import chroot
from tests.parameters import EACH_RELEASE
from tests.support import TOP

GUARDED = ("docker.service", "containerd.service")


@pytest.fixture(scope="session", params=EACH_RELEASE)
def systemd(request: pytest.FixtureRequest) -> Iterator[Systemd]:
    """The static units lie where the package puts them, beside a Docker and a containerd of no content."""
    with chroot.chroot(request.param) as root:
        systemd = Systemd(root)
        system = root.path("/usr/lib/systemd/system")
        wants = system / "multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        for path in (TOP / "units").glob("*.service"):
            shutil.copy(path, system)
        for name in GUARDED:
            shutil.copytree(TOP / "units" / f"{name}.d", system / f"{name}.d")
            (system / name).write_text("[Service]\nExecStart=/bin/true\n")
            (wants / name).symlink_to(f"../{name}")
        shutil.copy(TOP / "units" / "rpinfs", root.path("/usr/bin/rpinfs"))
        yield systemd
