"""`make bench`: what rpinfs costs and saves, beside what else people could use, on emulated Pis."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.lab.lab import require_root
from tests.lab.process import LabError
from tests.lab.root import say

from . import boot, docker, first, report, rest, scale, storage

AREAS: dict[str, Callable[[Path, Callable[[str], None]], Iterator[report.Area]]] = {
    "boot": boot.measure,
    "docker": docker.measure,
    "first": first.measure,
    "rest": rest.measure,
    "scale": scale.measure,
    "storage": storage.measure,
}


def main() -> int:
    """Measure what is asked for; 1 where the lab fails."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description="What rpinfs costs and saves.")
    parser.add_argument("--deb", type=Path, required=True, help="the package to measure")
    parser.add_argument("--area", choices=AREAS, action="append", help="this alone; can be given again (all)")
    parser.add_argument("--keep", action="store_true", help="write RESULTS.md and the plots")
    asked = parser.parse_args()
    try:
        require_root()
        for name in asked.area or AREAS:
            for area in AREAS[name](asked.deb, say):
                say(report.text(area))
                if asked.keep:
                    report.keep(area)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
