"""How this Pi is, in one word and one sentence: what others are told, beside the image (beside.py) and as news.

Pure: from what the agent remembers of its share and its images. The checks of `rpinfs check` see more, and ask for it;
this is what the agent knows without a question to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping

from rpinfs.agent.picture import ShareFacts
from rpinfs.agent.states import Memory, ShareMemory, ShareState, State
from rpinfs.boot.settings import human_size
from rpinfs.boot.values import dataclass
from rpinfs.lease.report import STATUSES
from rpinfs.system.fullness import grade_of_share

OK, WARNING, CRITICAL = STATUSES

LATE_SECONDS = 60.0
"""After this long without a share, or with an image on its way, that is how things are."""

_ON_ITS_WAY = (State.WAITING, State.PREPARING, State.ATTACHED)


@dataclass(frozen=True)
class Subject:
    """The share, or an image.

    Attributes:
        name: "share", or "image NAME".
        state: in the words of the published state file; "full" for a share that is.
        settled: whether it stays so, by what is known: else nobody is called for it yet.
    """

    name: str
    state: str
    status: str
    message: str
    remedy: str = ""
    settled: bool = True


def subjects(
    share: ShareMemory, facts: ShareFacts, images: Mapping[str, Memory], now: float, ready_at: float | None
) -> tuple[Subject, ...]:
    """Everything that can be well or not, the share first. Times in seconds since the boot."""
    of_share = _of_share(share, facts, now, ready_at)
    # An image waits for the share: that is told once.
    waits = share.state is not ShareState.MOUNTED
    return (of_share, *(_of_image(name, memory, now, waits) for name, memory in images.items()))


def worst(found: tuple[Subject, ...]) -> Subject:
    """The first of the worst."""
    return max(found, key=lambda one: STATUSES.index(one.status))


def sentence(found: tuple[Subject, ...]) -> str:
    """All in one sentence: the worst, or that all is well."""
    first = worst(found)
    bad = [one for one in found if one.status != OK]
    if not bad:
        return "; ".join(one.message for one in found[1:]) or first.message
    more = f" (and {len(bad) - 1} more)" if bad[1:] else ""
    return f"{first.message}{more}"


def _of_share(share: ShareMemory, facts: ShareFacts, now: float, ready_at: float | None) -> Subject:
    if share.state is not ShareState.MOUNTED:
        settled = share.state is not ShareState.WAITING or (ready_at is not None and now - share.since >= LATE_SECONDS)
        return Subject("share", share.state, CRITICAL, share.message, share.remedy, settled)
    if facts.size and facts.free is not None and (grave := grade_of_share(facts.size, facts.free)):
        message = f"the share has {human_size(facts.free)} of {human_size(facts.size)} free"
        return Subject("share", "full", STATUSES[grave], message, "free some space on the share")
    return Subject("share", share.state, OK, share.message)


def _of_image(name: str, memory: Memory, now: float, waits: bool) -> Subject:
    subject, message = f"image {name}", f"{name}: {memory.message or memory.state}"
    if memory.state is State.MOUNTED:
        # Without a remedy there is nothing to do about it. A lock that is not held is asked for again and again.
        status = OK if not memory.remedy else WARNING if memory.trouble[0] else CRITICAL
        return Subject(subject, memory.state, status, message, memory.remedy)
    if memory.state in _ON_ITS_WAY:
        late = not waits and now - memory.since >= LATE_SECONDS
        return Subject(subject, memory.state, WARNING, message, memory.remedy, settled=late)
    if memory.state is State.UNMOUNTED and not memory.remedy:
        # By request, or at the shutdown: whoever did that knows.
        return Subject(subject, memory.state, WARNING, message, settled=False)
    return Subject(subject, memory.state, CRITICAL, message, memory.remedy)
