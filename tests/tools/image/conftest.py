"""What the tests of images share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.conftest import command
from tests.tools.image.pi import Pi


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path)


@pytest.fixture
def changed(pi: Pi) -> tuple[Pi, Path]:
    """An image and a snapshot of it before it was changed, told apart by their labels."""
    command("e2label", pi.path, "then")
    taken = pi.take()
    command("e2label", pi.path, "now")
    return pi, taken
