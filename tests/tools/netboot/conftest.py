"""One LAN for all tests of a module; each test starts its servers and they end with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.netboot.plan import parse, save
from rpinfs.netboot.render.targets import render
from tests.lab.nas import GANESHA_CONFIG, GANESHA_EXPORT
from tests.lab.process import Daemon
from tests.tools.netboot.asking import PLAN, make_pi_root
from tests.tools.netboot.lan import Lan, lan


@pytest.fixture(scope="module")
def whole_lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    with lan(tmp_path_factory.mktemp("lan")) as made:
        yield made


@pytest.fixture
def hosts(whole_lan: Lan) -> Iterator[Lan]:
    yield whole_lan
    whole_lan.stop()


@pytest.fixture(scope="module")
def nfs(whole_lan: Lan) -> Iterator[Daemon]:
    """nfs-ganesha on the server's host."""
    work = whole_lan.folder / "nfs"
    for name in ("recovery", "nfsroot"):
        (work / name).mkdir(parents=True)
    text = GANESHA_CONFIG.format(recovery=work / "recovery", lease=20, grace=20, plugins="")
    text += GANESHA_EXPORT.format(number=1, export="/nfsroot", path=work / "nfsroot")
    for pi in parse(PLAN, "plan").pis:
        make_pi_root(work / "nfsroot" / pi.name)
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
