"""Giving freed blocks back: what containers have removed takes room on the NAS until somebody says that it is free.

fstrim(8) tells the file system in the image, that tells the loop device, that punches holes into the file on the share,
and NFS 4.2 sends those as DEALLOCATE. Older versions of NFS have no word for it. The chain breaks in silence: a loop
device on NFS offers discard whatever the version is, and the block layer takes "not supported" for done, so that fstrim
counts gigabytes of which the NAS never hears (nfs4_file_operations and blkdev_issue_discard() in Linux 6.1 to 6.12).
So each link is looked at beforehand, and the success is measured at the file.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TypeVar

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.host import read_text
from rpinfs.boot.storage import Loop, Mount
from rpinfs.boot.values import dataclass
from rpinfs.errors import RpinfsError
from rpinfs.image import door
from rpinfs.image.remedy import FOR_TWO
from rpinfs.system import deadline, syscalls
from rpinfs.system.files import move_away, open_own, open_regular
from rpinfs.system.run import Tell, run

T = TypeVar("T")

ANSWER_SECONDS = 10.0
"""For the small questions to the share."""

_HOLE = 4096
_BLOCK = 512  # the unit of st_blocks


class CannotTrim(RpinfsError):
    """Freed blocks cannot be given back here; nothing has been tried."""


@dataclass(frozen=True)
class Trimmed:
    """What came of it. Bytes.

    Attributes:
        path: the image.
        before, after: what it takes on the NAS.
        held: what the files in it take, as df(1) has it: without its own tables and journal.
    """

    path: str
    before: int
    after: int
    held: int

    @property
    def given_back(self) -> int:
        """How much less the image takes; 0 where containers wrote more meanwhile."""
        return max(0, self.before - self.after)


@dataclass(frozen=True)
class Chain:
    """What the discards of an image pass through."""

    where: str
    mount: Mount
    loop: Loop
    below: Mount  # of the file system that the image file lies on
    discards: bool  # whether the loop device takes any


def trim(image: Image, mounts: list[Mount], progress: Tell) -> Trimmed:
    """Give the freed blocks of a mounted image back. It can take minutes, and as long as the NAS is silent.

    Args:
        mounts: the mount table of the running system.
        progress: is told what is being done.

    Raises:
        CannotTrim: it is not mounted, or the share has no way to do it.
        RpinfsError: the share gave no answer, another Pi has the image, the file system is damaged, or fstrim failed.
    """
    chain = _chain(image, mounts)
    refuse(image.name, chain)
    path = chain.loop.backing_file
    _ask(chain, door.refuse_taken, path, FOR_TWO)
    _ask(chain, _refuse_without_holes, image.name, path)
    # Blocks that were freed a moment ago are free for good, and found, only when their transaction is.
    progress(f"{chain.where}: writing what is not yet written")
    run(["sync", "--file-system", chain.where], die_with_us=True)
    before = _ask(chain, allocated, path)
    progress(f"{chain.where}: looking for free blocks")
    run(["fstrim", chain.where], die_with_us=True)
    after = _ask(chain, allocated, path)
    return Trimmed(path, before, after, held(chain.where))


def refuse(name: str, chain: Chain) -> None:
    """Say why an image cannot be trimmed, from the tables of the kernel alone.

    Raises:
        CannotTrim, RpinfsError: see trim().
    """
    version = chain.below.nfs_version
    if chain.below.is_nfs and version != "4.2":
        raise CannotTrim(
            f"image {name}: the share {chain.below.where} is mounted with NFS {version}, and only NFS 4.2 can free"
            " blocks inside a file",
            "if the NAS has NFS 4.2: set Version=4.2 in [Server] of /etc/rpinfs/rpinfs.conf, then reboot",
        )
    if not chain.discards:
        # Newer kernels take the offer back when the first discard has failed (loop_clear_limits(), Linux 6.10).
        raise CannotTrim(
            f"image {name}: {chain.loop.path} offers no discard: what holds {chain.loop.backing_file} has refused to"
            " free blocks inside it",
            _NO_HOLES,
        )
    # What a damaged file system takes for free may hold data.
    if not chain.mount.writable or storage.ext4_errors(chain.loop.name):
        raise RpinfsError(
            f"image {name}: its file system at {chain.where} is read-only or has errors; nothing in it is given away",
            "rpinfs check mount",
        )


_NO_HOLES = "on the NAS, have the share on a file system with sparse files, such as ext4, xfs, btrfs or ZFS"


def _chain(image: Image, mounts: list[Mount]) -> Chain:
    mount = storage.mount_at(mounts, image.where)
    loop = storage.loop_of(mount) if mount else None
    if mount is None or loop is None:
        raise CannotTrim(f"image {image.name} is not mounted at {image.where}", "rpinfs status")
    if loop.backing_file.endswith(" (deleted)"):
        raise CannotTrim(f"image {image.name}: its file {loop.backing_file} is gone", "rpinfs status")
    discards = read_text(f"/sys/block/{loop.name}/queue/discard_max_bytes").strip() not in ("", "0")
    return Chain(image.where, mount, loop, mount_of(loop.backing_file, mounts), discards)


def mount_of(path: str, mounts: list[Mount]) -> Mount:
    """Find the mount that a file is on; without a look at the file, which could hang."""
    below = [one for one in mounts if one.where == "/" or path.startswith(f"{one.where}/")]
    # Of several at one place, the last is on top, and max() takes the first.
    return max(reversed(below), key=lambda one: len(one.where))


def allocated(path: str) -> int:
    """Bytes that a file takes where it lies. Opened for it: that makes NFS ask the server and not its own memory."""
    with open_regular(path, os.O_RDONLY) as fd:
        return os.fstat(fd).st_blocks * _BLOCK


def held(where: str) -> int:
    """Bytes that the files in a mounted file system take."""
    space = os.statvfs(where)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


def punches_holes(path: str) -> bool:
    """Whether blocks inside a file can be freed; tried at path, on an empty file of ours that is gone afterwards.

    Raises:
        RpinfsError: something else is at path.
        OSError: the share failed.
    """
    try:
        fd = open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            if os.fstat(fd).st_size:
                raise RpinfsError(
                    f"{path}: expected an empty file of rpinfs trim, found one of {os.fstat(fd).st_size} bytes",
                    f"look at what it is, then give it another name: {move_away(path)}",
                )
            syscalls.punch_hole(fd, 0, _HOLE)
        finally:
            os.close(fd)
    except OSError as error:
        # On a full share nothing can be tried, and there is all the more to give back.
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSPC, errno.EDQUOT):
            raise
        possible = error.errno != errno.EOPNOTSUPP
    else:
        possible = True
    with contextlib.suppress(FileNotFoundError):  # Two at once share it.
        os.unlink(path)
    return possible


def _refuse_without_holes(name: str, path: str) -> None:
    folder, _, file = path.rpartition("/")
    if not punches_holes(f"{folder}/.{file}.rpinfs-trim"):
        raise CannotTrim(f"image {name}: the server of {folder} cannot free blocks inside a file", _NO_HOLES)


def _ask(chain: Chain, question: Callable[..., T], *args: object) -> T:
    """Ask what touches the share, and do not wait longer than for an answer."""
    try:
        return deadline.within(ANSWER_SECONDS, question, *args)
    except deadline.TimedOut as silence:
        raise RpinfsError(f"{chain.below.where} gave {silence.message}", "rpinfs check share") from silence
    except OSError as error:
        raise RpinfsError(f"{chain.loop.backing_file}: {error.strerror}") from error
