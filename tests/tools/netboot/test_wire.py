"""The rules that only the wire shows: each with servers that break it, and what `rpinfs netboot doctor` says then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.netboot.packet import boot_menu
from tests.support import PYTHON
from tests.tools.netboot import lan
from tests.tools.netboot.asking import dnsmasq, doctor, rendered_dnsmasq
from tests.tools.netboot.lan import Lan

pytestmark = pytest.mark.root

MENU = f"option vendor-encapsulated-options {boot_menu().hex(':')};"
RANGE = "range 192.168.1.200 192.168.1.210;"
SUBNET = "subnet 192.168.1.0 netmask 255.255.255.0 {{ {} }}"
KEA = """{{"Dhcp4": {{"interfaces-config": {{"interfaces": ["eth0"]}},
"lease-database": {{"type": "memfile", "persist": false}},
"option-data": [{{"name": "vendor-encapsulated-options", "data": "{}", "csv-format": false, "always-send": true}}],
"subnet4": [{{"id": 1, "subnet": "192.168.1.0/24", "pools": [{{"pool": "192.168.1.100 - 192.168.1.150"}}]}}]}}}}"""


def isc(hosts: Lan, *statements: str, other: bool = False) -> None:
    hosts.isc(SUBNET.format(" ".join((RANGE, *statements))), host=hosts.other if other else None)


def two_menus(hosts: Lan, _: Path) -> None:
    dnsmasq(hosts)
    isc(hosts, MENU, other=True)


def two_dhcp_servers(hosts: Lan, _: Path) -> None:
    dnsmasq(hosts)
    isc(hosts, other=True)


def nobody(_: Lan, __: Path) -> None:
    pass


def no_menu(hosts: Lan, _: Path) -> None:
    isc(hosts)


def length_0(hosts: Lan, _: Path) -> None:
    hosts.kea(KEA.format(b"Raspberry Pi Boot   ".hex()))


def proxy_alone(hosts: Lan, _: Path) -> None:
    hosts.dnsmasq('port=0\ndhcp-range=192.168.1.0,proxy\npxe-service=0,"Raspberry Pi Boot   "\n')


def silent_tftp(hosts: Lan, _: Path) -> None:
    hosts.dnsmasq("\n".join(line for line in rendered_dnsmasq().splitlines() if "tftp" not in line))


def a_name(hosts: Lan, _: Path) -> None:
    isc(hosts, MENU, 'option tftp-server-name "nas.local";')


def next_server_alone(hosts: Lan, _: Path) -> None:
    isc(hosts, MENU, f"next-server {lan.OTHER};")


def a_nul(hosts: Lan, _: Path) -> None:
    dnsmasq(hosts)


def no_start_file(hosts: Lan, tftpboot: Path) -> None:
    dnsmasq(hosts)
    for path in tftpboot.glob("*/start*.elf"):
        path.unlink()


def no_modern_frames(hosts: Lan, _: Path) -> None:
    """The board's end of its cable takes shorter frames than the switch sends."""
    dnsmasq(hosts)
    hosts.board.ip("link", "set", "eth0", "mtu", "1400")


def a_narrow_port(hosts: Lan, _: Path) -> None:
    """Something between the switch and the board."""
    dnsmasq(hosts)
    hosts.narrow("port2")


def spanning_tree(hosts: Lan, _: Path) -> None:
    """As a switch fresh from its box."""
    dnsmasq(hosts)
    hosts.switch_spanning_tree_on(15)


def another_subnet(hosts: Lan, _: Path) -> None:
    isc(hosts, MENU, 'option tftp-server-name "10.9.9.9"; option routers 192.168.1.1;')


def another_subnet_and_no_router(hosts: Lan, _: Path) -> None:
    isc(hosts, MENU, 'option tftp-server-name "10.9.9.9";')


WIRE: dict[str, tuple[int, Callable[[Lan, Path], None], str, str, str]] = {
    "two menus": (11, two_menus, "pi1", "fault", 'both say "boot from here"'),
    "two DHCP servers": (11, two_dhcp_servers, "pi1", "warning", f"{lan.SERVER} and {lan.OTHER} both give addresses"),
    "nobody answers": (12, nobody, "pi1", "fault", "no DHCP server answers at all"),
    "no menu": (12, no_menu, "pi2", "fault", f"{lan.SERVER} sends no option 43"),
    "length 0": (12, length_0, "pi1", "fault", f"{lan.SERVER} sends an option 43 of length 0"),
    "no address": (12, proxy_alone, "pi1", "fault", "nobody gives it an address"),
    "port 69 is silent": (13, silent_tftp, "pi1", "fault", "port 69"),
    "a name in option 66": (13, a_name, "pi1", "fault", "names 'nas.local' by option 66"),
    "next-server alone": (13, next_server_alone, "pi2", "warning", "which the boot ROM ignores"),
    "no way to the server": (13, another_subnet_and_no_router, "pi1", "fault", "and no offer names a router"),
    "a NUL": (14, a_nul, "pi1", "note", "option 66 with a NUL at its end"),
    "no start.elf": (15, no_start_file, "pi1", "fault", "has no start4.elf and no start.elf in 1a2b3c4d/"),
    "frames are lost": (15, no_modern_frames, "pi1", "fault", "blocks of 1468 bytes from 192.168.1.10 are lost"),
    "a port is narrow": (15, a_narrow_port, "pi1", "warning", f"come back from {lan.SERVER}, those of up to 140"),
    "an MTU of our own": (15, no_modern_frames, "pi1", "warning", "eth0 of this machine has an MTU of 1400"),
    "spanning tree": (29, spanning_tree, "pi3", "warning", "listens for 30 s before it forwards"),
    "another subnet": (33, another_subnet, "pi3", "fault", "10.9.9.9 is not in 192.168.1.0/24: the ROM of a 3B"),
}  # fmt: skip


