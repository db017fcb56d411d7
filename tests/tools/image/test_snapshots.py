"""The snapshots of real images: their names, their list, and deleting one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path

import pytest

from rpinfs.image import publish, snapshots, taking
from rpinfs.image.check import check
from rpinfs.image.errors import ImageError
from rpinfs.image.probe import probe, verify
from rpinfs.lease import lease
from rpinfs.lease.lease import LeaseError
from tests.tools.conftest import command
from tests.tools.image.pi import OTHER, OWNER, Pi

pytestmark = pytest.mark.root

UUID = "11111111-2222-3333-4444-555555555555"


def test_names(pi: Pi) -> None:
    """The time is the server's; what is there already is never replaced; other names mean nothing."""
    first = pi.take()
    taken = snapshots.snapshots(str(pi.path)).snapshots[0]
    assert taken.when.endswith("UTC")
    assert abs(taken.time - first.stat().st_mtime) < 600
    new = publish.Temporary(str(pi.share / "copy"), -1)
    Path(new.path).write_text("copy")
    second = Path(taking._name(new, str(pi.path), taken.time))
    assert second != first
    assert snapshots.time_of(str(second)) == taken.time + 1
    Path(new.path).unlink()
    for name in ("snapshot-20260101", "snapshot-20260101T000000Zx", "snapshot-20269901T000000Z", "snapshot-"):
        (pi.share / f"docker.img.{name}").write_text("not one")
    (pi.share / "docker.img.snapshot-20260101T000000Z").touch()
    assert pi.snapshots() == [first, second]


def test_a_snapshot_of_1970(pi: Pi) -> None:
    """A NAS without a clock."""
    taken = pi.take().rename(pi.share / "docker.img.snapshot-19700101T000000Z")
    assert pi.snapshots() == [taken]


def test_a_snapshot_is_no_image(pi: Pi) -> None:
    taken = pi.take()
    for use in (check, lambda path: verify(probe(path))):
        with pytest.raises(ImageError, match="expected an image, found a snapshot"):
            use(str(taken))


def test_deleted_while_docker_runs(pi: Pi) -> None:
    first, second = pi.take(), pi.take()
    with pi.mounted():
        snapshots.delete(pi.image, OWNER, first.name)
    assert pi.snapshots() == [second]
    snapshots.delete(pi.image, OWNER, second.name[-16:])
    assert (pi.snapshots(), pi.strays()) == ([], set())


def test_what_is_not_deleted(pi: Pi) -> None:
    """What is no snapshot of this image; one that is in use; one of another Pi's image."""
    taken = pi.take()
    other = pi.share / "other.img.snapshot-20260101T000000Z"
    other.write_bytes(b"other")
    for which in (pi.path.name, str(pi.path), other.name, "", ".", "yesterday", f".{pi.path.name}.rpinfs-owner"):
        with pytest.raises(ImageError, match="no snapshot "):
            snapshots.delete(pi.image, OWNER, which)
    device = command("losetup", "--show", "--read-only", "-f", taken).strip()
    try:
        with pytest.raises(ImageError, match=f"is in use: attached to {device}"):
            snapshots.delete(pi.image, OWNER, taken.name)
    finally:
        command("losetup", "-d", device)
    with taken.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ImageError, match="is in use: somebody has locked it"):
            snapshots.delete(pi.image, OWNER, taken.name)
    with pytest.raises(LeaseError, match="belongs to pi1"):
        snapshots.delete(pi.image, OTHER, taken.name)
    with contextlib.closing(lease.acquire(str(pi.path), OWNER)), pytest.raises(LeaseError, match="in use by this Pi"):
        snapshots.delete(pi.image, OWNER, taken.name)
    assert pi.snapshots() == [taken]
    assert other.read_bytes() == b"other"


def test_what_an_interrupted_restore_calls_a_snapshot(pi: Pi) -> None:
    """The only name of the image: it gets its own again, and is not deleted."""
    kept = pi.share / "docker.img.snapshot-20260101T000000Z"
    record = pi.share / ".docker.img.rpinfs-replaced"
    inode = pi.path.stat().st_ino
    of = "docker.img.snapshot-20250101T000000Z"
    what = {"version": 2, "of": of, "kept": kept.name, "replaced": inode, "restored": 1, "uuid": UUID}
    record.write_text(json.dumps(what))
    pi.path.rename(kept)
    with pytest.raises(ImageError, match="no snapshot "):
        snapshots.delete(pi.image, OWNER, kept.name)
    assert (pi.path.stat().st_ino, pi.strays()) == (inode, set())
    # By two names: neither is listed as a snapshot, nor deleted as one.
    os.link(pi.path, kept)
    with pytest.raises(ImageError, match="found another name of the image itself"):
        snapshots.delete(pi.image, OWNER, kept.name)
    assert pi.path.stat().st_nlink == 2


