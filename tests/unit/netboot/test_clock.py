"""What time another machine says that it is: real sockets on this machine's loopback."""

from __future__ import annotations

import email.utils
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rpinfs.netboot import clock

HERE = "127.0.0.1"


@contextmanager
def ntp(answer: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A server of NTP; gives what it was sent."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HERE, 0))
        monkeypatch.setattr(clock, "NTP_PORT", server.getsockname()[1])

        def serve() -> None:
            packet, sender = server.recvfrom(4096)
            asked.append(packet)
            server.sendto(answer(packet), sender)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        thread.join(10)


def told(ahead: float, mode: int = 4, length: int = 48) -> bytes:
    """A server's packet (RFC 5905, 7.3), with its transmit timestamp."""
    now = time.time() + ahead + 2_208_988_800
    return (bytes([0x20 | mode]) + bytes(39) + struct.pack("!II", int(now), int(now % 1 * (1 << 32))))[:length]


@pytest.mark.parametrize("ahead", [0.0, 100.25, -100.25])
def test_by_ntp(ahead: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with ntp(lambda _: told(ahead), monkeypatch) as asked:
        found = clock._by_ntp(HERE, "")
    assert found == pytest.approx(ahead, abs=5)
    assert asked == [b"\x23" + bytes(47)], "a client of version 4, and nothing behind its 48 bytes"


@pytest.mark.parametrize(("mode", "length"), [(3, 48), (0, 48), (4, 47), (4, 0)])
def test_what_is_no_answer_of_a_server(mode: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with ntp(lambda _: told(0, mode, length), monkeypatch):
        assert clock._by_ntp(HERE, "") is None


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind((HERE, 0))
        monkeypatch.setattr(clock, "NTP_PORT", closed.getsockname()[1])
    monkeypatch.setattr(clock, "WEB_PORTS", (clock.NTP_PORT,))
    assert clock.skew(HERE) is None


@pytest.mark.parametrize(("head", "ahead"), [
    ("HTTP/1.1 200 OK\r\nserver: x\r\ndate: {date}\r\n\r\nbody", 3600.0),
    ("HTTP/1.1 404 Not Found\r\nDate:{date}\r\n", 3600.0),
    ("HTTP/1.1 200 OK\r\nDate: yesterday\r\n\r\n", None), ("HTTP/1.1 200 OK\r\n\r\n", None), ("", None),
])  # fmt: skip
def test_by_a_web_page(head: str, ahead: float | None) -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    asked = b""
    with socket.create_server((HERE, 0)) as server:

        def serve() -> None:
            nonlocal asked
            wire, _ = server.accept()
            with wire:
                asked = wire.recv(4096)
                wire.sendall(head.format(date=date).encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        found = clock._by_web(HERE, server.getsockname()[1], "")
        thread.join(10)
    assert found == (None if ahead is None else pytest.approx(ahead, abs=5))
    assert asked == b"HEAD / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
