"""The process beside pytest that ends a test which hangs, see watch.py: watcher.py PID PIPE FOLDER GRACE.

PIPE gives lines: the seconds that a test has from now on, or 0 when it is over. With the standard library alone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SIGNAL = signal.SIGXCPU
NEVER = float("inf")


def watch(pid: int, commands: int, folder: str, grace: float) -> None:
    """Watch over a process until it has ended. Times in seconds."""
    process = os.pidfd_open(pid)
    end = NEVER
    interrupted = False
    while True:
        left = max(0.0, end - time.monotonic())
        ready, _, _ = select.select([process, commands], [], [], left if end != NEVER else None)
        if process in ready:
            return
        if commands in ready:
            told = os.read(commands, 65536).decode().split()
            if not told:
                return
            limit = float(told[-1])
            end = time.monotonic() + limit if limit else NEVER
            interrupted = False
        elif interrupted:
            os.kill(pid, signal.SIGKILL)
            return
        else:
            thaw(pid, folder)
            os.kill(pid, SIGNAL)
            end, interrupted = time.monotonic() + grace, True


def thaw(pid: int, folder: str) -> None:
    """Thaw all below the folder of the tests, the inner ones first; what is not frozen stays as it is."""
    for where in reversed(list(mounts_below(Path(f"/proc/{pid}/mountinfo").read_text(), folder))):
        # Not waited for: it may itself have to wait.
        subprocess.Popen(["fsfreeze", "--unfreeze", where])


def mounts_below(mountinfo: str, folder: str) -> Iterator[str]:
    """Mount points below a folder, in the order in which they were mounted."""
    for line in mountinfo.splitlines():
        where = line.split()[4]
        if where.startswith(f"{folder}/"):
            yield where


if __name__ == "__main__":
    watch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
