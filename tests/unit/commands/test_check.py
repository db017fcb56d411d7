"""`rpinfs check`: its formats, its exit statuses, and its time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rpinfs.boot.host import Host
from rpinfs.commands import check, cli
from rpinfs.health import checks
from rpinfs.health.metrics import NUMBERS
from tests.support import PATH, Installed
from tests.unit.health.test_metrics import samples
from tests.unit.health.test_monitoring import local_checks, plugin

Captured = pytest.CaptureFixture[str]
NOT_IN_USE = "rpinfs is not in use here: the root is not on NFS and there is no configuration"


@pytest.fixture(autouse=True)
def just_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits count from the start of the process, and that of the tests is old."""
    monkeypatch.setattr("rpinfs.system.deadline.seconds_of_life", lambda: 0.0)


@pytest.mark.parametrize(
    ("words", "message", "remedy"),
    [
        ("check share.spce", "unknown check share.spce; did you mean share.space?", "all of them: rpinfs check"),
        ("check everything", "unknown check everything", "all of them: rpinfs check"),
        ("check --jsn", "unrecognized arguments: --jsn", "see rpinfs --help"),
        ("check --format", "argument --format: expected one argument", "see rpinfs check --help"),
        ("check --format xml", "argument --format: invalid choice: 'xml'", "see rpinfs check --help"),
        ("check --json --format nagios", "argument --format: not allowed with", "see rpinfs check --help"),
        ("check --timeout", "argument --timeout: expected one argument", "see rpinfs check --help"),
        *(
            (f"check --timeout={seconds}", "expected a number of seconds above 0", "see rpinfs check --help")
            for seconds in ("0", "-1", "nan", "inf", "1e99", "ten", "", "5s")
        ),
        ("--format nagios check", "invalid choice: 'nagios'", "see rpinfs --help"),
        ("-x check", "", "see rpinfs --help"),
        # Not the use of this command.
        ("config check now", "unrecognized arguments: now", "see rpinfs --help"),
        ("chekc share.space", "unknown command: rpinfs chekc", "see rpinfs --help"),
    ],
)
@pytest.mark.usefixtures("pi")
def test_bad_usage_is_unknown_and_no_alarm(words: str, message: str, remedy: str, capsys: Captured) -> None:
    """By 2, as of other commands, a typing error in a monitoring system's command woke somebody."""
    expected = 3 if "check" in words.split() and not words.startswith("config") else 2
    assert cli.main(words.split(" ")) == expected
    output = capsys.readouterr()
    first, second = output.err.splitlines()
    assert output.out == ""
    assert first.startswith("rpinfs: ") and message in first
    assert second == f"rpinfs: {remedy}"


@pytest.mark.parametrize("form", ["nagios", "checkmk"])
@pytest.mark.usefixtures("pi")
def test_these_are_told_of_an_error_where_they_read(form: str, capsys: Captured) -> None:
    assert cli.main(["check", "--format", form, "share.spce"]) == 3
    output = capsys.readouterr()
    message = "unknown check share.spce; did you mean share.space?"
    said = {"nagios": f"RPINFS UNKNOWN - {message}\n", "checkmk": f'3 "rpinfs" - {message}\n'}
    assert output.out == said[form]
    assert output.err.splitlines()[0] == f"rpinfs: {message}"


@pytest.mark.usefixtures("other")
def test_where_rpinfs_is_not_in_use(capsys: Captured) -> None:
    said = {}
    for form in check.FORMATS:
        assert cli.main(["check", "--format", form]) == 0
        said[form] = capsys.readouterr().out
    assert said["text"] == NOT_IN_USE + "\n"
    assert json.loads(said["json"])["reason"] == NOT_IN_USE.partition(": ")[2]
    assert said["nagios"] == f"RPINFS OK - {NOT_IN_USE}\n"
    assert said["checkmk"] == f'0 "rpinfs" - {NOT_IN_USE}\n'
    assert "rpinfs_check_status" not in said["prometheus"]


