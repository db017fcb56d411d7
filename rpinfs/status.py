"""How things are: `rpinfs status`.

    this machine -> Facts -> (checks.py judges them) -> a document -> JSON, or text for people

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

from rpinfs import __version__, gate, network, probe, storage, systemd
from rpinfs.config import Config, Image, examine
from rpinfs.errors import ConfigError, RpinfsError
from rpinfs.escape import mount_unit
from rpinfs.host import Host, read_text
from rpinfs.lease import Owner, owner_of
from rpinfs.network import Link, Route
from rpinfs.settings import human_size
from rpinfs.storage import Loop, Mount
from rpinfs.systemd import UnitState
from rpinfs.units import AGENT, GATE

if TYPE_CHECKING:
    from rpinfs.checks import Result

T = TypeVar("T")

SCHEMA = 1
"""Version of the JSON. Keys are only ever added within a version."""

BUDGET_SECONDS = 1.5
"""From the start of the process to the deadline of all questions; drawing fits into what is left of two seconds."""

LEAST_SECONDS = 0.5
"""What the questions get even when Python itself came up late from a cold root."""

WATCH_SECONDS = 2.0
"""Between two pictures of `--watch`."""

NOBODY = Owner("")
"""Stands for the owner of an image that has none."""

DOCKER_SOCKET = "/run/docker.sock"
_DOCKER_PID = "/run/docker.pid"
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
    """What Docker says of itself (GET /info of its API)."""

    version: str
    driver: str
    root: str
    containers: int
    running: int
    images: int


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

    @property
    def share(self) -> Mount | None:
        """The share, if it is an NFS mount."""
        mount = self.mount(self.config.share.where) if self.config.in_use else None
        return mount if mount and mount.is_nfs else None

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
        wanted: kinds of questions ("share", "files", "image", "space", "systemd", "docker", "machine", "route", "nas");
            None for all.
    """
    questions = _questions(facts)
    if wanted is not None:
        kinds = set(wanted)
        questions = {name: question for name, question in questions.items() if name.partition(":")[0] in kinds}
    facts.answers.update(probe.gather(questions, seconds))


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
        if facts.share:
            questions[f"image:{image.name}"] = lambda path=root + image.path: _ask_file(path)  # type: ignore[misc]
            questions[f"owner:{image.name}"] = lambda path=root + image.path: owner_of(path) or NOBODY  # type: ignore[misc]
        if facts.image_mount(image):
            questions[f"space:{image.name}"] = lambda path=root + image.where: _ask_space(path)  # type: ignore[misc]
    if facts.live:
        names = _units_of_interest(config)
        address = facts.server_address
        agent_pid = facts.agent.get("pid")
        questions["systemd"] = lambda: systemd.unit_states(names)
        questions["docker"] = _ask_docker
        questions["machine"] = lambda: _ask_machine(agent_pid if isinstance(agent_pid, int) else None)
        if address:
            questions["route"] = lambda: _ask_route(address)
            questions["nas"] = lambda: _ask_nas(address)
    return questions


def _units_of_interest(config: Config) -> list[str]:
    mounts = [config.share.where, *(where for image in config.images for where in (image.where, *image.bind))]
    mounts += [config.boot.where] if config.boot else []
    waiting = [unit for image in config.images for unit in image.before]
    return [AGENT, GATE, "docker.service", "containerd.service", *map(mount_unit, mounts), *waiting]


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


def _ask_machine(agent_pid: int | None) -> Machine:
    import psutil

    memory = psutil.virtual_memory()
    agent_memory = None
    if agent_pid is not None and psutil.pid_exists(agent_pid):
        agent_memory = psutil.Process(agent_pid).memory_info().rss
    return Machine(memory.total, memory.available, agent_memory)


def _ask_route(address: str) -> Route:
    # pyroute2 takes longer to load than all the others together, and there is a substitute (network.route_in_table).
    os.nice(10)
    return network.route_to(network.resolve(address))


def _ask_nas(address: str) -> Nas:
    number = network.resolve(address)
    return Nas(number, network.knock(number, seconds=30.0))


# The document: the JSON, and what the text for people is drawn from


