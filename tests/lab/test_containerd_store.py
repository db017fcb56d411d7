"""Docker 28 with containerd's image store, whose layers are below /var/lib/containerd, when things go wrong.

One Pi serves for all tests, in the order in which they stand here (work.py); its image is on a NAS with NFS 4.2, for
trim and snapshots. Each test that takes something away looks into the folder below: nothing may be written there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import Tell, random_seed

from .container import without_network
from .kernel_nas import SHARE, KernelNas
from .lab import Lab
from .records import IMAGE, Recorder, count_records
from .said import wait_for_state
from .test_faults import START, STOP, pause
from .test_forky import LAYERS, shown
from .test_power_cuts import LONGEST_RUN, cut_power, wait_at_random
from .work import Work, taken_up

pytestmark = [
    *(pytest.mark.lab, pytest.mark.root, pytest.mark.long),
    pytest.mark.parametrize("release", ["forky"], scope="module"),
]

MIB = 1 << 20
FILE = "docker.img"
CONFIG = f"[Server]\nAddress={{address}}\nVersion=4.2\n[Boot]\nExport=\n[Image docker]\nFile={FILE}\nSize=512M\n"
OUTAGE = 60.0
STORE = {"features": {"containerd-snapshotter": True}}
BELOW = ("/var/lib/docker", "/var/lib/containerd")
DOCKER_STOPS = "systemctl stop docker.socket docker.service containerd.service"
DOCKER_STARTS = "systemctl start docker.socket docker.service"
STARTED = "systemctl show --value --property ActiveEnterTimestampMonotonic docker.service"
CUTS = 2


@dataclass
class Workplace(Work):
    """One whose image comes from a NAS with NFS 4.2."""

    nas: KernelNas = field(kw_only=True)

    def is_refused(self, *words: str) -> str:
        """Docker and containerd do not start, leave nothing in the folders below, and status says why."""
        for unit in ("docker.service", "containerd.service"):
            assert self.pi.try_run(f"systemctl start {unit}").status != 0
        self.nothing_is_below()
        assert self.pi.try_run("systemctl is-active docker.service containerd.service").stdout.split() == [
            "inactive",
            "inactive",
        ]
        return self.status("critical", *words)

    def paste(self, report: str, command: str) -> None:
        """Type a command that a report gives as a remedy."""
        assert command in report
        self.pi.run(command, timeout=300)

    def nothing_is_below(self) -> None:
        """The root has nothing where the image's mount points are, seen from the NAS."""
        assert [path for folder in BELOW for path in self.pi.path(folder).glob("*")] == []

    def daemon_json(self, **keys: object) -> None:
        """Have Docker take these keys beside those that it has at the beginning."""
        without_network(self.pi)
        first = json.loads(self.pi.read("/etc/docker/daemon.json"))
        self.pi.write("/etc/docker/daemon.json", json.dumps({**first, **STORE, **keys}))


@pytest.fixture(scope="module")
def standing(deb: Path, release: str) -> Iterator[Workplace]:
    with Lab(deb=deb, release=release) as lab:
        nas = lab.kernel_nas()
        nas.start()
        pi = lab.pi("store")
        pi.write(
            "/etc/rpinfs/rpinfs.conf",
            CONFIG.format(address=nas.address),
        )
        with Recorder(lab.nas, lab.folder) as recorder:
            work = Workplace(lab, pi, recorder, nas=nas)
            work.daemon_json()
            yield work


@pytest.fixture
def work(request: pytest.FixtureRequest, standing: Workplace, tell: Tell) -> Workplace:
    taken_up(request, standing, tell)
    return standing


def test_layers_are_in_the_image(work: Workplace) -> None:
    """By what Docker says, by the device that they are on, and by the writer's own root."""
    pi = work.pi
    pi.run("rpinfs check docker.running docker.driver mount.right")
    assert pi.run("docker info --format '{{.Driver}} {{.DockerRootDir}}'") == "overlayfs /var/lib/docker"
    device = pi.run("findmnt --noheadings --output SOURCE --mountpoint /var/lib/docker")
    numbers = pi.run(f"cat /sys/class/block/{device.removeprefix('/dev/')}/dev")
    assert pi.run(f"stat --format %Hd:%Ld {LAYERS}") == numbers
    assert LAYERS in pi.run("docker exec writer grep ' / / ' /proc/self/mountinfo")
    work.tell(pi.run("uname -r; dockerd --version; containerd --version"))
    work.nothing_is_lost()


# Storage that is not there


