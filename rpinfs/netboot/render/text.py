"""One file or page that render makes, and where it belongs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rendered:
    """A text and its place.

    Attributes:
        name: of the file below the output folder.
        place: where it goes on the machine that it is for; empty for words to a person.
        box: that machine, in words: "the NAS", "the Linux box", "the router", "pi1".
        text: what is in it.
        owned: whether the whole file is ours; else it is a part to be put into a file that is there.
    """

    name: str
    place: str
    box: str
    text: str
    owned: bool = True


def comment(text: str, mark: str = "#", width: int = 100) -> list[str]:
    """Lines of comment."""
    import textwrap

    return [f"{mark} {line}" for line in textwrap.wrap(text, width)]
