"""A trial overlay in the file system that Docker will use: what overlay2 and containerd's overlayfs need must work.

Boot path: imports os and fcntl only, and ctypes in the function that mounts. Two programs, unshare(1) and mount(8),
would open five times the files that ctypes does, and would need a shell between them to try more than the mounting.

The overlay is attached to no folder: fsopen(2), fsconfig(2) and fsmount(2) (Linux 5.2, glibc 2.36) give a descriptor
of it, which ends with this process, whatever ends that. What remains of a trial that was killed are some small files
in a folder of a fixed name; the next trial clears them away.

Whoever owns the top folder of the image, such as root in a container that has it as a volume, can put a link or a mount
in place of that folder. So nothing here goes by paths: each folder is opened in the one above it, through no link and
onto no other mount, and belongs to root alone, or it is refused as it is.
"""

import fcntl
import os

from rpinfs.boot.host import read_text
from rpinfs.boot.units import KEPT_FOLDER, RUNTIME_FOLDER
from rpinfs.errors import RpinfsError, quoted

TRIAL_FOLDER = "overlay-trial"
_CLOEXEC = 1
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIED = ("told", "lower", "upper", "work")
"""What a trial makes in its folder."""
_DEEPEST = 8
# By error number, where more can be said than where to look. Docker tries such an overlay itself and gives up as well.
_REMEDIES = {
    28: "it is full: set a larger Size= in rpinfs.conf, which the next boot gives it",
    19: "this kernel has no overlayfs: modprobe overlay",
}
_ELOOP, _EXDEV = 40, 18
# By error number, why a folder is not opened; 20 is ENOTDIR.
_ODD = {_ELOOP: "a symbolic link", 20: "something else", _EXDEV: "another mount"}


def try_overlay(where: str, runtime: str = RUNTIME_FOLDER) -> None:
    """Mount an overlay of folders in the file system at `where`, and have it do what containers do.

    Args:
        runtime: folder for the lock.

    Raises:
        RpinfsError: Docker's overlay drivers would not work there, or what lies in place of our folders is not ours.
        PermissionError: this is not root.
    """
    try:
        top = os.open(where, _FOLDER)
        try:
            lock = _locked(top, runtime)
            try:
                _try_alone(where, top)
            finally:
                os.close(lock)
        finally:
            os.close(top)
    except PermissionError:
        raise
    except OSError as error:
        raise RpinfsError(
            f"{where}: Docker's layers cannot be kept there, a trial overlay failed: {error.strerror}",
            _REMEDIES.get(error.errno or 0, "journalctl -k"),
        ) from error


def _locked(top: int, runtime: str) -> int:
    """Have the trials in one file system follow each other: the gate's, and those of `rpinfs check`.

    Where only root can open it: the mount point itself is a folder that anybody may lock, for ever.
    """
    _make_folder(runtime, 0o755)
    device = os.fstat(top).st_dev
    path = f"{runtime}/{TRIAL_FOLDER}-{os.major(device)}:{os.minor(device)}.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # The lock goes with the process.
        fcntl.flock(lock, fcntl.LOCK_EX)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _try_alone(where: str, top: int) -> None:
    kept = _own_folder(top, KEPT_FOLDER, f"{where}/{KEPT_FOLDER}")
    try:
        path = f"{where}/{KEPT_FOLDER}/{TRIAL_FOLDER}"
        folder = _own_folder(kept, TRIAL_FOLDER, path)
        try:
            _clear(folder, path)
            try:
                _need_d_type(where, folder)
                _need_layers(where, folder)
            finally:
                _clear(folder, path)
                os.rmdir(TRIAL_FOLDER, dir_fd=kept)
        finally:
            os.close(folder)
    finally:
        os.close(kept)
        _remove_empty(KEPT_FOLDER, top)


def _own_folder(parent: int, name: str, path: str) -> int:
    """Open a folder of root's own, made where it is not there. `path` is for messages."""
    _make_folder(name, 0o700, parent)
    try:
        folder = _open_folder(parent, name)
    except OSError as error:
        if error.errno not in _ODD:
            raise
        raise refused(path, _ODD[error.errno], f"umount {quoted(path)}" if error.errno == _EXDEV else "") from error
    found = os.fstat(folder)
    # Writable for others, or for a group other than root's.
    if found.st_uid or found.st_mode & (0o022 if found.st_gid else 0o002):
        os.close(folder)
        whose = f"one of user {found.st_uid}" if found.st_uid else "one that others can write to"
        raise refused(
            path, whose, f"look at what is in it, then: chown root:root {quoted(path)}; chmod go-w {quoted(path)}"
        )
    return folder


