"""Facts: what follows from what is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.health.facts import Space, link_to_nas, route
from rpinfs.system.network import Route
from tests.unit.health.pi import NAS, SILENCE, facts


def test_the_mount_that_a_file_lies_on(root: Path) -> None:
    found = facts(root)
    found.mounts.append(storage.parse_mountinfo(f"40 31 0:40 / /nfs/docker rw - nfs4 {NAS}:/other rw\n")[0])

    def source(path: str) -> str:
        mount = found.mount_of(path)
        return mount.source if mount else ""

    assert source("/var/lib/docker/swap") == "/dev/loop3"
    assert source("/var/lib/docker-swap") == f"{NAS}:/nfsroot/pi"
    assert source("/nfs/docker/image") == f"{NAS}:/other"  # the one on top
    found.mounts.clear()
    assert source("/swap") == ""


ROUTES = (
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
)
LO = "sys/class/net/lo/address"


@pytest.mark.parametrize(
    ("server", "told", "interface"),
    [
        ("10.0.0.9", SILENCE, "eth0"),
        ("10.0.0.9", Route("10.0.0.9", "lo", "", ""), "lo"),
        # The plain table knows numbers of version 4 alone.
        ("nas.local", SILENCE, ""),
        ("2001:db8::1", SILENCE, ""),
    ],
)
def test_the_way_to_the_nas(root: Path, server: str, told: object, interface: str) -> None:
    config = f"[Server]\nAddress={server}\n"
    found = facts(
        root, config, {"proc/self/mountinfo": "", "proc/net/route": ROUTES, LO: "00:00:00:00:00:00\n"}, {"route": told}
    )
    way, link = route(found), link_to_nas(found)
    assert (way.interface if way else "", link.name if link else "") == (interface, interface)


@pytest.mark.parametrize(("size", "available", "percent"), [(0, 0, 0.0), (200, 50, 75.0), (100, 100, 0.0)])
def test_how_full(size: int, available: int, percent: float) -> None:
    assert Space(size, available, 0, 0, 0.0).used_percent == percent
