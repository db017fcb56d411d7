"""The one way to start programs, with programs that really run."""

import os
import pickle
import select
import selectors
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.system.run import CommandError, _Exchange, last_line, reporting, run
from tests.support import PYTHON
from tests.tools.conftest import python

PATIENCE = 30  # seconds; only a bound on how long a failing test hangs


def test_output_and_status() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], ok=(0, 3))
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_arguments_are_never_seen_by_a_shell() -> None:
    odd = ["a b", "$HOME", "`id`", "*", "", "';'"]
    assert run(["printf", "%s\\n", *odd]).stdout.splitlines() == odd


def test_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SECRET", "1")
    environment = dict(line.split("=", 1) for line in run(["env"]).stdout.splitlines())
    assert environment == {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    assert "X=y\n" in run(["env"], env={"X": "y"}).stdout


def test_standard_input_is_empty_unless_given() -> None:
    assert run(["cat"]).stdout == ""
    assert run(["cat"], input=b"").stdout == ""
    assert run(["cat"], input=b"text").stdout == "text"


def test_large_data_both_ways_at_once() -> None:
    data = b"0123456789abcdef" * (1 << 18)
    done = run(["sh", "-c", "tee /dev/stderr"], input=data)
    assert done.stdout.encode() == done.stderr.encode() == data


def test_a_program_that_says_more_than_it_is_told_holds_nobody_up() -> None:
    """Its output has filled a pipe long before it has read what fills another."""
    code = (
        "from rpinfs.system.run import run\n"
        "print(len(run(['od', '-v', '-An', '-tx1'], input=bytes(1 << 20)).stdout.split()))"
    )
    with python(code) as process:
        try:
            assert process.communicate(timeout=PATIENCE)[0] == f"{1 << 20}\n"
        finally:
            process.kill()


def test_program_that_does_not_read_its_input() -> None:
    assert run(["true"], input=b"x" * (1 << 20)).returncode == 0


def test_output_that_is_not_text() -> None:
    assert run(["printf", "\\377x"]).stdout == "\ufffdx"


def test_log_gets_the_command_line_before_the_start(tmp_path: Path) -> None:
    marker = tmp_path / "started"
    seen: list[tuple[str, bool]] = []
    run(["touch", str(marker)], log=lambda line: seen.append((line, marker.exists())))
    assert seen == [(f"touch {marker}", False)]


@pytest.mark.parametrize(
    ("argv", "returncode", "reason"),
    [
        (["no-such-program", "x y"], None, "command not found"),
        (["/etc/passwd"], None, "command not found"),
        (["sh", "-c", "exit 7"], 7, "exit status 7"),
        (["sh", "-c", "echo noise >&2; echo 'the reason' >&2; exit 7"], 7, "exit status 7: the reason"),
        (["sh", "-c", "echo 'on stdout'; exit 7"], 7, "exit status 7: on stdout"),
        (["sh", "-c", "kill -TERM $$"], -15, "killed by signal 15 (SIGTERM)"),
        (["sh", "-c", "kill -35 $$"], -35, "killed by signal 35 (unknown)"),
    ],
)
def test_failures_are_told_apart(argv: list[str], returncode: int | None, reason: str) -> None:
    with pytest.raises(CommandError) as caught:
        run(argv)
    assert (caught.value.returncode, caught.value.reason, caught.value.argv) == (returncode, reason, argv)
    assert caught.value.message.endswith(f": {reason}")
    assert isinstance(caught.value, RpinfsError)


def test_a_signal_is_never_a_success() -> None:
    with pytest.raises(CommandError):
        run(["sh", "-c", "kill -KILL $$"], ok=range(-64, 256))


def test_file_that_is_no_program(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    with pytest.raises(CommandError, match="cannot be started: No such file or directory"):
        run([str(broken)])


def test_not_found_names_the_package() -> None:
    with pytest.raises(CommandError) as caught:
        run(["mkfs.xfs"], env={"PATH": "/nowhere"})
    assert caught.value.remedy == "apt install xfsprogs"


def test_message_is_ascii() -> None:
    with pytest.raises(CommandError, match=r"exit status 1: gr\?\?"):
        run(["sh", "-c", "echo 'gr\u00fc\u00df' >&2; exit 1"])


def test_error_travels_between_processes() -> None:
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", "echo why >&2; exit 7"])
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), vars(copy)) == (CommandError, vars(caught.value))


