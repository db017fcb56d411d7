"""The rooms of the house: what may import what, and how long a module and a function may be.

The order of ROOMS is that of the design: a room imports only from the rooms before it, and from errors.py.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import TOP, make_tree

ROOMS = ("boot", "system", "lease", "image", "docker", "health", "agent", "netboot", "commands")
FOR_ALL = ("errors",)
OUTSIDE = ("__init__", "__main__")
"""Modules in no room: the package itself, and the entry point, which knows the others."""

FORBIDDEN = {"netboot": ("agent", "health")}
"""Rooms that stand before another in the list and are closed to it all the same."""

BOOT_IMPORTS = ("os", "sys", "fcntl")
"""What the boot path may import at its start: built into the interpreter, or one file (fcntl, for locks)."""

MODULE_LINES, FUNCTION_LINES = 500, 50


def modules(package: Path) -> dict[str, ast.Module]:
    """The modules of a package by their dotted names within it; a folder's own module is called as the folder."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text())
    return found


def room_of(module: str) -> str:
    return module.partition(".")[0]


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.AST) -> Iterator[tuple[str, list[str], bool]]:
    """Imports anywhere in a module: the module named, the names taken from it, and whether it is for types alone."""

    def walk(node: ast.AST, for_types: bool) -> Iterator[tuple[str, list[str], bool]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, [], for_types
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            yield node.module or "", [alias.name for alias in node.names], for_types
        for child in ast.iter_child_nodes(node):
            yield from walk(child, for_types or is_for_types(node))

    yield from walk(tree, False)


def neighbours(tree: ast.Module, known: dict[str, ast.Module], *, types: bool = True) -> set[str]:
    """Modules of the package that a module imports, wherever it does so."""
    found = set()
    for module, names, for_types in imports(tree):
        if (module == "rpinfs" or module.startswith("rpinfs.")) and (types or not for_types):
            here = module.removeprefix("rpinfs").removeprefix(".")
            inner = {f"{here}.{name}".removeprefix(".") for name in names}
            found |= {name for name in inner if name in known} or ({here} if here else set())
    return found


def faults(package: Path) -> list[str]:
    """Everything that is wrong with the house, a line each."""
    known = modules(package)
    found = []
    for name, tree in known.items():
        of_it = (*wrong_rooms(name, tree, known), *too_long(name, tree, package), *late_names(tree))
        found += [f"{name}: {fault}" for fault in of_it]
    graph = {name: neighbours(tree, known, types=False) - {room_of(name)} for name, tree in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"a circle: {' -> '.join(error.args[1])}")
    return found


def wrong_rooms(name: str, tree: ast.Module, known: dict[str, ast.Module]) -> Iterator[str]:
    room = room_of(name)
    if name in OUTSIDE:
        return
    if room not in (*ROOMS, *FOR_ALL):
        yield f"is in no room; the rooms are {', '.join(ROOMS)}"
        return
    for other in sorted(neighbours(tree, known)):
        there = room_of(other)
        if there in (*FOR_ALL, *OUTSIDE, room):
            continue
        if room in FOR_ALL or ROOMS.index(there) > ROOMS.index(room) or there in FORBIDDEN.get(room, ()):
            yield f"{room} imports from {there} ({other})"
    if room == "boot":
        at_start = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for module, _, _ in (one for node in at_start for one in imports(node)):
            if module.partition(".")[0] not in (*BOOT_IMPORTS, "rpinfs"):
                yield f"the boot path imports {module} at its start"


def too_long(name: str, tree: ast.Module, package: Path) -> Iterator[str]:
    path = package / f"{name.replace('.', '/')}.py"
    lines = len((path if path.exists() else package / name.replace(".", "/") / "__init__.py").read_text().splitlines())
    if lines > MODULE_LINES:
        yield f"{lines} lines, expected at most {MODULE_LINES}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{node.name}() has {length} lines, expected at most {FUNCTION_LINES}"


def late_names(tree: ast.Module) -> Iterator[str]:
    """Annotations that are something else to Python 3.14: it looks them up late, and in the class first (PEP 649)."""
    if any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body):
        return  # They are texts, and nobody looks them up.
    for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        annotated = [node for node in kind.body if isinstance(node, ast.AnnAssign)]
        of_class = {node.name for node in kind.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        targets = [one for node in kind.body if isinstance(node, ast.Assign) for one in node.targets]
        targets += [node.target for node in annotated if node.value is not None]
        of_class.update(target.id for target in targets if isinstance(target, ast.Name))
        for node in annotated:
            names = {one.id for one in ast.walk(node.annotation) if isinstance(one, ast.Name)}
            for name in sorted(names & of_class):
                yield f"line {node.lineno}: {name} is the attribute of {kind.name} by then; write the annotation quoted"


def test_the_house_is_in_order() -> None:
    assert faults(TOP / "rpinfs") == []


def test_every_room_says_what_lives_there() -> None:
    known = modules(TOP / "rpinfs")
    rooms = [room for room in ROOMS if room in known]
    assert [room for room in rooms if not ast.get_docstring(known[room])] == []
    # Nothing is handed on: what a room has is imported from the module that has it, so that a search finds it.
    assert [room for room in rooms if room != "health.checks" and list(imports(known[room]))] == []


PLANTED = {
    "a room below": ("image/planted.py", "from rpinfs.agent import loss\n", "image imports from agent"),
    "a room below, on need": (
        "boot/planted.py", "def f() -> None:\n    from rpinfs.system.run import run\n", "boot imports from system",
    ),
    "a room below, for types": (
        "system/planted.py",
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from rpinfs.image import probe\n",
        "system imports from image",
    ),
    "a closed room": ("netboot/planted.py", "from rpinfs.health.facts import Facts\n", "netboot imports from health"),
    "errors that know something": ("errors.py", "from rpinfs.boot import host\n", "errors imports from boot"),
    "no room": ("util.py", "", "util: is in no room"),
    "a library on the boot path": ("boot/planted.py", "import json\n", "the boot path imports json"),
    "a circle": ("boot/host.py", "from rpinfs.boot import config\n", "a circle: "),
    "a long module": ("image/planted.py", "x = 1\n" * 501, "image.planted: 501 lines"),
    "an annotation that is a property by the time it is asked for": (
        "image/planted.py",
        "from rpinfs.system import loop\nclass A:\n    x: loop.Loop\n    @property\n    def loop(self) -> str: ...\n",
        "image.planted: line 3: loop is the attribute of A by then",
    ),
    "an annotation that is another field": (
        "image/planted.py", "class A:\n    x: int\n    int: str = ''\n", "line 2: int is the attribute of A by then",
    ),
    "a long function": ("image/planted.py", "def f() -> None:\n" + "    x = 1\n" * 50, "f() has 51 lines"),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_what_is_out_of_order_is_found(planted: tuple[str, str, str], tmp_path: Path) -> None:
    file, text, expected = planted
    package = tmp_path / "rpinfs"
    shutil.copytree(TOP / "rpinfs", package, ignore=shutil.ignore_patterns("__pycache__"))
    before = faults(package)
    path = package / file
    make_tree(package, {file: text + (path.read_text() if path.exists() else "")})
    assert [fault for fault in faults(package) if fault not in before and expected in fault]


def test_tests_mirror_the_rooms() -> None:
    """A test file of a module lies in the folder of its room; what is no test of one module lies above the rooms."""
    for kind in ("unit", "tools"):
        folders = {path.name for path in (TOP / "tests" / kind).iterdir() if path.is_dir() and any(path.glob("*.py"))}
        assert folders <= set(ROOMS)


RUN = 10
"""Lines that may not stand twice: what says the same ten times over is one function."""

SAYS_NOTHING = {"", ")", "]", "}", "),", "],", "},"}


def twice(files: Sequence[Path]) -> list[str]:
    """Where a run of lines begins that stands elsewhere too; imports, comments and closing brackets do not count."""
    seen: dict[tuple[str, ...], str] = {}
    found = []
    for path in files:
        lines = [(number, line.strip()) for number, line in enumerate(path.read_text().splitlines(), 1)]
        says = [
            (number, line)
            for number, line in lines
            if line not in SAYS_NOTHING and not line.startswith(("#", "import ", "from "))
        ]
        for begin in range(len(says) - RUN + 1):
            here = f"{path}:{says[begin][0]}"
            there = seen.setdefault(tuple(line for _, line in says[begin : begin + RUN]), here)
            if there != here:
                found.append(f"{there} and {here}")
    return found


def test_nothing_stands_twice() -> None:
    assert (
        twice([path for folder in ("rpinfs", "tests", "units") for path in sorted((TOP / folder).rglob("*.py"))]) == []
    )


def test_what_stands_twice_is_found(tmp_path: Path) -> None:
    run = "".join(f"    step({number})\n" for number in range(RUN))
    files = [tmp_path / name for name in ("one.py", "other.py", "nine.py")]
    files[0].write_text(f"def one():\n{run}")
    files[1].write_text(
        f"import os\n\ndef other():\n    # The same,\n\n{run.replace('step(5)', 'step(5)  ')}    end()\n"
    )
    files[2].write_text(f"def nine():\n{run.replace('step(0)', 'step(a)')}")
    assert twice(files) == [f"{files[0]}:2 and {files[1]}:6"]
