"""`rpinfs netboot list`, `add` and `clone` as they are typed: what is shown, and what is refused before anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rpinfs.commands import cli
from rpinfs.netboot.add import make, record
from rpinfs.netboot.add.order import Order
from rpinfs.netboot.add.record import Record
from tests.support import make_tree

Captured = pytest.CaptureFixture[str]
PLAN = """\
[network]
subnet = "192.168.1.0/24"
[nas]
address = "192.168.1.10"
root = "{roots}"
share = "{share}"
boot = "{tftp}"
"""
SERIAL = "1a2b3c4d"
OWNER = {"version": 1, "hostname": "pi9", "machine_id": "", "boot_id": "", "since": 1_700_000_000}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("roots", "other"):
        (tmp_path / name).mkdir()
    return tmp_path


def plan(here: Path) -> None:
    (here / "tftp").mkdir(exist_ok=True)
    folders = {name: here / name for name in ("roots", "share", "tftp")}
    (here / "rpinfs-netboot.toml").write_text(PLAN.format(**folders))


def board(here: Path, staged: str = "") -> Record:
    roots = here / "roots"
    (roots / "pi1").mkdir(exist_ok=True)
    said = Record(
        "pi1", SERIAL, "", "4", "192.168.1.10", str(roots / "pi1"), f"/tftp/{SERIAL}", "raspios.img",
        made=1_700_000_000, by="rpinfs 0.1.0", system="Debian 13", kernels=["6.12", "6.6"],
        packages={"rpinfs": "0.1.0", "docker.io": "26"}, staged=staged,
    )  # fmt: skip
    record.write(str(roots), said)
    return said


def on_share(share: Path, *serials: str) -> None:
    make_tree(share, {f".{one}.img.rpinfs-owner": json.dumps({**OWNER, "serial": one}) for one in serials})


def listed(*words: str, status: int = 0) -> None:
    assert cli.main(["netboot", "list", *words]) == status


def test_all_that_is_known_of_a_board(here: Path, capsys: Captured) -> None:
    said = board(here)
    on_share(here / "share", f"10000000{SERIAL}", "77")
    listed("--root", "roots", "--share", "share")
    assert capsys.readouterr().out == (
        "pi1\n"
        f"  serial     {SERIAL}\n"
        "  board      4\n"
        f"  root       {here}/roots/pi1\n"
        f"  boot files /tftp/{SERIAL}\n"
        "  made       2023-11-14 22:13 UTC of raspios.img, by rpinfs 0.1.0\n"
        "  system     Debian 13, 6.12, 6.6\n"
        "  packages   rpinfs 0.1.0, docker.io 26\n"
        f"  image      share/10000000{SERIAL}.img\n"
        "  last seen  never\n"
        "pi9\n"
        "  serial     77\n"
        "  root       unknown: netboot add has not made it\n"
        "  image      share/77.img\n"
        "  last seen  never\n"
    )
    listed("--root", "roots", "--json")
    assert json.loads(capsys.readouterr().out) == [
        {"name": "pi1", "serial": SERIAL, "last_seen": None, "images": [], "faults": [], "record": asdict(said)}
    ]


def test_when_one_was_last_seen(here: Path, capsys: Captured) -> None:
    on_share(here / "share", "77")
    (here / "share/.77.img.rpinfs-lock").touch()
    listed("--root", "roots", "--share", "share", "--json")
    [row] = json.loads(capsys.readouterr().out)
    assert row["last_seen"] == (here / "share/.77.img.rpinfs-lock").stat().st_mtime and row["record"] is None
    listed("--root", "roots", "--share", "share")
    assert "  last seen  20" in capsys.readouterr().out


def test_what_nobody_can_be_named_for(here: Path, capsys: Captured) -> None:
    """A record that is damaged: of no board, never seen, with its fault."""
    make_tree(here / "share", {".x.img.rpinfs-owner": "{"})
    board(here)
    (here / "roots/pi1").rmdir()
    listed("--root", "roots", "--share", "share")
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "on the share" and rest[0].startswith("  fault      ") and "share/" in rest[0]
    assert rest[1] == "pi1" and rest[-1] == "  fault      roots/pi1 is not there"


def test_the_folders_are_the_plans_where_nobody_names_others(here: Path, capsys: Captured) -> None:
    plan(here)
    listed()
    assert capsys.readouterr().out == f"no boards in {here}/roots\n", "its share is not on this machine"
    on_share(here / "share", "77")
    on_share(here / "else", "88")
    listed()
    assert f"  image      {here}/share/77.img\n" in capsys.readouterr().out
    listed("--share", "else", "--root", "other")
    out = capsys.readouterr().out
    assert "77" not in out and "  image      else/88.img\n" in out
    board(here)
    listed("--root", "other", "--json")
    assert [row["serial"] for row in json.loads(capsys.readouterr().out)] == ["77"]


def test_without_a_plan_the_roots_are_named(here: Path, capsys: Captured) -> None:
    on_share(here / "share", "77")
    listed(status=2)
    assert capsys.readouterr().err == (
        "rpinfs: --root is missing, and there is no plan\nrpinfs: see rpinfs netboot list --help\n"
    )
    listed("--root", "other")
    assert capsys.readouterr().out == "no boards in other\n"
    listed("--root", "other", "--json")
    assert capsys.readouterr().out == "[]\n"
    listed("--plan", "gone.toml", "--root", "other", status=1)
    assert "gone.toml: No such file or directory" in capsys.readouterr().err


# add and clone


Asked = list[tuple[Order, Any]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What is to be made, and of what; nothing is."""
    made: Asked = []

    def done(order: Order, what: object, progress: Callable[[str], None]) -> Record:
        progress("copying")
        made.append((order, what))
        place, name = order.place, order.pi.name
        return Record(
            name, SERIAL, "", "4", "", f"{place.roots}/{name}", f"{place.tftp}/{SERIAL}", "x.img",
            did=["host name: pi1"], left=["turn it on"], lost=["an ACL"],
        )  # fmt: skip

    monkeypatch.setattr(make, "add", done)
    monkeypatch.setattr(make, "clone", done)
    monkeypatch.setattr(make, "insist_on_root", lambda _: None)
    monkeypatch.setattr("rpinfs.commands.boards.end_in_order", lambda: None)
    return made


