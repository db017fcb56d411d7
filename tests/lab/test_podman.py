"""podman on an image of its own, Docker out of use: as root, as a user, and by a quadlet that waits for the gate.

The folder is /var/lib/containers, which storage.conf gives to root; what users keep lies below it, since overlay works
in their homes on NFS no better.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Tell

from .conftest import LABS
from .container import container_tar
from .image import is_clean, repair
from .lab import Lab
from .pi import Pi

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.long, pytest.mark.parametrize("release", ["trixie"])]

PACKAGES = "podman crun netavark uidmap"
IMAGE = "localhost/busybox"
FILE = "podman.img"
CONFIG = f"""\
[Server]
Address={{address}}
[Boot]
Export=
[Image docker]
Enabled=no
[Image podman]
File={FILE}
Where=/var/lib/containers
Before=podman.service podman-restart.service web.service rootless.service
"""
STORAGE = """\
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
rootless_storage_path = "/var/lib/containers/rootless/$UID"
"""
WRITES = "/bin/sh -c 'trap exit TERM; while echo again >>/data/log; do sleep 1; done'"
QUADLET = f"""\
[Container]
Image={IMAGE}
ContainerName=web
Exec={WRITES}
Volume=web:/data
Network=none
Pull=never
[Service]
TimeoutStartSec=600
[Install]
WantedBy=multi-user.target
"""
# A Pi without logins has nothing of what logind and a systemd of their own do for users.
AS_PI = "env XDG_RUNTIME_DIR=/run/pi HOME=/home/pi podman --cgroup-manager=cgroupfs"
ROOTLESS = f"""\
[Service]
User=pi
RuntimeDirectory=pi
ExecStart=/usr/bin/{AS_PI} run --replace --network none --name mine --volume mine:/data {IMAGE} {WRITES}
[Install]
WantedBy=multi-user.target
"""
WELL = "rpinfs check --timeout=60 agent gate image.owner mount docker containerd"
"""That Docker is masked is nobody's trouble."""
LOGS = {
    "web.service": "/var/lib/containers/storage/volumes/web/_data/log",
    "rootless.service": "/var/lib/containers/rootless/1000/volumes/mine/_data/log",
}


@pytest.fixture
def lab(request: pytest.FixtureRequest, deb: Path, release: str) -> Iterator[Lab]:
    with Lab(deb=deb, release=release, packages=PACKAGES) as lab:
        request.node.stash[LABS] = [lab]
        yield lab


def log(pi: Pi, unit: str) -> int:
    """How often the container of a unit has written to its volume."""
    return int(pi.run(f"wc -l <{LOGS[unit]}"))


def wait_for_containers(pi: Pi, before: dict[str, int]) -> None:
    """Both units run, with the volumes that they had, and write more to them."""
    for unit, lines in before.items():
        runs = f"systemctl is-active --quiet {unit}"
        # What was written after the last count, while everything went down, is there before.
        pi.run(f"until {runs} && [ $(wc -l <{LOGS[unit]}) -gt {lines} ]; do sleep 1; done", timeout=600)
        now = log(pi, unit)
        pi.run(f"until [ $(wc -l <{LOGS[unit]}) -gt {now} ]; do sleep 1; done", timeout=300)
        assert pi.run(f"systemctl is-active {unit}") == "active"


def nothing_is_below(pi: Pi) -> bool:
    """Whether the root has nothing there but two empty folders: podman's tmpfiles.d makes them before any mount."""
    below = pi.path("/var/lib/containers")
    return {str(path.relative_to(below)) for path in below.rglob("*")} <= {"storage", "storage/tmp"}


def power_off(pi: Pi, image: Path) -> dict[str, int]:
    """Down in order with all containers running; what they have written by then."""
    written = {unit: log(pi, unit) for unit in LOGS}
    pi.power_off()
    assert is_clean(image)
    assert "Failed to unmount" not in pi.console(), "something outlived its unit"
    return written


