"""What was verified before: the UUID of an image's file system, remembered on the share and on the root.

An image that was verified once, and is missing, blank or another one today, is never made anew: most likely the NAS
came up without its data disk and exports the empty folder below. The owner record on the share (owner.py) has the UUID;
it is gone with the disk. So the root remembers as well, in /var/lib/rpinfs/NAME.verified.

What the root remembers belongs to one board and one path: of a root that was copied for another Pi, and of a File= that
was changed, it says nothing. The time of the file is when the image was last verified: that of the NAS where the root
is on NFS, since a Pi has no clock of its own.
"""

import errno
import json
import os
from collections.abc import Callable, Sequence

from rpinfs.boot.values import dataclass, replace
from rpinfs.errors import RpinfsError, quoted, reason_of
from rpinfs.lease import owner as owners
from rpinfs.lease.lease import Lease
from rpinfs.lease.owner import Owner
from rpinfs.system import files

FOLDER = "/var/lib/rpinfs"

_VERSION = 1
_ENDING = ".verified"


@dataclass(frozen=True)
class Verified:
    """What was verified.

    Attributes:
        uuid: of the file system.
        when: seconds since 1970; 0 where nobody knows.
    """

    uuid: str
    when: float = 0

    def __str__(self) -> str:
        return f"file system {self.uuid}" + (f", last verified {owners.utc(self.when)}" if self.when else "")


def file_of(name: str) -> str:
    """Path of what the root remembers of an image, by its name in the configuration."""
    return f"{FOLDER}/{name}{_ENDING}"


def recall(image: str, name: str, owner: Owner) -> tuple[Verified, ...]:
    """What is known to have been verified under this path by this board, on the root and on the share; () for nothing.

    Args:
        image: path of the image.
        name: what the configuration calls it.

    Raises:
        UnreadableError: there is an owner record that cannot be understood.
        OSError: the share failed.
    """
    here = _recall_here(image, name, owner)
    record = owners.read(image, name)
    if record is None or record.serial != owner.serial or not record.uuid:
        return here
    if any(one.uuid == record.uuid for one in here):
        return here
    return (*here, Verified(record.uuid))


def remember(image: str, name: str, owner: Owner, uuid: str, lease: Lease | None = None) -> str:
    """Remember what was verified and attached; returns what did not succeed, in words, or "".

    That is no reason to keep Docker down: a root may be read-only, a NAS full.

    Args:
        lease: this board's hold on the image, without which the owner record is not its to write.
    """
    failed = _failure("on the share", _remember_there, image, uuid, lease) if lease is not None else []
    return _told(image, failed + _failure(f"in {file_of(name)}", _remember_here, image, name, owner, uuid))


def foresee(image: str, name: str, owner: Owner, uuid: str, lease: Lease | None) -> None:
    """Before an image is replaced, as by a restore: have either known, whichever has the name when the power goes.

    The root keeps what there was, and the share takes what will be.
    """
    for one in recall(image, name, owner)[:1]:
        _failure("", _remember_here, image, name, owner, one.uuid)
    if lease is not None:
        _failure("", _remember_there, image, uuid, lease)


def made_anew(image: str, uuid: str, lease: Lease) -> str:
    """Remember an image of this machine's that a person has made, also where another was verified under this path.

    Returns:
        what did not succeed, in words, or "".
    """
    record = owners.read(image)
    if record is None:
        return ""
    failed = _failure("on the share", _remember_there, image, uuid, lease)
    for name in _names():
        if _recall_here(image, name, record):
            failed += _failure(f"in {file_of(name)}", _remember_here, image, name, record, uuid)
    return _told(image, failed)


def forget(name: str) -> None:
    """Have the root forget what it knows of an image.

    Raises:
        RpinfsError: it cannot.
    """
    path = file_of(name)
    try:
        os.unlink(path)
        files.sync_folder(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RpinfsError(
            f"{path}: what was verified cannot be forgotten: {error.strerror}", f"rm {quoted(path)}"
        ) from error


def is_known(uuid: str | None, remembered: Sequence[Verified]) -> bool:
    """Whether a file system is one that was verified before, or nothing was."""
    return not remembered or any(one.uuid == uuid for one in remembered)


def _names() -> list[str]:
    """The images of which the root remembers something, by their names in the configuration."""
    try:
        entries = os.listdir(FOLDER)
    except FileNotFoundError:
        return []
    return [entry.removesuffix(_ENDING) for entry in entries if entry.endswith(_ENDING)]


def _failure(place: str, action: Callable[..., None], *arguments: object) -> list[str]:
    try:
        action(*arguments)
    except (OSError, RpinfsError) as error:
        return [f"{place}: {reason_of(error)}"]
    return []


def _told(image: str, failed: list[str]) -> str:
    return f"that {image} was verified cannot be remembered {'; nor '.join(failed)}" if failed else ""


# --- On the share ------------------------------------------------------------------------------------------


def _remember_there(image: str, uuid: str, lease: Lease) -> None:
    record = owners.read(image)
    if record is not None and record.uuid != uuid:
        if lease.locked:
            owners.remove_leftovers(image)
        with owners.new_record(image) as new:
            new.publish(replace(record, uuid=uuid))


# --- On the root -------------------------------------------------------------------------------------------


def _recall_here(image: str, name: str, owner: Owner) -> tuple[Verified, ...]:
    path = file_of(name)
    try:
        record = files.parsed(files.read_own(path))
        when = os.lstat(path).st_mtime
    except (FileNotFoundError, ValueError, files.OddFileError):
        # Damaged, it says nothing; the share has its word.
        return ()
    uuid = str(record.get("uuid"))
    return (Verified(uuid, when),) if record == _record(image, owner, uuid) else ()


def _record(image: str, owner: Owner, uuid: str) -> dict[str, object]:
    return {"version": _VERSION, "board": owner.serial, "path": image, "uuid": uuid}


def _remember_here(image: str, name: str, owner: Owner, uuid: str) -> None:
    path = file_of(name)
    if any(one.uuid == uuid for one in _recall_here(image, name, owner)):
        try:
            os.utime(path)
        except OSError as error:
            # What it says is true on a read-only root as well.
            if error.errno != errno.EROFS:
                raise
        return
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    # Of this image of this machine nobody else is writing: its agent and its commands have the lock, one at a time.
    files.remove_own_leftovers(path)
    with files.new_own(path) as new:
        new.publish(json.dumps(_record(image, owner, uuid)).encode() + b"\n")
