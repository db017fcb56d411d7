"""Facts: what follows from what is known."""

from __future__ import annotations

from pathlib import Path

from rpinfs.boot import storage
from tests.unit.health.pi import NAS, facts


def test_the_mount_that_a_file_lies_on(root: Path) -> None:
    found = facts(root)
    found.mounts.append(storage.parse_mountinfo(f"40 31 0:40 / /nfs/docker rw - nfs4 {NAS}:/other rw\n")[0])

    def source(path: str) -> str:
        mount = found.mount_of(path)
        return mount.source if mount else ""

    assert source("/var/lib/docker/swap") == "/dev/loop3"
    assert source("/var/lib/docker-swap") == f"{NAS}:/nfsroot/pi"
    assert source("/nfs/docker/image") == f"{NAS}:/other"  # the one on top
    found.mounts.clear()
    assert source("/swap") == ""
