"""Image files: what is in one, and whether it is sound.

The rules that nothing here may break:

1. A file is looked at through a read-only descriptor. Nothing but a regular file is even opened.
2. What cannot be named for certain is foreign, and foreign is left alone.

How one is made is in making.py.
"""

import contextlib
import enum
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from rpinfs.boot.settings import human_size, is_kept_name
from rpinfs.errors import RpinfsError
from rpinfs.image import blank, signature, superblock
from rpinfs.image.superblock import Groups, Superblock
from rpinfs.system import loop
from rpinfs.system.files import open_regular
from rpinfs.system.run import CommandError, Completed, Tell, last_line, reporting, run


class ImageError(RpinfsError):
    """An image that cannot be made or used as it is. Nothing was changed."""


class ShareFailedError(ImageError):
    """The share failed while an image was looked at, made or changed: the next try may do better."""


class ProtectedError(ImageError):
    """An image whose multi-mount protection says that another host uses it."""


class CutShortError(ProtectedError):
    """An image whose multi-mount protection says that e2fsck is at work: so it is, or it was cut short."""


class Kind(enum.Enum):
    """What is found under the name of an image."""

    MISSING = "missing"  # nothing
    BLANK = "blank"  # a file that holds no data
    EXT4 = "ext4"  # an ext4 file system, or an ext2 or ext3 one, which the ext4 driver mounts as well
    XFS = "xfs"
    FOREIGN = "foreign"  # anything else


@dataclass(frozen=True)
class Probe:
    """What one look at a file has shown.

    Attributes:
        description: in words: "an ext4 file system", "an LVM2 member", "a directory".
        size: length of the file in bytes.
        allocated: bytes that it takes where it is stored.
        fs_size: size of the file system in bytes, from its superblock.
        block_size: block size of the file system in bytes.
        sector_size: largest logical block size, in bytes, of a loop device that it can be mounted from. Ours take
            4096; what people made by hand often does not: ext4 below 512 MiB (1024), xfs made in a file (512).
        clean: whether it was unmounted in order; None where only mounting can tell (xfs).
        needs_recovery: its journal is to be replayed.
        errors_recorded: number of errors that the kernel has met in it.
        mmp: it has ext4's multi-mount protection.
        fast_commit: its journal has ext4's fast commits.
        obstacles: what keeps this kernel from mounting it, in words.
        remedy: what to do about a foreign file, where that is known.
        groups: the groups of blocks of its file system.
        stamp: device, inode, length and times of change: what must be the same for the file to be the same.
    """

    path: str
    kind: Kind
    description: str
    size: int = 0
    allocated: int = 0
    uuid: str | None = None
    label: str | None = None
    fs_size: int = 0
    block_size: int = 0
    sector_size: int = 0
    clean: bool | None = None
    needs_recovery: bool = False
    errors_recorded: int = 0
    mmp: bool = False
    fast_commit: bool = False
    obstacles: tuple[str, ...] = ()
    remedy: str | None = None
    stamp: tuple[int, ...] = field(default=(), repr=False)
    groups: Groups | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CheckResult:
    """A check of a file system that ended well.

    Attributes:
        corrected: something was put right, be it only a journal that was replayed.
        needs_recovery: an xfs log waits for the next mount to replay it.
        output: what the checking program said.
    """

    path: str
    corrected: bool
    needs_recovery: bool
    output: str


def silent(_: str) -> None:
    """Progress that nobody wants to hear of."""


# --- Looking -----------------------------------------------------------------------------------------------


def probe(path: str, progress: Tell = silent) -> Probe:
    """Look at what is under a name, without changing anything and without waiting for a FIFO or a device.

    Args:
        progress: told in words when proving that a large file is blank takes its time.

    Raises:
        ImageError: the file cannot be read, or blkid(8) is missing.
    """
    with as_image_error(path, "cannot be read"):
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return Probe(path, Kind.MISSING, "nothing")
        if not stat.S_ISREG(found.st_mode):
            return Probe(path, Kind.FOREIGN, signature.describe_special(path, found.st_mode))
        with open_regular(path, os.O_RDONLY) as fd:
            return _probe_file(path, fd, progress)


