"""All boards of a NAS, by their records and by what they hold on the share."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.lease import owner as owners
from rpinfs.lease.lock import path_of
from rpinfs.netboot.add import record
from rpinfs.netboot.add.boards import all_boards
from rpinfs.netboot.add.record import Record

PI1 = Record("pi1", "a1b2c3d4", "", "4", "192.168.1.10", "/r/pi1", "/t/a1b2c3d4", "/i.img", sha256="0f")


@pytest.fixture
def here(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("roots", "share"):
        (tmp_path / name).mkdir()
    return tmp_path / "roots", tmp_path / "share"


def holds(share: Path, image: str, serial: str, hostname: str = "", seen: float = 1.5e9) -> None:
    """A lease as the agent of a Pi leaves it."""
    with owners.new_record(str(share / image)) as new:
        new.publish(owners.Owner(serial, hostname, "", "boot"))
    lock = Path(path_of(str(share / image)))
    lock.touch()
    os.utime(lock, (0, seen))


def test_boards_with_their_images(here: tuple[Path, Path]) -> None:
    roots, share = here
    for one in (PI1, replace(PI1, name="pi0", serial="", mac="b8:27:eb:00:00:01"), replace(PI1, name="pi2", serial="")):
        record.write(str(roots), one)
        (roots / one.name).mkdir()
    holds(share, "a.img", "10000000a1b2c3d4", "other")
    holds(share, "b.img", "A1B2C3D4")
    holds(share, "c.img", "b8-27-eb-00-00-01")
    holds(share, "d.img", "99999999", "pi2")
    holds(share, "e.img", "77777777", "stranger")
    holds(share, "f.img", "77777777", "stranger")
    holds(share, "g.img", "66666666")
    holds(share, "h.img", "55555555", "pi1")
    found = [(one.name, one.serial, [Path(image).name for image in one.images]) for one in all_boards(*map(str, here))]
    assert found == [
        ("66666666", "66666666", ["g.img"]),
        ("pi0", "", ["c.img"]),
        ("pi1", "a1b2c3d4", ["a.img", "b.img"]),
        ("pi1", "55555555", ["h.img"]),
        ("pi2", "", ["d.img"]),
        ("stranger", "77777777", ["e.img", "f.img"]),
    ]
    assert all(one.seen > 1e9 and not one.faults for one in all_boards(*map(str, here)))
    assert [one.name for one in all_boards(str(roots), "")] == ["pi0", "pi1", "pi2"]
    assert [one.seen for one in all_boards(str(roots), "")] == [0, 0, 0]


def test_when_it_was_seen_last(here: tuple[Path, Path]) -> None:
    for image, seen in (("a.img", 10.0), ("b.img", 30.0), ("c.img", 20.0)):
        holds(here[1], image, "1", "a", seen)
    assert [one.seen for one in all_boards(*map(str, here))] == [30.0]


def test_what_is_wrong_with_them(here: tuple[Path, Path]) -> None:
    roots, share = here
    for one in (
        PI1, replace(PI1, name="pi2", staged="0123456789abcdef"), replace(PI1, name="pi3", sha256="", source="pi1",
        staged="0123456789abcdef"), replace(PI1, name="pi4", sha256="", source="/folder", staged="0123456789abcdef"),
    ):  # fmt: skip
        record.write(str(roots), one)
    (roots / ".pi5.rpinfs-board").write_text("nonsense")
    Path(owners.record_of(str(share / "x.img"))).write_text("nonsense")
    said = {one.name: one.faults for one in all_boards(*map(str, here))}
    assert said["pi1"] == [f"{roots}/pi1 is not there"]
    for name, verb in (("pi2", "add"), ("pi3", "clone"), ("pi4", "add")):
        assert said[name] == [f"is not complete: the same rpinfs netboot {verb} again completes it"]
    assert "expected the record of a board" in said["pi5"][0]
    assert f"{share}/" in said[""][0]
    assert len(said) == 6
