"""Checks of the share: what each says of a machine that is well, and of one that is not."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from rpinfs.health.checks.share import LEAST_ROOM
from rpinfs.health.facts import File, Files
from rpinfs.system.fullness import ENOUGH_ROOM
from tests.support import DOCKER_FILE
from tests.unit.health.pi import (
    BOOT_LINE,
    CRITICAL,
    GIB,
    NAS,
    OK,
    SHARE_LINE,
    SILENCE,
    UNKNOWN,
    WARNING,
    WELL,
    Case,
    Judged,
    assert_judged,
    mountinfo,
    room,
)

CASES = [
    Case("share.mounted", CRITICAL, f"{NAS}:/docker is not mounted at /nfs/docker", files=mountinfo(BOOT_LINE)),
    Case("share.mounted", CRITICAL, "/dev/sda (ext4) is mounted there", files=mountinfo(
        "31 20 8:0 / /nfs/docker rw - ext4 /dev/sda rw\n")),
    Case("share.mounted", WARNING, "is mounted from other:/docker, the configuration says", files=mountinfo(
        SHARE_LINE.replace(f"{NAS}:/docker", "other:/docker"))),
    Case("share.mounted", CRITICAL, "mounted read-only", files=mountinfo(SHARE_LINE.replace(" rw", " ro"))),
    Case("share.options", CRITICAL, "mounted soft", files=mountinfo(SHARE_LINE.replace("hard", "soft"))),
    Case("share.options", WARNING, "with NFS 3, the configuration says 4.1", files=mountinfo(
        SHARE_LINE.replace("4.1", "3"))),
    Case("share.options", None, "", files=mountinfo(BOOT_LINE)),
    Case("share.options", CRITICAL, "mounted over UDP", files=mountinfo(SHARE_LINE.replace("hard", "hard,proto=udp"))),
    Case("share.answers", CRITICAL, "/nfs/docker gave no answer within 1.4 s", answers={"share": SILENCE}),
    Case("share.answers", CRITICAL, "/nfs/docker fails: Stale file handle", answers={
        "share": OSError(errno.ESTALE, os.strerror(errno.ESTALE))}),
    Case("share.answers", CRITICAL, "/nfs/docker: no folder can be opened: Remote I/O error", answers={
        "files": OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))}),
    Case("share.answers", CRITICAL, "/nfs/docker fails: Remote I/O error", answers={
        "share": OSError(errno.EREMOTEIO, os.strerror(errno.EREMOTEIO))}),
    Case("share.answers", WARNING, "answers slowly, in 800 ms", answers={"share": replace(WELL, seconds=0.8)}),
    Case("share.answers", OK, "answers in 500 ms", answers={"share": replace(WELL, seconds=0.5)}),
    Case("share.answers", None, "", files=mountinfo(BOOT_LINE)),
    Case("share.space", WARNING, "8 GiB of 100 GiB free", answers={"share": room(8 * GIB)}),
    Case("share.space", CRITICAL, "2 GiB of 100 GiB free", answers={"share": room(2 * GIB)}),
    Case("share.space", OK, "100 GiB of 10 TiB free", answers={
        "share": replace(WELL, size=10 << 40, available=ENOUGH_ROOM)}),
    Case("share.space", CRITICAL, "of 10 TiB free", answers={
        "share": replace(WELL, size=10 << 40, available=ENOUGH_ROOM - 1)}),
    Case("share.space", UNKNOWN, "no answer within 1.4 s", answers={"share": SILENCE}),
    Case("image.fits-share", OK, "may still grow by 9 GiB, and 60 GiB are free"),
    Case("image.fits-share", OK, "and 60 GiB are free (of more than 1 files)", answers={
        "files": Files({DOCKER_FILE: File(10 * GIB, GIB)}, complete=False)}),
    # What takes more than its length, by blocks of the NAS, makes no room for others.
    Case("image.fits-share", OK, "may still grow by 9 GiB, and 60 GiB are free", answers={
        "files": Files({DOCKER_FILE: File(10 * GIB, GIB), "full.img": File(GIB, 2 * GIB)}, complete=True)}),
    Case("image.fits-share", OK, "may still grow by 9 GiB, and 9 GiB are free", answers={"share": room(9 * GIB)}),
    Case("image.fits-share", WARNING, "may still grow by 108 GiB, and 60 GiB are free", answers={
        "files": Files({DOCKER_FILE: File(10 * GIB, GIB), "other.img": File(99 * GIB, 0)}, complete=True)}),
    # As long as their image, and nobody writes to them: only what is an image can grow.
    Case("image.fits-share", OK, "may still grow by 9 GiB, and 60 GiB are free", answers={
        "files": Files({
            DOCKER_FILE: File(10 * GIB, GIB),
            f"{DOCKER_FILE}.snapshot-20261122T201500Z": File(60 * GIB, GIB),
            f"{DOCKER_FILE}.replaced": File(60 * GIB, GIB),
            f".{DOCKER_FILE}.rpinfs-new-0123456789abcdef": File(60 * GIB, 0),
        }, complete=True)}),
    Case("image.fits-share", WARNING, "may still grow by 9 GiB, and 5 GiB are free", answers={
        "share": room(LEAST_ROOM)}),
    Case("image.fits-share", CRITICAL, "may still grow by 9 GiB, and 4 GiB are free", answers={
        "share": room(LEAST_ROOM - GIB)}),
    Case("image.fits-share", OK, "may still grow by 1 GiB, and 4 GiB are free", answers={
        "share": room(4 * GIB), "image:docker": File(10 * GIB, 9 * GIB)}),
]  # fmt: skip


def test_case(case: Case, judged: Judged) -> None:
    assert_judged(case, judged(case))


def test_a_share_all_of_whose_files_were_seen(judged: Judged) -> None:
    result = judged(Case("image.fits-share", OK, ""))
    assert result and result.message.endswith("60 GiB are free")
