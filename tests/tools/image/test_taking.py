"""Snapshots of real file systems with a writer running, and what is left when that goes wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.image import copying, freeze, hold, prepare, snapshots
from rpinfs.image.errors import ImageError
from rpinfs.image.probe import probe
from rpinfs.image.restoring import restore
from rpinfs.image.taking import take
from rpinfs.lease import lease
from rpinfs.lease.lease import LeaseError
from rpinfs.system.run import silent
from tests.support import Tell
from tests.tools.conftest import Mount, Traced, command, python, until
from tests.tools.crash import Kills, fail_at, kill_at, some
from tests.tools.image.files import MIB, SIZE
from tests.tools.image.pi import (
    OTHER,
    OWNER,
    TAKE,
    Pi,
    assert_said,
    assert_whole,
    fill,
    wait_for_guard,
    writing,
)

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("ends_in_time")]


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


def test_everything_is_synced_before_it_has_a_name(pi: Pi, names_given: list[str]) -> None:
    """What a power cut may lose has no name yet; and a name that somebody was told of stays."""
    taken = pi.take()
    ours = names_given[names_given.index("sync new copy") :]
    assert ours == ["sync new copy", "sync new copy", f"link new copy -> {taken.name}", "sync folder"]


def test_an_image_that_its_agent_prepares(pi: Pi) -> None:
    """Nobody's lock and nobody's pin is touched: neither by a snapshot, nor by a restore, nor by who deletes one."""
    taken = pi.take()
    agents = lease.acquire(str(pi.path), OWNER)
    with contextlib.closing(agents):
        agents.keep("")
        pin = agents.pin
        assert pin is not None
        flags = Path(f"/sys/block/{Path(pin.path).name}/loop/autoclear").read_text()
        for use in (
            pi.take,
            lambda: restore(pi.image, OWNER, taken.name),
            lambda: snapshots.delete(pi.image, OWNER, taken.name),
        ):
            with pytest.raises(LeaseError, match="in use by this Pi"):
                use()
            assert Path(f"/sys/block/{Path(pin.path).name}/loop/autoclear").read_text() == flags
            agents.renew()
        code = f"from rpinfs.system import files; import os; fd = os.open({agents.path!r}, os.O_RDWR); "
        code += "raise SystemExit(files.lock(fd))"
        with python(code) as process:
            assert process.wait() == 0
    assert pi.snapshots() == [taken]


def test_an_image_that_somebody_has_attached(pi: Pi) -> None:
    """It is mounted elsewhere, or will be: what is copied is not still."""
    device = command("losetup", "--show", "-f", pi.path).strip()
    try:
        with pytest.raises(ImageError, match=f"is in use: attached to {device}"):
            pi.take()
    finally:
        command("losetup", "-d", device)
    assert (pi.snapshots(), pi.strays()) == ([], set())


def test_what_a_living_one_holds_is_not_thawed(pi: Pi) -> None:
    with pi.mounted(), held_still(pi):
        assert freeze.thaw_abandoned(str(pi.runtime)) == []
        assert pi.thaw()


def test_an_image_that_was_replaced_under_its_mount(pi: Pi) -> None:
    """What is frozen would be one file, what is copied the other."""
    other = pi.share / "other.img"
    shutil.copy(pi.path, other)
    with pi.mounted() as docker:
        other.rename(pi.path)
        with pytest.raises(ImageError, match="found another file of that name"):
            pi.take()
        assert not pi.thaw()
        (docker / "file").write_text("written")
    assert (pi.snapshots(), pi.strays()) == ([], set())


def test_unmounted_by_request(pi: Pi) -> None:
    """The agent has let go of it: nothing is attached, and a snapshot is taken of the file, under the lock."""
    with contextlib.closing(prepare.prepare(pi.image, OWNER, silent)) as prepared:
        command("mount", prepared.path, pi.where)
        (pi.where / "file").write_text("data")
        unmounting = subprocess.run(["umount", pi.where], check=False)
        assert unmounting.returncode == 0
    until(lambda: not storage.loops_on(str(pi.path)))
    assert_whole(pi.take())
    assert (len(pi.snapshots()), pi.strays()) == (1, set())
    lease.acquire(str(pi.path), OWNER).close()


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
    code, paths = pi.attempt("taking.take(image, owner, runtime=runtime, freeze_limit=0.1)")
    with pi.mounted():
        ended = traced(code, paths, inject="copy_file_range:delay_enter=2000000:when=1")
        assert ended.returncode == 3
        assert "not copied within the 0.1 s" in ended.stderr
        assert not pi.thaw()
    assert (pi.strays(), pi.snapshots()) == (set(), [])


def test_one_at_a_time(pi: Pi) -> None:
    with pi.mounted() as docker:
        mount = hold.mount_of(pi.image)
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
from rpinfs.image import freeze, hold
mount = hold.mount_of(image)
with freeze.guarded("docker", mount, limit, runtime) as freezer, freezer.frozen():
    print(open("/proc/self/task/%d/children" % os.getpid()).read(), flush=True)
    signal.pause()
"""


@contextlib.contextmanager
def held_still(pi: Pi, limit: float = freeze.LIMIT_SECONDS) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Somebody who has it frozen, and the number of the guard."""
    code, _ = pi.attempt("pass")
    with python(f"{code}limit = {limit}\n{HOLD_STILL}") as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


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


def test_the_guard_is_alone(pi: Pi) -> None:
    """Ctrl-C, the end of a session and a stop by systemd reach it as well; it goes on, and keeps nobody's pipe open."""
    ignored = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    with pi.mounted() as docker, held_still(pi) as (process, guard):

        def is_ready() -> bool:
            status = Path(f"/proc/{guard}/status").read_text()
            mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")), 16)
            streams = {os.readlink(f"/proc/{guard}/fd/{stream}") for stream in (0, 1, 2)}
            return all(mask & 1 << number - 1 for number in ignored) and streams == {os.devnull}

        until(is_ready)
        assert os.getsid(guard) == guard
        for number in ignored:
            os.kill(guard, number)
        process.kill()
        process.wait()
        wait_for_guard(pi)
        assert not pi.thaw()
        (docker / "file").write_text("written")
        assert pi.strays() == set()


@pytest.mark.parametrize("limit", [1.0, 3.0])
def test_the_guard_thaws_at_the_limit(pi: Pi, limit: float) -> None:
    """Whoever has it frozen hangs with the share, and says nothing more."""
    begun = time.monotonic()
    with pi.mounted() as docker, held_still(pi, limit) as (process, _):
        # It hangs until somebody thaws.
        subprocess.run(["touch", docker / "file"], check=True, timeout=60)
        waited = time.monotonic() - begun
        assert process.poll() is None
        assert limit <= waited
        process.kill()
        process.wait()
        wait_for_guard(pi)
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


# --- Killed at every call, and every call failing ----------------------------------------------------------


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
        kills = Kills()
        for point in some(found, 7):
            kills.count(traced(code, paths, inject=kill_at(point)).returncode, point)
            assert_next_snapshot_completes(pi, point)
    tell(f"snapshot: {kills.of(len(found))}")


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
