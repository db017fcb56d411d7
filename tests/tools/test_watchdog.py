"""A test that hangs on what it has frozen is thawed from outside, and what a test leaves goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rpinfs.boot import storage
from tests.tools import watchdog
from tests.tools.conftest import Mount, clean_up, command, holders, until
from tests.tools.image.files import sparse

pytestmark = pytest.mark.root


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What a test leaves that failed in the worst moment: frozen, mounted, with another file attached."""
    where = tmp_path / "a place"
    where.mkdir()
    for name in ("mounted.img", "attached.img"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(64 << 20)
    command("mkfs.ext4", "-q", tmp_path / "mounted.img")
    command("mount", "-o", "loop", tmp_path / "mounted.img", where)
    command("losetup", "--find", tmp_path / "attached.img")
    command("fsfreeze", "--freeze", where)
    return where


def test_what_hangs_is_thawed(left: Path) -> None:
    argv = [sys.executable, watchdog.__file__, str(left.parent), "1"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        subprocess.run(["touch", left / "file"], check=True, timeout=60)
        said, _ = process.communicate()
    assert said == f"thawed {left}\n"
    assert len(clean_up(left.parent)) == 2


def test_what_is_left_goes_and_is_told(left: Path) -> None:
    told = clean_up(left.parent)
    assert told[:2] == [f"{left} was mounted", "and frozen"]
    assert told[2].endswith(f" was attached to {left.parent}/attached.img: nobody is seen to hold it")
    assert not os.path.ismount(left)
    until(lambda: not [one for one in storage.loops() if one.backing_file.startswith(f"{left.parent}/")])
    assert clean_up(left.parent) == []


def test_mounts_of_this_process_are_its_own() -> None:
    """Nobody beside gets a copy of them, and keeps them busy."""
    assert os.readlink("/proc/self/ns/mnt") != os.readlink(f"/proc/{os.getppid()}/ns/mnt")


def test_a_copy_of_a_mount_is_waited_for_in_vain(
    tmp_path: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a container's, made by this very process; who has it is said."""
    monkeypatch.setattr("tests.tools.conftest.DETACHED_SECONDS", 0.1)
    disk = sparse(tmp_path / "disk", 64 << 20)
    command("mkfs.ext4", "-q", disk)
    argv = ["unshare", "--mount", "sh", "-c", "echo; exec cat"]
    with mounted("-o", "loop", disk):
        (loop,) = storage.loops_on(str(disk))
        container = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert container.stdout and container.stdout.read(1) == b"\n"
    assert [one.path for one in storage.loops_on(str(disk))] == [loop.path]
    said = f"process {container.pid} (cat) has mounted {loop.path}"
    assert holders({loop.path}) == said and said in capsys.readouterr().out
    assert clean_up(tmp_path) == []
    container.communicate()
    until(lambda: not storage.loops_on(str(disk)))
