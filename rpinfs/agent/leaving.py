"""What is decided for an image whose mount is gone, or that another Pi has. Imported on need: no boot has need of it.

Pure, as decide.py is. Why a mount is gone: see loss.py.
"""

from __future__ import annotations

from rpinfs.agent import loss
from rpinfs.agent.case import (
    ASK_SECONDS,
    LEASE_RETRY_SECONDS,
    RETRY_SECONDS,
    TRIES,
    Case,
    also_stopped,
    attached_sentence,
    begin,
    in_place,
    start_mounts,
    still_owed,
    take_lease,
    waiting_units,
)
from rpinfs.agent.picture import Answer, Failed, LetGo, Ready, Refusal
from rpinfs.agent.states import Decision, Do, Lock, ShareState, State
from rpinfs.boot.units import GATE
from rpinfs.errors import quoted
from rpinfs.image.remedy import FOR_TWO

# --- The mount is gone ---------------------------------------------------------------------------------------


def gone(case: Case) -> Decision:
    """Find out why an image is not in its place, and stop what would write into the folder below."""
    result = case.facts.result
    if isinstance(result, Failed):
        return case.stays(f"{_why_lost(case)}, and {result.message}")
    if not isinstance(result, Answer):
        wait = case.memory.gone and case.now < case.memory.ask_at
        # With the gate, who was refused comes with the answer.
        return case.stays() if wait else case.knowing(gone=True).asks(*([GATE] if case.memory.stopped else []))
    unit = result.units[case.mounts[0]]
    if (asked_for := _by_request(case, result)) is not None:
        return asked_for
    units = waiting_units(case, result)
    case = case.knowing(stopped=still_owed(case, result))
    case = also_stopped(case, loss.running(units, loss.gone_at(unit)))
    stopped = case.memory.stopped
    stopping = f"; until it is back, {' '.join(stopped)} stopped" if stopped else ""
    case = case.becoming(State.LOST, _why_lost(case) + stopping, _lost_remedy(case))
    names = tuple(loss.to_stop(units))
    return case.does(Do.STOP, names) if names else case.stays()


def _by_request(case: Case, answer: Answer) -> Decision | None:
    unit = answer.units[case.mounts[0]]
    cause = loss.cause_of(unit, answer.system)
    if cause is loss.Cause.LOST:
        return None
    if cause is loss.Cause.REQUESTED and loss.comes_back(unit):
        # A restart of the mount unit: the device is needed in a moment.
        return case.stays()
    return _unwanted(case).becoming(State.UNMOUNTED, *_unmounted_sentence(case)).stays()


def _unwanted(case: Case) -> Case:
    """Whoever asks for the unmounting does not want back what was stopped before."""
    return case.knowing(stopped=(), starting=False, look="", late=False)


def missed(case: Case) -> Decision:
    """Find out what became of an image that the agent which died had in its place, or was about to."""
    result, known = case.facts.result, case.knowing(recall="")
    if isinstance(result, Failed):
        return known.stays(result.message)
    if not isinstance(result, Answer):
        return case.asks()
    unit = result.units[case.mounts[0]]
    cause, went = loss.cause_of(unit, result.system), loss.gone_at(unit)
    if cause is loss.Cause.LOST and went is not None:
        known = also_stopped(known, loss.running(waiting_units(case, result), went))
        stopped = known.memory.stopped
        return known.stays(*([f"{_why_lost(case)}; until it is back, {' '.join(stopped)} stopped"] if stopped else []))
    if cause is loss.Cause.REQUESTED and case.memory.recall != State.ATTACHED:
        return _unwanted(known).becoming(State.UNMOUNTED, *_unmounted_sentence(case)).stays()
    return known.stays()


