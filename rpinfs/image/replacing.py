"""Giving an image's name to another file: what had it becomes a snapshot, and a restore that was cut short is settled.

Restoring takes these steps, after each of which the power may go:

    the copy is whole, synced and checked     the image is the old one; the next attempt removes the copy
    the record `.IMAGE.rpinfs-replaced`       the image is the old one
    link(IMAGE, SNAPSHOT)                     the image is the old one, by two names
    rename(copy, IMAGE)                       the image is the restored one
    the record is the SNAPSHOT's              so it is known what that is

A share without hard links has rename(IMAGE, SNAPSHOT) in place of the third; before the fourth there is no image then.
From what lies on the share, next_step() tells how far it came, and settle() does the rest or undoes it: at the next
boot, snapshot or restore. Nothing is lost on the way: names change, and no name is taken from a file that has no other.
"""

import contextlib
import json
import os
import re
import stat
from enum import Enum

from rpinfs.boot.settings import REPLACED
from rpinfs.boot.values import asdict, dataclass, replace
from rpinfs.image import names, publish
from rpinfs.image.probe import refuse_attached
from rpinfs.system import files

_VERSION = 2
_FIELDS = {"of": str, "kept": str, "replaced": int, "restored": int, "uuid": str}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Record:
    """What a restore does, or has done.

    Attributes:
        of: name of the snapshot that was restored; empty where the first version of rpinfs did it.
        kept: name under which what is replaced is kept; empty where there was no image.
        replaced: inode number of that; 0 for none.
        restored: inode number of the restored image.
        uuid: of its file system.
    """

    of: str
    kept: str
    replaced: int
    restored: int
    uuid: str


class Step(Enum):
    """What is to be done about a record."""

    NOTHING = "there was no restore"
    FORGET = "nothing was done yet, or all is undone"
    PUT_BACK = "the image is under the snapshot's name alone"
    TAKE_NAME_OFF = "the image has the snapshot's name as well"
    COMPLETE = "the restored image has the name"


def next_step(record: Record | None, image: int | None, kept: int | None) -> Step:
    """Tell how far a restore came. Pure.

    Args:
        image, kept: inode numbers of what has the image's name, and the name that the record has for what is
            replaced; None where nothing has it, 0 for what is no file.
    """
    if record is None:
        return Step.NOTHING
    if image is None:
        # Whatever its number: on a share without links it may go with the name.
        return Step.PUT_BACK if kept else Step.FORGET
    if image == kept:
        # A second name that somebody else gave it is not ours to take.
        return Step.TAKE_NAME_OFF if kept == record.replaced else Step.FORGET
    if record.of and (image == record.restored or (kept is not None and kept == record.replaced)):
        return Step.COMPLETE
    return Step.FORGET


# --- The record --------------------------------------------------------------------------------------------


def read(image: str, path: str) -> Record | None:
    """Read a record; None where there is none, or an empty one, which a power cut may have left.

    Args:
        image: path of the image.
        path: of the record, see names.record_of().

    Raises:
        RpinfsError: what has its name is none of ours. It is left alone.
        OSError: the share failed.
    """
    try:
        data = files.read_own(path)
    except FileNotFoundError:
        return None
    if not data.strip():
        return None
    try:
        return parse(data, os.path.basename(image))
    except ValueError as error:
        raise files.OddFileError(path, "the record of a restore", str(error)) from error


