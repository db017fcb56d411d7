"""An image whose mount has gone under a running Docker: why it went, what is stopped for it, and what comes back.

Docker would go on writing, into the folder below the mount point. systemd does not stop it: `BindsTo=` would, but stops
it at a mere daemon-reload too (units.py, rule 5). So the agent does, by these rules:

1. An image is lost when the path of its mount, or of one that Bind= keeps in it, leads to anything else: it was
   unmounted, or something was mounted over it or over a folder above it.
2. While the system shuts down nothing is lost: systemd unmounts what it has mounted.
3. What systemd itself unmounted was asked for, by a person or by what a unit requires, and is let be: `Requires=` has
   stopped Docker first. systemd's unmounting takes a stop job: the mount unit is "deactivating" before the mount table
   changes, and later the moment at which it left "active" lies before the one at which it became "inactive". For a
   mount that goes behind systemd's back (umount -l, a forced unmount) both are one and the same moment.
4. Only what was running is stopped, and only where something was running is the image mounted again, and that is
   started. A person who has stopped Docker and unmounts by hand, to look after the image, is left alone.

What was stopped stands in /run, so that an agent that is started anew goes on where the last one ended.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
from collections.abc import Iterable

from rpinfs.boot.host import read_text
from rpinfs.boot.units import RUNTIME_FOLDER
from rpinfs.system.systemd import UnitState

STOPPED_FILE = f"{RUNTIME_FOLDER}/stopped.json"
_UP = ("active", "reloading", "activating")
_ON_THE_WAY_DOWN = "deactivating"


class Cause(enum.Enum):
    """Why a mount is not there any more."""

    SHUTDOWN = enum.auto()
    REQUESTED = enum.auto()
    LOST = enum.auto()


def cause_of(mount: UnitState, system: str) -> Cause:
    """Tell why an image is not in its place, by its mount unit and the state of the whole system: rules 2 and 3."""
    if system == "stopping":
        return Cause.SHUTDOWN
    if mount.job == "stop" or mount.active == _ON_THE_WAY_DOWN:
        return Cause.REQUESTED
    if mount.active in ("inactive", "failed") and mount.left_active != mount.became_inactive:
        return Cause.REQUESTED
    return Cause.LOST


def gone_at(mount: UnitState) -> float | None:
    """When a lost mount went, in seconds of CLOCK_MONOTONIC; None where systemd still has it, or never had."""
    return mount.left_active if mount.active in ("inactive", "failed") else None


def running(units: Iterable[UnitState], lost_at: float | None) -> list[str]:
    """Names of the units that run, or ran when the mount went, in seconds of CLOCK_MONOTONIC; None: it is there still.

    systemd stops some of them by itself: a bind mount is bound to its image, and Docker requires the bind mount.
    """
    return [
        unit.name
        for unit in units
        if unit.active in (*_UP, _ON_THE_WAY_DOWN)
        or (lost_at is not None and unit.left_active is not None and unit.left_active >= lost_at)
    ]


def to_stop(units: Iterable[UnitState]) -> list[str]:
    """Names of the units that nobody has told to stop yet."""
    return [unit.name for unit in units if unit.active in _UP and unit.job != "stop"]


def all_down(units: Iterable[UnitState]) -> bool:
    """Whether none of the units runs any more."""
    return all(unit.active in ("inactive", "failed") for unit in units)


def stopped_units() -> dict[str, list[str]]:
    """Names of images and the units that were stopped when each was lost; empty where nothing was."""
    try:
        found = json.loads(read_text(STOPPED_FILE) or "{}")
    except ValueError:
        return {}
    return {name: [str(unit) for unit in units] for name, units in found.items()}


def remember_stopped(stopped: dict[str, list[str]]) -> None:
    """Write down what `stopped_units` gives to the next agent. Raises OSError."""
    stopped = {name: units for name, units in stopped.items() if units}
    if not stopped:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(STOPPED_FILE)
        return
    temporary = f"{STOPPED_FILE}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(stopped, file)
    os.replace(temporary, STOPPED_FILE)
