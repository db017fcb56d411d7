"""What a check is, and what it finds."""

from __future__ import annotations

import enum
from collections.abc import Callable

from rpinfs.boot.values import dataclass
from rpinfs.errors import printable
from rpinfs.health.questions import THOROUGH
from rpinfs.system.fullness import FULL, grade


class Status(enum.Enum):
    """How a check ended; the value is the exit status."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    @property
    def word(self) -> str:
        """The name in lower case."""
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """What a check has found: a sentence with figures, and what to do where the table has nothing better fitting."""

    status: Status
    message: str
    remedy: str = ""

    def __post_init__(self) -> None:
        # It may quote what the share says, or a program of it: one line, on which nothing acts.
        object.__setattr__(self, "message", printable(self.message))
        object.__setattr__(self, "remedy", printable(self.remedy))


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        title: what is well when the check is ok.
        judge: the function; it gets the facts, and for `per_image` an image.
        remedy: what to do when it is not ok and the finding does not say so itself; {image}, {name}, {where}, {anew}
            (gate.mount_anew), {before} (units that wait for the image, or for any), {share} and {boot} are filled in.
        explanation: for rpinfs-checks(7): what is looked at and how, why it matters, what each status means.
        needs: kinds of questions that must be asked first, see questions.ask().
        without_config: whether it means something although the configuration is wrong.
    """

    name: str
    title: str
    judge: Callable[..., Finding | None]
    remedy: str
    explanation: str
    needs: tuple[str, ...] = ()
    per_image: bool = False
    without_config: bool = False

    @property
    def thorough(self) -> bool:
        """Whether only `rpinfs check` runs it: it takes long, or writes to the image."""
        return not THOROUGH.isdisjoint(self.needs)


def ok(message: str) -> Finding:
    """All is well."""
    return Finding(Status.OK, message)


def warning(message: str, remedy: str = "") -> Finding:
    """It works, and should not stay so."""
    return Finding(Status.WARNING, message, remedy)


def critical(message: str, remedy: str = "") -> Finding:
    """It does not work, or data is in danger."""
    return Finding(Status.CRITICAL, message, remedy)


def unknown(message: str, remedy: str = "") -> Finding:
    """It could not be found out."""
    return Finding(Status.UNKNOWN, message, remedy)


def by_fullness(percent: float, message: str, remedy: str = "") -> Finding:
    """Judge how full something is, by the limits that hold for all file systems."""
    status = Status(grade(percent))
    return Finding(status, message, "" if status is Status.OK else remedy)


FULLNESS = f"Warning: {FULL[0]:g} % full; critical: {FULL[1]:g} %."
"""These limits in words."""
