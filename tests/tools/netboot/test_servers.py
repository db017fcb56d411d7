"""What real servers answer a Pi and a PC beside it, from what render writes and from people's faulty files.

dnsmasq, ISC dhcpd, Kea and tftpd-hpa of Debian, in network namespaces.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rpinfs.netboot import packet
from rpinfs.netboot.boards import BOARDS
from rpinfs.netboot.judge import judge
from rpinfs.netboot.model import Plan
from rpinfs.netboot.packet import NETMASK, SERVER, TFTP_NAME, VENDOR, VENDOR_CLASS_ID, boot_menu
from rpinfs.netboot.plan import parse
from rpinfs.netboot.render.targets import render
from tests.support import PYTHON
from tests.tools.netboot import lan
from tests.tools.netboot.lan import Lan
from tests.unit.netboot import test_mended

pytestmark = pytest.mark.root

MODELS = ("3B", "3B+", "4", "5")
MAC = {
    model: bytes.fromhex("dca6321234" if BOARDS[model].eeprom else "b827eb5e2a") + bytes([number])
    for number, model in enumerate(MODELS)
}
SERIAL = bytes.fromhex("1a2b3c4d")
PC = bytes.fromhex("001122334455")


def plan(topology: str, dhcp: str, **more: object) -> Plan:
    network = {"subnet": lan.SUBNET, "dhcp": dhcp, "pool": lan.POOL, "router": "192.168.1.1"}
    nas = {"address": lan.OTHER if topology == "B" else lan.SERVER}
    boards = [{"name": "pi1", "board": "4", "serial": "1a2b3c4d"}]
    document = {"topology": topology, "network": network, "nas": nas, "pi": boards, **more}
    return parse(document, "test")


def rendered(made: Plan, target: str) -> str:
    (one,) = render(made, [target])
    return one.text


def asked(hosts: Lan) -> tuple[dict[str, list[packet.Reply]], list[packet.Reply], list[packet.Reply]]:
    """Answers to each model, to a PC that netboots, and to one that only wants an address."""
    requests = [
        packet.discover(BOARDS[model], MAC[model], SERIAL, bytes([1, 2, 3, n])) for n, model in enumerate(MODELS)
    ]
    plain = packet.request(
        PC, b"\5\5\5\5", {packet.DHCP_TYPE: bytes([packet.DISCOVER]), packet.WANTED: bytes([1, 3, 6])}
    )
    *boards, pc, nobody = hosts.ask(*requests, packet.pc_discover(PC, b"\4\4\4\4"), plain)
    return dict(zip(MODELS, boards, strict=True)), pc, nobody


def boot_options(reply: packet.Reply) -> set[int]:
    return set(reply.options) & {VENDOR, VENDOR_CLASS_ID, TFTP_NAME, packet.BOOT_FILE}


@pytest.mark.parametrize("topology", ["A", "D"])
def test_proxy(hosts: Lan, topology: str) -> None:
    """Beside a DHCP server that stays as it is: no address, the menu, and silence to everybody else."""
    box = {"box": {"address": lan.SERVER, "interface": "eth0"}} if topology == "D" else {}
    text = rendered(plan(topology, "consumer", **box), "dnsmasq-proxy")
    hosts.put("/tftpboot/hello", "hello\n")
    hosts.dnsmasq(text)
    boards, pc, nobody = asked(hosts)
    for model, replies in boards.items():
        (reply,) = replies
        assert (reply.yours, reply.next_server, reply.boot_file) == ("0.0.0.0", "0.0.0.0", "")
        assert reply.options[VENDOR] == boot_menu()
        assert reply.options[VENDOR_CLASS_ID] == b"PXEClient"
        assert reply.options[SERVER] == bytes([192, 168, 1, 10])
        assert TFTP_NAME not in reply.options
        verdict = judge(BOARDS[model], replies)
        assert (verdict.tftp, verdict.why, verdict.address) == (lan.SERVER, "option 54", "")
    assert (pc, nobody) == ([], [])
    code = f"from rpinfs.netboot import tftp; print(tftp.fetch({lan.SERVER!r}, 'hello'))"
    hosts.board.ip("address", "add", "192.168.1.20/24", "dev", "eth0")
    try:
        fetched = hosts.run_on_board(*PYTHON, "-c", code, ok=range(256))
    finally:
        hosts.board.ip("address", "del", "192.168.1.20/24", "dev", "eth0")
    assert ("hello" in fetched.stdout) == (topology == "D")


@pytest.mark.parametrize("server", ["dnsmasq", "isc", "kea"])
def test_a_dhcp_server_that_says_it(hosts: Lan, server: str) -> None:
    """Address, menu, class and TFTP server for Pis, byte for byte; an address and nothing of booting for PCs."""
    getattr(hosts, server)(rendered(plan("B", server), server))
    boards, pc, nobody = asked(hosts)
    for model, replies in boards.items():
        (reply,) = replies
        assert reply.options[VENDOR] == boot_menu()
        assert reply.options[VENDOR_CLASS_ID] == b"PXEClient"
        assert reply.options[TFTP_NAME] == lan.OTHER.encode() + (b"\0" if server == "dnsmasq" else b"")
        assert reply.options[NETMASK] == bytes([255, 255, 255, 0])
        verdict = judge(BOARDS[model], replies)
        assert (verdict.boots, verdict.tftp, verdict.why) == (True, lan.OTHER, "option 66")
        assert [remark.rule for remark in verdict.remarks] == ([14] if server == "dnsmasq" else [])
    for replies in (pc, nobody):
        (reply,) = replies
        assert reply.yours.startswith("192.168.1.")
        assert boot_options(reply) == set()


# What people have, and what it sends: each of these is a rule of `netboot check`.

DNSMASQ = "port=0\ndhcp-range=192.168.1.100,192.168.1.150,1h\n"
ISC = "subnet 192.168.1.0 netmask 255.255.255.0 {{ range 192.168.1.100 192.168.1.150; {} }}\n"
KEA = """{{"Dhcp4": {{"interfaces-config": {{"interfaces": ["eth0"]}},
"lease-database": {{"type": "memfile", "persist": false}}, {}
"subnet4": [{{"id": 1, "subnet": "192.168.1.0/24", "pools": [{{"pool": "192.168.1.100 - 192.168.1.150"}}]}}]}}}}"""
BARE = (
    '"option-data": [{"name": "vendor-encapsulated-options", "data": "%s", "csv-format": false, "always-send": true}],'
)


def test_dnsmasq_serves_nothing_on_an_interface_that_is_not_there(hosts: Lan) -> None:
    """Rule 1, the first half of the riddle: enable-tftp=IF with another name is no TFTP at all, without a word."""
    hosts.put("/srv/tftp/hello", "hello\n")
    code = f"from rpinfs.netboot import tftp; print(tftp.fetch({lan.SERVER!r}, 'hello'))"
    hosts.board.ip("address", "add", "192.168.1.20/24", "dev", "eth0")
    try:
        for line, served in (("enable-tftp=enp3s0", False), ("enable-tftp=eth0", True), ("enable-tftp", True)):
            hosts.dnsmasq(f"port=0\n{line}\ntftp-root=/srv/tftp\ntftp-no-fail\n")
            done = hosts.run_on_board(*PYTHON, "-c", code, ok=range(256))
            assert ("hello" in done.stdout, "SilentError" in done.stderr) == (served, not served), line
            hosts.stop()
    finally:
        hosts.board.ip("address", "del", "192.168.1.20/24", "dev", "eth0")


def test_a_boot_menu_without_a_range_is_silence(hosts: Lan) -> None:
    """Rule 2, the second half of the riddle: pxe-service does nothing where dnsmasq answers no DHCP."""
    hosts.dnsmasq('port=0\nenable-tftp\ntftp-root=/srv/tftp\ntftp-no-fail\npxe-service=0,"Raspberry Pi Boot"\n')
    boards, pc, _ = asked(hosts)
    assert (list(boards.values()), pc) == ([[]] * len(MODELS), [])


def test_a_proxy_cannot_name_another_server(hosts: Lan) -> None:
    """Rule 3: option 66 is dropped, and what pxe-service names is in a part of the menu that no Pi reads."""
    hosts.dnsmasq(
        'port=0\ndhcp-range=192.168.1.0,proxy\npxe-service=0,"Raspberry Pi Boot   ",bootcode,192.168.1.99\n'
        "dhcp-option=66,192.168.1.99\n"
    )
    boards, _, _ = asked(hosts)
    for model, replies in boards.items():
        assert TFTP_NAME not in replies[0].options
        assert judge(BOARDS[model], replies).tftp == lan.SERVER


def test_an_untagged_menu_answers_pcs(hosts: Lan) -> None:
    """Rule 5, and the tagged one still sends PCs an empty menu: therefore raw options in render's full dnsmasq."""
    hosts.dnsmasq(DNSMASQ + 'pxe-service=0,"Raspberry Pi Boot   "\n')
    assert packet.BOOT_TEXT in asked(hosts)[1][0].options[VENDOR]
    hosts.stop()
    hosts.dnsmasq(DNSMASQ + 'dhcp-mac=set:rpi,b8:27:eb:*:*:*\npxe-service=tag:rpi,0,"Raspberry Pi Boot   "\n')
    assert packet.suboptions(asked(hosts)[1][0].options[VENDOR]).keys() == {6, 10}


