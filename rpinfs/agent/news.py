"""News: a program of the user's that is told when this Pi gets worse or better, [Notify] Command=.

The agent decides what is news, writes it down, and has systemd start rpinfs-notify.service (boot/units.py), which has
that file as its standard input: the agent's own sandbox lets nothing of its own talk to anybody, and systemd ends a
program with all its children. What may wait, be it systemd or the NAS that the window on systemd comes from, waits in a
thread; the main thread goes on whatever becomes of it.

1. News is that the status of something has changed, for what is settled (summary.py). The first news of a boot is how
   it went.
2. One at a time. What happens meanwhile is not kept: the newest state is told, with how many were not heard before.
3. No sooner than SPACING_SECONDS after the last, and after BURST of them one in REFILL_SECONDS.
4. What nobody heard is tried again, MOST_TRIES times in all, or until there is something newer.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping

from rpinfs.agent import do, tell
from rpinfs.agent.summary import LATE_SECONDS, Subject, sentence, worst
from rpinfs.boot.host import read_text
from rpinfs.boot.units import NEWS_FILE, NOTIFY, NOTIFY_SECONDS
from rpinfs.boot.values import dataclass, replace
from rpinfs.errors import RpinfsError, printable
from rpinfs.lease.report import STATUSES

SPACING_SECONDS = 60.0
BURST, REFILL_SECONDS = 6, 600.0
MOST_TRIES = 5
RETRY_FACTOR = 3.0
BOOT_SECONDS = 2 * LATE_SECONDS
"""After this long the first news is told also where something is not settled yet."""

_LOOK_SECONDS = 1.0
_GIVE_UP_SECONDS = 2 * NOTIFY_SECONDS + 30.0


@dataclass(frozen=True)
class Memory:
    """What was told. Times in seconds since the boot.

    Attributes:
        begun: when this agent began.
        tried: name of each subject and its status, as it was told last; None where nothing was, in this boot.
        heard: whether that was heard; also where it is being told.
        tries: how often it was told.
        unheard: how many were not heard since one was.
        sending: whether it is being told now.
        next_at: when the next may be, `retry_at` when the same again.
        tokens: how many more may follow each other, as it was at `filled_at`.
    """

    begun: float
    tried: Mapping[str, str] | None = None
    heard: bool = True
    tries: int = 0
    unheard: int = 0
    sending: bool = False
    next_at: float = 0.0
    retry_at: float = 0.0
    tokens: float = BURST
    filled_at: float = 0.0


@dataclass(frozen=True)
class News:
    """What is to be told: how things are, and how they were when something was told last; None: for the first time."""

    found: tuple[Subject, ...]
    before: Mapping[str, str] | None
    unheard: int


# --- Deciding: pure ------------------------------------------------------------------------------------------


def decide(memory: Memory, found: tuple[Subject, ...], now: float) -> tuple[Memory, News | None]:
    """What is remembered, and what is to be told now."""
    tried, current = memory.tried, _statuses(memory, found)
    settling = tried is None and not all(one.settled for one in found) and now - memory.begun < BOOT_SECONDS
    if memory.sending or settling:
        return memory, None
    tokens = min(float(BURST), memory.tokens + (now - memory.filled_at) / REFILL_SECONDS)
    is_new = current != tried
    again = not is_new and not memory.heard and memory.tries < MOST_TRIES and now >= memory.retry_at
    if not (is_new or again) or now < memory.next_at or tokens < 1:
        return memory, None
    told = replace(
        memory,
        tried=current,
        tries=1 if is_new else memory.tries + 1,
        sending=True,
        tokens=tokens - 1,
        filled_at=now,
    )
    return told, News(found, memory.tried, memory.unheard)


def after(memory: Memory, failure: str, now: float) -> Memory:
    """What is remembered of the end of a telling. `failure`: why nobody heard it; empty where somebody has."""
    wait = SPACING_SECONDS * RETRY_FACTOR ** (memory.tries - 1)
    ended = replace(memory, sending=False, next_at=now + SPACING_SECONDS, retry_at=now + wait, heard=not failure)
    return replace(ended, unheard=memory.unheard + 1 if failure else 0)


def _statuses(memory: Memory, found: tuple[Subject, ...]) -> dict[str, str]:
    """What counts: of what is not settled, what was told last."""
    before = memory.tried or {}
    return {
        one.name: one.status if one.settled else before[one.name] for one in found if one.settled or one.name in before
    }


def text_of(news: News, host: str, serial: str) -> str:
    """What the program is given: a line with the sentence, a line with the remedy, a line of JSON."""
    settled = tuple(one for one in news.found if one.settled) or news.found
    first = worst(settled)
    before = max((news.before or {}).values(), key=STATUSES.index, default=None)
    message, remedy = printable(sentence(settled)), printable(first.remedy)
    subjects = [{key: getattr(one, key) for key in ("name", "state", "status", "message", "remedy")} for one in settled]
    document = {
        "version": 1,
        "host": host,
        "serial": serial,
        "status": first.status,
        "before": before,
        "message": message,
        "remedy": remedy,
        "unheard": news.unheard,
        "subjects": subjects,
    }
    return f"{printable(host)}: {first.status}: {message}\n{remedy}\n{json.dumps(document)}\n"


def recall(text: str) -> Mapping[str, str] | None:
    """What the agent before this one has told, by what it has written; None where it has not."""
    try:
        found = json.loads(text.splitlines()[2])["subjects"]
        told = {str(one["name"]): str(one["status"]) for one in found}
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return told if set(told.values()) <= set(STATUSES) else None


# --- Doing -----------------------------------------------------------------------------------------------------


class Messenger:
    """Tells. Methods are for the main thread."""

    def __init__(self, host: str, serial: str, post: Callable[..., None], now: Callable[[], float]) -> None:
        self._host, self._serial = host, serial
        self._post, self._now = post, now
        self._memory = Memory(now(), recall(read_text(NEWS_FILE)), filled_at=now())

    def step(self, found: tuple[Subject, ...]) -> None:
        """Tell what is new, if it is time."""
        self._memory, news = decide(self._memory, found, self._now())
        if news is None:
            return
        text = text_of(news, self._host, self._serial)
        try:
            do.replace(NEWS_FILE, lambda path: do.write(path, text))
        except OSError as error:
            self._ended(f"{NEWS_FILE}: {error.strerror}")
            return
        threading.Thread(target=self._send, daemon=True, name="news").start()

    def _send(self) -> None:
        self._post(self._ended, send())

    def _ended(self, failure: str) -> None:
        self._memory = after(self._memory, failure, self._now())
        if failure:
            tell.journal(4, f"nobody heard the news: {failure}")


def send() -> str:
    """Have systemd start the program, and wait for its end; why nobody heard it, or ""."""
    from rpinfs.system import systemd

    deadline = time.monotonic() + _GIVE_UP_SECONDS
    ended: str | None = None
    if not systemd.answers():
        return "systemd does not answer"
    try:
        systemd.start_unit(NOTIFY)
        # It may stand still with a NAS that goes now, and nobody is to wait with it.
        while not systemd.answers() or (ended := systemd.outcome(NOTIFY)) is None:
            if time.monotonic() >= deadline:
                return f"{NOTIFY} does not end"
            # The end of a job is no event on the private socket but for who subscribes to all of systemd's.
            time.sleep(_LOOK_SECONDS)
    except RpinfsError as error:
        return error.message
    return "" if ended == "success" else f"{NOTIFY}: {ended}"
