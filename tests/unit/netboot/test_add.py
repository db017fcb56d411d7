"""What `netboot add` decides without touching anything: sizes, tables, records, seeds, orders, what a copy lost."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.netboot.add import record, survey, unpack, user
from rpinfs.netboot.add.order import Order, order
from rpinfs.netboot.add.partitions import parse_table
from rpinfs.netboot.add.unpack import zstd_size
from rpinfs.netboot.model import PlanError
from rpinfs.netboot.plan import parse
from rpinfs.system.run import CommandError

ENTRY = survey.Entry(
    mode=0o100644, owner=(0, 0), size=1 << 20, seconds=1000, holes=1 << 18, attributes=(("user.a", b"1"),)
)


@pytest.mark.parametrize(("copied", "lost"), [
    (ENTRY, []),
    (replace(ENTRY, seconds=1002), []),
    (replace(ENTRY, seconds=998), []),
    (replace(ENTRY, seconds=1003), ["times"]),
    (replace(ENTRY, seconds=997), ["times"]),
    (replace(ENTRY, holes=1 << 17), []),
    (replace(ENTRY, holes=(1 << 17) - 1), ["holes"]),
    (replace(ENTRY, attributes=()), ["extended attributes"]),
    (replace(ENTRY, attributes=(("user.a", b"2"),)), ["extended attributes"]),
    (replace(ENTRY, attributes=(*ENTRY.attributes, ("user.b", b"2"))), []),
])  # fmt: skip
def test_what_a_copy_has_lost(copied: survey.Entry, lost: list[str]) -> None:
    """A FAT file system counts in two seconds; a hole of some blocks is no loss, nor is what is there besides."""
    one, other = survey.Survey(entries={"f": ENTRY}), survey.Survey(entries={"f": copied})
    assert [said.partition(" of ")[0] for said in survey.lost(one, other, "here")] == lost


def test_small_holes_and_the_times_of_folders_are_not_missed() -> None:
    small, folder = replace(ENTRY, holes=64 << 10), replace(ENTRY, mode=0o040755)
    for entry, copied in ((small, replace(small, holes=0)), (folder, replace(folder, seconds=5000))):
        assert survey.lost(survey.Survey(entries={"f": entry}), survey.Survey(entries={"f": copied}), "here") == []


@pytest.mark.parametrize(("reason", "code", "stderr", "said"), [
    ("is not installed", None, "", "xz -dc: is not installed"),
    ("xz: (stdin): Unexpected end of input", 1, "", "/i: cannot be unpacked: Unexpected end of input"),
    ("exit status 1: (stdin): Unexpected end", 1, "", "/i: cannot be unpacked: Unexpected end"),
    ("exit status 1", 1, "", "/i: cannot be unpacked: exit status 1"),
    ("exit status 1: x", 1, "write: No space left on device", "/i: no space left in /w to unpack it"),
])  # fmt: skip
def test_an_image_that_cannot_be_unpacked(
    reason: str, code: int | None, stderr: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/w")
    error = CommandError(["xz", "-dc"], reason, returncode=code, stderr=stderr)
    assert unpack._broken("/i", error).message == said


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (f"28b52ffda400b8de01{'00' * 20}", 31373312),  # 4 bytes, single segment
        (f"28b52ffd845800b8de01{'00' * 20}", 31373312),  # 4 bytes behind a window descriptor
        (f"28b52ffd44580001{'00' * 20}", 512),  # 2 bytes: 256 more
        (f"28b52ffd0458{'00' * 20}", 0),  # it does not say
        ("28b52ffd", 0),
    ],
)  # fmt: skip
def test_the_size_in_a_zstd_frame(head: str, size: int) -> None:
    assert zstd_size(bytes.fromhex(head)) == size


@pytest.mark.parametrize(("attributes", "version", "said"), [
    ({"user.a": b"1"}, "4.2", []),
    ({"user.a": b"1"}, "4.1", ["extended attributes of 1 file (f) are not seen by a Pi over NFS 4.1"]),
    ({"trusted.a": b"1"}, "4.2", ["extended attributes of 1 file (f) are not seen by a Pi over NFS 4.2"]),
    ({"system.posix_acl_access": b"1"}, "3", []),
    ({"system.posix_acl_access": b"1", "system.posix_acl_default": b"1"}, "4.2",
     ["ACLs of 1 file (f) are not seen by a Pi over NFS 4.2"]),
    ({"security.capability": b"1", "user.a": b"1"}, "3",
     ["capabilities of 1 file (f) are not seen by a Pi over NFS 3",
      "extended attributes of 1 file (f) are not seen by a Pi over NFS 3"]),
    ({}, "3", []),
])  # fmt: skip
def test_what_a_pi_does_not_see(attributes: dict[str, bytes], version: str, said: list[str]) -> None:
    entry = replace(ENTRY, attributes=tuple(attributes.items()))
    assert survey.unseen(survey.Survey(entries={"f": entry}), version) == said


@pytest.mark.parametrize(("names", "said"), [
    (["a"], "1 file (a)"), (["a", "b"], "2 files (a, b)"), (["a", "b", "c"], "3 files (a, b, c)"),
    (["a", "b", "c", "d"], "4 files (a, b, c, ...)"),
])  # fmt: skip
def test_some_files_of_many(names: list[str], said: str) -> None:
    assert survey._some(names) == said


def test_a_table_with_large_sectors() -> None:
    table = {
        "label": "gpt",
        "sectorsize": 4096,
        "partitions": [{"node": "x1", "start": 256, "size": 1024, "type": "L"}],
    }
    (one,) = parse_table(json.dumps({"partitiontable": table}))
    assert (one.number, one.offset, one.size) == (1, 1 << 20, 4 << 20)


RECORD = record.Record("pi1", "a1b2c3d4", "", "4", "192.168.1.10", "/r/pi1", "/t/a1b2c3d4", "i.img", did=["all"])


def test_a_record_and_what_is_none() -> None:
    document = {"version": 1, **asdict(RECORD)}
    assert record.parse(json.dumps(document).encode()) == RECORD
    for key, value in (
        ("version", 2), ("name", 1), ("did", "all"), ("did", [1]), ("packages", {"a": 1}), ("made", True),
        ("staged", "../../etc"), ("more", ""),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r".+"):
            record.parse(json.dumps({**document, key: value}).encode())


def test_a_record_of_another_name(tmp_path: Path) -> None:
    record.write(str(tmp_path), RECORD)
    (tmp_path / ".pi1.rpinfs-board").rename(tmp_path / ".pi2.rpinfs-board")
    with pytest.raises(record.RecordError, match=r"expected the record of pi2, found that of pi1"):
        record.read(str(tmp_path), "pi2")
    (tmp_path / ".pi3.rpinfs-board").symlink_to("/etc/passwd")
    assert [(name, type(found)) for name, found in record.all_in(str(tmp_path))] == [
        ("pi2", record.RecordError), ("pi3", record.RecordError),
    ]  # fmt: skip


def test_a_record_of_very_much_can_be_read(tmp_path: Path) -> None:
    """Names in an image are somebody else's: 300 long ones of modules, or a sentence that quotes them."""
    for more in (
        {"kernels": [f"{number:03}{'k' * 250}" for number in range(300)]},
        {"lost": ["x" * 255_000], "did": ["\u20ac" * 4000] * 30},
        {"system": "\\" * 100_000},
    ):
        record.write(str(tmp_path), replace(RECORD, **more))
        found = record.read(str(tmp_path), "pi1")
        assert found is not None
        assert (found.name, found.made, bool(found.kernels)) == ("pi1", RECORD.made, "kernels" in more)
    with pytest.raises(record.RecordError, match="expected a record of at most 65536 bytes"):
        record.write(str(tmp_path), replace(RECORD, packages={"a": "x" * 70_000}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#cloud-config\nhostname: raspberrypi # mine\nfqdn: 'a.b'\nx:\n  hostname: other\n",
         '#cloud-config\nhostname: "pi2" # mine\nfqdn: "pi2"\nx:\n  hostname: other\n'),
        ("instance-id: a\nlocal-hostname: pi2\n", "instance-id: a\nlocal-hostname: pi2\n"),
        ('[system]\nhostname = "pp1"\n', '[system]\nhostname = "pi2"\n'),
        (user.user_data(user.User("me"), "ci1"), user.user_data(user.User("me"), "pi2")),
        (user.preseed(user.User("me"), "pp1"), user.preseed(user.User("me"), "pi2")),
        ("", ""),
    ],
)  # fmt: skip
def test_a_seed_for_another_host(text: str, said: str) -> None:
    assert user.seed_of(text, "pi2") == said


