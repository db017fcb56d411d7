"""What was verified is known on the root and on the share: of whom, of what, until when; real files."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.lease import lease, memory, owner
from rpinfs.lease.lock import Lease
from rpinfs.lease.memory import Verified
from rpinfs.lease.owner import Owner

ONE = Owner("10000000aaaaaaaa", "pi1", "m" * 32, "boot-1")
OTHER = Owner("10000000bbbbbbbb", "pi2", "n" * 32, "boot-2")
FIRST, SECOND = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"


@pytest.fixture
def image(tmp_path: Path) -> str:
    folder = tmp_path / "share"
    folder.mkdir()
    return str(folder / "docker.img")


@pytest.fixture
def held(image: str) -> Iterator[Lease]:
    held = lease.acquire(image, ONE)
    yield held
    held.close()


def known(image: str, who: Owner = ONE) -> list[str]:
    return [one.uuid for one in memory.recall(image, "docker", who)]


def on_the_share(image: str) -> str | None:
    found = owner.read(image)
    return found.uuid if found else None


def test_nothing_is_known_at_first(image: str) -> None:
    assert memory.recall(image, "docker", ONE) == ()
    memory.forget("docker")


def test_either_place_remembers_it(image: str, held: Lease) -> None:
    assert memory.remember(image, "docker", ONE, FIRST, held) == ""
    (found,) = memory.recall(image, "docker", ONE)
    assert found.uuid == FIRST and abs(found.when - time.time()) < 60
    assert str(found) == f"file system {FIRST}, last verified {owner.utc(found.when)}"
    os.unlink(owner.record_of(image))
    assert known(image) == [FIRST]
    assert memory.remember(image, "docker", ONE, SECOND, held) == ""
    assert (known(image), on_the_share(image)) == ([SECOND], None)


def test_the_share_alone_remembers_it(image: str, held: Lease) -> None:
    memory.remember(image, "docker", ONE, FIRST, held)
    memory.forget("docker")
    assert memory.recall(image, "docker", ONE) == (Verified(FIRST),)
    assert str(Verified(FIRST)) == f"file system {FIRST}"
    # The record is another Pi's by now.
    assert known(image, OTHER) == []


def test_both_count_where_they_differ(image: str, held: Lease) -> None:
    memory.remember(image, "docker", ONE, FIRST, held)
    memory.remember(image, "docker", ONE, SECOND)
    assert (known(image), on_the_share(image)) == ([SECOND, FIRST], FIRST)


def test_what_a_copied_root_or_another_path_remembers_is_of_something_else(image: str) -> None:
    memory.remember(image, "docker", ONE, FIRST)
    assert known(image) == [FIRST]
    assert known(image, OTHER) == known(f"{image}.new") == []
    assert memory.recall(image, "data", ONE) == ()


@pytest.mark.parametrize("text", ["", "[", "[]", "{}", '{"uuid": 7}', "\0"])
def test_what_is_damaged_says_nothing(image: str, text: str) -> None:
    memory.remember(image, "docker", ONE, FIRST)
    Path(memory.file_of("docker")).write_text(text)
    assert known(image) == []
    assert memory.remember(image, "docker", ONE, FIRST) == ""
    assert known(image) == [FIRST]


def test_what_is_odd_says_nothing_and_is_said(image: str) -> None:
    memory.remember(image, "docker", ONE, FIRST)
    path = memory.file_of("docker")
    os.rename(path, f"{path}.odd")
    os.symlink(f"{path}.odd", path)
    assert known(image) == []
    assert memory.remember(image, "docker", ONE, FIRST) == (
        f"that {image} was verified cannot be remembered in {path}: "
        f"{path}: expected a file of rpinfs, found a symbolic link"
    )


def test_only_root_may_look(image: str) -> None:
    before = os.umask(0)
    try:
        memory.remember(image, "docker", ONE, FIRST)
    finally:
        os.umask(before)
    path = Path(memory.file_of("docker"))
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_leftovers_go(image: str, held: Lease) -> None:
    memory.remember(image, "docker", ONE, FIRST, held)
    paths = [Path(f"{of}-new-0123456789abcdef") for of in (memory.file_of("docker"), owner.record_of(image))]
    for path in paths:
        path.touch()
    memory.remember(image, "docker", ONE, SECOND, held)
    assert not any(path.exists() for path in paths)
    # Without a lock nobody can tell them from another's work in progress.
    paths[1].touch()
    held.locked = False
    memory.remember(image, "docker", ONE, FIRST, held)
    held.locked = True
    assert paths[1].exists()


def test_what_is_known_is_not_written_again(image: str, held: Lease) -> None:
    """But when it was verified last is."""
    memory.remember(image, "docker", ONE, FIRST, held)
    here, there = memory.file_of("docker"), owner.record_of(image)
    before = os.stat(here).st_ino, os.stat(there).st_ino, os.stat(there).st_mtime_ns
    os.utime(here, (0, 86400))
    assert memory.recall(image, "docker", ONE) == (Verified(FIRST, 86400),)
    memory.remember(image, "docker", ONE, FIRST, held)
    assert (os.stat(here).st_ino, os.stat(there).st_ino, os.stat(there).st_mtime_ns) == before
    assert abs(os.stat(here).st_mtime - time.time()) < 60


@pytest.mark.parametrize(("number", "said"), [(errno.EROFS, ""), (errno.EIO, "Input/output error")])
def test_a_root_that_is_read_only_says_what_is_true(
    image: str, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    memory.remember(image, "docker", ONE, FIRST)

    def refused(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "utime", refused)
    told = memory.remember(image, "docker", ONE, FIRST)
    where = f"that {image} was verified cannot be remembered in {memory.file_of('docker')}: "
    assert told == (where + said if said else "")


def test_what_cannot_be_remembered_is_said_of_each_place(image: str, held: Lease, memory_of_its_own: Path) -> None:
    memory_of_its_own.parent.mkdir(parents=True)
    memory_of_its_own.write_text("no folder")
    Path(owner.record_of(image)).write_text("no record")
    with pytest.raises(OSError):
        memory.recall(image, "docker", ONE)
    told = memory.remember(image, "docker", ONE, FIRST, held)
    there, _, here = told.partition("; nor ")
    assert there.startswith(f"that {image} was verified cannot be remembered on the share: {image}: nobody can tell")
    assert here.startswith(f"in {memory.file_of('docker')}: ") and here.endswith("irectory")
    with pytest.raises(RpinfsError, match="what was verified cannot be forgotten: Not a directory") as refused:
        memory.forget("docker")
    assert refused.value.remedy == f"rm {memory.file_of('docker')}"


def test_before_a_restore_either_is_known(image: str, held: Lease) -> None:
    """The power may go before the names have changed, and after."""
    memory.remember(image, "docker", ONE, FIRST, held)
    memory.foresee(image, "docker", ONE, SECOND, None)
    assert known(image) == [FIRST]
    memory.foresee(image, "docker", ONE, SECOND, held)
    assert (known(image), on_the_share(image)) == ([FIRST, SECOND], SECOND)


def test_before_a_restore_the_root_learns_what_only_the_share_knew(image: str, held: Lease) -> None:
    memory.remember(image, "docker", ONE, FIRST, held)
    memory.forget("docker")
    memory.foresee(image, "docker", ONE, SECOND, held)
    assert known(image) == [FIRST, SECOND]


def test_before_a_restore_the_root_keeps_its_own_word(image: str, held: Lease) -> None:
    """The share's other one is not what there was here."""
    memory.remember(image, "docker", ONE, FIRST, held)
    memory.remember(image, "docker", ONE, SECOND)
    memory.foresee(image, "docker", ONE, FIRST, held)
    assert (known(image), on_the_share(image)) == ([SECOND, FIRST], FIRST)


