"""From where on something is called full: one pair of limits for all file systems, one exception for a large NAS."""

from __future__ import annotations

from rpinfs.boot.settings import GIB

FULL = (90.0, 97.0)
"""Percent from which a file system is a warning, and from which it is critical."""

ENOUGH_ROOM = 100 * GIB
"""Bytes. A share with so much room is not full, whatever part of a large NAS that is."""


def grade(percent: float) -> int:
    """How grave it is to be so full: 0 not at all, 1 a warning, 2 critical."""
    return sum(percent >= limit for limit in FULL)


def grade_of_share(size: int, available: int) -> int:
    """Likewise for a share; bytes."""
    return 0 if available >= ENOUGH_ROOM or not size else grade(100.0 * (size - available) / size)