def test_unmounted_while_docker_is_stopped(work: Workplace) -> None:
    work.pi.run(f"{DOCKER_STOPS}; umount /var/lib/containerd")
    wait_for_state(work.pi, "lost")
    report = work.status("critical", "/var/lib/containerd is not mounted from image docker")
    work.paste(report, "systemctl start var-lib-containerd.mount")
    work.pi.run("rpinfs check mount.right")
    # Nor need a person know: Docker's own start mounts it.
    work.pi.run(f"umount /var/lib/containerd; {DOCKER_STARTS}", timeout=300)
    work.nothing_is_below()
    work.nothing_is_lost()


def test_something_else_is_mounted_there(work: Workplace) -> None:
    work.pi.run(f"{DOCKER_STOPS}; mount -t tmpfs none /var/lib/containerd")
    report = work.is_refused("/var/lib/containerd is not kept in image docker: none (tmpfs) is mounted there")
    assert work.pi.run("ls -A /var/lib/containerd") == ""
    work.pi.run("umount /var/lib/containerd")
    work.paste(report, "systemctl start var-lib-containerd.mount")
    work.paste(report, "systemctl start docker.service containerd.service")
    work.nothing_is_lost()


def test_lost_under_a_running_docker(work: Workplace) -> None:
    """Docker is stopped, the folder mounted again, and Docker started again, all by itself."""
    started = work.pi.run(STARTED)
    work.pi.run("umount --lazy /var/lib/containerd")
    again = f"[ $({STARTED}) -gt {started} ]"
    work.pi.run(f"until {again} && systemctl is-active --quiet docker.service; do sleep 1; done", timeout=300)
    work.nothing_is_below()
    work.nothing_is_lost()


def test_lost_on_the_share(work: Workplace) -> None:
    """Somebody has moved the image away; when it is back, Docker is back by itself."""
    work.pi.run(f"{STOP}; mv /nfs/docker/{FILE} /nfs/docker/kept; {START}")
    wait_for_state(work.pi, "refused")
    work.is_refused(f"/nfs/docker/{FILE}: expected ", "see that the NAS has mounted the disk with the image")
    work.nas.run(f"mv {SHARE}/kept {SHARE}/{FILE}")
    work.pi.run("until systemctl is-active --quiet docker.service; do sleep 1; done", timeout=300)
    work.nothing_is_below()
    work.nothing_is_lost()


def test_nobody_has_said_that_it_is_kept_in_the_image(work: Workplace) -> None:
    """A configuration in which the folder is on the root; then the remedy, and a boot in order."""
    config = CONFIG.format(address=work.nas.address)
    work.pi.run(f"{DOCKER_STOPS}; umount /var/lib/containerd")
    work.pi.write("/etc/rpinfs/rpinfs.conf", f"{config}Bind=\n")
    work.pi.run("systemctl daemon-reload")
    work.is_refused(
        "containerd's root /var/lib/containerd (the default of containerd), where images are kept, is on no verified",
        "add /var/lib/containerd to Bind= of an image in rpinfs.conf and reboot",
    )
    work.pi.write("/etc/rpinfs/rpinfs.conf", f"{config}Bind=/var/lib/containerd\n")
    work.pi.reboot()
    work.pi.wait_started("docker.service")
    work.nothing_is_below()
    work.nothing_is_lost()


# An image with no room


def test_full(work: Workplace) -> None:
    """A container fills the image: said, with what to look at; Docker goes on; what is removed goes back to the NAS."""
    started = work.pi.run(STARTED)
    filled = work.pi.try_run(f"docker run --name filler {IMAGE} dd if=/dev/zero of=/it bs=1M; sync", timeout=600)
    assert "No space left on device" in filled.stderr
    assert work.pi.try_run("rpinfs check mount.space").status == 2
    report = work.status("critical", "/var/lib/docker is 100 % full, ", "set a larger Size=")
    work.paste(report, "docker system df")
    # What it is to write meanwhile it cannot, and no more than that.
    assert work.pi.run(STARTED) == started
    work.pi.run("rpinfs check docker.running docker.driver mount.writable mount.errors share.space")
    before = work.nas.space(FILE).allocated

    work.pi.run("docker rm filler")
    work.pi.run("until rpinfs check mount.space; do sleep 1; done")
    work.pi.run("rpinfs trim docker", timeout=600)
    after = work.nas.space(FILE).allocated
    work.tell(f"full: {before // MIB} MiB on the NAS, after removal and trim {after // MIB} MiB")
    assert before - after > 256 * MIB
    # It has met errors; when Docker tries it again is Docker's.
    work.pi.run("docker start writer")
    assert work.pi.run(STARTED) == started
    work.nothing_is_lost()