def _make_folder(name: str, mode: int, parent: "int | None" = None) -> None:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        # What it is shows when it is opened.
        return


def refused(path: str, found: str, remedy: str = "") -> RpinfsError:
    """What to raise where something else lies in place of a folder of ours."""
    return RpinfsError(
        f"{path}: expected a folder that rpinfs made, found {found}; it is left alone",
        remedy
        or f"look at what it is, then give it another name: mv -T --backup=numbered {quoted(path, path + '.odd')}",
    )


def _open_folder(parent: int, name: str) -> int:
    """Open a folder in an open folder. Raises OSError: ELOOP for a link, EXDEV where anything is mounted, ENOTDIR.

    Not by openat2(2), which has flags for all that: RestrictSUIDSGID= takes it from the gate.
    """
    try:
        folder = os.open(name, _FOLDER, dir_fd=parent)
    except NotADirectoryError:
        if os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode & 0o170000 == 0o120000:
            raise OSError(_ELOOP, os.strerror(_ELOOP)) from None
        raise
    if _mount_id(folder) == _mount_id(parent):
        return folder
    os.close(folder)
    raise OSError(_EXDEV, os.strerror(_EXDEV))


def _mount_id(descriptor: int) -> str:
    # proc_pid_fdinfo(5). A folder that is mounted from the same file system has its device, but not its mount.
    lines = read_text(f"/proc/self/fdinfo/{descriptor}").splitlines()
    return next((line for line in lines if line.startswith("mnt_id:")), f"unknown: {descriptor}")


def _need_d_type(where: str, folder: int) -> None:
    """Refuse a file system whose folders do not tell files from folders (overlayfs.rst: whiteouts would show)."""
    os.mkdir("told", dir_fd=folder)
    with os.scandir(folder) as found:
        entries = list(found)
    os.rmdir("told", dir_fd=folder)
    # With the folder gone, only what the listing itself told remains; scandir(3) would ask stat(2) otherwise.
    if not all(entry.is_dir(follow_symlinks=False) for entry in entries):
        raise RpinfsError(
            f"{where}: its file system keeps no d_type in its folders, which Docker's overlay drivers need",
            "make a new image (mkfs.xfs -n ftype=1, or ext4 with the feature filetype) and copy the data over",
        )


def _need_layers(where: str, folder: int) -> None:
    """Change, remove and rename in an overlay what the layer below has, and look at what must have come of it."""
    layers: list[int] = []
    try:
        for name in ("lower", "upper", "work"):
            os.mkdir(name, 0o700, dir_fd=folder)
            layers.append(_open_folder(folder, name))
        _use_layers(where, *layers)
    finally:
        for layer in layers:
            os.close(layer)


def _use_layers(where: str, lower: int, upper: int, work: int) -> None:
    os.mkdir("deleted", dir_fd=lower)
    for name in ("changed", "removed"):
        _write(name, "lower", lower, os.O_EXCL)
    # By descriptors: whatever has these names by now, it is these folders. Besides, in the options of an overlay
    # commas and colons are separators.
    options = (("lowerdir", lower), ("upperdir", upper), ("workdir", work))
    overlay = _mount_overlay({key: f"/proc/self/fd/{layer}" for key, layer in options})
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
    if (_read("changed", lower), _read("changed", upper)) != ("lower", "upper"):
        raise RpinfsError(f"{where}: an overlay does not keep its layers apart", "journalctl -k")


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


def _write(name: str, text: str, folder: int, flags: int = 0) -> None:
    flags |= os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(name: str, folder: int) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        return os.read(descriptor, 100).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


def _clear(folder: int, path: str) -> None:
    """Remove what a trial has left in its folder.

    Raises:
        RpinfsError: there is something else in it, and nothing was removed.
        OSError: something cannot be removed.
    """
    if others := sorted(set(os.listdir(folder)).difference(_TRIED)):
        raise refused(path, f"{others[0]} in it")
    _remove_all(folder, path, _DEEPEST)


def _remove_all(folder: int, path: str, depth: int) -> None:
    if not depth:
        raise refused(path, "deeper folders in it")
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.name, dir_fd=folder)
            continue
        try:
            inner = _open_folder(folder, entry.name)
        except OSError as error:
            if error.errno not in _ODD:
                raise
            raise refused(path, f"{_ODD[error.errno]} in it") from error
        try:
            _remove_all(inner, path, depth - 1)
        finally:
            os.close(inner)
        os.rmdir(entry.name, dir_fd=folder)


def _remove_empty(name: str, parent: int) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError:
        # What Bind= keeps is in it.
        return
