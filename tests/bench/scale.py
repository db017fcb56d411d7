"""Scale: what each of several Pis asks of one NAS, and what that comes to for a rack of them.

One, two and four emulated Pis are switched on at the same time. Their roots come from one NAS, their images from
another, whose disk's flushes are counted. What many Pis need is computed from the counts of the four.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean

from tests.lab.container import without_network
from tests.lab.kernel_nas import KernelNas
from tests.lab.lab import Lab
from tests.lab.pi import Pi
from tests.lab.root import Progress
from tests.lab.slow_disk import SlowDisk
from tests.lab.traffic import traffic

from .boot import APPEND, BUILT_IN, FOLDER, SIZE, Figures, as_on_a_pi
from .report import Area, Row

COUNTS = (1, 2, 4)
RACKS = (10, 100, 1000)
FLUSH_MILLISECONDS = 6.0
SETTLED_SECONDS, REST_SECONDS = 90.0, 120.0
HOUR = 3600 / REST_SECONDS
BOOT_SECONDS = 1800.0
"""Four at once have half a processor each."""

GIGABIT = 117_500_000
"""Bytes of NFS that a second of Gigabit Ethernet carries: TCP over frames of 1500 bytes."""

CONFIG = f"[Server]\nAddress={{address}}\nVersion=4.2\n[Boot]\nExport=\n[Image docker]\nFile={{name}}\nSize={SIZE}\n"
BOOT_REQUESTS, BOOT_BYTES = "boot to Docker: requests for the root", "boot to Docker: bytes read from the root"
SHARE_REQUESTS, SHARE_FLUSHES = "boot to Docker: requests for the share", "boot to Docker: flushes of the share's disk"
WORK_REQUESTS, WORK_FLUSHES = "append and fsync: requests for the share", "append and fsync: flushes"
REST_ROOT, REST_SHARE = "at rest: requests an hour for the root", "at rest: requests an hour for the share"
REST_FLUSHES = "at rest: flushes an hour"
APPENDS = 100


def measure(deb: Path, say: Progress) -> Iterator[Area]:
    """Each number of Pis, from switching on to a while of rest."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(deb=deb, progress=say, built_in=BUILT_IN))
        nas = lab.kernel_nas()
        disk = nas.slow_disk = SlowDisk(lab.folder)
        nas.start()
        disk.take(FLUSH_MILLISECONDS)
        pis = [with_an_image(lab, nas, f"pi{number}") for number in range(1, max(COUNTS) + 1)]
        say("first boots")
        at_once(pis, first_boot)
        found = {count: each_of(pis[:count], disk, say) for count in COUNTS}
    names = {count: f"{count} Pi{'s' if count > 1 else ''}" for count in COUNTS}
    rows = [Row(f"each: {key}", {names[count]: found[count][key] for count in COUNTS}) for key in found[COUNTS[0]]]
    yield Area("scale", tuple(names.values()), rows, "Each Pi's part of what all of them do at the same time.")
    yield for_racks(found[COUNTS[-1]])


def with_an_image(lab: Lab, nas: KernelNas, name: str) -> Pi:
    """A Pi with an image of its own on the NAS."""
    pi = lab.pi(name)
    pi.write("/etc/rpinfs/rpinfs.conf", CONFIG.format(address=nas.address, name=name))
    without_network(pi)
    as_on_a_pi(pi)
    return pi


def at_once(pis: Sequence[Pi], do: Callable[[Pi], object]) -> None:
    """Do it with all of them at the same time."""
    with ThreadPoolExecutor(len(pis)) as pool:
        list(pool.map(do, pis))


def first_boot(pi: Pi) -> None:
    """Until Docker has made its folders."""
    on(pi)
    pi.power_off(BOOT_SECONDS)


def on(pi: Pi) -> None:
    pi.power_on()
    pi.wait_started("docker.service", BOOT_SECONDS)


