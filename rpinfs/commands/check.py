"""`rpinfs check`: for a person, or for a monitoring system in its own words."""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING, NamedTuple

from rpinfs.commands.cli import describe, tell
from rpinfs.commands.common import ROOT_REMEDY, as_document, facts_within, paint
from rpinfs.errors import RpinfsError

if TYPE_CHECKING:
    from rpinfs.health.checks import Result, Status
    from rpinfs.health.facts import Facts

CHECK_SECONDS = 10.0
"""For the questions of `rpinfs check`, which is not looked at by an impatient person."""

FORMATS = ("text", "json", "nagios", "checkmk", "prometheus")

UNKNOWN = 3
"""Exit status where nobody can tell, the time being up among the reasons."""

NOT_IN_USE = "rpinfs is not in use here: "

_FOR_QUESTIONS = 0.75
"""Part of a time limit after which the questions are given up: who is silent is told then, and not the limit."""


class Answer(NamedTuple):
    """Exit status and standard output: all that has to come out of a process that may be killed."""

    status: int
    text: str


def add_check(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs check` takes."""
    describe(
        parser,
        _check,
        "Check everything, or what is named, for a person or a monitoring system."
        "\nExit status: that of the worst: 0 ok, 1 warning, 2 critical, 3 unknown; 3 also for a wrong command line.",
        "  rpinfs check\n  rpinfs check share mount.right\n  rpinfs check --json"
        "\n  rpinfs check --format nagios --timeout 9",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=FORMATS, default="text", help="in whose words; text is for a person")
    form.add_argument("--json", action="store_const", dest="format", const="json", help="as --format json")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="for all of it; exit status 3 when they are over"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="share.mounted, or share for all that begin so")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    # More than a day is no time limit, and a number of the kernel's may not hold it.
    if not (math.isfinite(seconds) and 0 < seconds <= 86400):
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, found {text}")
    return seconds


def _check(options: argparse.Namespace) -> int:
    try:
        answer = _in_time(options.format, options.names, options.timeout)
    except RpinfsError as error:
        if options.format not in ("nagios", "checkmk"):
            raise
        # These read standard output alone.
        print(_of_error(options.format, error), end="")
        tell(error.message, error.remedy)
        return error.status
    print(answer.text, end="")
    return answer.status


def _in_time(form: str, names: list[str], seconds: float | None) -> Answer:
    """Find out everything; with a time limit in a child, which can be given up whatever it waits for."""
    from rpinfs.system import deadline

    if seconds is None:
        return _answer(form, names, CHECK_SECONDS, CHECK_SECONDS)
    left = max(0.1, seconds - deadline.seconds_of_life())
    try:
        # What stops it early is this limit and no other, so that it ends with one and the same status.
        return deadline.as_a_whole(left, _answer, form, names, 2 * seconds, left * _FOR_QUESTIONS)
    except deadline.TimedOut as silence:
        raise RpinfsError(f"no answer within {seconds:g} s", ROOT_REMEDY, status=UNKNOWN) from silence


def _answer(form: str, names: list[str], for_host: float, for_questions: float) -> Answer:
    """Read the machine, ask and judge.

    Args:
        for_host: seconds for reading the machine and its configuration.
        for_questions: seconds from now to the end of the questions, of which each gets CHECK_SECONDS at most.
    """
    from rpinfs.health import checks
    from rpinfs.health.questions import ask

    begun = time.monotonic()
    try:
        selected = checks.select(names)
        facts = facts_within(for_host)
        if facts.config.in_use:
            left = max(0.1, for_questions - (time.monotonic() - begun))
            ask(facts, min(CHECK_SECONDS, left), checks.needs(selected))
        results = checks.judge(facts, selected)
    except OSError as error:
        # 1, by which other commands end, is a warning here.
        raise RpinfsError(f"{error.filename or 'this machine'}: {error.strerror or error}", status=UNKNOWN) from error
    worst = checks.worst(results)
    status = worst.status.value if worst else 0
    return Answer(status, _in_words(form, facts, results, status))


def _in_words(form: str, facts: Facts, results: list[Result], exit_status: int) -> str:
    reason = "" if facts.config.in_use else facts.config.reason
    if form == "json":
        return _as_json(results, reason, exit_status)
    if form == "text":
        return _as_text(results, reason)
    if form == "prometheus":
        from rpinfs.health import measuring, metrics

        return metrics.render(measuring.known_of(facts, results, checks_only=True))
    from rpinfs.health import monitoring
    from rpinfs.health.checks import CHECKS, Status

    if reason:
        return _line(form, Status.OK, NOT_IN_USE + reason)
    names = {result.name for result in results}
    figures = monitoring.values(facts, [check for check in CHECKS if check.name in names])
    render = monitoring.nagios if form == "nagios" else monitoring.checkmk
    return render(results, figures)


def _as_json(results: list[Result], reason: str, exit_status: int) -> str:
    from rpinfs.health import checks, status

    document = {
        "schema": status.SCHEMA,
        "in_use": not reason,
        "reason": reason or None,
        "status": checks.Status(exit_status).word,
        "exit_status": exit_status,
        "checks": [result.document() for result in results],
    }
    return as_document(document)


def _as_text(results: list[Result], reason: str) -> str:
    from rpinfs.health.status import check_name

    colour = paint()
    lines = [f"{NOT_IN_USE}{reason}"] if reason else []
    for check in (result.document() for result in results):
        word = check["status"]
        lines.append(f"{colour(word, f'{word:<8}')}  {check_name(check)}: {check['message']}")
        lines += [f"{'':8}  {check['remedy']}"] if check["remedy"] else []
    return "".join(f"{line}\n" for line in lines)


def _of_error(form: str, error: RpinfsError) -> str:
    from rpinfs.health.checks import Status

    return _line(form, Status(error.status), error.message)


def _line(form: str, status: Status, message: str) -> str:
    from rpinfs.health import monitoring

    line = monitoring.nagios_line if form == "nagios" else monitoring.checkmk_line
    return line(status, message)
