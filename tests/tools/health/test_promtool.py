"""Prometheus' own tool takes what we tell it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rpinfs.health import metrics
from tests.support import Installed, make_pi
from tests.unit.health.pi import FILES
from tests.unit.health.test_metrics import ALL

HOSTILE = 'a\\b"c\nd{e}=,# HELP é\udcff'


def check(promtool: Path, text: str) -> tuple[int, str]:
    """What `promtool check metrics` says of a text: of its form, and of names and units."""
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text.encode(), capture_output=True, check=False, timeout=120
    )
    return done.returncode, (done.stdout + done.stderr).decode()


def test_the_whole_table(promtool: Path) -> None:
    assert check(promtool, metrics.render(ALL)) == (0, "")


def test_hostile_labels(promtool: Path) -> None:
    known = metrics.Known(
        HOSTILE, metrics.Share(HOSTILE, True), (metrics.Image(HOSTILE, True),), checks=((HOSTILE, HOSTILE, "ok"),)
    )
    assert check(promtool, metrics.render(known)) == (0, "")


@pytest.mark.parametrize("words", [("metrics",), ("check", "--format", "prometheus")])
def test_what_the_commands_print(promtool: Path, root: Path, installed: Installed, words: tuple[str, ...]) -> None:
    make_pi(root, "", FILES)
    done = installed.run(installed.rpinfs, *words, root=root)
    assert done.stderr == ""
    assert check(promtool, done.stdout) == (0, "")
    assert "rpinfs_check_status{" in done.stdout


def test_it_would_say_so(promtool: Path) -> None:
    status, said = check(promtool, metrics.render(ALL).replace("_bytes", "_kilobytes").replace("# HELP", "# HLP"))
    assert status != 0
    assert "rpinfs_share_size_kilobytes no help text" in said


def test_output_to_a_file(root: Path, installed: Installed, tmp_path: Path) -> None:
    """Whole, for everybody to read, through a link, and in the place of nothing that is no file."""
    make_pi(root, "", FILES)
    target, link = tmp_path / "made/rpinfs.prom", tmp_path / "link.prom"
    link.symlink_to(target)
    assert installed.run(installed.rpinfs, "metrics", "--output", link, root=root).returncode == 0
    assert link.is_symlink() and target.stat().st_mode & 0o777 == 0o644
    assert target.read_text().startswith("# HELP rpinfs_build_info ")
    assert [path.name for path in target.parent.iterdir()] == ["rpinfs.prom"]
    for odd in ("/dev/null", str(tmp_path)):
        done = installed.run(installed.rpinfs, "metrics", "--output", odd, root=root)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"--output {odd}: expected a file, found something else" in done.stderr
    assert Path("/dev/null").is_char_device()
