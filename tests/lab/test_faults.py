"""The fault table of the design, row by row, on a Pi whose containers write all the time.

One Pi serves for as many rows as it survives: each test begins with storage and a writer at work, and ends with all
that was acknowledged still there. The share comes from a NAS of its own, so that the Pi can be asked how it is while
that one has its fault.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rpinfs.lease.lease import RENEW_SECONDS
from tests.support import Tell, thorough

from .container import without_network
from .image import is_clean, repair
from .lab import Lab
from .nas import GaneshaNas
from .pi import Pi
from .process import run
from .records import Recorder
from .said import image_state, wait_for_state
from .test_storage import MOUNTS, assert_storage_is_up
from .work import Work, taken_up

pytestmark = [pytest.mark.lab, pytest.mark.root]
long = pytest.mark.long

MIB = 1 << 20
DISK = 1500 * MIB
"""Smaller than the image looks: the NAS can be full before the image is."""
STOP = "systemctl stop docker.socket docker.service containerd.service var-lib-docker.mount rpinfs-agent.service"
START = "systemctl start rpinfs-agent.service docker.socket"
WITHOUT_BOOT = MOUNTS[1:]
OUTAGE = 180.0 if thorough() else 50.0
"""Seconds for which the NAS is gone: the agent has noticed after 45. The longer one is longer than the NAS's lease, so
that locks are lost or must be reclaimed."""


@dataclass
class Workplace(Work):
    """One whose image comes from a NAS of its own."""

    nas: GaneshaNas = field(kw_only=True)

    @property
    def image(self) -> Path:
        return self.nas.image_path("docker.img")


@pytest.fixture(scope="module")
def standing(deb: Path, release: str, architecture: str) -> Iterator[Workplace]:
    with Lab(deb=deb, release=release, architecture=architecture) as lab:
        nas = lab.second_nas(disk=DISK)
        nas.start_nfs()
        pi = lab.pi("faulty")
        without_network(pi)
        pi.write(
            "/etc/rpinfs/rpinfs.conf",
            f"[Server]\nAddress={nas.address}\n[Boot]\nExport=\n[Image docker]\nFile=docker.img\nSize=2G\n",
        )
        with Recorder(nas, lab.folder) as recorder:
            yield Workplace(lab, pi, recorder, nas=nas)


@pytest.fixture
def work(request: pytest.FixtureRequest, standing: Workplace, tell: Tell) -> Workplace:
    taken_up(request, standing, tell)
    return standing


def fingerprint(path: Path) -> tuple[str, int]:
    """All but the superblock of an ext4: e2fsck -p notes there that it has found errors."""
    data = path.read_bytes()
    ext4 = data[0x438:0x43A] == b"\x53\xef"
    return hashlib.sha256(data[4096:] if ext4 else data).hexdigest(), path.stat().st_ino


# Images that cannot be used


def plain_bytes(path: Path) -> None:
    path.write_bytes(b"precious" * MIB)


def partitioned(path: Path) -> None:
    """A DOS partition table with one Linux partition from sector 2048 on."""
    entry = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 20480)
    path.write_bytes((bytes(446) + entry + bytes(48) + b"\x55\xaa").ljust(16 * MIB, b"\0"))


def swap(path: Path) -> None:
    run(["truncate", "--size=16M", path])
    run(["mkswap", path])


def shorter_than_its_file_system(path: Path) -> None:
    run(["mkfs.ext4", "-q", "-F", path, "64M"])
    run(["truncate", "--size=32M", path])


def beyond_repair(path: Path) -> None:
    """Two files claim the same block: e2fsck -p leaves that to a person."""
    run(["mkfs.ext4", "-q", "-F", "-O", "^metadata_csum,^extent,^64bit", path, "64M"])
    for name in ("one", "two"):
        run(["debugfs", "-w", "-R", f"write /bin/true {name}", path])
    block = run(["debugfs", "-R", "bmap one 0", path]).strip()
    run(["debugfs", "-w", "-R", f"set_inode_field two block[0] {block}", path])
    run(["debugfs", "-w", "-R", "set_super_value state 0", path])


REFUSED: list[tuple[Callable[[Path], None], str]] = [
    (plain_bytes, "data of unknown kind"),
    (partitioned, "partition table"),
    (swap, "swap"),
    (shorter_than_its_file_system, "cut short"),
    (beyond_repair, "only a person can decide"),
]


def test_file_with_any_data_in_it_is_untouched_and_named(work: Workplace, tell: Tell) -> None:
    """Also: image shorter than its file system; unclean ext4 that e2fsck -p cannot repair."""
    made = work.nas.share / "made"
    refused = REFUSED if thorough() else REFUSED[-3:]
    with another_image(work):
        for make, words in refused:
            make(made)
            before = fingerprint(made)
            work.pi.run("mv /nfs/docker/made /nfs/docker/docker.img")
            work.pi.run("systemctl restart rpinfs-agent.service")
            wait_for_state(work.pi, "refused")
            assert words in image_state(work.pi)["message"]
            assert work.pi.try_run("systemctl start docker.service").status != 0
            work.status("critical", words, "then: systemctl restart rpinfs-agent")
            assert fingerprint(work.image) == before, make.__name__
            work.pi.run("rm /nfs/docker/docker.img")
    work.nothing_is_lost()
    tell(f"{len(refused)} images that cannot be used: refused, named, untouched")


@contextmanager
def another_image(work: Workplace) -> Iterator[None]:
    """Something else under the name of the image for as long as a with statement lasts; Docker is back afterwards.

    Names are changed on the Pi: an NFS client may believe for a minute in those that it knows.
    """
    # What was verified under this name would be missed: it is given up first, as by who wants another one there.
    work.pi.run(f"{STOP}; rpinfs release docker && mv /nfs/docker/docker.img /nfs/docker/kept")
    try:
        yield
    finally:
        work.pi.run(f"{STOP}; rpinfs release docker; mv /nfs/docker/kept /nfs/docker/docker.img; {START}")
        work.wait_for_docker()


@long
def test_hole_from_end_to_end_is_formatted(work: Workplace) -> None:
    with another_image(work):
        run(["truncate", "--size=1G", work.nas.share / "made"])
        work.pi.run(f"mv /nfs/docker/made /nfs/docker/docker.img; {START}")
        work.wait_for_docker()
        assert work.image.stat().st_size == 2 << 30, "made as long as the hole is, then grown to Size="
        assert "made /nfs/docker/docker.img" in work.told()
        work.pi.run(STOP)
        assert is_clean(work.image)
    work.nothing_is_lost()


def test_image_leased_or_owned_by_another_pi(work: Workplace) -> None:
    """Refused, owner named, also while nobody holds its lock. With two Pis: test_two_pis.py."""
    record = "/nfs/docker/.docker.img.rpinfs-owner"
    work.pi.run(STOP)
    ours = json.loads(work.pi.run(f"cat {record}"))
    another = json.dumps({**ours, "hostname": "somebody", "serial": "100000001234abcd"})
    work.pi.run(f"echo '{another}' >{record}; {START}")
    wait_for_state(work.pi, "refused")
    assert work.pi.try_run("systemctl start docker.service").status != 0
    work.status("critical", "somebody (serial 100000001234abcd), last seen", "rpinfs adopt docker")
    work.pi.run("rpinfs adopt docker --now && systemctl restart rpinfs-agent.service")
    work.wait_for_docker()
    assert json.loads(work.pi.run(f"cat {record}"))["serial"] == ours["serial"]
    work.nothing_is_lost()


# A NAS that comes and goes


def test_nas_gone_for_minutes_while_containers_write(work: Workplace, tell: Tell) -> None:
    """Server stopped, then cable pulled: writes wait and go on; no error, nothing read-only, nothing lost."""
    ways = [
        ("NFS server stopped", work.nas.stop_nfs, work.nas.start_nfs),
        ("cable pulled", work.nas.unplug, work.nas.plug),
    ]
    for name, away, back in ways if thorough() else ways[:1]:
        before = work.recorder.acknowledged
        work.listen()
        away()
        pause(work.pi, OUTAGE)
        report = work.status("DOES NOT ANSWER")
        assert "nothing is lost" in report
        back()
        work.recorder.wait_beyond(max(before, work.recorder.acknowledged))
        work.nothing_is_lost()
        assert "I/O error" not in work.pi.run("dmesg")
        assert work.pi.run("findmnt --noheadings --output OPTIONS /var/lib/docker").startswith("rw")
        # A server that has just started gives no lock for a while (its grace period), and ours is renewed first.
        work.pi.run(f"until {work.journal} | grep -q 'answers again after'; do sleep 1; done", timeout=120)
        told = re.findall(r"answers again after (\d+) s", work.told())
        assert told and int(told[-1]) > OUTAGE / 2, work.told()
        tell(f"{name} for {OUTAGE:.0f} s: the agent counted {told[-1]} s, records lost 0")
    work.pi.run("rpinfs check mount share.answers share.mounted image.owner")


@long
def test_server_that_has_forgotten_its_clients(work: Workplace) -> None:
    """No lock can be reclaimed from it: that is noticed, said, and the lock is taken again."""
    work.nas.stop_nfs()
    work.nas.forget_clients()
    work.nas.start_nfs()
    work.recorder.wait_beyond(work.recorder.acknowledged)
    again = "its lock is held again"
    work.pi.run(f"until {work.journal} | grep -q '{again}'; do sleep 5; done", timeout=2 * RENEW_SECONDS)
    assert "its lock on the NAS is lost" in work.told()
    work.pi.run("rpinfs check mount share.answers share.mounted image.owner")
    work.nothing_is_lost()


def pause(pi: Pi, seconds: float) -> None:
    """Let the fault last, and look meanwhile whether the Pi is alive."""
    pi.run(f"sleep {seconds:.0f}", timeout=seconds + 60, from_memory=True)


def test_nas_full_behind_a_sparse_image(work: Workplace) -> None:
    """Warned of with figures before; said when it happens; and after room is made, Docker is back with everything."""
    filler = work.nas.share / "somebody else's films"
    space = os.statvfs(work.nas.share)
    run(["fallocate", "-l", str(space.f_bavail * space.f_frsize * 95 // 100), filler])
    warned = work.pi.run("rpinfs check share.space image.fits-share; true")
    assert "MiB" in warned and ("warning" in warned or "critical" in warned), warned
    run(["dd", "if=/dev/zero", f"of={filler}.more", "bs=1M"], ok=(0, 1))
    work.pi.run(
        "docker run --rm --volume fill:/fill lab/writer dd if=/dev/zero of=/fill/it bs=1M count=600 conv=fsync || true",
        timeout=300,
    )
    report = work.status("0 bytes of 1.4 GiB free", "ERRORS RECORDED")
    filler.unlink()
    Path(f"{filler}.more").unlink()
    work.pi.run(pasted(report, "var-lib-docker.mount"), timeout=300)
    assert "e2fsck has put it right" in work.told()
    work.pi.run("rpinfs check mount.right mount.writable mount.errors docker.running")
    work.nothing_is_lost()
    snapshot = snapshot_of(work)
    run(["e2fsck", "-f", "-n", snapshot])
    snapshot.unlink()


def pasted(report: str, unit: str) -> str:
    """The command with a unit in it that a report gives as a remedy, as somebody would paste it."""
    lines = {line.strip() for line in report.splitlines()}
    (command,) = {line for line in lines if line.startswith("systemctl stop") and f" {unit} " in line}
    return command


def snapshot_of(work: Workplace) -> Path:
    """A snapshot of the image at work, to look into."""
    return work.nas.share / Path(work.pi.run("rpinfs snapshot docker", timeout=600)).name


def test_export_removed_and_exported_again(work: Workplace) -> None:
    """A stale file handle is told from an outage; what it damaged comes back by the remedy."""
    work.nas.unexport_share()
    work.pi.run("until rpinfs check share.answers | grep -q 'Stale file handle'; do sleep 2; done", timeout=300)
    report = work.status("Stale file handle")
    assert "DOES NOT ANSWER" not in report
    work.nas.export_share()
    work.pi.run(pasted(report, "nfs-docker.mount"), timeout=300)
    work.pi.run("rpinfs check share.answers share.mounted mount.right mount.errors docker.running")
    work.nothing_is_lost()


# Mounts


def test_mount_lost_under_a_running_docker(work: Workplace) -> None:
    """Docker is stopped, the image mounted again, and Docker started again, all by itself."""
    started = work.pi.run("systemctl show --value --property ActiveEnterTimestampMonotonic docker.service")
    work.pi.run("umount --lazy /var/lib/docker")
    again = f"[ $(systemctl show --value --property ActiveEnterTimestampMonotonic docker.service) -gt {started} ]"
    work.pi.run(f"until {again} && systemctl is-active --quiet docker.service; do sleep 1; done", timeout=300)
    assert_storage_is_up(work.pi, WITHOUT_BOOT)
    assert list(work.pi.path("/var/lib/docker").glob("*")) == [], "Docker wrote into the folder below"
    work.nothing_is_lost()


@long
def test_image_unmounted_by_hand_with_docker_stopped(work: Workplace) -> None:
    """A person at work is left alone, and Docker's next start mounts the image again."""
    work.pi.run("systemctl stop docker.socket docker.service containerd.service")
    work.pi.run("umount /var/lib/containerd /var/lib/docker")
    wait_for_state(work.pi, "lost")
    assert work.pi.try_run("systemctl is-active docker.service").stdout.strip() == "inactive"
    work.pi.run("systemctl start docker.socket docker.service")
    work.nothing_is_lost()


