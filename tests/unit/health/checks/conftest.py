"""Each module of checks has the table CASES; each row is one test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.health.pi import Judged, facts, live, results


@pytest.fixture
def judged(root: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    return lambda case: results(live(facts(root, case.config, case.files, case.answers), monkeypatch)).get(case.name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = metafunc.module.CASES
        metafunc.parametrize("case", cases, ids=[f"{case.name} {case.message or 'nothing'}"[:60] for case in cases])
