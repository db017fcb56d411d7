"""`rpinfs netboot` as a person types it: plan, render, check; nothing is written over in silence."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.commands import cli
from rpinfs.lease import holders
from rpinfs.netboot import doctor, listening, mtu, place, plan, seen, watch
from rpinfs.netboot.finding import Gravity
from rpinfs.netboot.judge import Remark, Verdict
from rpinfs.netboot.model import Pi
from rpinfs.netboot.render.text import Rendered
from tests.support import Installed, make_pi

FACTS = ("--nas", "192.168.1.10", "--subnet", "192.168.1.0/24", "--pi", "pi1,4,1a2b3c4d")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> int:
    return cli.main(["netboot", *words])


def test_plan_then_render(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", *FACTS) == 0
    assert "way A: everything from the NAS" in capsys.readouterr().out
    assert run("plan") == 0
    assert "way A" in capsys.readouterr().out
    assert run("render", "--output", "out") == 0
    assert "out/dnsmasq-proxy.conf: for the NAS -> /etc/rpi-netboot/dnsmasq-proxy.conf" in capsys.readouterr().out
    assert (here / "out/pi1/cmdline.txt").read_text().endswith(
        "nfsroot=192.168.1.10:/nfsroot/pi1,vers=4.1,proto=tcp rw ip=dhcp\n"
    )  # fmt: skip
    assert run("render", "--output", "out") == 0


def test_a_plan_that_is_there_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", *FACTS) == 0
    before = (here / "rpinfs-netboot.toml").read_bytes()
    assert run("plan", "--nas", "192.168.1.99", "--subnet", "192.168.1.0/24") == 2
    assert "there is a plan already" in capsys.readouterr().err
    assert (here / "rpinfs-netboot.toml").read_bytes() == before
    assert run("plan", "--force", "--nas", "192.168.1.99", "--subnet", "192.168.1.0/24") == 0
    assert b"192.168.1.99" in (here / "rpinfs-netboot.toml").read_bytes()


def test_a_file_that_is_there_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("plan", *FACTS)
    (here / "out").mkdir()
    (here / "out/exports").write_text("mine\n")
    assert run("render", "--output", "out") == 1
    assert "out/exports: there is another one already" in capsys.readouterr().err
    assert [path.name for path in (here / "out").iterdir()] == ["exports"]
    assert (here / "out/exports").read_text() == "mine\n"


def test_apply_keeps_what_was_there(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = here / "etc/exports"
    target.parent.mkdir()
    target.write_text("old\n")
    made = [Rendered("exports", str(target), "the NAS", "new\n"), Rendered("x", "", "the NAS", "words")]
    monkeypatch.setattr("rpinfs.netboot.render.targets.render", lambda *_: made)
    run("plan", *FACTS)
    assert run("render", "--apply", "the NAS") == 1
    assert "-old\n+new\n" in capsys.readouterr().out
    assert target.read_text() == "old\n"
    assert run("render", "--apply", "the NAS", "--yes") == 0
    assert (target.read_text(), (here / f"etc/exports{place.KEPT}").read_text()) == ("new\n", "old\n")
    assert run("render", "--apply", "the NAS") == 0
    assert "is so already" in capsys.readouterr().out
    target.write_text("changed\n")
    assert run("render", "--apply", "the NAS", "--yes") == 1
    assert "is there already, from an earlier time" in capsys.readouterr().err
    assert target.read_text() == "changed\n"
    assert run("render", "--apply", "my NAS") == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("render",), "there is no plan"),
        (("plan",), "--nas is missing"),
        (("plan", "--nas", "nas.local", "--subnet", "192.168.1.0/24"), "expected an IPv4 address"),
        (("plan", *FACTS[:4], "--pi", "pi1"), "[[pi]] 1 board: is missing"),
        (("plan", *FACTS, "--topology", "X"), "expected one of A, B, C, D"),
        (("doctor",), "--interface"),
        (("doctor", "--interface", "eth0", "--seconds", "-1"), "--seconds"),
        (("doctr",), "did you mean rpinfs netboot doctor?"),
        (("check", "--plan", "gone.toml"), "gone.toml: No such file"),
    ],
)
def test_bad_usage(words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) in (1, 2)
    said = capsys.readouterr().err
    assert expected in said
    assert all(line.startswith("rpinfs: ") for line in said.splitlines())


def test_unknown_target(capsys: pytest.CaptureFixture[str]) -> None:
    run("plan", *FACTS)
    assert run("render", "--for", "bind9") == 2
    assert "--for bind9: expected one of dnsmasq-proxy, dnsmasq, isc, kea" in capsys.readouterr().err


def test_check(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "dnsmasq.conf").write_text('pxe-service=0,"Raspberry Pi Boot"\n')
    (here / "dhcpd.conf").write_text("subnet {")
    assert run("check", "dnsmasq.conf") == 2
    assert capsys.readouterr().out.splitlines()[:2] == [
        "fault    dnsmasq.conf:1: without a dhcp-range dnsmasq answers no DHCP request: this line does nothing",
        "         add the line: dhcp-range=192.168.1.0,proxy",
    ]
    assert run("check", "--json", "dhcpd.conf") == 2
    assert json.loads(capsys.readouterr().out)["unreadable"] == ["dhcpd.conf:1: expected a closing } for: subnet"]
    (here / "exports").write_text("/x 10.0.0.0/8(rw,async,no_root_squash,no_subtree_check)\n")
    assert run("check", "exports") == 1
    (here / "exports").write_text("/x 10.0.0.0/8(rw,sync,no_root_squash,no_subtree_check)\n")
    assert run("check", "exports") == 0


def test_names_on_the_share_are_made_printable(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = here / "tftp\x1b[2J/AABBCCDD"
    folder.mkdir(parents=True)
    (folder / "cmdline.txt").write_text("root=/dev/sda\x1b[2J\n")
    run("check", str(folder.parent))
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(("gravity", "status"), [(Gravity.FAULT, 2), (Gravity.WARNING, 0)])
def test_doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gravity: Gravity, status: int
) -> None:
    """What concerns all boards is said of each, behind what is wrong with itself; one that does not boot is enough."""
    asked: list[tuple[object, ...]] = []

    def offers_to(interface: str, pis: list[Pi], seconds: float) -> tuple[list[list[str]], list[Remark]]:
        asked.append((interface, seconds))
        return [[pi.name] for pi in pis], [Remark(12, Gravity.NOTE, "of all")]

    def diagnose(pi: Pi, to_it: list[str], _: object, way: doctor.Way) -> doctor.Diagnosis:
        asked.append((pi.name, *to_it, way))
        of_it = Remark(1, gravity if pi.name == "a 3B" else Gravity.NOTE, f"of {pi.name}")
        return doctor.Diagnosis(pi, Verdict(), remarks=[of_it])

    monkeypatch.setattr(doctor, "offers_to", offers_to)
    monkeypatch.setattr(doctor, "diagnose", diagnose)
    assert run("doctor", "--interface", "eth9", "--seconds", "2", "--tftp", "/", "--write", "--json") == status
    found = json.loads(capsys.readouterr().out)
    names = ["a 3B", "a 3B+", "a 4", "a 5"]
    assert asked == [("eth9", 2.0), *((name, name, doctor.Way("eth9", "/", True)) for name in names)]
    assert [(one["name"], one["boots"]) for one in found] == [(name, name != "a 3B" or not status) for name in names]
    assert [[remark["message"] for remark in one["remarks"]] for one in found] == [
        [f"of {name}", "of all"] for name in names
    ]


BOOTS = "pi1 boots: files from 192.168.1.2 (option 66 of 192.168.1.1), /1a2b3c4d"
DIAGNOSED = [
    ({}, BOOTS),
    ({"remarks": [Remark(1, Gravity.NOTE, "good\x1b to know", "look"), Remark(2, Gravity.WARNING, "slow")]},
     f"note     good  to know\n         look\nwarning  slow\n{BOOTS}"),
    ({"remarks": [Remark(3, Gravity.FAULT, "no answer", "start it")]},
     "fault    no answer\n         start it\npi1 does not boot: no answer; to do: start it"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "said"), DIAGNOSED)
def test_doctor_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: dict[str, list[Remark]], said: str
) -> None:
    """Of the boards of the plan; the offers are waited for five seconds."""
    asked: list[tuple[object, ...]] = []

    def offers_to(interface: str, pis: list[Pi], seconds: float) -> tuple[list[list[str]], list[Remark]]:
        asked.append((interface, seconds))
        return [[] for _ in pis], []

    def diagnose(pi: Pi, _to_it: list[str], made: object, way: doctor.Way) -> doctor.Diagnosis:
        asked.append((pi.name, made, way))
        verdict = Verdict("192.168.1.50", "192.168.1.1", "192.168.1.2", "option 66")
        return doctor.Diagnosis(pi, verdict, way, folder="1a2b3c4d", files={"start4.elf": 7}, **more)  # type: ignore[arg-type]

    ways: list[tuple[str, str]] = []

    def way_to(server: str, interface: str) -> mtu.Passage:
        ways.append((server, interface))
        return mtu.Passage(1500, 1500)

    monkeypatch.setattr(mtu, "way_to", way_to)
    monkeypatch.setattr(doctor, "offers_to", offers_to)
    monkeypatch.setattr(doctor, "diagnose", diagnose)
    run("plan", *FACTS)
    capsys.readouterr()
    status = 2 if "does not boot" in said else 0
    assert run("doctor", "--interface", "eth0") == status
    assert capsys.readouterr().out == f"{said}\n"
    made = plan.load("rpinfs-netboot.toml")
    assert asked == [("eth0", 5.0), ("pi1", made, doctor.Way("eth0", "", False))]
    assert ways == [("192.168.1.2", "eth0")]
    assert run("doctor", "--interface", "eth0", "--json") == status
    [document] = json.loads(capsys.readouterr().out)
    sentence = said.splitlines()[-1]
    remarks = [
        {"rule": one.rule, "gravity": one.gravity.name.lower(), "message": one.message, "remedy": one.remedy}
        for one in more.get("remarks", [])
    ]
    assert document == {
        "name": "pi1", "board": "4", "boots": not status, "sentence": sentence, "address": "192.168.1.50",
        "says_boot": "192.168.1.1", "tftp": "192.168.1.2", "why": "option 66", "folder": "1a2b3c4d",
        "files": {"start4.elf": 7}, "remarks": remarks,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "taken"), [("0", False), ("0.1", True), ("60", True), ("60.1", False), ("nan", False), ("x", False)]
)
def test_how_long_offers_may_be_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: str, taken: bool
) -> None:
    asked: list[float] = []

    def offers_to(_: str, pis: list[Pi], how_long: float) -> tuple[list[list[str]], list[Remark]]:
        asked.append(how_long)
        return [[] for _ in pis], []

    monkeypatch.setattr(doctor, "offers_to", offers_to)
    monkeypatch.setattr(doctor, "diagnose", lambda pi, *_: doctor.Diagnosis(pi, Verdict()))
    assert run("doctor", "--interface", "eth0", "--seconds", seconds) == (0 if taken else 2)
    assert asked == ([float(seconds)] if taken else [])
    assert ("argument --seconds" in capsys.readouterr().err) is not taken


def test_each_line_of_watch_is_there_when_it_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also through a pipe, which holds lines back."""
    run("plan", *FACTS[:-1], "pi1,4,1a2b3c4d,dc:a6:32:12:34:56")
    capsys.readouterr()
    said, shown = io.StringIO(), list[str]()
    monkeypatch.setattr(said, "flush", lambda: shown.append(said.getvalue()))
    monkeypatch.setattr(sys, "stdout", said)
    monkeypatch.setattr(listening, "listen", lambda interface: f"what comes at {interface}")
    (here / "share").mkdir()
    asked: list[str] = []

    def leases(share: str) -> list[str]:
        asked.append(share)
        return []

    monkeypatch.setattr(holders, "holders", leases)

    def lines(self: watch.Watch, heard: str) -> Iterator[str]:
        yield f"{heard}, {self.tftp}, {list(self.leases())}"
        assert shown == ["what comes at eth0, /, []\n"]
        yield f"{self.names}"
        assert len(shown) == 2

    monkeypatch.setattr(watch.Watch, "lines", lines)
    assert run("watch", "--interface", "eth0", "--tftp", "/", "--share", "share") == 0
    assert asked == ["share"]
    assert "{'1a2b3c4d': 'pi1', 'dc:a6:32:12:34:56': 'pi1'}" in said.getvalue()
    assert run("watch", "--interface", "eth0", "--share", "nowhere") == 1
    for verb in ("watch", "doctor"):
        assert run(verb, "--interface", "eth0", "--tftp", "nowhere") == 2
        assert "argument --tftp: expected a folder, found none: nowhere" in capsys.readouterr().err


