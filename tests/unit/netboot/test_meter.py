"""What somebody sees who waits for a copy."""

from __future__ import annotations

import time

import pytest

from rpinfs.netboot.add.meter import Meter, line

GIB = 1 << 30


def test_a_line_at_the_beginning_and_then_five_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.1, 100.2, 100.3, 100.5, 102.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    told: list[str] = []
    meter = Meter(told.append, "copying", 4 * GIB)
    for done in (1, 2, 3, 4, 5):
        meter(done * GIB // 2)
    expected = ((0, 0.0), (2, 0.2), (4, 0.5), (5, 2.5))
    assert told == [line("copying", done * GIB // 2, 4 * GIB, seconds) for done, seconds in expected]


@pytest.mark.parametrize(("done", "total", "seconds", "said"), [
    (0, 4 * GIB, 0.0, "copying [                    ] 0 %, 0 bytes of 4 GiB"),
    (GIB, 4 * GIB, 0.9, "copying [#####               ] 25 %, 1 GiB of 4 GiB"),
    (GIB, 4 * GIB, 10.0, "copying [#####               ] 25 %, 1 GiB of 4 GiB, 30 s left"),
    (GIB, 4 * GIB, 29.0, "copying [#####               ] 25 %, 1 GiB of 4 GiB, 87 s left"),
    (GIB, 4 * GIB, 40.0, "copying [#####               ] 25 %, 1 GiB of 4 GiB, 2 min left"),
    (4 * GIB, 4 * GIB, 10.0, "copying [####################] 100 %, 4 GiB of 4 GiB"),
    (5 * GIB, 4 * GIB, 10.0, "copying [####################] 100 %, 4 GiB of 4 GiB"),
    (1 << 20, GIB, 1.0, "copying [                    ] 0 %, 1 MiB of 1 GiB, 17 min left"),
    (GIB, 0, 10.0, "copying: 1 GiB"),
])  # fmt: skip
def test_the_line(done: int, total: int, seconds: float, said: str) -> None:
    assert line("copying", done, total, seconds) == said
