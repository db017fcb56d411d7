"""Runs in a booted container of test_remedies.py, as remedied.py: images that are none, damaged, or not as configured.

What has the name of the image is whole afterwards, whatever it was, and so is the image itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from tests.package import guarded, remedied
    from tests.package.remedied import image, mended, of_check, of_command, of_refusal, paste, start_all, stop_all
else:
    import guarded
    import remedied
    from remedied import image, mended, of_check, of_command, of_refusal, paste, start_all, stop_all


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def set_to(key: str, value: str) -> None:
    """Set a key of [Image docker]; an empty value takes it out."""
    kept = [line for line in guarded.CONFIG.read_text().splitlines() if not line.startswith(f"{key}=")]
    guarded.CONFIG.write_text("\n".join([*kept, *([f"{key}={value}"] if value else [])]) + "\n")


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """The image has another name, and nothing is remembered of it; at the end it is back, and Docker runs on it."""
    stop_all()
    guarded.run("rpinfs", "release", "docker")
    kept = image().with_suffix(".aside")
    image().rename(kept)
    try:
        yield
    finally:
        stop_all()
        image().unlink(missing_ok=True)
        kept.rename(image())
        guarded.run("rpinfs", "adopt", "docker", "--now")
        start_all()
        guarded.wait(guarded.whole)


def records() -> guarded.Facts:
    return remedied.records()


# What has the name of the image is none of ours


def foreign() -> guarded.Facts:
    """Twice: what was moved away first is not what the second one replaces."""
    with aside():
        facts: guarded.Facts = {}
        hashes = []
        for _ in range(2):
            stop_all()
            image().unlink(missing_ok=True)
            image().write_bytes(os.urandom(1 << 20))
            hashes.append(hash_of(image()))
            guarded.run("rpinfs", "release", "docker")
            start_all()
            facts = mended_elsewhere(of_refusal("expected an ext4 or xfs file system"), remedied.is_usable)
        there = [hash_of(path) for path in image().parent.glob(f"{image().name}.kept*")]
        for path in image().parent.glob(f"{image().name}.kept*"):
            path.unlink()
    whole = sorted(there) == sorted(hashes) and remedied.are_whole()
    return {**facts, "whole": whole, "there": len(there)}


def foreign_where_one_was_verified() -> guarded.Facts:
    stop_all()
    kept = image().with_suffix(".aside")
    image().rename(kept)
    image().write_bytes(os.urandom(1 << 20))
    before = hash_of(image())
    start_all()
    remedy = of_refusal("expected file system")
    moved = image().with_suffix(".moved")
    image().rename(moved)
    facts = mended_elsewhere(remedy, remedied.is_usable)
    stop_all()
    image().unlink()
    kept.rename(image())
    guarded.run("rpinfs", "adopt", "docker")
    start_all()
    guarded.wait(guarded.whole)
    return {**facts, "whole": hash_of(moved) == before and remedied.are_whole()}


def mended_elsewhere(remedy: str, gone: Callable[[], bool]) -> guarded.Facts:
    """As mended(), of another image than the one with the records."""
    said = paste(remedy)
    deadline = time.monotonic() + guarded.SECONDS
    while not (so := gone()) and time.monotonic() < deadline:
        time.sleep(0.2)
    facts: guarded.Facts = {"remedy": remedy, "said": said, "gone": so}
    return facts if so else {**facts, "log": guarded.run("journalctl", "--no-pager", "-b", "-n", "60")}


# File systems


def xfs() -> None:
    """An image of xfs with records of its own, made and filled by hand."""
    guarded.run("truncate", "--size", "320M", str(image()))
    guarded.run("mkfs.xfs", "-q", "-f", str(image()))
    guarded.run("mount", "-o", "loop", str(image()), "/mnt")
    remedied.write_records(Path("/mnt/records"))
    guarded.run("umount", "/mnt")


def xfs_is_whole() -> bool:
    guarded.run("mount", "-o", "loop,ro", str(image()), "/mnt")
    try:
        return remedied.are_whole(Path("/mnt/records"))
    finally:
        guarded.run("umount", "/mnt")


def xfs_db(*commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["xfs_db", "-x", *words, image()], check=True, capture_output=True)


def damaged_xfs() -> guarded.Facts:
    """Its count of free blocks is wrong: nothing that a mount puts right."""
    with aside():
        xfs()
        xfs_db("agf 0", "write -d freeblks 10001")
        check = ("rpinfs", "image", "check", str(image()))

        def is_right() -> bool:
            return subprocess.run(check, capture_output=True, check=False).returncode == 0

        assert not is_right()
        facts = mended_elsewhere(of_command(*check), is_right)
        whole = xfs_is_whole()
    return {**facts, "whole": whole and remedied.are_whole()}


def marked_xfs() -> guarded.Facts:
    """As xfs_admin leaves it when it is killed: no kernel mounts it before it was repaired."""
    with aside():
        xfs()
        said = guarded.run("xfs_db", "-c", "sb 0", "-c", "print features_incompat", str(image()))
        features = int(said.split()[-1], 16)
        xfs_db("sb 0", f"write -d features_incompat {features | 0x10:#x}")
        set_to("Size", "")
        start_all()
        facts = mended_elsewhere(of_refusal("cannot mount it"), remedied.is_usable)
        stop_all()
        whole = xfs_is_whole()
        set_to("Size", "64M")
    return {**facts, "whole": whole and remedied.are_whole()}


def not_as_configured() -> guarded.Facts:
    """An image of xfs, and a configuration that wants another size, another file system, and a fence of ext4's."""
    remedies, facts = [], []
    with aside():
        xfs()
        for key, value in (("Size", "64M"), ("FileSystem", "ext4"), ("Fence", "both")):
            set_to(key, value)
            start_all()
            remedies.append(of_refusal(f"{key}="))
            set_to(*setting_in(remedies[-1]))
            facts.append(mended_elsewhere(remedies[-1], remedied.is_usable))
            stop_all()
            # With FileSystem=xfs, Fence=both is a wrong configuration already.
            set_to("FileSystem", "")
        whole = xfs_is_whole()
        set_to("Size", "64M")
        set_to("Fence", "")
    return {
        "remedies": remedies, "each": facts, "gone": all(one["gone"] for one in facts),
        "whole": whole and remedied.are_whole(),
    }  # fmt: skip


