"""`rpinfs netboot doctor` on a wire with real servers: a boot that works, and each way to break it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpinfs.netboot.plan import parse, save
from rpinfs.netboot.render.targets import render
from tests.lab.nas import GANESHA_CONFIG, GANESHA_EXPORT
from tests.lab.process import Daemon
from tests.tools.netboot import lan
from tests.tools.netboot.lan import Lan

pytestmark = pytest.mark.root

BOARDS = [
    {"name": "pi1", "board": "4", "serial": "1a2b3c4d", "mac": "dc:a6:32:12:34:56"},
    {"name": "pi2", "board": "3B+", "serial": "e75e2a2e", "mac": "b8:27:eb:5e:2a:2e"},
]
PLAN = {
    "topology": "D",
    "network": {"subnet": lan.SUBNET, "dhcp": "box", "pool": lan.POOL},
    "nas": {"address": lan.SERVER},
    "box": {"address": lan.SERVER, "interface": "eth0"},
    "pi": BOARDS,
}


@pytest.fixture(scope="module")
def nfs(whole_lan: Lan) -> Iterator[Daemon]:
    """nfs-ganesha on the server's host."""
    work = whole_lan.folder / "nfs"
    for name in ("recovery", "nfsroot"):
        (work / name).mkdir(parents=True)
    text = GANESHA_CONFIG.format(recovery=work / "recovery", lease=20, grace=20)
    text += GANESHA_EXPORT.format(number=1, export="/nfsroot", path=work / "nfsroot")
    (work / "ganesha.conf").write_text(text)
    argv = ("ganesha.nfsd", "-F", "-L", "STDOUT", "-p", work / "pid", "-f", work / "ganesha.conf")
    daemon = Daemon("ganesha", whole_lan.server.inside(*argv), work / "log")
    daemon.wait_for("NFS SERVER INITIALIZED", 60)
    yield daemon
    daemon.terminate()


@pytest.fixture
def tftpboot(hosts: Lan) -> Iterator[Path]:
    """What a boot partition has, for both boards, with what render writes for each."""
    made = parse(PLAN, "plan")
    save(made, str(hosts.folder / "plan.toml"))
    top = hosts.root / "tftpboot"
    for pi in made.pis:
        hosts.put(f"/tftpboot/{pi.serial}/start4.elf", "firmware")
        hosts.put(f"/tftpboot/{pi.serial}/start.elf", "firmware")
        hosts.put(f"/tftpboot/{pi.serial}/kernel8.img", "kernel" * 10_000)
    hosts.put("/tftpboot/bootcode.bin", "boot code")
    for one in render(made, ["boards"]):
        if one.place.startswith("/tftpboot"):
            hosts.put(one.place, one.text)
    hosts.board.ip("address", "add", "192.168.1.20/24", "dev", "eth0")
    yield top
    hosts.board.ip("address", "del", "192.168.1.20/24", "dev", "eth0")
    shutil.rmtree(top)


def doctor(hosts: Lan) -> dict[str, dict[str, Any]]:
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
        "1.5",
    )
    done = hosts.rpinfs(*words)
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert done.returncode == (0 if all(one["boots"] for one in found.values()) else 2), done.stderr
    return found


def dnsmasq(hosts: Lan) -> None:
    (config,) = (one.text for one in render(parse(PLAN, "plan")) if one.name == "dnsmasq.conf")
    hosts.dnsmasq(config)


@pytest.mark.usefixtures("tftpboot", "nfs")
def test_a_board_that_boots(hosts: Lan) -> None:
    dnsmasq(hosts)
    found = doctor(hosts)
    assert found["pi1"]["sentence"] == (
        f"pi1 boots: files from {lan.SERVER} (option 66 of {lan.SERVER}), /1a2b3c4d/"
    )  # fmt: skip
    assert found["pi1"]["files"]["1a2b3c4d/kernel8.img"] == 60_000
    assert (found["pi2"]["boots"], found["pi2"]["folder"]) == (True, "e75e2a2e/")
    assert [remark["gravity"] for one in found.values() for remark in one["remarks"]] == ["note", "note"]


