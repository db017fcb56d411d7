"""Packets: what boards send, and that nothing from the wire is more than an error of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.netboot.boards import BOARDS, folder_of
from rpinfs.netboot.packet import (
    MACHINE_ID,
    OFFER,
    VENDOR,
    VENDOR_CLASS_ID,
    PacketError,
    boot_menu,
    discover,
    parse,
    request,
    suboptions,
)
from rpinfs.netboot.watch import asking

MAC, SERIAL, TRANSACTION = bytes.fromhex("dca632123456"), bytes.fromhex("1a2b3c4d"), b"\1\2\3\4"


@pytest.mark.parametrize("model", list(BOARDS))
def test_what_a_board_says(model: str) -> None:
    sent = parse(discover(BOARDS[model], MAC, SERIAL, TRANSACTION), "me")
    assert (sent.transaction, sent.kind) == (TRANSACTION, 1)
    assert sent.options[VENDOR_CLASS_ID] == b"PXEClient:Arch:00000:UNDI:002001"
    guid = {"3B": "44" * 16, "3B+": "4d3c2b1a" * 4}.get(
        model, f"525069{0x30 + int('5' in model) + 4:02x}00000000321234561a2b3c4d"
    )
    assert sent.options[MACHINE_ID].hex() == f"00{guid}"


def test_the_menu_is_dnsmasqs() -> None:
    """Byte for byte what dnsmasq 2.90 sends for pxe-service=0,"Raspberry Pi Boot" (tests/tools/netboot)."""
    head = "0601030a0400505845" + "0914000011"
    assert boot_menu(spaces=False).hex() == f"{head}52617370626572727920506920426f6f74ff"
    assert suboptions(boot_menu())[9] == b"\0\0\x14Raspberry Pi Boot   "


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (b"", "expected at least 240 bytes, found 0"),
        (bytes(300), "no magic cookie"),
        (request(MAC, TRANSACTION, {})[:240] + b"\x2b\xff\1\2", "option 43 is cut short: expected 255 bytes, found 2"),
        (request(MAC, TRANSACTION, {})[:240] + b"\x2b", "option 43 is cut short"),
    ],
)
def test_no_packet(packet: bytes, expected: str) -> None:
    with pytest.raises(PacketError, match=expected):
        parse(packet, "192.168.1.1")


def test_options_in_the_header_and_in_pieces() -> None:
    """RFC 2132 52 (overload) and RFC 3396."""
    head = bytearray(request(MAC, TRANSACTION, {53: bytes([OFFER]), 52: b"\3", 43: b"ab"}))
    head[108:112] = bytes([43, 1, ord("c"), 255])
    head[44:48] = bytes([66, 1, ord("x"), 255])
    found = parse(bytes(head), "s")
    assert (found.options[VENDOR], found.tftp_name, found.boot_file) == (b"abc", "x", "")


@given(st.binary(max_size=400), st.booleans())
def test_anything_from_the_wire(tail: bytes, begun: bool) -> None:
    packet = request(MAC, TRANSACTION, {})[:240] + tail if begun else tail
    try:
        found = parse(packet, "s")
    except PacketError:
        return
    suboptions(found.options.get(VENDOR, b""))
    asking(packet)


def test_folders() -> None:
    assert [folder_of(serial) for serial in ("100000001A2B3C4D", "1a2b3c4d", "0x2b3c4d")] == [
        "1a2b3c4d",
        "1a2b3c4d",
        "002b3c4d",
    ]