def each_of(pis: Sequence[Pi], disk: SlowDisk, say: Progress) -> Figures:
    """What each does, on average: a boot, some work, some time at rest."""
    say(f"{len(pis)} at once: boot")
    flushes = disk.flushes
    at_once(pis, on)
    roots, shares = [traffic(pi, "/") for pi in pis], [traffic(pi) for pi in pis]
    figures = {
        BOOT_REQUESTS: fmean(one.requests.total() for one in roots),
        BOOT_BYTES: fmean(one.read for one in roots),
        SHARE_REQUESTS: fmean(one.requests.total() for one in shares),
        SHARE_FLUSHES: (disk.flushes - flushes) / len(pis),
    }
    say(f"{len(pis)} at once: work")
    at_once(pis, lambda pi: pi.run(f"rm -rf {FOLDER}; mkdir {FOLDER}; sync", BOOT_SECONDS))
    before, flushes = requests(pis), disk.flushes
    at_once(pis, lambda pi: pi.run(f"python3 - <<'end'\n{APPEND}end\n", BOOT_SECONDS))
    figures[WORK_REQUESTS] = (requests(pis) - before) / len(pis) / APPENDS
    figures[WORK_FLUSHES] = (disk.flushes - flushes) / len(pis) / APPENDS
    say(f"{len(pis)} at once: at rest")
    threading.Event().wait(SETTLED_SECONDS)
    before, root_before, flushes = requests(pis), requests(pis, "/"), disk.flushes
    threading.Event().wait(REST_SECONDS)
    figures[REST_FLUSHES] = (disk.flushes - flushes) * HOUR / len(pis)
    figures[REST_SHARE] = (requests(pis) - before) * HOUR / len(pis)
    figures[REST_ROOT] = (requests(pis, "/") - root_before) * HOUR / len(pis)
    at_once(pis, lambda pi: pi.power_off(BOOT_SECONDS))
    return figures


def requests(pis: Sequence[Pi], where: str = "/nfs/docker") -> float:
    """Of all of them so far."""
    return sum(traffic(pi, where).requests.total() for pi in pis)


def flushing(count: float) -> float:
    """Seconds that a disk takes for so many flushes."""
    return count * FLUSH_MILLISECONDS / 1000


def for_racks(each: Mapping[str, float]) -> Area:
    """What so many Pis need of a NAS: all of them booting at once, and all at rest."""
    flushes = each[REST_FLUSHES] / 3600
    needs = {
        "boot: requests for the roots": each[BOOT_REQUESTS],
        "boot: bytes read from the roots": each[BOOT_BYTES],
        "boot: seconds of Gigabit Ethernet for them": each[BOOT_BYTES] / GIGABIT,
        f"boot: seconds of a disk with {FLUSH_MILLISECONDS:g} ms a flush": flushing(each[SHARE_FLUSHES]),
        "at rest: requests a second": (each[REST_ROOT] + each[REST_SHARE]) / 3600,
        "at rest: flushes a second": flushes,
        "at rest: part of such a disk's time, %": flushes * FLUSH_MILLISECONDS / 10,
    }
    names = {count: f"{count:,} Pis" for count in RACKS}
    rows = [Row(title, {names[count]: count * need for count in RACKS}) for title, need in needs.items()]
    return Area("scale, computed", tuple(names.values()), rows, limit(each))


def limit(each: Mapping[str, float]) -> str:
    """Which part is the first to be too little."""
    parts = {
        "Gigabit Ethernet, for the roots": each[BOOT_BYTES] / GIGABIT,
        "a hard disk's flushes": flushing(each[SHARE_FLUSHES]),
    }
    (less, first), (most, last) = sorted((seconds, name) for name, seconds in parts.items())
    pis = 3600 / flushing(each[REST_FLUSHES]) if each[REST_FLUSHES] else 0
    at_rest = f"A hard disk has enough flushes for {pis:,.0f} Pis at rest" if pis else "At rest nothing is flushed"
    return f"The limit of a boot is {last}: {most:.2f} s for each Pi, where {first} take {less:.2f} s. {at_rest}."
