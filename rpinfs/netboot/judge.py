"""What a board makes of the offers that it gets: which it takes, whose files it asks for, or why it stays dark.

Pure: offers in, a verdict out. Sources: raspberrypi/firmware#670, #801, #871, #1101, #1265 (the boot ROM ignores siaddr
and the server in the menu); raspberrypi/rpi-eeprom#376 (the EEPROM collects offers and prefers one with option 43),
release notes of 2019-10-08 (siaddr); nobodd, docs/explain-pi-netboot.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rpinfs.netboot.boards import Board
from rpinfs.netboot.finding import Gravity
from rpinfs.netboot.packet import BOOT_TEXT, OFFER, SERVER, TFTP_NAME, VENDOR, Reply

NO_ADDRESS = "0.0.0.0"


@dataclass(frozen=True)
class Remark:
    """One sentence about an offer: `rule` of netboot check, how grave it is, what to do."""

    rule: int
    gravity: Gravity
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a board does.

    Attributes:
        address: the one it gets, empty where nobody offers one.
        says_boot: the server whose "boot from here" it takes, empty where none does.
        tftp: where it asks for its files, empty where it asks nowhere.
        why: by what it asks there: "option 66", "siaddr", "option 54".
        remarks: what is wrong or odd, the gravest first.
    """

    address: str = ""
    says_boot: str = ""
    tftp: str = ""
    why: str = ""
    remarks: Sequence[Remark] = field(default_factory=tuple)

    @property
    def boots(self) -> bool:
        """Whether it goes on to ask for files."""
        return bool(self.tftp and self.address)


def judge(board: Board, replies: Sequence[Reply]) -> Verdict:
    """Decide as the boot ROM or the EEPROM of a board does."""
    offers = [reply for reply in replies if reply.kind == OFFER]
    address = next((offer.yours for offer in offers if offer.yours != NO_ADDRESS), "")
    remarks: list[Remark] = []
    if not offers:
        return Verdict(remarks=(Remark(12, Gravity.FAULT, "no DHCP server answers at all", _LOOK_AT_SWITCH),))
    if not address:
        servers = ", ".join(sorted({offer.server for offer in offers}))
        message = f"nobody gives it an address: {servers} only says where to boot from"
        remarks.append(Remark(12, Gravity.FAULT, message, "look at the DHCP server of this LAN"))
    taking = [offer for offer in offers if takes(board, offer)]
    remarks += _on_menus(board, offers, taking)
    if not taking:
        remedy = "rpinfs netboot render, and what it says for your DHCP server"
        remarks.append(
            Remark(12, Gravity.FAULT, f"no offer says a Pi shall boot from it: {_whys(board, offers)}", remedy)
        )
        return Verdict(address, remarks=_sorted(remarks))
    chosen = taking[0]
    tftp, why = tftp_server(board, chosen)
    if not tftp:
        remarks.append(
            Remark(13, Gravity.FAULT, f"the offer of {chosen.server} names no server for the files", "set option 66")
        )
    return Verdict(address, chosen.server, tftp, why, _sorted(remarks))


def takes(board: Board, offer: Reply) -> bool:
    """Whether a board goes by this offer. The EEPROM takes option 66 alone, too."""
    vendor = offer.options.get(VENDOR, b"")
    if board.model == "3B":
        return BOOT_TEXT + b"   " in vendor
    return BOOT_TEXT in vendor or (board.eeprom and bool(offer.tftp_name))


def tftp_server(board: Board, offer: Reply) -> tuple[str, str]:
    """Where the files are asked for, and by what."""
    if offer.tftp_name:
        return offer.tftp_name, "option 66"
    if board.eeprom and offer.next_server != NO_ADDRESS:
        return offer.next_server, "siaddr"
    return (offer.server, "option 54") if SERVER in offer.options else ("", "")


_LOOK_AT_SWITCH = (
    "is the cable in, the VLAN right, is a relay in between,"
    " is spanning tree off on the port (its 30 s are more than the 25 s of a 3B)?"
)


def _whys(board: Board, offers: Sequence[Reply]) -> str:
    return "; ".join(f"{offer.server} sends {_menu_in_words(board, offer)}" for offer in offers)


def _menu_in_words(board: Board, offer: Reply) -> str:
    vendor = offer.options.get(VENDOR)
    if vendor is None:
        return "no option 43"
    if not vendor:
        return "an option 43 of length 0"
    if BOOT_TEXT in vendor:
        return f"the text without the three spaces that the ROM of a {board.model} wants"
    return f'an option 43 without "{BOOT_TEXT.decode()}"'


def _on_menus(board: Board, offers: Sequence[Reply], taking: Sequence[Reply]) -> list[Remark]:
    remarks = []
    servers = sorted({offer.server for offer in taking})
    if len(servers) > 1:
        message = f'{" and ".join(servers)} both say "boot from here": which of them it takes is chance'
        remarks.append(Remark(11, Gravity.FAULT, message, f"switch one of them off, such as that on {servers[-1]}"))
    for offer in offers:
        if offer.options.get(VENDOR) == b"":
            message = f"{offer.server} sends option 43 with length 0"
            remarks.append(
                Remark(12, Gravity.WARNING, message, "Kea needs an option-def for it: rpinfs netboot render --for kea")
            )
        if offer.options.get(TFTP_NAME, b"").endswith(b"\0"):
            message = f"{offer.server} sends option 66 with a NUL at its end, over which EEPROMs of before 2020 stumble"
            remarks.append(Remark(14, Gravity.NOTE, message))
        elsewhere = offer.next_server not in (NO_ADDRESS, offer.server) and not offer.tftp_name
        if elsewhere and not board.eeprom and offer in taking:
            message = (
                f"{offer.server} names {offer.next_server} by next-server, which the boot ROM ignores:"
                f" it asks {offer.server} itself"
            )
            remarks.append(Remark(13, Gravity.WARNING, message, f"set option 66 to {offer.next_server}"))
    return remarks


def _sorted(remarks: list[Remark]) -> tuple[Remark, ...]:
    return tuple(sorted(remarks, key=lambda one: -one.gravity))
