"""What the pictures show: an emulated Pi that is well, and whose share's NAS then serves nothing for three minutes.

Beside its image lie those of other boards, which nobody emulates: their leases are taken and renewed here, on the NAS,
by the code that a Pi does it with. The one in the attic is not heard of again.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from rpinfs import __version__
from rpinfs.boot.settings import GIB
from rpinfs.boot.values import replace
from rpinfs.lease import lease
from rpinfs.lease.owner import Owner
from rpinfs.lease.report import Report, record_of
from tests.lab.container import IMAGE, container_tar, without_network
from tests.lab.lab import Lab
from tests.lab.nas import GaneshaNas
from tests.lab.pi import Pi
from tests.lab.process import LabError
from tests.lab.prometheus import give_exporter, watched_by_prometheus
from tests.lab.root import Progress
from tests.watching import Panel, panels

DISK = 8 * GIB
WELL_SECONDS = 240.0
OUTAGE_SECONDS = 180.0
FAULTY_SECONDS = 125.0
"""Into the outage, when the status is taken."""
AFTER_SECONDS = 240.0
"""Beyond: time for the dashboard to show that all is well again."""
STEP_SECONDS = 15.0
SETTLED_SECONDS = 600.0
CONFIG = """\
[Server]
Address={nas}
[Boot]
Export=
[Image docker]
Size=4G
"""
WRITES = "while sleep 1; do dd if=/dev/urandom bs=64k count=1 >>/log 2>/dev/null; sync; done"
# On a terminal, as `rpinfs status` asks for its colours.
ON_A_TERMINAL = "script --quiet --return --command 'rpinfs status' /dev/null </dev/null"
SILENT = "attic"
WELL = Report("", __version__, "", "ok", "docker: mounted", 10 * GIB)
OTHERS = {
    SILENT: replace(WELL, serial="100000003b00a1c7", board="Raspberry Pi 3 Model B Plus Rev 1.3", free=6 * GIB),
    "kitchen": replace(WELL, serial="10000000d4f00c19", board="Raspberry Pi 4 Model B Rev 1.4", free=7 * GIB),
    "workshop": replace(WELL, serial="10000000e28b5d03", board="Raspberry Pi 5 Model B Rev 1.0", free=GIB // 4),
}

Courses = list[tuple[Panel, dict[str, list[tuple[float, float]]]]]
"""Panels with their lines: times in seconds since 1970, and values."""


@dataclass(frozen=True)
class Seen:
    """What is to be drawn.

    Attributes:
        healthy, faulty: what the terminal got, with its colours.
        page: of all Pis, as HTML.
        silent_at: when the NAS ceased to serve, in seconds since 1970.
    """

    healthy: str
    faulty: str
    page: str
    courses: Courses
    silent_at: float


class Other:
    """A board that holds an image, and says how it is."""

    def __init__(self, nas: GaneshaNas, name: str, said: Report) -> None:
        self._image = str(nas.image_path(f"docker-{said.serial}.img"))
        self._owner = Owner(said.serial, name)
        self._said = record_of(said)
        self._held = lease.acquire(self._image, self._owner)
        self.renew()

    def renew(self) -> None:
        """Show that it is there."""
        lease.still_ours(self._image, self._owner, self._held, record=self._said)

    def close(self) -> None:
        """Let go of the image."""
        self._held.close()


def play(deb: Path, watchers: Path, say: Progress) -> Seen:
    """A quarter of an hour in the lab. Raises LabError."""
    with ExitStack() as undo:
        lab = undo.enter_context(Lab(deb=deb, progress=say))
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        nas = lab.second_nas(disk=DISK)
        nas.start_nfs()
        others = {name: undo.enter_context(closing(Other(nas, name, said))) for name, said in OTHERS.items()}
        pi = lab.pi("pi1")
        without_network(pi)
        pi.write("/etc/rpinfs/rpinfs.conf", CONFIG.format(nas=nas.address))
        give_exporter(pi, watchers)
        boot_writing(pi, say)
        begun = time.time()
        prometheus = undo.enter_context(watched_by_prometheus(lab, pi, watchers, folder))
        healthy = status(pi, 0)
        say("it is well")
        wait_until(begun + WELL_SECONDS)
        silent_at = time.time()
        faulty = outage(pi, nas)
        status(pi, 0)
        say("it was not, and is well again")
        wait_until(silent_at + OUTAGE_SECONDS + AFTER_SECONDS)
        end = time.time()
        courses = [(panel, prometheus.courses(panel, begun, end, STEP_SECONDS)) for panel in panels()]
        for name in OTHERS.keys() - {SILENT}:
            others[name].renew()
        page = pi.run("rpinfs fleet --html /run/fleet.html >&2 || :; cat /run/fleet.html")
        return Seen(healthy, faulty, page, courses, silent_at)


def boot_writing(pi: Pi, say: Progress) -> None:
    """Boot, and have a container write and sync from then on."""
    say(f"{pi.name}: power on")
    pi.power_on()
    pi.wait_started("docker.service")
    pi.wait_booted()
    pi.path("/root/container.tar").write_bytes(container_tar(pi.root))
    pi.run(f"docker import /root/container.tar {IMAGE}")
    pi.run(f"docker run --detach {IMAGE} sh -c '{WRITES}'")


def status(pi: Pi, wanted: int) -> str:
    """What `rpinfs status` shows on a terminal, once it ends with a status: right after its boot, a Pi can be slow."""
    end = time.monotonic() + SETTLED_SECONDS
    while (shown := pi.try_run(ON_A_TERMINAL)).status != wanted and time.monotonic() < end:
        time.sleep(5)
    if shown.status == wanted:
        return shown.stdout.replace("\r\n", "\n")
    raise LabError(f"{pi.name}: expected the exit status {wanted}, found {shown}")


def outage(pi: Pi, nas: GaneshaNas) -> str:
    """Three minutes without the NFS server; the status in them."""
    begun = time.time()
    nas.stop_nfs()
    wait_until(begun + FAULTY_SECONDS)
    shown = status(pi, 2)
    wait_until(begun + OUTAGE_SECONDS)
    nas.start_nfs()
    return shown


def wait_until(when: float) -> None:
    """Let things go their way until then."""
    time.sleep(max(0.0, when - time.time()))
