"""New files on a share: nothing but our own leftovers goes, whatever stands there."""

import fcntl
import os
from pathlib import Path

from rpinfs.image import publish
from rpinfs.image.make import create
from rpinfs.system.run import silent
from tests.tools.image.files import (
    SIZE,
    assert_whole,
)


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
