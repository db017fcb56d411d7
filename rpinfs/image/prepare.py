"""From a name on the share to an attached loop device: take the lease, make or verify the image, repair, grow, attach.

Everything here may hang with the NAS; the agent calls it in a thread of its own.
"""

import os
from dataclasses import dataclass, field

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.settings import BLOCK_SIZE, human_size, size_text
from rpinfs.errors import RpinfsError
from rpinfs.image import grow, make, publish, replacing
from rpinfs.image.check import CheckResult, check
from rpinfs.image.errors import CutShortError
from rpinfs.image.probe import Kind, Probe, probe, verify
from rpinfs.image.protection import refuse_without_direct_io
from rpinfs.lease.lease import Lease, Owner, acquire, let_go
from rpinfs.system import loop
from rpinfs.system.files import make_folders
from rpinfs.system.run import Tell, run

_TAKE_UP = "systemctl daemon-reload; systemctl restart rpinfs-agent"


@dataclass
class Prepared:
    """An attached image that is held open. Sizes in bytes; None where asking could hang.

    Attributes:
        uuid: of the file system that was verified before it was attached; of one that was found attached, its own.
        clean: whether it had been unmounted in order before; None where only mounting can tell (xfs), or nobody knows.
        not_grown: why it is smaller than Size= asks for, in words; empty where it is not.
    """

    backing_file: str
    device: loop.LoopDevice
    uuid: str
    size: int
    allocated: int | None
    lease: Lease | None
    remarks: list[str] = field(default_factory=list)
    clean: bool | None = None
    not_grown: str = ""

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
        let_go(self.backing_file, self.lease)


def hold(image: Image) -> Prepared:
    """Hold on to an image that is attached and mounted already, without a look at the share.

    Raises:
        RpinfsError: it is not attached, or more than once.
    """
    found = storage.loops_on(image.path)
    if len(found) != 1:
        raise RpinfsError(f"{image.path}: expected one loop device on it, found {len(found)}", "losetup -l")
    device = loop.hold(found[0].path)
    uuid = storage.superblock_uuid(device.path)
    return Prepared(image.path, device, uuid, device.refresh().size, None, None)


def prepare(image: Image, owner: Owner, progress: Tell) -> Prepared:
    """Bring an image to the point where it can be mounted.

    Raises:
        RpinfsError: what keeps it from that, with the remedy. The file is then as it was, or as repaired.
        OSError: the share failed.
    """
    progress(f"looking at {image.path}")
    # File= may name a folder below the share that nobody made yet.
    make_folders(image.path.removesuffix(image.file), os.path.dirname(image.file))
    lease = None if image.fence == "mmp" else acquire(image.path, owner, image.name)
    try:
        return _attach(image, lease, progress)
    except BaseException:
        if lease is not None:
            let_go(image.path, lease)
        raise


def _attach(image: Image, lease: Lease | None, progress: Tell) -> Prepared:
    remarks = [lease.remark] if lease is not None and lease.remark else []
    remarks += replacing.settle(image.path)
    found = probe(image.path)
    if found.kind in (Kind.MISSING, Kind.BLANK):
        progress(f"making {image.path}")
        protected = image.fence != "lease"
        found = make.create(
            image.path, image.size, image.filesystem, label=image.name, mmp=protected, progress=progress
        )
        remarks.append(
            f"made {image.path}: {human_size(found.size)} {image.filesystem}, {human_size(found.allocated)} on the NAS"
        )
    else:
        verify(found)
        _refuse_differences(image, found)
        # A power cut between the last two steps of making it leaves a second name of the image.
        publish.remove_leftovers(image.path, progress)
        if _repair(image, found, lease, progress):
            remarks.append(f"{image.path} was not unmounted in order; e2fsck has put it right")
    if found.fast_commit:
        # Somebody's choice, and not ours to undo: why we do not make it is in make.py.
        without = f"with the image unmounted: tune2fs -O ^fast_commit {image.path}"
        remarks.append(f"{image.path} has fast_commit, which loses data in a power cut; {without}")
    remarks += _set_protection(image, found, progress)
    size, not_grown = found.fs_size, ""
    if image.size_is_set:
        try:
            size = _grow(image, remarks, progress)
        except RpinfsError as error:
            # Nothing of that keeps Docker down: what was large enough yesterday is large enough to boot. But where the
            # share failed in the middle, the kernel has marked the file system as one to be checked.
            _repair(image, found, lease, progress)
            not_grown = error.message
            remarks.append(f"not grown to Size={size_text(image.size)}: {error.message}")
    progress(f"attaching {image.path}")
    device = loop.attach(image.path, direct_io=image.direct_io, block_size=found.sector_size)
    try:
        remarks += _accept(image, device)
        if lease is not None:
            lease.keep(device.path)
        uuid = found.uuid or ""
        return Prepared(image.path, device, uuid, size, found.allocated, lease, remarks, found.clean, not_grown)
    except BaseException:
        device.close()
        raise


