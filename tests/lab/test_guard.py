"""What tests/package/test_guard.py sees, on a Pi: systemd 258 and later boot in no container beside cgroups v1."""

from __future__ import annotations

import pytest

from tests.package import test_guard as guard
from tests.support import Tell

from .lab import Lab

SECONDS = 3000.0
PATIENCE = "[Service]\nEnvironment=GUARDED_SECONDS=600\n"


@pytest.mark.lab
@pytest.mark.root
@pytest.mark.long
@pytest.mark.parametrize("release", ["forky"])
def test_docker_and_its_storage(lab: Lab, tell: Tell, subtests: pytest.Subtests) -> None:
    pi = lab.pi("guard")
    guard.furnish(pi, "docker-pi.img")
    pi.write(f"/etc/systemd/system/{guard.DRIVE}.d/lab.conf", PATIENCE)
    pi.cmdline += f" systemd.unit={guard.DRIVE}"
    pi.power_on()
    pi.wait_off(SECONDS)
    seen = guard.seen(pi, pi.console())
    for check in guard.CHECKS:
        with subtests.test(check.__name__):
            check(seen)
    tell(f"{len(seen.steps)} steps in {pi.seconds_since_power_on():.0f} s")
