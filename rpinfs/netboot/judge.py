"""What a board makes of the offers that it gets: which it takes, whose files it asks for, or why it stays dark.

Pure: offers in, a verdict out. Sources: raspberrypi/firmware#670, #801, #871, #1101, #1265 (the boot ROM ignores siaddr
and the server in the menu); raspberrypi/rpi-eeprom#376 (the EEPROM collects offers and prefers one with option 43),
release notes of 2019-10-08 (siaddr); nobodd, docs/explain-pi-netboot.rst.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rpinfs.netboot.boards import Board
from rpinfs.netboot.finding import Gravity
from rpinfs.netboot.packet import BOOT_TEXT, NETMASK, OFFER, ROUTER, SERVER, TFTP_NAME, VENDOR, Reply, address_text

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
        remedy = "set up what rpinfs netboot render makes for your DHCP server"
        remarks.append(
            Remark(12, Gravity.FAULT, f"no offer says a Pi shall boot from it: {_whys(board, offers)}", remedy)
        )
        return Verdict(address, remarks=_sorted(remarks))
    chosen = taking[0]
    tftp, why = tftp_server(board, chosen)
    remarks += _on_way(board, offers, chosen, tftp, why)
    return Verdict(address, chosen.server, tftp if _is_host(tftp) else "", why, _sorted(remarks))


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


def _is_host(address: str) -> bool:
    """Whether this is the address of one machine on a network, as a board can ask it for files."""
    try:
        found = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return not (found.is_multicast or found.is_unspecified or found.is_loopback or found.is_reserved)


def _on_way(board: Board, offers: Sequence[Reply], chosen: Reply, tftp: str, why: str) -> Iterator[Remark]:
    """What is wrong with the server of the files, or stands in the way to it."""
    if not tftp:
        message = f"the offer of {chosen.server} names no server for the files"
        yield Remark(13, Gravity.FAULT, message, f"set option 66 on {chosen.server}")
        return
    if not _is_host(tftp):
        message = f"{chosen.server} names {tftp[:64]!r} by {why}: a board that boots knows no names, an address alone"
        yield Remark(13, Gravity.FAULT, message, f"set option 66 on {chosen.server} to the address")
        return
    if board.needs_card and chosen.relay != NO_ADDRESS:
        message = f"the offer of {chosen.server} came by the relay {chosen.relay}: the ROM of a 3B takes none that did"
        yield Remark(
            33, Gravity.FAULT, message, "have a proxy in the boards' own subnet, as rpinfs netboot render makes one"
        )
    network, router = _network(offers)
    if network is None or ipaddress.IPv4Address(tftp) in network:
        return
    if board.needs_card:
        message = f"{tftp} is not in {network}: the ROM of a 3B fetches from its own subnet alone"
        yield Remark(33, Gravity.FAULT, message, "serve the files in the boards' own subnet")
    elif not router:
        message = f"{tftp} is not in {network}, and no offer names a router: the board does not find the way there"
        yield Remark(13, Gravity.FAULT, message, "set option 3 on the DHCP server, or serve the files in that subnet")


def _network(offers: Sequence[Reply]) -> tuple[ipaddress.IPv4Network | None, bool]:
    """The network that the board gets its address in, and whether a router is named; None where nobody tells."""
    offer = next((offer for offer in offers if offer.yours != NO_ADDRESS), None)
    mask = offer.options.get(NETMASK, b"") if offer else b""
    if offer is None or len(mask) != 4:
        return None, False
    try:
        network = ipaddress.IPv4Network(f"{offer.yours}/{address_text(mask)}", strict=False)
    except ValueError:
        return None, False
    return network, ROUTER in offer.options


_LOOK_AT_SWITCH = (
    "is the cable in, the VLAN right, is a relay in between,"
    " is spanning tree off on the port (its 30 s are more than the 25 s of a 3B)?"
)


def _whys(board: Board, offers: Sequence[Reply]) -> str:
    return "; ".join(f"{offer.server} sends {menu_in_words(board, offer)}" for offer in offers)


def menu_in_words(board: Board, offer: Reply) -> str:
    """What an offer says of booting, where a board does not go by it."""
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
    giving = sorted({offer.server for offer in offers if offer.yours != NO_ADDRESS})
    if len(giving) > 1:
        message = f"{' and '.join(giving)} both give addresses: two DHCP servers on one LAN contradict each other"
        remarks.append(Remark(11, Gravity.WARNING, message, f"switch one of them off, such as that on {giving[-1]}"))
    for offer in offers:
        if offer.options.get(VENDOR) == b"":
            message = f"{offer.server} sends option 43 with length 0"
            remarks.append(
                Remark(
                    12,
                    Gravity.WARNING,
                    message,
                    "Kea needs an option-def for it, as rpinfs netboot render makes it (target kea)",
                )
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
