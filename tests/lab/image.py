"""An image as the NAS sees it: its ext4 superblock, and the space it takes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from .process import run

BLOCK = 512  # The unit of st_blocks, whatever the file system.


@dataclass(frozen=True)
class Space:
    """Bytes: how large the file looks, and how much of it is really there."""

    apparent: int
    allocated: int


def space(path: Path) -> Space:
    """What du says, with and without --apparent-size."""
    status = path.stat()
    return Space(apparent=status.st_size, allocated=status.st_blocks * BLOCK)


def superblock(path: Path) -> dict[str, str]:
    """The fields of `dumpe2fs -h` by their names there, such as "Filesystem state"."""
    pairs = (line.partition(":") for line in run(["dumpe2fs", "-h", path]).splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def is_clean(path: Path) -> bool:
    """Whether the ext4 was unmounted in order: marked clean, and no journal to replay."""
    fields = superblock(path)
    return fields["Filesystem state"] == "clean" and "needs_recovery" not in fields["Filesystem features"].split()


def make_by_hand(path: Path, size: int) -> None:
    """An image as people made them before there was rpinfs: sparse, mkfs.ext4 with its defaults."""
    with path.open("xb") as file:
        file.truncate(size)
    run(["mkfs.ext4", "-q", "-F", path])


def repair(path: Path) -> None:
    """Replay the log and check everything, on the NAS side, with no Pi using it; LabError when that finds damage."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"XFSB":
        with tempfile.TemporaryDirectory() as folder:
            run(["mount", "-t", "xfs", "-o", "loop", path, folder])
            run(["umount", folder])
        run(["xfs_repair", "-n", path])
    else:
        # 1: its journal was replayed. Of the second run, nothing is to be said.
        run(["sh", "-c", 'e2fsck -p "$0" || test $? -eq 1', path])
        run(["e2fsck", "-f", "-n", path])
