"""All modules of rpinfs bound in one file, for the Python that runs this. The package has it done after py3compile.

At a boot each file and each folder is a handful of requests to the NAS: of the generator's 25 files 14 were modules and
their folders. See rpinfs/__init__.py, by which it is read; without the file, or with one of another version, the
modules are imported one by one, so nothing depends on it. It is not looked at whether a module has changed since:
who changes one in place removes the file, or has it made anew.
"""

import marshal
import os
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader

import rpinfs
from rpinfs.errors import RpinfsError
from rpinfs.system.replace import replace_file

_FIRST = ("rpinfs.boot", "rpinfs.errors", "rpinfs.__main__")
"""What each program needs lies together, and comes with the first read."""


def bind(package: str = rpinfs.__path__[0]) -> str:
    """Write the file, whole or not at all; returns its path.

    Raises:
        OSError: a module cannot be read, or the file not be written.
        SyntaxError: a module is none for this Python.
        RpinfsError: there are too many modules.
    """
    code = {name: (is_package, _code(name, path)) for name, path, is_package in _modules(package)}
    index, parts, offset = {}, [], rpinfs.LARGEST_HEAD
    for name in sorted(code, key=lambda name: (not name.startswith(_FIRST), name)):
        is_package, data = code[name]
        index[name] = (is_package, offset, len(data))
        offset += len(data)
        parts.append(data)
    head = marshal.dumps((rpinfs.WHOSE, index))
    if len(head) > rpinfs.LARGEST_HEAD:
        raise RpinfsError(f"expected a head of at most {rpinfs.LARGEST_HEAD} bytes, found {len(head)}")
    path = f"{os.path.dirname(package)}/{rpinfs.BOUND}"
    # Synced: with a hole in it after a power cut, it would be all of rpinfs that has it. Its mode is for everybody.
    replace_file(path, b"".join([head.ljust(rpinfs.LARGEST_HEAD, b"\0"), *parts]), lambda _: None)
    return path


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
