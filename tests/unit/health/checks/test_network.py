"""Checks of the way to the NAS: what each says of a machine that is well, and of one that is not."""

from __future__ import annotations

from rpinfs.errors import RpinfsError
from rpinfs.health.facts import Nas
from rpinfs.system.network import Route
from tests.support import Content
from tests.unit.health.pi import CRITICAL, NAS, OK, SILENCE, UNKNOWN, WARNING, Case, Judged, assert_judged


def dhcpcd(settings: str) -> dict[str, Content]:
    return {"proc/303/comm": "dhcpcd\n", "etc/dhcpcd.conf": settings}


CASES = [
    Case("network.link", CRITICAL, "eth0 has no link", files={"sys/class/net/eth0/carrier": "0\n"}),
    Case("network.link", WARNING, "eth0 runs at 10 Mb/s", files={"sys/class/net/eth0/speed": "10\n"}),
    Case("network.link", OK, "eth0 has a link at 100 Mb/s", files={"sys/class/net/eth0/speed": "100\n"}),
    Case("network.link", OK, "eth0 has a link, full duplex", files={"sys/class/net/eth0/speed": "-1\n"}),
    Case("network.link", WARNING, "eth0 runs at half duplex", files={"sys/class/net/eth0/duplex": "half\n"}),
    Case("network.link", WARNING, "is wireless", files={"sys/class/net/eth0/wireless": None}),
    Case("network.link", OK, "eth0 has a link", answers={"route": SILENCE}),
    Case("network.manager", OK, "nobody manages eth0"),
    Case("network.manager", OK, "dhcpcd manages eth0 and leaves it up", files=dhcpcd("persistent\n")),
    Case("network.manager", WARNING, "dhcpcd may take down eth0, which carries the root", files=dhcpcd("")),
    Case("network.manager", UNKNOWN, "no answer within 1.4 s", answers={"nic": SILENCE}),
    Case("network.route", OK, f"{NAS} is reached over eth0 by 192.168.1.1", answers={
        "route": Route(NAS, "eth0", "192.168.1.1")}),
    Case("network.route", UNKNOWN, "no answer within 1.4 s", files={"proc/net/route": ""}, answers={"route": SILENCE}),
    Case("network.server", OK, "takes a connection in 1 ms"),
    Case("network.server", OK, "takes a connection in 200 ms", answers={"nas": Nas(NAS, 0.2)}),
    Case("network.server", WARNING, "takes a connection in 201 ms", answers={"nas": Nas(NAS, 0.201)}),
    Case("network.link", OK, "eth0 has a link at 100 Mb/s", files={"sys/class/net/eth0/speed": "100\n"}),
    Case("network.link", WARNING, "eth0 runs at 99 Mb/s", files={"sys/class/net/eth0/speed": "99\n"}),
    Case("network.server", WARNING, "takes a connection in 300 ms", answers={"nas": Nas(NAS, 0.3)}),
    Case("network.server", CRITICAL, f"the NAS {NAS} gave no answer within 1.4 s", answers={
        "nas": SILENCE, "share": SILENCE}),
    Case("network.server", UNKNOWN, "no answer within 1.4 s", answers={"nas": SILENCE}),
    Case("network.server", CRITICAL, "does not serve NFS", answers={"nas": RpinfsError("x does not serve NFS")}),
]  # fmt: skip


def test_case(case: Case, judged: Judged) -> None:
    assert_judged(case, judged(case))