def test_an_image_that_a_person_has_made(image: str, held: Lease) -> None:
    """What the root knows of this path is changed, under whatever name; of another path it is not."""
    memory.remember(image, "docker", ONE, FIRST, held)
    memory.remember(f"{image}.other", "data", ONE, FIRST)
    assert memory.made_anew(image, SECOND, held) == ""
    assert (known(image), on_the_share(image)) == ([SECOND], SECOND)
    assert json.loads(Path(memory.file_of("data")).read_text())["uuid"] == FIRST


def test_an_image_that_a_person_has_made_where_nothing_was_known(image: str, held: Lease) -> None:
    assert memory.made_anew(image, FIRST, held) == ""
    assert (on_the_share(image), os.path.exists(memory.FOLDER)) == (FIRST, False)
    os.unlink(owner.record_of(image))
    assert memory.made_anew(image, SECOND, held) == ""
    assert on_the_share(image) is None


def test_forgotten_it_is_gone(image: str) -> None:
    memory.remember(image, "docker", ONE, FIRST)
    memory.remember(image, "data", ONE, FIRST)
    memory.forget("docker")
    memory.forget("docker")
    assert [path.name for path in Path(memory.FOLDER).iterdir()] == ["data.verified"]


@pytest.mark.parametrize(
    ("uuid", "remembered", "expected"),
    [
        (FIRST, [], True),
        (None, [], True),
        (FIRST, [SECOND], False),
        (None, [SECOND], False),
        (FIRST, [SECOND, FIRST], True),
    ],
)
def test_what_was_verified_before(uuid: str | None, remembered: list[str], expected: bool) -> None:
    assert memory.is_known(uuid, [Verified(one) for one in remembered]) is expected
