"""What monitoring systems are told, read by the rules of their own documentation."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.health import checks, monitoring
from rpinfs.health.checks import CHECKS, Result, Status
from rpinfs.health.monitoring import Value
from tests.unit.health.pi import GIB, SILENCE, WELL, facts, room

# Monitoring Plugins Development Guidelines, "Performance data": 'label'=value[UOM];[warn];[crit];[min];[max]
NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
PERFORMANCE = re.compile(
    rf"('(?:[^'=|\n]|'')+'|[^ '=|\n]+)=({NUMBER})(s|us|ms|%|B|KB|MB|GB|TB|c)?((?:;(?:{NUMBER})?){{0,4}})"
)
# Checkmk, "Local checks": status, name in quotes, metrics or -, text.
LOCAL_CHECK = re.compile(r'([0123P]) "([^"\n]+)" (-|[^ "]+) ([^\n]*)')
METRIC = re.compile(rf"([A-Za-z][A-Za-z0-9_]*)=({NUMBER})((?:;(?:{NUMBER})?){{0,4}})")
HOSTILE = st.text(st.sampled_from("ab |=';\"\\\n\r\t\0\x1b,:!%\u2028é\udcff{}<>$`"), max_size=12)


class Figure(NamedTuple):
    value: float
    unit: str
    limits: list[str]


def performance(text: str) -> dict[str, Figure]:
    """Read performance data as the guidelines have it: parts apart by spaces, but for those in quotes."""
    found, left = {}, text
    while left:
        part = PERFORMANCE.match(left)
        assert part, left
        label = part[1][1:-1].replace("''", "'") if part[1].startswith("'") else part[1]
        assert label not in found
        found[label] = Figure(float(part[2]), part[3] or "", part[4].split(";")[1:])
        left = left[part.end() :]
        assert not left or left.startswith(" "), left
        left = left[1:]
    return found


def plugin(output: str) -> tuple[str, str, dict[str, Figure], list[str]]:
    """Status, text, performance data and further lines of a plug-in's output."""
    assert output.endswith("\n")
    first, *more = output[:-1].split("\n")
    text, bar, data = first.partition(" | ")
    assert "|" not in text and "|" not in data and not any("|" in line for line in more), output
    said = re.fullmatch(r"RPINFS (OK|WARNING|CRITICAL|UNKNOWN) - (.*)", text)
    assert said, first
    return said[1], said[2], performance(data) if bar else {}, more


def result(status: Status, message: str, name: str = "share.space", image: str = "", remedy: str = "") -> Result:
    return Result(name, "", image, status, message, remedy)


def test_all_is_well() -> None:
    found = [result(Status.OK, "well"), result(Status.OK, "well", "mount.right", "docker")]
    assert monitoring.nagios(found) == "RPINFS OK - all is well: 2 checks\n"
    assert monitoring.nagios(found[:1]) == "RPINFS OK - all is well: 1 check\n"
    assert monitoring.nagios([]) == "RPINFS OK - none of these checks applies here\n"


def test_the_worst_comes_first_and_the_rest_in_lines_of_their_own() -> None:
    found = [
        result(Status.UNKNOWN, "nobody knows", "share.answers"),
        result(Status.WARNING, "nearly full"),
        result(Status.OK, "well", "fstab.conflicts"),
        result(Status.CRITICAL, "full", "mount.space", "docker", "make room"),
    ]
    status, text, data, more = plugin(monitoring.nagios(found))
    assert (status, text, data) == ("CRITICAL", "full (and 2 more)", {})
    assert more == [
        "critical mount.space(docker): full",
        "  make room",
        "warning share.space: nearly full",
        "unknown share.answers: nobody knows",
    ]


def test_the_figures_of_a_pi_with_their_limits(root: Path) -> None:
    found = facts(root, answers={"share": room(8 * GIB), "space:docker": replace(WELL, available=60 * GIB)})
    data = performance(" ".join(map(monitoring._performance, monitoring.values(found, CHECKS))))
    share = data["share_used"]
    assert (share.value, share.unit) == (92 * GIB, "B")
    # 100 GiB: 90 and 97 percent of that.
    assert share.limits == [str(90 * GIB), str(97 * GIB), "0", str(100 * GIB)]
    assert data["share_answer"] == Figure(0.002, "s", ["0.5", "", "0"])
    assert data["nas_connect"] == Figure(0.001, "s", ["", "", "0"])
    assert data["docker_used"].value == 40 * GIB
    assert data["docker_inodes"] == Figure(100.0, "", ["900", "970", "0", "1000"])
    assert data["docker_allocated"] == Figure(GIB, "B", ["", "", "0", str(10 * GIB)])


