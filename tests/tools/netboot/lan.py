"""A LAN of three hosts in network namespaces: the servers of a Debian root on one, a board on another.

The servers are Debian's, in a root of their own that mmdebstrap makes once: nothing of them is installed on this
machine, where a DHCP server would speak to everybody.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Container, Iterator
from pathlib import Path

from rpinfs.netboot.packet import Reply
from tests.lab.machine import native_machine
from tests.lab.network import Namespace
from tests.lab.process import Daemon
from tests.lab.root import bootstrap, cache_folder, cached
from tests.support import PYTHON, TOP

RELEASE = "bookworm"
PACKAGES = ("systemd-sysv", "udev", "dnsmasq-base", "isc-dhcp-server", "kea-dhcp4-server", "tftpd-hpa")
SERVER, SUBNET, POOL = "192.168.1.10", "192.168.1.0/24", "192.168.1.100-192.168.1.150"
OTHER = "192.168.1.11"
READY_SECONDS = 30.0

ASK = """\
import json, sys
from rpinfs.netboot import wire
packets = [bytes.fromhex(packet) for packet in json.load(sys.stdin)]
answers = wire.ask("eth0", packets, {seconds}).answers
for packet in packets:
    print(json.dumps([
        [reply.sender, reply.kind, reply.yours, reply.next_server, reply.boot_file,
         {{code: value.hex() for code, value in reply.options.items()}}] for reply in answers[packet[4:8]]
    ]))
