"""The one page that a person follows, word by word, for each way to netboot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rpinfs.netboot.page import page
from rpinfs.netboot.plan import parse
from tests.support import golden

NAS = {"address": "192.168.1.10"}
PI1 = {"name": "pi1", "board": "4", "serial": "1a2b3c4d"}
OLD = {"name": "old", "board": "3B"}
BOX = {"address": "192.168.1.11", "interface": "eth0"}
PLANS: dict[str, dict[str, Any]] = {
    "A, no board yet": {},
    "A, boards of both kinds, NFS 3": {"pi": [PI1, OLD, {"name": "plus", "board": "3B+"}], "nas": {"version": "3"}},
    "B, a router of which a line is told": {"topology": "B", "network": {"dhcp": "openwrt"}, "pi": [PI1]},
    "B, a router that is clicked": {"topology": "B", "network": {"dhcp": "unifi"}, "pi": [PI1]},
    "C": {"topology": "C", "pi": [PI1]},
    "D, a box beside the NAS": {"topology": "D", "box": BOX, "pi": [PI1]},
    "D, a box that gives the addresses": {"topology": "D", "box": BOX, "network": {"dhcp": "box"}, "pi": [PI1]},
    "D, the NAS is the box": {"topology": "D", "box": {**BOX, "address": "192.168.1.10"}, "pi": [PI1]},
}


def test_every_word_of_the_page() -> None:
    text = ""
    for name, parts in PLANS.items():
        network = {"subnet": "192.168.1.0/24", **parts.get("network", {})}
        made = parse({**parts, "network": network, "nas": {**NAS, **parts.get("nas", {})}}, "plan.toml")
        text += f"== {name}\n{page(made, 'my plan.toml')}"
    assert text == golden(Path(__file__).with_name("pages.txt"), text)
