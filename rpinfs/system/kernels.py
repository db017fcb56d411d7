"""Kernels that are known to damage or stall what rpinfs is made of: NFS, loop devices, ext4, overlayfs.

A row has a source that says so; what is only suspected is not in the table.
"""

from __future__ import annotations

import re

from rpinfs.boot.values import dataclass

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Regression:
    """One fault of the kernel.

    Attributes:
        first, last: the versions that are known to have it, both included.
        harm: what it does, as the end of a sentence.
        loses_data: whether it does worse than to stall.
        source: where it is reported and explained.
    """

    first: Version
    last: Version
    harm: str
    loses_data: bool
    source: str


REGRESSIONS = (
    Regression(
        (6, 1, 64),
        (6, 1, 65),
        "writes data of programs that use O_DIRECT and O_SYNC to the wrong place of a file on ext4",
        True,
        "https://bugs.debian.org/1057843",
    ),
    Regression(
        (6, 11, 0),
        (6, 11, 10),
        "reads ahead without bounds on NFS, until mounts hang (not responding, still trying)",
        False,
        # Bisected on linux-fsdevel, "Regression in NFS probably due to very large amounts of readahead", November 2024.
        "https://github.com/coreos/fedora-coreos-tracker/issues/1841",
    ),
)


def version_of(release: str, build: str) -> Version | None:
    """The version of the kernel's source, from /proc/sys/kernel/osrelease and /proc/sys/kernel/version.

    Debian's release is the name of an interface, 6.1.0-14-amd64; the version stands in the build: Debian 6.1.64-1.
    """
    found = re.search(r"Debian (?:\d+:)?(\d+)\.(\d+)\.(\d+)", build) or re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if found is None:
        return None
    major, minor, patch = (int(number or 0) for number in found.groups())
    return major, minor, patch


def regressions_of(version: Version) -> list[Regression]:
    """The rows that a version is in."""
    return [row for row in REGRESSIONS if row.first <= version <= row.last]


def text_of(version: Version) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))
