"""Space on the NAS: what containers have removed is given back over NFS 4.2, and where it cannot be, we say why."""

from __future__ import annotations

import pytest

from .container import IMAGE
from .lab import Lab
from .test_storage import give_container_image, image_of

pytestmark = [pytest.mark.lab, pytest.mark.root]

MIB = 1 << 20
WRITTEN = 64 * MIB
CONFIG = "[Server]\nAddress={address}\nVersion={version}\n[Boot]\nExport=\n"
STOP = (
    "systemctl stop docker.socket docker.service containerd.service var-lib-docker.mount rpinfs-agent.service "
    "nfs-docker.mount"
)
START = "systemctl daemon-reload && systemctl start rpinfs-agent.service docker.service"
WANTED_BY = "systemctl show --value --property WantedBy rpinfs-trim.timer"


@pytest.mark.long
def test_trim(lab: Lab) -> None:
    """On the kernel's NFS server with 4.2, then on the userspace server with 4.1."""
    nas = lab.kernel_nas()
    pi = lab.pi("space")
    image = image_of(lab, pi)
    give_container_image(pi)
    pi.write("/etc/rpinfs/rpinfs.conf", CONFIG.format(address=nas.address, version="4.2"))
    nas.start()
    assert pi.boot() == "running"
    print(f"up {pi.seconds_since_power_on():.0f} s after power-on")
    assert pi.run("systemctl is-active rpinfs-trim.timer") == "active"
    assert pi.run(WANTED_BY) == "timers.target"
    pi.run(f"docker import /root/busybox.tar {IMAGE}")

    def write_and_remove() -> None:
        write = f"dd if=/dev/urandom of=/layer bs=1M count={WRITTEN // MIB} && sync"
        pi.run(f"docker run --rm {IMAGE} sh -c '{write}'; sync", timeout=600)

    write_and_remove()
    before = nas.space(image.name).allocated
    assert before > WRITTEN
    said = pi.run("rpinfs trim docker", timeout=600)
    after = nas.space(image.name).allocated
    print(f"{before // MIB} MiB before, {after // MIB} MiB after; {said}")
    assert before - after > 0.9 * WRITTEN
    assert f"{image.name} takes" in said
    assert pi.run(f"docker run --rm {IMAGE} echo as it was") == "as it was"

    # What the timer starts, in its sandbox.
    write_and_remove()
    before = nas.space(image.name).allocated
    pi.run("systemctl start rpinfs-trim.service", timeout=600)
    assert before - nas.space(image.name).allocated > 0.9 * WRITTEN
    assert "given back" in pi.run("journalctl --unit rpinfs-trim.service --output cat")

    pi.run(STOP, timeout=300)
    pi.write("/etc/rpinfs/rpinfs.conf", CONFIG.format(address=lab.nas.address, version="4.1"))
    # On this share there is none of that name: that is what somebody wants for once.
    pi.run("systemctl daemon-reload && systemctl start nfs-docker.mount && rpinfs release docker")
    pi.run(START, timeout=300)
    assert pi.run(WANTED_BY) == ""
    refused = pi.try_run("rpinfs trim docker")
    assert refused.status == 1
    assert "mounted with NFS 4.1, and only NFS 4.2 can free blocks" in refused.stderr
    assert "Version=4.2 in [Server]" in refused.stderr
    assert pi.try_run("rpinfs trim --where-possible").status == 0
    pi.power_off()
    nas.stop()
