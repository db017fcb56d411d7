"""Files of our own on a share, and what may lie in their place."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.system import files
from rpinfs.system.files import OddFileError


@pytest.fixture
def own(tmp_path: Path) -> str:
    return str(tmp_path / ".docker.img.rpinfs-record")


def publish(path: str, data: bytes) -> None:
    with files.new_own(path) as new:
        new.publish(data)


def test_it_is_written_whole_and_read_again(own: str) -> None:
    for data in (b"one", b"", b"x" * 65536):
        publish(own, data)
        assert files.read_own(own) == data
    assert os.listdir(os.path.dirname(own)) == [os.path.basename(own)]
    assert os.stat(own).st_mode & 0o777 == 0o600


def test_what_was_published_is_let_go_of_once(own: str) -> None:
    """Its number may be another file's by then; standard input has a number, too."""
    there = [os.fstat(number).st_ino for number in (0, 1, 2)]
    with files.new_own(own) as new:
        fd = new._fd
        new.publish(b"x")
        assert os.dup(0) == fd
    assert [os.fstat(number).st_ino for number in (0, 1, 2, fd)] == [*there, there[0]]
    os.close(fd)


def test_what_is_not_there(own: str) -> None:
    for reading in (files.read_own, files.read_own_dated):
        with pytest.raises(FileNotFoundError):
            reading(own)
    assert files.read_own(own, anew=True) == b""


ODD: list[tuple[Callable[..., None], str]] = [
    (os.symlink, "a symbolic link"),
    (os.link, "a file that has 2 names (hard links)"),
    (lambda _, path: os.mkdir(path), "a folder"),
    (lambda _, path: os.mkfifo(path), "a pipe"),
    (lambda _, path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 65537), "one of 65537 bytes"),
]


@pytest.mark.parametrize(("make", "found"), ODD)
@pytest.mark.parametrize("name", ["plain", "with space; $(x)"])
def test_what_is_odd_is_left_alone_and_its_remedy_keeps_it(
    tmp_path: Path, name: str, make: Callable[[str, str], None], found: str
) -> None:
    victim, path = str(tmp_path / "victim"), str(tmp_path / name)
    Path(victim).write_text("kept")
    Path(f"{path}.odd").write_text("there already")
    make(victim, path)
    before = os.lstat(path)
    for act in (lambda: files.read_own(path), lambda: files.read_own(path, anew=True), lambda: publish(path, b"x")):
        with pytest.raises(OddFileError) as refused:
            act()
        assert refused.value.message == f"{path}: expected a file of rpinfs, found {found}"
        assert os.lstat(path) == before
    remedy = (refused.value.remedy or "").partition(": ")[2]
    assert shlex.split(remedy)[:3] == ["mv", "-T", "--backup=numbered"]
    subprocess.run(["sh", "-c", remedy], check=True)
    assert not os.path.lexists(path)
    publish(path, b"ours")
    assert files.read_own(path) == b"ours"
    assert Path(victim).read_text() == "kept"
    assert {child.name for child in tmp_path.iterdir()} == {name, "victim", f"{name}.odd", f"{name}.odd.~1~"}


