"""The lease: who may have an image, with real locks between real open files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs import lease
from rpinfs.lease import LeaseError, Owner

ONE = Owner("10000000aaaaaaaa", "pi1", "m" * 32, "boot-1")
OTHER = Owner("10000000bbbbbbbb", "pi2", "n" * 32, "boot-2")
HOLDER = """\
import sys
from rpinfs import lease
held = lease.acquire(sys.argv[1], lease.Owner("10000000aaaaaaaa", "pi1"))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(tmp_path / "docker.img")


def take(image: str, owner: Owner) -> None:
    lease.acquire(image, owner).close()


def test_first_come_is_the_owner(image: str) -> None:
    held = lease.acquire(image, ONE)
    assert held.locked
    assert lease.owner_of(image) == ONE
    held.close()
    assert lease.owner_of(image) == ONE


def test_the_owner_comes_back_after_a_power_cut(image: str) -> None:
    take(image, ONE)
    again = replace(ONE, boot_id="boot-7", hostname="renamed")
    take(image, again)
    assert lease.owner_of(image) == again


def test_nobody_has_an_image_without_a_lease(image: str) -> None:
    assert lease.owner_of(image) is None


@pytest.mark.parametrize(
    "other",
    [OTHER, replace(ONE, serial="10000000cccccccc")],
    ids=["another Pi", "cloned root on another board"],
)
def test_another_board_is_refused_with_the_owners_name(image: str, other: Owner) -> None:
    take(image, ONE)
    with pytest.raises(LeaseError, match=r"belongs to pi1 \(serial 10000000aaaaaaaa\), last seen 20\d\d-") as refused:
        lease.acquire(image, other)
    assert "rpinfs adopt" in (refused.value.remedy or "")
    assert lease.owner_of(image) == ONE


def test_a_held_lock_refuses_everybody(image: str) -> None:
    held = lease.acquire(image, ONE)
    for act in (lease.acquire, lease.adopt, lease.release):
        with pytest.raises(LeaseError, match=r"in use by pi1 \(serial"):
            act(image, OTHER)
        with pytest.raises(LeaseError, match="in use by this Pi"):
            act(image, ONE)
    held.close()
    assert lease.owner_of(image) == ONE


def test_adopt_takes_over_what_nobody_holds(image: str) -> None:
    take(image, ONE)
    assert lease.adopt(image, OTHER) == ONE
    take(image, OTHER)
    with pytest.raises(LeaseError, match="belongs to pi2"):
        lease.acquire(image, ONE)


def test_release_lets_anybody_in(image: str) -> None:
    take(image, ONE)
    with pytest.raises(LeaseError, match="belongs to pi1"):
        lease.release(image, OTHER)
    lease.release(image, ONE)
    assert lease.owner_of(image) is None
    take(image, OTHER)
    assert lease.owner_of(image) == OTHER


@pytest.mark.parametrize("record", ["", "\n", "\0" * 200, "{", "[]", '{"serial": 1}', "\ufeff"])
def test_a_record_cut_short_belongs_to_nobody(image: str, record: str) -> None:
    Path(lease.path_of(image)).write_text(record)
    take(image, ONE)
    assert lease.owner_of(image) == ONE


def test_a_shorter_record_leaves_nothing_of_a_longer_one(image: str) -> None:
    take(image, replace(ONE, hostname="a" * 200))
    take(image, ONE)
    assert lease.owner_of(image) == ONE


def test_a_link_is_not_followed(image: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    os.symlink("elsewhere", lease.path_of(image))
    with pytest.raises(OSError, match="symbolic links"):
        lease.acquire(image, ONE)
    assert (tmp_path / "elsewhere").read_text() == "kept"


def test_the_lock_dies_with_its_holder_and_the_record_stays(image: str) -> None:
    top = Path(__file__).resolve().parents[2]
    argv = [sys.executable, "-c", HOLDER, image]
    with subprocess.Popen(argv, cwd=top, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LeaseError, match="in use by pi1"):
            lease.adopt(image, OTHER)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with pytest.raises(LeaseError, match="belongs to pi1"):
        lease.acquire(image, OTHER)
    assert lease.adopt(image, OTHER) == Owner("10000000aaaaaaaa", "pi1")
