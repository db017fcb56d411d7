"""Boot files that are writable for as long as a command runs: a real mount, real signals, and what others see of it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.boot.config import load
from rpinfs.boot.host import Host
from rpinfs.errors import RpinfsError
from rpinfs.system import bootedit
from tests.support import make_pi
from tests.tools.conftest import Mount, command, python, until

pytestmark = pytest.mark.root

RUN = """
import sys
from rpinfs.errors import RpinfsError
from rpinfs.system import bootedit
bootedit.RUNTIME_FOLDER, bootedit.LOCK_FILE, bootedit.BUSY_SECONDS = {folder!r}, {folder!r} + "/boot.lock", {busy}
try:
    code = bootedit._run_writable({where!r}, {command!r}, stays_writable={stays})
except RpinfsError as error:
    print("refused:", error.message, "|", error.remedy, flush=True)
    code = error.status
sys.exit(code)
"""


@pytest.fixture
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bootedit, "RUNTIME_FOLDER", str(tmp_path / "run"))
    monkeypatch.setattr(bootedit, "LOCK_FILE", str(tmp_path / "run/boot.lock"))
    return tmp_path / "run/boot.lock"


@pytest.fixture
def where(mounted: Mount) -> Iterator[Path]:
    with mounted("-t", "tmpfs", "-o", "ro", "boot") as folder:
        yield folder
        command("mount", "-o", "remount,rw", folder)


def writable(where: Path) -> bool:
    mount = storage.mount_at(storage.parse_mountinfo(Path("/proc/self/mountinfo").read_text()), str(where))
    assert mount is not None
    return mount.writable


def started(
    where: Path, lock_file: Path, script: str, *, stays: bool = False, busy: float = 60.0
) -> subprocess.Popen[str]:
    argv = ["sh", "-c", script]
    return python(
        RUN.format(folder=str(lock_file.parent), where=str(where), command=argv, stays=stays, busy=busy),
        stdin=subprocess.PIPE,
    )


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 128 + 9)])
def test_for_as_long_as_it_runs(where: Path, lock_file: Path, script: str, status: int) -> None:
    with started(where, lock_file, f"echo x > {where}/file; {script}") as process:
        process.communicate()
    assert process.returncode == status
    assert (where / "file").read_text() == "x\n"
    assert not writable(where)
    assert lock_file.stat().st_mode & 0o777 == 0o600


def test_a_mount_that_stays_writable(where: Path, lock_file: Path) -> None:
    command("mount", "-o", "remount,rw", where)
    with started(where, lock_file, f"echo x > {where}/file", stays=True) as process:
        process.communicate()
    assert (process.returncode, writable(where)) == (0, True)


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("", False),
        ("[Boot]\nOptions=ro,acl\n", False),
        ("[Boot]\nOptions=rw\n", True),
        ("[Boot]\nOptions=\n", True),
        ("[Boot]\nExport=\n", False),
    ],
)
def test_whether_the_configuration_wants_it_writable(root: Path, text: str, stays: bool) -> None:
    assert bootedit._stays_writable(load(Host.read(str(make_pi(root, text))))) is stays


def test_what_is_not_to_be_found_or_run(where: Path, lock_file: Path) -> None:
    lock_file.parent.mkdir()
    with pytest.raises(RpinfsError, match="no-such-thing: command not found") as refusal:
        bootedit._run_writable(str(where), ["no-such-thing"], stays_writable=True)
    assert refusal.value.status == 127
    broken = lock_file.parent / "broken"
    broken.write_bytes(b"\0")
    broken.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: str(broken) if name == "broken" else None)
        with pytest.raises(RpinfsError, match=f"{broken}: Exec format error") as refusal:
            bootedit._run_writable(str(where), ["broken"], stays_writable=True)
    assert refusal.value.status == 126


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_mean_the_command(where: Path, lock_file: Path, number: signal.Signals) -> None:
    """We outlive it, and the files are read-only again."""
    script = f"trap 'exit 5' {number.value}; echo ready; while :; do sleep 0.1; done"
    with started(where, lock_file, script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert writable(where)
        process.send_signal(number)
        process.communicate()
    assert (process.returncode, writable(where)) == (5, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_keys_of_a_terminal_are_the_commands_own_affair(where: Path, lock_file: Path, number: signal.Signals) -> None:
    with started(where, lock_file, "echo ready; read line; exit 6") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        process.communicate("\n")
    assert (process.returncode, writable(where)) == (6, False)


def test_killed(where: Path, lock_file: Path) -> None:
    """Nobody can catch that: the guardian sees the pipe end, and the command ends with us."""
    with started(where, lock_file, "echo ready; read line") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.wait()
        until(lambda: not writable(where))


def test_one_at_a_time(where: Path, lock_file: Path) -> None:
    assert not bootedit.in_progress()
    with started(where, lock_file, "echo ready; read line") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert bootedit.in_progress()
        with pytest.raises(RpinfsError, match="another rpinfs boot edit or run is at work"):
            bootedit._run_writable(str(where), ["true"], stays_writable=True)
        process.communicate("\n")
    # The guardian has inherited the lock, and has gone by now.
    assert not bootedit.in_progress()
    assert bootedit._run_writable(str(where), ["true"], stays_writable=True) == 0


def test_still_open_for_writing(where: Path, lock_file: Path) -> None:
    """It is tried again for a while; then it is said, with what is to be done."""
    with started(where, lock_file, f"exec 3> {where}/file; sleep 1000 2>&- >&- <&- & echo $!", busy=0.6) as process:
        out, err = process.communicate()
    writer = out.partition("\n")[0]
    try:
        (said,) = out.splitlines()[1:]
        assert f"refused: {where} is STILL WRITABLE: it could not be made read-only again | end what has" in said
        assert "a process still has a file open for writing" in err
        assert writable(where)
        open_files = subprocess.run(
            ["sh", "-c", said.partition("then: ")[2].partition(";")[0]], capture_output=True, text=True, check=False
        ).stdout
        assert f"/proc/{writer}/fd/3" in open_files
    finally:
        os.kill(int(writer), signal.SIGKILL)
    until(lambda: not Path(f"/proc/{writer}/fd/3").exists())
    subprocess.run(["sh", "-c", said.rpartition("; ")[2]], check=True)
    assert not writable(where)


@pytest.mark.usefixtures("lock_file")
def test_what_is_no_mount_is_not_made_writable(tmp_path: Path) -> None:
    with pytest.raises(RpinfsError, match=f"{tmp_path} cannot be made writable: ") as refusal:
        bootedit._run_writable(str(tmp_path), [sys.executable, "-c", "1/0"], stays_writable=False)
    assert refusal.value.remedy == "rpinfs status"


def test_nobody_else_may_open_the_lock_from_the_first_moment_on(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor, any more, one that an older version has made for everybody."""
    modes: list[int] = []
    fchmod = os.fchmod

    def noted(file: int, mode: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(file).st_mode))
        fchmod(file, mode)

    monkeypatch.setattr(os, "fchmod", noted)
    before = os.umask(0)
    try:
        with bootedit._lock():
            lock_file.chmod(0o644)
        with bootedit._lock():
            assert stat.S_IMODE(lock_file.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert modes == [0o600, 0o644]


def test_in_progress_by_nothing(lock_file: Path) -> None:
    """A file that nobody has locked, and none."""
    assert not bootedit.in_progress()
    lock_file.parent.mkdir()
    lock_file.touch()
    assert not bootedit.in_progress()


@pytest.mark.parametrize(
    ("file", "path"),
    [("cmdline.txt", "/boot/firmware/cmdline.txt"), ("/boot/firmware/a/../b", "/boot/firmware/b")],
)
def test_below(file: str, path: str) -> None:
    assert bootedit._below("/boot/firmware", file) == path


@pytest.mark.parametrize("file", ["../passwd", "/etc/passwd", ".", "/boot/firmware", "/boot/firmware-other/x"])
def test_not_below(file: str) -> None:
    with pytest.raises(RpinfsError, match="expected a file below /boot/firmware, found ") as refusal:
        bootedit._below("/boot/firmware", file)
    assert refusal.value.status == 2


def test_the_users_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("VISUAL", "EDITOR"):
        monkeypatch.setenv(variable, "")
    with pytest.raises(RpinfsError, match="found no editor"):
        bootedit._editor()
    for name in ("vi", "nano"):
        (tmp_path / name).touch(0o755)
        assert bootedit._editor() == [name]
    monkeypatch.setenv("EDITOR", "ed -s")
    assert bootedit._editor() == ["ed", "-s"]
    monkeypatch.setenv("VISUAL", "code 'a b'")
    assert bootedit._editor() == ["code", "a b"]


def test_the_guardian_hears_no_signal(where: Path, lock_file: Path) -> None:
    """A stop by systemd reaches it as well, and the mount(8) that it starts: both go on."""
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
    with started(where, lock_file, "echo ready; read line") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

        def is_ready(pid: str) -> bool:
            status = Path(f"/proc/{pid}/status").read_text()
            mask = int(status.partition("SigIgn:")[2].split()[0], 16)
            return os.getsid(int(pid)) == int(pid) and all(mask & 1 << number - 1 for number in numbers)

        until(lambda: any(is_ready(pid) for pid in children))
        (guardian,) = [int(pid) for pid in children if is_ready(pid)]
        for number in numbers:
            os.kill(guardian, number)
        process.communicate("\n")
    assert (process.returncode, writable(where)) == (0, False)


def test_a_signal_while_the_command_is_being_started() -> None:
    """It comes after the last look at what is pending, and before there is a process that it could be passed on to."""

    class JustThen(bootedit._PassedOn):
        @property
        def pending(self) -> list[int]:
            return [signal.SIGTERM] if self.process else []

        @pending.setter
        def pending(self, _: list[int]) -> None:
            pass

    assert bootedit._run(["sleep", "60"], JustThen()) == 128 + signal.SIGTERM
    earlier = bootedit._PassedOn()
    earlier(signal.SIGHUP, None)
    assert bootedit._run(["sleep", "60"], earlier) == 128 + signal.SIGHUP


def test_for_root_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(Host.read(str(make_pi(tmp_path))))
    assert config.boot is not None
    mounts = f"36 25 0:50 / {config.boot.where} ro - nfs4 192.0.2.10:/boot ro\n"
    host = Host(root="", mountinfo=mounts)
    assert bootedit._boot_mount(host, config) == config.boot.where
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RpinfsError, match=f"only root can make {config.boot.where} writable") as caught:
        bootedit._boot_mount(host, config)
    assert caught.value.remedy == "sudo rpinfs boot ..."
