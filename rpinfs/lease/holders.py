"""All images on a share that belong to somebody: whose each is, when that Pi was last seen, what it says of itself.

Read without a lock and without a configuration, on the NAS as on a Pi. Whatever stands there was written by whoever can
write to the share: what cannot be read is named, and keeps nobody from the rest.
"""

import os
from collections import deque
from collections.abc import Iterator
from itertools import islice

from rpinfs.boot.values import dataclass, replace
from rpinfs.errors import RpinfsError
from rpinfs.lease import owner as owners
from rpinfs.lease.lock import path_of
from rpinfs.lease.owner import Owner, record_of
from rpinfs.lease.report import Report, parse
from rpinfs.system import files

MOST_ENTRIES = 20_000
"""Names that are looked at: an export may hold a whole NAS beside the images."""

MOST_LEVELS = 4
"""Of folders: File= may name some below the share."""

_PREFIX, _SUFFIX = os.path.basename(record_of("/\0")).split("\0")
# Hidden folders, and those in which a NAS keeps snapshots of its own, with all our records in them once more.
_NOT_OURS = (".", "#", "@")


class TooManyError(RpinfsError):
    """There are more names on the share than are looked at."""


@dataclass(frozen=True)
class Holder:
    """What is known of the holder of one image.

    Attributes:
        image: path of the image, which need not be there.
        owner: with the time at which it was last seen; None where the record cannot be read.
        report: what it says of itself; None where it says nothing, or what is there is not its own.
        fault: why owner or report cannot be read; None where both can.
    """

    image: str
    owner: Owner | None
    report: Report | None = None
    fault: RpinfsError | None = None


def holders(share: str) -> Iterator[Holder]:
    """Everybody who has an image below a folder, sorted by the path of the image within each folder.

    Raises:
        TooManyError: at the end, when not everything was looked at.
        OSError: the folder cannot be read.
    """
    for folder, name in _records(share):
        image = f"{folder}/{name[len(_PREFIX) : -len(_SUFFIX)]}"
        try:
            if (found := _holder(image)) is not None:
                yield found
        except RpinfsError as error:
            yield Holder(image, None, fault=error)
        except OSError as error:
            yield Holder(image, None, fault=RpinfsError(f"{image}: {error.strerror}"))


def _holder(image: str) -> Holder | None:
    owner = owners.read(image)
    if owner is None:
        return None
    lock = path_of(image)
    try:
        data, seen = files.read_own_dated(lock)
    except FileNotFoundError:
        return Holder(image, owner)
    except files.OddFileError as error:
        return Holder(image, owner, fault=error)
    except OSError as error:
        return Holder(image, owner, fault=RpinfsError(f"{lock}: {error.strerror}"))
    owner = replace(owner, seen=seen)
    try:
        report = parse(data)
    except ValueError as error:
        return Holder(image, owner, fault=RpinfsError(f"{lock}: {error}"))
    return Holder(image, owner, report if report is not None and report.serial == owner.serial else None)


def _records(share: str) -> Iterator[tuple[str, str]]:
    """Folder and name of each owner record, the upper folders first."""
    left = MOST_ENTRIES
    waiting = deque([(share.rstrip("/") or "/", 1)])
    while waiting:
        folder, level = waiting.popleft()
        try:
            with os.scandir(folder) as listed:
                entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in islice(listed, left))
        except OSError:
            if level == 1:
                raise
            continue
        left -= len(entries)
        for name, is_folder in entries:
            if not is_folder and name.startswith(_PREFIX) and name.endswith(_SUFFIX):
                yield folder, name
            elif is_folder and level < MOST_LEVELS and not name.startswith(_NOT_OURS):
                waiting.append((f"{folder}/{name}", level + 1))
        if left <= 0:
            raise TooManyError(
                f"{share}: only {MOST_ENTRIES} of its names were looked at",
                "name the folder that has the images",
            )
