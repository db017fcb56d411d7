"""The command line: words to calls, errors to text and exit status. Nothing but this and rpinfs.commands prints.

The commands are a table here; what they take and do is in rpinfs/commands, of which only the module of the command
that is called is imported: each file opened is a round trip to the NAS.

Exit status: 0 well; 1 failed; 2 bad usage or bad configuration; `check` and `status` have their own, see rpinfs(8).
An error is one line on standard error that begins `rpinfs: `, and where a remedy is known a second one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence

from rpinfs import __version__
from rpinfs.boot.values import dataclass
from rpinfs.errors import RpinfsError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, TextIO

    Handler = Callable[[argparse.Namespace], int]
    Group = Any
    """What argparse makes of a parser that has commands of its own; it does not name this type."""

BAD_USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""Exit statuses as a shell gives them for SIGINT and SIGPIPE."""


@dataclass(frozen=True)
class Command:
    """A command: `module` of rpinfs.commands has a function add_NAME, which gives its parser what the command takes."""

    help: str
    module: str
    names: tuple[str, ...] = ()
    """Its own commands; none: it does something itself."""
    bad_usage: int = BAD_USAGE
    """Its exit status where its command line is wrong."""


COMMANDS = {
    "status": Command("how things are, what is wrong and what to do", "status"),
    # Its 2 is an alarm: a typing error in the command of a monitoring system is to wake nobody.
    "check": Command("all checks, or the named ones", "check", bad_usage=3),
    "metrics": Command("what Prometheus takes, by the textfile collector of its node exporter", "metrics"),
    "units": Command("what the generator would write at boot, and why", "units"),
    "config": Command(
        "the settings: show, check, import from an fstab", "config", names=("show", "check", "import-fstab")
    ),
    "image": Command("image files: create, grow, show, check", "image", names=("create", "grow", "show", "check")),
    "adopt": Command("take over an image whose owner is gone", "lease"),
    "release": Command("give an image up, so that any Pi may take it", "lease"),
    "snapshot": Command("keep an image as it is now, while Docker runs; list what was kept", "snapshots"),
    "restore": Command("put a snapshot in the place of its image", "snapshots"),
    "fleet": Command("all Pis of a share on one page, those in trouble first", "fleet", bad_usage=3),
    "docker": Command("what Docker will do: show, apply", "docker", names=("show", "apply")),
    "trim": Command("give freed blocks back to the NAS", "trim"),
    "boot": Command("change boot files: edit, run", "boot", names=("edit", "run")),
    "netboot": Command(
        "the server side, from a NAS to a Pi that boots: plan, render, add, check, doctor, watch",
        "netboot",
        names=("plan", "render", "add", "clone", "list", "check", "doctor", "watch"),
    ),
    "agent": Command("what rpinfs-agent.service starts", "services"),
    "gate": Command("what rpinfs-gate.service starts", "services"),
    "attach": Command("what rpinfs-attach@.service starts", "services"),
    "thaw": Command("what rpinfs-thaw.service starts", "services"),
}


class UsageError(RpinfsError):
    """A command line that says nothing that rpinfs knows."""

    def __init__(self, message: str, command: str = "rpinfs", status: int = BAD_USAGE) -> None:
        super().__init__(message, f"see {command} --help", status)


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit status. What goes wrong becomes text here and nowhere else."""
    # Where one was closed: so the first file that is opened does not take its number.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        try:
            with contextlib.redirect_stdout(Printable(sys.stdout)):  # type: ignore[type-var]
                status = _dispatch(list(arguments))
        except SystemExit:
            # argparse has printed --help.
            _flush()
            raise
        _flush()
        return status
    except RpinfsError as error:
        tell(error.message, error.remedy)
        return error.status
    except BrokenPipeError:
        # Nobody reads on: `rpinfs config show | head`.
        _drop(sys.stdout)
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        tell(f"{error.filename}: {error.strerror}" if error.filename else str(error), None)
        return 1


def _flush() -> None:
    with _named():
        sys.stdout.flush()


def _drop(stream: TextIO) -> None:
    """What could not be written is not tried again: Python would complain when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _dispatch(arguments: list[str]) -> int:
    called = next((word for word in arguments if not word.startswith("-")), None)
    try:
        _insist_on_command(arguments)
        options = _parser(called).parse_args(arguments)
    except UsageError as error:
        # An option before the command has its value taken for one.
        meant = next((word for word in arguments if word in COMMANDS), None)
        error.status = COMMANDS[meant].bad_usage if meant else BAD_USAGE
        raise
    handler: Handler = options.handler
    return handler(options)


