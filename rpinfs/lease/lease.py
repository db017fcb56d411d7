"""One Pi, one image: a lock on the share that dies with the Pi, and an owner record (owner.py) beside the image.

The lock, on the file `.NAME.rpinfs-lock`, keeps two Pis apart that run at the same time; a server that restarts gives
it back to its holder within the grace period (RFC 8881, 8.4.2). The record keeps another Pi away when the owner is off:
only `rpinfs adopt` on the other Pi, or `rpinfs release` on the owner, passes an image on.

The rules that nothing here may break:

1. The lock file is never removed or replaced: that would leave somebody a lock on nothing.
2. The record is changed by who holds the lock, and by nobody else.
3. The lock is held for as long as the image is attached, whatever becomes of the agent. Therefore the open file that
   has the lock is *pinned*: attached to a loop device of its own, by which the kernel keeps it open. The image's own
   file does not do for that: on NFS the loss of a lock fails all I/O through the open file that had it
   (NFS_LOCK_LOST), and a NAS that was away for longer than its lease time would break a file system that is sound.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rpinfs.boot import storage
from rpinfs.boot.host import read_text
from rpinfs.lease import owner as owners
from rpinfs.lease.owner import LeaseError, Owner, UnreadableError
from rpinfs.system.files import NoLocks, lock, unlock

if TYPE_CHECKING:
    from rpinfs.system.loop import LoopDevice

__all__ = [
    "Lease",
    "LeaseError",
    "OwnLockError",
    "Owner",
    "UnreadableError",
    "acquire",
    "adopt",
    "owner_of",
    "path_of",
    "release",
]

RENEW_SECONDS = 180.0
"""How often the holder shows that it is there: the time of the lock file is when it was last seen."""

QUIET_SECONDS = 5 * RENEW_SECONDS
"""Where a share has no locks, an owner that was not seen for so long counts as gone."""

LOST = (errno.EIO, errno.EBADF, errno.ESTALE)
"""What an NFS client says of an open file whose lock is lost, or whose server forgot it."""

_PIN_SIZE = 4096
# What a full NAS says; the lock holds all the same.
_FULL = (errno.ENOSPC, errno.EDQUOT)


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

    def keep(self) -> None:
        """Have the kernel keep the lock whatever becomes of this process, until close().

        Raises:
            RpinfsError: there is no loop device to be had. The lock is gone then, too.
            OSError: the share failed, likewise.
        """
        if self.pin is not None or not self.locked:
            return
        from rpinfs.system import loop

        with _on_error(self.leave):
            if os.fstat(self.fd).st_size < _PIN_SIZE:
                os.ftruncate(self.fd, _PIN_SIZE)
            self.pin = loop.pin(self.fd, self.path)

    def renew(self) -> None:
        """Show that the holder is there, and learn whether the lock is.

        Raises:
            OSError: by one of LOST, it is: the NFS client fails what is written through the open file that had it.
        """
        fd = self.fd if self.fd >= 0 or self.pin is None else self.pin.fd
        os.pwrite(fd, b"\n", 0)
        os.fsync(fd)

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
        if self.fd >= 0 and self.locked:
            # The kernel may be slow in giving up the pin, when udev just looks at the device.
            with contextlib.suppress(OSError):
                unlock(self.fd)
        if self.pin is not None:
            self.pin.detach()
            self.pin = None
        self.leave()


class OwnLockError(LeaseError):
    """The lock is this Pi's own, from an earlier boot or from another process."""


def path_of(image: str) -> str:
    """Path of the lock file of an image."""
    return owners.beside(image, "lock")


def owner_of(image: str) -> Owner | None:
    """Tell the owner of an image, with its last-seen time, without a lock; None where it has none.

    Raises:
        UnreadableError: there is an owner record that cannot be read or understood.
        OSError: the share failed.
    """
    found = owners.read(image)
    return found and replace(found, seen=_seen(image))


