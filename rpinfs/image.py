"""Image files: what is in one, how one is made, whether one is sound.

The rules that nothing here may break:

1. A file is looked at through a read-only descriptor. Nothing but a regular file is even opened.
2. Only what is proven to hold no data is ever formatted, and not even that is written to: a new image is made
   beside it, whole, and then takes its name. Whatever fails on the way, the name means what it meant before.
3. What cannot be named for certain is foreign, and foreign is left alone.

So a power cut at any instant leaves under the name either what was there or a whole, synced, verified image,
and at most a temporary file `.NAME.rpinfs-new-*` beside it, which the next attempt knows as ours and removes.
"""

import contextlib
import enum
import errno
import fcntl
import os
import re
import secrets
import stat
import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from rpinfs import loop
from rpinfs.errors import RpinfsError
from rpinfs.run import CommandError, Completed, last_line, reporting, run

Progress = Callable[[str], None]

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


class ImageError(RpinfsError):
    """An image that cannot be made or used as it is. Nothing was changed."""


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
        obstacles: what keeps this kernel from mounting it, in words.
        remedy: what to do about a foreign file, where that is known.
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
    obstacles: tuple[str, ...] = ()
    remedy: str | None = None
    stamp: tuple[int, ...] = field(default=(), repr=False)


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


def _silent(_: str) -> None:
    pass


# --- Looking -----------------------------------------------------------------------------------------------


def probe(path: str, progress: Progress = _silent) -> Probe:
    """Look at what is under a name, without changing anything and without waiting for a FIFO or a device.

    Args:
        progress: told in words when proving that a large file is blank takes its time.

    Raises:
        ImageError: the file cannot be read, or blkid(8) is missing.
    """
    with _as_image_error(path, "cannot be read"):
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return Probe(path, Kind.MISSING, "nothing")
        if not stat.S_ISREG(found.st_mode):
            return Probe(path, Kind.FOREIGN, _describe_special(path, found.st_mode))
        with _open_to_read(path) as fd:
            return _probe_file(path, fd, progress)


def verify(found: Probe) -> None:
    """Accept what can be attached and mounted here, and nothing else.

    Raises:
        ImageError: not a file system of ours, cut short, or one that this kernel cannot mount.
    """
    if found.kind not in (Kind.EXT4, Kind.XFS):
        raise ImageError(f"{found.path}: expected an ext4 or xfs file system, found {found.description}", found.remedy)
    if found.size < found.fs_size:
        # The loop device would read the missing end as zeros, without a word (zero_fill_bio).
        raise ImageError(
            f"{found.path}: the file has {found.size} bytes, its file system {found.fs_size}: cut short",
            "put a whole copy of the file in its place; what is missing here cannot be repaired",
        )
    if found.obstacles:
        raise ImageError(f"{found.path}: this kernel cannot mount it: {', '.join(found.obstacles)}")


def _probe_file(path: str, fd: int, progress: Progress) -> Probe:
    status = os.fstat(fd)
    seen = Probe(
        path,
        Kind.FOREIGN,
        "",
        size=status.st_size,
        allocated=status.st_blocks * 512,
        stamp=_stamp(status),
    )
    first = _first_data(fd, seen.size, seen.allocated, progress)
    if first is None:
        return replace(seen, kind=Kind.BLANK, description="a blank file" if seen.size else "an empty file")
    superblock = _parse_ext4(_read_at(fd, 1024, 1024)) or _parse_xfs(_read_at(fd, 0, 512))
    signatures = _signatures(fd)
    if superblock and signatures == {superblock.type}:
        return _with_superblock(seen, superblock)
    return _with_foreign(seen, fd, first, superblock, signatures)


def _with_superblock(seen: Probe, superblock: "_Superblock") -> Probe:
    return replace(
        seen,
        kind=superblock.kind,
        description=_describe_type(superblock.type),
        uuid=superblock.uuid,
        label=superblock.label,
        fs_size=superblock.size,
        block_size=superblock.block_size,
        sector_size=superblock.sector_size,
        clean=superblock.clean,
        needs_recovery=superblock.needs_recovery,
        errors_recorded=superblock.errors_recorded,
        obstacles=tuple(superblock.obstacles),
    )


