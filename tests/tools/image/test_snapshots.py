"""Snapshots of real file systems with a writer running, restoring them, and what is left when that goes wrong."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rpinfs.boot.config import Image
from rpinfs.image import copying, freeze, make, publish, snapshots
from rpinfs.image.check import check
from rpinfs.image.errors import ImageError
from rpinfs.image.probe import probe, verify
from rpinfs.image.snapshots import remove_replaced, restore, take
from rpinfs.lease import lease
from rpinfs.lease.lease import LeaseError, Owner
from rpinfs.system.run import silent
from tests.support import Tell
from tests.tools.conftest import Ended, Mount, Traced, command, python
from tests.tools.crash import fail_at, kill_at, some

pytestmark = pytest.mark.root

MIB = 1 << 20
SIZE = 64 * MIB
OWNER = Owner("10000000aaaaaaaa", "pi1")
OTHER = Owner("10000000bbbbbbbb", "pi2")

# Appends numbered lines, and says of each that it is on stable storage.
WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
while True:
    number += 1
    os.write(fd, b"%d\\n" % number)
    os.fsync(fd)
    print(number, flush=True)
"""


class Pi:
    """A share with one image, a place to mount it, and a folder for markers."""

    def __init__(self, folder: Path, filesystem: str = "ext4", size: int = SIZE) -> None:
        self.share = folder / "share"
        self.path = self.share / "docker.img"
        self.where = folder / "docker"
        self.runtime = folder / "run"
        for made in (self.share, self.where, self.runtime):
            made.mkdir(exist_ok=True)
        make.create(str(self.path), size, filesystem)
        self.image = Image(
            name="docker", file="docker.img", path=str(self.path), size=size, size_is_set=False, filesystem=filesystem,
            filesystem_is_set=False, where=str(self.where), options=[], bind=[], before=["docker.service"],
            direct_io=True, fence="lease",
        )  # fmt: skip

    @property
    def marker(self) -> Path:
        return Path(freeze.marker_of("docker", str(self.runtime)))

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        command("mount", "-o", "loop", self.path, self.where)
        try:
            yield self.where
        finally:
            # A test that failed must not leave anybody hanging.
            self.thaw()
            # A mount namespace that somebody has made meanwhile keeps a copy of the mount, and the file system alive.
            command("mount", "-o", "remount,ro", self.where)
            command("umount", self.where)

    def thaw(self) -> bool:
        """Whether it was frozen. To ask this way hangs nobody."""
        folder = os.open(self.where, os.O_RDONLY)
        try:
            return freeze._thaw(folder)
        finally:
            os.close(folder)

    def take(self) -> Path:
        return Path(take(self.image, OWNER, runtime=str(self.runtime)).path)

    def snapshots(self) -> list[Path]:
        return [Path(one.path) for one in snapshots.snapshots(str(self.path))]

    def strays(self) -> set[str]:
        """What does not belong on a share with an image and snapshots, and into /run."""
        ours = {f".{self.path.name}.rpinfs-{what}" for what in ("lock", "owner")}
        expected = {self.path.name, *ours, *(path.name for path in self.snapshots())}
        return (set(os.listdir(self.share)) | set(os.listdir(self.runtime))) - expected

    def attempt(self, call: str) -> tuple[str, list[Path]]:
        """Code that calls something with the image, and the paths that it touches."""
        names = Image.__slots__
        values = ", ".join(f"{name}={getattr(self.image, name)!r}" for name in names)
        temporary = self.share / f".{self.path.name}.rpinfs-new-0123456789abcdef"
        hidden = [self.share / f".{self.path.name}.rpinfs-{end}" for end in ("lease", "replaced")]
        replaced = self.share / f"{self.path.name}.replaced"
        paths = [self.share, self.path, temporary, *hidden, replaced, self.where, self.runtime, self.marker]
        return ATTEMPT.format(values=values, call=call, runtime=str(self.runtime)), paths