def test_where_nothing_is_wrong_it_says_in_what(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "exports").write_text("/x 10.0.0.0/8(rw,sync,no_root_squash,no_subtree_check)\n")
    assert run("check", "exports") == 0
    assert capsys.readouterr().out == "nothing is wrong in exports\n"
    monkeypatch.setattr(seen, "PLACES", ())
    assert run("check") == 0
    assert capsys.readouterr().out == "nothing is wrong in what is here: there is nothing to look at\n"


def test_rendered_is_shown_or_told_where_it_was_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [
        Rendered("exports", "/etc/exports", "the NAS", "a line\n", owned=False),
        Rendered("pi1/cmdline.txt", "", "pi1", "root=\n"),
    ]
    asked: list[object] = []

    def render(_: object, targets: list[str]) -> list[Rendered]:
        asked.append(targets)
        return made

    monkeypatch.setattr("rpinfs.netboot.render.targets.render", render)
    run("plan", *FACTS)
    capsys.readouterr()
    assert run("render", "--for", "kea", "--for", "exports") == 0
    assert capsys.readouterr().out == (
        "# ---- exports: for the NAS -> /etc/exports\na line\n\n# ---- pi1/cmdline.txt: for pi1\nroot=\n\n"
    )
    assert run("render", "--output", "out") == 0
    assert capsys.readouterr().out == (
        "out/exports: for the NAS -> /etc/exports (a part of it)\nout/pi1/cmdline.txt: for pi1\n"
    )
    assert asked == [["kea", "exports"], []]
    (here / "exports").write_text("mine\n")
    made[0] = Rendered("exports", str(here / "exports"), "the NAS", "a line\n", owned=False)
    assert run("render", "--apply", "the NAS", "--yes") == 1
    assert capsys.readouterr().out.endswith(f"{here}/exports: left alone: this is a part of a file\n")
    assert run("render", "--apply", "a NAS") == 2
    assert 'there is something for "the NAS"' in capsys.readouterr().err
    made.clear()
    assert run("render", "--apply", "a NAS") == 2
    assert "there is something for nobody" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_is_asked_for_what_is_missing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        "192.168.1.10",
        "",
        "192.168.1.0/24",
        " openwrt ",
        "Yes",
        "pi1,4,1a2b3c4d",
        "pi2,5,1a2b3c4e,dc:a6:32:00:00:02",
        "",
    ]
    monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{answer}\n" for answer in answers)))
    asked = Terminal()
    monkeypatch.setattr(sys, "stderr", asked)
    assert run("plan") == 0
    board = "a board as NAME,BOARD,SERIAL, such as pi1,4,1a2b3c4d; empty: no more: "
    assert asked.getvalue() == (
        "IPv4 address of the NAS: kind of NAS: linux, synology, truenas, omv, qnap [linux]: "
        "network of the boards, such as 192.168.1.0/24: "
        f"what gives addresses: consumer, openwrt, isc, kea, mikrotik, unifi, ... [consumer]: "
        f"do PCs netboot on this LAN, too: yes, no [no]: {board * 3}"
    )
    made = plan.load(str(here / "rpinfs-netboot.toml"))
    assert (str(made.nas.address), made.nas.kind, made.network.dhcp) == ("192.168.1.10", "linux", "openwrt")
    assert [pi.name for pi in made.pis] == ["pi1", "pi2"]
    assert made.network.pcs


