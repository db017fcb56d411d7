"""What the agent publishes beside its images: with the renewal, and with no request of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rpinfs.agent.beside import ROOM_SECONDS, Beside
from rpinfs.agent.summary import Subject
from rpinfs.agent.work import Room
from rpinfs.boot.config import Image, load
from rpinfs.boot.host import Host
from rpinfs.lease.report import Report, parse
from rpinfs.system import syscalls
from tests.support import make_pi
from tests.tools.conftest import command

WELL = (Subject("share", "mounted", "ok", "there"), Subject("image docker", "mounted", "ok", "docker: mounted"))
GONE = (WELL[0], Subject("image docker", "lost", "critical", "docker: gone", "reboot"))
SILENT = (Subject("share", "silent", "critical", "NAS does not answer", "look at it"), WELL[1])


@dataclass
class World:
    """What is said, and the time."""

    image: Image
    found: tuple[Subject, ...] = WELL
    now: float = 100.0
    asked: list[str] = field(default_factory=list)

    def beside(self) -> Beside:
        return Beside("1a2b", lambda: self.found, lambda: self.now)


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "where").mkdir()
    root = make_pi(tmp_path / "root", f"[Image docker]\nFile=docker.img\nWhere={tmp_path}/where\nBind=\n")
    return World(load(Host.read(str(root))).images[0])


def said(data: bytes) -> Report:
    found = parse(data)
    assert found is not None
    return found


def test_what_is_told_is_new_until_it_was_written(world: World) -> None:
    told = world.beside()
    assert told.is_new(world.image)
    record = said(told.record(world.image))
    assert (record.serial, record.status, record.message, record.size) == ("1a2b", "ok", "docker: mounted", None)
    assert not told.is_new(world.image)
    world.found = GONE
    assert told.is_new(world.image)
    record = said(told.record(world.image))
    assert (record.status, record.message) == ("critical", "docker: gone")
    assert not told.is_new(world.image)
    world.found = (WELL[0], Subject("image docker", "lost", "critical", "docker: gone for 20 s", "reboot"))
    assert not told.is_new(world.image), "figures are no news: they come with the next renewal"


def test_what_can_be_written_disproves_that_the_share_is_silent(world: World) -> None:
    told = world.beside()
    told.record(world.image)
    world.found = SILENT
    assert not told.is_new(world.image)
    record = said(told.record(world.image))
    assert (record.status, record.message) == ("ok", "docker: mounted")


@pytest.fixture
def mounted(world: World, tmp_path: Path) -> Iterator[str]:
    """An ext4 at the mount point of the image; the name of its loop device."""
    command("truncate", "--size=64M", str(tmp_path / "docker.img"))
    command("mkfs.ext4", "-q", str(tmp_path / "docker.img"))
    command("mount", "-o", "loop", str(tmp_path / "docker.img"), world.image.where)
    try:
        yield os.path.basename(command("findmnt", "-no", "SOURCE", world.image.where).strip())
    finally:
        command("umount", world.image.where)


@pytest.mark.root
def test_the_room_is_that_of_the_image_and_of_nothing_else(world: World, mounted: str) -> None:
    told = world.beside()
    told.measure(world.image, "loop0" if mounted != "loop0" else "loop1")
    assert said(told.record(world.image)).size is None, "something else is mounted there"
    world.now += ROOM_SECONDS
    told.measure(world.image, mounted)
    room = os.statvfs(world.image.where)
    record = said(told.record(world.image))
    assert (record.size, record.free) == (room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize)
    (Path(world.image.where) / "file").write_bytes(b"x" * (1 << 20))
    os.sync()
    told.measure(world.image, mounted)
    after = said(told.record(world.image)).free
    assert record.free is not None and after is not None and after <= record.free - (1 << 20)
    assert told.measure(world.image, mounted) == Room(world.now, room.f_blocks * room.f_frsize, after, None)


@pytest.mark.root
def test_a_way_that_the_kernel_would_have_to_ask_for_is_walked_rarely(
    world: World, mounted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(path: str) -> int:
        raise OSError(11, "it is not in memory", path)

    walked: list[str] = []

    def walk(path: str, flags: int) -> int:
        walked.append(path)
        return real(path, flags)

    real = os.open
    monkeypatch.setattr(syscalls, "open_in_memory", unknown)
    monkeypatch.setattr(os, "open", walk)
    told = world.beside()
    for seconds, times in ((0, 1), (180, 1), (ROOM_SECONDS - 1, 1), (ROOM_SECONDS, 2), (ROOM_SECONDS + 180, 2)):
        world.now = 100.0 + seconds
        told.measure(world.image, mounted)
        assert walked.count(world.image.where) == times, seconds
