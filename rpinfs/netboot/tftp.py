"""TFTP as a board speaks it: a question for the size, then the file in blocks. Source: RFC 1350, 2347, 2348, 2349.

A server that stops in the middle, or answers nonsense, is an error of ours within bounded time.
"""

from __future__ import annotations

import socket
import struct
import time

from rpinfs.errors import RpinfsError, reason_of
from rpinfs.netboot.wire import tie

PORT = 69
READ, DATA, ACKNOWLEDGE, ERROR, OPTIONS = 1, 3, 4, 5, 6
NOT_FOUND, NO_ACCESS, UNKNOWN_PORT, ABORTED = 1, 2, 5, 8
BLOCK_SIZE = 1468
"""Bytes: one block fills one Ethernet frame; what EEPROMs of October 2022 and later ask for."""

SMALL_BLOCK = 512
"""Bytes: what every server sends where nothing was agreed on, and passes wherever IP does."""

ANSWER_SECONDS = 1.0
TRIES = 4
LARGEST = 1 << 20
"""Bytes of a file that is read here, such as config.txt; of a larger one its size is asked for, and its beginning."""

_LONGEST_NAME = 400
_LEAST_BLOCK = 8


class TftpError(RpinfsError):
    """A file that the server does not give, or a server that does not answer."""


class NotServedError(TftpError):
    """The server answers, and has no such file: some are asked for and missing at every boot."""


class NotReadableError(TftpError):
    """The server has the file and must not read it."""


class SilentError(TftpError):
    """Nobody answers at port 69."""


class StoppedError(TftpError):
    """The server began, and stopped in the middle, or what it sent was lost."""


def size(server: str, path: str, interface: str = "") -> int:
    """Ask for the length of a file in bytes, and abort, as a board does ("Early terminate" in the server's log).

    Returns -1 where the server has the file and knows no tsize.

    Args:
        interface: that of the boards' LAN, where this machine has several.

    Raises:
        NotServedError: it is not there. SilentError: nobody answers. TftpError: the server refuses.
    """
    with _Exchange(server, path, {"tsize": "0"}, interface) as exchange:
        kind, body = exchange.first()
        exchange.abort("only the size was wanted")
    return _agreed(exchange, body).get("tsize", -1) if kind == OPTIONS else -1


def begins(server: str, path: str, interface: str = "", block: int = BLOCK_SIZE) -> None:
    """Fetch the first block of a file, and abort. Raises as size(); StoppedError where the block does not come."""
    with _Exchange(server, path, {"blksize": str(block)}, interface) as exchange:
        kind, body = exchange.first()
        if kind == OPTIONS:
            _agreed(exchange, body)
            exchange.block(1)
        exchange.abort("only the beginning was wanted")


def fetch(server: str, path: str, interface: str = "", seconds: float = 15.0) -> bytes:
    """Fetch a whole file of at most LARGEST bytes. Raises as size(); StoppedError where it stops in the middle."""
    with _Exchange(server, path, {"blksize": str(BLOCK_SIZE), "tsize": "0"}, interface) as exchange:
        return exchange.whole(time.monotonic() + seconds)


