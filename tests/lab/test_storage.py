"""The whole way, for real: emulated Pis from the package to their containers, and back on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import Tell, thorough

from .container import IMAGE, container_tar
from .image import is_clean, make_by_hand, space, superblock
from .lab import Lab
from .pi import Pi
from .traffic import traffic

pytestmark = [pytest.mark.lab, pytest.mark.root]

MIB, GIB = 1 << 20, 1 << 30
FIRST_BOOT_SENDS = 40 * MIB
"""Until Docker runs: 26 to 27 MiB, of which 6 are the share's (`make bench`): its superblock is the root's as well, and
the kernel counts both together. Zeroed inode tables would be hundreds."""
FSTAB = """\
nas.local:/tftpboot /boot nfs defaults,vers=4.1,ro 0 0
nas.local:/docker /nfs/docker nfs defaults,vers=4.1 0 0
/nfs/docker/loop /var/lib/docker ext4 loop,x-systemd.requires=/nfs/docker 0 2
"""
MOUNTS = ("/boot/firmware", "/nfs/docker", "/var/lib/docker", "/var/lib/containerd")


def give_container_image(pi: Pi) -> None:
    """Put a container image where the Pi can `docker import` it, without a registry."""
    pi.path("/root/busybox.tar").write_bytes(container_tar(pi.root))


def image_of(lab: Lab, pi: Pi) -> Path:
    """The image that an empty config makes for a Pi: named after its NIC, since QEMU's boards have no serial number."""
    return lab.nas.image_path(f"docker-{pi.mac.replace(':', '-')}.img")


def assert_storage_is_up(pi: Pi, mounts: Sequence[str] = MOUNTS) -> None:
    found = pi.run("; ".join(f"findmnt --noheadings --output TARGET --mountpoint {where}" for where in mounts))
    assert found.split() == list(mounts)
    device = pi.run("findmnt --noheadings --output SOURCE /var/lib/docker")
    # The lease's lock is kept by a loop device of its own.
    assert pi.run(f"losetup --noheadings --output DIO,LOG-SEC {device}").split() == ["1", "4096"]
    assert pi.run("docker info --format '{{.Driver}} {{.DockerRootDir}}'") == "overlay2 /var/lib/docker"
    # systemd tells of a cycle and drops one of its jobs, another one at each boot (FACTS: 2 of 5 boots mounted).
    # In all boots so far, and in how they ended.
    assert "cycle" not in pi.try_run("journalctl --grep 'ordering cycle'").stdout
    assert pi.run("systemctl --failed --no-legend --plain") == ""


def test_boots_in_a_row_from_an_empty_share(lab: Lab, tell: Tell) -> None:
    pi = lab.pi("boots")
    image = image_of(lab, pi)
    give_container_image(pi)
    assert not image.exists()
    boots = 10 if thorough() else 2
    for boot in range(1, boots + 1):
        if boot == 2:
            pi.write("/etc/rpinfs/rpinfs.conf", "[Image docker]\nSize=12G\n")
        pi.power_on()
        assert pi.wait_booted() == "running"
        print(f"boot {boot}: up {pi.seconds_since_power_on():.0f} s after power-on")
        assert_storage_is_up(pi)
        if boot == 1:
            sent = traffic(pi).written
            assert sent < FIRST_BOOT_SENDS
            tell(f"first boot: {sent / MIB:.1f} MiB written to the NAS, the root's own included")
            pi.run(f"docker import /root/busybox.tar {IMAGE}")
            assert (
                pi.run(f"docker run --name first {IMAGE} echo hello from the first boot") == "hello from the first boot"
            )
            pi.run(f"docker run --detach --name writer {IMAGE} sh -c 'while sleep 1; do date >> /log; done'")
            assert_agent_can_be_killed(pi)
        else:
            assert pi.run("docker start --attach first") == "hello from the first boot"
            assert int(pi.run("df --output=size /var/lib/docker | tail -1")) * 1024 > 11 * GIB, "it has not grown"
        pi.power_off()
        assert is_clean(image), superblock(image)
    taken = space(image)
    assert taken.apparent == 12 * GIB
    assert taken.allocated < GIB // 8
    tell(f"{boots} boots in a row: storage mounted each time, no ordering cycle, ext4 clean")


def assert_agent_can_be_killed(pi: Pi) -> None:
    """The containers go on, and the next agent takes up where the last one was: same device, same lease."""
    device = pi.run("findmnt --noheadings --output SOURCE /var/lib/docker")
    started = pi.run("docker inspect --format {{.State.StartedAt}} writer")
    pi.run("systemctl kill --signal KILL rpinfs-agent.service")
    pi.run("until [ $(systemctl show --value --property NRestarts rpinfs-agent.service) -gt 0 ]; do sleep 1; done")
    pi.run("until systemctl is-active --quiet rpinfs-agent.service; do sleep 1; done")
    assert pi.run("findmnt --noheadings --output SOURCE /var/lib/docker") == device
    assert pi.run("docker inspect --format '{{.State.Running}} {{.State.StartedAt}}' writer") == f"true {started}"
    pi.run("rpinfs check image.owner mount.right docker.running")


