"""Putting a file in the place of another one, whole at every instant: one beside it, synced, and then renamed."""

import contextlib
import os
import stat
from collections.abc import Callable

_TEMPORARY = ".rpinfs-new-"


def replace_file(path: str, content: bytes, validate: Callable[[str], None]) -> None:
    """Put a file in the place of another one, with its owner and mode; `path` must be no symbolic link.

    Args:
        path: the file; it need not be there, nor its folder.
        content: its new bytes.
        validate: is called with the path of the new file; what it raises leaves all as it was.
    """
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    _remove_leftovers(folder, name)
    temporary = f"{folder}/.{name}{_TEMPORARY}{os.urandom(8).hex()}"
    try:
        _write(temporary, content, _state(path))
        validate(temporary)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    # The new file is in place: what fails from here on cannot leave half of it.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _state(path: str) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _write(path: str, content: bytes, old: os.stat_result | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        if old and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode) if old else 0o644)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _remove_leftovers(folder: str, name: str) -> None:
    """Of a run that was killed. Should another one be at it, its rename fails, and daemon.json stays as it is."""
    for left in os.listdir(folder):
        if left.startswith(f".{name}{_TEMPORARY}"):
            os.unlink(os.path.join(folder, left))
