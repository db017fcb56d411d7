"""`rpinfs snapshot` and `rpinfs restore`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rpinfs.commands.cli import UsageError, describe, tell
from rpinfs.commands.common import Progress, end_in_order, image_on_share, load, print_document
from rpinfs.errors import quoted

if TYPE_CHECKING:
    from rpinfs.boot.config import Image
    from rpinfs.image.snapshots import Listing, Snapshot

LIST_SECONDS = 10.0
"""For a look into the folders of the share."""


def add_snapshot(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs snapshot` takes."""
    from rpinfs.image.freeze import LIMIT_SECONDS

    describe(
        parser,
        _snapshot,
        "Copy an image as it is at one instant, beside it on the share, while Docker runs. Whatever writes to it waits"
        "\nfor that long: an instant where the NAS can clone files (NFS 4.2), else as long as it takes to copy what is"
        "\nin it.",
        "  rpinfs snapshot docker\n  rpinfs snapshot --list\n  rpinfs snapshot docker --delete 20261122T201500Z",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the image: docker is the one of [Image docker]")
    parser.add_argument("--list", action="store_true", help="list the snapshots of the image, or of all images")
    parser.add_argument("--json", action="store_true", help="with --list: as JSON")
    parser.add_argument(
        "--delete", metavar="SNAPSHOT", help="delete a snapshot: the name of its file, or the time at its end"
    )
    parser.add_argument(
        "--freeze-limit",
        type=_seconds,
        default=LIMIT_SECONDS,
        metavar="SECONDS",
        help=f"give up where writers would have to wait longer; default: {LIMIT_SECONDS}",
    )


def add_restore(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs restore` takes."""
    describe(
        parser,
        _restore,
        "Put a copy of a snapshot in the place of its image, with Docker stopped. What was there is a snapshot from"
        "\nthen on, until somebody deletes it: rpinfs snapshot NAME --delete SNAPSHOT.",
        "  systemctl stop docker.socket docker containerd var-lib-docker.mount rpinfs-agent"
        "\n  rpinfs restore docker 20261122T201500Z\n  systemctl start rpinfs-agent docker",
    )
    parser.add_argument("name", metavar="NAME", help="the image: docker is the one of [Image docker]")
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="the name of its file, or the time at its end")


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 86400:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of seconds from 1 to 86400")
    return int(text)


def _snapshot(options: argparse.Namespace) -> int:
    if options.list and options.delete is None:
        return _list(options)
    if options.name is None or options.json or options.list:
        raise UsageError("expected an image, or --list: rpinfs snapshot NAME", "rpinfs snapshot")
    return _take(options) if options.delete is None else _delete(options)


def _take(options: argparse.Namespace) -> int:
    from rpinfs.image import taking
    from rpinfs.lease import lease

    host, image = image_on_share(options.name)
    end_in_order()
    with Progress() as progress:
        taken = taking.take(image, lease.Owner.of(host), progress, freeze_limit=options.freeze_limit)
    for remark in taken.remarks:
        print(remark)
    print(taken.path)
    return 0


def _delete(options: argparse.Namespace) -> int:
    from rpinfs.boot.settings import human_size
    from rpinfs.image import snapshots
    from rpinfs.lease import lease

    host, image = image_on_share(options.name)
    end_in_order()
    with Progress() as progress:
        deleted = snapshots.delete(image, lease.Owner.of(host), options.delete, progress)
    print(f"deleted {deleted.path}, which took {human_size(deleted.allocated)} on the NAS")
    return 0


def _list(options: argparse.Namespace) -> int:
    from rpinfs.system import deadline

    names = [options.name] if options.name else [image.name for image in load()[1].images]
    images = [image_on_share(name)[1] for name in names]
    found = deadline.within(LIST_SECONDS, _look, images)
    listed = [(name, snapshot) for name, listing in found for snapshot in listing.snapshots]
    if options.json:
        print_document([_document(name, snapshot) for name, snapshot in listed])
    else:
        _print(listed)
    for sentence in (sentence for _, listing in found for sentence in listing.odd.values()):
        tell(sentence, None)
    return 0


def _look(images: list[Image]) -> list[tuple[str, Listing]]:
    from rpinfs.image import snapshots

    return [(image.name, snapshots.snapshots(image.path)) for image in images]


def _document(name: str, snapshot: Snapshot) -> dict[str, object]:
    return {
        "image": name,
        "name": snapshot.name,
        "path": snapshot.path,
        "time": snapshot.time,
        "size": snapshot.size,
        "allocated": snapshot.allocated,
        "origin": snapshot.origin,
    }


def _print(found: list[tuple[str, Snapshot]]) -> None:
    from rpinfs.boot.settings import human_size

    rows = [("IMAGE", "TIME", "LENGTH", "ON THE NAS", "NAME")]
    for name, snapshot in found:
        rows.append((name, snapshot.when, human_size(snapshot.size), human_size(snapshot.allocated), _named(snapshot)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)), row[-1]]))


def _named(snapshot: Snapshot) -> str:
    return f"{snapshot.name} ({snapshot.origin})" if snapshot.origin else snapshot.name


def _restore(options: argparse.Namespace) -> int:
    from rpinfs.image import restoring
    from rpinfs.lease import lease

    host, image = image_on_share(options.name)
    end_in_order()
    with Progress() as progress:
        restored = restoring.restore(image, lease.Owner.of(host), options.snapshot, progress)
    print(f"{image.path} is as it was at {restored.snapshot.when}")
    if restored.kept:
        name = restored.kept.rpartition("/")[2]
        delete = f"rpinfs snapshot {quoted(image.name)} --delete {quoted(name)}"
        print(f"what it was is kept: {name}; when nobody needs it: {delete}")
    if restored.remark:
        tell(restored.remark, None)
    print(f"to use it: systemctl start {quoted('rpinfs-agent', *image.before)}")
    return 0
