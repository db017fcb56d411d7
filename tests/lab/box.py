"""From a box to a booted Pi: a stock image, who types `rpinfs netboot` on the NAS, and the servers of two topologies.

The router gives addresses and knows nothing of Pis. A, everything from the NAS: it has its own TFTP and NFS, and beside
them dnsmasq with the rendered configuration. D, a Linux box answers: its dnsmasq, as the rendered unit starts it, does
proxy DHCP and TFTP; NFS is the NAS's. The image is made as a card has it, with the lab's Debian.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import Installed, make_tree
from tests.tools.netboot.lan import servers_root
from tests.tools.netboot.stock import make_image

from .initramfs import kernel_version, make_initramfs
from .lab import CONFIG_TXT, Lab
from .machine import Machine
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
ROUTER, BOX = f"{NETWORK}.254", f"{NETWORK}.253"
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
DNSMASQ = ("dnsmasq", "--keep-in-foreground", "--pid-file=", "--log-facility=-", "--user=root")
READY_SECONDS = 60.0


def stock_image(base: Path, machine: Machine, progress: Progress = quiet) -> Path:
    """An image of a root, from the cache: its boot files have the kernel and the initramfs of the emulated board."""
    boot = {
        "cmdline.txt": f"{STOCK_CMDLINE}\n".encode(),
        "config.txt": CONFIG_TXT.encode(),
        "start4.elf": b"firmware",
        "vmlinuz": (base / "boot" / f"vmlinuz-{kernel_version(base)}").read_bytes(),
        "initramfs.img": make_initramfs(base, machine.modules),
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

    def three_commands(self, pi: Pi, nas: str, more: str = "") -> tuple[str, str, str]:
        """What a person types for a board. The exports of this NAS lie in the current folder, not in its /."""
        network, roots = f"{NETWORK}.0/{PREFIX_LENGTH}", pi.root.parent.name
        # The MAC address, too: this board has no serial number that it could tell rpinfs, and its image is named by it.
        board = f"{pi.name},4,{pi.serial},{pi.mac}"
        made = f"--name {pi.name} --user me --ssh-key key.pub --deb {self.deb} --docker"
        return (
            f"rpinfs netboot plan --nas {nas} --subnet {network} --pi {board}{more}",
            "rpinfs netboot render --output netboot",
            f"rpinfs netboot add {IMAGE_NAME} {made} --root {roots} --tftp tftpboot",
        )


@contextmanager
def everything_from_the_nas(lab: Lab, pi: Pi, proxy: Path) -> Iterator[None]:
    """The router's DHCP; on the NAS its TFTP and the rendered proxy, in place of what a lab has otherwise."""
    tftp = ("--conf-file=/dev/null", "--port=0", "--enable-tftp", f"--tftp-root={lab.nas.tftpboot}")
    servers = {
        "tftp": lab.nas.inside(*DNSMASQ, *tftp),
        "proxy": lab.nas.inside(*DNSMASQ, "--log-dhcp", f"--conf-file={proxy}"),
    }
    with _router(lab, pi), _started(lab, servers):
        yield


@contextmanager
def a_linux_box_answers(lab: Lab, pi: Pi, rendered: Path) -> Iterator[None]:
    """The router's DHCP; a box beside the NAS with what render has made for it, each file in its place.

    Its Debian is that of the netboot tests; the boot files of the NAS are mounted where the page of plan says, by bind
    in the place of NFS, which the kernel of this machine need not have.
    """
    box = Namespace(f"{lab.name}-box")
    lab.switch.connect(box, "box")
    box.ip("address", "add", f"{BOX}/{PREFIX_LENGTH}", "dev", "eth0")
    unit = (rendered / "rpi-netboot.service").read_text()
    (line,) = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", unit, re.MULTILINE)
    argv = shlex.split(line.replace("\\\n", " "))
    (config,) = [Path(word.partition("=")[2]) for word in argv if word.startswith("--conf-file=")]
    with TemporaryDirectory(prefix="rpinfs-lab-box-") as name, _box_root(Path(name)) as root:
        (root / config.relative_to("/")).parent.mkdir()
        shutil.copyfile(rendered / config.name, root / config.relative_to("/"))
        (root / "tftpboot").mkdir()
        run(["mount", "--bind", lab.nas.tftpboot, root / "tftpboot"])
        try:
            with _router(lab, pi), _started(lab, {"box": box.inside("chroot", root, *argv, "--log-dhcp")}):
                yield
        finally:
            run(["umount", root / "tftpboot"])


@contextmanager
def _box_root(folder: Path) -> Iterator[Path]:
    """A Debian with dnsmasq that may be written to."""
    for name in ("upper", "work", "root"):
        (folder / name).mkdir()
    layers = f"lowerdir={servers_root()},upperdir={folder}/upper,workdir={folder}/work"
    run(["mount", "-t", "overlay", "-o", layers, "overlay", folder / "root"])
    try:
        yield folder / "root"
    finally:
        run(["umount", folder / "root"])


@contextmanager
def _router(lab: Lab, pi: Pi) -> Iterator[None]:
    """What gives addresses, and nothing else."""
    lab.nas.stop_netboot()
    router = Namespace(f"{lab.name}-router")
    lab.switch.connect(router, "router")
    router.ip("address", "add", f"{ROUTER}/{PREFIX_LENGTH}", "dev", "eth0")
    (lab.folder / "router").mkdir()
    config = lab.folder / "router/dnsmasq.conf"
    leases = lab.folder / "router/leases"
    config.write_text(ROUTER_CONFIG.format(network=NETWORK, mac=pi.mac, address=pi.address, leases=leases))
    with _started(lab, {"router": router.inside(*DNSMASQ, f"--conf-file={config}")}):
        yield


@contextmanager
def _started(lab: Lab, servers: Mapping[str, list[str | Path]]) -> Iterator[None]:
    """Servers, each an argument list, for as long as a with statement lasts."""
    daemons = [Daemon(name, argv, lab.folder / f"{name}.log") for name, argv in servers.items()]
    try:
        for daemon in daemons:
            daemon.wait_for("started", READY_SECONDS)
        yield
    finally:
        for daemon in daemons:
            daemon.terminate()
