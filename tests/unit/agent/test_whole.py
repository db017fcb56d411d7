"""An upgrade unpacks other modules under a running agent: it has all of its own by then."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from rpinfs.agent import whole
from tests.support import PYTHON, TOP
from tests.unit.test_structure import imports, modules

AGENT = """
import sys
sys.path[:0] = [sys.argv[1]]
sys.path.append("/usr/lib/python3/dist-packages")
import rpinfs.agent.agent
from rpinfs.agent import whole
if sys.argv[2] == "whole":
    whole.soon()
    whole.load()
print("started", flush=True)
input()
from rpinfs.agent import shutdown
from rpinfs.image import grow
from rpinfs.system import systemd
print("of one version")
"""


def upgraded(folder: Path, before: str) -> subprocess.CompletedProcess[str]:
    """An agent, under which every module is replaced by one that it cannot use, and that then needs more of them."""
    shutil.copytree(TOP / "rpinfs", folder / "rpinfs", ignore=shutil.ignore_patterns("__pycache__"))
    argv = [*PYTHON, "-c", AGENT, str(folder), before]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None and it.stdout.readline() == "started\n"
        for path in (folder / "rpinfs").rglob("*.py"):
            path.write_text("raise SystemExit('of another version')\n")
        output, errors = it.communicate("\n")
    return subprocess.CompletedProcess(argv, it.returncode, output, errors)


def test_an_upgrade_does_not_mix_versions(tmp_path: Path) -> None:
    assert upgraded(tmp_path / "mixed", "").stderr == "of another version\n"
    done = upgraded(tmp_path / "whole", "whole")
    assert (done.stdout, done.stderr, done.returncode) == ("of one version\n", "", 0)


def test_it_is_done_a_minute_after_the_start_and_keeps_nobody_waiting() -> None:
    timer = whole.soon()
    timer.cancel()
    assert (timer.interval, timer.daemon, timer.function) == (60.0, True, whole.load)


def test_it_has_all_that_is_imported_on_need_and_nothing_else() -> None:
    trees = modules(TOP / "rpinfs")
    known, left = set[str](), ["agent.agent"]
    while left:
        name = left.pop()
        if name in known or name not in trees:
            continue
        known.add(name)
        for module, taken, for_types in imports(trees[name]):
            if module.startswith("rpinfs") and not for_types:
                inner = module.removeprefix("rpinfs").lstrip(".")
                left += [inner, *(f"{inner}.{each}".lstrip(".") for each in taken)]
    program = "import sys; sys.path.insert(0, sys.argv[1]); import rpinfs.agent.agent; print(*sys.modules)"
    done = subprocess.run([*PYTHON, "-c", program, str(TOP)], capture_output=True, text=True, check=True)
    on_need = {f"rpinfs.{name}" for name in known} - {"rpinfs.health", *done.stdout.split()}
    assert on_need == set(whole.MODULES)
