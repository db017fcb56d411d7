"""The agent as a process, on real loop devices, with a service manager that listens: ready, watchdog, stop, death.

There is no NFS here: that a tmpfs counts as the share is all that differs from a Pi. /run/rpinfs is the test's own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rpinfs.agent import request
from rpinfs.boot import storage
from tests.support import TOP, make_pi
from tests.tools.conftest import command

pytestmark = pytest.mark.root

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
DEAD_PULSE = "work.Pulse._run = lambda *_: 1 / 0"


class Started:
    """An agent that runs."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.run = folder / "run"
        self.share = folder / "share"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = folder / f"notify-{time.monotonic_ns()}"
        self.manager.bind(str(notify))
        self.manager.settimeout(SECONDS)
        program = PROGRAM.format(top=str(TOP), share=str(self.share), more=more)
        shell = f"mkdir -p /run/rpinfs && mount --bind {self.run} /run/rpinfs && exec /usr/bin/python3 -ISB -"
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "slave", "sh", "-c", shell],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={"PATH": os.environ["PATH"], "RPINFS_ROOT": str(folder / "root"), "NOTIFY_SOCKET": str(notify)},
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
        if self.process.stderr:
            self.process.stderr.close()
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

    def started(more: str = "") -> Started:
        agents.append(Started(tmp_path, more))
        return agents[-1]

    try:
        yield started
    finally:
        for agent in agents:
            agent.close()
        for lock in storage.loops_on(f"{tmp_path}/share/.docker.img.rpinfs-lock"):
            subprocess.run(["losetup", "--detach", lock.path], check=False)
        command("umount", "--lazy", str(tmp_path / "share"))


def test_ready_when_attached_and_the_watchdog_is_fed(start: Callable[..., Started]) -> None:
    agent = start()
    agent.hears("READY=1")
    # READY came after the image, and not before: the mount unit finds its link.
    assert os.readlink(agent.run / "docker").startswith("/dev/loop") and (agent.run / "docker.uuid").exists()
    assert agent.hears("STATUS=").startswith("STATUS=docker: /")
    begun = time.monotonic()
    for _ in range(2):
        agent.hears("WATCHDOG=1")
    assert time.monotonic() - begun < SECONDS / 2
    assert agent.said()["state"] == "attached"
    answers: list[str] = []
    request.ask_for("docker", answers.append, str(agent.run / "agent.sock"))
    request.ask_for("nobody", answers.append, str(agent.run / "agent.sock"))
    assert answers == [agent.said()["message"], "the agent has no image nobody"]
    assert (agent.run / "agent.sock").stat().st_mode & 0o777 == 0o600


def test_at_its_stop_nothing_is_left_that_leads_nowhere(start: Callable[..., Started]) -> None:
    agent = start()
    agent.hears("READY=1")
    device = os.path.basename(os.readlink(agent.run / "docker"))
    assert agent.end(signal.SIGTERM) == 0
    assert [path.name for path in agent.run.iterdir()] == ["agent.ran"], "that there was one stays known"
    assert storage.loop_state(device) is None


def test_a_killed_agents_link_is_not_left_to_whoever_has_the_device_next(start: Callable[..., Started]) -> None:
    first = start()
    first.hears("READY=1")
    text = (first.run / "docker.uuid").read_text()
    first.end(signal.SIGKILL)
    assert os.path.lexists(first.run / "docker")
    # The share is late for the next one: it has nothing to publish.
    command("umount", "--lazy", str(first.share))
    second = start()
    second.hears("READY=1")
    assert not os.path.lexists(second.run / "docker") and not (second.run / "docker.uuid").exists()
    assert text
    command("mount", "-t", "tmpfs", "tmpfs", str(first.share))


def test_what_was_verified_stays_so_over_a_restart(start: Callable[..., Started], tmp_path: Path) -> None:
    """Mounted, killed, renamed on the share: the next agent goes on with it, and writes no UUID of its own."""
    first = start()
    first.hears("READY=1")
    device = os.readlink(first.run / "docker")
    command("mount", device, str(tmp_path / "where"))
    try:
        first.end(signal.SIGKILL)
        verified = (first.run / "docker.uuid").stat()
        (tmp_path / "share/docker.img").rename(tmp_path / "share/moved.img")
        second = start()
        # The second round is over when the first one has told all it had to tell.
        for _ in range(2):
            second.hears("WATCHDOG=1")
        assert second.said()["state"] == "mounted" and second.said()["loop"] == os.path.basename(device)
        assert os.path.samestat((second.run / "docker.uuid").stat(), verified)
        second.end(signal.SIGTERM)
        assert os.readlink(first.run / "docker") == device, "what is mounted stays as it is"
    finally:
        command("umount", str(tmp_path / "where"))


def test_a_dead_thread_is_a_dead_agent(start: Callable[..., Started]) -> None:
    """It would look alive and do nothing; systemd starts it anew."""
    agent = start(DEAD_PULSE)
    assert agent.process.wait(SECONDS) == 1
