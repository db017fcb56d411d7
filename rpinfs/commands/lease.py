"""`rpinfs adopt` and `rpinfs release`: whose an image is."""

from __future__ import annotations

import argparse

from rpinfs.commands.cli import describe
from rpinfs.commands.common import image_on_share
from rpinfs.errors import printable


def add_adopt(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs adopt` takes."""
    describe(
        parser,
        _adopt,
        "Make this Pi the owner of an image that belongs to another one. Refused while the other Pi uses it, and until"
        "\nit was not seen for 15 minutes: one that is cut off from the NAS writes on when its cable is back. Whether"
        "\nthat one is gone for good, only you can know.",
        "  rpinfs adopt docker && systemctl restart rpinfs-agent",
    )
    _add_name(parser)
    parser.add_argument(
        "--now",
        action="store_true",
        help="do not wait for the 15 minutes; for who has seen that the owner is switched off",
    )


def add_release(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs release` takes."""
    describe(
        parser,
        _release,
        "Give up an image of this Pi, with Docker stopped and the image unmounted. The image itself is left as it is.",
        "  systemctl stop docker.socket docker containerd var-lib-docker.mount rpinfs-agent\n  rpinfs release docker",
    )
    _add_name(parser)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the image: docker is the one of [Image docker]")


def _adopt(options: argparse.Namespace) -> int:
    from rpinfs.image import accept
    from rpinfs.lease.lease import Owner

    host, image = image_on_share(options.name)
    before, not_kept = accept.adopt(image, Owner.of(host), now=options.now)
    print(printable(f"{image.path} belongs to this Pi now" + (f"; before, {before}" if before else "")))
    if not_kept:
        print(printable(not_kept))
    print("to use it: systemctl restart rpinfs-agent")
    return 0


def _release(options: argparse.Namespace) -> int:
    from rpinfs.image import accept
    from rpinfs.lease.lease import Owner

    host, image = image_on_share(options.name)
    accept.release(image, Owner.of(host))
    print(printable(f"{image.path} belongs to nobody now; the next Pi that is configured for it takes it"))
    return 0
