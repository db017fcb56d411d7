"""The units of others that start on an image: Docker's own packages, k3s, k0s, podman and a quadlet.

Here stand the lines of theirs that decide about order, start and stop, as their makers publish them: moby
contrib/init/systemd (docker-ce), containerd containerd.service (containerd.io), k3s install.sh, k0s
pkg/install/systemd_linux.go, and podman 5.8.6 of Debian 14, whose generator wrote the quadlet's. systemd says what
comes of them together with ours.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from rpinfs.boot.config import load
from rpinfs.boot.daemons import Told
from rpinfs.boot.gate import misplaced
from rpinfs.boot.host import Host
from rpinfs.docker import roots
from tests.oracle.systemd import Properties, Systemd
from tests.support import Content, Installed, make_pi, make_tree
from tests.unit.boot.test_daemons import ROOT
from tests.unit.boot.test_gate import ALL, loop

pytestmark = pytest.mark.root

WANTED = "[Install]\nWantedBy=multi-user.target\n"
SOCKET = "[Unit]\nPartOf=docker.service\n[Socket]\nListenStream=/run/docker.sock\n[Install]\nWantedBy=sockets.target\n"
DOCKERD = (
    "Type=notify\nExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock\n"
    "RestartSec=2\nRestart=always\nDelegate=yes\nKillMode=process\n"
)
CONTAINERD_IO = (
    "[Unit]\nAfter=network.target dbus.service\n[Service]\nExecStartPre=-/sbin/modprobe overlay\n"
    f"ExecStart=/usr/bin/containerd\nType=notify\nDelegate=yes\nKillMode=process\nRestart=always\nRestartSec=5\n{WANTED}"
)
DOCKER_CE = (
    "[Unit]\nAfter=network-online.target nss-lookup.target docker.socket firewalld.service containerd.service"
    " time-set.target\nWants=network-online.target containerd.service\nRequires=docker.socket\nStartLimitBurst=3\n"
    f"StartLimitIntervalSec=60\n[Service]\n{DOCKERD}TimeoutStartSec=0\n{WANTED}"
)
# As it was up to 20.10, and in some a copy of it lies in /etc: after the very target that wants it.
DOCKER_CE_OLD = (
    "[Unit]\nAfter=network-online.target firewalld.service containerd.service multi-user.target\n"
    "Wants=network-online.target\nRequires=docker.socket containerd.service\n"
    f"[Service]\n{DOCKERD}TimeoutSec=0\nStartLimitBurst=3\nStartLimitInterval=60s\n{WANTED}"
)
K3S = (
    "[Unit]\nWants=network-online.target\nAfter=network-online.target\n[Service]\nType=notify\nKillMode=process\n"
    "Delegate=yes\nEnvironmentFile=-/etc/default/%N\nTimeoutStartSec=0\nRestart=always\nRestartSec=5s\n"
    f"ExecStartPre=-/sbin/modprobe overlay\nExecStart=/usr/local/bin/k3s \\\n    server\n\n{WANTED}"
)
K0S = (
    "[Unit]\nConditionFileIsExecutable=/usr/local/bin/k0s\nAfter=network-online.target\nWants=network-online.target\n"
    "StartLimitIntervalSec=5\nStartLimitBurst=10\n[Service]\nExecStart=/usr/local/bin/k0s controller --single=true\n"
    f"RestartSec=10\nRestart=always\nDelegate=yes\nKillMode=process\nTimeoutStartSec=0\n{WANTED}"
)
PODMAN_SOCKET = "[Socket]\nListenStream=%t/podman/podman.sock\nSocketMode=0660\n[Install]\nWantedBy=sockets.target\n"
PODMAN = (
    "[Unit]\nRequires=podman.socket\nAfter=podman.socket\nStartLimitIntervalSec=0\n[Service]\nDelegate=true\nType=exec\n"
    "KillMode=process\nExecStart=/usr/bin/podman system service\n[Install]\nWantedBy=default.target\n"
)
PODMAN_RESTART = (
    "[Unit]\nStartLimitIntervalSec=0\nWants=network-online.target\nAfter=network-online.target\n[Service]\n"
    "Type=oneshot\nRemainAfterExit=true\nExecStart=/usr/bin/podman start --all --filter should-start-on-boot=true\n"
    "ExecStop=/usr/bin/podman stop --service --all\n[Install]\nWantedBy=default.target\n"
)
QUADLET = (
    "[Unit]\nWants=network-online.target\nAfter=network-online.target\nRequiresMountsFor=%t/containers\n[Service]\n"
    "Environment=PODMAN_SYSTEMD_UNIT=%n\nKillMode=mixed\nDelegate=yes\nType=notify\nNotifyAccess=all\n"
    "ExecStart=/usr/bin/podman run --name systemd-%N --replace --rm --cgroups=split --sdnotify=conmon -d web\n"
    f"ExecStop=/usr/bin/podman rm -v -f -i systemd-%N\n{WANTED}"
)
PODMAN_CONFIG = (
    "[Image docker]\nEnabled=no\n[Image containers]\nWhere=/var/lib/containers\n"
    "Before=podman.service podman-restart.service web.service\n"
)


class Vendor(NamedTuple):
    """The configuration, the units of others, and those of them that must have these mounts."""

    config: str
    units: dict[str, str]
    waiting: tuple[str, ...]
    mounts: tuple[str, ...]


def k8s(unit: str, text: str, where: str) -> Vendor:
    config = f"[Image docker]\nEnabled=no\n[Image k]\nWhere={where}\nBefore={unit}\n"
    return Vendor(config, {unit: text}, (unit,), (f"{where.strip('/').replace('/', '-')}.mount",))


DOCKERS = ("docker.service", "containerd.service")
ITS_MOUNTS = ("var-lib-docker.mount", "var-lib-containerd.mount")
VENDORS = {
    "docker-ce": Vendor(
        "",
        {"docker.service": DOCKER_CE, "docker.socket": SOCKET, "containerd.service": CONTAINERD_IO},
        DOCKERS,
        ITS_MOUNTS,
    ),
    "docker-ce of old": Vendor(
        "",
        {"docker.service": DOCKER_CE_OLD, "docker.socket": SOCKET, "containerd.service": CONTAINERD_IO},
        DOCKERS,
        ITS_MOUNTS,
    ),
    "k3s": k8s("k3s.service", K3S, "/var/lib/rancher"),
    "k0s": k8s("k0scontroller.service", K0S, "/var/lib/k0s"),
    "podman": Vendor(
        PODMAN_CONFIG,
        {
            "podman.service": PODMAN,
            "podman.socket": PODMAN_SOCKET,
            "podman-restart.service": PODMAN_RESTART,
            "web.service": QUADLET,
        },
        ("podman.service", "podman-restart.service", "web.service"),
        ("var-lib-containers.mount",),
    ),
}
PROGRAMS = re.compile(r"^Exec\w+=-?(/\S+)", re.MULTILINE)


@pytest.mark.parametrize("name", VENDORS)
def test_they_wait_for_gate_and_image_without_a_cycle(
    name: str, systemd: Systemd, installed: Installed, tmp_path: Path
) -> None:
    vendor = VENDORS[name]
    folder = put(vendor, systemd, installed, tmp_path)
    assert systemd.verify(folder, *vendor.units, "multi-user.target") == ""
    computed = systemd.compute(folder, *vendor.units, "rpinfs-gate.service", *vendor.mounts)
    for unit in vendor.waiting:
        needed = {"rpinfs-gate.service", *vendor.mounts}
        assert needed <= computed[unit]["Requires"], unit
        assert needed <= computed[unit]["After"], unit
        # The gate judges what is mounted by then, after the agent has made it.
        assert {"rpinfs-agent.service", *vendor.mounts} <= computed["rpinfs-gate.service"]["After"]
        assert stops_before_the_mounts(computed, vendor), unit
    if "docker.socket" in vendor.units:
        # What asks without end for a Docker that the gate refuses fails soon: ours limits it, theirs does not.
        limit = systemd.root.path(folder.partition(":")[0]) / "docker.socket.d/50-rpinfs-limit.conf"
        assert "TriggerLimitBurst=3" in limit.read_text()


def stops_before_the_mounts(computed: dict[str, Properties], vendor: Vendor) -> bool:
    """At a shutdown the order is turned round: who follows a mount is stopped before that is unmounted."""
    return all(set(vendor.waiting) <= computed[mount]["Before"] for mount in vendor.mounts)


def put(vendor: Vendor, systemd: Systemd, installed: Installed, folder: Path) -> str:
    """Our units for the configuration, and theirs in the chroot, with programs of no content where theirs are."""
    root = make_pi(folder / "root", vendor.config)
    done = installed.run(installed.rpinfs, "units", "--output", folder / "units", root=root)
    assert done.returncode == 0, done.stderr
    theirs: dict[str, Content] = {**vendor.units}
    for unit, text in vendor.units.items():
        for target in re.findall(r"^WantedBy=(\S+)", text, re.MULTILINE):
            theirs[f"{target}.wants/{unit}"] = Path(f"../{unit}")
        for program in PROGRAMS.findall(text):
            path = systemd.root.path(program)
            if not path.exists():
                path.write_text("#!/bin/sh\n")
                path.chmod(0o755)
    ours = systemd.put(folder / "units", "/ours")
    return f"{ours}:{systemd.put(make_tree(folder / 'theirs', theirs), '/theirs')}"


CE = {
    "5:28.5.2-1~debian.13~trixie": ("overlay2", "/var/lib/docker"),
    "5:29.0.1-1~raspbian.12~bookworm": ("overlayfs", "/var/lib/containerd"),
}
UNITS = pytest.mark.parametrize("unit", [DOCKER_CE, DOCKER_CE_OLD], ids=["new", "old"])


def makers_pi(folder: Path, version: str, unit: str, files: dict[str, Content] | None = None) -> Path:
    """A Pi with Docker's own packages, whose config.toml has these two lines, and its image mounted."""
    packages: dict[str, Content] = {
        "usr/lib/systemd/system/docker.service": unit,
        "usr/lib/systemd/system/containerd.service": CONTAINERD_IO,
        "etc/containerd/config.toml": '#root = "/var/lib/containerd"\ndisabled_plugins = ["cri"]\n',
        "var/lib/dpkg/status": f"Package: docker-ce\nStatus: install ok installed\nVersion: {version}\n",
        "var/lib/docker": None,
        "proc/self/mountinfo": ROOT + ALL,
    }
    return make_pi(folder, "", {**packages, **loop(), **(files or {})})