# Settings


def test_userns_remap_on_and_off(work: Workplace) -> None:
    """What Docker will not see is said before it is started so; a remapped container is on the image as well."""
    pi = work.pi
    work.daemon_json(**{"userns-remap": "default"})
    foretold = shown(pi)
    assert (foretold["snapshotter"], foretold["root"]) == (True, "/var/lib/docker/100000.100000")
    assert [problem["fatal"] for problem in foretold["problems"]] == [False]
    assert "docker build fails" in foretold["problems"][0]["message"]
    assert foretold["unseen"] == [
        {"what": "1 container, 1 volume", "folder": "/var/lib/docker"},
        {"what": "1 image of containerd", "folder": "/var/lib/containerd"},
    ]
    pi.run("systemctl restart docker.service", timeout=300)
    assert pi.run("docker info --format '{{.Driver}} {{.DockerRootDir}}'") == f"overlayfs {foretold['root']}"
    assert pi.run("docker images --quiet; docker ps --all --quiet; docker volume ls --quiet") == ""
    pi.run(f"docker import /root/writer.tar {IMAGE}:remapped")
    found = pi.run(f"docker run --name mapped {IMAGE}:remapped cat /proc/self/uid_map /proc/self/mountinfo")
    assert found.split()[:3] == ["0", "100000", "65536"]
    assert f"upperdir={LAYERS}/" in found
    pi.run("rpinfs check docker.userns docker.root docker.driver mount.right")

    work.daemon_json()
    assert shown(pi)["unseen"] == [
        {"what": "1 container", "folder": "/var/lib/docker/100000.100000"},
        {"what": "1 image of containerd", "folder": "/var/lib/containerd"},
    ]
    pi.run("systemctl restart docker.service", timeout=300)
    assert pi.run("docker images --format '{{.Repository}}:{{.Tag}}'") == f"{IMAGE}:latest"
    assert pi.run("docker ps --all --format '{{.Names}}'") == "writer"
    work.nothing_is_lost()


# A NAS that goes away, a snapshot, and power that goes away


def test_nas_unplugged_for_a_minute(work: Workplace) -> None:
    before = work.recorder.acknowledged
    work.nas.unplug()
    pause(work.pi, OUTAGE)
    assert "nothing is lost" in work.status("DOES NOT ANSWER")
    work.nas.plug()
    work.recorder.wait_beyond(max(before, work.recorder.acknowledged))
    assert "I/O error" not in work.pi.run("dmesg")
    assert work.pi.run("findmnt --noheadings --output OPTIONS /var/lib/containerd").startswith("rw")
    work.nothing_is_lost()


def test_snapshot_and_restore(work: Workplace) -> None:
    """What was removed after the snapshot, images and containers, is there again."""
    pi = work.pi
    pi.run(f"docker run --name kept {IMAGE} echo as it was")
    before = work.recorder.acknowledged
    snapshot = pi.run("rpinfs snapshot docker", timeout=600).splitlines()[-1].rpartition("/")[2]
    pi.run(f"docker rm --force kept writer && docker rmi {IMAGE}")
    assert pi.run("docker images --quiet; docker ps --all --quiet") == ""
    pi.run(f"{STOP} && rpinfs restore docker {snapshot} && {START}", timeout=600)
    work.wait_for_docker()
    assert pi.run("docker start --attach kept") == "as it was"
    work.tell(f"snapshot and restore: {count_records(pi, before)} records, {before} before it")
    # The writer is started again, and goes on from where the snapshot had it.
    work.recorder.wait_beyond(before)
    work.nothing_is_lost()


def test_power_cuts_while_a_container_writes(work: Workplace) -> None:
    chance, seed = random_seed()
    for _ in range(CUTS):
        work.recorder.wait_beyond(work.recorder.acknowledged)
        wait_at_random(chance, LONGEST_RUN)
        cut_power(work.pi)
        acknowledged = work.recorder.acknowledged
        work.pi.power_on()
        work.pi.wait_started("docker.service")
        checked = count_records(work.pi, acknowledged)
        # The container is started by Docker, with a root of its image.
        work.recorder.wait_beyond(acknowledged)
    work.tell(f"{CUTS} power cuts, seed {seed}: {checked} records checked, lost 0")
    assert work.pi.run("docker start --attach kept") == "as it was"
    work.pi.run(f"{STOP} && e2fsck -f -n /nfs/docker/{FILE}", timeout=300)
    work.pi.run(START)
    work.wait_for_docker()
    work.nothing_is_lost()
