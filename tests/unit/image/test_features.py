"""Features that a kernel or a checking program does not know: named, with the version that does."""

from __future__ import annotations

import pytest

from rpinfs.image.features import (
    EXT4_INCOMPAT,
    EXT4_RO_COMPAT,
    XFS_INCOMPAT,
    XFS_RO_COMPAT,
    Known,
    lacking,
    linux_version,
    unknown_to_e2fsck,
    unknown_to_xfs_repair,
)


@pytest.mark.parametrize(
    ("group", "bits", "known", "linux", "expected"),
    [
        ("incompat", 0x2C2, EXT4_INCOMPAT, (6, 1), []),
        ("incompat", 0x3E7D6, EXT4_INCOMPAT, (6, 1), []),
        ("ro_compat", 0x1A77F, EXT4_RO_COMPAT, (6, 1), []),
        ("incompat", 0x20002, EXT4_INCOMPAT, (4, 19), ["feature casefold, which needs Linux 5.2"]),
        ("ro_compat", 0x10000, EXT4_RO_COMPAT, (5, 10), ["feature orphan_present, which needs Linux 5.15"]),
        ("incompat", 0x80001000, EXT4_INCOMPAT, (6, 12), ["feature dirdata", "feature incompat 0x80000000"]),
        ("ro_compat", 0x4000, EXT4_RO_COMPAT, (6, 12), ["feature shared_blocks"]),
        ("incompat", 0x2B, XFS_INCOMPAT, (6, 1), []),
        ("incompat", 0x20, XFS_INCOMPAT, (5, 10), ["feature nrext64, which needs Linux 5.19"]),
        ("incompat", 0x8, XFS_INCOMPAT, (5, 4), ["feature bigtime, which needs Linux 5.10"]),
        (
            "incompat", 0xE0, XFS_INCOMPAT, (6, 6),
            ["feature exchange, which needs Linux 6.10", "feature parent, which needs Linux 6.10"],
        ),
        ("ro_compat", 0xF, XFS_RO_COMPAT, (6, 1), []),
        ("ro_compat", 0x10, XFS_RO_COMPAT, (6, 1), ["feature ro_compat 0x10"]),
        # A version that cannot be told is not taken for an old one.
        ("incompat", 0x180, XFS_INCOMPAT, None, []),
    ],
)  # fmt: skip
def test_what_a_kernel_lacks(
    group: str, bits: int, known: Known, linux: tuple[int, int] | None, expected: list[str]
) -> None:
    assert lacking(group, bits, known, linux) == expected


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.1.0-rpi7-rpi-v8", (6, 1)), ("6.12.34+rpt-rpi-2712", (6, 12)), ("10.0", (10, 0)), ("odd", None), ("", None)],
)
def test_versions(release: str, expected: tuple[int, int] | None) -> None:
    assert linux_version(release) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("x.img: clean", ""),
        ("x.img has unsupported feature(s): FEATURE_I31", "FEATURE_I31"),
        ("x.img has unsupported feature(s): FEATURE_C12", "orphan_file (known from e2fsprogs 1.47.0 on)"),
        (
            "x.img has unsupported feature(s): FEATURE_R16 casefold FEATURE_C17\ne2fsck: Get a newer version!",
            "orphan_present (known from e2fsprogs 1.47.0 on), casefold, FEATURE_C17",
        ),
        ("x.img has unsupported feature(s): FEATURE_I17 FEATURE_C99", "casefold, FEATURE_C99"),
    ],
)
def test_what_e2fsck_says(output: str, expected: str) -> None:
    assert unknown_to_e2fsck(output) == expected


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        ("0x0/0x0/0x40", "exchange (known from xfsprogs 6.10 on)"),
        ("0x1/0x40000000/0x100", "compat 0x1, ro_compat 0x40000000, metadir (known from xfsprogs 6.13 on)"),
    ],
)
def test_what_xfs_repair_says(bits: str, expected: str) -> None:
    line = f"Phase 1\nSuperblock has unknown compat/rocompat/incompat features ({bits}).\nUsing a more recent version"
    assert unknown_to_xfs_repair(line) == expected
    assert unknown_to_xfs_repair("Phase 1 - find and verify superblock") == ""
