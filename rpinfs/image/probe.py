"""Image files: what is in one, and whether it can be used.

The rules that nothing here may break:

1. A file is looked at through a read-only descriptor. Nothing but a regular file is even opened.
2. What cannot be named for certain is foreign, and foreign is left alone.

How one is made is in make.py, how its file system is checked in check.py.
"""

import enum
import os
import stat

from rpinfs.boot.settings import is_kept_name
from rpinfs.boot.values import dataclass, field, replace
from rpinfs.image import blank, features, signature, superblock
from rpinfs.image.errors import ImageError, as_image_error
from rpinfs.image.remedy import command
from rpinfs.image.superblock import Groups, Superblock
from rpinfs.system import loop
from rpinfs.system.files import open_regular
from rpinfs.system.run import Tell, silent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


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
            "set File= to the name of an image; what puts a snapshot in its place is rpinfs restore, see rpinfs(8)",
        )
    if found.kind not in (Kind.EXT4, Kind.XFS):
        raise ImageError(
            f"{found.path}: expected an ext4 or xfs file system, found {found.description}",
            found.remedy
            or "rpinfs leaves it alone; set another File=, or move it away:"
            f" {command('mv', '-T', '--backup=numbered', found.path, f'{found.path}.kept')}",
        )
    if found.size < found.fs_size:
        # The loop device would read the missing end as zeros, without a word (zero_fill_bio).
        raise ImageError(
            f"{found.path}: the file has {found.size} bytes, its file system {found.fs_size}: cut short",
            "put a whole copy of the file in its place; what is missing here cannot be repaired",
        )
    if found.obstacles:
        raise ImageError(f"{found.path}: this kernel cannot mount it: {', '.join(found.obstacles)}", _way_past(found))


def _way_past(found: Probe) -> str | None:
    """What to do about a file system that this kernel cannot mount, where that is known."""
    if superblock.XFS_MARKED in found.obstacles:
        return f"make a copy if you can, then: {command('xfs_repair', '-f', found.path)}"
    if not all(one.startswith("feature ") for one in found.obstacles):
        return None
    release = os.uname().release
    return f"it is not damaged: use a kernel that knows them (this is {release}), or set another File="


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
    linux = features.linux_version(os.uname().release)
    xfs = parsed.type == "xfs"
    incompat, ro_compat = (
        (features.XFS_INCOMPAT, features.XFS_RO_COMPAT) if xfs else (features.EXT4_INCOMPAT, features.EXT4_RO_COMPAT)
    )
    obstacles = [
        *features.lacking("incompat", parsed.incompat, incompat, linux),
        *features.lacking("ro_compat", parsed.ro_compat, ro_compat, linux),
    ]
    page = os.sysconf("SC_PAGE_SIZE")
    if parsed.block_size > page:
        obstacles.append(f"blocks of {parsed.block_size} bytes, larger than a page of {page}")
    if not xfs and parsed.incompat & features.CASEFOLD and _kernel_lacks("casefold"):
        obstacles.append("feature casefold, which it was built without")
    return obstacles


def _kernel_lacks(feature: str) -> bool:
    """The ext4 driver lists what was left out of it at build time; where it is not loaded, nobody can say."""
    listed = "/sys/fs/ext4/features"
    return os.path.isdir(listed) and not os.path.exists(f"{listed}/{feature}")


def _with_foreign(seen: Probe, fd: int, first: int, parsed: Superblock | None, signatures: set[str]) -> Probe:
    if signatures:
        return replace(seen, description=" and ".join(signature.describe_type(one) for one in sorted(signatures)))
    if parsed:
        # The magic number is there, but blkid does not believe it: wrong checksum (from 2.41 on), absurd sizes.
        return replace(
            seen,
            description=f"{signature.describe_type(parsed.type)} with a damaged superblock",
            remedy=f"make a copy if you can, then: {command('xfs_repair', '-f', seen.path)}"
            if parsed.type == "xfs"
            else f"make a copy if you can, then: {command('e2fsck', '-f', seen.path)}",
        )
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


def refuse_attached(path: str) -> None:
    """Nobody else may write to the file: neither a check nor a new image goes with a mounted one.

    Raises:
        ImageError: it is attached, or cannot be looked at.
    """
    with as_image_error(path, "cannot be looked at"):
        attached = loop.find(path)
    if attached:
        refuse_in_use(path, attached[0].path)


def refuse_in_use(path: str, device: str) -> "NoReturn":
    """Raise the ImageError for an image that has a loop device."""
    look = f"{command('findmnt', device)}; {command('losetup', '-l', device)}"
    raise ImageError(f"{path}: is in use: attached to {device}", look)


def absolute(path: str) -> str:
    """A path that no program takes for an option. Its last part stays as it is, also where it is a link."""
    return os.path.join(os.getcwd(), path)
