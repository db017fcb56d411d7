"""A disk of an emulated machine whose flushes take as long as on a real one, and are counted.

A lab on its own fast disk hides what a sync costs: on a hard disk some 6 ms, on an SSD about one.
"""

from __future__ import annotations

import struct
from pathlib import Path

from .process import run

SOURCE = Path(__file__).with_name("slow_disk.c")
_NUMBERS = struct.Struct("=QQ")


class SlowDisk:
    """For a QEMU that is started with the words of argv() before its own, and a disk of `cache=writeback`."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "slow_disk.so"
        self._numbers = folder / "flushes"
        run(["gcc", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", self._library, SOURCE])
        self._numbers.write_bytes(_NUMBERS.pack(0, 0))

    def argv(self) -> list[str]:
        """What to start QEMU with."""
        return ["env", f"LD_PRELOAD={self._library}", f"FLUSHES={self._numbers}"]

    @property
    def flushes(self) -> int:
        """How many there were so far."""
        count: int = _NUMBERS.unpack(self._numbers.read_bytes())[0]
        return count

    def take(self, milliseconds: float) -> None:
        """Let each flush from now on take so long."""
        with self._numbers.open("r+b") as file:
            file.seek(8)
            file.write(struct.pack("=Q", round(milliseconds * 1000)))
