"""What holds a shutdown up: which control groups are killed, and when a NAS that is gone is given up."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.agent import shutdown
from rpinfs.boot.config import load
from rpinfs.boot.host import Host
from rpinfs.errors import RpinfsError
from tests.support import TOP, make_pi, make_tree


@pytest.fixture(autouse=True)
def systemd_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpinfs.system.systemd.answers", lambda: True)


def group(root: Path, path: str, populated: int) -> Path:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True)
    (folder / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")
    (folder / "cgroup.kill").write_text("")
    return folder / "cgroup.kill"


def test_only_groups_of_these_names_with_processes_are_killed(root: Path) -> None:
    wanted = [
        group(root, "system.slice/docker-0123.scope", 1),
        group(root, "customers.slice/customers-one.slice/docker-4567.scope", 1),
        group(root, "system.slice/containerd.service", 1),
    ]
    spared = [
        group(root, "system.slice/docker-89ab.scope", 0),
        group(root, "system.slice/ssh.service", 1),
        group(root, "system.slice/docker.service", 0),
    ]
    killed = shutdown.kill([*shutdown.CONTAINERS, "docker.service", "containerd.service"], str(root))
    assert sorted(killed) == ["containerd.service", "docker-0123.scope", "docker-4567.scope"]
    assert [file.read_text() for file in wanted] == ["1"] * 3
    assert [file.read_text() for file in spared] == [""] * 3


def test_where_there_are_no_such_groups_nothing_happens(root: Path) -> None:
    assert shutdown.kill(shutdown.CONTAINERS, str(root)) == []


def test_a_nas_is_given_up_when_a_shutdown_has_waited_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while the system runs, and not when the NAS has answered in the meantime."""
    slept: list[float] = []
    forced: list[float] = []
    state, may_abort = "running", True

    class EnoughError(Exception):
        """What was to be seen was seen."""

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(forced) == 3:
            raise EnoughError

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("rpinfs.system.systemd.system_state", lambda: state)
    monkeypatch.setattr("rpinfs.agent.shutdown._abort_requests", lambda _: forced.append(sum(slept)))
    monkeypatch.setattr("rpinfs.agent.shutdown._may_abort", lambda _: may_abort)
    shutdown.give_up_waiting(lambda: sum(slept) < 1000, "/nfs/docker", print)
    state = "stopping"
    shutdown.give_up_waiting(lambda: sum(slept) < 1000 + shutdown.GONE_SECONDS / 2, "/nfs/docker", print)
    assert forced == []
    slept.clear()
    may_abort, said = False, list[str]()
    shutdown.give_up_waiting(lambda: True, "/nfs/docker", said.append)
    assert (said, forced) == ([], []), "root and share are one: nothing is said that is not done"
    may_abort = True
    slept.clear()
    with pytest.raises(EnoughError):
        shutdown.give_up_waiting(lambda: True, "/nfs/docker", print)
    assert forced[0] >= shutdown.GONE_SECONDS


@pytest.mark.parametrize(("stopping_from", "given_up_at"), [(0, 60.0), (3, 75.0), (None, None)])
def test_a_shutdown_counts_from_its_own_beginning(
    monkeypatch: pytest.MonkeyPatch, stopping_from: int | None, given_up_at: float | None
) -> None:
    """A minute of shutdown, not of silence; a state that systemd does not tell is none of shutdown."""
    slept: list[float] = []
    aborting: list[tuple[float, float]] = []
    said: list[str] = []

    def state() -> str:
        if stopping_from is None:
            raise RpinfsError("systemd does not answer")
        return "stopping" if len(slept) > stopping_from else "running"

    def abort(waiting: Callable[[], bool], _share: str, seconds: float = math.inf) -> None:
        assert waiting()
        aborting.append((sum(slept), seconds))

    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("rpinfs.system.systemd.system_state", state)
    monkeypatch.setattr("rpinfs.agent.shutdown._may_abort", lambda _: True)
    monkeypatch.setattr("rpinfs.agent.shutdown._abort_while", abort)
    shutdown.give_up_waiting(lambda: sum(slept) < 500, "/nfs/docker", said.append)
    assert aborting == ([] if given_up_at is None else [(given_up_at, math.inf)])
    text = "after 60 s of shutdown, what waits for it is aborted; the next boot replays the journal"
    assert said == ([] if given_up_at is None else [text])


@pytest.mark.parametrize(
    ("state", "may_abort", "aborts"), [("running", True, 0), ("stopping", False, 0), ("stopping", True, 3)]
)
def test_at_the_stop_what_is_let_go_of_is_aborted_until_it_is_detached(
    monkeypatch: pytest.MonkeyPatch, state: str, may_abort: bool, aborts: int
) -> None:
    aborted: list[str] = []
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("rpinfs.system.systemd.system_state", lambda: state)
    monkeypatch.setattr("rpinfs.agent.shutdown._may_abort", lambda _: may_abort)
    monkeypatch.setattr("rpinfs.agent.shutdown._abort_requests", aborted.append)
    monkeypatch.setattr("rpinfs.boot.storage.loop_state", lambda loop: loop == "loop4" and len(aborted) < 3)
    shutdown.abort_until_detached(["loop3", "loop4"], "/nfs/docker")
    assert aborted == ["/nfs/docker"] * aborts


