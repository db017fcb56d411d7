"""Fence=: the lease and ext4's multi-mount protection on the way from a name on the share to an attached image.

Another host is a mount in a namespace of its own: e2fsck and tune2fs see nothing of it but its beat in the image.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.settings import MIB
from rpinfs.errors import RpinfsError
from rpinfs.image import make, prepare, remedy, taking
from rpinfs.image.check import judge_e2fsck
from rpinfs.image.errors import ImageError
from rpinfs.image.probe import probe
from rpinfs.image.protection import refuse_marked
from rpinfs.lease.lease import Owner
from rpinfs.system import loop, run
from rpinfs.system.run import Completed, silent
from tests.tools.conftest import Mount, command

pytestmark = pytest.mark.root

PI = Owner("1", "pi1", "m" * 32, "boot-1")
ATTACH = ("losetup", "--find", "--show", "--direct-io=on", "--sector-size=4096")
OTHER_HOST = f"""
device=$({" ".join(ATTACH)} "$1") && mount $device "$2" && losetup --detach $device && echo mounted
read go
umount "$2"
"""
MMP_CHECKING, MMP_CLEAN = 0xE24D4D50, 0xFF4D4D50


@pytest.fixture
def wanted(tmp_path: Path) -> Image:
    (tmp_path / "share").mkdir()
    path = tmp_path / "share/docker.img"
    return Image(
        name="docker", file=path.name, path=str(path), size=64 * MIB, size_is_set=False, filesystem="ext4",
        filesystem_is_set=False, where=str(tmp_path / "where"), options=["noatime"], bind=[], before=[],
        direct_io=True, fence="both",
    )  # fmt: skip


def prepared(image: Image) -> list[str]:
    """Prepare an image and let go of it; the remarks."""
    done = prepare.prepare(image, PI, silent)
    assert done.direct_io
    done.close()
    assert [one for one in storage.loops() if one.backing_file.startswith(os.path.dirname(image.path))] == []
    return done.remarks


def with_fence(image: Image, fence: str) -> Image:
    changed = copy.copy(image)
    changed.fence = fence
    return changed


@contextlib.contextmanager
def mounted_by_another_host(path: str, folder: Path) -> Iterator[None]:
    folder.mkdir()
    argv = ["unshare", "--mount", "sh", "-c", OTHER_HOST, "sh", path, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdin and host.stdout
        assert host.stdout.readline() == "mounted\n"
        yield
        host.communicate("go\n")
    assert host.returncode == 0


def mmp_sequence(path: str) -> int:
    found = re.search(r"mmp_sequence: *(?:0x)?([0-9a-f]+)", command("dumpe2fs", "-h", path))
    assert found
    return int(found[1], 16)


def cut_short(path: str) -> None:
    """What is left in an image when the power goes while e2fsck is at it."""
    number = re.search(r"MMP block number: *(\d+)", command("dumpe2fs", "-h", path))
    assert number
    with open(path, "r+b") as file:
        file.seek(int(number[1]) * 4096 + 4)
        file.write(MMP_CHECKING.to_bytes(4, "little"))
    assert mmp_sequence(path) == MMP_CHECKING


E2FSCK = """#!/bin/sh
for last; do :; done
echo "$last $(cat /sys/block/"${{last##*/}}"/loop/dio)" >>{seen}
exec {real} "$@"
"""


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with what each e2fsck was given to check, and whether that does direct I/O."""
    seen, folder = tmp_path / "seen", tmp_path / "programs"
    folder.mkdir()
    program = folder / "e2fsck"
    program.write_text(E2FSCK.format(seen=seen, real=shutil.which("e2fsck")))
    program.chmod(0o755)
    monkeypatch.setitem(run.ENVIRONMENT, "PATH", f"{folder}:{run.PATH}")
    return seen


def test_the_protection_is_there_from_the_start_and_stays(wanted: Image, mounted: Mount) -> None:
    make.create(wanted.path, wanted.size, mmp=True)
    assert probe(wanted.path).mmp
    os.unlink(wanted.path)
    prepared(wanted)
    assert probe(wanted.path).mmp
    with mounted("-o", "loop", wanted.path) as folder:
        (folder / "data").write_text("kept")
    assert prepared(wanted) == []
    (remark,) = prepared(with_fence(wanted, "lease"))
    assert remark.startswith(f"{wanted.path} has multi-mount protection, though Fence=lease: its checks wait; ")
    assert f"&& tune2fs -O '^mmp' {wanted.path}; systemctl start " in remark
    assert probe(wanted.path).mmp
    assert mmp_sequence(wanted.path) == MMP_CLEAN


def test_the_protection_is_set_where_it_is_missing(wanted: Image) -> None:
    make.create(wanted.path, wanted.size)
    assert not probe(wanted.path).mmp
    prepared(with_fence(wanted, "mmp"))
    assert probe(wanted.path).mmp


def test_e2fsck_reads_the_protection_over_direct_io(wanted: Image, checked: Path) -> None:
    """Of a file it would read what our own page cache has; so it gets a device, and nothing stays of that."""
    make.create(wanted.path, wanted.size, mmp=True)
    checked.unlink()  # The look at the new image was a file's.
    prepared(with_fence(wanted, "mmp"))
    assert re.fullmatch(r"/dev/loop\d+ 1\n", checked.read_text())


def test_protection_alone_needs_direct_io(wanted: Image, tmp_path: Path, mounted: Mount) -> None:
    """Sectors of the share that are larger than the image's blocks: no direct I/O, and nothing is changed."""
    store = tmp_path / "store"
    command("truncate", "--size=256M", store)
    device = command("losetup", "--find", "--show", "--sector-size=4096", store).strip()
    command("mkfs.ext4", "-q", device)
    with mounted(device) as share:
        wanted.path = str(share / "docker.img")
        command("mkfs.ext4", "-q", "-b", "1024", "-O", "mmp", wanted.path, "64M")
        command("tune2fs", "-E", "force_fsck", wanted.path)
        before = Path(wanted.path).read_bytes()
        with pytest.raises(ImageError, match="holds only with direct I/O, which the kernel refuses") as refused:
            prepared(with_fence(wanted, "mmp"))
        assert refused.value.remedy and refused.value.remedy.startswith("set Fence=lease in its [Image] section")
        assert Path(wanted.path).read_bytes() == before
        assert storage.loops_on(wanted.path) == []
        # The lock keeps other hosts away; then the protection is but one more.
        held = prepare.prepare(wanted, PI, silent)
        assert not held.direct_io and any("refuses direct I/O" in remark for remark in held.remarks)
        held.close()
    command("losetup", "--detach", device)


@pytest.mark.crash
@pytest.mark.long
def test_another_host_that_has_it_mounted_is_noticed(
    wanted: Image, tmp_path: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the locks say: e2fsck refuses, and so does the kernel."""
    prepared(wanted)
    # What one kernel knows of its own loop devices, two hosts do not know of each other's.
    monkeypatch.setattr(loop, "find", lambda _: [])
    with mounted_by_another_host(wanted.path, tmp_path / "there"):
        with pytest.raises(ImageError, match=r"another host uses it: .*MMP: device currently active") as refused:
            prepared(with_fence(wanted, "mmp"))
        assert refused.value.message.endswith(f"(last marked by {os.uname().nodename})")
        with pytest.raises(ImageError, match=r"another host uses it: .*\(last marked by "):
            taking.take(with_fence(wanted, "mmp"), PI, runtime=str(tmp_path))
        device = command(*ATTACH, wanted.path).strip()
        with pytest.raises(AssertionError, match="already mounted or mount point busy"), mounted(device):
            pass
        command("losetup", "--detach", device)
    assert prepared(wanted) == []
    refuse_marked(wanted.path)


def test_a_check_that_was_cut_short_needs_a_lock_to_be_told_from_one_that_runs(wanted: Image) -> None:
    make.create(wanted.path, wanted.size)
    # Else the block would need a checksum.
    command("tune2fs", "-O", "^metadata_csum", wanted.path)
    command("tune2fs", "-O", "mmp", wanted.path)
    cut_short(wanted.path)
    with pytest.raises(ImageError, match="e2fsck is at work on it, or was cut short") as refused:
        prepared(with_fence(wanted, "mmp"))
    assert refused.value.remedy == (
        f"make sure that no other host uses it, then: tune2fs -f -E clear_mmp {wanted.path}"
    )
    assert mmp_sequence(wanted.path) == MMP_CHECKING
    prepared(wanted)
    assert mmp_sequence(wanted.path) == MMP_CLEAN


def test_an_xfs_image_has_no_such_protection(wanted: Image) -> None:
    make.create(wanted.path, 300 * MIB, "xfs")
    with pytest.raises(RpinfsError, match="Fence=both needs ext4, but the image holds xfs"):
        prepared(wanted)
    assert prepared(with_fence(wanted, "lease")) == []


def test_the_wait_for_a_protected_image_is_no_error_of_its_own() -> None:
    """An unclean image with errors: e2fsck tells of its wait and of the errors, and only the latter count."""
    waited = "MMP interval is 10 seconds and total wait time is 42 seconds. Please wait...\n"
    done = Completed(4, waited, "disk.img: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n")
    with pytest.raises(ImageError, match="errors that only a person can decide about"):
        judge_e2fsck("disk.img", done)
    with pytest.raises(ImageError, match="another host uses it"):
        judge_e2fsck("disk.img", replace(done, stderr="e2fsck: MMP: filesystem still in use\n"))


SYSTEMCTL = """#!/bin/sh
echo "$@" >>{log}
"""


def pasted(line: str, tmp_path: Path) -> list[str]:
    """Run a remedy as a person pastes it, with a systemctl that only takes notes; what it was asked for."""
    programs, log = tmp_path / "pasted", tmp_path / "systemctl.log"
    programs.mkdir(exist_ok=True)
    log.write_text("")
    (programs / "systemctl").write_text(SYSTEMCTL.format(log=log))
    (programs / "systemctl").chmod(0o755)
    command("env", f"PATH={programs}:{run.PATH}", "sh", "-c", line)
    return log.read_text().splitlines()


@pytest.mark.parametrize("name", ["docker.img", "Docker's image & more $(id).img"])
def test_the_protection_is_taken_off_only_when_nothing_has_the_image(wanted: Image, tmp_path: Path, name: str) -> None:
    """While it is attached, the next mount would read a stale superblock, or write below the change."""
    wanted.file, wanted.path = name, str(tmp_path / "share" / name)
    wanted.before = ["docker.service", "containerd.service"]
    make.create(wanted.path, wanted.size, mmp=True)
    line = remedy.unmounted(wanted, "tune2fs", "-O", "^mmp", wanted.path)
    with loop.attach(wanted.path):
        with pytest.raises(AssertionError):
            pasted(line.rpartition(";")[0], tmp_path)
        pasted(line, tmp_path)
    assert probe(wanted.path).mmp
    stop, start = pasted(line, tmp_path)
    assert stop.startswith("stop docker.socket docker.service containerd.service ")
    assert start == "start rpinfs-agent.service docker.service containerd.service"
    assert not probe(wanted.path).mmp


def test_fast_commit_is_used_and_remarked_on(wanted: Image, tmp_path: Path) -> None:
    make.create(wanted.path, wanted.size)
    command("tune2fs", "-O", "fast_commit", wanted.path)
    (remark,) = prepared(with_fence(wanted, "lease"))
    assert remark == (
        f"{wanted.path} has fast_commit, which loses data in a power cut; to take it off: "
        f"{remedy.unmounted(wanted, 'tune2fs', '-O', '^fast_commit', wanted.path)}"
    )
    assert probe(wanted.path).fast_commit
    pasted(remark.partition("to take it off: ")[2], tmp_path)
    assert prepared(with_fence(wanted, "lease")) == []
