"""What of an image is copied: arithmetic of ranges, and what dumpe2fs says."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from rpinfs.image import copying
from rpinfs.image.copying import Range

GAP = copying._GAP

RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=8)


def spread(pairs: list[tuple[int, int]]) -> list[Range]:
    """Sorted ranges in units of a gap that is worth leaving out."""
    return sorted((start * GAP, (start + length) * GAP) for start, length in pairs)


def units(ranges: list[Range]) -> set[int]:
    return {unit for start, end in ranges for unit in range(start // GAP, end // GAP)}


@given(RANGES, RANGES)
def test_nothing_is_lost_and_nothing_copied_twice(data: list[tuple[int, int]], unused: list[tuple[int, int]]) -> None:
    wanted = copying._joined(spread(data))
    left = copying._without(wanted, spread(unused))
    assert units(left) == units(wanted) - units(spread(unused))
    assert left == sorted(left)
    assert all(start < end for start, end in left)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(left))


def test_a_small_gap_is_copied() -> None:
    assert copying._without([(0, 10 * GAP)], [(GAP, 2 * GAP - 1)]) == [(0, 10 * GAP)]


@given(st.lists(st.sampled_from([b"\0", b"x"]), max_size=6), st.integers(0, 100))
def test_zeros_are_left_out(grains: list[bytes], tail: int) -> None:
    data = b"".join(grain * copying._GRAIN for grain in grains) + b"\0" * tail
    copy = bytearray(len(data))
    for start, end in copying._not_zero(memoryview(data)):
        copy[start:end] = data[start:end]
        assert data[start:end].strip(b"\0")
    assert copy == data


DUMP = """\
Filesystem volume name:   <none>
Inodes per group:         8192
Free blocks:              10
Block size:               4096
Inode size:\t          256

Group 0: (Blocks 0-32767) csum 0xb5f0 [ITABLE_ZEROED]
  Primary superblock at 0, Group descriptors at 1-2
  Block bitmap at 1027 (+1027), csum 0x69e39539
  Inode table at 1059-1570 (+1059)
  23511 free blocks, 8179 free inodes, 2 directories, 8179 unused inodes
  Free blocks: 9257, 9300-32767
  Free inodes: 14-8192
Group 1: (Blocks 32768-65535) csum 0xba3e
  Inode table at 1571-2082 (bg #0 + 1571)
  0 free blocks, 0 free inodes, 0 directories
  Free blocks: 
  Free inodes: 
"""  # noqa: W291  dumpe2fs writes it so


def test_what_dumpe2fs_says() -> None:
    blocks = [(start // 4096, end // 4096) for start, end in copying.parse_dumpe2fs(DUMP)]
    assert blocks == [(1060, 1571), (9257, 9258), (9300, 32768)]


def test_what_it_does_not_say_is_used() -> None:
    assert copying.parse_dumpe2fs("") == []
    assert copying.parse_dumpe2fs(DUMP.replace("Block size", "Cluster")) == []
    assert copying.parse_dumpe2fs(DUMP.replace("Inode table", "Inodes")) == []
