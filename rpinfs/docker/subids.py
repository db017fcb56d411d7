"""Subordinate user and group numbers: which ones `userns-remap` gives to the containers, and whether it can.

Pure: texts of /etc/passwd, /etc/group, /etc/subuid and /etc/subgid in, numbers and what is wrong out. The rules are
those of the daemon (moby pkg/idtools, from 28 on daemon/internal/usergroup) and of subuid(5).
"""

from __future__ import annotations

from collections.abc import Sequence

from rpinfs.boot.values import dataclass
from rpinfs.errors import RpinfsError, quoted

DEFAULT_USER = "dockremap"
"""Whom Docker takes, and makes where it is not there, for userns-remap=default."""

ENOUGH = 65536
"""Numbers that a container needs: up to nobody's 65534."""

_FIRST_FREE = 100000
_LARGEST = 2**32 - 2
"""(uid_t) -1 is no number; see subuid(5)."""


@dataclass(frozen=True)
class Accounts:
    """The texts of the four files; None is a file that is not there."""

    passwd: str = ""
    group: str = ""
    subuid: str | None = ""
    subgid: str | None = ""


@dataclass(frozen=True)
class Range:
    """One line of /etc/subuid or /etc/subgid."""

    owner: str
    start: int
    count: int
    line: int

    def overlaps(self, other: Range) -> bool:
        """Whether a number is in both."""
        return self.start < other.start + other.count and other.start < self.start + self.count


@dataclass(frozen=True)
class Remap:
    """Whom a value of userns-remap means, and the numbers that root of a container gets.

    `made_by_docker`: the user is not there, and Docker makes it, with ranges, when it starts.
    """

    user: str
    uid: int
    gid: int
    made_by_docker: bool = False


def resolve(wanted: str, accounts: Accounts) -> Remap:
    """What Docker makes of `userns-remap`: "default", or USER or USER:GROUP by name or number.

    Raises:
        RpinfsError: Docker would not start, or containers would get too few numbers or those of others.
    """
    name, _, group = wanted.partition(":")
    users, groups = _table(accounts.passwd), _table(accounts.group)
    user = _named(users, DEFAULT_USER if name == "default" else name)
    if user is None and name != "default":
        raise RpinfsError(
            f"there is no user {name}", f"useradd --system {quoted(name)}" if not name.isdigit() else None
        )
    group = group or user or ""
    if user is not None and _named(groups, group) is None:
        raise RpinfsError(f"there is no group {group}, which Docker wants", f"groupadd --system {quoted(group)}")
    numbers = [
        _first(kind, text, user, users.get(user or "", ""))
        for kind, text in (("subuid", accounts.subuid), ("subgid", accounts.subgid))
    ]
    return Remap(user or DEFAULT_USER, numbers[0], numbers[1], made_by_docker=user is None)


def parse(text: str, file: str) -> list[Range]:
    """Read such a file.

    Raises:
        RpinfsError: a line that is none of its kind; for Docker, too, the whole file is wrong then.
    """
    ranges = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.strip().split(":")
        if fields == [""] or fields[0].startswith("#"):
            continue
        if len(fields) != 3 or not (fields[1].isdecimal() and fields[2].isdecimal()):
            raise RpinfsError(f"{file}:{number}: expected USER:START:COUNT, found {line.strip()}")
        ranges.append(Range(fields[0], int(fields[1]), int(fields[2]), number))
    return ranges


def next_free(ranges: Sequence[Range]) -> int:
    """The start of 65536 numbers that nobody has, as Docker looks for it: it wants them not even to touch."""
    start = _FIRST_FREE
    for one in sorted(ranges, key=lambda one: one.start):
        if one.overlaps(Range("", start, ENOUGH + 1, 0)):
            start = one.start + one.count
    return start


def _first(kind: str, text: str | None, user: str | None, number: str) -> int:
    """The number that root of a container gets, from /etc/subuid or /etc/subgid; `user` None: Docker makes it."""
    file = f"/etc/{kind}"
    if text is None:
        raise RpinfsError(f"{file}: not there, and Docker wants it", f"touch {quoted(file)}")
    ranges = parse(text, file)
    # Docker looks for the number first, and for the name where that has no range.
    own = [one for one in ranges if number and one.owner == number]
    own = own or [one for one in ranges if one.owner == (user or DEFAULT_USER)]
    if own:
        _insist_on_enough(own, ranges, file)
        return own[0].start
    free = next_free(ranges)
    if user is None:
        return free
    raise RpinfsError(
        f"{file}: {user} has no range, and Docker does not start with userns-remap then", _remedy(kind, free, user)
    )


def _insist_on_enough(own: Sequence[Range], ranges: Sequence[Range], file: str) -> None:
    owner, count = own[0].owner, sum(one.count for one in own)
    if count < ENOUGH:
        raise RpinfsError(
            f"{file}:{own[0].line}: {owner} has {count} numbers; expected at least {ENOUGH}",
            f"make it {owner}:{next_free([one for one in ranges if one.owner != owner])}:{ENOUGH}",
        )
    for one in own:
        if one.start + one.count - 1 > _LARGEST:
            raise RpinfsError(f"{file}:{one.line}: the range of {owner} ends beyond {_LARGEST}")
        other = next((other for other in ranges if other is not one and one.overlaps(other)), None)
        if other:
            raise RpinfsError(
                f"{file}:{one.line}: the range of {owner} overlaps that of {other.owner} in line {other.line}",
                f"give {owner} numbers of its own: {owner}:{next_free(ranges)}:{ENOUGH}",
            )


def _remedy(kind: str, start: int, user: str) -> str:
    option = "--add-subuids" if kind == "subuid" else "--add-subgids"
    return f"usermod {option} {start}-{start + ENOUGH - 1} {quoted(user)}"


def _table(text: str) -> dict[str, str]:
    """Names with their numbers, from /etc/passwd or /etc/group."""
    fields = (line.split(":") for line in text.splitlines())
    return {field[0]: field[2] for field in fields if len(field) > 2}


def _named(table: dict[str, str], wanted: str) -> str | None:
    """The name of whom is meant by name or number."""
    if wanted.isdecimal():
        return next((name for name, number in table.items() if number == wanted), None)
    return wanted if wanted in table else None
