"""How a Pi is in one word and one sentence, from what its agent remembers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rpinfs.agent.picture import ShareFacts
from rpinfs.agent.states import Memory, ShareMemory, ShareState, State
from rpinfs.agent.summary import LATE_SECONDS, sentence, subjects, worst
from rpinfs.system.fullness import ENOUGH_ROOM, FULL, grade, grade_of_share

GIB = 1 << 30
NOW = 1000.0
THERE = ShareMemory(ShareState.MOUNTED, 10, "NAS:/docker is mounted at /nfs/docker")
WELL = Memory(State.MOUNTED, 20, "mounted at /var/lib/docker, direct I/O")
ROOM = ShareFacts(1, size=100 * GIB, free=60 * GIB)


def told(
    share: ShareMemory = THERE, facts: ShareFacts = ROOM, ready: float | None = 30.0, **images: Memory
) -> list[tuple[str, str, bool]]:
    return [(one.state, one.status, one.settled) for one in subjects(share, facts, images, NOW, ready)]


def test_all_is_well() -> None:
    assert told(docker=WELL) == [("mounted", "ok", True), ("mounted", "ok", True)]
    found = subjects(THERE, ROOM, {"docker": WELL}, NOW, 30.0)
    assert sentence(found) == "docker: mounted at /var/lib/docker, direct I/O"
    assert sentence(subjects(THERE, ROOM, {}, NOW, 30.0)) == THERE.message


@pytest.mark.parametrize(
    ("state", "ready", "settled"),
    [
        (ShareState.SILENT, None, True),
        (ShareState.FAILING, 30.0, True),
        (ShareState.WAITING, 30.0, True),
        (ShareState.WAITING, None, False),
    ],
)
def test_a_share_that_is_not_there(state: ShareState, ready: float | None, settled: bool) -> None:
    """The images wait for it; that is told once."""
    gone = replace(THERE, state=state, since=NOW - LATE_SECONDS, message="NAS does not answer", remedy="look at it")
    assert told(gone, ready=ready, docker=Memory(State.WAITING))[0] == (state, "critical", settled)
    assert told(gone, ready=ready, docker=Memory(State.WAITING))[1] == ("waiting", "warning", False)
    found = subjects(gone, ROOM, {"docker": WELL}, NOW, ready)
    assert sentence(found) == "NAS does not answer" and worst(found).remedy == "look at it"


def test_a_share_that_is_late_for_a_moment_is_no_news_yet() -> None:
    late = replace(THERE, state=ShareState.WAITING, since=NOW - LATE_SECONDS + 1)
    assert told(late) == [("waiting", "critical", False)]


@pytest.mark.parametrize(
    ("size", "free", "state", "status"),
    [
        (100 * GIB, 11 * GIB, "mounted", "ok"),
        (100 * GIB, 10 * GIB, "full", "warning"),
        (100 * GIB, 3 * GIB, "full", "critical"),
        (100 * GIB, 0, "full", "critical"),
        (10_000 * GIB, ENOUGH_ROOM, "mounted", "ok"),
        (None, None, "mounted", "ok"),
        (0, 0, "mounted", "ok"),
    ],
)
def test_a_share_that_is_full(size: int | None, free: int | None, state: str, status: str) -> None:
    assert told(facts=replace(ROOM, size=size, free=free)) == [(state, status, True)]


def test_what_is_full_is_so_for_the_checks_too() -> None:
    assert [grade(percent) for percent in (0, FULL[0] - 0.1, FULL[0], FULL[1] - 0.1, FULL[1], 100)] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert grade_of_share(10_000 * GIB, ENOUGH_ROOM - 1) == 2


@pytest.mark.parametrize(
    ("memory", "status", "settled"),
    [
        (replace(WELL, remedy="systemctl restart x"), "critical", True),
        (replace(WELL, trouble=("its lock is lost", ""), remedy="look"), "warning", True),
        (Memory(State.REFUSED, 900, "belongs to pi2", "rpinfs adopt docker"), "critical", True),
        (Memory(State.LOST, 900, "gone"), "critical", True),
        (Memory(State.TAKEN, 900, "another Pi has it"), "critical", True),
        (Memory(State.UNMOUNTED, 900, "its mount fails", "journalctl"), "critical", True),
        (Memory(State.UNMOUNTED, 0, "unmounted by request"), "warning", False),
        (Memory(State.PREPARING, NOW - 5, "checking docker.img"), "warning", False),
        (Memory(State.PREPARING, NOW - LATE_SECONDS, "checking docker.img"), "warning", True),
        (Memory(State.ATTACHED, NOW - 5), "warning", False),
    ],
)
def test_an_image(memory: Memory, status: str, settled: bool) -> None:
    assert told(docker=memory)[1] == (memory.state, status, settled)


def test_of_several_that_are_wrong_the_worst_is_named_and_the_others_counted() -> None:
    lost = Memory(State.LOST, 900, "gone", "reboot")
    found = subjects(THERE, ROOM, {"a": Memory(State.PREPARING, NOW, "at it"), "b": lost, "c": WELL}, NOW, 30.0)
    assert sentence(found) == "b: gone (and 1 more)" and worst(found).remedy == "reboot"
