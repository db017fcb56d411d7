"""`rpinfs trim`: freed blocks back to the NAS."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rpinfs.commands.cli import describe, tell
from rpinfs.commands.common import Progress, image_named, load
from rpinfs.errors import RpinfsError

if TYPE_CHECKING:
    from rpinfs.boot.config import Image
    from rpinfs.image.trim import Trimmed


def add_trim(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs trim` takes."""
    describe(
        parser,
        _trim,
        "Give the blocks that containers have freed in a mounted image back to the NAS: in all images, or in one."
        "\nIt needs NFS 4.2 (Version= in [Server]); where it cannot be done, it says why, and the exit status is 1.",
        "  docker system prune && rpinfs trim docker",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the image: docker is the one of [Image docker]")
    parser.add_argument(
        "--where-possible", action="store_true", help="an image for which it cannot be done is no failure: for a timer"
    )


def _trim(options: argparse.Namespace) -> int:
    host, config = load()
    images = [image_named(config, options.name)] if options.name else config.images
    if host.root:
        raise RpinfsError("rpinfs trim works on the running system only, and RPINFS_ROOT is set")
    if not config.in_use:
        raise RpinfsError(f"rpinfs is not in use here: {config.reason}")
    # Each of them has its turn, whatever becomes of the others.
    return max((_trim_one(image, host.mountinfo, options.where_possible) for image in images), default=0)


def _trim_one(image: Image, mountinfo: str, where_possible: bool) -> int:
    from rpinfs.boot import storage
    from rpinfs.image import trim

    try:
        with Progress() as progress:
            done = trim.trim(image, storage.parse_mountinfo(mountinfo), progress)
    except trim.CannotTrim as reason:
        tell(reason.message, reason.remedy)
        return 0 if where_possible else reason.status
    except RpinfsError as error:
        tell(error.message, error.remedy)
        return error.status
    print(_sentence(image.name, done))
    return 0


def _sentence(name: str, done: Trimmed) -> str:
    from rpinfs.boot.settings import human_size

    takes = f"{done.path} takes {human_size(done.after)} on the NAS and holds {human_size(done.held)}"
    if not done.given_back:
        return f"{name}: nothing to give back; {takes}"
    return f"{name}: {human_size(done.given_back)} given back; {takes}"
