"""Growing: killed at every point and with every call failing, nothing in the image is lost, and the next run completes.

The kernel grows ext4 only for root with CAP_SYS_RESOURCE. Where the tests lack it, as in most containers, those of ext4
run in a kernel of their own (user-mode Linux, which needs no rights at all): test_in_a_kernel_of_its_own().
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rpinfs.boot.config import Image
from rpinfs.boot.host import Host
from rpinfs.errors import RpinfsError
from rpinfs.image import grow, make, prepare
from rpinfs.image.check import check
from rpinfs.image.errors import ImageError
from rpinfs.image.probe import Kind, probe
from rpinfs.lease import lease
from rpinfs.lease.lease import Owner
from rpinfs.system.run import silent
from tests.support import Tell, thorough
from tests.tools.conftest import ROOT, Traced, command, unmount
from tests.tools.crash import some, with_errors

pytestmark = pytest.mark.root

MIB = 1 << 20
# Sizes before and after.
SIZES = {"ext4": (64 * MIB, 256 * MIB), "xfs": (300 * MIB, 600 * MIB)}
CONTENT = bytes(range(256)) * 4096
CAP_SYS_RESOURCE = 24


def may_grow(filesystem: str) -> bool:
    held = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert held
    return filesystem != "ext4" or bool(int(held[1], 16) >> CAP_SYS_RESOURCE & 1)


@dataclass(frozen=True)
class Subject:
    """An image with data in it, to be grown."""

    filesystem: str
    path: Path
    folder: Path  # where it is mounted, in the tests that mount it

    @property
    def before(self) -> int:
        return SIZES[self.filesystem][0]

    @property
    def after(self) -> int:
        return SIZES[self.filesystem][1]

    def renew(self) -> None:
        """Put the image back as it was at first."""
        template = self.path.with_name("template")
        if not template.exists():
            make.create(str(template), self.before, self.filesystem, label="disk")
            with self.mounted(template):
                (self.folder / "data").write_bytes(CONTENT)
        command("cp", "--sparse=always", template, self.path)

    @contextlib.contextmanager
    def mounted(self, path: Path | None = None) -> Iterator[str]:
        command("mount", "-o", "loop", path or self.path, self.folder)
        try:
            yield command("findmnt", "-n", "-o", "SOURCE", self.folder).strip()
        finally:
            # A mount namespace that somebody has made meanwhile keeps a copy of the mount: xfs would not be written.
            command("mount", "-o", "remount,ro", self.folder)
            unmount(self.folder)

    def mounted_if(self, wanted: bool) -> contextlib.AbstractContextManager[object]:
        return self.mounted() if wanted else contextlib.nullcontext()

    def grow(self, size: int | None = None) -> grow.Grown:
        return grow.grow(str(self.path), size or self.after)

    def assert_whole(self, size: int | None = None) -> None:
        """Not mounted: nothing is lost, nothing is amiss. Mounting replays what is in the log of xfs."""
        with self.mounted():
            assert (self.folder / "data").read_bytes() == CONTENT
        found = probe(str(self.path))
        assert found.fs_size == size or (size is None and self.before <= found.fs_size <= self.after)
        check = ["e2fsck", "-f", "-n"] if self.filesystem == "ext4" else ["xfs_repair", "-n", "-f"]
        command(*check, self.path)


@pytest.fixture(params=sorted(SIZES))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    filesystem: str = request.param
    if not may_grow(filesystem):
        pytest.skip("no CAP_SYS_RESOURCE; test_in_a_kernel_of_its_own has it")
    made = Subject(filesystem, tmp_path / "share" / "disk.img", tmp_path / "mounted")
    made.path.parent.mkdir()
    made.folder.mkdir()
    made.renew()
    return made


where = pytest.mark.parametrize("mounted", [False, True], ids=["unmounted", "mounted"])


# --- What it does ------------------------------------------------------------------------------------------


@where
def test_grows(subject: Subject, mounted: bool) -> None:
    with subject.mounted_if(mounted):
        grown = subject.grow()
        assert (grown.before, grown.after) == (subject.before, subject.after)
        assert grown.where == (str(subject.folder) if mounted else None)
        again = subject.grow()
        assert (again.before, again.after) == (subject.after, subject.after)
        if mounted:
            (subject.folder / "more").write_bytes(bytes(100 * MIB))
    subject.assert_whole(subject.after)


def test_nobody_sees_the_private_mount(subject: Subject) -> None:
    def seen() -> list[str]:
        """Other programs mount meanwhile as well, elsewhere."""
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in mounts if line.split()[4] == grow._PRIVATE_FOLDER]

    before = seen()
    subject.grow()
    assert seen() == before
    found = probe(str(subject.path))
    assert (found.size, found.clean) == (subject.after, True if subject.filesystem == "ext4" else None)


def test_a_longer_file_stays_so(subject: Subject) -> None:
    """The file of an interrupted larger grow: what counts is the file system."""
    longer = 2 * subject.after
    os.truncate(subject.path, longer)
    assert subject.grow().after == subject.after
    assert subject.path.stat().st_size == longer
    subject.assert_whole(subject.after)


@where
def test_smaller_is_refused(subject: Subject, mounted: bool) -> None:
    with subject.mounted_if(mounted):
        stamp = subject.path.stat().st_mtime_ns
        with pytest.raises(ImageError) as refused:
            subject.grow(subject.before - 4096)
        assert refused.value.message == (
            f"{subject.path}: expected a size of at least {subject.before} bytes "
            f"({subject.before // MIB} MiB), which it has, found {subject.before - 4096}"
        )
        assert refused.value.remedy
        assert subject.path.stat().st_mtime_ns == stamp
    subject.assert_whole(subject.before)


def test_a_last_group_too_small_for_itself_is_left_out(subject: Subject) -> None:
    """And the next run knows that there is nothing left to do, as the next boot must."""
    groups = probe(str(subject.path)).groups
    assert groups
    whole = groups.start + (subject.before // groups.size + 2) * groups.size
    wanted = whole + 16 * 4096
    assert subject.grow(wanted).after == whole
    again = subject.grow(wanted)
    assert (again.before, again.after) == (whole, whole)
    subject.assert_whole(whole)


def test_attached_and_not_mounted_is_refused(subject: Subject) -> None:
    device = command("losetup", "-f", "--show", subject.path).strip()
    try:
        with pytest.raises(ImageError, match=f"is attached to {device}, but not mounted"):
            subject.grow()
    finally:
        command("losetup", "-d", device)
    assert subject.path.stat().st_size == subject.before


def test_mounted_read_only_is_refused(subject: Subject) -> None:
    with subject.mounted():
        command("mount", "-o", "remount,ro", subject.folder)
        with pytest.raises(ImageError, match=f"is mounted read-only at {subject.folder}"):
            subject.grow()
    assert subject.path.stat().st_size == subject.before


def test_found_by_a_bind_mount(subject: Subject, tmp_path: Path) -> None:
    """What Bind= makes is in the mount table too; the whole file system is what the tools want to see."""
    bound = tmp_path / "bound"
    bound.mkdir()
    with subject.mounted():
        inner = subject.folder / "inner"
        inner.mkdir()
        command("mount", "--bind", inner, bound)
        try:
            assert subject.grow().where == str(subject.folder)
        finally:
            command("umount", bound)
    subject.assert_whole(subject.after)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (("-b", "1024"), 256 * MIB),
        (("-b", "1024"), 4096 * MIB),
        (("-O", "^resize_inode"), 1024 * MIB),
        (("-O", "^resize_inode,meta_bg"), 1024 * MIB),
        (("-O", "^has_journal"), 256 * MIB),
        (("-O", "^extent,^flex_bg,^64bit"), 256 * MIB),
        (("-O", "^64bit,^metadata_csum"), 256 * MIB),
        (("-O", "sparse_super2"), 256 * MIB),
        (("-O", "bigalloc"), 256 * MIB),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value >> 20),
)
@pytest.mark.parametrize("subject", ["ext4"], indirect=True)
def test_ext4_made_by_hand(subject: Subject, options: tuple[str, ...], size: int) -> None:
    """Grown, or refused by the kernel with its own words; whole in any case."""
    subject.path.unlink()
    command("mke2fs", "-q", "-t", "ext4", *options, subject.path, "64M")
    with subject.mounted():
        (subject.folder / "data").write_bytes(CONTENT)
    try:
        reached = subject.grow(size).after
    except ImageError as error:
        print(error.message)
        assert error.message.startswith(f"{subject.path}: cannot be grown: resize2fs: ")
        reached = subject.before
    else:
        print("grown")
    subject.assert_whole(reached)


@pytest.mark.parametrize("subject", ["ext4"], indirect=True)
def test_ext4_past_its_reserve_of_group_descriptors(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel goes over to meta_bg, with which it grows on."""
    monkeypatch.setattr(make, "_ext4_grows_to", lambda _: 16 << 30)
    subject.path.with_name("template").unlink()
    subject.renew()
    for size in (12 << 30, 40 << 30, 100 << 30):
        assert subject.grow(size).after == size
        features = command("dumpe2fs", "-h", subject.path).partition("Filesystem features:")[2].splitlines()[0].split()
        assert ("resize_inode" in features, "meta_bg" in features) == (size < 16 << 30, size > 16 << 30)
        subject.assert_whole(size)


