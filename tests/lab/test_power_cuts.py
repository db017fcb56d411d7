"""The power is pulled at random instants: the next boot always reaches Docker, and what was fsynced is there."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Tell, random_seed, thorough

from .container import without_network
from .image import repair, superblock
from .lab import Lab
from .pi import Pi
from .process import run
from .records import Recorder, count_records, install_writer, start_writer
from .test_storage import assert_storage_is_up, image_of

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.crash]

FIRST_BOOT = 30.0
"""Seconds that a first boot takes, about, from the agent's first moment to Docker."""
LONGEST_RUN = 20.0
"""Seconds that a writer has at the most before the power goes."""

AGENT_BEGINS = "until [ -L /run/systemd/units/invocation:rpinfs-agent.service ]; do sleep 0.2; done"


def ext4(_: Pi) -> None:
    """What rpinfs makes by itself."""


def ext4_fast_commit(pi: Pi) -> None:
    """The same with a feature that is not rpinfs's choice, in a program that chooses it."""
    making = "/usr/share/rpinfs/rpinfs/making.py"
    before = pi.read(making)
    after = before.replace('"has_journal,', '"has_journal,fast_commit,')
    assert after != before
    pi.write(making, after)


def xfs(pi: Pi) -> None:
    """By FileSystem=."""
    pi.write("/etc/rpinfs/rpinfs.conf", "[Image docker]\nFileSystem=xfs\n")


KINDS = [ext4, pytest.param(ext4_fast_commit, marks=pytest.mark.long), pytest.param(xfs, marks=pytest.mark.long)]


@pytest.mark.parametrize("kind", KINDS)
def test_power_cut_in_the_first_boot(lab: Lab, tell: Tell, kind: Callable[[Pi], None]) -> None:
    """Between the agent's first moment and a little after Docker's start; each time on an empty share."""
    cuts = 20 if thorough() else 1
    pi = lab.pi("first")
    without_network(pi)
    kind(pi)
    chance, seed = random_seed()
    span = seconds_of_a_first_boot(pi) if thorough() else FIRST_BOOT
    for cut in range(1, cuts + 1):
        empty(lab.nas.share)
        wait_for_agent(pi)
        instant = wait_at_random(chance, span)
        cut_power(pi)
        print(f"cut {cut} after {instant:.1f} of {span:.1f} s:", *sorted(path.name for path in lab.nas.share.iterdir()))
        pi.power_on()
        pi.wait_started("docker.service")
        assert_storage_is_up(pi)
        assert not list(lab.nas.share.glob(".*.rpinfs-new-*"))
        cut_power(pi)
        assert_kind(image_of(lab, pi), kind)
        repair(image_of(lab, pi))
    tell(f"{cuts} power cuts in the first boot on {kind.__name__}, seed {seed}: 0 images lost, 0 left half-made")


@pytest.mark.parametrize("kind", KINDS)
def test_power_cut_while_containers_write(lab: Lab, tell: Tell, kind: Callable[[Pi], None]) -> None:
    """Each boot is one that was not shut down; Docker and its writer come up by themselves."""
    cuts = 20 if thorough() else 1
    pi = lab.pi("writing")
    without_network(pi)
    kind(pi)
    chance, seed = random_seed()
    checked = 0
    with Recorder(lab.nas, lab.folder) as recorder:
        pi.power_on()
        pi.wait_started("docker.service")
        install_writer(pi)
        start_writer(pi, recorder, rest=20)
        assert_kind(image_of(lab, pi), kind)
        for cut in range(1, cuts + 1):
            recorder.wait_beyond(checked)
            instant = wait_at_random(chance, LONGEST_RUN)
            cut_power(pi)
            acknowledged = recorder.acknowledged
            pi.power_on()
            pi.wait_started("docker.service")
            checked = count_records(pi, acknowledged)
            print(f"cut {cut} after {instant:.1f} s: {acknowledged} records acknowledged, {checked} found")
        assert_storage_is_up(pi)
        pi.power_off()
    repair(image_of(lab, pi))
    tell(f"{cuts} power cuts while a container wrote ({kind.__name__}), seed {seed}: {checked} records checked, lost 0")


def assert_kind(image: Path, kind: Callable[[Pi], None]) -> None:
    """The image really is what is to be tried."""
    if kind is xfs:
        assert run(["blkid", "-p", "-s", "TYPE", "-o", "value", image]).strip() == "xfs"
    else:
        assert ("fast_commit" in superblock(image)["Filesystem features"].split()) == (kind is ext4_fast_commit)


def seconds_of_a_first_boot(pi: Pi) -> float:
    """From the agent's first moment to Docker, in an undisturbed first boot."""
    wait_for_agent(pi)
    begun = pi.seconds_since_power_on()
    pi.wait_started("docker.service")
    span = pi.seconds_since_power_on() - begun
    pi.pull_power()
    return span


def cut_power(pi: Pi) -> None:
    """And forget its journal, of which each cut leaves a file: after ten of them a boot takes twice as long."""
    pi.pull_power()
    for path in pi.path("/var/log/journal").glob("*/*.journal*"):
        path.unlink()


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
