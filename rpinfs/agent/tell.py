"""What is told: STATUS=, the journal and the published state, all from the sentences that were decided."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Mapping

from rpinfs.agent.do import replace, write
from rpinfs.agent.picture import ShareFacts
from rpinfs.agent.states import Memory, ShareMemory, ShareState, State
from rpinfs.boot import gate
from rpinfs.boot.config import Image
from rpinfs.errors import printable
from rpinfs.image.prepare import Prepared

EXTENSION_USEC = 120_000_000


def journal(priority: int, message: str) -> None:
    """Write one line to the journal (sd-daemon(3): the number in front is the priority)."""
    sys.stderr.write(f"<{priority}>{printable(message)}\n")
    sys.stderr.flush()


def news_of_image(name: str, before: Memory, after: Memory) -> None:
    """Tell the journal of a new state or sentence; what the worker is just doing is for STATUS= alone."""
    unchanged = (before.state, before.message) == (after.state, after.message)
    if unchanged or not after.message or after.state is State.PREPARING:
        return
    grave = after.state in (State.REFUSED, State.LOST) or after.remedy
    journal(4 if grave else 6, f"image {name}: {after.message}")


def news_of_share(before: ShareMemory, after: ShareMemory) -> None:
    """Likewise of the share."""
    if (before.state, before.message) != (after.state, after.message):
        journal(6 if after.state is ShareState.MOUNTED else 4, after.message)


def status_line(share: ShareMemory, facts: ShareFacts, images: Mapping[str, Memory], when: float) -> str:
    """Everything in one line of ASCII: sdnotify takes no more."""
    parts = []
    if share.state is not ShareState.MOUNTED:
        parts.append(f"{share.message}, since {duration(when - share.since)}")
    parts += [f"{name}: {memory.message}" for name, memory in images.items() if share.state is not ShareState.WAITING]
    if facts.free is not None and facts.size and share.state is ShareState.MOUNTED:
        parts.append(f"share {100 - 100 * facts.free // facts.size}% full")
    line = printable("; ".join(parts)).encode("ascii", "replace").decode()
    return line or "nothing to do: all mount points are in /etc/fstab"


def duration(seconds: float) -> str:
    """A length of time for people, coarse enough not to change at every tick."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds // 10 * 10:.0f} s"


class Teller:
    """Says what is new, to systemd and in `gate.STATE_FILE`."""

    def __init__(self, started: float) -> None:
        from sdnotify import SystemdNotifier

        self.notifier = SystemdNotifier()
        self._started = started
        self._told = self._published = ""

    def notify(self, *lines: str) -> None:
        """Send lines of sd_notify(3)."""
        self.notifier.notify("\n".join(lines))

    def status(self, line: str) -> None:
        """Feed the watchdog, and say what is new; what systemd does not take is said the next time.

        It reads nothing while it waits for the NAS that its root is on, and with half a thousand messages unread (40
        minutes) the agent would have waited for it, and told nobody anything any more.
        """
        if self._offer("WATCHDOG=1") and line != self._told and self._offer(f"STATUS={line}"):
            self._told = line

    def _offer(self, line: str) -> bool:
        """Send a line where there is room for it at once; whether there was."""
        try:
            if self.notifier.socket is not None:
                self.notifier.socket.send(line.encode("latin-1"), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass  # Nobody listens, of which sdnotify says nothing either.
        return True

    def publish(
        self,
        share: ShareMemory,
        facts: ShareFacts,
        images: Iterable[tuple[Image, Memory, Prepared | None]],
    ) -> None:
        """Write what is known, whole or not at all, for the gate and `rpinfs status`. Raises OSError."""
        import json

        text = json.dumps({
            "version": 1,
            "pid": os.getpid(),
            "since": self._started,
            "share": {
                **{key: getattr(share, key) for key in ("state", "since", "message", "remedy")},
                **{key: getattr(facts, key) for key in ("size", "free", "answer")},
            },
            "images": {image.name: image_document(image, memory, held) for image, memory, held in images},
        })  # fmt: skip
        if text != self._published:
            replace(gate.STATE_FILE, lambda path: write(path, text))
            self._published = text


def image_document(image: Image, memory: Memory, held: Prepared | None) -> dict[str, object]:
    """What is published of an image. Sizes in bytes."""
    return {
        "state": memory.state,
        "since": memory.since,
        "message": memory.message,
        "remedy": memory.remedy,
        "file": image.path,
        "loop": held.loop if held else "",
        "direct_io": held.direct_io if held else None,
        "size": held.size if held else None,
        "allocated": held.allocated if held else None,
        "clean": held.clean if held else None,
        "not_grown": held.not_grown if held else "",
    }
