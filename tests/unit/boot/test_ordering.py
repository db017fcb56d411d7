"""Which lines of fstab depend on mounts of ours; what systemd makes of them is tried in tests/oracle."""

from __future__ import annotations

import pytest

from rpinfs.boot.ordering import order, parse
from rpinfs.boot.units import unescape_octal

OURS = {"/var/lib/docker", "/nfs/docker", "/srv/a b"}
UNITS = {"docker.service", "var-lib-docker.mount"}


def decide(fstab: str) -> tuple[list[tuple[str, str]], list[str]]:
    return order(parse(fstab.split("\n"), unescape_octal), OURS, UNITS)


@pytest.mark.parametrize(
    ("fstab", "lines"),
    [
        ("", []),
        ("# /dev/sda1 /var/lib/docker/v ext4 defaults 0 0", []),
        ("/dev/sda1 /var/lib/docker/v ext4", [1]),
        ("/dev/sda1 /var/lib/docker/v/ ext4 defaults", [1]),
        ("/dev/sda1 /srv/a\\040b/c ext4 defaults", [1]),
        ("/dev/sda1 /var/lib/docker ext4 defaults", []),
        ("/dev/sda1 /var/lib/docker-x ext4 defaults", []),
        ("/dev/loop0 /srv/x ext4 defaults", []),
        # What waits for a mount that comes before the network, or for swap, waits for none of ours.
        ("/dev/sda1 /srv/x ext4 defaults\n/srv/x/y /srv/z none bind\n/dev/sdb1 /srv/x/w ext4 defaults", []),
        ("/dev/sda1 /srv/x ext4 defaults\n/srv/x/swap none swap sw,_netdev\n/dev/sdb1 /none/x ext4 defaults", []),
        ("/nfs/docker/swap /srv/w swap sw\n/dev/sdb1 /srv/w/x ext4 defaults", []),
        ("tmpfs /srv/x tmpfs x-systemd.requires=/var/lib/docker/", [1]),
        ("tmpfs /srv/x tmpfs x-systemd.wants=/var/lib/docker,x-systemd.before=docker.service", []),
        ("/srv/x /srv/y none bind\n/var/lib/docker/x /srv/x none bind", [1, 2]),
        ("/srv/x /srv/y none bind\n/var/lib/docker/x /srv/x none bind,nofail", [1]),
        ("nas:/x /mnt/x nfs defaults\n/mnt/x/y.img /srv/y ext4 loop", [2]),
        ("//nas/x /mnt/x cifs defaults\n/mnt/x/y.img /srv/y ext4 loop,noauto", []),
        ("nas:/x /mnt/x fuse.sshfs defaults\n/dev/sda1 /mnt/x/y ext4 defaults", [2]),
    ],
)
def test_lines_that_make_a_cycle(fstab: str, lines: list[int]) -> None:
    assert [int(text.split(" ")[1]) for text in decide(fstab)[1]] == lines


def test_what_a_drop_in_can_set_right() -> None:
    fstab = (
        "/nfs/docker/swap\\040file none swap sw\n/dev/sda2 none swap sw\n"
        "tmpfs /var/lib/docker/x tmpfs x-systemd.automount\n"
    )
    assert decide(fstab) == ([("/nfs/docker/swap file", "swap"), ("/var/lib/docker/x", "automount")], [])
