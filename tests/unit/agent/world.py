"""A world for the decider: a NAS, mounts, systemd and other Pis, as far as the agent sees them, and what people do.

It does at once what the agent decides, or lets its worker do it later; and it holds the agent to what must never be.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rpinfs.agent import share as shares
from rpinfs.agent.decide import decide, is_awaited
from rpinfs.agent.picture import (
    Answer,
    Held,
    ImageFacts,
    Leased,
    LetGo,
    Picture,
    Ready,
    Refusal,
    Result,
    ShareFacts,
)
from rpinfs.agent.states import FOLLOWS, Action, Do, Memory, ShareMemory, ShareState, State
from rpinfs.boot.config import Config, Image
from rpinfs.boot.units import GATE, mount_unit
from rpinfs.system.systemd import UnitState

OTHER = Refusal("docker.img: belongs to pi2 (serial 2)", "rpinfs adopt docker", by_other=True, again=15.0)
BROKEN = Refusal("docker.img: e2fsck -p leaves it unrepaired", "e2fsck -f docker.img")
MOMENT = 0.001
"""Seconds between a look and what is done for it: no two things happen at once."""
DEVICES = {"docker": "loop3", "data": "loop4"}


@dataclass
class Unit:
    """A unit of Before=."""

    name: str
    active: str = "inactive"
    left: float | None = None
    inactive: float | None = None
    began: float | None = None
    refused: float | None = None
    asked_for: bool = False
    """Whether a person has started it, was refused, and the image was waited for."""
    wanted: bool = True
    """Whether it is to run: it is enabled, and no person has stopped it."""
    either: bool = False
    """Whether both would be right: its mount was stopped and started while the agent had it to start."""

    def state(self, job: str = "") -> UnitState:
        return UnitState(
            self.name, "loaded", self.active, "", "success", "enabled", job, None, bool(self.began), self.left,
            self.inactive, self.began,
        )  # fmt: skip

    def up(self, now: float) -> None:
        self.active, self.began = "active", now

    def down(self, now: float, took: float = 0.01) -> None:
        if self.active == "active":
            self.left, self.inactive = now, now + took
        self.active = "inactive"


@dataclass
class Place:
    """What has to do with one image."""

    image: Image
    units: dict[str, Unit]
    mount: Unit
    attached: bool = False
    open: bool = False
    """Whether the agent has the device open."""
    mounted: bool = False
    bound: bool = False
    covered: bool = False
    lazily: bool = False
    """Whether the file system lives on without a mount."""
    published: bool = False
    lock: str = "free"
    frozen: bool = False
    requested: bool = False
    job_of_mount: str = ""
    mounting: bool = False
    """Whether systemd has looked at the link, and mounts what it led to, whatever becomes of the link."""
    trouble: Refusal | None = None
    """What the next preparation meets."""
    mount_fails: bool = False
    broken: bool = False
    """Whether every preparation is refused until a person has mended the file."""
    job: tuple[Action, bool] | None = None
    """What the worker does, and whether the share was there when it began."""
    results: list[Result] = field(default_factory=list)
    lock_lost: str = ""
    memory: Memory = field(default_factory=Memory)

    @property
    def loop(self) -> str:
        return DEVICES[self.image.name]

    @property
    def in_place(self) -> bool:
        return self.mounted and (self.bound or not self.image.bind) and not self.covered

    @property
    def in_use(self) -> bool:
        return self.mounted or self.lazily

    def facts(self) -> ImageFacts:
        visible = self.mounted and not self.covered
        result = self.results.pop(0) if self.results else None
        lost, self.lock_lost = self.lock_lost, ""
        held = self.memory.loop
        free = [] if self.mounted or self.covered else [self.image.where]
        free += [] if self.bound else list(self.image.bind)
        return ImageFacts(
            device=self.loop if visible else "",
            over="tmpfs (tmpfs)" if self.covered else f"/dev/{self.loop} (ext4)" if visible else "",
            binds=visible and (self.bound or not self.image.bind),
            free=tuple(free),
            in_use=bool(held) and self.in_use,
            proven=self.loop if not held and self.published and self.in_use else "",
            frozen=self.frozen,
            requested=self.requested,
            result=result,
            lock_lost=lost,
        )


class World:
    """Images of one Pi, on one share."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.now = 1000.0
        self.ready_at: float | None = None
        self.mount: int | None = 1
        self.mounts = 1
        self.silent_since: float | None = None
        self.error = ""
        self.gate = Unit(GATE)
        self.share = ShareMemory()
        self.places = {
            image.name: Place(image, {name: Unit(name) for name in image.before}, Unit(mount_unit(image.where)))
            for image in config.images
        }
        self.actions: list[Action] = []
        self.stepping = False
        self.seen: set[tuple[State, State]] = set()

    # --- The agent -------------------------------------------------------------------------------------------

    def picture(self) -> Picture:
        facts = ShareFacts(
            mount=self.mount, device=(0, 38) if self.mount else None, asked=self.silent_since, error=self.error
        )
        images = {name: place.facts() for name, place in self.places.items()}
        return Picture(self.now, self.ready_at, facts, images, self.busy())

    def busy(self) -> str:
        working = [name for name, place in self.places.items() if place.job is not None]
        assert len(working) <= 1, "two actions at once"
        return working[0] if working else ""

    def step(self) -> bool:
        """Look, decide and do once; whether anything was done."""
        self.stepping = True
        try:
            return self._step()
        finally:
            self.stepping = False

    def _step(self) -> bool:
        self.tick(MOMENT)
        seen = self.picture()
        self.share, action, _ = shares.share(self.config, self.share, seen)
        if action is not None:
            assert self.ready_at is not None
            self.actions.append(action)
        acted = False
        for name, place in self.places.items():
            before = place.memory
            decision = decide(place.image, before, self.share, replace(seen, worker=self.busy()), "look")
            place.memory = after = decision.memory
            assert after.state is before.state or after.state in FOLLOWS[before.state]
            self.seen.add((before.state, after.state))
            self.never(place, before, decision.action)
            if place.requested and not is_awaited(after, seen.images[name], self.share):
                self.answer(place)
            if decision.action is not None:
                self.actions.append(decision.action)
                self.do(place, decision.action)
                acted |= not decision.action.do.is_the_workers
        if self.ready_at is None and shares.is_ready([place.memory for place in self.places.values()], self.share):
            self.ready_at = self.now
        return acted or any(place.results for place in self.places.values())

    def never(self, place: Place, before: Memory, action: Action | None) -> None:
        """What must hold in every step."""
        after = place.memory
        assert after.message or after.state is State.WAITING, after
        if self.share.state is not ShareState.MOUNTED and action is not None:
            assert action.do not in (Do.PREPARE, Do.RECOGNISE, Do.LEASE), "the share is not there"
        running = {name for name, unit in place.units.items() if unit.active == "active"}
        forgotten = [place.units[name] for name in set(before.stopped) - set(after.stopped) - running]
        names = [unit.name for unit in forgotten if (unit.refused or 0.0) > (unit.inactive or 0.0)]
        assert not names or after.state is State.UNMOUNTED, f"forgotten, though the gate has refused it: {names}"
        if action is not None and action.do is Do.START:
            for name in set(action.units) & set(place.units):
                unit = place.units[name]
                refused = (unit.refused or 0) >= (unit.inactive or 0)
                assert unit.wanted or unit.either or refused, f"{name}: a person has stopped it"

    def settle(self, steps: int = 60) -> None:
        for _ in range(steps):
            if not self.step():
                return
        raise AssertionError(f"no end: {self.actions[-10:]} {[place.memory for place in self.places.values()]}")

    def do(self, place: Place, action: Action) -> None:
        self.tick(MOMENT)
        if action.do.is_the_workers:
            assert not self.busy(), "two actions at once"
            place.job = (action, True)
        elif action.do is Do.HOLD:
            assert place.in_use and place.attached
            place.open = True
            place.results.append(Held(place.loop))
        elif action.do is Do.PUBLISH:
            assert place.lock == "ours" or place.image.fence == "mmp", "published without the lease"
            assert place.open and place.attached
            place.published = True
        elif action.do is Do.UNPUBLISH:
            place.published = False
            if place.mounting:
                self.mount_what_was_found(place)
        elif action.do is Do.ASK:
            place.results.append(self.ask(place, action))
        elif action.do is Do.START:
            for name in action.units:
                self.start(place, name)
        else:
            for name in action.units:
                self.stop(place, name)

    def ask(self, place: Place, action: Action) -> Answer:
        units = {}
        for name in action.units:
            if name == place.mount.name:
                units[name] = place.mount.state(place.job_of_mount)
            elif name == GATE:
                units[name] = self.gate.state()
            else:
                units[name] = place.units.get(name, Unit(name)).state()
        refused = {name: unit.refused for name, unit in place.units.items() if unit.refused is not None}
        return Answer("running", units, frozenset(place.units), refused)

    # --- The worker ------------------------------------------------------------------------------------------

    def work(self) -> None:
        """The worker comes to an end; while the NAS is silent, it does not."""
        place = next((place for place in self.places.values() if place.job is not None), None)
        if place is None or place.job is None or self.silent_since is not None:
            return
        action, _ = place.job
        place.job = None
        place.results.append(self.worked(place, action))

    def worked(self, place: Place, action: Action) -> Result:
        if action.do is Do.LET_GO:
            place.open = False
            if place.in_use:
                return LetGo(False)
            place.attached = False
            place.lock = "free" if place.lock == "ours" else place.lock
            return LetGo(True)
        if self.mount is None:
            return Refusal("the share failed", "look", again=60.0)
        if place.lock == "other" and place.image.fence != "mmp":
            return OTHER
        if place.trouble is not None and action.do is Do.PREPARE:
            trouble, place.trouble = place.trouble, None
            return trouble
        if place.broken and action.do is Do.PREPARE:
            return BROKEN
        if action.do is Do.RECOGNISE and not place.attached:
            return Refusal("nothing is mounted there", again=60.0)
        place.lock = "ours"
        if action.do is Do.LEASE:
            return Leased()
        if action.do is Do.PREPARE:
            assert not place.attached, "attached a second time"
            place.attached = True
        place.open = True
        return Ready(place.loop)

    # --- systemd ---------------------------------------------------------------------------------------------

    def start(self, place: Place, name: str) -> None:
        if name in place.units:
            self.start_behind_gate(place, place.units[name])
        elif name == mount_unit(place.image.where):
            self.start_mount(place)
        elif place.mounted and not place.covered and name in [mount_unit(bind) for bind in place.image.bind]:
            place.bound = True

    def start_mount(self, place: Place) -> None:
        if place.mount_fails and place.published and not place.mounted:
            place.mount.active = "failed"
        elif place.published and place.attached and not place.mounted and not place.covered:
            self.mount_what_was_found(place)

    def mount_what_was_found(self, place: Place) -> None:
        place.mounting = False
        if place.attached and not place.covered:
            place.mounted, place.lazily = True, False
            place.mount.up(self.now)

    def start_behind_gate(self, place: Place, *units: Unit) -> None:
        """One transaction of systemd: Docker requires the mounts, and the gate runs once."""
        down = [unit for unit in units if unit.active != "active"]
        if not down:
            return
        self.start_mount(place)
        place.bound = place.bound or (place.mounted and not place.covered)
        self.gate.began = self.now
        if self.silent_since is not None:
            # Its time-out.
            self.tick(61.0)
            if not self.stepping:
                self.settle()
        passes = place.in_place and place.published and not place.frozen and self.silent_since is None
        self.gate.active = "inactive" if passes else "failed"
        self.gate.inactive = self.now
        for unit in down:
            if passes:
                unit.up(self.now)
            else:
                unit.refused = self.now

    def stop(self, place: Place, name: str) -> None:
        if name in place.units:
            place.units[name].down(self.now)
        elif name == place.mount.name:
            for unit in place.units.values():
                unit.down(self.now)
            place.mounted = place.bound = False
            place.mount.down(self.now)
            self.closed(place)
        else:
            place.bound = False

    def closed(self, place: Place) -> None:
        """The last one to close the device detaches it; an agent that starts takes away what leads nowhere."""
        if not place.open and not place.in_use:
            place.attached = place.published = False
            place.lock = "free" if place.lock == "ours" else place.lock

    def answer(self, place: Place) -> None:
        """Who has asked goes on: the mount unit starts."""
        place.requested = False
        self.start_mount(place)
        if place.mounted:
            place.bound = True

    # --- What happens ----------------------------------------------------------------------------------------

    def tick(self, seconds: float) -> None:
        self.now += seconds

    def share_goes(self) -> None:
        self.mount = self.silent_since = None
        for place in self.places.values():
            if place.job is not None and place.job[0].do is not Do.LET_GO:
                place.job = None
                place.results.append(Refusal("the share was unmounted meanwhile", again=15.0))

    def share_comes(self) -> None:
        if self.mount is None:
            self.mounts += 1
            self.mount = self.mounts

    def silence(self) -> None:
        if self.mount is not None and self.silent_since is None:
            self.silent_since = self.now

    def silence_in_the_middle(self) -> None:
        """What the worker did has come to its end, and the NAS is away before anybody has looked."""
        self.work()
        self.silence()
        self.tick(20.0)

    def share_answers(self) -> None:
        self.silent_since, self.error = None, ""

    def share_fails(self) -> None:
        self.error = "/nfs/docker: Stale file handle"

    def unmount_by_request(self, place: Place) -> None:
        """systemctl stop var-lib-docker.mount: what requires it stops before, and a person has asked for that."""
        self.settle()
        if place.mounted and not place.covered:
            for unit in place.units.values():
                # Where another Pi has the image, it is to be unmounted: what was stopped for that is wanted still.
                unit.wanted = unit.wanted and place.memory.state is State.TAKEN and unit.name in place.memory.stopped
                unit.either = False
            self.stop(place, place.mount.name)

    def restart_mount(self, place: Place, steps: int, *, told: bool) -> None:
        """systemctl restart var-lib-docker.mount, and what requires it with it; the agent looks meanwhile.

        Args:
            steps: how often, before systemd has looked at the link, or in the middle of it.
            told: whether systemd says that it is a restart, or a person has stopped and started it.
        """
        self.settle()
        if not place.mounted or place.covered:
            return
        ran = [unit for unit in place.units.values() if unit.active == "active"]
        for unit in place.units.values():
            # By hand, it is an unmounting by request, if the agent sees it; else what it was about to start is started.
            unit.either = unit.either or (unit.wanted and unit not in ran and not told)
        self.stop(place, place.mount.name)
        place.job_of_mount = "start" if told else ""
        for _ in range(steps):
            self.step()
            self.work()
        place.mounting = place.published and place.attached
        for _ in range(steps):
            self.step()
        if place.mounting:
            self.mount_what_was_found(place)
        elif not place.in_use:
            self.ask_agent(place)
            self.start_mount(place)
            for unit in place.units.values():
                unit.asked_for = not place.in_use
        place.job_of_mount = ""
        # The agent is quicker than Docker.
        self.settle()
        self.now += 0.6
        if ran:
            self.start_behind_gate(place, *ran)

    def unmount_lazily(self, place: Place) -> None:
        if place.mounted and not place.covered:
            place.mounted = place.bound = False
            place.lazily = any(unit.active == "active" for unit in place.units.values())
            place.mount.active, place.mount.left, place.mount.inactive = "inactive", self.now, self.now
            self.closed(place)

    def lazy_end(self, place: Place) -> None:
        """Nobody has a file of it open any more."""
        if not any(unit.active == "active" for unit in place.units.values()):
            place.lazily = False
            self.closed(place)

    def bind_goes(self, place: Place) -> None:
        place.bound = False

    def cover(self, place: Place) -> None:
        place.covered = True

    def uncover(self, place: Place) -> None:
        place.covered = False

    def lock_is_lost(self, place: Place) -> None:
        if place.lock == "ours" and not place.results:
            place.lock, place.lock_lost = "free", "Input/output error"

    def taken_by_other(self, place: Place) -> None:
        if place.lock == "free":
            place.lock = "other"

    def other_gives_way(self, place: Place) -> None:
        if place.lock == "other":
            place.lock = "free"

    def freeze(self, place: Place) -> None:
        if place.in_place:
            place.frozen = True

    def thaw(self, place: Place) -> None:
        place.frozen = False

    def restart_docker(self, place: Place) -> None:
        """By a person, or by itself after a crash; the gate runs once for all."""
        ran = [unit for unit in place.units.values() if unit.active == "active"]
        for unit in ran:
            unit.down(self.now, 0.5)
        if ran:
            self.now += 0.6
            self.start_behind_gate(place, *ran)

    def person_stops(self, place: Place) -> None:
        """systemctl stop docker: what does not run, systemd has nothing to stop of."""
        self.settle()
        for unit in place.units.values():
            if unit.active == "active":
                unit.down(self.now)
                unit.wanted = False
                # What stops after its mount has gone, systemd may have stopped for that.
                unit.either = not place.in_place
        self.now += 2.0

    def person_starts(self, place: Place) -> None:
        """systemctl start docker: its mounts first, which ask the agent where the image is not attached."""
        asked = not place.published
        if asked:
            self.ask_agent(place)
        self.start_mount(place)
        place.bound = place.bound or (place.mounted and not place.covered)
        self.settle()
        self.start_behind_gate(place, *place.units.values())
        for unit in place.units.values():
            unit.asked_for = asked and (unit.asked_for or not unit.wanted) and unit.active != "active"
            # Where something covers the place of an image that a person has unmounted, systemd takes that for its
            # mount, and nobody asks the agent for it.
            unit.wanted, unit.either = True, place.covered and place.memory.state is State.UNMOUNTED

    def ask_agent(self, place: Place) -> None:
        """rpinfs-attach@.service: where the agent is about to, the job of systemd waits for the answer."""
        place.requested = True
        self.settle()
        for _ in range(4):
            self.work()
            self.settle()

    def agent_dies(self, *, in_order: bool) -> None:
        """Killed, or restarted; what it had open is closed."""
        for place in self.places.values():
            for unit in place.units.values():
                # That somebody was refused goes with the agent that has told him so.
                unit.either = unit.either or (unit.asked_for and unit.active != "active")
            place.open, place.job = False, None
            place.results.clear()
            place.requested = False
            self.closed(place)
            old = place.memory
            for name in old.stopped if in_order and not place.mounted else ():
                # Whether it was unmounted by request in that very moment, the next one cannot know.
                place.units[name].either = True
            told = Memory(message=old.message, remedy=old.remedy, recall=old.state)
            place.memory = replace(told if not in_order else Memory(), **vars(old.owed), late=True)
        self.ready_at = None
        self.share = ShareMemory()

    # --- The end ---------------------------------------------------------------------------------------------

    def make_well(self) -> None:
        """All that keeps anything from running goes away."""
        self.share_comes()
        self.share_answers()
        if any(place.broken for place in self.places.values()):
            # What the remedy says: mend the file, then: systemctl restart rpinfs-agent.
            self.agent_dies(in_order=True)
        for place in self.places.values():
            place.trouble, place.broken = None, False
            self.thaw(place)
            self.uncover(place)
            if place.mount_fails:
                # And whoever mends that starts it, as he is told.
                place.mount_fails = False
                self.wait(60)
                self.person_starts(place)
            self.other_gives_way(place)

    def wait(self, seconds: float = 240.0, tick: float = 5.0) -> None:
        for _ in range(int(seconds / tick)):
            self.work()
            self.settle()
            for place in self.places.values():
                self.lazy_end(place)
            self.tick(tick)
