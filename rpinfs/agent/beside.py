"""What the agent publishes beside its images: written by the renewal of their leases, with no request of its own.

The room in an image is asked for only where the way to it is in the kernel's memory: a path on a root on NFS may be
asked of the NAS, part by part. What nobody walks for long is asked for all the same every ROOM_SECONDS, or a container
that only appends to a file would fill its image unseen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from rpinfs.agent.states import ShareState
from rpinfs.agent.summary import OK, Subject, sentence, worst
from rpinfs.boot import storage
from rpinfs.boot.config import Image

ROOM_SECONDS = 1800.0

Look = Callable[[], tuple[Subject, ...]]
"""How share and images are now. Called by the pulse."""


@dataclass(frozen=True)
class _Told:
    """What was written for an image, and what is known of its room: bytes, and when it was asked for."""

    said: tuple[tuple[str, str, str], ...] = ()
    size: int | None = None
    free: int | None = None
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
        status, room = worst(found).status, (told.size, told.free)
        return record_of(Report(self._serial, __version__, self._board, status, sentence(found), *room))

    def measure(self, image: Image, loop: str) -> None:
        """Learn the room of an image that is mounted from a loop device; for the next record. Raises OSError."""
        from rpinfs.system.syscalls import open_in_memory

        told = self._of(image)
        try:
            folder = open_in_memory(image.where)
        except OSError:
            if told.asked is not None and self._now() - told.asked < ROOM_SECONDS:
                return
            folder = os.open(image.where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # What is not the image says nothing of it.
            if os.fstat(folder).st_dev == os.makedev(storage.LOOP_MAJOR, int(loop.removeprefix("loop"))):
                room = os.fstatvfs(folder)
                told = replace(told, size=room.f_blocks * room.f_frsize, free=room.f_bavail * room.f_frsize)
            self._told[image.name] = replace(told, asked=self._now())
        finally:
            os.close(folder)

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
