"""Boots a root as a container with systemd-nspawn(1), with the machine's loop devices, and waits for its end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.package import chroot

SECONDS = 240.0


def put_units(root: chroot.Chroot, units: Mapping[str, str]) -> None:
    """Write unit files and drop-ins of the administrator's."""
    for name, text in units.items():
        unit = root.path(f"/etc/systemd/system/{name}")
        unit.parent.mkdir(parents=True, exist_ok=True)
        unit.write_text(text)


def boot(root: chroot.Chroot, unit: str) -> str:
    """Boot up to a unit, until the container ends by itself; what its console showed."""
    loops = sorted(str(path) for path in Path("/dev").glob("loop[0-9]*") if path.is_block_device())
    done = subprocess.run(
        [
            "systemd-nspawn",
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
