"""nfs.conf(5): [sections] of KEY=VALUE; those of other daemons are left out."""

from __future__ import annotations

from dataclasses import dataclass

_YES = ("1", "t", "true", "y", "yes", "on")
_NO = ("0", "f", "false", "n", "no", "off")


@dataclass(frozen=True)
class Switch:
    """A key of [nfsd] that says yes or no."""

    file: str
    line: int
    key: str
    on: bool


def parse(text: str, file: str) -> list[Switch]:
    """Read a file. What is neither yes nor no, such as threads=8, is left out; nfs.conf has no wrong lines."""
    found: list[Switch] = []
    section = ""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            section = line[1:].partition("]")[0].strip().strip('"').lower()
        key, equals, value = line.partition("=")
        said = value.strip().strip("\"'").lower()
        if equals and section == "nfsd" and said in (*_YES, *_NO):
            found.append(Switch(file, number, key.strip().lower(), said in _YES))
    return found
