"""When something is called full."""

from __future__ import annotations

import pytest

from rpinfs.system.fullness import grade, grade_of_share

GIB = 1 << 30


@pytest.mark.parametrize(("percent", "grave"), [(0, 0), (89.9, 0), (90, 1), (96.9, 1), (97, 2), (100, 2)])
def test_what_is_full(percent: float, grave: int) -> None:
    assert grade(percent) == grave
    assert grade_of_share(1000, 1000 - int(10 * percent)) == grave


@pytest.mark.parametrize(
    ("size", "available", "grave"),
    [(10_000 * GIB, 100 * GIB, 0), (10_000 * GIB, 100 * GIB - 1, 2), (500 * GIB, 50 * GIB, 1), (0, 0, 0), (1, 0, 2)],
)
def test_a_large_share_has_room_enough_where_100_gib_are_free(size: int, available: int, grave: int) -> None:
    """One whose size is not told is not full."""
    assert grade_of_share(size, available) == grave
