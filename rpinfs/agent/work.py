"""What is done on the share, in threads: one worker that does one action at a time, and a pulse for each mount.

Whatever may hang with the NAS hangs here. What comes of it goes to the main thread by `post`, and is a fact there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

from rpinfs.agent.case import LEASE_RETRY_SECONDS, SHARE_RETRY_SECONDS
from rpinfs.agent.picture import Held, Leased, LetGo, Ready, Refusal, Result
from rpinfs.agent.states import Action, Do
from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.values import dataclass
from rpinfs.errors import RpinfsError
from rpinfs.image import prepare
from rpinfs.image.errors import ShareFailedError
from rpinfs.image.prepare import Prepared
from rpinfs.lease.lease import RENEW_SECONDS, Lease, LeaseError, Owner, TakenError, acquire, still_ours
from rpinfs.lease.lock import NOTHING
from rpinfs.system import loop
from rpinfs.system.files import on_share, stat_on_share
from rpinfs.system.trouble import remedy_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeVar

    T = TypeVar("T")

    class Saying(Protocol):
        """What there is to say of this Pi with a renewal: beside.py."""

        def is_new(self, image: Image) -> bool:
            """Whether that is worth a renewal before its time."""

        def record(self, image: Image) -> bytes:
            """What to write."""

        def measure(self, image: Image, loop: str) -> Room | None:
            """Learn the room of an image, for the next record; None where it is not known."""


PULSE_SECONDS = 30.0
"""How often the share is asked whether it answers, and how full it is."""

_LOOKS, _SECONDS_BETWEEN_LOOKS = 40, 0.025

Post = Callable[..., None]
"""Has the main thread call a function, with arguments: the only way out of a thread."""


def now() -> float:
    """Seconds since the boot. A Pi has no clock of its own: the wall clock may be in 1970, and jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Share:
    """The mount that an action was decided for: by the time it is done, something else may be mounted there."""

    where: str
    mount: int | None
    device: tuple[int, int] | None


Done = Callable[[str, Result, Prepared | None], None]
"""Takes the name of an image, what came of an action, and what is held open by it."""


class Worker:
    """One thread for one action. Methods are for the main thread."""

    def __init__(self, owner: Owner, post: Post, done: Done, progress: Callable[[str, str], None]) -> None:
        self._owner = owner
        self._post = post
        self._tell_done, self._tell_progress = done, progress
        self._job: tuple[Image, Action, Share] | None = None

    @property
    def busy(self) -> str:
        """Name of the image that it is at; empty where it is free."""
        return self._job[0].name if self._job else ""

    def start(self, image: Image, action: Action, share: Share, held: Prepared | None) -> None:
        """Do an action on an image, of which `held` is open."""
        assert self._job is None, f"{self.busy} is being worked on"
        self._job = job = (image, action, share)
        threading.Thread(target=self._run, args=(job, held), daemon=True, name="worker").start()

    def abandon(self, mount: int | None) -> None:
        """Wait no longer for what hangs with a mount that is not there any more (umount -l): it may be for ever."""
        if self._job is None or self._job[1].do is Do.LET_GO or self._job[2].mount == mount:
            return
        image, _, share = self._job
        self._job = None
        self._tell_done(image.name, Refusal(f"{share.where} was unmounted meanwhile", again=LEASE_RETRY_SECONDS), None)

    def _run(self, job: tuple[Image, Action, Share], held: Prepared | None) -> None:
        image, action, share = job
        progress = partial(self._post, self._progress, job)
        result, made = attempt(image, lambda: do(image, action, share, held, self._owner, progress))
        self._post(self._done, job, result, made)

    def _progress(self, job: tuple[Image, Action, Share], message: str) -> None:
        if job is self._job:
            self._tell_progress(job[0].name, message)

    def _done(self, job: tuple[Image, Action, Share], result: Result, made: Prepared | None) -> None:
        if job is self._job:
            self._job = None
            self._tell_done(job[0].name, result, made)
        elif made is not None:
            # Too late, and not to be known to anybody. Closing it may hang, too.
            threading.Thread(target=made.close, daemon=True, name="abandoned").start()


Outcome = tuple[Result, Prepared | None]


