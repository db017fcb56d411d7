"""Prometheus and Nagios as Debian has them, from `make watchers`: how they are told what to do, and asked."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import TOP

RULES = TOP / "units/monitoring/rpinfs.rules.yml"
DASHBOARD = TOP / "units/monitoring/rpinfs.dashboard.json"


@dataclass(frozen=True)
class Panel:
    """One of the dashboard, of all Pis.

    Attributes:
        place: x, y, width and height, in a grid of 24 columns.
        unit: of the values, as Grafana calls it: none, s, bytes, percent.
        words: what stands for a value where it is a state.
        queries: each with what its lines are called, as `{{instance}} {{image}}`.
    """

    title: str
    place: tuple[int, int, int, int]
    unit: str
    words: Mapping[float, str]
    queries: Mapping[str, str]


def panels(document: Mapping[str, Any] | None = None) -> list[Panel]:
    """Those of a dashboard, ours if none is given, in its order."""
    found = []
    for panel in (document or json.loads(DASHBOARD.read_text()))["panels"]:
        shown = panel["fieldConfig"]["defaults"]
        words = {
            float(value): one["text"] for each in shown.get("mappings", ()) for value, one in each["options"].items()
        }
        x, y, width, height = (panel["gridPos"][name] for name in "xywh")
        queries = {one["expr"].replace("$instance", ".*"): one["legendFormat"] for one in panel["targets"]}
        found.append(Panel(panel["title"], (x, y, width, height), shown["unit"], words, queries))
    return found


class Prometheus:
    """One that answers.

    Args:
        fetch: gets what is at its address, from where that is known.
    """

    def __init__(self, address: str, fetch: Callable[[str], bytes]) -> None:
        self.address = address
        self._fetch = fetch

    def ask(self, path: str, **words: str) -> dict[str, list[dict[str, Any]]]:
        """The data of an answer of its HTTP API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        data: dict[str, list[dict[str, Any]]] = json.loads(self._fetch(url))["data"]
        return data

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {one["labels"]["alertname"] for one in self.ask("alerts")["alerts"] if one["state"] == "firing"}

    def empty(self) -> list[str]:
        """Those queries of the dashboard that show nothing."""
        queries = [query for panel in panels() for query in panel.queries]
        assert len(queries) > 15
        return [one for one in queries if not self.ask("query", query=one)["result"]]

    def courses(self, panel: Panel, begin: float, end: float, step: float) -> dict[str, list[tuple[float, float]]]:
        """The lines of a panel by their names: times and values. begin and end in seconds since 1970, step in s."""
        found = {}
        for query, name in panel.queries.items():
            words = {"start": str(begin), "end": str(end), "step": str(step)}
            for line in self.ask("query_range", query=query, **words)["result"]:
                found[named(name, line["metric"])] = [(float(when), float(value)) for when, value in line["values"]]
        return found


def named(legend: str, labels: Mapping[str, str]) -> str:
    """What Grafana calls a line."""
    return re.sub(r"{{ *(\w+) *}}", lambda label: labels.get(label[1], ""), legend)


def prometheus_argv(watchers: Path, folder: Path, address: str, target: str, every: Mapping[str, str]) -> list[str]:
    """The command line of a Prometheus that watches one node exporter, with the rules in `folder`/rules.yml."""
    scrape = {"job_name": "node", "static_configs": [{"targets": [target]}]}
    config = {"global": dict(every), "rule_files": [str(folder / "rules.yml")], "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    return [
        str(watchers / "usr/bin/prometheus"), f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}",
    ]  # fmt: skip


ALWAYS = "\n".join(
    f" {day} 00:00-24:00" for day in ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
)


def nagios_config(folder: Path, commands: Mapping[str, str], every: int = 1, limit: int = 60) -> Path:
    """A Nagios that has a host with a service for each command, checks each every so many seconds, and notes what came.

    Args:
        limit: seconds after which it ends a command.

    Returns:
        its configuration, for nagios4 to be started with.
    """
    objects = [f"define timeperiod {{\n timeperiod_name always\n alias always\n{ALWAYS}\n}}\n"]
    same = " max_check_attempts 1\n check_period always\n contacts nobody\n notification_interval 0\n"
    same += " notification_period always\n}\n"
    objects += ["define command {\n command_name nothing\n command_line /bin/true\n}\n"]
    objects += [
        "define contact {\n contact_name nobody\n host_notifications_enabled 0\n service_notifications_enabled 0"
    ]
    objects += [" host_notification_period always\n service_notification_period always"]
    objects += [" host_notification_commands nothing\n service_notification_commands nothing\n}\n"]
    objects += [f"define host {{\n host_name pi\n address 127.0.0.1\n{same}"]
    for name, command in commands.items():
        objects += [f"define command {{\n command_name {name}\n command_line {command}\n}}\n"]
        service = f"define service {{\n host_name pi\n service_description {name}\n check_command {name}\n"
        objects += [f"{service} check_interval {every}\n retry_interval {every}\n{same}"]
    (folder / "objects.cfg").write_text("\n".join(objects))
    (folder / "results").mkdir()
    settings = {
        "log_file": folder / "log", "cfg_file": folder / "objects.cfg", "object_cache_file": folder / "cache",
        "precached_object_file": folder / "precached", "status_file": folder / "status",
        "nagios_user": "root", "nagios_group": "root", "check_external_commands": 0,
        "command_file": folder / "command", "query_socket": folder / "query", "lock_file": folder / "lock",
        "temp_file": folder / "temporary", "temp_path": folder, "check_result_path": folder / "results",
        "use_syslog": 0, "state_retention_file": folder / "retention", "retain_state_information": 0,
        "process_performance_data": 1, "service_perfdata_file": folder / "perfdata",
        "service_perfdata_file_template": r"$SERVICEDESC$\t$SERVICESTATE$\t$SERVICEOUTPUT$\t$SERVICEPERFDATA$\t"
        r"$LONGSERVICEOUTPUT$",
        "illegal_macro_output_chars": "`~$&|'\"<>", "interval_length": 1, "execute_host_checks": 0,
        "check_workers": 1, "service_check_timeout": limit,
    }  # fmt: skip
    (folder / "nagios.cfg").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return folder / "nagios.cfg"


def nagios_results(config: Path) -> dict[str, list[str]]:
    """The last result of each service: state, text, performance data, more lines."""
    file = config.parent / "perfdata"
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    return {line.split("\t")[0]: line.split("\t")[1:] for line in lines if line.count("\t") >= 4}