ATTEMPT = """
import os, sys
random = os.urandom
os.urandom = lambda count: bytes.fromhex("0123456789abcdef") if count == 8 else random(count)
from rpinfs import errors
from rpinfs.image import snapshots
from rpinfs.lease import lease
from rpinfs.boot.config import Image
def no_links(*_, **__):
    raise PermissionError(1, "no links here")
image, owner, runtime = Image({values}), lease.Owner("10000000aaaaaaaa", "pi1"), {runtime!r}
try:
    {call}
except errors.RpinfsError as error:
    print(error.message, "|", error.remedy, file=sys.stderr)
    sys.exit(3)
"""
TAKE = "snapshots.take(image, owner, runtime=runtime)"


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[Callable[[], int]]:
    """A writer that goes on all the while; tells how far it is for certain, when it has got further than before."""
    argv = [sys.executable, "-c", WRITER, str(folder / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            yield lambda: int(writer.stdout.readline())  # type: ignore[union-attr]
        finally:
            writer.kill()


def fill(folder: Path) -> None:
    """Files of all sizes, some with holes, and gaps between them."""
    (folder / "many").mkdir()
    for number in range(300):
        (folder / "many" / str(number)).write_bytes(os.urandom(number * 37))
    for number in range(0, 300, 3):
        (folder / "many" / str(number)).unlink()
    (folder / "large").write_bytes(os.urandom(8 * MIB))
    with (folder / "sparse").open("wb") as file:
        file.seek(5 * MIB)
        file.write(b"end")


def assert_whole(path: Path) -> None:
    assert probe(str(path)).clean
    command("e2fsck", "-f", "-n", path)


# --- Taking ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("filesystem", "size"), [("ext4", SIZE), ("xfs", 320 * MIB)])
def test_a_snapshot_is_one_instant(tmp_path: Path, mounted: Mount, filesystem: str, size: int) -> None:
    pi = Pi(tmp_path, filesystem, size)
    with pi.mounted() as docker:
        fill(docker)
        shutil.copytree(docker, tmp_path / "expected", ignore=shutil.ignore_patterns("lost+found"))
        # Docker has files open that are deleted: in the frozen file system they are orphans.
        with (docker / "open").open("wb") as deleted, writing(docker) as progress:
            deleted.write(os.urandom(3 * MIB))
            deleted.flush()
            (docker / "open").unlink()
            before = progress()
            taken = pi.take()
            after = max(progress() for _ in range(3))
        assert not pi.thaw()
    assert pi.strays() == set()
    assert taken.stat().st_size == size
    if filesystem == "ext4":
        assert_whole(taken)
    assert taken.stat().st_blocks * 512 < 40 * MIB + (64 * MIB if filesystem == "xfs" else 0)
    with mounted("-o", "loop" + (",nouuid" if filesystem == "xfs" else ""), taken) as copy:
        lines = [int(line) for line in (copy / "log").read_text().split()]
        assert lines == list(range(1, len(lines) + 1))
        assert before <= len(lines) <= after + 10_000
        (copy / "log").unlink()
        assert not (copy / "open").exists()
        command("diff", "-r", "--exclude=lost+found", copy, tmp_path / "expected")
    if filesystem == "xfs":
        # Now that its log has been replayed, which tells of the deleted file.
        command("xfs_repair", "-n", "-f", taken)


def without_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share such as NFS before 4.2: all is data."""

    def lseek(*_: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", lseek)


def reading(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes are read from then on."""
    real, counts = os.preadv, []

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        counts.append(real(fd, buffers, offset))
        return counts[-1]

    monkeypatch.setattr(os, "preadv", preadv)
    return counts


def test_only_what_is_used_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: Mount, tell: Tell) -> None:
    """A large image with little in it, on a share that tells nothing of holes."""
    pi = Pi(tmp_path, size=10 << 30)
    with pi.mounted() as docker:
        (docker / "data").write_bytes(data := os.urandom(100 * MIB))
        (docker / "deleted").write_bytes(os.urandom(50 * MIB))
        command("sync", "-f", docker)
        (docker / "deleted").unlink()
        counts = reading(monkeypatch)
        without_holes(monkeypatch)
        taken = pi.take()
        monkeypatch.undo()
    read = sum(counts)
    tell(f"snapshot of 10 GiB with 100 MiB in it, where the share tells no holes: {read / MIB:.0f} MiB read")
    # The journal of 64 MiB counts as used.
    assert read < 210 * MIB
    assert taken.stat().st_blocks * 512 < 120 * MIB
    assert_whole(taken)
    with mounted("-o", "loop", taken) as copy:
        assert (copy / "data").read_bytes() == data


def test_a_share_that_clones(tmp_path: Path, mounted: Mount) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(400 * MIB)
    command("mkfs.xfs", "-q", "-m", "reflink=1", disk)
    with mounted("-o", "loop", disk) as share:
        pi = Pi(share)
        with pi.mounted() as docker:
            fill(docker)
            command("sync", "-f", docker, share)
            free = os.statvfs(share).f_bavail * 4096
            taken = pi.take()
            assert free - os.statvfs(share).f_bavail * 4096 < 2 * MIB
        assert "shared" in command("filefrag", "-v", taken)
        assert_whole(taken)
        restore(pi.image, OWNER, taken.name)
        assert "shared" in command("filefrag", "-v", pi.path)


def test_an_image_that_nobody_uses(pi: Pi) -> None:
    taken = pi.take()
    assert_whole(taken)
    assert pi.strays() == set()
    holder = lease.acquire(str(pi.path), OWNER)
    with contextlib.closing(holder), pytest.raises(LeaseError):
        pi.take()
    lease.release(str(pi.path), OWNER)
    lease.acquire(str(pi.path), OTHER).close()
    with pytest.raises(LeaseError, match="belongs to pi2"):
        pi.take()


def test_an_image_that_was_not_unmounted(pi: Pi, tmp_path: Path) -> None:
    with pi.mounted() as docker:
        (docker / "file").write_text("data")
        command("sync", "-f", docker)
        shutil.copy(pi.path, tmp_path / "cut")
    shutil.copy(tmp_path / "cut", pi.path)
    assert probe(str(pi.path)).needs_recovery
    taken = take(pi.image, OWNER, runtime=str(pi.runtime))
    assert "not been unmounted" in taken.remarks[0]
    assert_whole(Path(taken.path))
    assert probe(str(pi.path)).needs_recovery


def test_names(pi: Pi) -> None:
    """The time is the server's; what is there already is never replaced; other names mean nothing."""
    first = pi.take()
    taken = snapshots.snapshots(str(pi.path))[0]
    assert taken.when.endswith("UTC")
    assert abs(taken.time - first.stat().st_mtime) < 600
    new = publish.Temporary(str(pi.share / "copy"), -1)
    Path(new.path).write_text("copy")
    second = Path(snapshots._name_snapshot(new, str(pi.path), taken.time))
    assert second != first
    assert snapshots._time_of(str(second)) == taken.time + 1
    Path(new.path).unlink()
    for name in ("snapshot-20260101", "snapshot-20260101T000000Zx", "snapshot-20269901T000000Z", "snapshot-"):
        (pi.share / f"docker.img.{name}").write_text("not one")
    (pi.share / "docker.img.snapshot-20260101T000000Z").touch()
    assert pi.snapshots() == [first, second]


def test_a_snapshot_is_no_image(pi: Pi) -> None:
    taken = pi.take()
    for use in (check, lambda path: verify(probe(path))):
        with pytest.raises(ImageError, match="expected an image, found a snapshot"):
            use(str(taken))


def test_no_room(tmp_path: Path, mounted: Mount) -> None:
    """Said before anybody is frozen."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
    command("mkfs.ext4", "-q", disk)
    with mounted("-o", "loop", disk) as share:
        small = Pi(share)
        with small.mounted() as docker:
            (docker / "data").write_bytes(os.urandom(35 * MIB))
            command("sync", "-f", docker)
            with pytest.raises(ImageError, match=r"expected 3\d.* MiB of free space on the share") as refusal:
                small.take()
            assert not small.thaw()
        assert refusal.value.remedy
        assert small.strays() == set()


# --- Frozen, and thawed in any case ------------------------------------------------------------------------


def test_frozen_by_somebody_else(pi: Pi) -> None:
    with pi.mounted() as docker:
        command("fsfreeze", "--freeze", docker)
        with pytest.raises(freeze.FreezeError, match="somebody else has frozen it"):
            pi.take()
        assert pi.thaw()


def test_thawed_by_somebody_else(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    real = copying.copy

    def copy(*arguments: object) -> None:
        pi.thaw()
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(copying, "copy", copy)
    with pi.mounted(), pytest.raises(freeze.FreezeError, match="thawed by somebody else"):
        pi.take()
    assert pi.strays() == set()
    assert pi.snapshots() == []


def test_frozen_for_too_long(pi: Pi, traced: Traced) -> None:
    """The guard thaws while we wait for the share."""
    code, paths = pi.attempt("snapshots.take(image, owner, runtime=runtime, freeze_limit=0.1)")
    with pi.mounted():
        ended = traced(code, paths, inject="copy_file_range:delay_enter=2000000:when=1")
        assert ended.returncode == 3
        assert "not copied within the 0.1 s" in ended.stderr
        assert not pi.thaw()
    assert (pi.strays(), pi.snapshots()) == (set(), [])


def test_one_at_a_time(pi: Pi) -> None:
    with pi.mounted() as docker:
        mount = snapshots._mount_of(pi.image)
        assert mount is not None
        assert mount.where == str(docker)
        with (
            freeze.guarded("docker", mount, runtime=str(pi.runtime)),
            pytest.raises(freeze.FreezeError, match="being made already"),
        ):
            pi.take()
        assert not freeze.is_abandoned("docker", str(pi.runtime))
        assert pi.take().exists()


HOLD_STILL = """
import os, signal, sys
from rpinfs.image import freeze, snapshots
mount = snapshots._mount_of(image)
with freeze.guarded("docker", mount, runtime=runtime) as freezer, freezer.frozen():
    print(open("/proc/self/task/%d/children" % os.getpid()).read(), flush=True)
    signal.pause()
"""


@contextlib.contextmanager
def held_still(pi: Pi) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Somebody who has it frozen, and the number of the guard."""
    code, _ = pi.attempt("pass")
    with python(code + HOLD_STILL) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def wait_for_guard(pi: Pi) -> None:
    """The guard has the marker locked for as long as it lives."""
    with contextlib.suppress(FileNotFoundError), pi.marker.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_guard_thaws(pi: Pi, number: signal.Signals) -> None:
    with pi.mounted() as docker, held_still(pi) as (process, _):
        assert not freeze.is_abandoned("docker", str(pi.runtime))
        # As systemd ends a session: the signal goes to both.
        os.killpg(process.pid, number) if os.getpgid(process.pid) == process.pid else process.send_signal(number)
        process.wait()
        wait_for_guard(pi)
        assert not pi.thaw()
        (docker / "file").write_text("written")
        assert pi.strays() == set()


def test_the_guard_dies_too(pi: Pi) -> None:
    with pi.mounted() as docker, held_still(pi) as (process, guard):
        os.kill(guard, signal.SIGKILL)
        process.kill()
        process.wait()
        wait_for_guard(pi)
        assert freeze.is_abandoned("docker", str(pi.runtime))
        assert freeze.thaw_abandoned(str(pi.runtime)) == [str(docker)]
        assert not pi.thaw()
        (docker / "file").write_text("written")
        assert (pi.strays(), freeze.thaw_abandoned(str(pi.runtime))) == (set(), [])


def test_the_next_snapshot_thaws_what_a_dead_one_left(pi: Pi) -> None:
    with pi.mounted(), held_still(pi) as (process, guard):
        os.kill(guard, signal.SIGKILL)
        process.kill()
        process.wait()
        wait_for_guard(pi)
        assert_whole(pi.take())
        assert pi.strays() == set()


def test_a_marker_of_what_is_not_frozen(pi: Pi) -> None:
    pi.marker.write_text(str(pi.where))
    assert freeze.is_abandoned("docker", str(pi.runtime))
    assert freeze.thaw_abandoned(str(pi.runtime)) == []
    assert pi.strays() == set()


def test_who_looks_is_not_kept_waiting(pi: Pi) -> None:
    """What status and the agent ask of a frozen file system."""
    with pi.mounted() as docker, held_still(pi):
        (docker / "lost+found").stat()
        assert os.statvfs(docker).f_bavail
        assert "lost+found" in os.listdir(docker)
        os.sync()


# --- Restoring ---------------------------------------------------------------------------------------------


def label(path: Path) -> str | None:
    return probe(str(path)).label


@pytest.fixture
def changed(pi: Pi) -> tuple[Pi, Path]:
    """An image and a snapshot of it before it was changed, told apart by their labels."""
    command("e2label", pi.path, "then")
    taken = pi.take()
    command("e2label", pi.path, "now")
    return pi, taken


@pytest.mark.parametrize("whole_name", [True, False])
def test_restore(changed: tuple[Pi, Path], whole_name: bool) -> None:
    pi, taken = changed
    replaced = pi.share / "docker.img.replaced"
    before, owner = taken.read_bytes(), pi.path.stat().st_ino
    pi.path.chmod(0o640)
    restore(pi.image, OWNER, taken.name if whole_name else taken.name[-16:])
    assert (label(pi.path), label(replaced), replaced.stat().st_ino) == ("then", "now", owner)
    assert pi.path.stat().st_mode & 0o777 == 0o640
    assert taken.read_bytes() == before
    assert_whole(pi.path)
    with pytest.raises(ImageError, match="has not been mounted since") as refusal:
        restore(pi.image, OWNER, taken.name)
    assert f"mv {replaced} {pi.path}" in str(refusal.value.remedy)
    with pi.mounted():
        assert remove_replaced(str(pi.path)) == str(replaced)
    assert pi.strays() == set()
    assert remove_replaced(str(pi.path)) is None


def test_restore_is_refused(changed: tuple[Pi, Path]) -> None:
    pi, taken = changed
    with pi.mounted(), pytest.raises(ImageError, match="is in use: attached to /dev/loop") as refusal:
        restore(pi.image, OWNER, taken.name)
    assert refusal.value.remedy is not None
    assert refusal.value.remedy.startswith("systemctl stop docker.service ")
    assert refusal.value.remedy.endswith(".mount rpinfs-agent")
    with pytest.raises(ImageError, match=f"no snapshot yesterday; there are: {taken.name}"):
        restore(pi.image, OWNER, "yesterday")
    with pytest.raises(LeaseError, match="belongs to pi1"):
        restore(pi.image, OTHER, taken.name)
    assert label(pi.path) == "now"
    assert pi.strays() == set()


def test_a_damaged_snapshot_is_not_restored(changed: tuple[Pi, Path]) -> None:
    pi, taken = changed
    with taken.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(os.urandom(20 * 4096))
    before = taken.read_bytes()
    with pytest.raises(ImageError, match="cannot be restored"):
        restore(pi.image, OWNER, taken.name)
    assert (label(pi.path), pi.strays(), taken.read_bytes()) == ("now", set(), before)


def test_a_file_that_is_in_the_way(changed: tuple[Pi, Path]) -> None:
    """Also a second name that somebody else gave the image: only our record makes it ours."""
    pi, taken = changed
    replaced = pi.share / "docker.img.replaced"
    for put_there in (lambda: replaced.write_text("mine"), lambda: os.link(pi.path, replaced)):
        put_there()
        with pytest.raises(ImageError, match="is in the way, and not of rpinfs's making"):
            restore(pi.image, OWNER, taken.name)
        assert remove_replaced(str(pi.path)) is None
        assert pi.strays() == {replaced.name}
        replaced.unlink()


def test_an_image_that_is_gone_is_restored(changed: tuple[Pi, Path]) -> None:
    pi, taken = changed
    pi.path.unlink()
    restore(pi.image, OWNER, taken.name)
    assert (label(pi.path), pi.strays()) == ("then", set())


# --- Killed at every call, and every call failing ----------------------------------------------------------


def assert_said(ended: Ended, pi: Pi, point: str) -> None:
    assert ended.returncode in (0, 3), f"{point}: {ended.stderr}"
    if ended.returncode == 3:
        assert str(pi.path) in ended.stderr or str(pi.where) in ended.stderr or str(pi.runtime) in ended.stderr, point
        assert "Traceback" not in ended.stderr


def assert_next_snapshot_completes(pi: Pi, point: str) -> None:
    if (pi.where / "lost+found").exists():
        wait_for_guard(pi)
        freeze.thaw_abandoned(str(pi.runtime))
        assert not pi.thaw(), point
        (pi.where / "file").write_text(point)
    for whole in pi.snapshots():
        assert_whole(whole)
    last = pi.take()
    assert pi.strays() == set(), point
    for whole in (*pi.snapshots(), last):
        assert_whole(whole)
    for whole in pi.snapshots():
        whole.unlink()


@contextlib.contextmanager
def in_use(pi: Pi, *, busy: bool) -> Iterator[None]:
    """Mounted and written to; or not mounted. The image is sound afterwards."""
    with contextlib.ExitStack() as stack:
        if busy:
            stack.enter_context(pi.mounted())
            fill(pi.where)
            stack.enter_context(writing(pi.where))
        else:
            pi.take().unlink()  # The owner record is written once.
        yield
    assert_whole(pi.path)


BUSY = pytest.mark.parametrize("busy", [True, False], ids=["mounted", "not mounted"])


@pytest.mark.crash
@BUSY
def test_snapshot_killed_at_every_call(pi: Pi, traced: Traced, tell: Tell, busy: bool) -> None:
    code, paths = pi.attempt(TAKE)
    with in_use(pi, busy=busy):
        ended = traced(code, paths)
        assert (ended.returncode, ended.stderr) == (0, "")
        found = ended.points
        assert {"fsync:when=3", "linkat:when=1", *(["ioctl:when=3"] if busy else [])} <= set(found)
        tried = some(found, 7)
        killed = 0
        for point in tried:
            ended = traced(code, paths, inject=kill_at(point))
            # How many pieces are to be copied changes with what is written meanwhile: the last may not come.
            assert ended.returncode == -9 or (busy and ended.returncode == 0), f"{point}: {ended}"
            killed += ended.returncode == -9
            assert_next_snapshot_completes(pi, point)
    assert killed > len(tried) * 0.8
    tell(f"snapshot: killed at {killed} of {len(found)} calls")


@pytest.mark.crash
@BUSY
def test_snapshot_with_every_call_failing(pi: Pi, traced: Traced, tell: Tell, busy: bool) -> None:
    code, paths = pi.attempt(TAKE)
    with in_use(pi, busy=busy):
        found = fail_at(traced(code, paths).points)
        tried = some(found, 7)
        for failure in tried:
            assert_said(traced(code, paths, inject=failure), pi, failure)
            assert_next_snapshot_completes(pi, failure)
    tell(f"snapshot: failed at {len(tried)} of {len(found)} calls")


@pytest.mark.crash
def test_snapshot_and_its_children_killed(pi: Pi, traced: Traced, tell: Tell) -> None:
    """The guard and the programs are killed as well, each at its own call of that number."""
    code, paths = pi.attempt(TAKE)
    with in_use(pi, busy=True):
        found = traced(code, paths, children=True).points
        tried = some(found, 21)
        for point in tried:
            assert traced(code, paths, inject=kill_at(point), children=True).returncode in (-9, 0, 3), point
            assert_next_snapshot_completes(pi, point)
    tell(f"snapshot: killed with its children at {len(tried)} of {len(found)} calls")


def assert_restore_completes(pi: Pi, taken: Path, point: str) -> None:
    """Whatever is left: the old image or the restored one; the other is not lost, and then all is well."""
    snapshots.put_back(str(pi.path))
    assert pi.path.exists(), point
    assert label(pi.path) in ("now", "then"), point
    if label(pi.path) == "now":
        restore(pi.image, OWNER, taken.name)
    assert label(pi.path) == "then", point
    assert label(pi.share / "docker.img.replaced") == "now", point
    publish.remove_leftovers(str(pi.path), silent)
    assert remove_replaced(str(pi.path)), point
    assert pi.strays() == set(), point
    assert_whole(pi.path)
    assert_whole(taken)


RESTORES = pytest.mark.parametrize("links", ["", "os.link = no_links; "], ids=["links", "no links"])


@pytest.mark.crash
@RESTORES
def test_restore_killed_at_every_call(changed: tuple[Pi, Path], traced: Traced, tell: Tell, links: str) -> None:
    pi, taken = changed
    code, paths = pi.attempt(f"{links}snapshots.restore(image, owner, {taken.name!r})")
    ended, found = rehearsed(pi, traced, code, [*paths, taken])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ("rename:when=2" if links else "rename:when=1") in found
    # The last steps are what matters most.
    tried = some(found, 7, last=25)
    for point in tried:
        command("e2label", pi.path, "now")
        assert traced(code, [*paths, taken], inject=kill_at(point)).returncode == -9, point
        assert_restore_completes(pi, taken, point)
    tell(f"restore: killed at {len(tried)} of {len(found)} calls")


@pytest.mark.crash
@RESTORES
def test_restore_with_every_call_failing(changed: tuple[Pi, Path], traced: Traced, tell: Tell, links: str) -> None:
    pi, taken = changed
    code, paths = pi.attempt(f"{links}snapshots.restore(image, owner, {taken.name!r})")
    found = fail_at(rehearsed(pi, traced, code, [*paths, taken])[1])
    tried = some(found, 7, last=25)
    for failure in tried:
        command("e2label", pi.path, "now")
        ended = traced(code, [*paths, taken], inject=failure)
        assert_said(ended, pi, failure)
        assert pi.path.exists(), failure
        if label(pi.path) == "now":
            leftovers = [name for name in pi.strays() if ".rpinfs-new-" not in name]
            assert leftovers == [] or failure.startswith(("unlink", "rename", "newfstatat")), failure
        assert_restore_completes(pi, taken, failure)
    tell(f"restore: failed at {len(tried)} of {len(found)} calls")


@pytest.mark.crash
def test_restore_and_its_children_killed(changed: tuple[Pi, Path], traced: Traced, tell: Tell) -> None:
    """The programs that look at the image are killed as well, each at its own call of that number."""
    pi, taken = changed
    code, paths = pi.attempt(f"snapshots.restore(image, owner, {taken.name!r})")
    found = rehearsed(pi, traced, code, [*paths, taken], children=True)[1]
    tried = some(found, 21)
    for point in tried:
        command("e2label", pi.path, "now")
        ended = traced(code, [*paths, taken], inject=kill_at(point), children=True)
        assert ended.returncode in (-9, 3), point
        assert_restore_completes(pi, taken, point)
    tell(f"restore: killed with its children at {len(tried)} of {len(found)} calls")


def rehearsed(
    pi: Pi, traced: Traced, code: str, paths: list[Path], *, children: bool = False
) -> tuple[Ended, list[str]]:
    """One restore in which nothing goes wrong, and its points."""
    ended = traced(code, paths, children=children)
    assert remove_replaced(str(pi.path))
    return ended, ended.points
