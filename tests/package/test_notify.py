"""[Notify] Command= under a real systemd, by a real agent: told, not heard, hanging, and never in the agent's way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.package import notified
from tests.package.test_guard import Seen, see


def the_unit_is_loaded_before_anybody_asks_for_it(seen: Seen) -> None:
    """systemd would read folders on the root to load it, and stand still with a NAS that is gone."""
    assert seen.steps["told_at_boot"]["loaded"].startswith("rpinfs-notify.service loaded ")


def what_is_told_is_a_sentence_a_remedy_and_a_document(seen: Seen) -> None:
    step = seen.steps["told_at_boot"]
    ((sentence, remedy, document),) = step["heard"]
    found = json.loads(document)
    assert (found["status"], found["before"], found["unheard"], remedy) == ("ok", None, 0, "")
    assert sentence == f"{found['host']}: ok: {found['message']}" and "docker: mounted at /var/lib/docker" in sentence
    assert step["arguments"] == "to the phone\n$HOME\n%n\n", "no shell, no specifier, no variable"
    assert step["check"] == ["ok: the last news was heard"]


def it_gets_worse_and_better(seen: Seen) -> None:
    worse, better = seen.steps["worse_and_better"]["heard"]
    assert ": critical: docker: " in worse[0] and ": ok: docker: " in better[0]
    assert [json.loads(one[2])["before"] for one in (worse, better)] == ["ok", "critical"]


def that_nobody_heard_is_said_and_the_remedy_tells_it_again(seen: Seen) -> None:
    step = seen.steps["nobody_hears"]
    assert step["before"] == ["warning: nobody heard the last news: rpinfs-notify.service has failed, exit-code"]
    assert step["after"] == ["ok: the last news was heard"] and step["same"]
    assert "nobody heard the news: rpinfs-notify.service: exit status 7" in seen.journal


def what_hangs_is_killed_with_its_children_and_disturbs_nobody(seen: Seen) -> None:
    step = seen.steps["it_hangs"]
    assert step["check"] == ["warning: nobody heard the last news: rpinfs-notify.service has failed, timeout"]
    assert not step["child"] and step["same_agent"]
    assert "nobody heard the news: rpinfs-notify.service: timeout" in seen.journal


def the_agent_waits_for_nobody_at_its_stop(seen: Seen) -> None:
    step = seen.steps["the_agent_is_stopped_meanwhile"]
    assert (step["telling"], step["result"], step["before"]) == ("activating", "success", "critical")


CHECKS: list[Callable[[Seen], None]] = [
    the_unit_is_loaded_before_anybody_asks_for_it,
    what_is_told_is_a_sentence_a_remedy_and_a_document,
    it_gets_worse_and_better,
    that_nobody_heard_is_said_and_the_remedy_tells_it_again,
    what_hangs_is_killed_with_its_children_and_disturbs_nobody,
    the_agent_waits_for_nobody_at_its_stop,
]


@pytest.mark.root
@pytest.mark.long
def test_news(deb: Path, release: str, subtests: pytest.Subtests) -> None:
    if release == "bookworm" and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("systemd 252 cannot keep order in a container's control groups on a host with cgroups v1")
    seen = see(release, deb, "notified", notified.STEPS)
    for check in CHECKS:
        with subtests.test(check.__name__):
            check(seen)
