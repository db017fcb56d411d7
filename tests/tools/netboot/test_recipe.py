"""The files of the recipe that rpinfs comes from: what `check` finds in them, and what `doctor` hears of them.

Its author wrote that "enable-tftp=eth0 is odd", and that "the Pi seems to ignore next-server". Both are answered from
the files, and by the wire: a router with ISC dhcpd and dnsmasq, and a NAS that serves the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.netboot.check import check
from rpinfs.netboot.seen import look
from tests.support import Content, make_tree
from tests.tools.netboot import lan
from tests.tools.netboot.asking import dnsmasq, doctor
from tests.tools.netboot.lan import Lan

pytestmark = pytest.mark.root

DHCPD = f"""\
option space RPi;
option RPi.discovery code 6 = unsigned integer 8;
option RPi.menu code 9 = text;
option RPi.prompt code 10 = text;
subnet 192.168.1.0 netmask 255.255.255.0 {{
  range 192.168.1.100 192.168.1.150;
  next-server {lan.OTHER};
  filename "bootcode.bin";
  vendor-option-space RPi;
  option RPi.discovery 3;
  option RPi.menu "Raspberry Pi Boot";
  option RPi.prompt "PXE";
}}
"""
DNSMASQ = 'port=0\nenable-tftp={}\ntftp-root=/tftpboot\ntftp-no-fail\npxe-service=0,"Raspberry Pi Boot"\n'
ROUTERS_FSTAB = "192.168.1.11:/volume1/tftpboot  /tftpboot  nfs  ro,nofail  0  0\n"
PIS_FSTAB = (
    "proc  /proc  proc  defaults  0  0\n192.168.1.11:/volume1/tftpboot  /boot  nfs  defaults,ro  0  0\n"
    "192.168.1.11:/volume1/docker  /nfs/docker  nfs  defaults  0  0\n"
    "/nfs/docker/docker.img  /var/lib/docker  ext4  loop,x-systemd.requires=/nfs/docker  0  0\n"
)


@pytest.fixture
def nas(hosts: Lan, tftpboot: Path) -> Iterator[Path]:
    """The NAS, which has a TFTP server of its own; the router sees its files by a mount."""
    text = f"port=0\nenable-tftp\ntftp-root={tftpboot.relative_to(hosts.root)}\n".replace("=tftpboot", "=/tftpboot")
    path = hosts.put("/etc/dnsmasq-nas.conf", text)
    argv = ("dnsmasq", "--keep-in-foreground", "--log-facility=-", "--pid-file=", f"--conf-file={path}")
    hosts.start("nas", *argv, "--dhcp-leasefile=/tmp/leases-nas", ready="TFTP root is", host=hosts.other)
    yield tftpboot


def test_what_check_says_of_the_files(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "etc/dhcp/dhcpd.conf": DHCPD, "etc/dnsmasq.d/pxe.conf": DNSMASQ.format("eth0"), "sys/class/net/enp1s0": None,
        "etc/fstab": ROUTERS_FSTAB,
    }  # fmt: skip
    make_tree(tmp_path, files)
    said = {(one.rule, Path(one.file).name, one.line): one.message for one in check(look([], root=str(tmp_path)))}
    assert "no interface eth0 is here (there is enp1s0): dnsmasq serves no file at all" in said[1, "pxe.conf", 2]
    assert "without a dhcp-range dnsmasq answers no DHCP request: this line does nothing" in said[2, "pxe.conf", 5]
    assert "the boot ROM of a 3B or 3B+ ignores next-server: it asks this host itself" in said[13, "dhcpd.conf", 7]
    assert "takes no offer without three spaces behind the text" in said[6, "dhcpd.conf", 11]
    make_tree(tmp_path / "pi1", {"etc/fstab": PIS_FSTAB, "usr/bin/true": ""})
    assert check(look([str(tmp_path / "pi1")])) == [], "nothing of a card is in it"


@pytest.mark.usefixtures("nas", "nfs")
def test_the_pi_seems_to_ignore_next_server(hosts: Lan) -> None:
    """The ROM of a 3B+ does, and asks the router, where nobody serves files; an EEPROM goes where it is sent."""
    hosts.isc(DHCPD)
    hosts.start(
        "dnsmasq", "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--pid-file=",
        f"--conf-file={hosts.put('/etc/dnsmasq-router.conf', DNSMASQ.format('enp3s0'))}", ready="started",
    )  # fmt: skip
    found = doctor(hosts)
    rom, eeprom = found["pi2"], found["pi1"]
    ignored = f"{lan.SERVER} names {lan.OTHER} by next-server, which the boot ROM ignores: it asks {lan.SERVER} itself"
    assert ignored in [one["message"] for one in rom["remarks"]]
    assert (rom["tftp"], rom["why"]) == (lan.SERVER, "option 54")
    assert rom["sentence"].startswith(f"pi2 does not boot: {lan.SERVER}: ")
    assert "port 69" in rom["sentence"]
    assert (eeprom["tftp"], eeprom["why"], eeprom["boots"]) == (lan.OTHER, "siaddr", True), eeprom["sentence"]
    assert "three spaces" in found["pi3"]["sentence"]


@pytest.mark.usefixtures("nas", "nfs")
@pytest.mark.parametrize(("line", "boots"), [("enp3s0", False), ("eth0", True)])
def test_enable_tftp_with_the_name_of_an_interface(hosts: Lan, line: str, boots: bool) -> None:
    """With one that is there the router serves what it has mounted, and the 3B+ boots: all that ever made it work."""
    hosts.isc(DHCPD)
    hosts.start(
        "dnsmasq", "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--pid-file=",
        f"--conf-file={hosts.put('/etc/dnsmasq-router.conf', DNSMASQ.format(line))}", ready="started",
    )  # fmt: skip
    found = doctor(hosts)["pi2"]
    assert (found["boots"], found["tftp"]) == (boots, lan.SERVER), found["sentence"]


@pytest.mark.usefixtures("nas", "nfs")
def test_with_what_check_says_to_write_all_boards_boot(hosts: Lan) -> None:
    """The lines of render for the same router, in place of his."""
    dnsmasq(hosts)
    assert all(one["boots"] for one in doctor(hosts).values())
