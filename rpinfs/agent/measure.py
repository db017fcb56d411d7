"""What the agent measures: the file that a node exporter takes, in memory, and fresh whatever the NAS does.

Nothing here asks the NAS, or waits for it: what is told is what the agent knows anyway, what sysfs and the mount table
say, and how full a file system is where the kernel knows the way to it by heart. The boot is over before this is
imported, see whole.py.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

from rpinfs import __version__
from rpinfs.agent.do import replace, write
from rpinfs.agent.picture import ShareFacts, mount_table
from rpinfs.agent.states import Lock, Memory, ShareMemory, ShareState, State
from rpinfs.agent.work import Pulse, Room, now
from rpinfs.boot import config, storage
from rpinfs.boot.host import near, read_text
from rpinfs.boot.units import METRICS_FILE, RUNTIME_FOLDER
from rpinfs.health import metrics
from rpinfs.image.prepare import Prepared
from rpinfs.system import syscalls

PULSE_SECONDS = 15.0
"""How often the file is written where nothing is new: its age tells whether the agent is alive."""

Images = Iterable[tuple[config.Image, Memory, Prepared | None]]

_DOWN = (ShareState.SILENT, ShareState.FAILING)


class Outages:
    """Counts how often the share was silent or failing, and for how long; a share that is not mounted has none."""

    def __init__(self) -> None:
        self.count = 0
        self._seconds = 0.0
        self._since: float | None = None

    def see(self, share: ShareMemory) -> None:
        """Take how the share is now."""
        if share.state in _DOWN and self._since is None:
            self.count += 1
            self._since = share.since
        elif share.state not in _DOWN and self._since is not None:
            self._seconds += max(0.0, share.since - self._since)
            self._since = None

    def seconds(self, when: float) -> float:
        """All of them together, with the one that is not over."""
        return self._seconds + (max(0.0, when - self._since) if self._since is not None else 0.0)


class Meter:
    """Writes what is known, whole or not at all: when something is new, and every PULSE_SECONDS."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._outages = Outages()
        self._told: object = None
        self._next = 0.0
        # With when they were seen: room by size and free bytes, and the bytes on the NAS.
        self._rooms: dict[str, tuple[float, int, int]] = {}
        self._taken: dict[str, tuple[float, int]] = {}

    def tell(self, share: ShareMemory, facts: ShareFacts, images: Images, pulse: Pulse) -> None:
        """To be called at each look. Raises OSError: there is no room in /run."""
        images, when = list(images), now()
        self._outages.see(share)
        news = (share.state, *((memory.state, memory.lock) for _, memory, _ in images))
        if news == self._told and when < self._next:
            return
        self._told, self._next = news, when + PULSE_SECONDS
        known = metrics.Known(
            __version__,
            self._share(share, facts, when),
            tuple(self._images(images, pulse)),
            gate=_gate(images),
            pulse=time.time(),
        )
        _write(metrics.render(known))

    def _share(self, share: ShareMemory, facts: ShareFacts, when: float) -> metrics.Share:
        return metrics.Share(
            self._where,
            up=share.state is ShareState.MOUNTED,
            answer=facts.answer,
            silent=max(0.0, when - share.since) if share.state is ShareState.SILENT else 0.0,
            size=facts.size,
            free=facts.free,
            outages=self._outages.count,
            outage_seconds=self._outages.seconds(when),
        )

    def _images(self, images: Images, pulse: Pulse) -> Iterable[metrics.Image]:
        mounts = mount_table()
        for image, memory, held in images:
            mount = storage.mount_at(mounts, image.where) if memory.state is State.MOUNTED else None
            self._look(image, mount, held, pulse.rooms.get(image.name))
            _, size, available = self._rooms.get(image.name, (0.0, None, None))
            _, taken = self._taken.get(image.name, (0.0, held.allocated if held else None))
            yield metrics.Image(
                image.name,
                mounted=memory.state is State.MOUNTED,
                read_only=not mount.writable if mount else None,
                size=held.size if held else None,
                allocated=taken if held else None,
                room=size if mount else None,
                available=available if mount else None,
                errors=storage.ext4_errors(memory.loop) if memory.loop else None,
                snapshot=_snapshot(image),
                held=None if image.fence == "mmp" else _is_held(memory, held),
                renewed=pulse.renewed.get(image.name),
            )

    def _look(
        self, image: config.Image, mount: storage.Mount | None, held: Prepared | None, walked: Room | None
    ) -> None:
        """Note room and blocks. Where the kernel would have to ask the NAS, what was seen last stays.

        Args:
            walked: what the pulse has seen, which may ask the NAS, and does so rarely.
        """
        if mount is not None:
            with contextlib.suppress(OSError), _opened(image.where) as fd:
                found = os.fstatvfs(fd)
                self._rooms[image.name] = (now(), found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
        if held is not None:
            with contextlib.suppress(OSError), _opened(image.path) as fd:
                self._taken[image.name] = (now(), syscalls.blocks_in_memory(fd))
        if walked is not None:
            room = (walked.when, walked.size, walked.free)
            self._rooms[image.name] = max(room, self._rooms.get(image.name, room))
            if walked.taken is not None:
                taken = (walked.when, walked.taken)
                self._taken[image.name] = max(taken, self._taken.get(image.name, taken))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = syscalls.open_in_memory(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_held(memory: Memory, held: Prepared | None) -> bool:
    return held is not None and held.lease is not None and memory.lock is Lock.HELD


def _gate(images: Images) -> bool | None:
    """Whether the gate would let Docker pass, by what it looks at first; None where it looks at nothing of ours."""
    awaited = [memory for image, memory, _ in images if image.before]
    if not awaited:
        return None
    return all(memory.state is State.MOUNTED and not storage.ext4_errors(memory.loop) for memory in awaited)


def _snapshot(image: config.Image) -> float | None:
    """When this Pi took one since its boot: image/taking.py has left a note."""
    text = read_text(f"{RUNTIME_FOLDER}/{image.name}.snapshot").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def _write(text: str) -> None:
    folder = near(os.path.dirname(METRICS_FILE))
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
        # The agent's umask is for images; this is for a node exporter, which is nobody.
        os.chmod(folder, 0o755)
    replace(METRICS_FILE, lambda path: write(path, text))
