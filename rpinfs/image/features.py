"""Features of file systems that a kernel, or a checking program, may not know: that is no damage. Pure.

Sources: fs/ext4/ext4.h and fs/xfs/libxfs/xfs_format.h of Linux up to 6.15, ext4(5), the release notes of e2fsprogs and
xfsprogs. The versions of xfsprogs follow the kernel's.
"""

import re
from collections.abc import Mapping

Version = tuple[int, int]
"""Of Linux: major and minor."""

# Names of the bits, and the first Linux that mounts what has them read-write; None for none.
_OLD = (3, 0)
Known = Mapping[int, tuple[str, Version | None]]

EXT4_INCOMPAT: Known = {
    0x1: ("compression", None),
    0x2: ("filetype", _OLD),
    0x4: ("needs_recovery", _OLD),
    0x8: ("journal_dev", None),
    0x10: ("meta_bg", _OLD),
    0x40: ("extent", _OLD),
    0x80: ("64bit", _OLD),
    0x100: ("mmp", _OLD),
    0x200: ("flex_bg", _OLD),
    0x400: ("ea_inode", (4, 13)),
    0x1000: ("dirdata", None),
    0x2000: ("metadata_csum_seed", (4, 4)),
    0x4000: ("large_dir", (4, 13)),
    0x8000: ("inline_data", (3, 8)),
    0x10000: ("encrypt", (4, 1)),
    0x20000: ("casefold", (5, 2)),
}
EXT4_RO_COMPAT: Known = {
    0x1: ("sparse_super", _OLD),
    0x2: ("large_file", _OLD),
    0x4: ("btree_dir", _OLD),
    0x8: ("huge_file", _OLD),
    0x10: ("uninit_bg", _OLD),
    0x20: ("dir_nlink", _OLD),
    0x40: ("extra_isize", _OLD),
    0x80: ("has_snapshot", None),
    0x100: ("quota", (3, 6)),
    0x200: ("bigalloc", (3, 2)),
    0x400: ("metadata_csum", (3, 5)),
    0x800: ("replica", None),
    0x1000: ("read-only", None),
    0x2000: ("project", (4, 5)),
    0x4000: ("shared_blocks", None),
    0x8000: ("verity", (5, 4)),
    0x10000: ("orphan_present", (5, 15)),
}
CASEFOLD = 0x20000
XFS_INCOMPAT: Known = {
    0x1: ("ftype", (3, 10)),
    0x2: ("sparse", (4, 2)),
    0x4: ("meta_uuid", (4, 3)),
    0x8: ("bigtime", (5, 10)),
    # Not a format but a mark, see superblock.py.
    0x10: ("needsrepair", _OLD),
    0x20: ("nrext64", (5, 19)),
    0x40: ("exchange", (6, 10)),
    0x80: ("parent", (6, 10)),
    0x100: ("metadir", (6, 13)),
    0x200: ("zoned", (6, 15)),
    0x400: ("zone_gaps", (6, 15)),
}
XFS_RO_COMPAT: Known = {
    0x1: ("finobt", (3, 16)),
    0x2: ("rmapbt", (4, 8)),
    0x4: ("reflink", (4, 9)),
    0x8: ("inobtcount", (5, 10)),
}

# What e2fsck calls features that it does not know: of the groups compat, incompat and ro_compat, the number of the bit.
_E2FSCK_NAMES = re.compile(r"FEATURE_([CIR])(\d+)")
# Of those that people meet, the first e2fsprogs that knows them.
_EXT4_COMPAT: Mapping[int, str] = {0x400: "fast_commit", 0x800: "stable_inodes", 0x1000: "orphan_file"}
_E2FSPROGS = {"fast_commit": "1.46.0", "orphan_file": "1.47.0", "orphan_present": "1.47.0"}


def linux_version(release: str) -> Version | None:
    """Major and minor of what uname(2) calls the release; None where it is no number."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else None


def lacking(group: str, bits: int, known: Known, linux: Version | None) -> list[str]:
    """What of a group of features this Linux does not know, in words.

    Args:
        group: "incompat" or "ro_compat".
        linux: None where its version cannot be told; then it is taken for a new one.
    """
    words = []
    for bit in _single(bits):
        name, since = known.get(bit, (f"{group} {bit:#x}", None))
        if since is None:
            words.append(f"feature {name}")
        elif linux is not None and linux < since:
            words.append(f"feature {name}, which needs Linux {since[0]}.{since[1]}")
    return words


def _single(bits: int) -> list[int]:
    return [1 << position for position in range(32) if bits >> position & 1]


def unknown_to_e2fsck(output: str) -> str:
    """The features that e2fsck says it does not know, in words with the version that does; empty for none."""
    found = re.search(r"has unsupported feature\(s\):(.*)", output)
    return ", ".join(_named_by_e2fsck(word) for word in found[1].split()) if found else ""


def _named_by_e2fsck(word: str) -> str:
    match = _E2FSCK_NAMES.fullmatch(word)
    if match is None:
        return word
    bit = 1 << min(int(match[2]), 31)
    if match[1] == "C":
        name = _EXT4_COMPAT.get(bit, word)
    else:
        name = (EXT4_INCOMPAT if match[1] == "I" else EXT4_RO_COMPAT).get(bit, (word, None))[0]
    return f"{name} (known from e2fsprogs {_E2FSPROGS[name]} on)" if name in _E2FSPROGS else name


def unknown_to_xfs_repair(output: str) -> str:
    """The features that xfs_repair says it does not know, in words with the version that does; empty for none."""
    found = re.search(
        r"unknown compat/rocompat/incompat features \((0x[0-9a-f]+)/(0x[0-9a-f]+)/(0x[0-9a-f]+)\)", output
    )
    if found is None:
        return ""
    compat, ro_compat, incompat = (int(number, 16) for number in found.groups())
    groups: tuple[tuple[str, int, Known], ...] = (
        ("compat", compat, {}),
        ("ro_compat", ro_compat, XFS_RO_COMPAT),
        ("incompat", incompat, XFS_INCOMPAT),
    )
    words = []
    for group, bits, known in groups:
        for bit in _single(bits):
            name, since = known.get(bit, (f"{group} {bit:#x}", None))
            words.append(f"{name} (known from xfsprogs {since[0]}.{since[1]} on)" if since else name)
    return ", ".join(words)
