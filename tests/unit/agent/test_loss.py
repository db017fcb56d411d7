"""Why a mount is gone, and what it takes with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.agent import loss
from rpinfs.agent.loss import Cause
from rpinfs.agent.states import Owed
from rpinfs.system.systemd import UnitState


def unit(
    name: str = "var-lib-docker.mount",
    active: str = "active",
    job: str = "",
    left: float | None = None,
    inactive: float | None = None,
) -> UnitState:
    return UnitState(name, "loaded", active, "", "success", "", job, None, True, left, inactive)


@pytest.mark.parametrize(
    ("mount", "system", "cause"),
    [
        # Something is mounted over it, or systemd has not looked yet.
        (unit(), "running", Cause.LOST),
        (unit(), "degraded", Cause.LOST),
        # umount -l: gone at one moment.
        (unit(active="inactive", left=100.000001, inactive=100.000001), "running", Cause.LOST),
        # A stop job: umount(8) takes its time.
        (unit(active="inactive", left=100.000001, inactive=100.004), "running", Cause.REQUESTED),
        (unit(active="failed", left=100.0, inactive=190.0), "running", Cause.REQUESTED),
        (unit(active="deactivating", left=100.0, inactive=3.0), "running", Cause.REQUESTED),
        (unit(job="stop"), "running", Cause.REQUESTED),
        (unit(active="inactive", left=100.0, inactive=100.0), "stopping", Cause.SHUTDOWN),
        (unit(), "stopping", Cause.SHUTDOWN),
    ],
)
def test_cause(mount: UnitState, system: str, cause: Cause) -> None:
    assert loss.cause_of(mount, system) is cause


def test_what_ran_when_the_mount_went() -> None:
    """systemd may have been quicker than the agent: a bind mount takes with it what requires it."""
    units = [
        unit("docker.service", "active"),
        unit("containerd.service", "deactivating", "stop", left=100.1),
        unit("k3s.service", "inactive", left=100.2, inactive=100.3),
        unit("podman.service", "inactive", left=99.9, inactive=99.9),
        unit("other.service", "inactive"),
    ]
    assert loss.running(units, 100.0) == ["docker.service", "containerd.service", "k3s.service"]
    assert loss.running(units, None) == ["docker.service", "containerd.service"]
    assert loss.to_stop(units) == ["docker.service"]
    assert not loss.all_down(units) and loss.all_down(units[2:])


def test_when_it_went() -> None:
    assert loss.gone_at(unit(active="inactive", left=7.0, inactive=7.0)) == 7.0
    assert loss.gone_at(unit(left=7.0)) is None and loss.gone_at(unit(active="inactive")) is None


def test_the_next_agent_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "OWED_FILE", str(tmp_path / "stopped.json"))
    assert loss.owed() == {}
    left = {"docker": Owed(("docker.service",), True, 12.5), "data": Owed(look="came late")}
    loss.remember({**left, "other": Owed()})
    assert loss.owed() == left
    loss.remember({"docker": Owed()})
    assert list(tmp_path.iterdir()) == []
    loss.remember({"docker": Owed()})
    (tmp_path / "stopped.json").write_text('{"docker": ["docker.service"]}')
    assert loss.owed() == {"docker": Owed(("docker.service",))}, "of the version before"


def gate(active: str = "failed", began: float | None = 200.0) -> UnitState:
    return replace(unit("rpinfs-gate.service", active, inactive=201.0), left_inactive=began)


def docker(enabled: str = "enabled", **more: object) -> UnitState:
    return replace(unit("docker.service", "inactive"), enabled=enabled, **more)  # type: ignore[arg-type]


HELD_BACK = [
    ("never ran", docker(), True),
    ("failed", docker(active="failed", became_inactive=10.0), True),
    (
        "waits for a restart that is refused",
        docker(active="activating", sub="auto-restart", became_inactive=10.0),
        True,
    ),
    ("restarted, and refused", docker(became_inactive=199.5), True),
    ("stopped by a person before", docker(became_inactive=100.0), False),
    ("stopped by a person since", docker(became_inactive=300.0), False),
    ("runs", docker(active="active"), False),
    ("is about to", docker(job="start"), False),
    ("disabled", docker("disabled"), False),
    ("masked", docker("masked"), False),
    ("masked for now", docker("masked-runtime"), False),
    ("generated and wanted", docker("generated"), True),
    ("static and wanted", docker("static"), True),
    ("linked and wanted", docker("linked"), True),
    ("an alias that is wanted", docker("alias"), True),
    ("not there", docker(load="not-found"), False),
    ("masked in full", docker(load="masked"), False),
]


@pytest.mark.parametrize(("state", "held"), [case[1:] for case in HELD_BACK], ids=[case[0] for case in HELD_BACK])
def test_what_the_gate_has_held_back(state: UnitState, held: bool) -> None:
    assert loss.was_held_back(state, gate(), ["docker.service"], None) is held
    assert not loss.was_held_back(state, gate(began=None), ["docker.service"], None), "the gate was never asked"
    if state.enabled not in ("enabled", "disabled", "masked", "masked-runtime"):
        assert not loss.was_held_back(state, gate(), [], None), "nothing wants it"


def test_the_journal_knows_who_was_refused() -> None:
    """However often the gate was asked since, and by whom."""
    stopped = docker(became_inactive=100.0)
    assert loss.was_held_back(stopped, gate(began=900.0), [], {"docker.service": 100.1})
    assert not loss.was_held_back(stopped, gate(began=900.0), [], {"docker.service": 99.0})
    assert not loss.was_held_back(docker("disabled", became_inactive=1.0), gate(), [], {"docker.service": 99.0})
    assert not loss.was_held_back(docker(became_inactive=199.5), gate(), [], {}), "others were refused, and it was not"
    assert not loss.was_held_back(docker(became_inactive=0.5), gate(), [], {})


def test_sockets_listen_again_when_they_have_failed() -> None:
    socket = replace(docker("disabled"), name="docker.socket")
    assert not loss.was_held_back(socket, gate(), [], {})
    assert loss.was_held_back(replace(socket, active="failed"), gate(), [], {})


def test_the_gate_is_at_its_end() -> None:
    assert loss.is_settled(gate()) and loss.is_settled(gate("inactive"))
    for active in ("activating", "deactivating", "active"):
        assert not loss.is_settled(gate(active))
    assert not loss.is_settled(replace(gate(), job="start"))


def test_who_has_begun_was_let_in() -> None:
    ran = docker(left_inactive=200.0, left_active=210.0, became_inactive=211.0)
    for refused in (None, {}, {"docker.service": 210.9}):
        assert loss.was_let_in(ran, 200.0, refused)
        assert not loss.was_let_in(ran, 200.1, refused) and not loss.was_let_in(docker(), 200.0, refused)
        assert not loss.was_let_in(ran, 0.0, refused), "nobody knows since when"
    assert not loss.was_let_in(ran, 200.0, {"docker.service": 211.0}), "restarted, and refused"
    assert loss.was_let_in(replace(ran, became_inactive=None), 200.0, None) is False


@pytest.mark.parametrize(
    ("mount", "back"), [(unit(job="start"), True), (unit(job="restart"), True), (unit(job="try-restart"), True),
                        (unit(active="activating"), True), (unit(job="stop"), False), (unit(active="inactive"), False),
                        (unit(), False)],
)  # fmt: skip
def test_a_mount_that_comes_back(mount: UnitState, back: bool) -> None:
    assert loss.comes_back(mount) is back


ODD = [
    *("[" * 4096, "[]", "{", '{"docker": 3}', '{"docker": ["dock'),
    '{"docker": {"stopped": 3, "starting": 1, "owed_at": "x", "look": null}}',
]


@pytest.mark.parametrize("text", ODD)
def test_whatever_stands_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(loss, "OWED_FILE", str(tmp_path / "stopped.json"))
    (tmp_path / "stopped.json").write_text(text)
    assert set(loss.owed().values()) <= {Owed()}
