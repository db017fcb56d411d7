"""The agent: makes the images at the first boot, checks and attaches them, and watches over them for life.

The main thread never touches the share: it waits for events (the mount table, the worker, signals), decides, and
tells systemd and people how things are. What may hang with the NAS happens in two threads: the worker prepares
images, the pulse asks the share every half minute whether it answers. So the watchdog is fed and STATUS= stays true
whatever the NAS does.

The agent may die at any time: a mounted image holds its loop device by itself, and the next agent finds it in sysfs.
Where the mount of an image goes away under a running Docker, see loss.py.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from rpinfs.agent import loss
from rpinfs.boot import gate, storage
from rpinfs.boot.config import Config, Image, load
from rpinfs.boot.host import Host, read_text
from rpinfs.boot.units import GATE, RUNTIME_FOLDER, THAW, fstab_mount_points, link_of, mount_unit, units
from rpinfs.errors import ConfigError, RpinfsError, quoted
from rpinfs.image import freeze, prepare
from rpinfs.image.errors import ShareFailedError
from rpinfs.lease.lease import LOST, RENEW_SECONDS, Lease, LeaseError, Owner, OwnLockError, acquire
from rpinfs.system.trouble import remedy_of

PULSE_SECONDS = 30.0
"""How often the share is asked whether it answers, and how full it is."""

SILENT_SECONDS = 15.0
"""After this long without an answer the share counts as silent."""

RETRY_SECONDS = (5.0, 20.0)
"""How long to wait before a late share is tried again, at first and at most; a try lasts up to units.MOUNT_TIMEOUT."""

GRACE_SECONDS = 15.0
"""How long systemd has to mount an attached image by itself before the agent asks it to."""

LEASE_RETRY_SECONDS = 15.0
"""How often an image that another Pi holds is asked for again: after a power cut it may be our own last boot's hold."""

SHARE_RETRY_SECONDS = 60.0
"""How often an image is tried again that the share has failed under: no room, no permission, a stale file handle."""

THAW_RETRY_SECONDS = 30.0
"""How often rpinfs-thaw.service is asked to thaw what a dead snapshot has left frozen."""

_EXTENSION_USEC = 120_000_000
_TICK_SECONDS = 5.0


def main() -> int:
    """Run until stopped. Exit status 0; 2 on a config error, which a restart does not mend."""
    host = Host.read()
    try:
        config = load(host)
    except ConfigError as error:
        _log(3, error.message)
        return error.status
    with _signals() as wakeups:
        return Agent(host, config, wakeups).run()


def _log(priority: int, message: str) -> None:
    """Write one line to the journal (sd-daemon(3): the number in front is the priority)."""
    sys.stderr.write(f"<{priority}>{message}\n")
    sys.stderr.flush()


