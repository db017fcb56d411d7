"""Commands on image files: who else has the image is asked before anything is touched, whatever path leads to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.host import Host
from rpinfs.boot.settings import MIB
from rpinfs.image import grow, make, prepare, snapshots, taking, trim
from rpinfs.image.check import check_by_hand
from rpinfs.image.errors import ImageError
from rpinfs.image.make import create_by_hand
from rpinfs.image.probe import probe
from rpinfs.lease import lease, lock, memory, owner
from rpinfs.lease.lease import Owner
from rpinfs.system import files, loop
from rpinfs.system.run import silent
from tests.tools.conftest import ROOT, Mount, command
from tests.tools.image.files import XFS_SIZE, fingerprint
from tests.tools.image.test_prepare import wanted_at

pytestmark = pytest.mark.root

OTHER = Owner("10000000abcdef99", "other", "n" * 32, "boot-9")
HERE = Owner.of(Host.read())


@pytest.fixture(params=["ext4", "xfs"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An image that is to be checked: a repair would change it."""
    (tmp_path / "share").mkdir()
    path = tmp_path / "share/it's an image.img"
    make.create(str(path), 64 * MIB if request.param == "ext4" else XFS_SIZE, request.param)
    if request.param == "ext4":
        command("debugfs", "-w", "-R", "ssv free_blocks_count 7", path)
        command("debugfs", "-w", "-R", "ssv state 0", path)
    return path


Use = Callable[[str], object]


def grow_it(path: str) -> object:
    return grow.grow_by_hand(path, 2 * os.stat(path).st_size)


def create_it(path: str) -> object:
    return create_by_hand(path, XFS_SIZE, "xfs", label=None)


USES = pytest.mark.parametrize("use", [check_by_hand, grow_it, create_it], ids=["check", "grow", "create"])


@contextlib.contextmanager
def used_by(board: Owner, path: Path) -> Iterator[None]:
    held = lease.acquire(str(path), board)
    try:
        yield
    finally:
        held.close()


def cli(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rpinfs", *map(str, words)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@USES
def test_an_image_that_another_pi_uses(image: Path, use: Use) -> None:
    with used_by(OTHER, image):
        before = fingerprint(image)
        with pytest.raises(ImageError, match=r"in use by other \(serial 10000000abcdef99\)") as refused:
            use(str(image))
        assert refused.value.remedy
        assert fingerprint(image) == before


@USES
def test_through_another_mount_of_the_export(image: Path, use: Use, mounted: Mount) -> None:
    with mounted("--bind", image.parent) as elsewhere, used_by(OTHER, image):
        before = fingerprint(image)
        with pytest.raises(ImageError, match="in use by other"):
            use(str(elsewhere / image.name))
        assert fingerprint(image) == before


def test_the_remedy_of_a_check_works(image: Path) -> None:
    with used_by(OTHER, image):
        refused = cli("image", "check", image)
    assert (refused.returncode, refused.stdout) == (1, "")
    said, remedy = refused.stderr.splitlines()
    assert said.startswith(f"rpinfs: {image}: in use by other (serial 10000000abcdef99), last seen 20")
    line = remedy.removeprefix("rpinfs: shut down the Pi that has it, then: ")
    pasted = line.replace("rpinfs image", f"{sys.executable} -m rpinfs image", 1)
    assert str(image) in command("env", f"PYTHONPATH={ROOT}", "sh", "-c", pasted)


def server_lock(path: Path, command_: int) -> int:
    """Lock a file as an NFS server on this host does for a Pi: kernel nfsd as of a process, nfs-ganesha of a file."""
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, command_, struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return fd


@USES
@pytest.mark.parametrize("kind", ["nfs-ganesha", "nfsd"])
def test_on_the_nas_itself(image: Path, use: Use, kind: str) -> None:
    """What a Pi locks by flock(2) is another sort of lock there, which flock(2) does not see."""
    lease.acquire(str(image), OTHER).close()
    lock_file = lock.path_of(str(image))
    before = fingerprint(image)
    code = (
        f"import fcntl, sys\nwith open({lock_file!r}, 'r+') as file:\n    fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "    print('locked', flush=True)\n    sys.stdin.read()"
    )
    with contextlib.ExitStack() as stack:
        if kind == "nfsd":
            server = stack.enter_context(subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True))
            assert server.stdin and server.stdout
            stack.callback(server.stdin.close)
            assert server.stdout.readline() == "locked\n"
        else:
            stack.callback(os.close, server_lock(Path(lock_file), fcntl.F_OFD_SETLK))
        with pytest.raises(ImageError, match=r"in use by other|belongs to other"):
            use(str(image))
    assert fingerprint(image) == before
    check_by_hand(str(image))


def test_an_image_of_a_pi_that_is_off(image: Path) -> None:
    """It can be checked, and stays that Pi's; nobody else makes it larger, or another one."""
    lease.acquire(str(image), OTHER).close()
    before = fingerprint(image)
    for use in (grow_it, create_it):
        with pytest.raises(ImageError, match=r"belongs to other \(serial 10000000abcdef99\)"):
            use(str(image))
    assert fingerprint(image) == before
    check_by_hand(str(image))
    assert owner.read(str(image)) == OTHER
    lease.acquire(str(image), OTHER).close()


