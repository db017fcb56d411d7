"""What makes a copy one board: each file that is another one afterwards, and each that stays."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rpinfs.netboot.add import identity
from rpinfs.netboot.add.tree import Tree
from rpinfs.netboot.plan import parse
from tests.support import Content, make_tree

pytestmark = pytest.mark.root

PLAN = parse({
    "network": {"subnet": "192.168.1.0/24"}, "nas": {"address": "192.168.1.10"},
    "pi": [{"name": "pi1", "board": "4", "serial": "a1b2c3d4"}],
}, "plan")  # fmt: skip
WANTS = "etc/systemd/system/multi-user.target.wants"
LIB = "usr/lib/systemd/system"


def personalized(tmp_path: Path, root: dict[str, Content], boot: dict[str, Content], eeprom: bool = False) -> list[str]:
    for name, files in (("root", root), ("boot", boot)):
        make_tree(tmp_path / name, files).mkdir(exist_ok=True)
    trees = Tree(str(tmp_path / "root")), Tree(str(tmp_path / "boot"))
    return identity.personalize(*trees, PLAN, PLAN.pis[0], eeprom=eeprom)


def files_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("files", "inside"), [
    ({"boot/firmware": None}, "boot/firmware"), ({}, "boot/firmware"), ({"boot": None}, "boot"),
    ({"boot/firmware": Path("/boot")}, "boot"), ({"boot/firmware": "a file"}, "boot"),
])  # fmt: skip
def test_where_the_boot_files_are(files: dict[str, Content], inside: str, tmp_path: Path) -> None:
    assert identity.boot_inside(Tree(str(make_tree(tmp_path, files)))) == inside


def test_a_board_of_nearly_nothing(tmp_path: Path) -> None:
    did = personalized(tmp_path, {}, {})
    source, config = "192.168.1.10:/nfsroot/pi1", "etc/rpinfs/rpinfs.conf.d/netboot.conf"
    assert did == [
        "host name: pi1",
        "machine-id: empty, made at the first boot",
        "/etc/fstab: the boot files of 192.168.1.10, and no partition",
        f"/{config}: boot files and images of 192.168.1.10, for an rpinfs that is put in later",
        f"cmdline.txt: root={source}, NFS 4.1",
        "config.txt: auto_initramfs=0",
    ]
    root, boot = files_of(tmp_path / "root"), files_of(tmp_path / "boot")
    assert sorted(root) == ["etc/fstab", "etc/hostname", "etc/hosts", "etc/machine-id", config]
    assert root["etc/hosts"] == "127.0.0.1\tlocalhost\n127.0.1.1\tpi1\n"
    assert boot["cmdline.txt"] == f"rootwait root=/dev/nfs nfsroot={source},vers=4.1,proto=tcp rw ip=dhcp\n"
    assert boot["config.txt"].startswith("# For config.txt.")
    assert sorted(boot) == ["cmdline.txt", "config.txt"]
    assert stat.S_IMODE((tmp_path / "root/etc/machine-id").stat().st_mode) == 0o444


def test_a_board_with_all_of_it(tmp_path: Path) -> None:
    root: dict[str, Content] = {
        "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 raspberrypi\n\n::1 ip6-localhost\n127.0.1.10 other\n",
        "usr/share/rpinfs": None, "boot": None, "etc/rpi/swap.conf": "",
    }  # fmt: skip
    boot: dict[str, Content] = {
        "cmdline.txt": "ro console=tty1 root=PARTUUID=1 rw quiet\n", "firstrun.sh": "passwords",
        "config.txt": "arm_64bit=1\nauto_initramfs=0\nauto_initramfs=1\n\n\n",
    }  # fmt: skip
    did = personalized(tmp_path, root, boot, eeprom=True)
    assert did[2:5] == [
        "switched off: rpi-swap",
        "/etc/fstab: no partition",
        "/etc/rpinfs/rpinfs.conf.d/netboot.conf: boot files and images of 192.168.1.10",
    ]
    assert did[6:] == [
        "firstrun.sh: left out; TFTP would give its passwords to whoever asks, and it is not run",
        "config.txt: auto_initramfs=0",
        "boot.conf: settings for its EEPROM",
    ]
    made, started = files_of(tmp_path / "root"), files_of(tmp_path / "boot")
    assert made["etc/hosts"] == "127.0.0.1 localhost\n\n::1 ip6-localhost\n127.0.1.10 other\n127.0.1.1\tpi1\n"
    assert made["etc/rpi/swap.conf.d/50-rpinfs.conf"].splitlines()[1:] == ["[Main]", "Mechanism=none"]
    assert started["cmdline.txt"].startswith("console=tty1 quiet rootwait root=/dev/nfs ")
    assert started["config.txt"].startswith("arm_64bit=1\nauto_initramfs=0\nauto_initramfs=1\n\n# For config.txt.")
    assert started["config.txt"].endswith("[all]\nauto_initramfs=0\n")
    assert sorted(started) == ["boot.conf", "cmdline.txt", "config.txt"]
    assert "/boot/firmware" not in made["etc/fstab"]


@pytest.mark.parametrize(("config", "written"), [
    ("auto_initramfs=0\n", False), ("auto_initramfs=1\nauto_initramfs=0\n", False), ("auto_initramfs=1\n", True),
    ("# auto_initramfs=0\n", True), ("initramfs=0\n", True),
])  # fmt: skip
def test_an_initramfs_that_is_off_already(config: str, written: bool, tmp_path: Path) -> None:
    did = personalized(tmp_path, {}, {"config.txt": config})
    assert ("config.txt: auto_initramfs=0" in did) is written
    assert ((tmp_path / "boot/config.txt").read_text() == config) is not written


def test_what_is_the_other_boards_goes(tmp_path: Path) -> None:
    gone = [
        "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "var/lib/NetworkManager/secret_key",
        "var/lib/dbus/machine-id", "var/swap", "var/lib/rpinfs/memory.json", "var/lib/dhcp/dhclient.leases",
        "var/lib/dhcpcd/eth0.lease", "var/lib/cloud/instances/x", "var/lib/cloud/data/y", "etc/ssh/ssh_host_rsa_key",
        "etc/ssh/ssh_host_rsa_key.pub",
    ]  # fmt: skip
    kept = ["var/lib/rpinfs/folder/file", "var/lib/systemd/other", "etc/ssh/sshd_config", "var/lib/cloud/seed/z"]
    links = {"var/lib/dhcp/link": Path("/etc/hosts")}
    did = personalized(tmp_path, {**dict.fromkeys([*gone, *kept], "old"), **links}, {})
    assert "ssh host keys: removed" in did, "and none is made where there is no sshd"
    there = files_of(tmp_path / "root")
    assert not there.keys() & set(gone)
    assert there.keys() >= set(kept)
    assert (tmp_path / "root/var/lib/dhcp/link").is_symlink(), "of links nothing is ours"
    assert there["etc/machine-id"] == ""


def test_links_of_that_name_are_left(tmp_path: Path) -> None:
    personalized(tmp_path, {"var/lib/dbus/machine-id": Path("/etc/machine-id"), "var/lib/dhcp": Path("/tmp")}, {})
    assert (tmp_path / "root/var/lib/dbus/machine-id").is_symlink()


def test_keys_of_an_ssh_server(tmp_path: Path) -> None:
    root: dict[str, Content] = {
        "usr/sbin/sshd": "", f"{LIB}/{identity.KEYS_ANEW}": "", f"{WANTS}/{identity.KEYS_ANEW}": Path("x"),
    }  # fmt: skip
    did = personalized(tmp_path, root, {})
    (said,) = [line for line in did if line.startswith("ssh host keys: new, ED25519 SHA256:")]
    ssh = tmp_path / "root/etc/ssh"
    modes = {name: stat.S_IMODE((ssh / name).stat().st_mode) for name in os.listdir(ssh)}
    assert modes == {
        f"ssh_host_{kind}_key{end}": mode
        for kind in ("ed25519", "ecdsa", "rsa") for end, mode in (("", 0o600), (".pub", 0o644))
    }  # fmt: skip
    assert all((ssh / name).read_text().split()[-1] == "root@pi1" for name in modes if name.endswith(".pub"))
    assert (tmp_path / "root" / identity.UNITS / identity.KEYS_ANEW).readlink() == Path("/dev/null")
    assert not os.path.lexists(tmp_path / "root" / WANTS / identity.KEYS_ANEW)
    assert "=" not in said
    assert not any(line.startswith("switched off") for line in did)


@pytest.mark.parametrize("where", [
    f"{LIB}/dphys-swapfile.service", "etc/systemd/system/dphys-swapfile.service", "etc/init.d/dphys-swapfile",
    f"{WANTS}/dphys-swapfile.service", "etc/systemd/system/x.requires/dphys-swapfile.service",
])  # fmt: skip
def test_a_unit_of_a_card_is_masked(where: str, tmp_path: Path) -> None:
    did = personalized(tmp_path, {where: "[Unit]\n", f"{WANTS}/other.service": "", "etc/init.d/other": ""}, {})
    assert "switched off: dphys-swapfile.service" in did
    assert (tmp_path / "root" / identity.UNITS / "dphys-swapfile.service").readlink() == Path("/dev/null")
    assert (tmp_path / "root" / WANTS / "other.service").exists()
    assert not os.path.lexists(tmp_path / "root" / where) or "wants" not in where
    assert not os.path.lexists(tmp_path / "root" / where) or "requires" not in where


@pytest.mark.parametrize("where", [
    "etc/systemd/system/x.wanted/dphys-swapfile.service", "etc/init.d/dphys-swapfile.service",
    f"{LIB}/dphys-swapfile",
])  # fmt: skip
def test_what_is_none(where: str, tmp_path: Path) -> None:
    did = personalized(tmp_path, {where: ""}, {})
    assert not any(line.startswith("switched off") for line in did)
    assert not os.path.lexists(tmp_path / "root" / identity.UNITS / "dphys-swapfile.service")
    assert (tmp_path / "root" / where).exists()


def test_wants_that_are_links_are_not_entered(tmp_path: Path) -> None:
    make_tree(tmp_path / "mine", {"dphys-swapfile.service": ""})
    personalized(tmp_path, {"etc/systemd/system/x.wants": tmp_path / "mine"}, {})
    assert (tmp_path / "mine/dphys-swapfile.service").exists()


def test_enabled_and_the_wizard(tmp_path: Path) -> None:
    root = Tree(str(make_tree(tmp_path, {f"{LIB}/ssh.service": ""})))
    assert identity.enable(root, "ssh.service")
    assert (tmp_path / WANTS / "ssh.service").readlink() == Path("/usr/lib/systemd/system/ssh.service")
    assert identity.enable(root, "ssh.service", "x.target")
    assert os.path.lexists(tmp_path / "etc/systemd/system/x.target.wants/ssh.service")
    assert not identity.enable(root, "other.service")
    assert not os.path.lexists(tmp_path / WANTS / "other.service")
    assert identity.switch_off_wizard(root) == []
    make_tree(tmp_path, {f"{LIB}/userconfig.service": ""})
    assert identity.switch_off_wizard(root) == ["switched off: the question for a user (userconfig)"]