def now() -> float:
    """Seconds since the boot. A Pi has no clock of its own: the wall clock may be in 1970, and jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


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


@dataclass
class Held:
    """What the agent knows of one image. `since` in seconds since the boot, sizes in bytes."""

    image: Image
    state: str = "waiting"
    since: float = 0.0
    message: str = ""
    remedy: str = ""
    prepared: prepare.Prepared | None = None
    late: bool = False
    lost_lease: Lease | None = None
    lease_retry_at: float = 0.0
    retry_at: float | None = None
    stopped: list[str] = field(default_factory=list)

    def is_to_lease(self, when: float) -> bool:
        """Whether the lease is to be taken now: the image was mounted before this agent was there, or it was lost."""
        wanted = self.image.fence != "mmp" and when >= self.lease_retry_at
        return wanted and self.prepared is not None and self.prepared.lease is None

    def is_to_prepare(self, when: float) -> bool:
        """Whether the worker shall take it on now."""
        return self.state == "waiting" or (self.retry_at is not None and when >= self.retry_at)

    def become(self, state: str, message: str, remedy: str = "") -> bool:
        """Take a new state; True when it differs from the last."""
        changed = (state, message) != (self.state, self.message)
        if state != self.state:
            self.since = now()
        self.state, self.message, self.remedy = state, message, remedy
        return changed


@dataclass
class ShareState:
    """What the agent knows of the share. Times in seconds, sizes in bytes."""

    state: str = "waiting"
    since: float = 0.0
    message: str = ""
    remedy: str = ""
    size: int | None = None
    free: int | None = None
    answer: float | None = None
    asked: float | None = None
    error: str = ""


@dataclass
class Agent:
    """The main thread: waits, decides, tells."""

    host: Host
    config: Config
    wakeups: int
    share: ShareState = field(default_factory=ShareState)
    held: list[Held] = field(default_factory=list)
    ready_at: float | None = None
    started: float = field(default_factory=now)

    def __post_init__(self) -> None:
        from sdnotify import SystemdNotifier

        self._notifier = SystemdNotifier()
        self._owner = Owner.of(self.host)
        self._by_fstab = fstab_mount_points(self.host.fstab)
        self._mounts: list[storage.Mount] = []
        # Both ends of a deque may be used by several threads at once.
        self._events: deque[Callable[[], None]] = deque()
        self._event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._worker: threading.Thread | None = None
        self._pulse_wanted = threading.Event()
        self._renewal_at = 0.0
        self._next_try = 0.0
        self._next_thaw = 0.0
        self._share_came_late = False
        self._share_was_silent = False
        self._retry_wait = RETRY_SECONDS[0]
        self._published = ""
        self._told = ""

    # The main loop

    def run(self) -> int:
        """Run until SIGTERM; 0."""
        if not self.config.in_use:
            self._notify("READY=1", f"STATUS=not in use: {self.config.reason}")
            _log(6, f"not in use: {self.config.reason}")
            return 0
        for remark in units(self.config, self.host.fstab).remarks:
            _log(5, remark)
        # An image whose mount point belongs to fstab is not the agent's to attach.
        self.held = [Held(image, since=now()) for image in self.config.images if image.where not in self._by_fstab]
        self._read_mounts()
        self._find_attached()
        threading.excepthook = _give_up
        threading.Thread(target=self._pulse, daemon=True, name="pulse").start()
        with open("/proc/self/mountinfo", "rb") as mountinfo:
            poll = select.poll()
            # The kernel marks the mount table with POLLPRI when it changes (proc_pid_mounts(5)).
            poll.register(mountinfo, select.POLLPRI | select.POLLERR)
            poll.register(self._event_fd, select.POLLIN)
            poll.register(self.wakeups, select.POLLIN)
            while not self._stopping():
                self._step()
                poll.poll(_TICK_SECONDS * 1000)
                self._read_mounts()
        return self._stop()

    def _step(self) -> None:
        self._take_events()
        self._thaw_abandoned()
        self._look_at_share()
        self._look_at_images()
        self._start_worker()
        self._maybe_ready()
        self._help_late()
        self._tell()

    def _stopping(self) -> bool:
        try:
            return bool(os.read(self.wakeups, 64))
        except BlockingIOError:
            return False

    def _take_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event_fd)
        while self._events:
            self._events.popleft()()

    def _post(self, event: Callable[..., None], *arguments: object) -> None:
        """Have the main thread call something."""
        self._events.append(partial(event, *arguments))
        os.eventfd_write(self._event_fd, 1)

    def _read_mounts(self) -> None:
        self._mounts = storage.parse_mountinfo(read_text("/proc/self/mountinfo"))

    # What is so

    def _look_at_share(self) -> None:
        """Tell the NFS share from the empty folder below it, and from somebody else's mount."""
        share = self.share
        where = self.config.share.where
        mount = storage.mount_at(self._mounts, where)
        expected = f"{self.config.server.source}:{self.config.share.export}"
        if mount is None:
            self._share_becomes("waiting", f"{expected} is not mounted at {where} yet", _share_remedy(self.config))
        elif not mount.is_nfs or (where not in self._by_fstab and not mount.is_from(expected)):
            self._share_becomes(
                "waiting",
                f"{where} is not the share: expected {expected}, found {mount.source} ({mount.kind})",
                f"unmount it: umount {quoted(where)}",
            )
        elif share.asked is not None and now() - share.asked > SILENT_SECONDS:
            self._share_becomes("silent", f"{self.config.server.address} does not answer", _share_remedy(self.config))
        elif share.error:
            self._share_becomes("failing", share.error, _share_remedy(self.config))
            self._pulse_wanted.set()
        elif share.state != "silent" or share.asked is None:
            if share.state == "silent":
                _log(5, f"{self.config.server.address} answers again after {now() - share.since:.0f} s")
                self._share_was_silent = True
            self._share_becomes("mounted", f"{expected} is mounted at {where}", "", quiet=True)
            self._pulse_wanted.set()

    def _share_becomes(self, state: str, message: str, remedy: str, quiet: bool = False) -> None:
        share = self.share
        if (state, message) == (share.state, share.message):
            return
        if state != share.state or not share.since:
            # The silence began when the question was asked that got no answer.
            share.since = share.asked if state == "silent" and share.asked is not None else now()
            self._share_came_late = state == "mounted" and self.ready_at is not None
        share.state, share.message, share.remedy = state, message, remedy
        _log(6 if quiet else 4, message)
        if state == "silent":
            threading.Thread(target=self._watch_for_shutdown, daemon=True, name="shutdown").start()

    def _look_at_images(self) -> None:
        if self._share_was_silent:
            self._share_was_silent = False
            self._start_refused_units()
        for held in self.held:
            mounted = self._is_in_place(held)
            if mounted and held.state in ("attached", "unmounted", "lost"):
                self._image_becomes(held, "mounted", _mounted_message(held))
                self._start_stopped_units(held)
                if held.late:
                    held.late = False
                    self._start_waiting_units(held, "came late")
            elif not mounted and held.state == "mounted":
                self._lose(held)
            elif mounted and held.state == "mounted" and (errors := self._errors(held)):
                self._image_becomes(
                    held,
                    "mounted",
                    f"mounted, but ext4 has recorded errors ({errors})",
                    gate.mount_anew([held.image], held.image.where),
                )

    def _thaw_abandoned(self) -> None:
        """Have thawed what a dead snapshot has left frozen; thawing takes a privilege that the agent does not have."""
        if now() >= self._next_thaw and any(freeze.is_abandoned(image.name) for image in self.config.images):
            self._next_thaw = now() + THAW_RETRY_SECONDS
            _log(4, f"a snapshot died while the file system was frozen; starting {THAW}")
            self._start_units([THAW])

    def _is_mounted(self, image: Image) -> bool:
        mount = storage.mount_at(self._mounts, image.where)
        loop = storage.loop_of(mount) if mount else None
        return loop is not None and loop.backing_file == image.path

    def _is_in_place(self, held: Held) -> bool:
        """Whether the paths of an image lead to it: at its mount point, and in the folders that Bind= keeps in it."""
        outer = storage.mount_at(self._mounts, held.image.where)
        if outer is None or held.prepared is None:
            return outer is not None and self._is_mounted(held.image)
        # By the device: the name of the backing file changes when somebody renames or deletes it.
        if outer.device != (storage.LOOP_MAJOR, int(held.prepared.loop.removeprefix("loop"))):
            return False
        binds = [(bind, storage.mount_at(self._mounts, bind)) for bind in held.image.bind if bind not in self._by_fstab]
        return all(mount is not None and gate.is_kept(mount, bind, outer) for bind, mount in binds)

    def _errors(self, held: Held) -> int:
        name = held.prepared.loop if held.prepared else ""
        return storage.ext4_errors(name) or 0

    def _image_becomes(self, held: Held, state: str, message: str, remedy: str = "") -> None:
        if held.become(state, message, remedy):
            _log(4 if state in ("refused", "lost") or remedy else 6, f"image {held.image.name}: {message}")

    def _find_attached(self) -> None:
        """Find what an earlier agent attached and systemd mounted, and hold on to it again."""
        stopped = loss.stopped_units()
        # An agent that ended in order has removed it, and at boot there was none.
        died = os.path.exists(gate.STATE_FILE)
        for held in self.held:
            held.stopped = stopped.get(held.image.name, [])
            if not self._is_mounted(held.image) and not storage.is_in_use(held.image.path):
                if died:
                    self._recall_loss(held)
                continue
            try:
                held.prepared = prepare.hold(held.image)
                held.prepared.clean = _found_clean(held.image)
                _publish(held.image, held.prepared, found=True)
            except RpinfsError as error:
                _log(4, f"image {held.image.name}: {error.message}")
            # Where it is not in its place, the first look at the images finds it lost.
            self._image_becomes(held, "mounted", _mounted_message(held))
            if self._is_in_place(held):
                self._start_stopped_units(held)

    # Losing an image, see loss.py

    def _lose(self, held: Held) -> None:
        """Stop what would write into the folder below, where the mount has gone behind systemd's back."""
        from rpinfs.system import systemd

        image = held.image
        unit = mount_unit(image.where)
        try:
            states = systemd.unit_states([unit, *image.before])
            cause = loss.cause_of(states[unit], systemd.system_state())
        except RpinfsError as error:
            # The next look asks again.
            _log(3, f"image {image.name}: {self._why_lost(image)}, and {error.message}")
            return
        if cause is not loss.Cause.LOST:
            self._image_becomes(
                held, "unmounted", f"unmounted by systemd from {image.where}", f"systemctl start {quoted(unit)}"
            )
            return
        waiting = [states[name] for name in image.before]
        self._stopped_by_loss(held, loss.running(waiting, loss.gone_at(states[unit])))
        stopping = f"; until it is back, {' '.join(held.stopped)} stopped" if held.stopped else ""
        self._image_becomes(held, "lost", self._why_lost(image) + stopping, self._lost_remedy(image))
        self._stop_units(loss.to_stop(waiting))

    def _recall_loss(self, held: Held) -> None:
        """Find out what systemd stopped by itself, where an image was lost and detached while no agent was there."""
        from rpinfs.system import systemd

        unit = mount_unit(held.image.where)
        try:
            states = systemd.unit_states([unit, *held.image.before])
            cause = loss.cause_of(states[unit], systemd.system_state())
        except RpinfsError as error:
            _log(4, error.message)
            return
        gone = loss.gone_at(states[unit])
        if cause is loss.Cause.LOST and gone is not None:
            self._stopped_by_loss(held, loss.running([states[name] for name in held.image.before], gone))

    def _stopped_by_loss(self, held: Held, names: list[str]) -> None:
        held.stopped += [name for name in names if name not in held.stopped]
        self._remember_stopped()

    def _why_lost(self, image: Image) -> str:
        found = storage.mount_at(self._mounts, image.where)
        if found is not None and not self._is_mounted(image):
            return f"{found.source} ({found.kind}) was mounted over {image.where}"
        if found is not None:
            return f"a folder that it keeps was unmounted: {' '.join(image.bind)}"
        if any(mount.where == image.where for mount in self._mounts):
            return f"something was mounted over a folder above {image.where}"
        return f"was unmounted behind systemd's back from {image.where}"

    def _lost_remedy(self, image: Image) -> str:
        found = storage.mount_at(self._mounts, image.where)
        if found is not None and not self._is_mounted(image):
            return f"umount {quoted(image.where)}"
        return f"systemctl start {quoted(*(mount_unit(where) for where in (image.where, *image.bind)))}"

    def _mounts_to_bring_back(self, held: Held) -> list[str]:
        """Mount units to start for a lost image, once nothing runs any more that it was lost under."""
        from rpinfs.system import systemd

        try:
            states = list(systemd.unit_states(held.stopped).values())
        except RpinfsError as error:
            _log(4, error.message)
            return []
        if not loss.all_down(states):
            # Somebody may have started one of them meanwhile: the gate stands in its way, unless that was too soon.
            self._stop_units(loss.to_stop(states))
            return []
        wanted = (held.image.where, *held.image.bind)
        # Where something else is mounted, only whoever did so can make room.
        return [mount_unit(where) for where in wanted if storage.mount_at(self._mounts, where) is None]

    def _start_stopped_units(self, held: Held) -> None:
        """Start what was stopped when the image was lost; each passes the gate."""
        if not held.stopped:
            return
        _log(5, f"image {held.image.name} is back; starting {' '.join(held.stopped)}")
        self._start_units(held.stopped)
        held.stopped = []
        self._remember_stopped()

    def _remember_stopped(self) -> None:
        loss.remember_stopped({held.image.name: held.stopped for held in self.held})

    def _stop_units(self, names: list[str]) -> None:
        from rpinfs.system import systemd

        try:
            systemd.stop_units(names)
        except RpinfsError as error:
            _log(3, error.message)

    # Preparing, in a thread

    def _start_worker(self) -> None:
        if self._worker is not None or self.share.state != "mounted":
            return
        waiting = [held for held in self.held if held.is_to_prepare(now())]
        unleased = [held for held in self.held if held.is_to_lease(now())]
        for held in waiting:
            held.retry_at = None
            self._progress(held, f"looking at {held.image.path}")
        if waiting or unleased:
            lists = (waiting, unleased)
            self._worker = threading.Thread(target=self._work, args=lists, daemon=True, name="worker")
            self._worker.start()

    def _work(self, waiting: list[Held], unleased: list[Held]) -> None:
        """Thread: everything that touches images on the share."""
        try:
            for held in unleased:
                self._renew(held)
            self._prepare(waiting)
        finally:
            self._post(self._worker_ended)

    def _renew(self, held: Held) -> None:
        """Thread: take the lease of an image that is mounted already."""
        if held.lost_lease is not None:
            held.lost_lease.close()
            held.lost_lease = None
        try:
            lease = acquire(held.image.path, self._owner, held.image.name)
            lease.keep(held.prepared.path if held.prepared else "")
        except RpinfsError as error:
            self._post(self._lease_refused, held, error)
        except OSError as error:
            self._post(self._lease_refused, held, RpinfsError(f"without its lock: {error.strerror}"))
        else:
            self._post(self._leased, held, lease)

    def _leased(self, held: Held, lease: Lease) -> None:
        assert held.prepared is not None
        held.prepared.lease = lease
        if held.lease_retry_at:
            held.lease_retry_at = 0.0
            self._image_becomes(held, held.state, f"{_mounted_message(held)}; its lock is held again")

    def _lease_refused(self, held: Held, error: RpinfsError) -> None:
        """Say that another Pi took an image which is mounted here; cutting it off now would only do more harm."""
        held.lease_retry_at = now() + LEASE_RETRY_SECONDS
        by_other = isinstance(error, LeaseError) and not isinstance(error, OwnLockError)
        remedy = "shut one of the two Pis down now" if by_other else error.remedy or _share_remedy(self.config)
        self._image_becomes(held, held.state, f"{held.state} here, but {error.message}", remedy)

    def _lease_lost(self, held: Held, lease: Lease, error: OSError) -> None:
        """Take it again at once: nobody else may have it yet."""
        if held.prepared is not None and held.prepared.lease is lease:
            held.prepared.lease = None
            held.lost_lease, held.lease_retry_at = lease, now()
            message = f"{held.state} here, but its lock on the NAS is lost ({error.strerror}); taking it again"
            self._image_becomes(held, held.state, message, _share_remedy(self.config))

    def _prepare(self, waiting: list[Held]) -> None:
        """Prepare images one after the other."""
        for held in waiting:
            try:
                prepared = prepare.prepare(held.image, self._owner, partial(self._post, self._progress, held))
            except RpinfsError as error:
                self._post(self._refused, held, error)
            except OSError as error:
                reason = f"{held.image.path}: {error.strerror or error}"
                remedy = remedy_of(error) or _share_remedy(self.config)
                self._post(self._refused, held, ShareFailedError(reason, remedy))
            else:
                self._post(self._prepared, held, prepared)

    def _progress(self, held: Held, message: str) -> None:
        # A refused image stays so while it is tried again: nothing has changed for anybody yet.
        if held.state != "refused":
            held.become("preparing", message)

    def _refused(self, held: Held, error: RpinfsError) -> None:
        restart = "systemctl restart rpinfs-agent"
        remedy = error.remedy or restart
        if isinstance(error, LeaseError):
            held.retry_at = now() + LEASE_RETRY_SECONDS
        elif isinstance(error, ShareFailedError):
            held.retry_at = now() + SHARE_RETRY_SECONDS
        elif restart not in remedy:
            remedy = f"{remedy}; then: {restart}"
        self._image_becomes(held, "refused", error.message, remedy)

    def _prepared(self, held: Held, prepared: prepare.Prepared) -> None:
        for remark in prepared.remarks:
            _log(5, f"image {held.image.name}: {remark}")
        held.prepared = prepared
        held.late = self.ready_at is not None
        _publish(held.image, prepared)
        self._image_becomes(held, "attached", f"{held.image.path} is attached as {prepared.path}")

    def _worker_ended(self) -> None:
        self._worker = None

    # Asking the share, in a thread

    def _pulse(self) -> None:
        """Thread: ask the share for its size, and renew the leases. What hangs with the NAS hangs here."""
        while True:
            self._pulse_wanted.wait()
            self._pulse_wanted.clear()
            self._post(self._asked, now())
            self._renew_leases()
            begun = now()
            try:
                answer: os.statvfs_result | OSError = os.statvfs(self.config.share.where)
            except OSError as error:
                answer = error
            self._post(self._answered, answer, now() - begun)
            time.sleep(PULSE_SECONDS)

    def _watch_for_shutdown(self) -> None:
        """Thread: for as long as the share is silent. What it imports may be on the NAS that is gone."""
        from rpinfs.agent import shutdown

        shutdown.give_up_waiting(
            lambda: self.share.state == "silent",
            self.config.share.where,
            lambda what: _log(4, f"{self.config.server.address} does not answer: {what}"),
        )

    def _renew_leases(self) -> None:
        """Thread: show that this Pi is there, and notice a lock that is gone."""
        if now() < self._renewal_at:
            return
        self._renewal_at = now() + RENEW_SECONDS
        for held in self.held:
            lease = held.prepared.lease if held.prepared else None
            if lease is None:
                continue
            try:
                lease.renew()
            except OSError as error:
                if error.errno in LOST:
                    self._post(self._lease_lost, held, lease, error)
                else:
                    _log(4, f"image {held.image.name}: its lease cannot be renewed: {error.strerror}")

    def _asked(self, when: float) -> None:
        self.share.asked = when

    def _answered(self, answer: os.statvfs_result | OSError, seconds: float) -> None:
        share = self.share
        share.answer = seconds
        share.asked = None
        if isinstance(answer, OSError):
            share.error = f"{self.config.share.where}: {answer.strerror}"
        else:
            share.error = ""
            share.size = answer.f_blocks * answer.f_frsize
            share.free = answer.f_bavail * answer.f_frsize

    # What systemd is told

    def _maybe_ready(self) -> None:
        """READY as soon as nothing is being prepared; a late share does not hold the boot up, see `_help_late`."""
        if self.ready_at is None:
            if any(held.state == "preparing" for held in self.held):
                self._notify(f"EXTEND_TIMEOUT_USEC={_EXTENSION_USEC}")
            else:
                self.ready_at = now()
                self._notify("READY=1")

    def _help_late(self) -> None:
        """Start what systemd gave up on: a share that came late, and images that could be attached only then."""
        if self.ready_at is None or now() < max(self._next_try, self.ready_at + GRACE_SECONDS):
            return
        wanted: list[str] = []
        boot = self.config.boot
        if self._share_came_late and boot and storage.mount_at(self._mounts, boot.where) is None:
            # Once: the same NAS was away when systemd tried it.
            wanted.append(mount_unit(boot.where))
        self._share_came_late = False
        if self.share.state == "waiting":
            wanted.append(mount_unit(self.config.share.where))
        for held in self.held:
            if held.state == "attached" and now() - held.since > (0 if held.late else GRACE_SECONDS):
                held.late = True
                wanted += [mount_unit(where) for where in (held.image.where, *held.image.bind)]
            elif held.state == "lost" and held.stopped:
                wanted += self._mounts_to_bring_back(held)
        if wanted:
            self._next_try = now() + self._retry_wait
            # Each try that is refused leaves lines in the journal.
            self._retry_wait = min(self._retry_wait * 1.5, RETRY_SECONDS[1])
            self._start_units(wanted)
        else:
            self._retry_wait = RETRY_SECONDS[0]

    def _start_refused_units(self) -> None:
        """Start what wanted to start while the NAS was silent, where the gate, which writes, has met its time-out."""
        from rpinfs.system import systemd

        try:
            refused = systemd.unit_states([GATE])[GATE].active == "failed"
        except RpinfsError as error:
            _log(4, error.message)
            return
        for held in self.held:
            if refused and held.state == "mounted":
                self._start_waiting_units(held, "can be reached again")

    def _start_waiting_units(self, held: Held, why: str) -> None:
        """Start the enabled units that the gate has refused."""
        from rpinfs.system import systemd

        # A socket that met the gate too often has failed (rule 11 of boot.units): it listens again.
        sockets = [f"{name.removesuffix('.service')}.socket" for name in held.image.before]
        try:
            states = systemd.unit_states([*held.image.before, *sockets])
        except RpinfsError as error:
            _log(4, error.message)
            return
        wanted = [
            name
            for name, state in states.items()
            if state.enabled == "enabled"
            and state.active in (("failed",) if name in sockets else ("inactive", "failed"))
        ]
        if wanted:
            _log(5, f"image {held.image.name} {why}; starting {' '.join(wanted)}")
            self._start_units(wanted)

    def _start_units(self, names: list[str]) -> None:
        # Imported here: pystemd costs half a thousand requests on a cold root, and an ordinary boot has no need of it.
        from rpinfs.system import systemd

        for name in names:
            try:
                systemd.start_unit(name)
            except RpinfsError as error:
                _log(4, error.message)

    def _tell(self) -> None:
        self._notify("WATCHDOG=1")
        status = self._status_line()
        if status != self._told:
            self._told = status
            self._notify(f"STATUS={status}")
        self._publish_state()

    def _status_line(self) -> str:
        parts = []
        if self.share.state != "mounted":
            parts.append(f"{self.share.message}, since {_duration(now() - self.share.since)}")
        parts += [f"{held.image.name}: {held.message}" for held in self.held if self.share.state != "waiting"]
        if self.share.free is not None and self.share.size and self.share.state == "mounted":
            parts.append(f"share {100 - 100 * self.share.free // self.share.size}% full")
        return (
            "; ".join(parts).encode("ascii", "replace").decode() or "nothing to do: all mount points are in /etc/fstab"
        )

    def _notify(self, *lines: str) -> None:
        self._notifier.notify("\n".join(lines))

    def _publish_state(self) -> None:
        """Write what is known to `gate.STATE_FILE`, whole or not at all, for the gate and `rpinfs status`."""
        import json

        share = {
            key: getattr(self.share, key) for key in ("state", "since", "message", "remedy", "size", "free", "answer")
        }
        images = {held.image.name: _image_state(held) for held in self.held}
        text = json.dumps({"version": 1, "pid": os.getpid(), "since": self.started, "share": share, "images": images})
        if text == self._published:
            return
        self._published = text
        _replace(gate.STATE_FILE, lambda path: _write(path, text))

    # The end

    def _stop(self) -> int:
        """Let go. What is mounted stays mounted, and keeps its loop device; at shutdown it is unmounted by now."""
        self._notify("STOPPING=1", "STATUS=stopping")
        self._read_mounts()
        self._end_leftovers()
        for held in self.held:
            if held.prepared is None:
                continue
            if not self._is_mounted(held.image):
                for path in (link_of(held.image), gate.uuid_file(held.image)):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
            # The last one to close a loop device detaches it, and so frees the share for its unmounting.
            held.prepared.close()
        if self.share.state != "mounted":
            from rpinfs.agent import shutdown

            shutdown.abort_until_detached([held.image for held in self.held], self.config.share.where)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(gate.STATE_FILE)
        # Not sys.exit: a thread that waits for a dead NAS must not keep the shutdown waiting.
        sys.stderr.flush()
        os._exit(0)

    def _end_leftovers(self) -> None:
        """Containers of a Docker that has stopped would keep the image mounted, and the share with it."""
        unmounted = [held.image for held in self.held if storage.mount_at(self._mounts, held.image.where) is None]
        busy = [image for image in unmounted if storage.is_in_use(image.path)]
        if not busy:
            return
        # Imported here: the root may be on a NAS that is gone, and an ordinary stop is not to wait for it.
        from rpinfs.agent import shutdown

        try:
            if killed := shutdown.end_leftovers(busy, self.config.share.where):
                _log(5, f"killed what kept an image in use after Docker's end: {' '.join(killed)}")
        except OSError as error:
            _log(4, f"what keeps an image in use cannot be ended: {error}")


