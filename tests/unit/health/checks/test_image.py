"""Checks of images, loop devices and mounts: what each says of a machine that is well, and of one that is not."""

from __future__ import annotations

from dataclasses import replace

from rpinfs.boot import gate
from rpinfs.errors import RpinfsError
from rpinfs.health.facts import NOBODY, File, NotAskedError
from rpinfs.image.superblock import Groups, Superblock
from rpinfs.lease.lease import Owner
from rpinfs.system.hidden import Hidden
from tests.support import Content
from tests.unit.health.pi import (
    CRITICAL,
    GIB,
    IMAGE,
    IMAGE_LINE,
    LOOP,
    OK,
    SHARE_LINE,
    SILENCE,
    UNKNOWN,
    WARNING,
    WELL,
    Case,
    Judged,
    agent,
    assert_judged,
    mountinfo,
    room,
)


def clean(value: str) -> dict[str, Content]:
    return {gate.STATE_FILE: f'{{"images": {{"docker": {{"clean": {value}}}}}}}'}


UNMOUNTED = mountinfo(SHARE_LINE)
SUPERBLOCK = Superblock("ext4", "", "docker", 4096, 4096, 10 * GIB, Groups(0, 128 << 20, 1 << 20), clean=True)

CASES = [
    Case("image.present", OK, f"{IMAGE} is there, 10 GiB long"),
    Case("image.present", CRITICAL, f"there is no {IMAGE}", answers={"image:docker": FileNotFoundError(2, "No such")}),
    Case("image.present", CRITICAL, "it is LUKS", files=agent("refused", "it is LUKS", "move it")),
    Case("image.present", WARNING, "image docker is being prepared: making it", files=agent("preparing", "making it")),
    Case("image.present", UNKNOWN, "no answer within 1.4 s", answers={"image:docker": SILENCE}),
    Case("image.present", None, "", files={"etc/fstab": "/x /var/lib/docker ext4 loop\n"}),
    Case("image.owner", OK, "image docker belongs to this Pi"),
    Case("image.owner", CRITICAL, "belongs to pi2 (serial 2)", answers={"owner:docker": Owner("2", "pi2")}),
    Case("image.owner", WARNING, "belongs to nobody", answers={"owner:docker": NOBODY}),
    Case("image.owner", UNKNOWN, "no answer within 1.4 s", answers={"owner:docker": SILENCE}),
    Case("image.owner", None, "", "[Image docker]\nFence=mmp\n"),
    Case("image.size", WARNING, "has 10 GiB, the configuration says 20 GiB", "[Image docker]\nSize=20G\n"),
    Case("image.size", WARNING, "has 10 GiB, the configuration says 5 GiB", "[Image docker]\nSize=5G\n"),
    Case("image.size", None, ""),
    Case("image.size", None, "", "[Image docker]\nSize=20G\n", files={
        gate.STATE_FILE: '{"images": {"docker": {"state": "refused"}}}'}),
    Case("image.allocated", OK, "takes 1 GiB of its 10 GiB on the NAS, and holds 40 GiB"),
    Case("image.allocated", OK, "takes 9 GiB", answers={
        "image:docker": File(10 * GIB, 9 * GIB), "space:docker": room(99 * GIB)}),
    Case("image.allocated", WARNING, "takes 9 GiB of its 10 GiB on the NAS, and holds 1 GiB", "[Server]\nVersion=4.2\n",
        mountinfo(SHARE_LINE.replace("4.1", "4.2"), IMAGE_LINE),
        {"image:docker": File(10 * GIB, 9 * GIB), "space:docker": room(99 * GIB)}),
    *(Case("image.allocated", expected, "and holds 5 GiB", "[Server]\nVersion=4.2\n",
        mountinfo(SHARE_LINE.replace("4.1", "4.2"), IMAGE_LINE),
        {"image:docker": File(20 * GIB, allocated), "space:docker": room(95 * GIB)})
      for expected, allocated in ((OK, 10 * GIB), (WARNING, 10 * GIB + 4096))),
    Case("image.allocated", OK, "takes 9 GiB of its 10 GiB on the NAS", answers={
        "image:docker": File(10 * GIB, 9 * GIB), "space:docker": SILENCE}),
    Case("image.clean", OK, "was unmounted in order before it was mounted"),
    Case("image.clean", OK, "was not unmounted in order, and was put right before", files=clean("false")),
    Case("image.clean", None, "", files=clean("null")),
    Case("image.clean", OK, "not mounted, was unmounted in order", files=UNMOUNTED, answers={
        "superblock:docker": SUPERBLOCK}),
    Case("image.clean", WARNING, "not mounted, was not unmounted in order", files=UNMOUNTED, answers={
        "superblock:docker": replace(SUPERBLOCK, clean=False)}),
    Case("image.clean", WARNING, "has errors recorded (2)", files=UNMOUNTED, answers={
        "superblock:docker": replace(SUPERBLOCK, errors_recorded=2)}),
    Case("image.clean", UNKNOWN, "no answer", files=UNMOUNTED, answers={"superblock:docker": SILENCE}),
    Case("image.clean", None, "", files=UNMOUNTED, answers={"superblock:docker": FileNotFoundError(2, "No such")}),
    Case("image.clean", None, "", files=UNMOUNTED, answers={"superblock:docker": None}),
    Case("loop.direct-io", WARNING, "/dev/loop3 is buffered", files={f"{LOOP}/loop/dio": "0\n"}),
    Case("loop.direct-io", OK, "as DirectIO=no says", "[Image docker]\nDirectIO=no\n", {f"{LOOP}/loop/dio": "0\n"}),
    Case("loop.block-size", WARNING, "blocks of 512 bytes, expected 4096", files={
        f"{LOOP}/queue/logical_block_size": "512\n"}),
    Case("mount.right", CRITICAL, "image docker is not mounted at /var/lib/docker", files=mountinfo(SHARE_LINE)),
    Case("mount.right", CRITICAL, "found /nfs/docker/x", files={f"{LOOP}/loop/backing_file": "/nfs/docker/x\n"}),
    Case("mount.right", CRITICAL, "/var/lib/containerd is not mounted", files=mountinfo(SHARE_LINE, IMAGE_LINE)),
    Case("mount.right", UNKNOWN, "no answer within 1.4 s", answers={"gate:docker": SILENCE}),
    Case("mount.writable", CRITICAL, "/var/lib/docker is read-only", files=mountinfo(
        IMAGE_LINE.replace("/dev/loop3 rw", "/dev/loop3 ro"))),
    Case("mount.writable", None, "", files=mountinfo(SHARE_LINE)),
    Case("mount.errors", CRITICAL, "ext4 has recorded errors (3)", files={"sys/fs/ext4/loop3/errors_count": "3\n"}),
    Case("mount.space", WARNING, "/var/lib/docker is 92 % full, 8 GiB of 100 GiB free", answers={
        "space:docker": room(8 * GIB)}),
    Case("mount.space", CRITICAL, "99 % full", answers={"space:docker": room(1 * GIB)}),
    # 90 and 97 % are full, and what is less by a block is not.
    *(Case("mount.space", expected, "% full", answers={"space:docker": room(available)}) for expected, available in (
        (OK, 10 * GIB + 4096), (WARNING, 10 * GIB), (WARNING, 3 * GIB + 4096), (CRITICAL, 3 * GIB))),
    *(Case("mount.inodes", expected, "1000 inodes", answers={"space:docker": room(60 * GIB, free)})
      for expected, free in ((OK, 101), (WARNING, 100), (WARNING, 31), (CRITICAL, 30))),
    Case("mount.inodes", WARNING, "has used 95 % of its 1000 inodes", answers={"space:docker": room(60 * GIB, 50)}),
    Case("mount.inodes", None, "", answers={"space:docker": replace(WELL, inodes=0, inodes_free=0)}),
    Case("mount.overlay", OK, "a trial overlay in /var/lib/docker worked"),
    Case("mount.overlay", CRITICAL, "no d_type", answers={"overlay:docker": [RpinfsError("no d_type")]}),
    Case("mount.overlay", UNKNOWN, "died without an answer", answers={
        "overlay:docker": RpinfsError("the process that asked died without an answer")}),
    Case("mount.overlay", UNKNOWN, "no answer within", answers={"overlay:docker": SILENCE}),
    Case("mount.overlay", None, "", "[Image docker]\nBefore=\n"),
    Case("mount.overlay", None, "", answers={"overlay:docker": NotAskedError("that is not image docker")}),
    Case("mount.hidden", OK, "nothing is hidden under /nfs/docker, /var/lib/docker"),
    Case("mount.hidden", WARNING, "/nfs/docker hides 1 file with 8 KiB (a.img 8 KiB); /var/lib/docker hides at least"
        " 70000 files with 1 GiB (overlay2 1 GiB, image 0 bytes)", answers={"hidden": [
        Hidden("/nfs/docker", "/", 1, 8192, (("a.img", 8192),), True),
        Hidden("/var/lib/docker", "/", 70000, GIB, (("overlay2", GIB), ("image", 0)), False)]}),
    Case("mount.hidden", UNKNOWN, "not all that lies under the mount points was seen", answers={"hidden": [
        Hidden("/nfs/docker", "/", 0, 0, (), False)]}),
    Case("mount.hidden", UNKNOWN, "no answer within", answers={"hidden": SILENCE}),
    Case("mount.hidden", None, "", answers={"hidden": []}),
]  # fmt: skip


def test_case(case: Case, judged: Judged) -> None:
    assert_judged(case, judged(case))