def document(facts: Facts, results: list[Result], worst: Result | None) -> dict[str, Any]:
    """Everything as one JSON object; see rpinfs(8). What is not known is null, sizes are in bytes."""
    config = facts.config
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "version": __version__,
        "in_use": config.in_use,
        "reason": config.reason or None,
        "status": worst.status.word if worst else "ok",
        "exit_status": worst.status.value if worst else 0,
        "host": _host_document(facts),
        "boot": None,
        "share": None,
        "images": [],
        "agent": None,
        "docker": None,
        "network": None,
        "checks": [result.document() for result in results],
    }
    if config.in_use:
        found["boot"] = _boot_document(facts)
        found["share"] = _share_document(facts)
        found["images"] = [_image_document(facts, image) for image in config.images]
        found["agent"] = _agent_document(facts)
        found["docker"] = _docker_document(facts)
        found["network"] = _network_document(facts)
    return found


def _host_document(facts: Facts) -> dict[str, Any]:
    machine = facts.known("machine", Machine)
    return {
        "hostname": facts.host.hostname or None,
        "serial": facts.host.serial or None,
        "mac": facts.host.mac or None,
        "uptime_seconds": round(facts.now, 1) if facts.live else None,
        "memory": machine.memory if machine else None,
        "memory_available": machine.memory_available if machine else None,
    }


def _mount_document(facts: Facts, where: str, expected: str) -> dict[str, Any]:
    mount = facts.mount(where)
    return {
        "expected_source": expected,
        "where": where,
        "mounted": mount is not None,
        "source": mount.source if mount else None,
        "type": mount.kind if mount else None,
        "nfs_version": nfs_version(mount) if mount else None,
        "read_only": not mount.writable if mount else None,
    }


def _boot_document(facts: Facts) -> dict[str, Any] | None:
    boot = facts.config.boot
    return _mount_document(facts, boot.where, f"{facts.config.server.source}:{boot.export}") if boot else None


def _share_document(facts: Facts) -> dict[str, Any]:
    config = facts.config
    space = facts.known("share", Space)
    said = facts.agent_on_share()
    return {
        **_mount_document(facts, config.share.where, f"{config.server.source}:{config.share.export}"),
        "hard": "hard" in facts.share.super_options if facts.share else None,
        "answers": None if facts.share is None or "share" not in facts.answers else space is not None,
        "answer_seconds": round(space.seconds, 4) if space else None,
        # Where the share does not answer now, what it said last to the agent is still of use.
        "size": space.size if space else said.get("size"),
        "available": space.available if space else said.get("free"),
        "state": said.get("state"),
        "state_seconds": _age(facts, said),
        "message": said.get("message") or None,
    }


def _image_document(facts: Facts, image: Image) -> dict[str, Any]:
    mount, loop = facts.image_mount(image), facts.loop(image)
    file, space = facts.known(f"image:{image.name}", File), facts.known(f"space:{image.name}", Space)
    said = facts.agent_on_image(image)
    return {
        "name": image.name,
        "file": image.path,
        "where": image.where,
        "bind": list(image.bind),
        "mounted": mount is not None,
        "source": mount.source if mount else None,
        "filesystem": mount.kind if mount else None,
        "read_only": not mount.writable if mount else None,
        "loop": loop.name if loop else None,
        "direct_io": loop.direct_io if loop else None,
        "block_size": loop.block_size if loop else None,
        "file_size": file.size if file else said.get("size"),
        "file_allocated": file.allocated if file else said.get("allocated"),
        "size": space.size if space else None,
        "available": space.available if space else None,
        "inodes": space.inodes if space else None,
        "inodes_free": space.inodes_free if space else None,
        "errors": ext4_errors(facts, image),
        "state": said.get("state"),
        "state_seconds": _age(facts, said),
        "message": said.get("message") or None,
    }


def _agent_document(facts: Facts) -> dict[str, Any]:
    machine, states = facts.known("machine", Machine), facts.known("systemd", dict)
    state = states[AGENT] if states else None
    return {
        "active": state.active if state else None,
        "pid": facts.agent.get("pid"),
        "memory": machine.agent_memory if machine else None,
    }


def _docker_document(facts: Facts) -> dict[str, Any]:
    docker, states = facts.known("docker", Docker), facts.known("systemd", dict)
    state = states["docker.service"] if states else None
    return {
        "installed": state.load != "not-found" if state else None,
        "active": state.active if state else None,
        "version": docker.version if docker else None,
        "driver": docker.driver if docker else None,
        "root": docker.root if docker else None,
        "containers": docker.containers if docker else None,
        "containers_running": docker.running if docker else None,
        "images": docker.images if docker else None,
    }


def _is_reachable(facts: Facts) -> bool | None:
    """Whether the NFS port takes connections; None where there was no time to know, and the share says otherwise."""
    if facts.known("nas", Nas):
        return True
    silent = isinstance(facts.answers.get("nas"), probe.TimedOut) and facts.known("share", Space) is not None
    return None if silent or "nas" not in facts.answers or not facts.live else False


