"""How far a restore came, told from what lies on the share; and the record that says what it was about."""

from __future__ import annotations

import json

import pytest

from rpinfs.image.replacing import Record, Step, next_step, parse

IMAGE = "docker.img"
THEN, NOW = "docker.img.snapshot-20261122T201500Z", "docker.img.snapshot-20261126T184000Z"
UUID = "0b6f3c9a-5f0e-4b8e-9d1c-2f3e4a5b6c7d"
OLD, NEW, OTHER = 11, 22, 33

RECORD = Record(THEN, NOW, OLD, NEW, UUID)
OF_NOTHING = Record(THEN, "", 0, NEW, UUID)
FIRST_VERSION = Record("", "docker.img.replaced", OLD, 0, "")

# The record, what has the image's name, what has the name for what is replaced.
STEPS = {
    "no restore": (None, OLD, None, Step.NOTHING),
    "only the record": (RECORD, OLD, None, Step.FORGET),
    "linked": (RECORD, OLD, OLD, Step.TAKE_NAME_OFF),
    "renamed, on a share without links": (RECORD, None, OLD, Step.PUT_BACK),
    "renamed, where that changes the number": (RECORD, None, OTHER, Step.PUT_BACK),
    "renamed, and something odd is there": (RECORD, None, 0, Step.FORGET),
    "claimed, on a share without links": (RECORD, OLD, OTHER, Step.FORGET),
    "done": (RECORD, NEW, OLD, Step.COMPLETE),
    "done, where renaming changes the number": (RECORD, OTHER, OLD, Step.COMPLETE),
    "done, and what it replaced was deleted": (RECORD, NEW, None, Step.COMPLETE),
    "both are gone": (RECORD, None, None, Step.FORGET),
    "another image, and nothing kept": (RECORD, OTHER, None, Step.FORGET),
    "another image and another snapshot": (RECORD, OTHER, 44, Step.FORGET),
    "somebody gave the image that name": (RECORD, OTHER, OTHER, Step.FORGET),
    "no file in its place": (RECORD, 0, 0, Step.FORGET),
    "of nothing: only the record": (OF_NOTHING, None, None, Step.FORGET),
    "of nothing: done": (OF_NOTHING, NEW, None, Step.COMPLETE),
    "of nothing: another image": (OF_NOTHING, OTHER, None, Step.FORGET),
    "of nothing: something odd": (OF_NOTHING, 0, None, Step.FORGET),
    "first version: only the record": (FIRST_VERSION, OLD, None, Step.FORGET),
    "first version: linked": (FIRST_VERSION, OLD, OLD, Step.TAKE_NAME_OFF),
    "first version: renamed": (FIRST_VERSION, None, OLD, Step.PUT_BACK),
    "first version: done": (FIRST_VERSION, NEW, OLD, Step.FORGET),
    "first version: something odd": (FIRST_VERSION, 0, 0, Step.FORGET),
}


@pytest.mark.parametrize(("record", "image", "kept", "step"), STEPS.values(), ids=STEPS)
def test_steps(record: Record | None, image: int | None, kept: int | None, step: Step) -> None:
    assert next_step(record, image, kept) is step


GOOD = {"version": 2, "of": THEN, "kept": NOW, "replaced": OLD, "restored": NEW, "uuid": UUID}


def test_a_record() -> None:
    assert parse(json.dumps(GOOD).encode(), IMAGE) == RECORD
    assert parse(json.dumps({**GOOD, "kept": "", "replaced": 0}).encode(), IMAGE) == OF_NOTHING
    assert parse(json.dumps({"inode": OLD}).encode(), IMAGE) == FIRST_VERSION
    restored_first = {**GOOD, "of": "docker.img.replaced"}
    assert parse(json.dumps(restored_first).encode(), IMAGE).of == "docker.img.replaced"


# It says what is renamed: whatever we would not have written is refused.
WRONG = {
    "another version": {"version": 3},
    "a text for a number": {"replaced": "11"},
    "true for a number": {"restored": True},
    "a fraction": {"restored": 1.5},
    "no number": {"replaced": 0},
    "a number of nothing": {"kept": ""},
    "a negative number": {"replaced": -1},
    "a number beyond all": {"kept": "", "replaced": -(10**400)},
    "the snapshot of another image": {"kept": "other.img.snapshot-20261122T201500Z"},
    "another folder": {"kept": "../docker.img.snapshot-20261122T201500Z"},
    "an absolute path": {"kept": "/etc/docker.img.snapshot-20261122T201500Z"},
    "the image itself": {"kept": IMAGE},
    "something else": {"kept": "passwd"},
    "a newline": {"of": f"{THEN}\n"},
    "an escape": {"of": "docker.img.snapshot-2026\x1b[2JT201500Z"},
    "no snapshot": {"of": ""},
    "a list": {"of": [THEN]},
    "no UUID": {"uuid": ""},
    "half a UUID": {"uuid": UUID[:-1]},
    "a UUID in capitals": {"uuid": UUID.upper()},
    "more than we write": {"more": 1},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_records(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(json.dumps({**GOOD, **wrong}).encode(), IMAGE)


@pytest.mark.parametrize("missing", GOOD)
def test_a_record_with_something_missing(missing: str) -> None:
    less = {key: value for key, value in GOOD.items() if key != missing}
    with pytest.raises(ValueError, match=r"."):
        parse(json.dumps(less).encode(), IMAGE)


@pytest.mark.parametrize("data", [b"[" * 4096, b"\xff", b"[]", b'"x"', b"null", b'{"inode": "11"}', b'{"inode": 0}'])
def test_what_is_no_record(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(data, IMAGE)
