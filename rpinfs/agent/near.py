"""Ways to what is in memory that do not lead over the root.

/run/rpinfs/metrics is looked up in /, which on a netbooted Pi is the NAS's. What the kernel knows of a folder there it
believes for a minute at most (nfs(5), acdirmax=); then it asks, and with the NAS gone whoever wants a file in /run,
/proc or /sys waits for it: the agent as well, whose file of metrics would say that all is well until the NAS is back.
From /proc, which it is in, and from folders that it has open, it finds what it needs without a look at the root.
"""

from __future__ import annotations

import os

from rpinfs.boot import host

_FOLDERS = ("/run/", "/sys/")


def keep() -> None:
    """Have near() know these ways in this process and in those that it forks. Raises OSError."""
    opened = {top: os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for top in _FOLDERS}
    os.chdir("/proc")
    host.WAYS = {"/proc/": "", **{top: f"self/fd/{fd}/" for top, fd in opened.items()}}
