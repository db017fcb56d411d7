"""All that a tree is made of, and what of it a copy has lost.

A copy must be the same in names, kinds, owners, modes, sizes, links and hard links; what a file system cannot keep
(capabilities, ACLs and other extended attributes, holes, times) is counted and told.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from rpinfs.errors import RpinfsError
from rpinfs.system.files import walk
from rpinfs.system.run import Tell

_BLOCK = 512
_HOLE = 64 << 10
"""Bytes. A hole that is smaller is not worth a word: file systems differ in their blocks."""

_NO_ATTRIBUTES = (errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM)
_WORDS = {
    "security.capability": "capabilities",
    "system.posix_acl_access": "ACLs",
    "system.posix_acl_default": "ACLs",
}
_MOST_EXAMPLES = 3


@dataclass(frozen=True)
class Entry:
    """One name in a tree. `holes`: bytes of a file that take no room. `attributes`: extended ones."""

    mode: int
    owner: tuple[int, int]
    size: int
    seconds: int
    device: int = 0
    target: str = ""
    holes: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Survey:
    """A tree: its names, which of them are one file, and how many bytes it takes."""

    entries: dict[str, Entry] = field(default_factory=dict)
    one_file: dict[tuple[int, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    allocated: int = 0

    @property
    def files(self) -> int:
        """Number of files, folders and links: of inodes that a copy takes."""
        return len(self.entries) - sum(len(names) - 1 for names in self.one_file.values())

    def hard_links(self) -> set[tuple[str, ...]]:
        """The names of each file that has several."""
        return {tuple(sorted(names)) for names in self.one_file.values() if len(names) > 1}


def survey(top: str, tell: Tell, what: str) -> Survey:
    """Look at all below a folder, and at the folder itself, whose name is ".". Raises OSError."""
    found = Survey()
    _add(found, ".", top)
    for folder, folders, files in walk(top):
        for name in (*folders, *files):
            path = f"{folder}/{name}"
            _add(found, path[len(top) + 1 :], path)
        tell(f"looking at {what}: {len(found.entries)} files")
    return found


def _add(found: Survey, name: str, path: str) -> None:
    status = os.lstat(path)
    mode, blocks = status.st_mode, status.st_blocks * _BLOCK
    regular = stat.S_ISREG(mode)
    first = status.st_nlink == 1 or stat.S_ISDIR(mode)
    if not first:
        names = found.one_file[status.st_dev, status.st_ino]
        first = not names
        names.append(name)
    found.allocated += blocks if first else 0
    found.entries[name] = Entry(
        mode,
        (status.st_uid, status.st_gid),
        status.st_size if regular else 0,
        int(status.st_mtime),
        status.st_rdev if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else 0,
        os.readlink(path) if stat.S_ISLNK(mode) else "",
        max(0, status.st_size - blocks) if regular else 0,
        _attributes(path),
    )


def _attributes(path: str) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTES:
            raise
        return ()


def lost(source: Survey, copy: Survey, where: str) -> list[str]:
    """What a copy could not keep, in sentences.

    Args:
        where: the copy, for people.

    Raises:
        RpinfsError: the copy is not whole: something else is missing or differs.
    """
    for name, entry in source.entries.items():
        _insist_same(name, entry, copy.entries.get(name), where)
    if more := copy.entries.keys() - source.entries.keys():
        raise RpinfsError(f"{where}: expected a copy, found {min(more)}, which the original has not")
    if source.hard_links() != copy.hard_links():
        (name, *_) = min(source.hard_links() ^ copy.hard_links())
        raise RpinfsError(f"{where}: {name} and its other names are not one file any more: hard links are lost")
    missing: dict[str, list[str]] = defaultdict(list)
    for name, entry in source.entries.items():
        for word in sorted(set(_lost_of(entry, copy.entries[name]))):
            missing[word].append(name)
    return [_sentence(word, names, where) for word, names in sorted(missing.items())]


def unseen(found: Survey, version: str) -> list[str]:
    """What a Pi does not see of it over NFS, whatever the server keeps, in sentences.

    Linux hands on user.* alone, from NFS 4.2 on; ACLs of POSIX are a thing of NFS 3.
    """
    hidden: dict[str, list[str]] = defaultdict(list)
    for name, entry in found.entries.items():
        for attribute, _ in entry.attributes:
            word = _WORDS.get(attribute, "extended attributes")
            seen = {"ACLs": version == "3", "capabilities": False}
            if not seen.get(word, version == "4.2" and attribute.startswith("user.")) and name not in hidden[word]:
                hidden[word].append(name)
    return [
        f"{word} of {_some(names)} are not seen by a Pi over NFS {version}"
        for word, names in sorted(hidden.items())
        if names
    ]


def _insist_same(name: str, entry: Entry, copied: Entry | None, where: str) -> None:
    if copied is None:
        raise RpinfsError(f"{where}: {name} is missing in the copy", _CHANGED)
    for what in ("mode", "owner", "size", "device", "target"):
        before, after = getattr(entry, what), getattr(copied, what)
        if before != after:
            as_text = oct if what == "mode" else str
            raise RpinfsError(
                f"{where}: {name}: expected {what} {as_text(before)} as the original has, found {as_text(after)}",
                _CHANGED,
            )


_CHANGED = "is the original being written to? then let it rest, and try again"


def _lost_of(entry: Entry, copied: Entry) -> Iterator[str]:
    here = dict(copied.attributes)
    for name, value in entry.attributes:
        if here.get(name) != value:
            yield _WORDS.get(name, "extended attributes")
    if entry.holes > _HOLE and copied.holes < entry.holes // 2:
        yield "holes"
    if stat.S_ISREG(entry.mode) and abs(entry.seconds - copied.seconds) > 2:
        yield "times"


def _sentence(word: str, names: list[str], where: str) -> str:
    return f"{word} of {_some(names)} cannot be kept by the file system of {where}"


def _some(names: list[str]) -> str:
    some = ", ".join(names[:_MOST_EXAMPLES]) + (", ..." if len(names) > _MOST_EXAMPLES else "")
    return f"{'1 file' if len(names) == 1 else f'{len(names)} files'} ({some})"