def verify(found: Probe) -> None:
    """Accept what can be attached and mounted here, and nothing else.

    Raises:
        ImageError: not a file system of ours, cut short, one that this kernel cannot mount, or a snapshot.
    """
    if is_kept_name(os.path.basename(found.path)):
        raise ImageError(
            f"{found.path}: expected an image, found a snapshot or an image that was replaced; it is left alone",
            "rpinfs snapshot --list; rpinfs restore NAME SNAPSHOT",
        )
    if found.kind not in (Kind.EXT4, Kind.XFS):
        raise ImageError(
            f"{found.path}: expected an ext4 or xfs file system, found {found.description}",
            found.remedy
            or f"rpinfs leaves it alone: move it away (mv -n {found.path} {found.path}.kept), or set another File=",
        )
    if found.size < found.fs_size:
        # The loop device would read the missing end as zeros, without a word (zero_fill_bio).
        raise ImageError(
            f"{found.path}: the file has {found.size} bytes, its file system {found.fs_size}: cut short",
            "put a whole copy of the file in its place; what is missing here cannot be repaired",
        )
    if found.obstacles:
        raise ImageError(f"{found.path}: this kernel cannot mount it: {', '.join(found.obstacles)}")


def _probe_file(path: str, fd: int, progress: Tell) -> Probe:
    status = os.fstat(fd)
    seen = Probe(
        path,
        Kind.FOREIGN,
        "",
        size=status.st_size,
        allocated=status.st_blocks * 512,
        stamp=stamp_of(status),
    )
    first = blank.first_data(fd, seen.size, seen.allocated, progress)
    if first is None:
        return replace(seen, kind=Kind.BLANK, description="a blank file" if seen.size else "an empty file")
    parsed = superblock.parse_ext4(_read_at(fd, 1024, 1024)) or superblock.parse_xfs(_read_at(fd, 0, 512))
    signatures = signature.signatures(fd)
    if parsed and signatures == {parsed.type}:
        return _with_superblock(seen, parsed)
    return _with_foreign(seen, fd, first, parsed, signatures)


def _with_superblock(seen: Probe, parsed: Superblock) -> Probe:
    return replace(
        seen,
        kind=Kind.XFS if parsed.type == "xfs" else Kind.EXT4,
        description=signature.describe_type(parsed.type),
        uuid=parsed.uuid,
        label=parsed.label,
        fs_size=parsed.size,
        block_size=parsed.block_size,
        groups=parsed.groups,
        sector_size=parsed.sector_size,
        clean=parsed.clean,
        needs_recovery=parsed.needs_recovery,
        errors_recorded=parsed.errors_recorded,
        mmp=parsed.mmp,
        fast_commit=parsed.fast_commit,
        obstacles=(*parsed.obstacles, *_obstacles_here(parsed)),
    )


def _obstacles_here(parsed: Superblock) -> list[str]:
    """What keeps the kernel of this very machine from mounting it."""
    obstacles = []
    page = os.sysconf("SC_PAGE_SIZE")
    if parsed.block_size > page:
        obstacles.append(f"blocks of {parsed.block_size} bytes, larger than a page of {page}")
    if parsed.casefold and _kernel_lacks("casefold"):
        obstacles.append("feature casefold")
    return obstacles


def _kernel_lacks(feature: str) -> bool:
    """The ext4 driver lists what was left out of it at build time; where it is not loaded, nobody can say."""
    listed = "/sys/fs/ext4/features"
    return os.path.isdir(listed) and not os.path.exists(f"{listed}/{feature}")


