"""What the agent costs at an ordinary boot: files opened by it and its children until an image is mounted.

Each file of the root is a handful of requests to the NAS.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import rpinfs
from tests.support import Installed
from tests.tools.agent.conftest import SECONDS, Started
from tests.tools.conftest import command

pytestmark = pytest.mark.root

LIMITS = {"python3": 19, "blkid": 3, "e2fsck": 10}
"""Files of the root by program; setpriv, by which e2fsck dies with the agent, counts with that.

Of the agent's 19 (Python 3.11) 11 are the bare interpreter's, 3 hold all of rpinfs with what it needs of the library.
e2fsck is started for a file system that calls itself clean as well: what it finds there, and what no look at the
superblock can tell, is in tests/tools/image/test_clean.py.
"""


def opened(trace: Path) -> dict[str, list[str]]:
    """By program, what each process has opened of the root, in its order."""
    found: dict[str, list[str]] = {}
    for path in sorted(trace.parent.glob(f"{trace.name}.*")):
        text = path.read_text()
        (*_, program) = ["python3", *re.findall(r'execve\("([^"]*)".*\) = 0$', text, re.MULTILINE)]
        paths = re.findall(r'open(?:at2?)?\((?:[A-Z_]+, )?"([^"]*)".*\) = \d+$', text, re.MULTILINE)
        elsewhere = ("/proc", "/sys", "/dev", "/run", str(trace.parent))
        of_root = [one for one in paths if one.startswith("/") and not one.startswith(elsewhere)]
        found.setdefault(os.path.basename(program), []).extend(of_root)
    return found


def test_files_that_the_agent_opens(start: Callable[..., Started], tmp_path: Path, installed: Installed) -> None:
    first = start()
    first.hears("READY=1")
    assert first.end(signal.SIGTERM) == 0
    # As after a boot, where /run is empty: the first agent asks systemd for nothing.
    (first.run / "agent.ran").unlink()
    trace = tmp_path / "trace"
    agent = start(top=installed.share, through=f"strace -D -ff -e trace=open,openat,openat2,execve -o {trace}")
    agent.hears("READY=1")
    inside = f"--mount=/proc/{agent.process.pid}/ns/mnt"
    command("nsenter", inside, "mount", os.readlink(agent.run / "docker"), str(tmp_path / "where"))
    try:
        until = time.monotonic() + SECONDS
        while agent.said()["state"] != "mounted":
            assert time.monotonic() < until
            agent.hears("WATCHDOG=1")
        found = opened(trace)
    finally:
        command("nsenter", inside, "umount", str(tmp_path / "where"))
    assert {program: len(files) for program, files in found.items() if len(files) > LIMITS.get(program, 0)} == {}, found
    assert set(found) == set(LIMITS), "each of them was there to be counted"
    ours = [one for one in found["python3"] if one.startswith(str(installed.share))]
    bound = str(installed.share / rpinfs.BOUND)
    assert [re.sub(r"cpython-\d+\.pyc$", "pyc", one) for one in ours] == [
        str(installed.share), str(installed.share / "rpinfs/__pycache__/__init__.pyc"), bound
    ]  # fmt: skip
    not_now = re.compile("/(pystemd|psutil|pyroute2|typing|traceback|dataclasses|inspect)")
    assert not [one for one in found["python3"] if not_now.search(one)]
