"""Every write that a disk got, in order, and the disk as a power cut at any of them would have left it.

QEMU's block driver "blklogwrites" writes the log, in the form of Linux's dm-log-writes
(https://docs.kernel.org/admin-guide/device-mapper/log-writes.html).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .process import LabError, run

MAGIC, VERSION = 0x6A736677736872, 1
SECTOR = 512
FLUSH, DISCARD = 1, 4


@dataclass(frozen=True)
class Write:
    """One request: where it goes in bytes, and what; flush: all that was written before it is then there for good."""

    offset: int
    data: bytes
    flush: bool


def qemu_options(image: Path, log: Path) -> list[str]:
    """One more disk for an emulated machine, /dev/vdb beside a first one, which logs what it gets."""
    log.touch()
    logged = (
        f"driver=blklogwrites,node-name=logged,file=image-file,log=log-file,log-sector-size={SECTOR},"
        "log-super-update-interval=1"
    )
    return [
        *("-blockdev", f"driver=file,node-name=image-file,filename={image}"),
        *("-blockdev", f"driver=file,node-name=log-file,filename={log}"),
        *("-blockdev", logged),
        *("-device", "virtio-blk-pci,drive=logged,logical_block_size=4096,physical_block_size=4096"),
    ]


def read(log: Path) -> Iterator[Write]:
    """What is in a log.

    Raises:
        LabError: it is not one, or has what is not expected here.
    """
    with log.open("rb") as file:
        magic, version, count, sector = struct.unpack("<QQQI", file.read(28))
        if (magic, version, sector) != (MAGIC, VERSION, SECTOR):
            raise LabError(f"{log}: expected a log of writes with sectors of {SECTOR} bytes")
        file.seek(SECTOR)
        for _ in range(count):
            where, length, flags, _ = struct.unpack_from("<QQQQ", file.read(SECTOR))
            if flags & DISCARD:
                raise LabError(f"{log}: a discard, which nobody has asked for")
            data = file.read(length * SECTOR)
            if len(data) != length * SECTOR:
                raise LabError(f"{log}: it ends within a write")
            yield Write(where * SECTOR, data, bool(flags & FLUSH))


class Replay:
    """A disk that goes through its writes once more, and stops at some instants of its life.

    before is the disk before the first write, not changed; work a folder for its copies.
    """

    def __init__(self, before: Path, writes: Sequence[Write], work: Path) -> None:
        self._writes = writes
        self._settled = work / "settled.img"
        self._cut = work / "cut.img"
        self._done = 0
        copy(before, self._settled)

    def cut(self, instant: int, chance: random.Random) -> Path:
        """The disk after a power cut just after that many writes; instants must not go back.

        What was written before the last flush is there; of what came after it, all in half of the cases, and
        otherwise what chance picks, write by write.
        """
        flushes = (number for number in range(instant, self._done, -1) if self._writes[number - 1].flush)
        settled = next(flushes, self._done)
        _apply(self._settled, self._writes[self._done : settled])
        self._done = settled
        copy(self._settled, self._cut)
        pending = self._writes[settled:instant]
        _apply(self._cut, pending if chance.random() < 0.5 else [one for one in pending if chance.random() < 0.5])
        return self._cut


def copy(source: Path, target: Path) -> None:
    """Copy a disk, its holes as well, to a new file.

    Whoever copied the mount of the last one, as a container beside does, keeps its loop device, and mount(8) uses that
    again for the same file: with what the kernel remembers of the disk before. Seen: all records of one instant "lost".
    """
    run(["cp", "--sparse=auto", "--remove-destination", source, target])


def _apply(disk: Path, writes: Sequence[Write]) -> None:
    with disk.open("r+b") as file:
        for write in writes:
            file.seek(write.offset)
            file.write(write.data)
