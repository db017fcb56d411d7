"""Instructions that a program takes, with its children: they repeat to a thousandth, where a time does not."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

SECONDS = 300.0
OPTIONS = (
    *("--tool=callgrind", "--callgrind-out-file=/dev/null"),
    # A child has its parent's count until then.
    "--zero-before=PyOS_AfterFork_Child",
)


def instructions(*argv: str | Path, environment: Mapping[str, str]) -> int:
    """Count them by valgrind, whatever the exit status; a program that begins with #! is started as by the kernel."""
    with open(argv[0], "rb") as program:
        first = program.readline(256).rstrip(b"\n").decode("latin-1")
    # Not left to valgrind, which makes several words of what stands behind the interpreter.
    interpreter = first.removeprefix("#!").split(" ", 1) if first.startswith("#!") else []
    done = subprocess.run(
        ["valgrind", *OPTIONS, *interpreter, *map(str, argv)],
        capture_output=True, text=True, check=False, timeout=SECONDS, env=environment,
    )  # fmt: skip
    found = re.findall("Collected : ([0-9]+)", done.stderr)
    if not found:
        raise RuntimeError(f"valgrind counted nothing:\n{done.stderr}")
    return sum(map(int, found))
