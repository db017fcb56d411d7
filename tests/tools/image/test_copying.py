"""Copying an image, with real files: what is copied, by which way, and who is told."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from rpinfs.image import copying
from rpinfs.system.run import silent
from tests.tools.conftest import Mount, command
from tests.tools.image.files import MIB, SIZE, XFS_SIZE, sparse, write_at

GRAIN = 64 * 1024


@contextlib.contextmanager
def both(source: Path, target: Path) -> Iterator[tuple[int, int]]:
    """An image to be read, and a new file for its copy."""
    fds = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def copied(source: Path, target: Path) -> list[str]:
    """Copy it; what was told meanwhile."""
    told: list[str] = []
    with both(source, target) as (here, there):
        copying.copy(here, str(source), there, told.append)
    assert target.read_bytes() == source.read_bytes()
    return told


def refusing(number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A server that refuses to copy; where it was asked to."""
    asked: list[int] = []

    def copy_file_range(_: int, __: int, ___: int, start: int, ____: int) -> NoReturn:
        asked.append(start)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    return asked


@pytest.fixture
def patchy(tmp_path: Path) -> Path:
    """Data, holes, written zeros, and an end in the middle of a block."""
    path = sparse(tmp_path / "source", 20 * MIB + 123)
    write_at(path, 0, os.urandom(5 * MIB))
    write_at(path, 9 * MIB, os.urandom(100) + bytes(2 * GRAIN) + os.urandom(GRAIN))
    write_at(path, 20 * MIB + 100, b"to the very last byte !")
    return path


@pytest.mark.parametrize("way", ["by the server", "through here"])
def test_a_copy_is_the_same_and_as_sparse(patchy: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = refusing(errno.EXDEV, monkeypatch) if way == "through here" else [0]
    told = copied(patchy, target := patchy.with_name("target"))
    # Once refused, the server is not asked again.
    assert asked == [0]
    percents = [int(line.removeprefix("copying: ").removesuffix(" %")) for line in told]
    assert percents == sorted(set(percents))
    assert percents[-1] == 100
    assert target.stat().st_blocks <= patchy.stat().st_blocks


def test_what_is_zero_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whole pieces of 64 KiB; a smaller one is not worth it."""
    refusing(errno.EXDEV, monkeypatch)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * GRAIN + bytes(GRAIN) + b"x" + bytes(GRAIN - 1) + b"x")
    copied(source, target)
    with target.open("rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == GRAIN
        assert os.lseek(file.fileno(), GRAIN, os.SEEK_DATA) == 2 * GRAIN
        assert os.lseek(file.fileno(), 2 * GRAIN, os.SEEK_HOLE) == 3 * GRAIN + 1


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_server_that_cannot_copy(patchy: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusing(number, monkeypatch) == []
    copied(patchy, patchy.with_name("target"))


def test_a_server_that_fails(patchy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no reason to try it in another way."""
    refusing(errno.EIO, monkeypatch)
    with both(patchy, patchy.with_name("target")) as (source, target), pytest.raises(OSError, match="Input/output"):
        copying.copy(source, str(patchy), target, silent)


def test_a_share_without_holes_is_not_asked(patchy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's copy would be full of zeros there."""
    asked = refusing(errno.EXDEV, monkeypatch)
    monkeypatch.setattr(copying, "data_ranges", lambda _, size: iter([(0, size)]))
    copied(patchy, patchy.with_name("target"))
    assert asked == []


def test_who_keeps_it_still_is_asked_every_64_mib(tmp_path: Path) -> None:
    source = sparse(tmp_path / "source", 130 * MIB)
    write_at(source, 0, b"x" * (130 * MIB))
    asked = []
    with both(source, tmp_path / "target") as (here, there):
        copying.copy(here, str(source), there, silent, lambda: asked.append(os.fstat(there).st_blocks * 512))
        os.fsync(there)
    assert len(asked) >= 3
    assert (tmp_path / "target").stat().st_blocks >= 130 * MIB // 512


@pytest.mark.parametrize("way", ["by the server", "through here"])
def test_an_image_that_becomes_shorter(patchy: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "through here":
        refusing(errno.EXDEV, monkeypatch)
    target = patchy.with_name("target")
    with both(patchy, target) as (source, there), pytest.raises(OSError, match="became shorter") as failure:
        copying.copy(source, str(patchy), there, silent, lambda: os.truncate(patchy, 0))
    assert failure.value.errno == errno.EIO


# --- Clones ------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_what_shares_blocks(tmp_path: Path, mounted: Mount) -> None:
    disk = sparse(tmp_path / "disk", XFS_SIZE)
    command("mkfs.xfs", "-q", "-m", "reflink=1", disk)
    with mounted("-o", "loop", disk) as share:
        (share / "source").write_bytes(os.urandom(MIB))
        with both(share / "source", share / "target") as (source, target):
            assert copying.clone(source, target)
        assert (share / "target").read_bytes() == (share / "source").read_bytes()
        assert "shared" in command("filefrag", "-v", share / "target")


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EIO, errno.ENOSPC])
def test_what_does_not_share(patchy: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with both(patchy, patchy.with_name("target")) as (source, target):
        if number in (errno.EIO, errno.ENOSPC):
            with pytest.raises(OSError, match=os.strerror(number)):
                copying.clone(source, target)
        else:
            assert not copying.clone(source, target)


# --- What need not be copied -------------------------------------------------------------------------------


def filled(path: Path) -> Path:
    """An ext4 file system in a file without a hole: what is unused holds what was there before."""
    path.write_bytes(b"x" * SIZE)
    command("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0", path)
    return path


def test_what_ext4_does_not_use_is_not_copied(tmp_path: Path) -> None:
    source, target = filled(tmp_path / "source"), tmp_path / "target"
    with both(source, target) as (here, there):
        free = copying.unused(here, str(source))
        copying.copy(here, str(source), there, silent)
    assert sum(end - start for start, end in free) > SIZE // 2
    assert target.stat().st_size == SIZE
    assert target.stat().st_blocks * 512 < SIZE // 2
    command("e2fsck", "-f", "-n", target)
    # What it does use is the same to the byte.
    left = bytearray(source.read_bytes())
    for start, end in free:
        left[start:end] = target.read_bytes()[start:end]
    assert left == target.read_bytes()


def test_of_what_its_maps_are_not_the_last_word(tmp_path: Path) -> None:
    """A journal that waits, another file system, none, and a file too short for one: all of it is copied."""
    waiting, xfs, short = filled(tmp_path / "waiting"), sparse(tmp_path / "xfs", XFS_SIZE), tmp_path / "short"
    write_at(waiting, 1024 + 0x60, bytes([waiting.read_bytes()[1024 + 0x60] | 0x04]))
    command("mkfs.xfs", "-q", xfs)
    short.write_bytes(b"x")
    for path in (waiting, xfs, sparse(tmp_path / "none"), short):
        with path.open("rb") as file:
            assert copying.unused(file.fileno(), str(path)) == []


def test_whose_superblock_it_is(tmp_path: Path) -> None:
    ext4, xfs, short = filled(tmp_path / "ext4"), sparse(tmp_path / "xfs", XFS_SIZE), tmp_path / "short"
    command("mkfs.xfs", "-q", xfs)
    short.write_bytes(b"x")
    found = {}
    for path in (ext4, xfs, short):
        with path.open("rb") as file:
            superblock = copying.superblock_of(file.fileno())
            found[path] = superblock.uuid if superblock else ""
    expected = {path: command("blkid", "-o", "value", "-s", "UUID", path).strip() for path in (ext4, xfs)}
    assert found == {**expected, short: ""}
