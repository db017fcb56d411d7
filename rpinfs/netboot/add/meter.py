"""How far long work has got: a bar, sizes and the time left, in one line."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rpinfs.boot.settings import human_size
from rpinfs.system.run import Tell

_BAR = 20
_SECONDS_BETWEEN = 0.2


class Meter:
    """Tells of one piece of work, at most five times a second.

    Args:
        what: is done, such as "copying the root".
        total: bytes of it; 0 where nobody knows.
    """

    def __init__(self, tell: Tell, what: str, total: int) -> None:
        self._tell = tell
        self._what = what
        self._total = total
        self._began = self._told = time.monotonic()
        tell(line(what, 0, total, 0.0))

    def __call__(self, done: int) -> None:
        """So many bytes are done by now."""
        now = time.monotonic()
        if now - self._told >= _SECONDS_BETWEEN:
            self._told = now
            self._tell(line(self._what, done, self._total, now - self._began))


def line(what: str, done: int, total: int, seconds: float) -> str:
    """The line to show, after so many seconds of work."""
    if not total:
        return f"{what}: {human_size(done)}"
    part = min(done / total, 1.0)
    bar = "#" * int(part * _BAR)
    said = f"{what} [{bar:{_BAR}}] {int(part * 100)} %, {human_size(min(done, total))} of {human_size(total)}"
    if seconds < 1 or not 0 < part < 1:
        return said
    return f"{said}, {_time(seconds * (1 - part) / part)} left"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextlib.contextmanager
def looking(look: Callable[[], None]) -> Iterator[None]:
    """Look five times a second how far a program has got, for as long as a with statement lasts."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(_SECONDS_BETWEEN):
            look()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
