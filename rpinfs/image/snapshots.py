"""Snapshots of images: taken while Docker runs, listed, and put back.

A snapshot is a whole image beside the image, `IMAGE.snapshot-YYYYMMDDTHHMMSSZ`. The rules that nothing here may break:

1. A snapshot is one instant of the file system: it is frozen while it is copied, and thawed whatever happens
   (freeze.py). It appears under its name only when it is whole, checked and synced (publish.py).
2. Nothing here writes to a snapshot, or to an image. A restored image is a copy of a snapshot that takes the image's
   name; what had that name is `IMAGE.replaced` then, until the agent has seen the restored one mounted.
3. Nothing is removed but what we made. Of an `IMAGE.replaced` the record `.IMAGE.rpinfs-replaced` says so, by the
   number of its inode; it is written first.

Restoring takes these steps, after each of which the power may go:

    the copy is whole, synced and checked       the image is the old one; the next attempt removes the copy
    the record                                  the image is the old one
    link(IMAGE, IMAGE.replaced)                 the image is the old one, by two names
    rename(copy, IMAGE)                         the image is the restored one

A share without hard links has rename(IMAGE, IMAGE.replaced) in place of the third; before the fourth there is no image
then, and put_back() gives it its name again.
"""

import calendar
import contextlib
import errno
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.host import read_text
from rpinfs.boot.settings import REPLACED, SNAPSHOT_MARK, human_size
from rpinfs.boot.units import RUNTIME_FOLDER, mount_unit
from rpinfs.image import copying, freeze, publish
from rpinfs.image.check import check as check_image
from rpinfs.image.errors import ImageError, as_image_error
from rpinfs.image.freeze import LIMIT_SECONDS, Check
from rpinfs.image.make import prove_whole
from rpinfs.image.probe import Kind, probe, refuse_attached, verify
from rpinfs.image.protection import refuse_marked
from rpinfs.lease.lease import Owner, acquire, let_go
from rpinfs.system.files import open_regular, sync_folder
from rpinfs.system.run import Tell, silent

_TIME = "%Y%m%dT%H%M%SZ"
_LONGEST_RECORD = 4096


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of an image.

    Attributes:
        path: of its file.
        time: when it was taken, by the clock of the NAS, in seconds since 1970.
        size: length in bytes.
        allocated: bytes that it takes on the NAS; blocks that it shares with the image count for both.
        remarks: what a person should know about how it was taken.
    """

    path: str
    time: int
    size: int
    allocated: int
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of its file."""
        return os.path.basename(self.path)

    @property
    def when(self) -> str:
        """The time for people."""
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.time))


# --- Listing -----------------------------------------------------------------------------------------------


def snapshots(path: str) -> list[Snapshot]:
    """The snapshots of the image with this path, the oldest first. Raises OSError."""
    folder, name = os.path.split(path)
    form = re.compile(re.escape(name + SNAPSHOT_MARK) + r"(\d{8}T\d{6}Z)")
    found = []
    for entry in os.listdir(folder):
        match = form.fullmatch(entry)
        if match and (snapshot := _seen(f"{folder}/{entry}", match[1])):
            found.append(snapshot)
    return sorted(found, key=lambda one: one.time)


def _seen(path: str, when: str) -> Snapshot | None:
    """None where there is none: a name that only looks so, or the empty file of an attempt that was interrupted."""
    try:
        seconds = calendar.timegm(time.strptime(when, _TIME))
        status = os.lstat(path)
    except (ValueError, FileNotFoundError):
        return None
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return None
    return Snapshot(path, seconds, status.st_size, status.st_blocks * 512)


# --- Taking ------------------------------------------------------------------------------------------------


def take(
    image: Image,
    owner: Owner,
    progress: Tell = silent,
    *,
    freeze_limit: float = LIMIT_SECONDS,
    runtime: str = RUNTIME_FOLDER,
) -> Snapshot:
    """Take a snapshot of an image, whether it is mounted here or not. To be called by a process of one thread.

    Args:
        progress: told what is being done, in ASCII.
        freeze_limit: seconds for which the file system may be frozen; then the snapshot is given up.
        runtime: folder for the marker of what is frozen.

    Raises:
        RpinfsError: the image is not one or not ours, there is no room, or a step failed. Nothing is frozen, there is
            no snapshot, and the image is as it was.
    """
    with (
        as_image_error(image.path, "no snapshot can be taken"),
        _held(image, owner, freeze_limit, runtime, progress) as still,
    ):
        _clear_up(image.path, progress)
        with publish.temporary(image.path, progress) as new:
            publish.take_ownership(new.fd, image.path, progress)
            with open_regular(image.path, os.O_RDONLY) as source:
                cloned = _clone_or_insist_on_room(source, new)
                progress("waiting for the file system to be still")
                with still() as check:
                    os.fsync(source)
                    os.utime(new.fd)
                    # The server's time: a Pi has no clock.
                    seconds = int(os.fstat(new.fd).st_mtime)
                    copied = _copy_still(source, image.path, new, cloned, progress, check)
            _settle(new, copied, progress)
            path = _name_snapshot(new, image.path, seconds)
            allocated = os.fstat(new.fd).st_blocks * 512
        sync_folder(path)
    return Snapshot(path, _time_of(path), copied.size, allocated, _remarks(copied))


