"""`rpinfs config`: the settings."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from rpinfs.boot.syntax import header
from rpinfs.commands.cli import BAD_USAGE, add_command, add_group, tell
from rpinfs.commands.common import HOST_SECONDS, print_document
from rpinfs.errors import RpinfsError

if TYPE_CHECKING:
    from rpinfs.boot.config import Config


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
        "\nstandard output, with remarks on what to comment out. Nothing is changed; the image is used as it is.",
        "  rpinfs config import-fstab\n  rpinfs config import-fstab > /etc/rpinfs/rpinfs.conf",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: /etc/fstab; - for standard input")


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

    config, errors = examine(Host.read())
    for error in errors:
        tell(error.message, error.remedy)
    if errors:
        return BAD_USAGE
    print("the configuration is right" if config.in_use else f"rpinfs is not in use here: {config.reason}")
    return 0


def _import_fstab(options: argparse.Namespace) -> int:
    from rpinfs.image import fstab

    root = os.environ.get("RPINFS_ROOT", "").rstrip("/")
    shown = options.file or "/etc/fstab"
    if options.file == "-":
        text, shown = sys.stdin.read(), "standard input"
    else:
        with open(options.file or f"{root}/etc/fstab", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    made = fstab.import_fstab(text, lambda path: _size_of(root + path))
    print(fstab.render(made, shown), end="")
    return 0


def _size_of(path: str) -> int | None:
    """Length of a file that may lie on a share whose NAS is gone."""
    from rpinfs.system import deadline

    try:
        return deadline.within(HOST_SECONDS, os.stat, path).st_size
    except (RpinfsError, OSError):
        return None
