"""All modules in one file: they are the same by it as without it, and where it is not to be used they are there too."""

from __future__ import annotations

import itertools
import marshal
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rpinfs
from rpinfs.system import binding
from tests.support import PYTHON, TOP
from tests.unit.test_structure import modules

TELL = """
import sys
sys.path.insert(0, sys.argv[1])
import rpinfs.boot.config, rpinfs.lease, json
{more}
for module in (rpinfs.boot, rpinfs.boot.config, rpinfs.lease, json, json.decoder):
    loader = type(module.__spec__.loader).__name__
    print(module.__name__, loader, module.__file__, *getattr(module, "__path__", ()))
"""


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A copy of the package, and the file beside it."""
    shutil.copytree(TOP / "rpinfs", tmp_path / "rpinfs", ignore=shutil.ignore_patterns("__pycache__"))
    assert binding.bind(str(tmp_path / "rpinfs")) == str(tmp_path / rpinfs.BOUND)
    return tmp_path


def told(share: Path, more: str = "") -> list[list[str]]:
    argv = [*PYTHON, "-c", TELL.format(more=more), str(share)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/")
    return [line.split() for line in done.stdout.splitlines()]


def expected(share: Path, loader: str) -> list[list[str]]:
    boot, lease, library = f"{share}/rpinfs/boot", f"{share}/rpinfs/lease", Path(os.__file__).parent
    return [
        ["rpinfs.boot", loader, f"{boot}/__init__.py", boot],
        ["rpinfs.boot.config", loader, f"{boot}/config.py"],
        ["rpinfs.lease", loader, f"{lease}/__init__.py", lease],
        ["json", loader, f"{library}/json/__init__.py", f"{library}/json"],
        ["json.decoder", loader, f"{library}/json/decoder.py"],
    ]


def test_modules_come_from_it_and_look_as_ever(share: Path) -> None:
    assert told(share) == expected(share, "Bound")


def test_it_has_every_module_once(share: Path) -> None:
    data = (share / rpinfs.BOUND).read_bytes()
    whose, index, windows, parts = marshal.loads(data[: rpinfs.LARGEST_HEAD])
    assert whose == rpinfs.WHOSE
    found = {name.removeprefix("rpinfs.") for name in index if name.startswith("rpinfs.")}
    assert found == {name.removesuffix(".__init__") for name in modules(TOP / "rpinfs")} - {"__init__"}
    end = rpinfs.LARGEST_HEAD
    for _, offset, size in sorted(index.values(), key=lambda entry: entry[1]):
        assert offset == end
        end += size
    assert end == len(data)
    ends = [rpinfs.LARGEST_HEAD, *(end for _, end in parts)]
    assert parts == list(itertools.pairwise(ends)) and len(parts) == len(binding.PARTS)
    for (begin, end), names in zip(parts, binding.PARTS, strict=True):
        assert all(begin <= index[name][1] < end for name in names)
    assert windows.keys() <= index.keys()


def test_of_pythons_own_library_it_has_what_the_boot_imports(share: Path) -> None:
    _, index, windows, parts = marshal.loads((share / rpinfs.BOUND).read_bytes()[: rpinfs.LARGEST_HEAD])
    library = {name for name in index if not name.startswith("rpinfs.")}
    assert {"json", "json.decoder", "re", "subprocess", "threading", "ctypes"} <= library
    assert not library & {"os", "posixpath", "encodings", "_json", "importlib"}
    assert windows == {"sdnotify": binding.WINDOWS} and "sdnotify" in library
    assert not [name for name in library if index[name][1] < parts[0][1]], "the generator imports none"


def test_the_window_that_the_boot_needs_comes_from_it_and_looks_as_ever(share: Path) -> None:
    program = (
        f"import sys; sys.path = [{str(share)!r}, *sys.path, {binding.WINDOWS!r}]\n"
        "import rpinfs, sdnotify as one; print(type(one.__spec__.loader).__name__, one.__file__)"
    )
    done = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == f"Bound {binding.WINDOWS}/sdnotify/__init__.py\n"
    triggers = (TOP / "debian/rpinfs.triggers").read_text().splitlines()
    assert f"interest-noawait {binding.WINDOWS}/sdnotify" in triggers, "a new version of it makes the file anew"


def test_without_the_window_the_rest_is_bound(share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "WINDOWS", str(tmp_path / "none"))
    binding.bind(str(share / "rpinfs"))
    _, index, windows, _ = marshal.loads((share / rpinfs.BOUND).read_bytes()[: rpinfs.LARGEST_HEAD])
    assert windows == {} and "sdnotify" not in index and "rpinfs.agent.agent" in index


def test_what_is_needed_together_is_read_ahead(share: Path, tmp_path: Path) -> None:
    """In steps of which the kernel leaves nothing out: it takes 128 KiB, or a request's size, and no more."""

    def asked(*names: str) -> list[tuple[int, int]]:
        program = f"import sys; sys.path.insert(0, sys.argv[1]); import {', '.join(names)}"
        argv = ["strace", "-e", "trace=fadvise64", "-o", str(tmp_path / "trace"), *PYTHON, "-c", program, str(share)]
        subprocess.run(argv, check=True, cwd="/")
        trace = (tmp_path / "trace").read_text()
        found = re.findall(r"fadvise64\(\d+, (\d+), (\d+), POSIX_FADV_WILLNEED\) = 0", trace)
        return [(int(start), int(size)) for start, size in found]

    def whole(*parts: tuple[int, int]) -> list[tuple[int, int]]:
        # A local file system's block is smaller than READ_AHEAD.
        steps = [(start, end) for begin, end in parts for start in range(begin, end, rpinfs.READ_AHEAD)]
        return [(start, min(rpinfs.READ_AHEAD, end - start)) for start, end in steps]

    _, _, _, parts = marshal.loads((share / rpinfs.BOUND).read_bytes()[: rpinfs.LARGEST_HEAD])
    boot, agent, overlay = parts
    assert asked("rpinfs") == []
    assert asked("rpinfs.boot.generator") == asked("rpinfs.boot.gate") == whole(boot)
    assert asked("rpinfs.agent.agent", "rpinfs.boot.gate") == [*whole(agent), *whole(boot)]
    assert asked("rpinfs", "ctypes") == [*whole(overlay), *whole(agent)]


