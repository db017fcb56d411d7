"""Copying a tree with cp(1), and looking afterwards at what the copy is.

cp is in every Debian, keeps hard links, extended attributes, ACLs and holes, and makes reflinks where there are any.
That it says "done" is not taken for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from dataclasses import dataclass
from itertools import islice

from rpinfs.boot.settings import human_size
from rpinfs.errors import RpinfsError
from rpinfs.image.copying import FICLONE
from rpinfs.netboot.add.meter import Meter
from rpinfs.netboot.add.survey import Survey, lost, survey
from rpinfs.system import files
from rpinfs.system.run import CommandError, Tell, reporting, run
from rpinfs.system.trouble import REMEDIES

_INODE = 4096
"""Bytes. What a file takes beside its content, roughly: an inode, and its part of a folder."""

_CANNOT_KEEP = re.compile(r"\S*cp: (preserving permissions for|setting attribute|setting attributes for) ")


@dataclass(frozen=True)
class Copied:
    """What was copied, what the copy could not keep, and whether it shares its blocks with the original."""

    survey: Survey
    lost: list[str]
    shared: bool


def copy(source: str, target: str, tell: Tell, what: str) -> Copied:
    """Copy all that is in a folder into an empty one.

    Args:
        what: it is, for people: "the root".

    Raises:
        RpinfsError: there is no room, the copy fails, or is not whole.
        OSError: the original cannot be read.
    """
    found = survey(source, tell, what)
    shared = has_reflinks(source, target, found)
    if not shared:
        refuse_without_room(target, found, what)
    meter = Meter(tell, f"copying {what}", found.allocated)
    progress = _Progress(source, found, meter)
    with reporting() as (reader, writer):
        argv = ["cp", "--archive", "--verbose", "--reflink=auto", "--sparse=auto", "-T", source, target]
        try:
            run(argv, stdout=writer, report=(reader, progress), die_with_us=True)
        except CommandError as error:
            _judge(error, target)
    tell(f"writing {what} to the disk")
    run(["sync", "--file-system", target], die_with_us=True)
    return Copied(found, lost(found, survey(target, tell, f"the copy of {what}"), target), shared)


class _Progress:
    """Counts what cp says that it has begun to copy."""

    def __init__(self, source: str, found: Survey, meter: Meter) -> None:
        self._begin = f"'{source}/"
        self._sizes = found.entries
        self._meter = meter
        self._done = self._last = 0

    def __call__(self, line: str) -> None:
        name = line.removeprefix(self._begin).partition("' -> ")[0]
        if entry := self._sizes.get(name):
            self._done += self._last
            self._last = entry.size - entry.holes
            self._meter(self._done)


def _judge(error: CommandError, target: str) -> None:
    """Whether what cp complains of is told of later; raises RpinfsError where it is more than that."""
    said = [line for line in error.stderr.splitlines() if line.strip()]
    if error.returncode == 1 and said and all(_CANNOT_KEEP.match(line) for line in said):
        return
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        if os.strerror(number) in error.stderr:
            raise RpinfsError(f"{target}: {os.strerror(number)}", REMEDIES[number]) from error
    raise RpinfsError(
        f"{target}: cannot be copied to: {said[0].partition('cp: ')[2] if said else error.reason}"
    ) from error


def refuse_without_room(target: str, found: Survey, what: str) -> None:
    """Insist on room for a copy, in bytes and in inodes, before anything is written. Raises RpinfsError, OSError."""
    refuse_without_bytes(target, found.allocated + found.files * _INODE, what)
    there = os.statvfs(target)
    # File systems that make inodes on need say 0.
    if there.f_files and there.f_favail < found.files:
        raise RpinfsError(
            f"{target}: expected {found.files} free inodes for {what}, found {there.f_favail}", REMEDIES[errno.ENOSPC]
        )


def refuse_without_bytes(target: str, needed: int, what: str) -> None:
    """Insist on so many bytes of free space. Raises RpinfsError, OSError."""
    there = os.statvfs(target)
    free = there.f_bavail * there.f_frsize
    # One that does not tell how large it is (ramfs, some FUSE) has no blocks at all.
    if there.f_blocks and free < needed:
        raise RpinfsError(
            f"{target}: expected {human_size(needed)} of free space for {what}, found {human_size(free)}",
            REMEDIES[errno.ENOSPC],
        )


def has_reflinks(source: str, target: str, found: Survey) -> bool:
    """Whether a copy shares its blocks with the original, and so takes no room: tried out with some of its files.

    Not by the numbers of the devices: subvolumes of btrfs, as each shared folder of a Synology is one, have their own.
    """
    names = (name for name, one in found.entries.items() if stat.S_ISREG(one.mode) and one.size > one.holes)
    clone = f"{target}/.rpinfs-reflink"
    try:
        with open(os.open(clone, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC), "r+b") as made:
            return any(_is_cloned(made.fileno(), f"{source}/{name}") for name in islice(names, _MOST_TRIED))
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(clone)


_MOST_TRIED = 20
"""Some are shared on no file system: those without copy on write (chattr +C), those small enough for an inode."""


def _is_cloned(made: int, path: str) -> bool:
    try:
        with files.open_regular(path, os.O_RDONLY) as original:
            fcntl.ioctl(made, FICLONE, original)
    except OSError:
        return False
    return True


def insist_on_a_roots_file_system(folder: str) -> None:
    """See that a file system can hold a root at all: owners, modes, links, hard links. Raises RpinfsError, OSError."""
    path, other = f"{folder}/.rpinfs-try", f"{folder}/.rpinfs-try-2"
    step = "files"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        step = "owners (an export with root_squash, or a file system without any)"
        os.chown(path, 1, 1)
        if os.stat(path).st_uid != 1:
            raise OSError(errno.EPERM, "the owner stays another one")
        step = "modes"
        os.chmod(path, 0o4750)
        step = "hard links"
        os.link(path, other)
        os.unlink(other)
        step = "symbolic links"
        os.symlink("x", other)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise RpinfsError(
            f"{folder}: expected a file system that can hold a root, found one that refuses {step}: {error.strerror}",
            "choose a folder on ext4, xfs or btrfs, or an export with no_root_squash",
        ) from error
    finally:
        for left in (path, other):
            with contextlib.suppress(OSError):
                os.unlink(left)
