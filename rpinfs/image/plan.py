"""What is to be done about an image, decided from one look at it. Pure.

The order is always the same: what a restore has left is settled, then an image is made or repaired, protected, grown,
and attached. Or it is refused, and nothing is done.
"""

import enum

from rpinfs.boot.config import Image
from rpinfs.boot.settings import BLOCK_SIZE, size_text
from rpinfs.boot.values import dataclass
from rpinfs.errors import RpinfsError, quoted
from rpinfs.image import remedy
from rpinfs.image.errors import ImageError, OtherThanVerifiedError
from rpinfs.image.look import Look
from rpinfs.image.probe import Kind, Probe, refuse_in_use, verify
from rpinfs.lease.memory import is_known


class Step(enum.Enum):
    """One thing to be done."""

    PUT_BACK = "bring an interrupted restore to its end, and look again"
    SWEEP = "remove what interrupted attempts to make it have left"
    MAKE = "make it"
    REPAIR = "put right what is safe to put right"
    PROTECT = "give it multi-mount protection"
    GROW = "grow it to Size="
    ATTACH = "attach it"


@dataclass(frozen=True)
class Plan:
    """The steps, and what a person should know beforehand."""

    steps: tuple[Step, ...]
    remarks: tuple[str, ...] = ()


def plan(image: Image, look: Look) -> Plan:
    """Decide.

    Raises:
        RpinfsError: the image is refused; why, and what to do.
    """
    if look.unsettled:
        return Plan((Step.PUT_BACK,))
    found = look.found
    _refuse_other_than_verified(image, look)
    free = found.kind in (Kind.MISSING, Kind.BLANK)
    if not free:
        verify(found)
        _refuse_differences(image, found)
        _refuse_unprotectable(image, found)
    if look.attached:
        refuse_in_use(found.path, look.attached)
    grow = (Step.GROW,) * image.size_is_set
    if free:
        return Plan((Step.MAKE, *grow, Step.ATTACH))
    wanted = {
        Step.SWEEP: look.leftovers,
        # xfs replays its log when it is mounted; xfs_repair at a boot would only delay it.
        Step.REPAIR: found.kind is Kind.EXT4,
        Step.PROTECT: image.fence != "lease" and not found.mmp,
    }
    return Plan((*(step for step in wanted if wanted[step]), *grow, Step.ATTACH), _remarks(image, found))


def _remarks(image: Image, found: Probe) -> tuple[str, ...]:
    remarks = []
    if found.fast_commit:
        # Somebody's choice, and not ours to undo: why we do not make it is in make.py.
        without = remedy.unmounted(image, "tune2fs", "-O", "^fast_commit", image.path)
        remarks.append(f"{found.path} has fast_commit, which loses data in a power cut; to take it off: {without}")
    if image.fence == "lease" and found.mmp:
        without = remedy.unmounted(image, "tune2fs", "-O", "^mmp", image.path)
        remarks.append(
            f"{found.path} has multi-mount protection, though Fence=lease: its checks wait; without it, they are 11 s "
            f"shorter; to take it off: {without}"
        )
    return tuple(remarks)


# --- Refusals ----------------------------------------------------------------------------------------------


def _refuse_other_than_verified(image: Image, look: Look) -> None:
    """An image that was verified once is not made anew: most likely the NAS came up without the disk that has it."""
    found = look.found
    if is_known(found.uuid, look.remembered):
        return
    expected = " or ".join(str(one) for one in look.remembered)
    present = f"{found.description} with file system {found.uuid}" if found.uuid else found.description
    anew = f"to have a new image made: rpinfs release {quoted(image.name)}; {remedy.TRY_AGAIN}"
    if found.uuid:
        way = f"to use what is there now: rpinfs adopt {quoted(image.name)}; {remedy.TRY_AGAIN}"
    elif found.kind is Kind.FOREIGN:
        way = f"move it away; then, {anew}"
    else:
        way = anew
    raise OtherThanVerifiedError(
        f"{found.path}: expected {expected}; found {present}",
        f"see that the NAS has mounted the disk with the image (it is tried again by itself); or, {way}",
    )


def _refuse_differences(image: Image, found: Probe) -> None:
    """Compare an image that is there with what the config says of it."""
    # Not the length of the file: that may be longer, where a larger grow was interrupted or refused.
    if image.size_is_set and image.size < found.fs_size:
        asked, present = size_text(image.size), size_text(found.fs_size)
        # Size= takes only whole blocks; a file system that was made by hand may have smaller ones.
        enough = size_text(-(-found.fs_size // BLOCK_SIZE) * BLOCK_SIZE)
        raise RpinfsError(
            f"{image.path}: Size= asks for {asked}, less than the {present} that the image has",
            f"set Size={enough} or more in [Image {image.name}], then: {remedy.TAKE_UP}",
        )
    kind = "xfs" if found.kind is Kind.XFS else "ext4"
    if image.filesystem_is_set and kind != image.filesystem:
        raise RpinfsError(
            f"{image.path}: FileSystem= asks for {image.filesystem}, but the image holds {kind}",
            f"set FileSystem={kind} in [Image {image.name}], then: {remedy.TAKE_UP}",
        )


def _refuse_unprotectable(image: Image, found: Probe) -> None:
    if image.fence != "lease" and found.kind is Kind.XFS:
        raise ImageError(
            f"{image.path}: Fence={image.fence} needs ext4, but the image holds xfs",
            f"set Fence=lease in [Image {image.name}], then: {remedy.TAKE_UP}",
        )
