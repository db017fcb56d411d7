"""Files on a share: opened without being led astray, locked where the share has locks, their names made to last.

Whoever can write to a share can put anything under a name of ours: a link to somewhere else, another name of an image,
a device. Files of our own there (locks, records) are opened by `open_own` and replaced by `new_own`, and nothing else:
what is no small regular file with one name is odd, and neither read nor written. Their owner says nothing: a server
that squashes root, or maps users, gives each Pi's files another one.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import threading
from collections.abc import Iterator

from rpinfs.errors import RpinfsError, quoted

LARGEST_OWN = 65536
"""Bytes. No lock and no record of ours is larger."""

_NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ODD_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}
# What opening says where the name has become something odd since the look at it.
_BECAME_ODD = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


class NoLocks(OSError):
    """The share knows no locks."""


class OddFileError(RpinfsError):
    """What has the name of a file or folder of ours is none. It was not touched, and the remedy keeps it.

    Attributes:
        path: its name.
        found: what it is, in words.
    """

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(
            f"{path}: expected {expected}, found {found}",
            f"look at what it is, then give it another name: {move_away(path)}",
        )
        self.path = path
        self.found = found


def move_away(path: str) -> str:
    """The command that gives something another name, and replaces nothing."""
    return f"mv -T --backup=numbered {quoted(path, path + '.odd')}"


class _Share(threading.local):
    """The share that this thread works on: its mount point, and the folder that was mounted there, open."""

    where = ""
    folder = -1


_share = _Share()


@contextlib.contextmanager
def on_share(where: str, device: tuple[int, int] | None) -> Iterator[None]:
    """Have all that this thread opens below a mount point opened on that very mount, while a with statement lasts.

    A share can be unmounted between a look at it and the writing: by its name, what is made then is made in the folder
    below, on the root. While it is held so, it is unmounted only by `umount -l`, and still is where things are made.

    Args:
        device: of the mount; None: whatever is there.

    Raises:
        OSError: something else is mounted there by now, or nothing.
    """
    folder = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if device is not None and os.fstat(folder).st_dev != os.makedev(*device):
            raise OSError(errno.ENODEV, f"{where} is not the share any more")
        _share.where, _share.folder = where, folder
        yield
    finally:
        _share.where, _share.folder = "", -1
        os.close(folder)


def _within(path: str) -> tuple[str, int | None]:
    """A path as the *at() calls take it: relative to the share that this thread works on, where it is below that."""
    if not _share.where:
        return path, None
    if path == _share.where:
        return ".", _share.folder
    below = f"{_share.where.rstrip('/')}/"
    return (path[len(below) :], _share.folder) if path.startswith(below) else (path, None)


def open_on_share(path: str, flags: int, mode: int = 0o600) -> int:
    """As os.open(), on the share of on_share(). Raises OSError."""
    name, folder = _within(path)
    return os.open(name, flags, mode) if folder is None else os.open(name, flags, mode, dir_fd=folder)


def stat_on_share(path: str) -> os.stat_result:
    """As os.lstat(), on the share of on_share(). Raises OSError."""
    name, folder = _within(path)
    return os.lstat(name) if folder is None else os.stat(name, dir_fd=folder, follow_symlinks=False)


@contextlib.contextmanager
def open_regular(path: str, flags: int) -> Iterator[int]:
    """Open a regular file for as long as a with statement lasts: not through a symbolic link, not waiting for a FIFO.

    Raises:
        OSError: it cannot be opened; EINVAL where it is not a regular file, as it may have become since a look at it.
    """
    fd = open_on_share(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "expected a regular file, found something else", path)
        yield fd
    finally:
        os.close(fd)


# --- Files of our own --------------------------------------------------------------------------------------


def open_own(path: str, flags: int) -> int:
    """Open a file of our own, which O_CREAT makes, for root alone; the caller closes it.

    Raises:
        OddFileError: it is a link, another name of some file, too large, or no file at all.
        OSError: it cannot be opened.
    """
    # Opening a device already does something to it; a look beforehand costs no request that opening would not.
    with contextlib.suppress(FileNotFoundError):
        _refuse_odd(path, stat_on_share(path))
    try:
        fd = open_on_share(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in _BECAME_ODD:
            raise
        raise OddFileError(path, "a file of rpinfs", "something else") from error
    try:
        # What was opened, not what has the name: that may have changed since the look.
        _refuse_odd(path, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_odd(path: str, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise OddFileError(path, "a file of rpinfs", _ODD_KINDS.get(kind, "something else"))
    # None: it has just been replaced by a newer one.
    if status.st_nlink > 1:
        raise OddFileError(path, "a file of rpinfs", f"a file that has {status.st_nlink} names (hard links)")
    if status.st_size > LARGEST_OWN:
        raise OddFileError(path, "a file of rpinfs", f"one of {status.st_size} bytes")


def read_own(path: str, *, anew: bool = False) -> bytes:
    """Read a file of our own, at most LARGEST_OWN bytes.

    Args:
        anew: have the server asked, whatever an NFS client believes to know. Opening with O_CREAT does: without it
            the client may answer "no such file" out of its memory for a minute after another Pi has written one. It
            may leave an empty file.

    Raises:
        OddFileError: as open_own().
        OSError: it is not there, or cannot be read.
    """
    return read_own_dated(path, anew=anew)[0]


def read_own_dated(path: str, *, anew: bool = False) -> tuple[bytes, float]:
    """As read_own(), with the time at which the file was last written, in seconds since 1970 by the server's clock."""
    fd = open_own(path, os.O_RDONLY | (os.O_CREAT if anew else 0))
    try:
        # Of the open file: a client has asked the server for that, and may remember another for the name.
        return os.pread(fd, LARGEST_OWN, 0), os.fstat(fd).st_mtime
    finally:
        os.close(fd)