class _Exchange:
    """One request and what follows it. The server answers from a port of its own, which is then the only one."""

    def __init__(self, server: str, path: str, options: dict[str, str], interface: str) -> None:
        words = (path, "octet", *(word for pair in options.items() for word in pair))
        coded = [word.encode("utf-8", "surrogateescape") for word in words]
        if not path.isprintable() or not 0 < len(coded[0]) <= _LONGEST_NAME:
            raise NotServedError(f"{server}: {path[:80]!r} is no name of a file that a board can ask for")
        self.server = server
        self.path = path
        self.asked = options
        self.to: tuple[str, int] = (server, PORT)
        self.stranger = ""
        self.request = struct.pack("!H", READ) + b"".join(word + b"\0" for word in coded)
        self.wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            tie(self.wire, interface, server)
        except OSError as error:
            self.wire.close()
            raise SilentError(f"{interface}: {reason_of(error)}") from error

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def error(self, what: str) -> TftpError:
        return TftpError(f"{self.server}: {self.path}: {what}")

    def first(self) -> tuple[int, bytes]:
        """Ask, and take the first answer: its kind and its body."""
        return self._exchanged(self.request, (OPTIONS, DATA), 1)

    def block(self, number: int) -> bytes:
        """Acknowledge the block before, and take this one; 1 acknowledges the options."""
        message = struct.pack("!HH", ACKNOWLEDGE, (number - 1) & 0xFFFF)
        return self._exchanged(message, (DATA,), number)[1]

    def whole(self, deadline: float) -> bytes:
        kind, body = self.first()
        block, number, data = SMALL_BLOCK, 1, bytearray()
        if kind == OPTIONS:
            block = _agreed(self, body).get("blksize", SMALL_BLOCK)
            body = self.block(1)
        while True:
            data += body
            if len(body) > block:
                raise self.error(f"expected blocks of {block} bytes, found one of {len(body)}")
            if len(body) < block:
                self._send(struct.pack("!HH", ACKNOWLEDGE, number & 0xFFFF))
                return bytes(data)
            if len(data) > LARGEST:
                self.abort("too long")
                raise self.error(f"expected at most {LARGEST} bytes, found more")
            if time.monotonic() > deadline:
                self.abort("too slow")
                raise StoppedError(f"{self.server}: {self.path}: not done after {len(data)} bytes")
            number += 1
            body = self.block(number)

    def _exchanged(self, message: bytes, kinds: tuple[int, ...], number: int) -> tuple[int, bytes]:
        for _ in range(TRIES):
            self._send(message)
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
            raise StoppedError(f"{self.server}: {self.path}: the server stopped in the middle")
        other = f", but {self.stranger} does in its place" if self.stranger else ""
        raise SilentError(f"{self.server}: nobody answers at port {PORT} (TFTP){other}")

    def _send(self, message: bytes) -> None:
        try:
            self.wire.sendto(message, self.to)
        except OSError as error:
            raise SilentError(f"{self.server}: port {PORT}: {reason_of(error)}") from error

    def _received(self, seconds: float) -> tuple[int, bytes] | None:
        self.wire.settimeout(seconds)
        try:
            packet, sender = self.wire.recvfrom(65536)
        except TimeoutError:
            return None
        except OSError as error:
            raise SilentError(f"{self.server}: port {PORT}: {reason_of(error)}") from error
        if sender[0] != self.server:
            self.stranger = sender[0]
            return 0, b""
        if self.to[1] not in (PORT, sender[1]):
            # RFC 1350: whoever answers from another port is told so, and the exchange goes on with the first.
            self.wire.sendto(struct.pack("!HH", ERROR, UNKNOWN_PORT) + b"unknown transfer\0", sender)
            return 0, b""
        if len(packet) < 4:
            return 0, b""
        self.to = sender
        kind, code = struct.unpack("!HH", packet[:4])
        if kind == ERROR:
            raise self._refused(code, packet[4:].partition(b"\0")[0].decode("utf-8", "replace"))
        return kind, packet[2:]

    def _refused(self, code: int, said: str) -> TftpError:
        message = f"{self.server}: {self.path}: {said[:200] or f'TFTP error {code}'}"
        if code == NOT_FOUND or "not found" in said.lower():
            return NotServedError(message)
        # tftpd-hpa has the words alone, and no code for them.
        denied = code == NO_ACCESS or "permission denied" in said.lower()
        return NotReadableError(message) if denied else TftpError(message)

    def abort(self, why: str) -> None:
        self._send(struct.pack("!HH", ERROR, ABORTED) + why.encode() + b"\0")


def _agreed(exchange: _Exchange, body: bytes) -> dict[str, int]:
    """What a server has agreed to: of what was asked for, and no larger blocks than asked for (RFC 2347, 2348)."""
    words = [word.decode("ascii", "replace").lower() for word in body.split(b"\0")]
    found: dict[str, int] = {}
    for key, value in zip(words[::2], words[1::2], strict=False):
        if key not in exchange.asked or not (value.isascii() and value.isdigit()) or len(value) > 12:
            exchange.abort("not what was asked for")
            raise exchange.error(f"answers {key[:40]}={value[:40]}, which nobody has asked for")
        found[key] = int(value)
    if not _LEAST_BLOCK <= found.get("blksize", SMALL_BLOCK) <= max(SMALL_BLOCK, int(exchange.asked.get("blksize", 0))):
        exchange.abort("not what was asked for")
        raise exchange.error(f"answers with blocks of {found['blksize']} bytes to {exchange.asked.get('blksize')}")
    return found