def test_imported_fstab_keeps_old_containers(lab: Lab) -> None:
    """The hand-made way first, with rpinfs switched off; then its fstab lines imported, and its containers again."""
    pi = lab.pi("fstab")
    make_by_hand(lab.nas.image_path("loop"), 2 * GIB)
    give_container_image(pi)
    ordinary = pi.cmdline
    # Docker would start before the mounts are made by hand, and that on the root, where it takes vfs.
    pi.cmdline = f"{ordinary} rpinfs=off systemd.mask=docker.service systemd.mask=docker.socket"
    pi.boot()
    assert pi.run("cat /run/systemd/generator/nfs-docker.mount || echo nothing").endswith("nothing")
    pi.write("/etc/fstab", FSTAB)
    pi.run("mkdir -p /nfs/docker /var/lib/docker && mount /nfs/docker && mount /var/lib/docker")
    pi.run("dockerd >/run/dockerd.log 2>&1 & echo $! >/run/dockerd.pid")
    pi.run("until docker info >/dev/null 2>&1; do sleep 1; done")
    pi.run(f"docker import /root/busybox.tar {IMAGE}")
    assert pi.run(f"docker run --name old {IMAGE} echo as it was") == "as it was"
    pi.run("kill $(cat /run/dockerd.pid); while [ -e /proc/$(cat /run/dockerd.pid) ]; do sleep 1; done")
    pi.run("rpinfs config import-fstab --output /etc/rpinfs/rpinfs.conf")
    pi.power_off()

    pi.write("/etc/fstab", re.sub("^", "#", FSTAB, flags=re.MULTILINE))
    pi.cmdline = ordinary
    assert pi.boot() == "running"
    assert pi.run("cat /sys/block/loop0/loop/backing_file") == "/nfs/docker/loop"
    assert pi.run("findmnt --noheadings --output SOURCE /boot") == "nas.local:/tftpboot"
    assert pi.run("docker start --attach old") == "as it was"
    pi.power_off()
    assert is_clean(lab.nas.image_path("loop"))


@pytest.mark.parametrize("release", ["bookworm"])
def test_first_boot_on_debian_12(lab: Lab) -> None:
    pi = lab.pi("bookworm")
    give_container_image(pi)
    assert pi.boot() == "running"
    assert_storage_is_up(pi)
    pi.run(f"docker import /root/busybox.tar {IMAGE}")
    assert pi.run(f"docker run --rm {IMAGE} echo hello") == "hello"
    pi.power_off()
    assert is_clean(image_of(lab, pi))


def test_late_nas_and_wrong_config(lab: Lab) -> None:
    """The boot goes on without Docker; Docker follows by itself; status never hangs; a wrong config says where."""
    pi = lab.pi("late")
    nas = lab.second_nas()
    pi.write("/etc/rpinfs/rpinfs.conf", f"[Server]\nAddress={nas.address}\n[Boot]\nExport=\n")
    pi.power_on()
    assert pi.wait_booted() == "degraded"
    assert pi.try_run("systemctl is-active docker.service").stdout.strip() != "active"
    # Docker has left nothing below the empty mount point, if that is there at all.
    assert list(pi.path("/var/lib/docker").glob("*")) == []
    assert pi.try_run("rpinfs check mount.right").status == 2
    assert "10.77.0.2" in pi.try_run("rpinfs status").stdout

    nas.start()
    pi.run("until systemctl is-active --quiet docker.service; do sleep 1; done", timeout=240)
    assert pi.run("docker info --format '{{.Driver}}'") == "overlay2"

    nas.stop_nfs()
    report = pi.try_run("rpinfs status")
    assert report.status != 0
    print(report.stdout)
    nas.start_nfs()
    pi.run("sync -f /nfs/docker", timeout=240)

    pi.write("/etc/rpinfs/rpinfs.conf", f"[Server]\nAddress={nas.address}\n[Image docker]\nSize=12Q\n")
    refused = pi.try_run("systemctl daemon-reload; systemctl restart docker.service")
    assert refused.status != 0
    sentence = "/etc/rpinfs/rpinfs.conf:4: [Image docker] Size=12Q: expected a size"
    assert sentence in pi.run("journalctl --unit rpinfs-gate.service --lines 5 --output cat")
    assert sentence in pi.try_run("rpinfs status").stdout
    assert sentence in pi.run("dmesg | grep rpinfs-generator")
    pi.power_off()