def _with_foreign(seen: Probe, fd: int, first: int, parsed: Superblock | None, signatures: set[str]) -> Probe:
    if signatures:
        return replace(seen, description=" and ".join(signature.describe_type(one) for one in sorted(signatures)))
    if parsed:
        # The magic number is there, but blkid does not believe it: wrong checksum, absurd sizes.
        return replace(seen, description=f"{signature.describe_type(parsed.type)} with a damaged superblock")
    backup = superblock.find_backup(lambda offset, length: _read_at(fd, offset, length))
    if backup:
        block, block_size = backup
        return replace(
            seen,
            description=f"an ext4 file system with a damaged superblock (there is a backup in block {block})",
            remedy=f"on a copy of the file: e2fsck -f -b {block} -B {block_size} COPY",
        )
    known = signature.describe_magic(_read_at(fd, 0, 512))
    if known:
        return replace(seen, description=known)
    return replace(seen, description=f"{seen.size} bytes with data of unknown kind, the first at byte {first}")


def _read_at(fd: int, offset: int, length: int) -> bytes:
    return os.pread(fd, length, offset).ljust(length, b"\0")


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """What must be the same for the file to be the same, see Probe.stamp."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


# --- Checking ----------------------------------------------------------------------------------------------


def check(path: str, progress: Tell = silent, *, locked: bool = True) -> CheckResult:
    """Check the file system in an image and put right what is safe to put right (e2fsck -p).

    xfs is only looked at (xfs_repair -n): mounting replays its log, and nothing is repaired unasked.
    The caller sees to it that no other host uses the image.

    Args:
        locked: False where nothing but multi-mount protection tells whether another host uses it: then a protected
            image is not touched where direct I/O cannot be had.

    Raises:
        ImageError: not an image, in use here, or something only a person can decide; the remedy says how.
    """
    found = probe(path)
    verify(found)
    refuse_attached(path)
    try:
        if found.kind is not Kind.EXT4:
            return _check_xfs(path, progress)
        if found.mmp:
            return _check_protected(path, found, progress, locked)
        return _check_ext4(path, found, progress, absolute(path))
    except CommandError as error:
        raise ImageError(f"{path}: cannot be checked: {error.message}", error.remedy) from error


def _check_protected(path: str, found: Probe, progress: Tell, locked: bool) -> CheckResult:
    """Check what has multi-mount protection as the device that it will be mounted from.

    e2fsck asks for direct I/O on devices only (ext2fs_mmp_read()). What it read of a file came out of our own page
    cache: over NFS, that of another host that writes to the image all the time looks as if nobody did.
    """
    with _attached_to_see_marks(path, found, locked) as device:
        return _check_ext4(path, found, progress, device)


def refuse_marked(path: str, progress: Tell = silent) -> None:
    """Insist that no other host marks an image as its own, where nothing but multi-mount protection can tell.

    It waits for 11 s and more, and changes nothing. What has no protection is accepted.

    Raises:
        ImageError: another host uses it, or it cannot be told.
    """
    found = probe(path)
    if not found.mmp:
        return
    progress("waiting to see whether another host uses it")
    with _attached_to_see_marks(path, found, locked=False) as device:
        done = run(["e2mmpstatus", device], ok=range(256), die_with_us=True)
        _judge_protection(path, done)
        if done.returncode:
            raise ImageError(f"{path}: its multi-mount protection cannot be read: {last_line(done.stderr)}")


@contextlib.contextmanager
def _attached_to_see_marks(path: str, found: Probe, locked: bool) -> Iterator[str]:
    """Path of a device on an image with multi-mount protection; who is refused by that learns whose mark it was."""
    with loop.attached(path, block_size=found.sector_size) as device:
        if not locked:
            refuse_without_direct_io(path, device)
        try:
            yield device.path
        except ProtectedError as error:
            raise type(error)(f"{error.message} (last marked by {_marked_by(device.path)})", error.remedy) from error


def refuse_without_direct_io(path: str, device: loop.LoopDevice) -> None:
    """Insist on what multi-mount protection needs to hold between hosts.

    Raises:
        ImageError: the device is attached without direct I/O.
    """
    if not device.direct_io:
        raise ImageError(
            f"{path}: multi-mount protection holds only with direct I/O, which the kernel refuses on this share",
            "set Fence=lease in its [Image] section, then: systemctl daemon-reload; systemctl restart rpinfs-agent",
        )


def _marked_by(device: str) -> str:
    """Name of the host whose mark stands in the protection of an image."""
    said = run(["dumpe2fs", "-h", device], ok=range(256), die_with_us=True).stdout
    label = "mmp_node_name:"
    return next((line.split(label)[1].strip() for line in said.splitlines() if label in line), "") or "nobody"


_MMP_CHECKING = "MMP: e2fsck being run"
_FSCK_CORRECTED, _FSCK_REBOOT, _FSCK_UNCORRECTED = 1, 2, 4
_FSCK_FAILED, _FSCK_USAGE, _FSCK_CANCELLED, _FSCK_LIBRARY = 8, 16, 32, 128


def _check_ext4(path: str, found: Probe, progress: Tell, target: str) -> CheckResult:
    with reporting() as (reader, writer):
        done = run(
            ["e2fsck", "-p", "-C", str(writer), target],
            ok=range(256),
            pass_fds=[writer],
            report=(reader, _Percent(progress).line),
            die_with_us=True,
        )
    judge_e2fsck(path, done)
    # After a mere replay of the journal the status is 0 with some versions, 1 with others.
    corrected = found.needs_recovery or bool(done.returncode & (_FSCK_CORRECTED | _FSCK_REBOOT))
    return CheckResult(path, corrected, False, done.stdout + done.stderr)


def judge_e2fsck(path: str, done: Completed) -> None:
    """Tell the exit statuses of e2fsck(8) apart. 1 (corrected) and 2 (reboot, never needed for a file) are fine.

    Raises:
        ImageError: anything that leaves the file system unfit to mount.
    """
    code = done.returncode
    said = last_line(done.stderr) or last_line(done.stdout)
    if code & ~(_FSCK_CORRECTED | _FSCK_REBOOT) == 0:
        return
    _judge_protection(path, done)
    if code & _FSCK_UNCORRECTED:
        raise ImageError(
            f"{path}: its file system has errors that only a person can decide about (e2fsck status {code})",
            f"make a copy if you can, then: e2fsck -f {path}",
        )
    meanings = (
        (_FSCK_FAILED, "e2fsck could not do its work", f"e2fsck -f {path}"),
        (_FSCK_CANCELLED, "e2fsck was cancelled", None),
        (_FSCK_LIBRARY, "e2fsck lacks a shared library", "apt install --reinstall e2fsprogs"),
        (_FSCK_USAGE, "e2fsck was called wrongly", None),
    )
    what, remedy = next(((what, remedy) for bit, what, remedy in meanings if code & bit), ("e2fsck failed", None))
    raise ImageError(f"{path}: {what} (exit status {code}): {said}", remedy)


def _judge_protection(path: str, done: Completed) -> None:
    """Raise a ProtectedError where a program of e2fsprogs has failed for that."""
    # With the colon: e2fsck also says how long it waits for multi-mount protection, "MMP interval is ...".
    protection = next((line for line in done.stderr.splitlines() if "MMP: " in line), "") if done.returncode else ""
    if _MMP_CHECKING in protection:
        raise CutShortError(
            f"{path}: multi-mount protection says that e2fsck is at work on it, or was cut short: {protection}",
            f"make sure that no other host uses it, then: tune2fs -f -E clear_mmp {path}",
        )
    if protection:
        raise ProtectedError(
            f"{path}: multi-mount protection says that another host uses it: {protection}",
            "unmount it there",
        )


class _Percent:
    """Turns e2fsck's lines "PASS DONE OF NAME" into a percentage, weighted as in its own bar."""

    _WEIGHTS = (0, 70, 90, 92, 95, 100)

    def __init__(self, progress: Tell) -> None:
        self._progress = progress
        self._told = -1

    def line(self, line: str) -> None:
        words = line.split()
        if len(words) < 3 or not all(word.isdigit() for word in words[:3]):
            return
        number, done, of = (int(word) for word in words[:3])
        if not 1 <= number <= 5 or not of:
            return
        low, high = self._WEIGHTS[number - 1 : number + 1]
        percent = low + (high - low) * min(done, of) // of
        if percent > self._told:
            self._told = percent
            self._progress(f"checking the file system: {percent} %")


