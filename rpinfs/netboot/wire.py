"""Sockets on the boards' LAN: requests as a board broadcasts them, and what others broadcast. Needs root.

A request that is made here is a DISCOVER alone: no server gives an address away for it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rpinfs.errors import RpinfsError, reason_of
from rpinfs.netboot.packet import PacketError, Reply, parse

SERVER_PORT, CLIENT_PORT = 67, 68
INTERFACES = "see which interfaces there are: ip -brief link"
WAIT_SECONDS = 5.0
"""For all offers. dnsmasq and ISC dhcpd first see for up to three seconds whether somebody has the address already."""


@contextlib.contextmanager
def _bound(interface: str, port: int) -> Iterator[socket.socket]:
    """A socket for broadcasts at a port of one interface, which needs no address. Raises RpinfsError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        try:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            wire.bind(("", port))
        except PermissionError as error:
            raise RpinfsError(f"{interface}: port {port} is for root alone", "sudo rpinfs netboot ...") from error
        except OSError as error:
            raise RpinfsError(f"{interface}: port {port}: {reason_of(error)}", INTERFACES) from error
        yield wire


@dataclass
class Heard:
    """What came within the time.

    Attributes:
        answers: by the transaction of the request that each belongs to.
        faults: what was sent to a client of DHCP and is no packet.
        bridge: what the switch says of its spanning tree; None where it says nothing.
    """

    answers: dict[bytes, list[Reply]]
    faults: list[PacketError] = field(default_factory=list)
    bridge: Bpdu | None = None


def ask(interface: str, requests: Sequence[bytes], seconds: float = WAIT_SECONDS) -> Heard:
    """Broadcast requests and collect all answers to them, until the time is over.

    Whoever floods the LAN is heard out, and no more of it is kept than MOST_ANSWERS to each request.

    Raises:
        RpinfsError: the socket cannot be had, or the interface is down.
    """
    heard = Heard({request[4:8]: [] for request in requests})
    with _bound(interface, CLIENT_PORT) as wire, _of_bridges(interface) as bridges:
        try:
            for request in requests:
                wire.sendto(request, ("255.255.255.255", SERVER_PORT))
        except OSError as error:
            raise RpinfsError(
                f"{interface}: {reason_of(error)}", "is the cable in, and the interface up? see: ip -brief link"
            ) from error
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([wire, bridges], [], [], left)
            if bridges in ready:
                heard.bridge = bpdu(bridges.recv(65536)) or heard.bridge
            if wire in ready:
                _take(heard, *wire.recvfrom(65536))
    return heard


MOST_ANSWERS = 50


def _take(heard: Heard, data: bytes, sender: tuple[str, int]) -> None:
    try:
        reply = parse(data, sender[0])
    except PacketError as fault:
        if len(heard.faults) < MOST_ANSWERS and fault.message not in [one.message for one in heard.faults]:
            heard.faults.append(fault)
        return
    kept = heard.answers.get(reply.transaction)
    if kept is not None and len(kept) < MOST_ANSWERS:
        kept.append(reply)


# Spanning tree (IEEE 802.1D)

_LLC = 0x0004
_BRIDGES = bytes.fromhex("0180c2000000")
_PACKET_ADD_MEMBERSHIP, _PACKET_MR_MULTICAST = 1, 0
_BPDU = struct.Struct("!17xHBBB8xI8xH4H")


@dataclass(frozen=True)
class Bpdu:
    """What a switch says of its spanning tree. `delay`: seconds in each of the two states before a port forwards."""

    rapid: bool
    delay: float


def bpdu(frame: bytes) -> Bpdu | None:
    """Read an Ethernet frame; None where it is no configuration of a spanning tree."""
    if len(frame) < _BPDU.size or frame[:6] != _BRIDGES or frame[14:17] != b"\x42\x42\x03":
        return None
    protocol, version, kind, *_, delay = _BPDU.unpack(frame[: _BPDU.size])
    return Bpdu(version >= 2, delay / 256) if protocol == 0 and kind in (0, 2) else None


@contextlib.contextmanager
def _of_bridges(interface: str) -> Iterator[socket.socket]:
    """A socket for what switches tell each other. Raises RpinfsError."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_LLC)) as wire:
            wire.bind((interface, _LLC))
            member = struct.pack("iHH8s", socket.if_nametoindex(interface), _PACKET_MR_MULTICAST, 6, _BRIDGES)
            wire.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, member)
            yield wire
    except OSError as error:
        raise RpinfsError(f"{interface}: {reason_of(error)}", INTERFACES) from error


_SOL_PACKET = 263


def tie(wire: socket.socket, interface: str, server: str) -> None:
    """Have a socket leave by the boards' LAN, whatever the routes say; nothing changes where no interface is named.

    This machine's own address is never reached by one. Raises OSError.
    """
    if interface and not is_ours(server):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())


def received(wire: socket.socket, most: int, deadline: float) -> bytes:
    """The next bytes of a connection; empty where it was closed.

    One deadline (of time.monotonic()) for all that belongs together: each recv() that has a time of its own lets a
    server that sends a byte now and then go on for ever.

    Raises OSError: TimeoutError at the deadline.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    wire.settimeout(left)
    return wire.recv(most)


def is_ours(address: str) -> bool:
    """Whether an address is this machine's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def new_transaction() -> bytes:
    """Four bytes by which answers are known."""
    return os.urandom(4)
