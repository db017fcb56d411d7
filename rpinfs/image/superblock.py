"""Superblocks of ext4 and xfs: from bytes to what they say. Pure: whoever has the file does the reading.

Layouts: filesystems/ext4/super.rst of the kernel; struct xfs_dsb in fs/xfs/libxfs/xfs_format.h.
"""

import struct
from collections.abc import Callable

from rpinfs.boot.storage import uuid_text
from rpinfs.boot.values import dataclass

_INCOMPAT_RECOVER, _INCOMPAT_JOURNAL_DEV = 0x4, 0x8
_INCOMPAT_64BIT, _INCOMPAT_MMP = 0x80, 0x100
_XFS_VERSION_5, _XFS_NEEDS_REPAIR = 5, 0x10
_COMPAT_HAS_JOURNAL, _COMPAT_FAST_COMMIT = 0x4, 0x400
# What ext3 knew; blkid, and people, call anything with more features ext4.
_EXT3_INCOMPAT, _EXT3_RO_COMPAT = 0x16, 0x7

XFS_MARKED = "it is marked as one to be repaired"
"""What xfs_repair leaves in a file system that it did not finish."""

_EXT4_MAGIC, _XFS_MAGIC = 0xEF53, b"XFSB"
_STATE_VALID, _STATE_ERROR = 1, 2
_XFS_LEAST_GROUP = 64  # XFS_MIN_AG_BLOCKS

# Where mke2fs puts the first backup of a superblock: number and size of the block.
_FIRST_BACKUPS = ((32768, 4096), (8193, 1024), (16384, 2048))


@dataclass(frozen=True)
class Groups:
    """The groups of blocks that a file system consists of. In bytes.

    Attributes:
        start: offset of the first.
        size: of each but the last, which may be smaller.
        least: a last group that is not larger is left out when the file system grows.
    """

    start: int
    size: int
    least: int


@dataclass(frozen=True)
class Superblock:
    """What a superblock says.

    Attributes:
        type: "ext2", "ext3", "ext4" or "xfs", as blkid calls it.
        sector_size: largest logical block size, in bytes, of a device that it can be mounted from.
        size: of the file system, in bytes.
        clean: whether it was unmounted in order; None where only mounting can tell (xfs).
        mmp: it has ext4's multi-mount protection.
        fast_commit: its journal has ext4's fast commits.
        incompat, ro_compat: bits of features that a kernel must know to mount it, and to write to it (features.py).
        obstacles: what keeps every kernel from mounting it from one device, in words.
    """

    type: str
    uuid: str
    label: str
    block_size: int
    sector_size: int
    size: int
    groups: Groups
    clean: bool | None = None
    needs_recovery: bool = False
    errors_recorded: int = 0
    mmp: bool = False
    fast_commit: bool = False
    incompat: int = 0
    ro_compat: int = 0
    obstacles: tuple[str, ...] = ()


def parse_ext4(data: bytes) -> Superblock | None:
    """The 1024 bytes at offset 1024 of an ext2, ext3 or ext4 file system; None where the magic is not."""
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
    return Superblock(
        type=_ext_type(compat, incompat, ro_compat),
        uuid=uuid_text(data[0x68:0x78]),
        label=_label(data[0x78:0x88]),
        block_size=block_size,
        sector_size=min(block_size, 4096),
        size=blocks * block_size,
        groups=_ext4_groups(data, blocks, block_size, incompat),
        clean=state & (_STATE_VALID | _STATE_ERROR) == _STATE_VALID and not recover,
        needs_recovery=recover,
        errors_recorded=struct.unpack_from("<I", data, 0x194)[0],
        mmp=bool(incompat & _INCOMPAT_MMP),
        fast_commit=bool(compat & _COMPAT_FAST_COMMIT),
        incompat=incompat,
        ro_compat=ro_compat,
        obstacles=_ext4_obstacles(data, compat),
    )


def _ext4_groups(data: bytes, blocks: int, block_size: int, incompat: int) -> Groups:
    """The least group: what it has to hold for itself, and the 50 blocks that resize2fs wants beside it."""
    first_block = struct.unpack_from("<I", data, 0x14)[0]
    blocks_per_group, _, inodes_per_group = struct.unpack_from("<3I", data, 0x20)
    revision = struct.unpack_from("<I", data, 0x4C)[0]
    inode_size = struct.unpack_from("<H", data, 0x58)[0] if revision else 128
    descriptor_size = struct.unpack_from("<H", data, 0xFE)[0] if incompat & _INCOMPAT_64BIT else 32
    reserved_descriptor_blocks = struct.unpack_from("<H", data, 0xCE)[0]
    groups = -(-blocks // max(1, blocks_per_group))
    descriptor_blocks = -(-groups * descriptor_size // block_size) + reserved_descriptor_blocks
    inode_blocks = -(-inodes_per_group * inode_size // block_size)
    superblock, bitmaps = 1, 2
    least = superblock + descriptor_blocks + bitmaps + inode_blocks + 50
    return Groups(first_block * block_size, blocks_per_group * block_size, least * block_size)


def _ext_type(compat: int, incompat: int, ro_compat: int) -> str:
    if incompat & ~_EXT3_INCOMPAT or ro_compat & ~_EXT3_RO_COMPAT:
        return "ext4"
    return "ext3" if compat & _COMPAT_HAS_JOURNAL else "ext2"


def _ext4_obstacles(data: bytes, compat: int) -> tuple[str, ...]:
    journal_inode = struct.unpack_from("<I", data, 0xE0)[0]
    return ("its journal is on another device",) * bool(compat & _COMPAT_HAS_JOURNAL and not journal_inode)


def parse_xfs(data: bytes) -> Superblock | None:
    """The first 512 bytes of an xfs file system, big endian; None where the magic is not."""
    if data[:4] != _XFS_MAGIC:
        return None
    block_size, blocks, realtime_blocks = struct.unpack_from(">IQQ", data, 4)
    log_start = struct.unpack_from(">Q", data, 48)[0]
    obstacles = []
    if not log_start:
        obstacles.append("its log is on another device")
    if realtime_blocks:
        obstacles.append("it has a realtime device")
    version = struct.unpack_from(">H", data, 100)[0] & 0xF
    # Older versions have other things there.
    ro_compat, incompat = struct.unpack_from(">2I", data, 212) if version >= _XFS_VERSION_5 else (0, 0)
    if incompat & _XFS_NEEDS_REPAIR:
        obstacles.append(XFS_MARKED)
    return Superblock(
        type="xfs",
        uuid=uuid_text(data[32:48]),
        label=_label(data[108:120]),
        block_size=block_size,
        sector_size=struct.unpack_from(">H", data, 102)[0],
        size=blocks * block_size,
        groups=Groups(0, struct.unpack_from(">I", data, 84)[0] * block_size, _XFS_LEAST_GROUP * block_size),
        incompat=incompat,
        ro_compat=ro_compat,
        obstacles=tuple(obstacles),
    )


def find_backup(read: Callable[[int, int], bytes]) -> tuple[int, int] | None:
    """Block number and block size of the first backup of an ext superblock, where there is one.

    Args:
        read: gives the bytes of the file by (offset, length), zeros behind its end.
    """
    for block, block_size in _FIRST_BACKUPS:
        data = read(block * block_size, 1024)
        found = parse_ext4(data)
        group = struct.unpack_from("<H", data, 0x5A)[0]
        if found and found.block_size == block_size and group == 1:
            return block, block_size
    return None


def _label(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")
