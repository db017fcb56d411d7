"""All Pis of a share, judged: who is in trouble, in which order, and what each line says."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.errors import RpinfsError
from rpinfs.health import fleet
from rpinfs.health.checks.base import Status
from rpinfs.health.fleet import AHEAD_SECONDS, LATE_SECONDS, Fleet, Pi, judge
from rpinfs.health.fleet_page import page
from rpinfs.lease import holders, lease
from rpinfs.lease.holders import Holder
from rpinfs.lease.lease import QUIET_SECONDS
from rpinfs.lease.owner import Owner
from rpinfs.lease.report import Report
from rpinfs.system import files

NOW = 1.8e9
GIB = 1 << 30
SAID = Report("1", "0.1.0", "Raspberry Pi 4 Model B Rev 1.4", "ok", "docker: mounted", 10 * GIB, 5 * GIB)


def holder(name: str = "pi1", age: float | None = 30.0, report: Report | None = SAID, file: str = "") -> Holder:
    seen = NOW - age if age is not None else 0.0
    return Holder(f"/share/{file or f'{name}.img'}", Owner(f"serial-{name}", name, seen=seen), report)


def line(*found: Holder) -> Pi:
    (pi,) = judge("/share", found, NOW)
    return pi


def test_a_pi_that_is_well() -> None:
    assert line(holder()) == Pi(
        "pi1", "serial-pi1", "Raspberry Pi 4 Model B Rev 1.4", "0.1.0", Status.OK, "docker: mounted", "",
        (fleet.Room("pi1.img", 10 * GIB, 5 * GIB),), NOW - 30, 30.0,
    )  # fmt: skip


LAST = "; the last that it said: docker: mounted"


@pytest.mark.parametrize(
    ("found", "status", "message"),
    [
        (holder(age=LATE_SECONDS - 1), Status.OK, "docker: mounted"),
        (holder(age=LATE_SECONDS), Status.WARNING, f"silent for 7 min{LAST}"),
        (holder(age=QUIET_SECONDS - 1), Status.WARNING, f"silent for 14 min{LAST}"),
        (holder(age=QUIET_SECONDS), Status.CRITICAL, f"silent for 15 min{LAST}"),
        (holder(age=3 * 86400, report=None), Status.CRITICAL, "silent for 3 days"),
        (holder(age=None), Status.UNKNOWN, "was never seen"),
        (holder(age=-AHEAD_SECONDS), Status.OK, "docker: mounted"),
        (holder(age=-AHEAD_SECONDS - 1), Status.UNKNOWN, "was seen in the future: the clock of the NAS was set back"),
        (holder(report=None), Status.OK, "says nothing of itself: it has just started, or its rpinfs is older"),
        (
            holder(report=replace(SAID, status="critical", message="docker: gone")),
            Status.CRITICAL, "docker: gone",
        ),
        (
            holder(age=LATE_SECONDS, report=replace(SAID, status="critical", message="docker: gone")),
            Status.CRITICAL, "docker: gone",
        ),
        (holder(report=replace(SAID, free=GIB)), Status.WARNING, "pi1.img has 1 GiB of 10 GiB free"),
        (holder(report=replace(SAID, free=0)), Status.CRITICAL, "pi1.img has 0 bytes of 10 GiB free"),
        (holder(report=replace(SAID, size=0, free=0)), Status.OK, "docker: mounted"),
        (replace(holder(), fault=RpinfsError("its lock is a pipe", "mv it")), Status.UNKNOWN, "its lock is a pipe"),
    ],
)  # fmt: skip
def test_how_a_pi_is(found: Holder, status: Status, message: str) -> None:
    pi = line(found)
    assert (pi.status, pi.message) == (status, message)
    assert bool(pi.remedy) is (status in (Status.WARNING, Status.CRITICAL) or "future" in message or "pipe" in message)


def test_the_clock_of_a_pi_or_of_who_looks_says_nothing() -> None:
    """A NAS whose clock is in 1970, or in 2100: what counts is the time between two times of its own."""
    for now in (1000.0, 4.2e9):
        found = Holder("/share/a.img", Owner("1", "pi", seen=now - 40), SAID)
        (pi,) = judge("/share", [found], now)
        assert (pi.status, pi.age, fleet.last_seen(pi)) == (Status.OK, 40.0, "40 s ago")


def test_several_images_of_one_pi_are_one_line() -> None:
    """An image that it has given up for another is not in use, and nobody's trouble."""
    old = holder(age=9e6, report=replace(SAID, status="critical", free=GIB), file="old.img")
    pi = line(old, holder(file="new.img"))
    assert pi.age == 30.0 and [room.file for room in pi.images] == ["old.img", "new.img"]
    assert pi.fullest.file == "old.img" and fleet.room_text(pi) == "1 GiB free of 10 GiB"


