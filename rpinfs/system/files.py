"""Files on a share: opened without being led astray, locked where the share has locks, their names made to last."""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator

_NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class NoLocks(OSError):
    """The share knows no locks."""


@contextlib.contextmanager
def open_regular(path: str, flags: int) -> Iterator[int]:
    """Open a regular file for as long as a with statement lasts: not through a symbolic link, not waiting for a FIFO.

    Raises:
        OSError: it cannot be opened; EINVAL where it is not a regular file, as it may have become since a look at it.
    """
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "expected a regular file, found something else")
        yield fd
    finally:
        os.close(fd)


def lock(fd: int) -> bool:
    """Lock a whole file, which NFS wants to be open for writing; False where another has locked it.

    On NFS the kernel makes a lock of the server's of it, tied to this open file and to nothing else of ours.

    Raises:
        NoLocks: this share has none.
        OSError: the share failed.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS_HERE:
            raise NoLocks(error.errno, error.strerror) from error
        raise
    return True


def unlock(fd: int) -> None:
    """Give up the lock of an open file, whoever else has it open. Raises OSError."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def sync_folder(path: str) -> None:
    """Have the name of a file on stable storage. Raises OSError."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # A file system whose folders need no syncing.
            raise
    finally:
        os.close(fd)
