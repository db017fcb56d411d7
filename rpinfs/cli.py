"""The command line: words to calls, errors to text and exit status. Nothing else in rpinfs prints.

Exit status: 0 well; 1 failed; 2 bad usage or bad configuration; `check` and `status` have their own, see rpinfs(8).
An error is one line on standard error that begins `rpinfs: `, and where a remedy is known a second one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from rpinfs import __version__
from rpinfs.errors import RpinfsError

if TYPE_CHECKING:
    from rpinfs.config import Config, Image
    from rpinfs.host import Host
    from rpinfs.status import Facts

BAD_USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""Exit statuses as a shell gives them for SIGINT and SIGPIPE."""

HOST_SECONDS = 1.0
"""For reading the configuration and the machine, when the root is on a NAS that does not answer."""

CHECK_SECONDS = 10.0
"""For the questions of `rpinfs check`, which is not looked at by an impatient person."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "status": (),
    "check": (),
    "units": (),
    "config": ("show", "check", "import-fstab"),
    "image": ("create", "show", "check"),
    "adopt": (),
    "release": (),
    "boot": ("edit", "run"),
    "agent": (),
    "gate": (),
}

Handler = Callable[[argparse.Namespace], int]


class UsageError(RpinfsError):
    """A command line that says nothing that rpinfs knows."""

    def __init__(self, message: str, command: str = "rpinfs") -> None:
        super().__init__(message, f"see {command} --help", status=BAD_USAGE)


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit status. What goes wrong becomes text here and nowhere else."""
    try:
        status = _dispatch(list(arguments))
        sys.stdout.flush()
        return status
    except RpinfsError as error:
        _tell(error.message, error.remedy)
        return error.status
    except BrokenPipeError:
        # Nobody reads on: `rpinfs config show | head`. Python would complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        _tell(f"{error.filename}: {error.strerror}" if error.filename else str(error), None)
        return 1


def _dispatch(arguments: list[str]) -> int:
    _insist_on_command(arguments)
    options = _parser().parse_args(arguments)
    handler: Handler = options.handler
    return handler(options)


def _tell(message: str, remedy: str | None) -> None:
    """Write an error; the gate writes its own in the same form, without all this."""
    sys.stdout.flush()
    for line in (message, remedy):
        if line:
            sys.stderr.write(f"rpinfs: {_one_line(line)}\n")


def _one_line(text: str) -> str:
    printable = "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else " " for c in text)
    return printable.encode("utf-8", "backslashreplace").decode()


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
        said = f"{said} {word}"
        known = COMMANDS.get(word, ())
        if not known:
            return
    if known:
        raise UsageError(f"expected a command: {said} {' | '.join(known)}", said)