def test_clearing_up(pi: Pi) -> None:
    """What interrupted attempts have left goes; nothing else does, whatever its name or its place in the folder."""
    taken = pi.take()
    gone, odd = ("docker.img.snapshot-20260101T000000Z", "docker.img.snapshot-20260102T000000Z")
    claimed, folder = "docker.img.snapshot-20260103T000000Z", "docker.img.snapshot-20260104T000000Z"
    data = json.dumps({"version": 2, "of": gone, "kept": taken.name, "replaced": 1, "restored": 2, "uuid": UUID})
    ours = [f".{name}.rpinfs-replaced" for name in (gone, claimed)]
    for name in (*ours, f".{taken.name}.rpinfs-replaced"):
        (pi.share / name).write_text(data)
    left = [".docker.img.rpinfs-new-0123456789abcdef", ".docker.img.rpinfs-replaced-new-0123456789abcdef"]
    for name in (*left, claimed):
        (pi.share / name).touch()
    # Of other images, of nobody, and no record at all.
    others = [f"{kind}{number}.img.snapshot-20260101T000000Z" for kind in ("a", "z") for number in range(8)]
    for name in (*others, f".{odd}.rpinfs-replaced"):
        (pi.share / name).touch()
    (pi.share / folder).mkdir()
    before = set(os.listdir(pi.share))
    snapshots.clear_up(str(pi.path), lambda _: None)
    assert before - set(os.listdir(pi.share)) == {f".{gone}.rpinfs-replaced", *left, claimed}
    # The name was claimed, so its record was not astray a moment ago.
    snapshots.clear_up(str(pi.path), lambda _: None)
    assert before - set(os.listdir(pi.share)) == {*ours, *left, claimed}


def test_what_a_listing_says(pi: Pi) -> None:
    """Of each snapshot all that is known, the oldest first; of what is none, why."""
    taken = pi.take()
    first = pi.share / "docker.img.snapshot-20200101T000001Z"
    first.write_bytes(os.urandom(3 * 4096))
    command("truncate", "--size", "1M", first)
    of_old = pi.share / "docker.img.replaced"
    of_old.write_bytes(b"x")
    os.utime(of_old, (5, 7))
    data = {"version": 2, "of": taken.name, "kept": first.name, "replaced": 1, "restored": 2, "uuid": UUID}
    (pi.share / f".{first.name}.rpinfs-replaced").write_text(json.dumps(data))
    names = {"link": "01", "second": "02", "third": "03", "folder": "04"}
    odd = {key: pi.share / f"docker.img.snapshot-202001{day}T000000Z" for key, day in names.items()}
    odd["link"].symlink_to(taken)
    odd["second"].hardlink_to(pi.path)
    (pi.share / "other").write_text("other")
    odd["third"].hardlink_to(pi.share / "other")
    odd["folder"].mkdir()
    listing = snapshots.snapshots(str(pi.path))
    assert [Path(one.path) for one in listing.snapshots] == [of_old, first, taken]
    said = listing.snapshots[1]
    assert (said.time, said.size, said.allocated) == (1577836801, 1 << 20, first.stat().st_blocks * 512)
    assert (said.name, said.when) == (first.name, "2020-01-01 00:00:01 UTC")
    assert [one.time for one in listing.snapshots[:1]] == [7]
    origins = ["replaced by a restore of an earlier version of rpinfs", f"replaced by restore of {taken.name}", ""]
    assert [one.origin for one in listing.snapshots] == origins
    found = {key: listing.odd[str(path)].partition("found ")[2] for key, path in odd.items()}
    assert found == {
        "link": f"a symbolic link to {taken}; it is left alone",
        "second": "another name of the image itself; it is left alone",
        "third": "a file that has 2 names (hard links); it is left alone",
        "folder": "a directory; it is left alone",
    }


def test_without_an_image(pi: Pi) -> None:
    """Its snapshots are listed all the same."""
    taken = pi.take()
    pi.path.unlink()
    assert pi.snapshots() == [taken]


def test_a_free_name(pi: Pi) -> None:
    """Not one beside which there is a record, nor one that a dangling link has."""
    mark = f"{pi.path}.snapshot-19700101T00000"
    Path(f"{mark}0Z").touch()
    Path(f"{mark}1Z").symlink_to("nowhere")
    (pi.share / ".docker.img.snapshot-19700101T000002Z.rpinfs-replaced").touch()
    assert snapshots.free_path(str(pi.path), 0) == f"{mark}3Z"


def test_a_snapshot_that_changes_while_it_is_deleted(pi: Pi) -> None:
    """Another file has its name by now, or it has a second one: neither is deleted."""
    taken = pi.take()
    (pi.share / "second").hardlink_to(taken)
    with pytest.raises(ImageError, match="has changed meanwhile"):
        snapshots._unlink(str(taken))
    assert taken.exists()
    (pi.share / "second").unlink()
    snapshots._unlink(str(taken))
    assert not taken.exists()


def test_a_record_goes_with_its_snapshot(pi: Pi) -> None:
    taken = pi.take()
    record = pi.share / f".{taken.name}.rpinfs-replaced"
    data = {"version": 2, "of": taken.name, "kept": taken.name, "replaced": 1, "restored": 2, "uuid": UUID}
    record.write_text(json.dumps(data))
    snapshots.delete(pi.image, OWNER, taken.name)
    assert not record.exists()
