"""The wires: what is known comes to be decided, what is decided done, what came of it known; in one thread."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rpinfs.agent import agent as agents
from rpinfs.agent import do, loss, picture, request, shutdown
from rpinfs.agent.agent import Agent
from rpinfs.agent.picture import Failed, LetGo, Ready, Refusal, Result
from rpinfs.agent.states import Action, Do, Lock, Memory, Owed, ShareMemory, ShareState, State
from rpinfs.agent.work import Share
from rpinfs.boot import gate, storage, units
from rpinfs.boot.config import Image, load
from rpinfs.boot.host import Host
from rpinfs.image.prepare import Prepared
from rpinfs.lease.lease import Lease, TakenError
from tests.support import make_pi, make_tree

CONFIG = "[Image docker]\nFile=docker.img\nBind=\n[Image data]\nFile=data.img\nWhere=/srv/data\nBefore=data.service\n"
ROOT = "30 1 0:38 / / rw - nfs4 192.168.1.10:/nfsroot/pi rw\n42 30 0:41 / /boot/firmware ro - nfs4 x:/tftpboot ro\n"
SHARE = "41 30 0:40 / /nfs/docker rw - nfs4 192.168.1.10:/docker rw\n"
FILE = "/nfs/docker/docker.img"


class Pi:
    """An agent in a world of its own: a mount table, /run, a service manager that listens, a worker that only notes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, config: str = CONFIG, fstab: str = "") -> None:
        self.run = folder / "run"
        self.table = ROOT
        self.now = 100.0
        self.started: list[tuple[str, Action, Share, Prepared | None]] = []
        self.told: list[Action] = []
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.manager.bind(str(folder / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        monkeypatch.setattr(picture, "mount_table", lambda: storage.parse_mountinfo(self.table))
        monkeypatch.setattr(do, "mount_table", lambda: storage.parse_mountinfo(self.table))
        monkeypatch.setattr(storage, "has_file_system", lambda _: False)
        monkeypatch.setattr(agents, "now", lambda: self.now)
        monkeypatch.setattr(do, "tell_systemd", self.told.append)
        self.reader, self.wakeup = os.pipe2(os.O_NONBLOCK)
        host = Host.read(str(make_pi(folder / "root", config, {"etc/fstab": fstab})))
        self.agent = Agent(host, load(host), self.reader)
        self.agent.worker.start = self._start  # type: ignore[method-assign]
        self.agent.pulse.watch = self._watch  # type: ignore[method-assign,assignment]

    def _start(self, image: Image, action: Action, share: Share, held: Prepared | None) -> None:
        self.started.append((image.name, action, share, held))
        self.agent.worker._job = (image, action, share)

    def _watch(self, mount: int | None, _device: tuple[int, int] | None) -> None:
        self.agent.pulse.mount = mount

    def done(self, result: Result, made: Prepared | None = None) -> None:
        """What the worker was at has come to its end."""
        assert self.agent.worker._job is not None
        self.agent.post(self.agent.worker._done, self.agent.worker._job, result, made)

    def heard(self) -> list[str]:
        said = []
        while True:
            try:
                said.append(self.manager.recv(65536).decode())
            except BlockingIOError:
                return said

    def state(self, name: str = "docker") -> State:
        return self.agent.memories[name].state

    def close(self) -> None:
        for number in (self.reader, self.wakeup, self.agent._event_fd):
            os.close(number)
        self.agent.teller.notifier.socket.close()
        self.manager.close()


MakePi = Callable[..., Pi]


@pytest.fixture
def pi_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePi]:
    made: list[Pi] = []
    run = tmp_path / "run"
    run.mkdir()
    for module in (agents, do, gate, units, picture):
        monkeypatch.setattr(module, "RUNTIME_FOLDER", str(run))
    monkeypatch.setattr(gate, "STATE_FILE", f"{run}/agent.json")
    monkeypatch.setattr(loss, "OWED_FILE", f"{run}/stopped.json")
    monkeypatch.setattr("rpinfs.image.freeze.is_abandoned", lambda _: False)

    def make(config: str = CONFIG, fstab: str = "") -> Pi:
        made.append(Pi(tmp_path, monkeypatch, config, fstab))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def pi(pi_with: MakePi) -> Pi:
    return pi_with()


def a_device(name: str = "docker", loop: str = "loop3", clean: bool | None = None) -> Prepared:
    closed: list[str] = []
    device = SimpleNamespace(path=f"/dev/{loop}", direct_io=True, closed=closed, close=lambda: closed.append(name))
    return Prepared(f"/nfs/docker/{name}.img", cast("Any", device), "1-2", 4096, None, None, clean=clean)


# From what is known to what is done


def test_a_boot_is_prepared_one_image_after_the_other(pi: Pi) -> None:
    """systemd is given to understand that it takes longer, until nothing is being prepared."""
    pi.agent.settle()
    assert pi.started == [] and pi.agent.share.state is ShareState.WAITING
    assert pi.heard()[:2] == ["READY=1", "WATCHDOG=1"], "the share is late: the boot goes on"
    pi.agent.ready_at = None
    pi.table += SHARE
    pi.agent.settle()
    share = Share("/nfs/docker", 41, (0, 40))
    assert pi.started == [("docker", Action(Do.PREPARE), share, None)]
    said = pi.heard()
    assert (
        said[0] == "EXTEND_TIMEOUT_USEC=120000000"
        and said[2] == "STATUS=docker: looking at /nfs/docker/docker.img; data: "
    )
    made = a_device()
    pi.done(Ready("loop3"), made)
    pi.agent.settle()
    assert pi.state() is State.ATTACHED and pi.agent.held == {"docker": made}
    assert os.readlink(pi.run / "docker") == "/dev/loop3"
    assert pi.started[1:] == [("data", Action(Do.PREPARE), share, None)]
    assert pi.heard()[0].startswith("EXTEND_"), "the other one is being prepared"
    pi.done(Refusal("no", "do this"))
    pi.agent.settle()
    assert pi.heard()[0] == "READY=1"
    pi.agent.settle()
    assert "READY=1" not in pi.heard() and pi.agent.ready_at == pi.now


def test_what_is_done_goes_on_with_what_is_held(pi: Pi) -> None:
    made = a_device()
    pi.table += SHARE
    lost = Memory(State.UNMOUNTED, loop="loop3", lock=Lock.HELD)
    pi.agent.memories["docker"], pi.agent.held["docker"] = lost, made
    pi.agent.memories["data"] = Memory(State.UNMOUNTED)
    pi.agent.settle()
    assert pi.started == [("docker", Action(Do.LET_GO, loop="loop3"), Share("/nfs/docker", 41, (0, 40)), made)]
    pi.done(LetGo(True))
    pi.agent.settle()
    assert pi.agent.held == {} and pi.agent.memories["docker"].loop == ""


def test_notes_say_whose_they_are_once(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    pi.table += SHARE
    pi.agent.step()
    pi.done(Ready("loop3", "", ("grown", "image docker: made")), a_device())
    pi.agent.step()
    said = capsys.readouterr().err.splitlines()
    assert "<5>image docker: grown" in said and "<5>image docker: made" in said


def test_one_result_is_taken_in_at_a_step(pi: Pi) -> None:
    pi.agent._results["docker"].extend([Failed("one"), Failed("two")])
    assert [pi.agent._look().images["docker"].result for _ in range(3)] == [Failed("one"), Failed("two"), None]


def test_what_systemd_cannot_be_told_is_said(
    pi: Pi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(do, "tell_systemd", lambda _: Failed("systemd does not answer"))
    pi.agent.ready_at, pi.now = 10.0, 1000.0
    pi.agent.step()
    assert "<4>systemd does not answer" in capsys.readouterr().err.splitlines()


def test_what_a_dead_snapshot_has_frozen_is_thawed_by_a_service(
    pi: Pi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rpinfs.image.freeze.is_abandoned", lambda name: name == "data")
    thaw = Action(Do.START, ("rpinfs-thaw.service",))
    for now, told in ((100.0, 1), (129.9, 1), (130.0, 2), (150.0, 2)):
        pi.now = now
        pi.agent.step()
        assert pi.told == [thaw] * told
    said = "<4>a snapshot died while the file system was frozen; starting rpinfs-thaw.service"
    assert capsys.readouterr().err.splitlines().count(said) == 2


class Polled:
    """In place of select.poll: what is waited for, and for how many milliseconds; the second time, a signal comes."""

    def __init__(self, pi: Pi) -> None:
        self.pi = pi
        self.waited: list[float] = []
        self.registered: dict[int, int] = {}

    def register(self, what: int | io.IOBase, events: int) -> None:
        self.registered[what if isinstance(what, int) else what.fileno()] = events

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        self.waited.append(milliseconds)
        if len(self.waited) == 2:
            os.write(self.pi.wakeup, b"\x0f")
        return []


@pytest.mark.parametrize(("state", "milliseconds"), [(State.UNMOUNTED, 5000), (State.LOST, 1000)])
def test_it_waits_for_what_happens_and_looks_again_when_something_is_to_be_done(
    pi: Pi, monkeypatch: pytest.MonkeyPatch, state: State, milliseconds: float
) -> None:
    polled = Polled(pi)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(select, "poll", lambda: polled)
    monkeypatch.setattr(agents, "Requests", lambda: request.Requests(str(pi.run / "agent.sock")))
    loaded: list[bool] = []
    monkeypatch.setattr("rpinfs.agent.whole.soon", lambda then, more: loaded.append(callable(then) and not more))
    monkeypatch.setattr(Agent, "_recall", lambda _: loaded.append(False))
    monkeypatch.setattr(Agent, "_stop", lambda _: 0)
    pi.agent.memories["docker"] = Memory(state, message="as it was", look="is back" if state is State.LOST else "")
    pi.agent.memories["data"] = Memory(State.UNMOUNTED)
    assert pi.agent.run() == 0
    assert polled.waited == [milliseconds] * 2
    assert loaded == [False, True], "what the last one has left, before the first look"
    requests = pi.agent._requests
    assert requests is not None and threading.excepthook is agents.give_up
    mountinfo = {number: events for number, events in polled.registered.items() if events != select.POLLIN}
    assert list(mountinfo.values()) == [select.POLLPRI | select.POLLERR]
    assert set(polled.registered) - set(mountinfo) == {pi.agent._event_fd, pi.reader, requests.fileno()}
    requests.close()


# What comes in


def test_an_event_wakes_and_is_taken_in_its_turn(pi: Pi) -> None:
    seen: list[object] = []
    assert select.select([pi.agent._event_fd], [], [], 0)[0] == []
    pi.agent.post(seen.append, 1)
    pi.agent.post(seen.append, 2)
    assert select.select([pi.agent._event_fd], [], [], 0)[0] and seen == []
    pi.agent._take_events()
    assert seen == [1, 2] and select.select([pi.agent._event_fd], [], [], 0)[0] == []
    pi.agent._take_events()
    assert seen == [1, 2]


def test_a_signal_stops(pi: Pi) -> None:
    assert not pi.agent._stopping()
    os.write(pi.wakeup, b"\x0f")
    assert pi.agent._stopping() and not pi.agent._stopping()


def test_progress_is_told_until_it_is_done(pi: Pi) -> None:
    pi.table += SHARE
    pi.agent.settle()
    pi.agent._progress["docker"] = "checking"
    pi.agent.settle()
    assert pi.agent.memories["docker"].message == "checking"
    pi.done(Refusal("no", "do this", again=60.0))
    pi.agent.settle()
    assert pi.agent._progress == {}


def leased(pi: Pi) -> Lease:
    made = a_device()
    made.lease = cast("Lease", object())
    pi.agent.held["docker"] = made
    assert [(image.name, *more) for image, *more in pi.agent._leases()] == [("docker", made.lease, made.loop)]
    pi.agent.held["data"] = a_device("data")
    assert len(pi.agent._leases()) == 1, "mmp has none"
    return made.lease


def test_a_lease_that_is_taken_or_lost_is_known_once(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    lease = leased(pi)
    pi.agent._not_renewed("docker", lease, TakenError("it is pi2's", "adopt it"))
    pi.agent._not_renewed("docker", lease, OSError(errno.EIO, "Input/output error"))
    facts = pi.agent._look().images
    assert facts["docker"].lock_lost == "Input/output error"
    assert facts["docker"].lock_taken == Refusal("it is pi2's", "adopt it", by_other=True, again=15.0)
    assert (facts["data"].lock_lost, facts["data"].lock_taken) == ("", None)
    again = pi.agent._look().images["docker"]
    assert (again.lock_lost, again.lock_taken) == ("", None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "why"),
    [(OSError(errno.ENOSPC, "No space left on device"), "No space left on device"), (RecursionError("deep"), "deep"),
     (ZeroDivisionError(), "ZeroDivisionError"), (OSError(), "OSError")],
)  # fmt: skip
def test_a_lease_that_cannot_be_renewed_is_said(
    pi: Pi, capsys: pytest.CaptureFixture[str], error: Exception, why: str
) -> None:
    pi.agent._not_renewed("docker", leased(pi), error)
    assert capsys.readouterr().err == f"<4>image docker: its lease cannot be renewed: {why}\n"
    assert (pi.agent._lock_lost, pi.agent._lock_taken) == ({}, {})


def test_what_becomes_of_an_old_lease_is_nobodys_news(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    leased(pi)
    for name, lease in (("docker", object()), ("gone", object())):
        pi.agent._not_renewed(name, cast("Lease", lease), TakenError("it is pi2's"))
    assert pi.agent._lock_taken == {} and capsys.readouterr().err == ""


# What the last agent has left


def test_what_the_last_agent_has_published_is_recalled(pi: Pi) -> None:
    (pi.run / "stopped.json").write_text(json.dumps({"docker": {"stopped": ["docker.service"], "look": "is back"}}))
    published = {
        "docker": {"state": "lost", "message": "was lost", "remedy": "mount it", "clean": True},
        "data": {"state": None, "clean": 1},
    }
    (pi.run / "agent.json").write_text(json.dumps({"images": published}))
    pi.agent._recall()
    docker, data = pi.agent.memories["docker"], pi.agent.memories["data"]
    assert (docker.recall, docker.message, docker.remedy) == ("lost", "was lost", "mount it")
    assert docker.owed == Owed(("docker.service",), False, 0.0, "is back")
    assert (data.recall, data.message, data.remedy, data.owed) == ("", "", "", Owed())
    assert (docker.state, docker.since) == (State.WAITING, 100.0)
    for name, clean, known in (("docker", None, True), ("docker", False, False), ("data", None, None)):
        pi.agent._keep(name, a_device(name, clean=clean))
        assert pi.agent.held[name].clean is known, "it was found out before it was attached, or is so again"


@pytest.mark.parametrize("text", ["", "{", '{"images": {"docker": 7}}', "[]"])
def test_what_it_cannot_have_published_is_nothing(pi: Pi, text: str) -> None:
    (pi.run / "agent.json").write_text(text)
    (pi.run / "docker").symlink_to("/dev/loop3")
    pi.agent._recall()
    assert pi.agent.memories["docker"] == Memory(since=100.0)
    assert not os.path.lexists(pi.run / "docker"), "a link that leads nowhere goes"


def test_what_is_owed_is_written_down_when_it_changes(
    pi: Pi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pi.table += SHARE
    pi.agent.memories["docker"] = Memory(State.REFUSED, message="no", stopped=("docker.service",), working=Do.PREPARE)
    pi.agent.memories["data"] = Memory(State.UNMOUNTED)
    pi.agent.step()
    assert not (pi.run / "stopped.json").exists(), "nothing has changed"
    pi.agent._results["docker"].append(Ready("loop3"))
    pi.agent.held["docker"] = a_device()
    pi.agent.step()
    assert json.loads((pi.run / "stopped.json").read_text())["docker"]["look"] == "is verified"
    monkeypatch.setattr(loss, "OWED_FILE", f"{pi.run}/none/stopped.json")
    pi.agent._remember_owed()
    assert capsys.readouterr().err.endswith(f"<4>{pi.run}/none/stopped.json: No such file or directory\n")


def test_only_the_first_agent_of_a_boot_is_the_first(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agents.is_first() and not agents.is_first()
    assert (pi.run / "agent.ran").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(agents, "RUNTIME_FOLDER", f"{pi.run}/none")
    assert not agents.is_first()


# Who asks


def test_who_asks_is_answered_when_it_is_decided(pi: Pi) -> None:
    path = str(pi.run / "agent.sock")
    with contextlib.closing(request.Requests(path)) as pi.agent._requests, contextlib.ExitStack() as open_:
        clients = {}
        for name in ("docker", "data", "nobody"):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            clients[name] = open_.enter_context(client)
            client.connect(path)
            client.send(name.encode())

        def heard() -> dict[str, str]:
            said = {}
            for name, client in clients.items():
                with contextlib.suppress(BlockingIOError):
                    said[name] = client.recv(4096).decode()
            return {name: words for name, words in said.items() if words}

        pi.agent.settle()
        late = "192.168.1.10:/docker is not mounted at /nfs/docker yet"
        assert heard() == {"docker": late, "data": late, "nobody": "the agent has no image nobody"}

        clients["docker"] = open_.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        clients["docker"].connect(path)
        clients["docker"].send(b"docker")
        clients["docker"].setblocking(False)
        pi.table += SHARE
        pi.agent.settle()
        assert heard() == {} and pi.agent._requests.names() == {"docker"}, "it is being prepared"
        pi.done(Refusal("docker is refused", again=60.0))
        pi.agent.settle()
        assert heard() == {"docker": "docker is refused"}


# The share


def test_what_the_share_has_answered_is_that_mounts(pi: Pi) -> None:
    pi.table += SHARE
    pulse = pi.agent.pulse
    pulse.mount, pulse.asked, pulse.error, pulse.size, pulse.free, pulse.answer = 41, 5.0, "stale", 10, 4, 0.5
    facts = pi.agent._share_facts()
    assert (facts.asked, facts.error, facts.size, facts.free, facts.answer) == (5.0, "stale", 10, 4, 0.5)
    pulse.mount = 40
    facts = pi.agent._share_facts()
    assert (facts.asked, facts.error, facts.size, facts.free) == (None, "", 10, 4)


def test_somebody_elses_mount_is_not_asked(pi: Pi) -> None:
    watched: list[object] = []
    pi.agent.pulse.watch = lambda *what: watched.append(what)  # type: ignore[method-assign]
    for table in (ROOT, ROOT + SHARE, ROOT + SHARE.replace(".10:", ".66:")):
        pi.table = table
        pi.agent._look()
    assert watched == [(None, None), (41, (0, 40)), (None, (0, 40))]


def test_a_shutdown_is_looked_out_for_once_in_a_silence(
    pi: Pi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watching: list[str] = []
    begun = threading.Semaphore(0)

    def give_up_waiting(is_silent: Callable[[], bool], share: str, tell: Callable[[str], None]) -> None:
        watching.append(f"{share} {is_silent()} {threading.current_thread().daemon}")
        tell("aborted")
        begun.release()

    monkeypatch.setattr(shutdown, "give_up_waiting", give_up_waiting)
    up = ShareMemory(ShareState.MOUNTED, 1.0, "mounted")
    silent = ShareMemory(ShareState.SILENT, 1.0, "does not answer")
    for before, after in ((up, silent), (silent, silent), (silent, up)):
        pi.agent.share = after
        pi.agent._tell_share(before, ("a note",) if after is up else ())
        if after is silent is not before:
            assert begun.acquire(timeout=30)
    assert watching == ["/nfs/docker True True"]
    said = capsys.readouterr().err.splitlines()
    assert sorted(said) == [
        "<4>192.168.1.10 does not answer: aborted", "<4>does not answer", "<5>a note", "<6>mounted",
    ]  # fmt: skip


# The ends


def test_what_is_fstabs_is_not_the_agents(pi_with: MakePi) -> None:
    pi = pi_with(fstab="/dev/sda1 /var/lib/docker ext4 defaults 0 2\n")
    assert list(pi.agent.images) == ["data"] == list(pi.agent.memories)


def test_where_rpinfs_is_not_in_use_that_is_all(pi_with: MakePi, capsys: pytest.CaptureFixture[str]) -> None:
    pi = pi_with("")
    pi.agent.config = load(Host(cmdline="root=/dev/sda1"))
    assert pi.agent.run() == 0
    reason = pi.agent.config.reason
    assert pi.heard() == [f"READY=1\nSTATUS=not in use: {reason}"] and reason
    assert capsys.readouterr().err == f"<6>not in use: {reason}\n"


def test_a_configuration_error_ends_it(
    pi: Pi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RPINFS_ROOT", str(make_pi(tmp_path / "wrong", "[Share]\nExport=docker\n")))
    assert agents.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("<3>/etc/rpinfs/rpinfs.conf:2: ") and said.count("\n") == 1
    assert (pi.run / "agent.ran").exists()


def test_its_signals_are_its_own_only_while_it_runs(
    pi: Pi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where rpinfs is not in use it ends as any program does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            with agents._signals() as readable:
                assert select.select([readable], [], [], 0)[0] == []
                signal.raise_signal(number)
                assert os.read(readable, 8) == bytes([number])
        agent = pi.agent
        agent.config = load(Host.read(str(make_tree(tmp_path / "other", {"proc/cmdline": "root=/dev/sda1\n"}))))
        monkeypatch.setenv("RPINFS_ROOT", str(tmp_path / "other"))
        monkeypatch.setattr(agents, "Agent", lambda *_, **__: agent)
        assert agents.main() == 0
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert pi.heard()[0].startswith("READY=1\nSTATUS=not in use: ")
    assert capsys.readouterr().err.startswith("<6>not in use: ")


class EndedError(Exception):
    """In place of os._exit, which would end the tests."""


def ended(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(status: int) -> None:
        raise EndedError(status)

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(EndedError, match="0"):
        pi.agent._stop()


@pytest.mark.parametrize("state", list(ShareState))
def test_at_the_stop_all_is_let_go_of(pi: Pi, monkeypatch: pytest.MonkeyPatch, state: ShareState) -> None:
    """But for what the worker is at, which may hang; what a NAS that is gone keeps is aborted."""
    aborted: list[tuple[list[str], str]] = []
    monkeypatch.setattr(shutdown, "abort_until_detached", lambda loops, share: aborted.append((loops, share)))
    held = {"docker": a_device("docker", "loop3"), "data": a_device("data", "loop4")}
    pi.agent.held.update(held)
    for name, made in held.items():
        pi.agent.memories[name] = Memory(State.MOUNTED, loop=made.loop)
        do.publish(pi.agent.images[name], made)
    pi.agent.worker._job = (pi.agent.images["data"], Action(Do.LEASE), Share("", 1, None))
    pi.agent.share = ShareMemory(state)
    pi.agent._requests = request.Requests(str(pi.run / "agent.sock"))
    (pi.run / "agent.json").write_text("{}")
    ended(pi, monkeypatch)
    assert [made.device.closed for made in held.values()] == [["docker"], []]  # type: ignore[attr-defined]
    assert aborted == ([] if state is ShareState.MOUNTED else [(["loop3", "loop4"], "/nfs/docker")])
    assert pi.heard() == ["STOPPING=1\nSTATUS=stopping"] and os.listdir(pi.run) == []


def test_at_the_stop_leftovers_of_what_is_unmounted_are_ended(
    pi: Pi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[list[str], list[str], str]] = []
    outcomes: list[list[str]] = [[], ["docker-0.scope", "x.service"], []]

    def end_leftovers(images: list[Image], loops: list[str], share: str) -> list[str]:
        asked.append(([image.name for image in images], loops, share))
        if len(asked) == len(outcomes):
            raise OSError(errno.EACCES, "Permission denied")
        return outcomes[len(asked) - 1]

    monkeypatch.setattr(shutdown, "end_leftovers", end_leftovers)
    monkeypatch.setattr(storage, "has_file_system", lambda loop: loop in ("loop3", "loop4"))
    pi.agent._end_leftovers()
    assert asked == [], "nothing is in use"
    pi.agent.memories.update(docker=Memory(loop="loop3"), data=Memory(loop="loop4"))
    pi.table += "50 30 7:4 / /srv/data rw - ext4 /dev/loop4 rw\n"
    for _ in outcomes:
        pi.agent._end_leftovers()
    assert asked == [(["docker"], ["loop3"], "/nfs/docker")] * 3, "what is mounted in its place is let be"
    assert capsys.readouterr().err.splitlines() == [
        "<5>killed what kept an image in use after Docker's end: docker-0.scope x.service",
        "<4>what keeps an image in use cannot be ended: [Errno 13] Permission denied",
    ]


def test_what_cannot_be_published_is_said(
    pi: Pi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pi.agent._tell()
    assert json.loads((pi.run / "agent.json").read_text())["share"]["state"] == "waiting"
    monkeypatch.setattr(do, "RUNTIME_FOLDER", f"{pi.run}/none")
    pi.agent.share = ShareMemory(ShareState.FAILING)
    pi.agent._tell()
    assert capsys.readouterr().err == f"<4>{pi.run}/agent.json: No such file or directory\n"
