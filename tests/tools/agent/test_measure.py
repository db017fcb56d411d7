"""The file that the agent keeps for a node exporter: fresh, whole, for everybody, and at no cost to the NAS."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.health.metrics import METRICS
from rpinfs.system import syscalls
from tests.support import Tell
from tests.tools.agent.conftest import SECONDS, Started
from tests.tools.conftest import command
from tests.unit.health.test_metrics import samples

pytestmark = pytest.mark.root

SOON = """
from rpinfs.agent import agent, whole
whole.SECONDS, agent._TICK_SECONDS, work.PULSE_SECONDS = {after}, 0.1, 0.1
"""
QUICK = SOON.format(after=0.2) + "from rpinfs.agent import measure\nmeasure.PULSE_SECONDS = 0.2\n"
NEVER = SOON.format(after=3600)
# A share that answers nobody while this is there.
SILENT = """
import os, time
from rpinfs.agent import share as shares
shares.SILENT_SECONDS = 0.5
asked = os.statvfs
def statvfs(path):
    while os.path.exists("/run/rpinfs/silent"):
        time.sleep(0.02)
    return asked(path)
os.statvfs = statvfs
"""

Found = dict[tuple[str, ...], float]


def file_of(agent: Started) -> Path:
    return agent.run / "metrics/rpinfs.prom"


def wait_for(agent: Started, is_so: Callable[[Found], bool]) -> Found:
    """What the file says as soon as that is so."""
    until, found = time.monotonic() + SECONDS, Found()
    while time.monotonic() < until:
        if file_of(agent).exists():
            # Never half of it.
            found = samples(file_of(agent).read_text())
            assert ("rpinfs_agent_pulse_timestamp_seconds",) in found
            if is_so(found):
                return found
        time.sleep(0.05)
    raise AssertionError(found)


def inside(agent: Started, *argv: object) -> str:
    """Run a command where the agent is: it sees only what is mounted there."""
    return command("nsenter", f"--mount=/proc/{agent.process.pid}/ns/mnt", *map(str, argv))


def test_what_it_says_of_an_image_that_is_mounted(
    start: Callable[..., Started], tmp_path: Path, promtool: Path
) -> None:
    agent = start(QUICK)
    agent.hears("READY=1")
    share, where = str(agent.share), tmp_path / "where"
    found = wait_for(agent, lambda found: ("rpinfs_share_free_bytes", share) in found)
    assert (found["rpinfs_image_mounted", "docker"], found[("rpinfs_gate_open",)]) == (0, 0)
    inside(agent, "mount", os.readlink(agent.run / "docker"), where)
    try:
        inside(agent, "ls", where)
        found = wait_for(agent, lambda found: ("rpinfs_image_filesystem_avail_bytes", "docker") in found)
        room = [int(word) for word in inside(agent, "stat", "--file-system", "--format=%S %b %a", where).split()]
        assert found["rpinfs_image_filesystem_size_bytes", "docker"] == room[0] * room[1]
        assert found["rpinfs_image_filesystem_avail_bytes", "docker"] == room[0] * room[2]
        assert found["rpinfs_image_mounted", "docker"] == found[("rpinfs_gate_open",)] == 1
        assert found["rpinfs_image_readonly", "docker"] == found["rpinfs_image_filesystem_errors", "docker"] == 0
        assert found["rpinfs_image_size_bytes", "docker"] == 64 << 20
        assert found["rpinfs_lease_held", "docker"] == 1
        assert found["rpinfs_share_up", share] == 1
        assert found["rpinfs_share_outages_total", share] == found["rpinfs_share_silent_seconds", share] == 0
        # A snapshot's time is known from a note, and nothing that is not a time.
        (agent.run / "docker.snapshot").write_text("1767323045\n")
        found = wait_for(agent, lambda found: ("rpinfs_snapshot_newest_timestamp_seconds", "docker") in found)
        assert found["rpinfs_snapshot_newest_timestamp_seconds", "docker"] == 1767323045
        (agent.run / "docker.snapshot").write_text("-1e3\n")
        wait_for(agent, lambda found: ("rpinfs_snapshot_newest_timestamp_seconds", "docker") not in found)
        # As a container fills the image, what it takes on the share is told, too.
        inside(agent, "dd", "if=/dev/urandom", f"of={where}/data", "bs=1M", "count=4", "conv=fsync", "status=none")
        taken = os.stat(tmp_path / "share/docker.img").st_blocks * 512
        wait_for(agent, lambda found: found["rpinfs_image_allocated_bytes", "docker"] >= taken)
        pulse = "rpinfs_agent_pulse_timestamp_seconds"
        before = wait_for(agent, lambda _: True)[(pulse,)]
        wait_for(agent, lambda found: found[(pulse,)] > before)
        text = file_of(agent).read_text()
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        assert {key[0] for key in found} <= {metric.name for metric in METRICS}
    finally:
        inside(agent, "umount", where)


def test_everybody_may_read_it_and_at_the_stop_it_goes(start: Callable[..., Started]) -> None:
    agent = start(QUICK)
    agent.hears("READY=1")
    wait_for(agent, lambda _: True)
    assert file_of(agent).stat().st_mode & 0o777 == 0o644
    assert file_of(agent).parent.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in file_of(agent).parent.iterdir()] == ["rpinfs.prom"]
    agent.end(signal.SIGKILL)
    assert file_of(agent).exists(), "its age tells that nobody writes it"
    # Also what another one has left.
    other = start(NEVER)
    other.hears("READY=1")
    assert other.end(signal.SIGTERM) == 0
    assert [path.name for path in other.run.iterdir()] == ["agent.ran"]


def test_it_stays_fresh_while_the_share_is_silent(start: Callable[..., Started]) -> None:
    agent = start(QUICK + SILENT)
    agent.hears("READY=1")
    share = str(agent.share)
    wait_for(agent, lambda found: found["rpinfs_share_up", share] == 1)
    for outages in (1, 2):
        (agent.run / "silent").touch()
        found = wait_for(agent, lambda found: found["rpinfs_share_up", share] == 0)
        assert found["rpinfs_share_outages_total", share] == outages
        silent = found["rpinfs_share_silent_seconds", share]
        longer = wait_for(agent, lambda found: found["rpinfs_share_silent_seconds", share] > silent)  # noqa: B023
        assert longer[("rpinfs_agent_pulse_timestamp_seconds",)] > found[("rpinfs_agent_pulse_timestamp_seconds",)]
        assert longer["rpinfs_share_free_bytes", share] > 0, "what it said last"
        (agent.run / "silent").unlink()
        found = wait_for(agent, lambda found: found["rpinfs_share_up", share] == 1)
        assert found["rpinfs_share_silent_seconds", share] == 0
        assert found["rpinfs_share_outage_seconds_total", share] >= longer["rpinfs_share_silent_seconds", share]


def test_before_the_boot_is_over_nothing_of_it_is_imported() -> None:
    """Nor by what the agent needs: each module would be opened on the NAS."""
    code = "import sys; import rpinfs.agent.agent; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert not {name for name in modules if name.startswith(("rpinfs.health", "rpinfs.agent.measure", "ctypes"))}
    assert "rpinfs.agent.whole" in modules


def paths(agent: Started, folder: Path, looks: int) -> list[str]:
    """Calls of the main thread with a path that begins at the root, but for those that wait for nobody."""
    trace = folder / f"paths-{time.monotonic_ns()}"
    argv = ["strace", "-e", "trace=%file", "-o", str(trace), "-p", str(agent.process.pid)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as strace:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and (not trace.exists() or trace.read_text().count("mountinfo") < looks):
            time.sleep(0.1)
        strace.send_signal(signal.SIGINT)
    calls = re.findall(r"^\w+\(.*", trace.read_text(errors="replace"), re.MULTILINE)
    assert sum("mountinfo" in call for call in calls) >= looks
    # Where one of two paths does, the link that is made leads there, and nobody goes that way.
    return [call for call in calls if re.search(r'[(\s]"/', call) and "RESOLVE_CACHED" not in call]


def test_nothing_that_it_looks_at_is_sought_from_the_root(start: Callable[..., Started], tmp_path: Path) -> None:
    """That is on a NAS: with it gone the main thread would wait for the way to /run, see near.py and test_near.py."""
    agent = start(QUICK + SILENT)
    agent.hears("READY=1")
    share = str(agent.share)
    inside(agent, "mount", os.readlink(agent.run / "docker"), tmp_path / "where")
    try:
        wait_for(agent, lambda found: found["rpinfs_image_mounted", "docker"] == 1)
        assert paths(agent, tmp_path, 20) == []
        (agent.run / "silent").touch()
        wait_for(agent, lambda found: found["rpinfs_share_up", share] == 0)
        assert paths(agent, tmp_path, 20) == []
        (agent.run / "silent").unlink()
        wait_for(agent, lambda found: found["rpinfs_share_up", share] == 1)
    finally:
        inside(agent, "umount", tmp_path / "where")


# What it costs


def calls(trace: Path, folder: Path) -> tuple[dict[str, int], int]:
    """Calls of a trace that may reach the share or its image, how often each; and how many pulses there were.

    A pulse tells the main thread twice: that it asks, and what came of it. By what it asks it is not counted: who else
    asked the same would be taken for one.
    """
    found: dict[str, int] = {}
    told = 0
    for line in trace.read_text(errors="replace").splitlines():
        call = re.match(r"(?:\d+ +)?(\w+)\((.*)", line)
        if call and (f"{folder}/share" in line or f"{folder}/where" in line):
            name = call[1] + (" cached" if "RESOLVE_CACHED" in line or "AT_STATX_DONT_SYNC" in line else "")
            found[name] = found.get(name, 0) + 1
        told += bool(call and call[1] == "write" and "[eventfd]" in call[2])
    return found, told // 2


def traced(agent: Started, folder: Path, pulses: int) -> dict[str, float]:
    """Calls per pulse of an agent at rest."""
    pid = agent.process.pid
    trace = folder / f"trace-{pid}"
    trace.unlink(missing_ok=True)
    argv = ["strace", "-f", "-y", "-e", "trace=%file,%desc,%net", "-o", str(trace), "-p", str(pid)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as strace:
        until = time.monotonic() + 2 * SECONDS
        while time.monotonic() < until and (not trace.exists() or calls(trace, folder)[1] < pulses):
            time.sleep(0.2)
        strace.send_signal(signal.SIGINT)
    found, seen = calls(trace, folder)
    assert seen >= pulses
    return {name: count / seen for name, count in found.items()}


PULSES = 20
IN_MEMORY = {"openat2 cached", "statx cached", "fstatfs", "close"}


@pytest.mark.parametrize(("program", "more"), [(NEVER, set[str]()), (QUICK, IN_MEMORY)], ids=["without", "with"])
def test_at_rest_it_asks_the_share_nothing_more(
    start: Callable[..., Started], tmp_path: Path, tell: Tell, program: str, more: set[str]
) -> None:
    """What the kernel answers from its memory, or not at all, is all that is more; see openat2(2) and statx(2)."""
    agent = start(program)
    agent.hears("READY=1")
    inside(agent, "mount", os.readlink(agent.run / "docker"), tmp_path / "where")
    try:
        until = time.monotonic() + SECONDS
        while agent.said()["state"] != "mounted" and time.monotonic() < until:
            time.sleep(0.05)
        if more:
            wait_for(agent, lambda found: found["rpinfs_image_mounted", "docker"] == 1)
        # Once in minutes a lease is renewed meanwhile, and the room looked at, with metrics and without.
        for _ in range(5):
            found = traced(agent, tmp_path, PULSES)
            if not set(found) - more - {"statfs"}:
                break
    finally:
        inside(agent, "umount", tmp_path / "where")
    tell(f"calls to the share per pulse {'with' if more else 'without'} metrics: {found}")
    # One question a pulse, by which the share is known to answer; nothing else, with metrics and without. A pulse may
    # be cut at either end of what is traced.
    assert {name for name in found if name not in more} == {"statfs"}
    assert abs(found["statfs"] - 1) <= 2 / PULSES
    assert ("openat2 cached" in found) == bool(more)


def test_a_place_that_the_kernel_does_not_know_is_not_looked_up(tmp_path: Path) -> None:
    path = tmp_path / "a/b"
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"x" * 10000)
    os.stat(path / "file")
    fd = syscalls.open_in_memory(str(path / "file"))
    try:
        assert syscalls.blocks_in_memory(fd) == os.stat(path / "file").st_blocks * 512 > 0
        with pytest.raises(OSError):
            os.read(fd, 1)
    finally:
        os.close(fd)
    with pytest.raises(BlockingIOError):
        syscalls.open_in_memory(str(tmp_path / f"{shlex.quote('never')}-{os.getpid()}/looked/up"))
