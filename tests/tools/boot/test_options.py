"""The kernel's own lists of mount options, of ext4 and xfs, against ours: what we take it takes, and the other way."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from rpinfs.boot import options
from tests.tools.conftest import command

pytestmark = pytest.mark.root

SET_FLAG, SET_STRING = 0, 1
VALUES = {
    "data": "ordered", "data_err": "abort", "dax": "never", "errors": "remount-ro", "grpjquota": "aquota.group",
    "jqfmt": "vfsv0", "journal_path": "/dev/null", "usrjquota": "aquota.user", "allocsize": "64k", "logbsize": "32k",
    "resuid": "0", "resgid": "0", "debug_want_extra_isize": "32",
}  # fmt: skip
BY_VERSION = {
    "lifetime", "nolifetime", "max_open_zones", "max_atomic_write",
    # Of a kernel that is built for it, and of some versions alone.
    "inlinecrypt", "journal_path", "dax", "user_xattr", "attr2", "noattr2", "ikeep", "noikeep",
    "prefetch_block_bitmaps", "nouid32", "noacl", "minixdf", "bsddf",
}  # fmt: skip
"""Options that not every kernel has."""


def kernel_takes(filesystem: str, option: str) -> bool:
    """Whether the parser of the running kernel takes an option; nothing is mounted."""
    libc = ctypes.CDLL(None, use_errno=True)
    context = libc.fsopen(filesystem.encode(), 1)
    assert context >= 0, os.strerror(ctypes.get_errno())
    try:
        name, equals, value = option.partition("=")
        given = (SET_STRING, name.encode(), value.encode()) if equals else (SET_FLAG, name.encode(), None)
        return bool(libc.fsconfig(context, *given, 0) == 0)
    finally:
        os.close(context)


def written(alone: frozenset[str], with_value: frozenset[str]) -> list[str]:
    return [*sorted(alone), *(f"{name}={VALUES.get(name, '1')}" for name in sorted(with_value))]


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_what_we_take_the_kernel_takes(filesystem: str) -> None:
    ours = written(*options._FILE_SYSTEMS[filesystem])
    refused = [option for option in ours if not kernel_takes(filesystem, option)]
    assert [option for option in refused if option.partition("=")[0] not in BY_VERSION] == []


@pytest.mark.parametrize(("filesystem", "other"), [("ext4", "xfs"), ("xfs", "ext4")])
def test_what_is_the_others_alone_the_kernel_refuses(filesystem: str, other: str) -> None:
    theirs = [option for option in written(*options._FILE_SYSTEMS[other]) if not options._takes(option, filesystem)]
    assert len(theirs) > 15
    assert [option for option in theirs if kernel_takes(filesystem, option)] == []


@pytest.mark.parametrize("option", sorted(options._ALL - {"defaults", "loud", "nosymfollow"}))
def test_what_all_file_systems_take_mount_takes(option: str, tmp_path: Path) -> None:
    """By mount(8), which knows most of them itself."""
    command("mount", "-t", "tmpfs", "-o", option, "tmpfs", tmp_path)
    command("umount", tmp_path)


@pytest.mark.parametrize(
    ("filesystem", "option"), [("ext4", "pquota"), ("ext4", "nouuid"), ("xfs", "acl"), ("xfs", "commit=5")]
)
def test_a_real_mount_fails_by_it(filesystem: str, option: str, tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.touch()
    os.truncate(file, 300 << 20)
    command(f"mkfs.{filesystem}", "-q", file)
    where = tmp_path / "where"
    where.mkdir()
    with pytest.raises(AssertionError):
        command("mount", "-o", f"loop,{option}", file, where)
    assert options.against_file_system([option], filesystem)
    command("mount", "-o", "loop,noatime,discard", file, where)
    command("umount", where)
    assert options.against_file_system(["noatime", "discard"], filesystem) == ""
