"""A shutdown that would not end by itself: containers that outlive Docker, and a NAS that is gone.

Docker kills a container that does not stop, and ends after some seconds whether that has come to pass or not; its
containers and their shims stay (KillMode=process), and so does the file system that they have mounted in namespaces of
their own. systemd knows nothing of that, and finds them only when all is unmounted: then it waits for them for
DefaultTimeoutStopSec=, a minute and a half.

With the NAS gone, nothing that waits for it can be killed, and nothing unmounted. systemd gives each unit, each mount
and each sync its time, one after the other: more than ten minutes in the lab. So after a minute the requests are
aborted instead. To the image that is a power cut: what was fsynced is there, and the next boot replays the journal.
From Linux 6.5 on a mount can be told to fail whatever is asked of it from then on; before, only what waits can be made
to fail, again and again, until the loop device is detached.

Source: Linux Documentation/admin-guide/cgroup-v2.rst (cgroup.kill, since 5.14); umount2(2), nfs_umount_begin() in
fs/nfs/super.c; shutdown_store() in fs/nfs/sysfs.c.
"""

import contextlib
import glob
import math
import os
import time
from collections.abc import Callable, Collection, Iterable

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.host import near, read_text
from rpinfs.errors import RpinfsError
from rpinfs.system import deadline, syscalls, systemd

CONTAINERS = ("docker-*.scope", "cri-containerd-*.scope", "libpod-*.scope")
"""How the groups of containers are called, wherever they are: by Docker, containerd and podman, all by way of runc."""

GONE_SECONDS = 60.0
"""How long a shutdown waits for a NAS that is gone."""

_LOOK_SECONDS, _ABORT_SECONDS = 5.0, 1.0
_ABORTED_SECONDS = 20.0  # Twice this and GONE_SECONDS are less than what systemd gives the agent to stop.
_ANSWER_SECONDS = 5.0


def give_up_waiting(is_silent: Callable[[], bool], share: str, tell: Callable[[str], None]) -> None:
    """Look out for a shutdown while the NAS behind a mount is silent, and abort the requests when it lasts too long.

    Returns once the NAS answers, and where nothing may be aborted; not at all once it has begun to abort, since that
    looks like an answer.

    Args:
        tell: is told when it begins.
    """
    waited = 0.0
    while waited < GONE_SECONDS:
        if not is_silent():
            return
        time.sleep(_LOOK_SECONDS)
        waited = waited + _LOOK_SECONDS if _is_stopping() else 0.0
    if not _may_abort(share):
        return
    tell(f"after {waited:.0f} s of shutdown, what waits for it is aborted; the next boot replays the journal")
    _abort_while(lambda: True, share)


def end_leftovers(images: Collection[Image], loops: Collection[str], share: str) -> list[str]:
    """At shutdown, end the containers that have outlived Docker and wait until they are gone.

    What is killed and stays waits for the NAS behind the mount of the share: after a while, its requests are aborted.

    Args:
        images: are unmounted, and in use all the same.
        loops: names of their loop devices.

    Returns:
        the names of the control groups that were killed; nothing where it is no shutdown.

    Raises:
        OSError: a group cannot be killed.
    """

    def in_use() -> bool:
        return any(storage.has_file_system(loop) for loop in loops)

    if not _is_stopping():
        return []
    killed = kill([*CONTAINERS, *(unit for image in images for unit in image.before)])
    end = time.monotonic() + GONE_SECONDS
    while in_use() and time.monotonic() < end:
        time.sleep(0.1)
    if in_use() and _may_abort(share) and not _answers(share):
        _abort_while(in_use, share, _ABORTED_SECONDS)
    return killed


def abort_until_detached(loops: Collection[str], share: str) -> None:
    """At shutdown, abort what a file system that is unmounted, and a loop device that was let go, still wait for."""
    if _is_stopping() and _may_abort(share):
        _abort_while(lambda: any(storage.loop_state(loop) for loop in loops), share, _ABORTED_SECONDS)


def _abort_while(waiting: Callable[[], bool], share: str, seconds: float = math.inf) -> None:
    end = time.monotonic() + seconds
    while waiting() and time.monotonic() < end:
        _abort_requests(share)
        time.sleep(_ABORT_SECONDS)


def _may_abort(share: str, root: str = "") -> bool:
    """Whether the requests of the share can be aborted, and no others with them.

    Of one file system of a NAS, the kernel makes one for all its exports (nfs_compare_super()): where the root is in it
    as well, its requests would be aborted too, and systemd with them.
    """
    mounts = storage.parse_mountinfo(read_text(f"{root}/proc/self/mountinfo"))
    mount, system = storage.mount_at(mounts, share), storage.mount_at(mounts, "/")
    return mount is not None and mount.is_nfs and (system is None or system.device != mount.device)


def _abort_requests(share: str, root: str = "") -> None:
    """Where the kernel knows only umount2: the share is in use, and stays mounted; what is asked later waits again."""
    mount = storage.mount_at(storage.parse_mountinfo(read_text(f"{root}/proc/self/mountinfo")), share)
    if mount is None or not _may_abort(share, root):
        return
    major, minor = mount.device
    try:
        with open(near(f"{root}/sys/fs/nfs/{major}:{minor}/shutdown"), "w", encoding="ascii") as file:
            file.write("1")
    except OSError:
        with contextlib.suppress(OSError):
            syscalls.force_unmount(share)


def _is_stopping() -> bool:
    try:
        return systemd.answers() and systemd.system_state() == "stopping"
    except RpinfsError:
        return False


def _answers(share: str) -> bool:
    try:
        deadline.within(_ANSWER_SECONDS, os.statvfs, share)
    except (RpinfsError, OSError):
        return False
    return True


def kill(groups: Iterable[str], root: str = "") -> list[str]:
    """Kill every process in the control groups of these names, patterns allowed, and in the groups below them.

    Returns:
        the names of the groups that had any.

    Raises:
        OSError: a group cannot be killed.
    """
    killed = []
    for name in groups:
        for folder in sorted(glob.glob(f"{root}/sys/fs/cgroup/**/{name}", recursive=True)):
            if "populated 1" in read_text(f"{folder}/cgroup.events"):
                with open(f"{folder}/cgroup.kill", "w", encoding="ascii") as file:
                    file.write("1")
                killed.append(os.path.basename(folder))
    return killed
