"""Docker and its storage under a real systemd: what the gate refuses, and what the agent does when a mount goes away.

guarded.py is what happens, step by step; here stands what must have come of each step.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.package import chroot, container
from tests.package.guarded import RESULT, SHARE, STEPS
from tests.support import CMDLINE

INSIDE = "/srv/guarded.py"
DRIVE = "drive.service"
# A container is none, and has no kernel command line of its own.
WORLD = {"SYSTEMD_VIRTUALIZATION": "none", "SYSTEMD_PROC_CMDLINE": CMDLINE}
GENERATOR = "/etc/systemd/system-generators/rpinfs-generator"
DOCKERD, CONTAINERD = "/usr/sbin/dockerd", "/usr/bin/containerd"
"""Programs of these names that sleep: of any other the gate could not tell where they will write."""

DOCKERD_SLEEPS, CONTAINERD_SLEEPS = (f"[Service]\nExecStart={path}\n" for path in (DOCKERD, CONTAINERD))


def in_world(program: str) -> str:
    environment = "".join(f'Environment="{name}={value}"\n' for name, value in WORLD.items())
    return f"[Service]\nExecStart=\nExecStart=/usr/bin/python3 -ISB {INSIDE} {program}\n{environment}"


UNITS = {
    "rpinfs-agent.service.d/test.conf": in_world("agent"),
    "rpinfs-gate.service.d/test.conf": in_world("gate"),
    "nfs-docker.mount": f"[Mount]\nWhat=/srv/share\nWhere={SHARE}\nType=none\nOptions=bind\n",
    # Without udev nobody announces a device.
    "dev-.device.d/test.conf": "[Unit]\nJobRunningTimeoutSec=1s\n",
    "docker.service": (
        "[Unit]\nRequires=docker.socket\nAfter=docker.socket containerd.service\nWants=containerd.service\n"
        f"{DOCKERD_SLEEPS}[Install]\nWantedBy=multi-user.target\n"
    ),
    "docker.socket": "[Socket]\nListenStream=/run/docker.sock\n",
    "containerd.service": CONTAINERD_SLEEPS,
    "podman.service": "[Service]\nExecStart=/bin/sleep infinity\n",
    "asked-for.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    DRIVE: (
        "[Unit]\nFailureAction=exit-force\n"
        # Not stopped by the shutdown that it asks for itself before all others are.
        f"[Service]\nType=exec\nRemainAfterExit=yes\nExecStart=/usr/bin/python3 {INSIDE} drive\n"
    ),
}


class Seen(NamedTuple):
    steps: dict[str, dict[str, Any]]
    journal: list[str]
    """Of the agent, from boot to shutdown."""


def put_sleepers(root: container.Root) -> None:
    """Put in what stands in for Docker and containerd."""
    for path in (DOCKERD, CONTAINERD):
        root.path(path).write_text("#!/bin/sh\nexec sleep infinity\n")
        root.path(path).chmod(0o755)


def see(release: str, deb: Path, driver: str = "guarded", steps: list[Callable[[], Any]] = STEPS) -> Seen:
    """Boot a container of a release with the package in it, and have it go through all steps of a driver."""
    with chroot.chroot(release) as root:
        root.put(deb, "/tmp/rpinfs.deb")
        root.run("dpkg", "-i", "/tmp/rpinfs.deb")
        furnish(root, f"docker-{release}-{os.getpid()}.img", driver)
        return seen(root, container.boot(root, DRIVE), steps)


def furnish(root: container.Root, image: str, driver: str = "guarded") -> None:
    """Put a driver into a root with the package, with a world around it in which the share is a folder."""
    for path in ("guarded.py", "remedied.py", f"{driver}.py", "../remedies.py"):
        shutil.copy(Path(__file__).parent / path, root.path("/srv"))
    container.put_units(
        root, {name: text.replace(f"{INSIDE} drive", f"/srv/{driver}.py drive") for name, text in UNITS.items()}
    )
    for folder in ("/srv/share", "/var/log/journal", str(Path(GENERATOR).parent), "/etc/rpinfs"):
        root.path(folder).mkdir(parents=True, exist_ok=True)
    environment = " ".join(f"'{name}={value}'" for name, value in WORLD.items())
    root.path(GENERATOR).write_text(f'#!/bin/sh\nexec env {environment} {GENERATOR.replace("/etc", "/usr/lib")} "$@"\n')
    root.path(GENERATOR).chmod(0o755)
    put_sleepers(root)
    # What people type meets the same world.
    typed = root.path("/usr/local/bin/rpinfs")
    typed.write_text(f'#!/bin/sh\nexec env {environment} /usr/bin/python3 -ISB {INSIDE} "$@"\n')
    typed.chmod(0o755)
    # All containers of a machine see the same loop devices, and know them by the name of the file.
    root.path("/etc/rpinfs/rpinfs.conf").write_text(
        f"[Boot]\nExport=\n[Image docker]\nFile={image}\nSize=64M\n"
        "Before=docker.service containerd.service podman.service\n"
    )


def seen(root: container.Root, console: str, steps: list[Callable[[], Any]] = STEPS) -> Seen:
    """What has come of all steps, once the world has ended by itself."""
    result = root.path(str(RESULT))
    results = json.loads(result.read_text()) if result.exists() else {}
    said = journal(root.path("/var/log/journal"))
    assert list(results) == [step.__name__ for step in steps], console + "\n".join(said)
    return Seen(results, journal(root.path("/var/log/journal"), "--unit=rpinfs-agent.service"))


def journal(folder: Path, *words: str) -> list[str]:
    done = subprocess.run(
        ["journalctl", "--no-pager", "--output=cat", f"--directory={folder}", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def runs(state: dict[str, Any]) -> bool:
    return (state["docker"], state["containerd"], state["mounted"], state["kept"]) == ("active", "active", True, True)


def docker_starts_on_the_image(seen: Seen) -> None:
    assert not seen.steps["first_start"]["failed"] and runs(seen.steps["first_start"])


def the_window_on_systemd(seen: Seen) -> None:
    """rpinfs.system.systemd, over the private socket."""
    step = seen.steps["window_on_systemd"]
    before, started, stopped, mount = (step[name] for name in ("before", "started", "stopped", "mount"))
    assert step["missing"]["load"] == "not-found" and step["system"] == "running"
    assert (before["load"], before["active"], before["has_run"]) == ("loaded", "inactive", False)
    assert (before["enabled"], before["left_active"], before["became_inactive"]) == ("static", None, None)
    assert (started["active"], started["sub"], started["result"]) == ("active", "exited", "success")
    assert (stopped["active"], stopped["job"]) == ("inactive", "")
    assert (mount["active"], mount["sub"], mount["enabled"]) == ("active", "mounted", "generated")


LOST = (
    "unmounted_lazily", "mounted_over", "mounted_over_a_folder_above", "agent_killed_while_it_is_lost",
    "lost_while_the_agent_is_dead",
)  # fmt: skip


def docker_stops_with_its_storage_and_comes_back_with_it(seen: Seen) -> None:
    for name in LOST:
        step = seen.steps[name]
        assert runs(step["before"]) and runs(step), name
        assert step["docker_pid"] != step["before"]["docker_pid"], name


COVERED = {
    "mounted_over": "tmpfs (tmpfs) was mounted over /var/lib/docker",
    "mounted_over_a_folder_above": "something was mounted over a folder above /var/lib/docker",
}


def what_took_its_place_is_said_and_the_gate_stands(seen: Seen) -> None:
    for name, message in COVERED.items():
        step = seen.steps[name]
        assert step["refused"] and step["agent"]["state"] == "lost", name
        assert step["agent"]["message"] == f"{message}; until it is back, docker.service containerd.service stopped"


def what_systemd_unmounts_is_let_be(seen: Seen) -> None:
    step = seen.steps["stopped_mount"]
    assert step["after"]["agent"]["state"] == "unmounted"
    assert (step["after"]["docker"], step["after"]["mounted"]) == ("inactive", False)
    assert not step["failed"] and runs(step)


def what_a_person_does_with_an_unmounted_image_stays(seen: Seen) -> None:
    """It is not attached, and nothing of the agent's has it open or locked; its mount unit has it prepared anew."""
    step = seen.steps["worked_on_the_file"]
    assert step["alone"] == {"link": False, "verified": False}
    assert not step["failed"] and step["mounted_alone"] and step["kept_files"]
    assert (step["label"], step["by_hand"]) == ("by-hand", True)
    assert not step["docker_failed"] and runs(step)


