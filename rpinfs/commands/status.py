"""`rpinfs status`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from rpinfs.commands.cli import CLEAR, describe
from rpinfs.commands.common import HOST_SECONDS, facts_within, paint, print_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add_status(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs status` takes."""
    describe(
        parser,
        _status,
        "Show boot files, share, images, Docker and network, what is wrong with them and what to do about it."
        "\nAnswers within two seconds, whatever the NAS does. Exit status: 0 ok, 1 warning, 2 critical, 3 unknown.",
        "  rpinfs status\n  rpinfs status --watch\n  rpinfs status --json | jq .images[0].available",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="as JSON; man rpinfs explains it")
    how.add_argument("--watch", action="store_true", help="draw it again every two seconds, until Ctrl-C")


def _status(options: argparse.Namespace) -> int:
    from rpinfs.health import questions, status

    if options.watch:
        return _watch(status.WATCH_SECONDS)
    found = _look(questions.seconds_left)
    print_document(found) if options.json else _print_status(found)
    return int(found["exit_status"])


def _look(seconds: Callable[[], float]) -> dict[str, Any]:
    """Find out everything there is to show; the questions have as many seconds as are left when they are asked."""
    from rpinfs.health import checks, status
    from rpinfs.health.questions import ask

    # On a slow machine there is more time; and some of it must be left for the questions.
    facts = facts_within(max(HOST_SECONDS, seconds() / 2))
    if not facts.config.in_use:
        return status.document(facts, [], None)
    ask(facts, seconds())
    results = checks.judge(facts)
    return status.document(facts, results, checks.worst(results))


def _watch(seconds: float) -> int:
    """Draw the status again and again; without a terminal one picture after the other."""
    clear = CLEAR if sys.stdout.isatty() else ""
    try:
        while True:
            found = _look(lambda: seconds)
            sys.stdout.write(clear)
            _print_status(found)
            if not clear:
                sys.stdout.write("\n")
            sys.stdout.flush()
            time.sleep(seconds)
    except KeyboardInterrupt:
        return 0


def _print_status(found: dict[str, Any]) -> None:
    from rpinfs.health import status

    sys.stdout.write(status.render(found, paint()))