def test_files_hidden_under_the_mount_point(work: Workplace) -> None:
    """Warned of, with their size; never deleted."""
    hidden = work.pi.path("/var/lib/docker/forgotten")
    hidden.write_bytes(bytes(3 * MIB))
    found = work.pi.try_run("rpinfs check mount.hidden")
    assert found.status == 1, found
    assert "forgotten" in found.stdout and "3 MiB" in found.stdout, found.stdout
    assert hidden.exists()
    hidden.unlink()
    assert work.pi.try_run("rpinfs check mount.hidden").status == 0


@long
def test_snapshot_while_containers_write(work: Workplace) -> None:
    """On NFS 4.1, where the Pi itself copies what the file system uses."""
    snapshot = snapshot_of(work)
    run(["e2fsck", "-f", "-n", snapshot])
    assert snapshot.name in work.pi.run("rpinfs snapshot --list docker")
    snapshot.unlink()
    work.nothing_is_lost()


# The agent


def test_agent_killed_and_stopped(work: Workplace) -> None:
    """Containers go on; the next agent carries on with the same device; a stop by mistake does no harm."""
    device = work.pi.run("findmnt --noheadings --output SOURCE /var/lib/docker")
    started = work.pi.run("docker inspect --format {{.State.StartedAt}} writer")
    restarts = int(work.pi.run("systemctl show --value --property NRestarts rpinfs-agent.service"))
    work.pi.run("systemctl kill --signal KILL rpinfs-agent.service")
    work.pi.run(
        f"until [ $(systemctl show --value --property NRestarts rpinfs-agent.service) -gt {restarts} ] &&"
        " systemctl is-active --quiet rpinfs-agent.service; do sleep 1; done"
    )
    work.pi.run("systemctl stop rpinfs-agent.service")
    work.recorder.wait_beyond(work.recorder.acknowledged)
    work.pi.run("systemctl start rpinfs-agent.service")
    assert work.pi.run("findmnt --noheadings --output SOURCE /var/lib/docker") == device
    assert work.pi.run("docker inspect --format {{.State.StartedAt}} writer") == started
    work.nothing_is_lost()
    work.pi.run("until rpinfs check image.owner mount.right; do sleep 1; done")


