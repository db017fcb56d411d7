"""The static units: systemd has nothing to say about them, and each may do little."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.oracle.systemd import Systemd
from tests.package import chroot
from tests.package.conftest import TREE

UNITS = TREE / "units"
SERVICES = (
    "rpinfs-agent.service", "rpinfs-attach@.service", "rpinfs-close.service", "rpinfs-gate.service",
    "rpinfs-thaw.service", "rpinfs-trim.service",
)  # fmt: skip
SHIPPED = (*SERVICES, "rpinfs-trim.timer")
GUARDED = ("docker.service", "containerd.service")
# What `systemd-analyze security` gives; what the units may not lose is said in them. Lower is better: 10 is no sandbox.
EXPOSURE = {
    "rpinfs-agent.service": 3.7,
    "rpinfs-attach@.service": 2.9,
    "rpinfs-close.service": 2.9,
    "rpinfs-gate.service": 3.6,
    "rpinfs-thaw.service": 2.8,
    "rpinfs-trim.service": 3.5,
}
# Each of these makes a mount namespace for the service (systemd.exec(5)); why there must be none is said in the units.
MOUNT_NAMESPACE = re.compile(
    r"^(Protect(System|Home|Proc|KernelTunables|KernelModules|KernelLogs|ControlGroups|Hostname)|ProcSubset|"
    r"Private(Tmp|Devices|Mounts|Network|Users|IPC)|(ReadWrite|ReadOnly|Inaccessible|Exec|NoExec)Paths|Bind(ReadOnly)?Paths|"
    r"TemporaryFileSystem|RootDirectory|RootImage|MountFlags|MountAPIVFS|DynamicUser|LogNamespace)=",
    re.MULTILINE,
)


def put_units(folder: Path) -> None:
    """The units as they are shipped, beside a Docker and a containerd of no content."""
    folder.mkdir(parents=True)
    for name in SHIPPED:
        shutil.copy(UNITS / name, folder)
    for name in GUARDED:
        shutil.copytree(UNITS / f"{name}.d", folder / f"{name}.d")
        (folder / name).write_text("[Service]\nExecStart=/bin/true\n")


@pytest.mark.root
def test_verify_is_silent_and_docker_follows_the_gate(release: str) -> None:
    """The exit status is 0 for unknown keys too: it must say nothing at all."""
    with chroot.chroot(release) as root:
        systemd = Systemd(root)
        put_units(root.path("/units"))
        shim = root.path("/usr/bin/rpinfs")
        shutil.copy(UNITS / "rpinfs", shim)
        names = [f"/units/{name}" for name in (*SHIPPED, *GUARDED)]
        assert systemd.verify("/units", *names) == ""
        computed = systemd.compute("/units", *names)
        for name in GUARDED:
            assert "rpinfs-gate.service" in computed[name]["Requires"] & computed[name]["After"]


@pytest.mark.parametrize(
    ("said", "closes"),
    [
        ("inactive", True), ("failed", True), ("active", False), ("activating", False), ("reloading", False),
        ("deactivating", False), ("", False),
    ],
)  # fmt: skip
def test_the_socket_is_closed_only_where_docker_is_down(tmp_path: Path, said: str, closes: bool) -> None:
    """Nothing is said where systemctl itself fails. Docker that was starting lost its socket, and so was stopped."""
    line = re.search(r"^ExecCondition=(.+)$", (UNITS / "rpinfs-close.service").read_text(), re.MULTILINE)
    assert line
    asked = "show --property=ActiveState --value docker.service"
    program = tmp_path / "systemctl"
    answer = f"echo {said}" if said else "exit 1"
    program.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] && {answer}\n')
    program.chmod(0o755)
    done = subprocess.run(shlex.split(line[1]), env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
    assert (done.returncode == 0) is closes
    assert done.returncode < 255, "systemd takes that for a failure of the unit"


@pytest.mark.parametrize("name", SERVICES)
def test_exposure(name: str) -> None:
    report = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / name)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    ).stdout
    found = re.search(r"exposure level for \S+: ([0-9.]+)", report)
    assert found, report
    assert float(found[1]) <= EXPOSURE[name], report


@pytest.mark.parametrize("name", SERVICES)
def test_no_mount_namespace(name: str) -> None:
    assert MOUNT_NAMESPACE.findall((UNITS / name).read_text()) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_enables_the_units(name: str) -> None:
    """The generator and the drop-ins pull them in: an [Install] would start them where rpinfs is not in use."""
    assert "\n[Install]" not in (UNITS / name).read_text()
