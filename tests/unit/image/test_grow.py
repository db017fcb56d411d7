"""How a file system is grown that is not mounted: the command line, to the letter. What it does: tests/tools."""

from __future__ import annotations

import pytest

from rpinfs.image import grow
from rpinfs.image.probe import Kind, Probe

PRIVATE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
MOUNT = 'mount -n -t "$1" -o "$2" "$3" "$4" && shift 4 && exec "$@"'
SAFE = "nosuid,nodev,noexec,noatime"


@pytest.mark.parametrize(
    ("kind", "blank", "options", "resize"),
    [
        # What was a hole a moment ago needs no zeros; what was written to does: ext4 takes it for its inodes.
        (Kind.EXT4, True, f"{SAFE},noinit_itable", ["resize2fs", "/dev/loop7", "1048576K"]),
        (Kind.EXT4, False, SAFE, ["resize2fs", "/dev/loop7", "1048576K"]),
        # Its copy may be mounted, with the same identity.
        (Kind.XFS, True, f"{SAFE},nouuid", ["xfs_growfs", "-D", "262144", "/mnt"]),
        (Kind.XFS, False, f"{SAFE},nouuid", ["xfs_growfs", "-D", "262144", "/mnt"]),
    ],
)
def test_the_command_that_grows_in_private(kind: Kind, blank: bool, options: str, resize: list[str]) -> None:
    found = Probe("/nfs/docker/x.img", kind, "x", block_size=4096)
    made = grow._private_command(found, "/dev/loop7", 1 << 30, new_end_is_blank=blank)
    assert made == [*PRIVATE, MOUNT, "sh", kind.value, options, "/dev/loop7", "/mnt", *resize]