def test_a_board_of_which_little_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", *FACTS[:-1], "pi1, 4,,dc:a6:32:00:00:02", "--pcs") == 0
    made = plan.load("rpinfs-netboot.toml")
    assert ([(pi.serial, pi.mac) for pi in made.pis], made.network.pcs) == ([("", "dc:a6:32:00:00:02")], True)
    assert run("plan", "again.toml", *FACTS[:-1], "pi1,4,1a2b3c4d,dc:a6:32:00:00:02,2023-01-11") == 2
    assert "expected NAME,BOARD[,SERIAL[,MAC]], found pi1,4,1a2b3c4d,dc" in capsys.readouterr().err
    assert run("plan", "again.toml", *FACTS[:-1], "pi1") == 2
    assert "[[pi]] 1 board: is missing" in capsys.readouterr().err


def test_where_there_is_nobody_nobody_is_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--nas", "192.168.1.10") == 2
    assert capsys.readouterr().err == "rpinfs: --subnet is missing\nrpinfs: see rpinfs netboot plan --help\n"
    assert not list(here.iterdir())
    assert run("plan", "--subnet", "192.168.1.0/24") == 2
    assert "--nas is missing" in capsys.readouterr().err


@pytest.mark.parametrize("uncommented", [False, True])
def test_who_mounts_the_boot_files(uncommented: bool, here: Path, installed: Installed) -> None:
    """What render makes for a board leaves them to rpinfs; in its fstab no line is in the way."""
    assert run("plan", *FACTS, "--pi", "pi9,4,00c0ffee") == 0
    assert run("render", "--output", "out") == 0
    fstab = (here / "out/pi9/fstab").read_text()
    if uncommented:
        # A root without rpinfs, into which it is put later.
        fstab = fstab.replace("# 192.168", "192.168")
    root = make_pi(here / "root", files={
        "etc/fstab": fstab, "etc/rpinfs/rpinfs.conf.d/netboot.conf": (here / "out/pi9/netboot.conf").read_text(),
    })  # fmt: skip
    done = installed.run(installed.rpinfs, "units", root=root)
    assert done.returncode == 0, done.stderr
    assert ("What=192.168.1.10:/tftpboot/00c0ffee\n" in done.stdout) == (not uncommented)
