"""The alert rules and the dashboard: what fires and when, by promtool, and that they ask for what there is."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rpinfs.commands.cli import COMMANDS
from rpinfs.health import checks
from rpinfs.health.metrics import METRICS
from tests.support import TOP

FOLDER = TOP / "units/monitoring"
RULES, DASHBOARD = FOLDER / "rpinfs.rules.yml", FOLDER / "rpinfs.dashboard.json"
SHARE, IMAGE, PI = 'share="/nfs/docker"', 'image="docker"', 'instance="pi1:9100", job="node"'
GIB = 1 << 30


class Case(NamedTuple):
    """Series from minute 0 on as promtool writes them, and the minutes at which the alert fires and does not."""

    alert: str
    series: dict[str, str]
    fires: str
    quiet: str
    value: str
    """A word of the summary, which has the figure in it."""


UP = {f"rpinfs_share_up{{{SHARE}, {PI}}}": "1x600"}
CASES = [
    Case("RpinfsNasSilent", {f"rpinfs_share_up{{{SHARE}, {PI}}}": "1x4 0x2 1x5"}, "6m", "4m 5m 8m", "/nfs/docker"),
    Case("RpinfsShareFull", {
        f"rpinfs_share_free_bytes{{{SHARE}, {PI}}}": f"{50 * GIB}x5 {5 * GIB}x5 {50 * GIB}x5",
        f"rpinfs_share_size_bytes{{{SHARE}, {PI}}}": f"{100 * GIB}x20",
    }, "8m", "4m 14m", "5GiB"),
    Case("RpinfsShareOvercommitted", {
        f"rpinfs_image_size_bytes{{{IMAGE}, {PI}}}": f"{20 * GIB}x30",
        f"rpinfs_image_allocated_bytes{{{IMAGE}, {PI}}}": f"{4 * GIB}x30",
        f"rpinfs_share_free_bytes{{{SHARE}, {PI}}}": f"{17 * GIB}x5 {15 * GIB}x10 {17 * GIB}x10",
    }, "12m", "5m 20m", "16GiB"),
    Case("RpinfsImageNearlyFull", {
        f"rpinfs_image_filesystem_size_bytes{{{IMAGE}, {PI}}}": f"{10 * GIB}x30",
        f"rpinfs_image_filesystem_avail_bytes{{{IMAGE}, {PI}}}": f"{2 * GIB}x5 {GIB // 2}x10 {2 * GIB}x10",
    }, "12m", "5m 20m", "5% of its room"),
    Case("RpinfsGateClosed", {f"rpinfs_gate_open{{{PI}}}": "1x3 0x6 1x5", **UP}, "7m", "4m 12m", "Docker"),
    Case("RpinfsLeaseLost", {f"rpinfs_lease_held{{{IMAGE}, {PI}}}": "1x3 0x6 1x5", **UP}, "7m", "3m 12m", "docker"),
    Case("RpinfsImageReadOnly", {f"rpinfs_image_readonly{{{IMAGE}, {PI}}}": "0x3 1x3 0x3"}, "5m", "3m 8m", "read-only"),
    Case("RpinfsImageErrors", {
        f"rpinfs_image_filesystem_errors{{{IMAGE}, {PI}}}": "0x3 2x3 0x3",
    }, "5m", "3m 8m", "2 errors"),
    # A minute is 60 seconds of the clock, and the agent's word stays at that of minute 4.
    Case("RpinfsAgentNotHeard", {
        f"rpinfs_agent_pulse_timestamp_seconds{{{PI}}}": "0+60x4 240x10 900+60x5",
    }, "9m", "6m 16m", "m 0s"),
    Case("RpinfsAgentGone", {
        f"rpinfs_agent_pulse_timestamp_seconds{{{PI}}}": "0+60x4 _x20 1500+60x10", f"up{{{PI}}}": "1x60",
    }, "20m", "4m 9m 30m", "is no more"),
    Case("RpinfsDown", {
        f"rpinfs_agent_pulse_timestamp_seconds{{{PI}}}": "0+60x4 _x20 1500+60x10", f"up{{{PI}}}": "1x4 0x20 1x20",
    }, "12m", "5m 30m", "cannot be asked"),
    Case("RpinfsSnapshotTooOld", {
        f"rpinfs_snapshot_newest_timestamp_seconds{{{IMAGE}, {PI}}}": "0x15000",
    }, "194h", "191h 192h", "8d"),
]  # fmt: skip


def nothing_at(case: Case, minutes: str) -> dict[str, Any]:
    """A file of promtool's that expects no alert at these minutes; JSON is YAML."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": minute, "alertname": case.alert, "exp_alerts": []} for minute in minutes.split()
        ],
    }
    return {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}


