"""Restoring images from snapshots: what was replaced is kept, whatever goes wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.errors import RpinfsError
from rpinfs.image import copying, names, prepare, replacing, snapshots
from rpinfs.image.errors import ImageError
from rpinfs.image.probe import probe
from rpinfs.image.restoring import restore
from rpinfs.lease.lease import LeaseError
from rpinfs.system.files import OddFileError
from rpinfs.system.run import silent
from tests.support import Tell
from tests.tools.conftest import Ended, Traced, command, unmount, until
from tests.tools.crash import Kills, fail_at, kill_at, some
from tests.tools.image.files import fingerprint
from tests.tools.image.pi import OTHER, OWNER, Pi, assert_said, assert_whole, label

pytestmark = pytest.mark.root


# --- Restoring ---------------------------------------------------------------------------------------------


def kept_by(pi: Pi, *others: Path) -> Path:
    """The one snapshot that a restore has made."""
    (kept,) = set(pi.snapshots()) - set(others)
    return kept


@pytest.mark.parametrize("whole_name", [True, False])
def test_restore(changed: tuple[Pi, Path], whole_name: bool) -> None:
    pi, taken = changed
    before, owner = taken.read_bytes(), pi.path.stat().st_ino
    pi.path.chmod(0o640)
    restored = restore(pi.image, OWNER, taken.name if whole_name else taken.name[-16:])
    kept = kept_by(pi, taken)
    assert (restored.snapshot.name, restored.kept) == (taken.name, str(kept))
    assert (label(pi.path), label(kept), kept.stat().st_ino) == ("then", "now", owner)
    assert pi.path.stat().st_mode & 0o777 == 0o640
    assert taken.read_bytes() == before
    assert_whole(pi.path)
    assert pi.strays() == set()


def test_what_was_replaced_is_a_snapshot_that_stays(changed: tuple[Pi, Path]) -> None:
    """Until a person deletes it: neither a mount, writable or not, nor an agent, a snapshot or a restore does."""
    pi, taken = changed
    restore(pi.image, OWNER, taken.name)
    kept = kept_by(pi, taken)
    (said,) = [one for one in snapshots.snapshots(str(pi.path)).snapshots if one.path == str(kept)]
    assert said.origin == f"replaced by restore of {taken.name}"
    assert abs(said.time - kept.stat().st_ctime) < 600
    for options in ("ro", "rw"):
        command("mount", "-o", f"loop,{options}", pi.path, pi.where)
        unmount(pi.where)
    prepare.prepare(pi.image, OWNER, silent).close()
    pi.take()
    # And it is as good as any other.
    restore(pi.image, OWNER, kept.name)
    assert (label(pi.path), label(kept)) == ("now", "now")
    assert len(pi.snapshots()) == 4
    snapshots.delete(pi.image, OWNER, kept.name)
    assert kept not in pi.snapshots()
    assert len(pi.snapshots()) == 3
    assert pi.strays() == set()


def test_everything_is_synced_before_it_has_a_name(changed: tuple[Pi, Path], names_given: list[str]) -> None:
    """What a power cut may lose has no name yet; and no step is taken before the last one lasts."""
    pi, taken = changed
    restore(pi.image, OWNER, taken.name)
    image, record, kept = pi.path.name, f".{pi.path.name}.rpinfs-replaced", kept_by(pi, taken).name
    copied, recorded = names_given.index("sync new copy"), names_given.index("sync new record")
    assert names_given[copied : copied + 2] == ["sync new copy", "sync new copy"]
    steps = [
        *("sync new record", f"rename new record -> {record}", "sync folder"),
        *(f"link {image} -> {kept}", "sync folder"),
        *(f"rename new copy -> {image}", "sync folder"),
        *(f"rename {record} -> .{kept}.rpinfs-replaced", "sync folder"),
    ]
    assert names_given[recorded : recorded + len(steps)] == steps


def test_restore_is_refused(changed: tuple[Pi, Path]) -> None:
    pi, taken = changed
    with pi.mounted(), pytest.raises(ImageError, match="is in use: attached to /dev/loop") as refusal:
        restore(pi.image, OWNER, taken.name)
    assert refusal.value.remedy is not None
    assert refusal.value.remedy.startswith("systemctl stop docker.socket docker.service ")
    # The name of the unit has backslashes, which a shell would take off.
    assert refusal.value.remedy.endswith(".mount' rpinfs-agent.service")
    with pytest.raises(ImageError, match=f"no snapshot yesterday; there are: {taken.name}"):
        restore(pi.image, OWNER, "yesterday")
    with pytest.raises(LeaseError, match="belongs to pi1"):
        restore(pi.image, OTHER, taken.name)
    assert label(pi.path) == "now"
    assert pi.strays() == set()


def test_an_image_that_is_attached_meanwhile(changed: tuple[Pi, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last look before the name changes: by somebody who asks for no lock."""
    pi, taken = changed
    real, devices = copying.copy, []

    def copy(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        devices.append(command("losetup", "--show", "-f", pi.path).strip())

    monkeypatch.setattr(copying, "copy", copy)
    try:
        with pytest.raises(ImageError, match="is in use: attached to /dev/loop"):
            restore(pi.image, OWNER, taken.name)
    finally:
        for device in devices:
            command("losetup", "-d", device)
    assert (label(pi.path), pi.snapshots(), pi.strays()) == ("now", [taken], set())


def test_a_damaged_snapshot_is_not_restored(changed: tuple[Pi, Path]) -> None:
    pi, taken = changed
    with taken.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(os.urandom(20 * 4096))
    before = taken.read_bytes()
    with pytest.raises(ImageError, match="cannot be restored"):
        restore(pi.image, OWNER, taken.name)
    assert (label(pi.path), pi.strays(), taken.read_bytes()) == ("now", set(), before)


def test_what_the_first_version_has_left(changed: tuple[Pi, Path]) -> None:
    """It is listed, and never removed; its record is read, wherever that restore stopped."""
    pi, taken = changed
    replaced, record = pi.share / "docker.img.replaced", Path(names.record_of(str(pi.path)))
    os.link(pi.path, replaced)
    record.write_text(json.dumps({"inode": pi.path.stat().st_ino}))
    assert replacing.settle(str(pi.path)) == []
    assert (replaced.exists(), record.exists(), label(pi.path)) == (False, False, "now")

    pi.path.rename(replaced)
    record.write_text(json.dumps({"inode": replaced.stat().st_ino}))
    assert replacing.settle(str(pi.path)) == [
        f"{pi.path}: a restore was interrupted; the image has its name again",
    ]
    assert (replaced.exists(), record.exists(), label(pi.path)) == (False, False, "now")

    pi.path.rename(replaced)
    shutil.copy(taken, pi.path)
    record.write_text(json.dumps({"inode": replaced.stat().st_ino}))
    for _ in range(2):
        restore(pi.image, OWNER, taken.name)
        listed = {one.name: one.origin for one in snapshots.snapshots(str(pi.path)).snapshots}
        assert listed[replaced.name] == "replaced by a restore of an earlier version of rpinfs"
        assert label(replaced) == "now"
    assert not record.exists()
    restore(pi.image, OWNER, replaced.name)
    assert label(pi.path) == "now"
    snapshots.delete(pi.image, OWNER, replaced.name)
    assert not replaced.exists()


def test_an_image_that_is_gone_is_restored(changed: tuple[Pi, Path]) -> None:
    pi, taken = changed
    pi.path.unlink()
    assert restore(pi.image, OWNER, taken.name).kept == ""
    assert (label(pi.path), pi.snapshots(), pi.strays()) == ("then", [taken], set())


# --- Files of others under our names -----------------------------------------------------------------------


def link_to(victim: Path, path: Path) -> None:
    path.symlink_to(victim)


def second_name_of(victim: Path, path: Path) -> None:
    path.hardlink_to(victim)


def pipe(_: Path, path: Path) -> None:
    os.mkfifo(path)


def folder(_: Path, path: Path) -> None:
    path.mkdir()


def too_long(_: Path, path: Path) -> None:
    path.write_bytes(b"[" * (1 << 20))


def nested(_: Path, path: Path) -> None:
    path.write_bytes(b"[" * 4096)


def names_of_others(_: Path, path: Path) -> None:
    path.write_text(json.dumps({"version": 2, "of": "", "kept": "../victim", "replaced": 1, "restored": 2, "uuid": ""}))


ODD = pytest.mark.parametrize("put", [link_to, second_name_of, pipe, folder, too_long, nested, names_of_others])


@ODD
@pytest.mark.parametrize("missing", [False, True], ids=["image", "no image"])
def test_an_odd_restore_record(changed: tuple[Pi, Path], put: Callable[[Path, Path], None], missing: bool) -> None:
    """The first version wrote its record through a hard link: an image was 12 bytes long then."""
    pi, taken = changed
    victim, record = pi.share / "victim", Path(names.record_of(str(pi.path)))
    shutil.copy(pi.path, victim)
    if missing:
        pi.path.unlink()
    put(victim, record)
    before = fingerprint(victim), fingerprint(record)
    for use in (
        lambda: restore(pi.image, OWNER, taken.name),
        pi.take,
        lambda: snapshots.delete(pi.image, OWNER, taken.name),
        lambda: prepare.prepare(pi.image, OWNER, silent),
    ):
        with pytest.raises(OddFileError, match=f"{record}: expected .*, found ") as refusal:
            use()
        assert (fingerprint(victim), fingerprint(record)) == before
    assert pi.path.exists() != missing
    assert taken.exists()
    # The remedy works as it stands, and loses nothing.
    remedy = str(refusal.value.remedy)
    subprocess.run(["sh", "-c", remedy.rpartition(": ")[2]], check=True)
    assert not os.path.lexists(record)
    restore(pi.image, OWNER, taken.name)
    assert (label(pi.path), fingerprint(victim)[1][5]) == ("then", before[0][1][5])  # type: ignore[index]


@ODD
def test_an_odd_record_beside_a_snapshot(changed: tuple[Pi, Path], put: Callable[[Path, Path], None]) -> None:
    """It is told of; the snapshot is one all the same."""
    pi, taken = changed
    victim, record = pi.share / "victim", Path(names.record_of(str(taken)))
    shutil.copy(pi.path, victim)
    put(victim, record)
    before = fingerprint(victim), fingerprint(record)
    listing = snapshots.snapshots(str(pi.path))
    assert [one.path for one in listing.snapshots] == [str(taken)]
    assert list(listing.odd) == [str(record)]
    assert ": expected " in listing.odd[str(record)]
    restore(pi.image, OWNER, taken.name)
    snapshots.delete(pi.image, OWNER, taken.name)
    pi.take()
    assert (fingerprint(victim), fingerprint(record)) == before


@pytest.mark.parametrize("put", [link_to, second_name_of, pipe, folder])
def test_an_odd_snapshot(changed: tuple[Pi, Path], put: Callable[[Path, Path], None]) -> None:
    pi, taken = changed
    victim, odd = pi.share / "victim", pi.share / f"{pi.path.name}.snapshot-20260101T000000Z"
    shutil.copy(pi.path, victim)
    put(victim, odd)
    before = fingerprint(victim), fingerprint(odd)
    listing = snapshots.snapshots(str(pi.path))
    assert [one.path for one in listing.snapshots] == [str(taken)]
    assert list(listing.odd) == [str(odd)]
    for use in (restore, snapshots.delete):
        with pytest.raises(ImageError, match=f"{odd}: expected a snapshot, found ") as refusal:
            use(pi.image, OWNER, odd.name)
        subprocess.run(["sh", "-c", str(refusal.value.remedy)], check=True, capture_output=True)
    pi.take()
    assert (fingerprint(victim), fingerprint(odd)) == before


def test_what_is_not_an_image_in_its_place(changed: tuple[Pi, Path]) -> None:
    pi, taken = changed
    victim = pi.path.rename(pi.share / "victim")
    for put in (link_to, folder):
        put(victim, pi.path)
        before = fingerprint(victim)
        with pytest.raises(ImageError, match="expected an image or nothing, found ") as refusal:
            restore(pi.image, OWNER, taken.name)
        assert fingerprint(victim) == before
        subprocess.run(["sh", "-c", str(refusal.value.remedy)], check=True)
        assert not os.path.lexists(pi.path)
        os.rename(f"{pi.path}.odd", pi.share / put.__name__)


# --- Killed at every call, and every call failing ----------------------------------------------------------


def assert_restore_completes(pi: Pi, taken: Path, point: str) -> None:
    """Whatever is left: the old image or the restored one; the other is not lost, and then all is well."""
    replacing.settle(str(pi.path))
    assert pi.path.exists(), point
    assert label(pi.path) in ("now", "then"), point
    if label(pi.path) == "now":
        assert pi.snapshots() == [taken], point
        restore(pi.image, OWNER, taken.name)
    assert label(pi.path) == "then", point
    kept = kept_by(pi, taken)
    assert label(kept) == "now", point
    assert snapshots.snapshots(str(pi.path)).snapshots[-1].origin == f"replaced by restore of {taken.name}", point
    snapshots.clear_up(str(pi.path), silent)
    assert pi.strays() == set(), point
    assert_whole(pi.path)
    assert_whole(kept)
    assert_whole(taken)
    snapshots.delete(pi.image, OWNER, kept.name)
    assert pi.strays() == set(), point


LINKS = pytest.mark.parametrize("links", ["", "os.link = no_links; "], ids=["links", "no links"])


def attempt(pi: Pi, taken: Path, links: str = "") -> tuple[str, list[Path]]:
    code, paths = pi.attempt(f"{links}restoring.restore(image, owner, {taken.name!r})")
    return code, [*paths, taken]


@pytest.mark.crash
@LINKS
def test_restore_killed_at_every_call(changed: tuple[Pi, Path], traced: Traced, tell: Tell, links: str) -> None:
    pi, taken = changed
    code, paths = attempt(pi, taken, links)
    ended, found = rehearsed(pi, traced, code, paths)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ("rename:when=4" if links else "rename:when=3") in found
    # The last steps are what matters most.
    kills = Kills()
    for point in some(found, 7, last=30):
        command("e2label", pi.path, "now")
        kills.count(traced(code, paths, inject=kill_at(point)).returncode, point)
        assert_restore_completes(pi, taken, point)
    tell(f"restore: {kills.of(len(found))}")


@pytest.mark.crash
@LINKS
def test_restore_with_every_call_failing(changed: tuple[Pi, Path], traced: Traced, tell: Tell, links: str) -> None:
    pi, taken = changed
    code, paths = attempt(pi, taken, links)
    found = fail_at(rehearsed(pi, traced, code, paths)[1])
    tried = some(found, 7, last=30)
    for failure in tried:
        command("e2label", pi.path, "now")
        ended = traced(code, paths, inject=failure)
        assert_said(ended, pi, failure)
        assert pi.path.exists(), failure
        if label(pi.path) == "now":
            leftovers = [name for name in pi.strays() if ".rpinfs-new-" not in name]
            assert leftovers == [] or failure.startswith(("unlink", "rename", "newfstatat")), failure
        assert_restore_completes(pi, taken, failure)
    tell(f"restore: failed at {len(tried)} of {len(found)} calls")


@pytest.mark.crash
def test_restore_and_its_children_killed(changed: tuple[Pi, Path], traced: Traced, tell: Tell) -> None:
    """The programs that look at the image are killed as well, each at its own call of that number."""
    pi, taken = changed
    code, paths = attempt(pi, taken)
    found = rehearsed(pi, traced, code, paths, children=True)[1]
    tried = some(found, 21)
    for point in tried:
        command("e2label", pi.path, "now")
        ended = traced(code, paths, inject=kill_at(point), children=True)
        assert ended.returncode in (-9, 3), point
        assert_restore_completes(pi, taken, point)
    tell(f"restore: killed with its children at {len(tried)} of {len(found)} calls")


@pytest.mark.crash
@LINKS
def test_settling_killed_at_every_call(changed: tuple[Pi, Path], traced: Traced, tell: Tell, links: str) -> None:
    """A power cut in the boot after a power cut."""
    pi, taken = changed
    interrupt, paths = attempt(pi, taken, links)
    settle, _ = pi.attempt("replacing.settle(image.path)")
    renames = [f"rename:when={number}" for number in range(1, 5 if links else 4)]
    kills = Kills()
    for rename in renames:
        for point in points_of_settling(pi, traced, (interrupt, settle), paths, rename):
            command("e2label", pi.path, "now")
            assert traced(interrupt, paths, inject=kill_at(rename)).returncode == -9, rename
            kills.count(traced(settle, paths, inject=kill_at(point)).returncode, f"{rename}, {point}")
            assert_restore_completes(pi, taken, f"{rename}, {point}")
    tell(f"settling a restore: {kills.of(kills.tried)} after {len(renames)} interruptions")


@pytest.mark.parametrize("links", ["", "os.link = no_links; "], ids=["links", "no links"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_the_memory_of_images_knows_either(changed: tuple[Pi, Path], traced: Traced, links: str, number: int) -> None:
    """The next boot takes what has the name, wherever the power went, also where that is another file system."""
    pi, taken = changed
    command("tune2fs", "-U", "random", pi.path)
    was = probe(str(pi.path)).uuid
    prepare.prepare(pi.image, OWNER, silent).close()
    code, paths = attempt(pi, taken, links)
    inject = kill_at(f"rename:when={number}") if number else None
    traced(code, paths, inject=inject)
    with contextlib.closing(prepare.prepare(pi.image, OWNER, silent)) as prepared:
        assert prepared.uuid in (was, probe(str(taken)).uuid)
        assert number or prepared.uuid != was
    until(lambda: not storage.loops_on(str(pi.path)))
    # And nothing else.
    shutil.copy(taken, pi.path)
    command("tune2fs", "-U", "random", pi.path)
    with pytest.raises(RpinfsError, match="verified"):
        prepare.prepare(pi.image, OWNER, silent)


def points_of_settling(pi: Pi, traced: Traced, codes: tuple[str, str], paths: list[Path], rename: str) -> list[str]:
    interrupt, settle = codes
    command("e2label", pi.path, "now")
    assert traced(interrupt, paths, inject=kill_at(rename)).returncode == -9
    found = traced(settle, paths).points
    (taken,) = (path for path in paths if ".snapshot-" in path.name and not path.name.startswith("."))
    assert_restore_completes(pi, taken, rename)
    return some(found, 2)


def rehearsed(
    pi: Pi, traced: Traced, code: str, paths: list[Path], *, children: bool = False
) -> tuple[Ended, list[str]]:
    """A restore in which nothing goes wrong, and its points. The first one writes down more: what is verified."""
    for _ in range(2):
        ended = traced(code, paths, children=children)
        snapshots.delete(pi.image, OWNER, kept_by(pi, paths[-1]).name)
    return ended, ended.points