def _nearest(said: str, word: str, known: Sequence[str]) -> str:
    from rpinfs.config import distance

    nearest = min(known, key=lambda candidate: distance(word, candidate))
    if distance(word, nearest) <= max(2, len(word) // 2):
        return f"; did you mean {said} {nearest}?"
    return f"; known are {', '.join(known)}"


class _Parser(argparse.ArgumentParser):
    """Complains in our form: one line, and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line."""
        raise UsageError(message, self.prog)


def _parser() -> argparse.ArgumentParser:
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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_status(commands)
    _add_check(commands)
    _add_units(commands)
    _add_config(commands)
    _add_image(commands)
    _add_lease(commands)
    _add_boot(commands)
    _add_services(commands)
    return parser


def _new_parser(prog: str, description: str, epilog: str) -> _Parser:
    form = argparse.RawDescriptionHelpFormatter
    return _Parser(prog=prog, description=description, epilog=epilog, formatter_class=form, allow_abbrev=False)


def _command(
    commands: Any,  # noqa: ANN401  argparse does not name this type
    name: str,
    help: str,
    handler: Handler | None,
    description: str = "",
    examples: str = "",
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description or f"{help[:1].upper()}{help[1:]}.",
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if handler:
        parser.set_defaults(handler=handler)
    return parser


def _add_status(commands: Any) -> None:  # noqa: ANN401
    parser = _command(
        commands,
        "status",
        "how things are, what is wrong and what to do",
        _status,
        "Show boot files, share, images, Docker and network, what is wrong with them and what to do about it."
        "\nAnswers within two seconds, whatever the NAS does. Exit status: 0 ok, 1 warning, 2 critical, 3 unknown.",
        "  rpinfs status\n  rpinfs status --watch\n  rpinfs status --json | jq .images[0].available",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="as JSON; man rpinfs explains it")
    how.add_argument("--watch", action="store_true", help="draw it again every two seconds, until Ctrl-C")


def _add_check(commands: Any) -> None:  # noqa: ANN401
    parser = _command(
        commands,
        "check",
        "all checks, or the named ones",
        _check,
        "Check everything, or what is named, for a person or a monitoring system."
        "\nExit status: that of the worst: 0 ok, 1 warning, 2 critical, 3 unknown.",
        "  rpinfs check\n  rpinfs check share mount.right\n  rpinfs check --json",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("names", nargs="*", metavar="NAME", help="share.mounted, or share for all that begin so")


def _add_units(commands: Any) -> None:  # noqa: ANN401
    parser = _command(
        commands,
        "units",
        "what the generator would write at boot, and why",
        _units,
        "Show the systemd units that rpinfs makes at boot. Nothing is changed.",
        "  rpinfs units\n  rpinfs units --output /tmp/units\n  RPINFS_ROOT=/srv/nfs/pi1 rpinfs units",
    )
    parser.add_argument("--output", metavar="DIR", help="write them below this folder instead of showing them")


def _add_config(commands: Any) -> None:  # noqa: ANN401
    group = _group(commands, "config", "the settings: show, check, import from an fstab")
    parser = _command(group, "show", "the settings in force, and where each comes from", _config_show)
    parser.add_argument("--json", action="store_true", help="as JSON")
    _command(
        group,
        "check",
        "list everything that is wrong with the configuration",
        _config_check,
        "Check the configuration. Each error is one line with file, line, value and rule; then the exit status is 2.",
    )
    parser = _command(
        group,
        "import-fstab",
        "turn hand-written mounts into a configuration",
        _config_import_fstab,
        "Turn the lines of an fstab that mount the boot files, the share and an image by hand into a configuration, on"
        "\nstandard output, with remarks on what to comment out. Nothing is changed; the image is used as it is.",
        "  rpinfs config import-fstab\n  rpinfs config import-fstab > /etc/rpinfs/rpinfs.conf",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="default: /etc/fstab; - for standard input")


def _add_image(commands: Any) -> None:  # noqa: ANN401
    group = _group(
        commands, "image", "image files: create, show, check", "These work on any Linux host, the NAS included."
    )
    parser = _command(
        group,
        "create",
        "make an image as the first boot does",
        _image_create,
        "Make an image: sparse, formatted, verified, and there under its name only when it is whole."
        "\nA file that is there is taken only when it holds no data at all.",
        "  rpinfs image create /srv/docker/docker-10000000abcdef01.img --size 64G",
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--size", required=True, metavar="SIZE", help="such as 20G: a whole number and K, M, G or T")
    parser.add_argument("--filesystem", default="ext4", metavar="FS", help="ext4 (default) or xfs")
    parser.add_argument("--label", metavar="LABEL", help="label of the file system; default: the file's name")
    parser = _command(group, "show", "what is in a file", _image_show, examples="  rpinfs image show docker.img")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser = _command(
        group,
        "check",
        "check the file system in an image, and repair what is safe to repair",
        _image_check,
        "Check the file system in an image that no host uses, and repair what e2fsck -p repairs without a question."
        "\nIt cannot know whether another host uses the image: see to that first.",
    )
    parser.add_argument("file", metavar="FILE")


def _add_lease(commands: Any) -> None:  # noqa: ANN401
    parser = _command(
        commands,
        "adopt",
        "take over an image whose owner is gone",
        _adopt,
        "Make this Pi the owner of an image that belongs to another one. Refused while the other Pi uses it; whether"
        "\nthat one is gone for good, only you can know.",
        "  rpinfs adopt docker && systemctl restart rpinfs-agent",
    )
    parser.add_argument("name", metavar="NAME", help="the image: docker is the one of [Image docker]")
    parser = _command(
        commands,
        "release",
        "give an image up, so that any Pi may take it",
        _release,
        "Give up an image of this Pi, with Docker stopped and the image unmounted. The image itself is left as it is.",
        "  systemctl stop docker containerd var-lib-docker.mount rpinfs-agent\n  rpinfs release docker",
    )
    parser.add_argument("name", metavar="NAME", help="the image: docker is the one of [Image docker]")


def _add_boot(commands: Any) -> None:  # noqa: ANN401
    group = _group(
        commands,
        "boot",
        "change boot files: edit, run",
        "The boot files are mounted read-only. These make them writable for as long as an editor or a command runs.",
    )
    parser = _command(
        group, "edit", "edit a boot file", _boot_edit, examples="  rpinfs boot edit\n  rpinfs boot edit config.txt"
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="below the boot mount; default: cmdline.txt")
    parser = _command(
        group,
        "run",
        "run a command with the boot files writable",
        _boot_run,
        "Run a command with the boot files writable; its exit status is passed on.",
        "  rpinfs boot run -- cp new-kernel.img /boot/firmware/\n  rpinfs boot run -- apt upgrade",
    )
    parser.usage = "rpinfs boot run [-h] -- COMMAND [ARGUMENT ...]"
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND [ARGUMENT ...]")


def _add_services(commands: Any) -> None:  # noqa: ANN401
    _command(commands, "agent", "what rpinfs-agent.service starts", _agent, "The daemon; started by systemd.")
    _command(
        commands, "gate", "what rpinfs-gate.service starts", _gate, "The last check before Docker; started by systemd."
    )


def _group(commands: Any, name: str, help: str, description: str = "") -> Any:  # noqa: ANN401
    parser = _command(commands, name, help, None, description)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)


# status and check


def _status(options: argparse.Namespace) -> int:
    from rpinfs import status

    if options.watch:
        return _watch(status.WATCH_SECONDS)
    found = _look(status.seconds_left)
    _print_document(found) if options.json else _print_status(found)
    return int(found["exit_status"])


def _look(seconds: Callable[[], float]) -> dict[str, Any]:
    """Find out everything there is to show; the questions have as many seconds as are left when they are asked."""
    from rpinfs import checks, status

    facts = _facts()
    if not facts.config.in_use:
        return status.document(facts, [], None)
    status.ask(facts, seconds())
    results = checks.judge(facts)
    return status.document(facts, results, checks.worst(results))


def _watch(seconds: float) -> int:
    """Draw the status again and again; without a terminal one picture after the other."""
    clear = "\x1b[H\x1b[2J\x1b[3J" if sys.stdout.isatty() else ""
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
    from rpinfs import status

    sys.stdout.write(status.render(found, _paint()))


def _check(options: argparse.Namespace) -> int:
    from rpinfs import checks, status

    selected = checks.select(options.names)
    facts = _facts()
    if not facts.config.in_use:
        _print_check([], facts.config.reason, 0, as_json=options.json)
        return 0
    status.ask(facts, CHECK_SECONDS, checks.needs(selected))
    results = checks.judge(facts, selected)
    worst = checks.worst(results)
    exit_status = worst.status.value if worst else 0
    _print_check([result.document() for result in results], "", exit_status, as_json=options.json)
    return exit_status


def _print_check(found: list[dict[str, Any]], reason: str, exit_status: int, *, as_json: bool) -> None:
    from rpinfs import checks, status

    if as_json:
        word = checks.Status(exit_status).word
        document = {"schema": status.SCHEMA, "in_use": not reason, "reason": reason or None, "status": word}
        _print_document({**document, "exit_status": exit_status, "checks": found})
        return
    if reason:
        print(f"rpinfs is not in use here: {reason}")
    paint = _paint()
    for check in found:
        word = check["status"]
        print(f"{paint(word, f'{word:<8}')}  {status.check_name(check)}: {check['message']}")
        if check["remedy"]:
            print(f"{'':8}  {check['remedy']}")


def _facts() -> Facts:
    """Read this machine in a child: with the root on a NAS that is gone, even the configuration cannot be read."""
    from rpinfs import probe, status
    from rpinfs.host import Host

    try:
        host = probe.within(HOST_SECONDS, Host.read)
    except probe.TimedOut as silence:
        raise RpinfsError(
            f"the root file system gave {silence.message}",
            "if the root is on NFS: look at the NAS and at the network to it",
            status=BAD_USAGE,
        ) from silence
    return status.facts_of(host)


def _paint() -> Any:  # noqa: ANN401
    from rpinfs.status import Paint

    return Paint(sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def _print_document(found: object) -> None:
    print(json.dumps(found, indent=2, ensure_ascii=True))


# units and config


def _units(options: argparse.Namespace) -> int:
    from rpinfs import generator, units

    host, config = _load()
    if not config.in_use:
        print(f"# rpinfs writes no units: {config.reason}")
        return 0
    made = units.units(config, host.fstab)
    if options.output is not None:
        generator.write(made, options.output)
        for remark in made.remarks:
            sys.stderr.write(f"rpinfs: {remark}\n")
        return 0
    print(f"# In use: {_why_in_use(host)}. Settings: rpinfs config show")
    for remark in made.remarks:
        print(f"# {remark}")
    for name, text in made.files.items():
        print(f"\n# /run/systemd/generator/{name}\n{text.rstrip()}")
    print()
    for name, target in made.links.items():
        print(f"# /run/systemd/generator/{name} -> {target}")
    return 0


def _why_in_use(host: Host) -> str:
    return "the root is on NFS" if host.root_on_nfs else "there is a configuration"


def _config_show(options: argparse.Namespace) -> int:
    from rpinfs.config import examine
    from rpinfs.host import Host

    config, errors = examine(Host.read())
    if options.json:
        keys = ("section", "name", "key", "text", "origin")
        values = [{key: getattr(value, key) or None for key in keys} for value in config.values]
        _print_document({"in_use": config.in_use, "reason": config.reason or None, "settings": values})
    elif not config.in_use:
        print(f"rpinfs is not in use here: {config.reason}")
    else:
        print(_settings_table(config))
    for error in errors:
        _tell(error.message, error.remedy)
    return BAD_USAGE if errors else 0


def _settings_table(config: Config) -> str:
    lines: list[str] = []
    header = ""
    width = max(len(f"{value.key}={value.text}") for value in config.values)
    for value in config.values:
        section = f"[{value.section} {value.name}]" if value.name else f"[{value.section}]"
        if section != header:
            lines += ["", section] if lines else [section]
            header = section
        lines.append(f"{f'{value.key}={value.text}':<{min(width, 48)}}  # {value.origin}")
    return "\n".join(lines)


def _config_check(_: argparse.Namespace) -> int:
    from rpinfs.config import examine
    from rpinfs.host import Host

    config, errors = examine(Host.read())
    for error in errors:
        _tell(error.message, error.remedy)
    if errors:
        return BAD_USAGE
    print("the configuration is right" if config.in_use else f"rpinfs is not in use here: {config.reason}")
    return 0


def _config_import_fstab(options: argparse.Namespace) -> int:
    from rpinfs import fstab

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
    from rpinfs import probe

    try:
        return probe.within(HOST_SECONDS, os.stat, path).st_size
    except (RpinfsError, OSError):
        return None


def _load() -> tuple[Host, Config]:
    from rpinfs.config import load
    from rpinfs.host import Host

    host = Host.read()
    return host, load(host)


# image


def _image_create(options: argparse.Namespace) -> int:
    from rpinfs import making

    size = _parsed_size(options.size, options.filesystem)
    with _Progress() as progress:
        made = making.create(options.file, size, options.filesystem, label=options.label, progress=progress)
    print(_made(made.path, made.size, made.allocated, options.filesystem))
    return 0


def _made(path: str, size: int, allocated: int, filesystem: str) -> str:
    from rpinfs.settings import human_size

    return f"{path}: made, {filesystem}, {human_size(size)}, of which {human_size(allocated)} are allocated"


def _parsed_size(text: str, filesystem: str) -> int:
    from rpinfs import settings

    try:
        settings.parse_file_system(filesystem)
    except ValueError as rule:
        raise UsageError(f"--filesystem {filesystem}: {rule}", "rpinfs image create") from rule
    try:
        size = settings.parse_size(text)
    except ValueError as rule:
        raise UsageError(f"--size {text}: {rule}", "rpinfs image create") from rule
    least = settings.SMALLEST_IMAGE[filesystem]
    if size < least:
        raise UsageError(
            f"--size {text}: expected at least {settings.size_text(least)} for {filesystem}", "rpinfs image create"
        )
    return size


def _image_show(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rpinfs import image

    with _Progress() as progress:
        found = image.probe(options.file, progress)
    if found.kind is image.Kind.MISSING:
        raise RpinfsError(f"{options.file}: no such file")
    if options.json:
        values = {key: value for key, value in asdict(found).items() if key != "stamp"}
        _print_document({"schema": 1, **values, "kind": found.kind.value, "obstacles": list(found.obstacles)})
    else:
        print(_image_table(found))
    return 0


def _image_table(found: Any) -> str:  # noqa: ANN401  image.Probe, which this module does not import
    from rpinfs.settings import human_size

    rows = [
        ("File", found.path),
        ("Holds", found.description),
        ("Length", f"{human_size(found.size)} ({found.size} bytes)"),
        ("Allocated", f"{human_size(found.allocated)} ({found.allocated} bytes)"),
        ("Size of the file system", f"{human_size(found.fs_size)} ({found.fs_size} bytes)" if found.fs_size else ""),
        ("Block size", f"{found.block_size} bytes" if found.block_size else ""),
        ("Label", found.label or ""),
        ("UUID", found.uuid or ""),
        ("State", _state(found)),
        ("Errors recorded", str(found.errors_recorded) if found.errors_recorded else ""),
        ("Cannot be mounted here", ", ".join(found.obstacles)),
        ("What to do", found.remedy or ""),
    ]
    shown = [(name, value) for name, value in rows if value]
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown)


def _state(found: Any) -> str:  # noqa: ANN401
    if found.clean is None:
        return ""
    if found.clean:
        return "clean"
    return "in use, or not unmounted: its journal is to be replayed" if found.needs_recovery else "to be checked"


def _image_check(options: argparse.Namespace) -> int:
    from rpinfs import image

    with _Progress() as progress:
        result = image.check(options.file, progress)
    outcome = "errors were corrected" if result.corrected else "no errors"
    if result.needs_recovery:
        outcome = "its log is to be replayed, which the next mount does"
    print(f"{result.path}: {outcome}")
    return 0


class _Progress:
    """Shows how long work gets on: on a terminal, in one line that is gone afterwards."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, message: str) -> None:
        self._write(message)

    def __exit__(self, *_: object) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        if self._on:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()


# adopt and release


def _adopt(options: argparse.Namespace) -> int:
    from rpinfs import lease

    host, image = _image_on_share(options.name)
    before = lease.adopt(image.path, lease.Owner.of(host))
    print(f"{image.path} belongs to this Pi now" + (f"; before, it belonged to {before}" if before else ""))
    print("to use it: systemctl restart rpinfs-agent")
    return 0


def _release(options: argparse.Namespace) -> int:
    from rpinfs import lease

    host, image = _image_on_share(options.name)
    lease.release(image.path, lease.Owner.of(host))
    print(f"{image.path} belongs to nobody now; the next Pi that is configured for it takes it")
    return 0


def _image_on_share(name: str) -> tuple[Host, Image]:
    """Find an image of the configuration whose share is really mounted: a lease below an empty mount point is none."""
    from rpinfs import storage

    host, config = _load()
    image = next((image for image in config.images if image.name == name), None)
    if image is None:
        known = ", ".join(image.name for image in config.images) or "none"
        raise RpinfsError(f"unknown image {name}; known are {known}", "rpinfs config show", status=2)
    mount = storage.mount_at(storage.parse_mountinfo(host.mountinfo), config.share.where)
    if mount is None or not mount.is_nfs:
        raise RpinfsError(f"the share is not mounted at {config.share.where}", "rpinfs status")
    return host, image


# boot, and what the units start


def _boot_edit(options: argparse.Namespace) -> int:
    from rpinfs import bootedit

    host, config = _load()
    return bootedit.edit(host, config, options.file)


def _boot_run(options: argparse.Namespace) -> int:
    from rpinfs import bootedit

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise UsageError("expected a command: rpinfs boot run -- COMMAND", "rpinfs boot run")
    host, config = _load()
    return bootedit.run_command(host, config, command)


def _agent(_: argparse.Namespace) -> int:
    from rpinfs import agent

    return agent.main()


def _gate(_: argparse.Namespace) -> int:
    from rpinfs import gate

    return gate.main()
