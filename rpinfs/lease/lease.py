"""One Pi, one image: a lock on the share that dies with the Pi, and an owner record (owner.py) beside the image.

The lock, on the file `.NAME.rpinfs-lock`, keeps two Pis apart that run at the same time; a server that restarts gives
it back to its holder within the grace period (RFC 8881, 8.4.2). The record keeps another Pi away when the owner is off:
only `rpinfs adopt` on the other Pi, or `rpinfs release` on the owner, passes an image on.

The record is changed by who holds the lock, and by nobody else.

An owner that was cut off for longer than the server's lease time has lost the lock, and does not know. Its kernel sends
what waits as soon as the share answers again; nothing on this side can keep that back. So nobody adopts an image whose
owner was seen lately (QUIET_SECONDS), and the owner asks `still_ours` at once when the share answers again. Measured
with two kernels (6.1) and nfs-ganesha, cut off for 48 s under a writer: it knew after 0.1 s; 16 MiB that were under way
in its kernel were written all the same (tests/tools/lease/test_cut_off.py).
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from rpinfs.boot import storage
from rpinfs.boot.values import replace
from rpinfs.errors import quoted
from rpinfs.lease import owner as owners
from rpinfs.lease.lock import LOST, NOTHING, Lease, is_attached, on_error, path_of, pinned, taken
from rpinfs.lease.owner import LeaseError, Owner, UnreadableError

__all__ = [
    "LOST",
    "Lease",
    "LeaseError",
    "OwnLockError",
    "Owner",
    "TakenError",
    "UnreadableError",
    "acquire",
    "adopt",
    "owner_of",
    "path_of",
    "release",
    "still_ours",
]

RENEW_SECONDS = 180.0
"""How often the holder shows that it is there: the time of the lock file is when it was last seen."""

QUIET_SECONDS = 5 * RENEW_SECONDS
"""An owner that was not seen for so long counts as gone. One that is cut off loses its lock after a minute or two."""

# What a full NAS says; the lock holds all the same.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class TakenError(LeaseError):
    """Another Pi has the image: it holds the lock, or the record names it."""


class OwnLockError(LeaseError):
    """The lock is this Pi's own, from an earlier boot or from another process."""


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
        TakenError: another Pi uses the image, or owns it.
        LeaseError: nobody can tell, or a process of this Pi has it.
        OSError: the share failed.
    """
    _refuse_nameless(image, owner)
    lease = (_take_up(image) if take_up else None) or _locked(image, owner)
    # A lock that was there before stays when it turns out that the record is another's: the image may be mounted.
    with on_error(lease.leave if lease.pin else lease.close):
        found = owners.read(image, name, anew=True)
        if found is not None and found.serial != owner.serial:
            raise _owned(image, found, owner, name)
        try:
            if found != owner:
                known = found or replace(owner, since=0)
                _write(image, replace(owner, since=known.since, uuid=known.uuid), lease)
            lease.renew()
        except OSError as error:
            # A full NAS is no reason to keep the owner from its image.
            if found is None or error.errno not in _FULL:
                raise
            lease.remark = f"the owner record could not be renewed: {error.strerror}"
    return lease


def still_ours(image: str, owner: Owner, lease: Lease, name: str = "NAME", record: bytes = NOTHING) -> None:
    """Learn whether another Pi has taken an image that is mounted here, and show that this one is there.

    To be asked when the share answers again after a silence of any length, and every RENEW_SECONDS. A server that did
    not hear from a client for its lease time (90 s, mostly) gives the lock to who asks; until then nobody can have it.

    Args:
        record: what this Pi has to say of itself meanwhile, see report.py.

    Raises:
        TakenError: another Pi has. Every write from now on may destroy its file system.
        UnreadableError: nobody can tell.
        OSError: by one of LOST, the lock is lost and the image still this Pi's by its record: acquire() it again.
    """
    found = owners.read(image, name, anew=True)
    if found is not None and found.serial != owner.serial:
        raise _owned(image, found, owner, name)
    lease.renew(record)


def adopt(image: str, owner: Owner, name: str = "NAME", *, now: bool = False, uuid: str = "") -> str:
    """Make this machine the owner of an image whose owner is gone; returns a sentence on who that was, or "".

    The owner must not have been seen for QUIET_SECONDS: an owner that is cut off from the NAS has lost its lock, and
    writes on when it is back.

    Args:
        now: somebody knows that the owner is gone, however lately it was seen. A lock is respected all the same.
        uuid: of the file system that is accepted as the image's, see memory.py.

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
            foreign = True
        else:
            found = found and replace(found, seen=_seen(image))
            before = f"it belonged to {found.with_times()}" if found else ""
            foreign = found is not None and found.serial != owner.serial
        if foreign and not now:
            _refuse_recent(image, lease, found, name)
        if foreign and (aside := owners.set_aside(image)):
            before += f"; that is {aside} now"
        since = found.since if found and not foreign else 0
        _write(image, replace(owner, since=since, uuid=uuid), lease)
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


