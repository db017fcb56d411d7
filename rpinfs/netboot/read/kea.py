"""Kea's configuration: JSON with comments and includes. Source: the Kea ARM, "JSON Syntax"."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from rpinfs.netboot.read.source import SyntaxFault, text_of

_INCLUDE = re.compile(r"<\?include\s+\"([^\"]*)\"\s*\?>")

_DEEPEST = 50


@dataclass(frozen=True)
class KeaConfig:
    """The part "Dhcp4" of a file, and the texts, its own first, for the places of what is found in it."""

    file: str
    texts: dict[str, str]
    dhcp4: dict[str, Any]

    def place_of(self, *words: str) -> tuple[str, int]:
        """File and line of the first of these texts that is there; the first line where none is."""
        for word in words:
            for file, text in self.texts.items():
                if (at := text.find(word)) >= 0:
                    return file, text.count("\n", 0, at) + 1
        return self.file, 1


def read(path: str) -> KeaConfig:
    """Read a file with what it includes. Raises OSError, SyntaxFault."""
    return parse(text_of(path), path)


def parse(text: str, file: str) -> KeaConfig:
    """Understand a file, with what it includes. Raises SyntaxFault."""
    texts: dict[str, str] = {}
    plain = _whole(text, file, texts)
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
    return KeaConfig(file, texts, dhcp4)


def _whole(text: str, file: str, texts: dict[str, str]) -> str:
    """The text without comments and with the texts that it includes, which may be any piece of JSON."""
    texts[file] = text

    def included(match: re.Match[str]) -> str:
        line, path = text.count("\n", 0, match.start()) + 1, os.path.normpath(match[1])
        if path in texts:
            raise SyntaxFault(file, line, f"{match[0]}: expected another file, found one that is read already")
        try:
            return " ".join(_whole(text_of(path), path, texts).splitlines())
        except OSError as error:
            raise SyntaxFault(file, line, f"{match[0]}: cannot be read: {error.strerror}") from error

    return _INCLUDE.sub(included, without_comments(text, file))


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
