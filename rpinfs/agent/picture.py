"""What is known: one immutable picture of share, mounts, images and systemd, made here and nowhere else.

Nothing here touches the share: the mount table, sysfs and /run answer whatever the NAS does. What the worker, the
pulse and systemd have said comes in as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from rpinfs.boot import gate, storage
from rpinfs.boot.config import Config, Image
from rpinfs.boot.host import near, read_text
from rpinfs.boot.units import RUNTIME_FOLDER, link_of
from rpinfs.boot.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.system.systemd import UnitState

# --- What came back from what was done -----------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """An image is attached, verified under its lease."""

    loop: str
    how: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Something did not come to pass.

    Attributes:
        by_other: another Pi has the image.
        again: seconds after which it is tried again; None where only a person can change anything.
    """

    message: str
    remedy: str = ""
    by_other: bool = False
    again: float | None = None


@dataclass(frozen=True)
class Held:
    """The device of an earlier agent is open."""

    loop: str
    how: str = ""


@dataclass(frozen=True)
class Leased:
    """The lease is held."""


@dataclass(frozen=True)
class LetGo:
    """The device was closed; whether it really is detached."""

    detached: bool


@dataclass(frozen=True)
class Answer:
    """What systemd says: the state of the system, and of the units that were asked for.

    Attributes:
        wanted: those of them that a unit which runs, or is to run, pulls in.
        refused: when those of them that were refused were so for the last time, in seconds of CLOCK_MONOTONIC; None
            where nothing tells.
        said: of mounts that have failed, what the journal says of why.
    """

    system: str
    units: Mapping[str, UnitState]
    wanted: frozenset[str] = frozenset()
    refused: Mapping[str, float] | None = None
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """What was done at once did not succeed: systemd does not answer, /run is full."""

    message: str


Result = Ready | Refusal | Held | Leased | LetGo | Answer | Failed

# --- What is so ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShareFacts:
    """The share as it is. Times in seconds, sizes in bytes.

    Attributes:
        mount: number of the mount that is there; None where nothing is mounted.
        device: of that mount.
        found: "SOURCE (KIND)" of what is there and is not the share; empty where it is.
        asked: when this mount was asked the question that it has not answered yet.
        error: what it answered to the last one, when that was an error.
        boot_missing: whether the mount of the boot files is wanted and not there.
    """

    mount: int | None = None
    device: tuple[int, int] | None = None
    found: str = ""
    asked: float | None = None
    error: str = ""
    size: int | None = None
    free: int | None = None
    answer: float | None = None
    boot_missing: bool = False


@dataclass(frozen=True)
class ImageFacts:
    """An image as it is.

    Attributes:
        device: name of the loop device that is mounted at its mount point; empty where none is.
        over: "SOURCE (KIND)" of whatever is mounted there.
        hidden: whether something is mounted there, and a path does not lead to it.
        binds: whether the folders that Bind= keeps in it are all in their places.
        free: those of its mount points where nothing is mounted.
        errors: how many ext4 has recorded.
        in_use: whether the kernel has the file system of the held device in use, wherever it is mounted.
        proven: name of the device that an earlier agent has published and that still has what it verified.
        frozen: whether a snapshot holds it still.
        requested: whether somebody waits for it: rpinfs-attach@NAME.service.
        result: of what was done last.
        progress: what the worker says of what it does.
        lock_lost: what the NAS said when the lease was renewed, where it is lost by that.
        lock_taken: who has it, where another Pi has.
    """

    device: str = ""
    over: str = ""
    hidden: bool = False
    binds: bool = False
    free: tuple[str, ...] = ()
    errors: int = 0
    in_use: bool = False
    proven: str = ""
    frozen: bool = False
    requested: bool = False
    result: Result | None = None
    progress: str = ""
    lock_lost: str = ""
    lock_taken: Refusal | None = None

    def is_in_place(self, loop: str) -> bool:
        """Whether the paths of an image lead to it."""
        return bool(loop) and self.device == loop and self.binds


