"""What is decided for the share, and when the boot goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rpinfs.agent import share as shares
from rpinfs.agent.picture import Picture, ShareFacts, share_facts
from rpinfs.agent.states import Action, Do, Memory, ShareMemory, ShareState, State
from rpinfs.boot import storage
from rpinfs.boot.config import Config, load
from rpinfs.boot.host import Host
from tests.support import make_pi

NOW = 1000.0
THERE = ShareFacts(mount=7, device=(0, 38))
UP = ShareMemory(ShareState.MOUNTED, 1.0, "192.168.1.10:/docker is mounted at /nfs/docker")
REMEDY = "look whether 192.168.1.10 is up and exports /docker: showmount -e 192.168.1.10"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return load(Host.read(str(make_pi(tmp_path_factory.mktemp("pi")))))


def judge(
    config: Config, memory: ShareMemory, facts: ShareFacts, now: float = NOW, ready_at: float | None = None
) -> tuple[ShareMemory, Action | None, tuple[str, ...]]:
    return shares.share(config, memory, Picture(now, ready_at, facts))


@pytest.mark.parametrize(
    ("facts", "state", "message", "remedy"),
    [
        (ShareFacts(), ShareState.WAITING, "192.168.1.10:/docker is not mounted at /nfs/docker yet", REMEDY),
        (replace(THERE, found="tmpfs (tmpfs)"), ShareState.WAITING,
         "/nfs/docker is not the share: expected 192.168.1.10:/docker, found tmpfs (tmpfs)",
         "unmount it: umount /nfs/docker"),
        (replace(THERE, asked=NOW - 15.1), ShareState.SILENT, "192.168.1.10 does not answer", REMEDY),
        (replace(THERE, error="/nfs/docker: Stale file handle"), ShareState.FAILING, "/nfs/docker: Stale file handle",
         REMEDY),
        (replace(THERE, asked=NOW - 15), ShareState.MOUNTED, UP.message, ""),
        (THERE, ShareState.MOUNTED, UP.message, ""),
    ],
)  # fmt: skip
def test_sentences(config: Config, facts: ShareFacts, state: ShareState, message: str, remedy: str) -> None:
    memory, action, notes = judge(config, ShareMemory(), facts)
    assert (memory.state, memory.message, memory.remedy) == (state, message, remedy)
    assert action is None and notes == ()
    assert memory.since == (facts.asked if state is ShareState.SILENT else NOW)


def test_only_an_answer_ends_a_silence(config: Config) -> None:
    silent, *_ = judge(config, UP, replace(THERE, asked=NOW - 20))
    assert silent.state is ShareState.SILENT and silent.since == NOW - 20
    still, *_ = judge(config, silent, replace(THERE, asked=NOW + 100), now=NOW + 101)
    assert still == silent, "a new mount has not answered yet"
    back, _, notes = judge(config, silent, THERE, now=NOW + 41)
    assert back.state is ShareState.MOUNTED and back.returns == 1
    assert notes == ("192.168.1.10 answers again after 61 s",)
    assert judge(config, back, THERE, now=NOW + 50)[0].returns == 1


def test_what_comes_back_is_counted(config: Config) -> None:
    failing, *_ = judge(config, UP, replace(THERE, error="stale"))
    assert judge(config, failing, THERE)[0].returns == 1
    gone, *_ = judge(config, UP, ShareFacts())
    assert judge(config, gone, THERE, ready_at=10.0)[0].returns == 1
    # The first time is no coming back.
    assert judge(config, ShareMemory(), THERE)[0].returns == 0


def test_a_late_share_is_started_again_and_again(config: Config) -> None:
    waiting = ShareMemory(ShareState.WAITING, 1.0, "late")
    assert judge(config, waiting, ShareFacts())[1] is None, "systemd is at it"
    assert judge(config, waiting, ShareFacts(), ready_at=NOW - 14)[1] is None
    first, action, _ = judge(config, waiting, ShareFacts(), ready_at=NOW - 15)
    assert action == Action(Do.START, ("nfs-docker.mount",))
    assert (first.start_at, first.start_wait) == (NOW + 5, 7.5)
    assert judge(config, first, ShareFacts(), now=NOW + 4, ready_at=10.0)[1] is None
    second, action, _ = judge(config, first, ShareFacts(), now=NOW + 5, ready_at=10.0)
    assert action is not None and (second.start_at, second.start_wait) == (NOW + 12.5, 11.25)
    longest, *_ = judge(config, replace(second, start_wait=20.0), ShareFacts(), now=NOW + 50, ready_at=10.0)
    assert longest.start_wait == 20.0
    there, action, _ = judge(config, longest, THERE, now=NOW + 90, ready_at=10.0)
    assert action is None and there.start_wait == 0.0


def test_boot_files_are_tried_once_more_when_a_late_share_comes(config: Config) -> None:
    waiting = ShareMemory(ShareState.WAITING, 1.0, "late")
    missing = replace(THERE, boot_missing=True)
    there, action, _ = judge(config, waiting, missing, ready_at=10.0)
    assert action == Action(Do.START, ("boot-firmware.mount",))
    assert judge(config, there, missing, now=NOW + 100, ready_at=10.0)[1] is None
    assert judge(config, waiting, THERE, ready_at=10.0)[1] is None
    assert judge(config, ShareMemory(), missing, ready_at=None)[1] is None


def test_the_boot_goes_on() -> None:
    preparing, refused = Memory(State.PREPARING), Memory(State.REFUSED)
    assert not shares.is_ready([refused, preparing], UP)
    assert shares.is_ready([refused], UP) and shares.is_ready([], UP)
    silent = replace(UP, state=ShareState.SILENT)
    assert shares.is_ready([preparing, Memory()], silent), "it does not wait for a NAS that fell silent"


def test_what_a_dead_snapshot_has_frozen_is_thawed() -> None:
    frozen, thaw = Picture(NOW, abandoned=("docker",)), Action(Do.START, ("rpinfs-thaw.service",))
    for asked, action in ((None, thaw), (NOW - 29.9, None), (NOW - 30, thaw), (NOW, None)):
        assert shares.is_to_thaw(frozen, asked) == action
        assert shares.is_to_thaw(Picture(NOW), asked) is None
    early = replace(frozen, now=1.0)
    assert shares.is_to_thaw(early, None) == thaw, "also in the first seconds of a boot"


TABLE = [
    ("41 30 0:38 / /nfs/docker rw - nfs4 192.168.1.10:/docker rw\n", {}, ""),
    ("41 30 0:38 / /nfs/docker rw - nfs4 192.168.1.10:/docker/ rw\n", {}, ""),
    ("41 30 0:38 / /nfs/docker rw - nfs4 192.168.1.66:/docker rw\n", {}, "192.168.1.66:/docker (nfs4)"),
    ("41 30 0:38 / /nfs/docker rw - nfs4 192.168.1.10:/other rw\n", {}, "192.168.1.10:/other (nfs4)"),
    ("41 30 0:38 / /nfs/docker rw - nfs4 192.168.1.66:/docker rw\n", {"/nfs/docker": 1}, ""),
    ("41 30 0:38 / /nfs/docker rw - tmpfs 192.168.1.10:/docker rw\n", {}, "192.168.1.10:/docker (tmpfs)"),
    ("41 30 0:38 / /nfs/docker rw - tmpfs tmpfs rw\n", {"/nfs/docker": 1}, "tmpfs (tmpfs)"),
]


@pytest.mark.parametrize(("table", "by_fstab", "found"), TABLE)
def test_what_is_taken_for_the_share(config: Config, table: str, by_fstab: dict[str, int], found: str) -> None:
    """Not a tmpfs, not another server's export; what fstab mounts there is the user's own affair, if it is NFS."""
    facts = share_facts(config, storage.parse_mountinfo(table), by_fstab)
    assert (facts.mount, facts.device, facts.found) == (41, (0, 38), found)
    assert share_facts(config, [], by_fstab).mount is None
