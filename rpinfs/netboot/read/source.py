"""Texts and the errors in them."""

from __future__ import annotations

import errno
import os
import stat

from rpinfs.errors import RpinfsError

LARGEST = 1 << 20
"""Bytes. No configuration file is larger; what is, is something else."""


class SyntaxFault(RpinfsError):
    """A file that its server would not read: `FILE:LINE: RULE`."""

    def __init__(self, file: str, line: int, rule: str) -> None:
        super().__init__(f"{file}:{line}: {rule}", status=2)
        self.file = file
        self.line = line
        self.rule = rule


def text_of(path: str, *, follow: bool = True) -> str:
    """Read a text file; bytes that are no UTF-8 become surrogates.

    Args:
        follow: False for what a Pi can write, which may have made a link to a file of this machine, or a FIFO, of it.

    Raises:
        OSError: it cannot be read; EINVAL where it is no regular file.
        SyntaxFault: it is no text.
    """
    data = _bytes_of(path, follow)
    if len(data) > LARGEST:
        raise SyntaxFault(path, 0, f"expected a configuration file, found more than {LARGEST} bytes")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise SyntaxFault(
            path, 1, "expected plain text, found a byte order mark: save it without one (UTF-8 without BOM)"
        )
    if b"\0" in data:
        raise SyntaxFault(path, data[: data.index(b"\0")].count(b"\n") + 1, "expected text, found a NUL byte")
    return data.decode("utf-8", "surrogateescape")


def _bytes_of(path: str, follow: bool) -> bytes:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "expected a regular file, found something else", path)
        return file.read(LARGEST + 1)


def inside(folder: str, path: str) -> str:
    """A path below a folder that a Pi can write to; empty where a link on the way leads out of it."""
    whole = f"{folder}/{path}"
    there = os.path.realpath(os.path.dirname(whole))
    return whole if f"{there}/".startswith(f"{os.path.realpath(folder)}/") else ""


def oddity_inside(folder: str, path: str) -> str:
    """Why text_inside() gives nothing for a file that is there; empty where it does not, or the file has nothing."""
    try:
        text_of(inside(folder, path), follow=False)
    except SyntaxFault as fault:
        return fault.rule
    except OSError as error:
        return error.strerror or ""
    return ""


def text_inside(folder: str, path: str) -> str:
    """A text file below such a folder; empty where there is none, or something else in its place."""
    try:
        return text_of(inside(folder, path), follow=False)
    except (OSError, SyntaxFault):
        return ""


def bytes_inside(folder: str, path: str) -> bytes:
    """What a file below such a folder begins with, LARGEST bytes and one more at the most. Raises OSError."""
    return _bytes_of(inside(folder, path), follow=False)
