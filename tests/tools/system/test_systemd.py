"""What is made of systemd's answers, and what needs no systemd; a real one is asked in tests/package."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import path_encode

from rpinfs.errors import RpinfsError
from rpinfs.system import systemd
from rpinfs.system.run import Completed, run
from rpinfs.system.systemd import UnitState
from tests.support import PYTHON, TOP

REFUSED = [
    {"UNIT": "docker.service", "__MONOTONIC_TIMESTAMP": "1500000"},
    {"UNIT": "docker.service", "__MONOTONIC_TIMESTAMP": "2500000"},
    {"UNIT": "containerd.service", "__MONOTONIC_TIMESTAMP": "500000"},
]
# A journal that was cut off, of another version, or without what was asked for.
ODD = ['{"UNIT": "x.service"', '{"UNIT": "x.service"}', '{"UNIT": "y", "__MONOTONIC_TIMESTAMP": null}', "[]", "7", ""]


def test_who_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last time counts; a line that cannot be read hides none of the others."""
    lines = [*ODD, json.dumps(REFUSED[0]), *ODD, *map(json.dumps, REFUSED[1:])]

    def printed(argv: list[str], timeout: float) -> Completed:
        assert argv[0] == "journalctl"
        assert argv[-4:] == ["_PID=1", "JOB_RESULT=dependency", "UNIT=docker.service", "UNIT=containerd.service"]
        return run(["printf", "%s\\n", *lines], timeout=timeout)

    monkeypatch.setattr(systemd, "run", printed)
    assert systemd.refused_starts(["docker.service", "containerd.service"]) == {
        "docker.service": 2.5,
        "containerd.service": 0.5,
    }


def test_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "run", lambda *_, **__: run(["false"]))
    assert systemd.refused_starts(["docker.service"]) is None


def test_nobody_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_ADDRESS", f"unix:path={tmp_path}/private".encode())
    for ask in (
        lambda: systemd.unit_states(["docker.service"]),
        lambda: systemd.wanted_units(["docker.service"]),
        lambda: systemd.start_unit("docker.service"),
        lambda: systemd.stop_units(["docker.service"]),
        lambda: systemd.outcome("docker.service"),
        systemd.system_state,
    ):
        with pytest.raises(RpinfsError, match="systemd cannot be reached over /run/systemd/private: ") as refusal:
            ask()
        assert refusal.value.remedy == "run this as root, on a running system"
    # Who asks for nothing needs nobody.
    assert systemd.unit_states([]) == {}


