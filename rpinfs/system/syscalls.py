"""System calls that Python 3.11 has no function for, by way of the C library. Each raises OSError, as those of os."""

import ctypes
import fcntl
import os
import struct

MNT_FORCE = 1
AT_FDCWD, OPEN_TREE_CLONE = -100, 1
FS_IOC_SHUTDOWN, SHUTDOWN_NOLOGFLUSH = 0x8004587D, 2
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


def copy_of_mount(where: str) -> int:
    """Open a copy of the mount that a folder is in, without the mounts on top of it: a bind mount attached nowhere.

    Nobody else sees the copy, and it goes with its descriptor (open_tree(2): Linux 5.2, glibc 2.36). Needs root.
    """
    return _checked(_libc.open_tree(AT_FDCWD, os.fsencode(where), OPEN_TREE_CLONE | os.O_CLOEXEC), where)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Free the blocks of a part of a file, in bytes; it reads as zeros then. See fallocate(2)."""
    flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    _checked(_libc.fallocate64(fd, flags, ctypes.c_int64(offset), ctypes.c_int64(length)), None)


def force_unmount(where: str) -> None:
    """Unmount, and first have all requests to the server of a network file system fail. See umount2(2). Needs root."""
    _checked(_libc.umount2(os.fsencode(where), MNT_FORCE), where)


def end_writing(where: str) -> None:
    """Have a mounted ext4 or xfs write nothing more, as if the power went; what it is asked from then on is EIO.

    For a file system that another host has by now: whatever is still written destroys it (FS_IOC_SHUTDOWN). Needs root.
    """
    folder = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(folder, FS_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_NOLOGFLUSH))
    finally:
        os.close(folder)


def _checked(result: int, path: str | None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result
