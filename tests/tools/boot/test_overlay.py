"""A trial overlay on real file systems, and what is left of it: nothing."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from rpinfs.boot import overlay
from rpinfs.errors import RpinfsError
from rpinfs.system import deadline
from tests.support import PYTHON
from tests.tools.conftest import ROOT, Mount, Traced, command, mounts

pytestmark = pytest.mark.root

LONG = 60.0  # seconds; far more than a trial takes


@pytest.fixture
def image(tmp_path: Path, mounted: Mount) -> Iterator[Path]:
    """A mounted ext4 on a loop device."""
    with made(tmp_path, mounted) as folder:
        yield folder


def made(tmp_path: Path, mounted: Mount, *options: str) -> AbstractContextManager[Path]:
    """A new ext4 that is mounted for as long as a with statement lasts."""
    file = tmp_path / "image"
    with file.open("wb") as opened:
        opened.truncate(64 << 20)
    command("mkfs.ext4", "-q", *options, file)
    return mounted("-o", "loop", file)


def trial(folder: Path, seconds: float = LONG) -> None:
    deadline.within(seconds, overlay.try_overlay, str(folder))


def left(folder: Path) -> list[str]:
    """All that lies in an image beyond what mkfs made."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "lost+found")


def test_it_works_on_ext4_and_leaves_nothing(image: Path) -> None:
    before = mounts(image)
    trial(image)
    assert left(image) == []
    assert mounts(image) == before


def test_it_works_on_xfs(tmp_path: Path, mounted: Mount) -> None:
    file = tmp_path / "image"
    command("truncate", "--size=320M", file)
    command("mkfs.xfs", "-q", file)
    with mounted("-o", "loop", file) as folder:
        trial(folder)
        assert left(folder) == []


def test_what_is_kept_beside_it_stays(image: Path) -> None:
    (image / ".rpinfs/var-lib-containerd").mkdir(parents=True)
    (image / ".rpinfs/var-lib-containerd/file").write_text("x")
    trial(image)
    assert left(image) == [".rpinfs", ".rpinfs/var-lib-containerd", ".rpinfs/var-lib-containerd/file"]


def test_names_with_separators_of_options(image: Path) -> None:
    folder = image / "a,b:c\\d"
    folder.mkdir()
    trial(folder)


def test_a_file_system_without_d_type_is_told(tmp_path: Path, mounted: Mount) -> None:
    with made(tmp_path, mounted, "-O", "^filetype") as folder:
        with pytest.raises(RpinfsError, match="keeps no d_type"):
            trial(folder)
        assert left(folder) == []


def test_a_read_only_file_system(tmp_path: Path, mounted: Mount) -> None:
    with made(tmp_path, mounted) as folder:
        command("mount", "-o", "remount,ro", folder)
        with pytest.raises(RpinfsError, match="a trial overlay failed: Read-only file system"):
            trial(folder)


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [("tmpfs", "nr_inodes=4", "No space left on device"), ("proc", "defaults", "No such file or directory")],
)
def test_where_it_cannot_be_set_up_it_fails(mounted: Mount, kind: str, options: str, reason: str) -> None:
    with mounted("-t", kind, "-o", options, kind) as folder, pytest.raises(RpinfsError, match=reason):
        trial(folder)


def test_killed_anywhere_no_mount_is_left_and_the_next_trial_clears_up(image: Path, traced: Traced) -> None:
    """SIGKILL in place of each call that changes something."""
    before = mounts(image)
    code = f"from rpinfs.boot import overlay; overlay.try_overlay({str(image)!r})"
    done = traced(code, [], whole=True)
    assert done.returncode == 0, done.stderr
    calls = ("mkdir", "mkdirat", "unlinkat", "renameat", "rmdir", "fsopen", "fsconfig", "fsmount")
    points = [(call, number) for call in calls for number in range(1, done.calls.count(call) + 1)]
    assert {"fsopen", "fsconfig", "fsmount", "mkdirat", "unlinkat"} <= {call for call, _ in points}
    for call, number in points:
        ended = traced(code, [], inject=f"{call}:signal=KILL:when={number}", whole=True)
        assert ended.returncode != 0, (call, number)
        assert mounts(image) == before
        trial(image)
        assert left(image) == [], (call, number)


def test_what_it_imports(tmp_path: Path) -> None:
    """On the way to Docker: ctypes and fcntl, and nothing else beyond what they come with."""
    code = (
        "import sys; import rpinfs.boot.overlay; before = set(sys.modules);"
        "rpinfs.boot.overlay.try_overlay(sys.argv[1]); print(*sorted(set(sys.modules) - before))"
    )
    done = command("env", "-C", ROOT, *PYTHON, "-c", code, tmp_path)
    assert set(done.split()) <= {"_ctypes", "_struct", "ctypes", "ctypes._endian", "struct", "types"}


def test_several_at_once_do_not_disturb_each_other(image: Path) -> None:
    questions = {str(number): lambda: overlay.try_overlay(str(image)) for number in range(6)}
    assert list(deadline.gather(questions, LONG).values()) == [None] * 6
    assert left(image) == []


def test_without_root_nothing_is_touched(image: Path) -> None:
    image.chmod(0o777)

    def as_nobody() -> None:
        os.setuid(65534)
        overlay.try_overlay(str(image))

    with pytest.raises(PermissionError):
        deadline.within(LONG, as_nobody)
    assert left(image) == []


