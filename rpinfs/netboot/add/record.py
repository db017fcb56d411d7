"""The record of a board, `.NAME.rpinfs-board` beside its root: all that was done to make it, and all that is known.

Written in one step. While it names what is `staged`, the board is whole but lacks a name yet, see staging.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from rpinfs.errors import RpinfsError, quoted
from rpinfs.system import files

_VERSION = 1
_NAME = re.compile(r"\.([a-z0-9][a-z0-9-]{0,62})\.rpinfs-board")
_LISTS = ("kernels", "did", "left", "lost")
_LONGEST = 2000
"""Characters. No sentence of a person's interest is longer; names in an image may be."""
_STAGED = re.compile(r"[0-9a-f]{16}")


class RecordError(RpinfsError):
    """A record that cannot be read or understood."""


@dataclass
class Record:
    """What is known of a board.

    Attributes:
        serial, mac, board: empty where nobody said.
        root, boot: folders, on the machine that made them.
        source: the image's file name, or the folder or the name of the board that it was copied from.
        sha256: of the image's file; empty for a folder.
        made: when, in seconds since 1970.
        by: what made it: "rpinfs 0.1.0".
        system: what the image calls itself.
        kernels: versions of its modules.
        packages: name and version of what was put in.
        did, left, lost: sentences: what was done, what is left to do, what the file systems could not keep.
        staged: the random digits of the staging folders, as long as not all is under its name.
    """

    name: str
    serial: str
    mac: str
    board: str
    server: str
    root: str
    boot: str
    source: str
    sha256: str = ""
    made: int = 0
    by: str = ""
    system: str = ""
    user: str = ""
    kernels: list[str] = field(default_factory=list)
    packages: dict[str, str] = field(default_factory=dict)
    did: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    staged: str = ""


def path_of(roots: str, name: str) -> str:
    """Path of the record of a board, in the folder with the roots."""
    return f"{roots}/.{name}.rpinfs-board"


def listed(roots: str) -> str:
    """The command that shows all boards of a folder with roots, whatever plan there is or is not."""
    return f"rpinfs netboot list --root {quoted(roots)}"


def write(roots: str, record: Record) -> None:
    """Write a record, whole and synced, in place of the one that is there. Raises OSError, OddFileError."""
    with files.new_own(path_of(roots, record.name)) as new:
        new.publish(_bounded(record))


def _bounded(record: Record) -> bytes:
    """A record that can be read again: where an image has more than has room, the last of the longest list go."""
    held = replace(record, system=_cut(record.system))
    for name in _LISTS:
        setattr(held, name, [_cut(text) for text in getattr(held, name)])
    while len(data := json.dumps({"version": _VERSION, **asdict(held)}, indent=1).encode()) > files.LARGEST_OWN:
        longest: list[str] = max((getattr(held, name) for name in _LISTS), key=len)
        if not longest:
            most = files.LARGEST_OWN
            raise RecordError(f"{record.name}: expected a record of at most {most} bytes, found {len(data)}")
        del longest[-(len(longest) // 8 + 1) :]
    return data


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def read(roots: str, name: str) -> Record | None:
    """Read the record of a board; None where there is none. Raises RecordError, OSError."""
    path = path_of(roots, name)
    try:
        found = parse(files.read_own(path))
    except FileNotFoundError:
        return None
    except (ValueError, files.OddFileError) as error:
        raise RecordError(f"{path}: expected the record of a board: {error}") from error
    if found.name != name:
        raise RecordError(f"{path}: expected the record of {name}, found that of {found.name}")
    return found


def parse(data: bytes) -> Record:
    """Understand a record. Raises ValueError: whoever can write to the share may have written it."""
    found = files.parsed(data)
    if found.pop("version", None) != _VERSION:
        raise ValueError(f"expected version {_VERSION}")
    if unknown := found.keys() - {one.name for one in fields(Record)}:
        raise ValueError(f"unknown key {min(unknown)}")
    for one in fields(Record):
        _insist(one.name, str(one.type), found.get(one.name))
    each: dict[str, Any] = found
    record = Record(**each)
    if record.staged and not _STAGED.fullmatch(record.staged):
        raise ValueError("staged: expected 16 digits")
    return record


def _insist(name: str, kind: str, value: object) -> None:
    texts = {"list[str]": list, "dict[str, str]": dict, "int": int}.get(kind, str)
    if not isinstance(value, texts) or isinstance(value, bool):
        raise ValueError(f"{name}: expected {kind}")
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    if not all(isinstance(text, str) for text in inner):
        raise ValueError(f"{name}: expected {kind}")


def all_in(roots: str) -> Iterator[tuple[str, Record | RecordError]]:
    """Name and record of each board in a folder with roots, sorted. Raises OSError."""
    for entry in sorted(os.listdir(roots)):
        if match := _NAME.fullmatch(entry):
            try:
                found = read(roots, match[1])
            except RecordError as error:
                yield match[1], error
                continue
            except OSError as error:
                yield match[1], RecordError(f"{roots}/{entry}: {error.strerror}")
                continue
            if found is not None:
                yield match[1], found
