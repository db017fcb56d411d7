"""The way to the NAS: the kernel's table as text, interfaces as folders, and real sockets on the loopback."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.system import network
from rpinfs.system.network import Link, Route, link, route_in_table
from tests.support import TOP, make_tree

HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
# As /proc/net/route has it on a little-endian machine: 0.0.0.0/0 by 192.168.1.1, 192.168.1.0/24, a host of its own.
DEFAULT = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
NETWORK = "eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
HOST = "eth1\t0A01A8C0\t0201A8C0\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
RADIO = "wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0\n"
REFUSED = "lo\t0A01A8C0\t00000000\t0200\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
TO_NAS = "192.168.1.10"

TABLES = {
    "on the same network": (HEADER + DEFAULT + NETWORK, Route(TO_NAS, "eth0")),
    "by the gateway": (HEADER + DEFAULT, Route(TO_NAS, "eth0", "192.168.1.1")),
    "the narrowest counts": (HEADER + HOST + DEFAULT + NETWORK, Route(TO_NAS, "eth1", "192.168.1.2")),
    "wherever it stands": (HEADER + DEFAULT + NETWORK + HOST, Route(TO_NAS, "eth1", "192.168.1.2")),
    "of two alike the one that costs less": (HEADER + RADIO + NETWORK, Route(TO_NAS, "eth0")),
    "wherever that stands": (HEADER + NETWORK + RADIO, Route(TO_NAS, "eth0")),
    "the first of two that cost the same": (HEADER + NETWORK + NETWORK.replace("eth0", "eth9"), Route(TO_NAS, "eth0")),
    "one that is not up": (HEADER + REFUSED + NETWORK, Route(TO_NAS, "eth0")),
    "a line cut short": (HEADER + "eth0\t00000000\t0101A8C0\t0003\n" + NETWORK, Route(TO_NAS, "eth0")),
    "behind another network": (HEADER + NETWORK.replace("0001A8C0", "0002A8C0") + NETWORK, Route(TO_NAS, "eth0")),
    "another network": (HEADER + NETWORK.replace("0001A8C0", "0002A8C0"), None),
    "no way": (HEADER, None),
    "nothing": ("", None),
}


@pytest.mark.parametrize(("table", "expected"), TABLES.values(), ids=TABLES)
def test_the_way_in_a_table(table: str, expected: Route | None) -> None:
    assert route_in_table(table, TO_NAS) == expected


WIRED = {"address": "dc:a6:32:00:00:01\n", "carrier": "1\n", "speed": "1000\n", "duplex": "full\n"}
WIRED_LINK = Link("eth0", True, 1000, "full", "dc:a6:32:00:00:01", False)
LINKS = {
    "a wire": (WIRED, WIRED_LINK),
    "no link": (
        {**WIRED, "carrier": "0\n", "speed": "-1\n", "duplex": "unknown\n"},
        Link("eth0", False, None, "", "dc:a6:32:00:00:01", False),
    ),
    "a speed of nothing": ({**WIRED, "speed": "0\n"}, Link("eth0", True, None, "full", "dc:a6:32:00:00:01", False)),
    "half a wire": (
        {**WIRED, "duplex": "half\n", "speed": "1\n"},
        Link("eth0", True, 1, "half", WIRED_LINK.mac, False),
    ),
    "switched off": ({"address": WIRED["address"]}, Link("eth0", None, None, "", WIRED_LINK.mac, False)),
    "a radio": ({"address": WIRED["address"], "wireless/x": ""}, Link("eth0", None, None, "", WIRED_LINK.mac, True)),
    "a newer radio": (
        {"address": WIRED["address"], "phy80211/x": ""},
        Link("eth0", None, None, "", WIRED_LINK.mac, True),
    ),
    "none of that name": ({}, None),
}


@pytest.mark.parametrize(("files", "expected"), LINKS.values(), ids=LINKS)
def test_a_link(tmp_path: Path, files: dict[str, str], expected: Link | None) -> None:
    make_tree(tmp_path, {f"sys/class/net/eth0/{name}": content for name, content in files.items()})
    assert link("eth0", str(tmp_path)) == expected


def test_what_needs_no_name_server() -> None:
    for address in ("192.168.1.10", "fd00::1", "fe80::1%lo"):
        assert network.is_number(address)
        assert network.resolve(address) == address
    assert not network.is_number("nas.local")


def test_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network.resolve("localhost") in ("127.0.0.1", "::1")

    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(RpinfsError, match=r"^the name nas cannot be resolved: Name or service not known$") as refusal:
        network.resolve("nas")
    assert str(refusal.value.remedy).endswith("getent ahosts nas")


def test_knocking(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(network, "NFS_PORT", server.getsockname()[1])
        assert 0 <= network.knock("127.0.0.1", 60.0) < 60
    with pytest.raises(RpinfsError, match=r"^127.0.0.1 does not serve NFS: Connection refused$") as refusal:
        network.knock("127.0.0.1", 60.0)
    assert "its NFS server is not; start it there" in str(refusal.value.remedy)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TimeoutError("timed out"), "does not answer on the NFS port (2049)"),
        (OSError(errno.EHOSTUNREACH, "x"), f"does not serve NFS: {os.strerror(errno.EHOSTUNREACH)}"),
        (OSError("no number"), f"does not serve NFS: {os.strerror(0)}"),
    ],
)
def test_nobody_there(error: OSError, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unanswered(socket.socket):
        def connect(self, address: object) -> NoReturn:
            assert (self.gettimeout(), address) == (3.0, ("192.0.2.1", 2049))
            raise error

    monkeypatch.setattr(socket, "socket", Unanswered)
    with pytest.raises(RpinfsError) as refusal:
        network.knock("192.0.2.1", 3.0)
    assert refusal.value.message == f"192.0.2.1 {message}"
    assert refusal.value.remedy == "look whether the NAS is on: ping -c 5 192.0.2.1"


NAMESPACE = """
ip link set lo up
ip link add eth9 type veth peer name other
ip link set eth9 up
ip link set other up
ip address add 192.0.2.2/24 dev eth9
ip address add 2001:db8::2/64 dev eth9 nodad
ip route add 198.51.100.0/24 via 192.0.2.1
ip route add 198.51.101.0/24 via inet6 2001:db8::1 dev eth9
ip -6 route add 2001:db8:1::/48 via 2001:db8::1
ip route add blackhole 198.51.102.0/24
ip rule add to 198.51.103.0/24 lookup 77
ip route add 198.51.103.0/24 via 192.0.2.7 dev eth9 src 192.0.2.2 table 77
exec "$@"
"""
ASK = """
import sys
from rpinfs.errors import RpinfsError
from rpinfs.system.network import route_to
for address in sys.argv[1:]:
    try:
        route = route_to(address)
        print(route.address, route.interface, route.gateway or "-", route.source or "-")
    except RpinfsError as error:
        print(error.message, "|", error.remedy)