def not_mounted(case: Case) -> Decision:
    """Let go of an image that systemd cannot mount: whoever mends its file must have it for himself.

    Each order to start it counts once it was seen to fail. One that joins a mount which hangs with the NAS is no try of
    its own, and a mount that fails while the share does says nothing of the image.
    """
    result, name = case.facts.result, case.mounts[0]
    if not isinstance(result, Answer):
        return case.asks() if case.now >= max(case.memory.ask_at, case.memory.start_at) else case.stays()
    if result.units[name].active != "failed" or result.units[name].job or case.share.state is not ShareState.MOUNTED:
        return start_mounts(case)
    case = case.knowing(tries=case.memory.tries + 1)
    if case.memory.tries < TRIES:
        return start_mounts(case)
    why = f" ({result.said[name]})" if result.said.get(name) else ""
    message = f"{name} fails{why}; the image is let go of until that is started"
    remedy = f"mend what it says, then: systemctl start {quoted(name)}"
    return case.knowing(asked=False, late=True).becoming(State.UNMOUNTED, message, remedy).stays()


def _why_lost(case: Case) -> str:
    facts, where = case.facts, case.image.where
    if facts.over and facts.device != case.memory.loop:
        return f"{facts.over} was mounted over {where}"
    if facts.over:
        return f"a folder that it keeps was unmounted: {' '.join(case.image.bind)}"
    if facts.hidden:
        return f"something was mounted over a folder above {where}"
    return f"was unmounted behind systemd's back from {where}"


def _lost_remedy(case: Case) -> str:
    if case.facts.over and case.facts.device != case.memory.loop:
        return f"umount {quoted(case.image.where)}"
    return f"systemctl start {quoted(*case.mounts)}"


def _unmounted_sentence(case: Case) -> tuple[str, str]:
    return f"unmounted by systemd from {case.image.where}", f"systemctl start {quoted(case.mounts[0])}"


def unmounted(case: Case) -> Decision:
    """Let go, and prepare it anew when somebody wants it: by its mount unit, or by a mount of his own."""
    facts, memory = case.facts, case.memory
    if memory.loop and memory.published and facts.device == memory.loop:
        if facts.is_in_place(memory.loop):
            return in_place(case).stays()
        return case.knowing(was_mounted=True, gone=False).becoming(State.ATTACHED, attached_sentence(case)).stays()
    if memory.loop:
        return _release(case)
    return begin(case) if memory.asked or facts.device else case.stays()


def lost(case: Case) -> Decision:
    """Bring it back for what was stopped; where nothing was, a person may be at work on it."""
    facts, memory, result = case.facts, case.memory, case.facts.result
    if memory.published and facts.is_in_place(memory.loop):
        # Who wanted to start meanwhile was refused.
        return in_place(case.knowing(look=memory.look or "is back")).stays()
    if not memory.loop:
        wanted = memory.stopped or memory.look or memory.asked or facts.device
        return begin(case) if wanted else case.stays()
    if not memory.published or not (memory.stopped or memory.look):
        return _release(case)
    if not memory.stopped:
        # What the gate has held back wants it.
        return start_mounts(case) if facts.in_use else _release(case)
    if isinstance(result, Failed):
        return case.stays(result.message)
    if not isinstance(result, Answer):
        return case.asks() if case.now >= memory.ask_at else case.stays()
    if (asked_for := _by_request(case, result)) is not None:
        # By a person, while what was left of it was still there.
        return asked_for
    units = [result.units[name] for name in memory.stopped]
    if names := tuple(loss.to_stop(units)):
        # Somebody may have started one of them meanwhile: the gate stands in its way, unless that was too soon.
        return case.knowing(owed_at=case.now).does(Do.STOP, names)
    if not loss.all_down(units):
        return case.stays()
    # Nothing runs any more that it was lost under: it is mounted anew, unless its file system lives on (umount -l).
    return start_mounts(case) if facts.in_use else _release(case)


def _release(case: Case) -> Decision:
    """Let go of a device that is mounted nowhere any more: first nobody is to find it, then it is closed."""
    memory, result = case.memory, case.facts.result
    if isinstance(result, LetGo) and result.detached:
        return _without_device(case).stays()
    if isinstance(result, Failed):
        return case.knowing(published=True, start_at=case.now + RETRY_SECONDS[0]).stays(result.message)
    if isinstance(result, LetGo):
        # Somebody, such as udev, looks at it: it is seen to again.
        return case.knowing(start_at=case.now + ASK_SECONDS).stays()
    if case.facts.device == memory.loop and memory.working is None and not memory.published:
        return _mounted_again(case)
    if case.facts.in_use or memory.working is not None or case.picture.worker or case.now < memory.start_at:
        return case.stays()
    if memory.published:
        return case.knowing(published=False).does(Do.UNPUBLISH)
    if case.share.state is ShareState.SILENT:
        return case.stays()
    return case.does(Do.LET_GO, loop=memory.loop)


