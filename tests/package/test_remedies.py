"""Remedies, pasted under a real systemd in the state in which they are printed: they work, and nothing is lost.

remedied.py and its like are what happens, step by step, a container each; tests/remedies.py says which remedy belongs
to which step.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests import remedies
from tests.package import remedied, remedied_files, remedied_machine, remedied_share
from tests.package.test_guard import see

DRIVERS = (remedied, remedied_share, remedied_files, remedied_machine)


def test_every_step_of_the_table_is_there() -> None:
    steps = [step.__name__ for driver in DRIVERS for step in driver.STEPS if step.__name__ != "records"]
    assert set(remedies.PASTED.values()) <= set(steps)
    assert len(set(steps)) == len(steps)


def is_in(row: str, printed: str) -> bool:
    """Whether a remedy of the table, or the commands of it, are in one that was printed."""
    pasted = [remedies.form_of(command).pattern.removesuffix(r"\Z") for command in remedies.commands(row)]
    return bool(remedies.form_of(row).search(printed) or (pasted and all(re.search(one, printed) for one in pasted)))


@pytest.mark.root
@pytest.mark.long
@pytest.mark.parametrize("driver", DRIVERS, ids=lambda driver: driver.__name__.rpartition(".")[2])
def test_remedies_work_and_lose_nothing(deb: Path, release: str, driver: ModuleType, subtests: pytest.Subtests) -> None:
    if release == "bookworm" and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("systemd 252 cannot keep order in a container's control groups on a host with cgroups v1")
    seen = see(release, deb, driver.__name__.rpartition(".")[2], list(driver.STEPS))
    for step, facts in seen.steps.items():
        with subtests.test(step):
            what = json.dumps(facts, indent=1)
            assert facts["whole"], what
            if step == "mount_fails":
                assert "fails (mount: for a test); the image is let go of" in facts["message"], what
            printed = facts.get("remedies") or [facts[key] for key in facts if key == "remedy"]
            assert not printed or facts["gone"], what
            for remedy in printed:
                assert any(remedies.form_of(row).search(remedy) for row in remedies.PASTED if row != "{anew}"), (
                    remedy,
                    what,
                )
            # Each row says the truth: it was printed in this step, or another sentence with the same commands.
            rows = [row for row, name in remedies.PASTED.items() if name == step]
            assert [row for row in rows if not any(is_in(row, remedy) for remedy in printed)] == [], what