def test_a_record_that_cannot_be_read_is_a_line_of_its_own() -> None:
    pi = line(Holder("/share/x/a.img", None, fault=RpinfsError("expected JSON", "rpinfs adopt NAME")))
    assert (pi.name, pi.status, pi.message, pi.remedy) == (
        "x/a.img",
        Status.UNKNOWN,
        "expected JSON",
        "rpinfs adopt NAME",
    )
    assert fleet.last_seen(pi) == "never" and fleet.room_text(pi) == ""


def test_trouble_comes_first_and_of_that_who_is_silent_the_longest() -> None:
    bad = replace(SAID, status="critical", message="bad")
    found = [
        holder("pi10"), holder("pi9"), holder("late", LATE_SECONDS), holder("never", None), holder("gone", 9e5),
        holder("away", QUIET_SECONDS), holder("bad", 20, bad), holder("warned", 20, replace(SAID, status="warning")),
    ]  # fmt: skip
    names = [pi.name for pi in judge("/share", found, NOW)]
    assert names == ["gone", "away", "bad", "late", "warned", "never", "pi9", "pi10"]


@pytest.mark.parametrize(
    ("pis", "fault", "status", "said"),
    [
        ([holder()], "", Status.OK, "1 Pi: 1 ok"),
        ([], "", Status.UNKNOWN, "0 Pis"),
        ([holder()], "too many", Status.UNKNOWN, "1 Pi: 1 ok"),
        ([holder(), holder("b", 9e5)], "", Status.CRITICAL, "2 Pis: 1 critical, 1 ok"),
        ([holder("a", LATE_SECONDS), holder("b", None)], "", Status.WARNING, "2 Pis: 1 warning, 1 unknown"),
    ],
)
def test_all_of_them_in_one_word(pis: list[Holder], fault: str, status: Status, said: str) -> None:
    found = Fleet("/share", NOW, True, judge("/share", pis, NOW), fault)
    assert found.status is status and fleet.counts(found) == said
    document = json.loads(json.dumps(fleet.document(found)))
    assert (document["status"], document["exit_status"]) == (status.word, status.value)
    assert len(document["pis"]) == len(pis)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172799, "47 h"),
     (172800, "2 days"), (9e9, "104166 days")],
)  # fmt: skip
def test_a_time_ago(seconds: float, said: str) -> None:
    assert fleet.ago(seconds) == said


# The page


