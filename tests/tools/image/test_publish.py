"""New files on a share: nothing but our own leftovers goes, whatever stands there."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.image import publish
from rpinfs.image.make import create
from rpinfs.system.run import silent
from tests.tools.image.files import SIZE, assert_whole, fingerprint


def test_only_our_own_leftovers_go(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    ours = [".disk.img.rpinfs-new-0123456789abcdef", ".disk.img.rpinfs-new-fedcba9876543210"]
    others = [
        ".disk.img.rpinfs-new-0123456789abcde",  # too short
        ".disk.img.rpinfs-new-0123456789abcdef0",
        ".disk.img.rpinfs-new-0123456789ABCDEF",
        ".diskximg.rpinfs-new-0123456789abcdef",
        ".other.img.rpinfs-new-0123456789abcdef",
        "disk.img.rpinfs-new-0123456789abcdef",
        ".disk.img.rpinfs-new-0123456789abcdef\n",
    ]
    for name in (*ours, *others):
        (tmp_path / name).write_text("data")
    (tmp_path / ".disk.img.rpinfs-new-0000000000000001").mkdir()
    (tmp_path / ".disk.img.rpinfs-new-0000000000000002").symlink_to(others[0])
    os.mkfifo(tmp_path / ".disk.img.rpinfs-new-0000000000000003")
    assert publish.remove_leftovers(str(path), silent) == [str(tmp_path / name) for name in sorted(ours)]
    create(str(path), SIZE)
    strange = [f".disk.img.rpinfs-new-000000000000000{number}" for number in (1, 2, 3)]
    assert sorted(os.listdir(tmp_path)) == sorted([*others, *strange, "disk.img"])


def test_what_has_the_name_of_a_working_file_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes to the share may guess it, or put a link there: it would be formatted."""
    path = tmp_path / "disk.img"
    victim = tmp_path / "victim"
    victim.write_text("data")
    monkeypatch.setattr(os, "urandom", bytes)
    taken = tmp_path / f".disk.img.rpinfs-new-{'0' * 16}"
    for occupy in (lambda: taken.write_text("data"), lambda: taken.symlink_to(victim), lambda: os.link(victim, taken)):
        occupy()
        with pytest.raises(FileExistsError), publish.temporary(str(path), silent):
            pass
        assert taken.read_text() == victim.read_text() == "data"
        taken.unlink()
    empty = tmp_path / "empty"
    empty.touch()
    for occupied in (victim, empty):
        with pytest.raises(FileExistsError):
            publish.claim(str(occupied))
    assert victim.read_text() == "data"


def test_leftover_that_somebody_works_on_stays(tmp_path: Path) -> None:
    leftover = tmp_path / ".disk.img.rpinfs-new-0123456789abcdef"
    with leftover.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert publish.remove_leftovers(str(tmp_path / "disk.img"), silent) == []
    assert publish.remove_leftovers(str(tmp_path / "disk.img"), silent) == [str(leftover)]


def test_second_name_of_the_image_goes_even_when_locked(tmp_path: Path) -> None:
    """The power went between link and unlink, and the image is in use by now."""
    path, leftover = tmp_path / "disk.img", tmp_path / ".disk.img.rpinfs-new-0123456789abcdef"
    create(str(path), SIZE)
    os.link(path, leftover)
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert publish.remove_leftovers(str(path), silent) == [str(leftover)]
    assert_whole(path)


def link_to(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def second_name_of(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


@pytest.mark.parametrize("put", [link_to, second_name_of])
def test_a_working_name_that_somebody_has_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path, Path], None]
) -> None:
    """Not written through, and still there afterwards."""
    monkeypatch.setattr(os, "urandom", bytes)
    victim, taken = tmp_path / "other.img", tmp_path / ".disk.img.rpinfs-new-0000000000000000"
    victim.write_text("data")
    put(taken, victim)
    before = fingerprint(victim), fingerprint(taken)
    with pytest.raises(FileExistsError), publish.temporary(str(tmp_path / "disk.img"), silent):
        pass
    assert (fingerprint(victim), fingerprint(taken)) == before


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("put", [link_to, second_name_of, lambda path, _: path.touch()])
def test_a_name_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path, Path], None], links: bool
) -> None:
    """An empty file has it as well as any other: it may be somebody's claim."""
    victim, taken = tmp_path / "other.img", tmp_path / "disk.img"
    victim.touch()
    put(taken, victim)
    before = fingerprint(victim), fingerprint(taken)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with publish.temporary(str(taken), silent) as new:
        os.write(new.fd, b"image")
        with pytest.raises(FileExistsError):
            publish.take_free_name(new, str(taken))
        assert Path(new.path).read_bytes() == b"image"
    assert (fingerprint(victim), fingerprint(taken)) == before


def no_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "no links here")


def replace_it(path: Path) -> None:
    path.unlink()
    path.touch()


def write_into_it(path: Path) -> None:
    path.write_text("data")


@pytest.mark.parametrize("interfere", [replace_it, write_into_it])
def test_a_claim_that_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interfere: Callable[[Path], None]
) -> None:
    """A server on which exclusive creation is not: two believe that they have the name."""
    path, real = tmp_path / "disk.img", os.open

    def opened(name: str, flags: int, mode: int = 0o777) -> int:
        fd = real(name, flags, mode)
        if name == str(path):
            monkeypatch.setattr(os, "open", real)
            interfere(path)
        return fd

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(FileExistsError):
        publish.claim(str(path))
    assert path.exists()


@pytest.mark.parametrize("links", [True, False])
def test_a_free_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    path = tmp_path / "disk.img"
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with publish.temporary(str(path), silent) as new:
        os.write(new.fd, b"image")
        publish.take_free_name(new, str(path))
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"image", ["disk.img"])


def test_the_owner_is_kept(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = tmp_path / "disk.img"
    path.touch(0o640)
    os.chown(path, 1234, 2345)
    with publish.temporary(str(path), silent) as new:
        publish.take_ownership(new.fd, str(path), silent)
        status = os.fstat(new.fd)
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 2345, 0o640)
