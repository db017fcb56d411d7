"""What is known of this machine at one moment, and what follows from it.

Status answers whatever the NAS does. So the main process reads only what the kernel answers from memory (/proc, /sys,
/run), once; everything else is asked, see questions.py. A question without an answer is a fact as well.
"""

from __future__ import annotations

import time

from rpinfs.boot import gate, storage
from rpinfs.boot.config import Config, Image, examine
from rpinfs.boot.host import Host, read_text
from rpinfs.boot.storage import Loop, Mount
from rpinfs.boot.values import dataclass, field
from rpinfs.errors import ConfigError, RpinfsError
from rpinfs.lease.lease import Owner
from rpinfs.system import network
from rpinfs.system.network import Link, Route
from rpinfs.system.systemd import UnitState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

NOBODY = Owner("")
"""Stands for the owner of an image that has none."""


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
        answers: to each question (questions.py) its answer, or the exception that came instead.
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
