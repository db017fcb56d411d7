"""What is asked of an NFS server, byte by byte (RFC 1813, RFC 8881), and what its answers are taken for.

Real servers are in tools/netboot/test_nfs.py.
"""

from __future__ import annotations

import struct

import pytest

from rpinfs.netboot import nfs, rpc
from rpinfs.netboot.rpc import RpcError, Words, numbers, opaque

NAS = "192.168.1.10"
Call = tuple[int, int, int, bytes]


class Wire:
    """A connection that answers in order, and remembers what it was asked."""

    answers: list[bytes | None]
    asked: list[Call]

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, program: int, version: int, procedure: int, body: bytes = b"") -> Words | None:
        self.asked.append((program, version, procedure, body))
        answer = self.answers.pop(0)
        return None if answer is None else Words(answer, NAS)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> type[Wire]:
    class Mine(Wire):
        answers: list[bytes | None] = []
        asked: list[Call] = []

    for module in (nfs, rpc):
        monkeypatch.setattr(module, "Connection", Mine)
    return Mine


OK = numbers(0)
ATTRIBUTES_3 = numbers(2, 0o40755, 3, 1000, 1000) + bytes(40) + numbers(0, 0) + numbers(7, 500_000_000) + numbers(8, 0)


def test_where_a_program_listens(wire: type[Wire]) -> None:
    wire.answers += [numbers(20048), None, numbers(0)]
    assert [rpc.port_of(NAS, 100005, 3) for _ in range(3)] == [20048, 0, 0]
    assert wire.asked[0] == (100000, 2, 3, numbers(100005, 3, 6, 0))


def test_an_export_is_mounted_and_given_back(wire: type[Wire]) -> None:
    wire.answers += [numbers(20048), OK + opaque(b"top"), OK + opaque(b"etc"), OK + opaque(b"shadow"), OK]
    with nfs.Mount(NAS) as mount:
        assert mount.handle("/nfsroot/pi1") == b"top"
        assert mount.handle("etc//shadow", b"top") == b"shadow"
    assert wire.asked[1:] == [
        (100005, 3, 1, opaque(b"/nfsroot/pi1")),
        (100003, 3, 3, opaque(b"top") + opaque(b"etc")),
        (100003, 3, 3, opaque(b"etc") + opaque(b"shadow")),
        (100005, 3, 3, opaque(b"/nfsroot/pi1")),
    ]


@pytest.mark.parametrize(("answers", "said"), [
    ([numbers(0)], "rpcbind knows no mountd there, without which there is no NFS 3"),
    ([numbers(20048), None], "mountd has no version 3"),
    ([numbers(20048), numbers(13)], f"{NAS}: /nfsroot: not allowed"),
    ([numbers(20048), numbers(9999)], f"{NAS}: /nfsroot: NFS status 9999"),
])  # fmt: skip
def test_an_export_that_is_not_given(answers: list[bytes | None], said: str, wire: type[Wire]) -> None:
    wire.answers += answers
    with pytest.raises(RpcError, match=said), nfs.Mount(NAS) as mount:
        mount.handle("/nfsroot")
    assert wire.answers == [], "and nothing is given back that was not had"


def test_nfs_3_that_is_not_there(wire: type[Wire]) -> None:
    wire.answers += [None, numbers(2), numbers(70)]
    mount = nfs.Mount(NAS)
    with pytest.raises(RpcError, match=f"{NAS} has no NFS 3"):
        mount.access(b"x")
    for _ in range(2):
        with pytest.raises(nfs.StatusError, match="not there"):
            mount.access(b"x")


def test_what_nfs_3_says_of_a_file(wire: type[Wire]) -> None:
    mount = nfs.Mount(NAS)
    for before in (numbers(1) + ATTRIBUTES_3, numbers(0)):
        wire.answers += [
            OK + before + numbers(5), OK + before + opaque(b"../x"), OK + before + numbers(4, 1) + opaque(b"\x7fELF"),
        ]  # fmt: skip
        assert (mount.access(b"h"), mount.target(b"h"), mount.beginning(b"h", 4096)) == (5, "../x", b"\x7fELF")
    assert wire.asked[:3] == [
        (100003, 3, 4, opaque(b"h") + numbers(1 | 4 | 8)),
        (100003, 3, 5, opaque(b"h")),
        (100003, 3, 6, opaque(b"h") + struct.pack("!QI", 0, 4096)),
    ]
    wire.answers += [OK + ATTRIBUTES_3]
    assert mount.attributes(b"h") == nfs.Attributes(2, 0o40755, False, "1000", 7.5)
    assert wire.asked[-1] == (100003, 3, 1, opaque(b"h"))
    assert mount.knows_folder_delegations(b"h")


