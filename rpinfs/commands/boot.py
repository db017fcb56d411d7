"""`rpinfs boot`: the boot files writable for a while."""

from __future__ import annotations

import argparse

from rpinfs.commands.cli import UsageError, add_command, add_group
from rpinfs.commands.common import load


def add_boot(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs boot` takes."""
    group = add_group(
        parser,
        "The boot files are mounted read-only. These make them writable for as long as an editor or a command runs.",
    )
    parser = add_command(
        group, "edit", "edit a boot file", _edit, examples="  rpinfs boot edit\n  rpinfs boot edit config.txt"
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="below the boot mount; default: cmdline.txt")
    parser = add_command(
        group,
        "run",
        "run a command with the boot files writable",
        _run,
        "Run a command with the boot files writable; its exit status is passed on.",
        "  rpinfs boot run -- cp new-kernel.img /boot/firmware/\n  rpinfs boot run -- apt upgrade",
    )
    parser.usage = "rpinfs boot run [-h] -- COMMAND [ARGUMENT ...]"
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND [ARGUMENT ...]")


def _edit(options: argparse.Namespace) -> int:
    from rpinfs.system import bootedit

    host, config = load()
    return bootedit.edit(host, config, options.file)


def _run(options: argparse.Namespace) -> int:
    from rpinfs.system import bootedit

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise UsageError("expected a command: rpinfs boot run -- COMMAND", "rpinfs boot run")
    host, config = load()
    return bootedit.run_command(host, config, command)
