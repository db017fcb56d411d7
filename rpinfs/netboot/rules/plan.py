"""Rules 6, 28, 32 and 33 on the plan itself."""

from __future__ import annotations

from collections.abc import Iterator

from rpinfs.netboot.finding import Finding, Gravity
from rpinfs.netboot.seen import Seen


def rom_of_the_3b(seen: Seen) -> Iterator[Finding]:
    """A 3B boots from the network reliably only with bootcode.bin on an SD card."""
    for pi in seen.plan.pis if seen.plan else ():
        if pi.board.needs_card:
            message = f"{pi.name} is a 3B: its ROM gives up after 25 s; bootcode.bin alone on an SD card cures it"
            yield Finding(
                33, Gravity.NOTE, "the plan", 0, message, "copy bootcode.bin to an empty FAT card in the board"
            )


RULES = (rom_of_the_3b,)
