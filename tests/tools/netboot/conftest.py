"""One LAN for all tests of a module; each test starts its servers and they end with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tools.netboot.lan import Lan, lan


@pytest.fixture(scope="module")
def whole_lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    with lan(tmp_path_factory.mktemp("lan")) as made:
        yield made


@pytest.fixture
def hosts(whole_lan: Lan) -> Iterator[Lan]:
    yield whole_lan
    whole_lan.stop()