def test_a_file_of_nfs_3_that_is_made(wire: type[Wire]) -> None:
    mount = nfs.Mount(NAS)
    wire.answers += [OK, OK + opaque(b"f"), OK, OK + ATTRIBUTES_3, OK]
    made = nfs.written(mount, b"d", ".probe")
    assert (made.attributes.owner, made.seconds >= 0) == ("1000", True)
    name = opaque(b"d") + opaque(b".probe")
    assert wire.asked == [
        (100003, 3, 8, name + numbers(1, 1, 0o600, 0, 0, 0, 0, 0)),  # GUARDED: never in another's place.
        (100003, 3, 3, name),
        (100003, 3, 7, opaque(b"f") + struct.pack("!QII", 0, 4096, 2) + opaque(bytes(4096))),  # FILE_SYNC
        (100003, 3, 1, opaque(b"f")),
        (100003, 3, 12, name),
    ]


# NFS 4

PUT, GETFH, LOOKUP = numbers(22), numbers(10), numbers(15)


def compound(minor: int, *operations: bytes) -> Call:
    """A COMPOUND with an empty tag."""
    return 100003, 4, 1, opaque(b"") + numbers(minor, len(operations)) + b"".join(operations)


def said(*results: tuple[int, bytes]) -> bytes:
    """The answer to one: each operation's number, its status 0, what it says."""
    return numbers(0) + opaque(b"") + numbers(len(results)) + b"".join(numbers(one, 0) + more for one, more in results)


def test_a_path_of_nfs_4(wire: type[Wire]) -> None:
    session = nfs.Session(NAS, 0)
    wire.answers += [
        said((24, b""), (15, b""), (15, b""), (10, opaque(b"deep"))), said((22, b""), (10, opaque(b"h"))),
        said((24, b""), *[(15, b"")] * 4, (10, opaque(b"four"))), said((22, b""), (15, b""), (10, opaque(b"five"))),
    ]  # fmt: skip
    assert session.handle("/nfsroot/pi1/") == b"deep"
    assert session.handle("", b"h") == b"h"
    assert session.handle("a/b/c/d/e") == b"five"
    names = [LOOKUP + opaque(name) for name in (b"a", b"b", b"c", b"d", b"e")]
    assert wire.asked == [
        compound(0, numbers(24), LOOKUP + opaque(b"nfsroot"), LOOKUP + opaque(b"pi1"), GETFH),
        compound(0, PUT + opaque(b"h"), GETFH),
        compound(0, numbers(24), *names[:4], GETFH),
        compound(0, PUT + opaque(b"four"), names[4], GETFH),
    ]


@pytest.mark.parametrize(("answer", "what"), [
    (None, f"{NAS} has no NFS 4"), (numbers(2), "access: not there"), (numbers(10013), "access: in its time of grace"),
    (said((22, b"")), "an answer is cut short"), (said(), "an answer is cut short"),
])  # fmt: skip
def test_nfs_4_that_says_no(answer: bytes | None, what: str, wire: type[Wire]) -> None:
    wire.answers += [answer]
    with pytest.raises(RpcError, match=what):
        nfs.Session(NAS, 0).access(b"h")


@pytest.mark.parametrize(("owner", "of_root"), [
    (b"0", True), (b"root@localdomain", True), (b"root", True), (b"1000", False), (b"nobody@x", False), (b"", False),
    (b"rooter@x", False),
])  # fmt: skip
def test_what_nfs_4_says_of_a_file(owner: bytes, of_root: bool, wire: type[Wire]) -> None:
    session = nfs.Session(NAS, 0)
    put = PUT + opaque(b"h")
    values = numbers(1, 0o644) + opaque(owner) + struct.pack("!qI", 7, 500_000_000)
    wire.answers += [said((22, b""), (9, numbers(2, 2, 1 << 1 | 1 << 4 | 1 << 21) + opaque(values)))]
    assert session.attributes(b"h") == nfs.Attributes(1, 0o644, of_root, owner.decode(), 7.5)
    # Attribute 1, and of the second word 33, 36 and 53: type, mode, owner, time_modify.
    assert wire.asked == [compound(0, put, numbers(9, 2, 1 << 1, 1 << 1 | 1 << 4 | 1 << 21))]
    wire.answers += [
        said((22, b""), (3, numbers(13, 5))), said((22, b""), (27, opaque(b"../x"))),
        said((22, b""), (25, numbers(1) + opaque(b"\x7fELF"))),
    ]  # fmt: skip
    assert (session.access(b"h"), session.target(b"h"), session.beginning(b"h", 4096)) == (5, "../x", b"\x7fELF")
    assert wire.asked[1:] == [
        compound(0, put, numbers(3, 1 | 4 | 8)), compound(0, put, numbers(27)),
        compound(0, put, numbers(25) + bytes(16) + struct.pack("!QI", 0, 4096)),
    ]  # fmt: skip


def begun(wire: type[Wire], minor: int = 1) -> nfs.Session:
    """A session, as a server begins one."""
    wire.answers += [
        said((42, b"client_8" + numbers(5) + bytes(40))), said((43, b"sixteen bytes id" + bytes(60))),
        said((53, bytes(36)), (58, b"")),
    ]  # fmt: skip
    return nfs.Session(NAS, minor).__enter__()


