"""The newest Debian: Linux 7.2, systemd 262, Python 3.14, and Docker 28 with each of its two image stores."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import Tell

from .container import IMAGE, without_network
from .demo import settled_status
from .image import is_clean
from .lab import Lab
from .pi import Pi
from .test_storage import assert_storage_is_up, give_container_image, image_of

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.long, pytest.mark.parametrize("release", ["forky"])]

LAYERS = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"


def shown(pi: Pi) -> dict[str, Any]:
    """What `rpinfs docker show` says, whether anything is wrong or not."""
    found: dict[str, Any] = json.loads(pi.try_run("rpinfs docker show --json").stdout)
    return found


def test_two_boots_with_both_stores(lab: Lab, tell: Tell) -> None:
    pi = lab.pi("stores")
    image = image_of(lab, pi)
    give_container_image(pi)
    without_network(pi)
    assert pi.boot() == "running"
    tell(pi.run("uname -r; systemctl --version | head -1; python3 --version; dockerd --version; containerd --version"))
    assert_storage_is_up(pi)
    pi.run(f"docker import /root/busybox.tar {IMAGE}:old")
    assert pi.run(f"docker run --name old {IMAGE}:old echo of overlay2") == "of overlay2"
    pi.power_off()
    assert is_clean(image)

    of_overlay2 = pi.read("/etc/docker/daemon.json")
    store = {**json.loads(of_overlay2), "features": {"containerd-snapshotter": True}}
    pi.write("/etc/docker/daemon.json", json.dumps(store))
    assert pi.boot() == "running"
    foretold = shown(pi)
    assert (foretold["snapshotter"], foretold["problems"]) == (True, [])
    assert foretold["unseen"] == [{"what": "1 image of the storage driver overlay2", "folder": "/var/lib/docker"}]
    assert pi.run("docker info --format '{{.Driver}}'") == "overlayfs"
    assert pi.run("docker images --quiet; docker ps --all --quiet") == ""
    pi.run(f"docker import /root/busybox.tar {IMAGE}:new")
    assert pi.run(f"docker run --name new {IMAGE}:new echo of containerd") == "of containerd"
    assert int(pi.run(f"ls {LAYERS} | wc -l")) > 0
    device = pi.run("findmnt --noheadings --output SOURCE --mountpoint /var/lib/docker")
    assert pi.run(f"stat --format %Hd:%Ld {LAYERS}") == pi.run(
        f"cat /sys/class/block/{device.removeprefix('/dev/')}/dev"
    )
    settled_status(pi)
    pi.write("/etc/docker/daemon.json", of_overlay2)
    (unseen,) = shown(pi)["unseen"]
    assert unseen["folder"] == "/var/lib/containerd" and unseen["what"].endswith(" of containerd")
    pi.run("systemctl restart docker")
    assert pi.run("docker start --attach old") == "of overlay2"
    pi.power_off()
    assert is_clean(image)


FOLDERS = """\
mkdir -p /nfs/docker/folder
for try in $(seq 20); do
    echo 3 >/proc/sys/vm/drop_caches
    ls -lR /nfs/docker >/dev/null || exit 1
    sleep 2
done
"""


def test_an_old_server_and_its_remedy(lab: Lab) -> None:
    """Linux 6.19 and later fail at folders of nfs-ganesha before 9.11, now and then; the root is on a newer one.

    That the error is named, and this remedy with it, is in unit/system/test_trouble.py.
    """
    pi = lab.pi("remote")
    nas = lab.second_nas(ganesha="bookworm")
    nas.start()
    without_network(pi)
    pi.write("/etc/rpinfs/rpinfs.conf", f"[Server]\nAddress={nas.address}\n[Boot]\nExport=\n")
    pi.boot()
    assert "Remote I/O error" in pi.try_run(FOLDERS, 600.0).stderr
    pi.power_off()

    pi.cmdline = f"{pi.cmdline} nfsv4.directory_delegations=0"
    assert pi.boot() == "running"
    pi.run(FOLDERS, 600.0)
    pi.run("rpinfs check share.answers docker.running")
    pi.power_off()
