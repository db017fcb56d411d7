"""What the agent's worker does to real images on real loop devices, when the share or another Pi fails it."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from rpinfs.agent import do, picture, work
from rpinfs.agent.case import LEASE_RETRY_SECONDS, SHARE_RETRY_SECONDS
from rpinfs.agent.picture import Leased, LetGo, Ready, Refusal, Result
from rpinfs.agent.states import Action, Do
from rpinfs.agent.work import Pulse, Room, Share, Worker
from rpinfs.boot import gate, storage, units
from rpinfs.boot.config import Image, load
from rpinfs.boot.host import Host
from rpinfs.image import prepare
from rpinfs.image.prepare import Prepared
from rpinfs.lease import lease
from rpinfs.lease.lease import LOST, Lease, Owner, TakenError
from rpinfs.system import files, loop
from tests.support import make_pi
from tests.tools.conftest import command

pytestmark = pytest.mark.root

OWNER, OTHER = Owner("10000000a1b2c3d4", "pi"), Owner("2", "pi2")


@dataclass
class Place:
    """An image on a share of its own, a tmpfs; what is held is let go of at the end."""

    image: Image
    folder: Path
    below: Path
    held: list[Prepared] = field(default_factory=list)

    @property
    def share(self) -> Share:
        mount = storage.mount_at(picture.mount_table(), str(self.folder))
        assert mount is not None
        return Share(str(self.folder), mount.number, mount.device)

    def do(self, what: Do, held: Prepared | None = None, loop: str = "", share: Share | None = None) -> Result:
        action = Action(what, loop=loop)
        result, made = work.attempt(
            self.image, lambda: work.do(self.image, action, share or self.share, held, OWNER, lambda _: None)
        )
        if made is not None:
            self.held.append(made)
        return result

    @property
    def prepared(self) -> Prepared:
        return self.held[-1]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    folder = tmp_path / "share"
    folder.mkdir()
    run = tmp_path / "run"
    run.mkdir()
    for module in (do, gate, units):
        monkeypatch.setattr(module, "RUNTIME_FOLDER", str(run))
    where = tmp_path / "where"
    where.mkdir()
    config = f"[Share]\nWhere={folder}\n[Image docker]\nSize=64M\nFileSystem=ext4\nWhere={where}\nBind=\n"
    host = Host.read(str(make_pi(tmp_path / "root", config)))
    command("mount", "-t", "tmpfs", "-o", "size=300M", "tmpfs", str(folder))
    made = Place(load(host).images[0], folder, folder)
    try:
        yield made
    finally:
        subprocess.run(["umount", "--lazy", str(where)], capture_output=True, check=False)
        for held in made.held:
            held.close()
        while subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False).returncode == 0:
            pass


def test_prepared_is_on_the_share_and_leased(place: Place) -> None:
    result = place.do(Do.PREPARE)
    assert isinstance(result, Ready), result
    assert result.loop == place.prepared.loop and result.how in (", direct I/O", ", buffered (no direct I/O)")
    assert place.prepared.lease and place.prepared.lease.pin
    assert any("made" in remark for remark in result.remarks)


def test_nothing_is_made_below_a_share_that_is_gone(place: Place) -> None:
    """The share is unmounted between the look and the work: by its name, the image would be made on the root."""
    share = place.share
    command("umount", "--lazy", str(place.folder))
    result = place.do(Do.PREPARE, share=share)
    assert isinstance(result, Refusal) and result.again == SHARE_RETRY_SECONDS
    assert "is not the share any more" in result.message
    assert list(place.folder.iterdir()) == []


def test_nothing_is_made_on_what_was_mounted_meanwhile(place: Place) -> None:
    share = place.share
    command("mount", "-t", "tmpfs", "tmpfs", str(place.folder))
    assert isinstance(place.do(Do.PREPARE, share=share), Refusal)
    assert list(place.folder.iterdir()) == []


def test_a_share_that_goes_in_the_middle_leaves_nothing_below(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """umount -l in the instant before the lock is made, and before the image is."""
    opened = files.open_on_share

    def gone(path: str, flags: int, mode: int = 0o600) -> int:
        monkeypatch.setattr(files, "open_on_share", opened)
        command("umount", "--lazy", str(place.folder))
        return opened(path, flags, mode)

    monkeypatch.setattr(files, "open_on_share", gone)
    assert isinstance(place.do(Do.PREPARE), Refusal)
    assert list(place.folder.iterdir()) == []


def test_a_share_without_room_is_tried_again(place: Place) -> None:
    command("mount", "-o", "remount,size=64k", str(place.folder))
    result = place.do(Do.PREPARE)
    assert isinstance(result, Refusal) and "free" in result.message and result.again == SHARE_RETRY_SECONDS
    assert list(place.folder.glob("*.img")) == []
    command("mount", "-o", "remount,size=300M", str(place.folder))
    assert isinstance(place.do(Do.PREPARE), Ready)


def test_what_is_refused_is_left_alone(place: Place) -> None:
    path = Path(place.image.path)
    path.write_bytes(b"precious" * 1000)
    result = place.do(Do.PREPARE)
    assert isinstance(result, Refusal) and result.again is None and not result.by_other
    assert path.read_bytes() == b"precious" * 1000


ERRORS: list[tuple[Exception, str, float | None]] = [
    (OSError(errno.ESTALE, os.strerror(errno.ESTALE)), "Stale file handle", SHARE_RETRY_SECONDS),
    (RecursionError("deep"), "found what rpinfs does not understand: RecursionError", SHARE_RETRY_SECONDS),
    (ZeroDivisionError(), "found what rpinfs does not understand: ZeroDivisionError", SHARE_RETRY_SECONDS),
    (TakenError("it is pi2's"), "it is pi2's", LEASE_RETRY_SECONDS),
    (lease.OwnLockError("our own"), "our own", LEASE_RETRY_SECONDS),
    (loop.LoopError("no device"), "no device", SHARE_RETRY_SECONDS),
]


@pytest.mark.parametrize(("error", "words", "again"), ERRORS, ids=lambda value: type(value).__name__)
def test_every_error_is_one_images_refusal(place: Place, error: Exception, words: str, again: float | None) -> None:
    def fail() -> work.Outcome:
        raise error

    result, made = work.attempt(place.image, fail)
    assert isinstance(result, Refusal) and words in result.message and result.again == again and made is None
    assert result.by_other is isinstance(error, TakenError)


def test_a_damaged_record_refuses_its_image_and_no_more(place: Place) -> None:
    (place.folder / f".{Path(place.image.path).name}.rpinfs-owner").write_text("[" * 4096)
    result = place.do(Do.PREPARE)
    assert isinstance(result, Refusal) and not result.by_other


# An image that is attached already


def test_let_go_is_really_detached_and_then_unlocked(place: Place) -> None:
    place.do(Do.PREPARE)
    name = place.prepared.loop
    assert place.do(Do.LET_GO, place.prepared) == LetGo(True)
    assert storage.loop_state(name) is None and storage.loops_on(place.image.path) == []
    lease.acquire(place.image.path, OWNER, take_up=False).close()


def test_a_device_that_somebody_has_open_is_not_let_go(place: Place) -> None:
    place.do(Do.PREPARE)
    fd = os.open(place.prepared.path, os.O_RDONLY)
    assert place.do(Do.LET_GO, place.prepared) == LetGo(False)
    assert place.prepared.lease is not None, "the lock stays for as long as it is attached"
    os.close(fd)
    assert place.do(Do.LET_GO, place.prepared) == LetGo(True)


def test_what_is_mounted_is_recognised_whatever_its_name(place: Place) -> None:
    place.do(Do.PREPARE)
    device, name = place.prepared.path, place.prepared.loop
    command("mount", device, place.image.where)
    place.prepared.close()
    result = place.do(Do.RECOGNISE, loop=name)
    assert isinstance(result, Ready) and place.prepared.uuid
    assert place.prepared.lease and place.prepared.lease.pin, "kept by the kernel, whatever becomes of the agent"
    assert place.do(Do.RECOGNISE, loop="loop999") == Refusal(
        f"{place.image.where} is not image docker: /dev/loop999 is mounted there",
        "find out who mounted it, and unmount it", again=SHARE_RETRY_SECONDS,
    )  # fmt: skip


def test_what_has_no_lease_is_recognised_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fence=mmp."""
    monkeypatch.setattr(place.image, "fence", "mmp")
    place.do(Do.PREPARE)
    command("mount", place.prepared.path, place.image.where)
    result = place.do(Do.RECOGNISE, loop=place.prepared.loop)
    assert isinstance(result, Ready) and place.prepared.lease is None


