"""What a board in the making was asked to be, kept beside it: only who asks for the same may complete it.

Otherwise an attempt that was interrupted, and run again for another serial number or user, would say that it is done.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

from rpinfs.errors import RpinfsError
from rpinfs.netboot.add import record as records
from rpinfs.netboot.add.order import Order
from rpinfs.netboot.add.record import Record
from rpinfs.netboot.add.staging import Place
from rpinfs.netboot.add.tree import Tree
from rpinfs.system import files

_FILE = "asked.json"


def asked(order: Order, words: Mapping[str, str]) -> dict[str, str]:
    """Options and their values, those of which a value says most first. `words`: what is beside the order."""
    pi, nas = order.pi, order.plan.nas
    return {
        **words, "--serial": pi.serial, "--mac": pi.mac, "--board": pi.board.model if order.board_known else "",
        "--server": nas.address, "--nfs-version": nas.version,
        "the plan": hashlib.sha256(repr((pi, nas)).encode()).hexdigest(),
    }  # fmt: skip


def digest_of(path: str) -> str:
    """SHA-256 of a file, in hexadecimal digits; empty for no file. Raises OSError."""
    if not path:
        return ""
    with files.open_regular(os.path.realpath(path), os.O_RDONLY) as fd, open(fd, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep(place: Place, digits: str, wanted: Mapping[str, str]) -> None:
    """Write it beside a board in the making, with which it goes. Raises OSError."""
    Tree(place.staged(digits)[0]).write(_FILE, json.dumps(wanted), 0o600)


def refuse_another(place: Place, whole: Record, wanted: Mapping[str, str], image: str) -> None:
    """Insist that a board which waits for its names is the one that is asked for. Raises RpinfsError, OSError.

    Args:
        image: file that it is to be made of; empty for a folder.
    """
    text = Tree(place.staged(whole.staged)[0]).read(_FILE) if os.path.isdir(place.staged(whole.staged)[0]) else ""
    was = files.parsed(text.encode(errors="surrogateescape")) if text else dict(wanted)
    other = [key for key in wanted if was.get(key) != wanted[key]]
    if image and whole.sha256 and not other and digest_of(image) != whole.sha256:
        other = ["the image's checksum"]
        was, wanted = {other[0]: whole.sha256}, {other[0]: "another one"}
    if other:
        then = "; ".join(f"{key}: expected {was.get(key) or 'none'}, found {wanted[key] or 'none'}" for key in other)
        raise RpinfsError(
            f"{place.name}: an interrupted attempt has made it whole, of something else: {then}",
            f"run it again as then; or, to make it anew: {files.move_away(records.path_of(place.roots, place.name))}",
        )
