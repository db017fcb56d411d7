"""The dockerd of a Debian root, started for real in namespaces of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.package.chroot import Chroot
from tests.support import PATH
from tests.tools.conftest import command

# dockerd in namespaces of its own; it ends when our end of the pipe is closed, and all that it started with it.
DOCKERD = """
mount --rbind /sys $0/sys
mount --bind /dev $0/dev
exec 3<&0
NOTIFY_SOCKET=/run/notify chroot $0 env $ENVIRONMENT dockerd $OPTIONS &
dockerd=$!
(read -r _ <&3 || kill $dockerd) &
wait $dockerd
# The kernel ends a namespace in its own time, and what is mounted in it keeps a loop device until then.
umount --lazy --recursive $0/var/lib/docker
"""
NO_NETWORK = "--bridge=none --iptables=false --ip6tables=false"
ENTER = "unshare --mount --pid --net --fork --kill-child --mount-proc={root}/proc sh -uc {script} {root}"
SECONDS = 120


@contextlib.contextmanager
def started(root: Chroot, options: str = NO_NETWORK, environment: str = "") -> Iterator[bool]:
    """Start dockerd; whether it came up. What it says is in /tmp/log."""
    command_line = shlex.split(ENTER.format(root=root.root, script=shlex.quote(DOCKERD)))
    folder = os.open(root.path("/run"), os.O_PATH)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, root.path("/tmp/log").open("w") as log:
        # By the descriptor: the path may be longer than an address of a socket can be.
        notify.bind(f"/proc/self/fd/{folder}/notify")
        os.close(folder)
        env = {"PATH": PATH, "OPTIONS": options, "ENVIRONMENT": environment}
        process = subprocess.Popen(command_line, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env)
        ended = os.pidfd_open(process.pid)
        try:
            yield is_ready(notify, ended)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait()
            for left in ("notify", "docker.pid"):
                root.path(f"/run/{left}").unlink(missing_ok=True)
            os.close(ended)


def is_ready(notify: socket.socket, ended: int) -> bool:
    while True:
        readable, _, _ = select.select([notify.fileno(), ended], [], [], SECONDS)
        assert readable, f"dockerd neither came up nor ended within {SECONDS} s"
        if notify.fileno() not in readable:
            return False
        if b"READY=1" in notify.recv(4096):
            return True


def client(root: Chroot, *argv: str) -> str:
    """What docker says, over Docker's socket, which is a file and needs no namespace."""
    return command("chroot", root.root, "docker", "-H", "unix:///run/docker.sock", *argv)


def answer(root: Chroot) -> dict[str, Any]:
    """What Docker says of itself."""
    found: dict[str, Any] = json.loads(client(root, "info", "--format={{json .}}"))
    return found
