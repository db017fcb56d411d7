"""Checking images: what is put right, and what only a person can decide."""

import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.image.check import check, judge_e2fsck
from rpinfs.image.errors import ImageError
from rpinfs.image.make import create
from rpinfs.image.probe import probe
from rpinfs.system import loop
from rpinfs.system.run import Completed
from tests.tools.conftest import Mount, command, python
from tests.tools.image.files import SIZE, XFS_SIZE, ext4_with_wrong_checksum, fingerprint, write_at


@pytest.mark.parametrize("code", range(256))
def test_exit_statuses_of_e2fsck(code: int) -> None:
    done = Completed(code, "", "why\n")
    if code in (0, 1, 2, 3):
        judge_e2fsck("disk.img", done)
        return
    with pytest.raises(ImageError) as caught:
        judge_e2fsck("disk.img", done)
    words = {
        4: ("only a person can decide", "e2fsck -f disk.img"),
        8: ("could not do its work", "e2fsck -f disk.img"),
        16: ("called wrongly", ""),
        32: ("was cancelled", ""),
        128: ("lacks a shared library", "apt install --reinstall e2fsprogs"),
    }
    if code in words:
        assert words[code][0] in caught.value.message
        assert words[code][1] in (caught.value.remedy or "")


def test_clean(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(str(path), SIZE)
    before = path.read_bytes()
    result = check(str(path))
    assert (result.corrected, result.needs_recovery) == (False, False)
    assert path.read_bytes() == before


@pytest.mark.root
def test_journal_is_replayed(tmp_path: Path, mounted: Mount) -> None:
    """A power cut: a copy of the file taken while it is mounted, after an fsync."""
    path, cut = tmp_path / "disk.img", tmp_path / "cut.img"
    create(str(path), SIZE)
    with loop.attach(str(path)) as device, mounted(device.path) as folder:
        with (folder / "file").open("w") as file:
            file.write("data")
            file.flush()
            os.fsync(file.fileno())
        command("cp", "--sparse=always", path, cut)
    found = probe(str(cut))
    assert (found.needs_recovery, found.clean) == (True, False)
    assert check(str(cut)).corrected is True
    found = probe(str(cut))
    assert (found.needs_recovery, found.clean) == (False, True)
    assert command("debugfs", "-R", "cat /file", cut) == "data"


def test_small_damage_is_repaired_with_progress(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(str(path), SIZE)
    command("debugfs", "-w", "-R", "ssv free_inodes_count 7", path)
    command("debugfs", "-w", "-R", "ssv state 2", path)  # errors: a full check is due
    found = probe(str(path))
    assert found.clean is False
    told: list[str] = []
    assert check(str(path), told.append).corrected is True
    assert told[-1] == "checking the file system: 100 %"
    assert told == sorted(told, key=lambda line: int(line.split()[-2]))
    command("e2fsck", "-f", "-n", path)


def test_damage_for_a_person_is_refused_with_the_command(tmp_path: Path) -> None:
    path, source = tmp_path / "disk.img", tmp_path / "file"
    create(str(path), SIZE)
    source.write_bytes(b"x" * 8192)
    for name in ("one", "two"):
        command("debugfs", "-w", "-R", f"write {source} {name}", path)
    # Two files on one block: e2fsck -p does not decide who keeps it.
    block = command("debugfs", "-R", "bmap one 0", path).strip()
    command("debugfs", "-w", "-R", f"sif two block[5] {block}", path)
    command("debugfs", "-w", "-R", "ssv state 2", path)
    with pytest.raises(ImageError, match="errors that only a person can decide about") as caught:
        check(str(path))
    assert caught.value.remedy == f"make a copy if you can, then: e2fsck -f {path}"


def test_damaged_superblock_is_refused_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    ext4_with_wrong_checksum(path)
    before = fingerprint(path)
    # blkid of util-linux 2.41 takes it for none, before e2fsck is asked.
    said = r"could not do its work \(exit status 8\): .*checksum does not match|with a damaged superblock$"
    with pytest.raises(ImageError, match=said) as caught:
        check(str(path))
    assert str(caught.value.remedy).removeprefix("make a copy if you can, then: ") == f"e2fsck -f {path}"
    assert fingerprint(path) == before


@pytest.mark.root
@pytest.mark.parametrize("use", [check, lambda path: create(path, SIZE)], ids=["check", "create"])
def test_attached_image_is_not_checked(tmp_path: Path, use: Callable[[str], object]) -> None:
    path = tmp_path / "disk.img"
    create(str(path), SIZE)
    with loop.attach(str(path)) as device:
        with pytest.raises(ImageError) as caught:
            use(str(path))
        if use is check:
            assert caught.value.message == f"{path}: is in use: attached to {device.path}"


def test_check_dies_with_us(tmp_path: Path) -> None:
    """A repair that outlived its agent would write into the file below the next agent's mount."""
    path, fifo = tmp_path / "disk.img", tmp_path / "fifo"
    create(str(path), SIZE)
    os.mkfifo(fifo)
    fake = tmp_path / "bin" / "e2fsck"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho $$ >{fifo}\nexec sleep 1000\n")
    fake.chmod(0o755)
    code = (
        "from rpinfs.image.check import check; from rpinfs.system import run\n"
        f"run.ENVIRONMENT['PATH'] = '{fake.parent}:' + run.PATH\ncheck({str(path)!r})"
    )
    with python(code) as process:
        pid = int(fifo.read_text())
        watched = os.pidfd_open(pid)
        process.kill()
        process.communicate()
    assert select.select([watched], [], [], 30)[0]
    os.close(watched)


@pytest.mark.root
def test_xfs_log_is_left_to_the_mount(tmp_path: Path, mounted: Mount) -> None:
    path = tmp_path / "disk.img"
    create(str(path), XFS_SIZE, "xfs")
    with loop.attach(str(path)) as device, mounted(device.path) as folder:
        for number in range(100):
            (folder / f"file{number}").write_text("data")
        command("sync", folder / "file99")
        command("xfs_io", "-x", "-c", "shutdown -f", folder)
    before = fingerprint(path)
    result = check(str(path))
    assert (result.corrected, result.needs_recovery) == (False, True)
    assert fingerprint(path) == before
    with loop.attach(str(path)) as device, mounted(device.path) as folder:
        assert (folder / "file99").read_text() == "data"
    assert check(str(path)).needs_recovery is False


def test_xfs_damage_is_refused_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(str(path), XFS_SIZE, "xfs")
    write_at(path, 4096, b"damage" * 100)
    with pytest.raises(ImageError, match="errors that only a person can decide about") as caught:
        check(str(path))
    assert caught.value.remedy == f"make a copy if you can, then: xfs_repair -f {path}"


def test_multi_mount_protection_is_named() -> None:
    with pytest.raises(ImageError, match="another host uses it: e2fsck: MMP: device currently active"):
        judge_e2fsck("disk.img", Completed(8, "", "e2fsck: MMP: device currently active\n"))
