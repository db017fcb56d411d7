"""Files on a share for the tests of images, and what became of them."""

import hashlib
import os
import stat
from pathlib import Path

from rpinfs.image.probe import Kind, probe
from tests.tools.conftest import command

MIB = 1 << 20
SIZE = 64 * MIB  # the smallest image
XFS_SIZE = 300 * MIB


def sparse(path: Path, size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def fingerprint(path: Path) -> object:
    """Everything that tells whether somebody has touched it, but the time of the last reading."""
    regular = stat.S_ISREG(path.lstat().st_mode)
    content = ""
    if regular:
        with path.open("rb") as file:
            # What is not on the disk yet has other blocks some seconds later.
            os.fsync(file.fileno())
            content = hashlib.sha256(file.read()).hexdigest()
    status = path.lstat()
    kept = ("st_mode", "st_ino", "st_uid", "st_gid", "st_nlink", "st_size", "st_mtime_ns", "st_ctime_ns", "st_blocks")
    return content, [getattr(status, name) for name in kept]


def assert_whole(path: Path, size: int = SIZE) -> None:
    made = probe(str(path))
    assert (made.kind, made.size, made.fs_size, made.clean) == (Kind.EXT4, size, size, True)
    command("e2fsck", "-f", "-n", path)


def ext4_with_wrong_checksum(path: Path) -> None:
    command("mkfs.ext4", "-q", sparse(path))
    write_at(path, 1024 + 0x78, b"other label")


def written_zeros(path: Path) -> None:
    path.write_bytes(bytes(SIZE))
