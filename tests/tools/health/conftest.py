"""What people watch by: Prometheus, its promtool and node exporter, Nagios and a wrapper of its plug-ins, of Debian."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import TOP


@pytest.fixture(scope="session")
def watchers() -> Iterator[Path]:
    """The folder into which WATCHERS of the Makefile are unpacked."""
    before = os.environ.get("RPINFS_WATCHERS")
    if before is None:
        done = subprocess.run(
            ["make", "--silent", f"--directory={TOP}", "watchers"], capture_output=True, text=True, check=True
        )
        # tests/origin.py asks for it.
        os.environ["RPINFS_WATCHERS"] = done.stdout.splitlines()[-1]
    yield Path(os.environ["RPINFS_WATCHERS"])


@pytest.fixture(scope="session")
def promtool(watchers: Path) -> Path:
    return watchers / "usr/bin/promtool"
