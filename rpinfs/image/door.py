"""The one door to an image for commands on files: who else has it is asked before anything is touched.

The lock and the owner record lie beside the image, whatever path leads there: another mount of the same export, or the
folder itself on the NAS. An image that never was a Pi's has neither, and needs none: the commands work on any host.

    | the image is             | create  | check                     | grow               |
    |--------------------------|---------|---------------------------|--------------------|
    | nobody's, nowhere in use | yes     | yes                       | yes                |
    | attached here            | refused | refused                   | where it is        |
    | locked by another        | refused | refused                   | refused            |
    | another Pi's that is off | refused | yes: what is there stays  | refused            |
    |                          |         | its, and the lock holds   |                    |
    |                          |         | that Pi off meanwhile     |                    |

Snapshots and restores hold the lease of their own image (hold.py). What is mounted here is trimmed, copied and has its
snapshots deleted only where it is not another Pi's by now (refuse_taken).
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator

from rpinfs.boot import storage
from rpinfs.boot.host import Host, read_text
from rpinfs.image.errors import ImageError, as_image_error
from rpinfs.lease import lease, owner
from rpinfs.lease.lease import LeaseError, OwnLockError
from rpinfs.lease.lock import Lease, path_of
from rpinfs.system import loop

# struct flock of fcntl(2): type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi0q")

_LOOK = "stop what uses it here: rpinfs status"


@contextlib.contextmanager
def opened(
    path: str, remedy: str, *, only_for_owner: bool = True, here: owner.Owner | None = None
) -> Iterator[Lease | None]:
    """Have an image for a command for as long as a with statement lasts; None where it is and was nobody's.

    Args:
        path: absolute, of the image, or of what is to be one.
        remedy: what to do where another Pi has it.
        only_for_owner: whether it is refused where it belongs to another Pi that does not use it now.
        here: this machine, for who knows it already.

    Raises:
        ImageError: another has it, or it cannot be told.
    """
    if not _is_someones(path):
        yield None
        return
    with _as_refusal(path, remedy), contextlib.ExitStack() as stack:
        here = here or _this_machine()
        held = stack.enter_context(lease.for_command(path, here, only_for_owner=only_for_owner))
        _refuse_locked_on_the_nas(path, held)
        door = stack.pop_all()
    with door:
        yield held


def refuse_taken(path: str, remedy: str, here: owner.Owner | None = None) -> None:
    """Insist that an image which is mounted here is not another Pi's: two that write to it tear it to pieces.

    Args:
        here: this machine, for who knows it already.

    Raises:
        ImageError: another has it, or it cannot be told.
    """
    if not _is_someones(path):
        return
    with _as_refusal(path, remedy):
        if loop.find(path_of(path)) if os.path.lexists(path_of(path)) else False:
            # The lock is this Pi's, by its agent.
            lease.refuse_foreign(path, here or _this_machine())
            return
    with opened(path, remedy, here=here):
        pass


def _is_someones(path: str) -> bool:
    with as_image_error(path, "its owner cannot be told"):
        return os.path.lexists(path_of(path)) or os.path.lexists(owner.record_of(path))


def _this_machine() -> owner.Owner:
    return owner.Owner.of(Host.read())


@contextlib.contextmanager
def _as_refusal(path: str, remedy: str) -> Iterator[None]:
    try:
        with as_image_error(path, "its lease cannot be had"):
            yield
    except LeaseError as error:
        raise ImageError(error.message, error.remedy or _LOOK if isinstance(error, OwnLockError) else remedy) from error


def _refuse_locked_on_the_nas(path: str, held: Lease) -> None:
    """On the NAS itself, what a Pi has locked is a lock of the NFS server's, and flock(2) does not see those."""
    share = storage.mount_of(storage.parse_mountinfo(read_text("/proc/self/mountinfo")), os.path.realpath(path))
    if share is not None and share.is_nfs:
        return
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    found = _FLOCK.unpack(fcntl.fcntl(held.fd, fcntl.F_OFD_GETLK, wanted))
    if found[0] != fcntl.F_UNLCK:
        raise lease.in_use(path, _this_machine())
