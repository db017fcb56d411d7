"""`rpinfs fleet` as it is called: on a folder with two hundred Pis, on one with hostile ones, on a Pi, on nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.commands.cli import main
from rpinfs.health import fleet
from rpinfs.lease import lease, owner, report
from rpinfs.lease.owner import Owner
from tests.support import make_pi
from tests.tools.conftest import ROOT

SAID = report.Report("", "0.1.0", "Raspberry Pi 4 Model B Rev 1.4", "ok", "docker: mounted", 10 << 30, 5 << 30)


def pi(share: Path, number: int, age: float = 30, **said: object) -> Path:
    """A Pi that holds an image, in a world whose clock is the share's."""
    who = Owner(f"10000000{number:08x}", f"pi{number}")
    image = share / f"docker-{number}.img"
    held = lease.acquire(str(image), who)
    told = replace(SAID, serial=who.serial, **said)  # type: ignore[arg-type]
    lease.still_ours(str(image), who, held, record=report.record_of(told))
    held.close()
    os.utime(lease.path_of(str(image)), (0, time.time() - age))
    return image


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


def told(*words: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    done = capsys.readouterr()
    return status, done.out, done.err


def test_two_hundred_pis(share: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(200):
        pi(share, number)
    pi(share, 77, 9e5)
    pi(share, 33, status="warning", message="the share is nearly full")
    status, out, err = told("fleet", share, capsys=capsys)
    lines = out.splitlines()
    assert (status, err, len(lines)) == (2, "", 201)
    assert lines[0] == f"200 Pis: 1 critical, 1 warning, 198 ok; {share}"
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["critical", "pi77"], ["warning", "pi33"], ["ok", "pi0"], ["ok", "pi1"]
    ]  # fmt: skip
    assert len({line.index("Pi 4 Model B Rev 1.4") for line in lines[1:]}) == 1
    status, out, _ = told("fleet", share, "--json", capsys=capsys)
    found = json.loads(out)
    assert status == found["exit_status"] == 2 and len(found["pis"]) == 200 and found["time_of_nas"] is True
    assert found["pis"][0]["serial"] == f"10000000{77:08x}" and found["pis"][0]["seconds_ago"] >= 9e5
    html = tmp_path / "fleet.html"
    html.write_text("of before")
    html.chmod(0o644)
    before = html.stat()
    assert told("fleet", share, "--html", html, capsys=capsys) == (2, "", "")
    assert html.read_text().count("<tr>") == 201 and html.stat().st_mode == before.st_mode
    assert html.stat().st_ino != before.st_ino, "replaced, never written into"
    assert sorted(os.listdir(tmp_path)) == ["fleet.html", "share"]
    assert not [name for name in os.listdir(share) if "fleet" in name]


@pytest.mark.root
def test_hostile_records_keep_nobody_from_the_rest_and_do_nothing_on_a_terminal(
    share: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        pi(share, number)

    def lock(number: int) -> Path:
        return Path(lease.path_of(f"{share}/docker-{number}.img"))

    def record(number: int) -> Path:
        return Path(owner.record_of(f"{share}/docker-{number}.img"))

    secret = share.parent / "secret"
    secret.write_text(json.dumps({"report": 1, "message": "of another"}))
    for path in (lock(1), lock(2), lock(3), record(4)):
        path.unlink()
    os.mkfifo(lock(1))
    lock(2).symlink_to(secret)
    os.link(secret, lock(3))
    os.mkfifo(record(4))
    record(5).write_text("[" * 5000)
    evil = '{"report": 1, "serial": "100000000000\u202e", "message": "\\u001b[2J\\n<script>"}'
    lock(6).write_text(evil)
    record(7).write_text(record(7).read_text().replace("pi7", "\\u001b]0;owned\\u0007"))
    status, out, err = told("fleet", share, capsys=capsys)
    assert (status, err) == (3, "")
    assert "\x1b" not in out and "of another" not in out and len(out.splitlines()) == 9
    states = {line.split()[1]: line.split()[0] for line in out.splitlines()[1:]}
    assert states["pi0"] == "ok" and list(states.values()).count("unknown") == 7


@contextmanager
def as_on_nfs(monkeypatch: pytest.MonkeyPatch, now: float) -> Iterator[None]:
    """A folder that counts as NFS, and a clock here that shows something else than the one there."""
    with monkeypatch.context() as patch:
        patch.setattr(storage.Mount, "is_nfs", property(lambda _: True))
        patch.setattr(time, "time", lambda: now)
        yield


def test_the_clock_is_that_of_the_nas(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pi(share, 1)
    for now in (1000.0, 4e9):
        with as_on_nfs(monkeypatch, now):
            found = fleet.look(str(share))
        assert found.asked and found.pis[0].age is not None and 29 <= found.pis[0].age < 300
    assert not [name for name in os.listdir(share) if "clock" in name], "the file that asked is gone"


@pytest.mark.root
def test_where_the_nas_cannot_be_asked_for_the_time_it_is_said(
    share: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pi(share, 1)
    subprocess.run(["mount", "--bind", share, share], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", share], check=True)
        with as_on_nfs(monkeypatch, time.time()):
            status, out, _ = told("fleet", share, capsys=capsys)
        assert status == 0 and "by the clock of this machine" in out
    finally:
        subprocess.run(["umount", share], check=True)


def test_on_a_pi_it_is_the_share_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "root/nfs/docker"
    line = "40 22 0:40 / /nfs/docker rw - nfs4 192.168.1.10:/docker rw\n"
    make_pi(tmp_path / "root", "", {"proc/self/mountinfo": line})
    there.mkdir(parents=True)
    pi(there, 1)
    monkeypatch.setenv("RPINFS_ROOT", str(tmp_path / "root"))
    status, out, _ = told("fleet", capsys=capsys)
    assert status == 0 and out.startswith(f"1 Pi: 1 ok; {there}")
    (tmp_path / "root/proc/self/mountinfo").write_text("")
    status, out, err = told("fleet", capsys=capsys)
    assert (status, out) == (3, "") and "the share is not mounted at /nfs/docker" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fleet", "--html"], "expected one argument"),
        (["fleet", "--jsn"], "unrecognized arguments: --jsn"),
        (["fleet", "a", "b"], "unrecognized arguments: b"),
        (["fleet", "--json", "--html", "x"], "not allowed with argument"),
        (["fleet", "/nothing/there"], "/nothing/there: No such file or directory"),
        (["fleet", "/etc/passwd"], "/etc/passwd: Not a directory"),
    ],
)
def test_bad_usage_wakes_nobody(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = told(*words, capsys=capsys)
    assert (status, out) == (3, "") and said in err


def test_a_page_that_cannot_be_written_is_unknown_and_nothing_else_is_renamed_over(
    share: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pi(share, 1)
    for place in ("/dev/null", str(share), "/proc/nothing.html"):
        status, out, err = told("fleet", share, "--html", place, capsys=capsys)
        assert (status, out) == (3, "") and err.startswith(f"rpinfs: --html {place}: ")
    assert Path("/dev/null").is_char_device()


def test_nobody_is_no_good_news(share: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told("fleet", share, capsys=capsys) == (3, f"0 Pis; {share}\n", "")


@pytest.mark.root
def test_a_nas_that_does_not_answer_ends_it(share: Path) -> None:
    """The read hangs for good: a child hangs in it, and is left behind."""
    program = (
        "import sys; from rpinfs.health import fleet; from rpinfs.commands import fleet as command; import time\n"
        "command.SECONDS = 0.5; fleet.holders = lambda _: time.sleep(600)\n"
        "from rpinfs.commands.cli import main; sys.exit(main(['fleet', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, share], capture_output=True, text=True, cwd=ROOT, check=False, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"rpinfs: {share} gave no answer within 0.5 s\nrpinfs: look at the NAS")
