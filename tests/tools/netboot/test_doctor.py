"""`rpinfs netboot doctor` on a wire with real servers: a boot that works, and each way to break it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.process import Daemon
from tests.tools.netboot import lan
from tests.tools.netboot.asking import dnsmasq, doctor
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
    assert [remark["gravity"] for one in found.values() for remark in one["remarks"]] == ["note"] * 3


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
