"""A whole copy of an image: made beside it under a working name, synced, and proven before it gets a name of its own.

How it is copied is in copying.py; what it is for, in taking.py and restoring.py.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from rpinfs.boot.settings import human_size
from rpinfs.boot.values import dataclass
from rpinfs.image import copying, publish
from rpinfs.image.check import check
from rpinfs.image.errors import ImageError
from rpinfs.image.freeze import Check
from rpinfs.image.make import prove_whole
from rpinfs.image.probe import Kind, probe
from rpinfs.system.run import Tell

Still = Callable[[], AbstractContextManager[Check]]
"""What keeps the source still for as long as a with statement lasts; it gives a check that it still is."""


@dataclass(frozen=True)
class Copied:
    """What was copied, by the superblock of the source.

    Attributes:
        size: bytes.
        uuid: of the file system.
        clean: whether it had been unmounted in order; None where only mounting can tell.
        seconds: when it was copied, by the clock of the NAS, since 1970: a Pi has no clock.
    """

    size: int
    uuid: str
    clean: bool | None
    seconds: int


@contextlib.contextmanager
def unused() -> Iterator[Check]:
    """Keeps still what nobody uses."""
    yield lambda: None


def duplicate(source: int, path: str, new: publish.Temporary, still: Still, progress: Tell) -> Copied:
    """Copy an image into a new, empty file, sync it and prove that it is whole.

    Args:
        source: the image, open; nothing is written to it.
        path: of the image.
        progress: told what is being done.

    Raises:
        ImageError: the source or the copy is no whole image.
        RpinfsError: it was not still, or a program failed.
        OSError: there is no room, or the share failed.
    """
    # While everything still moves: where the share clones, no room is needed.
    cloned = copying.clone(source, new.fd)
    if not cloned:
        _insist_on_room(source, new)
    progress("waiting for the file system to be still")
    with still() as is_still:
        os.fsync(source)
        os.utime(new.fd)
        seconds = int(os.fstat(new.fd).st_mtime)
        if not (cloned and copying.clone(source, new.fd)):
            copying.copy(source, path, new.fd, progress, is_still)
        found = copying.superblock_of(source)
        size = os.fstat(source).st_size
    if found is None:
        raise ImageError(f"{path}: expected an ext4 or xfs file system, found none")
    copied = Copied(size, found.uuid, found.clean, seconds)
    _settle(new, copied, progress)
    return copied


def _insist_on_room(source: int, new: publish.Temporary) -> None:
    needed = os.fstat(source).st_blocks * 512
    share = os.statvfs(os.path.dirname(new.path))
    free = share.f_bavail * share.f_frsize
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"expected {human_size(needed)} of free space on the share, found {human_size(free)}"
        )


def _settle(new: publish.Temporary, copied: Copied, progress: Tell) -> None:
    """Sync a copy and prove that it is whole.

    A file system that was frozen while it had deleted files open has them in its list of orphans, as after a power
    cut: ext4's are removed here; xfs does it when it is mounted.
    """
    progress("waiting for the share to store it")
    os.fsync(new.fd)
    os.posix_fadvise(new.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    check(new.path, progress)
    progress("verifying the copy")
    is_ext4 = probe(new.path).kind is Kind.EXT4
    prove_whole(new, copied.size, copied.uuid, ["e2fsck", "-f", "-n", new.path] if is_ext4 else None)
    os.fsync(new.fd)
