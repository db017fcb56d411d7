"""Whether overlayfs works in a folder: by doing it, as Docker would.

Docker's overlay2 and containerd's overlayfs need more of a file system than to be writable: d_type, whiteouts,
extended attributes, renames. The only way to know is a mount. It is made in a mount namespace of its own, in a hidden
folder that is removed whatever happens. The folder's file system is written to: not for every tick of a clock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator

from rpinfs import syscalls
from rpinfs.errors import RpinfsError
from rpinfs.units import KEPT_FOLDER

_PREFIX = "overlay-trial."


def trial(folder: str) -> None:
    """Try an overlay in a folder. The caller must be a child of its own: it ends up in another mount namespace.

    Raises:
        RpinfsError: overlayfs does not work there; the message says what failed.
        OSError: EPERM without root; else the file system of the folder failed.
    """
    syscalls.private_mounts()
    kept = f"{folder}/{KEPT_FOLDER}"
    os.makedirs(kept, mode=0o700, exist_ok=True)
    with _own_folder(kept) as own:
        _make_layers(own)
        if not _has_d_type(own):
            raise RpinfsError(
                f"{folder}: its file system has no d_type, without which Docker refuses overlay2",
                "make a new image: ext4 with the feature filetype, xfs with ftype=1, as rpinfs makes them",
            )
        merged = f"{own}/merged"
        options = f"lowerdir={own}/lower,upperdir={own}/upper,workdir={own}/work"
        try:
            syscalls.mount("overlay", merged, options)
        except OSError as error:
            raise RpinfsError(
                f"{folder}: an overlay cannot be mounted: {error.strerror}", "modprobe overlay; journalctl -k"
            ) from error
        try:
            _use(own)
        finally:
            syscalls.unmount(merged)


def _has_d_type(folder: str) -> bool:
    """Whether readdir(3) tells what an entry is. Where it does not, os.DirEntry has to ask, and the file is gone."""
    name = f"{folder}/d_type"
    _write(name, "")
    with os.scandir(folder) as entries:
        (entry,) = [entry for entry in entries if entry.path == name]
    os.unlink(name)
    return entry.is_file(follow_symlinks=False)


def _make_layers(own: str) -> None:
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{own}/{name}")
    for name in ("kept", "changed", "removed"):
        _write(f"{own}/lower/{name}", "lower")


def _use(own: str) -> None:
    """Do in the merged folder what containers do, and look at what must have come of it."""
    merged, upper = f"{own}/merged", f"{own}/upper"
    _write(f"{merged}/new", "upper")
    _write(f"{merged}/changed", "upper")
    os.unlink(f"{merged}/removed")
    os.rename(f"{merged}/new", f"{merged}/renamed")
    expected = ["changed", "kept", "renamed"]
    found = sorted(os.listdir(merged))
    if found != expected:
        raise RpinfsError(f"an overlay on {own} shows {' '.join(found)}, expected {' '.join(expected)}")
    if _read(f"{upper}/changed") != "upper" or _read(f"{own}/lower/changed") != "lower":
        raise RpinfsError(f"an overlay on {own} does not copy a changed file up")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


@contextlib.contextmanager
def _own_folder(kept: str) -> Iterator[str]:
    """A folder that nobody else uses, and that is gone afterwards. Its lock tells it from one that was left behind."""
    with contextlib.ExitStack() as held:
        # Whoever makes one or removes leftovers has the lock of the folder around them: a new one is locked at once.
        with _lock(kept):
            _remove_leftovers(kept)
            path = tempfile.mkdtemp(prefix=_PREFIX, dir=kept)
            held.enter_context(_lock(path))
            held.callback(shutil.rmtree, path)
        yield path


def _remove_leftovers(kept: str) -> None:
    """Remove the folders of trials that were killed, and with them their locks."""
    with os.scandir(kept) as entries:
        paths = [f"{kept}/{entry.name}" for entry in entries if entry.name.startswith(_PREFIX)]
    for path in paths:
        # Another trial may be removing it, or be in the midst of it.
        with contextlib.suppress(FileNotFoundError, BlockingIOError), _lock(path, fcntl.LOCK_NB):
            shutil.rmtree(path)


@contextlib.contextmanager
def _lock(folder: str, how: int = 0) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(descriptor)
