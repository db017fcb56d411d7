"""Sockets on the boards' LAN: requests as a board broadcasts them, and what others broadcast. Needs root.

A request that is made here is a DISCOVER alone: no server gives an address away for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence

from rpinfs.errors import RpinfsError
from rpinfs.netboot.packet import PacketError, Reply, parse

SERVER_PORT, CLIENT_PORT, NETCONSOLE_PORT = 67, 68, 6666
_IPV4 = 0x0800
_INTERFACES = "ip -brief link lists the interfaces"
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
            raise RpinfsError(
                f"{interface}: port {port}: {error.strerror}", "ip -brief link lists the interfaces"
            ) from error
        yield wire


Answers = dict[bytes, list[Reply]]
"""By the transaction of the request that each belongs to."""


def ask(interface: str, requests: Sequence[bytes], seconds: float = WAIT_SECONDS) -> tuple[Answers, list[PacketError]]:
    """Broadcast requests and collect all answers to them, until the time is over; and what was no packet.

    Raises:
        RpinfsError: the socket cannot be had, or the interface is down.
    """
    answers: Answers = {request[4:8]: [] for request in requests}
    faults: list[PacketError] = []
    with _bound(interface, CLIENT_PORT) as wire:
        try:
            for request in requests:
                wire.sendto(request, ("255.255.255.255", SERVER_PORT))
        except OSError as error:
            raise RpinfsError(f"{interface}: {error.strerror}", "is the cable in? ip -brief link") from error
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            wire.settimeout(left)
            try:
                data, sender = wire.recvfrom(65536)
                reply = parse(data, sender[0])
            except TimeoutError:
                break
            except PacketError as fault:
                faults.append(fault)
                continue
            if reply.transaction in answers:
                answers[reply.transaction].append(reply)
    return answers, faults


def new_transaction() -> bytes:
    """Four bytes by which answers are known."""
    return os.urandom(4)


def listen(interface: str, seconds: float | None = None) -> Iterator[tuple[int, bytes, str]]:
    """What is sent to DHCP servers and what EEPROMs log: (port, bytes, sender), until the time is over.

    By a packet socket (packet(7)): a DHCP server on this host has the port already, and need not share it.

    Raises:
        RpinfsError: the socket cannot be had.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    try:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_IPV4))
    except PermissionError as error:
        raise RpinfsError(f"{interface}: listening is for root alone", "sudo rpinfs netboot watch ...") from error
    with wire:
        try:
            wire.bind((interface, _IPV4))
        except OSError as error:
            raise RpinfsError(f"{interface}: {error.strerror}", _INTERFACES) from error
        while deadline is None or time.monotonic() < deadline:
            wire.settimeout(None if deadline is None else max(0.01, deadline - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                if (heard := _datagram(wire.recv(65536))) and heard[0] in (SERVER_PORT, NETCONSOLE_PORT):
                    yield heard


def _datagram(packet: bytes) -> tuple[int, bytes, str] | None:
    """Port, body and sender of an IPv4 packet with a whole UDP datagram in it; None of any other."""
    head = 4 * (packet[0] & 15) if packet else 0
    if len(packet) < head + 8 or head < 20 or packet[9] != socket.IPPROTO_UDP:
        return None
    length = int.from_bytes(packet[head + 4 : head + 6], "big")
    return (
        int.from_bytes(packet[head + 2 : head + 4], "big"),
        packet[head + 8 : head + length],
        socket.inet_ntoa(packet[12:16]),
    )
