"""Checks of what runs: the agent, the gate, Docker and containerd."""

from __future__ import annotations

from rpinfs.boot.settings import human_size
from rpinfs.boot.units import AGENT, GATE
from rpinfs.docker.placement import image_of
from rpinfs.errors import RpinfsError
from rpinfs.health.checks.base import Check, Finding, critical, ok, warning
from rpinfs.health.facts import Docker, DockerConfig, Facts, Machine

GOOD_DRIVERS = ("overlay2", "overlayfs")
BAD_DRIVERS = ("vfs", "native", "fuse-overlayfs")


def _agent_running(facts: Facts) -> Finding:
    state = facts.unit(AGENT)
    if state.active == "active":
        memory = facts.known("machine", Machine)
        uses = f", with {human_size(memory.agent_memory)} of memory" if memory and memory.agent_memory else ""
        return ok(f"{AGENT} runs{uses}")
    if state.active in ("activating", "reloading"):
        return warning(f"{AGENT} is starting", "wait for it: rpinfs status --watch")
    return critical(f"{AGENT} is {state.active} ({state.result or state.load})")


def _gate_passed(facts: Facts) -> Finding | None:
    state, docker = facts.unit(GATE), facts.unit("docker.service")
    if state.load != "loaded":
        return critical(f"{GATE} is {state.load}: nothing holds Docker back", "apt install --reinstall rpinfs")
    if state.active == "failed" or state.result not in ("", "success"):
        return critical(f"the gate has refused the last start of Docker ({state.result})")
    if state.has_run:
        return ok("the gate let the last start of Docker pass")
    if docker.active == "active":
        return warning("Docker runs, but has not passed the gate", "systemctl restart {before}")
    return None


def _docker_running(facts: Facts) -> Finding | None:
    if not any("docker.service" in image.before for image in facts.config.images):
        return None
    state = facts.unit("docker.service")
    if state.active == "active":
        docker = facts.known("docker", Docker)
        return ok(f"Docker {docker.version} runs" if docker else "Docker runs")
    if state.load == "not-found":
        return warning("Docker is not installed", "apt install docker.io")
    if state.active in ("activating", "reloading") or state.job == "start":
        return warning("Docker is starting", "wait for it: rpinfs status --watch")
    if state.active == "inactive" and state.enabled == "disabled":
        return warning("Docker does not run, and is not enabled", "systemctl enable --now docker")
    return critical(f"Docker does not run: docker.service is {state.active} ({state.result or state.load})")


def _docker_driver(facts: Facts) -> Finding:
    driver = facts.answer("docker", Docker).driver
    if driver in GOOD_DRIVERS:
        return ok(f"Docker stores with {driver}")
    if driver in BAD_DRIVERS:
        return critical(f"Docker stores with {driver}, which is slow and wastes space; expected overlay2 or overlayfs")
    return warning(f"Docker stores with {driver or 'an unknown driver'}; expected overlay2 or overlayfs")


def _docker_root(facts: Facts) -> Finding:
    root = facts.answer("docker", Docker).root
    image = image_of(root, facts.config.images)
    if image is None:
        return critical(f"Docker keeps its data in {root}, which is on no image")
    return ok(f"Docker keeps its data in {root}, on image {image.name}")


def _docker_placed(facts: Facts) -> Finding:
    """The gate's own verdict, as for mount.right."""
    refusals: list[RpinfsError] = facts.answer("placed", list)
    if refusals:
        return critical(refusals[0].message, refusals[0].remedy or "")
    return ok("Docker and containerd will write to verified images")


def _docker_userns(facts: Facts) -> Finding:
    docker, config = facts.answer("docker", Docker), facts.answer("docker-config", DockerConfig)
    if docker.userns == bool(config.userns_remap):
        mapped = f"maps user ids, as userns-remap={config.userns_remap} says" if docker.userns else "maps no user ids"
        return ok(f"Docker {mapped}")
    said = f"says userns-remap={config.userns_remap}" if config.userns_remap else "has no userns-remap"
    return warning(f"Docker maps {'' if docker.userns else 'no '}user ids, but /etc/docker/daemon.json {said}")


