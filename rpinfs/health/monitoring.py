"""What `rpinfs check` says to monitoring systems: a Nagios plug-in's output, and local checks of checkmk.

By the guidelines of the monitoring plug-ins (one line of status, `|`, performance data, more lines) and checkmk's
manual of local checks (status, name, metrics, text). Messages quote what the share says, and whoever can write there
could end a line or begin performance data by it: nothing of theirs gets past _text(), _label() and _word().
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rpinfs.boot.values import dataclass
from rpinfs.errors import printable
from rpinfs.health.checks import Check, Result, Status, needs, worst
from rpinfs.health.checks.share import SLOW_ANSWER
from rpinfs.health.facts import Facts, File, Nas, Space
from rpinfs.system.fullness import ENOUGH_ROOM, FULL

_FROM_WORST = (Status.CRITICAL, Status.WARNING, Status.UNKNOWN)
_SUBJECTS = {
    **dict.fromkeys(("mount", "loop"), "image"),
    **dict.fromkeys(("containerd", "gate"), "docker"),
    **dict.fromkeys(("config", "fstab", "units", "boot", "root", "kernel", "clock", "memory"), "machine"),
}
"""What a check is about, where the first word of its name does not say so: few services, each with its place."""


@dataclass(frozen=True)
class Value:
    """One figure, with the limits by which the checks judge it.

    Attributes:
        label: what it is called.
        unit: B, s, or nothing for a number of things.
        service: of _service(), to which it belongs in checkmk.
        limits: from which it is a warning, and from which critical; None where there is none.
        most: what it can be at most.
    """

    label: str
    value: float
    unit: str
    service: str
    limits: tuple[float | None, float | None] = (None, None)
    most: float | None = None


def values(facts: Facts, checks: Sequence[Check]) -> list[Value]:
    """The figures that some checks have asked for, as far as they were told."""
    asked, found = needs(checks), []
    if "share" in asked and (space := facts.known("share", Space)):
        # A share with ENOUGH_ROOM is never called full.
        least = max(0, space.size - ENOUGH_ROOM)
        limits = (max(least, space.size * FULL[0] / 100), max(least, space.size * FULL[1] / 100))
        found.append(Value("share_answer", space.seconds, "s", "share", (SLOW_ANSWER, None)))
        found.append(Value("share_used", space.size - space.available, "B", "share", limits, space.size))
    if "nas" in asked and (nas := facts.known("nas", Nas)):
        found.append(Value("nas_connect", nas.seconds, "s", "network"))
    for image in facts.config.images:
        service = f"image {image.name}"
        if "space" in asked and (space := facts.known(f"space:{image.name}", Space)):
            found.append(_fullness(f"{image.name}_used", space.size - space.available, space.size, "B", service))
            if space.inodes:
                used = space.inodes - space.inodes_free
                found.append(_fullness(f"{image.name}_inodes", used, space.inodes, "", service))
        if "image" in asked and (file := facts.known(f"image:{image.name}", File)):
            found.append(Value(f"{image.name}_allocated", file.allocated, "B", service, most=file.size))
    return found


def _fullness(label: str, used: float, most: float, unit: str, service: str) -> Value:
    return Value(label, used, unit, service, (most * FULL[0] / 100, most * FULL[1] / 100), most)


# --- Nagios, Icinga and what else runs their plug-ins -------------------------------------------------------------


def nagios(results: Sequence[Result], figures: Iterable[Value] = ()) -> str:
    """The output of a plug-in: a line with the worst, its performance data, and a line for all that is not well."""
    wrong = _wrong(results)
    status = worst(results)
    line = nagios_line(status.status if status else Status.OK, _summary(results, wrong))
    performance = " ".join(map(_performance, figures))
    first = line.replace("\n", f" | {performance}\n") if performance else line
    return first + "".join(f"{_text(part)}\n" for one in wrong for part in _lines(one))


def nagios_line(status: Status, message: str) -> str:
    """The line of status alone; what else there is to say has no figures."""
    return f"RPINFS {status.name} - {_text(message)}\n"


def _performance(value: Value) -> str:
    limits = [*map(_limit, value.limits), "0", _limit(value.most)]
    return f"{_label(value.label)}={';'.join([_number(value.value) + value.unit, *limits]).rstrip(';')}"


def _label(label: str) -> str:
    """As a label of performance data: without an equals sign, and in quotes where a space could end it."""
    text = _text(label).replace("=", "_")
    return text if text.replace("_", "").isalnum() else "'" + text.replace("'", "''") + "'"


# --- checkmk ------------------------------------------------------------------------------------------------------


def checkmk(results: Sequence[Result], figures: Iterable[Value] = ()) -> str:
    """A local check for each subject: its worst, its figures, and in the details all that is not well."""
    services: dict[str, list[Result]] = {}
    for result in results:
        services.setdefault(_service(result), []).append(result)
    by_service: dict[str, list[Value]] = {}
    for value in figures:
        by_service.setdefault(value.service, []).append(value)
    return "".join(_local_check(name, found, by_service.get(name, [])) for name, found in services.items())


def checkmk_line(status: Status, message: str, service: str = "", metrics: str = "-") -> str:
    """One local check; its name is always in quotes, since it may have a space."""
    return f'{status.value} "{_words("rpinfs", service)}" {metrics} {_checkmk_text(message)}\n'


def _local_check(service: str, results: list[Result], figures: list[Value]) -> str:
    wrong = _wrong(results)
    status = worst(results)
    # Two characters, a backslash and an n, are a new line of the details there.
    details = "\\n".join(_checkmk_text(part) for one in wrong for part in _lines(one))
    metrics = "|".join(map(_metric, figures)) or "-"
    line = checkmk_line(status.status if status else Status.OK, _summary(results, wrong), service, metrics)
    return line.removesuffix("\n") + (f"\\n{details}" if details else "") + "\n"


def _service(result: Result) -> str:
    first = result.name.partition(".")[0]
    return _words(_SUBJECTS.get(first, first), result.image)


def _metric(value: Value) -> str:
    limits = [*map(_limit, value.limits), "0", _limit(value.most)]
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in value.label)
    return f"{name}={';'.join([_number(value.value), *limits]).rstrip(';')}"


def _checkmk_text(text: str) -> str:
    return _text(text).replace("\\n", "\\ n")


# --- What both have -----------------------------------------------------------------------------------------------


def _wrong(results: Iterable[Result]) -> list[Result]:
    """What is not well, the worst first."""
    wrong = [result for result in results if result.status is not Status.OK]
    return sorted(wrong, key=lambda result: _FROM_WORST.index(result.status))


def _summary(results: Sequence[Result], wrong: Sequence[Result]) -> str:
    if not results:
        return "none of these checks applies here"
    if not wrong:
        return "all is well: 1 check" if len(results) == 1 else f"all is well: {len(results)} checks"
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return f"{wrong[0].message}{more}"


def _lines(result: Result) -> list[str]:
    name = f"{result.name}({result.image})" if result.image else result.name
    line = f"{result.status.word} {name}: {result.message}"
    return [line, f"  {result.remedy}"] if result.remedy else [line]


def _text(text: str) -> str:
    """One line in which nothing begins performance data."""
    return printable(text).replace("|", "\u00a6")


def _words(*words: str) -> str:
    return " ".join(_text(word).replace('"', "'") for word in words if word)


def _limit(limit: float | None) -> str:
    return "" if limit is None else _number(limit)


def _number(value: float) -> str:
    """Without an exponent, which not all that read performance data know; to the microsecond."""
    return f"{value:.0f}" if value == int(value) else f"{value:.6f}".rstrip("0").rstrip(".")
