"""The table of checks: its form, who is asked what, and what becomes of the results."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rpinfs.boot import gate
from rpinfs.errors import RpinfsError
from rpinfs.health import checks
from rpinfs.health.checks import Result, Status
from rpinfs.health.questions import THOROUGH, _questions, ask
from tests.unit.health.checks import test_docker, test_image, test_machine, test_network, test_share
from tests.unit.health.pi import (
    CRITICAL,
    OK,
    SHARE_LINE,
    SILENCE,
    UNKNOWN,
    WARNING,
    facts,
    live,
    mountinfo,
    results,
    systemd,
    unit,
)

CASES = [case for one in (test_machine, test_network, test_share, test_image, test_docker) for case in one.CASES]


def test_names_are_of_one_form_and_none_is_there_twice() -> None:
    names = [check.name for check in checks.CHECKS]
    assert len(set(names)) == len(names) >= 25
    for check in checks.CHECKS:
        group, dot, rest = check.name.partition(".")
        assert group and dot and rest, check.name
        assert check.title and check.remedy, check.name
        assert not check.title.endswith("."), check.name


def test_all_is_well(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = "[Image docker]\nSize=10G\n[Notify]\nCommand=/usr/local/bin/notify\n"
    told = systemd(rpinfs_notify=unit("rpinfs-notify.service", "inactive"))
    found = checks.judge(live(facts(root, config, answers=told), monkeypatch))
    assert [result for result in found if result.status is not Status.OK] == []
    assert {result.name for result in found} == {check.name for check in checks.CHECKS}
    assert all(result.remedy == "" for result in found)
    worst = checks.worst(found)
    assert worst is not None
    assert worst.status is Status.OK


def test_every_check_has_a_case_in_which_it_is_not_ok() -> None:
    bad = {case.name for case in CASES if case.expected in (WARNING, CRITICAL, UNKNOWN)}
    assert {check.name for check in checks.CHECKS} - bad == {"clock.sane"}


def test_a_clock_in_1970(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = live(facts(root), monkeypatch)
    found.clock = 60.0
    assert results(found)["clock.sane"].status is WARNING


def test_what_is_said_of_a_mount_is_what_the_gate_says(root: Path) -> None:
    found = facts(root, files=mountinfo(SHARE_LINE))
    (refusal,) = gate.verdict(found.config, found.host)
    assert results(found)["mount.right"].message == refusal.message


def test_a_wrong_configuration_leaves_only_what_does_not_depend_on_it(root: Path) -> None:
    found = results(facts(root, "[Server]\nVersion=5\n"))
    assert set(found) <= {check.name for check in checks.CHECKS if check.without_config}
    assert found["config.valid"].status is CRITICAL


def test_each_image_has_its_own_results(root: Path) -> None:
    config = "[Image docker]\n[Image data]\nWhere=/srv/data\n"
    found = [result for result in checks.judge(facts(root, config)) if result.name == "mount.right"]
    assert [(result.image, result.status) for result in found] == [("docker", OK), ("data", CRITICAL)]


def result(status: Status) -> Result:
    return Result("a.b", "", "", status, "", "")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], None),
        ([OK], OK),
        ([OK, UNKNOWN], UNKNOWN),
        ([UNKNOWN, WARNING], WARNING),
        ([CRITICAL, UNKNOWN, WARNING, OK], CRITICAL),
    ],
)
def test_the_worst(found: list[Status], expected: Status | None) -> None:
    worst = checks.worst(map(result, found))
    assert (worst.status if worst else None) is expected


def test_select() -> None:
    def names(*wanted: str) -> list[str]:
        return [check.name for check in checks.select(wanted)]

    assert names() == [check.name for check in checks.CHECKS]
    assert names("loop") == ["loop.direct-io", "loop.block-size"]
    assert names("share.space", "config.valid") == ["config.valid", "share.space"]
    # A hint may change half of the letters, and no more.
    with pytest.raises(RpinfsError, match=r"unknown check share.xxxxx; did you mean share.space\?$"):
        names("share.xxxxx")
    with pytest.raises(RpinfsError, match=r"unknown check sharexxxxxx$"):
        names("sharexxxxxx")
    with pytest.raises(RpinfsError, match=r"unknown check share.spce; did you mean share.space\?") as caught:
        names("share.spce")
    assert caught.value.status == 3


def test_what_a_wrong_configuration_leaves_to_be_judged() -> None:
    """Without knowing what is wanted: the others would say what is there is not wanted, or is."""
    assert {check.name for check in checks.CHECKS if check.without_config} == {
        *("config.valid", "root.options", "kernel.version", "clock.sane", "memory.cgroup", "memory.swap"),
        *("agent.running", "gate.passed", "docker.running", "docker.driver", "docker.userns"),
    }


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("", "docker.service containerd.service"),
        ("[Image docker]\nBefore=podman.service\n[Image data]\nWhere=/srv/d\nBefore=x.service podman.service\n",
         "podman.service x.service"),
        ("[Image docker]\nBefore=\n", "docker.service"),
    ],
)  # fmt: skip
def test_a_remedy_names_the_units_that_wait(root: Path, text: str, filled: str) -> None:
    assert checks._filled("systemctl start {before}", facts(root, text), None) == f"systemctl start {filled}"


def test_only_what_the_selected_checks_need_is_asked(root: Path) -> None:
    found = facts(root, files={"nfs/docker": None})

    def asked(*names: str) -> set[str]:
        found.answers = {}
        ask(found, 5.0, checks.needs(checks.select(names)))
        return set(found.answers)

    assert asked("config.valid") == set()
    assert asked("share.space") == {"share"}
    assert asked("image.size") == {"image:docker"}


def test_what_takes_long_or_writes_is_asked_only_when_it_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = live(facts(root), monkeypatch)
    silence: dict[str, object] = dict.fromkeys(_questions(found), SILENCE)
    monkeypatch.setattr(
        "rpinfs.system.deadline.gather", lambda questions, _: {name: silence[name] for name in questions}
    )
    found.answers = {}
    ask(found, 1.0)
    assert set(silence) - set(found.answers) == {"hidden", "overlay:docker"}
    ask(found, 1.0, checks.needs(checks.select([])))
    assert set(silence) == set(found.answers)
    thorough = {check.name for check in checks.CHECKS if check.thorough}
    assert thorough == {"mount.hidden", "mount.overlay"}
    assert checks.needs(checks.CHECKS) >= THOROUGH


def test_what_only_root_may_know_has_the_remedy(root: Path) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", "/nfs/docker/.lease")
    found = results(facts(root, answers={"owner:docker": refused}))["image.owner"]
    assert (found.status, found.message) == (UNKNOWN, "/nfs/docker/.lease: Permission denied")
    assert found.remedy == "run it as root: sudo rpinfs check"


def test_every_explanation_names_the_limits_and_statuses_of_its_check() -> None:
    for check in checks.CHECKS:
        explanation = " ".join(check.explanation.split())
        explanation.encode("ascii")
        assert explanation.endswith("."), check.name
        bad = {case.expected for case in CASES if case.name == check.name} & {WARNING, CRITICAL}
        for status in bad:
            assert status is not None
            assert f"{status.word}:" in explanation.lower(), (check.name, status)


def test_judging_reads_only_what_the_kernel_answers_from_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies on the root, on NFS as it is, is asked of a child: else a check could hang."""
    found = live(facts(root, "[Image docker]\nSize=10G\n"), monkeypatch)
    seen: list[str] = []

    def watched(name: str) -> None:
        real = getattr(os, name)

        def call(path: object, *more: object, **named: object) -> object:
            seen.append(str(path))
            return real(path, *more, **named)

        monkeypatch.setattr(os, name, call)

    for name in ("open", "stat", "listdir", "scandir", "readlink"):
        watched(name)
    checks.judge(found)
    monkeypatch.undo()
    assert seen
    allowed = tuple(f"{root}/{folder}/" for folder in ("proc", "sys", "run"))
    assert [path for path in seen if not path.startswith(allowed)] == []


def test_a_question_that_was_not_asked_makes_a_check_silent(root: Path) -> None:
    found = facts(root)
    found.answers = {}
    for result in checks.judge(found):
        assert result.status is not UNKNOWN, result