def _mounted_again(case: Case) -> Decision:
    """In the very moment in which nobody was to find it any more: it would else stay mounted behind a closed gate.

    The device was never let go of; under the lease it is what was verified.
    """
    result, case = case.facts.result, case.knowing(asked=True)
    if isinstance(result, Refusal) and result.by_other:
        return taken_over(case, result)
    if isinstance(result, Refusal):
        case = case.knowing(lease_at=case.now + LEASE_RETRY_SECONDS)
    if case.memory.lock is Lock.HELD:
        # Who was started with it met the gate closed.
        return case.knowing(published=True, look=case.memory.look or "is back").does(Do.PUBLISH)
    return take_lease(case) or case.stays()


def _without_device(case: Case) -> Case:
    return case.knowing(loop="", how="", lock=Lock.NONE, trouble=("", ""), again=False, was_mounted=False, gone=False)


# --- Another Pi has it ---------------------------------------------------------------------------------------


def taken_over(case: Case, refusal: Refusal) -> Decision:
    """Close the gate first; the next steps stop what writes."""
    how = "mounted" if case.facts.device else "attached"
    message = f"{how} here, but {refusal.message}"
    later = case.now + LEASE_RETRY_SECONDS
    case = case.knowing(trouble=(message, ""), lock=Lock.NONE, again=False, published=False, lease_at=later, ask_at=0.0)
    return case.becoming(State.TAKEN, message, FOR_TWO).does(Do.UNPUBLISH)


def still_taken(case: Case) -> Decision:
    """Go on where the agent that died has left it: what is mounted here is not what is on the share any more."""
    message = case.memory.message.partition("; ")[0]
    return case.knowing(trouble=(message, "")).becoming(State.TAKEN, message, FOR_TWO).stays()


def taken(case: Case) -> Decision:
    """Keep what would write stopped, until it is unmounted, or this Pi's again."""
    facts, result = case.facts, case.facts.result
    if isinstance(result, Ready):
        case = case.knowing(loop=result.loop, how=result.how, lock=Lock.HELD)
    elif isinstance(result, Refusal):
        case = case.knowing(lease_at=case.now + LEASE_RETRY_SECONDS)
    if not facts.device and not facts.in_use:
        return _give_back(case)
    if isinstance(result, Failed):
        return case.knowing(published=False).stays(result.message)
    if isinstance(result, Answer):
        return _stop_writers(case, result)
    if case.memory.loop and (lease := take_lease(case)) is not None:
        return lease
    if not case.memory.loop and case.idle and case.now >= case.memory.lease_at:
        return case.does(Do.RECOGNISE, loop=facts.device)
    return case.asks() if case.now >= case.memory.ask_at else case.stays()


def _stop_writers(case: Case, answer: Answer) -> Decision:
    """Stop what writes here; once it is down and the image is this Pi's again, unmount what was mounted meanwhile."""
    units = waiting_units(case, answer)
    case = also_stopped(case, loss.running(units, None))
    ours = case.memory.lock is Lock.HELD
    if ours:
        message, remedy = f"this Pi's again; unmounted from {case.image.where}, checked and mounted anew", ""
    else:
        stopped = case.memory.stopped
        stopping = f"; {' '.join(stopped)} stopped: two writers destroy it" if stopped else ""
        message, remedy = case.memory.trouble[0] + stopping, FOR_TWO
    case = case.becoming(State.TAKEN, message, remedy)
    if names := tuple(loss.to_stop(units)):
        return case.does(Do.STOP, names)
    if ours and loss.all_down(units) and case.facts.device:
        return case.knowing(ask_at=case.now + RETRY_SECONDS[0]).does(Do.STOP, case.mounts[::-1])
    return case.stays()


def _give_back(case: Case) -> Decision:
    """Nothing of it is mounted here any more: let go, and wait until it is this Pi's."""
    if case.memory.loop:
        return _release(case)
    late = bool(case.memory.stopped)
    return case.knowing(late=late, retry_at=None).becoming(State.WAITING, case.memory.message).stays()
