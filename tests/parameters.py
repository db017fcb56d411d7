"""The releases of Debian as parameters of tests."""

from __future__ import annotations

import pytest

from tests.lab.releases import RELEASES

EACH_RELEASE = [
    pytest.param(release.name, marks=pytest.mark.long if release.is_long else ()) for release in RELEASES.values()
]
