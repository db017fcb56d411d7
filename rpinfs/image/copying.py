"""Copying an image: as little of it as will do, by the shortest way that the share offers.

1. FICLONE: the server lets both files share their blocks (NFS 4.2, on btrfs or xfs). It takes an instant.
2. Otherwise what is neither a hole nor unused by the file system inside: by copy_file_range(2), which NFS 4.2 does on
   the server; else read and written, but for what is zero.

What a file system does not use is asked of itself, for SEEK_DATA is not enough: NFS before 4.2 calls everything data,
and reading a hole takes as long as reading anything; and on a well-used image most holes are filled with what was
deleted since. (e2image -ra leaves out unused blocks as well, but its copies lack backup superblocks and files that
were deleted while open.)
"""

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator

from rpinfs.boot.settings import MIB
from rpinfs.image import superblock
from rpinfs.image.blank import data_ranges
from rpinfs.system.run import CommandError, Tell, run

FICLONE = 0x40049409

Range = tuple[int, int]
"""Offsets in bytes: the first, and the one behind the last."""

_NOT_HERE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.EPERM)
_CHUNK = 4 * MIB
_SERVER_CHUNK = 64 * MIB
# What is zero is left out in pieces of this size.
_GRAIN = 64 * 1024
# A gap that is not worth a request of its own.
_GAP = 64 * 1024


def clone(source: int, target: int) -> bool:
    """Let one open file have the content of another, at once; False where the share cannot. Raises OSError."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True


def copy(source: int, path: str, target: int, progress: Tell, check: Callable[[], None] = lambda: None) -> None:
    """Copy an image that nobody writes to into an empty file, of which the caller makes sure that it is synced.

    Args:
        path: of the source, for the programs that look into it.
        progress: told how much is done.
        check: called at least every 64 MiB; what it raises ends the copying.

    Raises:
        OSError: the share failed.
    """
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    # What is cached of it may be older than what a loop device has written past the cache.
    os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
    wanted = _without(list(data_ranges(source, size)), unused(source, path))
    total = sum(end - start for start, end in wanted)
    # A share that calls a new file data knows no holes: a server's copy would be full of zeros, or is not the server's.
    copier = _Copier(source, target, by_server=not list(data_ranges(target, size)))
    done, told = 0, -1
    for start, end in wanted:
        position = start
        while position < end:
            check()
            count = copier.copy(position, end)
            if not count:
                raise OSError(errno.EIO, "the image became shorter while it was copied")
            position, done = position + count, done + count
            if (percent := done * 100 // total) != told:
                told = percent
                progress(f"copying: {percent} %")


class _Copier:
    """Copies a piece in one of two ways; once the server has refused, always in the other one."""

    def __init__(self, source: int, target: int, *, by_server: bool) -> None:
        self._source = source
        self._target = target
        self._by_server = by_server
        self._buffer = bytearray(_CHUNK)

    def copy(self, start: int, end: int) -> int:
        """Copy the beginning of a range; returns how many bytes, 0 at the end of the file."""
        if self._by_server:
            try:
                return os.copy_file_range(self._source, self._target, min(end - start, _SERVER_CHUNK), start, start)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                self._by_server = False
        return self._through_here(start, end)

    def _through_here(self, start: int, end: int) -> int:
        view = memoryview(self._buffer)
        count = os.preadv(self._source, [view[: min(_CHUNK, end - start)]], start)
        for first, last in _not_zero(view[:count]):
            position = first
            while position < last:
                position += os.pwrite(self._target, view[position:last], start + position)
        # A Pi has little memory.
        os.posix_fadvise(self._source, start, count, os.POSIX_FADV_DONTNEED)
        return count


def _not_zero(data: memoryview) -> Iterator[Range]:
    """The parts that are not zero, as ranges of whole grains."""
    zeros = bytes(_GRAIN)
    start = None
    for position in range(0, len(data), _GRAIN):
        grain = data[position : position + _GRAIN]
        zero = grain == zeros[: len(grain)]
        if zero and start is not None:
            yield start, position
            start = None
        elif not zero and start is None:
            start = position
    if start is not None:
        yield start, len(data)


# --- What need not be copied -------------------------------------------------------------------------------


def unused(fd: int, path: str) -> list[Range]:
    """What the file system in an image has no use for: free blocks, and inode tables that it has never written to.

    Nothing where that cannot be told: not ext4, or a journal waits to be replayed, so that its maps are not the last
    word. Raises OSError.
    """
    found = superblock_of(fd)
    if found is None or not found.clean:
        return []
    try:
        return parse_dumpe2fs(run(["dumpe2fs", path], die_with_us=True).stdout)
    except CommandError:
        return []


def superblock_of(fd: int) -> superblock.Superblock | None:
    """The superblock of an open image, of which nobody changes anything. Raises OSError."""
    ext4, xfs = os.pread(fd, 1024, 1024), os.pread(fd, 512, 0)
    return superblock.parse_ext4(ext4.ljust(1024, b"\0")) or superblock.parse_xfs(xfs.ljust(512, b"\0"))


_GROUP = re.compile(
    r"^Group \d+: .*\n"
    r"(?:  .*\n)*?"
    r"  Inode table at (?P<first>\d+)-(?P<last>\d+)\b.*\n"
    r"  \d+ free blocks, \d+ free inodes, \d+ directories(?:, (?P<unused>\d+) unused inodes)?\s*\n"
    r"  Free blocks: (?P<free>.*)\n",
    re.MULTILINE,
)


def parse_dumpe2fs(text: str) -> list[Range]:
    """The unused parts of an ext4 file system, sorted, from what dumpe2fs(8) says; what it does not say is used."""
    block_size, inode_size, inodes = (_header(text, key) for key in ("Block size", "Inode size", "Inodes per group"))
    if not (block_size and inode_size and inodes):
        return []
    blocks = []
    for group in _GROUP.finditer(text):
        for free in filter(None, group["free"].split(", ")):
            first, _, last = free.partition("-")
            blocks.append((int(first), int(last or first)))
        used = -(-(inodes - int(group["unused"] or 0)) * inode_size // block_size)
        if int(group["first"]) + used <= int(group["last"]):
            blocks.append((int(group["first"]) + used, int(group["last"])))
    return sorted((first * block_size, (last + 1) * block_size) for first, last in blocks)


def _header(text: str, key: str) -> int:
    found = re.search(rf"^{key}:[ \t]+(\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _without(ranges: list[Range], holes: list[Range]) -> list[Range]:
    """Sorted ranges less sorted holes, but for holes that are not worth it."""
    left = []
    holes = [(start, end) for start, end in _joined(holes) if end - start >= _GAP]
    index = 0
    for start, end in ranges:
        while index < len(holes) and holes[index][1] <= start:
            index += 1
        position, here = start, index
        while here < len(holes) and holes[here][0] < end:
            if holes[here][0] > position:
                left.append((position, holes[here][0]))
            position = max(position, holes[here][1])
            here += 1
        if position < end:
            left.append((position, end))
    return left


def _joined(ranges: list[Range]) -> list[Range]:
    joined: list[Range] = []
    for start, end in ranges:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
