"""The lab by hand: `python3 -m tests.lab shell`, `root`, `clean`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .lab import WORK, Lab, remove_leftovers, require_root
from .machine import MACHINES, machine_of
from .process import LabError
from .releases import DEFAULT, RELEASES
from .root import cache_folder, root_with, say


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.lab", description="A NAS and emulated Pis that netboot from it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    shell_command = commands.add_parser("shell", help="boot a Pi and run the commands typed here in it")
    shell_command.add_argument("--deb", type=Path, help="package to install in its root")
    shell_command.add_argument("--release", default=DEFAULT, help=f"Debian release ({', '.join(RELEASES)})")
    shell_command.add_argument(
        "--arch", default="", help=f"architecture, if not this machine's ({', '.join(MACHINES)})"
    )
    shell_command.set_defaults(act=shell)

    root_command = commands.add_parser("root", help="make the cached root of a release and say where it is")
    root_command.add_argument("--deb", type=Path, help="package to install in it")
    root_command.add_argument("--release", default=DEFAULT, help=f"Debian release ({', '.join(RELEASES)})")
    root_command.add_argument("--arch", default="", help=f"architecture, if not this machine's ({', '.join(MACHINES)})")
    root_command.set_defaults(act=root)

    clean_command = commands.add_parser("clean", help="remove what labs that were killed have left")
    clean_command.add_argument("--after-stdin", action="store_true", help="wait for the end of standard input first")
    clean_command.add_argument("work", nargs="?", type=Path, default=WORK, help="where labs keep their files")
    clean_command.set_defaults(act=clean)

    arguments = parser.parse_args()
    try:
        require_root()
        arguments.act(arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def shell(arguments: argparse.Namespace) -> None:
    """Commands from standard input, one a line; a few words are the lab's own."""
    with Lab(deb=arguments.deb, release=arguments.release, progress=say, architecture=arguments.arch) as lab:
        pi = lab.pi()
        own: dict[str, Callable[[], str | None]] = {
            "@on": pi.boot,
            "@off": pi.power_off,
            "@cut": pi.pull_power,
            "@unplug": pi.unplug,
            "@plug": pi.plug,
            "@nas-off": lab.nas.stop,
            "@nas-on": lab.nas.start,
            "@console": pi.console,
        }
        say(f"files: {lab.folder}\nits own words: {' '.join(own)}")
        pi.power_on()
        say(f"{pi.wait_booted()} after {pi.seconds_since_power_on():.1f} s")
        for line in prompted_lines():
            try:
                if line.strip() in own:
                    say(own[line.strip()]() or "done")
                elif line.strip():
                    say(str(pi.try_run(line)).partition("\n")[2].rstrip("\n"))
            except LabError as error:
                say(f"lab: {error}")


def root(arguments: argparse.Namespace) -> None:
    """Make the root."""
    say(f"cache: {cache_folder()}")
    say(str(root_with(arguments.release, machine_of(arguments.arch), arguments.deb, say)))


def clean(arguments: argparse.Namespace) -> None:
    """Remove leftovers."""
    if arguments.after_stdin:
        sys.stdin.read()
    remove_leftovers(arguments.work)


def prompted_lines() -> Iterator[str]:
    """Lines from standard input, with a prompt on a terminal."""
    prompt = "pi# " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt)
        except EOFError:
            return


if __name__ == "__main__":
    sys.exit(main())