def broken(tftpboot: Path, what: str) -> None:
    folder = tftpboot / "1a2b3c4d"
    if what == "no kernel":
        (folder / "kernel8.img").unlink()
    elif what == "not readable":
        (folder / "kernel8.img").chmod(0o600)
    elif what == "no folder":
        folder.rename(tftpboot / "100000001a2b3c4d")
    elif what == "a stock command line":
        (folder / "cmdline.txt").write_text("console=tty1 root=PARTUUID=1-02 rootwait\n")
    elif what == "no command line":
        (folder / "cmdline.txt").unlink()
    elif what == "another NAS":
        (folder / "cmdline.txt").write_text(f"root=/dev/nfs nfsroot={lan.OTHER}:/x,vers=4.1 ip=dhcp\n")
    elif what == "NFS 3":
        (folder / "cmdline.txt").write_text(f"root=/dev/nfs nfsroot={lan.SERVER}:/x,vers=3 ip=dhcp\n")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("no kernel", "192.168.1.10 does not serve 1a2b3c4d/kernel8.img (the kernel)"),
        ("not readable", "1a2b3c4d/kernel8.img"),
        ("no folder", "has no start4.elf and no start.elf in 1a2b3c4d/ or at the top"),
        ("a stock command line", "cmdline.txt has no nfsroot=: console=tty1 root=PARTUUID=1-02 rootwait"),
        ("no command line", "does not serve 1a2b3c4d/cmdline.txt: the kernel finds no root"),
        ("another NAS", "192.168.1.11 does not answer at port 2049 (NFS)"),
        ("NFS 3", "192.168.1.10 serves NFS, but not version 3"),
    ],
)
@pytest.mark.usefixtures("nfs")
def test_a_board_that_does_not(what: str, expected: str, hosts: Lan, tftpboot: Path) -> None:
    dnsmasq(hosts)
    broken(tftpboot, what)
    found = doctor(hosts)
    assert expected in found["pi1"]["sentence"]
    assert found["pi1"]["sentence"].startswith("pi1 does not boot: ")
    assert found["pi2"]["boots"]


@pytest.mark.usefixtures("tftpboot")
def test_nobody_answers(hosts: Lan) -> None:
    found = doctor(hosts)
    assert found["pi1"]["sentence"] == "pi1 does not boot: no DHCP server answers at all"


@pytest.mark.usefixtures("tftpboot", "nfs")
def test_two_servers(hosts: Lan) -> None:
    """Rule 11."""
    dnsmasq(hosts)
    hosts.isc(
        "subnet 192.168.1.0 netmask 255.255.255.0 { range 192.168.1.200 192.168.1.210;"
        ' option vendor-encapsulated-options "Raspberry Pi Boot   "; }',
        host=hosts.other,
    )
    said = doctor(hosts)["pi1"]["sentence"]
    assert f'{lan.SERVER} and {lan.OTHER} both say "boot from here"' in said


@pytest.mark.usefixtures("tftpboot")
def test_no_tftp_server(hosts: Lan) -> None:
    (config,) = (one.text for one in render(parse(PLAN, "plan")) if one.name == "dnsmasq.conf")
    hosts.dnsmasq("\n".join(line for line in config.splitlines() if "tftp" not in line))
    found = doctor(hosts)
    assert found["pi1"]["sentence"].startswith(f"pi1 does not boot: {lan.SERVER}: ")
    assert "69" in found["pi1"]["sentence"]


def test_who_listens_hears_a_board(hosts: Lan, tftpboot: Path) -> None:
    """`netboot watch` on the server's host, beside a DHCP server that has the port already."""
    from rpinfs.netboot import packet
    from rpinfs.netboot.boards import BOARDS as KNOWN
    from tests.support import PYTHON, TOP

    dnsmasq(hosts)
    argv = hosts.server.inside(
        *PYTHON, "-u", "-m", "rpinfs", "netboot", "watch", "--interface", "eth0", "--tftp", str(tftpboot)
    )
    listening = Daemon("watch", ["env", "-C", TOP, *argv], hosts.folder / "watch.log")
    try:
        # Nothing says that it listens: ask until it has heard.
        for _ in range(10):
            hosts.ask(packet.discover(KNOWN["5"], b"\x2c\xcf\x67\1\2\3", bytes.fromhex("99999999"), b"abcd"))
            if "asks" in listening.output():
                break
        said = listening.output()
    finally:
        listening.terminate()
    assert "Raspberry Pi 5, 2c:cf:67:01:02:03: asks for the folder 99999999, missing in" in said