def setting_in(remedy: str) -> tuple[str, str]:
    """What a remedy says is to be set."""
    found = re.match(r"set (\w+)=(\S+)", remedy)
    assert found, remedy
    return found[1], found[2]


def xfs_is_wanted() -> guarded.Facts:
    stop_all()
    # One of xfs would have to be larger.
    set_to("Size", "")
    set_to("FileSystem", "xfs")
    start_all()
    remedy = of_refusal("FileSystem= asks for xfs")
    set_to(*setting_in(remedy))
    facts = mended(remedy, remedied.is_usable)
    set_to("FileSystem", "")
    set_to("Size", "64M")
    return facts


def unclean() -> guarded.Facts:
    """Not unmounted in order, and nobody has looked at it since."""
    stop_all()
    guarded.run("debugfs", "-w", "-R", "ssv state 0", str(image()))
    return mended(of_check("image.clean"), remedied.is_usable)


def mark_as_checked() -> None:
    """What the power leaves when it goes while e2fsck is at work (EXT4_MMP_SEQ_FSCK)."""
    said = guarded.run("dumpe2fs", "-h", str(image()))
    number = int(re.findall(r"MMP block number: *(\d+)", said)[0])
    with image().open("r+b") as file:
        file.seek(number * 4096 + 4)
        file.write(0xE24D4D50.to_bytes(4, "little"))
        os.fsync(file.fileno())


def check_was_cut_short() -> guarded.Facts:
    """Its multi-mount protection says that e2fsck is at work, and nothing tells that it is not."""
    stop_all()
    # With checksums, e2fsck -p takes the mark below for a block that is damaged.
    guarded.run("e2fsck", "-f", "-p", str(image()))
    guarded.run("tune2fs", "-O", "^metadata_csum", str(image()))
    guarded.run("tune2fs", "-O", "mmp", str(image()))
    check = ("rpinfs", "image", "check", str(image()))
    mark_as_checked()
    by_hand = of_command(*check)
    facts = mended(by_hand, lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0)
    stop_all()
    mark_as_checked()
    set_to("Fence", "mmp")
    start_all()
    by_agent = of_refusal("was cut short")
    more = mended(by_agent, remedied.is_usable)
    stop_all()
    set_to("Fence", "")
    guarded.run("tune2fs", "-O", "^mmp", str(image()))
    start_all()
    guarded.wait(guarded.whole)
    return {
        **facts, "remedies": [by_hand, by_agent], "more": more, "gone": facts["gone"] and more["gone"],
        "whole": facts["whole"] and more["whole"] and remedied.are_whole(),
    }  # fmt: skip


STEPS: list[Callable[[], guarded.Facts]] = [
    records, foreign, foreign_where_one_was_verified, damaged_xfs, marked_xfs, not_as_configured,
    xfs_is_wanted, unclean, check_was_cut_short,
]  # fmt: skip

if __name__ == "__main__":
    guarded.go_through(STEPS) if sys.argv[1] == "drive" else sys.exit(guarded.program(*sys.argv[1:]))
