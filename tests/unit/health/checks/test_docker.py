"""Checks of what runs: what each says of a machine that is well, and of one that is not."""

from __future__ import annotations

import errno
from dataclasses import replace

from rpinfs.boot.units import AGENT, GATE
from rpinfs.errors import RpinfsError
from rpinfs.health.facts import DockerConfig, NotAskedError
from tests.unit.health.pi import (
    CRITICAL,
    DOCKER,
    OK,
    SILENCE,
    UNKNOWN,
    WARNING,
    Case,
    Judged,
    assert_judged,
    systemd,
    unit,
)

STARTING = unit("docker.service", "inactive", job="start")

CASES = [
    Case("agent.running", OK, f"{AGENT} runs, with 20 MiB of memory"),
    Case("agent.running", CRITICAL, f"{AGENT} is failed (exit-code)", answers=systemd(
        rpinfs_agent=unit(AGENT, "failed", result="exit-code"))),
    Case("agent.running", WARNING, "is starting", answers=systemd(rpinfs_agent=unit(AGENT, "activating"))),
    Case("agent.running", UNKNOWN, "no answer within 1.4 s", answers={"systemd": SILENCE}),
    Case("gate.passed", CRITICAL, "the gate has refused the last start of Docker", answers=systemd(
        rpinfs_gate=unit(GATE, "failed", result="exit-code"))),
    # It stays active while units wait for it; that is no refusal.
    *(Case("gate.passed", OK, "let the last start of Docker pass", answers=systemd(
        rpinfs_gate=unit(GATE, active=active))) for active in ("active", "activating", "deactivating", "inactive")),
    Case("gate.passed", CRITICAL, "the gate has refused", answers=systemd(
        rpinfs_gate=unit(GATE, active="failed", result=""))),
    Case("gate.passed", CRITICAL, "the gate has refused the last start of Docker (timeout)", answers=systemd(
        rpinfs_gate=unit(GATE, active="inactive", result="timeout"))),
    Case("gate.passed", OK, "let the last start of Docker pass", answers=systemd(
        rpinfs_gate=unit(GATE, active="inactive", result=""))),
    Case("gate.passed", CRITICAL, "not-found: nothing holds Docker back", answers=systemd(
        rpinfs_gate=unit(GATE, "inactive", load="not-found"))),
    Case("gate.passed", WARNING, "has not passed the gate", answers=systemd(
        rpinfs_gate=unit(GATE, "inactive", has_run=False))),
    Case("gate.passed", None, "", answers=systemd(
        rpinfs_gate=unit(GATE, "inactive", has_run=False), docker=unit("docker.service", "inactive"))),
    Case("docker.running", CRITICAL, "docker.service is failed (exit-code)", answers=systemd(
        docker=unit("docker.service", "failed", result="exit-code"))),
    Case("docker.running", WARNING, "not installed", answers=systemd(
        docker=unit("docker.service", "inactive", load="not-found"))),
    Case("docker.running", WARNING, "starting", answers=systemd(docker=STARTING)),
    Case("docker.running", WARNING, "not enabled", answers=systemd(
        docker=unit("docker.service", "inactive", enabled="disabled"))),
    Case("docker.running", None, "", "[Image docker]\nBefore=\nBefore=podman.service\n"),
    Case("docker.driver", OK, "overlayfs", answers={"docker": replace(DOCKER, driver="overlayfs")}),
    Case("docker.driver", CRITICAL, "vfs", answers={"docker": replace(DOCKER, driver="vfs")}),
    Case("docker.driver", CRITICAL, "native", answers={"docker": replace(DOCKER, driver="native")}),
    Case("docker.driver", CRITICAL, "fuse-overlayfs", answers={"docker": replace(DOCKER, driver="fuse-overlayfs")}),
    Case("docker.driver", WARNING, "btrfs", answers={"docker": replace(DOCKER, driver="btrfs")}),
    Case("docker.driver", None, "", answers={"docker": NotAskedError("Docker does not run")}),
    Case("docker.root", OK, "in /var/lib/docker/231072.231072, on image docker", answers={
        "docker": replace(DOCKER, root="/var/lib/docker/231072.231072")}),
    Case("docker.root", CRITICAL, "in /var/lib/docker2, which is on no image", answers={
        "docker": replace(DOCKER, root="/var/lib/docker2")}),
    Case("docker.placed", OK, "Docker and containerd will write to verified images"),
    Case("docker.placed", CRITICAL, "data root /mnt/x is on no verified image", answers={
        "placed": [RpinfsError("Docker's data root /mnt/x is on no verified image", "reboot")]}),
    Case("docker.placed", None, "", answers={"placed": NotAskedError("what is mounted is not right")}),
    Case("docker.userns", OK, "Docker maps no user ids"),
    Case("docker.userns", OK, "as userns-remap=default says", answers={
        "docker": replace(DOCKER, userns=True), "docker-config": DockerConfig("default", "/var/lib/containerd")}),
    Case("docker.userns", WARNING, "maps no user ids, but /etc/docker/daemon.json says userns-remap=default", answers={
        "docker-config": DockerConfig("default", "/var/lib/containerd")}),
    Case("docker.userns", WARNING, "maps user ids, but /etc/docker/daemon.json has no userns-remap", answers={
        "docker": replace(DOCKER, userns=True)}),
    Case("docker.userns", None, "", answers={"docker": NotAskedError("Docker does not run")}),
    Case("docker.userns", UNKNOWN, "Permission denied", answers={
        "docker": PermissionError(errno.EACCES, "Permission denied")}),
    Case("containerd.root", OK, "in /var/lib/containerd, on image docker"),
    Case("containerd.root", CRITICAL, "in /srv/containerd, which is on no image", answers={
        "docker-config": DockerConfig("", "/srv/containerd")}),
    Case("containerd.root", None, "", answers=systemd(
        containerd=unit("containerd.service", "inactive", load="not-found"))),
]  # fmt: skip


def test_case(case: Case, judged: Judged) -> None:
    assert_judged(case, judged(case))
