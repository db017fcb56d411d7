"""Runs in a booted container of test_sandbox.py, with the package installed.

    sandboxed.py agent      in place of `rpinfs agent`, in the sandbox of rpinfs-agent.service: does what the agent does
    sandboxed.py drive      outside of the sandbox: starts, kills, upgrades and removes, and writes down what is so

The agent itself is not in use in a container, so its pieces stand in for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, "/usr/share/rpinfs")

IMAGE = "/srv/share/test.img"
GROWING = "/srv/share/growing.img"
LINK = "/run/rpinfs/test"
MOUNT = "/var/lib/docker"
AGENT = "rpinfs-agent.service"
MARKER = "/run/rpinfs/test.frozen"
RESULT = Path("/result.json")
SIZE = 64 << 20
SECONDS = 30.0


def agent() -> None:
    """Make, check and attach an image, ask systemd for something, and stay."""
    from rpinfs.image import make
    from rpinfs.image.check import check
    from rpinfs.system import loop, systemd

    if os.path.exists(LINK):
        loop.hold(os.path.realpath(LINK))
    else:
        # A blank file of another owner takes every way through the making that asks for privileges.
        make.create(IMAGE, SIZE)
        check(IMAGE)
        grow()
        os.symlink(loop.attach(IMAGE).path, LINK)
    assert systemd.unit_states(["docker.service"])["docker.service"].load == "loaded"
    systemd.start_units(["asked-for.service"])

    from sdnotify import SystemdNotifier

    SystemdNotifier().notify("READY=1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        SystemdNotifier().notify("WATCHDOG=1")
        time.sleep(10)


def grow() -> None:
    """Grow an image that is not mounted, of either kind; ext4 where this machine has the right to at all."""
    from rpinfs.image import grow, make
    from rpinfs.image.errors import ImageError

    for filesystem, before in (("xfs", 300 << 20), ("ext4", SIZE)):
        make.create(GROWING, before, filesystem)
        try:
            assert grow.grow(GROWING, 2 * before).after == 2 * before
        except ImageError as error:
            lacks_right = "no CAP_SYS_RESOURCE" in error.message and "no CAP_SYS_ADMIN" not in error.message
            if filesystem == "xfs" or not lacks_right:
                raise
        os.unlink(GROWING)


def drive() -> None:
    """Go through the life of the package, a step after the other, and write down what each left."""
    make_loop_nodes()
    steps: dict[str, Callable[[], object]] = {
        "start": lambda: systemctl("start", AGENT, "docker.service"),
        "kill": kill_agent,
        "thaw": thaw,
        "upgrade": lambda: run("dpkg", "-i", "/srv/rpinfs.deb"),
        "remove": lambda: run("dpkg", "-r", "rpinfs"),
        "stop": lambda: systemctl("stop", "docker.service", "var-lib-docker.mount"),
    }
    result: dict[str, dict[str, object]] = {}
    for name, step in steps.items():
        step()
        result[name] = state()
        RESULT.write_text(json.dumps(result))


def make_loop_nodes() -> None:
    """A container's /dev has only the nodes that it was given; other tests may have taken these devices."""
    for number in range(64):
        if not os.path.exists(f"/dev/loop{number}"):
            os.mknod(f"/dev/loop{number}", 0o60660, os.makedev(7, number))


def kill_agent() -> None:
    """As the kernel would when memory is short; systemd starts it again."""
    killed = main_pid(AGENT)
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + SECONDS
    while main_pid(AGENT) in (0, killed) or show(AGENT, "ActiveState") != "active":
        if time.monotonic() > deadline:
            raise SystemExit("the agent has not come back")
        time.sleep(0.1)


def thaw() -> None:
    """What a snapshot leaves that was killed together with its guard; the agent asks for the service."""
    run("fsfreeze", "--freeze", MOUNT)
    Path(MARKER).write_text(MOUNT)
    systemctl("start", "rpinfs-thaw.service")


def is_frozen() -> bool:
    """Asked by thawing it: writing to it would hang."""
    return os.path.exists(MARKER) or not run("fsfreeze", "--unfreeze", MOUNT).startswith("FAILED")


def state() -> dict[str, object]:
    """What the test looks at."""
    pid = main_pid(AGENT)
    device = os.path.basename(os.path.realpath(LINK))
    backing = Path(f"/sys/block/{device}/loop/backing_file")
    return {
        "agent": show(AGENT, "ActiveState"),
        "agent_pid": pid,
        "docker": show("docker.service", "ActiveState"),
        "docker_pid": main_pid("docker.service"),
        "asked_for": show("asked-for.service", "ActiveState"),
        "same_mounts": pid == 0 or os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"),
        "mounted": os.path.ismount(MOUNT),
        "frozen": is_frozen(),
        "backing_file": backing.read_text().strip() if backing.exists() else "",
        "journal": run("journalctl", "--no-pager", "-o", "cat", "-b", "-u", "rpinfs-*", "-u", "docker.service"),
    }


def systemctl(*words: str) -> str:
    return run("systemctl", *words)


def show(unit: str, name: str) -> str:
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def main_pid(unit: str) -> int:
    return int(show(unit, "MainPID"))


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else f"FAILED {argv}: {done.returncode}\n{done.stdout}{done.stderr}"


if __name__ == "__main__":
    {"agent": agent, "drive": drive}[sys.argv[1]]()
