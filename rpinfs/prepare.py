"""From a name on the share to an attached loop device: take the lease, make or verify the image, repair, attach.

Everything here may hang with the NAS; the agent calls it in a thread of its own.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from rpinfs import image as images
from rpinfs import loop, storage
from rpinfs.config import Image
from rpinfs.errors import RpinfsError
from rpinfs.lease import Lease, Owner, acquire
from rpinfs.settings import BLOCK_SIZE

Progress = Callable[[str], None]

_TAKE_UP = "systemctl daemon-reload; systemctl restart rpinfs-agent"


@dataclass
class Prepared:
    """An attached image that is held open. Sizes in bytes; None where asking could hang."""

    device: loop.LoopDevice
    size: int
    allocated: int | None
    lease: Lease | None
    remarks: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Path of the device node, such as /dev/loop3."""
        return self.device.path

    @property
    def loop(self) -> str:
        """Name of the device, such as loop3."""
        return os.path.basename(self.device.path)

    @property
    def direct_io(self) -> bool:
        """Whether the device really goes past the page cache of the share."""
        return self.device.direct_io

    def close(self) -> None:
        """Let go; the kernel detaches the image when no mount holds it."""
        self.device.close()
        if self.lease is not None:
            self.lease.close()


def hold(image: Image) -> Prepared:
    """Hold on to an image that is attached and mounted already, without a look at the share.

    Raises:
        RpinfsError: it is not attached, or more than once.
    """
    found = storage.loops_on(image.path)
    if len(found) != 1:
        raise RpinfsError(f"{image.path}: expected one loop device on it, found {len(found)}", "losetup -l")
    device = loop.hold(found[0].path)
    return Prepared(device, device.refresh().size, None, None)


def prepare(image: Image, owner: Owner, progress: Progress) -> Prepared:
    """Bring an image to the point where it can be mounted.

    Raises:
        RpinfsError: what keeps it from that, with the remedy. The file is then as it was, or as repaired.
        OSError: the share failed.
    """
    progress(f"looking at {image.path}")
    # File= may name a folder below the share that nobody made yet.
    os.makedirs(os.path.dirname(image.path), exist_ok=True)
    lease = acquire(image.path, owner)
    try:
        return _attach(image, lease, progress)
    except BaseException:
        lease.close()
        raise


def _attach(image: Image, lease: Lease, progress: Progress) -> Prepared:
    remarks: list[str] = []
    if not lease.locked:
        remarks.append("the share has no locks; only the owner record keeps other Pis away")
    found = images.probe(image.path)
    if found.kind in (images.Kind.MISSING, images.Kind.BLANK):
        progress(f"making {image.path}")
        found = images.create(image.path, image.size, image.filesystem, label=image.name, progress=progress)
        remarks.append(
            f"made {image.path}: {_size(found.size)} {image.filesystem}, {_size(found.allocated)} on the NAS"
        )
    else:
        images.verify(found)
        remarks += _differences(image, found)
        images.check(image.path, progress)
        found = images.probe(image.path)
    progress(f"attaching {image.path}")
    device = loop.attach(image.path, direct_io=image.direct_io, block_size=_block_size(found))
    if image.direct_io and not device.direct_io:
        remarks.append("the kernel refuses direct I/O on this share; attached buffered, which takes twice the memory")
    return Prepared(device, found.size, found.allocated, lease, remarks)


def _differences(image: Image, found: images.Probe) -> list[str]:
    """Compare an image that is there with what the config says of it."""
    if image.size_is_set and image.size < found.size:
        raise RpinfsError(
            f"{image.path}: Size= asks for {_size(image.size)}, less than the {_size(found.size)} that the image has",
            f"set Size={_size(found.size)} or more in [Image {image.name}], then: {_TAKE_UP}",
        )
    kind = "xfs" if found.kind is images.Kind.XFS else "ext4"
    if image.filesystem_is_set and kind != image.filesystem:
        raise RpinfsError(
            f"{image.path}: FileSystem= asks for {image.filesystem}, but the image holds {kind}",
            f"set FileSystem={kind} in [Image {image.name}], then: {_TAKE_UP}",
        )
    return []


def _block_size(found: images.Probe) -> int:
    """Logical block size in bytes for the loop device: smaller blocks or sectors do not mount on a larger one."""
    return BLOCK_SIZE if found.sector_size >= BLOCK_SIZE else 512


def _size(size: int) -> str:
    for unit, suffix in ((1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M")):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + suffix
    return f"{size >> 10}K"
