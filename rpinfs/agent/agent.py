"""The agent: the main thread, which waits, has decided, has done and has told; see the other modules of this room.

It never touches the share: what may hang with the NAS is the worker's and the pulse's. So the watchdog is fed and
STATUS= stays true whatever the NAS does. It may die at any time: a mounted image holds its loop device by itself, and
the next agent finds it by what this one has published.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from rpinfs.agent import decide, do, loss, picture, tell, whole
from rpinfs.agent import share as shares
from rpinfs.agent.picture import Picture, Refusal, Result
from rpinfs.agent.request import Requests
from rpinfs.agent.states import Action, Memory, Owed, ShareMemory, ShareState
from rpinfs.agent.work import Pulse, Share, Worker, now, refusal_of
from rpinfs.boot import gate
from rpinfs.boot.config import Config, Image, load
from rpinfs.boot.host import Host, near
from rpinfs.boot.units import METRICS_FILE, RUNTIME_FOLDER, THAW, fstab_mount_points, units
from rpinfs.boot.values import replace
from rpinfs.errors import ConfigError, reason_of
from rpinfs.image import freeze
from rpinfs.image.prepare import Prepared
from rpinfs.lease.lease import LOST, Lease, Owner, TakenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.agent.beside import Beside
    from rpinfs.agent.measure import Meter
    from rpinfs.agent.news import Messenger
    from rpinfs.agent.summary import Subject

_TICK_SECONDS, _RESTLESS_SECONDS = 5.0, 1.0
_MOST_STEPS = 50  # In a row without waiting: what is done at once makes new facts.


def main() -> int:
    """Run until stopped. Exit status 0; 2 on a config error, which a restart does not mend."""
    late = not is_first()
    host = Host.read()
    try:
        config = load(host)
    except ConfigError as error:
        tell.journal(3, error.message)
        return error.status
    with _signals() as wakeups:
        return Agent(host, config, wakeups, late=late).run()


def is_first() -> bool:
    """Whether no agent has run in this boot before.

    Docker waits for the first one. Who mends an image, or the configuration, starts another: what the gate has refused
    by then waits for nothing any more, and nobody but the agent starts it.
    """
    try:
        os.close(os.open(f"{RUNTIME_FOLDER}/agent.ran", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        # Where it cannot be told, systemd is asked once too often.
        return False
    return True


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """Give the end of a pipe that becomes readable when SIGTERM or SIGINT came."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)


