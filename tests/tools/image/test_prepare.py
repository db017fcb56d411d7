"""The way of an image from its name to a device: how often it is looked at, and what is remembered of it."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.settings import MIB
from rpinfs.boot.storage import Mount, parse_mountinfo
from rpinfs.errors import RpinfsError
from rpinfs.image import accept, look, make, prepare, replacing, restoring, taking
from rpinfs.image.errors import ImageError, OtherThanVerifiedError, ShareFailedError
from rpinfs.image.probe import Kind, probe
from rpinfs.lease import lease, lock, memory, owner
from rpinfs.lease.lease import Owner
from rpinfs.system import files, loop, run
from rpinfs.system.run import silent
from tests.support import Tell
from tests.tools import conftest
from tests.tools.conftest import Traced, command
from tests.tools.crash import kill_at, some
from tests.tools.image.files import XFS_SIZE, fingerprint, sparse, write_at

pytestmark = pytest.mark.root

PI = Owner("10000000abcdef01", "pi1", "m" * 32, "boot-1")
CLONE = Owner("10000000abcdef02", "pi1", "m" * 32, "boot-2")
Happening = Callable[[Path], None]
FENCES = pytest.mark.parametrize("fence", ["lease", "mmp"])


def wanted_at(path: Path, where: Path, **changes: object) -> Image:
    values: dict[str, object] = {
        "name": "docker", "file": path.name, "path": str(path), "size": 64 * MIB, "size_is_set": False,
        "filesystem": "ext4", "filesystem_is_set": False, "where": str(where), "options": ["noatime"], "bind": [],
        "before": [], "direct_io": True, "fence": "lease",
    }  # fmt: skip
    return Image(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def wanted(tmp_path: Path) -> Image:
    (tmp_path / "share").mkdir()
    return wanted_at(tmp_path / "share/docker.img", tmp_path / "where")


def booted(image: Image, board: Owner = PI) -> list[str]:
    """Prepare an image and let go of it; the remarks."""
    with contextlib.closing(prepare.prepare(image, board, silent)) as done:
        assert done.uuid == probe(image.path).uuid
        return done.remarks


def with_fence(image: Image, fence: str) -> Image:
    changed = copy.copy(image)
    changed.fence = fence
    return changed


# --- Looks -------------------------------------------------------------------------------------------------

BOOT = """
import sys
sys.path.insert(0, {root!r})
from rpinfs.boot.config import Image
from rpinfs.image import prepare
from rpinfs.lease import memory
from rpinfs.lease.lease import Owner
memory.FOLDER = {memory!r}
image = Image(**{image!r})
done = prepare.prepare(image, Owner("10000000abcdef01", "pi1", "m" * 32, "boot-1"), lambda _: None)
done.close()
"""


def boot_code(image: Image) -> str:
    values = {name: getattr(image, name) for name in Image.__slots__}
    return BOOT.format(root=str(conftest.ROOT), memory=memory.FOLDER, image=values)


@pytest.mark.parametrize(("filesystem", "size"), [("ext4", 64 * MIB), ("xfs", XFS_SIZE)])
def test_a_clean_boot_looks_once(wanted: Image, tmp_path: Path, filesystem: str, size: int) -> None:
    """Each program is read from the root over the network, and each opening of the image asks the NAS."""
    wanted.filesystem, wanted.size, wanted.size_is_set = filesystem, size, True
    booted(wanted)
    log = tmp_path / "log"
    command("strace", "-qq", "-f", "-o", log, "-e", "trace=execve,openat", sys.executable, "-c", boot_code(wanted))
    lines = log.read_text().splitlines()
    main = lines[0].split()[0]
    started = [line.split('"')[1].rpartition("/")[2] for line in lines if "execve(" in line and line.endswith("= 0")]
    checks = ["setpriv", "e2fsck"] if filesystem == "ext4" else []
    assert started == [os.path.basename(os.path.realpath(sys.executable)), "blkid", *checks] or started[1:] == [
        "blkid",
        *checks,
    ]
    opened = [line for line in lines if f'"{wanted.path}"' in line and line.split()[0] == main]
    # To look at it, to insist that nobody else grows it where Size= asks for more, and to attach it.
    assert len(opened) == 2, opened


def test_adjoining_requests_of_xfs_are_merged(wanted: Image) -> None:
    wanted.filesystem, wanted.size, wanted.size_is_set = "xfs", XFS_SIZE, True
    with contextlib.closing(prepare.prepare(wanted, PI, silent)) as done:
        scheduler = Path("/sys/block", os.path.basename(done.device.path), "queue/scheduler").read_text()
        if "mq-deadline" not in scheduler:
            pytest.skip("this kernel has no mq-deadline")
        assert "[mq-deadline]" in scheduler


def test_an_image_whose_folder_cannot_be_listed(wanted: Image, traced: Traced) -> None:
    """What nfs-ganesha 6.5 answers for minutes after a file in it was removed on the NAS itself; the image is well."""
    booted(wanted)
    ended = traced(boot_code(wanted), [Path(wanted.path).parent], inject="getdents64:error=ESTALE")
    assert ended.returncode == 0, ended.stderr
    assert "getdents64" in ended.calls


# --- Memory ------------------------------------------------------------------------------------------------


def lost(path: Path) -> None:
    """The NAS came up without its data disk: the empty folder below is exported."""
    for entry in path.parent.iterdir():
        entry.unlink()


def gone(path: Path) -> None:
    path.unlink()


def blanked(path: Path) -> None:
    path.unlink()
    sparse(path)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def replaced(path: Path) -> None:
    path.unlink()
    make.create(str(path), 64 * MIB)


def lost_and_replaced(path: Path) -> None:
    lost(path)
    make.create(str(path), XFS_SIZE, "xfs")


@FENCES
@pytest.mark.parametrize("happened", [lost, gone, blanked, emptied, replaced, lost_and_replaced])
def test_an_image_that_was_verified_is_not_made_anew(wanted: Image, happened: Happening, fence: str) -> None:
    wanted = with_fence(wanted, fence)
    booted(wanted)
    uuid = probe(wanted.path).uuid
    happened(Path(wanted.path))
    before = fingerprint(Path(wanted.path)) if os.path.exists(wanted.path) else None
    for _ in range(2):
        with pytest.raises(OtherThanVerifiedError, match=f"expected file system {uuid}, last verified 20") as refused:
            booted(wanted)
        assert probe(wanted.path).description in refused.value.message
        way = "adopt" if probe(wanted.path).uuid else "release"
        assert refused.value.remedy and f"rpinfs {way} docker; systemctl restart" in refused.value.remedy
        assert (fingerprint(Path(wanted.path)) if os.path.exists(wanted.path) else None) == before


def test_either_memory_is_enough(wanted: Image) -> None:
    """The record is written anew at each boot, and keeps what it knows."""
    booted(wanted)
    booted(wanted, replace(PI, boot_id="boot-2"))
    os.unlink(memory.file_of("docker"))
    os.unlink(wanted.path)
    with pytest.raises(OtherThanVerifiedError, match="found nothing"):
        booted(wanted)


@FENCES
def test_it_comes_back(wanted: Image, tmp_path: Path, fence: str) -> None:
    """The NAS finds its data disk: the image is used as before."""
    wanted = with_fence(wanted, fence)
    booted(wanted)
    share, disk = Path(wanted.path).parent, tmp_path / "disk"
    share.rename(disk)
    share.mkdir()
    with pytest.raises(OtherThanVerifiedError):
        booted(wanted)
    shutil.rmtree(share)
    disk.rename(share)
    assert booted(wanted) == []


def test_what_there_is_can_be_adopted(wanted: Image) -> None:
    booted(wanted)
    replaced(Path(wanted.path))
    with pytest.raises(OtherThanVerifiedError, match="found an ext4"):
        booted(wanted)
    assert accept.adopt(wanted, PI) == (accept.adopt(wanted, PI)[0], "")
    assert booted(wanted) == []


@pytest.mark.parametrize("happened", [lost, gone, blanked, emptied])
def test_nothing_is_no_image_to_adopt(wanted: Image, happened: Happening) -> None:
    """Else the next boot would take it for a first one."""
    booted(wanted)
    happened(Path(wanted.path))
    with pytest.raises(RpinfsError, match="or another one to accept; found") as refused:
        accept.adopt(wanted, PI)
    assert refused.value.remedy == ("to have a new image made: rpinfs release docker; systemctl restart rpinfs-agent")
    with pytest.raises(OtherThanVerifiedError):
        booted(wanted)


def test_an_unreadable_record_is_no_obstacle_to_adopting(wanted: Image) -> None:
    booted(wanted)
    os.unlink(memory.file_of("docker"))
    Path(owner.record_of(wanted.path)).write_text("{")
    os.utime(lease.path_of(wanted.path), (0, 0))  # Not seen for long.
    accept.adopt(wanted, PI)
    assert booted(wanted) == []
    assert owner.read(wanted.path) == replace(PI, uuid=probe(wanted.path).uuid or "")


def test_what_is_released_is_made_anew(wanted: Image) -> None:
    booted(wanted)
    lost(Path(wanted.path))
    lease.release(wanted.path, PI, "docker")
    memory.forget("docker")
    assert booted(wanted)[0].startswith(f"made {wanted.path}")


def test_a_restored_snapshot_is_known(wanted: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has another UUID than what it replaces, and the power may go before or after it takes the name."""
    booted(wanted)
    taken = taking.take(wanted, PI)
    old = probe(wanted.path).uuid
    lease.release(wanted.path, PI)
    memory.forget("docker")
    os.unlink(wanted.path)
    booted(wanted)
    new = probe(wanted.path).uuid
    real = replacing.swap

    def cut_before(*_: object) -> None:
        raise KeyboardInterrupt

    def cut_after(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    for cut, expected in ((cut_before, new), (cut_after, old)):
        monkeypatch.setattr(replacing, "swap", cut)
        with pytest.raises(KeyboardInterrupt):
            restoring.restore(wanted, PI, taken.name)
        monkeypatch.undo()
        monkeypatch.setattr(memory, "FOLDER", f"{Path(wanted.path).parents[1]}/root/var/lib/rpinfs")
        assert probe(wanted.path).uuid == expected
        assert booted(wanted) == []
    restoring.restore(wanted, PI, taken.name)
    assert [one.uuid for one in memory.recall(wanted.path, "docker", PI)] == [old]
    assert booted(wanted) == []


def test_another_name_is_another_image(wanted: Image, tmp_path: Path) -> None:
    booted(wanted)
    other = wanted_at(tmp_path / "share/other.img", tmp_path / "where")
    assert booted(other)[0].startswith(f"made {other.path}")
    # And back: the share remembers.
    assert booted(wanted) == []
    os.unlink(wanted.path)
    with pytest.raises(OtherThanVerifiedError):
        booted(wanted)


@FENCES
def test_a_copied_root_remembers_nothing_for_another_board(wanted: Image, tmp_path: Path, fence: str) -> None:
    booted(with_fence(wanted, fence))
    other = with_fence(wanted_at(tmp_path / "share/docker-2.img", tmp_path / "where"), fence)
    assert booted(other, CLONE)[0].startswith(f"made {other.path}")


def test_the_image_of_a_board_that_is_gone(wanted: Image) -> None:
    """Adopted by its successor, whose root is a copy: what it verified counts, what its predecessor did does not."""
    booted(wanted)
    os.utime(lease.path_of(wanted.path), (0, 0))  # Not seen for long.
    lease.adopt(wanted.path, CLONE, uuid=probe(wanted.path).uuid or "")
    assert booted(wanted, CLONE) == []
    os.unlink(wanted.path)
    with pytest.raises(OtherThanVerifiedError):
        booted(wanted, CLONE)


def test_a_read_only_root_does_not_fail_the_boot_and_is_told(wanted: Image, tmp_path: Path) -> None:
    folder = tmp_path / "readonly"
    folder.mkdir()
    command("mount", "-t", "tmpfs", "-o", "ro", "none", folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory, "FOLDER", str(folder / "rpinfs"))
            for _ in range(2):
                (remark,) = [one for one in booted(wanted) if not one.startswith("made")]
                assert remark == (
                    f"that {wanted.path} was verified cannot be remembered in {folder}/rpinfs/docker.verified: "
                    "Read-only file system"
                )
    finally:
        command("umount", folder)
    # The share remembers all the same.
    os.unlink(wanted.path)
    with pytest.raises(OtherThanVerifiedError):
        booted(wanted)


def test_a_root_that_became_read_only_remembers_still(wanted: Image) -> None:
    booted(wanted)
    folder = Path(memory.FOLDER)
    command("mount", "--bind", folder, folder)
    command("mount", "-o", "remount,bind,ro", folder)
    try:
        assert booted(wanted) == []
        lost(Path(wanted.path))
        with pytest.raises(OtherThanVerifiedError):
            booted(wanted)
    finally:
        command("umount", folder)


@pytest.mark.parametrize("content", [b"", b"[" * 60000, b"null", b"{}", b'{"version": 1, "uuid": 7}', b"\xff"])
def test_a_damaged_memory_on_the_root(wanted: Image, content: bytes) -> None:
    booted(wanted)
    Path(memory.file_of("docker")).write_bytes(content)
    assert booted(wanted) == []
    assert json.loads(Path(memory.file_of("docker")).read_text())["uuid"] == probe(wanted.path).uuid


def test_no_half_memory_is_left(wanted: Image) -> None:
    booted(wanted)
    Path(f"{memory.file_of('docker')}-new-0123456789abcdef").write_text("half")
    os.unlink(memory.file_of("docker"))
    booted(wanted)
    assert os.listdir(memory.FOLDER) == ["docker.verified"]


def test_the_share_cannot_make_us_believe_anything(wanted: Image) -> None:
    """A record with a UUID that is none is no record of ours."""
    booted(wanted)
    path = Path(owner.record_of(wanted.path))
    record = json.loads(path.read_text())
    for uuid in ("x", 7, "\n<0>", None, ["a"]):
        path.write_text(json.dumps({**record, "uuid": uuid}))
        with pytest.raises(lease.UnreadableError):
            booted(wanted)


@pytest.mark.crash
@pytest.mark.parametrize("again", [False, True], ids=["first boot", "second boot"])
def test_a_power_cut_at_every_call(wanted: Image, traced: Traced, tell: Tell, again: bool) -> None:
    """Killed anywhere, the next boot completes by itself; and from then on, it is remembered."""
    share, root = Path(wanted.path).parent, Path(memory.FOLDER)

    def fresh() -> list[Path]:
        for folder in (share, root):
            shutil.rmtree(folder, ignore_errors=True)
        share.mkdir()
        if again:
            booted(wanted)
        return [
            share,
            Path(wanted.path),
            root,
            *(Path(memory.file_of("docker") + end) for end in ("", f"-new-{'0' * 16}")),
        ]

    fixed = "import os\nrandom = os.urandom\nos.urandom = lambda n: bytes(n) if n == 8 else random(n)\n"
    paths = fresh()
    temporaries = [share / f".docker.img.rpinfs-{what}-{'0' * 16}" for what in ("new", "owner-new")]
    paths += [*temporaries, *(share / f".docker.img.rpinfs-{what}" for what in ("owner", "lock"))]
    code = fixed + boot_code(wanted)
    ended = traced(code, paths)
    assert (ended.returncode, ended.stderr) == (0, "")
    tried = some(ended.points, 1 if len(ended.points) < 60 else 3, 12)
    for point in tried:
        fresh()
        ended = traced(code, paths, inject=kill_at(point))
        left_alone(wanted.path)
        remarks = booted(wanted)
        assert not [one for one in remarks if "cannot be remembered" in one], point
        assert [one for one in os.listdir(share) if "-new" in one] == []
        os.unlink(wanted.path)
        with pytest.raises(OtherThanVerifiedError):
            booted(wanted)
    tell(f"prepare: killed at {len(tried)} calls")


def left_alone(path: str) -> None:
    """What a killed process of ours has attached goes with it; the lock stays, pinned."""
    assert probe(path).kind in (Kind.MISSING, Kind.EXT4)


# --- The share ---------------------------------------------------------------------------------------------


@pytest.fixture
def share(wanted: Image) -> Iterator[Mount]:
    """A mount in the place of the NFS mount, by the mount table."""
    folder = Path(wanted.path).parent
    command("mount", "-t", "tmpfs", "share", folder)
    found = storage.mount_at(parse_mountinfo(Path("/proc/self/mountinfo").read_text()), str(folder))
    assert found
    yield found
    while storage.mount_at(parse_mountinfo(Path("/proc/self/mountinfo").read_text()), str(folder)):
        command("umount", folder)


def prepared_on(share: Mount, wanted: Image) -> prepare.Prepared:
    """As the agent's worker has it prepared."""
    with files.on_share(share.where, share.device):
        return prepare.prepare(wanted, PI, silent)


@pytest.mark.parametrize("below", ["", "sub/folder/"])
def test_an_image_is_made_on_the_share(wanted: Image, share: Mount, below: str) -> None:
    wanted.file = f"{below}docker.img"
    wanted.path = f"{share.where}/{wanted.file}"
    with contextlib.closing(prepared_on(share, wanted)) as done:
        assert done.remarks[0].startswith("made ")


@pytest.mark.parametrize("below", ["", "sub/folder/"])
def test_nothing_is_made_on_the_root_below(wanted: Image, share: Mount, below: str) -> None:
    """The share was unmounted between the look at the mount table and now."""
    folder = Path(wanted.path).parent
    wanted.file = f"{below}docker.img"
    wanted.path = f"{folder}/{wanted.file}"
    command("umount", folder)
    with pytest.raises(OSError, match="is not the share any more"):
        prepared_on(share, wanted)
    assert os.listdir(folder) == []
    assert not os.path.exists(memory.FOLDER)


def test_another_file_system_over_the_share(wanted: Image, share: Mount) -> None:
    folder = Path(wanted.path).parent
    command("mount", "-t", "tmpfs", "other", folder)
    with pytest.raises(OSError, match="is not the share any more"):
        prepared_on(share, wanted)
    assert os.listdir(folder) == []


def test_the_share_goes_while_it_is_proven_blank(wanted: Image, share: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(wanted.path).parent
    monkeypatch.setattr(lease.Lease, "leave", lambda _: None)
    real = look.take

    def goes(*arguments: object, **options: object) -> look.Look:
        seen = real(*arguments, **options)  # type: ignore[arg-type]
        command("umount", "--lazy", folder)
        return seen

    monkeypatch.setattr(look, "take", goes)
    with pytest.raises(ShareFailedError, match="it is not the share any more"):
        prepared_on(share, wanted)
    assert os.listdir(folder) == []


def test_an_image_that_is_replaced_meanwhile(wanted: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is attached is what was looked at and checked, by its inode."""
    booted(wanted)
    real = loop.attach

    def attach(path: str, **options: object) -> loop.LoopDevice:
        if path == wanted.path:
            command("cp", "--sparse=always", path, f"{path}.copy")
            os.rename(f"{path}.copy", path)
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "attach", attach)
    with pytest.raises(ImageError, match="was replaced while it was prepared"):
        booted(wanted)


# --- Steps -------------------------------------------------------------------------------------------------


def test_errors_that_were_recorded_are_looked_into(wanted: Image) -> None:
    """e2fsck -p alone skips a file system that calls itself clean, and the gate refuses one with recorded errors."""
    booted(wanted)
    command("debugfs", "-w", "-R", "ssv error_count 3", wanted.path)
    found = probe(wanted.path)
    assert (found.clean, found.errors_recorded) == (True, 3)
    booted(wanted)
    assert probe(wanted.path).errors_recorded == 0


def test_a_mark_is_cleared_by_who_has_the_lock_alone(wanted: Image) -> None:
    """On a share without locks a check that was cut short cannot be told from one that another Pi is at."""
    wanted = with_fence(wanted, "both")
    booted(wanted)
    number = int(command("sh", "-c", f"dumpe2fs -h {wanted.path} 2>/dev/null | sed -n 's/^MMP block number: *//p'"))
    command("tune2fs", "-O", "^metadata_csum", wanted.path)
    write_at(Path(wanted.path), number * 4096 + 4, 0xE24D4D50.to_bytes(4, "little"))

    def no_locks(_: int) -> bool:
        raise files.NoLocks(0, "none")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "lock", no_locks)
        with pytest.raises(ImageError, match="e2fsck is at work on it, or was cut short"):
            booted(wanted)
    assert run.run(["dumpe2fs", "-h", wanted.path]).stdout.count("0xe24d4d50") == 1
    booted(wanted)


def test_what_is_to_be_stopped_is_of_this_very_image(tmp_path: Path) -> None:
    """Another process of this Pi has it: not Docker is to be stopped for the image `registry`."""
    (tmp_path / "share").mkdir()
    registry = wanted_at(
        tmp_path / "share/registry.img", Path("/srv/registry"), name="registry", before=["registry.service"]
    )
    held = lease.acquire(registry.path, PI)
    for use in (
        lambda: booted(registry),
        lambda: accept.adopt(registry, PI),
        lambda: accept.release(registry, PI),
        lambda: restoring.restore(registry, PI, "none"),
    ):
        with pytest.raises(RpinfsError, match="in use by this Pi") as refused:
            use()
        assert refused.value.remedy == "systemctl stop registry.service srv-registry.mount rpinfs-agent.service"
    held.close()