@contextlib.contextmanager
def for_command(image: str, owner: Owner, *, only_for_owner: bool = True) -> Iterator[Lease]:
    """Have the lock of an image for as long as a command takes, and leave whose it is as it is.

    Args:
        only_for_owner: whether an image that belongs to another machine is refused also while nobody uses it. Where the
            share has no locks it is: nobody can tell.

    Raises:
        LeaseError: it is in use, or another Pi's, or nobody can tell.
        OSError: the share failed.
    """
    with _locked_for_command(image, owner) as lease:
        if only_for_owner or not lease.locked:
            refuse_foreign(image, owner)
        yield lease


def refuse_foreign(image: str, owner: Owner) -> None:
    """Refuse an image that belongs to another machine. Raises LeaseError, OSError."""
    found = owners.read(image)
    if found is not None and found.serial != owner.serial:
        raise _owned(image, found, owner, "NAME")


def let_go(image: str, lease: Lease | None) -> None:
    """End this Pi's hold on an image, also one pinned earlier. While the image is attached, the lock stays with it.

    Without a lease of the caller's own, a pin that another process has is not touched.
    """
    ending = lease or pinned(image)
    if ending is None:
        return
    if is_attached(image, ending.attachment()):
        ending.leave()
    else:
        ending.close()


# --- The lock ----------------------------------------------------------------------------------------------


def _take_up(image: str) -> Lease | None:
    """The lock that an earlier process of this boot has left pinned, if it still holds."""
    if not storage.loops_on(path_of(image)):
        return None
    lease = pinned(image)
    if lease is None:
        raise _own_lock(image)
    attachment = lease.attachment()
    try:
        if not attachment or is_attached(image, attachment):
            lease.renew()
            return lease
    except OSError as error:
        # A NAS that is full or busy has not lost it.
        if error.errno not in LOST:
            return lease
    lease.close()
    return None


def _locked(image: str, owner: Owner) -> Lease:
    lease = taken(image)
    if lease is None:
        raise in_use(image, owner)
    return lease


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


# --- The record --------------------------------------------------------------------------------------------


def _write(image: str, owner: Owner, lease: Lease) -> None:
    if lease.locked:
        owners.remove_leftovers(image)
    with owners.new_record(image) as record:
        record.publish(owner)


def _seen(image: str) -> float:
    try:
        return os.lstat(path_of(image)).st_mtime
    except FileNotFoundError:
        return 0


# --- Refusing ----------------------------------------------------------------------------------------------


def _refuse_nameless(image: str, owner: Owner) -> None:
    if not owner.serial:
        raise LeaseError(
            f"{image}: this machine has neither a serial number nor a network card to be told from others by",
            "rpinfs config show",
        )


def _refuse_recent(image: str, lease: Lease, found: Owner | None, name: str) -> None:
    """When it was last seen is all there is to tell a Pi that was cut off from one that is gone."""
    seen = _seen(image)
    # The server's time of a new file: this Pi's own clock may be in 1970.
    with owners.new_record(image) as probe:
        quiet = probe.created - seen
    if quiet < QUIET_SECONDS:
        without = "" if lease.locked else "the share has no locks, and "
        raise LeaseError(
            f"{image}: {without}the owner{f', {found},' if found else ''} was seen {max(quiet, 0):.0f} s ago: "
            "it may still use it, or come back with what it could not write yet",
            f"shut the owner down and wait until it was not seen for {QUIET_SECONDS / 60:.0f} minutes; "
            f"or, if you have seen that it is off: rpinfs adopt {quoted(name)} --now",
        )


def in_use(image: str, owner: Owner) -> LeaseError:
    """What to raise where another process, here or elsewhere, has the lock."""
    try:
        holder = owner_of(image)
    except (LeaseError, OSError):
        holder = None
    if holder is None or holder.serial != owner.serial:
        who = f"{holder.with_times()}{_likeness(holder, owner)}" if holder else "another Pi that has not said its name"
        return TakenError(
            f"{image}: in use by {who}",
            "give this Pi an image of its own with File= in [Image], or shut the other Pi down",
        )
    if holder.boot_id != owner.boot_id:
        return OwnLockError(
            f"{image}: the NAS still keeps the lock of this Pi's own last boot, last seen {owners.utc(holder.seen)}",
            "wait: the NAS lets go of it by itself, most within two minutes",
        )
    return _own_lock(image)


def _own_lock(image: str) -> OwnLockError:
    # What to stop for that is known to who knows the image's settings (hold.py).
    return OwnLockError(f"{image}: in use by this Pi")


def _owned(image: str, found: Owner, owner: Owner, name: str) -> TakenError:
    who = replace(found, seen=_seen(image)).with_times()
    return TakenError(
        f"{image}: belongs to {who}{_likeness(found, owner)}",
        "give this Pi an image of its own, File= in [Image]; or, if that Pi is gone for good:"
        f" rpinfs adopt {quoted(name)}",
    )


def _likeness(other: Owner, owner: Owner) -> str:
    """Explain a refusal by what looks like the Pi itself."""
    if not owner.machine_id or other.machine_id != owner.machine_id:
        return ""
    same = "host name and machine-id" if other.hostname == owner.hostname else "machine-id"
    return f"; another board with the {same} of this one: its root is a copy"
