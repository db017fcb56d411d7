"""What is news, when it is told, and what is remembered of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.agent import news
from rpinfs.agent.news import BOOT_SECONDS, BURST, MOST_TRIES, REFILL_SECONDS, SPACING_SECONDS, Memory, after, decide
from rpinfs.agent.summary import Subject

SHARE = Subject("share", "mounted", "ok", "the share is there")
IMAGE = Subject("image docker", "mounted", "ok", "docker: mounted at /var/lib/docker")
WELL = (SHARE, IMAGE)
GONE = (SHARE, Subject("image docker", "lost", "critical", "docker: gone", "rpinfs status"))
SILENT = (Subject("share", "silent", "critical", "NAS does not answer", "look at it"), IMAGE)
COMING = (SHARE, Subject("image docker", "preparing", "warning", "docker: looking", settled=False))


class Told:
    """A program that is told, in a world with a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.memory = Memory(self.now, filled_at=self.now)
        self.news: list[news.News] = []
        self.times: list[float] = []

    def sees(self, *found: Subject, seconds: float = 0.0, failure: str = "") -> bool:
        """Time passes, and the agent looks; what it tells ends at once. Whether it has told anything."""
        self.now += seconds
        self.memory, told = decide(self.memory, found, self.now)
        if told is None:
            return False
        assert self.memory.sending
        self.news.append(told)
        self.times.append(self.now)
        self.memory = after(self.memory, failure, self.now)
        return True


def test_the_first_news_is_how_the_boot_went() -> None:
    told = Told()
    assert not told.sees(*COMING)
    assert told.sees(*WELL, seconds=20)
    assert told.news[0].before is None
    assert not any(told.sees(*WELL, seconds=1000) for _ in range(5))


def test_what_does_not_settle_does_not_keep_the_first_news_for_ever() -> None:
    told = Told()
    assert not told.sees(*COMING, seconds=BOOT_SECONDS - 1)
    assert told.sees(*COMING, seconds=1)
    assert told.memory.tried == {"share": "ok"}
    assert told.sees(*WELL, seconds=SPACING_SECONDS)


def test_worse_and_better_are_news_and_what_is_on_its_way_is_none() -> None:
    told = Told()
    told.sees(*WELL)
    assert told.sees(*GONE, seconds=1000)
    assert not told.sees(*COMING, seconds=1000), "as it was told"
    assert not told.sees(GONE[0], replace(GONE[1], message="docker: gone for 20 s"), seconds=1000)
    assert told.sees(*WELL, seconds=1000)
    assert [one.before for one in told.news] == [
        None, {"share": "ok", "image docker": "ok"}, {"share": "ok", "image docker": "critical"}
    ]  # fmt: skip


def test_one_at_a_time_and_the_newest_state_wins() -> None:
    told = Told()
    told.sees(*WELL)
    told.now += 1000
    told.memory, first = decide(told.memory, GONE, told.now)
    assert first is not None
    for found in (SILENT, WELL, SILENT):
        told.memory, more = decide(told.memory, found, told.now + 1000)
        assert more is None, "somebody is being told"
    told.now += 1000
    told.memory = after(told.memory, "", told.now)
    assert not told.sees(*SILENT, seconds=SPACING_SECONDS - 1)
    assert told.sees(*SILENT, seconds=1)
    assert told.news[-1].before == {"share": "ok", "image docker": "critical"}


def test_what_came_and_went_between_two_is_nobodys_news() -> None:
    told = Told()
    told.sees(*WELL)
    assert told.sees(*GONE, seconds=SPACING_SECONDS)
    assert not told.sees(*WELL, seconds=1)
    assert not told.sees(*GONE, seconds=1)
    assert not told.sees(*GONE, seconds=1000)


def test_a_pi_that_changes_all_the_time_tells_no_more_often_than_said() -> None:
    told = Told()
    for number in range(4000):
        told.sees(*(GONE if number % 2 else WELL), seconds=7)
    seconds = told.now - 100
    assert len(told.times) <= BURST + seconds / REFILL_SECONDS + 1
    gaps = [later - earlier for earlier, later in zip(told.times, told.times[1:], strict=False)]
    assert min(gaps) >= SPACING_SECONDS
    assert len(told.times) >= seconds / REFILL_SECONDS, "and is not silent either"


def test_what_nobody_heard_is_told_again_a_few_times() -> None:
    told = Told()
    told.sees(*WELL)
    told.sees(*GONE, seconds=1000, failure="exit status 7")
    for _ in range(4000):
        told.sees(*GONE, seconds=10, failure="exit status 7")
    assert len(told.news) == 1 + MOST_TRIES
    assert [one.unheard for one in told.news] == [0, *range(MOST_TRIES)]
    waits = [later - earlier for earlier, later in zip(told.times[1:], told.times[2:], strict=False)]
    assert waits[0] >= SPACING_SECONDS and waits == sorted(waits), "each time later"
    assert told.sees(*WELL, seconds=1000), "that it is well again is news"
    assert (told.news[-1].unheard, told.memory.unheard, told.memory.heard) == (MOST_TRIES, 0, True)


