"""The lock of an image on the share: taken, kept for as long as the image is attached, taken up again, let go.

The rules that nothing here may break:

1. The lock file is never removed or replaced: that would leave somebody a lock on nothing.
2. The lock is held for as long as the image is attached, whatever becomes of the agent. Therefore the open file that
   has the lock is *pinned*: attached to a loop device of its own, by which the kernel keeps it open. The image's own
   file does not do for that: on NFS the loss of a lock fails all I/O through the open file that had it
   (NFS_LOCK_LOST), and a NAS that was away for longer than its lease time would break a file system that is sound.
3. Only who has a pin open exclusively ends it, or takes it up: LOOP_CLR_FD on a pin that another process has open does
   not fail but marks it (autoclear), and the lock would go when that process ends.
4. The pin says which loop device it is for, by its number and the number of its attachment (diskseq): that the image is
   attached does not depend on names, which people change.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator

from rpinfs.boot import storage
from rpinfs.boot.host import read_text
from rpinfs.boot.values import dataclass
from rpinfs.errors import quoted
from rpinfs.lease import owner as owners
from rpinfs.lease.owner import LeaseError
from rpinfs.system.files import NoLocks, OddFileError, lock, move_away, open_own, unlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.system.loop import LoopDevice

LOST = (errno.EIO, errno.EBADF, errno.ESTALE)
"""What an NFS client says of an open file whose lock is lost, or whose server forgot it."""

NOTHING = b"\n"
"""What a renewal writes that has nothing to say."""

_PIN_SIZE = 4096
_LOOKS, _SECONDS_BETWEEN_LOOKS = 40, 0.025
_ATTEMPTS = 3


@dataclass
class Lease:
    """A hold on an image, to be ended by close() or, when the image stays attached, by leave().

    Attributes:
        path: of the lock file.
        fd: the open lock file; -1 where an earlier process of this boot opened it.
        locked: whether the share has locks.
        pin: the loop device that keeps the lock file open.
        remark: something that did not succeed, and does not matter much.
    """

    path: str
    fd: int = -1
    locked: bool = True
    pin: "LoopDevice | None" = None
    remark: str = ""

    def keep(self, device: str = "") -> None:
        """Have the kernel keep the lock whatever becomes of this process, until close().

        Args:
            device: path of the loop device that the image is attached to.

        Raises:
            RpinfsError: there is no loop device to be had. The lock is gone then, too.
            OSError: the share failed, likewise.
        """
        if self.pin is not None or not self.locked:
            return
        from rpinfs.system import loop

        with on_error(self.leave):
            if os.fstat(self.fd).st_size < _PIN_SIZE:
                os.ftruncate(self.fd, _PIN_SIZE)
            self.pin = loop.pin(self.fd, _attachment(os.path.basename(device)))

    def renew(self, record: bytes = NOTHING) -> None:
        """Show that the holder is there, and learn whether the lock is; both in one write.

        Args:
            record: what the holder has to say (report.py). Where there is no room for it, it is left out.

        Raises:
            OSError: by one of LOST, it is: the NFS client fails what is written through the open file that had it.
        """
        try:
            self._write(record)
        except OSError as error:
            if error.errno in LOST or record == NOTHING:
                raise
            self._write(NOTHING)

    def _write(self, record: bytes) -> None:
        fd = self.fd if self.fd >= 0 or self.pin is None else self.pin.fd
        os.pwrite(fd, record, 0)
        os.fsync(fd)

    def attachment(self) -> str:
        """Which attachment of a loop device the lock is kept for, see _attachment(); empty where it does not say."""
        try:
            note = self.pin.note() if self.pin is not None else ""
        except OSError:
            return ""
        return note if re.fullmatch(r"loop[0-9]+ [0-9]*", note) else ""

    def leave(self) -> None:
        """Let go of what this process has; a pinned lock stays."""
        if self.pin is not None:
            self.pin.close()
            self.pin = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Let the lock go; the owner record stays."""
        pinned = self.pin is not None
        if self.fd >= 0 and self.locked:
            with contextlib.suppress(OSError):
                unlock(self.fd)
        if self.pin is not None:
            self.pin.detach()
            self.pin = None
        self.leave()
        # The kernel may be slow in giving it up, when udev just looks at the device.
        if pinned:
            _wait_until(lambda: not storage.loops_on(self.path))


