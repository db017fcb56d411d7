"""Control groups: the end of what has outlived the stop of the unit that it belongs to.

Docker kills a container that does not stop, and ends after some seconds whether that has come to pass or not; its
containers and their shims stay (KillMode=process), and so does the file system that they have mounted in namespaces of
their own. systemd knows nothing of that, and finds them only when all is unmounted: then it waits for them for
DefaultTimeoutStopSec=, a minute and a half.

Source: Linux Documentation/admin-guide/cgroup-v2.rst (cgroup.kill, since 5.14).
"""

import glob
import os
from collections.abc import Iterable

from rpinfs.host import read_text

CONTAINERS = ("docker-*.scope", "cri-containerd-*.scope", "libpod-*.scope")
"""How the groups of containers are called, wherever they are: by Docker, containerd and podman, all by way of runc."""


def kill(names: Iterable[str], root: str = "") -> list[str]:
    """Kill every process in the groups of these names, patterns allowed, and in the groups below them.

    Returns:
        the names of the groups that had any, with their pattern's part filled in.

    Raises:
        OSError: a group cannot be killed.
    """
    killed = []
    for name in names:
        for folder in sorted(glob.glob(f"{root}/sys/fs/cgroup/**/{name}", recursive=True)):
            if "populated 1" in read_text(f"{folder}/cgroup.events"):
                with open(f"{folder}/cgroup.kill", "w", encoding="ascii") as file:
                    file.write("1")
                killed.append(os.path.basename(folder))
    return killed
