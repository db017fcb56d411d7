"""`rpinfs status` and `rpinfs check`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rpinfs.commands.cli import BAD_USAGE, CLEAR, describe
from rpinfs.commands.common import HOST_SECONDS, paint, print_document
from rpinfs.errors import RpinfsError

if TYPE_CHECKING:
    from rpinfs.health.facts import Facts

CHECK_SECONDS = 10.0
"""For the questions of `rpinfs check`, which is not looked at by an impatient person."""


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


def add_check(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs check` takes."""
    describe(
        parser,
        _check,
        "Check everything, or what is named, for a person or a monitoring system."
        "\nExit status: that of the worst: 0 ok, 1 warning, 2 critical, 3 unknown.",
        "  rpinfs check\n  rpinfs check share mount.right\n  rpinfs check --json",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("names", nargs="*", metavar="NAME", help="share.mounted, or share for all that begin so")


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
    facts = _facts(max(HOST_SECONDS, seconds() / 2))
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


def _check(options: argparse.Namespace) -> int:
    from rpinfs.health import checks
    from rpinfs.health.questions import ask

    selected = checks.select(options.names)
    facts = _facts(CHECK_SECONDS)
    if not facts.config.in_use:
        _print_check([], facts.config.reason, 0, as_json=options.json)
        return 0
    ask(facts, CHECK_SECONDS, checks.needs(selected))
    results = checks.judge(facts, selected)
    worst = checks.worst(results)
    exit_status = worst.status.value if worst else 0
    _print_check([result.document() for result in results], "", exit_status, as_json=options.json)
    return exit_status


def _print_check(found: list[dict[str, Any]], reason: str, exit_status: int, *, as_json: bool) -> None:
    from rpinfs.health import checks, status

    if as_json:
        word = checks.Status(exit_status).word
        document = {"schema": status.SCHEMA, "in_use": not reason, "reason": reason or None, "status": word}
        print_document({**document, "exit_status": exit_status, "checks": found})
        return
    if reason:
        print(f"rpinfs is not in use here: {reason}")
    colour = paint()
    for check in found:
        word = check["status"]
        print(f"{colour(word, f'{word:<8}')}  {status.check_name(check)}: {check['message']}")
        if check["remedy"]:
            print(f"{'':8}  {check['remedy']}")


def _facts(seconds: float) -> Facts:
    """Read this machine in a child: with the root on a NAS that is gone, even the configuration cannot be read."""
    from rpinfs.boot.host import Host
    from rpinfs.health.facts import facts_of
    from rpinfs.system import deadline

    try:
        host = deadline.within(seconds, Host.read)
    except deadline.TimedOut as silence:
        raise RpinfsError(
            f"the root file system gave {silence.message}",
            "if the root is on NFS: look at the NAS and at the network to it",
            status=BAD_USAGE,
        ) from silence
    return facts_of(host)
