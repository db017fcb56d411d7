"""`make demo`: from a box to a booted Pi, from an empty share to a container on overlay2 in an ext4 image.

Three commands make what it boots from, of a stock image.

Every claim is checked; the exit status is 0 only when all of them held.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from .box import Shell, everything_from_the_nas, stock_image
from .channel import Result
from .container import IMAGE, container_tar
from .image import Space, is_clean, space, superblock
from .lab import Lab, require_root
from .machine import MACHINES
from .pi import Pi
from .process import LabError
from .releases import DEFAULT, RELEASES

MIB = 1 << 20
# A first boot with one small container: an order of magnitude more than it takes, and less than a plain mkfs writes.
MOST_ALLOCATED = 256 * MIB
STATUS_TRIES = 10
STAGES = {
    "nfs-docker.mount": "the share is mounted at /nfs/docker",
    "rpinfs-agent.service": "the image is made and attached as a loop device",
    "var-lib-docker.mount": "the image is mounted at /var/lib/docker",
    "containerd.service": "containerd has passed the gate",
    "docker.service": "Docker has passed the gate",
}


class Unfulfilled(LabError):
    """Something works, but not as promised."""


class Story:
    """What is told while it happens: lines with the seconds since the beginning."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def tell(self, line: str) -> None:
        print(f"[{time.monotonic() - self._begin:6.1f} s] {line}", flush=True)

    def quote(self, title: str, text: str) -> None:
        self.tell(title)
        self.print(text)

    def print(self, text: str) -> None:
        print("".join(f"    {line}\n" for line in text.splitlines()), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.lab.demo", description="The first boot of a Pi, emulated.")
    parser.add_argument("--deb", type=Path, required=True, help="the package to install in the Pi's root")
    parser.add_argument("--release", default=DEFAULT, help=f"Debian release ({', '.join(RELEASES)})")
    parser.add_argument(
        "--arch", default="", help=f"the Pi's architecture, if not this machine's ({', '.join(MACHINES)})"
    )
    arguments = parser.parse_args()
    story = Story()
    try:
        require_root()
        demonstrate(story, arguments.deb, arguments.release, arguments.arch)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    story.tell("done: all as promised")
    return 0


def demonstrate(story: Story, deb: Path, release: str, architecture: str) -> None:
    """Three commands, the first boot from what they made, what came of it, and what it left on the NAS."""
    story.tell(f"a stock image with Debian {release}, {deb.name}, and a NAS with an empty share")
    with Lab(release=release, progress=story.tell, architecture=architecture) as lab:
        pi = lab.board("pi1")
        shell = Shell(lab, deb, stock_image(lab.base, lab.machine, story.tell))
        for command in shell.three_commands(pi, lab.nas.address):
            story.tell(f"# {command}")
            story.print(shell.type(command))
        expect(not any(lab.nas.share.iterdir()), "the share is not empty")
        with everything_from_the_nas(lab, pi, shell.proxy):
            first_boot(story, pi)
            look_around(story, pi)
            story.tell("power off")
            pi.power_off()
        story.tell("it is off")
        look_from_the_nas(story, only_image(lab.nas.share))


def first_boot(story: Story, pi: Pi) -> None:
    """From power to a finished systemd, with a line for each stage."""
    story.tell(f"power on: {pi.name}, {pi.mac}, nothing more configured")
    pi.power_on()
    story.quote("the boot ROM has what it needs", pi.boot_log.read_text())
    story.tell(f"kernel: {pi.cmdline}")
    pi.wait_agent()
    story.tell("systemd runs on an NFS root")
    for unit, meaning in STAGES.items():
        pi.wait_started(unit)
        story.tell(f"{unit}: {meaning}")
    state = pi.wait_booted()
    story.tell(f"systemd: {state}, {pi.seconds_since_power_on():.0f} s after power on")
    expect(state == "running", f"failed units:\n{pi.run('systemctl --failed --no-legend')}")


def look_around(story: Story, pi: Pi) -> None:
    """The Pi's own view: rpinfs, Docker, a container."""
    story.quote("rpinfs status", settled_status(pi))

    driver, folder = pi.run("docker info --format '{{.Driver}} {{.DockerRootDir}}'").split()
    story.quote("docker info", f"Storage Driver: {driver}\nDocker Root Dir: {folder}")
    expect(driver in ("overlay2", "overlayfs"), f"Docker's storage driver is {driver}")
    mounted = pi.run(f"findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS --mountpoint {folder}")
    story.quote(f"findmnt {folder}", mounted)
    expect(mounted.startswith("/dev/loop"), f"{folder} is not on a loop device: {mounted}")

    pi.path("/root/container.tar").write_bytes(container_tar(pi.root))
    pi.run(f"docker import /root/container.tar {IMAGE}")
    said = pi.run(f"docker run --rm {IMAGE} sh -c 'echo hello from $(hostname); mount | grep \" / \"'")
    story.quote("docker run", said)
    expect("hello from" in said and "overlay" in said, "the container does not run on an overlay")


def settled_status(pi: Pi) -> str:
    """What `rpinfs status` says when all is well.

    It answers within 2 seconds, if need be with "unknown" or of a slow share: right after its boot, an emulated Pi can
    be that slow.
    """
    for _ in range(STATUS_TRIES):
        result = pi.try_run("rpinfs status")
        if all_well(result):
            break
    expect(all_well(result), str(result))
    return result.stdout


def all_well(status: Result) -> bool:
    """Whether nothing is wrong, but that the disk which is the NAS here, this machine's own, may be rather full."""
    named = re.findall(r"^  (?:critical|warning|unknown)  .*", status.stdout, re.MULTILINE)
    return status.status == 0 or (status.status == 1 and all(line.endswith("  share.space") for line in named))


def look_from_the_nas(story: Story, image: Path) -> None:
    """The image after the Pi has gone: clean, and small."""
    fields = superblock(image)
    shown = ("Filesystem volume name", "Filesystem UUID", "Filesystem state", "Filesystem features", "Block size")
    story.quote(f"dumpe2fs -h {image.name}", "\n".join(f"{name}: {fields[name]}" for name in shown))
    expect(is_clean(image), "the ext4 was not unmounted in order")
    taken = space(image)
    story.tell(f"{image.name}: {in_words(taken)}")
    expect(taken.allocated < MOST_ALLOCATED, f"more than {MOST_ALLOCATED // MIB} MiB are allocated")


def only_image(share: Path) -> Path:
    """The one image on the share."""
    images = list(share.glob("*.img"))
    expect(len(images) == 1, f"expected one image on the share, found {[path.name for path in share.iterdir()]}")
    return images[0]


def in_words(taken: Space) -> str:
    return f"looks {taken.apparent / MIB:.0f} MiB large, takes {taken.allocated / MIB:.1f} MiB"


def expect(held: bool, otherwise: str) -> None:
    """A promise; what is wrong if it was not kept."""
    if not held:
        raise Unfulfilled(f"not as promised: {otherwise}")


if __name__ == "__main__":
    sys.exit(main())
