"""System calls that Python 3.11 has no function for, by way of the C library. Each raises OSError, as those of os."""

import ctypes
import fcntl
import os
import struct

MNT_FORCE = 1
CLONE_NEWNS = 0x20000
MS_REC, MS_SLAVE = 0x4000, 0x80000
RENAME_NOREPLACE = 1
AT_FDCWD, OPEN_TREE_CLONE = -100, 1
FS_IOC_SHUTDOWN, SHUTDOWN_NOLOGFLUSH = 0x8004587D, 2
SYS_OPENAT2, RESOLVE_CACHED = 437, 0x20
AT_EMPTY_PATH, AT_STATX_DONT_SYNC, STATX_BLOCKS = 0x1000, 0x4000, 0x400
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


def mounts_of_our_own() -> None:
    """Have what this process and its children mount be seen by nobody else, and be gone with them, killed or not.

    What others unmount meanwhile is unmounted here too: a copy that stayed would keep their devices busy. Needs root.
    """
    _checked(_libc.unshare(CLONE_NEWNS), None)
    _checked(_libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None), "/")


def rename_to_free_name(old: str, new: str) -> None:
    """As os.rename(), but FileExistsError where the new name means something: also an empty folder. Linux 3.15.

    Network file systems do not know it: EINVAL.
    """
    at = AT_FDCWD
    _checked(_libc.renameat2(at, os.fsencode(old), at, os.fsencode(new), ctypes.c_uint(RENAME_NOREPLACE)), new)


def end_writing(where: str) -> None:
    """Have a mounted ext4 or xfs write nothing more, as if the power went; what it is asked from then on is EIO.

    For a file system that another host has by now: whatever is still written destroys it (FS_IOC_SHUTDOWN). Needs root.
    """
    folder = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(folder, FS_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_NOLOGFLUSH))
    finally:
        os.close(folder)


def open_in_memory(path: str) -> int:
    """Open a place where the kernel knows the whole way to it: no server is asked, and nothing is waited for.

    Else BlockingIOError (openat2(2), RESOLVE_CACHED: Linux 5.12). No link is followed at its end, and what is open is
    good for asking only (O_PATH).
    """
    how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, 0, RESOLVE_CACHED)
    return _checked(_libc.syscall(ctypes.c_long(SYS_OPENAT2), AT_FDCWD, os.fsencode(path), how, len(how)), path)


def blocks_in_memory(fd: int) -> int:
    """Bytes that an open file takes where it is stored, as the kernel knows it: no server is asked (statx(2))."""
    found = ctypes.create_string_buffer(256)
    flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC
    _checked(_libc.statx(fd, b"", flags, ctypes.c_uint(STATX_BLOCKS), found), None)
    (blocks,) = struct.unpack_from("Q", found, 48)
    return int(blocks) * 512


def _checked(result: int, path: str | None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result
