"""A plan with a board of each kind, and what `rpinfs netboot doctor` says of them on the LAN of the tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rpinfs.netboot.plan import parse
from rpinfs.netboot.render.targets import render
from tests.support import Content, make_tree
from tests.tools.netboot import lan
from tests.tools.netboot.lan import Lan

BOARDS = [
    {"name": "pi1", "board": "4", "serial": "1a2b3c4d", "mac": "dc:a6:32:12:34:56"},
    {"name": "pi2", "board": "3B+", "serial": "e75e2a2e", "mac": "b8:27:eb:5e:2a:2e"},
    {"name": "pi3", "board": "3B", "serial": "3c3d3e3f", "mac": "b8:27:eb:3d:3e:3f"},
]
PLAN = {
    "topology": "D",
    "network": {"subnet": lan.SUBNET, "dhcp": "box", "pool": lan.POOL},
    "nas": {"address": lan.SERVER},
    "box": {"address": lan.SERVER, "interface": "eth0"},
    "pi": BOARDS,
}


def program(machine: int) -> bytes:
    """An ELF file for a processor (elf(5)), longer than a frame."""
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + bytes([2, 0, machine, 0])
    return head.ljust(8192, b"\0")


ARM_64, PC = 183, 62
INIT: dict[str, Content] = {
    "sbin": Path("usr/sbin"),
    "usr/sbin/init": Path("../lib/systemd/systemd"),
    "usr/lib/systemd/systemd": program(ARM_64),
}
"""What the kernel starts, as a root of Debian has it; it is not executable until somebody says so."""


def make_pi_root(folder: Path, files: Mapping[str, Content] | None = None) -> Path:
    """A root with as much in it as a kernel wants."""
    make_tree(folder, {"etc/passwd": "\n", **INIT, **(files or {})})
    (folder / "usr/lib/systemd/systemd").chmod(0o755)
    return folder


def doctor(hosts: Lan, *more: str, seconds: float = 1.5) -> dict[str, dict[str, Any]]:
    """What it says of each board."""
    words = (
        "netboot",
        "doctor",
        "--interface",
        "eth0",
        "--plan",
        str(hosts.folder / "plan.toml"),
        "--json",
        "--seconds",
        str(seconds),
        *more,
    )
    done = hosts.rpinfs(*words)
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert done.returncode == (0 if all(one["boots"] for one in found.values()) else 2), done.stderr
    return found


def dnsmasq(hosts: Lan) -> None:
    """dnsmasq as render writes it for the plan: addresses, options and files."""
    hosts.dnsmasq(rendered_dnsmasq())


def rendered_dnsmasq() -> str:
    """The text of that file."""
    (config,) = (one.text for one in render(parse(PLAN, "plan")) if one.name == "dnsmasq.conf")
    return config
