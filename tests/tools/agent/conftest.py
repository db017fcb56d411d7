"""The agent as a process, with a socket in the place of systemd's.

There is no NFS here: that a tmpfs counts as the share is all that differs from a Pi. /run/rpinfs is the test's own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rpinfs.system import loop
from tests.support import TOP, make_pi
from tests.tools.conftest import command

SECONDS = 30.0
PROGRAM = """
import sys
sys.path[:0] = [{top!r}]
sys.path.append("/usr/lib/python3/dist-packages")
from rpinfs.boot import storage
def on_share(mount, *_):
    return mount.where == {share!r}
storage.Mount.is_nfs = property(on_share)
storage.Mount.is_from = on_share
from rpinfs.agent import work
{more}
from rpinfs.__main__ import main
sys.exit(main(["agent"]))
"""


class Started:
    """An agent that runs."""

    def __init__(self, folder: Path, more: str = "", *, top: Path = TOP, through: str = "") -> None:
        self.run = folder / "run"
        self.share = folder / "share"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = time.monotonic_ns()
        notify = folder / f"notify-{name}"
        # To its end nobody reads it: the agent would stop at the 64 KiB that a pipe takes.
        self.log = folder / f"agent-{name}.log"
        self.manager.bind(str(notify))
        self.manager.settimeout(SECONDS)
        program = PROGRAM.format(top=str(top), share=str(self.share), more=more)
        python = f"exec {through} /usr/bin/python3 -ISB -"
        shell = f"mkdir -p /run/rpinfs && mount --bind {self.run} /run/rpinfs && {python}"
        # LC_ALL as in the unit.
        told = {"LC_ALL": "C", "PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(notify)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "slave", "sh", "-c", shell],
                stdin=subprocess.PIPE, stderr=log, text=True,
                env={**told, "RPINFS_ROOT": str(folder / "root")},
            )  # fmt: skip
        assert self.process.stdin
        self.process.stdin.write(program)
        self.process.stdin.close()

    def hears(self, word: str) -> str:
        """Wait until the agent says something to the service manager."""
        while True:
            lines = self.manager.recv(65536).decode().split("\n")
            for line in lines:
                if word in line:
                    return line

    def said(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.run / "agent.json").read_text())["images"]["docker"]
        return found

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(SECONDS)
        self.close()
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(SECONDS)
        self.manager.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    agents: list[Started] = []
    for name in ("share", "run", "where"):
        (tmp_path / name).mkdir()
    make_pi(
        tmp_path / "root",
        f"[Boot]\nExport=\n[Share]\nWhere={tmp_path}/share\n"
        f"[Image docker]\nFile=docker.img\nSize=64M\nFileSystem=ext4\nWhere={tmp_path}/where\nBind=\n",
    )
    command("mount", "-t", "tmpfs", "-o", "size=300M", "tmpfs", str(tmp_path / "share"))

    def started(more: str = "", **how: Any) -> Started:  # noqa: ANN401
        agents.append(Started(tmp_path, more, **how))
        return agents[-1]

    try:
        yield started
    finally:
        for agent in agents:
            agent.close()
        detach_lock(tmp_path / "share")
        command("umount", "--lazy", str(tmp_path / "share"))


def detach_lock(share: Path) -> None:
    """Let go of the lock that a killed agent has left, as the next boot does.

    By device and inode: the path that the kernel tells is of the agent's mount namespace, and ended with that.
    """
    lock = share / ".docker.img.rpinfs-lock"
    for found in loop.find(str(lock)) if lock.exists() else ():
        command("losetup", "--detach", found.path)
