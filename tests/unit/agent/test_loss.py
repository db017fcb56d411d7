"""Why a mount is gone, and what it takes with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpinfs.agent import loss
from rpinfs.agent.loss import Cause
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
    monkeypatch.setattr(loss, "STOPPED_FILE", str(tmp_path / "stopped.json"))
    assert loss.stopped_units() == {}
    loss.remember_stopped({"docker": ["docker.service"], "data": []})
    assert loss.stopped_units() == {"docker": ["docker.service"]}
    loss.remember_stopped({"docker": []})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "stopped.json").write_text('{"docker": ["dock')
    assert loss.stopped_units() == {}
