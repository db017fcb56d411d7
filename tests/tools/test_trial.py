"""The trial overlay, on real file systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.trial import try_overlay
from tests.tools.conftest import ROOT, Mount, Traced, command

pytestmark = pytest.mark.root


def make(tmp_path: Path, *mkfs: str) -> Path:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    command(*mkfs, image)
    return image


@pytest.mark.parametrize("mkfs", [("mkfs.ext4", "-q"), ("mkfs.xfs", "-q")], ids=["ext4", "xfs"])
def test_it_works_and_leaves_nothing(tmp_path: Path, mounted: Mount, mkfs: tuple[str, ...]) -> None:
    with mounted("-o", "loop", make(tmp_path, *mkfs)) as where:
        before = sorted(os.listdir(where))
        try_overlay(str(where))
        assert sorted(os.listdir(where)) == before
        (where / ".rpinfs/srv").mkdir(parents=True)
        try_overlay(str(where))
        assert os.listdir(where / ".rpinfs") == ["srv"]
    assert os.getcwd() == "/"


def test_no_d_type(tmp_path: Path, mounted: Mount) -> None:
    with mounted("-o", "loop", make(tmp_path, "mkfs.ext4", "-q", "-O", "^filetype")) as where:
        with pytest.raises(RpinfsError, match="keeps no d_type"):
            try_overlay(str(where))
        assert os.listdir(where) == ["lost+found"]


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [("tmpfs", "nr_inodes=4", "No space left on device"), ("tmpfs", "ro", "Read-only file system"),
     ("proc", "defaults", "No such file or directory")],
)  # fmt: skip
def test_where_it_cannot_be_set_up_it_fails(mounted: Mount, kind: str, options: str, reason: str) -> None:
    with mounted("-t", kind, "-o", options, kind) as where, pytest.raises(RpinfsError, match=reason):
        try_overlay(str(where))


def test_killed_anywhere_no_mount_is_left_and_the_next_trial_clears_up(
    tmp_path: Path, mounted: Mount, traced: Traced
) -> None:
    """SIGKILL in place of each call that changes something."""
    with mounted("-o", "loop", make(tmp_path, "mkfs.ext4", "-q")) as where:
        code = f"from rpinfs.trial import try_overlay; try_overlay({str(where)!r})"
        calls = ("mkdir", "mkdirat", "unlinkat", "rmdir", "fsopen", "fsconfig", "fsmount")
        done = traced(code, [], whole=True)
        assert done.returncode == 0, done.stderr
        points = [(call, number) for call in calls for number in range(1, done.calls.count(call) + 1)]
        assert {"fsopen", "fsconfig", "fsmount", "mkdir", "rmdir"} <= {call for call, _ in points}
        for call, number in points:
            killed = traced(code, [], whole=True, inject=f"{call}:signal=KILL:when={number}")
            assert killed.returncode != 0, (call, number)
            assert Path("/proc/self/mountinfo").read_text().count(f"{where}/") == 0
            try_overlay(str(where))
            assert os.listdir(where) == ["lost+found"], (call, number)


def test_what_it_imports(tmp_path: Path) -> None:
    """On the way to Docker: ctypes, and nothing else beyond what it comes with."""
    code = (
        "import sys; import rpinfs.trial; before = set(sys.modules);"
        "rpinfs.trial.try_overlay(sys.argv[1]); print(*sorted(set(sys.modules) - before))"
    )
    done = command("env", "-C", ROOT, "/usr/bin/python3", "-c", code, tmp_path)
    assert set(done.split()) <= {"_ctypes", "_struct", "ctypes", "ctypes._endian", "struct", "types"}
