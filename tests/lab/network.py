"""The lab's wires: a switch in a network namespace of its own, and cables to it.

Nothing of it touches the host's network: every end of every cable is in a namespace whose name begins with the
lab's, so several labs can run at once, and all that a lab has ever started is found again by these names.
"""

from __future__ import annotations

import select
from pathlib import Path

from .process import LabError, run

NETNS_FOLDER = Path("/run/netns")
NETWORK = "10.77.0"
PREFIX_LENGTH = 24
MTU = 1500


class Namespace:
    """A network namespace with its loopback up."""

    def __init__(self, name: str) -> None:
        self.name = name
        run(["ip", "netns", "add", name])
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> str:
        """Run iproute2's ip inside the namespace."""
        return run(["ip", "-netns", self.name, *words])

    def inside(self, *argv: str | Path) -> list[str | Path]:
        """The argument list that runs a program inside; the process keeps its id through it.

        Not `ip netns exec`: that makes a mount namespace as well, whose copies of mounts keep them busy.
        """
        return ["nsenter", f"--net={NETNS_FOLDER / self.name}", "--", *argv]

    def remove(self) -> None:
        """Remove the namespace and the interfaces in it. Its processes are left alone."""
        run(["ip", "netns", "del", self.name])


class Switch(Namespace):
    """A bridge that NASes and Pis are plugged into."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ip("link", "add", "switch", "mtu", str(MTU), "type", "bridge")
        # Nobody else talks here; router solicitations and the like would only add noise to what a test counts.
        self.ip("link", "set", "switch", "up")

    def add_tap(self, port: str) -> None:
        """A port for an emulated machine: a tap device of that name."""
        self.ip("tuntap", "add", "dev", port, "mode", "tap")
        self.ip("link", "set", port, "master", "switch", "up")

    def connect(self, other: Namespace, port: str, mac: str | None = None) -> None:
        """A cable from the port to eth0 of another namespace."""
        self.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", other.name)
        if mac:
            other.ip("link", "set", "eth0", "address", mac)
        self.ip("link", "set", port, "master", "switch", "up")
        other.ip("link", "set", "eth0", "up")

    def unplug(self, port: str) -> None:
        """Pull the cable out of a port."""
        self.ip("link", "set", port, "down")

    def plug(self, port: str) -> None:
        """Put it back."""
        self.ip("link", "set", port, "up")


def namespaces_of(prefix: str) -> list[str]:
    """The names of a lab's namespaces that exist, whoever made them."""
    if not NETNS_FOLDER.is_dir():
        return []
    return sorted(path.name for path in NETNS_FOLDER.iterdir() if path.name.startswith(f"{prefix}-"))


def processes_in(namespace: str) -> list[int]:
    """The ids of the processes in a namespace."""
    return [int(pid) for pid in run(["ip", "netns", "pids", namespace]).split()]


def wait_readable(file: int, timeout: float, what: str) -> None:
    """Wait until a descriptor has something to read."""
    if not select.select([file], [], [], timeout)[0]:
        raise LabError(f"{what}: nothing within {timeout:.0f} s")