def test_whether_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not listen, one that stands still, one whose queue is full by then, one that is there."""
    path = tmp_path / "private"
    monkeypatch.setattr(systemd, "_PRIVATE", str(path))
    assert not systemd.answers(0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(2)
        assert [systemd.answers(0.1) for _ in range(5)] == [False] * 5
        for _ in range(3):
            listener.accept()[0].close()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                asked = connection.recv(100)
                connection.sendall(b"OK 0123\r\n" if asked.startswith(b"\0AUTH EXTERNAL") else b"")

        other = threading.Thread(target=answer)
        other.start()
        assert systemd.answers(30)
        other.join()


UNITS: dict[str, dict[str, object]] = {
    "var-lib-docker.mount": {
        "LoadState": b"loaded", "ActiveState": b"failed", "SubState": b"failed", "UnitFileState": b"generated",
        "Job": (7, b"/job/7"), "Result": b"exit-code", "StateChangeTimestampMonotonic": 9_500_000,
        "InactiveExitTimestampMonotonic": 1_000_000, "ActiveExitTimestampMonotonic": 8_000_000,
        "InactiveEnterTimestampMonotonic": 9_000_000, "RequiredBy": [b"docker.service"], "WantedBy": [],
    },
    "docker.service": {
        "LoadState": b"loaded", "ActiveState": b"inactive", "SubState": b"dead", "UnitFileState": b"enabled",
        "Job": (0, b"/"), "Result": b"success", "StateChangeTimestampMonotonic": 0,
        "InactiveExitTimestampMonotonic": 0, "ActiveExitTimestampMonotonic": 0, "InactiveEnterTimestampMonotonic": 0,
        "RequiredBy": [], "WantedBy": [b"multi-user.target"],
    },
    "multi-user.target": {
        "LoadState": b"loaded", "ActiveState": b"active", "SubState": b"active", "UnitFileState": b"static",
        "Job": (0, b"/"), "StateChangeTimestampMonotonic": 0, "InactiveExitTimestampMonotonic": 0,
        "ActiveExitTimestampMonotonic": 0, "InactiveEnterTimestampMonotonic": 0, "RequiredBy": [], "WantedBy": [],
    },
}  # fmt: skip


class Refusal(DBusBaseError):  # type: ignore[misc]  # pystemd has no types
    """What systemd says when it does not do it."""

    def __init__(self, said: str) -> None:
        super().__init__(said.encode(), 2)
        self.err_message = said.encode()


class Bus:
    """In the place of a connection: answers by UNITS, and notes what it is told."""

    def __init__(self) -> None:
        self.called: list[tuple[str, ...]] = []
        self.open_ = 0
        self.refuses: set[str] = set()
        self.job: bytes | None = b"start"

    def open(self) -> None:
        self.open_ += 1

    def close(self) -> None:
        self.open_ -= 1

    def get_property(self, name: bytes, path: bytes, interface: bytes, key: bytes, kind: bytes) -> object:
        assert name == b"org.freedesktop.systemd1" and self.open_ == 1
        if key == b"SystemState":
            assert (path, interface, kind) == (b"/org/freedesktop/systemd1", name + b".Manager", b"s")
            return b"degraded"
        if key == b"JobType":
            assert (path, interface) == (b"/job/7", name + b".Job")
            if self.job is None:
                raise Refusal("No such job.")
            return self.job
        unit = next(unit for unit in UNITS if path_encode(b"/org/freedesktop/systemd1/unit", unit.encode()) == path)
        if unit in self.refuses:
            raise Refusal("Not today.")
        kinds = {b"Job": b"(uo)", b"WantedBy": b"as", b"RequiredBy": b"as", b"ExecMainStatus": b"i"}
        assert kind == kinds.get(key, b"t" if key.endswith(b"Monotonic") else b"s")
        own = name + {"service": b".Service", "mount": b".Mount"}.get(unit.rpartition(".")[2], b".Unit")
        assert interface == (own if key in (b"Result", b"ExecMainStatus") else name + b".Unit")
        return UNITS[unit][key.decode()]

    def call_method(self, name: bytes, path: bytes, interface: bytes, method: bytes, words: object) -> None:
        where = (b"org.freedesktop.systemd1", b"/org/freedesktop/systemd1", b"org.freedesktop.systemd1.Manager")
        assert (name, path, interface) == where and self.open_ == 1
        assert isinstance(words, list)
        self.called.append((method.decode(), *(word.decode() for _, word in words)))
        if words[0][1].decode() in self.refuses:
            raise Refusal("Unit is masked.")


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    made = Bus()

    def address(where: bytes, peer_to_peer: bool) -> Bus:
        assert (where, peer_to_peer) == (b"unix:path=/run/systemd/private", True)
        return made

    monkeypatch.setattr("pystemd.dbuslib.DBusAddress", address)
    yield made
    assert made.open_ == 0, "each connection is closed"


def test_the_state_of_units(bus: Bus) -> None:
    """Times in seconds, and none where it was never so; a target has no result."""
    mount, docker, target = systemd.unit_states([*UNITS, "docker.service"]).values()
    assert mount == UnitState(
        "var-lib-docker.mount",
        "loaded",
        "failed",
        "failed",
        "exit-code",
        "generated",
        "start",
        9.5,
        True,
        8.0,
        9.0,
        1.0,
    )
    assert docker == UnitState("docker.service", "loaded", "inactive", "dead", "success", "enabled", "", None, False)
    assert (target.result, target.has_run) == ("", False)
    bus.job = None
    assert systemd.unit_states(["var-lib-docker.mount"])["var-lib-docker.mount"].job == "", "it has ended meanwhile"
    bus.refuses.add("docker.service")
    with pytest.raises(RpinfsError, match=r"^systemd does not tell the state of docker.service: Not today\.$"):
        systemd.unit_states(["docker.service"])
    assert systemd.system_state() == "degraded"


@pytest.mark.parametrize(
    ("result", "ended"),
    [
        (b"success", "success"), (b"exit-code", "exit status 3"), (b"core-dump", "core-dump"), (b"signal", "signal"),
        (b"timeout", "timeout"),
    ],
)  # fmt: skip
def test_how_a_service_has_ended(bus: Bus, monkeypatch: pytest.MonkeyPatch, result: bytes, ended: str) -> None:
    """Only of an exit status the number says something; and nothing is told before the end."""
    monkeypatch.setitem(UNITS["docker.service"], "Result", result)
    monkeypatch.setitem(UNITS["docker.service"], "ExecMainStatus", 3)
    assert systemd.outcome("docker.service") == ended
    monkeypatch.setitem(UNITS["docker.service"], "Job", (7, b"/job/7"))
    assert systemd.outcome("docker.service") is None
    bus.refuses.add("docker.service")
    with pytest.raises(RpinfsError, match=r"^systemd does not tell how docker.service has ended: Not today\.$"):
        systemd.outcome("docker.service")


@pytest.mark.parametrize(
    ("active", "job", "wanted"),
    [
        (b"active", 0, True), (b"activating", 0, True), (b"reloading", 0, True), (b"inactive", 0, False),
        (b"failed", 0, False), (b"deactivating", 0, False), (b"inactive", 7, True),
    ],
)  # fmt: skip
def test_what_one_that_runs_or_is_to_run_pulls_in(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, active: bytes, job: int, wanted: bool
) -> None:
    for name, others in (("docker.service", "multi-user.target"), ("var-lib-docker.mount", "docker.service")):
        monkeypatch.setitem(UNITS[others], "ActiveState", active)
        monkeypatch.setitem(UNITS[others], "Job", (job, b"/"))
        assert systemd.wanted_units([name, name]) == (frozenset({name}) if wanted else frozenset())
    assert systemd.wanted_units(["multi-user.target"]) == frozenset()
    bus.refuses.add("docker.service")
    with pytest.raises(RpinfsError, match=r"systemd does not tell what wants docker.service: Not today\."):
        systemd.wanted_units(["docker.service"])


def test_units_are_started_whatever_has_failed_before(bus: Bus) -> None:
    bus.refuses.add("b.service")
    with pytest.raises(RpinfsError, match=r"^systemd refuses to start b.service: Unit is masked\.$"):
        systemd.start_units(["a.service", "b.service", "c.service"])
    resets = [("ResetFailedUnit", f"{name}.service") for name in "abc"]
    starts = [("StartUnit", f"{name}.service", "replace") for name in "ab"]
    assert bus.called == [*resets, *starts]
    bus.called.clear()
    systemd.start_unit("a.service")
    assert bus.called == [("ResetFailedUnit", "a.service"), ("StartUnit", "a.service", "replace")]
    bus.called.clear()
    systemd.stop_units(["a.mount", "c.mount"])
    assert bus.called == [("StopUnit", "a.mount", "replace"), ("StopUnit", "c.mount", "replace")]
    with pytest.raises(RpinfsError, match=r"systemd refuses to stop b.service: Unit is masked\."):
        systemd.stop_units(["b.service"])


def test_why_a_mount_has_failed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of those that have; the journal is asked for twenty lines of each, and has five seconds."""
    asked: list[tuple[list[str], float]] = []

    def journal(argv: list[str], timeout: float) -> Completed:
        asked.append((argv, timeout))
        return Completed(0, "Mounting /x...\nmount: bad superblock\nFailed to mount /x.\n", "")

    monkeypatch.setattr(systemd, "run", journal)
    assert bus and systemd.why_failed(UNITS) == {"var-lib-docker.mount": "mount: bad superblock"}
    options = ["--boot", "--no-pager", "--output=cat", "--lines=20", "--unit=var-lib-docker.mount"]
    assert asked == [(["journalctl", *options], 5.0)]