# --- Whoever can write into an image is not root here --------------------------------------------------------


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of the host with something in it."""
    folder = tmp_path / "victim"
    (folder / "lower").mkdir(parents=True)
    (folder / "lower/changed").write_text("kept")
    (folder / "file").write_text("kept")
    return folder


def picture(*folders: Path) -> list[tuple[str, int, int, int]]:
    """All that is below folders, by name, kind, owner and size."""
    return sorted(
        (str(path), status.st_mode, status.st_uid, status.st_size if not stat.S_ISDIR(status.st_mode) else 0)
        for folder in folders
        for path in folder.rglob("*")
        for status in (path.lstat(),)
        if path.name != "lost+found"
    )


def bound(where: Path, source: Path) -> None:
    where.mkdir(parents=True)
    command("mount", "--bind", source, where)


def owned(where: Path, user: int, mode: int = 0o700) -> None:
    where.mkdir(parents=True)
    (where / "file").write_text("kept")
    os.chown(where, user, user)
    where.chmod(mode)


KEPT, TRIAL = ".rpinfs", ".rpinfs/overlay-trial"
Put = Callable[[Path, Path], object]


def in_kept(put: Put) -> Put:
    """Put something in place of the trial's folder, beside a file that is kept."""

    def put_below(top: Path, victim: Path) -> None:
        owned(top / KEPT, 0)
        put(top / TRIAL, victim)

    return put_below


ODD: dict[str, tuple[Put, str, str]] = {
    "trial folder: link": (in_kept(lambda place, victim: place.symlink_to(victim)), TRIAL, "a symbolic link"),
    "trial folder: inner link": (in_kept(lambda place, _: place.symlink_to("../x")), TRIAL, "a symbolic link"),
    "kept folder: link": (lambda top, victim: (top / KEPT).symlink_to(victim), KEPT, "a symbolic link"),
    "kept folder: dangling link": (lambda top, victim: (top / KEPT).symlink_to(victim / "n"), KEPT, "a symbolic link"),
    "kept folder: file": (lambda top, _: (top / KEPT).write_text("kept"), KEPT, "something else"),
    "trial folder: file": (in_kept(lambda place, _: place.write_text("kept")), TRIAL, "something else"),
    "trial folder: linked": (in_kept(lambda place, _: os.link(place.parent / "file", place)), TRIAL, "something else"),
    "trial folder: pipe": (in_kept(lambda place, _: os.mkfifo(place)), TRIAL, "something else"),
    "kept folder: a user's": (lambda top, _: owned(top / KEPT, 1000), KEPT, "one of user 1000"),
    "trial folder: a user's": (in_kept(lambda place, _: owned(place, 1000)), TRIAL, "one of user 1000"),
    "trial folder: for all": (in_kept(lambda place, _: owned(place, 0, 0o777)), TRIAL, "one that others can write to"),
    "trial folder: somebody's files": (in_kept(lambda place, _: owned(place, 0)), TRIAL, "file in it"),
    "trial folder: deep": (
        in_kept(lambda place, _: (place / "lower" / "/".join("x" * 40)).mkdir(parents=True)),
        TRIAL,
        "deeper folders in it",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_not_ours_is_left_alone(image: Path, victim: Path, name: str) -> None:
    """Seen: `.rpinfs/overlay-trial` was a link, and the folder of the host behind it was emptied, as root."""
    make, place, found = ODD[name]
    # A container that has the image's top folder as a volume, and a user in it.
    os.chown(image, 1000, 1000)
    make(image, victim)
    before = picture(image, victim)
    expected = re.escape(f"{image / place}: expected a folder that rpinfs made, found {found}; it is left alone")
    with pytest.raises(RpinfsError, match=expected) as refused:
        trial(image)
    assert picture(image, victim) == before
    condition, _, remedy = (refused.value.remedy or "").partition(": ")
    assert "look at what" in condition
    command("sh", "-c", remedy)
    assert (victim / "file").read_text() == (victim / "lower/changed").read_text() == "kept"


@pytest.mark.parametrize("place", [KEPT, TRIAL, f"{TRIAL}/lower"])
@pytest.mark.parametrize("source", ["another file system", "the image itself"])
def test_another_mount_in_their_place_is_left_alone(image: Path, victim: Path, place: str, source: str) -> None:
    kept = image / "containerd"
    kept.mkdir()
    (kept / "file").write_text("kept")
    (image / KEPT).mkdir(mode=0o700)
    if place == TRIAL + "/lower":
        (image / TRIAL).mkdir(mode=0o700)
    if place == KEPT:
        (image / KEPT).rmdir()
    bound(image / place, victim if source == "another file system" else kept)
    try:
        before = picture(victim, kept)
        with pytest.raises(RpinfsError, match="expected a folder that rpinfs made, found another mount"):
            trial(image)
        assert picture(victim, kept) == before
    finally:
        command("umount", image / place)


def test_what_lies_in_it_is_removed_and_not_what_it_leads_to(image: Path, victim: Path) -> None:
    """Root in a container that has the image made it look like what a killed trial leaves."""
    upper = image / TRIAL / "upper"
    upper.mkdir(parents=True, mode=0o700)
    (image / "other").write_text("kept")
    (upper / "link").symlink_to(victim)
    os.link(image / "other", upper / "changed")
    trial(image)
    assert left(image) == ["other"]
    assert (image / "other").read_text() == (victim / "file").read_text() == "kept"


def test_nobody_holds_a_trial_up_by_a_lock_of_his_own(image: Path) -> None:
    """Seen: flock(1) of any user on the mount point kept Docker down."""
    (image / KEPT).mkdir()
    held = [os.open(path, os.O_RDONLY) for path in (image, image / KEPT)]
    for descriptor in held:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    trial(image, 30)
    for descriptor in held:
        os.close(descriptor)


def test_its_lock_is_for_root_alone(image: Path, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    overlay.try_overlay(str(image), str(runtime))
    (lock,) = runtime.iterdir()
    assert (stat.S_IMODE(lock.stat().st_mode), lock.stat().st_uid) == (0o600, 0)
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o755
