"""What a NAS answers to the NFS calls of a kernel that mounts its root: NFS 3 (RFC 1813) and 4 (RFC 7530, 8881).

Calls instead of a mount: nothing can hang or stay behind, this machine's kernel needs no NFS, and what the NAS says to
user 0 comes unaltered. Nothing is written but by written().
"""

from __future__ import annotations

import functools
import os
import struct
import time
from dataclasses import dataclass
from types import TracebackType

from rpinfs.netboot.rpc import NFS_PORT, NFS_PROGRAM, SECONDS, Connection, RpcError, Words, numbers, opaque, port_of

VERSIONS = ("3", "4.0", "4.1", "4.2")
READ, MODIFY, EXTEND = 1, 4, 8
FILE, FOLDER, LINK = 1, 2, 5
PROBE_BYTES = 4096
WRITE_SECONDS = 60.0
"""For each call where something is written: disks that sleep or are overloaded flush for half a minute."""

_FILE_SYNC = 2

NOT_THERE, NOT_ALLOWED, READ_ONLY, GRACE = "not there", "not allowed", "read-only", "in its time of grace"
_STATUS = {1: NOT_ALLOWED, 2: NOT_THERE, 13: NOT_ALLOWED, 20: NOT_THERE, 30: READ_ONLY, 70: NOT_THERE,
           10004: "not supported", 10008: "busy", 10013: GRACE, 10021: "another minor version",
           10029: "a link"}  # fmt: skip


class StatusError(RpcError):
    """The NAS answers, and says no. `why`: in a word or two, such as NOT_THERE."""

    def __init__(self, server: str, what: str, status: int) -> None:
        self.number = status
        self.why = _STATUS.get(status, f"NFS status {status}")
        super().__init__(f"{server}: {what}: {self.why}")


class LeftError(RpcError):
    """A file was made, or may have been, and is not removed. `before`: what had gone wrong already."""

    def __init__(self, name: str, why: RpcError, before: BaseException | None) -> None:
        self.name = name
        self.before = before if isinstance(before, RpcError) else None
        super().__init__(why.message)


@dataclass(frozen=True)
class Attributes:
    """Of a file or folder: FILE, FOLDER, LINK or another type, permissions, whether it is of user 0, and when it was
    written, by the NAS's clock.
    """

    kind: int
    mode: int
    of_root: bool
    owner: str
    modified: float


@dataclass(frozen=True)
class Written:
    """A file that was made, written through to the disk, looked at and removed. `seconds`: until it was on the disk."""

    attributes: Attributes
    seconds: float


def offered(server: str, interface: str = "") -> list[str]:
    """The versions of NFS that a server answers for. Raises RpcError where nobody answers."""
    found: list[str] = []
    for version in VERSIONS:
        # A connection each: servers close one whose call they do not understand.
        with Connection(server, NFS_PORT, interface=interface) as connection:
            if version == "3":
                if connection.call(NFS_PROGRAM, 3, 0) is not None:
                    found.append(version)
            elif _knows_minor(connection, int(version[2:])):
                found.append(version)
    return found


def _knows_minor(connection: Connection, minor: int) -> bool:
    words = connection.call(NFS_PROGRAM, 4, 1, opaque(b"") + numbers(minor, 1, _PUTROOTFH))
    return words is not None and words.number() != _MINOR_MISMATCH


_MINOR_MISMATCH = 10021
(_ACCESS, _CLOSE, _GETATTR, _GETFH, _LOOKUP, _OPEN, _PUTFH, _PUTROOTFH, _READ, _READLINK, _REMOVE, _WRITE, _EXCHANGE_ID,
 _CREATE_SESSION, _DESTROY_SESSION, _GET_DIR_DELEGATION, _SEQUENCE, _DESTROY_CLIENTID, _RECLAIM_COMPLETE) = (
    3, 4, 9, 10, 15, 18, 22, 24, 25, 27, 28, 38, 42, 43, 44, 46, 53, 57, 58)  # fmt: skip
