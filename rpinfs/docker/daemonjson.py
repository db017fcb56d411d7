"""daemon.json as dockerd of a version takes it: its keys, the lines that they stand on, and what stops it in the text.

Pure. Tried with 20.10.24 and 26.1.5: the older reads the first JSON value and no further and wants one to be there,
the newer takes an empty file for no settings and wants nothing behind the object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from rpinfs.boot.values import dataclass, field
from rpinfs.docker import jsonedit
from rpinfs.docker.options import Version
from rpinfs.docker.told import Problem
from rpinfs.errors import RpinfsError, quoted

BYTE_ORDER_MARK = "\ufeff"

_WHOLE_FILE = (23, 0)
"""From this version on dockerd reads all of the file, an empty one and a byte order mark included."""


class NoJsonError(RpinfsError):
    """It is no JSON, to dockerd neither: that does not start."""


@dataclass(frozen=True)
class DaemonJson:
    """What is in the file.

    Attributes:
        keys: the object; empty where there is no file.
        lines: of each key.
        problems: what stops dockerd before it looks at any key.
    """

    keys: Mapping[str, object] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def parse(text: str | None, file: str, version: Version, short: str) -> DaemonJson:
    """Read the text of a daemon.json; None is a file that is not there.

    Args:
        short: the version for messages.

    Raises:
        RpinfsError: it is no JSON, or no object; dockerd does not start with it either. Exit status 2.
    """
    if text is None:
        return DaemonJson()
    whole = version >= _WHOLE_FILE
    problems = []
    if text.startswith(BYTE_ORDER_MARK):
        text = text.removeprefix(BYTE_ORDER_MARK)
        if not whole:
            problems.append(
                _stops(f"{file} begins with a byte order mark", short, f"sed -i '1s/^\\xEF\\xBB\\xBF//' {quoted(file)}")
            )
    if not text.strip(" \t\r\n"):
        if not whole:
            problems.append(_stops(f"{file} is empty", short, f"rm {quoted(file)}"))
        return DaemonJson(problems=tuple(problems))
    found, rest = _decoded(text, file)
    if rest:
        if whole:
            raise _no_json(file, text, len(text) - len(rest), "text behind the object")
        problems.append(
            Problem(f"{file}: Docker {short} ignores what stands behind the object, and 23 and later stop at it",
                    "take it out")
        )  # fmt: skip
    if found is None:
        return DaemonJson(problems=tuple(problems))
    if not isinstance(found, dict):
        raise RpinfsError(f"{file}:1: expected an object in braces, found {text.split()[0][:20]}", status=2)
    return DaemonJson(found, jsonedit.lines(text), tuple(problems))


def _decoded(text: str, file: str) -> tuple[object, str]:
    """The first value of a text, and what stands behind it."""
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        found, end = json.JSONDecoder(parse_constant=_no_constant).raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise _no_json(file, text, error.pos, error.msg) from error
    except RecursionError:
        raise RpinfsError(f"{file}: expected JSON: it is nested too deeply", status=2) from None
    except ValueError as error:
        raise RpinfsError(f"{file}: expected JSON: {error}", status=2) from error
    return found, text[end:].strip(" \t\r\n")


def _no_json(file: str, text: str, position: int, what: str) -> NoJsonError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return NoJsonError(
        f"{file}:{line}: expected JSON: {what} (column {column})",
        "mend it by hand; Docker does not start with it either",
        status=2,
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _stops(what: str, short: str, remedy: str) -> Problem:
    return Problem(f"{what}: Docker {short} does not start so", remedy, fatal=True)
