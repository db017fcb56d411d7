"""The table of metrics and its text format; that Prometheus takes it, see tools/health/test_promtool.py."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.boot import gate
from rpinfs.boot.host import Host
from rpinfs.errors import printable
from rpinfs.health import checks, measuring, metrics
from rpinfs.health.checks import CHECKS
from rpinfs.health.facts import Facts, File, Files, facts_of
from rpinfs.health.metrics import METRICS, Image, Known, Share
from tests.support import DOCKER_FILE
from tests.unit.health.pi import GIB, MOUNTINFO, SILENCE, WELL, facts, live, mountinfo

ALL = Known(
    "0.1.0",
    Share("/nfs/docker", True, 0.002, 0.0, 100 * GIB, 60 * GIB, 2, 61.5),
    (Image("docker", True, False, 10 * GIB, GIB, 9 * GIB, 8 * GIB, 4, 1.7e9, True, 1.6e9),),
    True,
    1.9e9,
    (("share.space", "", "ok"), ("mount.right", "docker", "critical")),
    1.8e9,
)
"""Everything that there is to know."""

UNITS = ("_bytes", "_seconds", "_total", "_info", "_ratio")
WITHOUT_UNIT = {
    "rpinfs_check_status", "rpinfs_share_up", "rpinfs_image_mounted", "rpinfs_image_readonly", "rpinfs_lease_held",
    "rpinfs_image_filesystem_errors", "rpinfs_gate_open",
}  # fmt: skip
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
LABEL = re.compile(r'([a-z]+)="((?:[^"\\\n]|\\[\\"n])*)"')
LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (\S+)')


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Read the text format by its description: comments, and lines of name, labels and value, without time stamps."""
    found: dict[tuple[str, ...], float] = {}
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# "):
            assert re.fullmatch(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (gauge|counter))", line), line
            continue
        parts = LINE.fullmatch(line)
        assert parts, line
        values = [re.sub(r"\\.", lambda each: UNESCAPED[each[0]], value) for _, value in LABEL.findall(parts[2] or "")]
        key = (parts[1], *values)
        assert key not in found, line
        found[key] = float(parts[3])
    return found


