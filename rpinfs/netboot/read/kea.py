"""Kea's configuration: JSON with comments and includes. Source: the Kea ARM, "JSON Syntax"."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from rpinfs.netboot.read.source import SyntaxFault

_INCLUDE = re.compile(r"<\?include\s+\"([^\"]*)\"\s*\?>")

_DEEPEST = 50


@dataclass(frozen=True)
class KeaConfig:
    """The part "Dhcp4" of a file, and the text, for the lines of what is found in it."""

    file: str
    text: str
    dhcp4: dict[str, Any]

    def line_of(self, *words: str) -> int:
        """The line of the first of these texts that is there; 1 where none is."""
        found = [self.text.find(word) for word in words]
        at = next((place for place in found if place >= 0), -1)
        return self.text.count("\n", 0, at) + 1 if at >= 0 else 1


def parse(text: str, file: str) -> KeaConfig:
    """Read a file. What it includes is left out. Raises SyntaxFault."""
    plain = _INCLUDE.sub("null", without_comments(text, file))
    try:
        # Kea takes a comma behind the last one of a list or a map.
        document = json.loads(re.sub(r",(\s*[\]}])", r"\1", plain))
    except json.JSONDecodeError as error:
        raise SyntaxFault(file, error.lineno, f"expected JSON: {error.msg}") from error
    except RecursionError as error:
        raise SyntaxFault(file, 1, "expected less deeply nested JSON") from error
    if _depth_of(document) > _DEEPEST:
        raise SyntaxFault(file, 1, f"expected JSON of at most {_DEEPEST} levels")
    dhcp4 = document.get("Dhcp4") if isinstance(document, dict) else None
    if not isinstance(dhcp4, dict):
        raise SyntaxFault(file, 1, 'expected a map "Dhcp4"')
    return KeaConfig(file, text, dhcp4)


def _depth_of(document: object) -> int:
    """How many maps and lists are in each other, as far as it matters; without recursion, for it may be anything."""
    depth, level = 0, [document]
    while level and depth <= _DEEPEST:
        inner: list[object] = []
        for value in level:
            inner += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        depth, level = depth + 1, inner
    return depth


def without_comments(text: str, file: str) -> str:
    """Put spaces in the place of comments (#, //, /* */), so that lines and columns stay."""
    out: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == '"':
            end = _end_of_string(text, at)
            out.append(text[at:end])
        elif text[at] == "#" or text.startswith("//", at):
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            out.append(" " * (end - at))
        elif text.startswith("/*", at):
            end = text.find("*/", at + 2)
            if end < 0:
                raise SyntaxFault(file, text.count("\n", 0, at) + 1, "expected */ at the end of a comment")
            end += 2
            out.append("".join("\n" if c == "\n" else " " for c in text[at:end]))
        else:
            end = at + 1
            out.append(text[at])
        at = end
    return "".join(out)


def _end_of_string(text: str, at: int) -> int:
    end = at + 1
    while end < len(text) and text[end] not in '"\n':
        end += 2 if text[end] == "\\" else 1
    return min(end + 1, len(text))