def test_two_boots_the_second_with_a_late_nas(lab: Lab, tell: Tell) -> None:
    pi, nas = lab.pi("podman"), lab.second_nas()
    image = nas.image_path(FILE)
    pi.mask("docker.service", "docker.socket", "containerd.service")
    pi.write("/etc/rpinfs/rpinfs.conf", CONFIG.format(address=nas.address))
    pi.write("/etc/containers/storage.conf", STORAGE)
    pi.path("/srv/busybox.tar").write_bytes(container_tar(pi.root))
    nas.start()
    assert pi.boot() == "running"
    tell(pi.run("podman --version; crun --version | head -1; uname -r"))
    look_around_as_root(pi)
    look_around_as_a_user(pi)
    pi.write("/etc/containers/systemd/web.container", QUADLET)
    pi.write("/etc/systemd/system/rootless.service", ROOTLESS)
    pi.run("systemctl daemon-reload; systemctl enable --now rootless.service podman-restart.service")
    pi.run("systemctl start web.service")
    wait_for_containers(pi, dict.fromkeys(LOGS, 0))
    pi.run(WELL)
    written = power_off(pi, image)

    nas.stop_nfs()
    pi.power_on()
    assert pi.wait_booted() == "degraded"
    for unit in LOGS:
        assert pi.try_run(f"systemctl is-active {unit}").stdout.strip() != "active"
        assert pi.try_run(f"systemctl start {unit}").status != 0
    assert nothing_is_below(pi)
    assert f"{nas.address}:/docker" in pi.try_run("rpinfs status").stdout
    nas.start_nfs()
    wait_for_containers(pi, written)
    assert pi.run("podman start --attach kept") == "as it was"
    pi.run("until podman ps --format '{{.Names}}' | grep -x always; do sleep 1; done")
    assert nothing_is_below(pi)
    pi.run(WELL)
    power_off(pi, image)
    repair(image)


def look_around_as_root(pi: Pi) -> None:
    """overlay on the image; a container that is kept, and one that is to be started at each boot."""
    info = "podman info --format '{{.Store.GraphDriverName}} {{.Store.GraphRoot}} {{.Host.CgroupManager}}'"
    assert pi.run(info) == "overlay /var/lib/containers/storage systemd"
    pi.run(f"podman import /srv/busybox.tar {IMAGE}")
    mounts = pi.run(f"podman run --rm --network none {IMAGE} cat /proc/self/mountinfo")
    assert "upperdir=/var/lib/containers/storage/overlay/" in mounts
    assert pi.run(f"podman run --network none --name kept {IMAGE} echo as it was") == "as it was"
    pi.run(f"podman run --detach --restart always --network none --name always --volume always:/data {IMAGE} {WRITES}")


def look_around_as_a_user(pi: Pi) -> None:
    """The same with numbers of a user's own, in a folder of the image that is the user's."""
    pi.run("useradd --uid 1000 --create-home pi && install --directory --owner=pi --mode=700 /run/pi")
    pi.run("install --directory --owner=pi --mode=700 /var/lib/containers/rootless/1000")
    as_pi = f"cd / && setpriv --reuid=pi --regid=pi --init-groups {AS_PI}"
    info = "info --format '{{.Store.GraphDriverName}} {{.Store.GraphRoot}} {{.Host.Security.Rootless}}'"
    assert pi.run(f"{as_pi} {info}") == "overlay /var/lib/containers/rootless/1000 true"
    pi.run(f"{as_pi} import /srv/busybox.tar {IMAGE}")
    found = pi.run(f"{as_pi} run --rm --network none {IMAGE} cat /proc/self/uid_map /proc/self/mountinfo")
    assert found.split()[:6] == ["0", "1000", "1", "1", "100000", "65536"]
    assert "upperdir=/var/lib/containers/rootless/1000/overlay/" in found
    # Its namespaces are left to a process that waits in them.
    pi.run(f"{as_pi} system migrate; rm -r /run/pi")
