"""Errors of images: what is refused, what the share did, and what protects an image."""

import contextlib
import errno
from collections.abc import Iterator

from rpinfs.errors import RpinfsError
from rpinfs.system.run import CommandError


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


REMEDIES = {
    errno.ENOSPC: "free some space on the share, or choose another one",
    errno.EDQUOT: "raise the quota on the share, or free some space",
    errno.EFBIG: "choose a size that the file system of the share can hold in one file",
    errno.EROFS: "export and mount the share read-write",
    errno.EACCES: "let this host write to the export as root (no_root_squash), or as the owner of the folder",
    errno.EPERM: "let this host write to the export as root (no_root_squash), or as the owner of the folder",
    errno.ESTALE: "it was replaced on the NAS, which shows here within a minute; if not, mount the share anew",
    errno.ENOENT: "make the folder, or mount the share that has it",
}


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
        reason = error.strerror or str(error)
        raise ShareFailedError(f"{path}: {what}: {reason}", REMEDIES.get(error.errno or 0)) from error
