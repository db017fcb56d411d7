"""`rpinfs status` and `check`: how long each has, what is drawn again, and the lines of a check."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rpinfs.boot.host import Host
from rpinfs.commands import cli
from rpinfs.health import checks, questions
from rpinfs.health.checks import Result, Status
from rpinfs.health.facts import Facts
from tests.support import Installed, make_pi, make_tree

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, Any]]:
    """How long what is asked has, and what is asked; nothing is."""
    told: list[tuple[str, float, Any]] = []

    def within(seconds: float, ask: Callable[[], Host]) -> Host:
        told.append(("host", seconds, None))
        return ask()

    def ask(_: Facts, seconds: float, kinds: object = None) -> None:
        told.append(("questions", seconds, kinds))

    monkeypatch.setattr("rpinfs.system.deadline.within", within)
    monkeypatch.setattr(questions, "ask", ask)
    return told


def test_a_generator_that_crashes_does_not_take_the_checks_along(tmp_path: Path, root: Path) -> None:
    """They are what says that it has written no units."""
    make_pi(root)
    # A short name: the kernel reads 255 bytes of the first line of a script, and this one has the path in it.
    broken = Installed(tmp_path / "i", bound=False)
    (broken.share / "rpinfs/boot/generator.py").write_text("raise SystemExit(1)\n")
    done = broken.run(broken.rpinfs, "check", "--timeout", "100", "config.valid", root=root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok  ")


@pytest.mark.parametrize(("left", "of_host"), [(1.5, 1.0), (2.0, 1.0), (6.0, 3.0)])
def test_status_has_what_is_left_of_two_seconds(
    pi: Path, given: list[tuple[str, float, Any]], monkeypatch: pytest.MonkeyPatch, left: float, of_host: float
) -> None:
    """On a slow machine more, of which some stays for the questions."""
    monkeypatch.setattr(questions, "seconds_left", lambda: left)
    assert pi and cli.main(["status"]) in (1, 2, 3)
    assert given == [("host", of_host, None), ("questions", left, None)]


def test_check_has_more_and_asks_what_is_needed(
    pi: Path, given: list[tuple[str, float, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    assert pi and cli.main(["check", "share"]) == 2
    wanted = checks.needs(checks.select(["share"]))
    assert given == [("host", 10.0, None), ("questions", 10.0, wanted)] and wanted


@pytest.mark.parametrize("words", [["status"], ["check"]])
def test_where_it_is_not_in_use_nothing_is_asked(
    root: Path, given: list[tuple[str, float, Any]], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("RPINFS_ROOT", str(make_tree(root, {"proc/cmdline": "root=/dev/sda1\n"})))
    assert cli.main(words) == 0
    assert [what for what, *_ in given] == ["host"]


# Watching


class Screen(io.StringIO):
    """Standard output that knows what was flushed."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal, self.shown = terminal, ""

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        self.shown = self.getvalue()


@pytest.mark.parametrize(("terminal", "before", "after"), [(True, cli.CLEAR, ""), (False, "", "\n")])
def test_status_is_drawn_again_every_two_seconds_until_ctrl_c(
    pi: Path, given: list[tuple[str, float, Any]], monkeypatch: pytest.MonkeyPatch,
    terminal: bool, before: str, after: str,
) -> None:  # fmt: skip
    """Without a terminal, one picture after the other, with an empty line between them."""
    monkeypatch.setenv("NO_COLOR", "1")
    cli.main(["status"])
    given.clear()
    screen, slept = Screen(terminal), []

    def sleep(seconds: float) -> None:
        slept.append((seconds, screen.shown))
        if len(slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr("time.sleep", sleep)
    assert pi and cli.main(["status", "--watch"]) == 0
    [(first, one), (second, two)] = slept
    assert (first, second) == (2.0, 2.0) and given[:2] == [("host", 1.0, None), ("questions", 2.0, None)]
    picture = one.removeprefix(before).removesuffix(after)
    assert one == f"{before}{picture}{after}" and picture.count("What is wrong, and what to do:") == 1
    assert two.startswith(one + before) and two.count("What is wrong, and what to do:") == 2


# Checks


def test_lines_and_exit_status_of_checks(
    pi: Path, given: list[tuple[str, float, Any]], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    found = [
        Result("image.space", "Room", "docker", Status.WARNING, "nearly full", "grow it"),
        Result("share.space", "Room", "", Status.OK, "it is well", ""),
    ]
    monkeypatch.setattr(checks, "judge", lambda *_: found)
    assert pi and given == [] and cli.main(["check"]) == 1
    assert capsys.readouterr().out == (
        "warning   image.space(docker): nearly full\n          grow it\nok        share.space: it is well\n"
    )
    assert cli.main(["check", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["schema", "in_use", "reason", "status", "exit_status", "checks"]
    assert (document["schema"], document["in_use"], document["reason"]) == (1, True, None)
    assert (document["status"], document["exit_status"], len(document["checks"])) == ("warning", 1, 2)
    found.clear()
    assert cli.main(["check"]) == 0
