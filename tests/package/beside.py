"""Runs in a booted container of test_beside_docker.py, where Docker and containerd run before rpinfs is there.

What it sees goes to a file, step by step.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

RESULT = Path("/result.json")
DOCKER, CONTAINERD, SOCKET = "docker.service", "containerd.service", "docker.socket"
MARK = Path("/run/rpinfs-from-next-boot")
GENERATED = Path("/run/systemd/generator")

Facts = dict[str, object]


def installed() -> Facts:
    return {"said": run("dpkg", "-i", "/srv/rpinfs.deb"), **state()}


def restarted() -> Facts:
    """By whom ever: apt has reloaded systemd for another package, and restarts what uses its library."""
    run("systemctl", "daemon-reload")
    return {"failed": failed("restart", DOCKER, CONTAINERD), **state()}


def upgraded() -> Facts:
    """The agent does not run yet, and is not to be started."""
    run("dpkg", "-i", "/srv/rpinfs.deb")
    return {"failed": failed("restart", DOCKER, CONTAINERD), **state()}


def removed() -> Facts:
    run("dpkg", "-r", "rpinfs")
    return {"failed": failed("restart", DOCKER, CONTAINERD), **state()}


def installed_with_docker_down() -> Facts:
    """Nothing runs on the old folders, and nothing is to begin to."""
    run("systemctl", "stop", DOCKER, SOCKET, CONTAINERD)
    run("dpkg", "-i", "/srv/rpinfs.deb")
    run("systemctl", "daemon-reload")
    return {"failed": failed("start", DOCKER), "containerd_failed": failed("start", CONTAINERD), **state()}


def next_boot() -> Facts:
    return {"failed": failed("start", DOCKER), "containerd_failed": failed("start", CONTAINERD), **state()}


STEPS: dict[str, list[Callable[[], Facts]]] = {
    "first": [installed, restarted, upgraded, removed, installed_with_docker_down, removed, installed],
    "second": [next_boot],
}


def state() -> Facts:
    return {
        "docker": show(DOCKER, "ActiveState"),
        "docker_pid": show(DOCKER, "MainPID"),
        "containerd": show(CONTAINERD, "ActiveState"),
        "agent": show("rpinfs-agent.service", "ActiveState"),
        "burst": show(SOCKET, "TriggerLimitBurst"),
        "mark": MARK.exists(),
        "generated": sorted(str(path.relative_to(GENERATED)) for path in GENERATED.rglob("*rpinfs*")),
    }


def show(unit: str, name: str) -> str:
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def failed(*words: str) -> bool:
    return subprocess.run(["systemctl", *words], capture_output=True, check=False).returncode != 0


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{argv}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def drive(boot: str) -> None:
    result: list[Facts] = []
    for step in STEPS[boot]:
        result.append({"step": step.__name__, **step()})
        RESULT.write_text(json.dumps(result))
    run("systemctl", "poweroff", "--no-block")


if __name__ == "__main__":
    drive(sys.argv[1])
