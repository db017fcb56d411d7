"""Watched from outside, by the real things: Prometheus and a node exporter of Debian take what a real agent writes.

The share is a tmpfs that can be made silent, see test_measure.py. The NAS is gone for three minutes, and the alerts
have the times that people get; without the mark `long`, and RPINFS_ALL_POINTS, all is shortened to a minute.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rpinfs.lease import lease
from rpinfs.lease.owner import Owner
from tests.support import TOP, Tell, thorough
from tests.tools.agent.conftest import Started
from tests.tools.agent.test_measure import QUICK, SILENT, inside

pytestmark = [pytest.mark.root, pytest.mark.long]

SECONDS = 900.0 if thorough() else 120.0
OUTAGE = 180.0 if thorough() else 6.0
RULES = TOP / "units/monitoring/rpinfs.rules.yml"
DASHBOARD = TOP / "units/monitoring/rpinfs.dashboard.json"
# Each try is a line in the agent's log, which nobody reads here before its end: 64 KiB of it stop the agent.
RETRY = f"work.LEASE_RETRY_SECONDS = {20.0 if thorough() else 1.0}\n"


class Prometheus:
    """A Prometheus that answers."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **words: str) -> dict[str, list[dict[str, Any]]]:
        """The data of an answer of its HTTP API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            data: dict[str, list[dict[str, Any]]] = json.load(answer)["data"]
        return data

    def firing(self) -> set[str]:
        return {one["labels"]["alertname"] for one in self.ask("alerts")["alerts"] if one["state"] == "firing"}

    def wait(self, is_so: Callable[[set[str]], bool]) -> float:
        """Seconds until that is so of what fires."""
        begun, fires = time.monotonic(), set[str]()
        while time.monotonic() < begun + SECONDS:
            try:
                if is_so(fires := self.firing()):
                    return time.monotonic() - begun
            except OSError:
                pass  # It has just been started.
            time.sleep(0.2)
        raise AssertionError(fires)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(log: Path, *argv: object) -> Iterator[None]:
    with log.open("w") as output, subprocess.Popen(list(map(str, argv)), stdout=output, stderr=output) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def prometheus(watchers: Path, tmp_path: Path) -> Iterator[Prometheus]:
    exporter, address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    rules = RULES.read_text()
    if not thorough():
        rules = re.sub(r"for: \w+", "for: 2s", rules)
    (tmp_path / "rules.yml").write_text(rules)
    scrape = {"job_name": "node", "static_configs": [{"targets": [exporter]}]}
    every = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}
    config = {"global": every, "rule_files": [str(tmp_path / "rules.yml")], "scrape_configs": [scrape]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    with ExitStack() as stack:
        folder = tmp_path / "run/metrics"
        stack.enter_context(running(
            tmp_path / "exporter.log", watchers / "usr/bin/prometheus-node-exporter",
            "--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}",
            f"--web.listen-address={exporter}",
        ))  # fmt: skip
        stack.enter_context(running(
            tmp_path / "prometheus.log", watchers / "usr/bin/prometheus", f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={address}",
        ))  # fmt: skip
        yield Prometheus(address)


def mounted(agent: Started, where: Path) -> None:
    """As systemd does when the agent has published the image."""
    deadline = time.monotonic() + SECONDS
    while not os.path.lexists(agent.run / "docker") and time.monotonic() < deadline:
        time.sleep(0.1)
    inside(agent, "mount", os.readlink(agent.run / "docker"), where)
    inside(agent, "ls", where)


def test_alerts_come_and_go(start: Callable[..., Started], prometheus: Prometheus, tmp_path: Path, tell: Tell) -> None:
    other = Owner("f" * 16, "other")
    image = str(tmp_path / "share/docker.img")
    lease.acquire(image, other).close()
    agent = start(QUICK + SILENT + RETRY)
    agent.hears("READY=1")
    # Another Pi has the image.
    came = prometheus.wait(lambda fires: fires >= {"RpinfsLeaseLost", "RpinfsGateClosed"})
    lease.release(image, other)
    mounted(agent, tmp_path / "where")
    try:
        went = prometheus.wait(lambda fires: not fires)
        tell(f"another Pi holds the image: fired after {came:.0f} s, went {went:.0f} s after it was given up")
        # The NAS is gone.
        (agent.run / "silent").touch()
        came = prometheus.wait(lambda fires: "RpinfsNasSilent" in fires)
        time.sleep(max(0.0, OUTAGE - came))
        fires = prometheus.firing()
        assert "RpinfsNasSilent" in fires and "RpinfsAgentNotHeard" not in fires, "the agent is heard all the time"
        (agent.run / "silent").unlink()
        went = prometheus.wait(lambda fires: not fires)
        tell(f"NAS gone for {max(came, OUTAGE):.0f} s: fired after {came:.0f} s, went {went:.0f} s after it was back")
        # The share is full.
        subprocess.run(["fallocate", "-l", "280M", tmp_path / "share/filler"], check=True)
        came = prometheus.wait(lambda fires: "RpinfsShareFull" in fires)
        (tmp_path / "share/filler").unlink()
        went = prometheus.wait(lambda fires: not fires)
        tell(f"share full: fired after {came:.0f} s, went {went:.0f} s after there was room")
        every_query_has_data(prometheus)
        # The agent is killed, and its file stays.
        pulse = prometheus.ask("query", query="rpinfs_agent_pulse_timestamp_seconds")["result"]
        agent.end(signal.SIGKILL)
        time.sleep(3)
        after = prometheus.ask("query", query="time() - rpinfs_agent_pulse_timestamp_seconds")["result"]
        assert pulse and float(after[0]["value"][1]) > 2
    finally:
        if agent.process.poll() is None:
            inside(agent, "umount", tmp_path / "where")


def every_query_has_data(prometheus: Prometheus) -> None:
    document = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    # The pulse renews the lease at its first beat after it was taken up, or three minutes later.
    late = "time() - rpinfs_lease_renewed_timestamp_seconds"
    empty = [
        query
        for query in queries
        if not prometheus.ask("query", query=query.replace("$instance", ".*"))["result"] and not query.startswith(late)
    ]
    assert empty == []
    assert len(queries) > 15
