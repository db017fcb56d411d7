"""The folder in which containerd keeps images, and where that is set: its options, its config.toml and what it imports.

Source: containerd's cmd/containerd/command (options go before the file) and services/server/config (LoadConfig: what
is imported goes before what imports it, one level after the other); containerd-config.toml(5).
"""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Sequence

from rpinfs.docker import service
from rpinfs.docker.told import Choice
from rpinfs.errors import RpinfsError

UNIT = "containerd.service"
ADDRESS = "/run/containerd/containerd.sock"
_ROOT = "/var/lib/containerd"
_FILE = "/etc/containerd/config.toml"


def root_of(root: str, address: Choice | None, data_root: str) -> Choice | None:
    """The folder of the containerd that Docker uses; None for the default.

    Args:
        root: of the machine.
        address: what dockerd is told of containerd's socket, where it is told.
        data_root: Docker's, below which it starts a containerd of its own where there is no other; "" where nothing is
            known of how it is started.

    Raises:
        RpinfsError: a configuration of containerd is no TOML (exit status 2), or a circle of symbolic links.
        OSError: a file cannot be read.
    """
    if address is not None and address.value.removeprefix("unix://") not in (ADDRESS, f"/var{ADDRESS}"):
        return Choice("", f"cannot be told: dockerd is given another containerd ({address.origin})")
    unit = service.read(root, UNIT)
    if address is None and data_root and (not unit.file or unit.masked):
        return Choice(f"{data_root.rstrip('/')}/containerd/daemon", "default of the containerd that dockerd starts")
    if unit.untold or (unit.refused and not unit.masked):
        return Choice("", f"cannot be told: {unit.untold or unit.refused}")
    if unit.words and os.path.basename(unit.program) != "containerd":
        return Choice("", f"cannot be told: {unit.origin} starts {unit.program}")
    by_option = _option(unit.words, ("root",))
    config = _option(unit.words, ("config", "c"))
    found = by_option or _of_file(root, config.value if config else _FILE)
    if hidden := service.hidden(root, unit, found.value if found else _ROOT):
        return Choice("", f"cannot be told: {hidden}")
    return found


def _option(words: Sequence[service.Word], names: tuple[str, ...]) -> Choice | None:
    """The last value of an option, which one hyphen or two may begin."""
    found = None
    for word, following in zip(words, [*words, service.Word("", "")][1:], strict=False):
        name, equals, value = word.text.lstrip("-").partition("=")
        if word.text.startswith("-") and name in names:
            found = Choice(value if equals else following.text, f"--{name} in {word.origin}")
    return found


def _of_file(root: str, file: str) -> Choice | None:
    found = None
    waiting, seen = [file], set()
    while waiting:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        text = service.text_of(root, path)
        if text is None:
            continue
        table = _table(path, text)
        value, imports = table.get("root"), table.get("imports")
        if isinstance(value, str) and value:
            found = Choice(value, f"{path}:{_line_of_root(text)}")
        for pattern in imports if isinstance(imports, list) else []:
            waiting += _imported(root, path, str(pattern))
    return found


def _table(file: str, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RpinfsError(f"{file}: expected TOML: {error}", status=2) from error


def _line_of_root(text: str) -> int:
    """The line on which the key stands: before the first table there is no other of its name."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.partition("=")[0].strip().strip("\"'") == "root":
            return number
    return 1


def _imported(root: str, file: str, pattern: str) -> list[str]:
    path = os.path.normpath(pattern if pattern.startswith("/") else f"{os.path.dirname(file)}/{pattern}")
    if "*" not in path:
        return [path]
    folder, name = os.path.split(path)
    try:
        names = os.listdir(root + folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{folder}/{one}" for one in sorted(names) if fnmatch.fnmatchcase(one, name)]
