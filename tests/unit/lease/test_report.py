"""What a Pi says of itself in its lock file, whoever wrote it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.lease import report
from rpinfs.lease.lock import NOTHING
from rpinfs.lease.report import Report
from tests.unit.lease.test_owner import ANYTHING

WELL = Report("1a2b", "0.1.0", "Raspberry Pi 4 Model B Rev 1.4", "ok", "docker: mounted", 10 << 30, 7 << 30)


def test_it_can_be_read_again_and_is_as_large_as_a_page() -> None:
    data = report.record_of(WELL)
    assert len(data) == report.SIZE
    assert report.parse(data) == WELL
    assert report.parse(report.record_of(replace(WELL, size=None, free=None))) == replace(WELL, size=None, free=None)


@given(*[st.text(max_size=1000)] * 4)
def test_whatever_the_machine_says_of_itself_fits_and_can_be_read(
    serial: str, version: str, board: str, message: str
) -> None:
    said = Report(serial, version, board, "critical", message, report._LARGEST - 1, 0)
    data = report.record_of(said)
    assert len(data) == report.SIZE
    found = report.parse(data)
    assert found is not None and found.status == "critical" and found.size == said.size
    assert len(found.message) <= 600 and found.message.isascii() and found.message.isprintable()


@pytest.mark.parametrize("character", ['"', "\\", "\x7f", "\0", "\n", "\x1b", "\u202e", "\U0001f600", "\ud800"])
def test_the_worst_characters_fit(character: str) -> None:
    text = character * 2000
    said = Report(text, text, text, "critical", text, report._LARGEST - 1, 1)
    data = report.record_of(said)
    assert len(data) == report.SIZE and report.parse(data)


@pytest.mark.parametrize("data", [b"", NOTHING, b"\n" + b"\0" * 4095, b"\0" * 4096, b"\n" + report.record_of(WELL)[1:]])
def test_a_lock_of_the_first_version_or_of_a_holder_that_has_just_come_says_nothing(data: bytes) -> None:
    """The last one: of a record, the first byte was written over by who renews without one."""
    assert report.parse(data) is None


@given(st.dictionaries(st.sampled_from([*asdict(WELL), "report", "more"]), ANYTHING))
def test_whatever_stands_in_it_is_a_report_of_harmless_texts_or_a_reason(record: dict[str, object]) -> None:
    data = json.dumps({"report": 1, **asdict(WELL), **record}).encode()
    try:
        found = report.parse(data)
    except ValueError as error:
        assert str(error).startswith("expected ")
    else:
        assert found is not None and found.status in report.STATUSES
        assert all(text.isprintable() for text in (found.serial, found.version, found.board, found.message))
        assert (found.size is None) == (found.free is None)


@given(st.binary(max_size=5000).map(lambda data: b"{" + data))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        report.parse(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"report": 2}, {"report": True, "status": 1}, {"status": "fine"}, {"status": "unknown"},
        {"message": "a\x1b[2J"}, {"message": "x" * 601}, {"size": True, "free": True}, {"size": 1, "free": 2},
        {"size": -1, "free": -1}, {"size": 1 << 63, "free": 0}, {"size": 5}, {"free": 5}, {"size": 1.5, "free": 1},
        {"board": None},
    ],
)  # fmt: skip
def test_what_we_would_not_have_written_is_refused(wrong: dict[str, object]) -> None:
    record = {"report": 1, **asdict(WELL), "size": None, "free": None, **wrong}
    with pytest.raises(ValueError, match=r"^expected "):
        report.parse(json.dumps(record).encode())


def test_a_deep_one_and_a_huge_number_are_reasons_too() -> None:
    for data in (b'{"a":' + b"[" * 4000, b'{"report": ' + b"9" * 4000 + b"}", b'{"report": NaN}', b"{}"):
        with pytest.raises(ValueError, match=r"^expected "):
            report.parse(data)


def test_keys_that_a_later_version_adds_do_not_matter() -> None:
    record = {"report": 1, **asdict(WELL), "temperature": 48.2}
    assert report.parse(json.dumps(record).encode()) == WELL
