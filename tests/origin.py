"""Where the programs come from that tests start: the Makefile installs them, or they are the tree's or a test's own.

A machine that people work on has more than that, and what a test needs of it is missed only on a fresh Debian: one
passed for months because somebody had pytest installed beside Debian's Python. `make test-fresh` proves it on a root
made from nothing; this says it at once, and which test it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tests.support import TOP

STATUS = "${db:Status-Status}\t${Package}\t${Essential}\t${Priority}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
_started: set[tuple[str, str]] = set()
"""Programs as they were named, each with the PATH to look it up in."""


def watch() -> None:
    """Note each program that this process starts from now on. Those that its children start are not seen."""
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "subprocess.Popen":
        program, _, _, environment = arguments
    elif event in ("os.posix_spawn", "os.exec"):
        program, _, environment = arguments
    else:
        return
    path = environment.get("PATH") if isinstance(environment, dict) else None
    _started.add((os.fsdecode(program), os.fsdecode(path or os.environ.get("PATH", ""))))  # type: ignore[arg-type]


def strangers() -> list[str]:
    """The programs started since the last call that a fresh machine may not have."""
    paths = {Path(found) for program, where in _started if (found := shutil.which(program, path=where))}
    _started.clear()
    return sorted(str(path) for path in paths if not is_ours(path) and not is_listed(path))


def is_ours(path: Path) -> bool:
    """Whether it is the tree's, of the Python environment, or made by a test."""
    ours = [TOP, Path(sys.prefix), Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/proc")]
    if unpacked := os.environ.get("RPINFS_WATCHERS"):
        # WATCHERS of the Makefile.
        ours.append(Path(unpacked))
    return any(path.is_relative_to(folder) for folder in ours)


def is_listed(path: Path) -> bool:
    """Whether what the Makefile installs brings it, or what every Debian has."""
    return not listed_files().isdisjoint({str(path), str(path.resolve())})


@cache
def listed_files() -> frozenset[str]:
    """The files of all that the Makefile may rely on; with the names that the merged /usr gives them as well."""
    shown = _output("dpkg-query", "--listfiles", *sorted(closure(makefile_packages(), _output_of_status())))
    files = {line for line in shown.splitlines() if line.startswith("/")}
    merged = {file.removeprefix("/usr") if file.startswith("/usr/") else f"/usr{file}" for file in files}
    return frozenset(files | merged)


def makefile_packages() -> list[str]:
    """PACKAGES of the Makefile."""
    return _output("make", "--silent", f"--directory={TOP}", "packages").split()


def closure(wanted: Iterable[str], status: str) -> set[str]:
    """What is installed because of these packages, with what every Debian has; `status` is in the format STATUS."""
    rows = [row[1:] for line in status.splitlines() if (row := line.split("\t"))[0] == "installed"]
    depends = {name: needs for name, _, _, needs, _ in rows}
    providers: dict[str, str] = {}
    for name, _, _, _, provides in rows:
        for virtual in re.findall(r"(?:^|, )([^\s,(]+)", provides):
            providers.setdefault(virtual, name)
    found: set[str] = set()
    left = [
        *wanted,
        *(name for name, essential, priority, _, _ in rows if "yes" in essential or priority == "required"),
    ]
    while left:
        name = left.pop()
        name = name if name in depends else providers.get(name, "")
        if name and name not in found:
            found.add(name)
            left += _first_there(depends[name], {*depends, *providers})
    return found


def _first_there(needs: str, there: set[str]) -> Iterable[str]:
    """Of each group of alternatives in a Depends: line, the first that is installed."""
    for group in needs.split(","):
        names = [re.sub(r"[\s:(\[].*", "", each.strip()) for each in group.split("|")]
        yield from [name for name in names if name in there][:1]


def _output_of_status() -> str:
    return _output("dpkg-query", "--show", f"--showformat={STATUS}")


def _output(*argv: str) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout
