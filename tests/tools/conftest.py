"""What the tests of the tools share: real file systems to work on, programs that die where we want them to."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rpinfs.boot import host, storage
from tests.support import PYTHON
from tests.tools.crash import points

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(autouse=True)
def nothing_stays_attached(tmp_path: Path) -> Iterator[None]:
    yield
    attached = [one for one in storage.loops() if one.backing_file.startswith(f"{tmp_path}/")]
    assert [one.path for one in attached if not mounted_anywhere(one)] == []


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
            command("umount", folder)

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
