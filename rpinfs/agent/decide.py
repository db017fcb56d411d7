"""What is decided for an image: from what is known and remembered to one sentence and at most one action.

Pure: nothing here opens, waits or asks. One function a state; states.py has what may follow what.

The rules:

1. An image is prepared only while the share is the share and answers, and attached only under its lease (Fence=mmp
   apart, which asks for none).
2. What the NAS does not say changes nothing: while it is silent, every state stays as it is.
3. What is not mounted is not attached either, but for the moment between the two. A person may be at work on the file,
   and a file system that is mounted again from a device that stayed open is read from stale pages. So an image whose
   mount fails some times is let go of, too, and not tried again by itself: who mends the file starts its mount.
4. What was stopped, or held back by the gate, is started when all that kept it from running has gone; nothing else is.
5. Where another Pi has the image, the gate closes first, then what writes here is stopped. What was mounted meanwhile
   is not what is on the share any more: it is unmounted, checked, and mounted anew when it is this Pi's again.
"""

from __future__ import annotations

from rpinfs.agent.case import (
    GRACE_SECONDS,
    LEASE_RETRY_SECONDS,
    RETRY_SECONDS,
    SHARE_RETRY_SECONDS,
    Case,
    also_stopped,
    attached_sentence,
    begin,
    in_place,
    is_wanted_back,
    start_mounts,
    still_owed,
    take_lease,
    waiting_units,
)
from rpinfs.agent.picture import Answer, Failed, Held, ImageFacts, Leased, LetGo, Picture, Ready, Refusal
from rpinfs.agent.states import Decision, Do, Lock, Memory, ShareMemory, ShareState, State
from rpinfs.boot.config import Image
from rpinfs.boot.units import GATE
from rpinfs.boot.values import replace

_OF_THE_WORKER = (Ready, Refusal, Leased, LetGo)
_UNDECIDED = (State.WAITING, State.PREPARING)
_UNMOUNTED = (State.UNMOUNTED, State.LOST)


def decide(image: Image, memory: Memory, share: ShareMemory, picture: Picture, share_remedy: str = "") -> Decision:
    """Decide for one image. Where picture.worker names somebody, also this image, the worker is taken."""
    case = Case(image, memory, picture.images[image.name], share, picture, share_remedy)
    case, notes = _taken_in(case)
    if case.facts.lock_taken is not None and case.memory.state in (State.ATTACHED, State.MOUNTED):
        from rpinfs.agent import leaving

        decision = leaving.taken_over(case, case.facts.lock_taken)
    else:
        decision = _JUDGES[case.memory.state](case)
    return replace(decision, notes=(*notes, *decision.notes))


def is_awaited(memory: Memory, facts: ImageFacts, share: ShareMemory) -> bool:
    """Whether who asked for an image has still something to wait for."""
    if share.state is not ShareState.MOUNTED:
        return False
    if memory.state in _UNMOUNTED:
        return not facts.in_use
    return memory.state in _UNDECIDED or (memory.state is State.REFUSED and memory.working is Do.PREPARE)


def holds_up_boot(memory: Memory, share: ShareMemory) -> bool:
    """Whether systemd is to wait for an image: never for a share that is late or silent."""
    return share.state is ShareState.MOUNTED and memory.state in _UNDECIDED


def is_restless(memory: Memory) -> bool:
    """Whether something is to be done for an image as soon as systemd, or what was stopped, has come to its end."""
    leaving = memory.state in (*_UNMOUNTED, State.TAKEN) and bool(memory.loop)
    return leaving or bool(memory.stopped or memory.look)


def _taken_in(case: Case) -> tuple[Case, tuple[str, ...]]:
    """Take in what is so whatever state the image is in: the end of a silence or of a snapshot, a lock that is lost."""
    memory, facts, result = case.memory, case.facts, case.facts.result
    notes: tuple[str, ...] = ()
    if case.share.returns != memory.returns:
        # Whatever was mounted meanwhile has failed with the NAS.
        memory = replace(memory, returns=case.share.returns, look="can be reached again", ordered=False, tries=0)
    if memory.frozen and not facts.frozen:
        memory = replace(memory, look=memory.look or "is not frozen any more")
    memory = replace(memory, frozen=facts.frozen, asked=memory.asked or facts.requested)
    if facts.lock_lost and memory.lock is Lock.HELD:
        message = f"{memory.state} here, but its lock on the NAS is lost ({facts.lock_lost}); taking it again"
        memory = replace(memory, lock=Lock.LOST, trouble=(message, ""), lease_at=case.now, again=False)
    if isinstance(result, _OF_THE_WORKER):
        memory = replace(memory, working=None)
    if isinstance(result, Ready):
        notes = result.remarks
    if isinstance(result, Leased):
        memory = replace(memory, lock=Lock.HELD, trouble=("", ""), again=bool(memory.trouble[0]))
    return replace(case, memory=memory), notes


# --- On its way to its place -----------------------------------------------------------------------------------


def _waiting(case: Case) -> Decision:
    return _hold(case) or (_recall(case) if case.memory.recall else begin(case))