def attempt(image: Image, action: Callable[[], Outcome]) -> Outcome:
    """Do something for an image; whatever goes wrong is that image's trouble, and nobody else's."""
    try:
        return action()
    except RpinfsError as error:
        return refusal_of(error), None
    except OSError as error:
        message = f"{image.path}: {error.strerror or error}"
        return Refusal(message, remedy_of(error), again=SHARE_RETRY_SECONDS), None
    except Exception as error:  # noqa: BLE001 - files of one image that break our code do not stop the others
        import traceback

        traceback.print_exc()
        message = f"{image.path}: expected an image, found what rpinfs does not understand: {type(error).__name__}"
        return Refusal(message, "journalctl -u rpinfs-agent", again=SHARE_RETRY_SECONDS), None


def refusal_of(error: RpinfsError) -> Refusal:
    """What an error means: what passes by itself is tried again."""
    again: float | None = None
    if isinstance(error, LeaseError):
        again = LEASE_RETRY_SECONDS
    elif isinstance(error, ShareFailedError | loop.LoopError):
        # Somebody else's loop device on the image passes as a full share does.
        again = SHARE_RETRY_SECONDS
    return Refusal(error.message, error.remedy or "", isinstance(error, TakenError), again)


def do(
    image: Image, action: Action, share: Share, held: Prepared | None, owner: Owner, progress: Callable[[str], None]
) -> Outcome:
    """Do one action. Raises RpinfsError, OSError, or whatever a hostile file leads to."""
    if action.do is Do.LET_GO:
        return (let_go(held) if held is not None else LetGo(True)), None
    with on_share(share.where, share.device):
        if action.do is Do.LEASE:
            assert held is not None
            _take_lease(image, held, owner)
            return Leased(), None
        if action.do is Do.RECOGNISE:
            made = recognise(image, action.loop, owner)
        else:
            made = prepare.prepare(image, owner, progress)
        _insist_on_share(image, made)
    return Ready(made.loop, how_of(made), tuple(made.remarks)), made


def _insist_on_share(image: Image, made: Prepared) -> None:
    """By device and inode, not by name: the share may have been unmounted since, and what is below it is the root."""
    try:
        found = stat_on_share(image.path)
        if (found.st_dev, found.st_ino) != made.device.identity():
            raise ShareFailedError(
                f"{image.path}: what was attached is not on the share: that was mounted anew meanwhile"
            )
    except BaseException:
        made.close()
        raise


def how_of(made: Prepared) -> str:
    """What the sentence on a mounted image says of its kind of I/O and its size."""
    how = ", direct I/O" if made.direct_io else ", buffered (no direct I/O)"
    return how + (f"; not grown: {made.not_grown}" if made.not_grown else "")


def hold(image: Image, name: str) -> tuple[Held, Prepared]:
    """Open a device that is attached and mounted already, without a look at the share. Raises RpinfsError."""
    device = loop.hold(f"/dev/{name}")
    uuid = storage.superblock_uuid(device.path)
    made = Prepared(image.path, device, uuid, device.refresh().size, None, None)
    return Held(name, how_of(made)), made


def recognise(image: Image, name: str, owner: Owner) -> Prepared:
    """Find out whether what is mounted in an image's place is that image, and take its lease.

    By device and inode: its name is the one of the time of attaching. Raises RpinfsError, OSError.
    """
    if name not in [found.name for found in loop.find(image.path)]:
        raise ShareFailedError(
            f"{image.where} is not image {image.name}: /dev/{name} is mounted there",
            "find out who mounted it, and unmount it",
        )
    lease = None if image.fence == "mmp" else acquire(image.path, owner, image.name)
    try:
        _, made = hold(image, name)
        if lease is not None:
            lease.keep(made.path)
        made.lease = lease
    except BaseException:
        if lease is not None:
            lease.leave()
        raise
    return made


def _take_lease(image: Image, held: Prepared, owner: Owner) -> None:
    if held.lease is not None:
        # The one that was lost.
        lost, held.lease = held.lease, None
        lost.close()
    lease = acquire(image.path, owner, image.name)
    lease.keep(held.path)
    held.lease = lease


def let_go(held: Prepared) -> LetGo:
    """Close a device, and see that it is detached; the lock goes after it and not before."""
    before = storage.loop_state(held.loop)
    held.device.close()
    for _ in range(_LOOKS):
        now_there = storage.loop_state(held.loop)
        if now_there is None or before is None or now_there.backing_file != before.backing_file:
            if held.lease is not None:
                held.lease.close()
                held.lease = None
            return LetGo(True)
        # The last one to close it detaches it: udev may just be looking.
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return LetGo(False)


# --- The pulse -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Room:
    """How full an image was: when that was seen (monotonic), size and free of its file system, bytes on the NAS."""

    when: float
    size: int
    free: int
    taken: int | None


