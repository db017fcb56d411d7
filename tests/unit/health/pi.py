"""A Pi on which all is well, as facts, and the words of which cases are made in which it is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from rpinfs.boot import gate
from rpinfs.boot.host import Host
from rpinfs.boot.units import AGENT, GATE, units
from rpinfs.health import checks
from rpinfs.health.checks import Result, Status
from rpinfs.health.facts import Docker, DockerConfig, Facts, File, Files, Machine, Nas, Space, facts_of
from rpinfs.health.questions import ask_gate, ask_nic
from rpinfs.lease.lease import Owner
from rpinfs.system.deadline import TimedOut, _outcome
from rpinfs.system.hidden import Hidden
from rpinfs.system.network import Route
from rpinfs.system.systemd import UnitState
from tests.support import DOCKER_FILE, SERIAL, Content, make_pi, make_tree

GIB = 1 << 30
NAS = "192.168.1.10"
IMAGE = f"/nfs/docker/{DOCKER_FILE}"
BOOT_LINE = f"30 20 0:30 / /boot/firmware ro,relatime - nfs4 {NAS}:/tftpboot ro,vers=4.1,hard,addr={NAS}\n"
SHARE_LINE = f"31 20 0:31 / /nfs/docker rw,relatime - nfs4 {NAS}:/docker rw,vers=4.1,hard,addr={NAS}\n"
IMAGE_LINE = "32 20 7:3 / /var/lib/docker rw,noatime - ext4 /dev/loop3 rw\n"
BIND_LINE = "33 20 7:3 /.rpinfs/var-lib-containerd /var/lib/containerd rw,noatime - ext4 /dev/loop3 rw\n"
ROOT_LINE = f"20 1 0:20 / / rw,relatime - nfs4 {NAS}:/nfsroot/pi rw,vers=4.1,hard,proto=tcp,addr={NAS}\n"
MOUNTINFO = ROOT_LINE + BOOT_LINE + SHARE_LINE + IMAGE_LINE + BIND_LINE
LOOP = "sys/block/loop3"

FILES: Mapping[str, Content] = {
    "proc/self/mountinfo": MOUNTINFO,
    "proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n",
    "sys/dev/block/7:3": Path("../../block/loop3"),
    f"{LOOP}/loop/backing_file": IMAGE + "\n",
    # All zeros, as the xfs that stands on the device.
    "run/rpinfs/docker.uuid": "00000000-0000-0000-0000-000000000000\n",
    "dev/loop3": b"XFSB".ljust(4096, b"\0"),
    f"{LOOP}/loop/dio": "1\n",
    f"{LOOP}/loop/autoclear": "1\n",
    f"{LOOP}/loop/offset": "0\n",
    f"{LOOP}/queue/logical_block_size": "4096\n",
    "sys/fs/ext4/loop3/errors_count": "0\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0\tpartition\t524284\t0\t100\n",
    "sys/block/zram0/backing_dev": "none\n",
    "proc/sys/kernel/osrelease": "6.12.47+rpt-rpi-v8\n",
    "proc/sys/kernel/version": "#1 SMP PREEMPT Debian 1:6.12.47-1+rpt1 (2025-09-16)\n",
    gate.STATE_FILE: '{"images": {"docker": {"clean": true}}}',
    "sys/class/net/eth0/address": "dc:a6:32:00:00:01\n",
    "sys/class/net/eth0/carrier": "1\n",
    "sys/class/net/eth0/speed": "1000\n",
    "sys/class/net/eth0/duplex": "full\n",
}


def unit(name: str, active: str = "active", load: str = "loaded", result: str = "success", **more: object) -> UnitState:
    values: dict[str, object] = {
        "sub": "running",
        "enabled": "enabled",
        "job": "",
        "since": 1.0,
        "has_run": True,
        **more,
    }
    return UnitState(name=name, load=load, active=active, result=result, **values)  # type: ignore[arg-type]


WELL = Space(size=100 * GIB, available=60 * GIB, inodes=1000, inodes_free=900, seconds=0.002)
DOCKER = Docker("26.1.5", "overlay2", "/var/lib/docker", 2, 1, 3)
ANSWERS: Mapping[str, object] = {
    "share": WELL,
    "files": Files({DOCKER_FILE: File(10 * GIB, GIB)}, complete=True),
    "image:docker": File(10 * GIB, GIB),
    "owner:docker": Owner(SERIAL, "pi"),
    "space:docker": WELL,
    "docker": DOCKER,
    "docker-config": DockerConfig("", "/var/lib/containerd"),
    "overlay:docker": [],
    "hidden": [Hidden("/nfs/docker", "/", 0, 0, (), True), Hidden("/var/lib/docker", "/", 0, 0, (), True)],
    "machine": Machine(4 * GIB, 3 * GIB, 20 << 20),
    "route": Route(NAS, "eth0", "", "192.168.1.77"),
    "nas": Nas(NAS, 0.001),
    "failed": {},
    "placed": [],
    "systemd": {
        AGENT: unit(AGENT),
        GATE: unit(GATE, active="inactive", sub="dead", enabled="static"),
        "docker.service": unit("docker.service"),
        "containerd.service": unit("containerd.service"),
    },
}


def facts(
    root: Path,
    config: str = "",
    files: Mapping[str, Content] | None = None,
    answers: Mapping[str, object] | None = None,
) -> Facts:
    """The facts of a Pi on which all is well, with other files and answers put in."""
    make_pi(root, config, {**FILES, **(files or {})})
    found = facts_of(Host.read(str(root)))
    if not any(name.startswith("run/systemd/generator") for name in files or {}):
        make_tree(root / "run/systemd/generator", units(found.config, found.host.fstab).files)
    found.clock = 1_800_000_000.0
    verdicts = {f"gate:{image.name}": ask_gate(found, image) for image in found.config.images}
    found.answers = {**ANSWERS, **verdicts, "nic": _outcome(lambda: ask_nic(found)), **(answers or {})}
    return found


def results(found: Facts) -> dict[str, Result]:
    return {result.name: result for result in checks.judge(found)}


def live(found: Facts, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """Facts as of the running system, although they were read below a folder."""
    monkeypatch.setattr(Facts, "live", property(lambda _: True))
    return found


class Case(NamedTuple):
    name: str
    expected: Status | None
    """None: the check says nothing here."""
    message: str
    config: str = ""
    files: Mapping[str, Content] = {}
    answers: Mapping[str, object] = {}
    image: str = "docker"


OK, WARNING, CRITICAL, UNKNOWN = Status.OK, Status.WARNING, Status.CRITICAL, Status.UNKNOWN
SILENCE = TimedOut(1.4)


def mountinfo(*lines: str) -> dict[str, Content]:
    return {"proc/self/mountinfo": "".join(lines)}


def agent(state: str, message: str = "", remedy: str = "") -> dict[str, Content]:
    text = f'{{"images": {{"docker": {{"state": "{state}", "message": "{message}", "remedy": "{remedy}"}}}}}}'
    return {gate.STATE_FILE: text}


def systemd(**states: UnitState) -> dict[str, object]:
    usual = ANSWERS["systemd"]
    assert isinstance(usual, dict)
    return {"systemd": {**usual, **{f"{name.replace('_', '-')}.service": state for name, state in states.items()}}}


def room(available: int, inodes_free: int = 900) -> Space:
    return replace(WELL, available=available, inodes_free=inodes_free)


Judged = Callable[[Case], Result | None]
"""What the fixture `judged` is: the result of the check of a case."""


def assert_judged(case: Case, result: Result | None) -> None:
    """What a check made of a case is what the case says."""
    if case.expected is None:
        assert result is None
        return
    assert result is not None
    assert (result.status, case.message in result.message) == (case.expected, True), result
    assert bool(result.remedy) == (case.expected in (WARNING, CRITICAL)) or case.expected is UNKNOWN, result
    assert "{" not in result.remedy
    (result.message + result.remedy).encode("ascii")
