"""Small plausible errors, put in one at a time, and whether the quick tests of a room notice them.

    python3 -m tests.mutants [--room agent] [--module decide] [--sample 40] [--seed 1]

cosmic-ray makes them. It changes files, so that also the children that tests start have the error in them, with an
environment as empty as theirs is; mutmut's mutants are chosen by a variable of the environment, and cost the boot path
imports, which tests count. All that is done in a copy of the tree.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from tests.support import TOP

ROOMS = ("boot", "system", "lease", "image", "docker", "health", "agent", "netboot", "commands")
MORE_TESTS = {"boot": ("golden/test_*.py",), "docker": ("unit/boot/test_daemons.py",)}
"""Of a room, beside those in the folders of its name."""
FOR_ALL = ("tests/unit/test_values.py", "tests/unit/test_errors.py", "tests/oracle/test_headers.py")
SLOW_TESTS = ("tests/tools/image/test_fence.py", "tests/tools/image/test_two_pis.py")
"""They wait for minutes, for other hosts' locks."""
# Crash points say the same in minutes.
QUICK = "not crash and not long and not lab"
WORK = Path("/var/tmp")
SLOWER = 4.0
LEAST_SECONDS = 30.0
# A file of tests that takes longer is no quick one.
QUICK_SECONDS = 120.0


class Noticed(Enum):
    """What came of an error."""

    BY_A_TEST = "noticed"
    BY_TIME_OUT = "noticed by time-out only"
    NOT = "not noticed"


@dataclass(frozen=True)
class Place:
    """Where an error can be put in: a module below the tree, a line, and which of cosmic-ray's operators."""

    module: str
    line: int
    operator: str
    occurrence: int

    @property
    def kind(self) -> tuple[str, int, str]:
        """What counts as one place: a comparison can be made wrong in ten ways, and is no more likely to be."""
        return self.module, self.line, self.operator.partition("_")[0]


def main() -> int:
    """Say for each room how many were noticed, and which were not; 0 whatever came of it."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.mutants", description="Do the tests notice errors?")
    parser.add_argument("--room", default="", help=f"one of {', '.join(ROOMS)} (all)")
    parser.add_argument("--module", default="", help="one module of the room, such as decide (all)")
    parser.add_argument("--sample", type=int, default=40, help="errors for each room (40)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="repeats a run")
    asked = parser.parse_args()
    rooms = [asked.room] if asked.room else [room for room in ROOMS if (TOP / "rpinfs" / room).is_dir()]
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="rpinfs-mutants-", dir=WORK) as folder:
        copy = Path(folder) / "rpinfs"
        copy_tree(copy)
        lines = [try_room(copy, room, asked.module, asked.sample, random.Random(asked.seed)) for room in rooms]
    for line in lines:
        print(line)
    return 0


def copy_tree(copy: Path) -> None:
    """What git tracks or would track, as it is now."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={TOP}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (TOP / name).is_file() or (TOP / name).is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, copy / name, follow_symlinks=False)
    # `make deb`, which some tests call, asks git what belongs to the tree.
    who = ("-c", "user.name=mutants", "-c", "user.email=mutants@localhost", "-c", "commit.gpgSign=false")
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "copy")):
        subprocess.run(["git", "-C", copy, *who, *words], check=True)


def try_room(copy: Path, room: str, module: str, sample: int, chance: random.Random) -> str:
    """Try a sample of a room's errors, or of one module's; a line with the figures."""
    begun = time.monotonic()
    tests = quick_tests(copy, room)
    limit = max(LEAST_SECONDS, SLOWER * (time.monotonic() - begun))
    every = [place for place in places(copy, room, chance) if module in ("", Path(place.module).stem)]
    print(f"{room}: {sample} of {len(every)} places, {' '.join(tests)}, at most {limit:.0f} s each", flush=True)
    noticed: dict[str, list[Noticed]] = {}
    for place in every:
        path = copy / place.module
        right = path.read_text()
        wrong = with_error(right, place)
        if not wrong:
            continue
        path.write_text(wrong)
        seen = noticed_by(copy, place, tests, limit)
        path.write_text(right)
        noticed.setdefault(Path(place.module).stem, []).append(seen)
        if seen is not Noticed.BY_A_TEST:
            print(f"{seen.value}: {described(place, right, wrong)}", flush=True)
        if sum(map(len, noticed.values())) == sample:
            break
    return figures(room, noticed)


