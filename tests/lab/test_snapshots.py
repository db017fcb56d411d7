"""A snapshot over NFS 4.2 while a container writes: the NAS does the copying; and back again."""

from __future__ import annotations

import pytest

from tests.support import Tell

from .container import without_network
from .lab import Lab
from .records import Recorder, boot_writing, count_records
from .test_storage import MOUNTS, assert_storage_is_up
from .traffic import traffic

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.long]

CONFIG = "[Server]\nAddress={address}\nVersion=4.2\n[Boot]\nExport=\n"
STOP = "systemctl stop docker.socket docker containerd var-lib-docker.mount rpinfs-agent"
START = "systemctl start rpinfs-agent docker"


@pytest.mark.parametrize(("filesystem", "by"), [("ext4", "COPY"), ("xfs", "CLONE")])
def test_the_nas_copies(lab: Lab, tell: Tell, filesystem: str, by: str) -> None:
    nas = lab.kernel_nas(filesystem)
    pi = lab.pi("snapshot")
    without_network(pi)
    pi.write("/etc/rpinfs/rpinfs.conf", CONFIG.format(address=nas.address))
    nas.start()
    with Recorder(lab.nas, lab.folder) as recorder:
        boot_writing(pi, recorder)
        recorder.wait_beyond(10)
        before, asked = recorder.acknowledged, traffic(pi)
        taken = pi.run("rpinfs snapshot docker").splitlines()[-1]
        made = traffic(pi).since(asked).requests
        assert made[by] > 0, made
        assert made["READ"] < 100, made
        assert taken in pi.run("rpinfs snapshot --list --json")
        # It is thawed, and the container goes on.
        recorder.wait_beyond(recorder.acknowledged)
        after = recorder.acknowledged

        pi.run(STOP)
        said = pi.run(f"rpinfs restore docker {taken.rpartition('/')[2]}")
        kept = next(word for word in said.split() if ".snapshot-" in word).rstrip(";")
        assert kept in nas.run("ls /srv/docker")
        pi.run(START)
        # The writer has gone on meanwhile, from the record where the snapshot had it.
        there = count_records(pi, before)
    assert_storage_is_up(pi, MOUNTS[1:])
    # It stays until a person deletes it.
    assert f"{kept} (replaced by restore of " in pi.run("rpinfs snapshot --list docker")
    pi.run(f"rpinfs snapshot docker --delete {kept}")
    assert kept not in nas.run("ls /srv/docker")
    assert taken.rpartition("/")[2] in nas.run("ls /srv/docker")
    tell(
        f"snapshot over NFS 4.2 by {made[by]} {by}, {made['READ']} READ, a container writing: {before} records before "
        f"it, {after} after it, {there} soon after it was restored; lost 0"
    )
    pi.power_off()
    nas.stop()
