"""System calls on mounts that Python 3.11 has no function for, by way of the C library.

All need root. Each raises OSError, as the functions of os do.
"""

import ctypes
import os

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
AT_FDCWD, OPEN_TREE_CLONE = -100, 1

_libc = ctypes.CDLL(None, use_errno=True)


def private_mounts() -> None:
    """Give this process a mount namespace of its own: from now on nobody else sees what it mounts."""
    _checked(_libc.unshare(CLONE_NEWNS), None)
    _checked(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "/")


def mount(kind: str, where: str, options: str) -> None:
    """Mount a file system that has no device."""
    _checked(_libc.mount(kind.encode(), os.fsencode(where), kind.encode(), 0, os.fsencode(options)), where)


def unmount(where: str) -> None:
    """Unmount what is on top at a place."""
    _checked(_libc.umount2(os.fsencode(where), 0), where)


def copy_of_mount(where: str) -> int:
    """Open a copy of the mount that a folder is in, without the mounts on top of it: a bind mount attached nowhere.

    Nobody else sees the copy, and it goes with its descriptor. See open_tree(2); glibc has it since 2.36.
    """
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC
    return _checked(_libc.open_tree(AT_FDCWD, os.fsencode(where), flags), where)


def _checked(result: int, path: str | None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result
