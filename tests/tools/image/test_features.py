"""Real file systems with features that few or no programs know: what is used, what is refused, and in which words."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from rpinfs.image.check import check, check_found
from rpinfs.image.errors import ImageError
from rpinfs.image.probe import probe, verify
from tests.tools.conftest import Mount, command
from tests.tools.image.files import XFS_SIZE, fingerprint, sparse, write_at

COMPAT, INCOMPAT, RO_COMPAT = 0x5C, 0x60, 0x64
NOT_DAMAGED = "it is not damaged"


def ext4(path: Path, *features: str) -> Path:
    command("mkfs.ext4", "-q", "-O", ",".join(["^metadata_csum", *features]), sparse(path))
    return path


def set_bit(path: Path, group: int, bit: int) -> None:
    (present,) = struct.unpack("<I", path.read_bytes()[1024 + group : 1028 + group])
    write_at(path, 1024 + group, struct.pack("<I", present | bit))


def xfs(path: Path, *options: str) -> Path:
    command("mkfs.xfs", "-q", *options, sparse(path, XFS_SIZE))
    return path


def set_xfs(path: Path, field: str, bits: int) -> None:
    present = int(command("xfs_db", "-r", "-c", "sb 0", "-c", f"p {field}", path).split("=")[1], 16)
    command("xfs_db", "-x", "-c", "sb 0", "-c", f"write -d {field} {present | bits:#x}", path)


@pytest.mark.root
@pytest.mark.parametrize(
    "feature",
    ["orphan_file", "metadata_csum_seed", "large_dir", "inline_data", "ea_inode", "stable_inodes", "casefold"],
)
def test_what_the_kernel_mounts_is_used(tmp_path: Path, mounted: Mount, feature: str) -> None:
    """The kernel is the judge: what it mounts is verified, what it refuses is named."""
    path = tmp_path / "disk.img"
    command("mkfs.ext4", "-q", "-O", f"metadata_csum,{feature}", sparse(path))
    found = probe(str(path))
    check_found(found)
    try:
        verify(found)
    except ImageError as error:
        assert f"this kernel cannot mount it: feature {feature}, which it was built without" in error.message
        assert NOT_DAMAGED in (error.remedy or "")
        with pytest.raises(AssertionError), mounted("-o", "loop", path):
            pass
    else:
        with mounted("-o", "loop", path) as folder:
            (folder / "file").write_text("data")


@pytest.mark.root
@pytest.mark.parametrize("options", [("-m", "bigtime=1,inobtcount=1"), ("-i", "nrext64=1"), ("-m", "rmapbt=1,crc=1")])
def test_what_the_kernel_mounts_of_xfs_is_used(tmp_path: Path, mounted: Mount, options: tuple[str, ...]) -> None:
    path = xfs(tmp_path / "disk.img", *options)
    verify(probe(str(path)))
    check(str(path))
    with mounted("-o", "loop", path) as folder:
        (folder / "file").write_text("data")


@pytest.mark.root
@pytest.mark.parametrize(
    ("group", "bit", "words"),
    [
        (INCOMPAT, 1 << 31, "feature incompat 0x80000000"),
        (INCOMPAT, 0x1000, "feature dirdata"),
        (RO_COMPAT, 1 << 30, "feature ro_compat 0x40000000"),
        (RO_COMPAT, 0x4000, "feature shared_blocks"),
    ],
)
def test_what_no_kernel_knows_is_named_and_untouched(
    tmp_path: Path, mounted: Mount, group: int, bit: int, words: str
) -> None:
    path = ext4(tmp_path / "disk.img")
    set_bit(path, group, bit)
    before = fingerprint(path)
    with pytest.raises(ImageError) as refused:
        check(str(path))
    assert refused.value.message == f"{path}: this kernel cannot mount it: {words}"
    assert refused.value.remedy == (
        f"{NOT_DAMAGED}: use a kernel that knows them (this is {os.uname().release}), or set another File="
    )
    with pytest.raises(AssertionError), mounted("-o", "loop", path):
        pass
    assert fingerprint(path) == before


@pytest.mark.parametrize(
    ("group", "bit", "words"),
    [(COMPAT, 1 << 17, "FEATURE_C17"), (INCOMPAT, 1 << 19, "FEATURE_I19"), (RO_COMPAT, 1 << 17, "FEATURE_R17")],
)
def test_what_e2fsck_does_not_know_is_no_damage(tmp_path: Path, group: int, bit: int, words: str) -> None:
    """The kernel mounts the first of them: only e2fsck is too old for it."""
    path = ext4(tmp_path / "disk.img")
    set_bit(path, group, bit)
    with pytest.raises(ImageError) as refused:
        check_found(probe(str(path)))
    assert refused.value.message == f"{path}: this e2fsck does not know all features of its file system: {words}"
    assert refused.value.remedy and refused.value.remedy.startswith(
        f"{NOT_DAMAGED} by that: install a newer e2fsprogs (this is 1."
    )


@pytest.mark.parametrize(("field", "group"), [("features_incompat", "incompat"), ("features_ro_compat", "ro_compat")])
def test_what_xfs_programs_do_not_know_is_no_damage(tmp_path: Path, field: str, group: str) -> None:
    path = xfs(tmp_path / "disk.img")
    set_xfs(path, field, 0x40000000)
    found = probe(str(path))
    with pytest.raises(ImageError) as refused:
        verify(found)
    assert refused.value.message == f"{path}: this kernel cannot mount it: feature {group} 0x40000000"
    assert NOT_DAMAGED in (refused.value.remedy or "")
    with pytest.raises(ImageError) as refused:
        check_found(found)
    assert refused.value.message == (
        f"{path}: this xfs_repair does not know all features of its file system: {group} 0x40000000"
    )
    assert NOT_DAMAGED in (refused.value.remedy or "")


def test_an_xfs_that_is_marked_to_be_repaired(tmp_path: Path) -> None:
    path = xfs(tmp_path / "disk.img")
    set_xfs(path, "features_incompat", 0x10)
    with pytest.raises(ImageError, match="this kernel cannot mount it: it is marked as one to be repaired") as refused:
        verify(probe(str(path)))
    assert refused.value.remedy == f"make a copy if you can, then: xfs_repair -f {path}"
    command("sh", "-c", refused.value.remedy.partition("then: ")[2])
    verify(probe(str(path)))


def test_an_old_xfs_says_nothing_of_features(tmp_path: Path) -> None:
    """Version 4 has other things where newer ones have their features."""
    path = xfs(tmp_path / "disk.img", "-m", "crc=0")
    verify(probe(str(path)))
