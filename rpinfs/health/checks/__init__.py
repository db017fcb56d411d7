"""What is right and what is wrong: the one table of checks.

`rpinfs check` and `rpinfs status` show the results, rpinfs-checks(7) is made from the table. A check is a pure function
of the facts (facts.py): it returns a finding, or None where it does not apply here. What it needs to know it takes from
the facts; where a question got no answer, taking it raises, and the check is `unknown`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rpinfs.boot.config import Image
from rpinfs.boot.gate import mount_anew
from rpinfs.boot.suggest import distance
from rpinfs.boot.values import dataclass
from rpinfs.errors import RpinfsError, quoted, reason_of
from rpinfs.health.checks import docker, image, machine, network, share
from rpinfs.health.checks.base import Check, Finding, Status
from rpinfs.health.facts import Facts, NotAskedError
from rpinfs.system.trouble import remedy_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CHECKS", "Check", "Finding", "Result", "Status", "judge", "needs", "select", "worst"]

CHECKS: tuple[Check, ...] = (*machine.CHECKS, *network.CHECKS, *share.CHECKS, *image.CHECKS, *docker.CHECKS)

AS_ROOT = "run it as root: sudo rpinfs check"

_FROM_WORST = (Status.CRITICAL, Status.WARNING, Status.UNKNOWN, Status.OK)


@dataclass(frozen=True)
class Result:
    """A finding with its check; `image` is empty where the check is not about one."""

    name: str
    title: str
    image: str
    status: Status
    message: str
    remedy: str

    def document(self) -> dict[str, Any]:
        """The result for JSON."""
        return {
            "name": self.name,
            "image": self.image or None,
            "title": self.title,
            "status": self.status.word,
            "message": self.message,
            "remedy": self.remedy or None,
        }


def judge(facts: Facts, checks: Sequence[Check] | None = None) -> list[Result]:
    """Apply checks, by default all, to facts; those that do not apply here are left out. None where not in use."""
    results: list[Result] = []
    if not facts.config.in_use:
        return results
    for check in CHECKS if checks is None else checks:
        if facts.errors and not check.without_config:
            continue
        for one in facts.config.images if check.per_image else [None]:
            result = _apply(check, facts, one)
            if result:
                results.append(result)
    return results


def worst(results: Iterable[Result]) -> Result | None:
    """The first of the worst results; what is not known is worse than ok, and better than a warning."""
    return min(results, key=lambda result: _FROM_WORST.index(result.status), default=None)


def select(names: Sequence[str]) -> list[Check]:
    """Find checks by name, or by what stands before the dot for all of them: `share`. No names: all.

    Raises:
        RpinfsError: exit status 3, there is no such check; by 2 a monitoring system would take that for an alarm.
    """
    if not names:
        return list(CHECKS)
    for name in names:
        if not any(_is_named(check, name) for check in CHECKS):
            known = [check.name for check in CHECKS]
            nearest = min(known, key=lambda candidate: distance(name, candidate))
            hint = f"; did you mean {nearest}?" if distance(name, nearest) <= len(name) // 2 else ""
            raise RpinfsError(f"unknown check {name}{hint}", "all of them: rpinfs check", status=Status.UNKNOWN.value)
    return [check for check in CHECKS if any(_is_named(check, name) for name in names)]


def needs(checks: Iterable[Check]) -> set[str]:
    """The kinds of questions that some checks need the answers of."""
    return {kind for check in checks for kind in check.needs}


def _is_named(check: Check, name: str) -> bool:
    return name in (check.name, check.name.partition(".")[0])


def _apply(check: Check, facts: Facts, one: Image | None) -> Result | None:
    try:
        finding: Finding | None = check.judge(facts, one) if one else check.judge(facts)
    except NotAskedError:
        return None
    except RpinfsError as error:
        finding = Finding(Status.UNKNOWN, error.message, error.remedy or "")
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else reason_of(error)
        finding = Finding(Status.UNKNOWN, reason, AS_ROOT if isinstance(error, PermissionError) else remedy_of(error))
    if finding is None:
        return None
    remedy = finding.remedy
    if not remedy and finding.status in (Status.WARNING, Status.CRITICAL):
        remedy = check.remedy
    name = one.name if one else ""
    return Result(check.name, check.title, name, finding.status, finding.message, _filled(remedy, facts, one))


def _filled(remedy: str, facts: Facts, one: Image | None) -> str:
    images = [one] if one else facts.config.images
    before = list(dict.fromkeys(unit for image in images for unit in image.before))
    fields = {
        "{before}": quoted(*(before or ["docker.service"])),
        "{image}": quoted(one.path) if one else "",
        "{name}": quoted(one.name) if one else "",
        "{where}": quoted(one.where) if one else "",
        "{anew}": mount_anew([one], one.where) if one else "",
        "{share}": quoted(facts.config.share.where),
        "{boot}": quoted(facts.config.boot.where) if facts.config.boot else "",
    }
    for name, value in fields.items():
        remedy = remedy.replace(name, value)
    return remedy
