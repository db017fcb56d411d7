"""exports(5), whole: continued lines, quotes, octal escapes, defaults, and the space that exports to the world."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from rpinfs.netboot.read.source import SyntaxFault


@dataclass(frozen=True)
class Export:
    """One path for one client. `client` is "*" where the line names none; `options` with the defaults of the line."""

    file: str
    line: int
    path: str
    client: str
    options: tuple[str, ...]
    written: str

    def has(self, option: str, opposite: str, default: bool) -> bool:
        """Whether an option is in force: the last of it and its opposite counts."""
        for one in reversed(self.options):
            if one in (option, opposite):
                return one == option
        return default


def path_text(path: str) -> str:
    """A path as exports(5) takes it: what would end a word there is written as a number."""
    return "".join(
        c if c.isprintable() and c not in ' "\\#' else "".join(f"\\{b:03o}" for b in os.fsencode(c)) for c in path
    )


def parse(text: str, file: str) -> list[Export]:
    """Read a file. Raises SyntaxFault."""
    found: list[Export] = []
    for number, line in _logical_lines(text):
        words = list(_words(line, file, number))
        if not words:
            continue
        path, *clients = words
        if not path.startswith("/"):
            raise SyntaxFault(file, number, f"{path}: expected an absolute path")
        defaults: tuple[str, ...] = ()
        if clients and clients[0].startswith("-"):
            defaults, clients = tuple(clients[0][1:].split(",")), clients[1:]
        for client in clients or ["*"]:
            name, bracket, options = client.partition("(")
            if bracket and not options.endswith(")"):
                raise SyntaxFault(file, number, f"{client}: expected options in ( ), with no space between them")
            own = tuple(option for option in options.removesuffix(")").split(",") if option)
            found.append(Export(file, number, path, name or "*", (*defaults, *own), client))
    return found


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    pending, start = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        start = start or number
        if raw.endswith("\\"):
            pending += raw[:-1] + " "
            continue
        yield start, pending + raw
        pending, start = "", 0
    if pending:
        yield start, pending


def _words(line: str, file: str, number: int) -> Iterator[str]:
    word, quoted, at = "", False, 0
    while at < len(line):
        character = line[at]
        if character == "\\" and line[at + 1 : at + 4].isdigit() and len(line[at + 1 : at + 4]) == 3:
            word += chr(int(line[at + 1 : at + 4], 8)) if set(line[at + 1 : at + 4]) <= set("01234567") else "?"
            at += 3
        elif character == '"':
            quoted = not quoted
        elif character == "#" and not quoted:
            break
        elif character.isspace() and not quoted:
            if word:
                yield word
            word = ""
        else:
            word += character
        at += 1
    if quoted:
        raise SyntaxFault(file, number, "expected a closing quote")
    if word:
        yield word
