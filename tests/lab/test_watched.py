"""Watched from outside by what people have, all of it from Debian: Prometheus with its node exporter, and Nagios.

An emulated Pi goes through what the alerts are for, with the rules and their times as they are shipped. Its share comes
from a NAS of its own, which is gone alone, and together with that of the root. Nagios runs the check by the lab's
channel, where others have ssh.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from rpinfs.lease import lease
from rpinfs.lease.owner import Owner
from tests.support import Tell
from tests.watching import Prometheus, nagios_config, nagios_results

from .container import without_network
from .lab import Lab
from .nas import GaneshaNas
from .pi import Pi
from .process import Daemon, LabError, run
from .prometheus import give_exporter, watched_by_prometheus

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.long]

MIB = 1 << 20
DISK = 1500 * MIB
OUTAGE = 180.0
SECONDS = 1800.0
NAGIOS_EVERY = 60
CHECK = "rpinfs check --format nagios --timeout 100 share.mounted share.answers share.space image.owner gate"
CHECK_SECONDS = 110.0
CONFIG = """\
[Server]
Address={nas}
[Boot]
Export=
[Image docker]
File=docker.img
Size=512M
[Notify]
Command=/usr/local/bin/heard
"""
OTHER = Owner("f" * 16, "other")
# Started by Nagios: it has the check run in the Pi.
ASK = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as pi:
    pi.connect(sys.argv[1])
    pi.sendall(" ".join(sys.argv[2:]).encode())
    pi.shutdown(socket.SHUT_WR)
    status, _, text = pi.makefile().read().partition("\\n")
print(text, end="")
sys.exit(int(status))
"""
SAYS_WELL = "until grep -q '^watched: ok: ' /run/heard; do sleep 1; done"


