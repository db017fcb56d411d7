"""One image at one moment: what is decided from, and the steps that more than one state takes."""

from __future__ import annotations

from rpinfs.agent.picture import Answer, ImageFacts, Picture
from rpinfs.agent.states import Action, Decision, Do, Lock, Memory, ShareMemory, ShareState, State
from rpinfs.boot import gate
from rpinfs.boot.config import Image
from rpinfs.boot.units import mount_unit
from rpinfs.boot.values import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.system.systemd import UnitState

GRACE_SECONDS = 15.0
"""How long systemd has to mount an attached image by itself before the agent asks it to."""

RETRY_SECONDS = (5.0, 20.0)
"""How long to wait before a late mount is tried again, at first and at most; a try lasts up to units.MOUNT_TIMEOUT."""

LEASE_RETRY_SECONDS = 15.0
"""How often an image that another Pi holds is asked for again: after a power cut it may be our own last boot's hold."""

SHARE_RETRY_SECONDS = 60.0
"""How often an image is tried again that the share has failed under: no room, no permission, a stale file handle."""

TRIES = 3
"""How often a mount is to fail while the NAS answers: it may lack memory, or a module that is loaded in a moment."""

ASK_SECONDS = 1.0
"""How often systemd is asked again for what it had not settled."""


@dataclass(frozen=True)
class Case:
    """What is decided from."""

    image: Image
    memory: Memory
    facts: ImageFacts
    share: ShareMemory
    picture: Picture
    share_remedy: str

    @property
    def now(self) -> float:
        """Seconds since the boot."""
        return self.picture.now

    @property
    def idle(self) -> bool:
        """Whether the worker may be given something that needs the share."""
        return self.share.state is ShareState.MOUNTED and not self.picture.worker and self.memory.working is None

    @property
    def mounts(self) -> tuple[str, ...]:
        """The mount units of the image, its own first."""
        return tuple(mount_unit(where) for where in (self.image.where, *self.image.bind))

    def knowing(self, **changes: object) -> Case:
        """The same with more remembered."""
        return replace(self, memory=replace(self.memory, **changes))  # type: ignore[arg-type]

    def stays(self, *notes: str) -> Decision:
        """Nothing is to be done."""
        return Decision(self.memory, None, notes)

    def does(self, do: Do, units: tuple[str, ...] = (), loop: str = "", notes: tuple[str, ...] = ()) -> Decision:
        """One thing is to be done."""
        working = do if do.is_the_workers else self.memory.working
        return Decision(replace(self.memory, working=working), Action(do, units, loop), notes)

    def becoming(self, state: State, message: str, remedy: str = "") -> Case:
        """The same in a new state, with its sentence."""
        return replace(self, memory=self.memory.become(state, message, remedy, self.now))

    def asks(self, *more: str) -> Decision:
        """Ask systemd for the image's own mount and what waits for it; no more often than there is news to expect."""
        names = dict.fromkeys((self.mounts[0], *self.image.before, *self.memory.stopped, *more))
        return self.knowing(ask_at=self.now + ASK_SECONDS).does(Do.ASK, tuple(names))


def waiting_units(case: Case, answer: Answer) -> list[UnitState]:
    """The units of Before=."""
    return [answer.units[name] for name in case.image.before]


def is_wanted_back(case: Case) -> bool:
    """Whether something was stopped for an image that was lost, or may have been held back."""
    return bool(case.memory.stopped or case.memory.look)


def take_lease(case: Case) -> Decision | None:
    """Take the lease of an image that was found mounted, or whose lock is lost."""
    if case.memory.lock is Lock.HELD or not case.idle or case.now < case.memory.lease_at:
        return None
    return case.does(Do.LEASE)


def still_owed(case: Case, answer: Answer) -> tuple[str, ...]:
    """What was stopped or held back, and was not let in since."""
    from rpinfs.agent import loss

    memory = case.memory
    let_in = (loss.was_let_in(answer.units[name], memory.owed_at, answer.refused) for name in memory.stopped)
    return tuple(name for name, was in zip(memory.stopped, let_in, strict=True) if not was)


def also_stopped(case: Case, names: list[str]) -> Case:
    """Remember units that are to be started again."""
    stopped = tuple(dict.fromkeys((*case.memory.stopped, *names)))
    return case.knowing(starting=False, stopped=stopped, owed_at=case.now if names else case.memory.owed_at)


def begin(case: Case) -> Decision:
    """Have the worker prepare it, or look at what is mounted in its place already."""
    if not case.idle:
        return case.stays()
    do, what = Do.PREPARE, case.image.path
    if case.facts.device:
        do, what = Do.RECOGNISE, f"/dev/{case.facts.device} at {case.image.where}"
    case = case.knowing(retry_at=None)
    if case.memory.state is not State.REFUSED:
        # A refused image stays so while it is tried again: nothing has changed for anybody yet.
        case = case.becoming(State.PREPARING, f"looking at {what}")
    return case.does(do, loop=case.facts.device)


def start_mounts(case: Case) -> Decision:
    """Start the mount units of what is not mounted, with growing patience: each refused try leaves lines behind.

    Where something else is mounted, only whoever did so can make room.
    """
    wanted = tuple(mount_unit(where) for where in case.facts.free)
    if not wanted or case.now < case.memory.start_at:
        return case.stays()
    wait = case.memory.start_wait or RETRY_SECONDS[0]
    longer = min(wait * 1.5, RETRY_SECONDS[1])
    return case.knowing(start_at=case.now + wait, start_wait=longer, ordered=True).does(Do.START, wanted)


def in_place(case: Case) -> Case:
    """An image whose paths lead to it, with its sentence."""
    return case.knowing(was_mounted=True, gone=False, asked=False).becoming(State.MOUNTED, *_mounted_sentence(case))


def attached_sentence(case: Case) -> str:
    """What is said of an image that waits for systemd to mount it."""
    return case.memory.trouble[0] or f"{case.image.path} is attached as /dev/{case.memory.loop}"


def _mounted_sentence(case: Case) -> tuple[str, str]:
    memory = case.memory
    if case.facts.errors:
        message = f"mounted, but ext4 has recorded errors ({case.facts.errors})"
        return message, gate.mount_anew([case.image], case.image.where)
    if memory.trouble[0]:
        return memory.trouble[0], memory.trouble[1] or case.share_remedy
    again = "; its lock is held again" if memory.again else ""
    return f"mounted at {case.image.where}{memory.how}{again}", ""
