"""How `rpinfs netboot doctor` asks servers on this machine's loopback that answer late, never or without end."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from rpinfs.netboot import clock, nfs, root, rpc
from rpinfs.netboot.finding import Gravity
from rpinfs.netboot.rpc import Connection, NoPortError, RpcError, Words, numbers, opaque

HERE = "127.0.0.1"
SOON = 0.6
"""Seconds that whoever asks waits. Nothing is measured: a test that waits for ever fails by its time."""

Serve = Callable[[socket.socket], None]
Serving = Callable[[Serve], int]


@pytest.fixture
def serving() -> Iterator[Serving]:
    """Start a server, that is a function for each connection; returns its port."""
    listening: list[socket.socket] = []

    def start(serve: Serve) -> int:
        server = socket.create_server((HERE, 0), backlog=1000)
        listening.append(server)

        def each() -> None:
            while True:
                try:
                    wire = server.accept()[0]
                except OSError:
                    return
                threading.Thread(target=guarded, args=(wire,), daemon=True).start()

        def guarded(wire: socket.socket) -> None:
            with wire:
                try:
                    serve(wire)
                except OSError:
                    return

        threading.Thread(target=each, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in listening:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def called(wire: socket.socket) -> tuple[bytes, int, Words]:
    """The next call: its transaction, its procedure, and what it says behind its two credentials."""
    head = wire.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        raise ConnectionError
    (mark,) = struct.unpack("!I", head)
    words = Words(wire.recv(mark & 0x7FFFFFFF, socket.MSG_WAITALL), HERE)
    transaction = words.raw(4)
    *_, procedure = (words.number() for _ in range(5))
    for _ in range(2):
        words.number()
        words.opaque()
    return transaction, procedure, words


def answer(wire: socket.socket, transaction: bytes, body: bytes = b"") -> None:
    message = transaction + numbers(1, 0, 0, 0, 0) + body
    wire.sendall(numbers(0x80000000 | len(message)) + message)


# 13: what is made is removed, whenever the NAS answers

FOLDER, NAME = b"folder", "probe"
CREATE, WRITE, REMOVE, LOOKUP, ATTRIBUTES = 8, 7, 12, 3, 1


class Nas:
    """NFS 3 that answers one procedure only when a file was removed, and that one late; `refused`: and to that, no."""

    def __init__(self, slow: int, refused: tuple[int, ...] = ()) -> None:
        self.slow = slow
        self.refused = refused
        self.files: set[str] = set()
        self.removed = threading.Event()

    def serve(self, wire: socket.socket) -> None:
        while True:
            transaction, procedure, words = called(wire)
            if procedure in self.refused:
                answer(wire, transaction, numbers(13))
                continue
            if procedure in (CREATE, REMOVE):
                words.opaque()
                self.do(procedure, words.opaque().decode())
            if procedure == self.slow and not self.removed.wait(10):
                return
            answer(wire, transaction, numbers(0) + (opaque(b"file") if procedure == LOOKUP else bytes(84)))

    def do(self, procedure: int, name: str) -> None:
        if procedure == CREATE:
            self.files.add(name)
        else:
            self.files.discard(name)
            self.removed.set()


@pytest.mark.parametrize("slow", [CREATE, LOOKUP, WRITE, ATTRIBUTES])
def test_a_file_is_removed_though_an_answer_is_late(
    slow: int, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The late answer was taken for that of the removal, and the file stayed in the Pi's root."""
    nas = Nas(slow)
    monkeypatch.setattr(nfs, "NFS_PORT", serving(nas.serve))
    with nfs.Mount(HERE, seconds=SOON) as mount, pytest.raises(RpcError, match="timed out") as caught:
        nfs.written(mount, FOLDER, NAME)
    assert not isinstance(caught.value, nfs.LeftError)
    assert nas.removed.is_set()
    assert nas.files == set()


