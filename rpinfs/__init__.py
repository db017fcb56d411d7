"""Docker storage on a netbooted Raspberry Pi: an image on NFS, made, checked, guarded and watched.

A module that is imported costs its file and, once, its folder: at a boot each is a handful of requests to the NAS. So
the package binds all of them in one file when it is installed (system/binding.py), which is looked for here.
"""

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType, ModuleType

BOUND = f"bound.{sys.implementation.cache_tag}"
"""Name of the file, beside the package: each Python has its own byte code."""

LARGEST_HEAD = 16384
"""Bytes that the head of the file may have: WHOSE, and of each module whether it is a package, offset and size."""

WHOSE = (__version__, MAGIC_NUMBER)
"""Whose code it is. What another version, or another Python, has left is not looked at."""


class Bound:
    """Finds and loads modules in the file. What it does not find, Python looks for in the folders as ever."""

    def __init__(self, file: int, package: str, index: "Mapping[str, tuple[bool, int, int]]") -> None:
        self._file = file
        self._package = package
        self._index = index

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> "ModuleSpec | None":
        """Say how a module is loaded; None where it is not in the file, or the file is not to be read any more."""
        if name not in self._index or (code := self._code(name)) is None:
            return None
        is_package = self._index[name][0]
        path = f"{self._package}/{name.partition('.')[2].replace('.', '/')}"
        origin = f"{path}/__init__.py" if is_package else f"{path}.py"
        found = ModuleSpec(name, self, origin=origin)  # type: ignore[arg-type]
        found.has_location = True
        found.loader_state = code
        if is_package:
            found.submodule_search_locations = [path]
        return found

    def create_module(self, _spec: object) -> None:
        """Leave it to Python, as loaders do."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the code of a module that was found."""
        found = module.__spec__
        assert found is not None
        code, found.loader_state = found.loader_state, None
        exec(code, module.__dict__)

    def get_code(self, name: str) -> "CodeType | None":
        """The code of a module. `python3 -m rpinfs` asks for it."""
        return self._code(name)

    def _code(self, name: str) -> "CodeType | None":
        _, offset, size = self._index[name]
        try:
            code = marshal.loads(os.pread(self._file, size, offset))
        except (OSError, *_NONE):
            # On a NAS it may be gone, though it is open here.
            return None
        return code if isinstance(code, type(_look_for_bound.__code__)) else None


_NONE = (EOFError, TypeError, ValueError)
"""What marshal raises for what is cut short, or none of it."""


def _look_for_bound(package: str) -> None:
    try:
        file = os.open(f"{os.path.dirname(package)}/{BOUND}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        whose, index = marshal.loads(os.pread(file, LARGEST_HEAD, 0))
    except (OSError, *_NONE):
        whose, index = None, {}
    if whose == WHOSE:
        sys.meta_path.insert(0, Bound(file, package, index))
    else:
        os.close(file)


_look_for_bound(__path__[0])