def _hold(case: Case) -> Decision | None:
    """Hold on to what an earlier agent has attached and published."""
    result = case.facts.result
    if isinstance(result, Held):
        # The lease is pinned, or is asked for next; what the gate has held back meanwhile is looked for.
        lock = Lock.HELD if case.image.fence == "mmp" else Lock.NONE
        look = "was found mounted"
        known = case.knowing(loop=result.loop, how=result.how, published=True, lock=lock, look=look, late=False)
        return in_place(known).stays()
    if not case.facts.proven or case.now < (case.memory.retry_at or 0.0):
        return None
    if isinstance(result, Failed):
        refused = case.becoming(State.REFUSED, result.message, "rpinfs status")
        return refused.knowing(retry_at=case.now + SHARE_RETRY_SECONDS).stays()
    return case.does(Do.HOLD, loop=case.facts.proven)


def _recall(case: Case) -> Decision:
    """Go on where the agent that died has left an image that is not mounted any more."""
    from rpinfs.agent import leaving

    recall, known = case.memory.recall, case.knowing(recall="")
    if recall in (State.MOUNTED, State.ATTACHED) or (recall == State.LOST and is_wanted_back(case)):
        return leaving.missed(case)
    if recall == State.TAKEN and case.facts.device:
        return leaving.still_taken(known)
    if recall in (State.UNMOUNTED, State.LOST):
        known = known.knowing(late=False)
        return known.becoming(State(recall), case.memory.message, case.memory.remedy).stays()
    return known.stays()


def _preparing(case: Case) -> Decision:
    result = case.facts.result
    if isinstance(result, Ready):
        return _attach(case, result)
    if isinstance(result, Refusal):
        return _refuse(case, result)
    if case.facts.progress and case.memory.state is State.PREPARING:
        return case.becoming(State.PREPARING, case.facts.progress).stays()
    return case.stays()


def _attach(case: Case, ready: Ready) -> Decision:
    late = case.picture.ready_at is not None and not case.facts.requested
    case = case.knowing(
        loop=ready.loop, how=ready.how, lock=Lock.HELD, trouble=("", ""), again=False, was_mounted=False,
        published=True, late=late or case.memory.late or bool(case.memory.stopped),
        # What was mounted all along, or refused, was not verified until now, and the gate has said so.
        look="is verified" if case.facts.device == ready.loop or case.memory.state is State.REFUSED
        else case.memory.look,
    )  # fmt: skip
    return case.becoming(State.ATTACHED, attached_sentence(case)).does(Do.PUBLISH)


def _refuse(case: Case, refusal: Refusal) -> Decision:
    if refusal.by_other and case.facts.device:
        from rpinfs.agent import leaving

        return leaving.taken_over(case, refusal)
    restart = "systemctl restart rpinfs-agent"
    remedy = refusal.remedy or (restart if refusal.again is None else case.share_remedy)
    retry_at = None if refusal.again is None else case.now + refusal.again
    if retry_at is None and restart not in remedy:
        remedy = f"{remedy}; then: {restart}"
    return case.knowing(retry_at=retry_at).becoming(State.REFUSED, refusal.message, remedy).stays()


def _refused(case: Case) -> Decision:
    if case.memory.working is not None or isinstance(case.facts.result, Ready | Refusal):
        return _preparing(case)
    if (held := _hold(case)) is not None:
        return held
    due = case.memory.retry_at is not None and case.now >= case.memory.retry_at
    # Who starts its mount has mended something, or wants to hear what is wrong now.
    return begin(case) if due or case.facts.requested else case.stays()


def _attached(case: Case) -> Decision:
    facts, memory = case.facts, case.memory
    if isinstance(facts.result, Failed):
        # Nothing is known of link and UUID then, nor of the mounts: all of it is done again.
        later = case.now + RETRY_SECONDS[0]
        return case.knowing(published=False, ordered=False, start_at=later).stays(facts.result.message)
    if (news := _lease_news(case)) is not None:
        return news
    if not memory.published:
        return case.knowing(published=True).does(Do.PUBLISH) if case.now >= memory.start_at else case.stays()
    if facts.is_in_place(memory.loop):
        look = "came late" if memory.late else memory.look
        return in_place(case.knowing(late=False, look=look)).stays()
    if facts.device == memory.loop:
        case = case.knowing(was_mounted=True, gone=False)
    elif memory.was_mounted:
        from rpinfs.agent import leaving

        return leaving.gone(case)
    return take_lease(case) or _help_mounting(case)


def _help_mounting(case: Case) -> Decision:
    """Start the mounts that systemd has not made by itself, or has given up: the image could be attached only late."""
    memory, ready_at = case.memory, case.picture.ready_at
    patience = 0.0 if memory.late else GRACE_SECONDS
    if ready_at is None or case.now < max(ready_at, memory.since + patience):
        return case.stays()
    if case.share.state is ShareState.SILENT:
        # What it could mount hangs, until systemd gives it up.
        return case.stays()
    if memory.ordered and case.image.where in case.facts.free and not case.facts.in_use:
        from rpinfs.agent import leaving

        return leaving.not_mounted(case)
    return start_mounts(case.knowing(late=True))


