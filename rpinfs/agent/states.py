"""The states of an image, what may follow what and why, and what the agent remembers of an image and of the share."""

from __future__ import annotations

import enum

from rpinfs.boot.values import dataclass, replace


class State(enum.StrEnum):
    """How an image is, in the words of the published state file."""

    WAITING = "waiting"
    """Nothing is known of it but its name: the share is late, or the worker is busy."""
    PREPARING = "preparing"
    """The worker is at it."""
    ATTACHED = "attached"
    """Verified and published; systemd has it to mount."""
    MOUNTED = "mounted"
    """In its place: at its mount point, and in the folders that Bind= keeps in it."""
    UNMOUNTED = "unmounted"
    """Unmounted by request, or its mount fails. A person may be at work on the file, so it is let go of, and prepared
    when it is wanted."""
    LOST = "lost"
    """Its mount went behind systemd's back."""
    TAKEN = "taken"
    """It is attached here, and another Pi has it."""
    REFUSED = "refused"
    """It could not be prepared."""


FOLLOWS: dict[State, dict[State, str]] = {
    State.WAITING: {
        State.PREPARING: "the share is mounted and the worker is free",
        State.MOUNTED: "an earlier agent has verified what is mounted",
        State.UNMOUNTED: "the agent that died had seen it so, or it was unmounted by request since",
        State.LOST: "the agent that died had seen it so, and nothing of it ran",
        State.TAKEN: "the agent that died had seen it so, and it is mounted still",
        State.REFUSED: "what is mounted cannot be held on to",
    },
    State.PREPARING: {
        State.ATTACHED: "it is prepared",
        State.REFUSED: "it cannot be",
        State.TAKEN: "what is mounted already is another Pi's",
    },
    State.ATTACHED: {
        State.MOUNTED: "systemd has mounted it",
        State.UNMOUNTED: "its mount fails; or only a part of it was mounted, and is not any more",
        State.LOST: "likewise, behind systemd's back",
        State.TAKEN: "another Pi took it meanwhile",
    },
    State.MOUNTED: {
        State.UNMOUNTED: "by request, or at the shutdown",
        State.LOST: "behind systemd's back",
        State.TAKEN: "another Pi took it, while the NAS did not know of this one",
    },
    State.UNMOUNTED: {
        State.MOUNTED: "it was mounted again before it was let go of",
        State.ATTACHED: "likewise, without its folders",
        State.PREPARING: "its mount unit is started, or something is mounted there",
        State.TAKEN: "it was mounted in the moment in which it was unpublished, and another Pi has it",
    },
    State.LOST: {
        State.MOUNTED: "it is in its place again",
        State.PREPARING: "it was let go of; what was stopped for it wants it back, or its mount unit is started",
        State.UNMOUNTED: "what was left of it was unmounted by request, or at the shutdown",
        State.TAKEN: "it was mounted in the moment in which it was unpublished, and another Pi has it",
    },
    State.TAKEN: {
        State.WAITING: "it is let go of: it is not before it is this Pi's again that it is prepared",
    },
    State.REFUSED: {
        State.ATTACHED: "a passing reason has passed",
        State.MOUNTED: "an earlier agent has verified what is mounted",
        State.TAKEN: "what is mounted already is another Pi's",
    },
}
"""What may follow a state, and why. Memory.become() holds everybody to it."""


class Lock(enum.Enum):
    """How this Pi's hold on the NAS is."""

    NONE = enum.auto()
    """Not asked for yet: the image was found mounted."""
    HELD = enum.auto()
    """Held; or not asked for at all, by Fence=mmp."""
    LOST = enum.auto()
    """The NAS gave it away; it is to be taken again at once."""


class Do(enum.Enum):
    """What can be done. What may hang with the NAS is the worker's, and done one at a time; the rest at once."""

    PREPARE = enum.auto()
    """Take the lease, verify or make the image, attach it."""
    RECOGNISE = enum.auto()
    """Find out whether what is mounted is the image, and take its lease."""
    LEASE = enum.auto()
    """Take the lease of an image that is attached already."""
    LET_GO = enum.auto()
    """Close the loop device, see that it is detached, and let the lease go."""
    HOLD = enum.auto()
    """Open the device that an earlier agent has published."""
    PUBLISH = enum.auto()
    """Write link and UUID: from now on systemd mounts the image and the gate lets Docker start."""
    UNPUBLISH = enum.auto()
    """Remove both."""
    ASK = enum.auto()
    """Ask systemd how units are."""
    START = enum.auto()
    STOP = enum.auto()

    @property
    def is_the_workers(self) -> bool:
        """Whether it touches the share."""
        return self in (Do.PREPARE, Do.RECOGNISE, Do.LEASE, Do.LET_GO)


