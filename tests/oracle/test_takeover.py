"""What import-fstab says of the lines that stay: systemd is asked whether the advice helps, and what is without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle.systemd import Systemd
from tests.support import Installed, make_pi

pytestmark = pytest.mark.root

RECIPE = """\
nas.local:/docker /nfs/docker nfs defaults,vers=4.1 0 0
/nfs/docker/loop /var/lib/docker ext4 loop 0 2
"""
# A line as people have it, and with the options that the remark names.
STAYING = {
    "below the image": ("/dev/sda1 /var/lib/docker/volumes ext4 {} 0 2", "noatime", "noatime,nofail,_netdev"),
    "bound from the image": ("/var/lib/docker/ctd /var/lib/containerd none {} 0 0", "bind", "bind,nofail,_netdev"),
}
SWAP = "/var/lib/docker/swap none swap {} 0 0"


@pytest.fixture
def boot(systemd: Systemd, installed: Installed, tmp_path: Path) -> Boot:
    return Boot(systemd, installed, tmp_path)


class Boot:
    """What systemd says of a boot with our units for the recipe, and another line in fstab."""

    def __init__(self, systemd: Systemd, installed: Installed, folder: Path) -> None:
        self._systemd = systemd
        self._installed = installed
        self._folder = folder

    def imported(self, line: str) -> str:
        fstab = self._folder / "fstab"
        fstab.write_text(f"{RECIPE}{line}\n")
        done = self._installed.run(self._installed.rpinfs, "config", "import-fstab", fstab)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def with_line(self, line: str) -> str:
        root = make_pi(self._folder / "root", self.imported(line), {"etc/fstab": f"{line}\n"})
        units = self._folder / "units"
        done = self._installed.run(self._installed.rpinfs, "units", "--output", units, root=root)
        assert done.returncode == 0
        ours = self._systemd.put(units, "/ours")
        theirs = self._systemd.fstab_units(f"{line}\n", "/theirs")
        if " swap " in line:
            # The generator of 257 writes none in a container, which a chroot with processes of its own is to it.
            put_swap(self._systemd.root.path(theirs), "wants" if "nofail" in line else "requires")
        return self._systemd.verify(f"{ours}:{theirs}", "multi-user.target")


def put_swap(folder: Path, needed: str) -> None:
    """What the generator of 252 writes for the line."""
    unit = "var-lib-docker-swap.swap"
    link = folder / f"swap.target.{needed}" / unit
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(f"../{unit}")
    (folder / unit).write_text("[Swap]\nWhat=/var/lib/docker/swap\n")


@pytest.mark.parametrize("name", STAYING)
def test_the_options_that_are_advised_help(boot: Boot, name: str) -> None:
    line, before, _ = STAYING[name]
    text = " ".join(boot.imported(line.format(before)).replace("#", "").split())
    assert "nofail,_netdev" in text
    assert "ordering cycle" in boot.with_line(line.format(before))


@pytest.mark.parametrize("name", STAYING)
def test_with_them_there_is_no_cycle(boot: Boot, name: str) -> None:
    line, _, advised = STAYING[name]
    assert boot.with_line(line.format(advised)) == ""


@pytest.mark.parametrize("options", ["sw", "nofail,_netdev"])
def test_swap_is_seen_to(boot: Boot, options: str) -> None:
    line = SWAP.format(options)
    assert "rpinfs sees to its order" in " ".join(boot.imported(line).replace("#", "").split())
    assert boot.with_line(line) == ""


def test_of_two_lines_for_one_place_systemd_takes_the_first(systemd: Systemd) -> None:
    with pytest.raises(AssertionError, match="Duplicate entry"):
        systemd.fstab_units("/a /var/lib/docker ext4 loop\n/b /var/lib/docker ext4 loop\n", "/twice")
    assert "What=/a\n" in systemd.root.path("/twice/var-lib-docker.mount").read_text()
