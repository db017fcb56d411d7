"""What of holding a file system still can be seen without one."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.boot.storage import Mount
from rpinfs.image import freeze
from rpinfs.image.freeze import FreezeError, Freezer


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    yield reader, writer
    for fd in (reader, writer):
        os.close(fd)


def read(fd: int) -> bytes:
    try:
        return os.read(fd, 10)
    except BlockingIOError:
        return b""


def test_the_guard_knows_before_anything_is_frozen(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two, we would leave it frozen; and it hears that it is thawed only when it is."""
    reader, writer = pipe
    heard = []
    monkeypatch.setattr(fcntl, "ioctl", lambda _, request, __: heard.append((request, read(reader))))
    with Freezer("/where", -1, writer, 10.0).frozen() as check:
        check()
        assert read(reader) == b""
    assert heard == [(freeze.FIFREEZE, b"F"), (freeze.FITHAW, b"")]
    assert read(reader) == b"N"


def test_what_fails_meanwhile(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is thawed at once, and not only when the guard sees us end."""
    asked = []
    monkeypatch.setattr(fcntl, "ioctl", lambda _, request, __: asked.append(request))
    with pytest.raises(KeyboardInterrupt), Freezer("/where", -1, pipe[1], 10.0).frozen():
        raise KeyboardInterrupt
    assert (asked, read(pipe[0])) == ([freeze.FIFREEZE, freeze.FITHAW], b"FN")


def test_what_cannot_be_frozen(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pipe

    def ioctl(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with (
        pytest.raises(FreezeError, match="/where: cannot be frozen: Operation"),
        Freezer("/where", -1, writer, 1).frozen(),
    ):
        pytest.fail("not frozen")
    assert read(reader) == b"FN"


def test_time_is_up(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: 0)
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with pytest.raises(FreezeError, match="within the 10 s"), Freezer("/where", -1, pipe[1], 10.0).frozen() as check:
        now[0] = 109.9
        check()
        now[0] = 110.0
        check()


def test_another_mount_there(tmp_path: Path) -> None:
    """Between the look at the mount table and the freezing."""
    device = os.stat(tmp_path).st_dev
    wrong = (os.major(device), os.minor(device) + 1)
    mount = Mount(1, 0, wrong, "/", str(tmp_path), [], "ext4", "/dev/loop0", [])
    with (
        pytest.raises(FreezeError, match="something else is mounted there by now"),
        freeze.guarded("docker", mount, 1.0, str(tmp_path / "run")),
    ):
        pytest.fail("guarded")
    assert os.listdir(tmp_path / "run") == []


def test_the_limit_is_the_one_that_is_documented() -> None:
    assert freeze.LIMIT_SECONDS == 600
    text = (Path(__file__).parents[3] / "units/man/rpinfs.8.in").read_text()
    assert f"({freeze.LIMIT_SECONDS}) the snapshot is given up" in text