_ATTRIBUTES = numbers(2, 1 << 1, 1 << (33 - 32) | 1 << (36 - 32) | 1 << (53 - 32))
"""type, mode, owner and time_modify, as a bitmap."""

_NO_STATE = bytes(16)
"""Who reads so needs no open file (RFC 8881, 8.2.3)."""

_ILLEGAL = 10044


class Session:
    """NFS 4.0 to 4.2, from the root of all exports on. From 4.1 on in a session, which ends with the block."""

    def __init__(self, server: str, minor: int, interface: str = "", seconds: float = SECONDS) -> None:
        self.server = server
        self.minor = minor
        self.connection = Connection(server, NFS_PORT, interface=interface, seconds=seconds)
        self.again = functools.partial(Session, server, minor, interface, seconds)
        self.client = self.session = b""
        self.sequence = 0

    def __enter__(self) -> Session:
        try:
            if self.minor:
                self._begin()
        except BaseException:
            self.connection.__exit__()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self.session:
                self._compound("the end", numbers(_DESTROY_SESSION) + self.session, in_session=False)
            if self.client:
                self._compound("the end", numbers(_DESTROY_CLIENTID) + self.client, in_session=False)
        except RpcError:
            pass  # The server forgets both by itself.
        finally:
            self.connection.__exit__()

    def _begin(self) -> None:
        owner = os.urandom(8) + opaque(b"rpinfs netboot doctor " + os.urandom(8).hex().encode())
        words = self._compound("a client", numbers(_EXCHANGE_ID) + owner + numbers(0, 0, 0), in_session=False)
        self.client = words.raw(8)
        number = words.number()
        channel = numbers(0, 1 << 16, 1 << 16, 1 << 12, 8, 1, 0)
        body = numbers(_CREATE_SESSION) + self.client + numbers(number, 0) + channel * 2 + numbers(0, 1, 0)
        self.session = self._compound("a session", body, in_session=False).raw(16)
        self._compound("the beginning", numbers(_RECLAIM_COMPLETE, 0))

    def _compound(self, what: str, *operations: bytes, in_session: bool = True) -> Words:
        """Do operations in order, and return what the last one says. Raises StatusError for the first that fails."""
        todo = list(operations)
        if in_session and self.session:
            self.sequence += 1
            todo.insert(0, numbers(_SEQUENCE) + self.session + numbers(self.sequence, 0, 0, 0))
        body = opaque(b"") + numbers(self.minor, len(todo)) + b"".join(todo)
        words = self.connection.call(NFS_PROGRAM, 4, 1, body)
        if words is None:
            raise RpcError(f"{self.server} has no NFS 4")
        if status := words.number():
            raise StatusError(self.server, what, status)
        words.opaque()
        for left in range(words.number() - 1, -1, -1):
            operation = words.number()
            words.number()
            if left == 0:
                return words
            words.raw(_FIXED.get(operation, 0))
        raise RpcError(f"{self.server}: an answer is cut short")

    def handle(self, path: str, start: bytes = b"") -> bytes:
        """The file handle of a path, from the root of all exports or from a handle on."""
        begin = numbers(_PUTFH) + opaque(start) if start else numbers(_PUTROOTFH)
        steps = [numbers(_LOOKUP) + opaque(part.encode("utf-8", "replace")) for part in path.split("/") if part]
        # A server may take no more than eight operations at once.
        while len(steps) > 4:
            start = self._compound(path, begin, *steps[:4], numbers(_GETFH)).opaque()
            begin, steps = numbers(_PUTFH) + opaque(start), steps[4:]
        return self._compound(path, begin, *steps, numbers(_GETFH)).opaque()

    def access(self, handle: bytes) -> int:
        """What of READ, MODIFY and EXTEND user 0 may do."""
        put = numbers(_PUTFH) + opaque(handle)
        words = self._compound("access", put, numbers(_ACCESS, READ | MODIFY | EXTEND))
        words.number()
        return words.number()

    def attributes(self, handle: bytes) -> Attributes:
        """Of a file or folder."""
        words = self._compound("attributes", numbers(_PUTFH) + opaque(handle), numbers(_GETATTR) + _ATTRIBUTES)
        words.raw(4 * words.number())
        found = Words(words.opaque(), self.server)
        kind, mode, owner = found.number(), found.number(), found.opaque().decode("utf-8", "replace")
        seconds, part = found.long(), found.number()
        of_root = owner == "0" or owner.partition("@")[0] == "root"
        return Attributes(kind, mode, of_root, owner, seconds + part / 1e9)

    def target(self, link: bytes) -> str:
        """Where a symbolic link leads."""
        words = self._compound("a link", numbers(_PUTFH) + opaque(link), numbers(_READLINK))
        return words.opaque().decode("utf-8", "replace")

    def beginning(self, file: bytes, length: int) -> bytes:
        """So many bytes of a file, or all that it has."""
        reading = numbers(_READ) + _NO_STATE + struct.pack("!QI", 0, length)
        words = self._compound("a file", numbers(_PUTFH) + opaque(file), reading)
        words.number()
        return words.opaque()

    def knows_folder_delegations(self, folder: bytes) -> bool:
        """Whether GET_DIR_DELEGATION is a word that the server knows, if only to decline it; from 4.1 on it is one."""
        if not self.minor:
            return True
        asking = numbers(_GET_DIR_DELEGATION, 0, 0) + bytes(24) + numbers(0, 0)
        try:
            self._compound("a delegation", numbers(_PUTFH) + opaque(folder), asking)
        except StatusError as error:
            return error.number != _ILLEGAL
        return True

    def make(self, folder: bytes, name: str) -> bytes:
        """Make a file that is not there yet; returns the state in which it is open."""
        mode = numbers(2, 0, 2) + opaque(numbers(0o600))
        owner = self.client + opaque(b"doctor")
        opened = numbers(_OPEN, 0, 0x402, 0) + owner + numbers(1, 1) + mode + numbers(0) + opaque(name.encode())
        return self._compound(name, numbers(_PUTFH) + opaque(folder), opened).raw(16)

    def write(self, file: bytes, state: bytes) -> float:
        """Write through to the disk, and close; returns when it was on the disk, by time.monotonic()."""
        put = numbers(_PUTFH) + opaque(file)
        data = numbers(_WRITE) + state + struct.pack("!QI", 0, _FILE_SYNC) + opaque(bytes(PROBE_BYTES))
        self._compound("a file", put, data)
        on_disk = time.monotonic()
        self._compound("a file", put, numbers(_CLOSE, 0) + state)
        return on_disk

    def remove(self, folder: bytes, name: str) -> None:
        """Remove a file of a folder."""
        self._compound(name, numbers(_PUTFH) + opaque(folder), numbers(_REMOVE) + opaque(name.encode()))


