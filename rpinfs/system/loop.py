"""Loop devices: attach an image, look at what is attached, grow, detach.

The kernel's own interface is used instead of losetup(8), because only LOOP_CONFIGURE sets everything in one
step (no moment in which the device is there with the wrong block size) and because the open file descriptor
is the point: with autoclear the device lives as long as somebody has it open, first we, then the mount. An
agent that is killed before the mount leaves nothing attached; one that is killed after it takes nothing away.

Layouts and numbers: linux/loop.h; behaviour: drivers/block/loop.c.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator

from rpinfs.boot.storage import LOOP_MAJOR, Loop, loop_state, loops
from rpinfs.errors import RpinfsError, quoted
from rpinfs.system.files import open_regular
from rpinfs.system.run import run

LOOP_CLR_FD = 0x4C01
LOOP_GET_STATUS64 = 0x4C05
LOOP_SET_CAPACITY = 0x4C07
LOOP_SET_DIRECT_IO = 0x4C08
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_GET_FREE = 0x4C82

LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = 16

# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt_type, key_size, flags;
# file_name, crypt_name, encrypt_key; init[2]
_LOOP_INFO64 = struct.Struct("=5Q4I64s64s32s2Q")
# struct loop_config: fd, block_size; info; reserved[8]
_LOOP_CONFIG = struct.Struct(f"=2I{_LOOP_INFO64.size}s64x")

# Each attempt takes another device; more than this many lost races in a row is a fault, not bad luck.
_ATTEMPTS = 64
_LOOKS, _SECONDS_BETWEEN_LOOKS = 40, 0.025

Part = tuple[int, int]
"""A part of a file: offset and length in bytes."""

WHOLE: Part = (0, 0)
"""All of it: a length of 0 is none."""


class LoopError(RpinfsError):
    """An image that cannot be attached, or a loop device that does not do what it is told."""


class BusyError(LoopError):
    """A loop device that another process has for itself."""


class GoneError(LoopError):
    """A loop device that is being detached or removed, or that nothing is attached to."""


class LoopDevice:
    """An attached loop device that we hold open.

    Attributes:
        path: "/dev/loop3".
        fd: the open file descriptor, valid until close().
        direct_io: whether it really does direct I/O, of which refresh() has the kernel's word.
        block_size: logical block size in bytes, likewise.
    """

    direct_io: bool
    block_size: int

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    def __enter__(self) -> "LoopDevice":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refresh(self) -> Loop:
        """Read the device's state anew; updates direct_io and block_size."""
        now = loop_state(os.path.basename(self.path))
        if now is None:
            raise GoneError(f"{self.path}: expected an attached image, found none")
        self.direct_io = now.direct_io
        self.block_size = now.block_size
        return now

    def configure(self, file: int, *, direct_io: bool, block_size: int, name: str, autoclear: bool, part: Part) -> None:
        """Attach the open file in one step (LOOP_CONFIGURE). Raises OSError."""
        flags = (LO_FLAGS_AUTOCLEAR if autoclear else 0) | (LO_FLAGS_DIRECT_IO if direct_io else 0)
        # The kernel cuts the name to 63 bytes and a NUL; it is only for people (losetup -l reads sysfs).
        info = _LOOP_INFO64.pack(0, 0, 0, *part, 0, 0, 0, flags, os.fsencode(name), b"", b"", 0, 0)
        fcntl.ioctl(self.fd, LOOP_CONFIGURE, _LOOP_CONFIG.pack(file, block_size, info))

    def set_direct_io(self, wanted: bool) -> None:
        """Switch direct I/O (LOOP_SET_DIRECT_IO). Raises OSError: EINVAL where the backing file cannot."""
        fcntl.ioctl(self.fd, LOOP_SET_DIRECT_IO, int(wanted))
        self.refresh()

    def set_capacity(self) -> None:
        """Make the device as large as its backing file has become (LOOP_SET_CAPACITY). Raises OSError."""
        fcntl.ioctl(self.fd, LOOP_SET_CAPACITY)

    def merge_requests(self) -> None:
        """Have adjoining requests merged (mq-deadline); a kernel that lacks it goes on sending each by itself.

        xfs spreads folders over its allocation groups: 2,000 small files, each in another folder than the one before,
        are 2,021 requests to the NAS without and some 320 with it, and 76 from ext4 either way.
        """
        scheduler = f"/sys/block/{os.path.basename(self.path)}/queue/scheduler"
        with contextlib.suppress(OSError), open(scheduler, "w") as file:
            file.write("mq-deadline")

    def identity(self) -> tuple[int, int]:
        """st_dev and st_ino of the backing file (LOOP_GET_STATUS64). Raises OSError: ENXIO when none."""
        return _identity(self.fd)

    def note(self) -> str:
        """What the device was given as its name when it was attached (LOOP_GET_STATUS64). Raises OSError."""
        answer = fcntl.ioctl(self.fd, LOOP_GET_STATUS64, bytes(_LOOP_INFO64.size))
        return os.fsdecode(_LOOP_INFO64.unpack(answer)[9].split(b"\0")[0])

    def detach(self) -> None:
        """Take the image off (LOOP_CLR_FD), at the latest when the last other user closes the device."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fd, LOOP_CLR_FD)
        self.close()

    def close(self) -> None:
        """Let go. The kernel detaches the image when nobody else, such as a mount, has the device open."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def attach(path: str, *, direct_io: bool = True, block_size: int = 4096) -> LoopDevice:
    """Attach an image, read-write, to a free loop device with autoclear.

    Where the kernel refuses direct I/O, the image is attached without: see LoopDevice.direct_io.

    Args:
        path: a regular file; not a symbolic link.
        block_size: logical block size in bytes. 4096 keeps every write of the file system a whole page of the
            file, which direct I/O and multi-mount protection need.

    Raises:
        LoopError: the file cannot be opened, is attached already, or no device can be had.
    """
    try:
        with open_regular(path, os.O_RDWR) as file:
            _refuse_second_attachment(path)
            device = _bind(file, path, direct_io, block_size)
    except OSError as error:
        raise LoopError(f"{path}: cannot be attached: {error.strerror}") from error
    try:
        if direct_io and not device.refresh().direct_io:
            # LOOP_CONFIGURE drops the flag silently where it does not fit; asking again is the only way left.
            with contextlib.suppress(OSError):
                device.set_direct_io(True)
        device.refresh()
    except BaseException:
        device.close()
        raise
    return device