@pytest.mark.parametrize("subject", ["ext4"], indirect=True)
def test_ext4_with_multi_mount_protection(subject: Subject) -> None:
    command("tune2fs", "-O", "mmp", subject.path)
    assert subject.grow().after == subject.after
    subject.assert_whole(subject.after)


@pytest.mark.parametrize("subject", ["ext4"], indirect=True)
def test_ext4_with_recorded_errors_is_refused(subject: Subject) -> None:
    """The kernel does not grow what it knows to be damaged; e2fsck comes first."""
    command("debugfs", "-w", "-R", "set_super_value state 2", subject.path)
    with pytest.raises(ImageError, match=r"cannot be grown: resize2fs: "):
        subject.grow()
    check(str(subject.path))
    assert subject.grow().after == subject.after
    subject.assert_whole(subject.after)


@pytest.mark.parametrize("subject", ["xfs"], indirect=True)
def test_xfs_whose_copy_is_mounted(subject: Subject) -> None:
    with subject.mounted(subject.path.with_name("template")):
        assert subject.grow().after == subject.after
    subject.assert_whole(subject.after)


# --- What it refuses before it begins ----------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_what_is_no_image_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="expected an ext4 or xfs file system, found"):
        grow.grow(str(path), 64 * MIB)
    assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(ImageError, match="expected an ext4 or xfs file system, found nothing"):
        grow.grow(str(path), 64 * MIB)