Still = Callable[[], AbstractContextManager[Check]]


@contextlib.contextmanager
def _held(image: Image, owner: Owner, limit: float, runtime: str, progress: Tell) -> Iterator[Still]:
    """Have a hold on the image, and a way to keep it still: by freezing it, or because nobody uses it."""
    mount = _mount_of(image)
    if mount is not None:
        with freeze.guarded(image.name, mount, limit, runtime) as freezer:
            yield freezer.frozen
    else:
        with _leased(image, owner, progress):
            verify(probe(image.path))
            yield _unused


@contextlib.contextmanager
def _unused() -> Iterator[Check]:
    yield lambda: None


def _mount_of(image: Image) -> storage.Mount | None:
    mount = storage.mount_at(storage.parse_mountinfo(read_text("/proc/self/mountinfo")), image.where)
    loop = storage.loop_of(mount) if mount else None
    return mount if loop and loop.backing_file == image.path else None


@contextlib.contextmanager
def _leased(image: Image, owner: Owner, progress: Tell) -> Iterator[None]:
    """Have the image for ourselves: no other Pi, no agent, no loop device."""
    let_go(image.path, None)
    lease = acquire(image.path, owner, image.name, take_up=False) if image.fence != "mmp" else None
    try:
        if os.path.lexists(image.path):
            refuse_attached(image.path)
            if lease is None:
                refuse_marked(image.path, progress)
        yield
    finally:
        if lease is not None:
            lease.close()


def _clear_up(path: str, progress: Tell) -> None:
    """Remove what interrupted attempts have left: temporary files, and on a share without links claimed names."""
    publish.remove_leftovers(path, progress)
    folder, name = os.path.split(path)
    form = re.compile(re.escape(name + SNAPSHOT_MARK) + r"\d{8}T\d{6}Z")
    for entry in os.listdir(folder):
        if form.fullmatch(entry):
            status = os.lstat(f"{folder}/{entry}")
            if stat.S_ISREG(status.st_mode) and not status.st_size:
                os.unlink(f"{folder}/{entry}")


def _clone_or_insist_on_room(source: int, new: publish.Temporary) -> bool:
    """Try a clone while everything still moves: where the share clones, no room is needed."""
    if copying.clone(source, new.fd):
        return True
    needed = os.fstat(source).st_blocks * 512
    share = os.statvfs(os.path.dirname(new.path))
    free = share.f_bavail * share.f_frsize
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"expected {human_size(needed)} of free space on the share, found {human_size(free)}"
        )
    return False


@dataclass(frozen=True)
class _Copied:
    """What was copied, by the superblock of the source: size in bytes, UUID, whether it was unmounted in order."""

    size: int
    uuid: str
    clean: bool | None


def _copy_still(source: int, path: str, new: publish.Temporary, cloned: bool, progress: Tell, check: Check) -> _Copied:
    """Copy what nobody writes to now."""
    if not (cloned and copying.clone(source, new.fd)):
        copying.copy(source, path, new.fd, progress, check)
    found = copying.superblock_of(source)
    if found is None:
        raise ImageError(f"{path}: expected an ext4 or xfs file system, found none")
    return _Copied(os.fstat(source).st_size, found.uuid, found.clean)


def _remarks(copied: _Copied) -> tuple[str, ...]:
    if copied.clean is False:
        return ("the image had not been unmounted in order; e2fsck has put the snapshot right",)
    return ()


