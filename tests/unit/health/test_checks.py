"""The table of checks: what each says of a machine that is well, and of one that is not."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from rpinfs.boot import gate
from rpinfs.boot.host import Host
from rpinfs.boot.units import AGENT, GATE, units
from rpinfs.errors import RpinfsError
from rpinfs.health import checks
from rpinfs.health.checks import Result, Status
from rpinfs.health.checks.share import ENOUGH_ROOM, LEAST_ROOM
from rpinfs.health.facts import (
    NOBODY,
    THOROUGH,
    Docker,
    DockerConfig,
    Facts,
    File,
    Files,
    Machine,
    Nas,
    NotAskedError,
    Space,
    _questions,
    ask,
    ask_gate,
    ask_nic,
    facts_of,
)
from rpinfs.image.superblock import Groups, Superblock
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


def dhcpcd(settings: str) -> dict[str, Content]:
    return {"proc/303/comm": "dhcpcd\n", "etc/dhcpcd.conf": settings}


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


def clean(value: str) -> dict[str, Content]:
    return {gate.STATE_FILE: f'{{"images": {{"docker": {{"clean": {value}}}}}}}'}


def kernel(release: str, build: str) -> dict[str, Content]:
    return {"proc/sys/kernel/osrelease": release + "\n", "proc/sys/kernel/version": build + "\n"}


def swap(path: str) -> dict[str, Content]:
    return {"proc/swaps": f"{SWAPS}{path}\tfile\t102400\t0\t-2\n"}


SWAPS = "Filename\tType\tSize\tUsed\tPriority\n"
UNMOUNTED = mountinfo(SHARE_LINE)
SUPERBLOCK = Superblock("ext4", "", "docker", 4096, 4096, 10 * GIB, Groups(0, 128 << 20, 1 << 20), clean=True)
STARTING = unit("docker.service", "inactive", job="start")


def room(available: int, inodes_free: int = 900) -> Space:
    return replace(WELL, available=available, inodes_free=inodes_free)


CASES = [
    Case("config.valid", CRITICAL, "/rpinfs.conf:2: [Server] Version=5: expected 3", "[Server]\nVersion=5\n"),
    Case("config.valid", CRITICAL, "(and 1 more: rpinfs config check)", "[Server]\nVersion=5\nAddress=a b\n"),
    Case("fstab.conflicts", WARNING, "/var/lib/docker is mounted by line 1 of /etc/fstab", files={
        "etc/fstab": "/nfs/docker/loop /var/lib/docker ext4 loop 0 0\n"}),
    Case("units.written", CRITICAL, "has written no units", files={"run/systemd/generator": None}),
    Case("units.written", WARNING, "nfs-docker.mount var-lib-docker.mount", files={
        "run/systemd/generator/nfs-docker.mount": "[Mount]\nWhat=another:/docker\n"}),
    Case("network.link", CRITICAL, "eth0 has no link", files={"sys/class/net/eth0/carrier": "0\n"}),
    Case("network.link", WARNING, "eth0 runs at 10 Mb/s", files={"sys/class/net/eth0/speed": "10\n"}),
    Case("network.link", OK, "eth0 has a link at 100 Mb/s", files={"sys/class/net/eth0/speed": "100\n"}),
    Case("network.link", OK, "eth0 has a link, full duplex", files={"sys/class/net/eth0/speed": "-1\n"}),
    Case("network.link", WARNING, "eth0 runs at half duplex", files={"sys/class/net/eth0/duplex": "half\n"}),
    Case("network.link", WARNING, "is wireless", files={"sys/class/net/eth0/wireless": None}),
    Case("network.link", OK, "eth0 has a link", answers={"route": SILENCE}),
    Case("network.manager", OK, "nobody manages eth0"),
    Case("network.manager", OK, "dhcpcd manages eth0 and leaves it up", files=dhcpcd("persistent\n")),
    Case("network.manager", WARNING, "dhcpcd may take down eth0, which carries the root", files=dhcpcd("")),
    Case("network.manager", UNKNOWN, "no answer within 1.4 s", answers={"nic": SILENCE}),
    Case("network.route", OK, f"{NAS} is reached over eth0 by 192.168.1.1", answers={
        "route": Route(NAS, "eth0", "192.168.1.1")}),
    Case("network.route", UNKNOWN, "no answer within 1.4 s", files={"proc/net/route": ""}, answers={"route": SILENCE}),
    Case("network.server", OK, "takes a connection in 1 ms"),
    Case("network.server", WARNING, "takes a connection in 300 ms", answers={"nas": Nas(NAS, 0.3)}),
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
    Case("share.options", CRITICAL, "mounted over UDP", files=mountinfo(SHARE_LINE.replace("hard", "hard,proto=udp"))),
    Case("share.answers", CRITICAL, "/nfs/docker gave no answer within 1.4 s", answers={"share": SILENCE}),
    Case("share.answers", CRITICAL, "/nfs/docker fails: Stale file handle", answers={
        "share": OSError(errno.ESTALE, os.strerror(errno.ESTALE))}),
    Case("share.answers", WARNING, "answers slowly, in 800 ms", answers={"share": replace(WELL, seconds=0.8)}),
    Case("share.answers", None, "", files=mountinfo(BOOT_LINE)),
    Case("share.space", WARNING, "8 GiB of 100 GiB free", answers={"share": room(8 * GIB)}),
    Case("share.space", CRITICAL, "2 GiB of 100 GiB free", answers={"share": room(2 * GIB)}),
    Case("share.space", OK, "100 GiB of 10 TiB free", answers={
        "share": replace(WELL, size=10 << 40, available=ENOUGH_ROOM)}),
    Case("share.space", CRITICAL, "of 10 TiB free", answers={
        "share": replace(WELL, size=10 << 40, available=ENOUGH_ROOM - 1)}),
    Case("share.space", UNKNOWN, "no answer within 1.4 s", answers={"share": SILENCE}),
    Case("image.present", OK, f"{IMAGE} is there, 10 GiB long"),
    Case("image.present", CRITICAL, f"there is no {IMAGE}", answers={"image:docker": FileNotFoundError(2, "No such")}),
    Case("image.present", CRITICAL, "it is LUKS", files=agent("refused", "it is LUKS", "move it")),
    Case("image.present", WARNING, "image docker is being prepared: making it", files=agent("preparing", "making it")),
    Case("image.present", UNKNOWN, "no answer within 1.4 s", answers={"image:docker": SILENCE}),
    Case("image.present", None, "", files={"etc/fstab": "/x /var/lib/docker ext4 loop\n"}),
    Case("image.owner", OK, "image docker belongs to this Pi"),
    Case("image.owner", CRITICAL, "belongs to pi2 (serial 2)", answers={"owner:docker": Owner("2", "pi2")}),
    Case("image.owner", WARNING, "belongs to nobody", answers={"owner:docker": NOBODY}),
    Case("image.owner", UNKNOWN, "no answer within 1.4 s", answers={"owner:docker": SILENCE}),
    Case("image.owner", None, "", "[Image docker]\nFence=mmp\n"),
    Case("image.size", WARNING, "has 10 GiB, the configuration says 20 GiB", "[Image docker]\nSize=20G\n"),
    Case("image.size", WARNING, "has 10 GiB, the configuration says 5 GiB", "[Image docker]\nSize=5G\n"),
    Case("image.size", None, ""),
    Case("image.size", None, "", "[Image docker]\nSize=20G\n", files={
        gate.STATE_FILE: '{"images": {"docker": {"state": "refused"}}}'}),
    Case("image.allocated", OK, "takes 1 GiB of its 10 GiB on the NAS, and holds 40 GiB"),
    Case("image.allocated", OK, "takes 9 GiB", answers={
        "image:docker": File(10 * GIB, 9 * GIB), "space:docker": room(99 * GIB)}),
    Case("image.allocated", WARNING, "takes 9 GiB of its 10 GiB on the NAS, and holds 1 GiB", "[Server]\nVersion=4.2\n",
        mountinfo(SHARE_LINE.replace("4.1", "4.2"), IMAGE_LINE),
        {"image:docker": File(10 * GIB, 9 * GIB), "space:docker": room(99 * GIB)}),
    Case("image.fits-share", OK, "may still grow by 9 GiB, and 60 GiB are free"),
    Case("image.fits-share", WARNING, "may still grow by 108 GiB, and 60 GiB are free", answers={
        "files": Files({DOCKER_FILE: File(10 * GIB, GIB), "other.img": File(99 * GIB, 0)}, complete=True)}),
    Case("image.fits-share", WARNING, "may still grow by 9 GiB, and 5 GiB are free", answers={
        "share": room(LEAST_ROOM)}),
    Case("image.fits-share", CRITICAL, "may still grow by 9 GiB, and 4 GiB are free", answers={
        "share": room(LEAST_ROOM - GIB)}),
    Case("image.fits-share", OK, "may still grow by 1 GiB, and 4 GiB are free", answers={
        "share": room(4 * GIB), "image:docker": File(10 * GIB, 9 * GIB)}),
    Case("image.clean", OK, "was unmounted in order before it was mounted"),
    Case("image.clean", OK, "was not unmounted in order, and was put right before", files=clean("false")),
    Case("image.clean", None, "", files=clean("null")),
    Case("image.clean", OK, "not mounted, was unmounted in order", files=UNMOUNTED, answers={
        "superblock:docker": SUPERBLOCK}),
    Case("image.clean", WARNING, "not mounted, was not unmounted in order", files=UNMOUNTED, answers={
        "superblock:docker": replace(SUPERBLOCK, clean=False)}),
    Case("image.clean", WARNING, "has errors recorded (2)", files=UNMOUNTED, answers={
        "superblock:docker": replace(SUPERBLOCK, errors_recorded=2)}),
    Case("image.clean", UNKNOWN, "no answer", files=UNMOUNTED, answers={"superblock:docker": SILENCE}),
    Case("image.clean", None, "", files=UNMOUNTED, answers={"superblock:docker": FileNotFoundError(2, "No such")}),
    Case("image.clean", None, "", files=UNMOUNTED, answers={"superblock:docker": None}),
    Case("loop.direct-io", WARNING, "/dev/loop3 is buffered", files={f"{LOOP}/loop/dio": "0\n"}),
    Case("loop.direct-io", OK, "as DirectIO=no says", "[Image docker]\nDirectIO=no\n", {f"{LOOP}/loop/dio": "0\n"}),
    Case("loop.block-size", WARNING, "blocks of 512 bytes, expected 4096", files={
        f"{LOOP}/queue/logical_block_size": "512\n"}),
    Case("mount.right", CRITICAL, "image docker is not mounted at /var/lib/docker", files=mountinfo(SHARE_LINE)),
    Case("mount.right", CRITICAL, "found /nfs/docker/x", files={f"{LOOP}/loop/backing_file": "/nfs/docker/x\n"}),
    Case("mount.right", CRITICAL, "/var/lib/containerd is not mounted", files=mountinfo(SHARE_LINE, IMAGE_LINE)),
    Case("mount.right", UNKNOWN, "no answer within 1.4 s", answers={"gate:docker": SILENCE}),
    Case("mount.writable", CRITICAL, "/var/lib/docker is read-only", files=mountinfo(
        IMAGE_LINE.replace("/dev/loop3 rw", "/dev/loop3 ro"))),
    Case("mount.writable", None, "", files=mountinfo(SHARE_LINE)),
    Case("mount.errors", CRITICAL, "ext4 has recorded errors (3)", files={"sys/fs/ext4/loop3/errors_count": "3\n"}),
    Case("mount.space", WARNING, "/var/lib/docker is 92 % full, 8 GiB of 100 GiB free", answers={
        "space:docker": room(8 * GIB)}),
    Case("mount.space", CRITICAL, "99 % full", answers={"space:docker": room(1 * GIB)}),
    Case("mount.inodes", WARNING, "has used 95 % of its 1000 inodes", answers={"space:docker": room(60 * GIB, 50)}),
    Case("mount.inodes", None, "", answers={"space:docker": replace(WELL, inodes=0, inodes_free=0)}),
    Case("mount.overlay", OK, "a trial overlay in /var/lib/docker worked"),
    Case("mount.overlay", CRITICAL, "no d_type", answers={"overlay:docker": [RpinfsError("no d_type")]}),
    Case("mount.overlay", UNKNOWN, "died without an answer", answers={
        "overlay:docker": RpinfsError("the process that asked died without an answer")}),
    Case("mount.overlay", UNKNOWN, "no answer within", answers={"overlay:docker": SILENCE}),
    Case("mount.overlay", None, "", "[Image docker]\nBefore=\n"),
    Case("mount.overlay", None, "", answers={"overlay:docker": NotAskedError("that is not image docker")}),
    Case("mount.hidden", OK, "nothing is hidden under /nfs/docker, /var/lib/docker"),
    Case("mount.hidden", WARNING, "/nfs/docker hides 1 file with 8 KiB (a.img 8 KiB); /var/lib/docker hides at least"
        " 70000 files with 1 GiB (overlay2 1 GiB, image 0 bytes)", answers={"hidden": [
        Hidden("/nfs/docker", "/", 1, 8192, (("a.img", 8192),), True),
        Hidden("/var/lib/docker", "/", 70000, GIB, (("overlay2", GIB), ("image", 0)), False)]}),
    Case("mount.hidden", UNKNOWN, "not all that lies under the mount points was seen", answers={"hidden": [
        Hidden("/nfs/docker", "/", 0, 0, (), False)]}),
    Case("mount.hidden", UNKNOWN, "no answer within", answers={"hidden": SILENCE}),
    Case("mount.hidden", None, "", answers={"hidden": []}),
    Case("root.options", OK, f"the root is {NAS}:/nfsroot/pi, mounted hard, with NFS 4.1"),
    Case("root.options", CRITICAL, "mounted soft", files=mountinfo(ROOT_LINE.replace("hard", "soft"))),
    Case("root.options", WARNING, "over UDP", files=mountinfo(ROOT_LINE.replace("tcp", "udp"))),
    Case("root.options", WARNING, "with NFS 3 and the locks", files=mountinfo(ROOT_LINE.replace("vers=4.1", "vers=3"))),
    Case("root.options", OK, "NFS 3", files=mountinfo(ROOT_LINE.replace("vers=4.1", "vers=3,nolock"))),
    Case("root.options", None, "", files=mountinfo("20 1 179:2 / / rw - ext4 /dev/mmcblk0p2 rw\n")),
    Case("kernel.version", OK, "Linux 6.12.47 is not among"),
    Case("kernel.version", CRITICAL, "Linux 6.1.64 has a known fault: it writes data", files=kernel(
        "6.1.0-14-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.64-1 (2023-11-30)")),
    Case("kernel.version", WARNING, "Linux 6.11.0 has a known fault: it reads ahead", files=kernel(
        "6.11.0-1004-raspi", "#4-Ubuntu SMP PREEMPT_DYNAMIC Thu Oct 10 2024")),
    Case("kernel.version", None, "", files=kernel("unknown", "")),
    Case("memory.swap", OK, "1 swap areas, none on the NAS"),
    Case("memory.swap", OK, "there is no swap", files={"proc/swaps": SWAPS}),
    Case("memory.swap", OK, "1 swap areas", files=swap("/dev/sda2")),
    Case("memory.swap", WARNING, "swap of 100 MiB in /var/swap ends up on the NAS, by NFS", files=swap("/var/swap")),
    Case("memory.swap", CRITICAL, "in /dev/loop5 ends up on the NAS, by loop5 and NFS", files={
        **swap("/dev/loop5"), "sys/block/loop5/loop/backing_file": "/var/swap\n"}),
    Case("memory.swap", CRITICAL, "in /var/lib/docker/my swap ends up on the NAS, by loop3 and NFS",
        files=swap("/var/lib/docker/my\\040swap")),
    Case("memory.swap", CRITICAL, "in /dev/zram0 ends up on the NAS, by zram0 and loop5 and NFS", files={
        "sys/block/zram0/backing_dev": "/dev/loop5\n", "sys/block/loop5/loop/backing_file": "/var/swap\n"}),
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
    Case("docker.driver", None, "", answers={"docker": NotAskedError("Docker does not run")}),
    Case("docker.root", OK, "in /var/lib/docker/231072.231072, on image docker", answers={
        "docker": replace(DOCKER, root="/var/lib/docker/231072.231072")}),
    Case("docker.root", CRITICAL, "in /var/lib/docker2, which is on no image", answers={
        "docker": replace(DOCKER, root="/var/lib/docker2")}),
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
    assert bool(result.remedy) == (case.expected in (WARNING, CRITICAL)) or case.expected is UNKNOWN, result
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
        ask(found, 5.0, checks.needs(checks.select(names)))
        return set(found.answers)

    assert asked("config.valid") == set()
    assert asked("share.space") == {"share"}
    assert asked("image.size") == {"image:docker"}


def test_what_takes_long_or_writes_is_asked_only_when_it_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = live(facts(root), monkeypatch)
    silence: dict[str, object] = dict.fromkeys(_questions(found), SILENCE)
    monkeypatch.setattr(
        "rpinfs.system.deadline.gather", lambda questions, _: {name: silence[name] for name in questions}
    )
    found.answers = {}
    ask(found, 1.0)
    assert set(silence) - set(found.answers) == {"hidden", "overlay:docker"}
    ask(found, 1.0, checks.needs(checks.select([])))
    assert set(silence) == set(found.answers)
    thorough = {check.name for check in checks.CHECKS if check.thorough}
    assert thorough == {"mount.hidden", "mount.overlay"}
    assert checks.needs(checks.CHECKS) >= THOROUGH


def test_what_only_root_may_know_has_the_remedy(root: Path) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", "/nfs/docker/.lease")
    found = results(facts(root, answers={"owner:docker": refused}))["image.owner"]
    assert (found.status, found.message) == (UNKNOWN, "/nfs/docker/.lease: Permission denied")
    assert found.remedy == "run it as root: sudo rpinfs check"


def test_every_explanation_names_the_limits_and_statuses_of_its_check() -> None:
    for check in checks.CHECKS:
        explanation = " ".join(check.explanation.split())
        explanation.encode("ascii")
        assert explanation.endswith("."), check.name
        bad = {case.expected for case in CASES if case.name == check.name} & {WARNING, CRITICAL}
        for status in bad:
            assert status is not None
            assert f"{status.word}:" in explanation.lower(), (check.name, status)


def test_judging_reads_only_what_the_kernel_answers_from_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies on the root, on NFS as it is, is asked of a child: else a check could hang."""
    found = live(facts(root, "[Image docker]\nSize=10G\n"), monkeypatch)
    seen: list[str] = []

    def watched(name: str) -> None:
        real = getattr(os, name)

        def call(path: object, *more: object, **named: object) -> object:
            seen.append(str(path))
            return real(path, *more, **named)

        monkeypatch.setattr(os, name, call)

    for name in ("open", "stat", "listdir", "scandir", "readlink"):
        watched(name)
    checks.judge(found)
    monkeypatch.undo()
    assert seen
    allowed = tuple(f"{root}/{folder}/" for folder in ("proc", "sys", "run"))
    assert [path for path in seen if not path.startswith(allowed)] == []


def test_a_question_that_was_not_asked_makes_a_check_silent(root: Path) -> None:
    found = facts(root)
    found.answers = {}
    for result in checks.judge(found):
        assert result.status is not UNKNOWN, result
