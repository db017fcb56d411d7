"""A test that hangs fails, and the run goes on.

Each pytest process has a watcher beside it, a process of its own, because what hangs here may take no signal: with a
file system left frozen, pytest sat in state D until somebody thawed it. When a test has used up its time, the watcher
thaws what is mounted below the folder of the tests, and interrupts the test; where that does not help within a minute,
as with a child that nothing ends, it kills the process, and pytest-xdist goes on with another. The limits are far from
what any test takes on a busy machine: they are no assertions.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import watcher
from tests.support import PYTHON, thorough

MINUTE = 60.0
# Of tests that boot or attach something, and of the others; where all points are tried, the longest took three hours.
LIMITS = (30 * MINUTE, 10 * MINUTE, 12 * 60 * MINUTE)
GRACE = MINUTE
GRACE_VARIABLE, LIMIT_VARIABLE = "RPINFS_TEST_GRACE", "RPINFS_TEST_LIMIT"
"""Seconds, for the tests of this."""


class Watch:
    """The pytest side: tells the watcher which test begins with how much time, and when it is over."""

    def __init__(self, folder: Path) -> None:
        signal.signal(watcher.SIGNAL, self._interrupted)
        read, self._write = os.pipe()
        # Through a shell, and so nobody's child: tests wait for theirs, and count them.
        words = [*PYTHON, watcher.__file__, str(os.getpid()), str(read), str(folder), str(_grace())]
        shell = ("sh", "-c", 'exec setsid "$@" </dev/null >/dev/null 2>&1 &', "sh")
        subprocess.run([*shell, *words], check=True, pass_fds=[read])
        os.close(read)

    def begin(self, item: pytest.Item) -> None:
        os.write(self._write, f"{limit_of(item)}\n".encode())

    def end(self) -> None:
        os.write(self._write, b"0\n")

    @staticmethod
    def _interrupted(*_: object) -> None:
        pytest.fail("it took longer than anything here may take: see tests/watch.py")


def limit_of(item: pytest.Item) -> float:
    """Seconds that a test may take."""
    if given := os.environ.get(LIMIT_VARIABLE):
        return float(given)
    devices, others, everything = LIMITS
    if thorough():
        return everything
    return devices if item.get_closest_marker("lab") or item.get_closest_marker("root") else others


def _grace() -> float:
    return float(os.environ.get(GRACE_VARIABLE, GRACE))
