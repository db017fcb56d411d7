"""From a name on the share to an attached loop device: look once, decide the steps (plan.py), do them in their order.

Everything here may hang with the NAS; the agent calls it in a thread of its own.
"""

import os
from collections.abc import Callable

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.settings import human_size, size_text
from rpinfs.boot.values import dataclass, field, replace
from rpinfs.errors import RpinfsError
from rpinfs.image import grow, look, make, publish, replacing
from rpinfs.image.check import CheckResult, check_found
from rpinfs.image.errors import CutShortError, ImageError
from rpinfs.image.hold import own_units_named
from rpinfs.image.plan import Plan, Step, plan
from rpinfs.image.probe import Kind
from rpinfs.image.protection import clear_cut_short, refuse_without_direct_io
from rpinfs.lease import memory
from rpinfs.lease.lease import Lease, Owner, acquire, let_go
from rpinfs.system import loop
from rpinfs.system.files import make_folders
from rpinfs.system.run import Tell, run


@dataclass
class Prepared:
    """An attached image that is held open. Sizes in bytes; None where asking could hang.

    Attributes:
        uuid: of the file system that was verified before it was attached; of one that was found attached, its own.
        clean: whether it had been unmounted in order before; None where only mounting can tell (xfs), or nobody knows.
        not_grown: why it is smaller than Size= asks for, in words; empty where it is not.
    """

    backing_file: str
    # Quoted: from Python 3.14 on it is looked up when asked for, and by then `loop` is the property below.
    device: "loop.LoopDevice"
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
    """Bring an image to the point where it can be mounted. That it lies on the share is seen to by on_share().

    Raises:
        RpinfsError: what keeps it from that, with the remedy. The file is then as it was, or as repaired.
        OSError: the share failed.
    """
    progress(f"looking at {image.path}")
    # File= may name a folder below the share that nobody made yet.
    make_folders(image.path.removesuffix(image.file), os.path.dirname(image.file))
    with own_units_named(image):
        lease = None if image.fence == "mmp" else acquire(image.path, owner, image.name)
    try:
        return _Way(image, owner, lease, progress).go()
    except BaseException:
        if lease is not None:
            let_go(image.path, lease)
        raise


class _Way:
    """The steps on the way of one image. Each leaves in `found` what is in the image then."""

    def __init__(self, image: Image, owner: Owner, lease: Lease | None, progress: Tell) -> None:
        self.image = image
        self.owner = owner
        self.lease = lease
        self.progress = progress
        self.remarks = [lease.remark] if lease is not None and lease.remark else []
        self.not_grown = ""

    def go(self) -> Prepared:
        seen, planned = self._look()
        if Step.PUT_BACK in planned.steps:
            self._put_back()
            seen, planned = self._look(settled=True)
        self.found = seen.found
        self.was_clean = self.found.clean
        self.remarks += planned.remarks
        do: dict[Step, Callable[[], None]] = {
            Step.SWEEP: self._sweep,
            Step.MAKE: self._make,
            Step.REPAIR: self._repair_unclean,
            Step.PROTECT: self._protect,
            Step.GROW: self._grow,
        }
        for step in planned.steps:
            if step is not Step.ATTACH:
                do[step]()
        return self._attach()

    def _look(self, *, settled: bool = False) -> tuple[look.Look, Plan]:
        seen = look.take(self.image, self.owner, settled=settled, progress=self.progress)
        return seen, plan(self.image, seen)

    def _put_back(self) -> None:
        self.remarks += replacing.settle(self.image.path)

    def _sweep(self) -> None:
        # A power cut between the last two steps of making it leaves a second name of the image.
        publish.remove_leftovers(self.image.path, self.progress)

    def _make(self) -> None:
        image = self.image
        self.progress(f"making {image.path}")
        self.found = made = make.make(
            self.found,
            image.size,
            image.filesystem,
            label=image.name,
            mmp=image.fence != "lease",
            progress=self.progress,
        )
        self.was_clean = made.clean
        self.remarks.append(
            f"made {image.path}: {human_size(made.size)} {image.filesystem}, {human_size(made.allocated)} on the NAS"
        )

    def _repair_unclean(self) -> None:
        if self._repair():
            self.remarks.append(f"{self.image.path} was not unmounted in order; e2fsck has put it right")

    def _repair(self) -> bool:
        """Put right what is safe to put right; whether there was anything."""
        self.progress(f"checking {self.image.path}")
        result = self._check()
        self.found = result.found
        return result.corrected

    def _check(self) -> CheckResult:
        try:
            return check_found(self.found, self.progress, locked=self.lease is not None)
        except CutShortError:
            # Only the lock can tell a check that was cut short by a power cut from one that another Pi is at.
            if self.lease is None or not self.lease.locked:
                raise
            self.progress("an earlier check was cut short; checking again")
            clear_cut_short(self.image.path)
            return check_found(self.found, self.progress)

    def _protect(self) -> None:
        """Have the kernel refuse to mount what another host has mounted.

        Nobody takes it off again: whoever set it may count on it. And tune2fs takes 11 s even where there is nothing
        to do.
        """
        self.progress("setting multi-mount protection")
        run(["tune2fs", "-O", "mmp", self.image.path], die_with_us=True)
        self.found = replace(self.found, mmp=True)

    def _grow(self) -> None:
        image = self.image
        try:
            grown = grow.grow_found(self.found, image.size, progress=self.progress)
        except RpinfsError as error:
            # Nothing of that keeps Docker down: what was large enough yesterday is large enough to boot. But where the
            # share failed in the middle, the kernel has marked the file system as one to be checked.
            if self.found.kind is Kind.EXT4:
                self._repair()
            self.not_grown = error.message
            self.remarks.append(f"not grown to Size={size_text(image.size)}: {error.message}")
        else:
            if grown.after > grown.before:
                sizes = f"from {human_size(grown.before)} to {human_size(grown.after)}"
                self.remarks.append(f"grew {image.path} {sizes}")
            self.found = replace(self.found, fs_size=grown.after)

    def _attach(self) -> Prepared:
        image, found = self.image, self.found
        self.progress(f"attaching {image.path}")
        device = loop.attach(image.path, direct_io=image.direct_io, block_size=found.sector_size)
        try:
            self._accept(device)
            if found.kind is Kind.XFS:
                device.merge_requests()
            if self.lease is not None:
                self.lease.keep(device.path)
            uuid = found.uuid or ""
            # Now, and no sooner: what was not attached may still fail, and is made anew then.
            not_kept = memory.remember(image.path, image.name, self.owner, uuid, self.lease)
            if not_kept:
                self.remarks.append(not_kept)
            return Prepared(
                image.path,
                device,
                uuid,
                found.fs_size,
                found.allocated,
                self.lease,
                self.remarks,
                self.was_clean,
                self.not_grown,
            )
        except BaseException:
            device.close()
            raise

    def _accept(self, device: loop.LoopDevice) -> None:
        """Compare a device with what was looked at, and with what the image needs."""
        image = self.image
        if device.identity() != self.found.stamp[:2]:
            raise ImageError(
                f"{image.path}: was replaced while it was prepared; it is left alone",
                "find out who did that, then: systemctl restart rpinfs-agent",
            )
        if image.fence == "mmp":
            refuse_without_direct_io(image.path, device)
        if image.direct_io and not device.direct_io:
            self.remarks.append(
                "the kernel refuses direct I/O on this share; attached buffered, which takes twice the memory"
            )
