"""What is to be done about an image: a table of looks and plans."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from rpinfs.boot.config import Image
from rpinfs.boot.settings import MIB
from rpinfs.errors import RpinfsError
from rpinfs.image.errors import OtherThanVerifiedError, ShareFailedError
from rpinfs.image.look import Look
from rpinfs.image.plan import Plan, Step, plan
from rpinfs.image.probe import Kind, Probe
from rpinfs.lease.memory import Verified, is_known

PATH = "/nfs/docker/docker.img"
UUID, OTHER_UUID = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
VERIFIED = (Verified(UUID, 1_700_000_000),)

NOTHING = Probe(PATH, Kind.MISSING, "nothing")
BLANK = Probe(PATH, Kind.BLANK, "a blank file", size=64 * MIB)
EMPTY = Probe(PATH, Kind.BLANK, "an empty file")
EXT4 = Probe(
    PATH, Kind.EXT4, "an ext4 file system", size=64 * MIB, uuid=UUID, fs_size=64 * MIB, block_size=4096,
    sector_size=4096, clean=True,
)  # fmt: skip
XFS = replace(EXT4, kind=Kind.XFS, description="an xfs file system", size=300 * MIB, fs_size=300 * MIB, clean=None)
SWAP = Probe(PATH, Kind.FOREIGN, "swap space", size=64 * MIB)


def image(**changes: object) -> Image:
    values: dict[str, object] = {
        "name": "docker", "file": "docker.img", "path": PATH, "size": 64 * MIB, "size_is_set": False,
        "filesystem": "ext4", "filesystem_is_set": False, "where": "/var/lib/docker", "options": ["noatime"],
        "bind": ["/var/lib/containerd"], "before": ["docker.service", "containerd.service"], "direct_io": True,
        "fence": "lease",
    }  # fmt: skip
    return Image(**{**values, **changes})  # type: ignore[arg-type]


def steps(look: Look, **changes: object) -> list[str]:
    return [step.name for step in plan(image(**changes), look).steps]


@pytest.mark.parametrize(
    ("look", "changes", "expected"),
    [
        (Look(NOTHING), {}, "MAKE ATTACH"),
        (Look(BLANK), {}, "MAKE ATTACH"),
        (Look(EMPTY), {"fence": "both"}, "MAKE ATTACH"),
        # A blank file keeps its length, and grows then.
        (Look(BLANK), {"size_is_set": True, "size": 128 * MIB}, "MAKE GROW ATTACH"),
        # What interrupted attempts have left is removed by the next that makes it.
        (Look(NOTHING, leftovers=True), {}, "MAKE ATTACH"),
        (Look(EXT4), {}, "REPAIR ATTACH"),
        (Look(EXT4, VERIFIED), {}, "REPAIR ATTACH"),
        (Look(EXT4, (Verified(OTHER_UUID), *VERIFIED)), {}, "REPAIR ATTACH"),
        (Look(EXT4, leftovers=True), {}, "SWEEP REPAIR ATTACH"),
        (Look(EXT4), {"fence": "both"}, "REPAIR PROTECT ATTACH"),
        (Look(EXT4), {"fence": "mmp"}, "REPAIR PROTECT ATTACH"),
        (Look(replace(EXT4, mmp=True)), {"fence": "mmp"}, "REPAIR ATTACH"),
        (Look(EXT4), {"size_is_set": True, "size": 128 * MIB}, "REPAIR GROW ATTACH"),
        (Look(EXT4), {"size_is_set": True}, "REPAIR GROW ATTACH"),
        (
            Look(EXT4, leftovers=True),
            {"size_is_set": True, "size": 128 * MIB, "fence": "both"},
            "SWEEP REPAIR PROTECT GROW ATTACH",
        ),
        (Look(XFS), {}, "ATTACH"),
        (Look(XFS), {"size_is_set": True, "size": 300 * MIB}, "GROW ATTACH"),
        (Look(replace(EXT4, size=65 * MIB)), {}, "REPAIR ATTACH"),
        # Nothing else is decided before it is known what has the name.
        (Look(NOTHING, VERIFIED, unsettled=True), {}, "PUT_BACK"),
    ],
)
def test_plans(look: Look, changes: dict[str, object], expected: str) -> None:
    assert steps(look, **changes) == expected.split()


@pytest.mark.parametrize(
    ("look", "changes", "message", "remedy"),
    [
        (
            Look(SWAP),
            {},
            "expected an ext4 or xfs file system, found swap space",
            f"mv -T --backup=numbered {PATH} {PATH}.kept",
        ),
        (
            Look(replace(EXT4, size=64 * MIB - 1)),
            {},
            f"the file has {64 * MIB - 1} bytes, its file system {64 * MIB}: cut short",
            "put a whole copy of the file in its place",
        ),
        (Look(replace(EXT4, obstacles=("feature x",))), {}, "this kernel cannot mount it: feature x", ""),
        (Look(EXT4, attached="/dev/loop7"), {}, "is in use: attached to /dev/loop7", "findmnt /dev/loop7"),
        (Look(XFS, attached="/dev/loop7"), {}, "is in use: attached to /dev/loop7", "findmnt /dev/loop7"),
        (Look(BLANK, attached="/dev/loop7"), {}, "is in use: attached to /dev/loop7", "findmnt /dev/loop7"),
        (
            Look(EXT4),
            {"size_is_set": True, "size": 32 * MIB},
            "Size= asks for 32M, less than the 64M that the image has",
            "set Size=64M or more in [Image docker]",
        ),
        (
            Look(XFS),
            {"filesystem_is_set": True},
            "FileSystem= asks for ext4, but the image holds xfs",
            "set FileSystem=xfs in [Image docker]",
        ),
        (Look(XFS), {"fence": "both"}, "Fence=both needs ext4, but the image holds xfs", "set Fence=lease"),
    ],
)
def test_refusals(look: Look, changes: dict[str, object], message: str, remedy: str) -> None:
    with pytest.raises(RpinfsError) as refused:
        plan(image(**changes), look)
    assert refused.value.message.startswith(f"{PATH}: {message}")
    assert remedy in (refused.value.remedy or "")
    assert not isinstance(refused.value, ShareFailedError)


@pytest.mark.parametrize(
    ("found", "words", "way"),
    [
        (NOTHING, "nothing", "to have a new image made: rpinfs release docker; systemctl restart rpinfs-agent"),
        (BLANK, "a blank file", "to have a new image made: rpinfs release docker; systemctl restart rpinfs-agent"),
        (EMPTY, "an empty file", "to have a new image made: rpinfs release docker; systemctl restart rpinfs-agent"),
        (SWAP, "swap space", "move it away; then, to have a new image made: rpinfs release docker"),
        (
            replace(EXT4, uuid=OTHER_UUID),
            f"an ext4 file system with file system {OTHER_UUID}",
            "to use what is there now: rpinfs adopt docker; systemctl restart rpinfs-agent",
        ),
        (replace(XFS, uuid=OTHER_UUID), f"an xfs file system with file system {OTHER_UUID}", "rpinfs adopt docker"),
    ],
)
@pytest.mark.parametrize("fence", ["lease", "mmp", "both"])
def test_what_was_verified_is_never_made_anew(found: Probe, words: str, way: str, fence: str) -> None:
    """Nor is another one taken for it. It may come back by itself: that is tried again."""
    with pytest.raises(OtherThanVerifiedError) as refused:
        plan(image(fence=fence), Look(found, VERIFIED))
    assert refused.value.message == (
        f"{PATH}: expected file system {UUID}, last verified 2023-11-14 22:13 UTC; found {words}"
    )
    assert way in (refused.value.remedy or "")
    assert isinstance(refused.value, ShareFailedError)


def test_remarks_have_whole_command_lines() -> None:
    with_both = replace(EXT4, mmp=True, fast_commit=True)
    stop = (
        "systemctl stop docker.socket docker.service containerd.service var-lib-containerd.mount var-lib-docker.mount "
        f'rpinfs-agent.service; test -z "$(losetup --associated {PATH})" && '
    )
    start = "; systemctl start rpinfs-agent.service docker.service containerd.service"
    fast_commit, protection = plan(image(), Look(with_both)).remarks
    assert fast_commit == (
        f"{PATH} has fast_commit, which loses data in a power cut; to take it off: "
        f"{stop}tune2fs -O '^fast_commit' {PATH}{start}"
    )
    assert protection == (
        f"{PATH} has multi-mount protection, though Fence=lease: its checks wait; without it, they are 11 s shorter; "
        f"to take it off: {stop}tune2fs -O '^mmp' {PATH}{start}"
    )
    for fence in ("mmp", "both"):
        assert plan(image(fence=fence), Look(with_both)).remarks == (fast_commit,)


def test_remedies_speak_of_their_own_image() -> None:
    registry = image(name="registry", path="/nfs/docker/my registry.img", where="/srv/registry", bind=[], before=[])
    (remark,) = plan(registry, Look(replace(EXT4, fast_commit=True))).remarks
    assert "docker" not in remark.partition("to take it off: ")[2].replace("/nfs/docker/", "")
    assert "systemctl stop srv-registry.mount rpinfs-agent.service; " in remark
    assert "systemctl start rpinfs-agent.service srv-registry.mount" in remark


def test_every_plan_ends_attached_and_makes_nothing_twice() -> None:
    """Whatever was looked at: it is settled first, or refused, or attached last; what holds data is never made."""
    founds = [NOTHING, BLANK, EMPTY, EXT4, XFS, SWAP, replace(EXT4, mmp=True), replace(EXT4, size=1)]
    seen = 0
    for found, remembered, leftovers, attached, unsettled, fence, is_set, size in product(
        founds,
        [(), VERIFIED, (Verified(OTHER_UUID),)],
        [False, True],
        ["", "/dev/loop0"],
        [False, True],
        ["lease", "mmp", "both"],
        [False, True],
        [32 * MIB, 64 * MIB, 300 * MIB],
    ):
        look = Look(found, remembered, unsettled, leftovers, attached)
        try:
            done = plan(image(fence=fence, size_is_set=is_set, size=size), look)
        except RpinfsError:
            continue
        seen += 1
        if unsettled:
            assert done == Plan((Step.PUT_BACK,))
            continue
        assert done.steps[-1] is Step.ATTACH and not attached
        assert len(set(done.steps)) == len(done.steps)
        assert list(done.steps) == sorted(done.steps, key=list(Step).index)
        assert (Step.MAKE in done.steps) == (found.kind in (Kind.MISSING, Kind.BLANK))
        assert Step.MAKE not in done.steps or not remembered
        assert is_known(found.uuid, remembered)
        assert found.size >= found.fs_size
    assert seen > 100
