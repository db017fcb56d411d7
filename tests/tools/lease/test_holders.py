"""Who has which image on a share, and what each says: by real locks and records, and by what hostile ones look like."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.lease import holders as module
from rpinfs.lease import lease, owner, report
from rpinfs.lease.holders import Holder, TooManyError, holders
from rpinfs.lease.lease import Owner
from rpinfs.lease.lock import NOTHING, Lease
from rpinfs.netboot.add.boards import all_boards
from rpinfs.system import files
from tests.tools.conftest import ROOT, command

OWNER = Owner("10000000aaaaaaaa", "pi1", "m" * 32, "boot-1")
SAID = report.Report(OWNER.serial, "0.1.0", "Raspberry Pi 4", "ok", "docker: mounted", 10 << 30, 5 << 30)


def holding(image: Path, data: bytes = NOTHING, who: Owner = OWNER) -> Lease:
    held = lease.acquire(str(image), who)
    lease.still_ours(str(image), who, held, record=data)
    return held


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


def one(share: Path) -> Holder:
    (found,) = holders(str(share))
    return found


def test_a_holder_is_known_with_what_it_says_and_when(share: Path) -> None:
    holding(share / "docker.img", report.record_of(SAID)).close()
    os.utime(lease.path_of(str(share / "docker.img")), (0, 1.5e9))
    assert one(share) == Holder(str(share / "docker.img"), OWNER, SAID)
    found = one(share).owner
    assert found and found.seen == 1.5e9


def test_a_holder_of_the_first_version_says_nothing_and_reads_ours(share: Path) -> None:
    image = share / "docker.img"
    held = holding(image, report.record_of(SAID))
    # What the first version writes, and what it reads.
    os.pwrite(held.fd, b"\n", 0)
    os.fsync(held.fd)
    held.close()
    assert one(share).report is None and one(share).owner == OWNER
    holding(image, report.record_of(SAID)).close()
    assert lease.owner_of(str(image)) == OWNER
    assert os.stat(lease.path_of(str(image))).st_size == report.SIZE <= 65536


def test_who_takes_a_lease_says_nothing_of_the_last_boot(share: Path) -> None:
    image = share / "docker.img"
    holding(image, report.record_of(SAID)).close()
    lease.acquire(str(image), replace(OWNER, boot_id="boot-2")).close()
    assert one(share).report is None


def test_what_another_board_has_written_there_is_not_the_owners(share: Path) -> None:
    """An owner that was cut off and adopted writes on, in the end."""
    holding(share / "docker.img", report.record_of(replace(SAID, serial="2"))).close()
    assert one(share) == Holder(str(share / "docker.img"), OWNER, None)


@pytest.mark.root
def test_an_agent_that_was_started_anew_writes_through_the_pin(share: Path) -> None:
    image = share / "docker.img"
    first = holding(image)
    first.keep()
    assert first.pin
    first.leave()
    second = lease.acquire(str(image), OWNER)
    try:
        lease.still_ours(str(image), OWNER, second, record=report.record_of(SAID))
        assert one(share).report == SAID
    finally:
        second.close()


def odd(lock: Path, share: Path) -> dict[str, str]:
    """What may have the name of the lock, each with what is said of it."""
    other = share / "secret"
    other.write_text('{"secret": "of another"}')
    return {
        f"ln -s {other} {lock}": "expected a file of rpinfs, found a symbolic link",
        f"ln {other} {lock}": "expected a file of rpinfs, found a file that has 2 names (hard links)",
        f"mkfifo {lock}": "expected a file of rpinfs, found a pipe",
        f"mkdir {lock}": "expected a file of rpinfs, found a folder",
        f"truncate -s 1G {lock}": "expected a file of rpinfs, found one of 1073741824 bytes",
        f"printf '{{\"a\":%s' $(printf '[%.0s' $(seq 4000)) >{lock}": "expected JSON, found something else",
        f"printf '{{}}' >{lock}": "expected version 1 of a report, found None",
    }


@pytest.mark.root
def test_whatever_has_the_name_of_the_lock_is_named_and_neither_waited_for_nor_followed(share: Path) -> None:
    image = share / "docker.img"
    holding(image).close()
    lock = Path(lease.path_of(str(image)))
    lock.unlink()
    for make, said in odd(lock, share).items():
        subprocess.run(["bash", "-c", make], check=True)
        found = one(share)
        assert found.owner == OWNER and found.report is None
        assert found.fault is not None and found.fault.message == f"{lock}: {said}"
        lock.rmdir() if lock.is_dir() else lock.unlink()
    assert one(share) == Holder(str(image), OWNER)


def test_a_record_that_cannot_be_read_keeps_nobody_from_the_rest(share: Path) -> None:
    for name in ("a", "b", "c"):
        holding(share / f"{name}.img", report.record_of(SAID)).close()
    record = Path(owner.record_of(str(share / "b.img")))
    record.write_text("[" * 4096)
    found = list(holders(str(share)))
    assert [(each.owner, each.report) for each in found] == [(OWNER, SAID), (None, None), (OWNER, SAID)]
    assert found[1].fault and "expected JSON" in found[1].fault.message
    record.write_text("")
    assert len(list(holders(str(share)))) == 2, "empty, it is nobody's"
    (board,) = [each for each in all_boards(str(share), str(share)) if each.name]
    assert board.images == [str(share / "a.img"), str(share / "c.img")]


@pytest.mark.parametrize("broken", ["record", "lock"])
def test_a_share_that_fails_for_one_file_keeps_nobody_from_the_rest(
    share: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    for name in ("a", "b", "c"):
        holding(share / f"{name}.img", report.record_of(SAID)).close()
    image = str(share / "b.img")
    path = owner.record_of(image) if broken == "record" else lease.path_of(image)
    open_on_share = files.open_on_share

    def fails(name: str, flags: int, mode: int = 0o600) -> int:
        if name == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return open_on_share(name, flags, mode)

    monkeypatch.setattr(files, "open_on_share", fails)
    first, found, last = holders(str(share))
    assert (first.report, last.report) == (SAID, SAID)
    assert (found.image, found.owner, found.report) == (image, OWNER if broken == "lock" else None, None)
    assert found.fault and found.fault.message == f"{image if broken == 'record' else path}: Input/output error"


def test_folders_below_are_looked_into_but_not_for_ever_and_no_snapshots_of_the_nas(share: Path) -> None:
    for folder in ("rack/1", "#snapshot/daily", "@eaDir", ".zfs/snapshot", "1/2/3/4"):
        (share / folder).mkdir(parents=True)
        holding(share / folder / "docker.img").close()
    (share / "loop").symlink_to(share)
    assert [Path(found.image).relative_to(share) for found in holders(str(share))] == [Path("rack/1/docker.img")]


@pytest.mark.parametrize("most", [1, 4, 5])
def test_so_many_levels_of_folders_are_looked_at(share: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(module, "MOST_LEVELS", most)
    (share / "2/3/4/5/6").mkdir(parents=True)
    folders = ["", "2", "2/3", "2/3/4", "2/3/4/5", "2/3/4/5/6"]
    for folder in folders:
        holding(share / folder / "docker.img").close()
    found = [Path(holder.image).parent for holder in holders(str(share))]
    assert found == [share / folder for folder in folders[:most]]


def test_of_too_many_names_only_so_many_are_looked_at(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holding(share / "docker.img").close()
    monkeypatch.setattr(module, "MOST_ENTRIES", 2)
    with pytest.raises(TooManyError, match="only 2 of its names"):
        list(holders(str(share)))
    assert "only 2 of its names" in all_boards(str(share), str(share))[0].faults[0]


def test_a_share_that_is_not_there_is_an_error(share: Path) -> None:
    with pytest.raises(OSError, match="nothing"):
        list(holders(str(share / "nothing")))


CALLS = """
import os, sys
from rpinfs.lease import lease, report
from rpinfs.lease.owner import Owner
owner = Owner("1")
held = lease.acquire(sys.argv[1], owner)
record = report.record_of(report.Report("1", "0", "", "ok", "well")) if sys.argv[2] else b"\\n"
lease.still_ours(sys.argv[1], owner, held, record=record)
for _ in range(5):
    os.write(2, b"renewing\\n")
    lease.still_ours(sys.argv[1], owner, held, record=record)