def test_without_three_spaces(hosts: Lan) -> None:
    """Rule 6: the 3B stays dark, the others boot."""
    hosts.dnsmasq(DNSMASQ + 'pxe-service=0,"Raspberry Pi Boot"\n')
    boards, _, _ = asked(hosts)
    boot = {model: bool(judge(BOARDS[model], replies).tftp) for model, replies in boards.items()}
    assert boot == {"3B": False, "3B+": True, "4": True, "5": True}
    assert "three spaces" in judge(BOARDS["3B"], boards["3B"]).remarks[0].message


def test_dnsmasq_ends_option_66_with_a_nul(hosts: Lan) -> None:
    """Rule 14."""
    hosts.dnsmasq(DNSMASQ + "dhcp-option-force=66,10.99.0.9\n")
    (reply,) = asked(hosts)[0]["4"]
    assert (reply.options[TFTP_NAME], reply.tftp_name) == (b"10.99.0.9\0", "10.99.0.9")
    assert [remark.rule for remark in judge(BOARDS["4"], [reply]).remarks] == [14]


def test_kea_and_a_bare_text(hosts: Lan) -> None:
    """Rules 7 and 12: length 0 on the wire."""
    hosts.kea(KEA.format(BARE % b"Raspberry Pi Boot".hex()))
    (reply,) = asked(hosts)[0]["4"]
    assert reply.options.get(VENDOR, b"") == b""
    verdict = judge(BOARDS["4"], [reply])
    assert not verdict.boots
    assert verdict.remarks[0].rule == 12