@pytest.mark.parametrize(
    ("journal", "line"),
    [
        ("", ""),
        ("  \n", ""),
        ("Mounting /x...\nFailed to mount /x.\n", "Failed to mount /x."),
        (" why \n\n", "why"),
        ("ü\x1b[31m\n", "? [31m"),
        ("x" * 300, "x" * 200),
        ("one\ntwo\nMount process exited, code=exited\n", "two"),
    ],
)
def test_the_line_that_says_why(journal: str, line: str) -> None:
    assert systemd.telling_line(journal) == line


def test_words_of_systemd() -> None:
    assert systemd._text(b"fail\xff") == "fail\ufffd"
    assert systemd._text("text") == "text"
    error = ValueError("[err 2]: b'No such unit.'")
    assert systemd._reason(error) == str(error)
    error.err_message = b"No such unit."  # type: ignore[attr-defined]
    assert systemd._reason(error) == "No such unit."


def test_systemd_is_asked_without_what_pystemd_has_for_others() -> None:
    """lxml and its libraries are 29 files of the root."""
    code = (
        "import sys; sys.path.append('/usr/lib/python3/dist-packages')\n"
        "from rpinfs.errors import RpinfsError\n"
        "from rpinfs.system import systemd\n"
        "systemd._ADDRESS = b'unix:path=/nowhere'\n"
        "try:\n    systemd.system_state()\n"
        "except RpinfsError as error:\n    print(error.message)\n"
        "print('pystemd.dbuslib' in sys.modules, 'lxml' in sys.modules)\n"
    )
    done = subprocess.run([*PYTHON, "-c", code], cwd=TOP, capture_output=True, text=True, check=True)
    said, modules = done.stdout.splitlines()
    assert said.startswith("systemd cannot be reached") and modules == "True False"


