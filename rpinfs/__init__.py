"""Docker storage on a netbooted Raspberry Pi: an image on NFS, made, checked, guarded and watched.

A module that is imported costs its file and, once, its folder: at a boot each is a handful of requests to the NAS. So
the package binds all of them in one file when it is installed, with those of others that the boot needs: of Python's
own library, and sdnotify (system/binding.py). That file is looked for here.
"""

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import CodeType, ModuleType

BOUND = f"bound.{sys.implementation.cache_tag}"
"""Name of the file, beside the package: each Python has its own byte code."""

LARGEST_HEAD = 16384
"""Bytes that the head of the file may have: WHOSE, the index, the windows and the parts, see Bound."""

READ_AHEAD = 128 << 10
"""Bytes that Linux reads ahead at least (VM_READAHEAD_PAGES)."""

WHOSE = (__version__, MAGIC_NUMBER, sys.version)
"""Whose code it is. What another version, or another Python, has left is not looked at: Python's own library comes with
it, and sys.version has the date of its build."""


class Bound:
    """Finds and loads modules in the file. What it does not find, Python looks for in the folders as ever.

    Args:
        file: descriptor of the file.
        folders: where the modules are otherwise, for the ways that they name: of rpinfs, of Python's library.
        index: of each module whether it is a package, its offset in the file, and its size in bytes.
        windows: folders of those modules that are neither of rpinfs nor of Python's library.
        parts: from where to where the file has what is needed as a whole; such a part is read ahead, by few requests.
            The rest is read module by module.
    """

    def __init__(
        self,
        file: int,
        folders: "tuple[str, str]",
        index: "Mapping[str, tuple[bool, int, int]]",
        windows: "Mapping[str, str]",
        parts: "Sequence[tuple[int, int]]",
    ) -> None:
        self._file = file
        self._folders = folders
        self._index = index
        self._windows = windows
        self._parts = list(parts)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> "ModuleSpec | None":
        """Say how a module is loaded; None where it is not in the file, or the file is not to be read any more."""
        if name not in self._index or (code := self._code(name)) is None:
            return None
        is_package = self._index[name][0]
        ours, library = self._folders
        folder = ours if name.startswith("rpinfs.") else self._windows.get(name, library)
        path = f"{folder}/{name.replace('.', '/')}"
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
            self._read_ahead(offset)
            code = marshal.loads(os.pread(self._file, size, offset))
        except (OSError, *_NONE):
            # On a NAS it may be gone, though it is open here.
            return None
        return code if isinstance(code, type(_look_for_bound.__code__)) else None

    def _read_ahead(self, offset: int) -> None:
        for part in self._parts:
            begin, end = part
            if begin <= offset < end:
                self._parts.remove(part)
                # The kernel reads ahead no more at once than a request holds, or READ_AHEAD.
                step = max(READ_AHEAD, os.fstat(self._file).st_blksize)
                try:
                    for start in range(begin, end, step):
                        os.posix_fadvise(self._file, start, min(step, end - start), os.POSIX_FADV_WILLNEED)
                except OSError:
                    pass  # It is advice: a kernel or a sandbox without it reads all the same.
                return


_NONE = (EOFError, TypeError, ValueError)
"""What marshal raises for what is cut short, or none of it."""


def _look_for_bound(package: str) -> None:
    above = os.path.dirname(package)
    try:
        file = os.open(f"{above}/{BOUND}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        whose, index, windows, parts = marshal.loads(os.pread(file, LARGEST_HEAD, 0))
    except (OSError, *_NONE):
        whose, index, windows, parts = None, {}, {}, ()
    if whose == WHOSE:
        sys.meta_path.insert(0, Bound(file, (above, os.path.dirname(os.__file__)), index, windows, parts))
    else:
        os.close(file)


_look_for_bound(__path__[0])
