"""What comes from the LAN: how much of it is kept, and what a switch says of its spanning tree."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from rpinfs.netboot import wire
from rpinfs.netboot.packet import request
from rpinfs.netboot.wire import MOST_ANSWERS, Bpdu, Heard

MINE, OTHERS = b"\1\2\3\4", b"\4\3\2\1"


def frame(version: int = 0, kind: int = 0, delay: int = 15 * 256, protocol: int = 0, **parts: bytes) -> bytes:
    """A configuration BPDU (IEEE 802.1D 9.3.1, 802.1w) in its Ethernet frame: addresses, length, LLC, fields."""
    who = (0, b"root", 4, b"bridge", 0x8001)
    fields = struct.pack("!HBBB8sI8sHHHHH", protocol, version, kind, *who, 0, 5120, 512, delay)
    to = parts.get("to", bytes.fromhex("0180c2000000"))
    return to + b"\2\0\0\0\0\1" + b"\0\x26" + parts.get("llc", b"\x42\x42\x03") + fields


@pytest.mark.parametrize(("sent", "read"), [
    (frame(), Bpdu(False, 15.0)),
    (frame(version=1), Bpdu(False, 15.0)),
    (frame(version=2, kind=2), Bpdu(True, 15.0)),
    (frame(version=3, kind=2, delay=4 * 256 + 128) + b"more", Bpdu(True, 4.5)),
    (frame(kind=0x80), None), (frame(kind=1), None), (frame(protocol=1), None),
    (frame(to=bytes.fromhex("0180c2000001")), None),
    (frame(llc=b"\xaa\xaa\x03"), None), (frame(llc=b"\x42\x42\x04"), None),
    (frame()[:-1], None), (b"", None),
])  # fmt: skip
def test_what_a_switch_says(sent: bytes, read: Bpdu | None) -> None:
    assert wire.bpdu(sent) == read


def test_a_flood_is_not_kept() -> None:
    heard = Heard({MINE: []})
    answer = request(b"\2\0\0\0\0\1", MINE, {})
    wire._take(heard, request(b"\2\0\0\0\0\1", OTHERS, {}), ("192.168.1.1", 67))
    assert heard == Heard({MINE: []}), "of a request that is somebody else's"
    for number in range(MOST_ANSWERS + 5):
        wire._take(heard, answer, (f"192.168.1.{number}", 67))
    assert [one.sender for one in heard.answers[MINE]] == [f"192.168.1.{number}" for number in range(MOST_ANSWERS)]
    for number in range(MOST_ANSWERS + 5):
        wire._take(heard, b"x" * number, ("192.168.1.1", 67))
        wire._take(heard, b"x" * number, ("192.168.1.1", 67))
    assert len({one.message for one in heard.faults}) == len(heard.faults) == MOST_ANSWERS == 50


def test_one_deadline_for_all_of_an_answer() -> None:
    mine, other = socket.socketpair()
    with mine, other:
        other.sendall(b"abc")
        assert wire.received(mine, 2, time.monotonic() + 5) == b"ab"
        with pytest.raises(TimeoutError, match="timed out"):
            wire.received(mine, 2, time.monotonic())
        assert wire.received(mine, 2, time.monotonic() + 5) == b"c", "what is there was not asked for in vain"
        with pytest.raises(TimeoutError):
            wire.received(mine, 2, time.monotonic() + 0.01)
        other.close()
        assert wire.received(mine, 2, time.monotonic() + 5) == b""


def test_whose_an_address_is() -> None:
    assert wire.is_ours("127.0.0.1")
    assert not wire.is_ours("192.0.2.1")
    assert [len(wire.new_transaction()), len({wire.new_transaction() for _ in range(9)})] == [4, 9]
