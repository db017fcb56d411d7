"""TFTP: Debian's tftpd-hpa and dnsmasq from what render writes, the lab's boot ROM as a client, a hostile server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.netboot.plan import parse
from rpinfs.netboot.render.targets import render
from tests.support import PYTHON
from tests.tools.netboot import lan
from tests.tools.netboot.hostile import WAYS
from tests.tools.netboot.lan import Lan

pytestmark = pytest.mark.root

MAC, SERIAL = "dc:a6:32:12:34:56", "1a2b3c4d"
KERNEL = bytes(range(256)) * 1000
ADDRESS = "192.168.1.20"

FETCH = """\
import concurrent.futures, json, sys
from rpinfs.errors import RpinfsError
from rpinfs.netboot import tftp

def fetched(name):
    try:
        return ["", tftp.fetch({server!r}, name, "eth0", 4.0).decode("latin-1")]
    except RpinfsError as error:
        return [type(error).__name__, error.message]

names = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(names)) as workers:
    print(json.dumps(dict(zip(names, workers.map(fetched, names)))))
"""

AS_A_BOARD = """\
import json, sys
from rpinfs.netboot import tftp
found = {{}}
for name in json.loads(sys.argv[1]):
    try:
        found[name] = tftp.size({server!r}, name, "eth0")
    except tftp.TftpError as error:
        found[name] = type(error).__name__
tftp.begins({server!r}, {large!r}, "eth0")
tftp.begins({server!r}, {large!r}, "eth0", tftp.SMALL_BLOCK)
print(json.dumps(found))
"""


@pytest.fixture
def board_address(hosts: Lan) -> Iterator[None]:
    hosts.board.ip("address", "add", f"{ADDRESS}/24", "dev", "eth0")
    yield
    hosts.board.ip("address", "flush", "dev", "eth0")


@pytest.fixture
def files(hosts: Lan) -> Iterator[Path]:
    """The boot folder of one board below the TFTP root."""
    for name in ("start4.elf", "config.txt", "cmdline.txt", "initramfs8"):
        hosts.put(f"/tftpboot/{SERIAL}/{name}", f"{name}\n")
    kernel = hosts.root / f"tftpboot/{SERIAL}/kernel8.img"
    kernel.write_bytes(KERNEL)
    kernel.chmod(0o644)
    hosts.put(f"/tftpboot/{SERIAL}/secret", "for root alone\n")
    (hosts.root / f"tftpboot/{SERIAL}/secret").chmod(0o600)
    yield hosts.root / "tftpboot"
    shutil.rmtree(hosts.root / "tftpboot")


def rendered(target: str, topology: str, dhcp: str) -> str:
    document = {
        "topology": topology,
        "network": {"subnet": lan.SUBNET, "dhcp": dhcp, "pool": lan.POOL},
        "nas": {"address": lan.SERVER},
        "box": {"address": lan.SERVER, "interface": "eth0"},
        "pi": [{"name": "pi1", "board": "4", "serial": SERIAL, "mac": MAC}],
    }
    (one,) = render(parse(document, "plan"), [target])
    return one.text


def start_tftp(hosts: Lan, server: str) -> None:
    if server == "tftpd-hpa":
        hosts.tftpd(rendered("tftpd-hpa", "B", "kea"))
    else:
        hosts.dnsmasq(rendered("dnsmasq", "D", "box"))


@pytest.mark.parametrize("server", ["tftpd-hpa", "dnsmasq"])
@pytest.mark.usefixtures("files", "board_address")
def test_a_board_fetches_its_files(hosts: Lan, server: str) -> None:
    """Sizes, whole blocks, the ends of transfers that only wanted a size, and files that are nowhere."""
    start_tftp(hosts, server)
    names = {
        f"{SERIAL}/config.txt": len("config.txt\n"),
        f"{SERIAL}/kernel8.img": len(KERNEL),
        f"{SERIAL}/recovery.elf": "NotServedError",
        "bootsig.bin": "NotServedError",
        f"{SERIAL}/secret": "NotReadableError",
        "../etc/passwd": "refused",
    }
    code = AS_A_BOARD.format(server=lan.SERVER, large=f"{SERIAL}/kernel8.img")
    found = json.loads(hosts.run_on_board(*PYTHON, "-c", code, json.dumps(list(names))).stdout)
    outside = found.pop("../etc/passwd")
    del names["../etc/passwd"]
    assert isinstance(outside, str)
    assert found == names
    code = FETCH.format(server=lan.SERVER)
    fetched = json.loads(hosts.run_on_board(*PYTHON, "-c", code, json.dumps(list(names)[:2])).stdout)
    assert fetched[f"{SERIAL}/kernel8.img"] == ["", KERNEL.decode("latin-1")]


@pytest.mark.parametrize("way", ["dnsmasq", "proxy", "tftpd-hpa"])
@pytest.mark.usefixtures("files")
def test_the_labs_boot_rom(hosts: Lan, way: str, tmp_path: Path) -> None:
    """DHCP and TFTP as the lab's Pis do it, from what render wrote: whole, as a proxy, with a TFTP server beside it."""
    if way == "dnsmasq":
        hosts.dnsmasq(rendered("dnsmasq", "D", "box"))
    else:
        router = "subnet 192.168.1.0 netmask 255.255.255.0 { range 192.168.1.100 192.168.1.110; }"
        hosts.isc(router, host=hosts.other)
        hosts.dnsmasq(rendered("dnsmasq-proxy", "D" if way == "proxy" else "A", "consumer"))
    if way == "tftpd-hpa":
        start_tftp(hosts, "tftpd-hpa")
    hosts.board.ip("link", "set", "eth0", "address", MAC)
    try:
        argv = ("-m", "tests.lab.bootrom", "eth0", MAC, SERIAL, str(tmp_path))
        done = hosts.run_on_board(*PYTHON, *argv)
    finally:
        hosts.board.ip("address", "flush", "dev", "eth0")
    assert done.stdout.splitlines()[-1] == "kernel=kernel8.img initramfs=initramfs8"
    assert f"TFTP server {lan.SERVER}" in done.stdout
    assert (tmp_path / "kernel8.img").read_bytes() == KERNEL
    assert (tmp_path / "cmdline.txt").read_text() == "cmdline.txt\n"


