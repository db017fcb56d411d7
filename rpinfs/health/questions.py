"""The questions by which it is found out what cannot be read from the kernel's memory, each asked in a child.

Whatever can wait for the NAS, for a name server or for Docker is asked under one deadline (system/deadline.py), and the
answers go into the facts (facts.py).
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable

from rpinfs.boot import gate
from rpinfs.boot.config import Config, Image
from rpinfs.boot.host import read_text
from rpinfs.boot.units import AGENT, GATE, NOTIFY, mount_unit
from rpinfs.errors import RpinfsError
from rpinfs.health.facts import (
    NOBODY,
    Docker,
    DockerConfig,
    Facts,
    File,
    Files,
    Machine,
    Nas,
    NotAskedError,
    Space,
)
from rpinfs.image import superblock
from rpinfs.image.superblock import Superblock
from rpinfs.lease.lease import owner_of
from rpinfs.system import deadline, network, systemd
from rpinfs.system.files import open_regular
from rpinfs.system.network import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rpinfs.boot.daemons import Told
    from rpinfs.boot.host import Host
    from rpinfs.system.nic import Manager

BUDGET_SECONDS = 1.5
"""From the start of the process to the deadline of all questions; drawing fits into what is left of two seconds."""

_USUAL_START_SECONDS, _FOR_EACH_MORE, _MOST_SECONDS = 0.3, 8, 6.0
"""A start that takes the processor longer than this is that of a slow machine: what each second more gives, at most."""

LEAST_SECONDS = 0.5
"""What the questions get even when Python itself came up late from a cold root."""

HIDDEN_SECONDS = 6.0
"""For a walk through what lies under mount points; in less than `rpinfs check` gives all its questions."""

THOROUGH = frozenset({"hidden", "overlay"})
"""Kinds of questions that take long or write to the image: only `rpinfs check` asks them, `rpinfs status` never."""

DOCKER_SOCKET = "/run/docker.sock"
_DOCKER_PID = "/run/docker.pid"
_DAEMON_JSON = "/etc/docker/daemon.json"
_CONTAINERD_TOML = "/etc/containerd/config.toml"
_CONTAINERD_ROOT = "/var/lib/containerd"
_WORKING_FILES_SHOWN = 1000


def ask(facts: Facts, seconds: float, wanted: Iterable[str] | None = None) -> None:
    """Ask the questions that may never be answered, all at once, and put the answers into the facts.

    Args:
        seconds: for all of them together.
        wanted: kinds of questions, that is what stands before the colon in the keys of _questions(); None for all but
            the THOROUGH ones.
    """
    questions = _questions(facts)
    kinds = {kind_of(name) for name in questions} - THOROUGH if wanted is None else set(wanted)
    asked = {name: question for name, question in questions.items() if kind_of(name) in kinds}
    facts.answers.update(deadline.gather(asked, seconds))


def kind_of(question: str) -> str:
    """The kind of a question: `image:docker` is of the kind `image`."""
    return question.partition(":")[0]


def seconds_left() -> float:
    """What is left of the budget for questions, counted from the start of this process."""
    elapsed = deadline.seconds_of_life()
    # The time that Python's own start took on the processor: this machine is slow, whatever the NAS does, and so are
    # the children. A Pi 3 or newer gets little from it, an emulated one some seconds: its own start takes 0.8 s and
    # more, and systemd and Docker, asked all at once right after a boot, have taken longer than 1.1 s.
    slow = min(_MOST_SECONDS, _FOR_EACH_MORE * (time.process_time() - _USUAL_START_SECONDS))
    return round(max(LEAST_SECONDS, BUDGET_SECONDS - elapsed, slow), 1)


def _questions(facts: Facts) -> dict[str, Callable[[], object]]:
    questions: dict[str, Callable[[], object]] = {}
    config, root = facts.config, facts.host.root
    if facts.share:
        questions["share"] = lambda: _ask_space(root + config.share.where)
        questions["files"] = lambda: _ask_files(root + config.share.where)
    for image in config.images:
        questions[f"gate:{image.name}"] = lambda image=image: ask_gate(facts, image)  # type: ignore[misc]
        if facts.share:
            questions[f"image:{image.name}"] = lambda path=root + image.path: _ask_file(path)  # type: ignore[misc]
            questions[f"owner:{image.name}"] = lambda path=root + image.path: owner_of(path) or NOBODY  # type: ignore[misc]
        if facts.image_mount(image):
            questions[f"space:{image.name}"] = lambda path=root + image.where: _ask_space(path)  # type: ignore[misc]
        elif facts.share:
            questions[f"superblock:{image.name}"] = lambda path=root + image.path: _ask_superblock(path)  # type: ignore[misc]
    questions["placed"] = lambda: _ask_placed(facts)
    questions["docker-config"] = lambda: _ask_docker_config(root)
    if facts.live:
        names = _units_of_interest(facts)
        address = facts.server_address
        agent_pid = facts.agent.get("pid")
        questions["hidden"] = lambda: _ask_hidden(facts)
        for image in filter(facts.image_mount, config.images):
            questions[f"overlay:{image.name}"] = lambda image=image: _ask_overlay(facts, image)  # type: ignore[misc]
        questions["systemd"] = lambda: systemd.unit_states(names)
        # What is mounted has not failed, and systemd need not be asked a second time.
        if missing := [mount_unit(where) for where in facts.mount_points if not facts.mount(where)]:
            questions["failed"] = lambda: systemd.why_failed(missing)
        questions["docker"] = _ask_docker
        questions["machine"] = lambda: _ask_machine(agent_pid if isinstance(agent_pid, int) else None)
        if address:
            questions["route"] = lambda: _ask_route(address)
            questions["nas"] = lambda: _ask_nas(address)
            questions["nic"] = lambda: ask_nic(facts)
    return questions


def _units_of_interest(facts: Facts) -> list[str]:
    waiting = [unit for image in facts.config.images for unit in image.before]
    told = [NOTIFY] if facts.config.notify else []
    mounts = map(mount_unit, facts.mount_points)
    return [AGENT, GATE, "docker.service", "containerd.service", *mounts, *waiting, *told]


def _ask_space(path: str) -> Space:
    asked = time.monotonic()
    # On NFS this always goes to the server: nothing is cached.
    found = os.statvfs(path)
    return Space(
        size=found.f_blocks * found.f_frsize,
        available=found.f_bavail * found.f_frsize,
        inodes=found.f_files,
        inodes_free=found.f_ffree,
        seconds=time.monotonic() - asked,
    )


def _ask_file(path: str) -> File:
    # A link on the share leads wherever whoever made it likes.
    found = os.lstat(path)
    return File(found.st_size, found.st_blocks * 512)


def _ask_files(folder: str) -> Files:
    files: dict[str, File] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(files) >= _WORKING_FILES_SHOWN:
                return Files(files, complete=False)
            if entry.is_file(follow_symlinks=False):
                found = entry.stat(follow_symlinks=False)
                files[entry.name] = File(found.st_size, found.st_blocks * 512)
    return Files(files, complete=True)


def _ask_docker() -> Docker:
    """Ask Docker over its socket: `docker info` says the same, but first loads 40 MB of program from the root.

    Only where dockerd runs: a connection to the socket would start it (docker.socket).
    """
    pid = read_text(_DOCKER_PID).strip()
    if not pid.isdigit() or read_text(f"/proc/{pid}/comm").strip() != "dockerd":
        raise NotAskedError("Docker does not run")
    info = json.loads(_get(DOCKER_SOCKET, "/info"))
    return Docker(
        version=str(info.get("ServerVersion") or ""),
        driver=str(info.get("Driver") or ""),
        root=str(info.get("DockerRootDir") or ""),
        containers=int(info.get("Containers") or 0),
        running=int(info.get("ContainersRunning") or 0),
        images=int(info.get("Images") or 0),
        userns="name=userns" in (info.get("SecurityOptions") or []),
    )


def _get(address: str, path: str) -> bytes:
    """Fetch something over HTTP from a Unix socket. Raises RpinfsError, OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(address)
        # Version 1.0: the answer ends with the connection, and comes in one piece.
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        with connection.makefile("rb") as stream:
            answer = stream.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0].decode("ascii", "replace")
    if status.split(" ")[1:2] != ["200"]:
        raise RpinfsError(
            f"{address} {path}: expected an answer, found {status or 'nothing'}", "journalctl -u docker -n 20"
        )
    return body