def acquire(image: str, owner: Owner, name: str = "NAME", *, take_up: bool = True) -> Lease:
    """Take or renew the hold of this machine on an image.

    A lock that an earlier agent of this boot has left pinned is taken up as it is.

    Args:
        image: path of the image.
        name: what the configuration calls it, for the remedy.
        take_up: whether a lock pinned earlier is the caller's to take up: the agent's, and no command's.

    Raises:
        LeaseError: another Pi uses the image, or owns it, or nobody can tell.
        OSError: the share failed.
    """
    _refuse_nameless(image, owner)
    lease = (_take_up(image) if take_up else None) or _locked(image, owner)
    # A lock that was there before stays when it turns out that the record is another's: the image may be mounted.
    with _on_error(lease.leave if lease.pin else lease.close):
        found = owners.read(image, name, anew=True)
        if found is not None and found.serial != owner.serial:
            raise _owned(image, found, owner, name)
        try:
            if found != owner:
                _write(image, replace(owner, since=found.since if found else 0), lease)
            lease.renew()
        except OSError as error:
            # A full NAS is no reason to keep the owner from its image.
            if found is None or error.errno not in _FULL:
                raise
            lease.remark = f"the owner record could not be renewed: {error.strerror}"
    return lease


def adopt(image: str, owner: Owner, name: str = "NAME") -> str:
    """Make this machine the owner of an image whose owner is gone; returns a sentence on who that was, or "".

    Where the share has no locks, the owner must not have been seen for QUIET_SECONDS.

    Raises:
        LeaseError: the image is in use, or may be.
        OSError: the share failed. The old record is whole then, or the new one.
    """
    _refuse_nameless(image, owner)
    with _locked_for_command(image, owner) as lease:
        try:
            found = owners.read(image, name, anew=True)
        except UnreadableError as error:
            found, before = None, error.message.partition(": ")[2]
        else:
            found = found and replace(found, seen=_seen(image))
            before = f"it belonged to {found.with_times()}" if found else ""
        if not lease.locked and not (found and found.serial == owner.serial):
            _refuse_recent(image)
        since = found.since if found and found.serial == owner.serial else 0
        _write(image, replace(owner, since=since), lease)
        return before


def release(image: str, owner: Owner, name: str = "NAME") -> None:
    """Give up an image of this machine's own, so that any Pi may take it.

    Raises:
        LeaseError: the image is in use, or another Pi's, or nobody can tell.
        OSError: the share failed. The image is this machine's then, or nobody's.
    """
    with _locked_for_command(image, owner):
        found = owners.read(image, name, anew=True)
        if found is not None and found.serial != owner.serial:
            raise _owned(image, found, owner, name)
        owners.remove(image)


def let_go(image: str, lease: Lease | None) -> None:
    """End this Pi's hold on an image, also one pinned earlier. While the image is attached, the lock stays with it."""
    if _is_attached(image):
        if lease is not None:
            lease.leave()
    elif ending := lease or _pinned(image):
        ending.close()


def _is_attached(image: str) -> bool:
    """Whether something still has the image; a passing look at the device, such as udev's, keeps it for a moment."""
    import time

    for _ in range(40):
        if not storage.loops_on(image):
            return False
        if any(one.backing_file == image for mount in _mounts() if (one := storage.loop_of(mount))):
            return True
        time.sleep(0.025)
    return True


# --- The lock ----------------------------------------------------------------------------------------------


def _take_up(image: str) -> Lease | None:
    """The lock that an earlier process of this boot has left pinned, if it still holds."""
    lease = _pinned(image)
    if lease is not None:
        try:
            lease.renew()
        except OSError:
            lease.close()
            return None
    return lease


def _pinned(image: str) -> Lease | None:
    pinned = storage.loops_on(path_of(image))
    if not pinned:
        return None
    from rpinfs.system import loop

    return Lease(path_of(image), pin=loop.hold(pinned[0].path))