WHAT_IS_SAID = {
    "stops": ("StoppedError", "the server stopped in the middle"),
    "halfway": ("StoppedError", "the server stopped in the middle"),
    "endless": ("TftpError", "expected at most 1048576 bytes, found more"),
    "other-port": ("", "right 0005"),
    "stranger": ("SilentError", "nobody answers at port 69 (TFTP), but 192.168.1.12 does in its place"),
    "noise": (None, ""),
    "silent": ("SilentError", "nobody answers at port 69"),
    "zero-blocks": ("TftpError", "answers with blocks of 0 bytes to 1468"),
    "large-blocks": ("TftpError", "answers with blocks of 65464 bytes to 1468"),
    "negative-blocks": ("TftpError", "answers blksize=-1"),
    "unasked": ("TftpError", "answers windowsize=16, which nobody has asked for"),
    "large-size": ("TftpError", "answers tsize=999"),
    "no-text": ("TftpError", "which nobody has asked for"),
    "one-byte": ("SilentError", "nobody answers"),
    "escapes": ("TftpError", "[2Jgo away"),
    "long-block": ("TftpError", "expected blocks of 1468 bytes, found one of 1472"),
    "wrong-number": ("StoppedError", "the server stopped in the middle"),
}


@pytest.mark.usefixtures("board_address")
def test_a_hostile_server(hosts: Lan) -> None:
    """Each wrong thing is one line, within bounded time and memory; the file that is right all the same is fetched."""
    assert WHAT_IS_SAID.keys() == WAYS.keys()
    hosts.server.ip("address", "add", "192.168.1.12/24", "dev", "eth0")
    try:
        hosts.run_beside(*PYTHON, "-m", "tests.tools.netboot.hostile", lan.SERVER, "192.168.1.12", ready="listening")
        names = [*WAYS, "a\0octet\0blksize\0008\0", "\x1b[2J", "x" * 4000, ""]
        code = FETCH.format(server=lan.SERVER)
        found = json.loads(hosts.run_on_board(*PYTHON, "-c", code, json.dumps(names)).stdout)
    finally:
        hosts.server.ip("address", "del", "192.168.1.12/24", "dev", "eth0")
    for name, (kind, said) in WHAT_IS_SAID.items():
        assert kind in (found[name][0], None), (name, found[name])
        assert said in found[name][1], (name, found[name])
        assert found[name][1].isprintable() or not found[name][0]
        assert len(found[name][1]) < 400 or not found[name][0]
    assert {found[name][0] for name in names[len(WAYS) :]} == {"NotServedError"}