def a_person_who_stopped_docker_and_unmounts_is_left_alone(seen: Seen) -> None:
    step = seen.steps["unmounted_with_docker_down"]
    assert "until it is back" not in step["after"]["agent"]["message"]
    # Starting it again needs device units, and so udev, which a container has not: the lab tries that.
    assert (step["after"]["docker"], step["after"]["mounted"], step["after"]["kept"]) == ("inactive", False, False)


REFUSED = {
    "another_file_system": "/var/lib/docker is not the file system that rpinfs-agent.service has verified",
    "data_root_elsewhere": "docker-data (/etc/docker/daemon.json:1) is on no verified image: it is on / (",
    "data_root_by_a_drop_in": "/srv/docker (--data-root in /run/systemd/system/docker.service.d/data.conf:3) is on no",
    "no_room_for_an_overlay": "/var/lib/docker/.rpinfs/overlay-trial: expected a folder that rpinfs made",
    "restarted_while_running": "[Image docker] Sise=1G: unknown key",
    # Python says it, at length.
    "half_unpacked": None,
    "generator_crashed": "image docker is not mounted at /var/lib/docker",
}


def the_gate_refuses_by_hand_and_by_socket(seen: Seen) -> None:
    """A client of Docker's socket gets an error and does not hang; Docker starts as soon as all is right again."""
    for name, sentence in REFUSED.items():
        step = seen.steps[name]
        assert (step["by_hand"], step["containerd_by_hand"]) == (True, True), name
        assert step["by_socket"].startswith("refused: "), (name, step["by_socket"])
        assert sentence is None or any(sentence in line for line in step["said"]), (name, step["said"])
        assert (step["down"]["docker"], step["down"]["containerd"]) == ("inactive", "inactive"), name
        assert not step["failed"] and runs(step) and step["socket"] == "active", name