@UNITS
@pytest.mark.parametrize("version", CE)
def test_what_docker_show_makes_of_the_makers_packages(
    installed: Installed, tmp_path: Path, version: str, unit: str
) -> None:
    """Their options, and their containerd with its socket: nothing of it is unknown."""
    done = installed.run(installed.rpinfs, "docker", "show", "--json", root=makers_pi(tmp_path, version, unit))
    shown = json.loads(done.stdout)
    driver, images = CE[version]
    assert (done.returncode, shown["problems"]) == (0, [])
    assert shown["driver"]["value"] == driver
    assert (shown["containerd_root"] if shown["snapshotter"] else shown["data_root"])["value"] == images
    assert shown["data_root"]["image"] == shown["containerd_root"]["image"] == "docker"


@UNITS
def test_the_gate_passes_the_makers_packages_at_a_glance(tmp_path: Path, unit: str) -> None:
    """It looks no closer than with Debian's: each file that it opens comes from the NAS."""

    def looks_closer(_: Host) -> list[Told]:
        raise AssertionError

    host = Host.read(str(makers_pi(tmp_path, "5:29.0.1-1~debian.13~trixie", unit)))
    assert misplaced(load(host), host, looks_closer) == []


@UNITS
@pytest.mark.parametrize(
    ("file", "text", "moved"),
    [
        ("etc/docker/daemon.json", '{"data-root": "/srv/d"}', "/srv/d (/etc/docker/daemon.json:1) is on no verified"),
        (
            "etc/containerd/config.toml",
            'root = "/srv/c"\n',
            "/srv/c (/etc/containerd/config.toml:1), where images are kept, is on no",
        ),
    ],
)
def test_and_refuses_what_moves_them(tmp_path: Path, unit: str, file: str, text: str, moved: str) -> None:
    host = Host.read(str(makers_pi(tmp_path, "5:29.0.1-1~debian.13~trixie", unit, {file: text})))
    (refusal,) = misplaced(load(host), host, roots.read)
    assert moved in refusal.message
