"""All Pis of a share: how each is, by what it says of itself, and by how long nobody has heard of it.

Everything is judged by the clock of the NAS, that of the locks' times: a Pi has no clock of its own. What the records
say was written by whoever can write to the share; it is shown, and nothing else.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from rpinfs.boot import storage
from rpinfs.boot.host import read_text
from rpinfs.boot.settings import human_size
from rpinfs.boot.values import dataclass
from rpinfs.health.checks.base import Status
from rpinfs.lease.holders import Holder, TooManyError, holders
from rpinfs.lease.lease import QUIET_SECONDS, RENEW_SECONDS
from rpinfs.lease.report import STATUSES, Report
from rpinfs.system import files
from rpinfs.system.fullness import grade

SCHEMA = 1
"""Version of the JSON. Keys are only ever added within a version."""

LATE_SECONDS = 2 * RENEW_SECONDS + 60
"""A Pi that was not seen for so long has missed two renewals of its lease."""

AHEAD_SECONDS = 60
"""A Pi that was seen so far in the future was seen by another clock."""

_FROM_WORST = (Status.CRITICAL, Status.WARNING, Status.UNKNOWN, Status.OK)
# What is to be done says that Pi itself: what lies on the share is nobody's to paste.
_ASK_IT = "on that Pi: rpinfs status"
_LOOK_AT_IT = (
    "look whether it has power and network; if it is gone for good, rpinfs adopt on another Pi takes its image"
)


@dataclass(frozen=True)
class Room:
    """An image of a Pi, by its path below the folder; bytes, None where nobody has said."""

    file: str
    size: int | None = None
    free: int | None = None

    @property
    def used_percent(self) -> float:
        """How full the file system in it is; 0 where nobody has said."""
        return 100.0 * (self.size - self.free) / self.size if self.size and self.free is not None else 0.0


@dataclass(frozen=True)
class Pi:
    """One line.

    Attributes:
        name: its host name; of a record that cannot be read, the file.
        board: its model, and `version` that of rpinfs; empty where it does not say.
        message: how it is, in one sentence.
        seen: seconds since 1970 by the clock of the NAS; 0 for never.
        age: seconds since then; None where that says nothing.
    """

    name: str
    serial: str
    board: str
    version: str
    status: Status
    message: str
    remedy: str
    images: tuple[Room, ...]
    seen: float
    age: float | None

    @property
    def fullest(self) -> Room:
        """The image that has the least room left."""
        return max(self.images, key=lambda room: (room.size is not None, room.used_percent))


@dataclass(frozen=True)
class Fleet:
    """Everything that is shown.

    Attributes:
        now: seconds since 1970, by the clock of the NAS where `asked`, else by this machine's.
        fault: why not everything was looked at; empty where it was.
    """

    folder: str
    now: float
    asked: bool
    pis: tuple[Pi, ...]
    fault: str = ""

    @property
    def status(self) -> Status:
        """That of the worst; unknown where there is nobody."""
        found = [pi.status for pi in self.pis] + [Status.UNKNOWN] * (not self.pis or bool(self.fault))
        return min(found, key=_FROM_WORST.index)


def look(folder: str) -> Fleet:
    """Read a folder with images, which may hang with its NAS. Raises OSError."""
    found: list[Holder] = []
    fault = ""
    try:
        # What was read stands, where there is too much.
        found.extend(holders(folder))
    except TooManyError as error:
        fault = error.message
    now, asked = time_at(folder)
    return Fleet(folder, now, asked, judge(folder, found, now), fault)


def time_at(folder: str) -> tuple[float, bool]:
    """The time by the clock that the files of a folder get theirs from, and whether that was asked.

    On NFS it is the server's, which the time of a new file tells; where none can be made, this machine's has to do.
    """
    mount = storage.mount_of(storage.parse_mountinfo(read_text("/proc/self/mountinfo")), os.path.realpath(folder))
    if mount is None or not mount.is_nfs:
        return time.time(), True
    try:
        with files.new_own(f"{folder}/.fleet.rpinfs-clock") as new:
            return new.created, True
    except OSError:
        return time.time(), False


def judge(folder: str, found: Iterable[Holder], now: float) -> tuple[Pi, ...]:
    """Make a line for each Pi, those in trouble first. Pure."""
    by_serial: dict[str, list[Holder]] = {}
    pis = []
    for holder in found:
        if holder.owner is None:
            pis.append(_unread(folder, holder))
        else:
            by_serial.setdefault(holder.owner.serial, []).append(holder)
    pis += [_pi(folder, of_one, now) for of_one in by_serial.values()]
    return tuple(sorted(pis, key=_trouble))


def _trouble(pi: Pi) -> tuple[int, float, list[str]]:
    """The worst first, of those the one that is silent the longest, then by name: pi9 before pi10."""
    silent = -pi.age if pi.age is not None and pi.age >= LATE_SECONDS else 0.0
    parts = re.split(r"([0-9]+)", pi.name)
    return _FROM_WORST.index(pi.status), silent, [part.zfill(20) if part.isdigit() else part for part in parts]


def _unread(folder: str, holder: Holder) -> Pi:
    assert holder.fault is not None
    room = Room(_below(folder, holder.image))
    return Pi(room.file, "", "", "", Status.UNKNOWN, holder.fault.message, holder.fault.remedy or "", (room,), 0, None)


def _pi(folder: str, of_one: list[Holder], now: float) -> Pi:
    latest = max(of_one, key=_seen)
    owner, seen = latest.owner, _seen(latest)
    assert owner is not None
    age = now - seen if seen and now - seen >= -AHEAD_SECONDS else None
    rooms = tuple(_room(folder, one) for one in of_one)
    report = latest.report
    # Of several things the worst; of equals the first.
    status, message, remedy = min(
        _findings(of_one, report, rooms, seen, age), key=lambda one: _FROM_WORST.index(one[0])
    )
    board, version = (report.board, report.version) if report else ("", "")
    return Pi(owner.hostname or owner.serial, owner.serial, board, version, status, message, remedy, rooms, seen, age)


def _seen(holder: Holder) -> float:
    return holder.owner.seen if holder.owner else 0.0


def _room(folder: str, holder: Holder) -> Room:
    report = holder.report
    return Room(_below(folder, holder.image), report.size if report else None, report.free if report else None)


def _findings(
    of_one: list[Holder], report: Report | None, rooms: tuple[Room, ...], seen: float, age: float | None
) -> Iterator[tuple[Status, str, str]]:
    last = f"; the last that it said: {report.message}" if report else ""
    if not seen:
        yield Status.UNKNOWN, "was never seen", ""
    elif age is None:
        yield (
            Status.UNKNOWN,
            "was seen in the future: the clock of the NAS was set back",
            "look at the clock of the NAS",
        )
    elif age >= LATE_SECONDS:
        status = Status.CRITICAL if age >= QUIET_SECONDS else Status.WARNING
        yield status, f"silent for {ago(age)}{last}", _LOOK_AT_IT
    for holder in of_one:
        if holder.fault is not None:
            yield Status.UNKNOWN, holder.fault.message, holder.fault.remedy or ""
    if report is not None:
        yield Status[report.status.upper()], report.message, _ASK_IT * (report.status != STATUSES[0])
    for room in rooms:
        if grave := grade(room.used_percent):
            assert room.size is not None and room.free is not None
            free = f"{room.file} has {human_size(room.free)} of {human_size(room.size)} free"
            yield Status(grave), free, _ASK_IT
    yield Status.OK, "says nothing of itself: it has just started, or its rpinfs is older", ""


def _below(folder: str, path: str) -> str:
    return path.removeprefix(f"{folder.rstrip('/')}/")


# For people and programs


def ago(seconds: float) -> str:
    """A length of time for people, in one unit: `40 s`, `12 min`, `3 h`, `2 days`."""
    for size, most, unit in ((1, 120, "s"), (60, 120, "min"), (3600, 48, "h")):
        if seconds < size * most:
            return f"{max(0.0, seconds) // size:.0f} {unit}"
    return f"{seconds // 86400:.0f} days"


def last_seen(pi: Pi) -> str:
    """When a Pi was last seen, for people."""
    return "never" if not pi.seen else "?" if pi.age is None else f"{ago(pi.age)} ago"


def room_text(pi: Pi) -> str:
    """The room in its fullest image, for people."""
    room = pi.fullest
    return f"{human_size(room.free)} free of {human_size(room.size)}" if room.size and room.free is not None else ""


def board_text(pi: Pi) -> str:
    """The model, short."""
    return pi.board.removeprefix("Raspberry ")


def counts(fleet: Fleet) -> str:
    """How many there are, and how many are how: `3 Pis: 1 critical, 2 ok`."""
    numbers = {status: sum(pi.status is status for pi in fleet.pis) for status in _FROM_WORST}
    how = ", ".join(f"{number} {status.word}" for status, number in numbers.items() if number)
    return f"{len(fleet.pis)} Pi{'s' * (len(fleet.pis) != 1)}{': ' * bool(how)}{how}"


def document(fleet: Fleet) -> dict[str, Any]:
    """Everything as JSON; what is not known is null, sizes are in bytes, times in seconds."""
    return {
        "schema": SCHEMA,
        "folder": fleet.folder,
        "time": fleet.now,
        "time_of_nas": fleet.asked,
        "status": fleet.status.word,
        "exit_status": fleet.status.value,
        "fault": fleet.fault or None,
        "pis": [_pi_document(pi) for pi in fleet.pis],
    }


def _pi_document(pi: Pi) -> dict[str, Any]:
    return {
        "name": pi.name,
        "serial": pi.serial or None,
        "board": pi.board or None,
        "version": pi.version or None,
        "status": pi.status.word,
        "message": pi.message,
        "remedy": pi.remedy or None,
        "last_seen": pi.seen or None,
        "seconds_ago": round(pi.age, 1) if pi.age is not None else None,
        "images": [{"file": room.file, "size": room.size, "available": room.free} for room in pi.images],
    }
