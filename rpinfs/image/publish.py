"""New files on a share: whole beside their name first, then under it, in one step.

The rule that nothing here may break: nothing is removed or replaced but what has the exact form of our temporary
names and is nobody's work in progress. So a power cut at any instant leaves under a name either what was there or a
whole file, and at most a temporary file `.NAME.rpinfs-new-*` beside it, which the next attempt removes.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator

from rpinfs.boot.settings import human_size
from rpinfs.boot.values import dataclass
from rpinfs.image.errors import ShareFailedError
from rpinfs.system.files import NoLocks, lock, open_on_share, open_regular
from rpinfs.system.run import Tell
from rpinfs.system.trouble import REMEDIES

_ATTEMPTS = 3


@dataclass
class Temporary:
    """A new file that is not yet under its name, open and locked."""

    path: str
    fd: int

    def close(self) -> None:
        """Let it go, once."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def remove_leftovers(path: str, progress: Tell) -> list[str]:
    """Remove what interrupted attempts to make this very file, or a copy of it, have left beside it, and nothing else.

    A leftover has the exact form of our names, is a regular file, and is locked by nobody; or is a second
    name of the file itself (the power went between its two last steps). On a share without locks, where a
    file of the first kind may be another's work in progress, it stays and is told of.

    Returns:
        the paths that were removed.
    """
    removed = []
    for leftover in known_leftovers(path, progress):
        try:
            done = _remove_leftover(leftover, path)
        except OSError as error:
            progress(f"left over: {leftover}: {error.strerror}")
        else:
            if done:
                removed.append(leftover)
    return removed


def leftovers(path: str) -> list[str]:
    """Paths of what has the exact form of our temporary names for a file. Raises OSError."""
    folder, name = os.path.split(path)
    ours = re.compile(rf"\.{re.escape(name)}\.rpinfs-new-[0-9a-f]{{16}}")
    return [os.path.join(folder, entry) for entry in sorted(os.listdir(folder)) if ours.fullmatch(entry)]


def known_leftovers(path: str, progress: Tell) -> list[str]:
    """The same; a folder that cannot be listed is told of, and nothing is known to be left there.

    Files in it may be as well as ever: nfs-ganesha 6.5 answers a listing with "Stale file handle" for as long as it
    remembers a file that was removed on the NAS itself.
    """
    try:
        return leftovers(path)
    except OSError as error:
        progress(f"left over: {os.path.dirname(path)} cannot be listed: {error.strerror}")
        return []


def remove_second_names(path: str) -> None:
    """Remove what is left of our names for a file when the power went, or we were killed, between its last two steps.

    Raises:
        OSError: the folder cannot be read, or written to.
    """
    for leftover in leftovers(path):
        if same_file(leftover, path):
            os.unlink(leftover)


def _remove_leftover(leftover: str, path: str) -> bool:
    if same_file(leftover, path):
        os.unlink(leftover)
        return True
    with contextlib.suppress(FileNotFoundError), _open_to_lock(leftover) as fd:
        # Removed while locked, so that it cannot be a file that its maker is just about to lock.
        if lock(fd) and is_named(leftover, fd):
            os.unlink(leftover)
            return True
    return False


@contextlib.contextmanager
def _open_to_lock(path: str) -> Iterator[int]:
    """NFS locks exclusively only what is open for writing; what else has such a name is not even opened."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file, so not ours")
    with open_regular(path, os.O_RDWR) as fd:
        yield fd


@contextlib.contextmanager
def temporary(path: str, progress: Tell) -> Iterator[Temporary]:
    """A new, empty, locked file beside the final name; gone afterwards, whatever happens."""
    new = _new_temporary(path)
    try:
        yield new
    finally:
        # Closed first: an NFS client renames an open file to .nfsXXXX instead of removing it. What was to be kept
        # has been synced; an error of close() has nothing to add.
        with contextlib.suppress(OSError):
            new.close()
        try:
            os.unlink(new.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            progress(f"left over until the next attempt: {new.path}: {error.strerror}")


def _new_temporary(path: str) -> Temporary:
    folder, name = os.path.split(path)
    for _ in range(_ATTEMPTS):
        temporary = os.path.join(folder, f".{name}.rpinfs-new-{os.urandom(8).hex()}")
        fd = open_on_share(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if _lock_if_possible(fd) and is_named(temporary, fd):
                return Temporary(temporary, fd)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        os.close(fd)  # Another attempt took it for a leftover before we could lock it, and removes it.
    # Or its name leads elsewhere: the share was unmounted (umount -l) after on_share() had opened it.
    raise OSError(errno.ENODEV, "what is made there is gone at once: it is not the share any more", folder)


def _lock_if_possible(fd: int) -> bool:
    """As lock(); a share without locks is no obstacle: link(2) and rename(2) protect the name."""
    try:
        return lock(fd)
    except NoLocks:
        return True


def is_named(path: str, fd: int) -> bool:
    """Whether the name still means the open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def same_file(one: str, other: str) -> bool:
    """Whether two names mean one file, links not followed; False where either means none."""
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except FileNotFoundError:
        return False


def take_ownership(fd: int, path: str, progress: Tell) -> None:
    """Give a new file the owner and the mode of another one. Raises OSError."""
    wanted, present = os.lstat(path), os.fstat(fd)
    if (wanted.st_uid, wanted.st_gid) != (present.st_uid, present.st_gid):
        try:
            os.fchown(fd, wanted.st_uid, wanted.st_gid)
        except PermissionError:
            # A share that squashes root. We can use what we own; that is worth more than the old owner.
            progress(f"the owner of {path} cannot be kept")
    os.fchmod(fd, stat.S_IMODE(wanted.st_mode))


# What link(2) says where the share knows no hard links.
NO_LINKS_HERE = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def take_free_name(new: Temporary, path: str) -> None:
    """Give a whole, synced file a name that nothing has, in one step. The folder is to be synced then.

    On a share without hard links the name is claimed with an empty file, which a power cut leaves there.

    Raises:
        FileExistsError: the name is taken; what has it is left alone.
        OSError: the share failed.
    """
    try:
        os.link(new.path, path, follow_symlinks=False)
    except FileExistsError:
        # Over NFS a repeated request may find its own first success.
        if not same_file(new.path, path):
            raise
    except OSError as error:
        if error.errno not in NO_LINKS_HERE:
            raise
        claim(path)
        try:
            os.rename(new.path, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise


def claim(path: str) -> None:
    """Take a free name with an empty file, and see that it is the one that has it. Raises OSError: it is taken."""
    fd = open_on_share(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    try:
        if not is_named(path, fd) or os.fstat(fd).st_size:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    finally:
        os.close(fd)


def refuse_without_room(path: str, needed: int, purpose: str) -> None:
    """Insist on so many bytes of free space on the share of a file, before the first of them is written.

    Raises:
        ShareFailedError: there are fewer.
        OSError: the share failed.
    """
    share = os.statvfs(os.path.dirname(path))
    free = share.f_bavail * share.f_frsize
    if free < needed:
        raise ShareFailedError(
            f"{path}: expected {human_size(needed)} of free space {purpose}, found {human_size(free)}",
            REMEDIES[errno.ENOSPC],
        )
