"""All boards that are known: by their records beside the roots, and by what they leave on the share."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from rpinfs.errors import RpinfsError
from rpinfs.lease.holders import TooManyError, holders
from rpinfs.lease.owner import Owner
from rpinfs.netboot.add import record as records
from rpinfs.netboot.add.record import Record
from rpinfs.netboot.boards import folder_of


@dataclass
class Known:
    """A board.

    Attributes:
        record: None for one that is known by its lease alone.
        images: files on the share that are its own.
        seen: when it was last seen with one, in seconds since 1970 by the NAS's clock; 0 where unknown.
        serial: as its lease has it, where there is no record.
        faults: what of it cannot be read, or is not there.
    """

    name: str
    record: Record | None = None
    images: list[str] = field(default_factory=list)
    seen: float = 0
    serial: str = ""
    faults: list[str] = field(default_factory=list)


def all_boards(roots: str, share: str) -> list[Known]:
    """Every board of a folder with roots and of a share, sorted by name.

    Args:
        share: folder with images; empty: nobody looks.

    Raises:
        OSError: a folder cannot be read.
    """
    found: dict[str, Known] = {}  # By name, and by serial number those without a record.
    for name, record in records.all_in(roots):
        known = found[name] = Known(name)
        if isinstance(record, RpinfsError):
            known.faults.append(record.message)
            continue
        known.record, known.serial = record, record.serial
        if record.staged:
            known.faults.append(f"is not complete: the same rpinfs netboot {_made_by(record)} again completes it")
        elif not os.path.isdir(f"{roots}/{name}"):
            known.faults.append(f"{roots}/{name} is not there")
    try:
        for holder in holders(share) if share else ():
            if holder.fault is not None:
                found.setdefault("", Known("")).faults.append(holder.fault.message)
            if holder.owner is not None:
                known = _of(holder.owner, list(found.values())) or _stranger(holder.owner, found)
                known.images.append(holder.image)
                known.seen = max(known.seen, holder.owner.seen)
    except TooManyError as error:
        found.setdefault("", Known("")).faults.append(error.message)
    return sorted(found.values(), key=lambda one: one.name)


def _made_by(record: Record) -> str:
    """Which command has made a board: a clone has no more of a source than a name, and no checksum."""
    return "add" if record.sha256 or "/" in record.source else "clone"


def _stranger(holder: Owner, found: dict[str, Known]) -> Known:
    """One that nobody here has made; it may call itself as one of ours does."""
    return found.setdefault(holder.serial, Known(holder.hostname or holder.serial, serial=holder.serial))


def _of(holder: Owner, known: list[Known]) -> Known | None:
    """The board that holds a lease: by its serial number or MAC address; by its host name where none is known."""
    for one in known:
        if one.record is None:
            continue
        if one.record.serial and folder_of(holder.serial) == one.record.serial:
            return one
        if one.record.mac and holder.serial.replace("-", ":") == one.record.mac:
            return one
    unknown = [one for one in known if one.record and not one.record.serial and not one.record.mac]
    return next((one for one in unknown if one.name == holder.hostname), None)