@contextlib.contextmanager
def attached(path: str, *, block_size: int = 4096) -> Iterator[LoopDevice]:
    """Attach an image with attach() for as long as a with statement lasts.

    It is detached at the end, also where a passing look at the device, such as udev's, keeps it for a moment more.

    Raises:
        LoopError: as attach().
    """
    device = attach(path, block_size=block_size)
    name = os.path.basename(device.path)
    before = loop_state(name)
    try:
        yield device
    finally:
        device.close()
        for _ in range(_LOOKS):
            now = loop_state(name)
            if not now or not before or now.backing_file != before.backing_file:
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def attach_part(file: int, path: str, part: Part) -> LoopDevice:
    """Attach a part of an open file, such as a partition, to a free loop device with autoclear; for reading alone.

    The kernel makes the device read-only because the file is open for reading alone. What is mounted from the device
    stays after close().

    Args:
        file: opened with O_RDONLY; it need not have a name any more.
        path: for people.

    Raises:
        LoopError: no device can be had.
    """
    return _bind(file, path, direct_io=False, block_size=512, part=part)


def pin(file: int, note: str) -> LoopDevice:
    """Have the kernel keep an open file open until LoopDevice.detach(), also when every process of ours is gone.

    The device has no other use. It is open exclusively (O_EXCL): as long as that lasts, nobody else has it by hold().

    Args:
        note: what LoopDevice.note() is to tell, at most 63 bytes.

    Raises:
        LoopError: there is no loop device to be had.
    """
    return _bind(file, note, direct_io=True, block_size=512, autoclear=False, exclusive=True)


def hold(device: str, *, exclusive: bool = False) -> LoopDevice:
    """Open a loop device that is attached already, as an agent does after its own restart.

    Args:
        exclusive: as the only one who does so.

    Raises:
        BusyError: another has it exclusively.
        GoneError: there is no such device, or nothing is attached to it.
        LoopError: it cannot be opened, or is no loop device.
    """
    held = LoopDevice(device, _open_device(device, exclusive))
    try:
        held.refresh()
    except BaseException:
        held.close()
        raise
    return held


