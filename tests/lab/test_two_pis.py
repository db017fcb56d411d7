"""One Pi, one image: two Pis that want the same one race for it from power-on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import Tell, thorough

from .container import without_network
from .image import is_clean
from .lab import Lab
from .pi import Pi
from .said import SAID, boot_until_settled, image_state
from .test_power_cuts import forget
from .test_storage import assert_storage_is_up

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.crash]

CONFIG = "[Image docker]\nFile=shared.img\nSize=2G\n"


@pytest.mark.long
def test_two_pis_one_image(lab: Lab, tell: Tell) -> None:
    rounds = 10 if thorough() else 1
    pis = [lab.pi("one"), lab.pi("two")]
    for pi in pis:
        without_network(pi)
        pi.write("/etc/rpinfs/rpinfs.conf", CONFIG)
    wins = dict.fromkeys(("one", "two"), 0)
    with ThreadPoolExecutor() as both:
        for number in range(rounds):
            if number:
                for pi in pis:
                    pi.pull_power()
                forget(lab.nas.share, *pis)
            winner, loser = in_order_of_success(pis, list(both.map(boot_until_settled, pis)))
            wins[winner.name] += 1
            assert_owner_is_named(loser, winner)
            assert_storage_is_up_soon(winner)
            assert_docker_is_down(loser)
    tell(f"{rounds} races of two Pis for one image: won by {wins}, never by both")

    the_other_waits_for_adoption(winner, loser)
    loser.power_off()
    assert is_clean(lab.nas.image_path("shared.img"))


@pytest.mark.long
def test_fence_mmp(lab: Lab) -> None:
    """Without any lock, by what the owner writes into the image all the time; it is seen over direct I/O alone."""
    owner, other = lab.pi("one"), lab.pi("two")
    for pi in (owner, other):
        without_network(pi)
        pi.write("/etc/rpinfs/rpinfs.conf", f"{CONFIG}Fence=mmp\n")
    assert boot_until_settled(owner) == "mounted"
    assert boot_until_settled(other) == "refused"
    message = image_state(other)["message"]
    assert "another host uses it" in message and "last marked by one" in message
    assert_docker_is_down(other)
    assert_storage_is_up_soon(owner)
    owner.pull_power()
    other.run("systemctl restart rpinfs-agent.service")
    assert_storage_is_up_soon(other)
    other.power_off()
    assert is_clean(lab.nas.image_path("shared.img"))


def in_order_of_success(pis: list[Pi], states: list[str]) -> tuple[Pi, Pi]:
    """The one that has the image, and the one that has not; anything else is a failure."""
    assert sorted(states) == ["mounted", "refused"], states
    return pis[states.index("mounted")], pis[states.index("refused")]


def assert_owner_is_named(loser: Pi, winner: Pi) -> None:
    """By its name and its serial number; QEMU's boards have none, so that the NIC's address stands for it."""
    serial = winner.mac.replace(":", "-")
    report = loser.try_run("rpinfs status")
    assert report.status == 2
    for text in (image_state(loser)["message"], report.stdout):
        assert winner.name in text and serial in text, text


def assert_storage_is_up_soon(pi: Pi) -> None:
    pi.wait_started("docker.service")
    assert_storage_is_up(pi)


def assert_docker_is_down(pi: Pi) -> None:
    assert pi.try_run("systemctl start docker.service").status != 0
    assert pi.try_run("findmnt --mountpoint /var/lib/docker").status != 0


def the_other_waits_for_adoption(owner: Pi, other: Pi) -> None:
    """A power cut is no way to lose an image; `rpinfs adopt` is, and then Docker follows."""
    owner.run("sync")
    assert other.try_run("rpinfs adopt docker").status != 0
    owner.pull_power()
    # The NAS holds the dead Pi's lock for a lease's length; then only the owner record is in the way.
    other.run(f"until grep -q 'belongs to .*, last seen' {SAID}; do sleep 2; done", timeout=300)
    assert image_state(other)["state"] == "refused"
    assert_owner_is_named(other, owner)
    assert_docker_is_down(other)
    # It may only be cut off, and is given time to come back; we have seen its end.
    quiet = other.try_run("rpinfs adopt docker")
    assert quiet.status != 0 and "may still use it, or come back" in quiet.stderr
    other.run("rpinfs adopt docker --now")
    other.run("systemctl restart rpinfs-agent.service")
    assert_storage_is_up_soon(other)