@pytest.mark.usefixtures("pi")
def test_all_formats_say_the_same(capsys: Captured) -> None:
    said = {}
    for form in check.FORMATS:
        assert cli.main(["check", "--format", form, "--timeout", "60"]) == 2
        said[form] = capsys.readouterr().out
    assert cli.main(["check", "--json"]) == 2
    assert capsys.readouterr().out == said["json"]
    found = {(one["name"], one["image"] or ""): one["status"] for one in json.loads(said["json"])["checks"]}
    by_prometheus = samples(said["prometheus"])
    for (name, image), status in found.items():
        key = ("rpinfs_check_status", name, image) if image else ("rpinfs_check_status", name)
        assert by_prometheus[key] == NUMBERS[status]
    status, text, _, more = plugin(said["nagios"])
    wrong = [name for name, status in found.items() if status != "ok"]
    assert (status, text.endswith(f"(and {len(wrong) - 1} more)")) == ("CRITICAL", True)
    assert len([line for line in more if not line.startswith("  ")]) == len(wrong)
    assert max(status for status, _, _ in local_checks(said["checkmk"]).values()) >= 2
    lines = [line for line in said["text"].splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines] == list(found.values())


def silent_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "read", signal.pause)


@pytest.mark.usefixtures("pi")
def test_a_root_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Even the configuration is on the NAS then."""
    monkeypatch.setattr(check, "CHECK_SECONDS", 0.5)
    silent_root(monkeypatch)
    assert cli.main(["check"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("rpinfs: the root file system gave no answer within ")
    assert second == "rpinfs: if the root is on NFS: look at the NAS and at the network to it"
    assert cli.main(["check", "--format", "nagios"]) == 2
    assert capsys.readouterr().out == "RPINFS CRITICAL - the root file system gave no answer within 0.5 s\n"


@pytest.mark.parametrize("form", check.FORMATS)
@pytest.mark.usefixtures("pi")
def test_the_time_limit_is_for_all_of_it_also_for_a_dead_root(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    silent_root(monkeypatch)
    assert cli.main(["check", "--format", form, "--timeout", "0.3"]) == 3
    output = capsys.readouterr()
    said = {"nagios": "RPINFS UNKNOWN - no answer within 0.3 s\n", "checkmk": '3 "rpinfs" - no answer within 0.3 s\n'}
    assert output.out == said.get(form, "")
    assert output.err.startswith("rpinfs: no answer within 0.3 s\nrpinfs: if the root is on NFS: ")


@pytest.mark.usefixtures("pi")
def test_the_time_before_the_command_counts_too(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """On a cold root Python itself takes seconds."""
    silent_root(monkeypatch)
    monkeypatch.setattr("rpinfs.system.deadline.seconds_of_life", lambda: 3599.0)
    assert cli.main(["check", "--timeout", "3599.2"]) == 3
    assert "no answer within 3599.2 s" in capsys.readouterr().err


@pytest.mark.usefixtures("pi")
def test_who_is_silent_is_told_before_the_time_is_up(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """A share whose NAS is gone is an alarm, and not a check that took too long."""
    monkeypatch.setattr("rpinfs.health.questions._ask_docker_config", lambda _: time.sleep(3600))
    monkeypatch.setattr("rpinfs.health.questions._ask_placed", lambda _: time.sleep(3600))
    assert cli.main(["check", "--format", "nagios", "--timeout", "4"]) == 2
    status, _, _, more = plugin(capsys.readouterr().out)
    assert status == "CRITICAL"
    assert any("no answer within 3 s" in line or "docker.placed" in line for line in more), more


@pytest.mark.usefixtures("pi")
def test_what_the_system_says_is_no_warning(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """By 1, as of other commands, it was taken for one."""

    def fail(_: object) -> checks.Check:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(checks, "select", fail)
    assert cli.main(["check", "--format", "nagios"]) == 3
    assert capsys.readouterr().out == "RPINFS UNKNOWN - this machine: Too many open files\n"


def test_nobody_waits_on_when_the_time_is_up(pi: Path, installed: Installed, tmp_path: Path) -> None:
    """A child of the child had our standard output still open, and whoever read that to its end waited for the NAS."""
    # Whatever is read of /etc/fstab waits for who would write it, as a file on a NAS that is gone does.
    os.mkfifo(pi / "etc/fstab")
    output = tmp_path / "output"
    command = f"{installed.rpinfs} check --format nagios --timeout 2 | cat >{output}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env={"PATH": PATH, "RPINFS_ROOT": str(pi)}, timeout=120, check=False)
    assert (done.returncode, output.read_text()) == (3, "RPINFS UNKNOWN - no answer within 2 s\n")
