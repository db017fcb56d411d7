"""Copies: what cp's complaints mean, how far it has got, how much room is asked for."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.netboot.add import copying
from rpinfs.netboot.add.meter import Meter
from rpinfs.netboot.add.survey import Entry, Survey, survey
from rpinfs.system.run import CommandError
from tests.support import make_tree

FILE = Entry(mode=0o100644, owner=(0, 0), size=5 << 20, seconds=0, holes=1 << 20)


@pytest.mark.parametrize(("code", "stderr", "said"), [
    (1, "/usr/bin/cp: preserving permissions for '/t/a': Operation not supported", ""),
    (1, "cp: setting attribute 'user.a' for '/t/a': x\n\ncp: setting attributes for '/t/b': x\n", ""),
    (2, "cp: preserving permissions for '/t/a': x", "/t: cannot be copied to: preserving permissions for '/t/a': x"),
    (1, "cp: preserving permissions for '/t/a': x\ncp: cannot open '/s/b': I/O", "/t: cannot be copied to: preserving"),
    (1, "cp: error writing '/t/a': No space left on device", "/t: No space left on device"),
    (1, "cp: error writing '/t/a': Disk quota exceeded", "/t: Disk quota exceeded"),
    (1, "cp: x: Read-only file system", "/t: Read-only file system"),
    (1, "", "/t: cannot be copied to: the reason"),
])  # fmt: skip
def test_what_cp_complains_of(code: int, stderr: str, said: str) -> None:
    error = CommandError(["cp"], "the reason", returncode=code, stderr=stderr)
    if not said:
        copying._judge(error, "/t")
        return
    with pytest.raises(RpinfsError, match=f"^{re.escape(said)}"):
        copying._judge(error, "/t")


def test_how_far_it_has_got() -> None:
    """A name is told when its copy begins: what came before it is done."""
    done: list[int] = []

    class Counting(Meter):
        def __call__(self, count: int) -> None:
            done.append(count)

    counting = Counting(lambda _: None, "x", 1)
    progress = copying._Progress("/s", Survey({"a": FILE, "b/c": FILE, "d": replace(FILE, size=0, holes=0)}), counting)
    for line in ("'/s/a' -> '/t/a'", "'/s/b' -> '/t/b'", "'/s/b/c' -> '/t/b/c'", "noise", "'/s/d' -> '/t/d'"):
        progress(line)
    assert done == [0, 4 << 20, 8 << 20]


def test_room_in_bytes_and_inodes(tmp_path: Path) -> None:
    there = os.statvfs(tmp_path)
    free = there.f_bavail * there.f_frsize
    copying.refuse_without_bytes(str(tmp_path), free // 2, "the root")
    with pytest.raises(RpinfsError, match=f"^{tmp_path}: expected .* of free space for the root, found "):
        copying.refuse_without_bytes(str(tmp_path), free * 2, "the root")
    files = {str(number): FILE for number in range(100)}
    copying.refuse_without_room(str(tmp_path), Survey(files, allocated=4096), "the root")
    with pytest.raises(RpinfsError, match="of free space for the root"):
        copying.refuse_without_room(str(tmp_path), Survey(files, allocated=free), "the root")


class Full:
    """What statvfs(2) says; a real full file system is in tools/netboot."""

    f_frsize, f_blocks, f_bavail, f_files, f_favail = 4096, 1000, 200, 1000, 10


@pytest.mark.parametrize(("is_there", "count", "allocated", "said"), [
    ({}, 10, 190 * 4096, ""),
    ({}, 10, 190 * 4096 + 1, "expected 800 KiB of free space for x, found 800 KiB"),
    ({}, 11, 0, "expected 11 free inodes for x, found 10"),
    ({"f_files": 0}, 11, 0, ""),
    ({"f_blocks": 0, "f_bavail": 0}, 10, 1 << 30, ""),
])  # fmt: skip
def test_the_bounds(
    is_there: dict[str, int], count: int, allocated: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("Full", (Full,), is_there)
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    found = Survey({str(number): FILE for number in range(count)}, allocated=allocated)
    if not said:
        copying.refuse_without_room("/t", found, "x")
        return
    with pytest.raises(RpinfsError) as caught:
        copying.refuse_without_room("/t", found, "x")
    assert caught.value.message == f"/t: {said}"
    assert caught.value.remedy


@pytest.mark.root
def test_a_whole_copy(tmp_path: Path) -> None:
    make_tree(tmp_path / "from", {"a/b": "text", "link": Path("a"), "empty": None})
    os.link(tmp_path / "from/a/b", tmp_path / "from/other")
    (tmp_path / "to").mkdir()
    told: list[str] = []
    done = copying.copy(str(tmp_path / "from"), str(tmp_path / "to"), told.append, "the root")
    assert (done.lost, sorted(done.survey.entries)) == ([], [".", "a", "a/b", "empty", "link", "other"])
    assert done.survey.files == 5, "one file has two names"
    each = [tmp_path / "from" / name for name in (".", "a", "a/b", "empty", "link")]
    assert done.survey.allocated == sum(path.lstat().st_blocks * 512 for path in each)
    assert done.survey.hard_links() == {("a/b", "other")} == survey(str(tmp_path / "to"), print, "x").hard_links()
    assert told[:2] == ["looking at the root: 5 files"] * 2
    assert [line for line in told if line.startswith("writing")] == ["writing the root to the disk"]
    assert not os.path.lexists(tmp_path / "to/.rpinfs-reflink")


@pytest.mark.root
def test_a_file_system_that_can_hold_a_root(tmp_path: Path) -> None:
    copying.insist_on_a_roots_file_system(str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("call", "refuses"), [
    ("chown", "owners (an export with root_squash, or a file system without any)"), ("chmod", "modes"),
    ("link", "hard links"), ("symlink", "symbolic links"), ("open", "files"),
])  # fmt: skip
def test_one_that_refuses(call: str, refuses: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if call != "chown":
        monkeypatch.setattr(os, "chown", lambda *_: None)
        monkeypatch.setattr(os, "stat", lambda *_: type("Status", (), {"st_uid": 1}))
    monkeypatch.setattr(os, call, refused)
    with pytest.raises(RpinfsError, match=f"found one that refuses {re.escape(refuses)}: Operation not permitted$"):
        copying.insist_on_a_roots_file_system(str(tmp_path))
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []
