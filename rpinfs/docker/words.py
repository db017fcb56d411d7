"""Lines, words, variables and files of variables as systemd reads them, for what it gives to dockerd.

Pure. Sources: systemd.syntax(7), systemd.service(5) "Command lines", systemd.exec(5), and the code of 252 and 257 where
these say less: conf-parser.c (continuation), extract-word.c (quotes), env-util.c (variables), env-file.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rpinfs.boot.host import lines_of

_SPACE = " \t\n\r"
_COMMENT = "#;"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " ",
    "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip
_BY_NUMBER = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})")


class NotTold(Exception):
    """It cannot be told from the files what systemd makes of it; the text says of what."""


def assignments(text: str) -> Iterator[tuple[str, str, str, int]]:
    """Section, key, value and line number of each assignment of a unit file."""
    section = ""
    for line, number in _logical_lines(text):
        if line.startswith("["):
            section = line[1:-1] if line.endswith("]") else ""
            continue
        key, equals, value = line.partition("=")
        if equals:
            yield section, key.strip(_SPACE), value.strip(_SPACE), number


def _logical_lines(text: str) -> Iterator[tuple[str, int]]:
    """Lines with their continuations; comments between them are left out, and count neither as one nor as an end."""
    held, begun = "", 0
    for number, raw in enumerate(lines_of(text.removeprefix("\ufeff")), 1):
        line = raw.lstrip(_SPACE)
        if line[:1] and line[0] in _COMMENT:
            continue
        begun = begun or number
        held += line
        if _ends_in_escape(held):
            held = held[:-1] + " "
            continue
        if held.strip(_SPACE):
            yield held.strip(_SPACE), begun
        held, begun = "", 0
    if held.strip(_SPACE):
        yield held.strip(_SPACE), begun


def _ends_in_escape(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def split(text: str, *, c_escapes: bool) -> list[str]:
    """Words of a value, quotes undone.

    Args:
        c_escapes: whether those of C are escapes, as in a unit file, or what follows a backslash is taken as it is,
            as in the value of a variable. An escape that is none stays as it is written.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\" and position < len(text):
            escaped, position = _unescaped(text, position) if c_escapes else (text[position], position + 1)
            word = (word or "") + escaped
        elif quote:
            quote, word = ("", word) if character == quote else (quote, (word or "") + character)
        elif character in "\"'":
            quote, word = character, word or ""
        elif character in _SPACE:
            words += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + character
    return words if word is None else [*words, word]


def _unescaped(text: str, position: int) -> tuple[str, int]:
    """What an escape behind its backslash stands for, and where it ends."""
    if text[position] in _ESCAPES:
        return _ESCAPES[text[position]], position + 1
    found = _BY_NUMBER.match(text, position)
    if not found:
        return "\\" + text[position], position + 1
    number = int(found[4], 8) if found[4] else int(found[1] or found[2] or found[3], 16)
    return chr(number) if number <= 0x10FFFF else "\\" + found[0], found.end()


def specified(text: str, values: Mapping[str, str]) -> str:
    """A text with its specifiers (systemd.unit(5)) put in.

    Raises:
        NotTold: one of them has no value here.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        if found[1] not in values:
            raise NotTold(f"%{found[1]}")
        return values[found[1]]

    return re.sub(r"%([%a-zA-Z])", value, text)


def substituted(words: list[str], variables: Mapping[str, str]) -> list[tuple[str, str]]:
    """Words with their variables put in, each with the name of the variable that it came from, if it was all of it."""
    made: list[tuple[str, str]] = []
    for word in words:
        name = word[1:]
        if word.startswith("$") and not word.startswith(("${", "$$")) and _NAME.fullmatch(name):
            # A variable that is a word of its own becomes none, one or several.
            made += [(part, name) for part in split(variables.get(name, ""), c_escapes=False)]
            continue
        names: list[str] = []

        def put_in(found: re.Match[str], names: list[str] = names) -> str:
            if found[0] == "$$":
                return "$"
            names.append(found[1])
            return variables.get(found[1], "")

        made.append((re.sub(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}", put_in, word), names[-1] if names else ""))
    return made


def is_name(text: str) -> bool:
    """Whether a variable may have this name; systemd leaves others out."""
    return _NAME.fullmatch(text) is not None


def environment_file(text: str) -> dict[str, tuple[str, int]]:
    """Variables of a file for EnvironmentFile=, with their line numbers. No shell reads it: nothing is put in."""
    found: dict[str, tuple[str, int]] = {}
    for raw, number in _entries(text):
        key, equals, value = raw.partition("=")
        name = key.strip(_SPACE)
        if equals and is_name(name):
            found[name] = (_file_value(value), number)
    return found


def _entries(text: str) -> Iterator[tuple[str, int]]:
    """The assignments of such a file with their quotes: a value goes on behind an escaped end of line, or in quotes."""
    lines = lines_of(text)
    position = 0
    while position < len(lines):
        entry, begun = lines[position].lstrip(_SPACE), position + 1
        position += 1
        if not entry or entry[0] in _COMMENT:
            continue
        while "=" in entry and position < len(lines) and _is_open(entry.partition("=")[2]):
            entry += "\n" + lines[position]
            position += 1
        yield entry, begun


def _is_open(value: str) -> bool:
    return _scanned(value)[1]


def _file_value(value: str) -> str:
    return _scanned(value)[0]


def _scanned(value: str) -> tuple[str, bool]:
    """A value with its quotes and escapes undone; whether it is still open at the end of the text."""
    made, kept = "", 0
    state = "before"
    position = 0
    while position < len(value):
        character = value[position]
        position += 1
        following = value[position : position + 1]
        if state == "before" and character in "\"'":
            state = character
        elif state == character and state in "\"'":
            # Behind a quote a new one may begin; spaces there count for nothing.
            state, kept = "before", len(made)
        elif state == "'" or (state == '"' and character != "\\"):
            made += character
        elif character == "\\":
            if not following:
                return made, True
            position += 1
            if following != "\n":
                literal = state == '"' and following not in '"\\`$'
                made += ("\\" if literal else "") + following
            state = state if state == '"' else "value"
            kept = len(made)
        elif state == "before" and character in _SPACE:
            continue
        else:
            state = "value" if state == "before" else state
            made += character
            kept = kept if character in _SPACE else len(made)
    return (made if state in "\"'" else made[:kept]), state in ("'", '"')