def test_aborting_ends_in_time_for_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once every second, and for twenty: twice, and after a minute of waiting, is less than its time to stop."""
    clock, aborted = 0.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: clock)
    monkeypatch.setattr("rpinfs.system.systemd.system_state", lambda: "stopping")
    monkeypatch.setattr("rpinfs.agent.shutdown._may_abort", lambda _: True)
    monkeypatch.setattr("rpinfs.agent.shutdown._abort_requests", lambda _: aborted.append(clock))
    monkeypatch.setattr("rpinfs.boot.storage.loop_state", lambda _: True)
    shutdown.abort_until_detached(["loop3"], "/nfs/docker")
    assert aborted == [float(second) for second in range(20)]
    unit = (TOP / "units/rpinfs-agent.service").read_text()
    [minutes] = re.findall(r"^TimeoutStopSec=(\d+)min$", unit, re.MULTILINE)
    assert float(minutes) * 60 > shutdown.GONE_SECONDS + 2 * len(aborted)


@pytest.mark.parametrize("error", [None, RpinfsError("no answer"), OSError(116, "Stale file handle")])
def test_whether_the_nas_answers(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    asked: list[tuple[object, ...]] = []

    def within(*arguments: object) -> None:
        asked.append(arguments)
        if error:
            raise error

    monkeypatch.setattr("rpinfs.system.deadline.within", within)
    assert shutdown._answers("/nfs/docker") is (error is None)
    assert asked == [(5.0, os.statvfs, "/nfs/docker")]


def test_leftovers_are_killed_and_then_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing while the system runs; what is killed and stays waits for the NAS, whose requests are aborted last."""
    clock = 0.0
    told: list[str] = []
    state, answers, may_abort = "running", False, True

    def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    def kill(names: list[str]) -> list[str]:
        told.append(f"kill {' '.join(names)}")
        return ["docker-0.scope"]

    def has_file_system(_: str) -> bool:
        return clock < shutdown.GONE_SECONDS + 5

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: clock)
    monkeypatch.setattr("rpinfs.system.systemd.system_state", lambda: state)
    monkeypatch.setattr("rpinfs.boot.storage.has_file_system", has_file_system)
    monkeypatch.setattr("rpinfs.agent.shutdown._may_abort", lambda _: may_abort)
    monkeypatch.setattr("rpinfs.agent.shutdown.kill", kill)
    monkeypatch.setattr("rpinfs.agent.shutdown._answers", lambda _: answers)
    monkeypatch.setattr("rpinfs.agent.shutdown._abort_requests", lambda where: told.append(f"abort {where}"))
    config = "[Image docker]\nEnabled=no\n[Image podman]\nWhere=/var/lib/containers\nBefore=podman.service\n"
    images = load(Host.read(str(make_pi(root, config)))).images

    assert shutdown.end_leftovers(images, ["loop3"], "/nfs/docker") == []
    assert (told, clock) == ([], 0)

    state = "stopping"
    assert shutdown.end_leftovers(images, ["loop3"], "/nfs/docker") == ["docker-0.scope"]
    assert told[0] == "kill docker-*.scope cri-containerd-*.scope libpod-*.scope podman.service"
    assert told[1:] == ["abort /nfs/docker"] * 5
    assert shutdown.GONE_SECONDS + 5 <= clock < shutdown.GONE_SECONDS + 7

    told, clock, answers = [], 0.0, True
    shutdown.end_leftovers(images, ["loop3"], "/nfs/docker")
    assert len(told) == 1, "a NAS that answers is waited for"

    told, clock, answers, may_abort = [], 0.0, False, False
    shutdown.end_leftovers(images, ["loop3"], "/nfs/docker")
    assert len(told) == 1 and clock <= shutdown.GONE_SECONDS + 1, (
        "nothing may be aborted: no loop around what does nothing"
    )


MOUNTINFO = "41 30 0:38 / /nfs/docker rw - {kind} 10.77.0.2:/docker rw\n"


def test_requests_are_aborted_for_good_where_the_kernel_can(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the device of the mount; otherwise by umount2; and never on anything but NFS."""
    forced: list[str] = []
    monkeypatch.setattr("rpinfs.system.syscalls.force_unmount", forced.append)
    make_tree(root, {"proc/self/mountinfo": MOUNTINFO.format(kind="nfs4"), "sys/fs/nfs/0:38/shutdown": "0\n"})
    shutdown._abort_requests("/nfs/docker", str(root))
    assert (root / "sys/fs/nfs/0:38/shutdown").read_text() == "1"
    assert forced == []
    (root / "sys/fs/nfs/0:38/shutdown").unlink()
    (root / "sys/fs/nfs/0:38").rmdir()
    shutdown._abort_requests("/nfs/docker", str(root))
    assert forced == ["/nfs/docker"]
    (root / "proc/self/mountinfo").write_text(MOUNTINFO.format(kind="ext4"))
    shutdown._abort_requests("/nfs/docker", str(root))
    assert forced == ["/nfs/docker"]


def test_the_requests_of_the_root_are_not_aborted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two exports of one file system of a NAS are one to the kernel."""
    forced: list[str] = []
    monkeypatch.setattr("rpinfs.system.syscalls.force_unmount", forced.append)
    shared = "30 1 0:38 /nfsroot / rw - nfs4 10.77.0.2:/nfsroot rw\n" + MOUNTINFO.format(kind="nfs4")
    make_tree(root, {"proc/self/mountinfo": shared, "sys/fs/nfs/0:38/shutdown": "0\n"})
    shutdown._abort_requests("/nfs/docker", str(root))
    assert ((root / "sys/fs/nfs/0:38/shutdown").read_text(), forced) == ("0\n", [])


def test_a_systemd_that_stands_still_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the NAS that its root is on: pystemd would wait for it, and all of the agent with it."""
    aborted: list[str] = []

    def state() -> str:
        raise AssertionError("it was asked")

    monkeypatch.setattr("rpinfs.system.systemd.answers", lambda: False)
    monkeypatch.setattr("rpinfs.system.systemd.system_state", state)
    monkeypatch.setattr("rpinfs.agent.shutdown._abort_requests", aborted.append)
    shutdown.abort_until_detached(["loop3"], "/nfs/docker")
    assert aborted == []
