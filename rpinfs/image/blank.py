"""Proof that a file holds no data: nothing but zeros and holes."""

import errno
import os
from collections.abc import Iterator

from rpinfs.boot.settings import MIB
from rpinfs.system.run import Tell

_CHUNK = 4 * MIB
_ZEROS = bytes(_CHUNK)
# Both ends of a file are read whatever its map says: nearly every known kind of data shows there.
_ENDS = MIB


def first_data(fd: int, size: int, allocated: int, progress: Tell) -> int | None:
    """Offset of the first byte that is not zero, or None where there is none.

    Holes are skipped where the server tells of them (SEEK_DATA; NFS before 4.2 calls everything data, and
    then everything is read). Its word alone is not enough: both ends are read all the same, and a file that
    takes up room while it claims to be one hole is read in full (SEEK_DATA has lied: openzfs/zfs#15526).

    Args:
        size: length of the file in bytes.
        allocated: bytes that it takes where it is stored.

    Raises:
        OSError: the file cannot be read.
    """
    ranges = list(data_ranges(fd, size))
    if not ranges and allocated > _ENDS:
        ranges = [(0, size)]
    tail = max(0, size - _ENDS)
    for start, end in [(0, min(size, _ENDS)), *ranges, (tail, size)]:
        first = _first_nonzero(fd, start, end, size, progress)
        if first is not None:
            return first
    return None


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are not holes, as (start, end); all of it where the server does not tell."""
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


def _first_nonzero(fd: int, start: int, end: int, size: int, progress: Tell) -> int | None:
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
