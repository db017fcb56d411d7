"""The power is pulled at random instants: the next boot always reaches Docker, and what was fsynced is there."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Tell, random_seed, thorough

from .container import without_network
from .image import repair
from .lab import Lab
from .pi import Pi
from .process import run
from .records import Recorder, count_records, install_writer, start_writer
from .test_storage import assert_storage_is_up, image_of

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.crash]

SIZE = 2 << 30
FIRST_BOOT = 30.0
"""Seconds that a first boot takes, about, from the agent's first moment to Docker."""
LONGEST_RUN = 20.0
"""Seconds that a writer has at the most before the power goes."""

AGENT_BEGINS = "until [ -L /run/systemd/units/invocation:rpinfs-agent.service ]; do sleep 0.2; done"


def default(_: Path) -> None:
    """The image that rpinfs makes by itself."""


def with_fast_commit(image: Path) -> None:
    run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "fast_commit", "-e", "remount-ro", image, f"{SIZE >> 20}M"])


def with_xfs(image: Path) -> None:
    run(["truncate", f"--size={SIZE}", image])
    run(["mkfs.xfs", "-q", "-s", "size=4096", image])


KINDS = [
    default,
    pytest.param(with_fast_commit, marks=pytest.mark.long),
    pytest.param(with_xfs, marks=pytest.mark.long),
]


@pytest.mark.parametrize("kind", ["ext4", pytest.param("xfs", marks=pytest.mark.long)])
def test_power_cut_in_the_first_boot(lab: Lab, tell: Tell, kind: str) -> None:
    """Between the agent's first moment and a little after Docker's start; each time on an empty share."""
    cuts = 20 if thorough() else 1
    pi = lab.pi("first")
    without_network(pi)
    pi.write("/etc/rpinfs/rpinfs.conf", f"[Image docker]\nFileSystem={kind}\n")
    chance, seed = random_seed()
    span = seconds_of_a_first_boot(pi) if thorough() else FIRST_BOOT
    found: list[str] = []
    for _ in range(cuts):
        empty(lab.nas.share)
        wait_for_agent(pi)
        instant = wait_at_random(chance, span)
        pi.pull_power()
        found.append(f"{instant:.1f} s: {' '.join(sorted(path.name for path in lab.nas.share.iterdir()))}")
        pi.power_on()
        pi.wait_started("docker.service")
        assert_storage_is_up(pi)
        assert not list(lab.nas.share.glob(".*.rpinfs-new-*"))
        pi.pull_power()
        repair(image_of(lab, pi))
    tell(f"{cuts} power cuts in the first boot on {kind}, seed {seed}: 0 images lost, 0 left half-made")
    print("\n".join(found))


@pytest.mark.parametrize("make", KINDS)
def test_power_cut_while_containers_write(lab: Lab, tell: Tell, make: Callable[[Path], None]) -> None:
    """Each boot is one that was not shut down; Docker and its writer come up by themselves."""
    cuts = 20 if thorough() else 1
    pi = lab.pi("writing")
    without_network(pi)
    make(image_of(lab, pi))
    chance, seed = random_seed()
    checked = 0
    with Recorder(lab.nas, lab.folder) as recorder:
        pi.power_on()
        pi.wait_started("docker.service")
        install_writer(pi)
        start_writer(pi, recorder)
        for _ in range(cuts):
            recorder.wait_beyond(checked)
            wait_at_random(chance, LONGEST_RUN)
            pi.pull_power()
            acknowledged = recorder.acknowledged
            pi.power_on()
            pi.wait_started("docker.service")
            checked = count_records(pi, acknowledged)
        assert_storage_is_up(pi)
        pi.power_off()
    repair(image_of(lab, pi))
    name = make.__name__.removeprefix("with_")
    tell(f"{cuts} power cuts while a container wrote ({name}), seed {seed}: {checked} records checked, lost 0")


def seconds_of_a_first_boot(pi: Pi) -> float:
    """From the agent's first moment to Docker, in an undisturbed first boot."""
    wait_for_agent(pi)
    begun = pi.seconds_since_power_on()
    pi.wait_started("docker.service")
    span = pi.seconds_since_power_on() - begun
    pi.pull_power()
    return span


def wait_for_agent(pi: Pi) -> None:
    pi.power_on()
    pi.wait_agent()
    pi.run(AGENT_BEGINS)


def wait_at_random(chance: random.Random, longest: float) -> float:
    """Let some time pass: which instant is hit is the point."""
    seconds = chance.uniform(0, longest)
    threading.Event().wait(seconds)
    return seconds


def empty(share: Path) -> None:
    for path in share.iterdir():
        path.unlink()
