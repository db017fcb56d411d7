"""What time another machine has: by NTP (RFC 5905), else by the Date of its web page (RFC 9110)."""

from __future__ import annotations

import email.utils
import socket
import struct
import time

from rpinfs.netboot.wire import received, tie

NTP_PORT = 123
WEB_PORTS = (80, 5000)
"""5000 is that of Synology's DSM."""

SECONDS = 1.0
_SINCE_1900 = 2_208_988_800
_LONGEST_ANSWER = 4096


def skew(server: str, interface: str = "") -> float | None:
    """Seconds that a machine's clock is ahead of ours; None where it does not tell. A web page knows whole seconds."""
    if (found := _by_ntp(server, interface)) is not None:
        return found
    return next((found for port in WEB_PORTS if (found := _by_web(server, port, interface)) is not None), None)


def _by_ntp(server: str, interface: str) -> float | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        try:
            tie(wire, interface, server)
            wire.settimeout(SECONDS)
            wire.connect((server, NTP_PORT))
            # Version 4, client.
            wire.send(b"\x23".ljust(48, b"\0"))
            answer = wire.recv(512)
        except OSError:
            return None
    # A server that is not synchronised itself has stratum 0 or 16: its clock is what is asked for all the same.
    if len(answer) < 48 or answer[0] & 7 != 4:
        return None
    whole, part = struct.unpack("!II", answer[40:48])
    return float(whole - _SINCE_1900 + part / (1 << 32)) - time.time()


def _by_web(server: str, port: int, interface: str, seconds: float = SECONDS) -> float | None:
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as wire:
        try:
            tie(wire, interface, server)
            wire.settimeout(seconds)
            wire.connect((server, port))
            wire.sendall(b"HEAD / HTTP/1.0\r\nHost: " + server.encode() + b"\r\n\r\n")
            answer = b""
            while len(answer) < _LONGEST_ANSWER and b"\r\n\r\n" not in answer:
                if not (piece := received(wire, 1024, deadline)):
                    break
                answer += piece
        except OSError:
            return None
    for line in answer.decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        if name.lower() == "date":
            try:
                return email.utils.parsedate_to_datetime(value.strip()).timestamp() - time.time()
            except (ValueError, OverflowError):
                return None
    return None