def test_a_name_that_is_another_pis(tmp_path: Path) -> None:
    """Its NAS may be without the disk: that is no place for another image."""
    path = tmp_path / "docker.img"
    lease.acquire(str(path), OTHER).close()
    with pytest.raises(ImageError, match="belongs to other"):
        create_it(str(path))
    assert not path.exists()


@USES
def test_a_share_without_locks(image: Path, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    lease.acquire(str(image), OTHER).close()

    def no_locks(_: int) -> bool:
        raise files.NoLocks(0, "none")

    monkeypatch.setattr(lock, "lock", no_locks)
    before = fingerprint(image)
    with pytest.raises(ImageError, match="belongs to other"):
        use(str(image))
    assert fingerprint(image) == before


MountedUse = Callable[[Image], object]


def trim_it(wanted: Image) -> object:
    return trim.trim(wanted, storage.parse_mountinfo(Path("/proc/self/mountinfo").read_text()), silent)


def take_it(wanted: Image) -> object:
    return taking.take(wanted, HERE, runtime=f"{wanted.where}.run")


def delete_one(wanted: Image) -> object:
    return snapshots.delete(wanted, HERE, "20261122T201500Z")


MOUNTED_USES = pytest.mark.parametrize(
    "use", [lambda wanted: grow_it(wanted.path), trim_it, take_it, delete_one], ids=["grow", "trim", "take", "delete"]
)


@MOUNTED_USES
@pytest.mark.parametrize("image", ["xfs"], indirect=True)
def test_mounted_here_and_locked_by_another(image: Path, use: MountedUse, mounted: Mount) -> None:
    """The one case in which going on loses data for certain."""
    device = loop.attach(str(image))
    with mounted(device.path) as where:
        device.close()
        wanted = wanted_at(image, where, filesystem="xfs")
        (image.parent / f"{image.name}.snapshot-20261122T201500Z").write_bytes(b"x")
        before = sorted(os.listdir(image.parent))
        with used_by(OTHER, image), pytest.raises(ImageError, match="in use by other"):
            use(wanted)
        lease.acquire(str(image), OTHER).close()
        with pytest.raises(ImageError, match="belongs to other") as refused:
            use(wanted)
        assert refused.value.remedy
        assert image.stat().st_size == XFS_SIZE
        ours = {f".{image.name}.rpinfs-{what}" for what in ("lock", "owner")}
        assert set(os.listdir(image.parent)) - ours == set(before)


@MOUNTED_USES
@pytest.mark.parametrize("image", ["xfs"], indirect=True)
def test_mounted_here_by_the_agent(image: Path, use: MountedUse, tmp_path: Path) -> None:
    """It is worked on where it is; a check has to wait. The lock is the agent's, and stays so."""
    wanted = wanted_at(image, tmp_path / "where", filesystem="xfs")
    (tmp_path / "where").mkdir()
    with contextlib.closing(prepare.prepare(wanted, HERE, silent)) as held:
        command("mount", held.path, tmp_path / "where")
        try:
            with pytest.raises(ImageError, match=f"is in use: attached to {held.path}|in use by this Pi"):
                check_by_hand(str(image))
            (image.parent / f"{image.name}.snapshot-20261122T201500Z").write_bytes(b"x")
            assert use(wanted)
            record = Path(owner.record_of(str(image)))
            ours = record.read_text()
            record.write_text(ours.replace(HERE.serial, OTHER.serial))
            with pytest.raises(ImageError, match="belongs to "):
                use(wanted)
            record.write_text(ours)
            assert held.lease is not None
            held.lease.renew()
            assert lock.taken(str(image)) is None
        finally:
            command("umount", tmp_path / "where")


def test_an_image_that_never_was_a_pis_needs_nothing(image: Path) -> None:
    check_by_hand(str(image))
    assert os.listdir(image.parent) == [image.name]


def test_what_a_person_makes_anew_counts_as_verified(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    wanted = wanted_at(tmp_path / "share/docker.img", tmp_path / "where")
    prepare.prepare(wanted, HERE, silent).close()
    os.unlink(wanted.path)
    made = create_by_hand(wanted.path, 64 * MIB, "ext4", label=None)
    prepare.prepare(wanted, HERE, silent).close()
    assert {one.uuid for one in memory.recall(wanted.path, "docker", HERE)} == {made.uuid}


def test_a_second_name_of_a_killed_attempt_goes(tmp_path: Path) -> None:
    """It was killed after it had given the image its name."""
    path = tmp_path / "disk.img"
    create_by_hand(str(path), 64 * MIB, "ext4", label=None)
    leftover, others = tmp_path / ".disk.img.rpinfs-new-0123456789abcdef", tmp_path / "backup.img"
    os.link(path, leftover)
    os.link(path, others)
    with pytest.raises(ImageError, match="expected nothing or a blank file, found an ext4 file system"):
        create_by_hand(str(path), 64 * MIB, "ext4", label=None)
    assert sorted(os.listdir(tmp_path)) == ["backup.img", "disk.img"]
    assert probe(str(path)).uuid
