"""The machines that commands look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import make_pi, make_tree


@pytest.fixture
def pi(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Pi with an empty configuration, on which nothing is mounted; the commands look at it."""
    monkeypatch.setenv("RPINFS_ROOT", str(root))
    return make_pi(root)


@pytest.fixture
def other(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which rpinfs is not in use."""
    monkeypatch.setenv("RPINFS_ROOT", str(root))
    return make_tree(root, {"proc/cmdline": "root=/dev/sda1\n"})
