"""Rule 33: a 3B, on the plan and on what stands between it and its servers."""

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


def relay(seen: Seen) -> Iterator[Finding]:
    """A relay in between: the ROM of a 3B takes no answer that came by one, and fetches nothing from another subnet."""
    threes = [pi.name for pi in seen.plan.pis if pi.board.needs_card] if seen.plan else []
    for option in seen.dnsmasq if threes else ():
        if option.key == "dhcp-relay":
            message = f"the ROM of a 3B ({', '.join(threes)}) takes no answer that a relay has passed on"
            remedy = "have a proxy in the boards' own subnet, as rpinfs netboot render makes one (target dnsmasq-proxy)"
            yield Finding(33, Gravity.FAULT, option.file, option.line, message, remedy)


RULES = (rom_of_the_3b, relay)