@pytest.mark.parametrize("case", WIRE.values(), ids=WIRE)
@pytest.mark.usefixtures("nfs")
def test_each_rule_of_the_wire(case: tuple[int, Callable[[Lan, Path], None], str, str, str], hosts: Lan,
                               tftpboot: Path) -> None:  # fmt: skip
    rule, broken, name, gravity, expected = case
    broken(hosts, tftpboot)
    try:
        found = doctor(hosts, seconds=2.5 if rule == 29 else 1.5)[name]
    finally:
        hosts.as_it_was()
    said = [one for one in found["remarks"] if one["rule"] == rule and expected in one["message"]]
    assert [one["gravity"] for one in said] == [gravity], found
    if gravity == "fault":
        assert found["sentence"].startswith(f"{name} does not boot: ")
        assert next(one for one in found["remarks"] if one["gravity"] == "fault")["message"] in found["sentence"]
        assert said[0]["remedy"]


@pytest.mark.usefixtures("nfs", "tftpboot")
def test_an_mtu_of_our_own_is_mended(hosts: Lan) -> None:
    dnsmasq(hosts)
    try:
        hosts.board.ip("link", "set", "eth0", "mtu", "1400")
        (remedy,) = (one["remedy"] for one in doctor(hosts)["pi1"]["remarks"] if "has an MTU of" in one["message"])
        hosts.run_on_board("sh", "-c", remedy)
        found = doctor(hosts)["pi1"]
    finally:
        hosts.as_it_was()
    assert found["boots"] and [one for one in found["remarks"] if "MTU" in one["message"]] == []


# The tree may be nobody's to read: rights are given up when all is imported.
WAY = """
import os, sys
from rpinfs.netboot import mtu
if sys.argv[2:]:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(mtu.way_to(sys.argv[1], "eth0", 0.1))
"""


@pytest.mark.usefixtures("tftpboot")
def test_the_longest_packet_that_comes_through(hosts: Lan) -> None:
    """By a ping that may not be cut up; of whoever has only the kernel's own pings as well, or none at all."""

    def way(*user: str, server: str = lan.OTHER) -> str:
        # A bridge passes four bytes more than its port's MTU, for the tag of a VLAN.
        said = hosts.run_on_board(*PYTHON, "-c", WAY, server, *user).stdout.strip()
        return said.replace("largest=1404", "largest=1400")

    try:
        assert way() == "Passage(largest=1500, own=1500, why_not='')"
        assert way(server="192.168.1.99") == "Passage(largest=0, own=1500, why_not='')"
        assert way(server="192.168.1.20") == "Passage(largest=0, own=1500, why_not='it is this machine itself')"
        hosts.narrow("port1")
        assert way() == "Passage(largest=1400, own=1500, why_not='')"
        ranges = "/proc/sys/net/ipv4/ping_group_range"
        hosts.run_on_board("sh", "-c", f"echo 65534 65534 >{ranges}")
        assert way("nobody") == "Passage(largest=1400, own=1500, why_not='')"
        hosts.run_on_board("sh", "-c", f"echo 1 0 >{ranges}")
        assert way("nobody") == "Passage(largest=0, own=1500, why_not='Permission denied')"
        hosts.board.ip("link", "set", "eth0", "mtu", "1300")
        assert way() == "Passage(largest=1300, own=1300, why_not='')"
    finally:
        hosts.as_it_was()


@pytest.mark.usefixtures("nfs")
def test_two_tftp_roots(hosts: Lan, tftpboot: Path) -> None:
    """Rule 16: what is served is not what lies in the folder that somebody edits."""
    dnsmasq(hosts)
    edited = hosts.folder / "edited"
    shutil.copytree(tftpboot, edited)
    try:
        assert 16 not in [one["rule"] for one in doctor(hosts, "--tftp", str(edited))["pi1"]["remarks"]]
        (edited / "1a2b3c4d/cmdline.txt").write_text("another\n")
        (edited / "1a2b3c4d/kernel8.img").write_text("another\n")
        (edited / "1a2b3c4d/config.txt").unlink()
        found = doctor(hosts, "--tftp", str(edited))["pi1"]
    finally:
        shutil.rmtree(edited)
    said = [one["message"] for one in found["remarks"] if one["rule"] == 16]
    assert [line.partition("/")[2].partition(" ")[0] for line in said] == ["config.txt", "kernel8.img", "cmdline.txt"]
    assert found["boots"]