def test_siaddr_alone(hosts: Lan) -> None:
    """What "the Pi seems to ignore next-server" was: the ROM asks the DHCP server itself, the EEPROM the one named."""
    menu = f"option vendor-encapsulated-options {boot_menu().hex(':')};"
    hosts.isc(ISC.format(f'next-server {lan.OTHER}; filename "bootcode.bin"; {menu}'))
    boards, _, _ = asked(hosts)
    for model, server in (("3B", lan.SERVER), ("3B+", lan.SERVER), ("4", lan.OTHER), ("5", lan.OTHER)):
        assert judge(BOARDS[model], boards[model]).tftp == server
    assert "ignores" in judge(BOARDS["3B+"], boards["3B+"]).remarks[0].message


@pytest.mark.parametrize(
    ("statements", "boot"),
    [
        # EdgeOS, VyOS, UniFi: option 66 alone, which is enough for an EEPROM.
        (f'option tftp-server-name "{lan.OTHER}";', {"4", "5"}),
        # MikroTik's s'Raspberry Pi Boot': the text without a menu around it, and without its spaces.
        ('option vendor-encapsulated-options "Raspberry Pi Boot";', {"3B+", "4", "5"}),
        # dhcp-boot alone, as every PXE guide has it.
        (f'next-server {lan.OTHER}; filename "bootcode.bin";', set()),
        # A class by option 60 that a PC's guide has, with a menu of its own.
        ("option vendor-encapsulated-options 06:01:08;", set()),
    ],
    ids=["UniFi", "MikroTik", "dhcp-boot alone", "a PC's menu"],
)
def test_forms_of_routers(hosts: Lan, statements: str, boot: set[str]) -> None:
    """Bytes that routers without a file of ours to read send, by ISC dhcpd in their place: which boards go by them."""
    hosts.isc(ISC.format(statements))
    boards, _, _ = asked(hosts)
    assert {model for model, replies in boards.items() if judge(BOARDS[model], replies).tftp} == boot


def test_the_recipe_authors_dhcpd(hosts: Lan) -> None:
    """The option space of the recipe: a 3B+ takes it, a 3B does not."""
    space = (
        "option space RPi;\noption RPi.discovery code 6 = unsigned integer 8;\noption RPi.prompt code 10 = text;\n"
        "option RPi.menu code 9 = text;\n"
    )
    inner = (
        f'next-server {lan.OTHER}; filename "bootcode.bin"; vendor-option-space RPi; option RPi.discovery 3;'
        ' option RPi.menu "Raspberry Pi Boot"; option RPi.prompt "PXE";'
    )
    hosts.isc(space + ISC.format(inner))
    boards, _, _ = asked(hosts)
    sent = boards["3B+"][0].options[VENDOR]
    assert sent == b"\6\1\3\x09\x11Raspberry Pi Boot\x0a\3PXE"
    assert not judge(BOARDS["3B"], boards["3B"]).tftp
    assert judge(BOARDS["3B+"], boards["3B+"]).tftp == lan.SERVER


@pytest.mark.parametrize(
    "name", ["dhcp-boot alone", "the tutorial's proxy", "a proxy for another server", "a class by option 60"]
)
def test_what_check_names_boots_every_board(hosts: Lan, name: str, tmp_path: Path) -> None:
    """The lines that it says to write, in people's own files: every board boots by them, and no PC is told to."""
    text = test_mended.mended(tmp_path, name)
    if "class" in text:
        hosts.isc(ISC.format("") + text)
    else:
        hosts.put("/tftpboot/hello", "hello\n")
        hosts.dnsmasq(text)
    boards, pc, nobody = asked(hosts)
    for model, replies in boards.items():
        assert judge(BOARDS[model], replies).tftp == lan.SERVER, text
    assert [reply for reply in (*pc, *nobody) if VENDOR in reply.options] == []