def tell(message: str, remedy: str | None) -> None:
    """Write an error; the gate writes its own in the same form, without all this."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop(sys.stdout)
    try:
        sys.stderr.write("".join(f"rpinfs: {_one_line(line)}\n" for line in (message, remedy) if line))
        sys.stderr.flush()
    except OSError:
        # The exit status still tells.
        _drop(sys.stderr)


def _one_line(text: str) -> str:
    return printable(text).encode("utf-8", "backslashreplace").decode()


CLEAR = "\x1b[H\x1b[2J\x1b[3J"
"""Written alone, it clears a terminal."""

_COLOUR = re.compile("(\x1b\\[[0-9]{1,2}m)")


class Printable:
    """Standard output, on which nothing does anything but newline, tab and, on a terminal, what is ours.

    Here, because what is printed comes from everywhere: names of files, labels, records on the share, what Docker says.
    Each reader cleans what it makes sentences of; this is for the one that will be forgotten.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._coloured = stream.isatty() and not os.environ.get("NO_COLOR")

    def write(self, text: str) -> int:
        """Write a text without what a terminal would act on."""
        if text == CLEAR and self._stream.isatty():
            return self._stream.write(text)
        parts = _COLOUR.split(text) if self._coloured else [text]
        with _named():
            self._stream.write("".join(part if number % 2 else _harmless(part) for number, part in enumerate(parts)))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = error.filename or "standard output"
        raise


def _harmless(text: str) -> str:
    lines = (line if line.isprintable() else _line(line) for line in text.split("\n"))
    return "\n".join(lines)


def _line(text: str) -> str:
    return "\t".join(_one_line(part) for part in text.split("\t"))


# Words


def _insist_on_command(arguments: list[str]) -> None:
    """Name the nearest command where argparse would only list all of them."""
    known: Sequence[str] = list(COMMANDS)
    said = "rpinfs"
    for word in arguments[:2]:
        if word.startswith("-"):
            return
        if word not in known:
            raise UsageError(f"unknown command: {said} {word}{_nearest(said, word, known)}", said)
        known = COMMANDS[word].names if said == "rpinfs" else ()
        said = f"{said} {word}"
        if not known:
            return
    if known:
        raise UsageError(f"expected a command: {said} {' | '.join(known)}", said)


def _nearest(said: str, word: str, known: Sequence[str]) -> str:
    from rpinfs.boot.suggest import distance

    nearest = min(known, key=lambda candidate: distance(word, candidate))
    if distance(word, nearest) <= max(2, len(word) // 2):
        return f"; did you mean {said} {nearest}?"
    return f"; known are {', '.join(known)}"


class _Form(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal. Left to itself argparse asks shutil, which loads three libraries for compression.

    It makes one for each argument that a command takes, also where nobody asked for help.
    """

    def __init__(self, prog: str, **more: Any) -> None:  # noqa: ANN401  Python 3.14 has more of them
        super().__init__(prog, **{"width": _columns() - 2, **more})


def _columns() -> int:
    """Columns of the terminal, as shutil.get_terminal_size() finds them."""
    told = os.environ.get("COLUMNS", "")
    with contextlib.suppress(ValueError):
        if (columns := int(told)) > 0:
            return columns
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return 80


class _Parser(argparse.ArgumentParser):
    """Complains in our form: one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line."""
        raise UsageError(message, self.prog)


def _parser(called: str | None) -> argparse.ArgumentParser:
    """Knows of all commands what the table says, and all about the one that is called."""
    parser = _new_parser(
        "rpinfs",
        "Docker on a Raspberry Pi without an SD card: its storage is an image on an NFS share.",
        """\
first steps:
  rpinfs status                         how things are, what is wrong, what to do
  rpinfs config show                    the settings, and where each comes from
  rpinfs units                          what systemd is told at boot

The settings are in /etc/rpinfs/rpinfs.conf; a Pi whose root is on NFS needs none.
More: man rpinfs, man rpinfs.conf""",
    )
    parser.add_argument("--version", action="version", version=f"rpinfs {__version__}")
    commands = _group_of(parser)
    for name, command in COMMANDS.items():
        added = add_command(commands, name, command.help)
        if name == called:
            module = __import__(f"{__package__}.{command.module}", fromlist=[command.module])
            getattr(module, f"add_{name}")(added)
    return parser


def _new_parser(prog: str, description: str, epilog: str) -> _Parser:
    return _Parser(prog=prog, description=description, epilog=epilog, formatter_class=_Form, allow_abbrev=False)


def add_command(
    group: Group, name: str, help: str, handler: Handler | None = None, description: str = "", examples: str = ""
) -> argparse.ArgumentParser:
    """A command of a group; the help's one line is its description where there is no better one."""
    parser: argparse.ArgumentParser = group.add_parser(name, help=help, formatter_class=_Form, allow_abbrev=False)
    describe(parser, handler, description or f"{help[:1].upper()}{help[1:]}.", examples)
    return parser


def add_group(parser: argparse.ArgumentParser, description: str = "") -> Group:
    """Make a command a group of commands, for `add_command`."""
    describe(parser, None, description)
    return _group_of(parser)


def _group_of(parser: argparse.ArgumentParser) -> Group:
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)


def describe(
    parser: argparse.ArgumentParser, handler: Handler | None, description: str = "", examples: str = ""
) -> None:
    """Give a command what it does, its text and its examples, each of them two spaces in."""
    if handler:
        parser.set_defaults(handler=handler)
    if description:
        parser.description = description
    if examples:
        parser.epilog = f"examples:\n{examples}"
