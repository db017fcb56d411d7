"""Errors of images: what is refused, what the share did, and what protects an image."""

import contextlib
from collections.abc import Iterator

from rpinfs.errors import RpinfsError, reason_of
from rpinfs.system.run import CommandError
from rpinfs.system.trouble import remedy_of


class ImageError(RpinfsError):
    """An image that cannot be made or used as it is. Nothing was changed."""


class ShareFailedError(ImageError):
    """The share failed while an image was looked at, made or changed: the next try may do better."""


class OtherThanVerifiedError(ShareFailedError):
    """Under the name of an image is not what was verified before: the NAS may find it again, and the next try too."""


class ProtectedError(ImageError):
    """An image whose multi-mount protection says that another host uses it."""


class CutShortError(ProtectedError):
    """An image whose multi-mount protection says that e2fsck is at work: so it is, or it was cut short."""


@contextlib.contextmanager
def as_image_error(path: str, what: str) -> Iterator[None]:
    """Make an ImageError of whatever goes wrong inside: `PATH: WHAT: REASON`, with the remedy for it."""
    try:
        yield
    except ImageError as error:
        if error.message.startswith(f"{path}: "):
            raise
        raise type(error)(f"{path}: {what}: {error.message}", error.remedy) from error
    except CommandError as error:
        raise ImageError(f"{path}: {what}: {error.message}", error.remedy) from error
    except OSError as error:
        raise ShareFailedError(f"{path}: {what}: {reason_of(error)}", remedy_of(error) or None) from error