@dataclass(frozen=True)
class Action:
    """One thing to do: with these units, or this loop device."""

    do: Do
    units: tuple[str, ...] = ()
    loop: str = ""


@dataclass(frozen=True)
class Owed:
    """What the next agent has to know of an image, wherever this one dies: the fields of Memory."""

    stopped: tuple[str, ...] = ()
    starting: bool = False
    owed_at: float = 0.0
    look: str = ""


@dataclass(frozen=True)
class Memory:
    """What the agent remembers of an image from one look to the next. Times in seconds since the boot.

    Attributes:
        message: the one sentence; with remedy it is published, told and logged.
        loop: name of the device that is held; empty where none is.
        how: of its mount, for the sentence: what kind of I/O, and why it was not grown.
        published: whether link and UUID are there for systemd and the gate.
        lock: how the hold on the NAS is.
        trouble: why the lock is not held, and what to do.
        again: whether the lock was lost and is held again.
        working: what the worker does for it now.
        lease_at: when the lease is asked for again.
        ask_at: when systemd is asked again.
        retry_at: when a refused image is prepared again; None where only a person can change anything.
        start_at: when units are started again.
        start_wait: seconds until then, growing.
        ordered: whether its mounts were told to start, and systemd was not asked since what came of it.
        tries: how often its mount was seen to fail since it was attached, and since the share came back.
        late: whether it was attached only after the boot had been let go on: then, or by a later agent than the first.
        was_mounted: whether something of it has been in its place since it was attached.
        gone: whether it was noticed that it is not in its place any more, and systemd asked why.
        stopped: units that were stopped when it was lost or taken, or held back by the gate.
        starting: whether they were told to start.
        owed_at: when they were last stopped, or told to start.
        look: why to look whether the gate has held units back; empty where there is no reason.
        asked: whether somebody has asked for it, and could not have it.
        recall: what the agent before this one, which died, had published as its state.
        returns: of the share, how many were seen.
    """

    state: State = State.WAITING
    since: float = 0.0
    message: str = ""
    remedy: str = ""
    loop: str = ""
    how: str = ""
    published: bool = False
    lock: Lock = Lock.NONE
    trouble: tuple[str, str] = ("", "")
    again: bool = False
    working: Do | None = None
    lease_at: float = 0.0
    ask_at: float = 0.0
    retry_at: float | None = None
    start_at: float = 0.0
    start_wait: float = 0.0
    ordered: bool = False
    tries: int = 0
    late: bool = False
    was_mounted: bool = False
    gone: bool = False
    stopped: tuple[str, ...] = ()
    starting: bool = False
    owed_at: float = 0.0
    look: str = ""
    frozen: bool = False
    asked: bool = False
    recall: str = ""
    returns: int = 0

    @property
    def owed(self) -> Owed:
        """What is left to do for what was stopped or held back."""
        return Owed(self.stopped, self.starting, self.owed_at, self.look)

    def become(self, state: State, message: str, remedy: str, when: float) -> Memory:
        """Take a new state with its sentence."""
        if state is self.state:
            return replace(self, message=message, remedy=remedy)
        assert state in FOLLOWS[self.state], f"{self.state} cannot be followed by {state}"
        # Whatever the agent before this one has said is over when this one has found out for itself.
        fresh = replace(self, start_wait=0.0, start_at=0.0, ordered=False, tries=0, recall="")
        return replace(fresh, state=state, message=message, remedy=remedy, since=when)


@dataclass(frozen=True)
class Decision:
    """What was decided: what is remembered, with the sentence in it, at most one action, and notes for the journal."""

    memory: Memory
    action: Action | None = None
    notes: tuple[str, ...] = ()


class ShareState(enum.StrEnum):
    """How the share is, in the words of the published state file."""

    WAITING = "waiting"
    MOUNTED = "mounted"
    SILENT = "silent"
    FAILING = "failing"


@dataclass(frozen=True)
class ShareMemory:
    """What the agent remembers of the share. Times in seconds since the boot.

    Attributes:
        returns: how often it has come back from silence or failure.
        boot_wanted: whether the mount of the boot files is to be tried: the NAS was away when systemd did.
        start_at: when its mount is tried again.
        start_wait: seconds until then, growing.
    """

    state: ShareState = ShareState.WAITING
    since: float = 0.0
    message: str = ""
    remedy: str = ""
    returns: int = 0
    boot_wanted: bool = False
    start_at: float = 0.0
    start_wait: float = 0.0
