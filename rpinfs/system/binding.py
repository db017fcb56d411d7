"""All modules of rpinfs bound in one file, for the Python that runs this. The package has it done after py3compile.

At a boot each file and each folder is a handful of requests to the NAS: of the generator's 25 files 14 were modules and
their folders, and of the agent's 52 another 34 were Python's own. See rpinfs/__init__.py, by which it is read; without
the file, or with one of another version or of another build of Python, the modules are imported one by one, so nothing
depends on it. It is not looked at whether a module has changed since: who changes one in place removes the file, or has
it made anew.
"""

import marshal
import os
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader

import rpinfs
from rpinfs.errors import RpinfsError
from rpinfs.system.replace import replace_file
from rpinfs.system.run import run

PARTS = (
    # The generator, and what the gate has more.
    ("rpinfs.boot.generator", "rpinfs.__main__", "rpinfs.boot.gate", "rpinfs.boot.overlay"),
    ("rpinfs.agent.agent", "rpinfs.agent.whole"),
    # By which the gate tries an overlay.
    ("ctypes",),
)
"""What the programs of the boot import, part by part: what one of them needs lies together, in the order of its
imports, and comes with few requests."""

_ORDER = """\
import sys
sys.path.insert(0, sys.argv[1])
import rpinfs
# What an earlier binding says of a tree that has changed since is not asked.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, rpinfs.Bound)]
seen = set(sys.modules)
for part in sys.argv[2:]:
    for name in part.split(","):
        __import__(name)
    new = [name for name in sys.modules if name not in seen]
    seen.update(new)
    specs = [(name, sys.modules[name].__spec__) for name in new]
    print(*(name for name, spec in specs if spec and (spec.origin or "").endswith(".py") and spec.name == name))
"""


def bind(package: str = rpinfs.__path__[0]) -> str:
    """Write the file, whole or not at all; returns its path.

    Raises:
        OSError: a module cannot be read, or the file not be written.
        SyntaxError: a module is none for this Python.
        RpinfsError: there are too many modules, or the programs of the boot cannot be imported.
    """
    ours = {name: (path, is_package) for name, path, is_package in _modules(package)}
    early = _imported(package)
    rest = sorted(ours.keys() - {name for part in early for name in part})
    index, pieces, parts, offset = {}, [], [], rpinfs.LARGEST_HEAD
    for part in (*early, rest):
        begin = offset
        for name in part:
            path, is_package = ours.get(name) or _of_the_library(name)
            data = _code(name, path)
            index[name] = (is_package, offset, len(data))
            offset += len(data)
            pieces.append(data)
        parts.append((begin, offset))
    head = marshal.dumps((rpinfs.WHOSE, index, parts[:-1]))
    if len(head) > rpinfs.LARGEST_HEAD:
        raise RpinfsError(f"expected a head of at most {rpinfs.LARGEST_HEAD} bytes, found {len(head)}")
    path = f"{os.path.dirname(package)}/{rpinfs.BOUND}"
    # Synced: with a hole in it after a power cut, it would be all of rpinfs that has it. Its mode is for everybody.
    replace_file(path, b"".join([head.ljust(rpinfs.LARGEST_HEAD, b"\0"), *pieces]), lambda _: None)
    return path


def _imported(package: str) -> list[list[str]]:
    """The modules of each of PARTS, by a Python that has nothing else: of rpinfs, and of its own library."""
    above = os.path.dirname(package)
    argv = [sys.executable, "-ISB", "-c", _ORDER, above, *map(",".join, PARTS)]
    return [line.split() for line in run(argv).stdout.splitlines()]


def _of_the_library(name: str) -> tuple[str, bool]:
    path = f"{os.path.dirname(os.__file__)}/{name.replace('.', '/')}"
    is_package = os.path.isdir(path)
    return f"{path}/__init__.py" if is_package else f"{path}.py", is_package


def _modules(package: str) -> Iterator[tuple[str, str, bool]]:
    """The modules below a package: name, path, and whether it is a package."""
    for folder, folders, files in os.walk(package):
        folders[:] = sorted(set(folders) - {"__pycache__"})
        inner = "rpinfs" + folder.removeprefix(package).replace("/", ".")
        for file in sorted(files):
            name, kind = os.path.splitext(file)
            if kind == ".py" and name != "__init__":
                yield f"{inner}.{name}", f"{folder}/{file}", False
            elif kind == ".py" and inner != "rpinfs":
                yield inner, f"{folder}/{file}", True


def _code(name: str, path: str) -> bytes:
    # By what py3compile has just made, where that is there.
    return marshal.dumps(SourceFileLoader(name, path).get_code(name))