def test_what_was_made_is_told_and_what_is_left_to_do(here: Path, asked: Asked, capsys: Captured) -> None:
    plan(here)
    boot = here / "tftp" / SERIAL
    make_tree(boot, {"cmdline.txt": "root=/dev/mmcblk0p2\n"})
    make_tree(here / "tftp/99999999", {"cmdline.txt": "root=/dev/mmcblk0p2\n"})
    key = here / "key.pub"
    key.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB me@here\n")
    words = ["x.img", "--name", "pi1", "--serial", SERIAL, "--user", "me", "--ssh-key", str(key), "--boot", "b"]
    assert cli.main(["netboot", "add", *words, "--deb", "r.deb", "--docker"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"pi1: {here}/roots/pi1 and {boot}, made of x.img", "  host name: pi1", "lost: an ACL",
    ]  # fmt: skip
    assert lines[-1] == "left to do: turn it on"
    findings = lines[3:-1]
    assert findings and all(line.startswith(("fault: ", "warning: ", "note: ")) for line in findings)
    assert all(str(boot) in line for line in findings), "what is wrong with other boards is not told here"
    [(order, wanted)] = asked
    assert (order.pi.name, order.place.roots, order.place.tftp) == ("pi1", f"{here}/roots", f"{here}/tftp")
    assert (wanted.source, wanted.boot, wanted.deb, wanted.docker) == ("x.img", "b", "r.deb", True)
    assert wanted.user.name == "me"
    assert cli.main(["netboot", "add", "x.img", "--name", "pi1", "--serial", SERIAL]) == 0
    assert (asked[1][1].user, asked[1][1].docker, asked[1][1].boot, asked[1][1].deb) == (None, False, "", "")


def test_a_key_is_somebodys(here: Path, asked: Asked, capsys: Captured) -> None:
    plan(here)
    assert cli.main(["netboot", "add", "x.img", "--name", "pi1", "--serial", SERIAL, "--ssh-key", "k"]) == 2
    assert capsys.readouterr().err == (
        "rpinfs: --ssh-key: whose is it? --user is missing\nrpinfs: see rpinfs netboot add --help\n"
    )
    assert asked == []


@pytest.mark.parametrize("staged", ["", "0123456789abcdef"])
def test_what_is_cloned_is_a_whole_board(here: Path, asked: Asked, capsys: Captured, staged: str) -> None:
    plan(here)
    assert cli.main(["netboot", "clone", "pi1", "pi2", "--serial", "5e6f7a8b"]) == 2
    assert "expected a board that add has made" in capsys.readouterr().err
    said = board(here, staged=staged)
    assert cli.main(["netboot", "clone", "pi1", "pi2", "--serial", "5e6f7a8b"]) == (2 if staged else 0)
    if staged:
        assert "expected a board that add has made" in capsys.readouterr().err and asked == []
    else:
        assert [(order.pi.name, other) for order, other in asked] == [("pi2", said)]
        assert capsys.readouterr().out.startswith(f"pi2: {here}/roots/pi2 and ")
