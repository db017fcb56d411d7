"""The agent as a process, on real loop devices, with a service manager that listens: ready, watchdog, stop, death."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs import __version__
from rpinfs.agent import request
from rpinfs.boot import storage
from rpinfs.lease.holders import holders
from rpinfs.lease.report import Report
from tests.tools.agent.conftest import SECONDS, Started, detach_lock
from tests.tools.conftest import command

pytestmark = pytest.mark.root

DEAD_PULSE = "work.Pulse._run = lambda *_: 1 / 0"


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
    socket.setdefaulttimeout(SECONDS)
    try:
        request.ask_for("docker", answers.append, str(agent.run / "agent.sock"))
        request.ask_for("nobody", answers.append, str(agent.run / "agent.sock"))
    finally:
        socket.setdefaulttimeout(None)
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
    detach_lock(first.share)
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


def test_it_says_beside_its_image_how_it_is(start: Callable[..., Started], tmp_path: Path) -> None:
    """With the renewals alone, which are more frequent here than on a Pi."""
    agent = start("work.PULSE_SECONDS = 0.2; work.RENEW_SECONDS = 0.0")
    agent.hears("READY=1")
    device, inside = os.readlink(agent.run / "docker"), f"/proc/{agent.process.pid}"

    def said(word: str, *, measured: bool = False) -> Report:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            agent.hears("WATCHDOG=1")
            (found,) = holders(str(tmp_path / "share"))
            report = found.report
            if report is not None and word in report.message and (report.size is not None) is measured:
                return report
        raise AssertionError(found, agent.said())

    assert said(f"is attached as {device}").status == "warning"
    command("nsenter", f"--mount={inside}/ns/mnt", "mount", device, str(tmp_path / "where"))
    # The room is asked for after a renewal, and told with the next.
    report = said(f"docker: mounted at {tmp_path}/where", measured=True)
    room = os.statvfs(f"{inside}/root{tmp_path}/where")
    assert (report.status, report.size) == ("ok", room.f_blocks * room.f_frsize)
    assert (report.serial, report.version) == ("10000000a1b2c3d4", __version__)
    command("nsenter", f"--mount={inside}/ns/mnt", "umount", str(tmp_path / "where"))