def _network_document(facts: Facts) -> dict[str, Any]:
    way = route(facts)
    link = link_to_nas(facts)
    nas = facts.known("nas", Nas)
    return {
        "server": facts.config.server.address or None,
        "address": nas.address if nas else way.address if way else None,
        "reachable": _is_reachable(facts),
        "connect_seconds": round(nas.seconds, 4) if nas else None,
        "interface": way.interface if way else None,
        "gateway": (way.gateway or None) if way else None,
        "source": (way.source or None) if way else None,
        "carrier": link.carrier if link else None,
        "speed_mbps": link.speed if link else None,
        "duplex": (link.duplex or None) if link else None,
        "wireless": link.wireless if link else None,
        "mac": link.mac if link else None,
    }


def _age(facts: Facts, said: dict[str, Any]) -> float | None:
    since = said.get("since")
    return round(max(0.0, facts.now - since), 1) if isinstance(since, (int, float)) and facts.live else None


def nfs_version(mount: Mount) -> str | None:
    """The NFS version of a mount, as nfs(5) writes it in the mount table."""
    version = next((option[5:] for option in mount.super_options if option.startswith("vers=")), None)
    return "4.0" if version == "4" else version


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


# Text for people


class Paint:
    """Colours, or none: `on` is for a terminal whose user did not say NO_COLOR."""

    _CODES = {"ok": "32", "warning": "33", "critical": "31", "unknown": "35", "bold": "1", "dim": "2"}

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, style: str, text: str) -> str:
        """Put a text into the colour of a status, or `bold` or `dim`."""
        return f"\x1b[{self._CODES[style]}m{text}\x1b[0m" if self.on and text else text


