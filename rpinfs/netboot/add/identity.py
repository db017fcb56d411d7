"""Who a board is: its names, keys, command line and fstab, and nothing of an SD card or of another board.

Sources: machine-id(5), regenerate_ssh_host_keys of raspberrypi-sys-mods, rpi-swap's swap.conf(5), render/board.py.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import tempfile

from rpinfs.netboot.add.tree import Tree
from rpinfs.netboot.model import Pi, Plan
from rpinfs.netboot.read.bootfiles import values
from rpinfs.netboot.render import board
from rpinfs.system.run import run

UNITS = "etc/systemd/system"
CARD_UNITS = (
    "rpi-resize.service", "resize2fs_once.service", "rpi-resize-swap-file.service", "dphys-swapfile.service",
    "rpi-swap.service", "rpi-zram-writeback.timer", "rpi-eeprom-update.service", "systemd-growfs-root.service",
)  # fmt: skip
"""What resizes, swaps to or updates what a netbooted board has not. The first six are those of the rules of check."""

FIRST_RUN = "firstrun.sh"
"""Of Raspberry Pi Imager: host name, user, keys and Wi-Fi as commands for the first boot of a card."""

KEYS_ANEW = "regenerate_ssh_host_keys.service"
_OF_THE_OTHER = (
    # What would make two boards one: seeds, leases, ids. Made anew by whoever needs them.
    "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "var/lib/NetworkManager/secret_key",
    "var/lib/dbus/machine-id", "etc/machine-id", "var/swap",
)  # fmt: skip
_FOLDERS_OF_THE_OTHER = (
    "var/lib/rpinfs",
    "var/lib/dhcp",
    "var/lib/dhcpcd",
    "var/lib/cloud/instances",
    "var/lib/cloud/data",
)
"""Files in them go. var/lib/rpinfs: what rpinfs remembers of the images of the board that this one was copied from."""

_KEY_TYPES = ("ed25519", "ecdsa", "rsa")


def boot_inside(root: Tree) -> str:
    """Where a root has its boot files: /boot in those before Debian 12."""
    return "boot/firmware" if root.kind("boot/firmware") == stat.S_IFDIR or not root.has("boot") else "boot"


def personalize(root: Tree, boot: Tree, plan: Plan, pi: Pi, *, eeprom: bool) -> list[str]:
    """Make root and boot files those of one board; returns what was done.

    Args:
        eeprom: whether its model is known, so that the settings of its EEPROM can be written.

    Raises:
        OddFileError: a folder in the way is a link or a file.
        OSError, CommandError.
    """
    did = [*_names(root, pi.name), *_forget(root), *_keys(root, pi.name), *_no_card(root)]
    did += _mounts(root, plan, pi)
    stock = [word for word in boot.read("cmdline.txt").split() if word not in ("rw", "ro")]
    boot.write("cmdline.txt", board.command_line(plan, pi, " ".join(stock)) + "\n")
    did.append(f"cmdline.txt: root={board.root_source(plan, pi)}, NFS {plan.nas.version}")
    if boot.remove(FIRST_RUN):
        did.append(f"{FIRST_RUN}: left out; TFTP would give its passwords to whoever asks, and it is not run")
    config = boot.read("config.txt")
    said = [value.value for value in values(config) if value.key == "auto_initramfs"]
    if not said or said[-1] != "0":
        boot.write("config.txt", f"{config.rstrip()}\n\n{board.config(plan, pi).text}".lstrip())
        did.append("config.txt: auto_initramfs=0")
    settings = board.eeprom(plan, pi) if eeprom else None
    if settings:
        boot.write("boot.conf", settings.text)
        did.append("boot.conf: settings for its EEPROM")
    return did


def _mounts(root: Tree, plan: Plan, pi: Pi) -> list[str]:
    by_rpinfs = root.has("usr/share/rpinfs")
    text = board.fstab(plan, pi, by_rpinfs).text
    root.write("etc/fstab", text.replace(" /boot/firmware ", f" /{boot_inside(root)} "))
    # Also for an rpinfs that comes later, when who follows its warning takes the line out of fstab.
    root.write(board.RPINFS_CONFIG, board.rpinfs_config(plan, pi).text)
    in_fstab = "no partition" if by_rpinfs else f"the boot files of {plan.nas.address}, and no partition"
    images = f"/{board.RPINFS_CONFIG}: boot files and images of {plan.nas.address}"
    return [f"/etc/fstab: {in_fstab}", images if by_rpinfs else f"{images}, for an rpinfs that is put in later"]


def _names(root: Tree, name: str) -> list[str]:
    root.write("etc/hostname", f"{name}\n")
    hosts = [line for line in root.read("etc/hosts").splitlines() if line.split()[:1] != ["127.0.1.1"]]
    root.write("etc/hosts", "\n".join([*(hosts or ["127.0.0.1\tlocalhost"]), f"127.0.1.1\t{name}"]) + "\n")
    return [f"host name: {name}"]


def _forget(root: Tree) -> list[str]:
    for path in _OF_THE_OTHER:
        if root.kind(path) == stat.S_IFREG:
            root.remove(path)
    for folder in _FOLDERS_OF_THE_OTHER:
        if root.kind(folder) == stat.S_IFDIR:
            for name in root.names(folder):
                if root.kind(f"{folder}/{name}") == stat.S_IFREG:
                    root.remove(f"{folder}/{name}")
    # Empty: systemd makes one at the first boot. Without the file, that would be a first boot with presets.
    root.write("etc/machine-id", "", 0o444)
    return ["machine-id: empty, made at the first boot"]


def _keys(root: Tree, name: str) -> list[str]:
    old = [entry for entry in root.names("etc/ssh") if entry.startswith("ssh_host_")] if root.has("etc/ssh") else []
    for entry in old:
        root.remove(f"etc/ssh/{entry}")
    if not root.has("usr/sbin/sshd"):
        return ["ssh host keys: removed"] if old else []
    with tempfile.TemporaryDirectory(prefix="rpinfs-keys-") as folder:
        for kind in _KEY_TYPES:
            path = f"{folder}/ssh_host_{kind}_key"
            run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"root@{name}", "-f", path])
            for made, mode in ((path, 0o600), (f"{path}.pub", 0o644)):
                with open(made, encoding="ascii") as file:
                    text = file.read()
                root.write(f"etc/ssh/{os.path.basename(made)}", text, mode)
    _disable(root, KEYS_ANEW)
    public = root.read("etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(public)).digest()).decode().rstrip("=")
    return [f"ssh host keys: new, ED25519 SHA256:{digest}"]


def _no_card(root: Tree) -> list[str]:
    off = [unit for unit in CARD_UNITS if _disable(root, unit)]
    if root.has("etc/rpi/swap.conf"):
        root.write("etc/rpi/swap.conf.d/50-rpinfs.conf", "# Made by rpinfs netboot add.\n[Main]\nMechanism=none\n")
        off.append("rpi-swap")
    return [f"switched off: {', '.join(off)}"] if off else []


def _disable(root: Tree, unit: str) -> bool:
    """Mask a unit that is there, and take it out of what wants it; False where it is not there."""
    there = [folder for folder in (UNITS, "usr/lib/systemd/system", "etc/init.d") if _has_unit(root, folder, unit)]
    for folder in root.names(UNITS):
        inside = f"{UNITS}/{folder}"
        if folder.endswith((".wants", ".requires")) and root.kind(inside) == stat.S_IFDIR:
            there += [inside] if root.remove(f"{inside}/{unit}") else []
    if there:
        root.link(f"{UNITS}/{unit}", "/dev/null")
    return bool(there)


def _has_unit(root: Tree, folder: str, unit: str) -> bool:
    return root.has(f"{folder}/{unit.removesuffix('.service') if folder == 'etc/init.d' else unit}")


def switch_off_wizard(root: Tree) -> list[str]:
    """Where nobody is to be made a user of: the image would ask for one on its screen, and hold the boot up for it."""
    return ["switched off: the question for a user (userconfig)"] if _disable(root, "userconfig.service") else []


def enable(root: Tree, unit: str, target: str = "multi-user.target") -> bool:
    """Have a unit of the image start at boot; False where it has none of this name."""
    if not root.has(f"usr/lib/systemd/system/{unit}"):
        return False
    root.link(f"{UNITS}/{target}.wants/{unit}", f"/usr/lib/systemd/system/{unit}")
    return True
