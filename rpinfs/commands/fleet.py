"""`rpinfs fleet`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rpinfs.commands.cli import UsageError, describe
from rpinfs.commands.common import paint, print_document, replace_output
from rpinfs.errors import RpinfsError, quoted, reason_of

if TYPE_CHECKING:
    from rpinfs.health.fleet import Fleet, Pi

SECONDS = 30.0
"""For the share to answer: two hundred Pis are some hundred files."""

_BAD_USAGE = 3
_WIDEST = 24


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs fleet` takes."""
    describe(
        parser,
        _fleet,
        "Show all Pis of a share, those in trouble first: by what each writes beside its image, and when it last did."
        "\nRuns on the NAS, with the folder of the images, and on any Pi. Needs root."
        "\nExit status: that of the worst: 0 ok, 1 warning, 2 critical, 3 unknown; 3 for bad usage, too.",
        "  sudo rpinfs fleet\n  sudo rpinfs fleet /volume1/docker\n"
        "  sudo rpinfs fleet /volume1/docker --html /var/www/html/fleet.html",
    )
    parser.add_argument("folder", nargs="?", metavar="DIR", help="with the images; default: the share of this Pi")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="as JSON; man rpinfs explains it")
    how.add_argument("--html", metavar="FILE", help="as a page in FILE, which is replaced whole; nothing is printed")


def _fleet(options: argparse.Namespace) -> int:
    found = _look(options.folder or _share())
    if options.html is not None:
        from rpinfs.health.fleet_page import page

        try:
            replace_output(options.html, page(found), "rpinfs fleet", "--html", _BAD_USAGE)
        except OSError as error:
            # 1 would say that a Pi is not well.
            raise RpinfsError(f"--html {options.html}: {error.strerror}", status=_BAD_USAGE) from error
    elif options.json:
        from rpinfs.health.fleet import document

        print_document(document(found))
    else:
        _print(found)
    return found.status.value


def _share() -> str:
    """The share of this Pi, which has to be mounted: below an empty mount point there is nobody."""
    from rpinfs.commands.common import load
    from rpinfs.system import deadline

    try:
        host, config = deadline.within(SECONDS, load)
    except deadline.TimedOut as silence:
        raise RpinfsError(f"the root file system gave {silence.message}", status=_BAD_USAGE) from silence
    if not config.in_use:
        raise UsageError(f"DIR is missing: rpinfs is not in use here ({config.reason})", "rpinfs fleet", _BAD_USAGE)
    from rpinfs.boot import storage

    mount = storage.mount_at(storage.parse_mountinfo(host.mountinfo), config.share.where)
    if mount is None or not mount.is_nfs:
        raise RpinfsError(f"the share is not mounted at {config.share.where}", "rpinfs status", status=_BAD_USAGE)
    return f"{host.root}{config.share.where}"


def _look(folder: str) -> Fleet:
    from rpinfs.health import fleet
    from rpinfs.system import deadline

    try:
        return deadline.within(SECONDS, fleet.look, folder)
    except deadline.TimedOut as silence:
        raise RpinfsError(
            f"{folder} gave {silence.message}", "look at the NAS and at the network to it", 2
        ) from silence
    except OSError as error:
        remedy = f"sudo rpinfs fleet {quoted(folder)}" if isinstance(error, PermissionError) else None
        raise RpinfsError(f"{folder}: {reason_of(error)}", remedy, _BAD_USAGE) from error


def _print(found: Fleet) -> None:
    from rpinfs.health.fleet import counts

    colour = paint()
    print(f"{counts(found)}; {found.folder}")
    if found.fault:
        print(colour("unknown", found.fault))
    if not found.asked:
        print("the NAS does not tell the time; when a Pi was last seen is by the clock of this machine")
    rows = [_cells(pi) for pi in found.pis]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for pi, row in zip(found.pis, rows, strict=True):
        status, *cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join((colour(pi.status.word, status), *cells)).rstrip())


def _cells(pi: Pi) -> tuple[str, ...]:
    from rpinfs.health import fleet

    narrow = (pi.name, fleet.board_text(pi), pi.version)
    short = (text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..." for text in narrow)
    return (pi.status.word, *short, fleet.room_text(pi), fleet.last_seen(pi), pi.message)
