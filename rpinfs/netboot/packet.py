"""DHCP packets as a Pi sends and reads them: requests of each board, options of an answer, the menu in option 43.

Pure: bytes in, values out; nothing here opens a socket. A packet from the wire may be anything: what is cut short or
lies about a length is an error of ours, never an index out of range.
Sources: RFC 2131, RFC 2132, RFC 4578 (options 93, 94, 97), the PXE specification 2.1 (option 43); boards.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rpinfs.errors import RpinfsError
from rpinfs.netboot.boards import VENDOR_CLASS, Board

COOKIE = bytes.fromhex("63825363")
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
NETMASK, ROUTER, VENDOR, REQUESTED, DHCP_TYPE, SERVER, WANTED = 1, 3, 43, 50, 53, 54, 55
VENDOR_CLASS_ID, TFTP_NAME, BOOT_FILE, ARCHITECTURE, UNDI, MACHINE_ID = 60, 66, 67, 93, 94, 97
OVERLOAD, PAD, END = 52, 0, 255

BOOT_TEXT = b"Raspberry Pi Boot"
"""What option 43 must contain for a Pi to take an offer. The ROM of the 3B wants three spaces behind it; the others do
not mind them (LTSP sends them to all)."""

MENU_SUBOPTION = 9
_HEADER = struct.Struct("!4B4sHH4s4s4s4s16s64s128s4s")
_LEAST = 240


class PacketError(RpinfsError):
    """Bytes that are no DHCP packet."""


@dataclass(frozen=True)
class Reply:
    """What a server has answered. Addresses as text, "0.0.0.0" where it gave none.

    Attributes:
        sender: the address that the packet came from.
        yours: the address that it offers (yiaddr); none from a proxy.
        next_server: siaddr. The boot ROM ignores it (raspberrypi/firmware#670, #801).
        boot_file: of the header.
        options: by code; values of a code that comes twice are joined (RFC 3396).
        relay: the relay that has passed it on (giaddr); none where it came straight.
    """

    sender: str
    transaction: bytes
    kind: int
    yours: str
    next_server: str
    boot_file: str
    options: Mapping[int, bytes] = field(default_factory=dict)
    relay: str = "0.0.0.0"

    @property
    def server(self) -> str:
        """The DHCP server by its own word (option 54), else by where the packet came from."""
        value = self.options.get(SERVER, b"")
        return address_text(value) if len(value) == 4 else self.sender

    @property
    def tftp_name(self) -> str:
        """Option 66, without the NUL that dnsmasq puts at its end."""
        return self.options.get(TFTP_NAME, b"").rstrip(b"\0").decode("ascii", "replace")


def discover(board: Board, mac: bytes, serial: bytes, transaction: bytes) -> bytes:
    """The request with which a board begins, as it is broadcast.

    Args:
        mac: six bytes.
        serial: the low four bytes of the serial number, big-endian.
        transaction: four bytes by which the answers are known.
    """
    options = {
        DHCP_TYPE: bytes([DISCOVER]),
        WANTED: bytes([NETMASK, ROUTER, VENDOR, VENDOR_CLASS_ID, TFTP_NAME, BOOT_FILE, 128, 129, 130, 131, 132, 133]),
        ARCHITECTURE: bytes(2),
        UNDI: bytes([1, 2, 1]),
        VENDOR_CLASS_ID: VENDOR_CLASS,
        MACHINE_ID: machine_id(board, mac, serial),
    }
    return request(mac, transaction, options)


def pc_discover(mac: bytes, transaction: bytes) -> bytes:
    """The request of an ordinary PC that netboots by its BIOS: the same but for option 97, which is a UUID."""
    options = {
        DHCP_TYPE: bytes([DISCOVER]),
        WANTED: bytes([NETMASK, ROUTER, VENDOR, VENDOR_CLASS_ID, TFTP_NAME, BOOT_FILE]),
        ARCHITECTURE: bytes(2),
        UNDI: bytes([1, 2, 1]),
        VENDOR_CLASS_ID: VENDOR_CLASS,
        MACHINE_ID: bytes(1) + bytes.fromhex("4c4c4544004d3510") + bytes(2) + mac,
    }
    return request(mac, transaction, options)


def request(mac: bytes, transaction: bytes, options: Mapping[int, bytes]) -> bytes:
    """A packet of a client that has no address yet and wants its answer by broadcast."""
    none = bytes(4)
    head = _HEADER.pack(1, 1, 6, 0, transaction, 0, 0x8000, none, none, none, none, mac, b"", b"", COOKIE)
    coded = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    return (head + coded + bytes([END])).ljust(300, b"\0")


def machine_id(board: Board, mac: bytes, serial: bytes) -> bytes:
    """Option 97 of a board: by it one broadcast tells model, MAC address and the name of the TFTP folder.

    EEPROM (DHCP_OPTION97): type 0, "RPi4" or "RPi5", board revision, low half of the MAC address, serial number. The
    ROM of the 3B+ repeats the serial number four times; that of the 3B sends the byte 0x44 throughout.
    """
    if board.eeprom:
        return bytes(1) + board.guid + bytes(4) + mac[2:] + serial
    return bytes(1) + (b"\x44" * 16 if board.model == "3B" else serial[::-1] * 4)


def parse(packet: bytes, sender: str) -> Reply:
    """Read an answer.

    Raises:
        PacketError: it is not one; the message says what is wrong with it.
    """
    if len(packet) < _LEAST:
        raise PacketError(f"{sender}: expected at least {_LEAST} bytes, found {len(packet)}")
    fields = _HEADER.unpack(packet[:_LEAST])
    if fields[-1] != COOKIE:
        raise PacketError(f"{sender}: expected a DHCP packet, found another (no magic cookie)")
    transaction, yours, next_server, name, file = fields[4], fields[8], fields[9], fields[12], fields[13]
    options: dict[int, bytes] = {}
    _collect(options, packet[_LEAST:], sender)
    overload = options.get(OVERLOAD, b"\0")[:1]
    if overload in (b"\1", b"\3"):
        _collect(options, file, sender)
        file = b""
    if overload in (b"\2", b"\3"):
        _collect(options, name, sender)
    kind = options.get(DHCP_TYPE, b"\0")[:1] or b"\0"
    boot_file = file.partition(b"\0")[0].decode("ascii", "replace")
    addresses = address_text(yours), address_text(next_server)
    return Reply(sender, transaction, kind[0], *addresses, boot_file, options, address_text(fields[10]))


def _collect(options: dict[int, bytes], coded: bytes, sender: str) -> None:
    for code, value in _options(coded, sender):
        options[code] = options.get(code, b"") + value


def _options(coded: bytes, sender: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(coded) and coded[at] != END:
        code = coded[at]
        if code == PAD:
            at += 1
            continue
        length = coded[at + 1] if at + 1 < len(coded) else -1
        value = coded[at + 2 : at + 2 + max(length, 0)]
        if length < 0 or len(value) < length:
            raise PacketError(f"{sender}: option {code} is cut short: expected {length} bytes, found {len(value)}")
        yield code, value
        at += 2 + length


def suboptions(vendor: bytes) -> dict[int, bytes]:
    """The parts of option 43 as far as they are well formed; what comes behind a wrong length is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 1 < len(vendor) and vendor[at] != END:
        if vendor[at] == PAD:
            at += 1
            continue
        length = vendor[at + 1]
        if at + 2 + length > len(vendor):
            break
        found[vendor[at]] = vendor[at + 2 : at + 2 + length]
        at += 2 + length
    return found


def boot_menu(spaces: bool = True) -> bytes:
    """Option 43 as dnsmasq's pxe-service makes it, byte for byte: for servers that take raw bytes.

    06: discovery control 3; 0a: prompt, time-out 0, "PXE"; 09: menu, server type 0, length, the text.
    """
    text = BOOT_TEXT + b"   " * spaces
    menu = bytes([0, 0, len(text)]) + text
    return bytes([6, 1, 3, 10, 4, 0]) + b"PXE" + bytes([MENU_SUBOPTION, len(menu)]) + menu + bytes([END])


def address_text(packed: bytes) -> str:
    """Four bytes as a dotted address."""
    return ".".join(str(byte) for byte in packed)
