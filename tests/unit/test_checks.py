"""The table of checks: what each says of a machine that is well, and of one that is not."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from rpinfs import checks, gate, status
from rpinfs.checks import Result, Status
from rpinfs.errors import RpinfsError
from rpinfs.host import Host
from rpinfs.lease import Owner
from rpinfs.network import Route
from rpinfs.probe import TimedOut
from rpinfs.status import Docker, Facts, File, Files, Machine, Nas, Space
from rpinfs.systemd import UnitState
from rpinfs.units import AGENT, GATE
from tests.support import DOCKER_FILE, SERIAL, Content, make_pi

GIB = 1 << 30
NAS = "192.168.1.10"
IMAGE = f"/nfs/docker/{DOCKER_FILE}"
BOOT_LINE = f"30 20 0:30 / /boot/firmware ro,relatime - nfs4 {NAS}:/tftpboot ro,vers=4.1,hard,addr={NAS}\n"
SHARE_LINE = f"31 20 0:31 / /nfs/docker rw,relatime - nfs4 {NAS}:/docker rw,vers=4.1,hard,addr={NAS}\n"
IMAGE_LINE = "32 20 7:3 / /var/lib/docker rw,noatime - ext4 /dev/loop3 rw\n"
BIND_LINE = "33 20 7:3 /.rpinfs/var-lib-containerd /var/lib/containerd rw,noatime - ext4 /dev/loop3 rw\n"
MOUNTINFO = BOOT_LINE + SHARE_LINE + IMAGE_LINE + BIND_LINE
LOOP = "sys/block/loop3"

FILES: Mapping[str, Content] = {
    "proc/self/mountinfo": MOUNTINFO,
    "proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n",
    "sys/dev/block/7:3": Path("../../block/loop3"),
    f"{LOOP}/loop/backing_file": IMAGE + "\n",
    f"{LOOP}/loop/dio": "1\n",
    f"{LOOP}/loop/autoclear": "1\n",
    f"{LOOP}/loop/offset": "0\n",
    f"{LOOP}/queue/logical_block_size": "4096\n",
    "sys/fs/ext4/loop3/errors_count": "0\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
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
    "machine": Machine(4 * GIB, 3 * GIB, 20 << 20),
    "route": Route(NAS, "eth0", "", "192.168.1.77"),
    "nas": Nas(NAS, 0.001),
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
    found = status.facts_of(Host.read(str(root)))
    found.clock = 1_800_000_000.0
    found.answers = {**ANSWERS, **(answers or {})}
    return found


def results(found: Facts) -> dict[str, Result]:
    return {result.name: result for result in checks.judge(found)}


def live(found: Facts, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """Facts as of the running system, although they were read below a folder."""
    monkeypatch.setattr(Facts, "live", property(lambda _: True))
    return found


def test_names_are_of_one_form_and_none_is_there_twice() -> None:
    names = [check.name for check in checks.CHECKS]
    assert len(set(names)) == len(names) >= 25
    for check in checks.CHECKS:
        group, dot, rest = check.name.partition(".")
        assert group and dot and rest, check.name
        assert check.title and check.remedy, check.name
        assert not check.title.endswith("."), check.name


def test_all_is_well(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks.judge(live(facts(root, "[Image docker]\nSize=10G\n"), monkeypatch))
    assert [result for result in found if result.status is not Status.OK] == []
    assert {result.name for result in found} == {check.name for check in checks.CHECKS}
    assert all(result.remedy == "" for result in found)
    worst = checks.worst(found)
    assert worst is not None
    assert worst.status is Status.OK


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


STARTING = unit("docker.service", "inactive", job="start")


def room(available: int, inodes_free: int = 900) -> Space:
    return replace(WELL, available=available, inodes_free=inodes_free)


CASES = [
    Case("config.valid", CRITICAL, "/rpinfs.conf:2: [Server] Version=5: expected 3", "[Server]\nVersion=5\n"),
    Case("config.valid", CRITICAL, "(and 1 more: rpinfs config check)", "[Server]\nVersion=5\nAddress=a b\n"),
    Case("fstab.conflicts", WARNING, "/var/lib/docker is mounted by line 1 of /etc/fstab", files={
        "etc/fstab": "/nfs/docker/loop /var/lib/docker ext4 loop 0 0\n"}),
    Case("network.link", CRITICAL, "eth0 has no link", files={"sys/class/net/eth0/carrier": "0\n"}),
    Case("network.link", WARNING, "eth0 runs at 10 Mb/s", files={"sys/class/net/eth0/speed": "10\n"}),
    Case("network.link", OK, "eth0 has a link at 100 Mb/s", files={"sys/class/net/eth0/speed": "100\n"}),
    Case("network.link", OK, "eth0 has a link, full duplex", files={"sys/class/net/eth0/speed": "-1\n"}),
    Case("network.link", WARNING, "eth0 runs at half duplex", files={"sys/class/net/eth0/duplex": "half\n"}),
    Case("network.link", WARNING, "is wireless", files={"sys/class/net/eth0/wireless": None}),
    Case("network.link", OK, "eth0 has a link", answers={"route": SILENCE}),
    Case("network.route", OK, f"{NAS} is reached over eth0 by 192.168.1.1", answers={
        "route": Route(NAS, "eth0", "192.168.1.1")}),
    Case("network.route", UNKNOWN, "no answer within 1.4 s", files={"proc/net/route": ""}, answers={"route": SILENCE}),
    Case("network.server", OK, "takes a connection in 1 ms"),
    Case("network.server", CRITICAL, f"the NAS {NAS} gave no answer within 1.4 s", answers={
        "nas": SILENCE, "share": SILENCE}),
    Case("network.server", UNKNOWN, "no answer within 1.4 s", answers={"nas": SILENCE}),
    Case("network.server", CRITICAL, "does not serve NFS", answers={"nas": RpinfsError("x does not serve NFS")}),
    Case("share.mounted", CRITICAL, f"{NAS}:/docker is not mounted at /nfs/docker", files=mountinfo(BOOT_LINE)),
    Case("share.mounted", CRITICAL, "/dev/sda (ext4) is mounted there", files=mountinfo(
        "31 20 8:0 / /nfs/docker rw - ext4 /dev/sda rw\n")),
    Case("share.mounted", WARNING, "is mounted from other:/docker, the configuration says", files=mountinfo(
        SHARE_LINE.replace(f"{NAS}:/docker", "other:/docker"))),
    Case("share.mounted", CRITICAL, "mounted read-only", files=mountinfo(SHARE_LINE.replace(" rw", " ro"))),
    Case("share.options", CRITICAL, "mounted soft", files=mountinfo(SHARE_LINE.replace("hard", "soft"))),
    Case("share.options", WARNING, "with NFS 3, the configuration says 4.1", files=mountinfo(
        SHARE_LINE.replace("4.1", "3"))),
    Case("share.options", None, "", files=mountinfo(BOOT_LINE)),
    Case("share.answers", CRITICAL, "/nfs/docker gave no answer within 1.4 s", answers={"share": SILENCE}),
    Case("share.answers", CRITICAL, "/nfs/docker fails: Stale file handle", answers={
        "share": OSError(errno.ESTALE, os.strerror(errno.ESTALE))}),
    Case("share.answers", WARNING, "answers slowly, in 800 ms", answers={"share": replace(WELL, seconds=0.8)}),
    Case("share.answers", None, "", files=mountinfo(BOOT_LINE)),
    Case("share.space", WARNING, "8 GiB of 100 GiB free", answers={"share": room(8 * GIB)}),
    Case("share.space", CRITICAL, "2 GiB of 100 GiB free", answers={"share": room(2 * GIB)}),
    Case("share.space", UNKNOWN, "no answer within 1.4 s", answers={"share": SILENCE}),
    Case("image.present", OK, f"{IMAGE} is there, 10 GiB long"),
    Case("image.present", CRITICAL, f"there is no {IMAGE}", answers={"image:docker": FileNotFoundError(2, "No such")}),
    Case("image.present", CRITICAL, "it is LUKS", files=agent("refused", "it is LUKS", "move it")),
    Case("image.present", WARNING, "image docker is being prepared: making it", files=agent("preparing", "making it")),
    Case("image.present", UNKNOWN, "no answer within 1.4 s", answers={"image:docker": SILENCE}),
    Case("image.present", None, "", files={"etc/fstab": "/x /var/lib/docker ext4 loop\n"}),
    Case("image.owner", OK, "image docker belongs to this Pi"),
    Case("image.owner", CRITICAL, "belongs to pi2 (serial 2)", answers={"owner:docker": Owner("2", "pi2")}),
    Case("image.owner", WARNING, "belongs to nobody", answers={"owner:docker": status.NOBODY}),
    Case("image.owner", UNKNOWN, "no answer within 1.4 s", answers={"owner:docker": SILENCE}),
    Case("image.owner", None, "", "[Image docker]\nFence=mmp\n"),
    Case("image.size", WARNING, "has 10 GiB, the configuration says 20 GiB", "[Image docker]\nSize=20G\n"),
    Case("image.size", WARNING, "has 10 GiB, the configuration says 5 GiB", "[Image docker]\nSize=5G\n"),
    Case("image.size", None, ""),
    Case("image.allocated", OK, "takes 1 GiB of its 10 GiB on the NAS, and holds 40 GiB"),
    Case("image.allocated", OK, "takes 9 GiB", answers={
        "image:docker": File(10 * GIB, 9 * GIB), "space:docker": room(99 * GIB)}),
    Case("image.allocated", WARNING, "takes 9 GiB of its 10 GiB on the NAS, and holds 1 GiB", "[Server]\nVersion=4.2\n",
        mountinfo(SHARE_LINE.replace("4.1", "4.2"), IMAGE_LINE),
        {"image:docker": File(10 * GIB, 9 * GIB), "space:docker": room(99 * GIB)}),
    Case("image.fits-share", OK, "may still grow by 9 GiB, and 60 GiB are free"),
    Case("image.fits-share", WARNING, "may still grow by 108 GiB, and 60 GiB are free", answers={
        "files": Files({DOCKER_FILE: File(10 * GIB, GIB), "other.img": File(99 * GIB, 0)}, complete=True)}),
    Case("loop.direct-io", WARNING, "/dev/loop3 is buffered", files={f"{LOOP}/loop/dio": "0\n"}),
    Case("loop.direct-io", OK, "as DirectIO=no says", "[Image docker]\nDirectIO=no\n", {f"{LOOP}/loop/dio": "0\n"}),
    Case("loop.block-size", WARNING, "blocks of 512 bytes, expected 4096", files={
        f"{LOOP}/queue/logical_block_size": "512\n"}),
    Case("mount.right", CRITICAL, "image docker is not mounted at /var/lib/docker", files=mountinfo(SHARE_LINE)),
    Case("mount.right", CRITICAL, "found /nfs/docker/x", files={f"{LOOP}/loop/backing_file": "/nfs/docker/x\n"}),
    Case("mount.right", CRITICAL, "/var/lib/containerd is not mounted", files=mountinfo(SHARE_LINE, IMAGE_LINE)),
    Case("mount.writable", CRITICAL, "/var/lib/docker is read-only", files=mountinfo(
        IMAGE_LINE.replace("/dev/loop3 rw", "/dev/loop3 ro"))),
    Case("mount.writable", None, "", files=mountinfo(SHARE_LINE)),
    Case("mount.errors", CRITICAL, "ext4 has recorded 3 errors", files={"sys/fs/ext4/loop3/errors_count": "3\n"}),
    Case("mount.space", WARNING, "/var/lib/docker is 92 % full, 8 GiB of 100 GiB free", answers={
        "space:docker": room(8 * GIB)}),
    Case("mount.space", CRITICAL, "99 % full", answers={"space:docker": room(1 * GIB)}),
    Case("mount.inodes", WARNING, "has used 95 % of its 1000 inodes", answers={"space:docker": room(60 * GIB, 50)}),
    Case("mount.inodes", None, "", answers={"space:docker": replace(WELL, inodes=0, inodes_free=0)}),
    Case("boot.mounted", WARNING, f"the boot files {NAS}:/tftpboot are not mounted", files=mountinfo(SHARE_LINE)),
    Case("boot.mounted", None, "", "[Boot]\nExport=\n"),
    Case("boot.mounted", WARNING, "is mounted from other:/tftpboot", files=mountinfo(
        BOOT_LINE.replace(f"{NAS}:/", "other:/"))),
    Case("boot.read-only", WARNING, "/boot/firmware is writable", files=mountinfo(BOOT_LINE.replace(" ro", " rw"))),
    Case("boot.read-only", OK, "as Options= in [Boot] says", "[Boot]\nOptions=noatime\n", mountinfo(
        BOOT_LINE.replace(" ro", " rw"))),
    Case("agent.running", OK, f"{AGENT} runs, with 20 MiB of memory"),
    Case("agent.running", CRITICAL, f"{AGENT} is failed (exit-code)", answers=systemd(
        rpinfs_agent=unit(AGENT, "failed", result="exit-code"))),
    Case("agent.running", WARNING, "is starting", answers=systemd(rpinfs_agent=unit(AGENT, "activating"))),
    Case("agent.running", UNKNOWN, "no answer within 1.4 s", answers={"systemd": SILENCE}),
    Case("gate.passed", CRITICAL, "the gate has refused the last start of Docker", answers=systemd(
        rpinfs_gate=unit(GATE, "failed", result="exit-code"))),
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
    Case("docker.driver", None, "", answers={"docker": status.NotAskedError("Docker does not run")}),
    Case("docker.root", OK, "in /var/lib/docker/231072.231072, on image docker", answers={
        "docker": replace(DOCKER, root="/var/lib/docker/231072.231072")}),
    Case("docker.root", CRITICAL, "in /var/lib/docker2, which is on no image", answers={
        "docker": replace(DOCKER, root="/var/lib/docker2")}),
    Case("memory.cgroup", WARNING, "does not count memory", files={"sys/fs/cgroup/cgroup.controllers": "cpu io\n"}),
    Case("memory.cgroup", OK, "counts memory", files={
        "sys/fs/cgroup/cgroup.controllers": "", "proc/cgroups": "#name hierarchy num enabled\nmemory\t5\t80\t1\n"}),
    Case("memory.cgroup", WARNING, "does not count memory", files={
        "sys/fs/cgroup/cgroup.controllers": "", "proc/cgroups": "#name hierarchy num enabled\nmemory\t5\t80\t0\n"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name} {case.message or 'nothing'}"[:60])
def test_case(case: Case, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = results(live(facts(root, case.config, case.files, case.answers), monkeypatch)).get(case.name)
    if case.expected is None:
        assert result is None
        return
    assert result is not None
    assert (result.status, case.message in result.message) == (case.expected, True), result
    assert bool(result.remedy) == (case.expected in (WARNING, CRITICAL)), result
    assert "{" not in result.remedy
    (result.message + result.remedy).encode("ascii")


def test_every_check_has_a_case_in_which_it_is_not_ok() -> None:
    bad = {case.name for case in CASES if case.expected in (WARNING, CRITICAL, UNKNOWN)}
    assert {check.name for check in checks.CHECKS} - bad == {"clock.sane"}


def test_a_clock_in_1970(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = live(facts(root), monkeypatch)
    found.clock = 60.0
    assert results(found)["clock.sane"].status is WARNING


def test_what_is_said_of_a_mount_is_what_the_gate_says(root: Path) -> None:
    found = facts(root, files=mountinfo(SHARE_LINE))
    (refusal,) = gate.verdict(found.config, found.host)
    assert results(found)["mount.right"].message == refusal.message


def test_a_wrong_configuration_leaves_only_what_does_not_depend_on_it(root: Path) -> None:
    found = results(facts(root, "[Server]\nVersion=5\n"))
    assert set(found) <= {check.name for check in checks.CHECKS if check.without_config}
    assert found["config.valid"].status is CRITICAL


def test_each_image_has_its_own_results(root: Path) -> None:
    config = "[Image docker]\n[Image data]\nWhere=/srv/data\n"
    found = [result for result in checks.judge(facts(root, config)) if result.name == "mount.right"]
    assert [(result.image, result.status) for result in found] == [("docker", OK), ("data", CRITICAL)]


def result(status: Status) -> Result:
    return Result("a.b", "", "", status, "", "")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], None),
        ([OK], OK),
        ([OK, UNKNOWN], UNKNOWN),
        ([UNKNOWN, WARNING], WARNING),
        ([CRITICAL, UNKNOWN, WARNING, OK], CRITICAL),
    ],
)
def test_the_worst(found: list[Status], expected: Status | None) -> None:
    worst = checks.worst(map(result, found))
    assert (worst.status if worst else None) is expected


def test_select() -> None:
    def names(*wanted: str) -> list[str]:
        return [check.name for check in checks.select(wanted)]

    assert names() == [check.name for check in checks.CHECKS]
    assert names("loop") == ["loop.direct-io", "loop.block-size"]
    assert names("share.space", "config.valid") == ["config.valid", "share.space"]
    with pytest.raises(RpinfsError, match=r"unknown check share.spce; did you mean share.space\?") as caught:
        names("share.spce")
    assert caught.value.status == 2


def test_only_what_the_selected_checks_need_is_asked(root: Path) -> None:
    found = facts(root, files={"nfs/docker": None})

    def asked(*names: str) -> set[str]:
        found.answers = {}
        status.ask(found, 5.0, checks.needs(checks.select(names)))
        return set(found.answers)

    assert asked("config.valid") == set()
    assert asked("share.space") == {"share"}
    assert asked("image.size") == {"image:docker"}


def test_a_question_that_was_not_asked_makes_a_check_silent(root: Path) -> None:
    found = facts(root)
    found.answers = {}
    for result in checks.judge(found):
        assert result.status is not UNKNOWN, result