_FIXED = {_SEQUENCE: 36}
"""Bytes of what an operation says that is not the last one of ours; the others say nothing."""

# NFS 3

_MOUNT_PROGRAM = 100005


class Mount:
    """NFS 3: the export is mounted by a protocol of its own, and given back with the block."""

    def __init__(self, server: str, interface: str = "", seconds: float = SECONDS) -> None:
        self.server = server
        self.interface = interface
        self.connection = Connection(server, NFS_PORT, interface=interface, seconds=seconds)
        self.again = functools.partial(Mount, server, interface, seconds)
        self.mounted: list[tuple[int, str]] = []

    def __enter__(self) -> Mount:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.connection.__exit__()
        for port, path in self.mounted:
            try:
                with Connection(self.server, port, "mountd", self.interface) as mountd:
                    mountd.call(_MOUNT_PROGRAM, 3, 3, opaque(path.encode("utf-8", "replace")))
            except RpcError:
                pass  # It is a line in a list of the NAS, no more.

    def handle(self, path: str, start: bytes = b"") -> bytes:
        """The file handle of an export, or of what lies below a handle."""
        if start:
            for part in (part for part in path.split("/") if part):
                start = self._call(path, 3, opaque(start) + opaque(part.encode("utf-8", "replace"))).opaque()
            return start
        port = port_of(self.server, _MOUNT_PROGRAM, 3, self.interface)
        if not port:
            raise RpcError(f"{self.server}: rpcbind knows no mountd there, without which there is no NFS 3")
        with Connection(self.server, port, "mountd", self.interface) as mountd:
            words = mountd.call(_MOUNT_PROGRAM, 3, 1, opaque(path.encode("utf-8", "replace")))
        if words is None:
            raise RpcError(f"{self.server}: mountd has no version 3")
        if status := words.number():
            raise StatusError(self.server, path, status)
        self.mounted.append((port, path))
        return words.opaque()

    def _call(self, what: str, procedure: int, body: bytes) -> Words:
        words = self.connection.call(NFS_PROGRAM, 3, procedure, body)
        if words is None:
            raise RpcError(f"{self.server} has no NFS 3")
        if status := words.number():
            raise StatusError(self.server, what, status)
        return words

    def access(self, handle: bytes) -> int:
        """What of READ, MODIFY and EXTEND user 0 may do."""
        words = self._call("access", 4, opaque(handle) + numbers(READ | MODIFY | EXTEND))
        words.raw(84 if words.number() else 0)
        return words.number()

    def attributes(self, handle: bytes) -> Attributes:
        """Of a file or folder."""
        words = self._call("attributes", 1, opaque(handle))
        kind, mode, _, owner = (words.number() for _ in range(4))
        words.raw(52)
        return Attributes(kind, mode, owner == 0, str(owner), words.number() + words.number() / 1e9)

    def target(self, link: bytes) -> str:
        """Where a symbolic link leads."""
        words = self._call("a link", 5, opaque(link))
        words.raw(84 if words.number() else 0)
        return words.opaque().decode("utf-8", "replace")

    def beginning(self, file: bytes, length: int) -> bytes:
        """So many bytes of a file, or all that it has."""
        words = self._call("a file", 6, opaque(file) + struct.pack("!QI", 0, length))
        words.raw(84 if words.number() else 0)
        words.raw(8)
        return words.opaque()

    def knows_folder_delegations(self, _: bytes) -> bool:
        """NFS 3 has none, and nobody asks for them."""
        return True

    def make(self, folder: bytes, name: str) -> bytes:
        """Make a file that is not there yet; returns nothing, as files are not open in NFS 3."""
        self._call(name, 8, opaque(folder) + opaque(name.encode()) + numbers(1, 1, 0o600, 0, 0, 0, 0, 0))
        return b""

    def write(self, file: bytes, _: bytes) -> float:
        """Write through to the disk; returns when it was there, by time.monotonic()."""
        data = opaque(file) + struct.pack("!QII", 0, PROBE_BYTES, _FILE_SYNC) + opaque(bytes(PROBE_BYTES))
        self._call("a file", 7, data)
        return time.monotonic()

    def remove(self, folder: bytes, name: str) -> None:
        """Remove a file of a folder."""
        self._call(name, 12, opaque(folder) + opaque(name.encode()))


Nas = Session | Mount


def written(nas: Nas, folder: bytes, name: str) -> Written:
    """Make a file, write it through to the disk, look at it, and remove it, whatever happens.

    Raises:
        StatusError: the NAS says no. RpcError: it says nothing in time. LeftError: the file may be there still.
    """
    made: bytes | None = None
    begun = time.monotonic()
    try:
        made = nas.make(folder, name)
        file = nas.handle(name, folder)
        seconds = nas.write(file, made) - begun
        found = nas.attributes(file)
    except BaseException as error:
        # An answer that did not come may have been a yes.
        if made is not None or not isinstance(error, StatusError):
            _remove(nas, folder, name, error)
        raise
    _remove(nas, folder, name)
    return Written(found, seconds)


def _remove(nas: Nas, folder: bytes, name: str, before: BaseException | None = None) -> None:
    """By another connection where this one has ended: the slot of a session is taken while a call is not answered."""
    try:
        try:
            nas.remove(folder, name)
        except StatusError:
            raise
        except RpcError:
            with nas.again() as another:
                another.remove(folder, name)
    except RpcError as error:
        if not (isinstance(error, StatusError) and error.why == NOT_THERE):
            raise LeftError(name, error, before) from error
