"""A trial overlay in the file system that Docker will use: what overlay2 and containerd's overlayfs need must work.

Boot path: imports os and fcntl only, and ctypes in the function that mounts. Two programs, unshare(1) and mount(8),
would open five times the files that ctypes does, and would need a shell between them to try more than the mounting.

The overlay is attached to no folder: fsopen(2), fsconfig(2) and fsmount(2) (Linux 5.2, glibc 2.36) give a descriptor
of it, which ends with this process, whatever ends that. What remains of a trial that was killed are some small files
in a folder of a fixed name; the next trial clears them away.
"""

import fcntl
import os

from rpinfs.boot.units import KEPT_FOLDER
from rpinfs.errors import RpinfsError

TRIAL_FOLDER = "overlay-trial"
_CLOEXEC = 1
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6
# By error number, where more can be said than where to look. Docker tries such an overlay itself and gives up as well.
_REMEDIES = {
    28: "it is full: set a larger Size= in rpinfs.conf, which the next boot gives it",
    19: "this kernel has no overlayfs: modprobe overlay",
}


def try_overlay(where: str) -> None:
    """Mount an overlay of folders in the file system at `where`, and have it do what containers do.

    Raises:
        RpinfsError: Docker's overlay drivers would not work there.
        PermissionError: this is not root.
    """
    try:
        # The gate and `rpinfs check` may come at the same time; the lock goes with the process.
        lock = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _try_alone(where)
        finally:
            os.close(lock)
    except PermissionError:
        raise
    except OSError as error:
        raise RpinfsError(
            f"{where}: Docker's layers cannot be kept there, a trial overlay failed: {error.strerror}",
            _REMEDIES.get(error.errno or 0, "journalctl -k"),
        ) from error


def _try_alone(where: str) -> None:
    kept = f"{where}/{KEPT_FOLDER}"
    folder = f"{kept}/{TRIAL_FOLDER}"
    _remove(folder)
    os.makedirs(folder, mode=0o700)
    try:
        _need_d_type(where, folder)
        _need_layers(where, folder)
    finally:
        _remove(folder)
        _remove_empty(kept)


def _need_d_type(where: str, folder: str) -> None:
    """Refuse a file system whose folders do not tell files from folders (overlayfs.rst: whiteouts would show)."""
    os.mkdir(f"{folder}/told")
    with os.scandir(folder) as found:
        entries = list(found)
    os.rmdir(f"{folder}/told")
    # With the folder gone, only what the listing itself told remains; scandir(3) would ask stat(2) otherwise.
    if not all(entry.is_dir(follow_symlinks=False) for entry in entries):
        raise RpinfsError(
            f"{where}: its file system keeps no d_type in its folders, which Docker's overlay drivers need",
            "make a new image (mkfs.xfs -n ftype=1, or ext4 with the feature filetype) and copy the data over",
        )


def _need_layers(where: str, folder: str) -> None:
    """Change, remove and rename in an overlay what the layer below has, and look at what must have come of it."""
    for name in ("lower", "upper", "work", "lower/deleted"):
        os.mkdir(f"{folder}/{name}")
    for name in ("changed", "removed"):
        _write(f"{folder}/lower/{name}", "lower")
    overlay = _overlay_in(folder)
    try:
        _write("changed", "upper", overlay)
        # A whiteout in the upper layer: a device node that is put in place by RENAME_WHITEOUT.
        os.unlink("removed", dir_fd=overlay)
        os.rmdir("deleted", dir_fd=overlay)
        # A new folder over it is marked with a trusted xattr.
        os.mkdir("deleted", dir_fd=overlay)
        _write("new", "upper", overlay)
        os.rename("new", "renamed", src_dir_fd=overlay, dst_dir_fd=overlay)
        found = _listing(overlay)
    finally:
        os.close(overlay)
    expected = ["changed", "deleted", "renamed"]
    if found != expected:
        raise RpinfsError(
            f"{where}: an overlay shows {' '.join(found)}, expected {' '.join(expected)}", "journalctl -k"
        )
    if (_read(f"{folder}/lower/changed"), _read(f"{folder}/upper/changed")) != ("lower", "upper"):
        raise RpinfsError(f"{where}: an overlay does not keep its layers apart", "journalctl -k")


def _overlay_in(folder: str) -> int:
    # Relative names, as Docker uses them too: in the options of an overlay, commas and colons are separators.
    os.chdir(folder)
    try:
        return _mount_overlay({"lowerdir": "lower", "upperdir": "upper", "workdir": "work"})
    finally:
        os.chdir("/")


def _mount_overlay(options: "dict[str, str]") -> int:
    """Give the descriptor of an overlay that is mounted nowhere. Raises OSError."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    context = checked(libc.fsopen(b"overlay", _CLOEXEC))
    try:
        for key, value in options.items():
            checked(libc.fsconfig(context, _FSCONFIG_SET_STRING, key.encode(), value.encode(), 0))
        checked(libc.fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0))
        return checked(libc.fsmount(context, _CLOEXEC, 0))
    finally:
        os.close(context)


def _listing(mount: int) -> "list[str]":
    # What fsmount(2) gives names the place only (O_PATH).
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    try:
        return sorted(os.listdir(folder))
    finally:
        os.close(folder)


def _write(path: str, text: str, folder: "int | None" = None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 100).decode()
    finally:
        os.close(descriptor)


def _remove(folder: str) -> None:
    """Remove a folder with all in it, if it is there. Raises OSError."""
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _remove(entry.path)
        else:
            os.unlink(entry.path)
    os.rmdir(folder)


def _remove_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        # What Bind= keeps is in it.
        return