def _ask_docker_config(root: str) -> DockerConfig:
    daemon = _read_config(root + _DAEMON_JSON, json.loads)
    containerd = _read_config(root + _CONTAINERD_TOML, _toml)
    return DockerConfig(
        userns_remap=str(daemon.get("userns-remap") or ""),
        containerd_root=str(containerd.get("root") or _CONTAINERD_ROOT),
    )


def _toml(text: str) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(text)


def _read_config(path: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """A configuration file; empty where there is none. Raises OSError, RpinfsError."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    try:
        found = parse(text) if text.strip() else {}
    except ValueError as error:
        raise RpinfsError(f"{path}: {error}", f"correct {path}") from error
    return found if isinstance(found, dict) else {}


def _ask_superblock(path: str) -> Superblock | None:
    """What an image that is not mounted says of itself; None where it is no ext4."""
    with open_regular(path, os.O_RDONLY) as file:
        data = os.pread(file, 1024, 1024)
    return superblock.parse_ext4(data) if len(data) == 1024 else None


def ask_gate(facts: Facts, image: Image) -> list[RpinfsError]:
    """What the gate would say of one image now; it may read the image's superblock."""
    config = facts.config
    return gate.verdict(Config(True, "", config.server, config.boot, config.share, [image], []), facts.host)


def _ask_placed(facts: Facts) -> list[RpinfsError]:
    """What the gate would say of where Docker and containerd will write; it says so only where all mounts are right."""
    if gate.verdict(facts.config, facts.host):
        raise NotAskedError("what is mounted is not right")
    return gate.misplaced(facts.config, facts.host, _roots)


def _roots(host: Host) -> list[Told]:
    # Only where something may have moved Docker's folders is it asked.
    from rpinfs.docker import roots

    return roots.read(host)


def _ask_overlay(facts: Facts, image: Image) -> list[RpinfsError]:
    """What a trial overlay has shown to be wrong, as a list: an error that is raised means that nothing was shown."""
    from rpinfs.boot.overlay import try_overlay

    if ask_gate(facts, image):
        raise NotAskedError(f"what is mounted at {image.where} is not image {image.name}: it is not written to")
    try:
        try_overlay(image.where)
    except RpinfsError as error:
        return [error]
    return []


def _ask_hidden(facts: Facts) -> object:
    # Imported here, in a child: ctypes costs `rpinfs status` nothing.
    from rpinfs.system import hidden

    return hidden.find(facts.mount_points, facts.mounts, HIDDEN_SECONDS)


def _ask_machine(agent_pid: int | None) -> Machine:
    memory = _memory(read_text("/proc/meminfo"))
    resident = read_text(f"/proc/{agent_pid}/statm").split()[1:2] if agent_pid is not None else []
    return Machine(*memory, int(resident[0]) * os.sysconf("SC_PAGE_SIZE") if resident else None)


def _memory(told: str) -> tuple[int, int]:
    """All memory and what is available, in bytes. Raises RpinfsError: the kernel does not say, nor does psutil."""
    lines = (line.split() for line in told.splitlines())
    found = {words[0]: int(words[1]) * 1024 for words in lines if len(words) == 3 and words[1].isdigit()}
    total, available = found.get("MemTotal:", 0), found.get("MemAvailable:", 0)
    if 0 < available <= total:
        return total, available
    # A kernel that does not say it so plainly, as in some containers: psutil knows how to estimate it. It opens 50
    # files of the root to say what stands in one of the kernel's.
    try:
        import psutil
    except ImportError as error:
        raise RpinfsError(f"the machine cannot be asked: {error}", "apt install python3-psutil") from error
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _ask_route(address: str) -> Route:
    # pyroute2, where it is needed, takes longer to load than all the others together, and there is a substitute
    # (network.route_in_table).
    os.nice(10)
    return network.route_to(network.resolve(address))


def ask_nic(facts: Facts) -> tuple[str, list[Manager]]:
    """The interface on the way to the NAS and who manages it: read from files, which lie on the root."""
    from rpinfs.system import nic

    address = network.resolve(facts.server_address)
    table = read_text(f"{facts.host.root}/proc/net/route")
    way = network.route_to(address) if ":" in address else network.route_in_table(table, address)
    if way is None:
        raise RpinfsError(f"no route to {address}", "ip route; ip link")
    return way.interface, nic.managers(way.interface, facts.host.root)


_KNOCKS = 3


def _ask_nas(address: str) -> Nas:
    number = network.resolve(address)
    # The best of some: on a busy Pi, one of them may be waiting for the processor and not for the NAS.
    return Nas(number, min(network.knock(number, seconds=30.0) for _ in range(_KNOCKS)))
