"""`rpinfs config import-fstab --output`: what is replaced, and what is written over. The rest: test_cli.py."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from rpinfs.commands import cli, config
from rpinfs.errors import RpinfsError
from rpinfs.image import fstab
from rpinfs.system import deadline, replace
from tests.support import make_tree
from tests.unit.image.test_takeover import RECIPE

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RPINFS_ROOT", str(root))
    return make_tree(root, {"proc/cmdline": "root=/dev/sda1\n", "etc/fstab": RECIPE})


def test_lines_to_comment_out() -> None:
    lines = fstab.parse(RECIPE)
    assert config._lines(lines[:1]) == "line 1" and config._lines(lines) == "lines 1, 2, 3"


def test_of_standard_input(machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(RECIPE))
    (machine / "etc/fstab").unlink()
    assert cli.main(["config", "import-fstab", "-"]) == 0
    assert "Comment out in standard input what" in capsys.readouterr().out


def test_bytes_that_are_no_characters_are_named_and_no_traceback(machine: Path, capsys: Captured) -> None:
    (machine / "etc/fstab").write_bytes(RECIPE.encode().replace(b"/nfs/docker/loop", b"/nfs/docker/l\xffop"))
    assert cli.main(["config", "import-fstab"]) == 1
    assert "\\udcff" in capsys.readouterr().err


def test_what_somebody_writes_meanwhile_stays(machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Between the look and the writing; with --force that is what was asked for."""
    real, there = replace.replace_file, machine / "etc/new.conf"

    def meanwhile(path: str, text: bytes, validate: object) -> None:
        there.write_text("of somebody else\n")
        real(path, text, validate)  # type: ignore[arg-type]

    monkeypatch.setattr(replace, "replace_file", meanwhile)
    assert cli.main(["config", "import-fstab", "--output", "/etc/new.conf"]) == 1
    assert "/etc/new.conf was written by somebody else meanwhile, and stays as it is" in capsys.readouterr().err
    assert there.read_text() == "of somebody else\n"
    assert cli.main(["config", "import-fstab", "--output", "/etc/new.conf", "--force"]) == 0
    assert "File=loop\n" in there.read_text()


def test_what_is_no_file_stays(machine: Path, capsys: Captured) -> None:
    for name, make in (("link", lambda path: path.symlink_to("gone")), ("folder", Path.mkdir), ("pipe", os.mkfifo)):
        make(machine / name)
        assert cli.main(["config", "import-fstab", "--output", f"/{name}", "--force"]) == 1
        assert f"/{name}: expected a file or none, found something else; it stays as it is" in capsys.readouterr().err
    assert not (machine / "gone").exists()


@pytest.mark.parametrize("error", [RpinfsError("no answer within 1 s"), FileNotFoundError(2, "no such file")])
def test_a_file_on_a_share_that_is_gone_has_no_length(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    asked: list[tuple[object, ...]] = []

    def within(*arguments: object) -> os.stat_result:
        asked.append(arguments)
        if len(asked) > 1:
            raise error
        return os.stat(__file__)

    monkeypatch.setattr(deadline, "within", within)
    assert config._size_of("/x") == os.stat(__file__).st_size and config._size_of("/x") is None
    assert asked == [(1.0, os.stat, "/x")] * 2
