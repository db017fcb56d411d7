"""Prepared roots and the units that come of them: a tour of the product.

Each folder NN-name has the machine below `root`, below `expected` what the generator writes to systemd's first folder
(not there: nothing), and in `said` what `rpinfs units` says besides (not there: nothing).

After a wanted change, write all expectations anew and read the difference in git:

    RPINFS_REGENERATE=1 python3 -m pytest tests/golden
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rpinfs.boot.host import NIC_FILE
from tests.support import TOP, Installed, listing

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/root"))
SHIPPED = [f"/usr/lib/systemd/system/{path.name}" for path in (TOP / "units").glob("rpinfs-*.*")]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def difference(expected: Path, found: Path) -> str:
    """As a person would compare them; a folder that is not there counts as empty."""
    for folder in (expected, found):
        if not folder.exists():
            return (
                f"Only one is there: {listing(expected)} {listing(found)}"
                if listing(expected) != listing(found)
                else ""
            )
    command = ["diff", "-ur", "--no-dereference", str(expected), str(found)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The three folders that systemd gives to a generator."""
    for name in ("generator", "generator.early", "generator.late"):
        (tmp_path / name).mkdir()
    return tmp_path


@each_case
def test_rpinfs_units(case: Path, output: Path, installed: Installed) -> None:
    done = installed.run(installed.rpinfs, "units", "--output", output / "units", root=case / "root")
    if os.environ.get("RPINFS_REGENERATE"):
        regenerate(case, output / "units", done.stdout + done.stderr)
    assert difference(case / "expected", output / "units") == ""
    said = case / "said"
    assert done.stdout + done.stderr == (said.read_text() if said.exists() else "")
    assert done.returncode == (2 if "config-error" in case.name else 0)


def regenerate(case: Path, units: Path, said: str) -> None:
    shutil.rmtree(case / "expected", ignore_errors=True)
    if units.exists():
        shutil.copytree(units, case / "expected", symlinks=True)
    (case / "said").unlink(missing_ok=True)
    if said:
        (case / "said").write_text(said)


@each_case
def test_generator(case: Path, output: Path, installed: Installed) -> None:
    folders = [output / name for name in ("generator", "generator.early", "generator.late")]
    # What it writes for other programs goes below the root.
    root = shutil.copytree(case / "root", output / "root", symlinks=True)
    done = installed.run(installed.generator, *folders, root=root)
    assert (done.stdout, done.stderr) == ("", "")
    for path in sorted(set(listing(root)) - set(listing(case / "root"))):
        # What it remembers for this boot is nobody's unit: test_host.py.
        if not path.endswith("/") and f"/{path}" != NIC_FILE:
            shutil.copytree((root / path).parent, (folders[0] / path).parent)
    assert difference(case / "expected", folders[0]) == ""
    assert [listing(folder) for folder in folders[1:]] == [{}, {}]


@each_case
def test_where_nothing_is_written_a_reason_is_given(case: Path) -> None:
    assert (case / "expected").exists() or (case / "said").read_text()


@each_case
def test_the_unit_names_of_a_case_are_those_of_its_links(case: Path) -> None:
    """A link to a unit that nobody writes would be a unit that systemd does not find."""
    written = listing(case / "expected")
    for name, text in written.items():
        if text.startswith("-> ../"):
            assert str(Path(name).parent / text.removeprefix("-> ")).split("/../")[-1] in written
        elif text.startswith("-> "):
            assert text.removeprefix("-> ") in SHIPPED


def test_there_are_cases() -> None:
    assert len(CASES) >= 14
