"""Remedies, pasted under a real systemd in the state in which they are printed: they work, and nothing is lost.

remedied.py is what happens, step by step; tests/remedies.py says which remedy belongs to which step.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests import remedies
from tests.package import remedied
from tests.package.test_guard import see


def test_every_step_of_the_table_is_there() -> None:
    steps = {step.__name__ for step in remedied.STEPS}
    assert set(remedies.PASTED.values()) <= steps


def form_of(template: str) -> re.Pattern[str]:
    """What a remedy looks like when it is filled in."""
    return re.compile(".+?".join(map(re.escape, re.split(r"{[a-z]*}", template))) + r"\Z", re.DOTALL)


@pytest.mark.root
@pytest.mark.long
def test_remedies_work_and_lose_nothing(deb: Path, release: str, subtests: pytest.Subtests) -> None:
    if release == "bookworm" and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("systemd 252 cannot keep order in a container's control groups on a host with cgroups v1")
    seen = see(release, deb, "remedied", list(remedied.STEPS))
    for step, facts in seen.steps.items():
        with subtests.test(step):
            what = json.dumps(facts, indent=1)
            assert facts["whole"], what
            if "remedy" in facts:
                assert facts["gone"], what
                templates = [template for template, name in remedies.PASTED.items() if name == step]
                if step == "mount_fails":
                    assert "fails (mount: for a test); the image is let go of" in facts["message"], what
                assert any(form_of(template).search(facts["remedy"]) for template in templates), what
