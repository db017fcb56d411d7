"""All modules of rpinfs bound in one file, for the Python that runs this. The package has it done after py3compile.

At a boot each file and each folder is a handful of requests to the NAS: of the generator's 25 files 14 were modules and
their folders, and of the agent's 52 another 34 were Python's own. See rpinfs/__init__.py, by which it is read; without
the file, or with one of another version or of another build of Python, the modules are imported one by one, so nothing
depends on it. It is not looked at whether a module has changed since: who changes one in place removes the file, or has
it made anew.
"""

import json
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
    ("rpinfs.agent.agent", "rpinfs.agent.whole", "sdnotify"),
    # By which the gate tries an overlay.
    ("ctypes",),
)
"""What the programs of the boot import, part by part: what one of them needs lies together, in the order of its
imports, and comes with few requests."""

WINDOWS = "/usr/lib/python3/dist-packages"
"""Where the packages are that rpinfs depends on. One that is not there is imported when it is."""

_ORDER = """\
import sys
sys.path.insert(0, sys.argv[1])
sys.path.append(sys.argv[2])
import rpinfs
# What an earlier binding says of a tree that has changed since is not asked.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, rpinfs.Bound)]
seen = set(sys.modules)
found = []
for part in sys.argv[3:]:
    for name in part.split(","):
        try:
            __import__(name)
        except ImportError:
            if name.startswith("rpinfs."):
                raise
    new = [name for name in sys.modules if name not in seen]
    seen.update(new)
    specs = [(name, sys.modules[name].__spec__) for name in new]
    found.append([(name, spec.origin) for name, spec in specs if spec and spec.has_location and spec.name == name])
import json
print(json.dumps([[one for one in part if one[1].endswith(".py")] for part in found]))
"""


def bind(package: str = rpinfs.__path__[0]) -> str:
    """Write the file, whole or not at all; returns its path.

    Raises:
        OSError: a module cannot be read, or the file not be written.
        SyntaxError: a module is none for this Python.
        RpinfsError: there are too many modules, or the programs of the boot cannot be imported.
    """
    ours = dict(_modules(package))
    early = _imported(package)
    rest = sorted((name, ours[name]) for name in ours.keys() - {name for part in early for name, _ in part})
    index, windows, pieces, parts, offset = {}, {}, [], [], rpinfs.LARGEST_HEAD
    for part in (*early, rest):
        begin = offset
        for name, path in part:
            data = _code(name, path)
            index[name] = (os.path.basename(path) == "__init__.py", offset, len(data))
            if path.startswith(f"{WINDOWS}/"):
                windows[name] = WINDOWS
            offset += len(data)
            pieces.append(data)
        parts.append((begin, offset))
    head = marshal.dumps((rpinfs.WHOSE, index, windows, parts[:-1]))
    if len(head) > rpinfs.LARGEST_HEAD:
        raise RpinfsError(f"expected a head of at most {rpinfs.LARGEST_HEAD} bytes, found {len(head)}")
    path = f"{os.path.dirname(package)}/{rpinfs.BOUND}"
    # Synced: with a hole in it after a power cut, it would be all of rpinfs that has it. Its mode is for everybody.
    replace_file(path, b"".join([head.ljust(rpinfs.LARGEST_HEAD, b"\0"), *pieces]), lambda _: None)
    return path


def _imported(package: str) -> list[list[tuple[str, str]]]:
    """The modules of each of PARTS and their files, by a Python that has nothing else."""
    argv = [sys.executable, "-ISB", "-c", _ORDER, os.path.dirname(package), WINDOWS, *map(",".join, PARTS)]
    return [[(name, path) for name, path in part] for part in json.loads(run(argv).stdout)]


def _modules(package: str) -> Iterator[tuple[str, str]]:
    """The modules below a package, and their files."""
    for folder, folders, files in os.walk(package):
        folders[:] = sorted(set(folders) - {"__pycache__"})
        inner = "rpinfs" + folder.removeprefix(package).replace("/", ".")
        for file in sorted(files):
            name, kind = os.path.splitext(file)
            if kind == ".py" and name != "__init__":
                yield f"{inner}.{name}", f"{folder}/{file}"
            elif kind == ".py" and inner != "rpinfs":
                yield inner, f"{folder}/{file}"


def _code(name: str, path: str) -> bytes:
    # By what py3compile has just made, where that is there.
    return marshal.dumps(SourceFileLoader(name, path).get_code(name))
