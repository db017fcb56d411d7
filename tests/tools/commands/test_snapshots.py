"""`rpinfs snapshot`, `restore`, `adopt` and `release` on a real image, with a folder in place of the share."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.commands import cli
from rpinfs.image import make
from rpinfs.lease import memory
from tests.support import make_pi

MIB = 1 << 20
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A share with the image docker, of 64 MiB, as the mount table of a Pi has it; the commands look at that."""
    share = tmp_path / "share"
    share.mkdir()
    config = f"[Share]\nWhere={share}\n[Image docker]\nFile=docker.img\nSize=64M\n"
    mounted = f"40 22 0:40 / {share} rw - nfs4 192.168.1.10:/docker rw,vers=4.1\n"
    root = make_pi(tmp_path / "pi", config, {"proc/self/mountinfo": mounted})
    monkeypatch.setenv("RPINFS_ROOT", str(root))
    make.create(str(share / "docker.img"), 64 * MIB, "ext4")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield share
    for number, handler in handlers.items():
        signal.signal(number, handler)


def snapshots(share: Path) -> list[str]:
    return sorted(name for name in os.listdir(share) if name.startswith("docker.img.snapshot-"))


def rpinfs(words: str) -> int:
    return cli.main(words.split())


def test_take_list_delete(share: Path, capsys: Captured) -> None:
    assert rpinfs("snapshot --list") == 0
    assert capsys.readouterr().out.split() == ["IMAGE", "TIME", "LENGTH", "ON", "THE", "NAS", "NAME"]
    assert rpinfs("snapshot docker") == 0
    (name,) = snapshots(share)
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(share / name) and said.err == ""

    assert rpinfs("snapshot --list") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"docker  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  64 MiB  +[\d.]+ [KM]iB  +" + name, row), row
    assert [head.index(word) for word in ("TIME", "LENGTH", "NAME")] == [8, 33, row.index(name)]

    assert rpinfs("snapshot docker --list --json") == 0
    (document,) = json.loads(capsys.readouterr().out)
    allocated = os.stat(share / name).st_blocks * 512
    assert set(document) == {"image", "name", "path", "time", "size", "allocated", "origin"}
    assert (document["image"], document["name"], document["path"]) == ("docker", name, str(share / name))
    assert (document["size"], document["allocated"], document["origin"]) == (64 * MIB, allocated, "")

    assert rpinfs(f"snapshot docker --delete {name.rpartition('-')[2]}") == 0
    assert re.fullmatch(rf"deleted {share / name}, which took [\d.]+ [KM]iB on the NAS\n", capsys.readouterr().out)
    assert snapshots(share) == []


def test_restore_and_what_is_kept(share: Path, capsys: Captured) -> None:
    assert rpinfs("snapshot docker") == 0
    (name,) = snapshots(share)
    capsys.readouterr()
    assert rpinfs(f"restore docker {name}") == 0
    said = capsys.readouterr()
    first, kept, last = said.out.splitlines()
    assert re.fullmatch(rf"{share}/docker.img is as it was at \d{{4}}-.* UTC", first)
    (more,) = set(snapshots(share)) - {name}
    delete = f"rpinfs snapshot docker --delete {more}"
    assert kept == f"what it was is kept: {more}; when nobody needs it: {delete}"
    assert last == "to use it: systemctl start rpinfs-agent docker.service containerd.service"
    # The line works as it stands.
    assert rpinfs(delete.removeprefix("rpinfs ")) == 0
    assert snapshots(share) == [name]


def test_what_is_odd_among_them_is_said(share: Path, capsys: Captured) -> None:
    (share / "docker.img.snapshot-20261122T201500Z").mkdir()
    assert rpinfs("snapshot --list") == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1 and "docker.img.snapshot-20261122T201500Z" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("snapshot", "expected an image, or --list"),
        ("snapshot docker --json", "expected an image, or --list"),
        ("snapshot docker --list --delete x", "expected an image, or --list"),
        ("snapshot --delete x", "expected an image, or --list"),
        ("snapshot docker --freeze-limit 0", "0: expected a number of seconds from 1 to 86400"),
        ("snapshot docker --freeze-limit 86401", "86401: expected a number of seconds from 1 to 86400"),
        ("snapshot docker --freeze-limit 1.5", "1.5: expected a number of seconds"),
        ("snapshot data", "unknown image data; known are docker"),
        ("restore data x", "unknown image data; known are docker"),
    ],
)
def test_wrong_usage(share: Path, words: str, message: str, capsys: Captured) -> None:
    assert rpinfs(words) == 2
    assert message in capsys.readouterr().err
    assert snapshots(share) == []


@pytest.mark.parametrize("limit", ["1", "86400"])
def test_limits_that_are_taken(share: Path, limit: str) -> None:
    assert rpinfs(f"snapshot docker --freeze-limit {limit}") == 0
    assert len(snapshots(share)) == 1


def test_whose_an_image_is(share: Path, capsys: Captured) -> None:
    assert rpinfs("adopt docker") == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"{share}/docker.img belongs to this Pi now"
    assert last == "to use it: systemctl restart rpinfs-agent"
    assert rpinfs("release docker") == 0
    assert capsys.readouterr().out == (
        f"{share}/docker.img belongs to nobody now; the next Pi that is configured for it takes it\n"
    )


def test_an_image_of_another_pi(share: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, tmp_path: Path) -> None:
    assert rpinfs("adopt docker") == 0
    serial = tmp_path / "pi/proc/device-tree/serial-number"
    serial.write_text("10000000bbbbbbbb\0")
    monkeypatch.setattr(memory, "FOLDER", str(tmp_path / "another memory"))
    capsys.readouterr()
    assert rpinfs("release docker") != 0
    assert rpinfs("adopt docker") != 0
    assert "10000000a1b2c3d4" in capsys.readouterr().err
    assert rpinfs("adopt docker --now") == 0
    assert re.match(rf"{share}/docker.img belongs to this Pi now; before, .*10000000a1b2c3d4", capsys.readouterr().out)