@long
def test_package_upgraded_while_containers_run(work: Workplace, deb: Path) -> None:
    inside = work.pi.path("/root/rpinfs.deb")
    inside.write_bytes(deb.read_bytes())
    started = work.pi.run("docker inspect --format {{.State.StartedAt}} writer")
    work.pi.run("dpkg -i /root/rpinfs.deb", timeout=300)
    work.pi.run("systemctl is-active rpinfs-agent.service docker.service")
    assert work.pi.run("docker inspect --format {{.State.StartedAt}} writer") == started
    work.nothing_is_lost()


# Shutdown


@long
@pytest.mark.parametrize("nas", ["well", "stopped", "unplugged"])
def test_shutdown_with_containers_running(work: Workplace, tell: Tell, nas: str) -> None:
    """In order and clean with the NAS there; in bounded time without it, and then the next boot repairs."""
    if nas == "stopped":
        work.nas.stop_nfs()
    elif nas == "unplugged":
        work.nas.unplug()
    acknowledged = work.recorder.acknowledged
    work.pi.run("systemctl --no-block reboot", from_memory=False)
    begun = work.pi.seconds_since_power_on()
    work.pi.wait_off(600)
    took = work.pi.seconds_since_power_on() - begun
    if nas == "well":
        assert is_clean(work.image)
        assert "Failed to unmount" not in work.pi.console(), "something outlived its unit"
    else:
        work.nas.stop_nfs()
        work.nas.plug()
        work.nas.start_nfs()
    state = "clean" if is_clean(work.image) else "to be replayed"
    tell(f"shutdown with the NAS {nas + ':':<10} {took:3.0f} s, ext4 {state}")
    work.pi.power_on()
    work.pi.wait_started("docker.service")
    assert work.recorder.acknowledged >= acknowledged
    work.nothing_is_lost()
    assert_storage_is_up(work.pi, WITHOUT_BOOT)


# What goes wrong before systemd has begun


@long
def test_generator_crashing_and_clock_in_1970(work: Workplace) -> None:
    """Docker down, said so; and a clock that nobody has set is no reason for anything."""
    work.pi.power_off()
    generator = work.pi.path("/usr/share/rpinfs/rpinfs/boot/generator.py")
    text = generator.read_text()
    for bound in work.pi.path("/usr/share/rpinfs").glob("bound.*"):
        bound.unlink()
    generator.write_text("raise SystemExit(1)\n")
    work.pi.power_on()
    work.pi.wait_booted()
    assert work.pi.try_run("systemctl is-active docker.service").stdout.strip() != "active"
    assert list(work.pi.path("/var/lib/docker").glob("*")) == []
    report = work.status("critical", "rpinfs-generator has written no units")
    generator.write_text(text)
    work.pi.run(re.findall(r"systemctl daemon-reload; .*", report)[0], timeout=300)
    work.nothing_is_lost()
    work.pi.power_off()
    work.pi.qemu_options = ["-rtc", "base=1970-01-02T00:00:00"]
    work.pi.power_on()
    work.pi.wait_started("docker.service")
    work.nothing_is_lost()
    work.pi.qemu_options = []
    work.pi.power_off()
    repair(work.image)