def _with_foreign(seen: Probe, fd: int, first: int, superblock: "_Superblock | None", signatures: set[str]) -> Probe:
    if signatures:
        return replace(seen, description=" and ".join(_describe_type(one) for one in sorted(signatures)))
    if superblock:
        # The magic number is there, but blkid does not believe it: wrong checksum, absurd sizes.
        return replace(seen, description=f"{_describe_type(superblock.type)} with a damaged superblock")
    backup = _backup_superblock(fd)
    if backup:
        block, block_size = backup
        return replace(
            seen,
            description=f"an ext4 file system with a damaged superblock (there is a backup in block {block})",
            remedy=f"on a copy of the file: e2fsck -f -b {block} -B {block_size} COPY",
        )
    known = _describe_magic(_read_at(fd, 0, 512))
    if known:
        return replace(seen, description=known)
    return replace(seen, description=f"{seen.size} bytes with data of unknown kind, the first at byte {first}")


@contextlib.contextmanager
def _open_to_read(path: str) -> Iterator[int]:
    """O_NOFOLLOW and O_NONBLOCK: the name may have changed its meaning since the look at it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ImageError(f"{path}: expected a regular file, found something else")
        yield fd
    finally:
        os.close(fd)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


# --- Proof of blank ----------------------------------------------------------------------------------------

_CHUNK = 4 * MIB
_ZEROS = bytes(_CHUNK)
# Both ends of a file are read whatever its map says: nearly every known kind of data shows there.
_ENDS = MIB


def _first_data(fd: int, size: int, allocated: int, progress: Progress) -> int | None:
    """Offset of the first byte that is not zero, or None where there is none.

    Holes are skipped where the server tells of them (SEEK_DATA; NFS before 4.2 calls everything data, and
    then everything is read). Its word alone is not enough: both ends are read all the same, and a file that
    takes up room while it claims to be one hole is read in full (SEEK_DATA has lied: openzfs/zfs#15526).
    """
    ranges = list(_data_ranges(fd, size))
    if not ranges and allocated > _ENDS:
        ranges = [(0, size)]
    tail = max(0, size - _ENDS)
    for start, end in [(0, min(size, _ENDS)), *ranges, (tail, size)]:
        first = _first_nonzero(fd, start, end, size, progress)
        if first is not None:
            return first
    return None


def _data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are not holes, as (start, end)."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            start, position = position, size
        yield start, min(position, size)


def _first_nonzero(fd: int, start: int, end: int, size: int, progress: Progress) -> int | None:
    buffer = bytearray(_CHUNK)
    told = -1
    while start < end:
        count = os.preadv(fd, [memoryview(buffer)[: min(_CHUNK, end - start)]], start)
        if count == 0:
            return None  # Cut off while we read.
        if count < _CHUNK or buffer != _ZEROS:
            rest = buffer[:count].lstrip(b"\0")
            if rest:
                return start + count - len(rest)
        # A Pi has little memory: do not fill it with zeros that nobody will read again.
        os.posix_fadvise(fd, start, count, os.POSIX_FADV_DONTNEED)
        start += count
        if end - start > _CHUNK and (percent := start * 100 // size) != told:
            told = percent
            progress(f"proving that the file is blank: {percent} %")
    return None


def _read_at(fd: int, offset: int, length: int) -> bytes:
    return os.pread(fd, length, offset).ljust(length, b"\0")


# --- Superblocks -------------------------------------------------------------------------------------------


@dataclass
class _Superblock:
    kind: Kind
    type: str
    uuid: str
    label: str
    block_size: int
    sector_size: int
    size: int
    clean: bool | None = None
    needs_recovery: bool = False
    errors_recorded: int = 0
    obstacles: list[str] = field(default_factory=list)


# Feature bits that fs/ext4 mounts read-write since Linux 6.1 (EXT4_FEATURE_*_SUPP), and names of the others.
_INCOMPAT_RECOVER, _INCOMPAT_JOURNAL_DEV = 0x4, 0x8
_INCOMPAT_64BIT, _INCOMPAT_CASEFOLD = 0x80, 0x20000
_INCOMPAT_SUPPORTED = 0x3E7D6
_INCOMPAT_NAMES = {0x1: "compression", _INCOMPAT_JOURNAL_DEV: "journal_dev", 0x1000: "dirdata"}
_RO_COMPAT_SUPPORTED = 0x1A77F
_RO_COMPAT_NAMES = {0x80: "has_snapshot", 0x800: "replica", 0x1000: "read-only", 0x4000: "shared_blocks"}
_COMPAT_HAS_JOURNAL = 0x4
# What ext3 knew; blkid, and people, call anything with more features ext4.
_EXT3_INCOMPAT, _EXT3_RO_COMPAT = 0x16, 0x7

_EXT4_MAGIC, _XFS_MAGIC = 0xEF53, b"XFSB"
_STATE_VALID, _STATE_ERROR = 1, 2


def _parse_ext4(data: bytes) -> _Superblock | None:
    """The 1024 bytes at offset 1024 (filesystems/ext4/super.rst of the kernel); None where the magic is not."""
    magic, state = struct.unpack_from("<HH", data, 0x38)
    log_block_size = struct.unpack_from("<I", data, 0x18)[0]
    if magic != _EXT4_MAGIC or log_block_size > 6:
        return None
    compat, incompat, ro_compat = struct.unpack_from("<3I", data, 0x5C)
    if incompat & _INCOMPAT_JOURNAL_DEV:
        return None  # An external journal has the same magic.
    blocks = struct.unpack_from("<I", data, 0x04)[0]
    if incompat & _INCOMPAT_64BIT:
        blocks |= struct.unpack_from("<I", data, 0x150)[0] << 32
    block_size = 1024 << log_block_size
    recover = bool(incompat & _INCOMPAT_RECOVER)
    return _Superblock(
        kind=Kind.EXT4,
        type=_ext_type(compat, incompat, ro_compat),
        uuid=str(uuid.UUID(bytes=data[0x68:0x78])),
        label=_label(data[0x78:0x88]),
        block_size=block_size,
        sector_size=min(block_size, 4096),
        size=blocks * block_size,
        clean=state & (_STATE_VALID | _STATE_ERROR) == _STATE_VALID and not recover,
        needs_recovery=recover,
        errors_recorded=struct.unpack_from("<I", data, 0x194)[0],
        obstacles=_ext4_obstacles(data, compat, incompat, ro_compat, block_size),
    )


def _ext_type(compat: int, incompat: int, ro_compat: int) -> str:
    if incompat & ~_EXT3_INCOMPAT or ro_compat & ~_EXT3_RO_COMPAT:
        return "ext4"
    return "ext3" if compat & _COMPAT_HAS_JOURNAL else "ext2"


def _ext4_obstacles(data: bytes, compat: int, incompat: int, ro_compat: int, block_size: int) -> list[str]:
    obstacles = [
        *_unknown_features("incompat", incompat & ~_INCOMPAT_SUPPORTED, _INCOMPAT_NAMES),
        *_unknown_features("ro_compat", ro_compat & ~_RO_COMPAT_SUPPORTED, _RO_COMPAT_NAMES),
        *_block_size_obstacle(block_size),
    ]
    if incompat & _INCOMPAT_CASEFOLD and _kernel_lacks("casefold"):
        obstacles.append("feature casefold")
    journal_inode = struct.unpack_from("<I", data, 0xE0)[0]
    if compat & _COMPAT_HAS_JOURNAL and not journal_inode:
        obstacles.append("its journal is on another device")
    return obstacles


def _kernel_lacks(feature: str) -> bool:
    """The ext4 driver lists what was left out of it at build time; where it is not loaded, nobody can say."""
    listed = "/sys/fs/ext4/features"
    return os.path.isdir(listed) and not os.path.exists(f"{listed}/{feature}")


def _unknown_features(group: str, bits: int, names: dict[int, str]) -> list[str]:
    unknown = [1 << position for position in range(32) if bits >> position & 1]
    return [f"feature {names.get(bit, f'{group} {bit:#x}')}" for bit in unknown]


def _block_size_obstacle(block_size: int) -> list[str]:
    page = os.sysconf("SC_PAGE_SIZE")
    return [f"blocks of {block_size} bytes, larger than a page of {page}"] if block_size > page else []


def _parse_xfs(data: bytes) -> _Superblock | None:
    """The first 512 bytes (struct xfs_dsb in xfs_format.h; big endian); None where the magic is not."""
    if data[:4] != _XFS_MAGIC:
        return None
    block_size, blocks, realtime_blocks = struct.unpack_from(">IQQ", data, 4)
    log_start = struct.unpack_from(">Q", data, 48)[0]
    obstacles = _block_size_obstacle(block_size)
    if not log_start:
        obstacles.append("its log is on another device")
    if realtime_blocks:
        obstacles.append("it has a realtime device")
    return _Superblock(
        kind=Kind.XFS,
        type="xfs",
        uuid=str(uuid.UUID(bytes=data[32:48])),
        label=_label(data[108:120]),
        block_size=block_size,
        sector_size=struct.unpack_from(">H", data, 102)[0],
        size=blocks * block_size,
        obstacles=obstacles,
    )


def _label(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")


def _backup_superblock(fd: int) -> tuple[int, int] | None:
    """Block number and block size of the first backup of an ext superblock, where there is one."""
    for block, block_size in ((32768, 4096), (8193, 1024), (16384, 2048)):
        data = _read_at(fd, block * block_size, 1024)
        found = _parse_ext4(data)
        group = struct.unpack_from("<H", data, 0x5A)[0]
        if found and found.block_size == block_size and group == 1:
            return block, block_size
    return None


# --- Names for what is not ours ----------------------------------------------------------------------------

_BLKID_NOTHING, _BLKID_AMBIVALENT = 2, 8


def _signatures(fd: int) -> set[str]:
    """The kinds of data that libblkid knows in an open file: file systems, volumes, partition tables."""
    name = f"/proc/self/fd/{fd}"
    found = run(["blkid", "-p", "-o", "export", name], ok=(0, _BLKID_NOTHING, _BLKID_AMBIVALENT), pass_fds=[fd])
    if found.returncode == _BLKID_AMBIVALENT:
        return _all_signatures(fd)
    tags = dict(line.split("=", 1) for line in found.stdout.splitlines() if "=" in line)
    return {_qualified(tags[tag], tag == "PTTYPE") for tag in ("TYPE", "PTTYPE") if tags.get(tag)}


def _all_signatures(fd: int) -> set[str]:
    """What blkid will not choose between: only wipefs(8) lists everything."""
    listed = run(["wipefs", "--no-act", "--noheadings", "-O", "TYPE,USAGE", f"/proc/self/fd/{fd}"], pass_fds=[fd])
    rows = [line.split() for line in listed.stdout.splitlines() if line.strip()]
    return {_qualified(row[0], row[-1] == "partition-table") for row in rows} | {"ambivalent"}


def _qualified(name: str, is_table: bool) -> str:
    return f"{name} partition table" if is_table else name


_TYPE_NAMES = {
    "LVM2_member": "an LVM2 member",
    "LVM1_member": "an LVM1 member",
    "ambivalent": "signs of more than one kind of data",
    "bcache": "a bcache device",
    "crypto_LUKS": "a LUKS container",
    "BitLocker": "a BitLocker container",
    "drbd": "a DRBD device",
    "jbd": "an external ext4 journal",
    "linux_raid_member": "a Linux RAID member",
    "swap": "swap space",
    "swsuspend": "a suspended system",
    "zfs_member": "a ZFS member",
}

# Kinds of files that libblkid does not know: offset, bytes, words.
_MAGICS = (
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"conectix", "a VHD image"),
    (0, b"vhdxfile", "a VHDX image"),
    (64, b"\x7f\x10\xda\xbe", "a VirtualBox disk image"),
    (0, b"PK\x03\x04", "a zip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"\xfd7zXZ\0", "xz data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd data"),
    (0, b"BZh", "bzip2 data"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"\x7fELF", "a program"),
)


def _describe_type(name: str) -> str:
    if name in _TYPE_NAMES:
        return _TYPE_NAMES[name]
    article = "an" if name[:1].lower() in "aeiou" or name.startswith("xfs") else "a"
    if name.endswith(" partition table"):
        return f"{article} {name}"
    if name.endswith("_member"):
        return f"{article} {name.removesuffix('_member')} member"
    return f"{article} {name} file system"


def _describe_magic(head: bytes) -> str | None:
    return next((words for offset, magic, words in _MAGICS if head.startswith(magic, offset)), None)


def _describe_special(path: str, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return f"a symbolic link to {os.readlink(path)}".encode("ascii", "replace").decode("ascii")
    tests: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    )
    return next((words for test, words in tests if test(mode)), "something that is not a file")


# --- Making ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Maker:
    """One kind of file system that we make.

    Attributes:
        minimum: smallest size in bytes that makes sense.
        label_length: bytes.
        room: bytes that it takes on the share at once or when first used: metadata and journal, by size.
        argv: the command, by (path, size, label, uuid).
        verify: the check that a fresh one must pass without a single remark.
    """

    minimum: int
    label_length: int
    room: Callable[[int], int]
    argv: Callable[[str, int, str, str], list[str]]
    verify: Callable[[str], list[str]]


# What a file can be on ext4 with 4 KiB blocks, below which most shares lie; nobody has tried more.
_MAXIMUM = 16 * TIB - 4 * KIB


# Every choice is stated, so that an image does not depend on the mke2fs.conf of the machine that made it.
# Not among the features: orphan_file and metadata_csum_seed, which Debian 13 would add. They gain nothing here,
# and an older e2fsck on the NAS should be able to check the image.
EXT4_FEATURES = (
    "has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)

# Sizes of file systems below which mke2fs chooses this journal (ext2fs_default_journal_size()), in MiB each.
_JOURNALS = ((128, 4), (1024, 16), (2048, 32), (16384, 64), (32768, 128), (65536, 256), (131072, 512))


def _ext4_journal(size: int) -> int:
    """Size of the journal in bytes."""
    return next((journal for below, journal in _JOURNALS if size < below * MIB), 1024) * MIB


def _ext4_room(size: int) -> int:
    """The journal, and a bound on what mkfs writes: 4.3 MB at 10 GiB, 16 MB at 1 TiB, 224 MB at 15 TiB."""
    return _ext4_journal(size) + 8 * MIB + size // 65536


def _ext4_argv(path: str, size: int, label: str, identity: str) -> list[str]:
    """The file is a hole, so its zeros need not be written (assume_storage_prezeroed); a second -E would
    replace the first. -F: mke2fs wants to be asked to write into a file; that it is ours we know.
    """
    return [
        *("mkfs.ext4", "-F", "-q", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-e", "remount-ro"),
        *("-O", f"none,{EXT4_FEATURES}", "-J", f"size={_ext4_journal(size) // MIB}"),
        *("-L", label, "-U", identity),
        *("-E", "assume_storage_prezeroed=1,nodiscard,root_owner=0:0", path),
    ]


def _xfs_room(size: int) -> int:
    """The log, which mkfs writes in full: 64 MiB, from 128 GiB on a 2048th of the size; and a little."""
    return max(64 * MIB, min(size // 2048, 2 * GIB)) + 8 * MIB


def _xfs_argv(path: str, _: int, label: str, identity: str) -> list[str]:
    return [
        "mkfs.xfs",
        "-q",
        "-K",
        "-s",
        "size=4096",
        "-b",
        "size=4096",
        "-m",
        f"uuid={identity}",
        "-L",
        label,
        path,
    ]


_MAKERS = {
    "ext4": _Maker(64 * MIB, 16, _ext4_room, _ext4_argv, lambda path: ["e2fsck", "-f", "-n", path]),
    "xfs": _Maker(300 * MIB, 12, _xfs_room, _xfs_argv, lambda path: ["xfs_repair", "-n", "-f", path]),
}


def create(
    path: str,
    size: int,
    filesystem: str = "ext4",
    *,
    label: str | None = None,
    progress: Progress = _silent,
) -> Probe:
    """Make an image under a name that is free or blank. All or nothing, whatever happens.

    Args:
        size: bytes; a blank file that has a length keeps that.
        filesystem: "ext4" or "xfs".
        label: cut to the 16 or 12 bytes that the file system has room for; by default the file's name.
        progress: told what is being done, in ASCII.

    Raises:
        ImageError: there is something under the name, no room, a size out of bounds, or a step failed. The
            name means what it meant before.
    """
    if filesystem not in _MAKERS:
        raise ImageError(f"{filesystem}: expected ext4 or xfs")
    maker = _MAKERS[filesystem]
    path = os.path.join(os.getcwd(), path)
    target = probe(path, progress)
    _refuse_occupied(target)
    size = target.size or size
    _refuse_size(path, size, filesystem)
    with _as_image_error(path, "cannot be made"):
        remove_leftovers(path, progress)
        _refuse_without_room(path, maker.room(size))
        with _temporary(path, progress) as temporary:
            _take_ownership(temporary.fd, target, progress)
            os.ftruncate(temporary.fd, size)
            identity = str(uuid.uuid4())
            progress(f"formatting {_human(size)} with {filesystem}")
            run(
                maker.argv(temporary.path, size, _fitting(label, path, maker), identity),
                die_with_us=True,
            )
            os.fsync(temporary.fd)
            progress("verifying the new file system")
            made = _prove_whole(temporary, maker, size, identity)
            _publish(temporary, target)
        _sync_folder(path)
        return replace(made, path=path, stamp=())


def room_needed(size: int, filesystem: str = "ext4") -> int:
    """Bytes that must be free on the share for an image of this size to be made."""
    return _MAKERS[filesystem].room(size)


def minimum_size(filesystem: str = "ext4") -> int:
    """The smallest image that makes sense, in bytes."""
    return _MAKERS[filesystem].minimum


def _refuse_occupied(target: Probe) -> None:
    if target.kind not in (Kind.MISSING, Kind.BLANK):
        raise ImageError(
            f"{target.path}: expected nothing or a blank file, found {target.description}; it is left alone",
            target.remedy,
        )
    if target.kind is Kind.BLANK:
        _refuse_attached(target.path)


def _refuse_size(path: str, size: int, filesystem: str) -> None:
    smallest = _MAKERS[filesystem].minimum
    if not smallest <= size <= _MAXIMUM:
        raise ImageError(
            f"{path}: expected a size from {_human(smallest)} to {_human(_MAXIMUM)} for {filesystem}, "
            f"found {_human(size)}"
        )


def _refuse_without_room(path: str, needed: int) -> None:
    share = os.statvfs(os.path.dirname(path))
    free = share.f_bavail * share.f_frsize
    if free < needed:
        raise ImageError(
            f"{path}: expected {_human(needed)} of free space for a new file system, found {_human(free)}",
            _REMEDIES[errno.ENOSPC],
        )


def _fitting(label: str | None, path: str, maker: _Maker) -> str:
    wanted = label if label is not None else os.path.splitext(os.path.basename(path))[0]
    return wanted.encode()[: maker.label_length].decode("utf-8", "ignore")


# --- Making: the temporary file ----------------------------------------------------------------------------


@dataclass
class _Temporary:
    path: str
    fd: int

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def remove_leftovers(path: str, progress: Progress = _silent) -> list[str]:
    """Remove what interrupted attempts to make this very image have left beside it, and nothing else.

    A leftover has the exact form of our names, is a regular file, and is locked by nobody; or is a second
    name of the image itself (the power went between its two last steps). On a share without locks, where a
    file of the first kind may be another's work in progress, it stays and is told of.

    Returns:
        the paths that were removed.
    """
    folder, name = os.path.split(os.path.join(os.getcwd(), path))
    ours = re.compile(rf"\.{re.escape(name)}\.rpinfs-new-[0-9a-f]{{16}}")
    removed = []
    for entry in sorted(os.listdir(folder)):
        if ours.fullmatch(entry):
            leftover = os.path.join(folder, entry)
            try:
                done = _remove_leftover(leftover, path)
            except OSError as error:
                progress(f"left over: {leftover}: {error.strerror}")
            else:
                if done:
                    removed.append(leftover)
    return removed


def _remove_leftover(leftover: str, path: str) -> bool:
    if _same_file(leftover, path):
        os.unlink(leftover)
        return True
    with contextlib.suppress(FileNotFoundError), _open_to_lock(leftover) as fd:
        # Removed while locked, so that it cannot be a file that its maker is just about to lock.
        if _lock(fd) and _is_named(leftover, fd):
            os.unlink(leftover)
            return True
    return False


@contextlib.contextmanager
def _open_to_lock(path: str) -> Iterator[int]:
    """NFS locks exclusively only what is open for writing."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file, so not ours")
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _temporary(path: str, progress: Progress) -> Iterator[_Temporary]:
    """A new, empty, locked file beside the final name; gone afterwards, whatever happens."""
    temporary = _new_temporary(path)
    try:
        yield temporary
    finally:
        # Closed first: an NFS client renames an open file to .nfsXXXX instead of removing it. What was to be kept
        # has been synced; an error of close() has nothing to add.
        with contextlib.suppress(OSError):
            temporary.close()
        try:
            os.unlink(temporary.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            progress(f"left over until the next attempt: {temporary.path}: {error.strerror}")


def _new_temporary(path: str) -> _Temporary:
    folder, name = os.path.split(path)
    while True:
        temporary = os.path.join(folder, f".{name}.rpinfs-new-{secrets.token_hex(8)}")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if _lock_if_possible(fd) and _is_named(temporary, fd):
                return _Temporary(temporary, fd)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        os.close(fd)  # Another attempt took it for a leftover before we could lock it, and removes it.


_NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def _lock(fd: int) -> bool:
    """Lock a whole file; False when another has. Raises OSError where the share has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_if_possible(fd: int) -> bool:
    """As _lock(); a share without locks is no obstacle: link(2) and rename(2) protect the name."""
    try:
        return _lock(fd)
    except OSError as error:
        if error.errno in _NO_LOCKS_HERE:
            return True
        raise


def _is_named(path: str, fd: int) -> bool:
    """Whether the name still means the open file."""
    try:
        found, opened = os.lstat(path), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def _same_file(one: str, other: str) -> bool:
    try:
        first, second = os.lstat(one), os.lstat(other)
    except FileNotFoundError:
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _take_ownership(fd: int, target: Probe, progress: Progress) -> None:
    """Give the new file the owner and the mode of the blank one whose name it will take."""
    if target.kind is not Kind.BLANK:
        return
    wanted, present = os.lstat(target.path), os.fstat(fd)
    if (wanted.st_uid, wanted.st_gid) != (present.st_uid, present.st_gid):
        try:
            os.fchown(fd, wanted.st_uid, wanted.st_gid)
        except PermissionError:
            # A share that squashes root. We can use what we own; that is worth more than the old owner.
            progress(f"the owner of {target.path} cannot be kept")
    os.fchmod(fd, stat.S_IMODE(wanted.st_mode))


# --- Making: proof and publication -------------------------------------------------------------------------


def _prove_whole(temporary: _Temporary, maker: _Maker, size: int, identity: str) -> Probe:
    """Read the new file system back from where it is stored, and have it checked."""
    os.posix_fadvise(temporary.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    made = probe(temporary.path)
    if (made.uuid, made.size) != (identity, size):
        raise ImageError(
            f"{temporary.path}: expected {size} bytes with file system {identity}, "
            f"found {made.size} bytes with {made.description} {made.uuid or ''}".rstrip()
        )
    verify(made)
    run(maker.verify(temporary.path), die_with_us=True)
    return made


# What link(2) says where the share knows no hard links.
_NO_LINKS_HERE = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def _publish(temporary: _Temporary, target: Probe) -> None:
    """Give the whole image its name, in one step, without ever replacing data."""
    if target.kind is Kind.BLANK:
        _replace_blank(temporary, target)
        return
    try:
        os.link(temporary.path, target.path, follow_symlinks=False)
    except FileExistsError:
        # Over NFS a repeated request may find its own first success.
        if not _same_file(temporary.path, target.path):
            raise ImageError(f"{target.path}: somebody else made it in the meantime; it is left alone") from None
    except OSError as error:
        if error.errno not in _NO_LINKS_HERE:
            raise
        _replace_blank(temporary, _placeholder(target.path))


def _placeholder(path: str) -> Probe:
    """Claim the name with an empty file; after a power cut it is a blank one, and replaced next time."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise ImageError(f"{path}: somebody else made it in the meantime; it is left alone") from None
    return probe(path)


def _replace_blank(temporary: _Temporary, blank: Probe) -> None:
    """Take the name of a blank file that is, to the last time stamp, the one that was proven blank."""
    try:
        with _open_to_read(blank.path) as fd:  # Opening makes an NFS client ask the server again.
            stamp = _stamp(os.fstat(fd))
    except OSError:
        stamp = ()
    if stamp != blank.stamp:
        raise ImageError(f"{blank.path}: it changed while its file system was made; it is left alone")
    _refuse_attached(blank.path)
    os.rename(temporary.path, blank.path)


def _sync_folder(path: str) -> None:
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # A file system whose folders need no syncing.
            raise
    finally:
        os.close(fd)


# --- Checking ----------------------------------------------------------------------------------------------


def check(path: str, progress: Progress = _silent) -> CheckResult:
    """Check the file system in an image and put right what is safe to put right (e2fsck -p).

    xfs is only looked at (xfs_repair -n): mounting replays its log, and nothing is repaired unasked.
    The caller sees to it that no other host uses the image.

    Raises:
        ImageError: not an image, in use here, or something only a person can decide; the remedy says how.
    """
    found = probe(path)
    verify(found)
    _refuse_attached(path)
    try:
        return _check_ext4(path, found, progress) if found.kind is Kind.EXT4 else _check_xfs(path, progress)
    except CommandError as error:
        raise ImageError(f"{path}: cannot be checked: {error.message}", error.remedy) from error


_FSCK_CORRECTED, _FSCK_REBOOT, _FSCK_UNCORRECTED = 1, 2, 4
_FSCK_FAILED, _FSCK_USAGE, _FSCK_CANCELLED, _FSCK_LIBRARY = 8, 16, 32, 128


def _check_ext4(path: str, found: Probe, progress: Progress) -> CheckResult:
    with reporting() as (reader, writer):
        done = run(
            ["e2fsck", "-p", "-C", str(writer), _plain(path)],
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
    if "MMP" in done.stdout + done.stderr:
        raise ImageError(f"{path}: multi-mount protection says that another host uses it: {said}")
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


class _Percent:
    """Turns e2fsck's lines "PASS DONE OF NAME" into a percentage, weighted as in its own bar."""

    _WEIGHTS = (0, 70, 90, 92, 95, 100)

    def __init__(self, progress: Progress) -> None:
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


def _check_xfs(path: str, progress: Progress) -> CheckResult:
    """Status 1 is damage, unless a log waits to be replayed: then it saw but the state before the log."""
    progress("looking through the file system")
    done = run(["xfs_repair", "-n", "-f", _plain(path)], ok=(0, 1), die_with_us=True)
    output = done.stdout + done.stderr
    dirty = _XFS_DIRTY_LOG in output
    if done.returncode and not dirty:
        raise ImageError(
            f"{path}: its file system has errors that only a person can decide about (xfs_repair -n)",
            f"make a copy if you can, then: xfs_repair -f {path}",
        )
    return CheckResult(path, False, dirty, output)


def _refuse_attached(path: str) -> None:
    """Nobody else may write to the file: neither a check nor a new image goes with a mounted one."""
    with _as_image_error(path, "cannot be looked at"):
        attached = loop.find(path)
    if attached:
        device = attached[0].path
        raise ImageError(f"{path}: is in use: attached to {device}", f"findmnt {device}; losetup -l {device}")


def _plain(path: str) -> str:
    """A path that no program takes for an option."""
    return os.path.join(os.getcwd(), path)


# --- Errors ------------------------------------------------------------------------------------------------

_REMEDIES = {
    errno.ENOSPC: "free some space on the share, or choose another one",
    errno.EDQUOT: "raise the quota on the share, or free some space",
    errno.EFBIG: "choose a size that the file system of the share can hold in one file",
    errno.EROFS: "export and mount the share read-write",
    errno.EACCES: "let this host write to the export as root (no_root_squash), or as the owner of the folder",
    errno.EPERM: "let this host write to the export as root (no_root_squash), or as the owner of the folder",
    errno.ESTALE: "the folder was replaced on the server: unmount the share and mount it again",
    errno.ENOENT: "make the folder, or mount the share that has it",
}


@contextlib.contextmanager
def _as_image_error(path: str, what: str) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        if error.message.startswith(f"{path}: "):
            raise
        raise ImageError(f"{path}: {what}: {error.message}", error.remedy) from error
    except CommandError as error:
        raise ImageError(f"{path}: {what}: {error.message}", error.remedy) from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ImageError(f"{path}: {what}: {reason}", _REMEDIES.get(error.errno or 0)) from error


def _human(size: int) -> str:
    """A size as people write it: whole where it is whole, else with one decimal."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= factor:
            return f"{size // factor} {unit}" if size % factor == 0 else f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
