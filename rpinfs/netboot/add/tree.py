"""A root or a boot folder that is being made: files in it are read and written, and no link in it is followed.

An image is somebody else's: its /etc may be a link to this machine's, and its /etc/hostname a device. So every folder
on the way is opened by itself, and what is written takes the place of whatever had the name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from rpinfs.system.files import folder_in

LARGEST = 1 << 20
"""Bytes. No text that is changed here is larger."""

_NEW = ".rpinfs-new"


class Tree:
    """A folder and what is below it. Paths are relative to it, without .. and links."""

    def __init__(self, top: str) -> None:
        self.top = top

    def path(self, inside: str) -> str:
        """Where a path within is on this machine."""
        return f"{self.top}/{inside}"

    @contextlib.contextmanager
    def folder(self, inside: str, *, make: bool = False) -> Iterator[int]:
        """Open a folder within. Raises OddFileError where a part of the way is something else, OSError."""
        fd = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        path = self.top
        try:
            for name in [part for part in inside.split("/") if part]:
                path = f"{path}/{name}"
                outer, fd = fd, folder_in(fd, name, path, make=make)
                os.close(outer)
            yield fd
        finally:
            os.close(fd)

    def kind(self, inside: str) -> int:
        """Type of what has a name, as stat.S_IFMT() has it, links not followed; 0 where nothing has it."""
        folder, name = os.path.split(inside)
        try:
            with self.folder(folder) as fd:
                return stat.S_IFMT(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def has(self, inside: str) -> bool:
        """Whether anything has this name."""
        return self.kind(inside) != 0

    def names(self, inside: str) -> list[str]:
        """What is in a folder, sorted; nothing where it is not there."""
        try:
            with self.folder(inside) as fd:
                return sorted(os.listdir(fd))
        except FileNotFoundError:
            return []

    def read(self, inside: str) -> str:
        """A text; empty where there is no regular file of this name. Bytes that are no UTF-8 become surrogates."""
        if self.kind(inside) != stat.S_IFREG:
            return ""
        folder, name = os.path.split(inside)
        with self.folder(folder) as fd:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
            with open(file, "rb") as opened:
                data = opened.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise OSError(errno.EFBIG, f"expected a text of at most {LARGEST} bytes", self.path(inside))
        return data.decode("utf-8", "surrogateescape")

    def write(self, inside: str, text: str, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        """Put a file in the place of whatever has the name; folders on the way are made. Raises OSError."""
        folder, name = os.path.split(inside)
        with self._named(inside), self.folder(folder, make=True) as fd:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name + _NEW, dir_fd=fd)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(name + _NEW, flags, 0o600, dir_fd=fd), "wb") as file:
                if owner != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), *owner)
                os.fchmod(file.fileno(), mode)
                file.write(text.encode("utf-8", "surrogateescape"))
            os.rename(name + _NEW, name, src_dir_fd=fd, dst_dir_fd=fd)

    def make_folder(self, inside: str, mode: int, owner: tuple[int, int]) -> None:
        """Make a folder, and give it a mode and an owner. Raises OSError."""
        with self._named(inside), self.folder(inside, make=True) as fd:
            os.fchown(fd, *owner)
            os.fchmod(fd, mode)

    def link(self, inside: str, target: str) -> None:
        """Make a symbolic link, in the place of a file or link that has the name. Raises OSError."""
        folder, name = os.path.split(inside)
        with self._named(inside), self.folder(folder, make=True) as fd:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
            os.symlink(target, name, dir_fd=fd)

    def remove(self, inside: str) -> bool:
        """Remove a file or link; False where nothing has the name. Raises OSError."""
        folder, name = os.path.split(inside)
        try:
            with self._named(inside), self.folder(folder) as fd:
                os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            return False
        return True

    def rename(self, inside: str, name: str) -> None:
        """Give a file another name in its folder. Raises OSError."""
        folder, old = os.path.split(inside)
        with self._named(inside), self.folder(folder) as fd:
            os.rename(old, name, src_dir_fd=fd, dst_dir_fd=fd)

    @contextlib.contextmanager
    def _named(self, inside: str) -> Iterator[None]:
        """Errors of calls on open files do not say which file it was."""
        try:
            yield
        except OSError as error:
            raise type(error)(error.errno, error.strerror, self.path(inside)) from error