_XFS_DIRTY_LOG = "valuable metadata changes in a log"


def _check_xfs(path: str, progress: Tell) -> CheckResult:
    """Status 1 is damage, unless a log waits to be replayed: then it saw but the state before the log."""
    progress("looking through the file system")
    done = run(["xfs_repair", "-n", "-f", absolute(path)], ok=(0, 1), die_with_us=True)
    output = done.stdout + done.stderr
    dirty = _XFS_DIRTY_LOG in output
    if done.returncode and not dirty:
        raise ImageError(
            f"{path}: its file system has errors that only a person can decide about (xfs_repair -n)",
            f"make a copy if you can, then: xfs_repair -f {path}",
        )
    return CheckResult(path, False, dirty, output)


def refuse_attached(path: str) -> None:
    """Nobody else may write to the file: neither a check nor a new image goes with a mounted one.

    Raises:
        ImageError: it is attached, or cannot be looked at.
    """
    with as_image_error(path, "cannot be looked at"):
        attached = loop.find(path)
    if attached:
        device = attached[0].path
        raise ImageError(f"{path}: is in use: attached to {device}", f"findmnt {device}; losetup -l {device}")


def absolute(path: str) -> str:
    """A path that no program takes for an option. Its last part stays as it is, also where it is a link."""
    return os.path.join(os.getcwd(), path)


