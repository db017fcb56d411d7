"""A hold on an image while it is copied or replaced: because it is mounted here, or because nobody uses it."""

import contextlib
import os
from collections.abc import Iterator

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.host import read_text
from rpinfs.errors import quoted
from rpinfs.image import remedy
from rpinfs.image.errors import ImageError
from rpinfs.image.probe import refuse_attached
from rpinfs.image.protection import refuse_marked
from rpinfs.lease.lease import Lease, Owner, OwnLockError, acquire, let_go
from rpinfs.system import loop
from rpinfs.system.run import Tell


def mount_of(image: Image) -> storage.Mount | None:
    """The mount of an image at the place that the configuration has for it; None where it is not mounted there.

    By the name that the file had when it was attached: what has that name today, refuse_another() tells.
    """
    mount = storage.mount_at(storage.parse_mountinfo(read_text("/proc/self/mountinfo")), image.where)
    attached = storage.loop_of(mount) if mount else None
    return mount if attached and attached.backing_file.removesuffix(" (deleted)") == image.path else None


def refuse_another(image: Image, mount: storage.Mount, file: int) -> None:
    """Insist that an open file is the one that is mounted, and not another that has its name by now.

    Raises:
        ImageError: it is another.
        RpinfsError: it is mounted no more.
    """
    device = loop.hold(f"/dev/loop{mount.device[1]}")
    try:
        mounted = device.identity()
    finally:
        device.close()
    status = os.fstat(file)
    if mounted != (status.st_dev, status.st_ino):
        raise ImageError(
            f"{image.path}: expected the image that is mounted at {image.where}, found another file of that name",
            f"find out who replaced it; what is mounted is still there: losetup -l {quoted(device.path)}",
        )


@contextlib.contextmanager
def leased(image: Image, owner: Owner, progress: Tell) -> Iterator[Lease | None]:
    """Have the image for ourselves: no other Pi, no agent, no loop device. The lease; None with Fence=mmp.

    Raises:
        RpinfsError: somebody else has it, or may have.
        OSError: the share failed.
    """
    let_go(image.path, None)
    with own_units_named(image):
        lease = acquire(image.path, owner, image.name, take_up=False) if image.fence != "mmp" else None
    try:
        if os.path.lexists(image.path):
            refuse_attached(image.path)
            if lease is None:
                refuse_marked(image.path, progress)
        yield lease
    finally:
        if lease is not None:
            lease.close()


@contextlib.contextmanager
def own_units_named(image: Image) -> Iterator[None]:
    """Have it said what to stop where a process of this Pi has the lock: what waits for just this image."""
    try:
        yield
    except OwnLockError as error:
        raise OwnLockError(error.message, error.remedy or remedy.stop(image)) from error