def test_what_another_pi_has_is_not_recognised(place: Place) -> None:
    """Mounted here by hand: nobody publishes it as verified."""
    place.do(Do.PREPARE)
    device, name = place.prepared.path, place.prepared.loop
    command("mount", device, place.image.where)
    held = place.held.pop()
    assert held.lease
    held.lease.close()
    held.device.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "is_attached", lambda *_: False)
        lease.adopt(place.image.path, OTHER, now=True)
    result = place.do(Do.RECOGNISE, loop=name)
    assert isinstance(result, Refusal) and result.by_other and "belongs to pi2 (serial 2)" in result.message
    command("umount", place.image.where)


@pytest.mark.parametrize("fence", ["lease", "mmp"])
def test_what_cannot_be_opened_is_left_without_a_lease(
    place: Place, monkeypatch: pytest.MonkeyPatch, fence: str
) -> None:
    place.do(Do.PREPARE)
    name = place.prepared.loop
    command("mount", place.prepared.path, place.image.where)
    place.prepared.close()
    left: list[Lease] = []
    monkeypatch.setattr(place.image, "fence", fence)

    def hold(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(work, "hold", hold)
        patch.setattr(Lease, "leave", lambda one: left.append(one))  # noqa: PLW0108 - a method is bound
        result = place.do(Do.RECOGNISE, loop=name)
    assert isinstance(result, Refusal) and "Cannot allocate memory" in result.message
    assert len(left) == (fence == "lease")
    for one in left:
        one.close()
    # What is mounted keeps its lock, until somebody takes that up.
    command("umount", place.image.where)
    lease.acquire(place.image.path, OWNER).close()


def test_a_restarted_agent_finds_its_image_by_the_device(place: Place) -> None:
    """Renamed on the NAS while it is mounted: link and UUID prove it, and its name proves nothing."""
    place.do(Do.PREPARE)
    command("mount", place.prepared.path, place.image.where)
    do.publish(place.image, place.prepared)
    os.rename(place.image.path, f"{place.image.path}.moved")
    mounts = picture.mount_table()
    assert picture.image_facts(place.image, "", mounts, {}).proven == place.prepared.loop
    held, made = work.hold(place.image, place.prepared.loop)
    assert held.loop == place.prepared.loop and made.uuid == place.prepared.uuid
    made.device.close()
    do.clean([place.image])
    assert os.path.exists(gate.uuid_file(place.image)), "it is mounted: its link stays"


def test_a_link_that_leads_nowhere_is_taken_away(place: Place) -> None:
    """The agent was killed: the device of that number is anybody's next."""
    place.do(Do.PREPARE)
    do.publish(place.image, place.prepared)
    do.clean([place.image])
    assert not os.path.lexists(units.link_of(place.image)) and not os.path.exists(gate.uuid_file(place.image))


def test_another_file_system_at_the_link_proves_nothing(place: Place) -> None:
    place.do(Do.PREPARE)
    command("mount", place.prepared.path, place.image.where)
    do.publish(place.image, place.prepared)
    file = Path(gate.uuid_file(place.image))
    uuid, sequence, path = file.read_text().splitlines()
    for text in (f"00000000-0000-0000-0000-000000000000\n{sequence}\n{path}\n", f"{uuid}\n{sequence}0\n{path}\n", ""):
        file.write_text(text)
        assert picture.image_facts(place.image, "", picture.mount_table(), {}).proven == ""


# The lease


def test_a_lost_lock_is_taken_again(place: Place) -> None:
    place.do(Do.PREPARE)
    assert place.prepared.lease
    place.prepared.lease.close()
    assert place.do(Do.LEASE, place.prepared) == Leased()
    assert place.prepared.lease and place.prepared.lease.pin


class Mute:
    """A Pi that has nothing to say: whatever is asked of it fails."""

    def is_new(self, image: Image) -> bool:
        raise OSError(errno.EIO, image.name)

    def record(self, image: Image) -> bytes:
        raise OSError(errno.EIO, image.name)

    def measure(self, image: Image, loop: str) -> Room | None:
        raise OSError(errno.EIO, image.name + loop)


def pulse_of(place: Place, told: list[Exception]) -> Pulse:
    held = place.prepared
    assert held.lease
    return Pulse(
        str(place.folder), OWNER, lambda event, *args: event(*args), lambda: [(place.image, held.lease, held.loop)],  # type: ignore[list-item]
        lambda _name, _lease, error: told.append(error), Mute,
    )  # fmt: skip


def test_renewing_tells_a_lost_lock_from_a_full_nas_and_from_another_pi(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.do(Do.PREPARE)
    told: list[Exception] = []
    pulse = pulse_of(place, told)
    pulse.renew(place.share)
    assert told == []
    for number, lost in ((errno.EIO, True), (errno.ENOSPC, False)):
        with monkeypatch.context() as patch:
            patch.setattr(Lease, "renew", failing(number))
            pulse.renew(place.share)
        error = told.pop()
        assert isinstance(error, OSError) and (error.errno in LOST) is lost
    record = place.folder / f".{Path(place.image.path).name}.rpinfs-owner"
    record.write_text(record.read_text().replace(OWNER.serial, "2"))
    pulse.renew(place.share)
    assert isinstance(told.pop(), TakenError)
    record.write_text("[" * 4096)
    pulse.renew(place.share)
    assert not isinstance(told.pop(), TakenError | OSError)


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


# The pulse


class Ticking(threading.Event):
    """The clock of a pulse: nothing waits, and after some rounds it is stopped."""

    def __init__(self, rounds: int, *, answers_after: float = 0.0) -> None:
        super().__init__()
        self.now, self.rounds, self.answers_after = 1000.0, rounds, answers_after
        self.waited: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        self.now += timeout or 0.0
        if len(self.waited) == self.rounds:
            self.set()
        return self.is_set()

    def statvfs(self, _path: str) -> os.statvfs_result:
        self.now += self.answers_after
        return os.statvfs_result((4096, 1024, 100, 50, 40, 0, 0, 0, 0, 255))


def a_pulse(monkeypatch: pytest.MonkeyPatch, ticking: Ticking) -> tuple[Pulse, list[float]]:
    """A pulse and when it renews the leases."""
    renewed: list[float] = []
    monkeypatch.setattr(work, "now", lambda: ticking.now)
    monkeypatch.setattr(os, "statvfs", ticking.statvfs)
    monkeypatch.setattr(Pulse, "renew", lambda *_: renewed.append(ticking.now))
    pulse = Pulse("/share", OWNER, lambda event, *args: event(*args), list, lambda *_: None, Mute)
    pulse.mount = 1
    return pulse, renewed


def test_the_share_is_asked_every_half_minute_and_leases_are_renewed_every_three(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticking = Ticking(13)
    pulse, renewed = a_pulse(monkeypatch, ticking)
    pulse._run(Share("/share", 1, None), ticking)
    assert ticking.waited == [30.0] * 13 and renewed == [1000.0, 1180.0, 1360.0]
    assert (pulse.size, pulse.free, pulse.answer) == (100 * 1024, 40 * 1024, 0.0), "in fragments"
    assert (pulse.asked, pulse.error) == (None, "")


@pytest.mark.parametrize(("seconds", "times"), [(2.0, 1), (2.1, 3)])
def test_after_a_silence_leases_are_renewed_at_once(
    monkeypatch: pytest.MonkeyPatch, seconds: float, times: int
) -> None:
    """Another Pi may have been given the lock meanwhile."""
    ticking = Ticking(3, answers_after=seconds)
    pulse, renewed = a_pulse(monkeypatch, ticking)
    pulse._run(Share("/share", 1, None), ticking)
    assert len(renewed) == times and renewed[0] == 1000.0 + seconds
    assert pulse.answer == pytest.approx(seconds)


def test_an_error_is_an_answer_and_the_figures_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    pulse, renewed = a_pulse(monkeypatch, Ticking(1))
    pulse.size, pulse.free = 10, 4
    ticking = Ticking(1)
    monkeypatch.setattr(os, "statvfs", failing(errno.ESTALE))
    pulse._run(Share("/share", 1, None), ticking)
    assert (pulse.asked, pulse.error) == (None, "/share: Stale file handle")
    assert (pulse.size, pulse.free) == (10, 4) and len(renewed) == 1


# Threads


def test_what_is_told_of_how_an_image_is_attached(place: Place) -> None:
    place.do(Do.PREPARE)
    made = place.prepared
    kinds = {True: ", direct I/O", False: ", buffered (no direct I/O)"}
    for direct, words in kinds.items():
        made.device.direct_io = direct
        for not_grown, more in (("", ""), ("it is frozen", "; not grown: it is frozen")):
            made.not_grown = not_grown
            assert work.how_of(made) == words + more


def test_no_thread_keeps_an_agent_alive_whose_main_thread_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may wait for a NAS that is gone, and systemd would start no other."""
    begun: list[tuple[object, object]] = []

    def thread(*, daemon: bool = False, name: str = "", **_: object) -> SimpleNamespace:
        return SimpleNamespace(start=lambda: begun.append((name, daemon)))

    monkeypatch.setattr(threading, "Thread", thread)
    image = cast("Image", SimpleNamespace(name="docker"))
    Pulse("/share", OWNER, lambda *_: None, list, lambda *_: None, Mute).watch(1, None)
    worker = Worker(OWNER, lambda *_: None, lambda *_: None, lambda *_: None)
    worker.start(image, Action(Do.PREPARE), Share("", 1, None), None)
    late = cast("Prepared", SimpleNamespace(close=lambda: None))
    worker._done((image, Action(Do.PREPARE), Share("", 2, None)), Ready("loop3"), late)
    assert begun == [("pulse", True), ("worker", True), ("abandoned", True)]


def test_what_the_worker_says_counts_for_what_it_is_at() -> None:
    told: list[tuple[str, str]] = []
    image = cast("Image", SimpleNamespace(name="docker"))
    worker = Worker(OWNER, lambda *_: None, lambda *_: None, lambda *said: told.append(said))
    worker._job = job = (image, Action(Do.PREPARE), Share("", 1, None))
    worker._progress(job, "checking")
    worker._progress((image, Action(Do.PREPARE), Share("", 2, None)), "of before")
    assert told == [("docker", "checking")]


def test_one_pulse_for_each_mount_and_its_answers_are_its_own(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """umount -l and a new mount: the thread of the old one hangs for ever, and the new one is asked all the same."""
    hangs, asked = threading.Event(), threading.Event()
    first = threading.Event()

    def statvfs(path: str) -> os.statvfs_result:
        if not first.is_set():
            first.set()
            hangs.wait(30)
            raise OSError(errno.ESTALE, "of the old mount")
        asked.set()
        return real(path)

    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", statvfs)
    answered = threading.Event()

    def post(event: Callable[..., None], *arguments: object) -> None:
        event(*arguments)
        if event == pulse._answered:
            answered.set()

    pulse = Pulse(str(place.folder), OWNER, post, list, lambda *_: None, Mute)

    def state() -> tuple[bool, bool, str]:
        return pulse.asked is not None, pulse.size is not None, pulse.error

    pulse.watch(1, None)
    assert first.wait(10)
    assert state() == (True, False, "")
    pulse.watch(2, None)
    assert asked.wait(10)
    assert answered.wait(10)
    assert state() == (False, True, "")
    answered.clear()
    hangs.set()
    assert answered.wait(10)
    assert state() == (False, True, ""), "an answer of the old mount says nothing of the new one"
    pulse.watch(None, None)


def test_the_worker_does_one_thing_and_what_hangs_with_an_old_mount_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, hangs, ended = threading.Event(), threading.Event(), threading.Event()

    def hang(*_: object) -> Prepared:
        started.set()
        hangs.wait(30)
        raise OSError(errno.ESTALE, "stale")

    monkeypatch.setattr(prepare, "prepare", hang)
    done: list[Result] = []

    def post(event: Callable[..., None], *arguments: object) -> None:
        event(*arguments)
        ended.set()

    worker = Worker(OWNER, post, lambda _name, result, _made: done.append(result), lambda *_: None)
    share = place.share
    worker.start(place.image, Action(Do.PREPARE), share, None)
    assert started.wait(10) and worker.busy == "docker"
    with pytest.raises(AssertionError, match="being worked on"):
        worker.start(place.image, Action(Do.PREPARE), share, None)
    worker.abandon(share.mount)
    assert done == [], "its mount is there still"
    worker.abandon(None)
    assert done == [Refusal(f"{share.where} was unmounted meanwhile", again=LEASE_RETRY_SECONDS)]
    hangs.set()
    assert ended.wait(10)
    assert len(done) == 1, "what comes too late is nobody's fact"


ROOM = Room(1.0, 100, 40, 70)


@dataclass
class Voice:
    """A Pi that has something to say."""

    new: bool = False
    said: bytes = b"{}"
    measured: list[str] = field(default_factory=list)

    def is_new(self, _: Image) -> bool:
        return self.new

    def record(self, _: Image) -> bytes:
        self.new = False
        return self.said

    def measure(self, _: Image, loop: str) -> Room | None:
        self.measured.append(loop)
        return ROOM if len(self.measured) == 1 else None


def test_what_a_pi_says_comes_with_the_renewal_and_news_bring_that_forward(place: Place) -> None:
    place.do(Do.PREPARE)
    told: list[Exception] = []
    pulse, voice = pulse_of(place, told), Voice()
    pulse._make_saying = lambda: voice
    lock = Path(lease.path_of(place.image.path))
    rounds = iter([(False, b"{1}"), (False, b"{2}"), (True, b"{3}")])
    read: list[bytes] = []

    class Ends(threading.Event):
        def wait(self, _: float | None = None) -> bool:
            read.append(lock.read_bytes()[:3])
            try:
                voice.new, voice.said = next(rounds)
            except StopIteration:
                self.set()
            return True

    pulse._run(place.share, Ends())
    assert read == [b"{}\0", b"{}\0", b"{}\0", b"{3}"], "at first, then not before its time, then for the news"
    assert told == [] and voice.measured == [place.prepared.loop] * 2
    assert pulse.rooms == {place.image.name: ROOM}, "what is not known any more is what was seen last"


def test_a_pi_that_cannot_say_anything_renews_all_the_same_and_complains_once(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    place.do(Do.PREPARE)
    told: list[Exception] = []
    pulse = pulse_of(place, told)
    lock = lease.path_of(place.image.path)
    os.utime(lock, (0, 0))
    for _ in range(2):
        assert not pulse._has_news()
        pulse.renew(place.share)
    assert os.stat(lock).st_mtime > 0 and Path(lock).read_bytes()[:1] == b"\n" and told == []
    assert capfd.readouterr().err.count("Traceback") == 1
