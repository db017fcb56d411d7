"""Accepting what is under the name of an image as that image, whatever was verified there before; or forgetting it."""

from rpinfs.boot.config import Image
from rpinfs.errors import RpinfsError, quoted
from rpinfs.image import remedy
from rpinfs.image.hold import own_units_named
from rpinfs.image.probe import probe
from rpinfs.lease import lease, memory
from rpinfs.lease.lease import Owner, UnreadableError


def adopt(image: Image, owner: Owner, *, now: bool = False) -> tuple[str, str]:
    """Make this machine the owner of an image, and have what is there today count as verified.

    Returns:
        a sentence on who the owner was, and one on what could not be remembered; empty for none.

    Raises:
        LeaseError: as lease.adopt().
        RpinfsError: there is no file system to be accepted, though one was verified before.
        OSError: the share failed.
    """
    found = probe(image.path)
    uuid = found.uuid or ""
    try:
        remembered = memory.recall(image.path, image.name, owner)
    except UnreadableError:
        # To adopt it is the way out of just that.
        remembered = ()
    if remembered and not uuid:
        raise RpinfsError(
            f"{image.path}: expected {remembered[0]}, or another one to accept; found {found.description}",
            f"to have a new image made: rpinfs release {quoted(image.name)}; {remedy.TRY_AGAIN}",
        )
    with own_units_named(image):
        before = lease.adopt(image.path, owner, image.name, now=now, uuid=uuid)
    return before, memory.remember(image.path, image.name, owner, uuid) if uuid else ""


def release(image: Image, owner: Owner) -> None:
    """Give up an image of this machine's own, and forget what was verified.

    Raises:
        LeaseError: as lease.release().
        RpinfsError: the root cannot forget.
        OSError: the share failed.
    """
    with own_units_named(image):
        lease.release(image.path, owner, image.name)
    memory.forget(image.name)
