"""What an ordinary boot asks of the NAS, counted by the Pi's kernel: it does not grow again unnoticed."""

from __future__ import annotations

import pytest

from tests.bench.boot import first_boot, with_rpinfs
from tests.support import Tell

from .lab import Lab
from .traffic import traffic

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.long]

MOST_OF_ROOT = 7500
"""Requests until Docker runs, on Debian 13, of which 6,700 are without rpinfs: tests/bench/RESULTS.md has both."""

MOST_OF_SHARE = 300


def test_requests_of_a_boot(lab: Lab, tell: Tell) -> None:
    nas = lab.second_nas()
    nas.start_nfs()
    pi = with_rpinfs(lab, nas)
    first_boot(nas, pi)
    pi.power_on()
    pi.wait_started("docker.service")
    root, share = traffic(pi, "/").requests, traffic(pi).requests
    tell(f"boot to Docker: {root.total()} requests for the root, {share.total()} for the share")
    assert root.total() <= MOST_OF_ROOT, root
    assert share.total() <= MOST_OF_SHARE, share
