"""A stock image as a card has it: a table of partitions, FAT with the boot files, ext4 with a small root."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from tests.support import Content, make_tree

SECTOR = 512
BOOT_START, BOOT_MIB, ROOT_MIB = 8192, 36, 48
CMDLINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=1234abcd-02 rootfstype=ext4 fsck.repair=yes rootwait resize\n"
)
BOOT: dict[str, Content] = {
    "cmdline.txt": CMDLINE,
    "config.txt": "arm_64bit=1\nauto_initramfs=1\n[cm4]\notg_mode=1\n[all]\n",
    "start4.elf": "firmware" * 100,
    "bootcode.bin": "boot code",
    "kernel8.img": b"kernel" * 50_000,
    "overlays/README": "overlays",
}
ROOT: dict[str, Content] = {
    "etc/hostname": "raspberrypi\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/fstab": "PARTUUID=1-01  /boot/firmware  vfat  defaults  0  2\nPARTUUID=1-02  /  ext4  defaults  0  1\n",
    "etc/ssh/ssh_host_ed25519_key": "the key of everybody",
    "etc/ssh/sshd_config": "",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000:,,,:/home/pi:/bin/bash\n",
    "etc/rpi/swap.conf": "#Mechanism=auto\n",
    "etc/systemd/system/multi-user.target.wants/rpi-resize.service": Path("/usr/lib/systemd/system/rpi-resize.service"),
    "usr/lib/systemd/system/rpi-resize.service": "[Unit]\n",
    "usr/lib/systemd/system/ssh.service": "[Unit]\n",
    "usr/lib/systemd/system/userconfig.service": "[Unit]\n",
    "usr/lib/userconf-pi/userconf": "#!/bin/sh\n",
    "usr/lib/os-release": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
    "usr/lib/modules/6.12.47+rpt-rpi-v8/modules.dep": "",
    "usr/sbin/sshd": "",
    "usr/bin/ping": "ping",
    "usr/bin/sudo": "sudo",
    "lib": Path("usr/lib"),
    "var/lib/dbus/machine-id": Path("/etc/machine-id"),
    "var/log/journal": None,
    "var/lib/systemd/random-seed": "seed",
    "home/pi": None,
    "boot/firmware": None,
    "proc": None,
    "a name with 'quotes'\nand a newline": "odd",
}


def run(*argv: str | Path) -> None:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"


def make_root(folder: Path, more: dict[str, Content] | None = None, without: tuple[str, ...] = ()) -> Path:
    """A root with all that a copy may lose: hard links, capabilities, ACLs, holes, setuid, devices, owners, times."""
    make_tree(folder, {name: content for name, content in {**ROOT, **(more or {})}.items() if name not in without})
    os.link(folder / "usr/bin/sudo", folder / "usr/bin/sudoedit")
    (folder / "usr/bin/sudo").chmod(0o4755)
    run("setcap", "cap_net_raw+ep", folder / "usr/bin/ping")
    run("setfacl", "-m", "g:4:rx", "-d", "-m", "g:4:rx", folder / "var/log/journal")
    run("setfattr", "-n", "user.origin", "-v", "stock", folder / "etc/hosts")
    with (folder / "var/lib/sparse").open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"in the middle")
    os.chown(folder / "home/pi", 1000, 1000)
    os.mkfifo(folder / "var/lib/pipe")
    os.mknod(folder / "var/lib/null", 0o20666, os.makedev(1, 3))
    within = os.open(folder / "var/lib", os.O_PATH)
    with socket.socket(socket.AF_UNIX) as made:
        # By the open folder: the whole path may be longer than the address of a socket.
        made.bind(f"/proc/self/fd/{within}/socket")
    os.close(within)
    os.utime(folder / "usr/bin/ping", (1_500_000_000, 1_500_000_000))
    return folder


def make_image(
    path: Path, root: Path, boot: Path, label: str = "dos", boot_mib: int = BOOT_MIB, root_mib: int = ROOT_MIB
) -> Path:
    """An image of a root and of boot files, with no loop device and no mount: mkfs fills both."""
    with path.open("wb") as file:
        file.truncate(BOOT_START * SECTOR + ((boot_mib + root_mib + 2) << 20))
    types = ("c", "83") if label == "dos" else ("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "linux")
    sectors = [mib * (1 << 20) // SECTOR for mib in (boot_mib, root_mib)]
    table = (
        f"label: {label}\nstart={BOOT_START}, size={sectors[0]}, type={types[0]}\n"
        f"start={BOOT_START + sectors[0]}, size={sectors[1]}, type={types[1]}\n"
    )
    subprocess.run(["sfdisk", "--quiet", path], input=table, text=True, check=True)
    fat, ext4 = path.with_suffix(".fat"), path.with_suffix(".ext4")
    for part, mib in ((fat, boot_mib), (ext4, root_mib)):
        part.unlink(missing_ok=True)
        with part.open("wb") as file:
            file.truncate(mib << 20)
    run("mkfs.vfat", "-F", "32", "-s", "1", fat)
    run("mcopy", "-s", "-i", fat, *sorted(boot.iterdir()), "::")
    run("mkfs.ext4", "-q", "-d", root, ext4)
    for part, start in ((fat, BOOT_START), (ext4, BOOT_START + sectors[0])):
        run("dd", f"if={part}", f"of={path}", f"seek={start}", "bs=512", "conv=notrunc,sparse", "status=none")
        part.unlink()
    return path


def stock_image(
    folder: Path, more: dict[str, Content] | None = None, label: str = "dos", without: tuple[str, ...] = ()
) -> Path:
    """The image, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    root, boot = make_root(folder / "stock-root", more, without), make_tree(folder / "stock-boot", BOOT)
    return make_image(folder / "stock.img", root, boot, label)
