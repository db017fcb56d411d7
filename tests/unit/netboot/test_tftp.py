"""What a TFTP client takes for an answer, and from whom: a server on this machine's loopback that says as it is told.

Real servers are in tools/netboot/test_tftp.py.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rpinfs.netboot import tftp

HERE = "127.0.0.1"
READ, DATA, ACKNOWLEDGE, ERROR, OPTIONS = 1, 3, 4, 5, 6


def data(number: int, body: bytes) -> bytes:
    return struct.pack("!HH", DATA, number) + body


def options(**agreed: str) -> bytes:
    return struct.pack("!H", OPTIONS) + b"".join(f"{key}\0{value}\0".encode() for key, value in agreed.items())


def error(code: int, said: str) -> bytes:
    return struct.pack("!HH", ERROR, code) + said.encode() + b"\0"


@contextmanager
def serving(
    answers: list[bytes], monkeypatch: pytest.MonkeyPatch, *, silent: bool = False, seconds: float = 20.0
) -> Iterator[list[bytes]]:
    """A server that gives each packet its answer, from a port of its own; gives what it was sent.

    Args:
        silent: nobody waits for what follows the last answer.
        seconds: that the client waits for each.
    """
    asked: list[bytes] = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own,
    ):
        listening.bind((HERE, 0))
        own.bind((HERE, 0))
        own.settimeout(20)
        monkeypatch.setattr(tftp, "PORT", listening.getsockname()[1])
        monkeypatch.setattr(tftp, "ANSWER_SECONDS", seconds)

        def serve() -> None:
            packet, sender = listening.recvfrom(4096)
            asked.append(packet)
            for number, answer in enumerate(answers, 1):
                own.sendto(answer, sender)
                if number < len(answers) or not silent:
                    asked.append(own.recv(4096))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        thread.join(10)


def acknowledged(number: int) -> bytes:
    return struct.pack("!HH", ACKNOWLEDGE, number)


def test_a_file_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [options(blksize="1024", tsize="1500"), data(1, b"a" * 1024), data(2, b"b" * 476)]
    with serving(answers, monkeypatch) as asked:
        assert tftp.fetch(HERE, "a/b") == b"a" * 1024 + b"b" * 476
    assert asked[0] == struct.pack("!H", READ) + b"a/b\0octet\0blksize\x001468\0tsize\x000\0"
    assert asked[1:] == [acknowledged(0), acknowledged(1), acknowledged(2)]


def test_a_server_without_options(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving([data(1, b"a" * 512), data(2, b"")], monkeypatch) as asked:
        assert tftp.fetch(HERE, "f") == b"a" * 512
    assert asked[1:] == [acknowledged(1), acknowledged(2)]


def test_the_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving([options(tsize="1500")], monkeypatch) as asked:
        assert tftp.size(HERE, "f") == 1500
    assert asked[1][:4] == struct.pack("!HH", ERROR, 8), "the transfer is not left open"
    with serving([data(1, b"abc")], monkeypatch, silent=True):
        assert tftp.size(HERE, "f") == -1, "it does not say"


@pytest.mark.parametrize(("answer", "kind", "said"), [
    (error(1, "File not found"), tftp.NotServedError, "f: File not found"),
    (error(0, "file /f not found"), tftp.NotServedError, "f: file /f not found"),
    (error(2, "no"), tftp.NotReadableError, "f: no"),
    (error(0, "Permission denied"), tftp.NotReadableError, "f: Permission denied"),
    (error(3, ""), tftp.TftpError, "f: TFTP error 3"),
    (error(3, "x" * 300), tftp.TftpError, f"f: {'x' * 200}$"),
    (options(blksize="2000"), tftp.TftpError, "answers with blocks of 2000 bytes to 1468"),
    (options(blksize="7"), tftp.TftpError, "answers with blocks of 7 bytes to 1468"),
    (options(windowsize="4"), tftp.TftpError, "answers windowsize=4, which nobody has asked for"),
    (options(tsize="x"), tftp.TftpError, "answers tsize=x, which nobody has asked for"),
    (data(1, b"a" * 600), tftp.TftpError, "expected blocks of 512 bytes, found one of 600"),
])  # fmt: skip
def test_what_is_refused(answer: bytes, kind: type[tftp.TftpError], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving([answer], monkeypatch, silent=True), pytest.raises(kind, match=said) as caught:
        tftp.fetch(HERE, "f")
    assert type(caught.value) is kind


@pytest.mark.parametrize("answers", [[], [b"\0"], [data(7, b"x")]])
def test_nobody_answers(answers: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answers, monkeypatch, silent=True, seconds=0.2), pytest.raises(tftp.TftpError):
        tftp.size(HERE, "f")


def test_it_stops_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        serving([data(1, b"a" * 512)], monkeypatch, silent=True, seconds=0.5),
        pytest.raises(tftp.StoppedError, match="stopped in the middle"),
    ):
        tftp.fetch(HERE, "f")


def test_a_socket_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interface goes down, or the LAN says that the server cannot be reached."""
    exchange = tftp._Exchange(HERE, "f", {}, "")
    with exchange:

        class Broken:
            def settimeout(self, _: float) -> None: ...

            def recvfrom(self, *_: object) -> None:
                raise OSError(100, "Network is down")

            sendto = recvfrom

            def close(self) -> None: ...

        exchange.wire.close()
        monkeypatch.setattr(exchange, "wire", Broken())
        said = f"{HERE}: port {tftp.PORT}: Network is down"
        with pytest.raises(tftp.SilentError, match=said):
            exchange._received(1.0)
        with pytest.raises(tftp.SilentError, match=said):
            exchange.abort("x")