def test_what_was_heard_at_last_is_not_told_again() -> None:
    told = Told()
    told.sees(*GONE, failure="time-out")
    assert told.sees(*GONE, seconds=SPACING_SECONDS)
    assert not told.sees(*GONE, seconds=9000)


@given(
    st.lists(st.tuples(st.sampled_from([WELL, GONE, SILENT, COMING]), st.floats(0, 3000), st.booleans()), max_size=60)
)
def test_in_any_life_the_newest_settled_state_is_told_in_the_end(
    life: list[tuple[tuple[Subject, ...], float, bool]],
) -> None:
    told = Told()
    for found, seconds, heard in life:
        told.sees(*found, seconds=seconds, failure="" if heard else "no")
    for _ in range(MOST_TRIES + 2):
        told.sees(*GONE, seconds=SPACING_SECONDS * 3**MOST_TRIES + REFILL_SECONDS)
    assert told.memory.tried == {"share": "ok", "image docker": "critical"}
    assert told.memory.heard or told.memory.tries == MOST_TRIES
    assert not told.sees(*GONE, seconds=1e6)


# What is given to the program


def text(found: tuple[Subject, ...], before: dict[str, str] | None = None, host: str = "pi1") -> list[str]:
    return news.text_of(news.News(found, before, 2), host, "1a2b").split("\n")


def test_a_line_for_each() -> None:
    sentence, remedy, document, end = text(GONE, {"share": "warning"})
    assert (sentence, remedy, end) == ("pi1: critical: docker: gone", "rpinfs status", "")
    assert json.loads(document) == {
        "version": 1, "host": "pi1", "serial": "1a2b", "status": "critical", "before": "warning", "unheard": 2,
        "message": "docker: gone", "remedy": "rpinfs status",
        "subjects": [
            {"name": "share", "state": "mounted", "status": "ok", "message": "the share is there", "remedy": ""},
            {"name": "image docker", "state": "lost", "status": "critical", "message": "docker: gone",
             "remedy": "rpinfs status"},
        ],
    }  # fmt: skip
    assert text(WELL)[:2] == ["pi1: ok: docker: mounted at /var/lib/docker", ""]
    assert json.loads(text(WELL)[2])["before"] is None


def test_whatever_is_in_it_three_lines_are_three_lines() -> None:
    evil = Subject("image docker", "refused", "critical", "a\nb\x1b[2J\u2028c", "x\ny")
    lines = text((SHARE, evil), host="pi\n1")
    assert len(lines) == 4 and all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("\n".join(text(GONE)), {"share": "ok", "image docker": "critical"}),
        ("", None),
        ("a\nb\n{", None),
        ("a\nb\n[]", None),
        ("a\nb\n" + "[" * 9000, None),
        ('a\nb\n{"subjects": 5}', None),
        ('a\nb\n{"subjects": [{"name": "share", "status": "fine"}]}', None),
        ('a\nb\n{"subjects": [{"name": "share"}]}', None),
    ],
)
def test_the_next_agent_knows_what_was_told(said: str, told: dict[str, str] | None) -> None:
    assert news.recall(said) == told
    memory = Memory(0, told)
    assert (decide(memory, GONE, 1000.0)[1] is None) is (told is not None)


class Systemd:
    """What the window on systemd says, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: str | None) -> None:
        from rpinfs.system import systemd

        self.started: list[str] = []
        self.outcomes = list(outcomes)
        self.reads = list[bool]()
        monkeypatch.setattr(systemd, "start_unit", self.started.append)
        monkeypatch.setattr(
            systemd, "outcome", lambda _: self.outcomes.pop(0) if self.outcomes[1:] else self.outcomes[0]
        )
        monkeypatch.setattr(systemd, "answers", lambda: not self.reads or self.reads.pop(0))
        monkeypatch.setattr(news, "_LOOK_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("outcomes", "failure"),
    [
        ((None, None, "success"), ""),
        ((None, "timeout"), "rpinfs-notify.service: timeout"),
        (("exit status 7",), "rpinfs-notify.service: exit status 7"),
    ],
)
def test_how_a_telling_ends(outcomes: tuple[str | None, ...], failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(monkeypatch, *outcomes)
    assert news.send() == failure and systemd.started == ["rpinfs-notify.service"]


def test_a_systemd_that_stands_still_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor asked: pystemd would wait, and all of the agent with it."""
    systemd = Systemd(monkeypatch, "success")
    systemd.reads = [False]
    assert news.send() == "systemd does not answer" and systemd.started == []
    # It may begin to while the program runs.
    systemd.reads = [True, False, False]
    assert news.send() == "" and systemd.started == ["rpinfs-notify.service"] and systemd.reads == []
    systemd.reads = [True, *[False] * 9]
    monkeypatch.setattr(news, "_GIVE_UP_SECONDS", 0.0)
    assert news.send() == "rpinfs-notify.service does not end"


def test_a_unit_that_does_not_end_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    Systemd(monkeypatch, None)
    monkeypatch.setattr(news, "_GIVE_UP_SECONDS", 0.0)
    assert news.send() == "rpinfs-notify.service does not end"
