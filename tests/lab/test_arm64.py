"""Pis as they are: arm64, on whatever this machine is. Their roots are made through qemu-user where need be."""

from __future__ import annotations

import pytest

from tests.support import Tell, random_seed

from .container import IMAGE, without_network
from .image import is_clean, repair, superblock
from .initramfs import kernel_version
from .lab import Lab
from .pi import Pi
from .process import Daemon
from .records import Recorder, count_records, install_writer, start_writer
from .test_power_cuts import LONGEST_RUN, cut_power, wait_at_random
from .test_storage import assert_storage_is_up, give_container_image, image_of

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.long, pytest.mark.arm64]

PI_3 = (
    *("qemu-system-aarch64", "-machine", "raspi3b", "-smp", "4", "-no-reboot"),
    *("-display", "none", "-serial", "stdio", "-monitor", "none"),
)
DEVICE_TREE = "usr/lib/linux-image-{version}/broadcom/bcm2837-rpi-3-b.dtb"
PROOF = """\
[Service]
ExecStart=sh -c 'echo "$(cat /proc/device-tree/model) runs $(findmnt --noheadings --output SOURCE /)" >/dev/kmsg'
"""
PI_3_SECONDS = 3600.0
VERSIONS = "uname -r; systemctl --version | head -1; python3 --version; dockerd --version; getconf PAGE_SIZE"


def boots(pi: Pi, tell: Tell) -> None:
    """From power on to storage in its image, with nothing failed."""
    assert pi.boot() == "running"
    tell(f"{pi.name}: up {pi.seconds_since_power_on():.0f} s after power-on")
    assert_storage_is_up(pi)


@pytest.mark.parametrize("architecture", ["arm64"])
def test_two_boots_and_a_power_cut(lab: Lab, tell: Tell) -> None:
    pi = lab.pi("arm64")
    image = image_of(lab, pi)
    give_container_image(pi)
    without_network(pi)
    boots(pi, tell)
    tell(pi.run(VERSIONS))
    assert pi.run("uname -m; dpkg --print-architecture").split() == ["aarch64", "arm64"]
    pi.run(f"docker import /root/busybox.tar {IMAGE}")
    assert pi.run(f"docker run --name first {IMAGE} uname -m") == "aarch64"
    pi.power_off()
    assert is_clean(image), superblock(image)
    made = superblock(image)["Filesystem UUID"]

    chance, seed = random_seed()
    with Recorder(lab.nas, lab.folder) as recorder:
        boots(pi, tell)
        assert pi.run("docker start --attach first") == "aarch64"
        install_writer(pi)
        start_writer(pi, recorder, rest=20)
        recorder.wait_beyond(0)
        instant = wait_at_random(chance, LONGEST_RUN)
        cut_power(pi)
        acknowledged = recorder.acknowledged
        boots(pi, tell)
        checked = count_records(pi, acknowledged)
        tell(f"power cut after {instant:.1f} s, seed {seed}: {acknowledged} records acknowledged, {checked} found")
        assert pi.run("docker start --attach first") == "aarch64"
        pi.power_off()
    assert is_clean(image), superblock(image)
    assert superblock(image)["Filesystem UUID"] == made
    repair(image)


@pytest.mark.parametrize(
    ("architecture", "runs", "page"), [("armhf", "armhf", "4096"), ("arm64-16k", "arm64", "16384")]
)
def test_other_boards(lab: Lab, runs: str, page: str, tell: Tell) -> None:
    """Programs in 32 bits on a kernel in 64; a kernel with pages of 16 KiB, four times a block of the image."""
    pi = lab.pi(f"on-{runs}")
    give_container_image(pi)
    without_network(pi)
    for boot in (1, 2):
        boots(pi, tell)
        assert pi.run("uname -m; dpkg --print-architecture; getconf PAGE_SIZE").split() == ["aarch64", runs, page]
        if boot == 1:
            tell(pi.run(VERSIONS))
            pi.run(f"docker import /root/busybox.tar {IMAGE}")
            assert pi.run(f"docker run --name first {IMAGE} echo here") == "here"
        else:
            assert pi.run("docker start --attach first") == "here"
        pi.power_off()
        assert is_clean(image_of(lab, pi))


@pytest.mark.parametrize("architecture", ["arm64-full"])
def test_the_board_of_a_pi_3(plain_lab: Lab) -> None:
    """QEMU's own, whose card is on USB. That passes less than 200 kB/s, too little for Docker; systemd comes up."""
    pi = plain_lab.pi("raspi3b")
    pi.mask("docker.service", "docker.socket", "containerd.service")
    pi.write("/etc/systemd/journald.conf.d/lab.conf", "[Journal]\nStorage=volatile\n")
    pi.write("/etc/systemd/system/proof.service", PROOF)
    wanted = pi.path("/etc/systemd/system/multi-user.target.wants/proof.service")
    wanted.symlink_to("../proof.service")
    # See Pi.cpus: it has four, and no other number.
    pi.cmdline = f"{pi.cmdline} maxcpus=1"
    kernel, initramfs, cmdline = pi.netboot()
    tree = pi.path(DEVICE_TREE.format(version=kernel_version(pi.root)))
    argv = plain_lab.switch.inside(
        *PI_3,
        *("-kernel", kernel, "-initrd", initramfs, "-dtb", tree, "-append", cmdline),
        *("-netdev", f"tap,id=cable,ifname={pi.name},script=no,downscript=no"),
        *("-device", f"usb-net,netdev=cable,mac={pi.mac}"),
    )
    board = Daemon("raspi3b", argv, plain_lab.folder / "raspi3b.log")
    board.wait_for(f"Raspberry Pi 3 Model B.* runs 10.77.0.1:/nfsroot/{pi.name}", PI_3_SECONDS)
    board.kill()
