"""`make pictures`: what README shows, taken from a run in the lab."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.lab.lab import require_root
from tests.lab.process import LabError
from tests.lab.root import say
from tests.support import TOP

from . import drawing, scene

PICTURES = TOP / "docs/pictures"


def main() -> int:
    """Run, then draw; 1 where the lab fails, and then the pictures are those of before."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.pictures", description="The pictures of README.")
    parser.add_argument("--deb", type=Path, required=True, help="the package that is shown")
    parser.add_argument("--watchers", type=Path, required=True, help="where `make watchers` has put Prometheus")
    asked = parser.parse_args()
    try:
        require_root()
        seen = scene.play(asked.deb, asked.watchers, say)
        pictures = {
            "status-ok.svg": drawing.terminal("rpinfs status", seen.healthy),
            "status-critical.svg": drawing.terminal("rpinfs status", seen.faulty),
            "fleet.png": drawing.phone(seen.page),
            "dashboard.svg": drawing.dashboard(seen.courses, seen.silent_at),
        }
    except LabError as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, data in pictures.items():
        (PICTURES / name).write_bytes(data)
        say(f"{PICTURES / name}: {len(data) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
