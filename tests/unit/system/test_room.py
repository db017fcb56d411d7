"""What holds for every module of the room."""

from __future__ import annotations

from tests.unit.values import changeable


def test_everything_that_is_told_is_a_value() -> None:
    assert changeable("system") == set()
