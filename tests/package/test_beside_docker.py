"""rpinfs installed on a Pi on which Docker runs already: nothing of ours acts before the next boot.

Under a real systemd; beside.py is what happens, here stands what must have come of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.package import chroot, container
from tests.package.beside import RESULT, STEPS
from tests.package.test_guard import CONTAINERD_SLEEPS, DOCKERD_SLEEPS, GENERATOR, WORLD, in_world, put_sleepers

INSIDE = "/srv/beside.py"
UNITS = {
    "rpinfs-gate.service.d/test.conf": in_world("gate"),
    "docker.service": f"[Unit]\nRequires=docker.socket\nAfter=docker.socket containerd.service\n{DOCKERD_SLEEPS}",
    "docker.socket": "[Socket]\nListenStream=/run/docker.sock\n",
    "containerd.service": CONTAINERD_SLEEPS,
}
DRIVE = "[Unit]\nFailureAction=exit-force\n{unit}[Service]\nType=exec\nExecStart=/usr/bin/python3 {inside} {boot}\n"
RUNNING = ("active", "active")
DOWN = ("inactive", "inactive")


def see(root: chroot.Chroot, boot: str) -> list[dict[str, Any]]:
    """Boot the container, with Docker the first time, and go through the steps."""
    wants = "Wants=docker.service containerd.service\nAfter=docker.service containerd.service\n"
    container.put_units(
        root, {"drive.service": DRIVE.format(unit=wants if boot == "first" else "", inside=INSIDE, boot=boot)}
    )
    console = container.boot(root, "drive.service")
    result = root.path(str(RESULT))
    seen = json.loads(result.read_text()) if result.exists() else []
    assert [step["step"] for step in seen] == [step.__name__ for step in STEPS[boot]], console
    return list(seen)


@pytest.mark.root
def test_nothing_acts_before_the_next_boot(deb: Path, release: str) -> None:
    with chroot.chroot(release) as root:
        root.put(deb, "/srv/rpinfs.deb")
        for name in ("beside.py", "guarded.py"):
            root.put(Path(__file__).with_name(name), f"/srv/{name}")
        container.put_units(root, UNITS)
        put_sleepers(root)
        generator = root.path(GENERATOR)
        generator.parent.mkdir(parents=True, exist_ok=True)
        environment = " ".join(f"'{name}={value}'" for name, value in WORLD.items())
        generator.write_text(f'#!/bin/sh\nexec env {environment} {GENERATOR.replace("/etc", "/usr/lib")} "$@"\n')
        generator.chmod(0o755)
        installed, restarted, upgraded, removed, docker_was_down, _, again = see(root, "first")
        (next_boot,) = see(root, "second")

    for step in (installed, restarted, upgraded, removed):
        assert (step["docker"], step["containerd"], step["agent"]) == (*RUNNING, "inactive"), step
        assert (step["generated"], step["burst"]) == ([], "20"), step
        assert not step.get("failed"), step
    assert [step["mark"] for step in (installed, restarted, upgraded, removed)] == [True, True, True, False]
    assert "Docker runs already, and goes on as it is" in installed["said"]
    # Restarted for real, and not let be.
    assert restarted["docker_pid"] != installed["docker_pid"]

    for step in (docker_was_down, next_boot):
        assert step["failed"] and step["containerd_failed"], step
        assert (step["docker"], step["containerd"], step["mark"]) == (*DOWN, False), step
        assert "docker.socket.d/50-rpinfs-limit.conf" in step["generated"] and step["burst"] == "3", step
    # Removed, it leaves Docker to itself as well.
    assert again["mark"]
