"""The text of a daemon.json, by version."""

from __future__ import annotations

import pytest

from rpinfs.docker import daemonjson
from rpinfs.errors import RpinfsError

OLD, NEW = (20, 10), (23, 0)


def parsed(text: str | None, version: tuple[int, int] = NEW) -> daemonjson.DaemonJson:
    return daemonjson.parse(text, "d.json", version, "x.y")


def test_keys_and_lines() -> None:
    found = parsed('{\n  "a": 1,\n  "b": {\n "c": 2},\n"a": 3}')
    assert found.keys == {"a": 3, "b": {"c": 2}}
    assert found.lines == {"a": 5, "b": 3}
    assert found.problems == ()


@pytest.mark.parametrize("text", ["", " \n", "\ufeff", "\ufeff{}", '{"a": 1} {"b": 2}'])
def test_what_one_takes_and_the_other_does_not(text: str) -> None:
    old = parsed(text, OLD)
    assert len(old.problems) == (2 if text == "\ufeff" else 1)
    assert all(problem.message.startswith("d.json") and problem.remedy for problem in old.problems)
    if "1" in text:
        assert (old.keys, old.problems[0].fatal) == ({"a": 1}, False)
        with pytest.raises(RpinfsError, match=r"d\.json:1: expected JSON: text behind the object"):
            parsed(text)
    else:
        assert old.problems[0].fatal
        assert parsed(text).problems == ()


@pytest.mark.parametrize("version", [OLD, NEW])
def test_nothing(version: tuple[int, int]) -> None:
    for text in (None, "null"):
        assert (parsed(text, version).keys, parsed(text, version).problems) == ({}, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "d.json:1: expected JSON: "),
        ('{\n"a": 1,\n}', ("d.json:3: expected JSON: ", "d.json:2: expected JSON: Illegal trailing comma")),
        ('{\n"a": 1\n}\n\n{"b": 2}\n', "d.json:5: expected JSON: text behind the object"),
        ("{}\n}", "d.json:2: expected JSON: text behind the object"),
        ("[1]", "d.json:1: expected an object in braces, found "),
        ('{"a": Infinity}', "d.json: expected JSON: Infinity is no JSON"),
        ('{"a": ' + "[" * 100000, "d.json: expected JSON: it is nested too deeply"),
    ],
)
def test_no_json(text: str, message: str | tuple[str, ...]) -> None:
    with pytest.raises(RpinfsError) as caught:
        parsed(text)
    assert caught.value.message.startswith(message)
    assert caught.value.status == 2