@dataclass(frozen=True)
class Picture:
    """Everything that is decided from.

    Attributes:
        now: seconds since the boot.
        ready_at: when systemd was told that the boot can go on; None before.
        worker: name of the image that the worker is at; empty where it is free.
        abandoned: names of images that a dead snapshot has left frozen.
    """

    now: float
    ready_at: float | None = None
    share: ShareFacts = field(default_factory=ShareFacts)
    images: Mapping[str, ImageFacts] = field(default_factory=dict)
    worker: str = ""
    abandoned: tuple[str, ...] = ()


# --- Looking -----------------------------------------------------------------------------------------------------


def mount_table() -> list[storage.Mount]:
    """What is mounted now."""
    return storage.parse_mountinfo(read_text("/proc/self/mountinfo"))


def share_facts(config: Config, mounts: list[storage.Mount], by_fstab: Mapping[str, int]) -> ShareFacts:
    """Tell the NFS share from the empty folder below it, and from somebody else's mount."""
    where = config.share.where
    boot = config.boot
    missing = boot is not None and storage.mount_at(mounts, boot.where) is None
    mount = storage.mount_at(mounts, where)
    if mount is None:
        return ShareFacts(boot_missing=missing)
    expected = f"{config.server.source}:{config.share.export}"
    is_share = mount.is_nfs and (where in by_fstab or mount.is_from(expected))
    found = "" if is_share else f"{mount.source} ({mount.kind})"
    return ShareFacts(mount.number, mount.device, found, boot_missing=missing)


def image_facts(image: Image, loop: str, mounts: list[storage.Mount], by_fstab: Mapping[str, int]) -> ImageFacts:
    """Look at the mounts of an image, by their devices: a file can be renamed while it is attached.

    Args:
        loop: name of the device that is held for it; empty where none is.
    """
    outer = storage.mount_at(mounts, image.where)
    binds = [(bind, storage.mount_at(mounts, bind)) for bind in image.bind if bind not in by_fstab]
    kept = outer is not None and all(mount is not None and gate.is_kept(mount, bind, outer) for bind, mount in binds)
    return ImageFacts(
        device=_loop_name(outer),
        over=f"{outer.source} ({outer.kind})" if outer else "",
        hidden=outer is None and any(mount.where == image.where for mount in mounts),
        binds=kept,
        free=tuple(where for where in (image.where, *image.bind) if storage.mount_at(mounts, where) is None),
        errors=(storage.ext4_errors(loop) or 0) if loop else 0,
        in_use=is_in_use(loop, mounts),
        proven="" if loop else proven_loop(image, mounts),
    )


def is_in_use(loop: str, mounts: list[storage.Mount]) -> bool:
    """Whether a loop device is mounted here, or its file system was unmounted lazily and lives on."""
    return bool(loop) and (any(_loop_name(mount) == loop for mount in mounts) or storage.has_file_system(loop))


def published_loop(image: Image) -> str:
    """Name of the device that the link to an image leads to; empty where there is none."""
    try:
        name = os.path.basename(os.readlink(near(link_of(image))))
    except OSError:
        return ""
    return name if name[:4] == "loop" and name[4:].isdigit() else ""


def proven_loop(image: Image, mounts: list[storage.Mount]) -> str:
    """Name of the device that an earlier agent has published for an image, if it is that image's still.

    The link alone proves nothing: the device of an agent that was killed may be anybody's by now.
    """
    loop = published_loop(image)
    if not is_in_use(loop, mounts):
        return ""
    verified = gate.Verified.read(image)
    same = verified.sequence == storage.sequence(loop) and storage.superblock_uuid(f"/dev/{loop}") == verified.uuid
    return loop if verified.uuid and same else ""


def _loop_name(mount: storage.Mount | None) -> str:
    return f"loop{mount.device[1]}" if mount is not None and mount.device[0] == storage.LOOP_MAJOR else ""


def is_frozen(image: Image) -> bool:
    """Whether a snapshot has left its marker: it is at work, or has died."""
    return os.path.exists(near(f"{RUNTIME_FOLDER}/{image.name}.frozen"))
