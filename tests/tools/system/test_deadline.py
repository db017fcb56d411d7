"""Questions that may never be answered, asked of children that really hang."""

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from rpinfs.errors import ConfigError, RpinfsError
from rpinfs.system import deadline
from rpinfs.system.deadline import TimedOut, gather, within
from rpinfs.system.run import CommandError, run
from tests.tools.conftest import Mount, command

LONG = 60.0  # seconds; far more than any answer takes
SHORT = 0.3


def hang() -> NoReturn:
    while True:
        signal.pause()


def test_answer() -> None:
    assert within(LONG, divmod, 7, 2) == (3, 1)
    assert within(LONG, os.getpid) != os.getpid()
    assert within(LONG, lambda: None) is None


def test_answer_larger_than_a_pipe() -> None:
    assert within(LONG, lambda: b"x" * 5_000_000) == b"x" * 5_000_000


def test_exceptions_arrive_as_they_are() -> None:
    with pytest.raises(FileNotFoundError) as missing:
        within(LONG, os.stat, "/no/such/file")
    assert missing.value.filename == "/no/such/file"
    with pytest.raises(CommandError) as failed:
        within(LONG, run, ["sh", "-c", "exit 7"])
    assert failed.value.returncode == 7


def test_config_error_arrives_whole() -> None:
    def fail() -> NoReturn:
        raise ConfigError("/etc/x", 3, "A=b", "rule", "remedy")

    with pytest.raises(ConfigError, match=r"^/etc/x:3: A=b: rule$") as caught:
        within(LONG, fail)
    error = caught.value
    assert (error.file, error.line, error.what, error.rule) == ("/etc/x", 3, "A=b", "rule")
    assert (error.message, error.remedy, error.status) == ("/etc/x:3: A=b: rule", "remedy", 2)


class Untravelled(RpinfsError):
    """What pickle makes again calls it with one argument."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one}: {other}", "remedy")


def test_exception_that_cannot_travel_arrives_as_its_text() -> None:
    def fail() -> NoReturn:
        raise Untravelled("/etc/x", "rule")

    with pytest.raises(RpinfsError, match=r"^/etc/x: rule$") as caught:
        within(LONG, fail)
    assert type(caught.value) is RpinfsError
    assert caught.value.remedy == "remedy"


def test_answer_that_cannot_travel() -> None:
    with pytest.raises(RpinfsError, match="lambda"):
        within(LONG, lambda: lambda: None)


def test_child_that_dies() -> None:
    with pytest.raises(RpinfsError, match="died without an answer"):
        within(LONG, lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_timeout_kills_the_child(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def hang_with_fifo() -> NoReturn:
        os.open(fifo, os.O_WRONLY)
        hang()

    with pytest.raises(TimedOut, match=r"no answer within 0\.3 s") as caught:
        within(SHORT, hang_with_fifo)
    assert caught.value.seconds == SHORT
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""  # comes when the last writer is dead
    os.close(reader)


def test_signal_handlers_of_the_parent_are_not_the_childs() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(RpinfsError, match="died without an answer"):
            within(LONG, lambda: os.kill(os.getpid(), signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_gather_runs_side_by_side() -> None:
    # Each waits for the other's byte: one after the other, both would time out.
    ping, pong = os.pipe(), os.pipe()

    def one() -> bytes:
        os.write(ping[1], b"1")
        return os.read(pong[0], 1)

    def two() -> bytes:
        answer = os.read(ping[0], 1)
        os.write(pong[1], b"2")
        return answer

    assert gather({"one": one, "two": two}, LONG) == {"one": b"2", "two": b"1"}
    for fd in (*ping, *pong):
        os.close(fd)


def test_gather_keeps_answers_beside_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is up when the other two have answered, however long that takes on a busy machine."""
    ended: list[deadline._Child] = []
    receive = deadline._Child.receive

    def counted(child: deadline._Child) -> bool:
        more = receive(child)
        ended.extend([] if more else [child])
        return more

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + (2 * LONG if len(ended) == 2 else 0.0))
    monkeypatch.setattr(deadline._Child, "receive", counted)
    monkeypatch.setattr(deadline, "time", clock)
    result = gather({"good": lambda: 1, "bad": lambda: 1 // 0, "never": hang}, LONG)
    assert list(result) == ["good", "bad", "never"]
    assert result["good"] == 1
    assert isinstance(result["bad"], ZeroDivisionError)
    assert isinstance(result["never"], TimedOut)


def test_no_descriptor_and_no_child_stays() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(20):
        gather({"good": lambda: 1, "bad": lambda: 1 // 0}, LONG)
    with pytest.raises(TimedOut):
        within(SHORT, hang)
    assert set(os.listdir("/proc/self/fd")) == before
    for pid in list(deadline._unreaped):  # killed, and perhaps not dead yet
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    within(LONG, int)
    for pid in list(deadline._unreaped):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    deadline._reap()
    assert deadline._unreaped == set()


def test_a_child_that_somebody_else_has_reaped_is_forgotten() -> None:
    """waitpid(-1) of a library's, say: nobody can wait for it any more."""
    with pytest.raises(TimedOut):
        within(0, hang)
    gone = set(deadline._unreaped)
    for pid in gone:
        os.waitpid(pid, 0)
    assert gone
    assert within(LONG, divmod, 7, 2) == (3, 1)
    assert not gone & deadline._unreaped


def test_how_long_a_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """By proc_pid_stat(5), whatever its name is; of a line that is cut short nothing is told."""
    begin = 40 * os.sysconf("SC_CLK_TCK")
    fields = " ".join(map(str, [*range(4, 22), begin, *range(23, 53)]))
    told = [f"7 (a) 1 2) S {fields}\n", "7 (a) S " + " ".join("0" * 18), ""]
    monkeypatch.setattr(deadline, "read_text", lambda _: told.pop(0))
    monkeypatch.setattr(time, "clock_gettime", lambda _: 41.5)
    assert [deadline.seconds_of_life() for _ in range(3)] == [1.5, 0.0, 0.0]


def test_from_a_thread() -> None:
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(within(LONG, lambda: 5)))
    thread.start()
    thread.join()
    assert answers == [5]


@pytest.mark.root
def test_child_that_cannot_be_killed_holds_nobody(tmp_path: Path, mounted: Mount) -> None:
    """A write to a frozen file system is uninterruptible: not even SIGKILL ends it before the thaw."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    command("mkfs.ext4", "-q", disk)
    with mounted("-o", "loop", disk) as folder:
        target = folder / "file"
        command("fsfreeze", "--freeze", folder)
        try:
            with pytest.raises(TimedOut):
                within(SHORT, target.write_bytes, b"x")
            stuck = set(deadline._unreaped)
            assert stuck
            states = {Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] for pid in stuck}
            assert "D" in states
            assert within(LONG, lambda: 1) == 1
        finally:
            command("fsfreeze", "--unfreeze", folder)
        for pid in stuck:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        within(LONG, int)
        assert not stuck & deadline._unreaped