def test_no_room(subject: Subject, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    command("mount", "-t", "tmpfs", "-o", "size=80M", "none", small)
    try:
        path = small / "disk.img"
        command("cp", "--sparse=always", subject.path, path)
        left = os.statvfs(small)
        (small / "fill").write_bytes(bytes(left.f_bavail * left.f_frsize - 4 * MIB))
        with pytest.raises(ImageError, match=r"expected 8\.0\d* MiB of free space to grow it, found 4 MiB"):
            grow.grow(str(path), subject.after)
        assert path.stat().st_size == subject.before
    finally:
        command("umount", small)


def test_a_locked_file_is_being_grown(subject: Subject) -> None:
    holder = subprocess.Popen(["flock", subject.path, "sh", "-c", "echo held; exec cat"], stdin=-1, stdout=-1)
    assert holder.stdin and holder.stdout
    with holder:
        holder.stdout.readline()
        with pytest.raises(ImageError, match="another program has locked it"):
            subject.grow()
        holder.stdin.close()
    assert subject.path.stat().st_size == subject.before
    assert subject.grow().after == subject.after


# --- By hand -----------------------------------------------------------------------------------------------


def by_hand(subject: Subject, size: str, root: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rpinfs", "image", "grow", subject.path, "--size", size],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **({"RPINFS_ROOT": root} if root else {})},
        capture_output=True,
        text=True,
        check=False,
    )


@where
def test_by_hand(subject: Subject, mounted: bool) -> None:
    before, after = (f"{size // MIB} MiB" for size in SIZES[subject.filesystem])
    place = f", mounted at {subject.folder}" if mounted else ""
    with subject.mounted_if(mounted):
        done = by_hand(subject, str(subject.after))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{subject.path}: grown from {before} to {after}{place}\n"
        again = by_hand(subject, str(subject.after))
        assert (again.returncode, again.stdout) == (0, f"{subject.path}: has {after} already{place}\n")
        smaller = by_hand(subject, str(subject.before))
        assert (smaller.returncode, smaller.stdout) == (1, "")
        assert smaller.stderr.startswith(f"rpinfs: {subject.path}: expected a size of at least {subject.after} bytes")
    subject.assert_whole(subject.after)


def test_by_hand_with_bad_words(subject: Subject) -> None:
    done = by_hand(subject, "a lot")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("rpinfs: --size a lot: expected a size such as 20G")
    assert done.stderr.endswith("rpinfs: see rpinfs image grow --help\n")


def test_by_hand_past_the_configuration(subject: Subject, tmp_path: Path) -> None:
    """The next boot refuses an image that is larger than its Size=: better to know now."""
    root = tmp_path / "root"
    (root / "etc/rpinfs").mkdir(parents=True)
    (root / "etc/rpinfs/rpinfs.conf").write_text(
        f"[Server]\nAddress=10.0.0.1\n[Share]\nWhere={subject.path.parent}\n"
        f"[Image docker]\nFile={subject.path.name}\nFileSystem={subject.filesystem}\nSize={subject.before // MIB}M\n"
    )
    done = by_hand(subject, str(subject.after), str(root))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == (
        f"Size={subject.before // MIB}M in the configuration is less, which the next boot refuses: "
        f"set Size={subject.after // MIB}M in [Image docker]"
    )


@pytest.mark.parametrize("subject", ["xfs"], indirect=True)
def test_by_hand_an_image_of_another_pi(subject: Subject) -> None:
    lease.acquire(str(subject.path), Owner("10000000abcdef99", "other")).close()
    with pytest.raises(ImageError, match=r"belongs to other \(serial 10000000abcdef99\)") as refused:
        grow.grow_by_hand(str(subject.path), subject.after)
    assert str(refused.value.remedy).startswith("set a larger Size= in the configuration of the Pi that has it")
    assert subject.path.stat().st_size == subject.before


@pytest.mark.parametrize("subject", ["xfs"], indirect=True)
def test_by_hand_an_image_of_this_pi(subject: Subject) -> None:
    own = Owner.of(Host.read())
    lease.acquire(str(subject.path), own).close()
    assert grow.grow_by_hand(str(subject.path), subject.after).after == subject.after
    # It does not stay held.
    lease.acquire(str(subject.path), own).close()
    subject.assert_whole(subject.after)


# --- At boot -----------------------------------------------------------------------------------------------


def settings_for(subject: Subject, size: int) -> Image:
    return Image(
        name="docker",
        file=subject.path.name,
        path=str(subject.path),
        size=size,
        size_is_set=True,
        filesystem=subject.filesystem,
        filesystem_is_set=True,
        where=str(subject.folder),
        options=[],
        bind=[],
        before=[],
        direct_io=True,
        fence="lease",
    )


def prepared(subject: Subject, size: int) -> prepare.Prepared:
    return prepare.prepare(settings_for(subject, size), Owner("10000000abcdef01"), silent)


def test_boot_grows(subject: Subject) -> None:
    with contextlib.closing(prepared(subject, subject.after)) as ready:
        before, after = (f"{size // MIB} MiB" for size in SIZES[subject.filesystem])
        assert f"grew {subject.path} from {before} to {after}" in ready.remarks
        assert (ready.size, ready.not_grown) == (subject.after, "")
        assert ready.device.refresh().size == subject.after
    with contextlib.closing(prepared(subject, subject.after)) as ready:
        assert ready.size == subject.after
        assert not [remark for remark in ready.remarks if remark.startswith(("grew", "not grown"))]
    subject.assert_whole(subject.after)


def test_boot_goes_on_where_it_cannot_grow(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share is full: what was large enough yesterday is large enough today."""
    monkeypatch.setattr(grow, "room_needed", lambda _: 1 << 60)
    with contextlib.closing(prepared(subject, subject.after)) as ready:
        assert ready.size == subject.before
        assert ready.not_grown.startswith(f"{subject.path}: expected 1048576 TiB of free space to grow it, found ")
        assert [remark for remark in ready.remarks if remark.startswith("not grown to Size=")]
    subject.assert_whole(subject.before)


def test_boot_after_an_interrupted_larger_grow(subject: Subject) -> None:
    """The file is longer than Size=, its file system is not: that is no image that was made smaller."""
    os.truncate(subject.path, 2 * subject.after)
    with contextlib.closing(prepared(subject, subject.after)) as ready:
        assert ready.size == subject.after
    with pytest.raises(RpinfsError, match=f"Size= asks for {subject.before // MIB}M, less than the"):
        prepared(subject, subject.before)
    subject.assert_whole(subject.after)


# --- Every crash point and every failing call --------------------------------------------------------------

ATTEMPT = """
import sys
sys.path.insert(0, {root!r})
from rpinfs.image import grow
from rpinfs.system import run
from rpinfs.errors import RpinfsError
run.ENVIRONMENT["PATH"] = {programs!r} + ":" + run.PATH
try:
    grow.grow({path!r}, {size})
except RpinfsError as error:
    sys.exit(" ".join(error.message.splitlines()))
"""

# In place of the real program: it is watched, and tampered with. The real name comes first in the point.
WATCHED = """#!/bin/sh
exec strace -qq -f -o {log} {paths} {tamper} {program} "$@"
"""

CHILDREN = {"ext4": ("mount", "resize2fs"), "xfs": ("mount", "xfs_growfs")}
# What tells nothing by its failing, or has no failing.
NEVER_FAIL = ("close", "fadvise64", "execve", "exit_group", "umask")


@dataclass
class Attempts:
    """Grows in processes of their own, one call of one of its programs tampered with. A point is PROGRAM:CALL:N."""

    subject: Subject
    traced: Traced
    programs: Path

    @property
    def paths(self) -> list[str]:
        """What is on the share, and what is on top of it."""
        path, folder = self.subject.path, self.subject.folder
        device = (
            command("findmnt", "-n", "-o", "SOURCE", folder) if os.path.ismount(folder) else command("losetup", "-f")
        )
        return [str(path), str(path.parent), device.strip(), "/dev/loop-control", str(folder), "/mnt"]

    def run(self, paths: list[str], point: str = "", effect: str = "") -> tuple[int, str, list[str]]:
        """Exit status, standard error, and the calls of the programs by name."""
        program, _, rest = point.partition(":")
        call, _, number = rest.partition(":")
        inject = f"{call}:{effect}:when={number}" if effect else None
        logs = {}
        for child in CHILDREN[self.subject.filesystem]:
            logs[child] = self.programs / f"{child}.log"
            self._watch(child, logs[child], paths, inject if child == program else None)
        code = ATTEMPT.format(
            root=str(ROOT), programs=str(self.programs), path=str(self.subject.path), size=self.subject.after
        )
        ended = self.traced(code, [Path(path) for path in paths], inject=inject if program == "rpinfs" else None)
        calls = [f"rpinfs:{name}" for name in ended.calls]
        for child, log in logs.items():
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            calls += [f"{child}:{match[1]}" for line in lines if (match := re.match(r"\d+ +(\w+)\(", line))]
            log.unlink(missing_ok=True)
        return ended.returncode, ended.stderr, calls

    def _watch(self, program: str, log: Path, paths: list[str], inject: str | None) -> None:
        real = next(path for folder in ("/usr/sbin", "/usr/bin") if (path := Path(folder, program)).exists())
        text = WATCHED.format(
            log=log,
            paths=" ".join(f"-P {path}" for path in paths),
            tamper=f"-e inject={inject}" if inject else "",
            program=real,
        )
        watched = self.programs / program
        watched.write_text(text)
        watched.chmod(0o755)

    def points(self, mounted: bool) -> list[str]:
        self.subject.renew()
        with self.subject.mounted_if(mounted):
            status, said, calls = self.run(self.paths)
        assert (status, said) == (0, "")
        self.subject.assert_whole(self.subject.after)
        seen: dict[str, int] = {}
        found = []
        for call in calls:
            seen[call] = seen.get(call, 0) + 1
            found.append(f"{call}:{seen[call]}")
        return found


@pytest.fixture
def attempts(subject: Subject, traced: Traced, tmp_path: Path) -> Attempts:
    programs = tmp_path / "programs"
    programs.mkdir()
    return Attempts(subject, traced, programs)


@pytest.mark.crash
@where
def test_killed_at_every_point(attempts: Attempts, mounted: bool, tell: Tell) -> None:
    subject = attempts.subject
    points = attempts.points(mounted)
    assert {"rpinfs:ftruncate:1", "rpinfs:fsync:1"} <= set(points)
    assert len(points) > 50
    tried = some(points, 7, last=1)
    for point in tried:
        subject.renew()
        with subject.mounted_if(mounted):
            status, said, _ = attempts.run(attempts.paths, point, "signal=KILL")
            again = 0 if mounted else 9
            while status == 0 and again:
                # Another program has just taken the loop device that was to be ours.
                again -= 1
                subject.renew()
                status, said, _ = attempts.run(attempts.paths, point, "signal=KILL")
            assert status == (-9 if point.startswith("rpinfs:") else 1), f"{point}: {said}"
            if mounted:
                assert (subject.folder / "data").read_bytes() == CONTENT, point
                assert subject.grow().after == subject.after, point
        if not mounted:
            assert probe(str(subject.path)).kind is not Kind.FOREIGN, point
            subject.grow()
        subject.assert_whole(subject.after)
    tell(f"grow {subject.filesystem}: killed at {len(tried)} of {len(points)} calls")


@pytest.mark.crash
@where
def test_every_call_fails(attempts: Attempts, mounted: bool, tell: Tell) -> None:
    """Either it goes on without, or it says so. The image is whole at once, and the next run completes."""
    subject = attempts.subject
    points = [point for point in attempts.points(mounted) if point.split(":")[1] not in NEVER_FAIL]
    tried = with_errors(some(points, 7, last=1))
    refused = 0
    for point, error in tried:
        subject.renew()
        with subject.mounted_if(mounted):
            status, said, _ = attempts.run(attempts.paths, point, f"error={error}")
            assert status in (0, 1), f"{point} {error}: {said}"
            if status:
                refused += 1
                assert said.startswith((f"{subject.path}: ", "/dev/loop")), f"{point} {error}: {said}"
                assert said.count("\n") == 1, f"{point} {error}: {said}"
        subject.assert_whole()
        with subject.mounted_if(mounted):
            assert subject.grow().after == subject.after, point
        subject.assert_whole(subject.after)
    tell(f"grow {subject.filesystem}: {len(tried)} failing calls of {len(points)} places, refused by {refused}")


# --- A kernel of its own -----------------------------------------------------------------------------------

UML = Path("/usr/bin/linux.uml")
# The root is the machine's own, read-only; what the tests write is in memory. hostfs takes a bare path as its option,
# which mount(2) gives it, and newer calls do not.
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME={home} PYTHONDONTWRITEBYTECODE=1 RPINFS_ALL_POINTS={all}
mount -t proc proc /proc && mount -t sysfs sysfs /sys
for folder in /run /tmp /var/tmp; do mount -t tmpfs tmpfs $folder; done
insmod $(find /usr/lib/uml/modules -name 'loop.ko*' | tail -n 1)
LIBMOUNT_FORCE_MOUNT2=always mount -t hostfs -o {root} none /opt && cd /opt
export PYTEST_DEBUG_TEMPROOT=/var/tmp PYTEST_ADDOPTS='-o cache_dir=/tmp/cache --color=no'
{python} -m pytest -q -rP -k 'ext4 and not own' tests/tools/image/test_grow.py
echo "exit status $?"
echo o >/proc/sysrq-trigger
exec sleep infinity
"""


def in_own_kernel(init: Path) -> str:
    """Boot user-mode Linux with this as its first process; what stood on its console."""
    argv: list[str | Path] = [UML, "mem=1G", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"]
    with tempfile.TemporaryFile("w+", errors="replace") as console:
        # Its helpers outlive it when it is killed: in a session of their own they can be ended together, and a file,
        # unlike a pipe, does not wait for them.
        kernel = subprocess.Popen(
            [*argv, "con=null", "con0=null,fd:1", "quiet"],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            kernel.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(kernel.pid, signal.SIGKILL)
            kernel.wait()
        console.seek(0)
        return console.read()


@pytest.mark.crash
@pytest.mark.skipif(not UML.exists(), reason="needs user-mode-linux")
@pytest.mark.skipif(may_grow("ext4"), reason="the kernel of this machine does it")
def test_in_a_kernel_of_its_own(tmp_path: Path, tell: Tell) -> None:
    init = tmp_path / "init"
    init.write_text(INIT.format(home=Path.home(), all=int(thorough()), root=ROOT, python=sys.executable))
    init.chmod(0o755)
    said = in_own_kernel(init)
    print(said)
    assert "exit status 0" in said
    for line in re.findall(r"^grow ext4: .*", said, re.MULTILINE):
        tell(line.strip())