NotRenewed = Callable[[str, Lease, Exception], None]
"""Takes the name of an image, its lease, and what came of renewing it."""

_LATE_SECONDS = 2.0
"""An answer that took longer came after a silence, in which another Pi may have been given the lock."""


class Pulse:
    """Asks the share whether it answers, and renews the leases: one thread for each mount, which may hang with it.

    What a thread learns belongs to its mount: a share that is mounted anew is asked by a thread of its own.
    """

    def __init__(
        self,
        where: str,
        owner: Owner,
        post: Post,
        leases: Callable[[], Iterable[tuple[Image, Lease, str]]],
        not_renewed: NotRenewed,
        saying: Callable[[], Saying],
    ) -> None:
        self._where = where
        self._owner = owner
        self._post = post
        self._leases = leases
        self._not_renewed = not_renewed
        self._make_saying = saying
        self._saying: Saying | None = None
        self._said_why = False
        self._renewal_at = 0.0
        self._stopped = threading.Event()
        self.renewed: dict[str, float] = {}
        """When the lease of each image was renewed last, by the wall clock."""
        self.rooms: dict[str, Room] = {}
        self.mount: int | None = None
        self.asked: float | None = None
        self.error = ""
        self.answer: float | None = None
        self.size: int | None = None
        self.free: int | None = None

    def watch(self, mount: int | None, device: tuple[int, int] | None) -> None:
        """Ask the mount of this number from now on; None: nothing."""
        if mount == self.mount:
            return
        self._stopped.set()
        self._stopped = threading.Event()
        self.mount, self.asked, self.error = mount, None, ""
        if mount is not None:
            share = Share(self._where, mount, device)
            threading.Thread(target=self._run, args=(share, self._stopped), daemon=True, name="pulse").start()

    def _run(self, share: Share, stopped: threading.Event) -> None:
        while not stopped.is_set():
            self._post(self._asked, share.mount, now())
            begun = now()
            try:
                answer: os.statvfs_result | OSError = os.statvfs(share.where)
            except OSError as error:
                answer = error
            took = now() - begun
            if not stopped.is_set() and (took > _LATE_SECONDS or now() >= self._renewal_at or self._has_news()):
                self._renewal_at = now() + RENEW_SECONDS
                self.renew(share)
            self._post(self._answered, share.mount, answer, took)
            stopped.wait(PULSE_SECONDS)

    def renew(self, share: Share) -> None:
        """Thread: show that this Pi is there, and notice a lock that is gone, or another Pi that is there."""
        for image, lease, device in self._leases():
            try:
                with on_share(share.where, share.device):
                    still_ours(image.path, self._owner, lease, image.name, self._record(image))
                self.renewed[image.name] = time.time()
            except Exception as error:  # noqa: BLE001 - a record that breaks our code is that image's trouble
                self._post(self._not_renewed, image.name, lease, error)
            # Afterwards: nothing that may wait comes before the renewal.
            self._measure(image, device)

    def _has_news(self) -> bool:
        return any(self._is_new(image) for image, _, _ in self._leases())

    def _is_new(self, image: Image) -> bool:
        return self._say(lambda saying: saying.is_new(image)) is True

    def _record(self, image: Image) -> bytes:
        return self._say(lambda saying: saying.record(image)) or NOTHING

    def _measure(self, image: Image, device: str) -> None:
        if (room := self._say(lambda saying: saying.measure(image, device))) is not None:
            self.rooms[image.name] = room

    def _say(self, say: Callable[[Saying], T]) -> T | None:
        """Thread: nothing that this Pi says of itself is worth a renewal."""
        try:
            self._saying = self._saying or self._make_saying()
            return say(self._saying)
        except Exception:  # noqa: BLE001 - also a module of another version, in the middle of an upgrade
            if not self._said_why:
                import traceback

                self._said_why = True
                traceback.print_exc()
            return None

    def _asked(self, mount: int | None, when: float) -> None:
        if mount == self.mount:
            self.asked = when

    def _answered(self, mount: int | None, answer: os.statvfs_result | OSError, seconds: float) -> None:
        if mount != self.mount:
            return
        self.asked, self.answer = None, seconds
        if isinstance(answer, OSError):
            self.error = f"{self._where}: {answer.strerror}"
        else:
            self.error = ""
            self.size = answer.f_blocks * answer.f_frsize
            self.free = answer.f_bavail * answer.f_frsize
