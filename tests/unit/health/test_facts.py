"""Facts: what follows from what is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.health.facts import NotAskedError, Space, ext4_errors, link_to_nas, route
from rpinfs.system.network import Route
from tests.support import Content
from tests.unit.health.pi import BOOT_LINE, MOUNTINFO, NAS, SHARE_LINE, SILENCE, facts


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


@pytest.mark.parametrize(
    ("config", "lines", "address"),
    [
        ("[Server]\nAddress=nas\n", SHARE_LINE.replace(f"addr={NAS}", "addr=10.0.0.7"), "10.0.0.7"),
        ("[Server]\nAddress=nas\n", BOOT_LINE.replace(f"addr={NAS}", "addr=10.0.0.8"), "10.0.0.8"),
        ("[Server]\nAddress=nas\n", "", "nas"),
        ("[Server]\nAddress=nas\n[Boot]\nExport=\n", "", "nas"),
        ("", "", NAS),
    ],
)
def test_the_number_of_the_nas_is_that_of_a_mount(root: Path, config: str, lines: str, address: str) -> None:
    assert facts(root, config, {"proc/self/mountinfo": lines}).server_address == address


def test_what_the_agent_has_published_may_be_anything(root: Path) -> None:
    found = facts(root)
    image = found.config.images[0]
    odd: list[dict[str, object]] = [{}, {"images": {}, "share": 7}, {"images": {"docker": []}, "share": None}]
    for said in odd:
        found.agent = said
        assert (found.agent_on_image(image), found.agent_on_share()) == ({}, {})
    found.agent = {"images": {"docker": {"state": "mounted"}}, "share": {"state": "silent"}}
    assert found.agent_on_image(image) == {"state": "mounted"} and found.agent_on_share() == {"state": "silent"}


def test_an_answer_an_error_and_none(root: Path) -> None:
    found = facts(root, answers={"share": OSError(5, "Input/output error")})
    assert found.known("share", Space) is None and found.known("nothing", Space) is None
    with pytest.raises(OSError, match="Input/output error"):
        found.answer("share", Space)
    with pytest.raises(NotAskedError, match="not asked"):
        found.answer("nothing", Space)


@pytest.mark.parametrize(
    ("files", "there"),
    [
        ({}, True),
        ({"proc/self/mountinfo": SHARE_LINE.replace("nfs4", "ext4")}, False),
        ({"proc/cmdline": "rpinfs=off\n"}, False),
    ],
)
def test_the_share_is_one_of_nfs_where_it_is_in_use(root: Path, files: dict[str, Content], there: bool) -> None:
    assert (facts(root, files=files).share is not None) is there


@pytest.mark.parametrize(
    ("lines", "errors"), [(MOUNTINFO, 3), (SHARE_LINE, None), (MOUNTINFO.replace("7:3", "8:1"), 3)],
    ids=["mounted", "not mounted", "by its file"],
)  # fmt: skip
def test_the_errors_of_an_image_are_those_of_its_device(root: Path, lines: str, errors: int | None) -> None:
    found = facts(root, files={"proc/self/mountinfo": lines, "sys/fs/ext4/loop3/errors_count": "3\n"})
    assert ext4_errors(found, found.config.images[0]) == errors
