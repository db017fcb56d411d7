"""Change one key of a JSON object in its text, and nothing else: order, spacing and all other keys stay as they are.

The text must be one object, as json.loads() takes it. A key that is given twice counts as its last value, as it does
for Go and Python.
"""

from __future__ import annotations

import json
from typing import NamedTuple

_SPACE = " \t\r\n"
_NEW = "{{\n    {member}\n}}\n"


class _Member(NamedTuple):
    """Where a key and its value stand in the text; `colon` is where the key ends, `end` is behind the value."""

    key: str
    start: int
    colon: int
    value: int
    end: int


def set_member(text: str, key: str, value: object) -> str:
    """Give a key of the object a value: in its place, or behind the last one in the manner of the others."""
    members = _members(text)
    there = [member for member in members if member.key == key]
    if there:
        return text[: there[-1].value] + json.dumps(value) + text[there[-1].end :]
    if not members:
        return _NEW.format(member=f"{json.dumps(key)}: {json.dumps(value)}")
    first, last = members[0], members[-1]
    before = text[text.index("{") + 1 : first.start]
    # On a line of its own where the first one is; of several empty lines before that one only one is made.
    separator = _line_end(before) + before.rpartition("\n")[2] if "\n" in before else " "
    added = f"{json.dumps(key)}{text[first.colon : first.value]}{json.dumps(value)}"
    return f"{text[: last.end]},{separator}{added}{text[last.end :]}"


def remove_member(text: str, key: str) -> str:
    """Take a key out of the object, with the comma and the line that were its own."""
    members = _members(text)
    index = next((index for index, member in enumerate(members) if member.key == key), None)
    if index is None:
        return text
    if index > 0:
        text = text[: members[index - 1].end] + text[members[index].end :]
    elif len(members) > 1:
        text = text[: members[0].start] + text[members[1].start :]
    else:
        text = text[: text.index("{") + 1] + text[text.rindex("}") :]
    return remove_member(text, key)


def lines(text: str) -> dict[str, int]:
    """The lines, counted from 1, on which the keys of the object stand."""
    return {member.key: text.count("\n", 0, member.start) + 1 for member in _members(text)}


def _members(text: str) -> list[_Member]:
    """The members of the object in their order; none where there is no object."""
    decoder = json.JSONDecoder()
    members: list[_Member] = []
    position = _skip(text, 0, _SPACE) + 1
    while (position := _skip(text, position, _SPACE + ",")) < len(text) and text[position] == '"':
        key, colon = decoder.raw_decode(text, position)
        value = _skip(text, _skip(text, colon, _SPACE) + 1, _SPACE)
        _, end = decoder.raw_decode(text, value)
        members.append(_Member(key, position, colon, value, end))
        position = end
    return members


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position
