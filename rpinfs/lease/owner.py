"""Who an image belongs to: the owner record `.NAME.rpinfs-owner` beside it, a small JSON file.

The record keeps other Pis away while the owner is off. It is replaced whole or not at all, and written only by who
holds the lock of lease.py; so a temporary file that is there when somebody else has the lock is an interrupted
attempt's. What it says was written by whoever can write to the share: it is refused where we would not have written
it, a control character in a name too.

An owner is a board. The same host name and machine-id with another serial number is a cloned root on another Pi.

All times are the NAS's: a Pi has no clock of its own, and may take the year for 1970.
"""

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator

from rpinfs.boot.host import Host, read_text
from rpinfs.boot.values import asdict, dataclass, field, replace
from rpinfs.errors import RpinfsError, printable, quoted, reason_of
from rpinfs.system import files

_VERSION = 1
_LONGEST_TEXT = 255
_TEXTS = ("serial", "hostname", "machine_id", "boot_id")
_UUID = re.compile(r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Not for us to read. Anything else (EIO, ESTALE) is the share's trouble, and may pass.
_UNREADABLE = (errno.EACCES, errno.EPERM)


class LeaseError(RpinfsError):
    """An image that another Pi has, or whose owner cannot be told. Nothing was changed."""


class UnreadableError(LeaseError):
    """There is an owner record, and nobody can tell what it says: that is not the same as no owner."""


@dataclass(frozen=True)
class Owner:
    """Who an image belongs to.

    Attributes:
        serial: serial number of the board, or the MAC address of its NIC: this alone decides.
        boot_id: random number of the boot in which the record was written.
        since: when this board became the owner, in seconds since 1970 by the NAS's clock; 0 where unknown.
        seen: when it was last seen with the image, likewise.
        uuid: of the file system that it verified and attached, see memory.py; empty where it has not yet.
    """

    serial: str
    hostname: str = ""
    machine_id: str = ""
    boot_id: str = ""
    since: float = field(default=0, compare=False)
    seen: float = field(default=0, compare=False)
    uuid: str = field(default="", compare=False)

    @classmethod
    def of(cls, host: Host) -> "Owner":
        """Tell who this machine is."""
        boot_id = read_text(host.root + "/proc/sys/kernel/random/boot_id").strip()
        return cls(cls.serial_of(host), _clean(host.hostname), _clean(host.machine_id), _clean(boot_id))

    @staticmethod
    def serial_of(host: Host) -> str:
        """What tells this board from others; empty where nothing does. Reads no file."""
        return _clean(host.serial or host.mac)

    def __str__(self) -> str:
        return f"{self.hostname or 'a Pi without a name'} (serial {self.serial})"

    def with_times(self) -> str:
        """The owner with its last-seen time, for a sentence."""
        return f"{self}, last seen {utc(self.seen)}" if self.seen else str(self)


def _clean(text: str) -> str:
    """A text as a record may have it, also where what this machine says of itself is odd."""
    return printable(text).encode("ascii", "replace").decode()[:_LONGEST_TEXT]


def utc(seconds: float) -> str:
    """A time for people: `2026-01-31 12:00 UTC`; where the share says one that no clock has, that it does."""
    import time

    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "at an impossible time"


def record_of(image: str) -> str:
    """Path of the owner record of an image."""
    return beside(image, "owner")


def beside(image: str, what: str) -> str:
    """Path of a hidden file of ours beside an image."""
    folder, name = os.path.split(image)
    return f"{folder}/.{name}.rpinfs-{what}"


def read(image: str, name: str = "NAME", *, anew: bool = False) -> Owner | None:
    """Read the owner record of an image; None where it has no owner.

    Args:
        name: what the configuration calls the image, for the remedy.
        anew: have the server asked, whatever an NFS client believes to know. Opening with O_CREAT does: without it
            the client may answer "no such file" out of its memory for a minute after another Pi has written one. It
            may leave an empty record, which is nobody's as well.

    Raises:
        UnreadableError: there is a record that cannot be read or understood.
        OSError: the share failed.
    """
    try:
        data = files.read_own(record_of(image), anew=anew)
    except FileNotFoundError:
        return None
    except files.OddFileError as error:
        raise _unreadable(image, name, error.message.removeprefix(f"{record_of(image)}: ")) from error
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        raise _unreadable(image, name, reason_of(error)) from error
    try:
        return parse(data)
    except ValueError as error:
        raise _unreadable(image, name, str(error)) from error
    except Exception as error:
        # Whatever a record does to our code, it is that record's trouble.
        raise _unreadable(image, name, f"{type(error).__name__} in reading it") from error


def parse(data: bytes) -> Owner | None:
    """Understand a record; None where it is empty. Raises ValueError."""
    if not data.strip():
        return None
    record = files.parsed(data)
    if record.get("version") != _VERSION:
        raise ValueError(f"expected version {_VERSION}, found {record.get('version')!r:.40}")
    texts = [record.get(name) for name in _TEXTS]
    since = record.get("since")
    if not all(isinstance(text, str) for text in texts) or not texts[0]:
        raise ValueError("expected the texts " + ", ".join(_TEXTS))
    if not isinstance(since, (int, float)) or not 0 <= since < 1e11:
        raise ValueError("expected a time in since")
    serial, hostname, machine_id, boot_id = (str(text) for text in texts)
    if any(not text.isprintable() or len(text) > _LONGEST_TEXT for text in (serial, hostname, machine_id, boot_id)):
        raise ValueError("expected texts of printable characters")
    uuid = record.get("uuid", "")
    if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
        raise ValueError("expected a UUID in uuid")
    return Owner(serial, hostname, machine_id, boot_id, since, uuid=uuid)


def _unreadable(image: str, name: str, reason: str) -> UnreadableError:
    return UnreadableError(
        f"{image}: nobody can tell whose it is: {record_of(image)}: {reason}",
        f"make sure that no other Pi uses the image, then: rpinfs adopt {quoted(name)}",
    )


class NewRecord:
    """A record that has not taken its name yet.

    Attributes:
        created: time in seconds since 1970, by the NAS's clock.
    """

    def __init__(self, new: files.NewOwn) -> None:
        self._new = new
        self.created = new.created

    def publish(self, owner: Owner) -> None:
        """Make it the owner record, whole and synced. Without a time the owner's begins now. Raises OSError."""
        owner = replace(owner, since=owner.since or self.created)
        record = {"version": _VERSION, **asdict(owner)}
        del record["seen"]
        if not owner.uuid:
            del record["uuid"]
        self._new.publish(json.dumps(record, indent=1).encode() + b"\n")


@contextlib.contextmanager
def new_record(image: str) -> Iterator[NewRecord]:
    """A record to be filled in and published; whatever happens, nothing else of it stays."""
    with files.new_own(record_of(image)) as new:
        yield NewRecord(new)


def remove(image: str) -> None:
    """Make an image nobody's. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(record_of(image))
    files.sync_folder(image)


def remove_leftovers(image: str) -> None:
    """Remove what interrupted writers left. Only for who holds the lock: nobody else is writing then."""
    files.remove_own_leftovers(record_of(image))


def set_aside(image: str) -> str:
    """Give what has the name of the record, and is none of ours, another name; returns that, or "". Raises OSError.

    Not removed: it may be the only name of something that a person needs.
    """
    record = record_of(image)
    try:
        os.close(files.open_own(record, os.O_RDONLY))
    except files.OddFileError:
        aside = f"{record}-odd-{os.urandom(8).hex()}"
        os.rename(record, aside)
        files.sync_folder(image)
        return aside
    except OSError:
        # There is none, or it is a small file: that is replaced.
        return ""
    return ""
