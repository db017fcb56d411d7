"""What is told: STATUS= and the watchdog to a service manager that listens, the journal, and the published state."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from rpinfs.agent import do, tell
from rpinfs.agent.picture import ShareFacts
from rpinfs.agent.states import Memory, ShareMemory, ShareState, State
from rpinfs.boot import gate
from rpinfs.boot.config import Image, load
from rpinfs.boot.host import Host
from rpinfs.image.prepare import Prepared
from tests.support import make_pi

NOW = 1000.0
THERE = ShareFacts(mount=7, device=(0, 38))
UP = ShareMemory(ShareState.MOUNTED, 1.0, "192.168.1.10:/docker is mounted at /nfs/docker")
MOUNTED = {"docker": Memory(State.MOUNTED, message="mounted at /var/lib/docker")}


def test_status_line() -> None:
    facts = replace(THERE, size=100, free=25)
    assert tell.status_line(UP, facts, MOUNTED, NOW) == "docker: mounted at /var/lib/docker; share 75% full"
    late = ShareMemory(ShareState.WAITING, NOW - 25, "not there yet")
    assert tell.status_line(late, facts, MOUNTED, NOW) == "not there yet, since 20 s"
    silent = ShareMemory(ShareState.SILENT, NOW - 125, "no answer")
    assert tell.status_line(silent, facts, MOUNTED, NOW) == "no answer, since 2 min; docker: mounted at /var/lib/docker"
    failing = replace(silent, state=ShareState.FAILING, message="stale")
    assert tell.status_line(failing, facts, MOUNTED, NOW) == "stale, since 2 min; docker: mounted at /var/lib/docker"
    assert tell.status_line(UP, THERE, {}, NOW) == "nothing to do: all mount points are in /etc/fstab"
    hostile = {"docker": Memory(State.REFUSED, message="a\nMAINPID=1 \x1b[31m ü")}
    assert tell.status_line(UP, THERE, hostile, NOW) == "docker: a MAINPID=1  [31m ?"


@pytest.mark.parametrize(
    ("size", "free", "full"), [(100, 0, "100%"), (100, 100, "0%"), (1000, 999, "1%"), (0, 0, ""), (None, None, "")]
)
def test_how_full_the_share_is(size: int | None, free: int | None, full: str) -> None:
    """A share without any blocks has none that are full."""
    line = tell.status_line(UP, replace(THERE, size=size, free=free), MOUNTED, NOW)
    assert line == "docker: mounted at /var/lib/docker" + (f"; share {full} full" if full else "")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "0 s"), (9.9, "0 s"), (10.0, "10 s"), (89.9, "80 s"), (90.0, "2 min"), (149.0, "2 min"), (600.0, "10 min")],
)
def test_a_length_of_time_is_coarse(seconds: float, said: str) -> None:
    assert tell.duration(seconds) == said


def test_the_journal_hears_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    before = Memory()
    after = replace(before, state=State.REFUSED, message="no\n<0>")
    tell.news_of_image("docker", before, after)
    tell.news_of_image("docker", after, after)
    tell.news_of_image("docker", before, replace(before, state=State.PREPARING, message="looking"))
    tell.news_of_image("docker", after, replace(after, state=State.WAITING, message=""))
    mounted = replace(before, state=State.MOUNTED, message="mounted")
    tell.news_of_image("docker", before, mounted)
    tell.news_of_image("docker", mounted, replace(mounted, message="mounted, but", remedy="do this"))
    tell.news_of_image("docker", mounted, replace(mounted, state=State.LOST, message="lost"))
    tell.news_of_image("docker", mounted, replace(mounted, state=State.UNMOUNTED))
    tell.news_of_share(ShareMemory(), UP)
    tell.news_of_share(UP, UP)
    tell.news_of_share(UP, replace(UP, message="mounted anew"))
    tell.news_of_share(UP, ShareMemory(ShareState.SILENT, 1.0, "silent"))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        *("<4>image docker: no <0>", "<6>image docker: mounted", "<4>image docker: mounted, but"),
        *("<4>image docker: lost", "<6>image docker: mounted"),
        *(f"<6>{UP.message}", "<6>mounted anew", "<4>silent"),
    ]


# The service manager, and the state file


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def heard(manager: socket.socket) -> list[str]:
    said = []
    while True:
        try:
            said.append(manager.recv(65536).decode())
        except BlockingIOError:
            return said


@pytest.fixture
def teller(manager: socket.socket) -> Iterator[tell.Teller]:
    made = tell.Teller(5.0)
    assert made.notifier.socket.getpeername() == manager.getsockname()
    yield made
    made.notifier.socket.close()


def test_the_watchdog_is_fed_each_time_and_status_said_when_it_is_new(
    manager: socket.socket, teller: tell.Teller
) -> None:
    for line in ("a", "a", "b"):
        teller.status(line)
    assert heard(manager) == ["WATCHDOG=1", "STATUS=a", "WATCHDOG=1", "WATCHDOG=1", "STATUS=b"]
    teller.notify("READY=1", "STATUS=not in use")
    assert heard(manager) == ["READY=1\nSTATUS=not in use"]


def test_a_service_manager_that_reads_nothing_is_not_waited_for(manager: socket.socket, teller: tell.Teller) -> None:
    """Where its root is on a NAS that is gone; what it did not take it hears when it reads again."""
    for number in range(5000):
        teller.status(f"a{number}")
    teller.status("last")
    unread = heard(manager)
    assert 0 < len(unread) < 5000 and "STATUS=last" not in unread
    teller.status("last")
    teller.status("last")
    assert heard(manager) == ["WATCHDOG=1", "STATUS=last", "WATCHDOG=1"]


def test_systemd_is_asked_for_more_time_than_two_ticks_take() -> None:
    """In microseconds (sd_notify(3)); TimeoutStartSec= of the unit is what is made longer."""
    assert tell.EXTENSION_USEC == 120 * 1_000_000


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return load(Host.read(str(make_pi(tmp_path / "pi", "[Image docker]\nFile=docker.img\n")))).images[0]


def a_device(**of_device: object) -> Prepared:
    device = SimpleNamespace(path="/dev/loop3", **of_device)
    return Prepared(
        "/nfs/docker/docker.img", cast("object", device), "uuid", 4096, 1024, None, clean=False, not_grown="no room"  # type: ignore[arg-type]
    )  # fmt: skip


def test_what_is_published(image: Image, tmp_path: Path, teller: tell.Teller, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the gate and status, which are for everybody; written whole, and only when something is new."""
    file = tmp_path / "agent.json"
    monkeypatch.setattr(gate, "STATE_FILE", str(file))
    monkeypatch.setattr(do, "RUNTIME_FOLDER", str(tmp_path))
    memory = Memory(State.MOUNTED, 7.0, "mounted at /var/lib/docker", "do this")
    share = replace(UP, remedy="look")
    facts = replace(THERE, size=100, free=25, answer=0.5)
    teller.publish(share, facts, [(image, memory, a_device(direct_io=True))])
    assert json.loads(file.read_text()) == {
        "version": 1, "pid": os.getpid(), "since": 5.0,
        "share": {
            "state": "mounted", "since": 1.0, "message": UP.message, "remedy": "look",
            "size": 100, "free": 25, "answer": 0.5,
        },
        "images": {
            "docker": {
                "state": "mounted", "since": 7.0, "message": "mounted at /var/lib/docker", "remedy": "do this",
                "file": "/nfs/docker/docker.img", "loop": "loop3", "direct_io": True, "size": 4096, "allocated": 1024,
                "clean": False, "not_grown": "no room",
            }
        },
    }  # fmt: skip
    assert file.stat().st_mode & 0o777 == 0o644
    written = file.stat().st_ino
    # So long as nothing else has its number.
    held = file.open()
    teller.publish(share, facts, [(image, memory, a_device(direct_io=True))])
    assert file.stat().st_ino == written
    teller.publish(share, facts, [(image, memory, None)])
    assert file.stat().st_ino != written
    held.close()
    of_image = json.loads(file.read_text())["images"]["docker"]
    unknown = {"loop": "", "direct_io": None, "size": None, "allocated": None, "clean": None, "not_grown": ""}
    assert {key: of_image[key] for key in unknown} == unknown