def test_without_pystemd_it_is_said_what_to_install() -> None:
    code = (
        "from rpinfs.errors import RpinfsError\n"
        "from rpinfs.system import systemd\n"
        "try:\n    systemd.system_state()\n"
        "except RpinfsError as error:\n    print(error.message, error.remedy)\n"
    )
    done = subprocess.run([*PYTHON, "-c", code], cwd=TOP, capture_output=True, text=True, check=True)
    assert done.stdout == "systemd cannot be asked: No module named 'pystemd' apt install python3-pystemd\n"


LIGHT = """
import sys
sys.path[:0] = [sys.argv[1]]
sys.path.append('/usr/lib/python3/dist-packages')
from rpinfs.system import systemd
with_it = [systemd._pystemd(name).__name__ for name in ("dbusexc", "dbuslib")]
print(*with_it, *{"pprint", "dataclasses", "inspect", "lxml"} & set(sys.modules))
stand_in = systemd._OnNeed("pprint")
print(stand_in.pformat({1: 2}), hasattr(stand_in, "__path__"))
"""


def test_pystemd_comes_without_what_it_needs_for_others() -> None:
    """What it takes of pprint differs from version to version of it."""
    done = subprocess.run([*PYTHON, "-c", LIGHT, str(TOP)], capture_output=True, text=True, check=True)
    assert done.stdout == "pystemd.dbusexc pystemd.dbuslib\n{1: 2} False\n"
