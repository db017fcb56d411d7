"""Times in the names of snapshots, and which one a person means."""

from __future__ import annotations

import re

import pytest

from rpinfs.boot.config import Image
from rpinfs.image.errors import ImageError
from rpinfs.image.restoring import Look, decide
from rpinfs.image.snapshots import Listing, Snapshot, find, time_of

PATH = "/nfs/docker/docker.img"
FIRST, SECOND = (f"{PATH}.snapshot-202611{day}T201500Z" for day in (22, 23))
ODD = f"{PATH}.snapshot-20261124T201500Z"
ODD_SENTENCE = f"{ODD}: expected a snapshot, found a FIFO; it is left alone"
IMAGE = Image(
    name="docker", file="docker.img", path=PATH, size=1 << 30, size_is_set=False, filesystem="ext4",
    filesystem_is_set=False, where="/var/lib/docker", options=[], bind=[], before=["docker.service"],
    direct_io=True, fence="lease",
)  # fmt: skip
LISTING = Listing(
    [Snapshot(path, time_of(path) or 0, 1 << 30, 1 << 20) for path in (FIRST, SECOND)]
    + [Snapshot(f"{PATH}.replaced", 1_700_000_000, 1 << 30, 1 << 20)],
    {ODD: ODD_SENTENCE},
)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("docker.img.snapshot-19700101T000000Z", 0),
        ("docker.img.snapshot-20261122T201500Z", 1795378500),
        ("a.snapshot-b.snapshot-20261122T201500Z", 1795378500),
        ("docker.img.snapshot-20269922T201500Z", None),
        ("docker.img.snapshot-20260230T201500Z", None),
        ("docker.img.snapshot-20261122T201500", None),
        ("docker.img.snapshot-20261122T201500Zx", None),
        ("docker.img.snapshot-2026112 T201500Z", None),
        ("docker.img.snapshot-\u0662\u0660261122T201500Z", None),
        ("docker.img", None),
        ("docker.img.replaced", None),
    ],
)
def test_the_time_in_a_name(name: str, seconds: int | None) -> None:
    assert time_of(name) == time_of(f"/nfs/docker/{name}") == seconds


@pytest.mark.parametrize(
    ("which", "path"),
    [
        (FIRST, FIRST),
        ("docker.img.snapshot-20261122T201500Z", FIRST),
        ("20261122T201500Z", FIRST),
        ("20261123T201500Z", SECOND),
        ("docker.img.replaced", f"{PATH}.replaced"),
    ],
)
def test_which_snapshot(which: str, path: str) -> None:
    assert find(IMAGE, which, LISTING).path == path
    for present in (True, False):
        assert decide(IMAGE, which, Look(present=present, listing=LISTING)).path == path


REFUSED = {
    "none of this name": ("yesterday", Look(listing=LISTING), f"{PATH}: no snapshot yesterday; there are: docker.img."),
    "no word": ("", Look(listing=LISTING), f"{PATH}: no snapshot ; there are: docker.img."),
    "the image": (PATH, Look(listing=LISTING), f"{PATH}: no snapshot {PATH}; there are: docker.img."),
    "part of a time": ("20261122", Look(listing=LISTING), f"{PATH}: no snapshot 20261122; there are: "),
    "none at all": ("yesterday", Look(), f"{PATH}: no snapshot yesterday; there are: none"),
    "an odd one": ("20261124T201500Z", Look(listing=LISTING), ODD_SENTENCE),
    "an odd one, in full": (ODD, Look(listing=LISTING), ODD_SENTENCE),
    "something odd in the image's place": (
        FIRST,
        Look(in_its_place="a directory", listing=LISTING),
        f"{PATH}: expected an image or nothing, found a directory; it is left alone",
    ),
}


@pytest.mark.parametrize(("which", "look", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_restored(which: str, look: Look, message: str) -> None:
    with pytest.raises(ImageError, match=f"^{re.escape(message)}") as refusal:
        decide(IMAGE, which, look)
    assert refusal.value.remedy
