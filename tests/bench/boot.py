"""Boot: what rpinfs costs and saves, beside the fstab lines that people write by hand.

Two emulated Pis, one with rpinfs and one without, take turns. Counts come first, since they repeat: requests to the NAS
(/proc/self/mountstats), bytes, pages in memory. The share is on a NAS of its own: of one that has the root as well, the
kernel counts both together. Times are told as a ratio alone, and here, where emulation makes the processor the limit,
they say little.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.lab.container import without_network
from tests.lab.image import make_by_hand, space
from tests.lab.lab import Lab
from tests.lab.nas import GaneshaNas
from tests.lab.pi import Pi
from tests.lab.root import Progress
from tests.lab.traffic import traffic

from .report import Area, Row

MIB = 1 << 20
SIZE = 2 << 30
READ_BYTES = 64 * MIB
BOOTS = 5
"""Of each; the median counts: how often the kernel asks for attributes again (GETATTR) depends on what takes long."""

BUILT_IN = ("loop", "ext4", "mq_deadline")
"""Of what a boot with Docker needs, what Raspberry Pi's kernels have built in: bcm2711_defconfig, Kconfig.iosched."""

FSTAB = """\
{server}:/docker /nfs/docker nfs defaults,vers=4.1,nofail 0 0
/nfs/docker/loop /var/lib/docker ext4 loop,nofail,x-systemd.requires=/nfs/docker,x-systemd.before=docker.service 0 2
"""
FOLDER = "/var/lib/docker/bench"
APPEND = f"""\
import os
file = os.open("{FOLDER}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for _ in range(100):
    os.write(file, bytes(4096))
    os.fsync(file)
"""
CREATE = f"""\
import os
folder = os.open("{FOLDER}", os.O_RDONLY)
for number in range(100):
    file = os.open(f"{FOLDER}/{{number}}", os.O_WRONLY | os.O_CREAT)
    os.write(file, bytes(4096))
    os.fsync(file)
    os.close(file)
    os.fsync(folder)
"""

Figures = dict[str, float]


def as_on_a_pi(pi: Pi) -> None:
    """Make it more like Raspberry Pi OS, which has its journal in memory, and kernels without huge pages.

    On the root, a journal makes requests that differ by 200 a boot. The kernels: raspberrypi/linux, bcm2711_defconfig.
    """
    pi.cmdline = f"{pi.cmdline} transparent_hugepage=never"
    pi.write("/etc/systemd/system/bare.service", "[Service]\nType=oneshot\nExecStart=true\n")
    pi.write("/etc/systemd/journald.conf.d/50-bench.conf", "[Journal]\nStorage=volatile\n")


def ordinary_boot(pi: Pi) -> Figures:
    """One ordinary boot of a Pi whose storage is there, and some work on it."""
    figures: Figures = {}
    pi.power_on()
    pi.wait_started("docker.service")
    figures["boot to Docker, seconds"] = pi.seconds_since_power_on()
    pi.run("findmnt --mountpoint /var/lib/docker")
    root, share = traffic(pi, "/"), traffic(pi)
    figures["boot to Docker: requests for the root"] = root.requests.total()
    figures["boot to Docker: bytes read from the root"] = root.read
    figures["boot to Docker: requests for the share"] = share.requests.total()
    figures["boot to Docker: bytes written to the share"] = share.written
    pi.run(f"rm -rf {FOLDER}; mkdir {FOLDER}; sync")
    for name, program in (("100 x append and fsync", APPEND), ("100 x create and fsync", CREATE)):
        before = traffic(pi)
        pi.run(f"python3 - <<'end'\n{program}end\n")
        spent = traffic(pi).since(before)
        figures[f"{name}: requests for the share"] = spent.requests.total()
        figures[f"{name}: bytes written"] = spent.written
    pi.run(f"head -c {READ_BYTES} /dev/urandom >{FOLDER}/data; sync; echo 3 >/proc/sys/vm/drop_caches")
    cached = pages(pi)
    pi.run(f"cat {FOLDER}/data >/dev/null")
    figures[f"reading {READ_BYTES // MIB} MiB: bytes of memory for pages"] = pages(pi) - cached
    figures |= bare_python(pi) | bare_unit(pi)
    pi.power_off()
    return figures


BARE_PYTHON = "chroot /proc/1/root /usr/bin/python3 -ISBc pass"


