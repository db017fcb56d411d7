"""The package under test: the one that make has built, or one that is built here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.parameters import EACH_RELEASE

TREE = Path(__file__).resolve().parent.parent.parent


def make_deb(folder: Path, tree: Path = TREE) -> Path:
    """Build the package as `make deb` does, into a folder."""
    done = subprocess.run(
        ["make", "-C", str(tree), "deb", f"DIST={folder}"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (deb,) = folder.glob("rpinfs_*_all.deb")
    return deb


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("RPINFS_DEB")
    return Path(given) if given else make_deb(tmp_path_factory.mktemp("deb"))


@pytest.fixture(params=EACH_RELEASE)
def release(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
