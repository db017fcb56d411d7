"""Boots a root as a container with systemd-nspawn(1), with the machine's loop devices, and waits for its end.

Several may run at once, and share nothing that goes by a name. Left alone systemd-nspawn calls each after its folder,
which is always "root", and with --keep-unit puts the processes of each into one group "payload" below its own. There
two systemds see one tree of groups: each takes the other's units for what is left of its own, and removes their groups
while they are being started ("Failed to spawn executor", containers that end in the middle of a step).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from rpinfs.boot import host
from tests.package import chroot

SECONDS = 600.0
CGROUPS = Path("/sys/fs/cgroup")
INTO_GROUPS = 'for group in $0; do echo $$ > "$group/cgroup.procs"; done; exec "$@"'
_numbers = itertools.count()


class Root(Protocol):
    """The root of a container or of an emulated Pi, as this machine sees it."""

    def path(self, inside: str, /) -> Path:
        """Where a path of the root is on this machine."""


def put_units(root: Root, units: Mapping[str, str]) -> None:
    """Write unit files and drop-ins of the administrator's."""
    for name, text in units.items():
        unit = root.path(f"/etc/systemd/system/{name}")
        unit.parent.mkdir(parents=True, exist_ok=True)
        unit.write_text(text)


@contextlib.contextmanager
def own_groups(name: str) -> Iterator[list[Path]]:
    """Control groups for one container, below those of this process, in the hierarchies that systemd keeps order in."""
    parents = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kind, path = line.split(":", 2)
        if kind == "name=systemd":
            parents.append(CGROUPS / "systemd" / path.lstrip("/"))
        elif not kind:
            unified = CGROUPS / "unified"
            parents.append((unified if unified.exists() else CGROUPS) / path.lstrip("/"))
    groups = [parent / name for parent in parents if (parent / "cgroup.procs").exists()]
    try:
        for group in groups:
            group.mkdir()
        yield groups
    finally:
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                # One that was killed by its time-out takes a moment longer, and an empty group is nobody's trouble.
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


_SPARE_LOOPS = 16
_LOOP_CTL_ADD = 0x4C80


def have_spare_loops() -> None:
    """A container may open only the loop devices that are there when it starts, and other tests have some of them."""
    there = {int(path.name.removeprefix("loop")) for path in Path("/sys/block").glob("loop*")}
    free = [number for number in there if not Path(f"/sys/block/loop{number}/loop").exists()]
    missing = (number for number in itertools.count() if number not in there)
    with open("/dev/loop-control", "rb") as control:
        for number in itertools.islice(missing, max(0, _SPARE_LOOPS - len(free))):
            with contextlib.suppress(FileExistsError):
                fcntl.ioctl(control, _LOOP_CTL_ADD, number)
            with contextlib.suppress(FileExistsError):
                os.mknod(f"/dev/loop{number}", 0o60660, os.makedev(7, number))


_UNIFIED_ALONE = 258
"""The first systemd that boots with cgroups v2 alone."""


def boot(root: chroot.Chroot, unit: str) -> str:
    """Boot up to a unit, until the container ends by itself; what its console showed."""
    said = root.run("systemctl", "--version").stdout
    if int(said.split()[1]) >= _UNIFIED_ALONE and not (CGROUPS / "cgroup.controllers").exists():
        pytest.skip(f"systemd {_UNIFIED_ALONE} and later do not boot in a container of a host with cgroups v1")
    have_spare_loops()
    name = f"rpinfs-test-{os.getpid()}-{next(_numbers)}"
    try:
        with own_groups(name) as groups:
            return _boot(root, unit, name, " ".join(map(str, groups)))
    finally:
        detach_orphans()


def detach_orphans() -> None:
    """Detach the locks that agents have left in loop devices, of containers whose share is mounted nowhere any more."""
    tables = (host.read_text(str(path)) for path in Path("/proc").glob("[0-9]*/mountinfo"))
    mounted = {line.split()[2] for table in tables for line in table.splitlines()}
    asked = ["losetup", "--list", "--json", "--output", "NAME,BACK-FILE,BACK-MAJ:MIN"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    for one in json.loads(listed or "{}").get("loopdevices", []):
        if one["back-file"].endswith(".rpinfs-lock") and one["back-maj:min"].strip() not in mounted:
            subprocess.run(["losetup", "--detach", one["name"]], check=False)


def _boot(root: chroot.Chroot, unit: str, name: str, groups: str) -> str:
    loops = sorted(str(path) for path in Path("/dev").glob("loop[0-9]*") if path.is_block_device())
    done = subprocess.run(
        [
            "sh",
            "-ec",
            INTO_GROUPS,
            groups,
            "systemd-nspawn",
            f"--machine={name}",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
            "--quiet",
            f"--directory={root.root}",
            *(f"--bind={device}" for device in ["/dev/loop-control", *loops]),
            f"systemd.unit={unit}",
            "systemd.show_status=no",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        # For /sys/fs/ext4/loopN/trigger_fs_error.
        env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"},
    )
    return done.stdout + done.stderr
