"""What boards and the servers of this LAN say to each other, as far as it can be heard at one interface. Needs root.

By a packet socket (packet(7)): a DHCP server on this host has its port already, and need not share it. What a switch
does not bring here is not heard: of another host's servers that is all that is not broadcast.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rpinfs.errors import RpinfsError, reason_of
from rpinfs.netboot.rpc import NFS_PORT
from rpinfs.netboot.tftp import PORT as TFTP_PORT
from rpinfs.netboot.wire import CLIENT_PORT, INTERFACES, SERVER_PORT

NETCONSOLE_PORT = 6666
TICK_SECONDS = 5.0

_ALL, _IPV4 = 0x0003, 0x0800
_ATTACH_FILTER = 26
_UDP_PORTS = (SERVER_PORT, CLIENT_PORT, TFTP_PORT, NETCONSOLE_PORT)


@dataclass(frozen=True)
class Said:
    """A datagram, or the beginning of a TCP connection, which has no data. `port`: that it is sent to."""

    port: int
    data: bytes
    sender: str
    to: str = ""


def listen(interface: str, seconds: float | None = None, tick: float = TICK_SECONDS) -> Iterator[Said | None]:
    """What is heard, and None now and then where it is quiet, until the time is over.

    Raises:
        RpinfsError: the socket cannot be had.
    """
    begun = time.monotonic()
    try:
        # With what this host sends itself: the offers of a server that is here.
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    except PermissionError as error:
        raise RpinfsError(f"{interface}: listening is for root alone", "sudo rpinfs netboot watch ...") from error
    with wire:
        try:
            _attach(wire)
            wire.bind((interface, _ALL))
        except OSError as error:
            raise RpinfsError(f"{interface}: {reason_of(error)}", INTERFACES) from error
        next_tick = begun + tick
        while seconds is None or time.monotonic() < begun + seconds:
            wire.settimeout(max(0.01, next_tick - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                try:
                    packet = wire.recv(65536)
                except TimeoutError:
                    raise
                except OSError as error:
                    raise RpinfsError(f"{interface}: {reason_of(error)}", INTERFACES) from error
                if (heard := said(packet)) is not None:
                    yield heard
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + tick
                yield None


def said(packet: bytes) -> Said | None:
    """Read an IPv4 packet; None where it is not of those that are listened for, or not whole."""
    head = 4 * (packet[0] & 15) if packet else 0
    if len(packet) < head + 8 or head < 20 or packet[6] & 0x1F or packet[7]:
        return None
    port = int.from_bytes(packet[head + 2 : head + 4], "big")
    sender, to = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    if packet[9] == socket.IPPROTO_UDP and port in _UDP_PORTS:
        length = int.from_bytes(packet[head + 4 : head + 6], "big")
        return Said(port, packet[head + 8 : head + length], sender, to)
    if packet[9] == socket.IPPROTO_TCP and port == NFS_PORT and len(packet) > head + 13:
        return Said(port, b"", sender, to) if packet[head + 13] & 0x12 == 0x02 else None
    return None


def _attach(wire: socket.socket) -> None:
    """Have the kernel drop all else: on a NAS that would be every packet of every Pi's disk. Raises OSError."""
    program = b"".join(struct.pack("=HBBI", *step) for step in _program())
    held = ctypes.create_string_buffer(program)
    wire.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(held)))


_LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_AT, _LOAD_BYTE_AT, _HEAD = 0x28, 0x30, 0x48, 0x50, 0xB1
_IF_EQUAL, _IF_SET, _AND, _RETURN = 0x15, 0x45, 0x54, 0x06
_PROTOCOL = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL


def _program() -> list[tuple[int, int, int, int]]:
    """IPv4, no later piece of a packet; UDP to our ports, or a TCP connection to NFS that begins (bpf(4))."""
    tcp = [(_LOAD_HALF_AT, 0, 0, 2), (_IF_EQUAL, 0, 4, NFS_PORT), (_LOAD_BYTE_AT, 0, 0, 13), (_AND, 0, 0, 0x12),
           (_IF_EQUAL, 0, 1, 0x02), (_RETURN, 0, 0, 0xFFFF), (_RETURN, 0, 0, 0)]  # fmt: skip
    ports = list(_UDP_PORTS)
    udp = [(_LOAD_HALF_AT, 0, 0, 2)]
    udp += [(_IF_EQUAL, len(ports) - number, 0, port) for number, port in enumerate(ports)]
    udp += [(_RETURN, 0, 0, 0), (_RETURN, 0, 0, 0xFFFF)]
    head = [(_LOAD_HALF, 0, 0, _PROTOCOL), (_IF_EQUAL, 1, 0, _IPV4), (_RETURN, 0, 0, 0),
            (_LOAD_HALF, 0, 0, 6), (_IF_SET, 0, 1, 0x1FFF), (_RETURN, 0, 0, 0),
            (_HEAD, 0, 0, 0), (_LOAD_BYTE, 0, 0, 9), (_IF_EQUAL, 2, 0, socket.IPPROTO_UDP),
            (_IF_EQUAL, 1 + len(udp), 0, socket.IPPROTO_TCP), (_RETURN, 0, 0, 0)]  # fmt: skip
    return [*head, *udp, *tcp]
