"""`rpinfs image`: image files, on any Linux host."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from rpinfs.commands.cli import UsageError, add_command, add_group
from rpinfs.commands.common import Progress, load, print_document
from rpinfs.errors import RpinfsError, printable

if TYPE_CHECKING:
    from rpinfs.image.probe import Probe


def add_image(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs image` takes."""
    group = add_group(parser, "These work on any Linux host, the NAS included.")
    parser = add_command(
        group,
        "create",
        "make an image as the first boot does",
        _create,
        "Make an image: sparse, formatted, verified, and there under its name only when it is whole."
        "\nA file that is there is taken only when it holds no data at all.",
        "  rpinfs image create /srv/docker/docker-10000000abcdef01.img --size 64G",
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--size", required=True, metavar="SIZE", help="such as 20G: a whole number and K, M, G or T")
    parser.add_argument("--filesystem", default="ext4", metavar="FS", help="ext4 (default) or xfs")
    parser.add_argument("--label", metavar="LABEL", help="label of the file system; default: the file's name")
    parser = add_command(
        group,
        "grow",
        "make an image larger, also while it is mounted",
        _grow,
        "Make an image and the file system in it larger. One that is mounted here stays so and may be in use; any other"
        "\nis checked, and mounted for the purpose where nobody else sees it. When it was interrupted, the same command"
        "\ncompletes it. Nothing ever makes an image smaller.",
        "  rpinfs image grow /nfs/docker/docker-10000000abcdef01.img --size 64G",
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--size", required=True, metavar="SIZE", help="the new size, such as 64G")
    parser = add_command(group, "show", "what is in a file", _show, examples="  rpinfs image show docker.img")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser = add_command(
        group,
        "check",
        "check the file system in an image, and repair what is safe to repair",
        _check,
        "Check the file system in an image that no host uses, and repair what e2fsck -p repairs without a question."
        "\nRefused while a Pi has the image locked. Of an image that no Pi ever had it cannot know whether another host"
        "\nuses it: see to that first.",
    )
    parser.add_argument("file", metavar="FILE")


def _create(options: argparse.Namespace) -> int:
    from rpinfs.image import make

    size = _size_to_create(options.size, options.filesystem)
    with Progress() as progress:
        made = make.create_by_hand(options.file, size, options.filesystem, label=options.label, progress=progress)
    print(printable(_made(made.path, made.size, made.allocated, options.filesystem)))
    return 0


def _made(path: str, size: int, allocated: int, filesystem: str) -> str:
    from rpinfs.boot.settings import human_size

    return f"{path}: made, {filesystem}, {human_size(size)}, of which {human_size(allocated)} are allocated"


def _size_to_create(text: str, filesystem: str) -> int:
    from rpinfs.boot import settings

    try:
        settings.parse_file_system(filesystem)
    except ValueError as rule:
        raise UsageError(f"--filesystem {filesystem}: {rule}", "rpinfs image create") from rule
    size = _parsed_size(text, "create")
    least = settings.SMALLEST_IMAGE[filesystem]
    if size < least:
        raise UsageError(
            f"--size {text}: expected at least {settings.size_text(least)} for {filesystem}", "rpinfs image create"
        )
    return size


def _parsed_size(text: str, command: str) -> int:
    from rpinfs.boot import settings

    try:
        return settings.parse_size(text)
    except ValueError as rule:
        raise UsageError(f"--size {text}: {rule}", f"rpinfs image {command}") from rule


def _grow(options: argparse.Namespace) -> int:
    from rpinfs.boot.settings import human_size
    from rpinfs.image import grow

    size = _parsed_size(options.size, "grow")
    with Progress() as progress:
        grown = grow.grow_by_hand(options.file, size, progress=progress)
    where = f", mounted at {grown.where}" if grown.where else ""
    if grown.after == grown.before:
        print(printable(f"{grown.path}: has {human_size(grown.after)} already{where}"))
    else:
        sizes = f"from {human_size(grown.before)} to {human_size(grown.after)}"
        print(printable(f"{grown.path}: grown {sizes}{where}"))
    _tell_of_smaller_setting(grown.path, grown.after)
    return 0


def _tell_of_smaller_setting(path: str, size: int) -> None:
    """Say it now when the next boot would refuse the image, for being larger than its Size=."""
    from rpinfs.boot import settings

    try:
        _, config = load()
    except (RpinfsError, OSError):
        return  # No configuration that could say anything of this file.
    real_path = os.path.realpath(path)
    for images in config.images if config.in_use else ():
        if images.path == real_path and images.size_is_set and images.size < size:
            wanted = settings.size_text(-(-size // settings.BLOCK_SIZE) * settings.BLOCK_SIZE)
            print(
                f"Size={settings.size_text(images.size)} in the configuration is less, which the next boot refuses: "
                f"set Size={wanted} in [Image {images.name}]"
            )


def _show(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rpinfs.image.probe import Kind, probe

    with Progress() as progress:
        found = probe(options.file, progress)
    if found.kind is Kind.MISSING:
        raise RpinfsError(f"{options.file}: no such file")
    if options.json:
        values = {key: value for key, value in asdict(found).items() if key not in ("stamp", "groups")}
        print_document({"schema": 1, **values, "kind": found.kind.value, "obstacles": list(found.obstacles)})
    else:
        print(_table(found))
    return 0


def _table(found: Probe) -> str:
    from rpinfs.boot.settings import human_size

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
    # One line each: what stands in a file is no row of ours.
    return "\n".join(f"{name:<{width}}  {printable(value)}" for name, value in shown)


def _state(found: Probe) -> str:
    if found.clean is None:
        return ""
    if found.clean:
        return "clean"
    return "in use, or not unmounted: its journal is to be replayed" if found.needs_recovery else "to be checked"


def _check(options: argparse.Namespace) -> int:
    from rpinfs.image.check import check_by_hand

    with Progress() as progress:
        result = check_by_hand(options.file, progress)
    outcome = "errors were corrected" if result.corrected else "no errors"
    if result.needs_recovery:
        outcome = "its log is to be replayed, which the next mount does"
    print(printable(f"{result.found.path}: {outcome}"))
    return 0