def figures(room: str, noticed: dict[str, list[Noticed]]) -> str:
    """A line: how many of a room's errors were noticed, and of each module's; on a busy machine, time-outs are weak."""
    every = [seen for those in noticed.values() for seen in those]
    count = len(every) - every.count(Noticed.NOT)
    modules = ", ".join(
        f"{module} {len(those) - those.count(Noticed.NOT)}/{len(those)}" for module, those in sorted(noticed.items())
    )
    late = every.count(Noticed.BY_TIME_OUT)
    return (
        f"{room}: {count} of {len(every)} noticed, of them {late} by time-out, "
        f"{100 * count // max(1, len(every))} % ({modules})"
    )


def noticed_by(copy: Path, place: Place, tests: list[str], limit: float) -> Noticed:
    """Whether the tests notice it: first those of the module's own name, which most often do, then the others."""
    own = [name for name in tests if Path(name).stem == f"test_{Path(place.module).stem}"]
    others = [name for name in tests if name not in own]
    for part in filter(None, (own, others)):
        if why := failing(copy, part, limit):
            return Noticed.BY_TIME_OUT if why == not_done(limit) else Noticed.BY_A_TEST
    return Noticed.NOT


def quick_tests(copy: Path, room: str) -> list[str]:
    """The files of a room's tests that pass, and soon; the others are named."""
    patterns = (f"unit/{room}/**/test_*.py", f"tools/{room}/**/test_*.py", *MORE_TESTS.get(room, ()))
    chosen = []
    paths = [path for pattern in patterns for path in sorted((copy / "tests").glob(pattern))]
    for name in [*FOR_ALL, *(str(path.relative_to(copy)) for path in paths)]:
        if name in SLOW_TESTS:
            print(f"left out: {name}: slow", flush=True)
        elif why := failing(copy, [name], QUICK_SECONDS):
            print(f"left out: {name}: {why.splitlines()[-1]}", flush=True)
        else:
            chosen.append(name)
    return chosen


def failing(copy: Path, tests: list[str], limit: float) -> str:
    """What the tests print when one fails or they take too long; nothing when all pass."""
    process = subprocess.Popen(
        [sys.executable, *["-m", "pytest", "-x", "-q", "--no-header", "--tb=line", "-m"], QUICK, *tests],
        cwd=copy,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return not_done(limit)
    # 5: none is left of a file.
    return output.strip() or "failed" if process.returncode not in (0, 5) else ""


def not_done(limit: float) -> str:
    return f"not done after {limit:.0f} s"


def places(copy: Path, room: str, chance: random.Random) -> list[Place]:
    """All places of a room in a random order, at each one of the errors that cosmic-ray can make there."""
    found: dict[tuple[str, int, str], list[Place]] = {}
    operators = [name for name in plugins.operator_names() if not plugins.get_operator(name).arguments()]
    for path in sorted((copy / "rpinfs" / room).rglob("*.py")):
        nodes = list(ast_nodes(get_ast(path.read_text())))
        for name in operators:
            operator = plugins.get_operator(name)()
            starts = [start for node in nodes for start, _ in operator.mutation_positions(node)]
            for occurrence, (line, _) in enumerate(starts):
                place = Place(str(path.relative_to(copy)), line, name, occurrence)
                found.setdefault(place.kind, []).append(place)
    chosen = [chance.choice(same) for same in found.values()]
    chance.shuffle(chosen)
    return chosen


def with_error(text: str, place: Place) -> str:
    """The module with the error in it; empty where that changes nothing but an annotation, or leaves no Python."""
    try:
        wrong: str | None = mutate_code(text, plugins.get_operator(place.operator)(), place.occurrence)
    except AttributeError:
        return ""  # cosmic-ray replaces no exception with a dot in its name, and fails there.
    return wrong if wrong and meaning(wrong) not in ("", meaning(text)) else ""


def meaning(text: str) -> str:
    """A module without its annotations, and the imports for them: they do nothing. Empty where it is no Python."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TYPE_CHECKING":
            node.value = ast.Constant(value=None)
        elif isinstance(node, ast.If) and is_for_types(node):
            node.test = ast.Constant(value=None)
    return ast.dump(tree)


def is_for_types(node: ast.If) -> bool:
    """Whether a block, or with an error in it its contrary, imports what annotations name, and does nothing more."""
    asked = node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test
    only_imports = all(isinstance(one, ast.Import | ast.ImportFrom) for one in node.body)
    return isinstance(asked, ast.Name) and asked.id == "TYPE_CHECKING" and only_imports and not node.orelse


def described(place: Place, right: str, wrong: str) -> str:
    """Where it was, and the first line that differs."""
    pairs = zip(right.splitlines(), wrong.splitlines(), strict=False)
    before, after = next((pair for pair in pairs if pair[0] != pair[1]), ("", "(lines are gone)"))
    return f"{place.module}:{place.line} {place.operator}\n  - {before.strip()}\n  + {after.strip()}"


if __name__ == "__main__":
    sys.exit(main())
