"""What the agent publishes beside its images: written by the renewal of their leases, with no request of its own.

The room in an image is asked for only where the way to it is in the kernel's memory: a path on a root on NFS may be
asked of the NAS, part by part. What is not (of a root on nfs-ganesha, Linux 6.1 never knows the whole way) is asked for
all the same every ROOM_SECONDS, or a container that only appends to a file would fill its image unseen.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from rpinfs.agent.states import ShareState
from rpinfs.agent.summary import OK, Subject, sentence, worst
from rpinfs.agent.work import Room
from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.values import dataclass, replace

ROOM_SECONDS = 600.0

Look = Callable[[], tuple[Subject, ...]]
"""How share and images are now. Called by the pulse."""


@dataclass(frozen=True)
class _Told:
    """What was written for an image, and what is known of its room, and when it was asked for."""

    said: tuple[tuple[str, str, str], ...] = ()
    room: Room | None = None
    asked: float | None = None


class Beside:
    """What there is to say of this Pi. For the pulse alone, which may wait for what this imports from the NAS."""

    def __init__(self, serial: str, look: Look, now: Callable[[], float]) -> None:
        self._serial = serial
        self._look = look
        self._now = now
        self._told: dict[str, _Told] = {}
        self._board: str | None = None

    def is_new(self, image: Image) -> bool:
        """Whether something is otherwise than was written: worth a renewal before its time."""
        told = self._told.get(image.name)
        return told is None or told.said != self._said()

    def record(self, image: Image) -> bytes:
        """What to write now."""
        from rpinfs import __version__
        from rpinfs.lease.report import Report, board, record_of

        if self._board is None:
            self._board = board()
        told, found = self._of(image), self._found()
        self._told[image.name] = replace(told, said=self._said())
        status = worst(found).status
        room = (told.room.size, told.room.free) if told.room else (None, None)
        return record_of(Report(self._serial, __version__, self._board, status, sentence(found), *room))

    def measure(self, image: Image, loop: str) -> Room | None:
        """Learn the room of an image that is mounted from a loop device; for the next record. Raises OSError."""
        told = self._of(image)
        asked = told.asked is None or self._now() - told.asked >= ROOM_SECONDS
        if (folder := _opened(image.where, asked)) is None:
            return told.room
        try:
            # What is not the image says nothing of it.
            if os.fstat(folder).st_dev == os.makedev(storage.LOOP_MAJOR, int(loop.removeprefix("loop"))):
                found = os.fstatvfs(folder)
                room = (found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
                told = replace(told, room=Room(self._now(), *room, _taken(image.path, asked, told.room)))
            self._told[image.name] = told = replace(told, asked=self._now())
        finally:
            os.close(folder)
        return told.room

    def _of(self, image: Image) -> _Told:
        return self._told.get(image.name, _Told())

    def _found(self) -> tuple[Subject, ...]:
        # What can be written there is no word of a silent share: the main thread hears of the answer after the pulse.
        return tuple(
            replace(one, state=ShareState.MOUNTED, status=OK) if one.state == ShareState.SILENT else one
            for one in self._look()
        )

    def _said(self) -> tuple[tuple[str, str, str], ...]:
        # Not the sentences: some have figures in them.
        return tuple((one.name, one.state, one.status) for one in self._found())


def _opened(path: str, asked: bool) -> int | None:
    """A place that is open for asking (O_PATH); None where the NAS would have to be asked for it, and may not be."""
    from rpinfs.system.syscalls import open_in_memory

    try:
        return open_in_memory(path)
    except OSError:
        return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC) if asked else None


def _taken(path: str, asked: bool, before: Room | None) -> int | None:
    """Bytes that an image takes on the NAS; as they were where they may not be asked for, or cannot be told."""
    from rpinfs.system.syscalls import blocks_in_memory

    with contextlib.suppress(OSError):
        if (file := _opened(path, asked)) is not None:
            try:
                return os.fstat(file).st_blocks * 512 if asked else blocks_in_memory(file)
            finally:
                os.close(file)
    return before.taken if before else None
