"""What doctor makes of what it hears and fetches; on a real wire: tests/tools/netboot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rpinfs.netboot import doctor, mtu, packet, root, tftp, wire
from rpinfs.netboot.boards import BOARDS
from rpinfs.netboot.doctor import Diagnosis, Way
from rpinfs.netboot.finding import Gravity
from rpinfs.netboot.judge import Remark, Verdict
from rpinfs.netboot.model import Pi, Plan
from rpinfs.netboot.packet import PacketError
from rpinfs.netboot.plan import parse

PI = Pi("pi1", BOARDS["4"], "1a2b3c4d")
OLD = Pi("old", BOARDS["3B"], "00a1b2c3")
VERDICT = Verdict("192.168.1.50", "192.168.1.1", "192.168.1.2", "option 66")
ROOT = "nfsroot=192.168.1.10:/nfsroot/pi1,vers=4.1"
BY_ETH0 = Way("eth0")
RAPID = (
    "the switch speaks rapid spanning tree: a port that comes up listens for 30 s before it forwards, unless it is an"
    " edge port"
)
SLOW = (
    "the switch speaks spanning tree: a port that comes up listens for 11 s before it forwards, and a 3B gives up after"
    " 25 s; whether the board's own port does cannot be seen from here"
)
LOST = (
    "blocks of 1468 bytes from 192.168.1.2 are lost, those of 512 come through: something on the way takes no frame of"
    " 1500 bytes"
)
WHOLE: dict[str, bytes] = {
    "1a2b3c4d/start4.elf": b"x" * 7, "1a2b3c4d/config.txt": b"arm_64bit=1\n", "1a2b3c4d/kernel8.img": b"k" * 9,
    "1a2b3c4d/cmdline.txt": f"console=tty1 root=/dev/nfs {ROOT} rw\n".encode(),
}  # fmt: skip


def plan(**more: object) -> Plan:
    facts: dict[str, object] = {"network": {"subnet": "192.168.1.0/24"}, "nas": {"address": "192.168.1.10"}, **more}
    return parse(facts, "x")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Remark]]:
    """A server with these files, and what is said of a board that it serves; roots are right."""

    def diagnosed(
        files: Mapping[str, bytes | Exception], pi: Pi = PI, way: Way = BY_ETH0, made: Plan | None = None,
        largest: int = 1468, verdict: Verdict = VERDICT,
    ) -> list[Remark]:  # fmt: skip
        def found(server: str, path: str, interface: str) -> bytes:
            assert (server, interface) == ("192.168.1.2", way.interface)
            if path not in files:
                raise tftp.NotServedError(f"{server}: {path}: not found")
            content = files[path]
            if isinstance(content, Exception):
                raise content
            return content

        def begins(server: str, path: str, interface: str, block: int = tftp.BLOCK_SIZE) -> None:
            found(server, path, interface)
            if block > largest:
                raise tftp.StoppedError(f"{server}: {path}: stopped")

        monkeypatch.setattr(tftp, "size", lambda *where: len(found(*where)))
        monkeypatch.setattr(tftp, "fetch", found)
        monkeypatch.setattr(tftp, "begins", begins)
        monkeypatch.setattr(doctor, "judge", lambda *_: verdict)
        return doctor.diagnose(pi, [], made, way).remarks

    return diagnosed


@pytest.fixture(autouse=True)
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The roots that are looked at."""
    asked: list[tuple[object, ...]] = []

    def look_at(source: root.Source, interface: str, write: bool) -> list[Remark]:
        asked.append((source, interface, write))
        return []

    monkeypatch.setattr(root, "look_at", look_at)
    return asked


Served = Callable[..., list[Remark]]


def told(remarks: list[Remark]) -> list[tuple[str, str]]:
    return [(one.gravity.name, one.message) for one in remarks]


# Who asks


def test_the_boards_of_the_plan_or_one_of_each_kind() -> None:
    assert [pi.name for pi in doctor.boards_to_ask_for(None)] == ["a 3B", "a 3B+", "a 4", "a 5"]
    assert doctor.boards_to_ask_for(plan()) == doctor.boards_to_ask_for(None)
    made = plan(pi=[{"name": "pi1", "board": "4"}])
    assert doctor.boards_to_ask_for(made) == list(made.pis)


