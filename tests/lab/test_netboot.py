"""From a box to a booted Pi: what `rpinfs netboot plan`, `render` and `add` make, and nothing else, boots one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .box import BOX, Shell, a_linux_box_answers, everything_from_the_nas, stock_image
from .container import IMAGE, container_tar, without_network
from .lab import Lab
from .pi import Pi


@pytest.mark.lab
@pytest.mark.long
@pytest.mark.root
def test_from_an_image_to_a_container(plain_lab: Lab, deb: Path) -> None:
    pi, nas = plain_lab.board("pi1"), plain_lab.nas
    shell = Shell(plain_lab, deb, stock_image(plain_lab.base, plain_lab.machine))
    plan, render, add = shell.three_commands(pi, nas.address)
    assert "everything from the NAS" in shell.type(plan)
    assert "netboot/dnsmasq-proxy.conf" in shell.type(render)
    assert "installed: rpinfs" in shell.type(add)
    (shell.folder / "debian.img").unlink()
    without_network(pi)
    with everything_from_the_nas(plain_lab, pi, shell.proxy):
        pi.power_on()
        assert f"boot ROM: {pi.serial}/config.txt: " in pi.boot_log.read_text()
        assert f"TFTP server {nas.address}" in pi.boot_log.read_text()
        runs_a_container(pi, nas.address)
        assert (pi.run("hostname"), len(pi.run("cat /etc/machine-id"))) == ("pi1", 32)
        assert pi.run("cat /home/me/.ssh/authorized_keys") == (shell.folder / "key.pub").read_text().strip()
        known = json.loads(shell.type("rpinfs netboot list --root nfsroot --share docker --json"))
        assert [(one["name"], bool(one["record"]), len(one["images"])) for one in known] == [("pi1", True, 1)]
        assert known[0]["last_seen"] > known[0]["record"]["made"] - 3600
        pi.power_off()


@pytest.mark.lab
@pytest.mark.long
@pytest.mark.root
def test_a_linux_box_answers(plain_lab: Lab, deb: Path) -> None:
    """Topology D: the boot files come from the box, the root from the NAS."""
    pi, nas = plain_lab.board("pi1"), plain_lab.nas
    shell = Shell(plain_lab, deb, stock_image(plain_lab.base, plain_lab.machine))
    plan, render, add = shell.three_commands(pi, nas.address, f" --box {BOX},eth0 --topology D")
    page = shell.type(plan)
    assert "a Linux box answers" in page
    assert f"mount -t nfs -o vers=4.1 {nas.address}:/tftpboot /tftpboot" in page
    assert "netboot/rpi-netboot.service: for the Linux box" in shell.type(render)
    assert "installed: rpinfs" in shell.type(add)
    (shell.folder / "debian.img").unlink()
    without_network(pi)
    with a_linux_box_answers(plain_lab, pi, shell.folder / "netboot"):
        pi.power_on()
        assert f"TFTP server {BOX}" in pi.boot_log.read_text()
        assert f"boot ROM: {pi.serial}/config.txt: " in pi.boot_log.read_text()
        runs_a_container(pi, nas.address)
        pi.power_off()


def runs_a_container(pi: Pi, nas: str) -> None:
    """Up to Docker, with root, boot files and images of the NAS."""
    for unit in ("docker.service", "boot-firmware.mount"):
        pi.wait_started(unit)
    assert pi.run("findmnt --noheadings --output SOURCE /") == f"{nas}:/nfsroot/pi1"
    assert pi.run("findmnt --noheadings --output SOURCE /boot/firmware") == f"{nas}:/tftpboot/{pi.serial}"
    assert pi.run("rpinfs check fstab.conflicts boot.mounted boot.read-only share.mounted")
    pi.path("/root/container.tar").write_bytes(container_tar(pi.root))
    pi.run(f"docker import /root/container.tar {IMAGE}")
    assert pi.run(f"docker run --rm --network none {IMAGE} echo a container runs") == "a container runs"
