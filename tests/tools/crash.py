"""Crash points: every system call of a program is an instant at which it may be killed, and a call that may fail.

A point is "NAME:when=N": the Nth call of that name, in the words of strace(1).
"""

import itertools
from collections.abc import Iterable, Sequence

from tests.support import thorough

ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS", "EACCES", "ESTALE")
NEVER_FAIL = ("close", "fadvise64")
"""To close and to forget do not fail in a way that matters."""


def points(calls: Iterable[tuple[str | None, str]]) -> list[str]:
    """The points of calls by process and name; each process counts its own."""
    seen: dict[tuple[str | None, str], int] = {}
    found = []
    for call in calls:
        seen[call] = seen.get(call, 0) + 1
        found.append(f"{call[1]}:when={seen[call]}")
    return list(dict.fromkeys(found))


def kill_at(point: str) -> str:
    """What strace is to inject for the end of the program at this point."""
    name, when = point.split(":")
    return f"{name}:signal=KILL:{when}"


class Kills:
    """Counts at how many points a program was killed.

    Not at all of them: a loop device that another program takes at the same time is a call more, and in a file system
    that is written to are more pieces or fewer. Such a point is tried all the same, by a run that nothing kills.
    """

    def __init__(self) -> None:
        self.tried = self.killed = 0

    def count(self, returncode: int, point: str) -> None:
        """Of a program that was to be killed at a point: it was, or it came to its end and met no such call."""
        assert returncode in (-9, 0), point
        self.tried += 1
        self.killed += returncode == -9

    def of(self, total: int) -> str:
        """In words: nearly all that were tried were met."""
        assert self.killed > self.tried * 0.8
        return f"killed at {self.killed} of {total} calls"


def fail_at(points: Sequence[str], never: Sequence[str] = NEVER_FAIL) -> list[str]:
    """What strace is to inject for them to fail, each with every error if all is wanted, or with one in turn."""
    pairs = with_errors([point for point in points if point.split(":")[0] not in never])
    return ["{0}:error={2}:{1}".format(*point.split(":"), error) for point, error in pairs]


def with_errors(points: Sequence[str]) -> list[tuple[str, str]]:
    """The points with every error each if all is wanted, or with one each, all errors in turn."""
    if thorough():
        return list(itertools.product(points, ERRORS))
    return list(zip(points, itertools.cycle(ERRORS), strict=False))


def some(points: Sequence[str], step: int, last: int = 0) -> list[str]:
    """All of them if all is wanted; otherwise one of so many, and every second of so many at the end."""
    if thorough():
        return list(points)
    return [*points[step // 2 :: step], *(points[-last::2] if last else [])]
