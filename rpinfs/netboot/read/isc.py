"""ISC dhcpd's configuration: statements, nested by braces. Source: dhcpd.conf(5), dhcp-eval(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from rpinfs.netboot.read.source import SyntaxFault, text_of


@dataclass
class Statement:
    """Words up to `;` or `{`; strings keep their quotes. `body`: what stands between the braces."""

    file: str
    line: int
    words: list[str]
    body: list[Statement] | None = None
    scope: list[Statement] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The statement without its body."""
        return " ".join(self.words)


Token = tuple[str, int]


def read(path: str) -> list[Statement]:
    """Read a file and what it includes, wherever that stands, as the server does.

    Raises:
        OSError: the file cannot be read. One that is included and cannot be is a SyntaxFault.
        SyntaxFault: it is not a configuration, or includes itself.
    """
    return _with_included(parse(text_of(path), path), [path])


def _with_included(statements: list[Statement], files: list[str]) -> list[Statement]:
    found: list[Statement] = []
    for statement in statements:
        if statement.body is not None:
            statement.body = _with_included(statement.body, files)
        found.append(statement)
        if statement.words[:1] == ["include"] and len(statement.words) == 2:
            path = os.path.normpath(statement.words[1].strip('"'))
            where = (statement.file, statement.line)
            if path in files:
                raise SyntaxFault(*where, f"{statement.text}: expected another file, found one that includes this one")
            try:
                inner = parse(text_of(path), path)
            except OSError as error:
                raise SyntaxFault(*where, f"{statement.text}: cannot be read: {error.strerror}") from error
            found += _with_included(inner, [*files, path])
    return found


def parse(text: str, file: str) -> list[Statement]:
    """Read a file. Raises SyntaxFault."""
    statements, rest = _block(list(_tokens(text, file)), 0, file, [])
    assert rest is None
    return statements


def walk(statements: list[Statement]) -> Iterator[Statement]:
    """Every statement, the outer before the inner."""
    for statement in statements:
        yield statement
        yield from walk(statement.body or [])


def _tokens(text: str, file: str) -> Iterator[Token]:
    at, line = 0, 1
    while at < len(text):
        character = text[at]
        if character == "\n":
            line += 1
        if character.isspace():
            at += 1
        elif character == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif character in "{};":
            yield character, line
            at += 1
        elif character == '"':
            end = at + 1
            while end < len(text) and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            if end >= len(text):
                raise SyntaxFault(file, line, "expected a closing quote")
            yield text[at : end + 1], line
            line += text.count("\n", at, end)
            at = end + 1
        else:
            end = at
            while end < len(text) and not text[end].isspace() and text[end] not in '{};"#':
                end += 1
            yield text[at:end], line
            at = end


def _block(tokens: list[Token], at: int, file: str, scope: list[Statement]) -> tuple[list[Statement], int | None]:
    """Statements from a place on; with a scope, up to its closing brace."""
    if len(scope) > 50:
        raise SyntaxFault(file, scope[-1].line, "expected at most 50 blocks in each other")
    found: list[Statement] = []
    words: list[str] = []
    begun = 0
    while at < len(tokens):
        token, line = tokens[at]
        at += 1
        if token == "}":
            if words or not scope:
                raise SyntaxFault(file, line, "expected ; in front of }" if words else "unexpected }")
            return found, at
        if token == ";":
            if words:
                found.append(Statement(file, begun, words, None, list(scope)))
            words = []
        elif token == "{":
            outer = Statement(file, begun or line, words, [], list(scope))
            outer.body, after = _block(tokens, at, file, [*scope, outer])
            assert after is not None
            at = after
            found.append(outer)
            words = []
        else:
            begun = begun if words else line
            words.append(token)
    if scope:
        raise SyntaxFault(file, scope[-1].line, f"expected a closing }} for: {scope[-1].text}")
    if words:
        raise SyntaxFault(file, begun, f"expected ; behind: {' '.join(words)}")
    return found, None
