"""What a board makes of its offers. The offers themselves, from real servers: tests/tools/netboot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rpinfs.netboot.boards import BOARDS
from rpinfs.netboot.finding import Gravity
from rpinfs.netboot.judge import judge
from rpinfs.netboot.packet import OFFER, SERVER, TFTP_NAME, VENDOR, Reply, boot_menu

PROXY, ROUTER, NAS = "192.168.1.10", "192.168.1.1", "192.168.1.99"


def offer(server: str, *, yours: str = "0.0.0.0", siaddr: str = "0.0.0.0", **options: bytes) -> Reply:
    codes = {"menu": VENDOR, "name": TFTP_NAME}
    packed = bytes(int(part) for part in server.split("."))
    return Reply(
        server, b"", OFFER, yours, siaddr, "", {SERVER: packed, **{codes[key]: value for key, value in options.items()}}
    )


ADDRESS = offer(ROUTER, yours="192.168.1.50")
MENU = offer(PROXY, menu=boot_menu())


@pytest.mark.parametrize(
    ("model", "offers", "tftp", "why", "rules"),
    [
        ("4", [], "", "", [12]),
        ("4", [ADDRESS], "", "", [12]),
        ("4", [MENU], PROXY, "option 54", [12]),
        ("4", [ADDRESS, MENU], PROXY, "option 54", []),
        ("3B", [ADDRESS, MENU], PROXY, "option 54", []),
        ("3B", [ADDRESS, offer(PROXY, menu=boot_menu(spaces=False))], "", "", [12]),
        ("3B+", [ADDRESS, offer(PROXY, menu=boot_menu(spaces=False))], PROXY, "option 54", []),
        ("4", [offer(ROUTER, yours="192.168.1.50", name=NAS.encode())], NAS, "option 66", []),
        ("3B+", [offer(ROUTER, yours="192.168.1.50", name=NAS.encode())], "", "", [12]),
        ("4", [offer(ROUTER, yours="192.168.1.50", menu=boot_menu(), siaddr=NAS)], NAS, "siaddr", []),
        ("3B+", [offer(ROUTER, yours="192.168.1.50", menu=boot_menu(), siaddr=NAS)], ROUTER, "option 54", [13]),
        ("3B+", [offer(ROUTER, yours="192.168.1.50", menu=b"")], "", "", [12, 12]),
        ("4", [ADDRESS, MENU, offer(NAS, menu=boot_menu())], PROXY, "option 54", [11]),
        (
            "4",
            [offer(ROUTER, yours="192.168.1.50", menu=boot_menu(), name=b"10.0.0.9\0")],
            "10.0.0.9",
            "option 66",
            [14],
        ),
    ],
)
def test_verdicts(model: str, offers: list[Reply], tftp: str, why: str, rules: list[int]) -> None:
    found = judge(BOARDS[model], offers)
    assert (found.tftp, found.why, [remark.rule for remark in found.remarks]) == (tftp, why, rules)
    assert found.boots == bool(tftp and any(one.yours != "0.0.0.0" for one in offers))
    assert all(remark.message and remark.message.isprintable() for remark in found.remarks)


RELAYED = replace(offer(ROUTER, yours="192.168.1.50", menu=boot_menu()), relay="192.168.1.2")


@pytest.mark.parametrize(
    ("model", "offers", "rule", "said"),
    [
        ("3B", [RELAYED], 33, "came by the relay 192.168.1.2"),
        ("3B+", [RELAYED], None, ""),
        ("4", [offer(ROUTER, yours="192.168.1.50", name=b"x" * 255)], 13, "a board that boots knows no names"),
        ("4", [offer(ROUTER, yours="192.168.1.50", name=b"127.0.0.1")], 13, "knows no names"),
        ("4", [offer(ROUTER, yours="192.168.1.50", name=b"\x1b[2J")], 13, "knows no names"),
        ("4", [offer(ROUTER, yours="192.168.1.50", menu=boot_menu(), siaddr="224.0.0.1")], 13, "by siaddr"),
    ],
)
def test_what_is_in_the_way(model: str, offers: list[Reply], rule: int | None, said: str) -> None:
    found = judge(BOARDS[model], offers)
    faults = [remark for remark in found.remarks if remark.gravity is Gravity.FAULT]
    assert [remark.rule for remark in faults] == ([rule] if rule else [])
    assert all(said in remark.message and len(remark.message) < 200 for remark in faults)
    assert bool(found.tftp) == (rule != 13)


def test_why_it_stays_dark() -> None:
    said = (
        judge(BOARDS["3B"], [ADDRESS, offer(PROXY, menu=boot_menu(spaces=False)), offer(NAS, menu=b"")])
        .remarks[0]
        .message
    )
    assert f"{ROUTER} sends no option 43" in said
    assert f"{PROXY} sends the text without the three spaces" in said
    assert f"{NAS} sends an option 43 of length 0" in said
