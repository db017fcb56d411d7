"""Fixtures for all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import hypothesis
import pytest

from tests.support import Installed

# A test that is slow on a busy machine is not wrong.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start as well: the programs
# under test must get it, or the tests of it wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    """What moves rpinfs into another world must not come from whoever runs the tests."""
    for name in ("RPINFS_ROOT", "SYSTEMD_PROC_CMDLINE", "SYSTEMD_VIRTUALIZATION", "SYSTEMD_SCOPE", "SYSTEMD_IN_INITRD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """rpinfs with its two programs in a folder of its own."""
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder to make a machine of."""
    path = tmp_path / "root"
    path.mkdir()
    return path
