"""Restoring an image: a copy of a snapshot takes its name, and what had that becomes a snapshot of its own.

Looked at first, decided by decide() alone, then done; the steps in which names change are in replacing.py.
"""

import os
import stat

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.values import dataclass, field
from rpinfs.image import hold, publish, remedy, replacing
from rpinfs.image.duplicating import duplicate, unused
from rpinfs.image.errors import ImageError, as_image_error
from rpinfs.image.signature import describe_special
from rpinfs.image.snapshots import Listing, Snapshot, clear_up, find, free_path, snapshots
from rpinfs.lease import memory
from rpinfs.lease.lease import Owner
from rpinfs.system.files import move_away, open_regular
from rpinfs.system.run import Tell, silent


@dataclass(frozen=True)
class Look:
    """What is there.

    Attributes:
        present: whether there is an image.
        in_its_place: what has the image's name instead, in words; empty for an image or nothing.
        listing: its snapshots.
    """

    present: bool = True
    in_its_place: str = ""
    listing: Listing = field(default_factory=Listing)


@dataclass(frozen=True)
class Restored:
    """What a restore has done.

    Attributes:
        snapshot: what the image is a copy of.
        kept: path of the snapshot that what was there has become; empty where there was nothing.
        remark: something that did not succeed, and does not matter much; or empty.
    """

    snapshot: Snapshot
    kept: str
    remark: str = ""


def decide(image: Image, which: str, look: Look) -> Snapshot:
    """The snapshot that is to be restored. Pure.

    Args:
        which: name of the snapshot's file, or its end, the time.

    Raises:
        ImageError: why it is not.
    """
    if look.in_its_place:
        raise ImageError(
            f"{image.path}: expected an image or nothing, found {look.in_its_place}; it is left alone",
            move_away(image.path),
        )
    return find(image, which, look.listing)


def restore(image: Image, owner: Owner, which: str, progress: Tell = silent) -> Restored:
    """Give a copy of a snapshot the name of its image, which must not be in use.

    Args:
        which: name of the snapshot's file, or its end, the time.

    Raises:
        RpinfsError: the image is in use or another Pi's, there is no such snapshot, it is damaged, there is no room,
            or a step failed. The image is as it was.
    """
    _refuse_used(image)
    with as_image_error(image.path, "cannot be restored"), hold.leased(image, owner, progress) as lease:
        replacing.settle(image.path)
        clear_up(image.path, progress)
        look = _look(image)
        wanted = decide(image, which, look)
        with publish.temporary(image.path, progress) as new:
            publish.take_ownership(new.fd, image.path if look.present else wanted.path, progress)
            with open_regular(wanted.path, os.O_RDONLY) as source:
                copied = duplicate(source, wanted.path, new, unused, progress)
            kept = free_path(image.path, copied.seconds) if look.present else ""
            memory.foresee(image.path, image.name, owner, copied.uuid, lease)
            replacing.swap(new, image.path, wanted.name, kept, copied.uuid)
        not_kept = memory.remember(image.path, image.name, owner, copied.uuid, lease)
    return Restored(wanted, kept, not_kept)


def _refuse_used(image: Image) -> None:
    """Before anything else, for what helps here is not what helps against another Pi."""
    for loop in storage.loops_on(image.path):
        raise ImageError(f"{image.path}: is in use: attached to {loop.path}", remedy.stop(image))


def _look(image: Image) -> Look:
    listing = snapshots(image.path)
    try:
        mode = os.lstat(image.path).st_mode
    except FileNotFoundError:
        return Look(present=False, listing=listing)
    odd = "" if stat.S_ISREG(mode) else describe_special(image.path, mode)
    return Look(in_its_place=odd, listing=listing)