def run(promtool: Path, folder: Path, document: dict[str, Any]) -> str:
    file = folder / "test.yml"
    file.write_text(json.dumps(document))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def rules() -> Iterator[dict[str, str]]:
    """The rules, as far as they are to be read here: a line each, an expression maybe of several."""
    for part in RULES.read_text().split("      - alert: ")[1:]:
        keys = dict(re.findall(r"^ +(\w+): \"?(.*?)\"?$", part, re.MULTILINE))
        expression = re.search(r"expr: (?:>-\n)?(.*?)\n        (?:for|labels):", part, re.DOTALL)
        assert expression
        yield {**keys, "alert": part.partition("\n")[0], "expr": " ".join(expression[1].split())}


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\brpinfs_\w+", expression))


def test_promtool_takes_the_rules(promtool: Path) -> None:
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(list(rules()))} rules found" in done.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_and_resolves(case: Case, promtool: Path, tmp_path: Path) -> None:
    assert run(promtool, tmp_path, nothing_at(case, case.quiet)) == ""
    # That nothing is expected has it say what there is.
    said = run(promtool, tmp_path, nothing_at(case, case.fires))
    assert "FAILED" in said and case.alert in said
    assert case.value in said, said
    assert 'instance="pi1:9100"' in said, said


def test_each_alert_has_its_case_its_sentence_and_its_command() -> None:
    names = [check.name for check in checks.CHECKS]
    for rule in rules():
        assert rule["summary"].startswith("{{ $labels.instance }}: ") and rule["description"].endswith(".")
        assert rule["severity"] in ("warning", "critical")
        program, command, *words = rule["command"].split()
        if program == "rpinfs":
            assert command in COMMANDS
            if command == "check":
                assert all(any(word in (name, name.partition(".")[0]) for name in names) for word in words), rule
        else:
            assert program in ("docker", "systemctl")
        assert metrics_in(rule["expr"]) <= {metric.name for metric in METRICS}, rule
        assert metrics_in(rule["expr"])
    assert sorted(rule["alert"] for rule in rules()) == sorted(case.alert for case in CASES)


def queries() -> list[str]:
    document = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in document["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_for_what_there_is() -> None:
    document = json.loads(DASHBOARD.read_text())
    asked = set[str]().union(*map(metrics_in, queries()))
    assert asked <= {metric.name for metric in METRICS}
    # What the agent's file has; of the checks, a dashboard of Pis whose file it is would show nothing.
    only_commands = {"rpinfs_check_status", "rpinfs_checks_run_timestamp_seconds"}
    shown_by_rules = {"rpinfs_snapshot_newest_timestamp_seconds"}
    assert {metric.name for metric in METRICS} - asked == only_commands | shown_by_rules
    variable, *others = document["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [target for panel in document["panels"] for target in panel["targets"]]
    assert all(one["datasource"] == source for one in (*document["panels"], *targets, *others))
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])


def test_prometheus_understands_each_query(promtool: Path, tmp_path: Path) -> None:
    """As a rule: promtool reads the expression. Grafana puts the variable in."""
    text = "\n".join(
        f"  - record: test:number{number}\n    expr: {json.dumps(query.replace('$instance', '.*'))}"
        for number, query in enumerate(queries())
    )
    (tmp_path / "rules.yml").write_text(f"groups:\n- name: test\n  rules:\n{text}\n")
    done = subprocess.run(
        [promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
