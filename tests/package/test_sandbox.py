"""The shipped units under a real systemd.

The sandbox of the agent leaves it what it needs, and nothing that happens to the agent or to the package disturbs a
running container.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.package import chroot, container
from tests.package.sandboxed import IMAGE, LINK, MOUNT, RESULT

INSIDE = "/srv/sandboxed.py"
# How many modules have byte code when the agent is about to start.
STARTS = "/srv/starts"
COUNT = f'find /usr/share/rpinfs -name "*.pyc" | wc -l >>{STARTS}'

UNITS = {
    "rpinfs-agent.service.d/test.conf": (
        f"[Service]\nExecStart=\nExecStart=/usr/bin/python3 {INSIDE} agent\nExecStartPre=/bin/sh -c '{COUNT}'\n"
    ),
    # As the generator writes it, for an image on a share that is a plain folder.
    "var-lib-docker.mount": (
        "[Unit]\nWants=rpinfs-agent.service\nAfter=rpinfs-agent.service\n"
        f"ConditionPathExists={LINK}\n[Mount]\nWhat={LINK}\nWhere={MOUNT}\nType=ext4\nOptions=_netdev,nofail\n"
    ),
    "docker.service": "[Service]\nExecStart=/bin/sleep infinity\n",
    "docker.service.d/50-rpinfs-mounts.conf": "[Unit]\nBindsTo=var-lib-docker.mount\nAfter=var-lib-docker.mount\n",
    "asked-for.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    "drive.service": (
        "[Unit]\nSuccessAction=exit-force\nFailureAction=exit-force\n"
        f"[Service]\nType=exec\nExecStart=/usr/bin/python3 {INSIDE} drive\n"
    ),
}


@pytest.mark.root
def test_containers_outlive_the_agent_and_the_package(deb: Path, release: str) -> None:
    with chroot.chroot(release) as root:
        root.put(deb, "/tmp/rpinfs.deb")
        root.run("dpkg", "-i", "/tmp/rpinfs.deb")
        # /tmp is cleaned at boot, or a tmpfs.
        root.put(deb, "/srv/rpinfs.deb")
        root.put(Path(__file__).with_name("sandboxed.py"), INSIDE)
        container.put_units(root, UNITS)
        blank = root.path(IMAGE)
        blank.parent.mkdir(parents=True)
        blank.touch()
        root.run("chown", "1000:1000", IMAGE)
        console = container.boot(root, "drive.service")
        result = root.path(str(RESULT))
        assert result.exists(), console
        seen = json.loads(result.read_text())
        starts = [int(count) for count in root.path(STARTS).read_text().split()]

    steps = ("start", "kill", "thaw", "upgrade", "remove")
    for step in steps:
        what = f"{step}: {json.dumps(seen.get(step), indent=1)}"
        assert seen[step]["docker"] == "active", what
        assert seen[step]["docker_pid"] == seen["start"]["docker_pid"], what
        assert seen[step]["mounted"], what
        assert seen[step]["backing_file"] == IMAGE, what
        assert seen[step]["same_mounts"], what
        assert not seen[step]["frozen"], what
    assert f"{MOUNT} was frozen for a snapshot that died; it is thawed" in seen["thaw"]["journal"]
    assert [seen[step]["agent"] for step in steps] == [*["active"] * 4, "inactive"], seen
    assert seen["thaw"]["agent_pid"] == seen["kill"]["agent_pid"], seen
    assert len({seen[step]["agent_pid"] for step in steps}) == len(steps) - 1, seen
    # Installed, killed, upgraded: an agent without byte code would compile all of it, at every start.
    assert len(starts) == 3 and len(set(starts)) == 1 and starts[0] > 50, starts
    # systemd answered over its private socket.
    assert seen["start"]["asked_for"] == "active"
    # Nobody holds a copy of the mount: when it goes, the loop device goes.
    assert (seen["stop"]["mounted"], seen["stop"]["backing_file"]) == (False, "")