def test_seeds_are_what_their_readers_read() -> None:
    me = user.User("me", ('ssh-ed25519 AAAA "me"@here \N{PERSONAL COMPUTER}',))
    seed = tomllib.loads(user.preseed(me, "pi1"))
    assert (seed["user"]["name"], seed["ssh"]["authorized_keys"]) == ("me", list(me.keys))
    first, _, rest = user.user_data(me, "pi1").partition("\n")
    assert me.keys[0].rpartition(" ")[2] in rest, "YAML knows no surrogate pairs"
    assert first == "#cloud-config"
    (made,) = json.loads(rest)["users"]
    assert (made["name"], made["lock_passwd"], made["ssh_authorized_keys"]) == ("me", True, list(me.keys))


PLAN = {
    "network": {"subnet": "192.168.1.0/24"},
    "nas": {"address": "192.168.1.10"},
    "pi": [{"name": "pi1", "board": "3B+", "serial": "a1b2c3d4"}],
}


def ordered(tmp_path: Path, planned: bool = True, **given: str) -> Order:
    nothing = dict.fromkeys(("name", "serial", "mac", "board", "server", "version"), "")
    (tmp_path / "tftp").mkdir(exist_ok=True)
    folders = {"roots": str(tmp_path), "tftp": str(tmp_path / "tftp")}
    return order({**nothing, **folders, "name": "pi1", **given}, parse(PLAN, "plan") if planned else None)


def test_the_plan_knows_the_board(tmp_path: Path) -> None:
    made = ordered(tmp_path)
    assert (made.pi.serial, made.pi.board.model, made.board_known) == ("a1b2c3d4", "3B+", True)
    assert (made.place.folder, made.plan.nas.root) == ("a1b2c3d4", "/nfsroot")
    made = ordered(tmp_path, name="pi2")
    assert (made.board_known, made.place.folder) == (False, "pi2")
    made = ordered(tmp_path, planned=False, server="192.168.1.10", version="4.2")
    assert (made.plan.nas.root, made.plan.nas.version) == (str(tmp_path), "4.2")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"serial": "5e6f7a8b"}, "the plan has a1b2c3d4 for pi1"),
        ({"board": "4"}, "the plan has 3B\\+ for pi1"),
        ({"name": "pi2", "serial": "a1b2c3d4"}, "the plan has it for pi1"),
        ({"name": "Pi"}, "expected a host name"),
    ],
)
def test_what_the_plan_says_otherwise(given: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=said):
        ordered(tmp_path, True, **given)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(RpinfsError, match="expected the folder with the roots of all boards, found none"):
        ordered(tmp_path, roots=str(tmp_path / "x"))
    with pytest.raises(PlanError, match="--server: is missing"):
        ordered(tmp_path, planned=False)