@pytest.mark.parametrize(
    ("pi", "number", "mac"),
    [
        (Pi("a", BOARDS["4"], "", "dc:a6:32:00:00:02"), 7, "dca632000002"),
        (Pi("a", BOARDS["4"]), 0, "dca632fffeff"),
        (Pi("a", BOARDS["3B"]), 1, "b827ebfffefe"),
        (Pi("a", BOARDS["5"]), 256, "dca632fffeff"),
    ],
)
def test_what_a_board_broadcasts(pi: Pi, number: int, mac: str) -> None:
    """From an address of the right maker that no board has, where nobody knows its own."""
    request = doctor.request_of(pi, number)
    assert request[28:34].hex() == mac
    again = doctor.request_of(pi, number)
    assert request[4:8] != again[4:8], "each is told apart from the others"
    if pi.board.eeprom:
        guid = packet.parse(request, "a request").options[packet.MACHINE_ID]
        assert guid[-4:].hex() == mac[4:]
        known = doctor.request_of(Pi("a", pi.board, "1a2b3c4d"), number)
        assert packet.parse(known, "a request").options[packet.MACHINE_ID][-4:].hex() == "1a2b3c4d"


@pytest.mark.parametrize(
    ("bridge", "gravity", "said"),
    [
        (None, None, ""),
        (wire.Bpdu(False, 5.0), None, ""),
        (wire.Bpdu(True, 15.0), Gravity.NOTE, RAPID),
        (wire.Bpdu(False, 5.5), Gravity.WARNING, SLOW),
    ],
)
def test_what_concerns_all_boards(
    monkeypatch: pytest.MonkeyPatch, bridge: wire.Bpdu | None, gravity: Gravity | None, said: str
) -> None:
    asked: list[tuple[str, float]] = []

    def ask(interface: str, requests: list[bytes], seconds: float) -> wire.Heard:
        asked.append((interface, seconds))
        return wire.Heard({request[4:8]: [] for request in requests}, [PacketError("x: cut off")], bridge)

    monkeypatch.setattr(wire, "ask", ask)
    offers, remarks = doctor.offers_to("eth9", [PI, OLD], 3.0)
    assert (offers, asked) == ([[], []], [("eth9", 3.0)])
    assert (remarks[0].rule, remarks[0].gravity, remarks[0].message) == (12, Gravity.WARNING, "x: cut off")
    remedy = "make the ports of boards edge ports (portfast), or switch spanning tree off on them"
    assert remarks[1:] == ([Remark(29, gravity, said, remedy)] if gravity is not None else [])


# The files


def test_all_is_well(served: Served, looked_at: list[tuple[object, ...]]) -> None:
    assert served(WHOLE) == []
    assert looked_at == [(root.Source("192.168.1.10", "/nfsroot/pi1", "4.1"), "eth0", False)]
    top = {path.partition("/")[2]: content for path, content in WHOLE.items()}
    assert served(top, way=Way("eth1", "", True)) == [] and looked_at[1][1:] == ("eth1", True)


@pytest.mark.parametrize(
    ("pi", "said"),
    [
        (PI, "192.168.1.2 has no start4.elf and no start.elf in 1a2b3c4d/ or at the top"),
        (Pi("pi1", BOARDS["4"]), "192.168.1.2 has no start4.elf and no start.elf in the top"),
    ],
)
def test_nothing_to_start_from(served: Served, looked_at: list[tuple[object, ...]], pi: Pi, said: str) -> None:
    assert told(served({}, pi)) == [("FAULT", said)] and looked_at == []


def test_a_rom_wants_bootcode_at_the_top(served: Served) -> None:
    files = {**{path.replace("1a2b3c4d/start4", "00a1b2c3/start").replace("1a2b3c4d", "00a1b2c3"): content
                for path, content in WHOLE.items()}}  # fmt: skip
    assert told(served(files, OLD)) == [("FAULT", "192.168.1.2 does not serve bootcode.bin")]
    assert served({**files, "bootcode.bin": b"x"}, OLD) == []


@pytest.mark.parametrize(
    ("missing", "gravity", "said"),
    [
        ("config.txt", "WARNING", "does not serve 1a2b3c4d/config.txt: the firmware's defaults are used"),
        ("kernel8.img", "FAULT", "does not serve 1a2b3c4d/kernel8.img (the kernel)"),
        ("cmdline.txt", "FAULT", "does not serve 1a2b3c4d/cmdline.txt: the kernel finds no root"),
    ],
)
def test_a_file_that_is_missing(served: Served, missing: str, gravity: str, said: str) -> None:
    files = {path: content for path, content in WHOLE.items() if not path.endswith(missing)}
    assert told(served(files)) == [(gravity, f"192.168.1.2 {said}")]


