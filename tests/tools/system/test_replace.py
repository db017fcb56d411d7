"""Putting a file in the place of another one: what is there at each instant, and what stays of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rpinfs.system.replace import replace_file


def nothing_wrong(_: str) -> None:
    """A validation that finds nothing."""


def test_a_new_file_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "docker" / "daemon.json"
    replace_file(str(path), b"{}\n", nothing_wrong)
    # Whoever makes it twice finds the folder.
    replace_file(str(path), b"[]\n", nothing_wrong)
    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"[]\n", 0o644)
    assert os.listdir(path.parent) == ["daemon.json"]


@pytest.mark.root
@pytest.mark.parametrize(("uid", "gid"), [(1234, 0), (0, 1234), (1234, 1235), (0, 0)])
def test_owner_and_mode_stay(tmp_path: Path, uid: int, gid: int) -> None:
    path = tmp_path / "daemon.json"
    path.write_bytes(b"old")
    os.chown(path, uid, gid)
    path.chmod(0o640)
    replace_file(str(path), b"new", nothing_wrong)
    status = path.stat()
    assert (path.read_bytes(), status.st_uid, status.st_gid) == (b"new", uid, gid)
    assert status.st_mode & 0o7777 == 0o640


def test_what_is_not_valid_leaves_all_as_it_was(tmp_path: Path) -> None:
    """It is asked of the whole new file, which nobody else can read into yet, while the old one is in its place."""
    path = tmp_path / "daemon.json"
    path.write_bytes(b"old")
    seen = []

    def refuse(new: str) -> None:
        seen.append((Path(new).read_bytes(), path.read_bytes(), Path(new).parent))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(str(path), b"new", refuse)
    assert seen == [(b"new", b"old", tmp_path)]
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["daemon.json"])


def test_what_killed_ones_have_left_goes(tmp_path: Path) -> None:
    """Of this very file, and nothing else; and it is gone before anything is written."""
    others = ("daemon.json.rpinfs-new-1", ".other.json.rpinfs-new-1", ".daemon.json", "daemon.json.bak")
    for name in (".daemon.json.rpinfs-new-1", ".daemon.json.rpinfs-new-2", *others):
        (tmp_path / name).touch()
    replace_file(str(tmp_path / "daemon.json"), b"new", nothing_wrong)
    assert set(os.listdir(tmp_path)) == {"daemon.json", *others}


def test_each_step_lasts_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename, fchmod = os.fsync, os.rename, os.fchmod

    def logged_fsync(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        done.append("sync folder" if os.path.isdir(path) else f"sync {Path(path).read_text()}")
        fsync(fd)

    def logged_rename(source: str, target: str) -> None:
        done.append("rename")
        rename(source, target)

    def logged_fchmod(fd: int, mode: int) -> None:
        # Until it has its mode, nobody else reads it.
        done.append(f"mode {os.fstat(fd).st_mode & 0o7777:o}, {mode:o}")
        fchmod(fd, mode)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "rename", logged_rename)
    monkeypatch.setattr(os, "fchmod", logged_fchmod)
    before = set(os.listdir("/proc/self/fd"))
    replace_file(str(tmp_path / "daemon.json"), b"new", nothing_wrong)
    assert done == ["mode 600, 644", "sync new", "rename", "sync folder"]
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"data")
    (tmp_path / "daemon.json").symlink_to(victim)
    replace_file(str(tmp_path / "daemon.json"), b"new", nothing_wrong)
    assert (victim.read_bytes(), (tmp_path / "daemon.json").is_symlink()) == (b"data", False)


def test_a_working_name_that_somebody_has_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put there between the sweep and the making: not written through."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"data")

    def urandom(count: int) -> bytes:
        (tmp_path / f".daemon.json.rpinfs-new-{bytes(count).hex()}").symlink_to(victim)
        return bytes(count)

    monkeypatch.setattr(os, "urandom", urandom)
    with pytest.raises(FileExistsError):
        replace_file(str(tmp_path / "daemon.json"), b"new", nothing_wrong)
    assert victim.read_bytes() == b"data"