"""


@pytest.mark.root
def test_what_the_kernel_says() -> None:
    addresses = ("192.0.2.9", "198.51.100.9", "127.0.0.1", "203.0.113.1", "fe80::1%eth9")
    argv = ["unshare", "--net", "sh", "-ec", NAMESPACE, "sh", sys.executable, "-c", ASK, *addresses]
    said = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[:4] == [
        "192.0.2.9 eth9 - 192.0.2.2",
        "198.51.100.9 eth9 192.0.2.1 192.0.2.2",
        "127.0.0.1 lo - 127.0.0.1",
        "no route to 203.0.113.1: Network is unreachable | ip route; ip link",
    ]
    assert said[4].startswith("fe80::1%eth9 eth9 - ")


BOTH = """
import sys
from rpinfs.errors import RpinfsError
from rpinfs.system import network
def told(address):
    try:
        return network.route_to(address)
    except RpinfsError as error:
        return error.message
for address in sys.argv[1:]:
    plain, first = network._plain_route(address), told(address)
    network._plain_route, kept = lambda address: None, network._plain_route
    second = told(address)
    network._plain_route = kept
    assert first == second and (plain is None) == isinstance(first, str), (first, second)
    print(address, plain)
"""


@pytest.mark.root
def test_one_question_is_answered_as_pyroute2_tells_it() -> None:
    """By policy, by a gateway of the other family, local, refused: whatever the kernel's ways are."""
    ways = [
        "192.0.2.9", "198.51.100.9", "198.51.101.9", "198.51.103.9", "127.0.0.1", "192.0.2.2", "fe80::1%eth9",
        "2001:db8::9", "2001:db8:1::9", "::1",
    ]  # fmt: skip
    none = ("198.51.102.9", "203.0.113.1", "2001:db8:ffff::1")
    argv = ["unshare", "--net", "sh", "-ec", NAMESPACE, "sh", sys.executable, "-c", BOTH, *ways, *none]
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert "gateway='192.0.2.7'" in said["198.51.103.9"]
    assert [said[address] for address in none] == ["None"] * 3


def test_where_pyroute2_is_missing_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_plain_route", lambda _: None)
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    with pytest.raises(RpinfsError, match=r"^the network cannot be asked: ") as refusal:
        network.route_to("192.0.2.1")
    assert refusal.value.remedy == "apt install python3-pyroute2"


def test_attributes_begin_at_a_multiple_of_four_bytes() -> None:
    """One that is shorter than its own head hides none after it."""
    last = struct.pack("=HHI", 8, 4, 7)
    whole = (struct.pack("=HHI", 8, 1, 5), struct.pack("=HHBxxx", 5, 5, 9), struct.pack("=HH", 4, 7))
    assert network._attributes(b"".join(whole) + last) == {1: b"\5\0\0\0", 5: b"\t", 7: b"", 4: b"\7\0\0\0"}
    for size in range(4):
        assert network._attributes(struct.pack("=HH", size, 9) + last)[4] == b"\7\0\0\0"


RTNETLINK = struct.pack("=IHHII8BI", 28, 24, 0, 1, 0, 2, 32, *[0] * 6, 0)
STRANGE = [
    b"", RTNETLINK[:20], RTNETLINK, RTNETLINK + b"\0" * 400, RTNETLINK + struct.pack("=HH", 4, 4),
    RTNETLINK + struct.pack("=HHI", 400, 4, 1)[:6], RTNETLINK + struct.pack("=HHB", 5, 4, 1),
]  # fmt: skip


@pytest.mark.parametrize("answer", STRANGE)
def test_an_answer_that_says_nothing_is_none(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "sendto", lambda *_: 0)
    monkeypatch.setattr(socket.socket, "recvfrom", lambda *_: (answer, (0, 0)))
    assert network._plain_route("192.0.2.1") is None