@pytest.mark.parametrize("free", [101 * GIB, 100 * GIB, 99 * GIB, 10 * GIB])
def test_the_limits_of_a_large_share_are_those_of_the_check(root: Path, free: int) -> None:
    """A share with 100 GiB free is never called full, whatever part of it that is."""
    found = facts(root, answers={"share": replace(WELL, size=8000 * GIB, available=free)})
    (used,) = [value for value in monitoring.values(found, CHECKS) if value.label == "share_used"]
    warning, critical = used.limits
    assert warning is not None and critical is not None
    judged = {one.name: one.status for one in checks.judge(found)}["share.space"]
    by_limits = Status.CRITICAL if used.value > critical else Status.WARNING if used.value > warning else Status.OK
    assert by_limits is judged


def test_what_was_not_asked_or_not_answered_has_no_figure(root: Path) -> None:
    found = facts(root, answers={"share": SILENCE})
    some = [check for check in CHECKS if check.name.startswith("share.")]
    assert {value.label for value in monitoring.values(found, some)} == set()
    assert "docker_used" in {value.label for value in monitoring.values(found, CHECKS)}


@given(HOSTILE, HOSTILE, HOSTILE)
def test_what_the_share_says_ends_no_line_and_begins_no_figures(message: str, remedy: str, label: str) -> None:
    found = [result(Status.WARNING, message, image=label, remedy=remedy), result(Status.CRITICAL, message)]
    figures = [Value(label, 1.5, "s", "share", (1, 2), 3)] if label.strip() else []
    status, _, data, more = plugin(monitoring.nagios(found, figures))
    assert status == "CRITICAL" and len(data) == len(figures)
    assert len(more) == 2 + bool(remedy)
    lines = monitoring.checkmk(found, figures)
    assert lines.endswith("\n") and len(lines[:-1].split("\n")) == len({monitoring._service(one) for one in found})


def local_checks(output: str) -> dict[str, tuple[int, dict[str, list[str]], list[str]]]:
    """Services by their names: status, metrics with their values, and the lines of the text."""
    found = {}
    for line in output.splitlines():
        check = LOCAL_CHECK.fullmatch(line)
        assert check, line
        assert shlex.split(check[2]) and check[2] not in found
        metrics = {}
        for part in check[3].split("|") if check[3] != "-" else []:
            metric = METRIC.fullmatch(part)
            assert metric, part
            metrics[metric[1]] = [metric[2], *metric[3].split(";")[1:]]
        found[check[2]] = (int(check[1]), metrics, check[4].split("\\n"))
    return found


def test_local_checks_of_a_pi(root: Path) -> None:
    found = facts(root, answers={"share": room(2 * GIB)})
    judged = checks.judge(found)
    services = local_checks(monitoring.checkmk(judged, monitoring.values(found, CHECKS)))
    assert {name for name, (status, _, _) in services.items() if status} == {"rpinfs share", "rpinfs image"}
    status, metrics, text = services["rpinfs share"]
    assert status == 2
    assert metrics["share_used"] == [str(98 * GIB), str(90 * GIB), str(97 * GIB), "0", str(100 * GIB)]
    assert text[0] == "/nfs/docker has 2 GiB of 100 GiB free"
    assert text[1] == "critical share.space: /nfs/docker has 2 GiB of 100 GiB free"
    assert {"docker_used", "docker_inodes", "docker_allocated"} <= set(services["rpinfs image docker"][1])
    # Each figure has its place.
    assert sum(len(metrics) for _, metrics, _ in services.values()) == len(monitoring.values(found, CHECKS))


def test_a_backslash_and_an_n_are_no_new_line_of_checkmk() -> None:
    (line,) = monitoring.checkmk([result(Status.WARNING, r"x\nOK all is well")]).splitlines()
    assert line == r'1 "rpinfs share" - x\ nOK all is well\nwarning share.space: x\ nOK all is well'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0000014, "0.000001"),
        (1e-9, "0"),
        (0.5, "0.5"),
        (1 << 50, str(1 << 50)),
        (1e16 + 0.0, "1" + "0" * 16),
    ],
)
def test_numbers_have_no_exponent(value: float, text: str) -> None:
    assert monitoring._number(value) == text