def test_every_row_has_a_sample_where_everything_is_known() -> None:
    text = metrics.render(ALL)
    assert [line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")] == [m.name for m in METRICS]
    assert {key[0] for key in samples(text)} == {metric.name for metric in METRICS}
    share, image = "/nfs/docker", "docker"
    assert samples(text) == {
        ("rpinfs_build_info", "0.1.0"): 1,
        ("rpinfs_check_status", "share.space"): 0,
        ("rpinfs_check_status", "mount.right", image): 2,
        ("rpinfs_checks_run_timestamp_seconds",): 1.8e9,
        ("rpinfs_share_up", share): 1,
        ("rpinfs_share_answer_seconds", share): 0.002,
        ("rpinfs_share_silent_seconds", share): 0,
        ("rpinfs_share_size_bytes", share): 100 * GIB,
        ("rpinfs_share_free_bytes", share): 60 * GIB,
        ("rpinfs_share_outages_total", share): 2,
        ("rpinfs_share_outage_seconds_total", share): 61.5,
        ("rpinfs_image_mounted", image): 1,
        ("rpinfs_image_readonly", image): 0,
        ("rpinfs_image_size_bytes", image): 10 * GIB,
        ("rpinfs_image_allocated_bytes", image): GIB,
        ("rpinfs_image_filesystem_size_bytes", image): 9 * GIB,
        ("rpinfs_image_filesystem_avail_bytes", image): 8 * GIB,
        ("rpinfs_image_filesystem_errors", image): 4,
        ("rpinfs_snapshot_newest_timestamp_seconds", image): 1.7e9,
        ("rpinfs_lease_held", image): 1,
        ("rpinfs_lease_renewed_timestamp_seconds", image): 1.6e9,
        ("rpinfs_gate_open",): 1,
        ("rpinfs_agent_pulse_timestamp_seconds",): 1.9e9,
    }


def test_of_what_nobody_knows_there_is_nothing() -> None:
    empty = Known("1", Share("/s"), (Image("docker"),))
    assert metrics.render(empty).splitlines()[2:] == ['rpinfs_build_info{version="1"} 1']
    for owner, count in ((Share, 1), (Image, 1)):
        assert all(field.default is None for field in fields(owner)[count:])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_and_help(metric: metrics.Metric) -> None:
    """Prometheus, "Metric and label naming": a prefix, base units in the plural, _total for what is counted."""
    assert re.fullmatch(r"rpinfs_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith(UNITS) or metric.name in WITHOUT_UNIT
    assert metric.name.endswith("_total") == metric.counter
    assert metric.help.endswith(".") and len(metric.help) < 240
    assert all(re.fullmatch(r"[a-z]+", label) for label in metric.labels)


def test_names_are_there_once() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert set(metrics.NUMBERS) == {status.word for status in checks.Status}
    assert all(metrics.NUMBERS[status.word] == status.value for status in checks.Status)


@given(st.text(st.sampled_from('ab\\"\n\r\t\0\x1b{}=,| é\udcff\u2028'), min_size=1))
def test_any_label_comes_through_on_its_line(label: str) -> None:
    text = metrics.render(Known("1", images=(Image(label, mounted=True),)))
    text.encode()
    found = [key for key in samples(text) if key[0] == "rpinfs_image_mounted"]
    assert len(found) == 1
    # What printable() leaves of it, with what is no UTF-8 spelled out.
    assert found[0][1:] in ((printable(label).encode("utf-8", "backslashreplace").decode(),), ())
    assert metrics.told_by(text).lines["rpinfs_image_mounted"] == [text.splitlines()[-1]]


def test_what_the_agent_alone_knows_is_taken_from_its_file() -> None:
    told = metrics.told_by(metrics.render(ALL) + 'rpinfs_lease_held{image="x"} 1 1700000000\nnonsense\n# rpinfs_x 1\n')
    own = Known("0.2.0", Share("/nfs/docker", up=False))
    found = samples(metrics.render(own, told))
    assert found["rpinfs_share_up", "/nfs/docker"] == 0
    assert found["rpinfs_lease_held", "docker"] == 1
    assert found["rpinfs_share_outages_total", "/nfs/docker"] == 2
    assert found["rpinfs_build_info", "0.2.0"] == 1
    assert ("rpinfs_lease_held", "x") not in found
    # Without the agent nothing is said of what it alone knows.
    without = {key[0] for key in samples(metrics.render(ALL, metrics.Told()))}
    assert {metric.name for metric in METRICS} - without == {
        "rpinfs_share_outages_total", "rpinfs_share_outage_seconds_total", "rpinfs_lease_held",
        "rpinfs_lease_renewed_timestamp_seconds", "rpinfs_agent_pulse_timestamp_seconds",
    }  # fmt: skip


@pytest.mark.parametrize(("value", "text"), [
    (True, "1"), (False, "0"), (0.25, "0.25"), (-0.25, "-0.25"), (-3.0, "-3"), (1 << 60, str(1 << 60)),
    (float("nan"), "NaN"), (float("inf"), "+Inf"), (float("-inf"), "-Inf"), (1e-7, "1e-07"),
])  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert metrics.number(value) == text
    assert float(text) == value or text == "NaN"


def known(found: Facts) -> dict[tuple[str, ...], float]:
    return samples(metrics.render(measuring.known_of(found, checks.judge(found))))


def test_of_a_pi_on_which_all_is_well(root: Path) -> None:
    name = f"{DOCKER_FILE}.snapshot-20260102T030405Z"
    other = f"{DOCKER_FILE}.old.snapshot-20270102T030405Z"
    files = Files({DOCKER_FILE: File(10 * GIB, GIB), name: File(1, 1), other: File(1, 1)}, complete=True)
    found = known(facts(root, answers={"files": files}))
    assert found["rpinfs_share_up", "/nfs/docker"] == 1
    assert found["rpinfs_share_free_bytes", "/nfs/docker"] == WELL.available
    assert found["rpinfs_share_silent_seconds", "/nfs/docker"] == 0
    assert found["rpinfs_image_mounted", "docker"] == 1
    assert found["rpinfs_image_readonly", "docker"] == 0
    assert found["rpinfs_image_size_bytes", "docker"] == 10 * GIB
    assert found["rpinfs_image_allocated_bytes", "docker"] == GIB
    assert found["rpinfs_image_filesystem_avail_bytes", "docker"] == WELL.available
    assert found["rpinfs_image_filesystem_errors", "docker"] == 0
    assert found["rpinfs_snapshot_newest_timestamp_seconds", "docker"] == 1767323045
    assert found[("rpinfs_gate_open",)] == 1
    statuses = {key[1:]: value for key, value in found.items() if key[0] == "rpinfs_check_status"}
    assert ("mount.right", "docker") in statuses and ("share.space",) in statuses
    assert {name for name, *_ in statuses} <= {check.name for check in CHECKS}


def test_while_the_nas_is_silent(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {gate.STATE_FILE: json.dumps({"share": {"state": "silent", "since": 0, "size": 7, "free": 5}})}
    silent = live(facts(root, files=said, answers={"share": SILENCE, "files": SILENCE}), monkeypatch)
    silent.now = 100.0
    found = known(silent)
    assert found["rpinfs_share_up", "/nfs/docker"] == 0
    assert found["rpinfs_share_silent_seconds", "/nfs/docker"] == 100
    assert found["rpinfs_share_free_bytes", "/nfs/docker"] == 5
    assert ("rpinfs_share_answer_seconds", "/nfs/docker") not in found
    assert ("rpinfs_snapshot_newest_timestamp_seconds", "docker") not in found
    assert found["rpinfs_check_status", "share.answers"] == 2


def test_where_the_image_is_not_mounted_the_gate_is_closed(root: Path) -> None:
    lines = MOUNTINFO.splitlines(keepends=True)
    found = known(facts(root, files=mountinfo(*lines[:3])))
    assert found["rpinfs_image_mounted", "docker"] == 0
    assert found[("rpinfs_gate_open",)] == 0
    assert ("rpinfs_image_readonly", "docker") not in found


def test_where_rpinfs_is_not_in_use(root: Path) -> None:
    (root / "proc").mkdir()
    found = measuring.known_of(facts_of(Host.read(str(root))), [])
    assert {key[0] for key in samples(metrics.render(found))} == {
        "rpinfs_build_info", "rpinfs_checks_run_timestamp_seconds",
    }  # fmt: skip