@pytest.mark.parametrize("size", [0, 1, 1000, rpinfs.LARGEST_HEAD])
def test_one_that_was_cut_short_is_none(share: Path, size: int) -> None:
    os.truncate(share / rpinfs.BOUND, size)
    assert told(share) == expected(share, "SourceFileLoader")


@pytest.mark.parametrize("body", [b"\0" * 100, marshal.dumps("no code") * 100])
def test_modules_that_are_none_are_looked_for_in_the_folders(share: Path, body: bytes) -> None:
    """As with holes in it, where a disk has lost what was not synced."""
    data = (share / rpinfs.BOUND).read_bytes()
    rest = len(data) - rpinfs.LARGEST_HEAD
    (share / rpinfs.BOUND).write_bytes(data[: rpinfs.LARGEST_HEAD] + (body * rest)[:rest])
    assert told(share) == expected(share, "SourceFileLoader")


@pytest.mark.parametrize("content", [b"\0" * 4096, b"rubbish", marshal.dumps(1), marshal.dumps((1, 2, 3))])
def test_what_is_none_is_left_alone(share: Path, content: bytes) -> None:
    (share / rpinfs.BOUND).write_bytes(content)
    assert told(share) == expected(share, "SourceFileLoader")


@pytest.mark.parametrize("which", range(len(rpinfs.WHOSE)))
def test_that_of_another_version_or_python_or_build_of_it_is_none(
    share: Path, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = ("0.0", b"\0\0\r\n", sys.version.replace("20", "19"))
    assert others[which] != rpinfs.WHOSE[which]
    whose = (*rpinfs.WHOSE[:which], others[which], *rpinfs.WHOSE[which + 1 :])
    monkeypatch.setattr(rpinfs, "WHOSE", whose)
    binding.bind(str(share / "rpinfs"))
    assert told(share) == expected(share, "SourceFileLoader")


def test_what_is_gone_while_it_is_open_is_looked_for_in_the_folders(share: Path) -> None:
    """On a NAS a file that is replaced by another Pi with the same root is gone for whoever has it open (ESTALE)."""
    more = "sys.meta_path[0]._file = 1 << 20; import rpinfs.image.probe as last; print(last.__spec__.loader.path)"
    assert told(share, more)[0] == [f"{share}/rpinfs/image/probe.py"]


def test_where_advice_is_refused_it_is_read_without(share: Path) -> None:
    """As by a sandbox that does not know how the call is named on a 32-bit ARM."""
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "def refuse(*_): raise PermissionError\n"
        "os.posix_fadvise = refuse\n"
        "import rpinfs.agent as first; print(type(first.__spec__.loader).__name__)"
    )
    done = subprocess.run([*PYTHON, "-c", program, str(share)], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "Bound\n"


def test_it_replaces_the_last_one_whole_and_anybody_may_read_it(share: Path) -> None:
    before = (share / rpinfs.BOUND).read_bytes()
    (share / f".{rpinfs.BOUND}.rpinfs-new-0").write_bytes(b"what a power cut has left")
    mask = os.umask(0o077)
    try:
        binding.bind(str(share / "rpinfs"))
    finally:
        os.umask(mask)
    assert (share / rpinfs.BOUND).read_bytes() == before
    assert (share / rpinfs.BOUND).stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in share.iterdir()) == [rpinfs.BOUND, "rpinfs"]


def test_python_can_run_the_package_from_it(share: Path) -> None:
    done = subprocess.run([*PYTHON, "-m", "rpinfs", "--version"], capture_output=True, text=True, check=True, cwd=share)
    assert done.stdout == f"rpinfs {rpinfs.__version__}\n"
