"""`rpinfs netboot doctor` on a wire with real servers: a boot that works, and each way to break it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rpinfs.lease.lease import acquire
from rpinfs.lease.owner import Owner
from rpinfs.netboot import packet
from rpinfs.netboot.boards import BOARDS
from rpinfs.netboot.plan import parse
from tests.lab.process import Daemon
from tests.support import PYTHON, TOP
from tests.tools.netboot import lan
from tests.tools.netboot.asking import PLAN, dnsmasq, doctor
from tests.tools.netboot.lan import Lan

pytestmark = pytest.mark.root


@pytest.mark.usefixtures("tftpboot", "nfs")
def test_a_board_that_boots(hosts: Lan) -> None:
    dnsmasq(hosts)
    found = doctor(hosts)
    assert found["pi1"]["sentence"] == (
        f"pi1 boots: files from {lan.SERVER} (option 66 of {lan.SERVER}), /1a2b3c4d/"
    )  # fmt: skip
    assert found["pi1"]["files"]["1a2b3c4d/kernel8.img"] == 60_000
    assert (found["pi2"]["boots"], found["pi2"]["folder"]) == (True, "e75e2a2e/")
    said = [remark["message"] for one in found.values() for remark in one["remarks"] if remark["gravity"] != "note"]
    assert said == []


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
    """Rule 30, the NFS server that is not there or has another version, and what the files lack (15, 19)."""
    dnsmasq(hosts)
    broken(tftpboot, what)
    found = doctor(hosts)
    assert expected in found["pi1"]["sentence"]
    assert found["pi1"]["sentence"].startswith("pi1 does not boot: ")
    assert found["pi2"]["boots"]


def test_who_listens_hears_a_board(hosts: Lan, tftpboot: Path) -> None:
    """`netboot watch` on the server's host, beside a DHCP server that has the port already."""
    dnsmasq(hosts)
    argv = hosts.server.inside(
        *PYTHON, "-u", "-m", "rpinfs", "netboot", "watch", "--interface", "eth0", "--tftp", str(tftpboot)
    )
    listening = Daemon("watch", ["env", "-C", TOP, *argv], hosts.folder / "watch.log")
    try:
        # Nothing says that it listens: ask until it has heard.
        for _ in range(10):
            hosts.ask(packet.discover(BOARDS["5"], b"\x2c\xcf\x67\1\2\3", bytes.fromhex("99999999"), b"abcd"))
            if "asks" in listening.output():
                break
        said = listening.output()
    finally:
        listening.terminate()
    assert "Raspberry Pi 5, 2c:cf:67:01:02:03: asks for the folder 99999999, missing in" in said


@pytest.mark.usefixtures("nfs")
def test_who_listens_on_the_servers_host_sees_a_whole_boot(hosts: Lan, tftpboot: Path, tmp_path: Path) -> None:
    """Each step by what a board really sends for it, up to its lease on the share, which is taken as an agent does."""
    dnsmasq(hosts)
    (tmp_path / "share").mkdir()
    argv = hosts.server.inside(
        *PYTHON, "-u", "-m", "rpinfs", "netboot", "watch", "--interface", "eth0", "--tftp", str(tftpboot),
        "--plan", str(hosts.folder / "plan.toml"), "--share", str(tmp_path / "share"),
    )  # fmt: skip
    listening = Daemon("watch", ["env", "-C", TOP, *argv], hosts.folder / "boot.log")
    pi = parse(PLAN, "plan").pis[0]
    mac, serial = bytes.fromhex(pi.mac.replace(":", "")), bytes.fromhex(pi.serial)
    kernel = packet.request(mac, b"kern", {packet.DHCP_TYPE: b"\1"})
    connecting = f"import socket; socket.create_connection(({lan.SERVER!r}, 2049)).close()"
    fetching = f"from rpinfs.netboot import tftp; tftp.fetch({lan.SERVER!r}, '1a2b3c4d/cmdline.txt')"
    held = None
    try:
        for _ in range(20):
            hosts.ask(packet.discover(pi.board, mac, serial, b"abcd"))
            if "and says to boot from" in listening.output():
                break
        hosts.run_on_board(*PYTHON, "-c", fetching)
        hosts.ask(kernel)
        hosts.run_on_board(*PYTHON, "-c", connecting)
        # One who only looks at the past of a share says nothing: the lease is taken when the watch has begun.
        held = acquire(str(tmp_path / "share/docker.img"), Owner("100000001a2b3c4d", "pi1"))
        said = listening.wait_for("pi1 is up: .*", 60).string
    finally:
        if held is not None:
            held.close()
        listening.terminate()
    assert [line for line in said.splitlines() if "NET" not in line] == [
        "pi1: Raspberry Pi 4, dc:a6:32:12:34:56: asks for the folder 1a2b3c4d, which is there",
        said.splitlines()[1],
        f"pi1: fetches its files from {lan.SERVER}, 1a2b3c4d/cmdline.txt first",
        "pi1: asks for 1a2b3c4d/cmdline.txt",
        "pi1: its kernel runs, and asks for an address",
        f"pi1: asks {lan.SERVER} for its root (NFS)",
        "pi1 is up: its lease of docker.img is on the share",
    ]
    offered = rf"pi1: {lan.SERVER} offers 192\.168\.1\.1\d\d, and says to boot from {lan.SERVER} \(by option 66\)"
    assert re.fullmatch(offered, said.splitlines()[1])