@pytest.fixture
def up_when_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is up when the program has said something, however long that takes on a busy machine."""
    step, late = _Exchange._step, 0.0

    def stepped(exchange: _Exchange, key: selectors.SelectorKey) -> bool:
        nonlocal late
        more = step(exchange, key)
        late = 2.0 * PATIENCE if exchange.texts()[0] else 0.0
        return more

    monkeypatch.setattr(_Exchange, "_step", stepped)
    monkeypatch.setattr("rpinfs.system.run.time", SimpleNamespace(monotonic=lambda: time.monotonic() + late))


@pytest.mark.usefixtures("up_when_it_speaks")
def test_timeout_kills_program_and_children(tmp_path: Path) -> None:
    # The grandchild holds the write end of the FIFO; we see its end of file when it is dead.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    script = f"exec 3>{fifo}; sleep 1000 & exec 3>&-; echo before; exec sleep 1000"
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", script], timeout=PATIENCE)
    assert caught.value.reason == f"timed out after {PATIENCE} s"
    assert caught.value.stdout == "before\n"
    assert select.select([reader], [], [], PATIENCE)[0]
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.usefixtures("up_when_it_speaks")
def test_timeout_when_only_a_grandchild_keeps_the_pipe(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with pytest.raises(CommandError, match="timed out"):
        run(["sh", "-c", f"sleep 1000 & echo $! >{pidfile}; echo so"], timeout=PATIENCE)
    assert_dies(int(pidfile.read_text()))


def test_exception_while_waiting_leaves_nothing_running(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with reporting() as (reader, writer), pytest.raises(KeyboardInterrupt):
        run(
            ["bash", "-c", f"echo $$ >{pidfile}; echo line >&{writer}; exec sleep 1000"],
            pass_fds=[writer],
            report=(reader, interrupt),
        )
    assert_dies(int(pidfile.read_text()))


def test_report_lines_come_while_the_program_runs(tmp_path: Path) -> None:
    # The program waits until it sees that its first line has been taken.
    seen = tmp_path / "seen"
    os.mkfifo(seen)
    lines: list[str] = []

    def take(line: str) -> None:
        if not lines:
            seen.write_text("yes\n")
        lines.append(line)

    with reporting() as (reader, writer):
        script = f"echo one >&{writer}; read x <{seen}; printf 'two\\nthree\\nno end' >&{writer}; echo done"
        done = run(["bash", "-c", script], pass_fds=[writer], report=(reader, take), timeout=PATIENCE)
    assert (lines, done.stdout) == (["one", "two", "three"], "done\n")


def test_program_dies_with_us(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    parent = python(
        f"from rpinfs.system.run import run\nrun(['sh', '-c', 'echo $$ >{fifo}; exec sleep 1000'], die_with_us=True)"
    )
    pid = int(fifo.read_text())
    parent.kill()
    parent.communicate()
    assert_dies(pid)


def test_only_who_is_told_to_dies_with_us() -> None:
    """A program of a thread would else end with that: the signal comes when the thread that started it is gone."""
    signal_of_death = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    assert run([*PYTHON, "-c", signal_of_death]).stdout == "0\n"
    assert run([*PYTHON, "-c", signal_of_death], die_with_us=True).stdout == f"{int(signal.SIGKILL)}\n"


def test_own_process_group() -> None:
    of_it = run(["sh", "-c", "cut -d' ' -f5 /proc/$$/stat"]).stdout
    assert int(of_it) != os.getpgrp()


def test_last_line() -> None:
    assert last_line("one\n two \n\n") == "two"
    assert last_line("") == ""


def assert_dies(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended = select.select([fd], [], [], PATIENCE)[0]
        if not ended:
            os.kill(pid, signal.SIGKILL)
        assert ended, f"process {pid} is still there"
    finally:
        os.close(fd)
