"""The lines of an fstab as mount(8) takes them: sources, mount points, types and options.

Pure. Source: fstab(5), mount(8), nfs(5), and libmount's parser (tab_parse.c, context.c: what it guesses of a type).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from rpinfs.boot.units import unescape_octal
from rpinfs.boot.values import dataclass
from rpinfs.errors import RpinfsError

NFS_TYPES = ("nfs", "nfs4")
VERSION_WORDS = ("vers=", "nfsvers=", "minorversion=")

_NEVER_FILES = frozenset(("none", "swap", "tmpfs", "proc", "sysfs", "devpts", "bind", "overlay", "cifs", "fuse"))
_BLANK = " \t\r"
_TAGS = ("LABEL=", "UUID=", "PARTLABEL=", "PARTUUID=", "ID=")


@dataclass(frozen=True)
class Line:
    """One line of an fstab that mounts something or swaps.

    Attributes:
        number: from 1, and `text` the line as it stands.
        what, where: without escapes, quotes and needless slashes.
        kind: the type as mount(8) takes it; "auto" where it would look, several with commas where it would try.
    """

    number: int
    text: str
    what: str
    where: str
    kind: str
    options: list[str]

    @property
    def kinds(self) -> list[str]:
        """The types of a list such as ext4,xfs."""
        return [one for one in self.kind.split(",") if one]

    @property
    def is_nfs(self) -> bool:
        """Whether it mounts from an NFS server."""
        return bool(set(NFS_TYPES) & set(self.kinds))

    @property
    def is_bind(self) -> bool:
        """Whether it shows a folder at a second place."""
        return "bind" in self.options or "rbind" in self.options

    @property
    def is_swap(self) -> bool:
        """Whether it is no mount but swap."""
        return self.kind == "swap"

    @property
    def is_of_file(self) -> bool:
        """Whether it mounts a file, by a loop device; mount(8) takes one also where `loop` is not said."""
        if self.is_swap or self.is_bind:
            return False
        if "loop" in self.options or any(option.startswith("loop=") for option in self.options):
            return True
        is_path = self.what.startswith("/") and not self.what.startswith(("/dev/", "//"))
        return is_path and not self.is_nfs and self.kind not in _NEVER_FILES


@dataclass(frozen=True)
class Source:
    """The first field of an NFS line, taken apart."""

    server: str
    export: str


def parse(text: str) -> list[Line]:
    """Read the lines of an fstab; what is no mount is skipped, as mount(8) does."""
    lines = []
    for number, raw in enumerate(text.split("\n"), 1):
        fields = [field for field in raw.strip(_BLANK).replace("\t", " ").split(" ") if field]
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        what, where, kind = (unescape_octal(field) for field in fields[:3])
        what = _source_text(what)
        options = _options(unescape_octal(fields[3])) if len(fields) > 3 else []
        lines.append(Line(number, raw.strip(), what, normal(where), _kind(kind, what), options))
    return lines


def _options(text: str) -> list[str]:
    """Options between commas; one in double quotes may have commas in it."""
    options, current, quoted = [], "", False
    for character in text:
        quoted = quoted != (character == '"')
        if character == "," and not quoted:
            options.append(current)
            current = ""
        else:
            current += character
    return [option for option in [*options, current] if option]


def _source_text(what: str) -> str:
    """A source without the quotes that the value of a tag may have, and a path without needless slashes."""
    for tag in _TAGS:
        value = what.removeprefix(tag)
        if value != what and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            return tag + value[1:-1]
    # Two slashes at the beginning are a share of another kind.
    return normal(what) if what.startswith("/") and not what.startswith("//") else what


def _kind(kind: str, what: str) -> str:
    """The type; where mount(8) is to find out itself, SERVER:/PATH is NFS and //SERVER/PATH is CIFS for it."""
    if kind != "auto" or what.startswith(_TAGS):
        return kind
    if what.startswith("//"):
        return "cifs"
    return "nfs" if ":" in what and not what.startswith("/") else kind


def mount_below(lines: Iterable[Line], path: str) -> Line | None:
    """Find the mount that a path lies on: the one with the longest mount point above it."""
    above = [line for line in lines if not line.is_swap and line.where != "/" and is_below(path, line.where)]
    # Of two lines for one place systemd takes the first.
    return max(above, key=lambda line: (len(line.where), -line.number), default=None)


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies below a folder, itself not counted."""
    return path.startswith(folder.rstrip("/") + "/") and path.rstrip("/") != folder.rstrip("/")


def source(line: Line) -> Source:
    """Take SERVER:/EXPORT apart; an IPv6 server stands in brackets."""
    if line.what.startswith("["):
        server, _, rest = line.what[1:].partition("]")
        colon, export = rest[:1], rest[1:]
    else:
        server, colon, export = line.what.partition(":")
    if not server or colon != ":" or not export or (server == "nfs" and export.startswith("//")):
        raise RpinfsError(f"line {line.number}: expected SERVER:/EXPORT, found {line.what}")
    return Source(server, normal(export))


def said_version(line: Line) -> str:
    """The version that a line asks for, as far as it says so; the last word wins, as in nfs(5)."""
    major = "4" if line.kind == "nfs4" else ""
    minor = ""
    for option in line.options:
        name, _, value = option.partition("=")
        if name in ("vers", "nfsvers"):
            major, _, dotted = value.partition(".")
            minor = dotted or minor
        elif name == "minorversion":
            minor = value
        elif is_short_version(option):
            major, _, minor = option[1:].partition(".")
    if minor and major in ("", "4"):
        return f"4.{minor}"
    return major


def is_short_version(option: str) -> bool:
    """Whether an option is a version such as v4.1."""
    return option[:1] == "v" and option[1:] in ("2", "3", "4", "4.0", "4.1", "4.2")


def normal(path: str) -> str:
    """A path without needless slashes and dots."""
    return os.path.normpath("/" + path.lstrip("/")) if path.startswith("/") else path