def a_wrong_configuration_holds_back_what_else_waits_for_the_image(seen: Seen) -> None:
    step = seen.steps["restarted_while_running"]
    assert step["restart"] and step["podman"]


def remains_of_a_killed_trial_are_cleared_away(seen: Seen) -> None:
    step = seen.steps["a_trial_was_killed"]
    assert not step["failed"] and runs(step) and step["in_image"] == ["var-lib-containerd"]


def a_damaged_image_is_refused(seen: Seen) -> None:
    step = seen.steps["damaged"]
    assert step["refused"] and step["docker"] == "inactive"
    assert step["said"][0] == "rpinfs: image docker at /var/lib/docker is read-only; journalctl -k says why"


def a_shutdown_is_no_loss(seen: Seen) -> None:
    """Docker was stopped for each loss; nothing more, up to the power-off at the end."""
    losses = [line for line in seen.journal if "until it is back" in line]
    assert len(losses) == len(LOST), seen.journal


CHECKS: list[Callable[[Seen], None]] = [
    docker_starts_on_the_image,
    the_window_on_systemd,
    docker_stops_with_its_storage_and_comes_back_with_it,
    what_took_its_place_is_said_and_the_gate_stands,
    what_systemd_unmounts_is_let_be,
    what_a_person_does_with_an_unmounted_image_stays,
    a_person_who_stopped_docker_and_unmounts_is_left_alone,
    the_gate_refuses_by_hand_and_by_socket,
    a_wrong_configuration_holds_back_what_else_waits_for_the_image,
    remains_of_a_killed_trial_are_cleared_away,
    a_damaged_image_is_refused,
    a_shutdown_is_no_loss,
]


@pytest.mark.root
@pytest.mark.long
def test_docker_and_its_storage(deb: Path, release: str, subtests: pytest.Subtests) -> None:
    """One boot for all: that is what takes the time."""
    if release == "bookworm" and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("systemd 252 cannot keep order in a container's control groups on a host with cgroups v1")
    seen = see(release, deb)
    for check in CHECKS:
        with subtests.test(check.__name__):
            check(seen)