def path_of(image: str) -> str:
    """Path of the lock file of an image."""
    return owners.beside(image, "lock")


def taken(image: str) -> Lease | None:
    """Take the lock of an image; None where another has it, on this Pi or elsewhere.

    Raises:
        LeaseError: there is something odd in its place.
        OSError: the share failed.
    """
    path = path_of(image)
    for _ in range(_ATTEMPTS):
        lease = Lease(path, _open_lock(path))
        with on_error(lease.leave):
            try:
                if not lock(lease.fd):
                    lease.leave()
                    return None
                lease.locked = not _locks_stay_here(path)
            except NoLocks:
                lease.locked = False
            if not lease.locked:
                lease.remark = "the share has no locks; only the owner record keeps other Pis away"
            if _is_named(path, lease.fd):
                return lease
        lease.leave()
    raise LeaseError(f"{path}: somebody replaces it again and again", f"ls -l {quoted(path)}")


def _open_lock(path: str) -> int:
    try:
        return open_own(path, os.O_RDWR | os.O_CREAT)
    except OddFileError as error:
        # Whoever has it open may have a lock on it.
        raise LeaseError(
            error.message, f"make sure that no Pi uses the image, then give it another name: {move_away(path)}"
        ) from error


def _is_named(path: str, fd: int) -> bool:
    """Whether the name still means the open file: a lock on another one keeps nobody away."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _locks_stay_here(path: str) -> bool:
    """Whether the NFS client keeps its locks to itself, which makes every Pi their only holder: nolock, see nfs(5)."""
    share = storage.mount_of(_mounts(), path)
    return share is not None and not {"nolock", "local_lock=all", "local_lock=flock"}.isdisjoint(share.super_options)


def _mounts() -> list[storage.Mount]:
    return storage.parse_mountinfo(read_text("/proc/self/mountinfo"))


def pinned(image: str) -> Lease | None:
    """The pin that an earlier process has left, if there is one; None where another process has it, or it goes."""
    pinned = storage.loops_on(path_of(image))
    if not pinned:
        return None
    from rpinfs.system import loop

    with contextlib.suppress(loop.BusyError, loop.GoneError):
        return Lease(path_of(image), pin=loop.hold(pinned[0].path, exclusive=True))
    return None


def is_attached(image: str, attachment: str) -> bool:
    """Whether something still has the image; a passing look at the device, such as udev's, keeps it for a moment."""

    def devices() -> set[str]:
        # Renamed or deleted, it has another name in sysfs; attached by somebody else, the pin knows nothing of it.
        named = [one.name for path in (image, f"{image} (deleted)") for one in storage.loops_on(path)]
        noted = attachment.partition(" ")[0]
        return {*named, *([noted] if attachment and _attachment(noted) == attachment else [])}

    return not _wait_until(lambda: not devices(), unless=lambda: any(map(storage.has_file_system, devices())))


def _attachment(device: str) -> str:
    """What tells one attachment of a loop device from the next, such as `loop3 945`; empty where nothing is attached.

    Linux counts attachments since 5.15; before, the device alone is known.
    """
    if not device or storage.loop_state(device) is None:
        return ""
    return f"{device} {read_text(f'/sys/block/{device}/diskseq').strip()}"


def _wait_until(done: Callable[[], bool], unless: Callable[[], bool] = lambda: False) -> bool:
    """Wait a second at most for what the kernel does soon, and tells by no event; whether it did."""
    import time

    for _ in range(_LOOKS):
        if done():
            return True
        if unless():
            return False
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return False


@contextlib.contextmanager
def on_error(clean_up: Callable[[], None]) -> Iterator[None]:
    """Clear up where what is done meanwhile fails."""
    try:
        yield
    except BaseException:
        clean_up()
        raise