def _containerd_root(facts: Facts) -> Finding | None:
    if facts.unit("containerd.service").load == "not-found":
        return None
    if not any("containerd.service" in image.before for image in facts.config.images):
        return None
    root = facts.answer("docker-config", DockerConfig).containerd_root
    image = image_of(root, facts.config.images)
    if image is None:
        return critical(f"containerd keeps its data in {root}, which is on no image")
    return ok(f"containerd keeps its data in {root}, on image {image.name}")


CHECKS = (
    Check(
        "agent.running",
        "the agent runs",
        _agent_running,
        remedy="systemctl restart rpinfs-agent; journalctl -u rpinfs-agent -n 20",
        explanation="""
            Asks systemd for the state of rpinfs-agent.service, and the kernel for the memory that it has. Critical:
            it does not run; containers go on, but nobody watches over their storage. Warning: it is starting.
        """,
        needs=("systemd", "machine"),
        without_config=True,
    ),
    Check(
        "gate.passed",
        "the gate let Docker pass",
        _gate_passed,
        remedy="mend what else is wrong here, then: systemctl start {before}; journalctl -u rpinfs-gate -n 20",
        explanation="""
            Asks systemd how the last run of rpinfs-gate.service ended. Critical: it refused the last start of
            Docker, or it is missing. Warning: Docker runs and the gate never did, as after installing rpinfs on a
            running Pi.
        """,
        needs=("systemd",),
        without_config=True,
    ),
    Check(
        "docker.running",
        "Docker runs",
        _docker_running,
        remedy="mend what else is wrong here, then: systemctl start docker; journalctl -u docker -n 20",
        explanation="""
            Asks systemd for the state of docker.service, where an image waits for it (Before=). Critical: it is
            enabled and does not run. Warning: it is starting, not enabled, or not installed.
        """,
        needs=("systemd", "docker"),
        without_config=True,
    ),
    Check(
        "docker.driver",
        "Docker stores with overlay2 or overlayfs",
        _docker_driver,
        remedy="look for storage-driver in /etc/docker/daemon.json, take it out, then: systemctl restart docker",
        explanation=f"""
            Asks the running Docker over its socket. Critical: one of {", ".join(BAD_DRIVERS)}, which copy whole layers
            or go through a program for every file. Warning: any other that is not one of {", ".join(GOOD_DRIVERS)}.
        """,
        needs=("docker",),
        without_config=True,
    ),
    Check(
        "docker.root",
        "Docker keeps its data on an image",
        _docker_root,
        remedy="make data-root in /etc/docker/daemon.json and Where= of the image agree; then:"
        " systemctl restart docker",
        explanation="""
            Asks the running Docker where its data is. Critical: not below the mount point of an image.
        """,
        needs=("docker",),
    ),
    Check(
        "docker.placed",
        "Docker and containerd will write to verified images",
        _docker_placed,
        remedy="rpinfs docker show",
        explanation="""
            The verdict of the gate on the folders that Docker and containerd are told to write to, by their settings
            wherever these come from, while the mounts are right. Critical: one of them is on no verified image, or
            where it is cannot be told; Docker would not be allowed to start.
        """,
        needs=("placed",),
    ),
    Check(
        "docker.userns",
        "Docker maps user ids as its configuration says",
        _docker_userns,
        remedy="each setting has images and containers of its own, and hides the other's: systemctl restart docker",
        explanation="""
            Compares userns-remap in /etc/docker/daemon.json with what the running Docker says of itself. Warning:
            they differ, so that the next start of Docker will show other images and containers than this one: with
            the mapping, all data is in a folder UID.GID below the data root.
        """,
        needs=("docker", "docker-config"),
        without_config=True,
    ),
    Check(
        "containerd.root",
        "containerd keeps its data on an image",
        _containerd_root,
        remedy="take root= out of /etc/containerd/config.toml, or name that folder in Bind= of the image; then:"
        " systemctl restart containerd docker",
        explanation="""
            Reads root in /etc/containerd/config.toml, by default /var/lib/containerd, where Docker 29 and newer
            keep images. Critical: that is neither below the mount point of an image nor among its Bind= folders, so
            that images end up on the root.
        """,
        needs=("systemd", "docker-config"),
    ),
)
"""Rows of the table."""