def test_what_config_txt_names(served: Served) -> None:
    """The last one that is for this board counts."""
    config = b"kernel=a.img\nkernel=b.img\n[pi5]\nkernel=c.img\n[pi4]\ninitramfs i.img followkernel\ninitramfs\n"
    files = {**WHOLE, "1a2b3c4d/config.txt": config}
    assert told(served(files)) == [
        ("FAULT", "192.168.1.2 does not serve 1a2b3c4d/b.img (the kernel)"),
        ("FAULT", "192.168.1.2 does not serve 1a2b3c4d/i.img (named by config.txt)"),
    ]
    assert served({**files, "1a2b3c4d/b.img": b"k", "1a2b3c4d/i.img": b"i"}) == []


def test_a_command_line_without_a_root(served: Served) -> None:
    files = {**WHOLE, "1a2b3c4d/cmdline.txt": b"console=tty1 " + b"x" * 200}
    text = "console=tty1 " + "x" * 107
    found = served(files)
    assert told(found) == [("FAULT", f"1a2b3c4d/cmdline.txt has no nfsroot=: {text}")]
    assert [one.rule for one in found] == [19]


@pytest.mark.parametrize(
    ("error", "rule", "remedy"),
    [
        (tftp.SilentError("silent"), 13,
         "start the TFTP server on 192.168.1.2; it asked there by option 66 of 192.168.1.1"),
        (tftp.NotReadableError("unreadable"), 15,
         "on 192.168.1.2: make all in its TFTP folder readable for everybody (chmod -R go+rX)"),
        (tftp.TftpError("odd"), 15, "look at the log of the TFTP server on 192.168.1.2"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_give_it(served: Served, error: tftp.TftpError, rule: int, remedy: str) -> None:
    assert served({**WHOLE, "1a2b3c4d/start4.elf": error}) == [Remark(rule, Gravity.FAULT, error.message, remedy)]


@pytest.mark.parametrize(
    ("largest", "said"),
    [
        (1468, []),
        (1467, [("FAULT", LOST)]),
        (511, [("FAULT", "192.168.1.2: 1a2b3c4d/kernel8.img: stopped")]),
    ],
)
def test_blocks_that_do_not_come_through(served: Served, largest: int, said: list[tuple[str, str]]) -> None:
    assert told(served(WHOLE, largest=largest)) == said


def test_two_tftp_roots(served: Served, tmp_path: Path) -> None:
    """Where the folder is on this machine, it is compared with what is served."""
    for path, content in WHOLE.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    way = Way("eth0", str(tmp_path))
    assert served(WHOLE, way=way) == []
    (tmp_path / "1a2b3c4d/kernel8.img").write_bytes(b"k" * 8)
    (tmp_path / "1a2b3c4d/config.txt").write_bytes(b"arm_64bit=0\n")
    (tmp_path / "1a2b3c4d/cmdline.txt").unlink()
    other = f"than the one in {tmp_path}"
    assert told(served(WHOLE, way=way)) == [
        ("WARNING", f"192.168.1.2 serves another 1a2b3c4d/{name} {other} ({why}): there are two TFTP roots")
        for name, why in (
            ("config.txt", "another one"), ("kernel8.img", "another one"), ("cmdline.txt", "No such file or directory"),
        )
    ]  # fmt: skip


# The root


@pytest.mark.parametrize(
    ("nfsroot", "made", "source"),
    [
        ("10.0.0.1:/r,vers=4", None, root.Source("10.0.0.1", "/r", "4.0")),
        ("10.0.0.1:/r", None, root.Source("10.0.0.1", "/r", "3")),
        ("/r,vers=4.2", None, root.Source("192.168.1.2", "/r", "4.2")),
        ("/r,vers=4.2", plan(), root.Source("192.168.1.10", "/r", "4.2")),
    ],
)
def test_which_root_is_looked_at(
    served: Served, looked_at: list[tuple[object, ...]], nfsroot: str, made: Plan | None, source: root.Source
) -> None:
    """Of the NAS of the plan, or of who serves the files, where the command line names no server."""
    served({**WHOLE, "1a2b3c4d/cmdline.txt": f"nfsroot={nfsroot}\n".encode()}, made=made)
    assert looked_at == [(source, "eth0", False)]


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("nfsroot=/r,v4.2 rw init=/usr/bin/x", root.Source("192.168.1.2", "/r", "4.2", "/usr/bin/x")),
        ("nfsroot=/r,vers=4.1,nfsvers=4 rw init=", root.Source("192.168.1.2", "/r", "4.0")),
        ("nfsroot=/r rw nfsv4.directory_delegations=0", root.Source("192.168.1.2", "/r", "3", delegations=False)),
        ("nfsroot=/r rw nfsv4.directory_delegations=Y", root.Source("192.168.1.2", "/r", "3")),
    ],
)
def test_what_is_asked_of_the_root(
    served: Served, looked_at: list[tuple[object, ...]], line: str, asked: root.Source
) -> None:
    assert served({**WHOLE, "1a2b3c4d/cmdline.txt": line.encode()}) == []
    assert looked_at == [(asked, "eth0", False)]


def test_options_that_no_kernel_mounts_by(served: Served) -> None:
    files = {**WHOLE, "1a2b3c4d/cmdline.txt": b"nfsroot=/r,vers=3,proto=udp ip=dhcp\n"}
    assert [(one.rule, one.gravity.name, one.message, one.remedy) for one in served(files)] == [
        (19, "FAULT", "1a2b3c4d/cmdline.txt: proto=udp: kernels have no NFS over UDP any more",
         "on 192.168.1.2: write proto=tcp there"),
        (19, "WARNING", "1a2b3c4d/cmdline.txt: rw is missing: the root is read-only, unless its fstab has a line for /",
         "on 192.168.1.2: write rw there"),
    ]  # fmt: skip


NARROW = (
    "packets of 1500 bytes do not come back from 192.168.1.2, those of up to 1400 do: on the way there is an MTU of"
    " 1400, and TFTP and NFS stop where a longer one is sent"
)
REFUSED = "whether packets of 1500 bytes come through to 192.168.1.2 was not tried by ping: Operation not permitted"
PATHS = [
    (mtu.Passage(1500, 1500), []),
    (mtu.Passage(1500, 9000), []),
    (mtu.Passage(1400, 1500), [("WARNING", NARROW)]),
    (mtu.Passage(1400, 1400), [
        ("WARNING", "eth0 of this machine has an MTU of 1400: what a board gets beyond that cannot be tried here")]),
    (mtu.Passage(0, 1500), [
        ("NOTE", "192.168.1.2 answers no ping: whether packets of 1500 bytes come through is known by TFTP alone")]),
    (mtu.Passage(0, 1500, "Operation not permitted"), [("NOTE", REFUSED)]),
    (mtu.Passage(0, 1500, mtu.OURS), []),
    (mtu.Passage(0, 0, mtu.OURS), []),
]  # fmt: skip


@pytest.mark.parametrize(("way", "said"), PATHS)
def test_how_long_packets_may_be(
    monkeypatch: pytest.MonkeyPatch, way: mtu.Passage, said: list[tuple[str, str]]
) -> None:
    """Each server is tried once, and what is found is said of each board that it serves."""
    tried: list[tuple[str, str]] = []

    def way_to(server: str, interface: str) -> mtu.Passage:
        tried.append((server, interface))
        return way if server == "192.168.1.2" else mtu.Passage(1500, 1500)

    monkeypatch.setattr(mtu, "way_to", way_to)
    boards = [
        Diagnosis(PI, VERDICT, BY_ETH0),
        Diagnosis(OLD, VERDICT, BY_ETH0, nas="10.0.0.1"),
        Diagnosis(PI, Verdict(), BY_ETH0),
    ]
    doctor.look_at_the_ways(boards)
    assert tried == [("192.168.1.2", "eth0"), ("10.0.0.1", "eth0")]
    assert [told(board.remarks) for board in boards] == [said, said, []]
    doctor.look_at_the_ways([])


def test_where_nobody_says_boot_nothing_is_fetched(served: Served, looked_at: list[tuple[object, ...]]) -> None:
    nobody = Verdict(remarks=[Remark(11, Gravity.FAULT, "nobody answers")])
    assert told(served({}, verdict=nobody)) == [("FAULT", "nobody answers")] and looked_at == []


def test_the_last_word() -> None:
    well = Diagnosis(PI, VERDICT, folder="1a2b3c4d/")
    assert doctor.sentence(well) == "pi1 boots: files from 192.168.1.2 (option 66 of 192.168.1.1), /1a2b3c4d/"
    well.folder = ""
    assert doctor.sentence(well).endswith(", the top folder")
    well.remarks += [
        Remark(1, Gravity.WARNING, "slow"),
        Remark(2, Gravity.FAULT, "one"),
        Remark(3, Gravity.FAULT, "two"),
    ]
    assert doctor.sentence(well) == "pi1 does not boot: one"
