"""Pings of a certain length: their checksum, and which packet is the answer to one."""

from __future__ import annotations

import socket
import struct

import pytest

from rpinfs.netboot import mtu


def total_of(packet: bytes) -> int:
    """Sum of all words in ones' complement (RFC 1071)."""
    total = sum(word for (word,) in struct.iter_unpack("!H", packet + bytes(len(packet) % 2)))
    return total % 0xFFFF or 0xFFFF


@pytest.mark.parametrize(
    "body", [b"", b"a", b"ab", b"abc", bytes(1452), b"\xff" * 1453, bytes(range(256)) * 3 + b"x"], ids=len
)
def test_checksums(body: bytes) -> None:
    packet = struct.pack("!BBHHH", 8, 0, 0, 0x1234, 1) + body
    made = mtu._with_checksum(packet)
    assert total_of(made) == 0xFFFF, "with its checksum in it, a packet adds up to that"
    assert made[:2] + bytes(2) + made[4:] == packet
    assert made[2:4] != bytes(2) or total_of(packet) == 0xFFFF


@pytest.mark.parametrize(("packet", "is_answer"), [
    (b"\0\0\x12\x34\0\0\0\1body", True), (b"\x08\0\x12\x34\0\0\0\1body", False), (b"\0\0\0\0\0\0\0\1bod", False),
    (b"\0\0\0\0\0\0\0\1body more", False), (b"x", False),
])  # fmt: skip
def test_which_is_the_answer(packet: bytes, is_answer: bool) -> None:
    mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with mine, other:
        other.send(packet)
        assert mtu._answers(mine, b"body") is is_answer