def _give_up(failure: threading.ExceptHookArgs) -> None:
    """End the agent when one of its threads does: without it the agent would look alive and do nothing."""
    sys.excepthook(failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
    sys.stderr.flush()
    os._exit(1)


def _publish(image: Image, prepared: prepare.Prepared, *, found: bool = False) -> None:
    """Point /run/rpinfs/NAME at the loop device, and write down which file system was verified on it.

    What an earlier agent wrote of an image that was `found` attached stays: it has verified it.
    """
    if not found or not os.path.exists(gate.uuid_file(image)):
        verified = gate.Verified.of(image, prepared.uuid, os.path.basename(prepared.path))
        _replace(gate.uuid_file(image), lambda path: _write(path, verified.text))
    _replace(link_of(image), lambda path: os.symlink(prepared.path, path))


def _replace(path: str, make: Callable[[str], None]) -> None:
    """Make something that is there whole or not at all."""
    temporary = f"{RUNTIME_FOLDER}/.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    make(temporary)
    os.replace(temporary, path)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        # Nothing in it is secret, and `rpinfs status` is for everybody.
        os.fchmod(file.fileno(), 0o644)
        file.write(text)


def _image_state(held: Held) -> dict[str, object]:
    prepared = held.prepared
    return {
        "state": held.state,
        "since": held.since,
        "message": held.message,
        "remedy": held.remedy,
        "file": held.image.path,
        "loop": prepared.loop if prepared else "",
        "direct_io": prepared.direct_io if prepared else None,
        "size": prepared.size if prepared else None,
        "allocated": prepared.allocated if prepared else None,
        "clean": prepared.clean if prepared else None,
        "not_grown": prepared.not_grown if prepared else "",
    }


def _found_clean(image: Image) -> bool | None:
    """What an agent that was killed had published of the state in which it found an image that is mounted now."""
    said = gate.agent_state().get("images", {}).get(image.name, {})
    clean = said.get("clean") if isinstance(said, dict) else None
    return clean if isinstance(clean, bool) else None


def _mounted_message(held: Held) -> str:
    prepared = held.prepared
    how = "" if prepared is None else ", direct I/O" if prepared.direct_io else ", buffered (no direct I/O)"
    size = "" if prepared is None or not prepared.not_grown else f"; not grown: {prepared.not_grown}"
    return f"mounted at {held.image.where}{how}{size}"


def _share_remedy(config: Config) -> str:
    server = config.server.address
    return f"look whether {server} is up and exports {config.share.export}: showmount -e {quoted(server)}"


def _duration(seconds: float) -> str:
    """A length of time for people, coarse enough not to change at every tick."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds // 10 * 10:.0f} s"
