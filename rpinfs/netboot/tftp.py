"""TFTP as a board speaks it: a question for the size, then the file in blocks. Source: RFC 1350, 2347, 2348, 2349.

A server that stops in the middle, or answers nonsense, is an error of ours within bounded time.
"""

from __future__ import annotations

import socket
import struct
import time

from rpinfs.errors import RpinfsError

PORT = 69
READ, DATA, ACKNOWLEDGE, ERROR, OPTIONS = 1, 3, 4, 5, 6
NOT_FOUND, ABORTED = 1, 8
BLOCK_SIZE = 1468
"""Bytes: one block fills one Ethernet frame; what EEPROMs of October 2022 and later ask for."""

ANSWER_SECONDS = 1.0
TRIES = 4
LARGEST = 256 << 20


class TftpError(RpinfsError):
    """A file that the server does not give, or a server that does not answer."""


class NotServedError(TftpError):
    """The server answers, and has no such file: some are asked for and missing at every boot."""


class SilentError(TftpError):
    """Nobody answers at port 69."""


def size(server: str, path: str) -> int:
    """Ask for the length of a file in bytes, and abort, as a board does ("Early terminate" in the server's log).

    Returns -1 where the server has the file and knows no tsize.

    Raises:
        NotServedError: it is not there. SilentError: nobody answers. TftpError: the server refuses.
    """
    with _Exchange(server, path, {"tsize": "0"}) as exchange:
        kind, body = exchange.first()
        exchange.abort()
    return int(_options(body).get("tsize", "-1")) if kind == OPTIONS else -1


def fetch(server: str, path: str, seconds: float = 30.0) -> bytes:
    """Fetch a whole file. Raises as size(); TftpError where it stops in the middle."""
    with _Exchange(server, path, {"blksize": str(BLOCK_SIZE), "tsize": "0"}) as exchange:
        return exchange.whole(time.monotonic() + seconds)


class _Exchange:
    def __init__(self, server: str, path: str, options: dict[str, str]) -> None:
        self.server = server
        self.path = path
        self.wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.to: tuple[str, int] = (server, PORT)
        words = (path, "octet", *(word for pair in options.items() for word in pair))
        self.request = struct.pack("!H", READ) + b"".join(
            word.encode("utf-8", "surrogateescape") + b"\0" for word in words
        )

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def first(self) -> tuple[int, bytes]:
        """Ask, and take the first answer: its kind and its body."""
        return self._exchanged(self.request, (OPTIONS, DATA), 1)

    def whole(self, deadline: float) -> bytes:
        kind, body = self.first()
        block, data = 512, bytearray()
        number = 0
        if kind == OPTIONS:
            block = int(_options(body).get("blksize", "512"))
            body = self._block(1)
        while True:
            number += 1
            data += body
            if len(body) < block:
                self.wire.sendto(struct.pack("!HH", ACKNOWLEDGE, number & 0xFFFF), self.to)
                return bytes(data)
            if len(data) > LARGEST:
                raise TftpError(f"{self.server}: {self.path}: expected at most {LARGEST} bytes, found more")
            if time.monotonic() > deadline:
                raise TftpError(f"{self.server}: {self.path}: stopped after {len(data)} bytes")
            body = self._block(number + 1, number)

    def _block(self, number: int, acknowledged: int = 0) -> bytes:
        message = struct.pack("!HH", ACKNOWLEDGE, acknowledged & 0xFFFF)
        return self._exchanged(message, (DATA,), number)[1]

    def _exchanged(self, message: bytes, kinds: tuple[int, ...], number: int) -> tuple[int, bytes]:
        for _ in range(TRIES):
            try:
                self.wire.sendto(message, self.to)
            except OSError as error:
                raise SilentError(f"{self.server}: port 69: {error.strerror}") from error
            deadline = time.monotonic() + ANSWER_SECONDS
            while (left := deadline - time.monotonic()) > 0:
                found = self._received(left)
                if found is None:
                    break
                kind, body = found
                if kind == DATA and DATA in kinds and len(body) >= 2:
                    if struct.unpack("!H", body[:2])[0] == number & 0xFFFF:
                        return kind, body[2:]
                elif kind in kinds:
                    return kind, body
        if self.to[1] != PORT:
            raise TftpError(f"{self.server}: {self.path}: the server stopped in the middle")
        raise SilentError(f"{self.server}: nobody answers at port 69 (TFTP)")

    def _received(self, seconds: float) -> tuple[int, bytes] | None:
        self.wire.settimeout(seconds)
        try:
            packet, sender = self.wire.recvfrom(65536)
        except TimeoutError:
            return None
        except OSError as error:
            raise SilentError(f"{self.server}: port 69: {error.strerror}") from error
        if sender[0] != self.server or len(packet) < 2:
            return 0, b""
        self.to = sender
        kind = struct.unpack("!H", packet[:2])[0]
        if kind == ERROR:
            code = struct.unpack("!H", packet[2:4].rjust(2, b"\0"))[0]
            said = packet[4:].partition(b"\0")[0].decode("utf-8", "replace")
            message = f"{self.server}: {self.path}: {said or f'TFTP error {code}'}"
            raise NotServedError(message) if code == NOT_FOUND or "not found" in said.lower() else TftpError(message)
        return kind, packet[2:]

    def abort(self) -> None:
        self.wire.sendto(struct.pack("!HH", ERROR, ABORTED) + b"only the size was wanted\0", self.to)


def _options(body: bytes) -> dict[str, str]:
    words = [word.decode("ascii", "replace").lower() for word in body.split(b"\0")]
    found = dict(zip(words[::2], words[1::2], strict=False))
    return {key: value for key, value in found.items() if value.isdigit() and len(value) < 12}