class Seen(HTMLParser):
    """What a browser makes of a page: its elements, their attributes, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "h1", "p", "table", "thead", "tbody", "tr", "th", "td", "small"
}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "name", "content", "http-equiv", "class", "scope", "title", "data-of"}


def page_of(*found: Holder) -> str:
    return page(Fleet("/share", NOW, True, judge("/share", found, NOW)))


def test_the_page_has_no_script_and_fetches_nothing() -> None:
    text = page_of(holder(), holder("b", 9e5), replace(holder("c"), report=None))
    seen = Seen(text)
    assert set(seen.elements) <= ELEMENTS and seen.attributes <= ATTRIBUTES
    assert 'name="viewport"' in text and "default-src 'none'" in text and "@media (max-width" in text
    assert not re.search(r"https?:|url\(|@import|javascript", text)
    assert seen.elements.count("tr") == 4


def test_a_line_of_the_page_says_what_is_to_be_done_where_there_is_something() -> None:
    lines = [line for line in page_of(holder("well"), holder("b", 9e5)).splitlines() if line.startswith("<tr>")]
    cells = [re.findall(r"<td[^>]*>.*?</td>", line) for line in lines]
    assert cells[0][2] == f'<td class="how">silent for 10 days{LAST}<small>{fleet._LOOK_AT_IT}</small></td>'
    assert cells[1] == [
        '<td class="status ok">ok</td>',
        '<td class="name" title="serial-well">well</td>',
        '<td class="how">docker: mounted</td>',
        '<td class="room" data-of="room">5 GiB free of 10 GiB</td>',
        '<td class="seen" data-of="last seen">30 s ago</td>',
        '<td class="board" data-of="board">Pi 4 Model B Rev 1.4</td>',
        '<td class="version" data-of="rpinfs">0.1.0</td>',
    ]


@pytest.mark.parametrize(("asked", "fault"), [(True, ""), (False, "only 2 of its names")])
def test_the_page_says_whose_clock_it_is_by_and_what_was_not_looked_at(asked: bool, fault: str) -> None:
    text = page(Fleet("/share", NOW, asked, judge("/share", [holder()], NOW), fault))
    assert ("UTC by the clock of the machine that made this page</p>" in text) is not asked
    assert ('<p class="unknown">only 2 of its names</p>' in text) is bool(fault)


# Looking


def test_of_a_share_with_too_much_on_it_what_was_read_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    for name, image in (("a", "a.img"), ("b", "below/b.img")):
        lease.acquire(f"{tmp_path}/{image}", Owner(f"serial-{name}", name)).close()
    monkeypatch.setattr(holders, "MOST_ENTRIES", 3)
    found = fleet.look(str(tmp_path))
    assert found.pis and found.asked
    assert found.fault == f"{tmp_path}: only 3 of its names were looked at" and found.status is Status.UNKNOWN
    monkeypatch.setattr(holders, "MOST_ENTRIES", 6)
    found = fleet.look(str(tmp_path))
    assert (sorted(pi.name for pi in found.pis), found.fault) == (["a", "b"], "")


@pytest.mark.parametrize(("kind", "there", "by_it"), [("ext4", True, 0.0), ("nfs4", True, 9.0), ("nfs4", False, 0.0)])
def test_whose_time_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, there: bool, by_it: float
) -> None:
    """The NAS's, by a file that it has just made; where that cannot be, this machine's, and so it is said."""

    @contextmanager
    def new_own(path: str) -> Iterator[SimpleNamespace]:
        assert path == f"{tmp_path}/.fleet.rpinfs-clock"
        if not there:
            raise OSError(errno.EROFS, "Read-only file system", path)
        yield SimpleNamespace(created=9.0)

    line = f"20 1 0:20 / {tmp_path} rw - {kind} nas:/x rw,addr=192.168.1.10\n"
    monkeypatch.setattr(fleet, "read_text", {"/proc/self/mountinfo": line}.__getitem__)
    monkeypatch.setattr(files, "new_own", new_own)
    now, asked = fleet.time_at(str(tmp_path))
    assert asked is (kind == "ext4" or there)
    assert now == by_it if by_it else now > 1e9


HOSTILE = st.sampled_from([
    "</td></tr></table><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;b&gt;", "'", "</title>",
    "\x1b[2J", "a\nb", "\u202e", "\udcff", "{", "--><!--", "</style>",
]) | st.text(max_size=30)  # fmt: skip


@given(*[HOSTILE] * 5)
def test_whatever_a_record_says_is_text_on_the_page(
    name: str, board: str, version: str, message: str, file: str
) -> None:
    said = Report("1", version, board, "warning", message, 10 * GIB, GIB)
    found = Holder(f"/share/{file}", Owner(name or "1", name, seen=NOW - 5), said)
    text = page_of(found)
    text.encode("utf-8")
    seen = Seen(text)
    assert set(seen.elements) <= ELEMENTS and seen.attributes <= ATTRIBUTES
    assert seen.elements.count("tr") == 2 and seen.elements.count("td") == 7
    assert all(character.isprintable() for character in seen.text.replace("\n", ""))
