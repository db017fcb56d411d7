"""Kernels that are known to be bad: the version of the one that runs, and the table."""

from __future__ import annotations

import pytest

from rpinfs.system.kernels import REGRESSIONS, Version, regressions_of, version_of


@pytest.mark.parametrize(
    ("release", "build", "expected"),
    [
        ("6.1.0-14-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.64-1 (2023-11-30)", (6, 1, 64)),
        ("6.12.47+rpt-rpi-v8", "#1 SMP PREEMPT Debian 1:6.12.47-1+rpt1 (2025-09-16)", (6, 12, 47)),
        ("6.1.63-v8+", "#1706 SMP PREEMPT Mon Nov 27 15:28:12 GMT 2023", (6, 1, 63)),
        ("6.11.0-1004-raspi", "#4-Ubuntu SMP PREEMPT_DYNAMIC", (6, 11, 0)),
        ("6.18", "", (6, 18, 0)),
        ("unknown", "", None),
    ],
)
def test_version(release: str, build: str, expected: Version | None) -> None:
    assert version_of(release, build) == expected


@pytest.mark.parametrize(
    ("version", "number"),
    [((6, 1, 63), 0), ((6, 1, 64), 1), ((6, 1, 65), 1), ((6, 1, 66), 0), ((6, 11, 10), 1), ((6, 12, 47), 0)],
)
def test_first_and_last_are_included(version: Version, number: int) -> None:
    assert len(regressions_of(version)) == number


def test_every_row_has_its_source() -> None:
    for row in REGRESSIONS:
        assert row.first <= row.last
        assert row.source.startswith("https://")


def test_what_loses_data_is_told_from_what_stalls() -> None:
    assert {row.first: row.loses_data for row in REGRESSIONS} == {(6, 1, 64): True, (6, 11, 0): False}
