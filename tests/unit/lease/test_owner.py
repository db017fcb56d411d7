"""What an owner record may say, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.boot.host import Host
from rpinfs.lease import owner
from rpinfs.lease.owner import Owner

TEXTS = ("serial", "hostname", "machine_id", "boot_id")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def is_harmless(text: str) -> bool:
    return text.isprintable() and len(text) <= 255


@given(st.dictionaries(st.sampled_from([*TEXTS, "since", "uuid", "version", "more"]), ANYTHING))
def test_whatever_stands_in_it_is_an_owner_of_harmless_texts_or_a_reason(record: dict[str, object]) -> None:
    data = json.dumps({"version": 1, **dict.fromkeys(TEXTS, "x"), "since": 0, **record}).encode()
    try:
        found = owner.parse(data)
    except ValueError as error:
        assert str(error).startswith("expected ")
    else:
        assert found is not None and found.serial
        assert all(is_harmless(getattr(found, name)) for name in (*TEXTS, "uuid"))
        assert is_harmless(found.with_times()) and 0 <= found.since < 1e11


@given(st.binary(max_size=100))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        assert owner.parse(data) is None or data.strip()
    except ValueError as error:
        assert str(error).startswith("expected ")


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_what_this_machine_says_of_itself_can_be_read_again(serial: str, hostname: str, machine_id: str) -> None:
    """A host name with a newline in it would else make a record that its own writer refuses."""
    mine = Owner.of(Host(root="/nowhere", serial=serial or "1", hostname=hostname, machine_id=machine_id))
    assert all(is_harmless(getattr(mine, name)) for name in TEXTS)
    record = {"version": 1, **{name: getattr(mine, name) for name in TEXTS}, "since": 1, "uuid": ""}
    if mine.serial:
        assert owner.parse(json.dumps(record).encode()) == mine


@pytest.mark.parametrize(
    ("serial", "mac", "told"),
    [
        ("1a2b", "dc-a6-32-00-00-01", "1a2b"),
        ("", "dc-a6-32-00-00-01", "dc-a6-32-00-00-01"),
        ("1a2b", "", "1a2b"),
        ("", "", ""),
    ],
)
def test_what_tells_a_board_from_others(serial: str, mac: str, told: str) -> None:
    assert Owner.serial_of(Host(root="/nowhere", serial=serial, mac=mac)) == told


@pytest.mark.parametrize("seconds", [0, 86400, 1e11, -1e18, 1e300, float("inf"), float("nan")])
def test_every_time_has_words(seconds: float) -> None:
    assert owner.utc(seconds).isprintable()


def test_who_only_looks_makes_no_record(tmp_path: Path) -> None:
    """On a share that is read-only, or another's; to ask the server anew is to open it for making."""
    image = str(tmp_path / "docker.img")
    assert owner.read(image) is None and not list(tmp_path.iterdir())
    assert owner.read(image, anew=True) is None
    assert [path.name for path in tmp_path.iterdir()] == [".docker.img.rpinfs-owner"]


def test_of_a_machine_that_has_nothing_yet_no_time_is_known() -> None:
    """0 is what stands for that: 1 would be a moment of 1970, for which nobody was heard of it."""
    mine = Owner.of(Host(root="/nowhere", serial="1"))
    assert (mine.serial, mine.since, mine.seen, mine.uuid) == ("1", 0, 0, "")