os.write(2, b"renewing\\n")
"""


def test_a_renewal_with_a_record_makes_the_same_calls_as_one_without(share: Path) -> None:
    """On NFS each of them is a request, or none; a page that is written whole is not read first."""

    def calls(said: str) -> list[list[str]]:
        trace = share.parent / f"trace{said}"
        command(
            "env", f"PYTHONPATH={ROOT}", "strace", "-e", "trace=%file,%desc", "-o", trace,
            sys.executable, "-c", CALLS, share / f"{said or 'plain'}.img", said,
        )  # fmt: skip
        rounds: list[list[str]] = [[]]
        for line in trace.read_text().splitlines():
            if '"renewing' in line:
                rounds.append([])
            else:
                rounds[-1].append(line.split("(")[0])
        return rounds[1:-1]

    plain, said = calls(""), calls("said")
    assert len(plain) == len(said) == 5
    assert plain == said
    assert plain[0].count("pwrite64") == plain[0].count("fsync") == 1, plain[0]


@pytest.mark.root
def test_where_there_is_no_room_for_the_record_the_lease_is_renewed_without(tmp_path: Path) -> None:
    """Blocks of 1 KiB: the lock has one of them, and a full share gives it no other."""
    disk, where = tmp_path / "disk", tmp_path / "where"
    where.mkdir()
    command("truncate", "--size=8M", str(disk))
    command("mkfs.ext4", "-q", "-b", "1024", "-m", "0", "-O", "^inline_data,^has_journal", str(disk))
    command("mount", "-o", "loop", str(disk), str(where))
    try:
        held = lease.acquire(str(where / "docker.img"), OWNER)
        os.utime(lease.path_of(str(where / "docker.img")), (0, 1))
        subprocess.run(["dd", "if=/dev/zero", f"of={where}/rest", "bs=1k", "status=none"], check=False)
        lease.still_ours(str(where / "docker.img"), OWNER, held, record=report.record_of(SAID))
        found = one(where)
        assert found.owner and found.owner.seen > 1e9 and found.report is None and found.fault is None
        (where / "rest").unlink()
        lease.still_ours(str(where / "docker.img"), OWNER, held, record=report.record_of(SAID))
        assert one(where).report == SAID
        held.close()
    finally:
        command("umount", str(where))
