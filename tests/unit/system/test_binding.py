"""All modules in one file: they are the same by it as without it, and where it is not to be used they are there too."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import rpinfs
from rpinfs.system import binding
from tests.support import PYTHON, TOP
from tests.unit.test_structure import modules

TELL = """
import sys
sys.path.insert(0, sys.argv[1])
import rpinfs.boot.config, rpinfs.lease
{more}
for module in (rpinfs.boot, rpinfs.boot.config, rpinfs.lease):
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
    boot, lease = f"{share}/rpinfs/boot", f"{share}/rpinfs/lease"
    return [
        ["rpinfs.boot", loader, f"{boot}/__init__.py", boot],
        ["rpinfs.boot.config", loader, f"{boot}/config.py"],
        ["rpinfs.lease", loader, f"{lease}/__init__.py", lease],
    ]


def test_modules_come_from_it_and_look_as_ever(share: Path) -> None:
    assert told(share) == expected(share, "Bound")


def test_it_has_every_module_once(share: Path) -> None:
    data = (share / rpinfs.BOUND).read_bytes()
    whose, index = marshal.loads(data[: rpinfs.LARGEST_HEAD])
    assert whose == rpinfs.WHOSE
    found = {name.removeprefix("rpinfs.") for name in index}
    assert found == {name.removesuffix(".__init__") for name in modules(TOP / "rpinfs")} - {"__init__"}
    end = rpinfs.LARGEST_HEAD
    for _, offset, size in sorted(index.values(), key=lambda entry: entry[1]):
        assert offset == end
        end += size
    assert end == len(data)


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


@pytest.mark.parametrize("whose", [("0.0", rpinfs.WHOSE[1]), (rpinfs.WHOSE[0], b"\0\0\r\n")])
def test_that_of_another_version_or_python_is_none(
    share: Path, whose: tuple[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpinfs, "WHOSE", whose)
    binding.bind(str(share / "rpinfs"))
    assert told(share) == expected(share, "SourceFileLoader")


def test_what_is_gone_while_it_is_open_is_looked_for_in_the_folders(share: Path) -> None:
    """On a NAS a file that is replaced by another Pi with the same root is gone for whoever has it open (ESTALE)."""
    more = "sys.meta_path[0]._file = 1 << 20; import rpinfs.image.probe as last; print(last.__spec__.loader.path)"
    assert told(share, more)[0] == [f"{share}/rpinfs/image/probe.py"]


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
