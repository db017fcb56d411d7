"""What an unknown word was meant to be; whole messages stand in test_wrong_values.py."""

from __future__ import annotations

import pytest

from rpinfs.boot.suggest import distance


@pytest.mark.parametrize(
    ("left", "right", "steps"),
    [
        ("", "", 0),
        ("abc", "abc", 0),
        ("", "abc", 3),
        ("adress", "address", 1),
        ("kitten", "sitting", 3),
        ("ab", "ba", 2),
    ],
)
def test_distance(left: str, right: str, steps: int) -> None:
    assert distance(left, right) == distance(right, left) == steps
