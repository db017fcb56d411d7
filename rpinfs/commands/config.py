"""`rpinfs config`: the settings."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from rpinfs.boot.host import MAIN_FILE
from rpinfs.boot.syntax import header
from rpinfs.commands.cli import BAD_USAGE, UsageError, add_command, add_group, tell
from rpinfs.commands.common import HOST_SECONDS, print_document
from rpinfs.errors import RpinfsError, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rpinfs.boot.config import Config
    from rpinfs.boot.host import Host
    from rpinfs.image.fstab import Line


def add_config(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs config` takes."""
    group = add_group(parser)
    parser = add_command(group, "show", "the settings in force, and where each comes from", _show)
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_command(
        group,
        "check",
        "list everything that is wrong with the configuration",
        _check,
        "Check the configuration. Each error is one line with file, line, value and rule; then the exit status is 2.",
    )
    parser = add_command(
        group,
        "import-fstab",
        "turn hand-written mounts into a configuration",
        _import_fstab,
        "Turn the lines of an fstab that mount the boot files, the share and an image by hand into a configuration, on"
        "\nstandard output, with remarks on what to comment out and on each line that is left alone. Nothing is"
        "\nchanged; the image is used as it is. With --output it goes to a file, whole or not at all.",
        f"  rpinfs config import-fstab\n  rpinfs config import-fstab --output {MAIN_FILE}",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: /etc/fstab; - for standard input")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write it there; a shell's > would leave an empty file where this fails, and that is a configuration, too",
    )
    parser.add_argument("--force", action="store_true", help="with --output: also over a file that is there")


def _show(options: argparse.Namespace) -> int:
    from rpinfs.boot.config import examine
    from rpinfs.boot.host import Host

    config, errors = examine(Host.read())
    if options.json:
        keys = ("section", "name", "key", "text", "origin")
        values = [{key: getattr(value, key) or None for key in keys} for value in config.values]
        print_document({"in_use": config.in_use, "reason": config.reason or None, "settings": values})
    elif not config.in_use:
        print(f"rpinfs is not in use here: {config.reason}")
    else:
        print(_settings_table(config))
    for error in errors:
        tell(error.message, error.remedy)
    return BAD_USAGE if errors else 0


def _settings_table(config: Config) -> str:
    """The settings as a file that can be used: a comment behind a value would be a part of it."""
    lines: list[str] = []
    section = ""
    for value in config.values:
        if (found := header(value.section, value.name)) != section:
            lines += ["", found] if lines else [found]
            section = found
        lines += [f"# {value.origin}", f"{value.key}={value.text}"]
    return "\n".join(lines)


def _check(_: argparse.Namespace) -> int:
    from rpinfs.boot.config import examine
    from rpinfs.boot.host import Host

    host = Host.read()
    config, errors = examine(host)
    for error in errors:
        tell(error.message, error.remedy)
    if errors:
        return BAD_USAGE
    if faults := around(config, host):
        for message, remedy in faults:
            tell(message, remedy)
        return 1
    print("the configuration is right" if config.in_use else f"rpinfs is not in use here: {config.reason}")
    return 0


def around(config: Config, host: Host) -> list[tuple[str, str | None]]:
    """What is wrong around a right configuration, and will keep it from working: messages and remedies."""
    from rpinfs.boot import gate
    from rpinfs.boot.units import units

    cycles: list[tuple[str, str | None]] = [(cycle, None) for cycle in units(config, host.fstab).cycles]
    return cycles + [(error.message, error.remedy) for error in gate.links(config, host)]


def _import_fstab(options: argparse.Namespace) -> int:
    from rpinfs.image import takeover, takeover_text

    if options.force and not options.output:
        raise UsageError("--force: expected --output=FILE beside it", "rpinfs config import-fstab")
    root = os.environ.get("RPINFS_ROOT", "").rstrip("/")
    shown = options.file or "/etc/fstab"
    if options.file == "-":
        text, shown = sys.stdin.read(), "standard input"
    else:
        with open(options.file or f"{root}/etc/fstab", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    try:
        made = takeover.import_fstab(text, lambda path: _size_of(root + path))
    except takeover.NothingImportedError as error:
        for remark in error.remarks:
            tell(remark, None)
        raise
    rendered = takeover_text.render(made, shown)
    if options.output is None:
        print(rendered, end="")
        return 0
    # As all that is the machine's own, an absolute path is one of the machine below RPINFS_ROOT.
    path = f"{root}{options.output}" if options.output.startswith("/") else os.path.abspath(options.output)
    _write(path, options.output, rendered, options.force)
    for remark in made.remarks:
        print(remark)
    print(f"{options.output}: written; comment out in {shown}: {_lines(made.replaced)}, then reboot")
    return 0


def _lines(replaced: Sequence[Line]) -> str:
    numbers = ", ".join(str(line.number) for line in replaced)
    return f"line {numbers}" if len(replaced) == 1 else f"lines {numbers}"


def _write(path: str, shown: str, text: str, force: bool) -> None:
    """Write a configuration in one step, over another one only when that was said."""
    from rpinfs.system.replace import replace_file

    there = os.path.lexists(path)
    if there and not force:
        raise RpinfsError(
            f"{shown} is there already and stays as it is",
            f"write it beside that one, and compare: rpinfs config import-fstab --output {quoted(shown + '.new')}",
        )
    if os.path.islink(path) or (there and not os.path.isfile(path)):
        raise RpinfsError(f"{shown}: expected a file or none, found something else; it stays as it is")

    def validate(_: str) -> None:
        if not there and os.path.lexists(path):
            raise RpinfsError(f"{shown} was written by somebody else meanwhile, and stays as it is", "look at it")

    replace_file(path, text.encode("utf-8", "surrogateescape"), validate)


def _size_of(path: str) -> int | None:
    """Length of a file that may lie on a share whose NAS is gone."""
    from rpinfs.system import deadline

    try:
        return deadline.within(HOST_SECONDS, os.stat, path).st_size
    except (RpinfsError, OSError):
        return None
