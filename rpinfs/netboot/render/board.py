"""What one board needs: cmdline.txt, config.txt, the settings of its EEPROM, and its fstab.

Sources: raspberrypi/documentation (config_txt/boot.adoc, eeprom-bootloader.adoc), Linux
Documentation/admin-guide/nfs/nfsroot.rst, nfs(5).
"""

from __future__ import annotations

from rpinfs.netboot.boards import folder_of
from rpinfs.netboot.model import Pi, Plan
from rpinfs.netboot.render.text import Rendered, comment

DROPPED = (
    "root=", "rootfstype=", "rootflags=", "fsck.repair=", "init=", "nfsroot=", "ip=", "systemd.run=",
    "systemd.run_success_action=", "systemd.run_failure_action=", "systemd.unit=kernel-command-line.target",
)  # fmt: skip
"""What a stock command line says of its SD card; anything that begins so is left out.

The last four are Raspberry Pi Imager's: they run its firstrun.sh in place of the system, and reboot, until that has
written to the card.
"""

_NAMED = ("systemd.hostname=", "hostname=")
"""What would win over the name in the root."""

DROPPED_WORDS = ("resize", "quiet-resize")
STOCK = "console=serial0,115200 console=tty1 rootwait"


def boot_folder(plan: Plan, pi: Pi) -> str:
    """Path below the TFTP root where a board looks for its files; by its name while its serial number is not known."""
    return f"{plan.nas.boot}/{folder_of(pi.serial) if pi.serial else pi.name}"


def root_source(plan: Plan, pi: Pi) -> str:
    """What the board mounts as its root."""
    return f"{plan.nas.address}:{plan.nas.root}/{pi.name}"


def command_line(plan: Plan, pi: Pi, stock: str = STOCK) -> str:
    """The one line of cmdline.txt, made of a stock one. `hard` is the default of an NFS root, and stays."""
    kept = [word for word in stock.split() if not word.startswith((*DROPPED, *_NAMED)) and word not in DROPPED_WORDS]
    kept = [_unnamed(word) for word in kept]
    kept += [] if "rootwait" in kept else ["rootwait"]
    root = f"nfsroot={root_source(plan, pi)},vers={plan.nas.version},proto=tcp"
    return " ".join([*kept, "root=/dev/nfs", root, "rw", "ip=dhcp"])


def _unnamed(word: str) -> str:
    """cloud-init's data source, without host name and instance: on the command line they win over every seed."""
    source, *more = word.split(";")
    if not source.startswith("ds=nocloud"):
        return word
    return ";".join(
        [source, *(one for one in more if not one.startswith(("h=", "i=", "local-hostname=", "instance-id=")))]
    )


def cmdline(plan: Plan, pi: Pi) -> Rendered:
    """cmdline.txt. It takes no comment, and no second line."""
    return _file(plan, pi, "cmdline.txt", command_line(plan, pi) + "\n")


def config(plan: Plan, pi: Pi) -> Rendered:
    """What config.txt needs beside what is in it."""
    lines = [
        *comment("For config.txt. Made by rpinfs netboot render."),
        *comment(
            "No initramfs: Raspberry Pi's kernels have NFS and the network drivers built in, and the initramfs speaks"
            " NFS 3 at the most (bookworm-feedback#267)."
        ),
        "[all]",
        "auto_initramfs=0",
    ]
    return _file(plan, pi, "config.txt", "\n".join(lines) + "\n", owned=False)


def eeprom(plan: Plan, pi: Pi) -> Rendered | None:
    """Settings of the EEPROM, for `rpi-eeprom-config --apply boot.conf`; a board with a ROM has none."""
    if not pi.board.eeprom:
        return None
    lines = [
        *comment("Made by rpinfs netboot render, for: rpi-eeprom-config --apply boot.conf"),
        "[all]",
        "# Read from the right: 2 is the network, f begins again. 0xf21 tries an SD card first.",
        "BOOT_ORDER=0xf2",
        *comment("For ever: the NAS may come up later than the Pi (a hang after a TFTP time-out: rpi-eeprom#687)."),
        "NET_BOOT_MAX_RETRIES=-1",
        "# The whole log of the bootloader, to everybody on this LAN: rpinfs netboot watch shows it.",
        "NETCONSOLE=6665@169.254.1.1/,6666@/",
    ]
    if plan.topology == "C":
        lines += [
            *comment("No DHCP option is needed: this says where the files are."),
            f"TFTP_IP={plan.tftp_address}",
            "# The folder that is called by the serial number.",
            "TFTP_PREFIX=0",
        ]
    return _file(plan, pi, "boot.conf", "\n".join(lines) + "\n")


def fstab(plan: Plan, pi: Pi, by_rpinfs: bool | None = None) -> Rendered:
    """fstab of the root: no partition is left in it.

    Args:
        by_rpinfs: whether rpinfs mounts the boot files, or a line of it; None where the root is not there to be asked.
            With both, fstab wins, and `rpinfs status` warns of it for ever.
    """
    source, options = f"{plan.nas.address}:{boot_folder(plan, pi)}", f"vers={plan.nas.version},proto=tcp,_netdev,nofail"
    line = f"{source}  /boot/firmware  nfs  {options}  0  0"
    lines = [
        *comment("Made by rpinfs netboot render. The root is mounted by the kernel (cmdline.txt)."),
        "proc  /proc  proc  defaults  0  0",
    ]
    if by_rpinfs is None:
        lines += [
            *comment(f"rpinfs mounts the boot files, by its {_CONFIG_NAME}. In a root without rpinfs this line does:"),
            f"# {line}",
        ]
    elif not by_rpinfs:
        lines += [*comment("The TFTP folder of this board: what it boots from is what apt updates."), line]
    return Rendered(f"{pi.name}/fstab", f"{plan.nas.root}/{pi.name}/etc/fstab", pi.name, "\n".join(lines) + "\n")


RPINFS_CONFIG = "etc/rpinfs/rpinfs.conf.d/netboot.conf"
"""In a root: what the plan says, for rpinfs."""

_CONFIG_NAME = "netboot.conf"


def rpinfs_config(plan: Plan, pi: Pi) -> Rendered:
    """Settings of rpinfs: what the plan says, which need not be what rpinfs takes by default."""
    lines = [
        *comment("Made by rpinfs netboot, of the plan. To change the boot files: rpinfs boot run -- apt upgrade"),
        "[Server]",
        f"Address={plan.nas.address}",
        f"Version={plan.nas.version}",
        "",
        "[Boot]",
        f"Export={boot_folder(plan, pi)}",
        "",
        "[Share]",
        f"Export={plan.nas.share}",
    ]
    place = f"{plan.nas.root}/{pi.name}/{RPINFS_CONFIG}"
    return Rendered(f"{pi.name}/{_CONFIG_NAME}", place, pi.name, "\n".join(lines) + "\n")


def _file(plan: Plan, pi: Pi, name: str, text: str, owned: bool = True) -> Rendered:
    return Rendered(f"{pi.name}/{name}", f"{boot_folder(plan, pi)}/{name}", pi.name, text, owned)
