"""Putting rendered files into a folder or in their places on this machine; nothing is written over in silence."""

from __future__ import annotations

import difflib
import os

from rpinfs.errors import RpinfsError, quoted
from rpinfs.netboot.render.text import Rendered

KEPT = ".before-rpinfs~"
"""dnsmasq reads whatever is in its folder, but for names that end so."""


def write_all(made: list[Rendered], folder: str) -> None:
    """Write all of it below a folder. Raises RpinfsError where another file is in the way: nothing is written then."""
    for one in made:
        path = f"{folder}/{one.name}"
        if (there := _text(path)) is not None and there != one.text:
            raise RpinfsError(
                f"{path}: there is another one already",
                f"name another --output, or move it away: {_away(path)}",
            )
    for one in made:
        _write(f"{folder}/{one.name}", one.text)


def changes(one: Rendered) -> str:
    """What would change at its place, as a diff; empty where nothing does."""
    before = _text(one.place)
    if before == one.text:
        return ""
    there = (before or "").splitlines(keepends=True)
    return "".join(difflib.unified_diff(there, one.text.splitlines(keepends=True), one.place, f"{one.place} (new)"))


def apply(one: Rendered) -> None:
    """Write it to its place; what is there gets another name first. Raises RpinfsError, OSError."""
    if os.path.lexists(one.place):
        kept = one.place + KEPT
        if os.path.lexists(kept):
            raise RpinfsError(f"{kept}: is there already, from an earlier time", f"move it away: {_away(kept)}")
        os.link(one.place, kept, follow_symlinks=False)
    _write(one.place, one.text)


def _away(path: str) -> str:
    path = os.path.abspath(path)
    return f"mv -T --backup=numbered {quoted(path, path.rstrip('~') + '.odd~')}"


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.rpinfs-new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
