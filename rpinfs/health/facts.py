"""What is known of this machine at one moment, and the questions by which it is found out.

Status answers whatever the NAS does. So the main process reads only what the kernel answers from memory (/proc, /sys,
/run), once; whatever can wait for the NAS, for a name server or for Docker is asked in children under one deadline
(probe.py). A question without an answer is a fact as well.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from rpinfs.boot import gate, storage
from rpinfs.boot.config import Config, Image, examine
from rpinfs.boot.escape import mount_unit
from rpinfs.boot.host import Host, read_text
from rpinfs.boot.storage import Loop, Mount
from rpinfs.boot.units import AGENT, GATE
from rpinfs.errors import ConfigError, RpinfsError
from rpinfs.image import superblock
from rpinfs.image.superblock import Superblock
from rpinfs.lease.lease import Owner, owner_of
from rpinfs.system import deadline, network, systemd
from rpinfs.system.files import open_regular
from rpinfs.system.network import Link, Route
from rpinfs.system.systemd import UnitState

if TYPE_CHECKING:
    from rpinfs.system.nic import Manager

T = TypeVar("T")

BUDGET_SECONDS = 1.5
"""From the start of the process to the deadline of all questions; drawing fits into what is left of two seconds."""

LEAST_SECONDS = 0.5
"""What the questions get even when Python itself came up late from a cold root."""

HIDDEN_SECONDS = 6.0
"""For a walk through what lies under mount points; in less than `rpinfs check` gives all its questions."""

THOROUGH = frozenset({"hidden", "overlay"})
"""Kinds of questions that take long or write to the image: only `rpinfs check` asks them, `rpinfs status` never."""

NOBODY = Owner("")
"""Stands for the owner of an image that has none."""

DOCKER_SOCKET = "/run/docker.sock"
_DOCKER_PID = "/run/docker.pid"
_DAEMON_JSON = "/etc/docker/daemon.json"
_CONTAINERD_TOML = "/etc/containerd/config.toml"
_CONTAINERD_ROOT = "/var/lib/containerd"
_WORKING_FILES_SHOWN = 1000


# What is known


@dataclass(frozen=True)
class Space:
    """Room in a file system: bytes, and inodes (0 of 0 where it has no fixed number). `seconds`: time of the answer."""

    size: int
    available: int
    inodes: int
    inodes_free: int
    seconds: float

    @property
    def used_percent(self) -> float:
        """How full it is for whoever is not root's reserve."""
        return 100.0 * (self.size - self.available) / self.size if self.size else 0.0


@dataclass(frozen=True)
class File:
    """Length of a file, and what it takes where it is stored; bytes."""

    size: int
    allocated: int


@dataclass(frozen=True)
class Files:
    """Image files of the share's top folder, by name; `complete` is false where there are too many to look at."""

    files: dict[str, File]
    complete: bool


@dataclass(frozen=True)
class Docker:
    """What Docker says of itself (GET /info of its API). `userns`: whether it maps user ids (userns-remap)."""

    version: str
    driver: str
    root: str
    containers: int
    running: int
    images: int
    userns: bool = False


@dataclass(frozen=True)
class DockerConfig:
    """What the configuration files say. `userns_remap`: as in daemon.json, empty where it is not there."""

    userns_remap: str
    containerd_root: str


@dataclass(frozen=True)
class Machine:
    """Memory in bytes; `agent_memory` is what the agent has of it, None where it does not run."""

    memory: int
    memory_available: int
    agent_memory: int | None


@dataclass(frozen=True)
class Nas:
    """The server: the address that it has now, and how many seconds a connection to its NFS port took."""

    address: str
    seconds: float


class NotAskedError(RpinfsError):
    """The question makes no sense here and now; the message says why."""


