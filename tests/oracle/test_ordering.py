"""Lines of fstab that depend on mounts of ours: systemd says what makes a cycle, and we say the same.

Each line is tried as it stands, with what the generator writes beside it; and where it names options to add, with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.oracle.systemd import Systemd
from tests.support import Installed, listing, make_pi

pytestmark = pytest.mark.root

ADDED = "nofail,_netdev"


class Case(NamedTuple):
    line: str
    """With {} where options are added."""
    says: str
    """A part of what is said of it; empty where systemd has no cycle, or we order it."""
    drop_in: str = ""
    """Unit that gets one."""


CASES = [
    Case("/dev/sda1 /var/lib/docker/volumes ext4 defaults,noatime{} 0 2", "lies below /var/lib/docker"),
    Case("tmpfs /var/lib/containerd/tmp tmpfs defaults{} 0 0", "lies below /var/lib/containerd"),
    Case("tmpfs /nfs/docker/tmp/ tmpfs size=1M{} 0 0", "lies below /nfs/docker"),
    Case("tmpfs /boot/firmware/overlays tmpfs size=1M{} 0 0", "lies below /boot/firmware"),
    Case("/var/lib/docker/x /srv/x none bind{} 0 0", "/srv/x is kept in /var/lib/docker/x"),
    Case("/var/lib/docker /srv/x none rbind{} 0 0", "/srv/x is kept in /var/lib/docker"),
    Case("/var/lib/docker/x.img /srv/x ext4 loop{} 0 0", "/srv/x is kept in /var/lib/docker/x.img"),
    Case("/nfs/docker/other.img /srv/x ext4 loop{} 0 0", "/srv/x is kept in /nfs/docker/other.img"),
    Case("tmpfs /srv/x tmpfs x-systemd.requires-mounts-for=/var/lib/docker/x{} 0 0", "waits for /var/lib/docker/x"),
    Case("tmpfs /srv/x tmpfs x-systemd.requires=/var/lib/docker{} 0 0", "waits for /var/lib/docker"),
    Case("tmpfs /srv/x tmpfs x-systemd.requires=docker.service{} 0 0", "waits for docker.service"),
    Case("tmpfs /srv/x tmpfs x-systemd.after=var-lib-docker.mount{} 0 0", "waits for var-lib-docker.mount"),
    Case("/var/lib/docker/x /srv/x none bind,nofail 0 0\ntmpfs /srv/x/y tmpfs size=1M{} 0 0", "line 2 of"),
    Case("/var/lib/docker/swapfile none swap sw{} 0 0", "", "var-lib-docker-swapfile.swap"),
    Case("/var/lib/docker/swapfile none swap sw,nofail,_netdev 0 0", "", "var-lib-docker-swapfile.swap"),
    Case("/dev/sda1 /var/lib/docker/volumes ext4 x-systemd.automount 0 2", "", "var-lib-docker-volumes.automount"),
    Case("/dev/sda1 /var/lib/docker/v ext4 noauto,x-systemd.automount 0 2", "", "var-lib-docker-v.automount"),
    Case("/var/lib/docker/x /srv/x none bind,x-systemd.automount 0 0", ""),
    Case("/dev/sda1 /var/lib/docker/volumes ext4 nofail 0 2", ""),
    Case("/dev/sda1 /var/lib/docker/volumes ext4 _netdev 0 2", ""),
    Case("/dev/sda1 /var/lib/docker/volumes ext4 noauto 0 2", ""),
    Case("nas:/x /var/lib/docker/nfs nfs defaults 0 0", ""),
    Case("/dev/sda1 /var/lib/dockers ext4 defaults 0 2", ""),
    Case("/dev/sda1 /var/lib ext4 defaults 0 2", ""),
]


@pytest.mark.parametrize("case", CASES, ids=[case.line.splitlines()[-1].split(" 0 ")[0] for case in CASES])
def test_no_line_makes_a_cycle_that_is_not_named(
    case: Case, systemd: Systemd, installed: Installed, tmp_path: Path
) -> None:
    fstab = case.line.format("") + "\n"
    said, found = boot(systemd, installed, tmp_path / "1", fstab)
    assert ("cycle" in found) == bool(case.says), found
    assert case.says in said and bool(said) == bool(case.says)
    if not case.says:
        assert found == ""
        assert [name for name in drop_ins(tmp_path / "1/units") if case.drop_in] == (
            [case.drop_in] * bool(case.drop_in)
        )
        return
    # What is advised helps, and then nothing is said any more.
    assert said.rstrip().endswith(f"add {ADDED} to its options")
    assert boot(systemd, installed, tmp_path / "2", case.line.format(f",{ADDED}") + "\n") == ("", "")


@pytest.mark.parametrize("case", [case for case in CASES if case.drop_in], ids=lambda case: case.drop_in)
def test_without_our_drop_in_there_is_a_cycle(
    case: Case, systemd: Systemd, installed: Installed, tmp_path: Path
) -> None:
    """Else the drop-in would be for nothing. From 257 on it has no swap wait for swap.target that is on a mount."""
    found = boot(systemd, installed, tmp_path, case.line.format("") + "\n", without=case.drop_in)[1]
    is_new = "VERSION_CODENAME=bookworm" not in systemd.root.path("/etc/os-release").read_text()
    assert ("cycle" in found) == (not (is_new and case.drop_in.endswith(".swap")))


def boot(systemd: Systemd, installed: Installed, folder: Path, fstab: str, without: str = "") -> tuple[str, str]:
    """What we say of an fstab, and what systemd says of the boot with our units and those of the fstab."""
    root = make_pi(folder / "root", "", {"etc/fstab": fstab})
    done = installed.run(installed.rpinfs, "units", "--output", folder / "units", root=root)
    assert done.returncode == 0
    if without:
        (folder / f"units/{without}.d/50-rpinfs-mounts.conf").unlink()
    ours = systemd.put(folder / "units", "/ours")
    theirs = systemd.fstab_units(fstab, "/theirs")
    return done.stderr, systemd.verify(f"{ours}:{theirs}", "multi-user.target")


def drop_ins(units: Path) -> list[str]:
    return [
        name.partition(".d/")[0] for name in listing(units) if name.split(".d/")[0].endswith((".swap", ".automount"))
    ]
