"""One Pi, one image: a lock on the share that dies with the Pi, and an owner record beside the image.

The lock keeps two Pis apart that run at the same time; a server that restarts gives it back to its holder within the
grace period (RFC 8881, 8.4.2). The record keeps another Pi away when the owner is off, or its agent restarts: only
`rpinfs adopt` on the other Pi, or `rpinfs release` on the owner, passes an image on. Both live in one file,
`.NAME.rpinfs-lease`, beside the image: removing it loses an owner, never data.

An owner is a board. The same host name and machine-id with another serial number is a cloned root on another Pi.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rpinfs.errors import RpinfsError
from rpinfs.files import NoLocks, lock
from rpinfs.host import Host, read_text

_LONGEST_RECORD = 65536


class LeaseError(RpinfsError):
    """An image that another Pi has, or whose owner cannot be told. Nothing was changed."""


@dataclass(frozen=True)
class Owner:
    """Who an image belongs to.

    Attributes:
        serial: serial number of the board, or the MAC address of its NIC: this alone decides.
        boot_id: random number of the boot in which the record was written.
    """

    serial: str
    hostname: str = ""
    machine_id: str = ""
    boot_id: str = ""

    @classmethod
    def of(cls, host: Host) -> "Owner":
        """Tell who this machine is."""
        boot_id = read_text(host.root + "/proc/sys/kernel/random/boot_id").strip()
        return cls(host.serial or host.mac, host.hostname, host.machine_id, boot_id)

    def __str__(self) -> str:
        return f"{self.hostname or 'a Pi without a name'} (serial {self.serial})"


@dataclass
class Lease:
    """A lock that is held, for as long as it is open."""

    path: str
    fd: int
    locked: bool

    def close(self) -> None:
        """Let the lock go; the owner record stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def path_of(image: str) -> str:
    """Path of the lease file of an image."""
    folder, name = os.path.split(image)
    return f"{folder}/.{name}.rpinfs-lease"


def acquire(image: str, owner: Owner) -> Lease:
    """Take or renew the hold of this machine on an image.

    Raises:
        LeaseError: another Pi uses the image, or owns it.
        OSError: the share failed.
    """
    lease = _locked(image, owner)
    with _closed_on_error(lease):
        found = _read(lease)
        if found is not None and found.serial != owner.serial:
            raise _owned(image, found, lease)
        if found != owner:
            _write(lease, owner)
    return lease


def adopt(image: str, owner: Owner) -> Owner | None:
    """Make this machine the owner of an image whose owner is gone; returns who that was.

    Raises:
        LeaseError: somebody holds the lock, so the image is in use.
        OSError: the share failed.
    """
    lease = _locked(image, owner)
    with contextlib.closing(lease):
        found = _read(lease)
        _write(lease, owner)
        return found


def release(image: str, owner: Owner) -> None:
    """Give up an image of this machine's own, so that any Pi may take it.

    Raises:
        LeaseError: the image is in use, or another Pi's.
        OSError: the share failed.
    """
    lease = _locked(image, owner)
    with contextlib.closing(lease):
        found = _read(lease)
        if found is not None and found.serial != owner.serial:
            raise _owned(image, found, lease)
        # Emptied, not removed: removing a file that another Pi has just opened would leave it a lock on nothing.
        os.ftruncate(lease.fd, 0)
        os.fsync(lease.fd)


def owner_of(image: str) -> Owner | None:
    """Tell the owner of an image without a lock; None where it has none. Raises OSError."""
    try:
        with open(path_of(image), encoding="utf-8", errors="replace") as file:
            return _parse(file.read(_LONGEST_RECORD))
    except FileNotFoundError:
        return None


def _locked(image: str, owner: Owner) -> Lease:
    path = path_of(image)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    lease = Lease(path, fd, locked=True)
    with _closed_on_error(lease):
        try:
            if not lock(fd):
                raise _in_use(image, _read(lease), owner)
        except NoLocks:
            lease.locked = False
    return lease


def _in_use(image: str, holder: Owner | None, owner: Owner) -> LeaseError:
    if holder is not None and holder.serial == owner.serial:
        return LeaseError(
            f"{image}: in use by this Pi", "systemctl stop docker containerd var-lib-docker.mount rpinfs-agent"
        )
    who = str(holder) if holder else "another Pi"
    return LeaseError(
        f"{image}: in use by {who}",
        "give this Pi an image of its own with File= in [Image], or shut the other Pi down",
    )


def _owned(image: str, owner: Owner, lease: Lease) -> LeaseError:
    # The time is the server's: a Pi's own clock may be in 1970.
    seen = _utc(os.fstat(lease.fd).st_mtime)
    return LeaseError(
        f"{image}: belongs to {owner}, last seen {seen}",
        "if that Pi is gone for good: rpinfs adopt NAME; else give this Pi an image of its own with File= in [Image]",
    )


def _utc(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _read(lease: Lease) -> Owner | None:
    return _parse(os.pread(lease.fd, _LONGEST_RECORD, 0).decode("utf-8", "replace"))


def _parse(text: str) -> Owner | None:
    if not text.strip("\0\n "):
        return None
    try:
        record = json.loads(text)
        return Owner(**{field: str(record[field]) for field in Owner.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        # A record cut short by a power cut in the middle of its first writing: written in one piece, so nobody's.
        return None


def _write(lease: Lease, owner: Owner) -> None:
    """Write the record in place, in one call and padded: replacing the file would take it from under its lock."""
    text = json.dumps(asdict(owner)).encode() + b"\n"
    size = os.fstat(lease.fd).st_size
    os.pwrite(lease.fd, text.ljust(size, b" "), 0)
    os.fsync(lease.fd)


@contextlib.contextmanager
def _closed_on_error(lease: Lease) -> Iterator[None]:
    try:
        yield
    except BaseException:
        lease.close()
        raise