def _locked(image: str, owner: Owner) -> Lease:
    path = path_of(image)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    lease = Lease(path, fd)
    with _on_error(lease.leave):
        try:
            if not lock(fd):
                raise _in_use(image, owner)
            lease.locked = not _locks_stay_here(path)
        except NoLocks:
            lease.locked = False
        if not lease.locked:
            lease.remark = "the share has no locks; only the owner record keeps other Pis away"
    return lease


def _locks_stay_here(path: str) -> bool:
    """Whether the NFS client keeps its locks to itself, which makes every Pi their only holder: nolock, see nfs(5)."""
    share = storage.mount_of(_mounts(), path)
    return share is not None and not {"nolock", "local_lock=all", "local_lock=flock"}.isdisjoint(share.super_options)


def _mounts() -> list[storage.Mount]:
    return storage.parse_mountinfo(read_text("/proc/self/mountinfo"))


@contextlib.contextmanager
def _locked_for_command(image: str, owner: Owner) -> Iterator[Lease]:
    """The lock for as long as adopt or release takes."""
    # It may have been unmounted while no agent ran. An agent that is about to attach it holds the pin open, and is
    # not disturbed.
    let_go(image, None)
    lease = _locked(image, owner)
    try:
        yield lease
    finally:
        lease.close()


@contextlib.contextmanager
def _on_error(clean_up: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        clean_up()
        raise


# --- The record --------------------------------------------------------------------------------------------


def _write(image: str, owner: Owner, lease: Lease) -> None:
    if lease.locked:
        owners.remove_leftovers(image)
    with owners.new_record(image) as record:
        record.publish(owner)


def _seen(image: str) -> float:
    try:
        return os.stat(path_of(image)).st_mtime
    except FileNotFoundError:
        return 0


# --- Refusing ----------------------------------------------------------------------------------------------


def _refuse_nameless(image: str, owner: Owner) -> None:
    if not owner.serial:
        raise LeaseError(
            f"{image}: this machine has neither a serial number nor a network card to be told from others by",
            "rpinfs config show",
        )


def _refuse_recent(image: str) -> None:
    """Without locks, all there is to tell a Pi that runs from one that is gone is when it was last seen."""
    seen = _seen(image)
    with owners.new_record(image) as probe:
        quiet = probe.created - seen
    if quiet < QUIET_SECONDS:
        raise LeaseError(
            f"{image}: the share has no locks, and the owner was seen {max(quiet, 0):.0f} s ago: it may still use it",
            f"shut the owner down and wait until it was not seen for {QUIET_SECONDS / 60:.0f} minutes",
        )


def _in_use(image: str, owner: Owner) -> LeaseError:
    try:
        holder = owner_of(image)
    except (LeaseError, OSError):
        holder = None
    if holder is None or holder.serial != owner.serial:
        who = f"{holder.with_times()}{_likeness(holder, owner)}" if holder else "another Pi that has not said its name"
        return LeaseError(
            f"{image}: in use by {who}",
            "give this Pi an image of its own with File= in [Image], or shut the other Pi down",
        )
    if holder.boot_id != owner.boot_id:
        return OwnLockError(
            f"{image}: the NAS still keeps the lock of this Pi's own last boot, last seen {owners.utc(holder.seen)}",
            "wait: the NAS lets go of it by itself, most within two minutes",
        )
    return OwnLockError(
        f"{image}: in use by this Pi", "systemctl stop docker containerd var-lib-docker.mount rpinfs-agent"
    )


def _owned(image: str, found: Owner, owner: Owner, name: str) -> LeaseError:
    who = replace(found, seen=_seen(image)).with_times()
    return LeaseError(
        f"{image}: belongs to {who}{_likeness(found, owner)}",
        f"if that Pi is gone for good: rpinfs adopt {name}; else give this Pi an image of its own, File= in [Image]",
    )


def _likeness(other: Owner, owner: Owner) -> str:
    """Explain a refusal by what looks like the Pi itself."""
    if not owner.machine_id or other.machine_id != owner.machine_id:
        return ""
    same = "host name and machine-id" if other.hostname == owner.hostname else "machine-id"
    return f"; another board with the {same} of this one: its root is a copy"