def test_a_file_that_stays_is_named(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    nas = Nas(WRITE, refused=(REMOVE,))
    monkeypatch.setattr(nfs, "NFS_PORT", serving(nas.serve))
    with nfs.Mount(HERE, seconds=SOON) as mount, pytest.raises(nfs.LeftError, match="not allowed") as caught:
        nfs.written(mount, FOLDER, NAME)
    assert nas.files == {caught.value.name}
    assert "timed out" in str(caught.value.before)

    def handle(*_: object) -> bytes:
        return FOLDER

    with nfs.Mount(HERE, seconds=SOON) as mount:
        monkeypatch.setattr(mount, "handle", handle)
        fault, left = root._on_writing(mount, root.Source(HERE, "/nfs root/pi1", "3"))
    assert (fault.gravity, "cannot be written in it: 127.0.0.1 does not answer" in fault.message) == (
        Gravity.FAULT,
        True,
    )
    assert (left.gravity, "may be there still: " in left.message) == (Gravity.WARNING, True)
    assert left.remedy.startswith("on 127.0.0.1: rm '/nfs root/pi1/.rpinfs-doctor-")


def test_nothing_is_removed_where_nothing_was_made(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name may be somebody's."""
    nas = Nas(0, refused=(CREATE,))
    nas.files.add(NAME)
    monkeypatch.setattr(nfs, "NFS_PORT", serving(nas.serve))
    with nfs.Mount(HERE, seconds=SOON) as mount, pytest.raises(nfs.StatusError, match="not allowed"):
        nfs.written(mount, FOLDER, NAME)
    assert nas.files == {NAME}


def test_no_answer_is_taken_for_anothers(serving: Serving) -> None:
    late = threading.Event()

    def serve(wire: socket.socket) -> None:
        first = called(wire)[0]
        late.wait(10)
        answer(wire, first, numbers(1))
        answer(wire, called(wire)[0], numbers(2))

    with Connection(HERE, serving(serve), seconds=SOON) as connection:
        with pytest.raises(RpcError, match="timed out"):
            connection.call(rpc.NFS_PROGRAM, 3, 0)
        late.set()
        with pytest.raises(RpcError, match="does not answer"):
            connection.call(rpc.NFS_PROGRAM, 3, 0)


# 14: from a port below 1024, however often

CONNECTIONS = 500
"""More than there are ports that may be asked from."""


@pytest.mark.root
def test_every_connection_comes_from_a_port_below_1024(serving: Serving) -> None:
    """After 49 within a minute they came from others, which NAS refuse: that was told as one that gives nothing."""
    asking: list[int] = []

    def serve(wire: socket.socket) -> None:
        asking.append(wire.getpeername()[1])
        answer(wire, called(wire)[0])
        # Whoever closes first has the minute of TIME_WAIT: it must be the one that asks.
        wire.recv(1)

    port = serving(serve)
    for _ in range(CONNECTIONS):
        with Connection(HERE, port) as connection:
            assert connection.call(rpc.NFS_PROGRAM, 3, 0) is not None
    assert len(asking) == CONNECTIONS
    assert max(asking) < 1024
    assert len(set(asking)) <= 2, "each is free again at once"


@pytest.mark.root
def test_no_port_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and no other is taken."""
    with socket.socket() as somebody:
        somebody.bind(("", 0))
        somebody.listen()
        monkeypatch.setattr(rpc, "_RESERVED_PORTS", [somebody.getsockname()[1]])
        with pytest.raises(NoPortError, match="no free port below 1024"):
            Connection(HERE, 1)
        monkeypatch.setattr(clock, "skew", lambda *_: None)
        (said,) = root.look_at(root.Source(HERE, "/nfsroot/pi1", "4.1"))
    assert "this machine has no free port below 1024" in said.message
    assert "on this machine" in said.remedy


# 15: one deadline for a call with all of its answer


def trickling(what: bytes) -> Serve:
    def serve(wire: socket.socket) -> None:
        wire.recv(65536)
        while True:
            wire.sendall(what)
            threading.Event().wait(SOON / 4)

    return serve


@pytest.mark.parametrize("what", [bytes(4), b"\0"], ids=["fragments of no length", "a byte now and then"])
def test_a_call_ends(what: bytes, serving: Serving) -> None:
    with (
        Connection(HERE, serving(trickling(what)), seconds=SOON) as connection,
        pytest.raises(RpcError, match="timed out"),
    ):
        connection.call(rpc.NFS_PROGRAM, 3, 0)


def test_a_web_page_ends(serving: Serving) -> None:
    assert clock._by_web(HERE, serving(trickling(b"x")), "", SOON) is None


def test_a_web_page_in_pieces_is_read(serving: Serving) -> None:
    def serve(wire: socket.socket) -> None:
        wire.recv(65536)
        for piece in (b"HTTP/1.0 200 OK\r\nDa", b"te: Thu, 01 Jan 1970 00:00:00 GMT\r\n", b"\r\n"):
            wire.sendall(piece)
        wire.recv(1)

    found = clock._by_web(HERE, serving(serve), "", 10)
    assert found is not None
    assert found < -1e9


@pytest.mark.parametrize("depth", [0, 1, 4, 5, 8, 9])
def test_every_part_of_a_path_is_looked_up_once_and_in_order(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In steps that a server takes: of CREATE_SESSION's eight operations one is the session's own."""
    parts = [f"part{number}" for number in range(depth)]
    looked_up: list[str] = []

    def compound(_: nfs.Session, what: str, *operations: bytes) -> Words:
        assert len(operations) <= 7
        begin, *steps, end = operations
        where = opaque(f"handle {len(looked_up)}".encode())
        assert begin == (numbers(nfs._PUTFH) + where if looked_up else numbers(nfs._PUTROOTFH))
        for step in steps:
            assert step[:4] == numbers(nfs._LOOKUP)
            looked_up.append(Words(step[4:], "nas").opaque().decode())
        assert end == numbers(nfs._GETFH) and what == "/".join(parts)
        return Words(opaque(f"handle {len(looked_up)}".encode()), "nas")

    monkeypatch.setattr(nfs.Session, "_compound", compound)
    session = object.__new__(nfs.Session)
    assert session.handle("/".join(parts)) == f"handle {depth}".encode()
    assert looked_up == parts
