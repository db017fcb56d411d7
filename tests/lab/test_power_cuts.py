"""The power is pulled at random instants: the next boot always reaches Docker, and what was fsynced is there."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from rpinfs.image import make
from rpinfs.lease import memory
from tests.support import Tell, random_seed, thorough

from .container import without_network
from .image import repair, superblock
from .lab import Lab
from .pi import Pi
from .process import run
from .records import LostError, Recorder, boot_writing, count_records
from .said import boot_until_settled, image_state
from .test_storage import assert_storage_is_up, image_of

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.crash]

CONFIG = "[Image docker]\nFileSystem={kind}\n"
FIRST_BOOT = 30.0
"""Seconds that a first boot takes, about, from the agent's first moment to Docker."""
LONGEST_RUN = 20.0
"""Seconds that a writer has at the most before the power goes."""

AGENT_BEGINS = "until [ -L /run/systemd/units/invocation:rpinfs-agent.service ]; do sleep 0.2; done"


KINDS = pytest.mark.parametrize("kind", ["ext4", pytest.param("xfs", marks=pytest.mark.long)])


@KINDS
def test_power_cut_in_the_first_boot(lab: Lab, tell: Tell, kind: str) -> None:
    """Between the agent's first moment and a little after Docker's start; each time on an empty share."""
    cuts = 20 if thorough() else 1
    pi = lab.pi("first")
    without_network(pi)
    pi.write("/etc/rpinfs/rpinfs.conf", CONFIG.format(kind=kind))
    chance, seed = random_seed()
    span = seconds_of_a_first_boot(pi) if thorough() else FIRST_BOOT
    for cut in range(1, cuts + 1):
        forget(lab.nas.share, pi)
        wait_for_agent(pi)
        instant = wait_at_random(chance, span)
        cut_power(pi)
        print(f"cut {cut} after {instant:.1f} of {span:.1f} s:", *sorted(path.name for path in lab.nas.share.iterdir()))
        pi.power_on()
        # Past the gate, that is. At the end a closer look.
        pi.wait_started("docker.service")
        if cut == cuts:
            assert_storage_is_up(pi)
        assert not list(lab.nas.share.glob(".*.rpinfs-new-*"))
        cut_power(pi)
        assert_kind(image_of(lab, pi), kind)
        repair(image_of(lab, pi))
    tell(f"{cuts} power cuts in the first boot on {kind}, seed {seed}: 0 images lost, 0 left half-made")


@KINDS
def test_power_cut_while_containers_write(lab: Lab, tell: Tell, kind: str) -> None:
    """Each boot is one that was not shut down; Docker and its writer come up by themselves."""
    cuts = 20 if thorough() else 1
    pi = lab.pi("writing")
    without_network(pi)
    pi.write("/etc/rpinfs/rpinfs.conf", CONFIG.format(kind=kind))
    chance, seed = random_seed()
    checked = 0
    with Recorder(lab.nas, lab.folder) as recorder:
        boot_writing(pi, recorder)
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
    tell(f"{cuts} power cuts while a container wrote ({kind}), seed {seed}: {checked} records checked, lost 0")


@pytest.mark.long
def test_power_cuts_with_fast_commit(lab: Lab, monkeypatch: pytest.MonkeyPatch, tell: Tell) -> None:
    """What we do not make, but somebody may have: a new image after each cut that one does not survive.

    test_crash_instants.py proves why it is off. Here it is counted how much of that a pulled cable shows; and Docker
    is up, or down with the agent's reason.
    """
    monkeypatch.setattr(make, "EXT4_FEATURES", f"fast_commit,{make.EXT4_FEATURES}")
    pi = lab.pi("fast")
    without_network(pi)
    image = image_of(lab, pi)
    chance, seed = random_seed()
    cuts, done, images, refused, lost = 20, 0, 0, 0, 0
    while done < cuts:
        forget(lab.nas.share, pi)
        make.create(str(image), 10 << 30)
        assert "fast_commit" in superblock(image)["Filesystem features"].split()
        images += 1
        with Recorder(lab.nas, lab.folder) as recorder:
            boot_writing(pi, recorder)
            checked = 0
            broken = False
            while done < cuts and not broken:
                recorder.wait_beyond(checked)
                instant = wait_at_random(chance, LONGEST_RUN)
                cut_power(pi)
                done += 1
                acknowledged = recorder.acknowledged
                print(f"cut {done} after {instant:.1f} s: {acknowledged} records acknowledged")
                try:
                    checked = records_after_boot(pi, acknowledged)
                except RefusedError as error:
                    print("refused:", error)
                    refused, broken = refused + 1, True
                except LostError as error:
                    print("lost:", error)
                    lost, broken = lost + 1, True
        cut_power(pi)
    tell(
        f"{cuts} power cuts while a container wrote (ext4 with fast_commit), seed {seed}, {images} images: "
        f"after {lost} of them fsynced records were lost, after {refused} e2fsck -p had left errors"
    )


class RefusedError(Exception):
    """The agent keeps Docker down, for what e2fsck -p has left."""


def records_after_boot(pi: Pi, acknowledged: int) -> int:
    """Boot and read the records back; LostError, or RefusedError where it does not come to that."""
    if boot_until_settled(pi) == "refused":
        message = image_state(pi)["message"]
        assert "errors that only a person can decide about (e2fsck status " in message
        raise RefusedError(message)
    pi.wait_started("docker.service")
    return count_records(pi, acknowledged)


def assert_kind(image: Path, kind: str) -> None:
    """The image really is what is to be tried."""
    assert run(["blkid", "-p", "-s", "TYPE", "-o", "value", image]).strip() == kind


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


def forget(share: Path, *pis: Pi) -> None:
    """Let the next boot be the first one: an empty share, and Pis that are off and remember no image of it."""
    for path in share.iterdir():
        path.unlink()
    for pi in pis:
        for path in pi.path(memory.FOLDER).glob("*"):
            path.unlink()