@contextmanager
def checked_by_nagios(pi: Pi, nagios: Path, folder: Path) -> Iterator[Path]:
    """A Nagios at work; its configuration."""

    class Asked(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                done = pi.try_run(self.rfile.read().decode(), timeout=CHECK_SECONDS)
                answer = f"{done.status}\n{done.stdout}"
            except LabError as error:
                answer = f"3\nRPINFS UNKNOWN - {str(error).splitlines()[0]}\n"
            with suppress(OSError):
                self.wfile.write(answer.encode())

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    folder.mkdir()
    (folder / "ask.py").write_text(ASK)
    command = f"{sys.executable} -I {folder}/ask.py {folder}/socket {CHECK}"
    config = nagios_config(folder, {"storage": command}, NAGIOS_EVERY, 120)
    with Server(str(folder / "socket"), Asked) as server, ExitStack() as undo:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        undo.callback(server.shutdown)
        undo.callback(Daemon("Nagios", [nagios, config], folder / "said").kill)
        yield config


@dataclass
class Watched:
    """A Pi that is watched."""

    lab: Lab
    nas: GaneshaNas
    pi: Pi
    held: lease.Lease
    prometheus: Prometheus
    nagios: Path
    tell: Tell

    def wait(self, *alerts: str, found: str = "") -> str:
        """Wait until these alerts fire, and Nagios has found something that is told so; after how many seconds each.

        Without any: until none fires, and all is well for Nagios.
        """
        begun, after = time.monotonic(), dict[str, float]()
        while len(after) < 2:
            fires, (state, *lines) = self.prometheus.firing(), nagios_results(self.nagios).get("storage", [""])
            assert time.monotonic() < begun + SECONDS, (after, fires, state, lines)
            is_so = {
                "Prometheus": fires >= set(alerts) if alerts else not fires,
                "Nagios": state not in ("", "OK") and found in str(lines) if alerts else state == "OK",
            }
            for watcher in [name for name, yes in is_so.items() if yes]:
                after.setdefault(watcher, time.monotonic() - begun)
            time.sleep(1)
        return ", ".join(f"{watcher} {seconds:.0f} s" for watcher, seconds in sorted(after.items()))

    def outage(self, nases: Collection[GaneshaNas], what: str, found: str) -> None:
        """Have NASes gone for three minutes: the share is told to be silent, and the Pi is there all the time."""
        begun = time.monotonic()
        for nas in nases:
            nas.stop_nfs()
        fired = self.wait("RpinfsNasSilent", found=found)
        time.sleep(max(0.0, begun + OUTAGE - time.monotonic()))
        fires = self.prometheus.firing()
        (silent,) = self.prometheus.ask("query", query="rpinfs_share_silent_seconds")["result"]
        assert float(silent["value"][1]) > OUTAGE / 2, "and it goes on to count"
        assert fires == {"RpinfsNasSilent"}, "and its agent is heard, and its exporter answers"
        for nas in nases:
            nas.start_nfs()
        lasted = time.monotonic() - begun
        self.tell(f"{what} for {lasted:.0f} s: fired after {fired}; went after {self.wait()}")


@pytest.fixture
def watched(lab: Lab, watchers: Path, tmp_path: Path, tell: Tell) -> Iterator[Watched]:
    """A Pi that has booted, and whose image another one holds."""
    nas = lab.second_nas(disk=DISK)
    nas.start_nfs()
    pi = lab.pi("watched")
    without_network(pi)
    pi.write("/etc/rpinfs/rpinfs.conf", CONFIG.format(nas=nas.address))
    pi.write("/usr/local/bin/heard", "#!/bin/sh\nexec cat >>/run/heard\n", 0o755)
    give_exporter(pi, watchers)
    with ExitStack() as undo:
        held = lease.acquire(str(nas.image_path("docker.img")), OTHER)
        undo.callback(held.close)
        pi.power_on()
        pi.wait_booted(SECONDS)
        prometheus = undo.enter_context(watched_by_prometheus(lab, pi, watchers, tmp_path))
        nagios = undo.enter_context(checked_by_nagios(pi, watchers / "usr/sbin/nagios4", tmp_path / "nagios"))
        yield Watched(lab, nas, pi, held, prometheus, nagios, tell)


def test_alerts_come_and_go(watched: Watched, tell: Tell) -> None:
    pi, nas = watched.pi, watched.nas
    fired = watched.wait("RpinfsLeaseLost", "RpinfsGateClosed", found=OTHER.hostname)
    watched.held.close()
    lease.release(str(nas.image_path("docker.img")), OTHER)
    tell(f"another Pi holds the image: fired {fired} after the boot; went after {watched.wait()}")
    pi.wait_started("docker.service", SECONDS)
    seen_on_the_page(pi)

    # The root is on the other one, and so is what Nagios would start.
    pi.run("rm /run/heard")
    watched.outage([nas, watched.lab.nas], "NAS of root and share gone", found="no answer")
    pi.run(SAYS_WELL, timeout=SECONDS)
    pi.run("rpinfs check share image gate mount docker.running")
    told = heard(pi)
    assert "nobody heard the news" in told, "its program is on that root"
    tell(f"news meanwhile: {told}")

    filler, room = nas.share / "somebody else's films", os.statvfs(nas.share)
    run(["fallocate", "-l", str(room.f_bavail * room.f_frsize * 95 // 100), filler])
    fired = watched.wait("RpinfsShareFull", found="free")
    filler.unlink()
    tell(f"share full: fired after {fired}; went after {watched.wait()}")

    watched.outage([nas], "NAS of the share gone", found="no answer")
    # The pulse has renewed the lease since.
    assert watched.prometheus.empty() == []


def seen_on_the_page(pi: Pi) -> None:
    """The Pi reads over NFS what each has written beside its image."""
    document = json.loads(pi.run("until rpinfs fleet --json >/run/fleet; do sleep 5; done; cat /run/fleet"))
    (one,) = document["pis"]
    assert (one["name"], one["status"]) == ("watched", "ok"), document


def heard(pi: Pi) -> str:
    """What the program of [Notify] has heard, and of what the agent says that nobody has."""
    said = pi.run("cat /run/heard 2>/dev/null; journalctl --unit rpinfs-agent --output cat --grep 'nobody heard' || :")
    return "; ".join(line for line in said.splitlines() if line and not line.startswith("{"))
