"""dnsmasq's configuration, with what it includes. Source: dnsmasq(8); src/option.c, read_file()."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from rpinfs.netboot.read.source import SyntaxFault, text_of

_MOST_FILES = 200


@dataclass(frozen=True)
class Option:
    """One line: a long option without its dashes, and what stands behind the first `=`, without the quotes."""

    file: str
    line: int
    key: str
    value: str

    @property
    def parts(self) -> list[str]:
        """The value at its commas; those in quotes are none. Quotes are gone."""
        return _split(self.value)

    @property
    def tags(self) -> list[str]:
        """Tags that must be set for it to count: `tag:rpi`; `tag:!rpi` must not be."""
        return [part.strip().removeprefix("tag:") for part in self.parts if part.strip().startswith("tag:")]

    @property
    def text(self) -> str:
        """The line as it would be written."""
        return f"{self.key}={self.value}" if self.value else self.key


def read(path: str, root: str = "") -> list[Option]:
    """Read a file and everything that it includes, in the order in which dnsmasq does.

    Args:
        path: within `root`.
        root: a folder that stands for /, for what is included by an absolute name.

    Raises:
        OSError: the file cannot be read. One that is included and is not there is a SyntaxFault.
        SyntaxFault: it is not a configuration.
    """
    return list(_read(path, root, []))


def _read(path: str, root: str, seen: list[str]) -> Iterator[Option]:
    path = os.path.normpath(path)
    if path in seen:
        return
    seen.append(path)
    if len(seen) > _MOST_FILES:
        raise SyntaxFault(path, 0, f"expected at most {_MOST_FILES} files that include each other")
    for option in parse(text_of(root + path), path):
        yield option
        if option.key == "conf-file":
            yield from _included(option, option.value.split(",")[0], root, seen)
        elif option.key == "conf-dir":
            for name in _names_in(option, root):
                yield from _included(option, name, root, seen)


def _included(option: Option, path: str, root: str, seen: list[str]) -> Iterator[Option]:
    try:
        yield from _read(path, root, seen)
    except OSError as error:
        raise SyntaxFault(
            option.file, option.line, f"{option.text}: {path} cannot be read: {error.strerror}"
        ) from error


def _names_in(option: Option, root: str) -> list[str]:
    """Files of a conf-dir: `DIR,.bak` leaves out names that end so, `DIR,*.conf` takes only those."""
    folder, *endings = [part.strip() for part in option.value.split(",")]
    wanted = [ending[1:] for ending in endings if ending.startswith("*")]
    unwanted = [ending for ending in endings if ending and not ending.startswith("*")]
    try:
        names = sorted(os.listdir(root + folder))
    except OSError as error:
        raise SyntaxFault(option.file, option.line, f"{option.text}: {folder}: {error.strerror}") from error
    return [
        f"{folder}/{name}"
        for name in names
        if not name.endswith("~")
        and not name.startswith((".", "#"))
        and (not wanted or name.endswith(tuple(wanted)))
        and not (unwanted and name.endswith(tuple(unwanted)))
        and os.path.isfile(f"{root}{folder}/{name}")
    ]


def parse(text: str, file: str) -> Iterator[Option]:
    """Read one file's lines. A `#` begins a comment at the start of a line or behind a space, outside of quotes."""
    for number, raw in enumerate(text.split("\n"), 1):
        line = _without_comment(raw, file, number).strip()
        if line:
            key, _, value = line.partition("=")
            yield Option(file, number, key.strip(), value.strip())


def _without_comment(line: str, file: str, number: int) -> str:
    quoted = escaped = False
    for at, character in enumerate(line):
        if escaped:
            escaped = False
        elif character == "\\" and quoted:
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "#" and not quoted and (at == 0 or line[at - 1].isspace()):
            return line[:at]
    if quoted:
        raise SyntaxFault(file, number, "expected a closing quote")
    return line


def _split(value: str) -> list[str]:
    parts, current, quoted = [], "", False
    for character in value:
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]
