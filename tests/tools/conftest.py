"""What the tests of the tools share: real file systems to work on, programs that die where we want them to."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rpinfs.boot import host, storage
from rpinfs.lease import memory
from tests.support import PYTHON, thorough
from tests.tools import watchdog
from tests.tools.crash import points

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def promtool(watchers: Path) -> Path:
    return watchers / "usr/bin/promtool"


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path) -> Iterator[None]:
    """A test that failed may have left something frozen, mounted or attached: it goes, so that the next can run."""
    yield
    left = clean_up(tmp_path)
    assert left == []


def clean_up(folder: Path) -> list[str]:
    """Thaw, unmount and detach what is left at and below a folder; returns what that was."""
    left = []
    for where in watchdog.mount_points(str(folder)):
        left += [f"{where} was mounted"] + ["and frozen"] * watchdog.thaw(where)
        unmount(Path(where))
    for one in attached_below(folder):
        left.append(f"{one.path} was attached to {one.backing_file}: {holders({one.path})}")
        subprocess.run(["losetup", "--detach", one.path], check=False)
    return left


def attached_below(folder: Path) -> list[storage.Loop]:
    """The loop devices on files below a folder, but for those whose mount somebody else has a copy of, or had."""
    found = [one for one in storage.loops() if one.backing_file.startswith(f"{folder}/")]
    return [one for one in found if attachment(one) not in _outlived and not mounted_anywhere(one)]


def attachment(one: storage.Loop) -> tuple[str, str]:
    """What tells a device from one that is attached later: its path, and its file."""
    return one.path, one.backing_file


BUSY_SECONDS = 300.0
"""For whoever looks at a new device or mount in passing: udev, and containers of tests beside, each with its copy."""
DETACHED_SECONDS = 30.0
"""For a loop device to go after its mount; what is left then, is of no matter until it keeps a file system busy."""
_outlived: set[tuple[str, str]] = set()
"""Devices and files of mounts that are gone, which somebody else keeps: no test has left them."""


def unmount(folder: Path) -> None:
    """Unmount, and wait for the loop device to be gone with it: until then what holds its file stays busy.

    Whoever has a copy of the mount or the device open keeps it, maybe for as long as all tests run: that is waited for
    only where something else has to be unmounted.
    """
    mounted = {line.rpartition(" - ")[2].split()[1] for line in mounts(folder) if line.split()[4] == str(folder)}
    going = [one for one in storage.loops() if one.path in mounted - held_open() and one.autoclear]
    attached = set(map(attachment, going))
    done = comes_true(lambda: subprocess.run(["umount", folder], capture_output=True, check=False).returncode == 0)
    assert done, f"{folder} is still busy: {holders({str(folder), *mounted})}"

    def left() -> set[tuple[str, str]]:
        return attached & set(map(attachment, storage.loops()))

    if not comes_true(lambda: not left(), DETACHED_SECONDS):
        print(f"{sorted(left())} outlived {folder}: {holders(mounted)}")
        _outlived.update(left())


def held_open() -> set[str]:
    """Paths of the devices that this process has open, and which stay attached for that."""
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return {os.readlink(link) for link in links if os.path.lexists(link)}


def until(done: Callable[[], bool]) -> None:
    """Wait for what another process is about to do, of which nobody tells us."""
    assert comes_true(done), "still busy"


def comes_true(done: Callable[[], bool], seconds: float = BUSY_SECONDS) -> bool:
    """Wait for as long as that for what another process is about to do; whether it did it."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.025)
    return True


def holders(paths: set[str]) -> str:
    """Who has some devices or what is mounted at some folders open, or mounted in a mount namespace of its own."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            links = [*(process / "fd").iterdir(), process / "cwd", process / "root"]
            opened = {os.readlink(link) for link in links if os.path.lexists(link)}
            table = {word for line in (process / "mountinfo").read_text().splitlines() for word in line.split()}
            ways = [("open", opened), ("mounted", table)]
            kept = [f"{way} {path}" for way, there in ways for path in sorted(paths & there)]
            if kept and process.name != str(os.getpid()):
                name = (process / "cmdline").read_text().replace("\0", " ").strip()[:200]
                found.append(f"process {process.name} ({name}) has {', '.join(kept)}")
    return "; ".join(found) or "nobody is seen to hold it"


@pytest.fixture(autouse=True)
def memory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the root remembers of images: each test is a Pi with a fresh one."""
    folder = tmp_path / "root/var/lib/rpinfs"
    monkeypatch.setattr(memory, "FOLDER", str(folder))
    return folder


def mounted_anywhere(loop: storage.Loop) -> bool:
    """A mount namespace that the lab has made meanwhile keeps a copy of every mount until it ends."""
    tables = (host.read_text(str(path)) for path in Path("/proc").glob("[0-9]*/mountinfo"))
    return any(f" {loop.path} " in table for table in tables)


def command(*argv: str | Path) -> str:
    """Run a program that has to work; not by the code under test."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def mounts(folder: Path) -> list[str]:
    """What is mounted at and below a folder; elsewhere other programs come and go."""
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in table if f"{line.split()[4]}/".startswith(f"{folder}/")]


@pytest.fixture
def ends_in_time(tmp_path: Path) -> Iterator[None]:
    """For tests that freeze: one that hangs is thawed from outside, interrupted, and fails."""
    seconds = 12 * 3600 if thorough() else HANG_SECONDS

    def interrupt(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    argv = [sys.executable, watchdog.__file__, str(tmp_path), str(seconds)]
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(seconds)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            thawed, _ = process.communicate()
    assert thawed == ""


HANG_SECONDS = 600
"""What no test that freezes takes, on a busy machine either."""

Mount = Callable[..., contextlib.AbstractContextManager[Path]]


@pytest.fixture
def mounted(tmp_path: Path) -> Mount:
    """Mount something for as long as a with statement lasts."""

    @contextlib.contextmanager
    def mount(*arguments: str | Path) -> Iterator[Path]:
        folder = tmp_path / f"mnt{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        command("mount", *arguments, folder)
        try:
            yield folder
        finally:
            unmount(folder)

    return mount


@dataclass(frozen=True)
class Ended:
    """How a traced program ended."""

    returncode: int
    stderr: str
    calls: list[str]  # names of the system calls that touched the given paths
    points: list[str]  # the same as crash points, those of all processes taken together


Traced = Callable[..., Ended]


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    """Run Python code under strace(1), see which calls touch some paths, and tamper with one of them.

    Example: `traced(code, paths, inject="fsync:signal=KILL:when=2")`. With `whole` its children are followed, and
    all paths looked at; with `children` they are followed, and each counts its own calls.
    """

    def run_traced(
        code: str, paths: Sequence[Path], *, inject: str | None = None, whole: bool = False, children: bool = False
    ) -> Ended:
        log = tmp_path / "strace.log"
        follow = ["-f"] if whole or children else []
        if not whole:
            follow += [word for path in paths for word in ("-P", str(path))]
        tamper = ["-e", f"inject={inject}"] if inject else []
        done = subprocess.run(
            ["strace", "-qq", "-o", log, *follow, *tamper, *PYTHON, "-c", code],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        lines = log.read_text(errors="replace").splitlines()
        log.unlink()
        calls = [(match[1], match[2]) for line in lines if (match := re.match(r"(?:(\d+) +)?(\w+)\(", line))]
        return Ended(done.returncode, done.stderr, [name for _, name in calls], points(calls))

    return run_traced


def python(code: str, *, stdin: int | None = None) -> subprocess.Popen[str]:
    """Start Python code that can import rpinfs; its output is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
