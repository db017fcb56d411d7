"""ONC RPC over TCP (RFC 5531) and its words (XDR, RFC 4506): calls to a NAS as the kernel of a Pi makes them.

As user 0, from a port below 1024 where this process may have one: many a NAS refuses others.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time

from rpinfs.errors import RpinfsError
from rpinfs.netboot.wire import received, tie

NFS_PROGRAM, NFS_PORT = 100003, 2049
PORTMAP_PROGRAM, PORTMAP_PORT = 100000, 111
SECONDS = 5.0
"""For each call with its answer. Nothing here can hang, as a mount of a NAS that is silent would."""

_CALL, _REPLY, _ACCEPTED, _SUCCESS, _PROG_MISMATCH = 0, 1, 0, 0, 2
_LARGEST = 1 << 20
_LAST = 0x80000000
_RESERVED_PORTS = range(1023, 600, -1)


class RpcError(RpinfsError):
    """A server that does not answer, or not as one of RPC."""


class NoPortError(RpcError):
    """This machine has no port below 1024 left. A NAS would refuse what comes from another, and nothing be learnt."""

    def __init__(self) -> None:
        super().__init__("this machine has no free port below 1024 to ask from: a NAS may refuse who asks from another")


class Words:
    """What an answer consists of, taken one after the other. Raises RpcError where it is cut short."""

    def __init__(self, data: bytes, server: str) -> None:
        self.data = data
        self.at = 0
        self.server = server

    def raw(self, length: int) -> bytes:
        """So many bytes, without those that fill up a word."""
        end = self.at + length
        if length < 0 or end > len(self.data):
            raise RpcError(f"{self.server}: an answer is cut short")
        found = self.data[self.at : end]
        self.at = end + (-length) % 4
        return found

    def number(self) -> int:
        """Four bytes."""
        return int.from_bytes(self.raw(4), "big")

    def long(self) -> int:
        """Eight bytes."""
        return int.from_bytes(self.raw(8), "big")

    def opaque(self) -> bytes:
        """Bytes behind their length."""
        return self.raw(self.number())


def opaque(data: bytes) -> bytes:
    """Bytes behind their length, filled up to a word."""
    return struct.pack("!I", len(data)) + data + bytes((-len(data)) % 4)


def numbers(*values: int) -> bytes:
    """Words of four bytes."""
    return struct.pack(f"!{len(values)}I", *(value & 0xFFFFFFFF for value in values))


class Connection:
    """A connection to one program of a server; `seconds` is for connecting, and for each call.

    Raises RpcError where nobody answers, NoPortError where this machine cannot ask.
    """

    def __init__(
        self, server: str, port: int, what: str = "NFS", interface: str = "", seconds: float = SECONDS
    ) -> None:
        self.server = server
        self.what = f"port {port} ({what})"
        self.seconds = seconds
        self.wire = self._connected(port, interface)

    def _connected(self, port: int, interface: str) -> socket.socket:
        for own in _RESERVED_PORTS if os.geteuid() == 0 else (0,):
            wire = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                tie(wire, interface, self.server)
                wire.settimeout(self.seconds)
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # A port is free again as soon as it is closed: with a minute of TIME_WAIT each (tcp(7)), seventy boards
                # use all of them up. Nothing is lost by it: whoever closes has its answer, or has given up on it.
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                wire.bind(("", own))
                wire.connect((self.server, port))
            except OSError as error:
                wire.close()
                if error.errno in _PORT_IN_USE:
                    continue
                raise self._silent(error) from error
            return wire
        raise NoPortError

    def _silent(self, error: OSError) -> RpcError:
        return RpcError(f"{self.server} does not answer at {self.what}: {error.strerror or error}")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def call(self, program: int, version: int, procedure: int, body: bytes = b"") -> Words | None:
        """Call a procedure; None where the server does not have this version. Raises RpcError.

        Where no answer comes within the time, the connection ends: one that comes late is never taken for another's.
        """
        transaction = int.from_bytes(os.urandom(4), "big")
        head = numbers(transaction, _CALL, 2, program, version, procedure) + _AS_ROOT
        message = head + body
        deadline = time.monotonic() + self.seconds
        try:
            self.wire.settimeout(self.seconds)
            self.wire.sendall(numbers(_LAST | len(message)) + message)
            words = Words(self._record(deadline), self.server)
            if (words.number(), words.number()) != (transaction, _REPLY):
                raise RpcError(f"{self.server}: expected a server of RPC at {self.what}, found something else")
        except BaseException as error:
            self.wire.close()
            if isinstance(error, OSError):
                raise self._silent(error) from error
            raise
        if words.number() != _ACCEPTED:
            raise RpcError(f"{self.server} refuses a call at {self.what}: who asks as root is not let in")
        words.number()
        words.opaque()
        status = words.number()
        if status not in (_SUCCESS, _PROG_MISMATCH, _PROG_UNAVAILABLE):
            raise RpcError(f"{self.server} refuses a call at {self.what}: RPC status {status}")
        return words if status == _SUCCESS else None

    def _record(self, deadline: float) -> bytes:
        data = b""
        while True:
            (mark,) = struct.unpack("!I", self._received(4, deadline))
            if len(data) + (mark & ~_LAST) > _LARGEST:
                raise RpcError(f"{self.server}: expected a server of RPC at {self.what}, found something else")
            data += self._received(mark & ~_LAST, deadline)
            if mark & _LAST:
                return data

    def _received(self, wanted: int, deadline: float) -> bytes:
        data = b""
        while len(data) < wanted:
            piece = received(self.wire, wanted - len(data), deadline)
            if not piece:
                raise OSError("the connection was closed")
            data += piece
        return data


_PROG_UNAVAILABLE = 1
_PORT_IN_USE = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


def _as_root() -> bytes:
    """AUTH_SYS: user 0, group 0, no name that matters; and no verifier."""
    body = numbers(0) + opaque(b"rpinfs") + numbers(0, 0, 0)
    return numbers(1) + opaque(body) + numbers(0, 0)


_AS_ROOT = _as_root()


def port_of(server: str, program: int, version: int, interface: str = "") -> int:
    """Where a program of a server listens by TCP, by its portmapper (RFC 1833); 0: nowhere. Raises RpcError."""
    tcp = 6
    with Connection(server, PORTMAP_PORT, "rpcbind", interface) as connection:
        words = connection.call(PORTMAP_PROGRAM, 2, 3, numbers(program, version, tcp, 0))
        return words.number() if words else 0
