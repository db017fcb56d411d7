"""From a box to a booted Pi: a stock image, who types `rpinfs netboot` on the NAS, and the servers of topology A.

Everything from the NAS: the router gives addresses and knows nothing of Pis; the NAS has its own TFTP and NFS, and
beside them dnsmasq with the rendered configuration. The image is made as a card has it, with the lab's Debian.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import Installed, make_tree
from tests.tools.netboot.stock import make_image

from .initramfs import kernel_version, make_initramfs
from .lab import CONFIG_TXT, Lab
from .network import NETWORK, PREFIX_LENGTH, Namespace
from .pi import Pi
from .process import Daemon, run
from .root import DIGITS, Progress, cached, forget_old, quiet

STOCK_CMDLINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=1-02 rootfstype=ext4 fsck.repair=yes rootwait resize"
    " mitigations=off"
)
BOOT_MIB, ROOT_MIB = 96, 900
IMAGE_NAME = "debian.img"
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


def stock_image(base: Path, progress: Progress = quiet) -> Path:
    """An image of a root, from the cache: its boot files have the kernel and the initramfs of the emulated board."""
    boot = {
        "cmdline.txt": f"{STOCK_CMDLINE}\n".encode(),
        "config.txt": CONFIG_TXT.encode(),
        "start4.elf": b"firmware",
        "vmlinuz": (base / "boot" / f"vmlinuz-{kernel_version(base)}").read_bytes(),
        "initramfs.img": make_initramfs(base),
    }
    digest = hashlib.sha256(repr((BOOT_MIB, ROOT_MIB)).encode())
    for name, content in boot.items():
        digest.update(name.encode() + hashlib.sha256(content).digest())

    def make(folder: Path) -> None:
        progress(f"making an image of {base.name}, once: FAT and ext4, as a card has them")
        with TemporaryDirectory(prefix="rpinfs-lab-boot-") as name:
            files = make_tree(Path(name), boot)
            make_image(folder / IMAGE_NAME, base, files, boot_mib=BOOT_MIB, root_mib=ROOT_MIB)

    found = cached(base.with_name(f"{base.name}+card-{digest.hexdigest()[:DIGITS]}"), make)
    forget_old(found, f"{base.name}+card-*")
    return found / IMAGE_NAME


class Shell:
    """Root's shell on the NAS, in the folder with what it exports; beside that lie the image, the package and a key."""

    def __init__(self, lab: Lab, deb: Path, image: Path) -> None:
        self.folder = lab.nas.nfsroot.parent
        self.deb = deb.name
        self.proxy = self.folder / "netboot/dnsmasq-proxy.conf"
        programs = lab.folder / "programs"
        self._path = f"{Installed(programs).rpinfs.parent}:{os.environ['PATH']}"
        for file in lab.nas.tftpboot.iterdir():
            file.unlink()  # What a lab serves to all its Pis: here each has its own.
        shutil.copyfile(deb, self.folder / deb.name)
        run(["cp", "--reflink=auto", "--sparse=always", image, self.folder])
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "key"])

    def type(self, line: str) -> str:
        """Run a command line; what it prints. Raises LabError where it fails."""
        return run(["env", f"--chdir={self.folder}", "bash", "-c", line], env={"PATH": self._path})

    def three_commands(self, pi: Pi, nas: str) -> tuple[str, str, str]:
        """What a person types for a board. The exports of this NAS lie in the current folder, not in its /."""
        network, roots = f"{NETWORK}.0/{PREFIX_LENGTH}", pi.root.parent.name
        # The MAC address, too: this board has no serial number that it could tell rpinfs, and its image is named by it.
        board = f"{pi.name},4,{pi.serial},{pi.mac}"
        made = f"--name {pi.name} --user me --ssh-key key.pub --deb {self.deb} --docker"
        return (
            f"rpinfs netboot plan --nas {nas} --subnet {network} --pi {board}",
            "rpinfs netboot render --output netboot",
            f"rpinfs netboot add {IMAGE_NAME} {made} --root {roots} --tftp tftpboot",
        )


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