@dataclass
class Facts:
    """Everything that is known of this machine at one moment.

    Attributes:
        now: seconds of CLOCK_BOOTTIME.
        clock: seconds of the wall clock since 1970.
        agent: what the agent has published last (gate.STATE_FILE).
        answers: to each question its answer, or the exception that came instead.
        live: whether this is the running system, and not a tree below RPINFS_ROOT.
    """

    host: Host
    config: Config
    errors: list[ConfigError]
    mounts: list[Mount]
    agent: dict[str, Any]
    now: float
    clock: float
    answers: dict[str, object] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether systemd, Docker and the network that can be asked are those of the tree that was read."""
        return not self.host.root

    def answer(self, question: str, kind: type[T]) -> T:
        """The answer to a question.

        Raises:
            RpinfsError, OSError: what came instead of one; NotAskedError where nobody asked.
        """
        found = self.answers.get(question, NotAskedError("not asked"))
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, kind), f"{question}: {found!r}"
        return found

    def known(self, question: str, kind: type[T]) -> T | None:
        """The answer to a question, or None."""
        try:
            return self.answer(question, kind)
        except (RpinfsError, OSError):
            return None

    def mount(self, where: str) -> Mount | None:
        """What is mounted on top at a place."""
        return storage.mount_at(self.mounts, where)

    def mount_of(self, path: str) -> Mount | None:
        """The mount that a file lies on, by its path alone: a look at the file could wait for the NAS."""
        above = [mount for mount in self.mounts if path.startswith(mount.where.rstrip("/") + "/")]
        # Of several at one place the last one is on top.
        return max(reversed(above), key=lambda mount: len(mount.where), default=None)

    @property
    def share(self) -> Mount | None:
        """The share, if it is an NFS mount."""
        mount = self.mount(self.config.share.where) if self.config.in_use else None
        return mount if mount and mount.is_nfs else None

    @property
    def mount_points(self) -> list[str]:
        """Everything that the configuration has mounted: share, boot files, images and what is kept in them."""
        config = self.config
        boot = [config.boot.where] if config.boot else []
        return [config.share.where, *boot, *(where for image in config.images for where in (image.where, *image.bind))]

    def image_mount(self, image: Image) -> Mount | None:
        """What is mounted where an image belongs."""
        return self.mount(image.where)

    def loop(self, image: Image) -> Loop | None:
        """The loop device that is mounted where an image belongs, or else the one that has its file."""
        mount = self.image_mount(image)
        mounted = storage.loop_of(mount, self.host.root) if mount else None
        return mounted or next(iter(storage.loops_on(image.path, self.host.root)), None)

    def agent_on_image(self, image: Image) -> dict[str, Any]:
        """What the agent says of an image."""
        found = self.agent.get("images", {}).get(image.name, {})
        return found if isinstance(found, dict) else {}

    def agent_on_share(self) -> dict[str, Any]:
        """What the agent says of the share."""
        found = self.agent.get("share", {})
        return found if isinstance(found, dict) else {}

    def unit(self, name: str) -> UnitState:
        """State of a unit. Raises RpinfsError where systemd gave no answer."""
        states: dict[str, UnitState] = self.answer("systemd", dict)
        return states[name]

    @property
    def server_address(self) -> str:
        """The NAS as a number where a mount or the configuration has it, else its name."""
        for mount in (self.share, self.mount(self.config.boot.where) if self.config.boot else None):
            for option in mount.super_options if mount else []:
                if option.startswith("addr="):
                    return option.removeprefix("addr=")
        return self.config.server.address


# Asking


def facts_of(host: Host) -> Facts:
    """Everything that is known without asking anybody who could be slow."""
    config, errors = examine(host)
    return Facts(
        host=host,
        config=config,
        errors=errors,
        mounts=storage.parse_mountinfo(host.mountinfo),
        agent=gate.agent_state(host.root),
        now=time.clock_gettime(time.CLOCK_BOOTTIME),
        clock=time.time(),
    )


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
    fields = read_text("/proc/self/stat").rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK") if len(fields) > 19 else 0.0
    elapsed = time.clock_gettime(time.CLOCK_BOOTTIME) - started if started else 0.0
    # The time that Python's own start took on the processor: this machine is slow, whatever the NAS does, and so are
    # the children. A Pi 3 or newer gets nothing from it, an emulated one some seconds.
    slow = 3 * time.process_time() - BUDGET_SECONDS
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
    questions["docker-config"] = lambda: _ask_docker_config(root)
    if facts.live:
        names = _units_of_interest(facts)
        address = facts.server_address
        agent_pid = facts.agent.get("pid")
        questions["hidden"] = lambda: _ask_hidden(facts)
        for image in filter(facts.image_mount, config.images):
            questions[f"overlay:{image.name}"] = lambda image=image: _ask_overlay(facts, image)  # type: ignore[misc]
        questions["systemd"] = lambda: systemd.unit_states(names)
        questions["docker"] = _ask_docker
        questions["machine"] = lambda: _ask_machine(agent_pid if isinstance(agent_pid, int) else None)
        if address:
            questions["route"] = lambda: _ask_route(address)
            questions["nas"] = lambda: _ask_nas(address)
            questions["nic"] = lambda: ask_nic(facts)
    return questions


def _units_of_interest(facts: Facts) -> list[str]:
    waiting = [unit for image in facts.config.images for unit in image.before]
    return [AGENT, GATE, "docker.service", "containerd.service", *map(mount_unit, facts.mount_points), *waiting]


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
    found = os.stat(path)
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
        raise RpinfsError(f"{address} {path}: expected an answer, found {status or 'nothing'}", "journalctl -u docker")
    return body


def _ask_docker_config(root: str) -> DockerConfig:
    import tomllib

    daemon = _read_config(root + _DAEMON_JSON, json.loads)
    containerd = _read_config(root + _CONTAINERD_TOML, tomllib.loads)
    return DockerConfig(
        userns_remap=str(daemon.get("userns-remap") or ""),
        containerd_root=str(containerd.get("root") or _CONTAINERD_ROOT),
    )


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
    try:
        import psutil
    except ImportError as error:
        raise RpinfsError(f"the machine cannot be asked: {error}", "apt install python3-psutil") from error
    memory = psutil.virtual_memory()
    agent_memory = None
    if agent_pid is not None and psutil.pid_exists(agent_pid):
        agent_memory = psutil.Process(agent_pid).memory_info().rss
    return Machine(memory.total, memory.available, agent_memory)


def _ask_route(address: str) -> Route:
    # pyroute2 takes longer to load than all the others together, and there is a substitute (network.route_in_table).
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


# What follows from them


def ext4_errors(facts: Facts, image: Image) -> int | None:
    """Number of errors that ext4 has recorded in a mounted image; None where it is not mounted, or is not ext4."""
    mount, loop = facts.image_mount(image), facts.loop(image)
    if mount is None or loop is None:
        return None
    return storage.ext4_errors(loop.name, facts.host.root)


def route(facts: Facts) -> Route | None:
    """The way to the NAS: as the kernel said it, else as its plain table of IPv4 routes does."""
    found = facts.known("route", Route)
    if found:
        return found
    address = facts.server_address
    if not network.is_number(address) or ":" in address:
        return None
    return network.route_in_table(read_text(f"{facts.host.root}/proc/net/route"), address)


def link_to_nas(facts: Facts) -> Link | None:
    """The interface of the way to the NAS."""
    way = route(facts)
    return network.link(way.interface, facts.host.root) if way else None