"""


def servers_root() -> Path:
    """The Debian root with all servers; a minute of work where it is not in the cache."""
    architecture = native_machine().architecture
    path = cache_folder().parent / "netboot" / f"{RELEASE}-{architecture}-{len(PACKAGES)}"
    return cached(path, lambda folder: bootstrap(folder, RELEASE, architecture, list(PACKAGES)))


class Lan:
    """Three hosts, `server`, `other` and `board`, each with its eth0; their names begin with `name`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.server, self.other, self.board = (Namespace(f"{name}-{one}") for one in ("server", "other", "board"))
        # The server is the switch as well.
        self.server.ip("link", "add", "eth0", "type", "bridge")
        for host, port in ((self.other, "port1"), (self.board, "port2")):
            self.server.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            self.server.ip("link", "set", port, "master", "eth0", "up")
        for host, address in ((self.server, SERVER), (self.other, OTHER), (self.board, "")):
            if address:
                host.ip("address", "add", f"{address}/24", "dev", "eth0")
            host.ip("link", "set", "eth0", "up")
        self.daemons: list[Daemon] = []

    def start(self, name: str, *argv: str, ready: str, host: Namespace | None = None) -> Daemon:
        """Start a server of the root, on the server's host unless another is named; returns when it serves."""
        command = (host or self.server).inside("chroot", self.root, *argv)
        daemon = Daemon(name, command, self.folder / f"{name}-{len(self.daemons)}.log")
        self.daemons.append(daemon)
        daemon.wait_for(ready, READY_SECONDS)
        return daemon

    def run_beside(self, *argv: str, ready: str) -> Daemon:
        """Start a program of the tree on the server's host; returns when it is ready."""
        daemon = Daemon("beside", ["env", "-C", TOP, *self.server.inside(*argv)], self.folder / "beside.log")
        self.daemons.append(daemon)
        daemon.wait_for(ready, READY_SECONDS)
        return daemon

    def put(self, inside: str, text: str) -> str:
        """Write a file of the root; returns its path within."""
        path = self.root / inside.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        return inside

    def dnsmasq(self, text: str) -> Daemon:
        """dnsmasq with this configuration."""
        path = self.put("/etc/dnsmasq-test.conf", f"{text}\nno-ping\n")
        argv = ("dnsmasq", "--keep-in-foreground", "--log-facility=-", "--pid-file=", f"--conf-file={path}")
        return self.start("dnsmasq", *argv, "--dhcp-leasefile=/tmp/leases", ready="started")

    def isc(self, text: str, host: Namespace | None = None) -> Daemon:
        """ISC dhcpd with this configuration."""
        path = self.put("/etc/dhcp/dhcpd.conf", f"ping-check false;\n{text}")
        self.put("/tmp/dhcpd.leases", "")
        argv = ("dhcpd", "-f", "-d", "-cf", path, "-lf", "/tmp/dhcpd.leases", "--no-pid", "eth0")
        return self.start("dhcpd", *argv, ready="Server starting service", host=host)

    def kea(self, text: str) -> Daemon:
        """Kea with this configuration."""
        path = self.put("/etc/kea/kea-dhcp4.conf", text)
        self.put("/var/lib/kea/kea-leases4.csv", "")
        argv = ("env", "KEA_LOCKFILE_DIR=none", "KEA_PIDFILE_DIR=/tmp", "kea-dhcp4", "-c", path)
        return self.start("kea", *argv, ready="DHCP4_STARTED")

    def tftpd(self, text: str) -> Daemon:
        """tftpd-hpa with this /etc/default/tftpd-hpa, started as its init script starts it."""
        path = self.put("/etc/default/tftpd-hpa", text)
        script = (
            f'. {path}; echo started; exec in.tftpd --foreground --user "$TFTP_USERNAME" --address "$TFTP_ADDRESS" '
        )
        return self.start("tftpd", "sh", "-c", f'{script} $TFTP_OPTIONS "$TFTP_DIRECTORY"', ready="started")

    def ask(self, *packets: bytes, seconds: float = 1.5) -> list[list[Reply]]:
        """Broadcast each request from the board; all answers to each."""
        done = self.run_on_board(
            *PYTHON, "-c", ASK.format(seconds=seconds), input=json.dumps([packet.hex() for packet in packets])
        )
        return [[_reply(*fields) for fields in json.loads(line)] for line in done.stdout.splitlines()]

    def rpinfs(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run rpinfs as root of the board."""
        return self.run_on_board(*PYTHON, "-m", "rpinfs", *words, ok=range(256))

    def run_on_board(self, *argv: str, input: str = "", ok: Container[int] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run a program on the board's host."""
        done = subprocess.run(
            [str(word) for word in self.board.inside(*argv)],
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=TOP,
            env={"PATH": os.environ["PATH"]},
        )
        assert done.returncode in ok, done.stdout + done.stderr
        return done

    def switch_spanning_tree_on(self, delay: int) -> None:
        """Have the switch say that a port of it waits so many seconds, twice, before it forwards."""
        # The ports come up with the shortest delay that there is; a new one counts for those that come up later.
        self.server.ip("link", "set", "eth0", "type", "bridge", "forward_delay", "200", "hello_time", "100")
        self.server.ip("link", "set", "eth0", "type", "bridge", "stp_state", "1")
        deadline = time.monotonic() + READY_SECONDS
        while "state forwarding" not in self.server.ip("-details", "link", "show", "port2"):
            assert time.monotonic() < deadline, "the switch's port does not come up"
            select.select([], [], [], 0.1)
        self.server.ip("link", "set", "eth0", "type", "bridge", "forward_delay", str(delay * 100))

    def as_it_was(self) -> None:
        """The switch as it comes from lan(): no spanning tree, frames of 1500 bytes."""
        self.server.ip("link", "set", "eth0", "type", "bridge", "stp_state", "0")
        self.board.ip("link", "set", "eth0", "mtu", "1500")
        for port in ("port1", "port2"):
            self.server.ip("link", "set", port, "mtu", "1500")

    def narrow(self, port: str) -> None:
        """Have a port of the switch take frames of 1400 bytes at the most, and drop what is longer without a word."""
        self.server.ip("link", "set", port, "mtu", "1400")
        # The switch itself would take the least of its ports'.
        self.server.ip("link", "set", "eth0", "mtu", "1500")
        # Or packets of TCP go through whole, to be cut into frames by a card that there is none.
        for host in (self.server, self.other, self.board):
            host.ip("link", "set", "eth0", "gso_max_segs", "1")

    def stop(self) -> None:
        """End all servers, the last one first."""
        while self.daemons:
            self.daemons.pop().terminate()

    def remove(self) -> None:
        """End everything."""
        self.stop()
        for host in (self.board, self.other, self.server):
            host.remove()


def _reply(sender: str, kind: int, yours: str, next_server: str, file: str, options: dict[str, str]) -> Reply:
    return Reply(
        sender,
        b"",
        kind,
        yours,
        next_server,
        file,
        {int(code): bytes.fromhex(value) for code, value in options.items()},
    )


@contextlib.contextmanager
def lan(folder: Path) -> Iterator[Lan]:
    """A LAN whose server has a root that may be written to."""
    for name in ("upper", "work", "root"):
        (folder / name).mkdir()
    layers = f"lowerdir={servers_root()},upperdir={folder}/upper,workdir={folder}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", folder / "root"], check=True)
    try:
        made = Lan(f"rpinfs-netboot-{os.getpid()}", folder)
        try:
            yield made
        finally:
            made.remove()
    finally:
        subprocess.run(["umount", folder / "root"], check=True)
