"""Growing images: first the file, then the file system in it. Nothing here makes anything smaller.

The kernel itself enlarges the mounted file system, of ext4 as of xfs: each of its steps is in the journal, so that a
crash at any instant leaves a file system that the next mount makes whole, of the old size, the new one or one between.
(resize2fs on an unmounted ext4 is no such thing: cut off in the middle it leaves what only a person can repair.)

An image that is mounted is grown where it is. Any other is mounted for it by one process in a mount namespace of that
process's own: nobody else sees it, and whatever ends the process unmounts and detaches it.

What decides is the size of the file system, not the length of the file: an interrupted grow leaves a long file with a
smaller file system in it, and the next one completes it.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator

from rpinfs.boot import storage
from rpinfs.boot.host import read_text
from rpinfs.boot.settings import MIB, human_size
from rpinfs.boot.values import dataclass
from rpinfs.errors import quoted
from rpinfs.image import door
from rpinfs.image.check import check_found
from rpinfs.image.errors import ImageError, as_image_error
from rpinfs.image.probe import Kind, Probe, absolute, probe, verify
from rpinfs.image.publish import refuse_without_room
from rpinfs.system import loop
from rpinfs.system.files import NoLocks, lock, open_regular
from rpinfs.system.run import CommandError, Tell, last_line, run, silent


@dataclass(frozen=True)
class Grown:
    """An image that has the size that was asked for.

    Attributes:
        before, after: sizes of its file system in bytes; the same when there was nothing to do.
        where: its mount point; None where it is not mounted.
    """

    path: str
    before: int
    after: int
    where: str | None


@dataclass(frozen=True)
class _Place:
    """Where an image is mounted."""

    device: str
    where: str


def grow(path: str, size: int, *, progress: Tell = silent) -> Grown:
    """Make an image larger. What is not mounted here must be in nobody else's use, and checked (check.py).

    Args:
        size: of the file system, in bytes; a last piece too small for a block group is left out.
        progress: told what is being done, in ASCII.

    Raises:
        ImageError: no image, larger already, no room, or the kernel refuses. The image can be used as before; its
            file may have become longer.
    """
    path = absolute(path)
    with as_image_error(path, "cannot be grown"):
        found = probe(path, progress)
        verify(found)
    return grow_found(found, size, progress=progress)


def grow_found(found: Probe, size: int, *, progress: Tell = silent) -> Grown:
    """As grow(), of what was looked at and verified a moment ago."""
    path = found.path
    with as_image_error(path, "cannot be grown"):
        place = _place_of(path)
        before = _size_now(found, place)
        _refuse_smaller(path, size, before)
        where = place.where if place else None
        if reaches(found, before, size):
            return Grown(path, before, before, where)
        _refuse_unprivileged(path, found.kind)
        refuse_without_room(path, room_needed(size - before), "to grow it")
        progress(f"growing {path} from {human_size(before)} to {human_size(size)}")
        with _open_alone(path) as fd:
            new_end_is_blank = _lengthen(fd, size) <= before
            if place:
                _grow_mounted(found, place, size)
            else:
                with loop.attached(path, block_size=found.sector_size) as device:
                    _run(_private_command(found, device.path, size, new_end_is_blank=new_end_is_blank))
        # A file system that we have unmounted again is all in the file; of another the kernel knows best.
        after = _size_now(found, place) if place else probe(path).fs_size
        if not reaches(found, after, size):
            raise ImageError(f"{path}: expected a file system of {size} bytes, found one of {after}")
        return Grown(path, before, after, where)


def grow_by_hand(path: str, size: int, *, progress: Tell = silent) -> Grown:
    """Make an image larger that is mounted here, or else held by nobody: take its lease if it has one, and check it.

    Raises:
        RpinfsError: as grow(); or another Pi uses or owns it.
    """
    path = absolute(path)
    elsewhere = "set a larger Size= in the configuration of the Pi that has it; its next boot grows it"
    with as_image_error(path, "cannot be looked at"):
        attached = loop.find(path) if os.path.exists(path) else []
    if attached:
        door.refuse_taken(path, elsewhere)
        return grow(path, size, progress=progress)
    with door.opened(path, elsewhere) as held:
        found = probe(path, progress)
        verify(found)
        _refuse_smaller(path, size, found.fs_size)
        if found.kind is Kind.EXT4 and not reaches(found, found.fs_size, size):
            locked = held.locked if held is not None else not found.mmp
            found = check_found(found, progress, locked=locked).found
        return grow_found(found, size, progress=progress)


def reaches(found: Probe, now: int, size: int) -> bool:
    """Whether a file system of `now` bytes is as large as one can be within `size` bytes.

    Both kinds leave out a last group of blocks that has no room for more than its own administration.
    """
    if now + found.block_size > size:
        return True
    groups = found.groups
    return groups is not None and (now - groups.start) % groups.size == 0 and size - now <= groups.least


def room_needed(growth: int) -> int:
    """Bytes that must be free on the share for an image to be made so many bytes larger.

    Measured from 10 GiB to 4 TiB, journal included: 4 MB and at most 30 kB for each GiB with ext4, 10 kB with xfs.
    """
    return 8 * MIB + growth // 16384


def _refuse_smaller(path: str, size: int, before: int) -> None:
    if size < before:
        raise ImageError(
            f"{path}: expected a size of at least {before} bytes ({human_size(before)}), which it has, found {size}",
            "an image is never made smaller: make another one with rpinfs image create, and copy what is in this one",
        )


# Bits of capabilities(7), and what the kernel asks them for.
_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24}


def _refuse_unprivileged(path: str, kind: Kind) -> None:
    """Say beforehand what mount(2) and the kernel's resizing would say in the middle, and less clearly.

    ext4 alone asks for CAP_SYS_RESOURCE (ext4_resize_begin()), which root in a container seldom has.
    """
    effective = next(line for line in read_text("/proc/self/status").splitlines() if line.startswith("CapEff:"))
    held = int(effective.split()[1], 16)
    wanted = _CAPABILITIES if kind is Kind.EXT4 else ("CAP_SYS_ADMIN",)
    missing = [name for name in wanted if not held >> _CAPABILITIES[name] & 1]
    if missing:
        raise ImageError(
            f"{path}: expected the right to have the kernel grow it, found no {' and no '.join(missing)}",
            "do it again as root, and not in a container",
        )


# --- The file ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open_alone(path: str) -> Iterator[int]:
    """The file, open for writing and locked: of two that grow it at once, the slower could shorten it."""
    with open_regular(path, os.O_RDWR) as fd:
        # A share without locks cannot tell; on one, the lease keeps other hosts away.
        with contextlib.suppress(NoLocks):
            if not lock(fd):
                raise ImageError(f"{path}: another program has locked it, perhaps to grow it as well", "lslocks")
        yield fd


def _lengthen(fd: int, size: int) -> int:
    """Make the file at least so long, for good; returns how long it was. A longer one stays as long as it is."""
    length = os.fstat(fd).st_size
    if length < size:
        os.ftruncate(fd, size)
    os.fsync(fd)
    return length


# --- The file system ---------------------------------------------------------------------------------------

# struct xfs_fsop_geom_v1 (xfs_fs.h) as XFS_IOC_FSGEOMETRY_V1 fills it in: blocksize first, datablocks ninth.
_XFS_GEOMETRY = struct.Struct("=8I4Q16s7I4x")
_XFS_IOC_FSGEOMETRY_V1 = 0x80705864


def _place_of(path: str) -> _Place | None:
    """Where the image is mounted; None where it is not even attached.

    Raises:
        ImageError: it is in a state in which nobody can grow it.
    """
    attached = loop.find(path)
    if not attached:
        return None
    device = attached[0]
    if len(attached) > 1 or device.offset:
        raise ImageError(f"{path}: expected one loop device on the whole of it, found others", "losetup -l")
    mounts = [
        mount
        for mount in storage.parse_mountinfo(read_text("/proc/self/mountinfo"))
        if mount.device == (storage.LOOP_MAJOR, int(device.name[4:]))
    ]
    if not mounts:
        raise ImageError(
            f"{path}: is attached to {device.path}, but not mounted where it could be seen from here",
            f"mount it, or have whoever attached it let it go: losetup -l {quoted(device.path)}",
        )
    # Tools look for the mount itself, not for one of a folder in it, as Bind= makes.
    mount = next((mount for mount in mounts if mount.top == "/"), mounts[0])
    if not mount.writable:
        raise ImageError(f"{path}: is mounted read-only at {mount.where}", f"dmesg; findmnt {quoted(mount.where)}")
    return _Place(device.path, mount.where)


def _size_now(found: Probe, place: _Place | None) -> int:
    """Size of the file system in bytes. That of a mounted xfs may stand in its log alone; ext4 writes it at once."""
    if not place or found.kind is not Kind.XFS:
        return found.fs_size if not place else probe(found.path).fs_size
    fd = os.open(place.where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        geometry = _XFS_GEOMETRY.unpack(fcntl.ioctl(fd, _XFS_IOC_FSGEOMETRY_V1, bytes(_XFS_GEOMETRY.size)))
    finally:
        os.close(fd)
    return int(geometry[0]) * int(geometry[8])


def _resize_command(found: Probe, device: str, where: str, size: int) -> list[str]:
    if found.kind is Kind.XFS:
        return ["xfs_growfs", "-D", str(size // found.block_size), where]
    return ["resize2fs", device, f"{size // 1024}K"]


def _grow_mounted(found: Probe, place: _Place, size: int) -> None:
    with loop.hold(place.device) as device:
        status = os.stat(found.path)
        if device.identity() != (status.st_dev, status.st_ino):
            raise ImageError(f"{found.path}: was taken off {place.device} in the meantime")
        device.set_capacity()
    _run(_resize_command(found, place.device, place.where, size))


# In a mount namespace of its own any folder will do to mount it on, and this one is everywhere. The exec makes the
# resizing program the one that dies with us, and its end the end of the namespace.
_PRIVATE_FOLDER = "/mnt"
_MOUNT_AND = 'mount -n -t "$1" -o "$2" "$3" "$4" && shift 4 && exec "$@"'
_PRIVATE_OPTIONS = "nosuid,nodev,noexec,noatime"


def _private_command(found: Probe, device: str, size: int, *, new_end_is_blank: bool) -> list[str]:
    if found.kind is Kind.XFS:
        # Of an image and its copy, both have the same identity.
        kind, options = "xfs", f"{_PRIVATE_OPTIONS},nouuid"
    else:
        # What was a hole a moment ago needs no zeros written to it (1.6 % of it, in the background, for hours).
        kind, options = "ext4", _PRIVATE_OPTIONS + (",noinit_itable" if new_end_is_blank else "")
    return [
        *("unshare", "--mount", "--propagation", "private"),
        *("sh", "-c", _MOUNT_AND, "sh", kind, options, device, _PRIVATE_FOLDER),
        *_resize_command(found, device, _PRIVATE_FOLDER, size),
    ]


def _run(argv: list[str]) -> None:
    """Run it to its end; what it says is what counts, not how it was started."""
    try:
        run(argv, die_with_us=True)
    except CommandError as error:
        said = last_line(error.stderr) or last_line(error.stdout)
        raise ImageError(said or error.message, error.remedy) from error