# --- In its place ----------------------------------------------------------------------------------------------


def _mounted(case: Case) -> Decision:
    if not case.facts.is_in_place(case.memory.loop):
        from rpinfs.agent import leaving

        return leaving.gone(case)
    if (news := _lease_news(case)) is not None:
        return news
    case = in_place(case)
    return take_lease(case) or _bring_back(case)


def _lease_news(case: Case) -> Decision | None:
    """What came of asking for the lease: where another Pi has the image, two would write."""
    refusal = case.facts.result
    if not isinstance(refusal, Refusal):
        return None
    if refusal.by_other:
        from rpinfs.agent import leaving

        return leaving.taken_over(case, refusal)
    message = f"{case.memory.state} here, but {refusal.message}"
    case = case.knowing(trouble=(message, refusal.remedy), lease_at=case.now + LEASE_RETRY_SECONDS)
    return case.becoming(case.memory.state, message, refusal.remedy or case.share_remedy).stays()


def _bring_back(case: Case) -> Decision:
    """Start what was stopped when the image was lost, and what the gate has held back; each passes the gate."""
    memory, result = case.memory, case.facts.result
    if isinstance(result, Failed):
        # Of the start before this, or of the question: it is done again.
        return case.knowing(starting=False, ask_at=case.now + RETRY_SECONDS[0]).stays(result.message)
    if isinstance(result, Answer) and memory.stopped:
        return _start_stopped(case, result)
    if isinstance(result, Answer) and memory.look:
        return _start_held_back(case, result)
    if (memory.stopped or memory.look) and case.now >= memory.ask_at and _would_pass(case):
        return case.asks(*_sockets(case.image), GATE)
    return case.stays()


def _would_pass(case: Case) -> bool:
    """Whether the gate would let in what is started, by all that is known here."""
    return case.share.state is ShareState.MOUNTED and not case.facts.frozen and not case.facts.errors


def _start_stopped(case: Case, answer: Answer) -> Decision:
    """Start it, and see that the gate lets it: as long as that refuses, what was stopped is not forgotten."""
    from rpinfs.agent import loss

    memory, door = case.memory, answer.units.get(GATE)
    if door is None:
        # An answer to the question why the image was gone.
        return case.stays()
    down = tuple(name for name in still_owed(case, answer) if loss.is_down(answer.units[name]))
    if memory.starting and not loss.is_settled(door):
        return case.stays()
    if not down or (memory.starting and door.active != "failed"):
        # They run, or were let in and have ended by themselves.
        return case.knowing(stopped=(), starting=False).stays()
    wait = min(memory.start_wait * 1.5, SHARE_RETRY_SECONDS) if memory.starting else RETRY_SECONDS[0]
    note = f"image {case.image.name} is back; starting {' '.join(down)}"
    return _starting(case, down, wait, note)


def _start_held_back(case: Case, answer: Answer) -> Decision:
    """Start what the gate has refused, once it has ended: where its time-out kills it, it ends when the NAS answers."""
    from rpinfs.agent import loss

    memory, door = case.memory, answer.units.get(GATE)
    if door is None or not loss.is_settled(door):
        return case.stays()
    units = [*waiting_units(case, answer), *(answer.units[name] for name in _sockets(case.image))]
    wanted = [unit.name for unit in units if loss.was_held_back(unit, door, answer.wanted, answer.refused)]
    case = case.knowing(look="")
    if not wanted:
        return case.stays()
    note = f"image {case.image.name} {memory.look}; starting {' '.join(wanted)}"
    return _starting(also_stopped(case, wanted), tuple(wanted), RETRY_SECONDS[0], note)


def _starting(case: Case, units: tuple[str, ...], wait: float, note: str) -> Decision:
    known = case.knowing(starting=True, owed_at=case.now, start_wait=wait, ask_at=case.now + wait)
    return known.does(Do.START, units, notes=(note,))


def _sockets(image: Image) -> tuple[str, ...]:
    """A socket that met the gate too often has failed (rule 11 of boot.units): it listens again."""
    return tuple(f"{name.removesuffix('.service')}.socket" for name in image.before if name.endswith(".service"))


# --- Out of its place: see leaving.py ----------------------------------------------------------------------------


def _unmounted(case: Case) -> Decision:
    from rpinfs.agent import leaving

    return leaving.unmounted(case)


def _lost(case: Case) -> Decision:
    from rpinfs.agent import leaving

    return leaving.lost(case)


def _taken(case: Case) -> Decision:
    from rpinfs.agent import leaving

    return leaving.taken(case)


_JUDGES = {
    State.WAITING: _waiting,
    State.PREPARING: _preparing,
    State.ATTACHED: _attached,
    State.MOUNTED: _mounted,
    State.UNMOUNTED: _unmounted,
    State.LOST: _lost,
    State.TAKEN: _taken,
    State.REFUSED: _refused,
}
