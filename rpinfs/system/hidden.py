"""Files that lie hidden under a mount point: written while nothing was mounted there, and out of sight ever since.

They take room on the root that nobody finds, and come to light, old as they are, whenever the mount is missing. A copy
of the mount below, without what is mounted on top of it, shows them. Only names and sizes are read, and nothing is ever
changed. A walk may be long, and waits for a NAS that is gone: call `find` in a child with a time to live (deadline.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

from rpinfs.boot.storage import Mount
from rpinfs.boot.values import dataclass
from rpinfs.system.syscalls import copy_of_mount

NAMES_SHOWN = 3
"""How many of the largest entries are named."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Hidden:
    """What lies under one mount point.

    Attributes:
        below: the mount point of the file system that they are in.
        files: number of files; folders do not count, since systemd makes a mount point that is not there.
        size: bytes that they take where they are stored.
        largest: the entries of the folder itself that take most, with all that is in them; name and bytes.
        complete: false where the time was up before all was seen.
    """

    where: str
    below: str
    files: int
    size: int
    largest: tuple[tuple[str, int], ...]
    complete: bool


def find(where: Sequence[str], mounts: Sequence[Mount], seconds: float) -> list[Hidden]:
    """Look under mount points, which together have so many seconds; places where nothing is mounted are left out.

    Raises:
        OSError: EPERM without root.
    """
    deadline = time.monotonic() + seconds
    mounted = {mount.where for mount in mounts}
    return [_under(one, _mount_below(one, mounts), deadline) for one in where if one in mounted]


def _mount_below(where: str, mounts: Sequence[Mount]) -> str:
    """The mount point of the file system that a mount point is a folder of."""
    above = [
        mount.where for mount in mounts if where.startswith(mount.where.rstrip("/") + "/") and mount.where != where
    ]
    return max(above, key=len, default="/")


def _under(where: str, below: str, deadline: float) -> Hidden:
    copy = copy_of_mount(below)
    try:
        folder = _open_below(copy, os.path.relpath(where, below))
    except (FileNotFoundError, NotADirectoryError):
        # The mount that is there was made upon another one, or its folder was removed from below it.
        return Hidden(where, below, 0, 0, (), complete=True)
    finally:
        os.close(copy)
    try:
        files, sizes, complete = _counted(folder, deadline)
    finally:
        os.close(folder)
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:NAMES_SHOWN]
    return Hidden(where, below, files, sum(sizes.values()), tuple(largest), complete)


def _counted(top: int, deadline: float) -> tuple[int, dict[str, int], bool]:
    """Count the files below an open folder, and their bytes for each entry of it; false when the time was up."""
    files, sizes = 0, dict[str, int]()
    for path, size in _entries(top):
        if size is not None:
            files += 1
            name = path.split("/")[1]
            sizes[name] = sizes.get(name, 0) + size
        if time.monotonic() > deadline:
            return files, sizes, False
    return files, sizes, True


def _open_below(top: int, path: str) -> int:
    """Open a folder step by step: a link on the way, which would lead out of the copy, is no folder."""
    folder = os.dup(top)
    for name in path.split("/"):
        try:
            inner = os.open(name, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


def _entries(top: int) -> Iterator[tuple[str, int | None]]:
    """All entries below an open folder: path from it on, and bytes that a file takes.

    No link is followed and no other file system entered, whatever takes the place of a folder meanwhile: what is opened
    must be what was listed.
    """
    device = os.fstat(top).st_dev
    pending = [(".", os.fstat(top).st_ino)]
    while pending:
        path, number = pending.pop()
        try:
            folder = os.open(path, _FOLDER, dir_fd=top)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            found = os.fstat(folder)
            if (found.st_dev, found.st_ino) != (device, number):
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    below = f"{path}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((below, entry.inode()))
                        yield below, None
                    else:
                        yield below, entry.stat(follow_symlinks=False).st_blocks * 512
        finally:
            os.close(folder)
