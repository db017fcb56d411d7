"""The plan: what it takes, what it refuses, and the way that fits."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from rpinfs.netboot.model import PlanError
from rpinfs.netboot.page import page
from rpinfs.netboot.plan import load, parse, save, text_of
from rpinfs.netboot.render.targets import TARGETS, render

NETWORK = {"subnet": "192.168.1.0/24"}
NAS = {"address": "192.168.1.10"}
PI = {"name": "pi1", "board": "4", "serial": "1a2b3c4d"}
BOX = {"address": "192.168.1.11", "interface": "eth0"}


Parts = dict[str, Any]


def document(**parts: Parts | str | list[Parts]) -> Parts:
    given: Parts = dict(parts)
    return {"network": {**NETWORK, **given.pop("network", {})}, "nas": {**NAS, **given.pop("nas", {})}, **given}


def test_as_little_as_possible() -> None:
    made = parse(document(), "plan")
    assert (made.topology, made.network.dhcp, made.nas.version, made.pis) == ("A", "consumer", "4.1", ())


def test_there_and_back(tmp_path: Path) -> None:
    pis = [{**PI, "eeprom": "2023/01/11"}, {"name": "pi2", "board": "3B+", "mac": "B8-27-EB-5E-2A-2E"}]
    made = parse(
        document(network={"pool": "192.168.1.100-192.168.1.200", "router": "192.168.1.1"}, box=BOX, pi=pis), "plan"
    )
    assert parse(tomllib.loads(text_of(made)), "again") == made
    save(made, str(tmp_path / "plan.toml"))
    assert load(str(tmp_path / "plan.toml")) == made
    assert made.pis[0].eeprom == "2023-01-11"
    assert made.pis[1].mac == "b8:27:eb:5e:2a:2e"


@pytest.mark.parametrize("mac", ["DC-A6-32-12-34-56", "dca632123456", "dca6.3212.3456", "dc:a6:32:12:34:56"])
def test_each_way_to_write_an_address(mac: str) -> None:
    assert (
        parse(document(pi=[{**PI, "mac": mac, "serial": "0x100000001A2B3C4D"}]), "plan").pis[0].mac
        == "dc:a6:32:12:34:56"
    )


def test_a_file_of_windows(tmp_path: Path) -> None:
    """A byte order mark, and two characters at the end of each line."""
    path = tmp_path / "plan.toml"
    path.write_bytes(b"\xef\xbb\xbf" + text_of(parse(document(pi=[PI]), "x")).replace("\n", "\r\n").encode())
    assert load(str(path)) == parse(document(pi=[PI]), "x")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, "A"),
        ({"nas": {"containers": False}, "network": {"dhcp": "kea"}}, "B"),
        ({"nas": {"containers": False}, "network": {"dhcp": "unifi"}, "pi": [PI]}, "B"),
        ({"nas": {"containers": False}, "network": {"dhcp": "unifi"}, "pi": [{**PI, "board": "3B+"}], "box": BOX}, "D"),
        ({"nas": {"containers": False}, "pi": [PI]}, "C"),
        ({"nas": {"tftp": False}, "box": BOX}, "D"),
        ({"network": {"dhcp": "box"}, "box": BOX}, "D"),
        ({"topology": "C", "pi": [PI]}, "C"),
    ],
)
def test_the_way_that_fits(parts: dict[str, Any], expected: str) -> None:
    made = parse(document(**parts), "plan")
    assert made.topology == expected
    shown = page(made, "plan.toml")
    assert f"way {expected}: " in shown
    assert shown.count("proof: ") >= 3


@pytest.mark.parametrize("address", ["192.168.1.10", "192.168.1.11"])
def test_a_box_that_is_the_nas_mounts_nothing_from_itself(address: str) -> None:
    made = parse(document(topology="D", box={**BOX, "address": address}), "plan")
    assert ("mount -t nfs" in page(made, "plan.toml")) is (address != made.nas.address)


def rendered(*targets: str, **parts: Parts | str | list[Parts]) -> list[str]:
    return [one.text for one in render(parse(document(**parts), "plan"), targets)]


@pytest.mark.parametrize("dhcp", ["mikrotik", "unifi", "edgeos", "opnsense", "openwrt", "kea"])
def test_a_router_that_stays_as_it_is_is_told_nothing(dhcp: str) -> None:
    """With its own options beside the proxy a board hears two answers; rule 11 would be of our making."""
    for parts in ({"topology": "A"}, {"topology": "D", "box": BOX}, {"topology": "C", "pi": [PI]}):
        (text,) = rendered("router", network={"dhcp": dhcp}, **parts)
        assert text.startswith("Leave the router as it is.") and "take them out" in text
    if dhcp in ("openwrt", "kea"):
        with pytest.raises(PlanError, match=f"--for router: a {dhcp} is told by a file: --for {dhcp}"):
            rendered("router", network={"dhcp": dhcp}, topology="B")
    else:
        assert "192.168.1.10" in rendered("router", network={"dhcp": dhcp}, topology="B", pi=[PI])[0]


def test_other_routers() -> None:
    (text,) = rendered("router", network={"dhcp": "box"}, box=BOX)
    assert text.startswith("Switch the DHCP server of the router off")
    for dhcp, begin in (("consumer", "This router can be told nothing"), ("synology", "Synology's DHCP server"),
                        ("pfsense", "pfSense: leave it as it is")):  # fmt: skip
        assert rendered("router", network={"dhcp": dhcp})[0].startswith(begin)
    with pytest.raises(PlanError, match=r"--for boards: the plan has no board \(\[\[pi\]\]\)"):
        rendered("boards")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("topology", ["A", "B", "C", "D"])
def test_each_target_for_each_way(target: str, topology: str) -> None:
    """Asked for by name each has something to say, whatever the plan needs; a comment never breaks off in a line."""
    texts = rendered(target, topology=topology, network={"dhcp": "unifi", "pool": "192.168.1.100-192.168.1.200"},
                     box=BOX, pi=[PI])  # fmt: skip
    assert texts and all(text.endswith("\n") for text in texts)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"network": {"subnet": "192.168.1.300/24"}}, "[network] subnet='192.168.1.300/24': expected an IPv4 network"),
    ({"network": {"subnet": "fd00::/64"}}, "IPv4"),
    ({"network": {"subnet": "192.168.1.77"}}, "expected a network with its length, from /8 to /30"),
    ({"network": {"subnet": "192.168.1.10/31"}}, "from /8 to /30"),
    ({"network": {"subnet": "0.0.0.0/0"}}, "from /8 to /30"),
    ({"network": {"subnet": "127.0.0.0/8"}}, "expected the network of a LAN"),
    ({"network": {"router": "10.0.0.1"}}, "[network] router=10.0.0.1: expected an address in 192.168.1.0/24"),
    ({"network": {"router": "192.168.1.255"}}, "it is that of 192.168.1.0/24"),
    ({"nas": {"address": "192.168.1.0"}}, "[nas] address=192.168.1.0: expected the address of a machine"),
    ({"network": {"pool": "192.168.1.5-192.168.1.10"}}, "192.168.1.10 is that of [nas] address"),
    ({"nas": {"boot": "/nfsroot"}}, "[nas] boot='/nfsroot': expected a folder without root: TFTP gives out all"),
    ({"nas": {"boot": "/"}}, "expected a folder without root"),
    ({"nas": {"share": "/tftpboot/docker"}}, "expected a folder without share"),
    ({"nas": {"version": 4.1}}, '[nas] version=4.1: expected "4.1", as it stands here'),
    ({"nas": {"kind": "Synology"}}, 'expected "synology", as it stands here'),
    ({"pi": [{**PI, "board": "cm4"}]}, 'expected "CM4", as it stands here'),
    ({"pi": [{**PI, "board": 4}]}, '[[pi]] 1 board=4: expected "4", as it stands here'),
    (
        {"pi": [PI, {"name": "1a2b3c4d", "board": "4"}]},
        "name=1a2b3c4d: expected another name: it is the TFTP folder of",
    ),
    ({"pi": [{**PI, "mac": "dca63212345"}]}, "expected a MAC address"),
    ({"pi": [{**PI, "mac": "dc:a632123456"}]}, "expected a MAC address"),
    ({"NAS": {}}, "NAS={}: unknown key; known are network, nas, box, pi, topology"),
    ({"network": {"dhcp": "fritzbox"}}, "[network] dhcp='fritzbox': expected one of consumer"),
    ({"network": {"pool": "192.168.1.200-192.168.1.100"}}, "the lower one first"),
    ({"network": {"pool": "10.0.0.1-10.0.0.2"}}, "expected addresses in 192.168.1.0/24"),
    ({"network": {"pcs": "yes"}}, "expected true or false"),
    ({"network": {"adress": "x"}}, "[network] adress='x': unknown key; known are dhcp"),
    ({"nas": {"address": "nas.local"}}, "a board that boots knows no names"),
    ({"nas": {"address": "10.1.1.1"}}, "expected an address in 192.168.1.0/24"),
    ({"nas": {"root": "nfsroot"}}, "[nas] root='nfsroot': expected an absolute path"),
    ({"nas": {"root": "/a b"}}, "without spaces"),
    ({"nas": {"kind": "synology", "version": "4.2"}}, "at most 4.1"),
    ({"nas": {"tftp": False}}, "no way to netboot fits: A: the NAS has no TFTP server"),
    ({"pi": [{**PI, "board": "2B"}]}, "[[pi]] 1 board='2B': expected one of 3B"),
    ({"pi": [{**PI, "name": "Pi 1"}]}, "expected a host name"),
    ({"pi": [{**PI, "serial": "00000000"}]}, "this one says nothing"),
    ({"pi": [{**PI, "serial": "1a2b3c"}]}, "eight hexadecimal digits"),
    ({"pi": [{**PI, "mac": "dc:a6:32"}]}, "expected a MAC address"),
    ({"pi": [{**PI, "eeprom": "c03114"}]}, "expected a day such as 2023-01-11"),
    ({"pi": [{**PI, "eeprom": 20230111}]}, "expected a day such as 2023-01-11"),
    ({"pi": [{**PI, "board": "3B+", "eeprom": "2023-01-11"}]}, "a 3B+ has no EEPROM"),
    ({"pi": [PI, {**PI, "name": "pi2"}]}, "serial=1a2b3c4d: two boards have it: pi1 and pi2"),
    ({"pi": PI}, "each below a line [[pi]]"),
    ({"box": {"address": "192.168.1.11", "interface": "eth0; reboot"}}, "name of a network interface"),
    ({"topology": "E"}, "topology='E': expected one of A, B, C, D"),
    ({"topology": "C", "pi": [{**PI, "board": "3B"}]}, "topology=C: does not fit: the ROM of a 3B"),
    ({"topology": "D"}, "there is no Linux box"),
    ({"topology": "A", "network": {"dhcp": "box"}, "box": BOX}, "the Linux box gives the addresses"),
    ({"colour": "red"}, "colour='red': unknown key"),
]


@pytest.mark.parametrize(("parts", "expected"), WRONG, ids=[expected[:40] for _, expected in WRONG])
def test_wrong_values(parts: dict[str, Any], expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse(document(**parts), "plan.toml")
    assert caught.value.message.startswith("plan.toml: ")
    assert expected in caught.value.message
    assert caught.value.status == 2


@pytest.mark.parametrize(("parts", "fits"), [
    # IFNAMSIZ is 16, with the byte behind the name; DNS has labels of 63 characters.
    *(({"box": {**BOX, "interface": name}}, fits) for name, fits in {
        "": False, "e": True, "e" * 15: True, "e" * 16: False, "e" * 17: False, "br-lan": True, "eth0.10": True,
        "a_b": True, "a/b": False,
    }.items()),
    *(({"pi": [{**PI, "name": name}]}, fits) for name, fits in {
        "": False, "p": True, "p" * 63: True, "p" * 64: False, "-p": False, "p-": False, "p-1": True, "p_1": False,
    }.items()),
    *(({"network": {"subnet": f"192.168.1.0/{length}"}}, fits) for length, fits in {
        7: False, 8: True, 24: True, 28: True, 30: False, 31: False,
    }.items()),
    # An address of its own for each machine, which nobody else is given.
    *(({"network": {"pool": f"192.168.1.{first}-192.168.1.{last}"}}, fits) for (first, last), fits in {
        (20, 30): True, (20, 20): True, (21, 20): False, (10, 20): False, (5, 10): False, (9, 11): False,
        (11, 20): True, (5, 9): True,
    }.items()),
    *(({"nas": {"address": f"192.168.1.{last}"}}, fits) for last, fits in {
        0: False, 1: True, 254: True, 255: False,
    }.items()),
    *(({"network": {"router": f"192.168.1.{last}"}}, fits) for last, fits in {0: False, 1: True, 255: False}.items()),
    *(({"pi": [{**PI, "serial": serial}]}, fits) for serial, fits in {
        "1a2b3c4": False, "1a2b3c4d": True, "1a2b3c4d5": False, "100000001a2b3c4d": True, "1a2b3c4g": False,
        "11111111": False, "11111112": True,
    }.items()),
])  # fmt: skip
def test_the_bounds_of_what_fits(parts: dict[str, Any], fits: bool) -> None:
    if fits:
        parse(document(**parts), "plan")
    else:
        with pytest.raises(PlanError):
            parse(document(**parts), "plan")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [({"network": NETWORK}, "[nas] address: is missing"), ({"nas": NAS}, "[network] subnet: is missing")],
)
def test_what_is_missing(parts: Parts, expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse(parts, "plan")
    assert caught.value.message == f"plan: {expected}"


@pytest.mark.parametrize("data", [b"topology = A\n", b"\xff\xfe", b"[network\n"])
def test_no_toml(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(data)
    with pytest.raises(PlanError, match="expected TOML"):
        load(str(path))
