"""System calls of our own, on real file systems."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from rpinfs.system import syscalls
from tests.tools.conftest import Mount, command, python

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("make", "size"), [("mkfs.ext4", "64M"), ("mkfs.xfs", "320M")])
def test_after_the_end_of_writing_nothing_reaches_the_image(
    tmp_path: Path, mounted: Mount, make: str, size: str
) -> None:
    image = tmp_path / "image"
    command("truncate", "--size", size, image)
    command(make, "-q", image)
    with mounted("-o", "loop", image) as folder:
        (folder / "before").write_text("x")
        os.sync()
        (folder / "waits").write_text("x")
        syscalls.end_writing(str(folder))
        before = image.read_bytes()
        with pytest.raises(OSError) as refused:
            (folder / "after").write_text("x")
        assert refused.value.errno == errno.EIO
        os.sync()
    assert image.read_bytes() == before


def test_what_the_kernel_refuses_is_an_error(tmp_path: Path) -> None:
    """With its number, and the path where there is one."""
    missing = tmp_path / "missing"
    for call in (syscalls.copy_of_mount, syscalls.force_unmount, syscalls.end_writing):
        with pytest.raises(FileNotFoundError) as absent:
            call(str(missing))
        assert absent.value.filename == str(missing)
    reader, writer = os.pipe()
    with pytest.raises(OSError) as refused:
        syscalls.punch_hole(writer, 0, 4096)
    assert (refused.value.errno, refused.value.filename) == (errno.ESPIPE, None)
    os.close(reader)
    os.close(writer)


def test_a_copy_of_a_mount(mounted: Mount) -> None:
    """Without what is on top of it, seen by nobody, and gone with its descriptor; no child inherits it."""
    with mounted("-t", "tmpfs", "below") as below:
        (below / "folder").mkdir()
        (below / "folder" / "hidden").write_text("x")
        command("mount", "-t", "tmpfs", "above", below / "folder")
        try:
            before = Path("/proc/self/mountinfo").read_text().count(str(below))
            copy = syscalls.copy_of_mount(str(below))
            assert not os.get_inheritable(copy)
            folder = os.open("folder", os.O_RDONLY, dir_fd=copy)
            assert os.listdir(folder) == ["hidden"]
            os.close(folder)
            assert Path("/proc/self/mountinfo").read_text().count(str(below)) == before
            os.close(copy)
        finally:
            command("umount", below / "folder")


def test_a_hole(tmp_path: Path) -> None:
    """Where it was asked for, and the file stays as long as it is."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (1 << 20))
    with path.open("r+b") as file:
        syscalls.punch_hole(file.fileno(), 1 << 19, 1 << 19)
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 1 << 19
    assert path.read_bytes() == b"x" * (1 << 19) + bytes(1 << 19)
    assert path.stat().st_blocks * 512 < 1 << 20


def test_force_unmount(mounted: Mount) -> None:
    with mounted("-t", "tmpfs", "share") as folder:
        command("mount", "-t", "tmpfs", "above", folder)
        (folder / "above").touch()
        syscalls.force_unmount(str(folder))
        assert os.listdir(folder) == []


OWN = """
import os, sys
from rpinfs.system import syscalls
kinds = sorted(os.listdir("/proc/self/ns"))
those = lambda: {{kind: os.readlink(f"/proc/self/ns/{{kind}}") for kind in kinds}}
before = those()
syscalls.mounts_of_our_own()
print([kind for kind, there in those().items() if there != before[kind]], flush=True)
os.system("mount -t tmpfs inner {folder}/inner")
print(os.path.ismount("{folder}/outer"), flush=True)
sys.stdin.readline()
print(os.path.ismount("{folder}/outer"), os.path.ismount("{folder}/inner"))
"""


@pytest.mark.parametrize("name", ["file", "link", "folder"])
def test_what_is_opened_in_memory_is_itself_and_good_for_asking_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    expected = os.lstat(tmp_path / name)
    fd = syscalls.open_in_memory(str(tmp_path / name))
    try:
        found = os.fstat(fd)
        assert (found.st_ino, found.st_mode) == (expected.st_ino, expected.st_mode)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fsync(fd)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_mounts_of_our_own(mounted: Mount) -> None:
    """Nobody else sees them; what others unmount is unmounted there too. Nothing but mounts is apart."""
    with mounted("-t", "tmpfs", "shared") as folder:
        command("mount", "--make-shared", folder)
        for name in ("inner", "outer"):
            (folder / name).mkdir()
        command("mount", "-t", "tmpfs", "outer", folder / "outer")
        try:
            with python(OWN.format(folder=folder), stdin=subprocess.PIPE) as process:
                assert process.stdin and process.stdout
                assert [process.stdout.readline(), process.stdout.readline()] == ["['mnt']\n", "True\n"]
                assert not (folder / "inner").is_mount()
                command("umount", folder / "outer")
                process.stdin.write("\n")
                process.stdin.close()
                assert process.stdout.read() == "False True\n"
        finally:
            # Also what a child has mounted here that had no mounts of its own.
            for name in ("inner", "outer"):
                subprocess.run(["umount", folder / name], check=False, stderr=subprocess.DEVNULL)