class Agent:
    """The wires: facts to decisions, actions to whoever does them, results back to facts."""

    def __init__(self, host: Host, config: Config, wakeups: int, *, late: bool = False) -> None:
        self.config = config
        self.wakeups = wakeups
        self.by_fstab = fstab_mount_points(host.fstab)
        # An image whose mount point belongs to fstab is not the agent's to attach.
        self.images: dict[str, Image] = {
            image.name: image for image in config.images if image.where not in self.by_fstab
        }
        self.fstab = host.fstab
        self.share = ShareMemory()
        self.facts = picture.ShareFacts()
        self.memories = {name: Memory(since=now(), late=late) for name in self.images}
        self.held: dict[str, Prepared] = {}
        self.ready_at: float | None = None
        self.messenger: Messenger | None = None
        self.teller = tell.Teller(now())
        # Both ends of a deque may be used by several threads at once.
        self._events: deque[Callable[[], None]] = deque()
        self._event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._results: dict[str, deque[Result]] = {name: deque() for name in self.images}
        self._progress: dict[str, str] = {}
        self._lock_lost: dict[str, str] = {}
        self._lock_taken: dict[str, Refusal] = {}
        self._clean: dict[str, bool] = {}
        self._asked_to_thaw: float | None = None
        self._requests: Requests | None = None
        self._meter: Meter | None = None
        self.owner = owner = Owner.of(host)
        self.worker = Worker(owner, self.post, self._worker_done, self._progress.__setitem__)
        self.pulse = Pulse(config.share.where, owner, self.post, self._leases, self._not_renewed, self._saying)

    # --- The main loop ---------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until SIGTERM; 0."""
        if not self.config.in_use:
            self.teller.notify("READY=1", f"STATUS=not in use: {self.config.reason}")
            tell.journal(6, f"not in use: {self.config.reason}")
            return 0
        for remark in units(self.config, self.fstab).remarks:
            tell.journal(5, remark)
        self._recall()
        threading.excepthook = give_up
        if self.config.notify:
            # Imported here: few have somebody told, and the others do not pay for it.
            from rpinfs.agent.news import Messenger

            self.messenger = Messenger(self.owner.hostname, self.owner.serial, self.post, now)
        more = ("pystemd.dbuslib",) if self.config.notify else ()
        whole.soon(lambda: self.post(self._begin_to_measure), more)
        self._requests = Requests()
        with open("/proc/self/mountinfo", "rb") as mountinfo:
            poll = select.poll()
            # The kernel marks the mount table with POLLPRI when it changes (proc_pid_mounts(5)).
            poll.register(mountinfo, select.POLLPRI | select.POLLERR)
            for readable in (self._event_fd, self.wakeups, self._requests.fileno()):
                poll.register(readable, select.POLLIN)
            while not self._stopping():
                self.settle()
                restless = any(map(decide.is_restless, self.memories.values()))
                poll.poll((_RESTLESS_SECONDS if restless else _TICK_SECONDS) * 1000)
        return self._stop()

    def settle(self) -> None:
        """Step until nothing is done at once any more, and tell how things are."""
        for _ in range(_MOST_STEPS):
            if not self.step():
                break
        self._maybe_ready()
        self._tell()

    def step(self) -> bool:
        """Look, decide and do once; whether anything was done or came in that is a new fact."""
        self._take_events()
        seen = self._look()
        before, (self.share, action, notes) = self.share, shares.share(self.config, self.share, seen)
        self._tell_share(before, notes)
        if action is not None:
            self._with_systemd(action)
        acted = False
        for name in self.images:
            acted |= self._decide(name, replace(seen, worker=self.worker.busy))
        if action := shares.is_to_thaw(seen, self._asked_to_thaw):
            self._asked_to_thaw = seen.now
            tell.journal(4, f"a snapshot died while the file system was frozen; starting {THAW}")
            self._with_systemd(action)
        return acted or any(self._results.values())

    def _decide(self, name: str, seen: Picture) -> bool:
        image, before = self.images[name], self.memories[name]
        decision = decide.decide(image, before, self.share, seen, shares.remedy(self.config))
        self.memories[name] = after = decision.memory
        for note in decision.notes:
            tell.journal(5, note if note.startswith("image ") else f"image {name}: {note}")
        tell.news_of_image(name, before, after)
        if before.owed != after.owed:
            self._remember_owed()
        if not after.loop:
            self.held.pop(name, None)
        facts = seen.images[name]
        if facts.requested and self._requests and not decide.is_awaited(after, facts, self.share):
            self._requests.answer(name, after.message or self.share.message)
        return decision.action is not None and self._do(image, decision.action)

    def _do(self, image: Image, action: Action) -> bool:
        """Do what was decided; whether it is done by now."""
        held = self.held.get(image.name)
        if action.do.is_the_workers:
            facts = self._share_facts()
            self.worker.start(image, action, Share(self.config.share.where, facts.mount, facts.device), held)
            return False
        result, made = do.at_once(image, action, held)
        if made is not None:
            self._keep(image.name, made)
        if result is not None:
            self._results[image.name].append(result)
        return True

    def _with_systemd(self, action: Action) -> None:
        if (failed := do.tell_systemd(action)) is not None:
            tell.journal(4, failed.message)

    def _stopping(self) -> bool:
        try:
            return bool(os.read(self.wakeups, 64))
        except BlockingIOError:
            return False

    # --- What comes in from the threads ----------------------------------------------------------------------

    def post(self, event: Callable[..., None], *arguments: object) -> None:
        """Have the main thread call something."""
        self._events.append(partial(event, *arguments))
        os.eventfd_write(self._event_fd, 1)

    def _take_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event_fd)
        while self._events:
            self._events.popleft()()
        if self._requests is not None:
            self._requests.take()
            self._requests.refuse_unknown(self.images)

    def _worker_done(self, name: str, result: Result, made: Prepared | None) -> None:
        self._progress.pop(name, None)
        if made is not None:
            self._keep(name, made)
        self._results[name].append(result)

    def _keep(self, name: str, made: Prepared) -> None:
        if made.clean is None:
            made.clean = self._clean.get(name)
        self.held[name] = made

    def _leases(self) -> list[tuple[Image, Lease, str]]:
        """Called by the pulse."""
        held = list(self.held.items())
        return [(self.images[name], one.lease, one.loop) for name, one in held if one.lease is not None]

    def _saying(self) -> Beside:
        """Called by the pulse, once: when there is a lease to renew, the boot is over."""
        from rpinfs.agent.beside import Beside

        return Beside(self.owner.serial, self._subjects, now)

    def _subjects(self) -> tuple[Subject, ...]:
        """How things are. Called by the pulse too."""
        from rpinfs.agent import summary

        return summary.subjects(self.share, self.facts, self.memories, now(), self.ready_at)

    def _not_renewed(self, name: str, lease: Lease, error: Exception) -> None:
        held = self.held.get(name)
        if held is None or held.lease is not lease:
            return
        reason = reason_of(error)
        if isinstance(error, TakenError):
            self._lock_taken[name] = refusal_of(error)
        elif isinstance(error, OSError) and error.errno in LOST:
            self._lock_lost[name] = reason
        else:
            tell.journal(4, f"image {name}: its lease cannot be renewed: {reason}")

    # --- What is so ------------------------------------------------------------------------------------------

    def _look(self) -> Picture:
        mounts = picture.mount_table()
        share = self._share_facts()
        self.pulse.watch(None if share.found else share.mount, share.device)
        self.worker.abandon(share.mount)
        requested = self._requests.names() if self._requests else frozenset()
        images = {}
        for name, image in self.images.items():
            results = self._results[name]
            images[name] = replace(
                picture.image_facts(image, self.memories[name].loop, mounts, self.by_fstab),
                frozen=picture.is_frozen(image),
                requested=name in requested,
                result=results.popleft() if results else None,
                progress=self._progress.get(name, ""),
                lock_lost=self._lock_lost.pop(name, ""),
                lock_taken=self._lock_taken.pop(name, None),
            )
        abandoned = tuple(image.name for image in self.config.images if freeze.is_abandoned(image.name))
        return Picture(now(), self.ready_at, self._share_facts(), images, self.worker.busy, abandoned)

    def _share_facts(self) -> picture.ShareFacts:
        pulse = self.pulse
        facts = picture.share_facts(self.config, picture.mount_table(), self.by_fstab)
        facts = replace(facts, size=pulse.size, free=pulse.free, answer=pulse.answer)
        return replace(facts, asked=pulse.asked, error=pulse.error) if facts.mount == pulse.mount else facts

    def _recall(self) -> None:
        """Take over what the last agent has left: in /run, and on the loop devices."""
        owed = loss.owed()
        # An agent that ended in order has removed it, and at boot there was none.
        said = gate.agent_state().get("images", {}) if os.path.exists(gate.STATE_FILE) else {}
        for name in self.images:
            of_image = said.get(name)
            told = (
                {key: of_image.get(key) for key in ("state", "message", "remedy", "clean")}
                if isinstance(of_image, dict)
                else {}
            )
            if isinstance(told.get("clean"), bool):
                self._clean[name] = bool(told["clean"])
            self.memories[name] = replace(
                self.memories[name],
                **vars(owed.get(name, Owed())),
                recall=str(told.get("state") or ""),
                message=str(told.get("message") or ""),
                remedy=str(told.get("remedy") or ""),
            )
        do.clean(self.images.values())

    def _remember_owed(self) -> None:
        try:
            loss.remember({name: memory.owed for name, memory in self.memories.items()})
        except OSError as error:
            tell.journal(4, f"{loss.OWED_FILE}: {error.strerror}")

    # --- What is told ----------------------------------------------------------------------------------------

    def _maybe_ready(self) -> None:
        """READY as soon as nothing is being prepared; a late share does not hold the boot up."""
        if self.ready_at is not None:
            return
        if shares.is_ready(self.memories.values(), self.share):
            self.ready_at = now()
            self.teller.notify("READY=1")
        else:
            self.teller.notify(f"EXTEND_TIMEOUT_USEC={tell.EXTENSION_USEC}")

    def _tell_share(self, before: ShareMemory, notes: tuple[str, ...]) -> None:
        for note in notes:
            tell.journal(5, note)
        tell.news_of_share(before, self.share)
        if self.share.state is ShareState.SILENT and before.state is not ShareState.SILENT:
            threading.Thread(target=self._watch_for_shutdown, daemon=True, name="shutdown").start()

    def _watch_for_shutdown(self) -> None:
        """Thread: for as long as the share is silent. What it imports may be on the NAS that is gone."""
        from rpinfs.agent import shutdown

        shutdown.give_up_waiting(
            lambda: self.share.state is ShareState.SILENT,
            self.config.share.where,
            lambda what: tell.journal(4, f"{self.config.server.address} does not answer: {what}"),
        )

    def _tell(self) -> None:
        facts = self.facts = self._share_facts()
        self.teller.status(tell.status_line(self.share, facts, self.memories, now()))
        images = [(image, self.memories[name], self.held.get(name)) for name, image in self.images.items()]
        try:
            self.teller.publish(self.share, facts, images)
        except OSError as error:
            tell.journal(4, f"{gate.STATE_FILE}: {error.strerror}")
        if self._meter is not None:
            try:
                self._meter.tell(self.share, facts, images, self.pulse)
            except OSError as error:
                tell.journal(4, f"{METRICS_FILE}: {error.strerror}")
        if self.messenger is not None:
            self.messenger.step(self._subjects())

    def _begin_to_measure(self) -> None:
        # Its modules are in memory by now: this thread may not wait for what is read from the NAS.
        from rpinfs.agent.measure import Meter
        from rpinfs.agent.near import keep

        with contextlib.suppress(OSError):
            keep()
        self._meter = Meter(self.config.share.where)

    # --- The end ---------------------------------------------------------------------------------------------

    def _stop(self) -> int:
        """Let go. What is mounted stays mounted, and keeps its loop device; at shutdown it is unmounted by now."""
        self.teller.notify("STOPPING=1", "STATUS=stopping")
        self._end_leftovers()
        loops = [memory.loop for memory in self.memories.values() if memory.loop]
        do.clean(self.images.values())
        for name, held in self.held.items():
            if self.worker.busy != name:
                # The last one to close a loop device detaches it, and so frees the share for its unmounting.
                held.close()
        if self.share.state is not ShareState.MOUNTED:
            from rpinfs.agent import shutdown

            shutdown.abort_until_detached(loops, self.config.share.where)
        if self._requests is not None:
            self._requests.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(near(gate.STATE_FILE))
        do.end_metrics()
        # Not sys.exit: a thread that waits for a dead NAS must not keep the shutdown waiting.
        sys.stderr.flush()
        os._exit(0)

    def _end_leftovers(self) -> None:
        """Containers of a Docker that has stopped would keep the image mounted, and the share with it."""
        mounts = picture.mount_table()
        facts = {
            name: picture.image_facts(image, self.memories[name].loop, mounts, self.by_fstab)
            for name, image in self.images.items()
        }
        busy = [self.images[name] for name, seen in facts.items() if not seen.over and seen.in_use]
        if not busy:
            return
        # Imported here: the root may be on a NAS that is gone, and an ordinary stop is not to wait for it.
        from rpinfs.agent import shutdown

        try:
            loops = [self.memories[image.name].loop for image in busy]
            if killed := shutdown.end_leftovers(busy, loops, self.config.share.where):
                tell.journal(5, f"killed what kept an image in use after Docker's end: {' '.join(killed)}")
        except OSError as error:
            tell.journal(4, f"what keeps an image in use cannot be ended: {error}")


def give_up(failure: threading.ExceptHookArgs) -> None:
    """End the agent when one of its threads does: without it the agent would look alive and do nothing."""
    sys.excepthook(failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
    sys.stderr.flush()
    os._exit(1)