def parsed(data: bytes) -> dict[str, object]:
    """Understand a record: a JSON object. Raises ValueError, whatever is wrong with it: anybody may have written it."""
    try:
        record = json.loads(data)
    except Exception as error:
        # Not only ValueError: "[" 4,096 times is a RecursionError, and newer parsers may have errors of their own.
        raise ValueError("expected JSON, found something else") from error
    if not isinstance(record, dict):
        raise ValueError("expected a JSON object, found something else")
    return record


class NewOwn:
    """A new file of our own that has not taken its name yet.

    Attributes:
        created: time in seconds since 1970, by the clock of the server.
    """

    def __init__(self, path: str) -> None:
        self._final = path
        self._path = f"{path}-new-{os.urandom(8).hex()}"
        self._fd = open_on_share(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self.created = os.fstat(self._fd).st_mtime
        except BaseException:
            self.drop()
            raise

    def publish(self, data: bytes) -> None:
        """Have it take its name, whole and synced, in place of the file of ours that has it.

        Raises:
            OddFileError: what has the name is none of ours.
            OSError: the share failed. The old file is whole then, or the new one.
        """
        while data:
            data = data[os.write(self._fd, data) :]
        os.fsync(self._fd)
        self._close()
        with contextlib.suppress(FileNotFoundError):
            _refuse_odd(self._final, os.lstat(self._final))
        os.rename(self._path, self._final)
        self._path = ""
        sync_folder(self._final)

    def _close(self) -> None:
        # Also over NFS, where close() is the last to say that something could not be written.
        fd, self._fd = self._fd, -1
        os.close(fd)

    def drop(self) -> None:
        """Remove it, unless it was published."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


@contextlib.contextmanager
def new_own(path: str) -> Iterator[NewOwn]:
    """A file of our own to be written and published; whatever happens, nothing else of it stays."""
    new = NewOwn(path)
    try:
        yield new
    finally:
        new.drop()


def remove_own_leftovers(path: str) -> None:
    """Remove what interrupted writers of a file of our own have left. Only for who has it locked against others."""
    folder, name = os.path.split(path)
    ours = re.compile(rf"{re.escape(name)}-new-[0-9a-f]{{16}}")
    # A leftover that stays does no harm, in a folder that cannot be listed neither.
    with contextlib.suppress(OSError):
        for entry in filter(ours.fullmatch, os.listdir(folder)):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, entry))


def make_folders(top: str, below: str) -> None:
    """Make the folders on the way from a mount point to a folder below it, and follow no link on that way.

    Args:
        top: a folder that root has put there.
        below: path from it on; what is there already stays as it is.

    Raises:
        OddFileError: a part of the path is no folder.
        OSError: a folder cannot be made.
    """
    fd = open_on_share(top.rstrip("/") or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    path = top.rstrip("/")
    try:
        for name in [part for part in below.split("/") if part]:
            path = f"{path}/{name}"
            outer, fd = fd, folder_in(fd, name, path)
            os.close(outer)
    finally:
        os.close(fd)


def folder_in(folder: int, name: str, path: str, *, make: bool = True) -> int:
    """Open a folder in an open folder, by default made where it is not there, and follow no link.

    Raises:
        OddFileError: it is no folder.
        OSError: it cannot be opened or made.
    """
    try:
        try:
            return os.open(name, _FOLDER, dir_fd=folder)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
            return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        kind = stat.S_IFMT(os.lstat(name, dir_fd=folder).st_mode)
        raise OddFileError(path, "a folder", _ODD_KINDS.get(kind, "a file")) from error


# --- Locks and names ---------------------------------------------------------------------------------------


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


def walk(top: str, *, strict: bool = True) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each folder from `top` down, with the names of the folders and of all else in it, links not followed.

    As os.walk(), which in Python 3.11 calls itself for each folder: a thousand in each other are too many for it.

    Raises:
        OSError: a folder cannot be read, where that is not to be passed over (`strict`).
    """
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as listed:
                entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listed]
        except OSError:
            if strict:
                raise
            continue
        folders = [name for name, is_folder in entries if is_folder]
        yield folder, folders, [name for name, is_folder in entries if not is_folder]
        waiting += [f"{folder}/{name}" for name in reversed(folders)]


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
