"""What `rpinfs docker show` foretells, and what the real Docker of Debian 12 and 13 then does."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.package.chroot import Chroot
from tests.tools.conftest import Mount, command
from tests.tools.debian import debian

pytestmark = pytest.mark.root

SNAPSHOTTER: dict[str, object] = {"features": {"containerd-snapshotter": True}}
REMAP: dict[str, object] = {"userns-remap": "default"}

# daemon.json, drivers that have data in the folder, file system below it: a tmpfs, where overlay works as on ext4, and
# which no loop device keeps attached until the last namespace is gone; or the overlay that the root is on.
CASES: dict[str, tuple[dict[str, object], tuple[str, ...], str]] = {
    "nothing is set": ({}, (), "tmpfs"),
    "no overlay there": ({}, (), "overlay"),
    "remapped": (REMAP, (), "tmpfs"),
    "snapshotter": (SNAPSHOTTER, (), "tmpfs"),
    "remapped snapshotter": ({**SNAPSHOTTER, **REMAP}, (), "tmpfs"),
    "remapped elsewhere": ({"data-root": "/var/lib/docker/sub", **REMAP}, (), "tmpfs"),
    "two drivers before": ({}, ("overlay2", "fuse-overlayfs"), "tmpfs"),
    "vfs": ({"storage-driver": "vfs"}, (), "tmpfs"),
    "a snapshotter as storage driver": ({"storage-driver": "overlayfs"}, (), "tmpfs"),
    "root to root": ({"userns-remap": "root"}, (), "tmpfs"),
}

# dockerd in namespaces of its own; it ends when our end of the pipe is closed, and all that it started with it.
DOCKERD = """
mount --rbind /sys $0/sys
mount --bind /dev $0/dev
exec 3<&0
NOTIFY_SOCKET=/run/notify chroot $0 dockerd --bridge=none --iptables=false --ip6tables=false &
dockerd=$!
(read -r _ <&3 || kill $dockerd) &
wait $dockerd
"""
ENTER = "unshare --mount --pid --net --fork --kill-child --mount-proc={root}/proc sh -uc {script} {root}"
SECONDS = 120


@contextlib.contextmanager
def started(root: Chroot) -> Iterator[bool]:
    """Start dockerd; whether it came up."""
    command_line = shlex.split(ENTER.format(root=root.root, script=shlex.quote(DOCKERD)))
    folder = os.open(root.path("/run"), os.O_PATH)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, root.path("/tmp/log").open("w") as log:
        # By the descriptor: the path may be longer than an address of a socket can be.
        notify.bind(f"/proc/self/fd/{folder}/notify")
        os.close(folder)
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        process = subprocess.Popen(command_line, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env)
        ended = os.pidfd_open(process.pid)
        try:
            yield is_ready(notify, ended)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait()
            os.close(ended)


def is_ready(notify: socket.socket, ended: int) -> bool:
    while True:
        readable, _, _ = select.select([notify.fileno(), ended], [], [], SECONDS)
        assert readable, f"dockerd neither came up nor ended within {SECONDS} s"
        if notify.fileno() not in readable:
            return False
        if b"READY=1" in notify.recv(4096):
            return True


def answer(root: Chroot) -> dict[str, Any]:
    """What Docker says of itself, over its socket, which is a file and needs no namespace."""
    form = "--format={{json .}}"
    found: dict[str, Any] = json.loads(
        command("chroot", root.root, "docker", "-H", "unix:///run/docker.sock", "info", form)
    )
    return found


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
@pytest.mark.parametrize("name", CASES)
def test_docker_does_what_was_foretold(tmp_path: Path, mounted: Mount, release: str, name: str) -> None:
    keys, prior, filesystem = CASES[name]
    with debian(release, tmp_path) as root, mounted("-t", "tmpfs", "none") as data, contextlib.ExitStack() as stack:
        root.path("/var/lib/docker").mkdir(exist_ok=True)
        if filesystem == "tmpfs":
            command("mount", "--bind", data, root.path("/var/lib/docker"))
            stack.callback(command, "umount", root.path("/var/lib/docker"))
        for driver in prior:
            root.path(f"/var/lib/docker/{driver}/layer").mkdir(parents=True)
        root.path("/etc/docker").mkdir(exist_ok=True)
        root.path("/etc/docker/daemon.json").write_text(json.dumps(keys))
        foretold = json.loads(root.run("rpinfs", "docker", "show", "--json", ok=(0, 1)).stdout)
        assert foretold["rules_seen_with"]
        fatal = [problem["message"] for problem in foretold["problems"] if problem["fatal"]]
        with started(root) as came_up:
            assert came_up is not bool(fatal), (fatal, root.path("/tmp/log").read_text())
            if came_up:
                info = answer(root)
                assert (info["Driver"], info["DockerRootDir"]) == (foretold["driver"]["value"], foretold["root"])
                assert ("name=userns" in info["SecurityOptions"]) is (
                    foretold["userns_remap"]["value"] not in (None, "root")
                )
                kind = ["driver-type", "io.containerd.snapshotter.v1"]
                assert (kind in (info["DriverStatus"] or [])) is foretold["snapshotter"]
