"""What units start reaches the rooms that do it, and its exit status systemd."""

from __future__ import annotations

import pytest

from rpinfs.agent import agent, request
from rpinfs.boot import gate
from rpinfs.commands import cli
from rpinfs.docker import roots
from rpinfs.image import freeze

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("status", [0, 3])
def test_the_agent(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(agent, "main", lambda: status)
    assert cli.main(["agent"]) == status


@pytest.mark.parametrize("status", [0, 2])
def test_the_gate_asks_docker_and_for_a_limited_time(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    asked: list[object] = []

    def main(by: object) -> int:
        asked.append(by)
        return status

    monkeypatch.setattr(gate, "main", main)
    assert cli.main(["gate"]) == status
    assert asked == [roots.soon]


def test_attach_passes_on_what_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def ask_for(name: str, tell: object) -> None:
        assert callable(tell)
        tell(f"preparing {name}")

    monkeypatch.setattr(request, "ask_for", ask_for)
    assert cli.main(["attach", "docker"]) == 0
    assert capsys.readouterr().out == "preparing docker\n"


@pytest.mark.parametrize("frozen", [[], ["/var/lib/docker", "/srv/data"]])
def test_all_that_was_thawed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Captured, frozen: list[str]) -> None:
    monkeypatch.setattr(freeze, "thaw_abandoned", lambda: frozen)
    assert cli.main(["thaw"]) == 0
    assert capsys.readouterr().out == "".join(
        f"{where} was frozen for a snapshot that died; it is thawed\n" for where in frozen
    )
