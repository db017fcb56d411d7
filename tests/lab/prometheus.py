"""A Pi of the lab is watched by Debian's Prometheus, through its node exporter on the Pi."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.watching import RULES, Prometheus, prometheus_argv

from .lab import Lab
from .network import NETWORK, PREFIX_LENGTH, Namespace
from .pi import Pi
from .process import Daemon, run

EVERY = {"scrape_interval": "15s", "scrape_timeout": "10s", "evaluation_interval": "15s"}
ADDRESS = "127.0.0.1:9090"
# What README says, for a root that is on the NAS as well.
ARGS = "--collector.textfile.directory=/run/rpinfs/metrics --no-collector.os --no-collector.filesystem"


def give_exporter(pi: Pi, watchers: Path) -> None:
    """The program, unit and settings of Debian's package, and the drop-in of ours, as rpinfs(8) has it."""
    program = pi.path("/usr/bin/prometheus-node-exporter")
    program.write_bytes((watchers / "usr/bin/prometheus-node-exporter").read_bytes())
    program.chmod(0o755)
    (unit,) = watchers.glob("**/prometheus-node-exporter.service")
    pi.write(f"/usr/lib/systemd/system/{unit.name}", unit.read_text())
    pi.write("/etc/default/prometheus-node-exporter", f'ARGS="{ARGS}"\n')
    pi.write("/etc/passwd", pi.read("/etc/passwd") + "prometheus:x:999:65534::/:/usr/sbin/nologin\n")
    ours = pi.read("/usr/share/rpinfs/monitoring/prometheus-node-exporter.conf")
    pi.write(f"/etc/systemd/system/{unit.name}.d/rpinfs.conf", ours)
    wanted = pi.path(f"/etc/systemd/system/multi-user.target.wants/{unit.name}")
    wanted.parent.mkdir(exist_ok=True)
    wanted.symlink_to(f"/usr/lib/systemd/system/{unit.name}")


@contextmanager
def watched_by_prometheus(lab: Lab, pi: Pi, watchers: Path, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus at work, with the alert rules, on a machine of its own. It may not answer yet: asking it waits."""
    box = Namespace(f"{lab.name}-watcher")
    lab.switch.connect(box, "watcher")
    box.ip("address", "add", f"{NETWORK}.9/{PREFIX_LENGTH}", "dev", "eth0")
    (folder / "rules.yml").write_text(RULES.read_text())
    argv = prometheus_argv(watchers, folder, ADDRESS, f"{pi.address}:9100", EVERY)
    fetch = box.inside("curl", "--silent", "--fail", "--retry", "60", "--retry-connrefused", "--retry-delay", "1")
    daemon = Daemon("Prometheus", box.inside(*argv), folder / "prometheus.log")
    try:
        yield Prometheus(ADDRESS, lambda url: run([*fetch, url]).encode())
    finally:
        daemon.kill()
