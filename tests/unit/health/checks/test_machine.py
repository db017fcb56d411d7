"""Checks of the machine itself: what each says of a machine that is well, and of one that is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.system.systemd import UnitState
from tests.support import Content
from tests.unit.health.pi import (
    BOOT_LINE,
    CRITICAL,
    NAS,
    OK,
    ROOT_LINE,
    SHARE_LINE,
    SILENCE,
    UNKNOWN,
    WARNING,
    Case,
    Judged,
    assert_judged,
    facts,
    mountinfo,
    results,
    systemd,
    unit,
)


def kernel(release: str, build: str) -> dict[str, Content]:
    return {"proc/sys/kernel/osrelease": release + "\n", "proc/sys/kernel/version": build + "\n"}


def swap(path: str) -> dict[str, Content]:
    return {"proc/swaps": f"{SWAPS}{path}\tfile\t102400\t0\t-2\n"}


SWAPS = "Filename\tType\tSize\tUsed\tPriority\n"

SYMLINK = "var-lib-docker.mount: Mount path /var/lib/docker is not canonical (contains a symlink)."
FAILED = UnitState("var-lib-docker.mount", "loaded", "failed", "failed", "resources", "generated", "", 1.0, True)
SECOND = replace(FAILED, name="nfs-docker.mount", result="exit-code")


NOTIFY = "[Notify]\nCommand=/usr/local/bin/notify\n"
TOLD = unit("rpinfs-notify.service", "inactive")


def failing(*units: UnitState) -> dict[str, object]:
    usual = systemd()["systemd"]
    assert isinstance(usual, dict)
    return {"systemd": {**usual, **{unit.name: unit for unit in units}}}


CASES = [
    Case("units.mounted", OK, "no mount unit of rpinfs has failed"),
    Case("units.mounted", CRITICAL, f"var-lib-docker.mount has failed, resources: {SYMLINK}", answers={
        **failing(FAILED), "failed": {FAILED.name: SYMLINK}}),
    Case("units.mounted", CRITICAL, "nfs-docker.mount has failed, exit-code (and 1 more)", answers={
        **failing(FAILED, SECOND), "failed": SILENCE}),
    Case("units.mounted", CRITICAL, "[Image docker] Where=/var/lib/docker leads by a symbolic link to /mnt/ssd", files={
        "var/lib/docker": Path("/mnt/ssd"), **mountinfo(ROOT_LINE, SHARE_LINE)}),
    Case("units.mounted", UNKNOWN, "no answer", answers={"systemd": SILENCE}),
    Case("config.valid", CRITICAL, "/rpinfs.conf:2: [Server] Version=5: expected 3", "[Server]\nVersion=5\n"),
    Case("config.valid", CRITICAL, "(and 1 more: rpinfs config check)", "[Server]\nVersion=5\nAddress=a b\n"),
    Case("fstab.conflicts", WARNING, "/var/lib/docker is mounted by line 1 of /etc/fstab", files={
        "etc/fstab": "/nfs/docker/loop /var/lib/docker ext4 loop,_netdev 0 0\n"}),
    Case("fstab.conflicts", CRITICAL, "line 1 of /etc/fstab makes an ordering cycle", files={
        "etc/fstab": "/nfs/docker/loop /var/lib/docker ext4 loop 0 0\n"}),
    Case("fstab.conflicts", CRITICAL, "add nofail,_netdev to its options", files={
        "etc/fstab": "/dev/sda1 /var/lib/docker/volumes ext4 defaults,noatime 0 2\n"}),
    Case("units.written", WARNING, "it acts from the next boot on", files={
        "run/rpinfs-from-next-boot": "", "run/systemd/generator": None}),
    Case("units.written", CRITICAL, "has written no units", files={"run/systemd/generator": None}),
    Case("units.written", WARNING, "nfs-docker.mount var-lib-docker.mount", files={
        "run/systemd/generator/nfs-docker.mount": "[Mount]\nWhat=another:/docker\n"}),
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
    Case("notify.heard", None, ""),
    Case("notify.heard", OK, "the last news was heard", NOTIFY, answers=failing(TOLD)),
    Case("notify.heard", OK, "there was no news in this boot yet", NOTIFY, answers=failing(
        replace(TOLD, has_run=False))),
    Case("notify.heard", OK, "somebody is being told of news", NOTIFY, answers=failing(
        replace(TOLD, active="activating"))),
    Case("notify.heard", WARNING, "nobody heard the last news: rpinfs-notify.service has failed, timeout", NOTIFY,
        answers=failing(replace(TOLD, active="failed", result="timeout"))),
    Case("notify.heard", WARNING, "rpinfs-notify.service is not there (not-found)", NOTIFY, answers=failing(
        replace(TOLD, load="not-found"))),
    Case("notify.heard", UNKNOWN, "no answer", NOTIFY, answers={"systemd": SILENCE}),
    Case("boot.mounted", WARNING, f"the boot files {NAS}:/tftpboot are not mounted", files=mountinfo(SHARE_LINE)),
    Case("boot.mounted", None, "", "[Boot]\nExport=\n"),
    Case("boot.mounted", WARNING, "is mounted from other:/tftpboot", files=mountinfo(
        BOOT_LINE.replace(f"{NAS}:/", "other:/"))),
    Case("boot.read-only", WARNING, "/boot/firmware is writable", files=mountinfo(BOOT_LINE.replace(" ro", " rw"))),
    Case("boot.read-only", OK, "as Options= in [Boot] says", "[Boot]\nOptions=noatime\n", mountinfo(
        BOOT_LINE.replace(" ro", " rw"))),
    Case("memory.cgroup", WARNING, "does not count memory", files={"sys/fs/cgroup/cgroup.controllers": "cpu io\n"}),
    Case("memory.cgroup", OK, "counts memory", files={
        "sys/fs/cgroup/cgroup.controllers": "", "proc/cgroups": "#name hierarchy num enabled\nmemory\t5\t80\t1\n"}),
    Case("memory.cgroup", WARNING, "does not count memory", files={
        "sys/fs/cgroup/cgroup.controllers": "", "proc/cgroups": "#name hierarchy num enabled\nmemory\t5\t80\t0\n"}),
]  # fmt: skip


def test_case(case: Case, judged: Judged) -> None:
    assert_judged(case, judged(case))


AGAIN = "mend what it says, then: systemctl restart var-lib-docker.mount; journalctl -b -u var-lib-docker.mount -n 20"


@pytest.mark.parametrize(
    ("result", "why", "remedy"),
    [
        ("resources", "", "set Where= to the folder that the symbolic link leads to, then reboot"),
        ("exit-code", SYMLINK, "set Where= to the folder that the symbolic link leads to, then reboot"),
        *(
            (result, "mount failed", AGAIN)
            for result in ("exit-code", "signal", "timeout")
        ),
    ],
)  # fmt: skip
def test_what_is_to_be_done_about_a_mount_that_failed(root: Path, result: str, why: str, remedy: str) -> None:
    """systemd refuses a mount point below a link with `resources`; older ones say it in the journal alone."""
    answers = {**failing(replace(FAILED, result=result)), "failed": {FAILED.name: why} if why else {}}
    found = results(facts(root, answers=answers))["units.mounted"]
    assert (found.status, found.remedy) == (CRITICAL, remedy)
    assert found.message == f"var-lib-docker.mount has failed, {result}{': ' * bool(why)}{why}"