def find(path: str) -> list[Loop]:
    """The loop devices that a file is attached to, under whatever name.

    Decided by device and inode number (LOOP_GET_STATUS64), since the name in sysfs is the one of the time of
    attaching: it differs after a rename, over a bind mount, a hard link or another mount namespace. The ioctl
    asks for the inode number alone, which NFS answers from memory (loop_get_status(), nfs_getattr()): a dead
    share below *another* loop device does not stop us. The file itself is stat()ed: where its own share may
    hang, call this in rpinfs.system.deadline.within(), or call storage.loops_on().

    Raises:
        OSError: the file cannot be stat()ed.
    """
    wanted, real_path = os.stat(path), os.path.realpath(path)
    return [one for one in loops() if _backed_by(one, wanted, real_path)]


def _backed_by(one: Loop, wanted: os.stat_result, real_path: str) -> bool:
    try:
        fd = os.open(one.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # No node to ask by (a container with some of /dev): the name is all there is.
        return one.backing_file == real_path
    try:
        return _identity(fd) == (wanted.st_dev, wanted.st_ino)
    except OSError:
        return False  # Detached in the meantime.
    finally:
        os.close(fd)


def _identity(fd: int) -> tuple[int, int]:
    answer = fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(_LOOP_INFO64.size))
    device, inode = _LOOP_INFO64.unpack(answer)[:2]
    return device, inode


def _refuse_second_attachment(path: str) -> None:
    """Two loop devices on one file are two page caches on one file system: it would be torn to pieces."""
    for other in find(path):
        raise LoopError(f"{path}: is attached to {other.path} already", f"losetup -l {quoted(other.path)}")


def _bind(
    file: int,
    path: str,
    direct_io: bool,
    block_size: int,
    autoclear: bool = True,
    exclusive: bool = False,
    part: Part = WHOLE,
) -> LoopDevice:
    """Attach the open file to the next free device, again while others are quicker."""
    for _ in range(_ATTEMPTS):
        try:
            device = _free_device(exclusive)
        except (BusyError, GoneError):
            # Taken, or being detached by whoever had taken it since we were told that it is free.
            continue
        try:
            device.configure(
                file, direct_io=direct_io, block_size=block_size, name=path, autoclear=autoclear, part=part
            )
        except OSError as error:
            device.close()
            if error.errno == errno.EINVAL and direct_io:
                direct_io = False
            elif error.errno not in (errno.EBUSY, errno.EAGAIN):
                raise LoopError(f"{path}: cannot be attached to {device.path}: {error.strerror}") from error
        else:
            return device
    raise LoopError(f"{path}: no free loop device in {_ATTEMPTS} attempts", "losetup -a")


def _free_device(exclusive: bool) -> LoopDevice:
    number = _free_number()
    path = f"/dev/loop{number}"
    _ensure_node(path, number)
    return LoopDevice(path, _open_device(path, exclusive))


def _free_number() -> int:
    """The number of a free loop device; the kernel makes one when all are taken (LOOP_CTL_GET_FREE)."""
    try:
        with _loop_control() as control:
            return fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    except OSError as error:
        raise LoopError(f"/dev/loop-control: no loop device to be had: {error.strerror}", "modprobe loop") from error


@contextlib.contextmanager
def _loop_control() -> Iterator[int]:
    """/dev/loop-control, whose opening loads the module; where even the node is missing, we load it."""
    if not os.path.exists("/dev/loop-control"):
        run(["modprobe", "loop"])
    fd = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _ensure_node(path: str, number: int) -> None:
    """Make the device's node where nobody has: a /dev that is no devtmpfs, or not the kernel's own."""
    with contextlib.suppress(FileExistsError):
        if not os.path.lexists(path):
            os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(LOOP_MAJOR, number))


def _open_device(path: str, exclusive: bool = False) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if exclusive else 0))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(
                f"{path}: another process has it for itself", f"find /proc/[0-9]*/fd -lname {quoted(path)}"
            ) from error
        kind = GoneError if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENOENT) else LoopError
        raise kind(f"{path}: cannot be opened: {error.strerror}") from error
    found = os.fstat(fd)
    if not stat.S_ISBLK(found.st_mode) or os.major(found.st_rdev) != LOOP_MAJOR:
        os.close(fd)
        raise LoopError(f"{path}: expected a loop device, found something else")
    return fd