def test_a_session_from_its_beginning_to_its_end(wire: type[Wire]) -> None:
    session = begun(wire)
    exchange, create, reclaim = (body for *_, body in wire.asked)
    head = opaque(b"") + numbers(1, 1)
    assert exchange[:8] == head[:8] and exchange[12:16] == numbers(42) and exchange[-12:] == numbers(0, 0, 0)
    channel = numbers(0, 65536, 65536, 4096, 8, 1, 0)
    assert create == head + numbers(43) + b"client_8" + numbers(5, 0) + channel * 2 + numbers(0, 1, 0)
    sequence = numbers(53) + b"sixteen bytes id"
    # RECLAIM_COMPLETE for all file systems: until then a server may refuse to open files.
    assert reclaim == opaque(b"") + numbers(1, 2) + sequence + numbers(1, 0, 0, 0) + numbers(58, 0)
    wire.asked.clear()
    wire.answers += [said((53, bytes(36)), (22, b""), (3, numbers(13, 5)))]
    assert session.access(b"h") == 5
    assert wire.asked.pop() == compound(1, sequence + numbers(2, 0, 0, 0), PUT + opaque(b"h"), numbers(3, 13))
    wire.answers += [said((44, b"")), said((57, b""))]
    session.__exit__(None, None, None)
    assert wire.asked == [compound(1, numbers(44) + b"sixteen bytes id"), compound(1, numbers(57) + b"client_8")]


def test_a_server_that_forgets_by_itself(wire: type[Wire]) -> None:
    session = begun(wire)
    wire.answers += [numbers(10052)]
    session.__exit__(None, None, None)
    wire.answers += [numbers(10021)]
    with pytest.raises(nfs.StatusError, match="another minor version"):
        nfs.Session(NAS, 2).__enter__()
    assert nfs.Session(NAS, 0).__enter__().minor == 0
    assert wire.answers == []


@pytest.mark.parametrize(("answer", "knows"), [
    (said((53, bytes(36)), (22, b""), (46, b"")), True), (numbers(10004), True), (numbers(10044), False),
])  # fmt: skip
def test_delegations_of_folders(answer: bytes, knows: bool, wire: type[Wire]) -> None:
    session = begun(wire)
    wire.answers += [answer]
    assert session.knows_folder_delegations(b"h") is knows
    asking = numbers(46, 0, 0) + bytes(24) + numbers(0, 0)
    assert wire.asked[-1][3].endswith(PUT + opaque(b"h") + asking)
    assert nfs.Session(NAS, 0).knows_folder_delegations(b"h"), "4.0 has none, and is not asked"


def test_a_file_of_nfs_4_that_is_made(wire: type[Wire]) -> None:
    session = begun(wire)
    wire.asked.clear()
    first = ((53, bytes(36)), (22, b""))
    state = b"a state: 16 byte"
    wire.answers += [
        said(*first, (18, state)), said(*first, (15, b""), (10, opaque(b"f"))), said(*first, (38, b"")),
        said(*first, (4, b"")), said(*first, (9, numbers(0) + opaque(numbers(1, 0o600) + opaque(b"0") + bytes(12)))),
        said(*first, (28, b"")),
    ]  # fmt: skip
    assert nfs.written(session, b"d", ".probe").attributes.of_root
    bodies = [body.partition(b"sixteen bytes id")[2][16:] for *_, body in wire.asked]
    # OPEN for writing, and nobody is shut out; OPEN4_CREATE, GUARDED4, mode 0600; CLAIM_NULL; no delegation, please.
    owner = b"client_8" + opaque(b"doctor")
    mode = numbers(2, 0, 2) + opaque(numbers(0o600))
    put = PUT + opaque(b"f")
    assert bodies == [
        PUT + opaque(b"d") + numbers(18, 0, 0x402, 0) + owner + numbers(1, 1) + mode + numbers(0) + opaque(b".probe"),
        PUT + opaque(b"d") + LOOKUP + opaque(b".probe") + GETFH,
        put + numbers(38) + state + struct.pack("!QI", 0, 2) + opaque(bytes(4096)),
        put + numbers(4, 0) + state,
        put + numbers(9, 2, 1 << 1, 1 << 1 | 1 << 4 | 1 << 21),
        PUT + opaque(b"d") + numbers(28) + opaque(b".probe"),
    ]


def test_which_versions_are_offered(wire: type[Wire]) -> None:
    """A server that knows no minor version says so; one of NFS 3 answers the null call."""
    for answers, offered in (
        ({"3": b"", "4.0": numbers(0), "4.1": numbers(0), "4.2": numbers(10021)}, {"3", "4.0", "4.1"}),
        ({"3": None, "4.0": None, "4.1": numbers(10021), "4.2": numbers(0)}, {"4.2"}),
    ):
        wire.asked.clear()
        wire.answers += [answers[version] for version in nfs.VERSIONS]
        assert set(nfs.offered(NAS)) == offered
        asked = dict(zip(nfs.VERSIONS, wire.asked, strict=True))
        assert asked["3"] == (100003, 3, 0, b"")
        assert [asked[f"4.{minor}"] for minor in range(3)] == [compound(minor, numbers(24)) for minor in range(3)]