def _accept(image: Image, device: loop.LoopDevice) -> list[str]:
    """Compare a device with what the image needs; returns remarks."""
    if image.fence == "mmp":
        refuse_without_direct_io(image.path, device)
    if image.direct_io and not device.direct_io:
        return ["the kernel refuses direct I/O on this share; attached buffered, which takes twice the memory"]
    return []


def _repair(image: Image, found: Probe, lease: Lease | None, progress: Tell) -> bool:
    """Put right what is safe to put right; whether there was anything."""
    if found.kind is not Kind.EXT4:
        # xfs replays its log when it is mounted; xfs_repair at a boot would only delay it.
        return False
    progress(f"checking {image.path}")
    return _check(image, lease, progress).corrected


def _grow(image: Image, remarks: list[str], progress: Tell) -> int:
    """Grow an image to what Size= asks for; returns its size."""
    grown = grow.grow(image.path, image.size, progress=progress)
    if grown.after > grown.before:
        remarks.append(f"grew {image.path} from {human_size(grown.before)} to {human_size(grown.after)}")
    return grown.after


def _check(image: Image, lease: Lease | None, progress: Tell) -> CheckResult:
    try:
        return check(image.path, progress, locked=lease is not None)
    except CutShortError:
        # Only the lock can tell a check that was cut short by a power cut from one that another Pi is at.
        if lease is None or not lease.locked:
            raise
        progress("an earlier check was cut short; checking again")
        run(["tune2fs", "-f", "-E", "clear_mmp", image.path], die_with_us=True)
        return check(image.path, progress)


def _set_protection(image: Image, found: Probe, progress: Tell) -> list[str]:
    """Have the kernel refuse to mount what another host has mounted, where Fence= asks for that; returns remarks.

    Nobody takes it off again: whoever set it may count on it. And tune2fs takes 11 s even where there is nothing to do.
    """
    if image.fence == "lease":
        without = f"without it, they are 11 s shorter; with the image unmounted: tune2fs -O ^mmp {image.path}"
        return [f"{image.path} has multi-mount protection, though Fence=lease: its checks wait; {without}"] * found.mmp
    if found.kind is Kind.XFS:
        raise RpinfsError(
            f"{image.path}: Fence={image.fence} needs ext4, but the image holds xfs",
            f"set Fence=lease in [Image {image.name}], then: {_TAKE_UP}",
        )
    if not found.mmp:
        progress("setting multi-mount protection")
        run(["tune2fs", "-O", "mmp", image.path], die_with_us=True)
    return []


def _refuse_differences(image: Image, found: Probe) -> None:
    """Compare an image that is there with what the config says of it."""
    # Not the length of the file: that may be longer, where a larger grow was interrupted or refused.
    if image.size_is_set and image.size < found.fs_size:
        asked, present = size_text(image.size), size_text(found.fs_size)
        # Size= takes only whole blocks; a file system that was made by hand may have smaller ones.
        enough = size_text(-(-found.fs_size // BLOCK_SIZE) * BLOCK_SIZE)
        raise RpinfsError(
            f"{image.path}: Size= asks for {asked}, less than the {present} that the image has",
            f"set Size={enough} or more in [Image {image.name}], then: {_TAKE_UP}",
        )
    kind = "xfs" if found.kind is Kind.XFS else "ext4"
    if image.filesystem_is_set and kind != image.filesystem:
        raise RpinfsError(
            f"{image.path}: FileSystem= asks for {image.filesystem}, but the image holds {kind}",
            f"set FileSystem={kind} in [Image {image.name}], then: {_TAKE_UP}",
        )
