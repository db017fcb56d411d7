"""One fault that a rule has found, and how grave it is."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Gravity(enum.IntEnum):
    """How much a fault matters."""

    NOTE = 0  # good to know
    WARNING = 1  # it boots, and something is slow, unsafe or about to break
    FAULT = 2  # the Pi does not boot


@dataclass(frozen=True)
class Finding:
    """A fault in what is there.

    Attributes:
        rule: its number in the table of rules.
        line: from 1; 0 where the file as a whole, or a folder, is meant.
        message: what is wrong, and why the Pi will not boot from it.
        write: the line or lines to write in its place; or, behind "add ...: ", beside it; or what to do. Pasted as
            it stands where it is a command.
    """

    rule: int
    gravity: Gravity
    file: str
    line: int
    message: str
    write: str = ""

    @property
    def place(self) -> str:
        """`FILE:LINE`."""
        return f"{self.file}:{self.line}" if self.line else self.file
