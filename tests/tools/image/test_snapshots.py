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
    of, uuid = "docker.img.snapshot-20250101T000000Z", "11111111-2222-3333-4444-555555555555"
    what = {"version": 2, "of": of, "kept": kept.name, "replaced": inode, "restored": 1, "uuid": uuid}
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
