"""One key of a JSON object is changed in its text, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.docker.jsonedit import lines, remove_member, set_member

LINES = '{\n  "a": 1,\n  "b": [2, {"k": 3}]\n}\n'


@pytest.mark.parametrize(
    ("text", "key", "after"),
    [
        ("", "k", '{\n    "k": "v"\n}\n'),
        ("{}", "k", '{\n    "k": "v"\n}\n'),
        (" \n{ }\n", "k", '{\n    "k": "v"\n}\n'),
        ('{"a":1}', "k", '{"a":1, "k":"v"}'),
        ('{ "a" : 1 }', "k", '{ "a" : 1, "k" : "v" }'),
        (LINES, "k", '{\n  "a": 1,\n  "b": [2, {"k": 3}],\n  "k": "v"\n}\n'),
        ('{\r\n\t"a": 1\r\n}', "k", '{\r\n\t"a": 1,\r\n\t"k": "v"\r\n}'),
        ('{\n\n\n  "a": 1}', "k", '{\n\n\n  "a": 1,\n  "k": "v"}'),
        (LINES, "a", '{\n  "a": "v",\n  "b": [2, {"k": 3}]\n}\n'),
        (LINES, "b", '{\n  "a": 1,\n  "b": "v"\n}\n'),
        # The last one counts.
        ('{"a": 1, "a": 2}', "a", '{"a": 1, "a": "v"}'),
        ('{"a}": "{\\"a\\": 1}"}', "a", '{"a}": "{\\"a\\": 1}", "a": "v"}'),
    ],
)
def test_a_key_that_is_set(text: str, key: str, after: str) -> None:
    assert set_member(text, key, "v") == after


@pytest.mark.parametrize(
    ("text", "key", "after"),
    [
        ("", "a", ""),
        ("{}", "a", "{}"),
        (LINES, "k", LINES),
        (LINES, "a", '{\n  "b": [2, {"k": 3}]\n}\n'),
        (LINES, "b", '{\n  "a": 1\n}\n'),
        ('{"a": 1, "b": 2, "c": 3}', "b", '{"a": 1, "c": 3}'),
        (' { "a": {"b": 1} } ', "a", " {} "),
        ('{"a": 1, "b": 2, "a": 3}', "a", '{"b": 2}'),
        ('{"a": 1, "a": 3}', "a", "{}"),
    ],
)
def test_a_key_that_is_taken_out(text: str, key: str, after: str) -> None:
    assert remove_member(text, key) == after


def test_the_lines_of_keys() -> None:
    assert lines('{"a": 1, "b": [\n"x"],\n\n"c": {"d":\n1}, "e": 2, "a": 3}') == {"a": 5, "b": 1, "c": 4, "e": 5}
    assert lines("") == lines("[]") == {}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), st.text(max_size=3), VALUES, st.sampled_from([0, 2]))
def test_any_object_as_python_has_it(there: dict[str, object], key: str, value: object, indent: int) -> None:
    text = json.dumps(there, indent=indent or None)
    assert json.loads(set_member(text, key, value)) == {**there, key: value}
    assert json.loads(remove_member(text, key)) == {name: one for name, one in there.items() if name != key}
    assert list(lines(text)) == list(there)