def parse(data: bytes, image: str) -> Record:
    """Understand a record. Pure.

    Args:
        image: name of the image.

    Raises:
        ValueError: it is none; the words say what was found instead.
    """
    try:
        found = files.parsed(data)
    except ValueError as error:
        raise ValueError("something else") from error
    of_first_version = set(found) == {"inode"}
    if of_first_version:
        # It had one name for all that it replaced.
        found = {"of": "", "kept": image + REPLACED, "replaced": found["inode"], "restored": 0, "uuid": ""}
    elif found.pop("version", None) != _VERSION:
        raise ValueError("another version")
    if {key: type(value) for key, value in found.items()} != _FIELDS:
        raise ValueError("other values")
    record = Record(**found)  # type: ignore[arg-type]
    # It says what is renamed: nothing but a snapshot of this image.
    for name in filter(None, (record.of, record.kept)):
        if not names.snapshot_form(image).fullmatch(name) and name != image + REPLACED:
            raise ValueError("names that are no snapshots")
    numbers = (record.replaced, record.restored)
    if bool(record.kept) != (record.replaced > 0) or not all(0 <= number < 1 << 64 for number in numbers):
        raise ValueError("other numbers")
    if not of_first_version and not (record.of and _UUID.fullmatch(record.uuid)):
        raise ValueError("neither a snapshot nor a file system")
    return record


def _write(image: str, record: Record) -> None:
    with files.new_own(names.record_of(image)) as new:
        new.publish(json.dumps({"version": _VERSION, **asdict(record)}).encode())


# --- Settling ----------------------------------------------------------------------------------------------


def settle(image: str) -> list[str]:
    """Bring a restore that was interrupted to its end, or undo it. Only for who holds the image.

    Args:
        image: path of the image.

    Returns:
        what was done, in words.

    Raises:
        RpinfsError: what has the name of the record is none.
        OSError: the share failed; the next attempt goes on.
    """
    record = read(image, names.record_of(image))
    if record is None:
        return []
    kept = _beside(image, record.kept) if record.kept else ""
    step = next_step(record, _inode(image), _inode(kept) if kept else None)
    if step is Step.PUT_BACK:
        os.rename(kept, image)
    elif step is Step.TAKE_NAME_OFF:
        os.unlink(kept)
    if step is Step.COMPLETE and kept and os.path.lexists(kept):
        # It stays, beside what it tells of.
        os.rename(names.record_of(image), names.record_of(kept))
    else:
        os.unlink(names.record_of(image))
    files.sync_folder(image)
    return [f"{image}: a restore was interrupted; {_DONE[step]}"] if step in _DONE else []


_DONE = {Step.PUT_BACK: "the image has its name again", Step.COMPLETE: "it is completed"}


def _beside(image: str, name: str) -> str:
    return os.path.join(os.path.dirname(image), name)


def _inode(path: str) -> int | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_ino if stat.S_ISREG(status.st_mode) else 0


# --- Replacing ---------------------------------------------------------------------------------------------


def swap(new: publish.Temporary, image: str, of: str, kept: str, uuid: str) -> None:
    """Let a whole, synced copy take the image's name, and the image, if there is one, another name.

    Args:
        of: name of the snapshot that it is a copy of.
        kept: path under which the image is kept, of which there was nothing a moment ago; empty where there is none.
        uuid: of the file system in the copy.

    Raises:
        ImageError: the image is attached by now.
        OSError: the share failed. The name means the image, or the copy; the next settle() tells.
    """
    if kept:
        refuse_attached(image)
    replaced = os.lstat(image).st_ino if kept else 0
    record = Record(of, os.path.basename(kept), replaced, os.fstat(new.fd).st_ino, uuid)
    try:
        _write(image, record)
        if kept:
            _keep(image, kept, record)
            files.sync_folder(image)
            os.rename(new.path, image)
        else:
            publish.take_free_name(new, image)
        files.sync_folder(image)
    except BaseException:
        with contextlib.suppress(OSError):
            settle(image)
        raise
    settle(image)


def _keep(image: str, kept: str, record: Record) -> None:
    try:
        os.link(image, kept, follow_symlinks=False)
    except FileExistsError:
        # Over NFS a repeated request may find its own first success.
        if not publish.same_file(image, kept):
            raise
    except OSError as error:
        if error.errno not in publish.NO_LINKS_HERE:
            raise
        publish.claim(kept)
        os.rename(image, kept)
        # On a share without links the number of an inode may go with the name.
        _write(image, replace(record, replaced=os.lstat(kept).st_ino))