def render(found: dict[str, Any], paint: Paint) -> str:
    """Draw a document as text."""
    if not found["in_use"]:
        return f"rpinfs is not in use here: {found['reason']}\n"
    parts = [
        [_headline(found, paint)],
        _part("Boot", _boot_lines(found["boot"]), paint),
        _part("Share", _share_lines(found["share"]), paint),
        *(_part("Image", _image_lines(image), paint) for image in found["images"]),
        _part("Docker", _docker_lines(found["docker"]), paint),
        _part("Network", _network_lines(found["network"]), paint),
        ["", *_wrong_lines(found["checks"], paint)],
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def _headline(found: dict[str, Any], paint: Paint) -> str:
    host = found["host"]
    facts = [
        f"rpinfs {found['version']}",
        f"serial {host['serial']}" if host["serial"] else "",
        f"up {duration(host['uptime_seconds'])}" if host["uptime_seconds"] else "",
        f"{human_size(host['memory_available'])} of {human_size(host['memory'])} memory available"
        if host["memory"]
        else "",
    ]
    state = paint(found["status"], found["status"])
    return f"{paint('bold', host['hostname'] or 'this machine')}: {state}  ({_joined(facts)})"


def _part(title: str, lines: list[str], paint: Paint) -> list[str]:
    """A title beside its lines."""
    return [
        f"{paint('bold', f'{title:<8}') if number == 0 else ' ' * 8} {line}"
        for number, line in enumerate(line for line in lines if line)
    ]


def _boot_lines(boot: dict[str, Any] | None) -> list[str]:
    if boot is None:
        return ["none is configured"]
    if not boot["mounted"]:
        return [f"nothing is mounted at {boot['where']} (wanted: {boot['expected_source']})"]
    return [f"{_mounted_from(boot)}, {'read-only' if boot['read_only'] else 'WRITABLE'}"]


def _share_lines(share: dict[str, Any]) -> list[str]:
    if not share["mounted"]:
        return [f"nothing is mounted at {share['where']} (wanted: {share['expected_source']})", share["message"] or ""]
    answers = ""
    if share["answers"]:
        answers = f"answers in {milliseconds(share['answer_seconds'])}"
    elif share["answers"] is False:
        since = share["state_seconds"] if share["state"] == "silent" else None
        answers = "DOES NOT ANSWER" + (f" for {duration(since)}" if since else "")
    hard = {True: ", hard", False: ", NOT HARD", None: ""}[share["hard"]]
    room = f"{human_size(share['available'])} of {human_size(share['size'])} free" if share["size"] else ""
    if room and not share["answers"]:
        room += " when it answered last"
    return [f"{_mounted_from(share)}{hard}", _joined([answers, room])]


def _mounted_from(mount: dict[str, Any]) -> str:
    version = f"NFS {mount['nfs_version']}" if mount["nfs_version"] else mount["type"]
    return f"{mount['source']} on {mount['where']}, {version}"


def _image_lines(image: dict[str, Any]) -> list[str]:
    file = [
        f"{human_size(image['file_size'])} long" if image["file_size"] else "",
        f"takes {human_size(image['file_allocated'])} on the NAS" if image["file_allocated"] is not None else "",
    ]
    if not image["mounted"]:
        return [
            f"{image['name']}: nothing is mounted at {image['where']} (wanted: {image['file']})",
            image["message"] or "",
            _joined(file),
        ]
    full = ""
    if image["size"]:
        used = image["size"] - image["available"]
        full = f"{100 * used / image['size']:.0f} % full ({human_size(used)} of {human_size(image['size'])})"
    return [
        f"{image['name']}: {image['file']} on {image['where']}",
        _joined([image["filesystem"], "READ-ONLY" if image["read_only"] else "", full, *file]),
        _joined(_loop_words(image)),
        f"keeps {' '.join(image['bind'])} too" if image["bind"] else "",
    ]


def _loop_words(image: dict[str, Any]) -> list[str]:
    if image["loop"] is None:
        return [f"not by a loop device, but from {image['source']}"]
    return [
        f"/dev/{image['loop']}",
        "direct I/O" if image["direct_io"] else "buffered (no direct I/O)",
        f"{image['block_size']}-byte blocks",
        f"{image['errors']} ERRORS RECORDED" if image["errors"] else "",
    ]


def _docker_lines(docker: dict[str, Any]) -> list[str]:
    if docker["installed"] is False:
        return ["is not installed"]
    if docker["driver"] is None:
        return [docker["active"] or "not known"]
    return [
        f"{docker['version']}, {docker['driver']}, data in {docker['root']}",
        f"{docker['containers_running']} of {docker['containers']} containers run, {docker['images']} images",
    ]


def _network_lines(found: dict[str, Any]) -> list[str]:
    server = found["server"] or "not known"
    if found["address"] not in (None, found["server"]):
        server += f" ({found['address']})"
    connect = {True: f"reachable in {milliseconds(found['connect_seconds'])}", False: "NOT REACHABLE", None: ""}
    way = [
        f"over {found['interface']}" if found["interface"] else "",
        f"by {found['gateway']}" if found["gateway"] else "",
        f"from {found['source']}" if found["source"] else "",
    ]
    link = [
        "wireless" if found["wireless"] else "",
        f"{found['speed_mbps']} Mb/s" if found["speed_mbps"] else "",
        f"{found['duplex']} duplex" if found["duplex"] else "",
        "NO LINK" if found["interface"] and found["carrier"] is False else "",
    ]
    return [_joined([f"NAS {server}", connect[found["reachable"]]]), _joined([" ".join(filter(None, way)), *link])]


def _wrong_lines(checks: list[dict[str, Any]], paint: Paint) -> list[str]:
    """What is wrong and what to do: the worst first, and what is not known by its reason."""
    wrong = [check for status in ("critical", "warning") for check in checks if check["status"] == status]
    lines = [paint("bold", "What is wrong, and what to do:")] if wrong else []
    for check in wrong:
        lines.append(
            f"  {paint(check['status'], check['status'])}  {check['message']}  {paint('dim', check_name(check))}"
        )
        if check["remedy"]:
            lines.append(f"      {check['remedy']}")
    lines += _unknown_lines([check for check in checks if check["status"] == "unknown"], paint)
    return lines or [paint("ok", f"All {len(checks)} checks are well.")]


def _unknown_lines(checks: list[dict[str, Any]], paint: Paint) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for check in checks:
        reasons.setdefault(check["message"], []).append(check_name(check))
    return [f"  {paint('unknown', 'unknown')}  {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def check_name(check: dict[str, Any]) -> str:
    """Name of a check, with the image that it is about where there is one."""
    return f"{check['name']}({check['image']})" if check["image"] else str(check["name"])


def _joined(parts: Iterable[str | None]) -> str:
    return ", ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """A length of time for people: `3 d 4 h`, `5 min`."""
    minutes = int(seconds) // 60
    if minutes < 2:
        return f"{int(seconds)} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def milliseconds(seconds: float | None) -> str:
    """A short time for people: `3 ms`."""
    milli = 1000.0 * (seconds or 0.0)
    return f"{milli:.0f} ms" if milli >= 1 else "less than 1 ms"
