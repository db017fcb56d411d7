"""The largest packet that comes through to another machine and back: pings that may not be cut up (RFC 792, 1191).

Something in between that takes shorter frames than both ends drops the long ones without a word, and what is short, a
ping, a login, a small file, goes on working.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass

from rpinfs.errors import reason_of
from rpinfs.netboot.wire import is_ours, tie

USUAL = 1500
"""Bytes: what a board takes and sends, unless a DHCP server says otherwise."""

LEAST = 576
"""Bytes: what IP lets every host take (RFC 791)."""

ANSWER_SECONDS = 0.5
TRIES = 3
OURS = "it is this machine itself"
_HEADS = 28
"""Bytes of IP and ICMP in front of what a ping carries."""

_ECHO, _REPLY = 8, 0
_MTU_DISCOVER, _PROBE = 10, 3
_SIOCGIFMTU = 0x8921
_REQUEST = struct.Struct("16sLLHBBB0L")
"""A name, and the longest of what can be asked for (netdevice(7)); the MTU is an int at its beginning."""


@dataclass(frozen=True)
class Passage:
    """The way to another machine.

    Attributes:
        largest: packet that came back, in bytes; 0 where none did.
        own: MTU of this machine's interface.
        why_not: why nobody could ask; empty where somebody did.
    """

    largest: int
    own: int
    why_not: str = ""


def way_to(server: str, interface: str, seconds: float = ANSWER_SECONDS) -> Passage:
    """Find the largest packet of USUAL bytes or less. Never raises: what goes wrong is the answer."""
    own = _of(interface)
    if is_ours(server):
        return Passage(0, own, OURS)
    try:
        with _socket() as wire:
            tie(wire, interface, server)
            wire.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _PROBE)
            wire.connect((server, 0))
            return Passage(_largest(wire, min(own or USUAL, USUAL), seconds), own)
    except OSError as error:
        return Passage(0, own, reason_of(error))


def _of(interface: str) -> int:
    """The MTU of an interface; 0 where that cannot be told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        try:
            found = fcntl.ioctl(wire, _SIOCGIFMTU, _REQUEST.pack(interface.encode()[:15], *[0] * 6))
        except OSError:
            return 0
    return int.from_bytes(found[16:20], sys.byteorder)


def _socket() -> socket.socket:
    """Raw as root; else the kernel's own pings, which it allows to some groups (icmp(7), ping_group_range)."""
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


def _largest(wire: socket.socket, most: int, seconds: float) -> int:
    """By halves; whoever does not answer the smallest one answers no pings."""
    if _comes_back(wire, most, seconds):
        return most
    if not _comes_back(wire, LEAST, seconds):
        return 0
    good, bad = LEAST, most
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _comes_back(wire, middle, seconds) else (good, middle)
    return good


def _comes_back(wire: socket.socket, size: int, seconds: float) -> bool:
    """Whether one of some pings of this many bytes is answered."""
    mark = os.urandom(8)
    body = mark.ljust(size - _HEADS, b"\0")
    for number in range(1, TRIES + 1):
        try:
            wire.send(_with_checksum(struct.pack("!BBHHH", _ECHO, 0, 0, os.getpid() & 0xFFFF, number) + body))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            continue  # Too long for our own interface; or a router's late word on a longer one before.
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and select.select([wire], [], [], left)[0]:
            if _answers(wire, body):
                return True
    return False


def _answers(wire: socket.socket, body: bytes) -> bool:
    """Whether what has come is the answer to our ping, whole. A raw socket hears all others, too."""
    try:
        packet = wire.recv(65536)
    except OSError:
        return False  # What a router says of a packet before; the deadline ends it.
    if wire.type == socket.SOCK_RAW and packet:
        packet = packet[4 * (packet[0] & 15) :]
    return packet[:1] == bytes([_REPLY]) and packet[8:] == body


def _with_checksum(packet: bytes) -> bytes:
    total = sum(word for (word,) in struct.iter_unpack("!H", packet.ljust(len(packet) + len(packet) % 2, b"\0")))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return packet[:2] + struct.pack("!H", ~total & 0xFFFF) + packet[4:]