def bare_python(pi: Pi) -> Figures:
    """What a start of the interpreter asks of the root, when nothing of that is in memory, and the next time."""
    pi.run("echo 3 >/proc/sys/vm/drop_caches", from_memory=True)
    found = []
    for _ in range(2):
        before = traffic(pi, "/")
        pi.run(BARE_PYTHON, from_memory=True)
        found.append(traffic(pi, "/").since(before).requests.total())
    return {
        f"a bare Python, {when}: requests for the root": count
        for when, count in zip(("cold", "again"), found, strict=True)
    }


def bare_unit(pi: Pi) -> Figures:
    """What a service asks of the root that does nothing, when all that it needs is in memory."""
    pi.run("systemctl daemon-reload")
    costs = []
    for command in ("start", "start", "is-active"):
        before = traffic(pi, "/")
        pi.run(f"chroot /proc/1/root systemctl {command} bare.service; true", from_memory=True)
        costs.append(traffic(pi, "/").since(before).requests.total())
    _, start, asking = costs
    return {"a service that does nothing: requests for the root": start - asking}


def pages(pi: Pi) -> int:
    """Bytes in the page cache."""
    return int(pi.run("awk '$1 == \"Cached:\" {print $2}' /proc/meminfo")) * 1024


def by_hand(lab: Lab, nas: GaneshaNas, size: int) -> Pi:
    """A Pi with the lines in its fstab, and its image made as people make it."""
    pi = lab.pi("byhand")
    make_by_hand(nas.image_path("loop"), size)
    pi.write("/etc/fstab", FSTAB.format(server=nas.address))
    for where in ("/nfs/docker", "/var/lib/docker"):
        pi.path(where).mkdir(parents=True, exist_ok=True)
    return pi


def with_rpinfs(lab: Lab, nas: GaneshaNas, size: int = SIZE) -> Pi:
    """A Pi with the package, and nothing configured but the same size and that NAS."""
    pi = lab.pi("rpinfs")
    config = f"[Server]\nAddress={nas.address}\n[Boot]\nExport=\n[Image docker]\nFile=loop\nSize={size}\n"
    pi.write("/etc/rpinfs/rpinfs.conf", config)
    return pi


def first_boot(nas: GaneshaNas, pi: Pi) -> Figures:
    """Until Docker has made its folders, and all is on the disk of the NAS. By hand, the image is there already."""
    without_network(pi)
    as_on_a_pi(pi)
    pi.power_on()
    pi.wait_started("docker.service")
    pi.run("sync")
    sent = traffic(pi).written
    pi.power_off()
    return {
        "first boot: bytes written to the share": sent,
        "image after its first boot: bytes on the NAS": space(nas.image_path("loop")).allocated,
    }


def both(stack: ExitStack, deb: Path, say: Progress, size: int = SIZE) -> list[tuple[GaneshaNas, Pi]]:
    """The Pi with its lines by hand, and the one with rpinfs; off, and each with a NAS of its own that serves."""
    labs = [stack.enter_context(Lab(deb=which, progress=say, built_in=BUILT_IN)) for which in (None, deb)]
    nases = [lab.second_nas() for lab in labs]
    for nas in nases:
        nas.start_nfs()
    return [(nases[0], by_hand(labs[0], nases[0], size)), (nases[1], with_rpinfs(labs[1], nases[1], size))]


def measure(deb: Path, say: Progress) -> Iterator[Area]:
    """A first boot of each and some ordinary ones in turn, with some work after each."""
    with ExitStack() as stack:
        pairs = both(stack, deb, say)
        figures = [first_boot(nas, pi) for nas, pi in pairs]
        boots: list[list[Figures]] = [[] for _ in pairs]
        for _ in range(BOOTS):
            for (_, pi), found in zip(pairs, boots, strict=True):
                found.append(ordinary_boot(pi))
                say(f"{pi.name}: {json.dumps(found[-1])}")
        for first, its in zip(figures, boots, strict=True):
            first.update({name: median(one[name] for one in its) for name in its[0]})
    hand, ours = figures
    yield Area("boot", ("by hand", "rpinfs"), [_row(name, hand[name], ours[name]) for name in hand])


def _row(name: str, hand: float, ours: float) -> Row:
    # Of a time, only the ratio means anything.
    if not name.endswith("seconds"):
        return Row(name, {"by hand": hand, "rpinfs": ours})
    return Row(name.replace("seconds", "time"), {"by hand": 1.0, "rpinfs": ours / hand}, ratio=True)
