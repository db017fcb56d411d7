"""Texts and the errors in them."""

from __future__ import annotations

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


def text_of(path: str) -> str:
    """Read a text file; bytes that are no UTF-8 become surrogates. Raises OSError, SyntaxFault."""
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise SyntaxFault(path, 0, f"expected a configuration file, found more than {LARGEST} bytes")
    if b"\0" in data:
        raise SyntaxFault(path, data[: data.index(b"\0")].count(b"\n") + 1, "expected text, found a NUL byte")
    return data.decode("utf-8", "surrogateescape")
