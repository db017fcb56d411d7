"""Configurations that people publish and that do not boot every Pi, one for each server, and what is found in each.

Sources stand beside each; what these send on the wire: tests/tools/netboot/test_servers.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rpinfs.netboot.check import check
from rpinfs.netboot.plan import parse
from rpinfs.netboot.seen import look
from tests.support import Content, make_tree

PLAN = {
    "network": {"subnet": "192.168.1.0/24", "pcs": True},
    "nas": {"address": "192.168.1.10", "root": "/srv/nfs"},
    "pi": [{"name": "pi1", "board": "3B", "serial": "1a2b3c4d"}, {"name": "pi2", "board": "4", "serial": "2a2b3c4d"}],
}

FORMS: dict[str, tuple[str, Content, set[int]]] = {
    # The recipe's router: two lines that do nothing on a machine without an eth0 and beside another DHCP server.
    "the recipe's dnsmasq": (
        "etc/dnsmasq.d/pxe.conf",
        'enable-tftp=eth0\ntftp-root=/tftpboot\ntftp-no-fail\npxe-service=0,"Raspberry Pi Boot"\n',
        {1, 2, 5, 6},
    ),
    # boot-net.adoc's own tutorial, with the text as it is printed there: every PC is answered, a 3B is not.
    "the tutorial's proxy": (
        "etc/dnsmasq.conf",
        (
            "port=0\ndhcp-range=192.168.1.255,proxy\nlog-dhcp\nenable-tftp\ntftp-root=/tftpboot\n"
            'pxe-service=0,"Raspberry Pi Boot"\n'
        ),
        {5, 6},
    ),
    # samdbmg/dhcp-netboot.xyz#3: another TFTP server, named to a proxy.
    "a proxy for another server": (
        "etc/dnsmasq.conf",
        (
            'dhcp-range=192.168.1.0,proxy\npxe-service=0,"Raspberry Pi Boot   ",bootcode,192.168.1.10\n'
            "dhcp-option=66,192.168.1.10\n"
        ),
        {3, 5},
    ),
    # What every PXE guide has: no option 43, so a Pi takes no notice.
    "dhcp-boot alone": (
        "etc/dnsmasq.conf",
        "dhcp-range=192.168.1.100,192.168.1.150,12h\ndhcp-boot=bootcode.bin,,192.168.1.10\n",
        {12},
    ),
    # LTSP's and piserver's lists of addresses, before new boards came (piserver#166).
    "an old list": (
        "etc/dnsmasq.conf",
        (
            "dhcp-range=192.168.1.0,proxy\ndhcp-mac=set:rpi,b8:27:eb:*:*:*\ndhcp-mac=set:rpi,dc:a6:32:*:*:*\n"
            'pxe-service=tag:rpi,X86PC,"Raspberry Pi Boot   ",unused\n'
        ),
        {9},
    ),
    # The recipe's DHCP server: the ROM asks the router for its files, whatever next-server says (firmware#670).
    "the recipe's dhcpd": (
        "etc/dhcp/dhcpd.conf",
        (
            "option space RPi;\noption RPi.menu code 9 = text;\nsubnet 192.168.1.0 netmask 255.255.255.0 {\n"
            '  next-server 192.168.1.10;\n  filename "bootcode.bin";\n  vendor-option-space RPi;\n'
            '  option RPi.menu "Raspberry Pi Boot";\n}\n'
        ),
        {6, 13},
    ),
    # The class of every PXE guide: a Pi's DHCPREQUEST falls out of it (rpi-eeprom#82).
    "a class by option 60": (
        "etc/dhcp/dhcpd.conf",
        (
            'class "pxe" {\n  match if substring(option vendor-class-identifier, 0, 9) = "PXEClient";\n'
            '  option vendor-encapsulated-options "Raspberry Pi Boot   ";\n'
            '  option tftp-server-name "192.168.1.10";\n}\n'
        ),
        {8},
    ),
    # opnsense/core#10509, as its page writes it: length 0 on the wire.
    "OPNsense's Kea": (
        "etc/kea/kea-dhcp4.conf",
        (
            '{"Dhcp4": {"subnet4": [{"option-data": [{"code": 43, "name": "vendor-encapsulated-options",'
            ' "data": "Raspberry Pi Boot   "}]}]}}'
        ),
        {7},
    ),
    # forum.openwrt.org's way and armbian/build#9656: a boot file and a server, and no option 43.
    "OpenWrt's page": (
        "etc/config/dhcp",
        (
            "config dnsmasq\n\toption domain 'lan'\n\toption enable_tftp '1'\n\toption tftp_root '/srv/tftp'\n"
            "\toption dhcp_boot 'bootcode.bin,,192.168.1.10'\n\nconfig dhcp 'lan'\n\toption start '100'\n"
            "\toption limit '150'\n\tlist dhcp_option '17,192.168.1.10:/srv/nfs'\n"
        ),
        {12},
    ),
    # The default of OpenMediaVault's share form; no_root_squash is what it lacks.
    "OMV's exports": ("etc/exports", "/srv/nfs 192.168.1.0/24(rw,subtree_check,insecure)\n", {22}),
    # What DSM writes for "Squash: Map all users to admin", and with "Enable asynchronous", as its page has it at first.
    "Synology's exports": (
        "etc/exports",
        "/srv/nfs\t192.168.1.0/24(rw,async,no_wdelay,crossmnt,all_squash,insecure_locks,sec=sys,anonuid=1024,anongid=100)\n",
        {22},
    ),
    # TrueNAS with maproot left empty, as it is at first; its paths are quoted.
    "TrueNAS's exports": ("etc/exports", '"/srv/nfs"\\\n\t192.168.1.0/24(sec=sys,rw,no_subtree_check)\n', {22}),
    # QTS: async, and for everybody.
    "QNAP's exports": (
        "etc/exports",
        '"/srv/nfs" *(rw,async,no_subtree_check,insecure,no_root_squash,fsid=64a1)\n',
        {22},
    ),
    # LTSP's example and pi-k3s-gitops.
    "LTSP's exports": ("etc/exports", "/srv/nfs *(rw,async,crossmnt,no_subtree_check,no_root_squash,insecure)\n", {22}),
    # pi-gen's line of 2026-06, copied as it is.
    "a stock command line": (
        "tftpboot/2a2b3c4d/cmdline.txt",
        "console=serial0,115200 console=tty1 root=PARTUUID=1-02 rootfstype=ext4 fsck.repair=yes rootwait resize\n",
        {15, 17, 19},
    ),
    # rpi-eeprom#826: none of the three exists.
    "boot.conf of a forum": (
        "tftpboot/2a2b3c4d/boot.conf",
        "BOOT_ORDER=0x21\nNET_WAIT=30\nNETWORK_TIMEOUT=60\nDISABLE_SELF_UPDATE=1\n",
        {15, 17, 26, 27, 32},
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_form_that_people_publish(form: tuple[str, Content, set[int]], tmp_path: Path) -> None:
    name, text, rules = form
    more: dict[str, Content] = {"tftpboot/2a2b3c4d/config.txt": "auto_initramfs=0\n"} if "tftpboot" in name else {}
    make_tree(tmp_path, {"sys/class/net/enp1s0": None, **more, name: text})
    seen = look([], parse(PLAN, "plan"), root=str(tmp_path))
    assert [error.message for error in seen.unreadable] == []
    there = str(tmp_path / name)
    assert {one.rule for one in check(seen) if there.startswith(one.file)} == rules