def _settle(new: publish.Temporary, copied: _Copied, progress: Tell) -> None:
    """Sync a copy and prove that it is whole.

    A file system that was frozen while it had deleted files open has them in its list of orphans, as after a power
    cut: ext4's are removed here; xfs does it when it is mounted.
    """
    progress("waiting for the share to store it")
    os.fsync(new.fd)
    os.posix_fadvise(new.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    check_image(new.path, progress)
    progress("verifying the copy")
    is_ext4 = probe(new.path).kind is Kind.EXT4
    prove_whole(new, copied.size, copied.uuid, ["e2fsck", "-f", "-n", new.path] if is_ext4 else None)
    os.fsync(new.fd)


def _name_snapshot(new: publish.Temporary, path: str, seconds: int) -> str:
    """Give the snapshot the name of its second, or of the next that is free."""
    while True:
        name = path + SNAPSHOT_MARK + time.strftime(_TIME, time.gmtime(seconds))
        try:
            publish.take_free_name(new, name)
        except FileExistsError:
            seconds += 1
        else:
            return name


def _time_of(path: str) -> int:
    return calendar.timegm(time.strptime(path[-16:], _TIME))


# --- Restoring ---------------------------------------------------------------------------------------------


def restore(image: Image, owner: Owner, which: str, progress: Tell = silent) -> Snapshot:
    """Give a copy of a snapshot the name of its image, which must not be in use.

    Args:
        which: name of the snapshot's file, or its end, the time.

    Raises:
        RpinfsError: the image is in use or another Pi's, there is no such snapshot, it is damaged, there is no room,
            or a step failed. The image is as it was.
    """
    _refuse_used(image)
    with as_image_error(image.path, "cannot be restored"), _leased(image, owner, progress):
        put_back(image.path)
        publish.remove_leftovers(image.path, progress)
        wanted = _find(image, which)
        _refuse_replaced(image)
        present = _is_present(image.path)
        with publish.temporary(image.path, progress) as new:
            publish.take_ownership(new.fd, image.path if present else wanted.path, progress)
            with open_regular(wanted.path, os.O_RDONLY) as source:
                cloned = _clone_or_insist_on_room(source, new)
                copied = _copy_still(source, wanted.path, new, cloned, progress, lambda: None)
            _settle(new, copied, progress)
            if present:
                _replace(new, image.path)
            else:
                publish.take_free_name(new, image.path)
        sync_folder(image.path)
    return wanted


def _refuse_used(image: Image) -> None:
    for loop in storage.loops_on(image.path):
        raise ImageError(f"{image.path}: is in use: attached to {loop.path}", stop_line(image))


def stop_line(image: Image) -> str:
    """The command that stops everything that uses an image."""
    units = [*image.before, *(mount_unit(where) for where in image.bind), mount_unit(image.where), "rpinfs-agent"]
    return f"systemctl stop {' '.join(units)}"


def _find(image: Image, which: str) -> Snapshot:
    found = snapshots(image.path)
    for snapshot in found:
        if which in (snapshot.name, snapshot.path, snapshot.name.rpartition(SNAPSHOT_MARK)[2]):
            return snapshot
    known = ", ".join(snapshot.name for snapshot in found) or "none"
    raise ImageError(f"{image.path}: no snapshot {which}; there are: {known}", f"rpinfs snapshot --list {image.name}")


def _is_present(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path}: expected an image or nothing, found something else; it is left alone")
    return True


def _refuse_replaced(image: Image) -> None:
    replaced = image.path + REPLACED
    if not os.path.lexists(replaced):
        return
    if _is_ours(image.path):
        raise ImageError(
            f"{replaced}: was replaced by a restored image that has not been mounted since",
            f"start Docker, and it is removed; or, to have it back: mv {replaced} {image.path}",
        )
    raise ImageError(f"{replaced}: is in the way, and not of rpinfs's making", "give it another name")


# --- The image that is replaced ----------------------------------------------------------------------------


def _replace(new: publish.Temporary, path: str) -> None:
    """Let the copy take the image's name, and the image have another one."""
    replaced = path + REPLACED
    refuse_attached(path)
    try:
        _write_record(path, os.lstat(path).st_ino)
        try:
            os.link(path, replaced, follow_symlinks=False)
        except OSError as error:
            if error.errno not in publish.NO_LINKS_HERE:
                raise
            os.rename(path, replaced)
            # On a share without links the number of an inode may go with the name.
            _write_record(path, os.lstat(replaced).st_ino)
        sync_folder(path)
        os.rename(new.path, path)
    except BaseException:
        with contextlib.suppress(OSError):
            put_back(path)
        raise


def put_back(path: str) -> bool:
    """Undo what an interrupted restore has done: give the image its name again, and only that.

    Returns:
        whether there was no image under its name, and now there is.

    Raises:
        OSError: the share failed.
    """
    replaced = path + REPLACED
    if not os.path.lexists(_record_of(path)):
        return False
    missing = not os.path.lexists(path)
    if missing and os.path.lexists(replaced):
        os.rename(replaced, path)
    elif _is_ours(path) and publish.same_file(replaced, path):
        os.unlink(replaced)
    if not os.path.lexists(replaced):
        os.unlink(_record_of(path))
        sync_folder(path)
        return missing and os.path.lexists(path)
    return False


def remove_replaced(path: str) -> str | None:
    """Remove the image that a restored one has replaced; to be called once that one is mounted and writable.

    Returns:
        the path of what was removed; None where there was nothing of ours.

    Raises:
        OSError: the share failed.
    """
    replaced = path + REPLACED
    ours = _is_ours(path)
    if ours:
        os.unlink(replaced)
    if not os.path.lexists(replaced):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_record_of(path))
    return replaced if ours else None


def _record_of(path: str) -> str:
    folder, name = os.path.split(path)
    return f"{folder}/.{name}.rpinfs-replaced"


def _write_record(path: str, inode: int) -> None:
    fd = os.open(_record_of(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, json.dumps({"inode": inode}).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_folder(path)


def _is_ours(path: str) -> bool:
    """Whether what has the name of a replaced image is one, by our record."""
    try:
        with open_regular(_record_of(path), os.O_RDONLY) as fd:
            record = json.loads(os.pread(fd, _LONGEST_RECORD, 0))
        found = os.lstat(path + REPLACED)
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(record, dict) and record.get("inode") == found.st_ino and stat.S_ISREG(found.st_mode)