# --- Errors ------------------------------------------------------------------------------------------------

REMEDIES = {
    errno.ENOSPC: "free some space on the share, or choose another one",
    errno.EDQUOT: "raise the quota on the share, or free some space",
    errno.EFBIG: "choose a size that the file system of the share can hold in one file",
    errno.EROFS: "export and mount the share read-write",
    errno.EACCES: "let this host write to the export as root (no_root_squash), or as the owner of the folder",
    errno.EPERM: "let this host write to the export as root (no_root_squash), or as the owner of the folder",
    errno.ESTALE: "it was replaced on the NAS, which shows here within a minute; if not, mount the share anew",
    errno.ENOENT: "make the folder, or mount the share that has it",
}


def refuse_without_room(path: str, needed: int, purpose: str) -> None:
    """Insist on so many bytes of free space on the share of a file, before the first of them is written.

    Raises:
        ShareFailedError: there are fewer.
        OSError: the share failed.
    """
    share = os.statvfs(os.path.dirname(path))
    free = share.f_bavail * share.f_frsize
    if free < needed:
        raise ShareFailedError(
            f"{path}: expected {human_size(needed)} of free space {purpose}, found {human_size(free)}",
            REMEDIES[errno.ENOSPC],
        )


@contextlib.contextmanager
def as_image_error(path: str, what: str) -> Iterator[None]:
    """Make an ImageError of whatever goes wrong inside: `PATH: WHAT: REASON`, with the remedy for it."""
    try:
        yield
    except ImageError as error:
        if error.message.startswith(f"{path}: "):
            raise
        raise type(error)(f"{path}: {what}: {error.message}", error.remedy) from error
    except CommandError as error:
        raise ImageError(f"{path}: {what}: {error.message}", error.remedy) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ShareFailedError(f"{path}: {what}: {reason}", REMEDIES.get(error.errno or 0)) from error
