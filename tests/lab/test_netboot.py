"""From a box to a booted Pi: what `rpinfs netboot plan`, `render` and `add` make, and nothing else, boots one.

Everything from the NAS (topology A): the router gives addresses and knows nothing of Pis; the NAS has its own TFTP and
NFS, and beside them dnsmasq with the rendered configuration. The image is made here as a card has it, with Debian.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import PYTHON, TOP
from tests.tools.netboot.stock import make_image

from .container import IMAGE, container_tar, without_network
from .initramfs import kernel_version, make_initramfs
from .lab import CONFIG_TXT, Lab
from .network import NETWORK, PREFIX_LENGTH, Namespace
from .pi import Pi
from .process import Daemon, run

STOCK_CMDLINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=1-02 rootfstype=ext4 fsck.repair=yes rootwait resize"
    " mitigations=off"
)
BOOT_MIB, ROOT_MIB = 96, 900
ROUTER = f"{NETWORK}.254"
ROUTER_CONFIG = """\
user=root
interface=eth0
bind-interfaces
port=0
dhcp-range={network}.0,static
dhcp-host={mac},{address},infinite
dhcp-leasefile={leases}
dhcp-ignore-clid
log-dhcp
"""
READY_SECONDS = 60.0


def stock_image(lab: Lab, folder: Path) -> Path:
    """An image with the lab's Debian: its boot files have the kernel and the initramfs of this lab's emulated board."""
    boot = folder / "boot"
    boot.mkdir()
    (boot / "cmdline.txt").write_text(f"{STOCK_CMDLINE}\n")
    (boot / "config.txt").write_text(CONFIG_TXT)
    (boot / "start4.elf").write_text("firmware")
    shutil.copyfile(lab.base / "boot" / f"vmlinuz-{kernel_version(lab.base)}", boot / "vmlinuz")
    (boot / "initramfs.img").write_bytes(make_initramfs(lab.base))
    return make_image(folder / "debian.img", lab.base, boot, boot_mib=BOOT_MIB, root_mib=ROOT_MIB)


def netboot(folder: Path, *words: str | Path) -> str:
    """Run rpinfs netboot on the NAS, which is this machine."""
    done = subprocess.run(
        [*PYTHON, "-m", "rpinfs", "netboot", *(str(word) for word in words)],
        capture_output=True,
        text=True,
        cwd=TOP,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(folder)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def everything_from_the_nas(lab: Lab, pi: Pi, proxy: Path) -> Iterator[None]:
    """The router's DHCP; on the NAS its TFTP and the rendered proxy, in place of what a lab has otherwise."""
    lab.nas.stop_netboot()
    router = Namespace(f"{lab.name}-router")
    lab.switch.connect(router, "router")
    router.ip("address", "add", f"{ROUTER}/{PREFIX_LENGTH}", "dev", "eth0")
    work = lab.folder / "router"
    work.mkdir()
    text = ROUTER_CONFIG.format(network=NETWORK, mac=pi.mac, address=pi.address, leases=work / "leases")
    (work / "dnsmasq.conf").write_text(text)
    dnsmasq = ("dnsmasq", "--keep-in-foreground", "--pid-file=", "--log-facility=-", "--user=root")
    tftp = ("--conf-file=/dev/null", "--port=0", "--enable-tftp", f"--tftp-root={lab.nas.tftpboot}")
    daemons = [
        Daemon(name, command, work / f"{name}.log")
        for name, command in (
            ("router", router.inside(*dnsmasq, f"--conf-file={work}/dnsmasq.conf")),
            ("tftp", lab.nas.inside(*dnsmasq, *tftp)),
            ("proxy", lab.nas.inside(*dnsmasq, "--log-dhcp", f"--conf-file={proxy}")),
        )
    ]
    try:
        for daemon in daemons:
            daemon.wait_for("started", READY_SECONDS)
        yield
    finally:
        for daemon in daemons:
            daemon.terminate()


@pytest.mark.lab
@pytest.mark.long
@pytest.mark.root
def test_from_an_image_to_a_container(plain_lab: Lab, deb: Path, tmp_path: Path) -> None:
    pi, nas = plain_lab.board("pi1"), plain_lab.nas
    plan, key = tmp_path / "plan.toml", tmp_path / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    image = stock_image(plain_lab, tmp_path)
    board = f"pi1,4,{pi.serial},{pi.mac}"
    subnet = f"{NETWORK}.0/{PREFIX_LENGTH}"
    assert "everything from the NAS" in netboot(
        tmp_path, "plan", plan, "--nas", nas.address, "--subnet", subnet, "--pi", board
    )
    netboot(tmp_path, "render", plan, "--output", tmp_path / "out")
    place = ("--plan", plan, "--root", nas.nfsroot, "--tftp", nas.tftpboot)
    for file in nas.tftpboot.iterdir():
        file.unlink()  # What a lab serves to all its Pis: this one has its own.
    made = ("--user", "me", "--ssh-key", f"{key}.pub", "--deb", deb, "--docker")
    said = netboot(tmp_path, "add", image, "--name", "pi1", *made, *place)
    assert "installed: rpinfs" in said
    image.unlink()
    without_network(pi)
    with everything_from_the_nas(plain_lab, pi, tmp_path / "out/dnsmasq-proxy.conf"):
        pi.power_on()
        assert f"boot ROM: {pi.serial}/config.txt: " in pi.boot_log.read_text()
        assert f"TFTP server {nas.address}" in pi.boot_log.read_text()
        pi.wait_started("docker.service")
        assert pi.run("findmnt --noheadings --output SOURCE /") == f"{nas.address}:/nfsroot/pi1"
        assert pi.run("findmnt --noheadings --output SOURCE /boot/firmware") == f"{nas.address}:/tftpboot/{pi.serial}"
        assert (pi.run("hostname"), len(pi.run("cat /etc/machine-id"))) == ("pi1", 32)
        assert pi.run("cat /home/me/.ssh/authorized_keys") == Path(f"{key}.pub").read_text().strip()
        pi.path("/root/container.tar").write_bytes(container_tar(pi.root))
        pi.run(f"docker import /root/container.tar {IMAGE}")
        assert pi.run(f"docker run --rm --network none {IMAGE} echo a container runs") == "a container runs"
        known = json.loads(netboot(tmp_path, "list", "--root", nas.nfsroot, "--share", nas.share, "--json"))
        assert [(one["name"], bool(one["record"]), len(one["images"])) for one in known] == [("pi1", True, 1)]
        assert known[0]["last_seen"] > known[0]["record"]["made"] - 3600
        pi.power_off()
