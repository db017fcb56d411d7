"""A trial overlay on real file systems, and what is left of it: nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


def trial(folder: Path) -> None:
    deadline.within(LONG, overlay.try_overlay, str(folder))


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
    assert {"fsopen", "fsconfig", "fsmount", "mkdir", "rmdir"} <= {call for call, _ in points}
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