@pytest.mark.parametrize(("make", "found"), ODD[:4])
def test_what_was_opened_counts_and_not_what_was_looked_at(
    tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch, make: Callable[[str, str], None], found: str
) -> None:
    """Somebody puts it there between the look and the opening."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    harmless = tmp_path / "harmless"
    harmless.touch()
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda _: real(harmless))
    make(str(victim), own)
    with pytest.raises(OddFileError) as refused:
        files.open_own(own, os.O_RDWR)
    assert refused.value.found in (found, "something else")
    assert victim.read_text() == "kept"


def test_leftovers_of_ours_go_and_nothing_else(own: str) -> None:
    folder, name = os.path.split(own)
    kept = {f"{name}-new-0123456789abcde", f"{name}-new-0123456789ABCDEF", f"x{name}-new-0123456789abcdef", name}
    for each in {f"{name}-new-0123456789abcdef", *kept}:
        Path(folder, each).touch()
    files.remove_own_leftovers(own)
    assert set(os.listdir(folder)) == kept


@given(st.binary(max_size=200) | st.sampled_from([b"[" * 4096, b'{"a":' * 4096, b"9" * 65536, b"[" * 65536, b"\xff"]))
def test_no_record_breaks_the_reader(data: bytes) -> None:
    try:
        assert isinstance(files.parsed(data), dict)
    except ValueError as error:
        assert str(error).startswith("expected ")


# Folders


def test_folders_are_made_where_they_belong(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for below in ("there/a//b/", "there/a/b", "", "c"):
        files.make_folders(str(tmp_path), below)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "c", "there", "there/a", "there/a/b"
    ]  # fmt: skip


def test_no_link_is_followed_on_the_way(tmp_path: Path) -> None:
    share, outside = tmp_path / "share", tmp_path / "outside"
    (share / "sub").mkdir(parents=True)
    outside.mkdir()
    (share / "sub/link").symlink_to(outside)
    (share / "sub/dangling").symlink_to(outside / "new")
    (share / "file").touch()
    for below, found in (("sub/link/x", "a symbolic link"), ("sub/dangling", "a symbolic link"), ("file/x", "a file")):
        with pytest.raises(OddFileError, match=f"expected a folder, found {found}$"):
            files.make_folders(str(share), below)
    assert list(outside.iterdir()) == []


def test_a_folder_that_cannot_be_walked(tmp_path: Path) -> None:
    """One that has gone meanwhile ends the walk, unless that is to be passed over: then the others are walked."""
    top = str(tmp_path)
    left: list[str] = []

    def walked(*, strict: bool) -> list[str]:
        for name in ("a", "b", "c"):
            (tmp_path / name).mkdir(exist_ok=True)
        found = []
        for folder, folders, _ in files.walk(top, strict=strict):
            found.append(folder)
            if folder == top:
                (tmp_path / folders[0]).rmdir()
                left[:] = [f"{top}/{name}" for name in folders[1:]]
        return found

    with pytest.raises(FileNotFoundError):
        walked(strict=True)
    assert walked(strict=False) == [top, *left]
    with pytest.raises(FileNotFoundError):
        list(files.walk(f"{top}/nothing"))
    assert list(files.walk(f"{top}/nothing", strict=False)) == []


def test_a_walk_goes_from_the_top_down_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "a/file").touch()
    (tmp_path / "c/link").symlink_to(tmp_path / "a")
    top = str(tmp_path)
    found = {folder: (sorted(folders), names) for folder, folders, names in files.walk(top)}
    assert found == {
        top: (["a", "c"], []), f"{top}/a": (["b"], ["file"]), f"{top}/a/b": ([], []), f"{top}/c": ([], ["link"])
    }  # fmt: skip


def test_what_is_opened_on_a_share_is_on_that_mount_and_no_other(tmp_path: Path) -> None:
    """Whatever has its name by then; and only while it lasts, and only below it."""
    share, beside = tmp_path / "share", tmp_path / "share-too"
    for folder in (share, beside):
        folder.mkdir()
        (folder / "file").write_text(folder.name)

    def read(path: Path) -> str:
        with files.open_regular(str(path), os.O_RDONLY) as fd:
            return os.pread(fd, 100, 0).decode()

    status = share.stat()
    for device in (None, (os.major(status.st_dev), os.minor(status.st_dev))):
        with files.on_share(str(share), device):
            share.rename(tmp_path / "away")
            beside.rename(share)
            assert read(share / "file") == "share"
            assert os.path.samestat(files.stat_on_share(str(share)), status)
            assert read(tmp_path / "away/file") == "share"
        assert read(share / "file") == "share-too"
        share.rename(beside)
        (tmp_path / "away").rename(share)
        with files.on_share(str(share), device):
            assert read(beside / "file") == "share-too"


@pytest.mark.parametrize("other", [(0, 0), (4095, 0)])
def test_another_mount_by_the_name_of_the_share_is_refused(tmp_path: Path, other: tuple[int, int]) -> None:
    with pytest.raises(OSError, match=f"{tmp_path} is not the share any more"), files.on_share(str(tmp_path), other):
        pass
    (tmp_path / "file").touch()
    os.close(files.open_on_share(str(tmp_path / "file"), os.O_RDONLY))


def test_folders_are_made_below_a_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for below in ("", "a"):
        with pytest.raises(NotADirectoryError):
            files.make_folders(str(tmp_path / "file"), below)


def test_a_file_is_locked_for_one(own: str) -> None:
    publish(own, b"")
    first, second = (files.open_own(own, os.O_RDWR) for _ in range(2))
    try:
        assert [files.lock(first), files.lock(second)] == [True, False]
        files.unlock(first)
        assert files.lock(second)
    finally:
        os.close(first)
        os.close(second)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOLCK, files.NoLocks), (errno.EOPNOTSUPP, files.NoLocks), (errno.ENOSYS, files.NoLocks),
        (errno.EINVAL, files.NoLocks), (errno.EIO, OSError), (errno.ESTALE, OSError),
    ],
)  # fmt: skip
def test_a_share_without_locks_is_told_from_one_that_fails(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[OSError]
) -> None:
    def refused(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(OSError) as caught:
        files.lock(0)
    assert (type(caught.value), caught.value.errno) == (kind, number)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"[]", "a JSON object"), (b"7", "a JSON object"), (b'"x"', "a JSON object"), (b"[" * 4096, "JSON"),
        (b"", "JSON"), (b"\xff", "JSON"), (b"{", "JSON"),
    ],
)  # fmt: skip
def test_a_record_is_an_object(text: bytes, found: str) -> None:
    assert files.parsed(b' {"a": [1]}\n') == {"a": [1]}
    with pytest.raises(ValueError, match=f"^expected {found}, found something else$"):
        files.parsed(text)


def test_a_new_file_takes_nobodys_place(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    there = Path(f"{own}-new-{'0' * 16}")
    there.write_text("another's")
    with pytest.raises(FileExistsError):
        publish(own, b"ours")
    assert there.read_text() == "another's" and not os.path.exists(own)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.ENOSPC])
def test_a_folder_that_cannot_be_synced(own: str, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Some file systems have no need to."""

    def refused(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    if number == errno.EINVAL:
        files.sync_folder(own)
    else:
        with pytest.raises(OSError) as caught:
            files.sync_folder(own)
        assert caught.value.errno == number
