"""`rpinfs docker`: what Docker will do with the storage, and its user namespaces."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from rpinfs.boot.settings import DOCKER
from rpinfs.commands.cli import UsageError, add_command, add_group, tell
from rpinfs.commands.common import print_document
from rpinfs.errors import RpinfsError, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rpinfs.boot.config import Config
    from rpinfs.docker.change import Change
    from rpinfs.docker.rules import Expected, Rules
    from rpinfs.docker.settings import Installed
    from rpinfs.docker.told import Choice, Problem
    from rpinfs.docker.unseen import Unseen

_UNTOLD = "cannot be told"


def add_docker(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs docker` takes."""
    group = add_group(parser)
    parser = add_command(
        group,
        "show",
        "what Docker will do with the storage, and why",
        _show,
        "Show which driver, folders and user namespaces Docker will use when it starts, by its version and settings,"
        "\nwhere each comes from, and what is wrong. Docker need not run. Exit status: 1 where something is wrong.",
        "  rpinfs docker show\n  rpinfs docker show --json | jq .driver.value",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser = add_command(
        group,
        "apply",
        "set userns-remap in /etc/docker/daemon.json",
        _apply,
        "Set userns-remap in /etc/docker/daemon.json: root in a container is then not root of the Pi. All else in the"
        "\nfile stays as it is. Docker keeps remapped data in a folder of its own: images, containers and volumes of"
        "\nbefore become invisible, and come back with the old setting. Docker is not restarted.",
        "  rpinfs docker apply --userns-remap=default\n  rpinfs docker apply --userns-remap=none",
    )
    parser.add_argument(
        "--userns-remap",
        required=True,
        metavar="USER",
        help="default (the user dockremap), USER, USER:GROUP, or none to switch it off",
    )
    parser.add_argument("--yes", action="store_true", help="also when images become invisible, without a question")


def _read() -> tuple[Installed, Config]:
    from rpinfs.boot.config import examine
    from rpinfs.boot.host import Host
    from rpinfs.docker import settings

    host = Host.read()
    config, _ = examine(host)
    return settings.read(host, config.images if config.in_use else None), config


# show


def _show(options: argparse.Namespace) -> int:
    from rpinfs.docker import placement, settings, unseen

    installed, config = _read()
    expected = settings.expect(installed)

    def real(folder: str) -> str:
        return settings.real(installed, folder)

    switched_off = config.disabled.get(DOCKER, "")
    problems = [*expected.problems, *placement.problems(expected, installed.images, real, switched_off)]
    hidden = unseen.find(installed, expected)
    if options.json:
        print_document(_document(expected, installed, problems, hidden))
    else:
        _print_expected(expected, installed, problems, hidden)
    return 1 if problems else 0


def _document(
    expected: Expected, installed: Installed, problems: Sequence[Problem], hidden: Sequence[Unseen]
) -> dict[str, Any]:
    def folder(choice: Choice) -> dict[str, Any]:
        return {"value": choice.value or None, "origin": choice.origin, "image": _image_name(choice.value, installed)}

    def setting(choice: Choice) -> dict[str, Any]:
        return {"value": choice.value or None, "origin": choice.origin}

    return {
        "schema": 1,
        "version": expected.version,
        "rules_seen_with": expected.rules.seen or None,
        "snapshotter": expected.snapshotter,
        "driver": setting(expected.driver),
        "data_root": folder(expected.data_root),
        "root": expected.root or None,
        "containerd_root": folder(expected.containerd_root),
        "userns_remap": setting(expected.userns_remap),
        "unseen": [{"what": one.what, "folder": one.folder} for one in hidden],
        "problems": [{"message": one.message, "remedy": one.remedy, "fatal": one.fatal} for one in problems],
    }


def _print_expected(
    expected: Expected, installed: Installed, problems: Sequence[Problem], hidden: Sequence[Unseen]
) -> None:
    print(f"Docker {expected.version}, by rules {_evidence(expected.rules)}")
    kind = "snapshotter of containerd" if expected.snapshotter else "storage driver"
    rows = [
        ("Images", f"{kind} {expected.driver.value}, in {expected.image_folder or _UNTOLD}", expected.driver.origin),
        ("Data root", _placed(expected.data_root.value, installed), expected.data_root.origin),
        ("containerd", _placed(expected.containerd_root.value, installed), expected.containerd_root.origin),
        ("userns-remap", _remapping(expected), expected.userns_remap.origin),
    ]
    if not expected.is_told:
        rows = [(name, _UNTOLD, origin) for name, _, origin in rows]
    kept = "kept, and seen again with the settings it was made with"
    rows += [("Not seen", f"{one.what}, in {one.folder}", kept) for one in hidden]
    width = max(len(value) for _, value, _ in rows)
    for name, value, origin in rows:
        print(f"{name:<12}  {value:<{width}}  # {origin}")
    if problems:
        print("\nWhat is wrong, and what to do:")
    for problem in problems:
        print(f"  {problem.message}" + (f"\n      {problem.remedy}" if problem.remedy else ""))


def _evidence(rules: Rules) -> str:
    """What the rules of a version rest on."""
    if rules.seen:
        return f"tried with {rules.seen}"
    documented = "from its documentation"
    return f"{documented}, the image store tried with {rules.store_seen}" if rules.store_seen else documented


def _placed(folder: str, installed: Installed) -> str:
    if not folder:
        return _UNTOLD
    name = _image_name(folder, installed)
    return f"{folder}, on image {name}" if name else f"{folder}, on no image"


def _image_name(folder: str, installed: Installed) -> str | None:
    from rpinfs.docker import settings

    image = settings.image_of(installed, folder) if folder else None
    return image.name if image else None


def _remapping(expected: Expected) -> str:
    value = expected.userns_remap.value
    return f"{value}, data in {expected.root}" if value else "off"


# apply


def _apply(options: argparse.Namespace) -> int:
    from rpinfs.docker import change as changes
    from rpinfs.docker import rules

    wanted = options.userns_remap
    odd = wanted.startswith(("-", ":")) or wanted.count(":") > 1 or not wanted.isprintable() or rules.is_root(wanted)
    if not wanted or odd:
        raise UsageError(f"--userns-remap={wanted}: expected default, USER, USER:GROUP or none", "rpinfs docker apply")
    change = changes.plan(_read()[0], wanted)
    file = change.installed.settings.file
    if change.is_none:
        print(f"{file}: userns-remap is {_word(change.after)} already; nothing to change")
        return 0
    if change.hidden:
        _insist_on_consent(change, wanted, options.yes)
    changes.apply(change)
    print(f"{file}: userns-remap is {_word(change.after)} now; before, it was {_word(change.before)}")
    print(f"Docker will keep its data in {change.after.root}")
    print("to use it, which stops the containers: systemctl restart docker")
    return 0


def _insist_on_consent(change: Change, wanted: str, yes: bool) -> None:
    """Go on only with --yes or a yes; without a terminal nobody is asked, and nothing hangs."""
    after = change.after
    warning = f"Docker will not see {change.hidden}, for its data will be in {after.root}"
    if change.before.snapshotter and not after.snapshotter:
        warning += f", with the storage driver {after.driver.value} in place of containerd"
    if yes:
        tell(f"warning: {warning}", None)
        return
    remedy = f"nothing is deleted; if that is what you want: rpinfs docker apply --userns-remap={quoted(wanted)} --yes"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RpinfsError(f"not changed: {warning}", remedy)
    tell(f"warning: {warning}", "nothing is deleted, and the old setting brings it back")
    sys.stderr.write("Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RpinfsError("not changed")


def _word(expected: Expected) -> str:
    return expected.userns_remap.value or "off"
