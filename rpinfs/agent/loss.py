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

What was stopped or held back stands in /run, so that an agent that is started anew goes on where the last one ended.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
from collections.abc import Collection, Iterable, Mapping

from rpinfs.agent.states import Owed
from rpinfs.boot.host import near, read_text
from rpinfs.boot.units import RUNTIME_FOLDER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.system.systemd import UnitState

OWED_FILE = f"{RUNTIME_FOLDER}/stopped.json"
_UP = ("active", "reloading", "activating")
_ON_THE_WAY_DOWN = "deactivating"
_UNWANTED = ("disabled", "masked", "masked-runtime", "bad")
_RESTART_SECONDS = 1.0  # Between the end of a unit that is restarted and the beginning of the gate.


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


def is_down(unit: UnitState) -> bool:
    """Whether a unit does not run, and could.

    One that waits for its automatic restart is down, too: where the gate refuses that, it may wait for ever.
    """
    down = unit.active in ("inactive", "failed") or unit.sub.startswith("auto-restart")
    return down and not unit.job and unit.load != "masked"


def was_let_in(unit: UnitState, owed_at: float, refused: Mapping[str, float] | None) -> bool:
    """Whether a unit has run since a moment, in seconds since the boot, and was not refused after that.

    It is nobody's to start any more: a person may have stopped it, and the gate have refused somebody else.
    """
    if unit.left_inactive is None or not 0 < owed_at <= unit.left_inactive:
        return False
    return (refused or {}).get(unit.name, 0.0) < (unit.became_inactive or 0.0)


def is_settled(gate: UnitState) -> bool:
    """Whether the gate has come to an end: passed or refused."""
    return not gate.job and gate.active in ("inactive", "failed")


def comes_back(mount: UnitState) -> bool:
    """Whether a mount that systemd unmounts is to be mounted again in a moment: `systemctl restart`."""
    return mount.job in ("start", "restart", "try-restart") or mount.active == "activating"


def was_held_back(
    unit: UnitState, gate: UnitState, wanted: Collection[str], refused: Mapping[str, float] | None
) -> bool:
    """Whether a unit wanted to run, and the gate has refused it.

    A person who stops a unit is not overruled: it was held back where it was refused after it ran last. Where no
    journal knows, a unit that never ran in this boot, has failed, or was stopped just before the gate was asked the
    last time (that was a restart) counts as held back.

    Args:
        gate: the gate, which is_settled().
        wanted: names of the units that one which runs, or is to run, pulls in. Generated units (quadlets), static and
            linked ones are enabled by that alone.
        refused: when units were last refused, in seconds of CLOCK_MONOTONIC; None where no journal tells.
    """
    if not is_down(unit) or unit.load != "loaded" or gate.left_inactive is None:
        return False
    if unit.name.endswith(".socket"):
        return unit.active == "failed"
    if unit.enabled != "enabled" and (unit.enabled in _UNWANTED or unit.name not in wanted):
        return False
    if unit.active != "inactive" or unit.became_inactive is None:
        return True
    if refused is not None:
        return refused.get(unit.name, 0.0) >= unit.became_inactive
    return 0 <= gate.left_inactive - unit.became_inactive <= _RESTART_SECONDS


def owed() -> dict[str, Owed]:
    """Names of images and what the last agent has left to do for each; empty where it has left nothing."""
    try:
        found = json.loads(read_text(OWED_FILE) or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: _owed(left if isinstance(left, dict) else {"stopped": left}) for name, left in found.items()}


def _owed(found: Mapping[str, object]) -> Owed:
    stopped, at = found.get("stopped"), found.get("owed_at")
    return Owed(
        tuple(map(str, stopped)) if isinstance(stopped, list) else (),
        found.get("starting") is True,
        at if isinstance(at, float) else 0.0,
        str(found.get("look") or ""),
    )


def remember(left: Mapping[str, Owed]) -> None:
    """Write down what `owed` gives to the next agent. Raises OSError."""
    left = {name: one for name, one in left.items() if one.stopped or one.look}
    if not left:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(near(OWED_FILE))
        return
    temporary = near(f"{OWED_FILE}.new")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump({name: vars(one) for name, one in left.items()}, file)
    os.replace(temporary, near(OWED_FILE))
