"""What of the window on systemd needs no systemd; the rest is asked of a real one, in tests/package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.system import systemd
from rpinfs.system.run import Completed, run

REFUSED = [
    {"UNIT": "docker.service", "__MONOTONIC_TIMESTAMP": "1500000"},
    {"UNIT": "docker.service", "__MONOTONIC_TIMESTAMP": "2500000"},
    {"UNIT": "containerd.service", "__MONOTONIC_TIMESTAMP": "500000"},
]
# A journal that was cut off, of another version, or without what was asked for.
ODD = ['{"UNIT": "x.service"', '{"UNIT": "x.service"}', '{"UNIT": "y", "__MONOTONIC_TIMESTAMP": null}', "[]", "7", ""]


def test_who_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last time counts; a line that cannot be read hides none of the others."""
    lines = [*ODD, json.dumps(REFUSED[0]), *ODD, *map(json.dumps, REFUSED[1:])]

    def printed(argv: list[str], timeout: float) -> Completed:
        assert argv[0] == "journalctl"
        assert argv[-4:] == ["_PID=1", "JOB_RESULT=dependency", "UNIT=docker.service", "UNIT=containerd.service"]
        return run(["printf", "%s\\n", *lines], timeout=timeout)

    monkeypatch.setattr(systemd, "run", printed)
    assert systemd.refused_starts(["docker.service", "containerd.service"]) == {
        "docker.service": 2.5,
        "containerd.service": 0.5,
    }


def test_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "run", lambda *_, **__: run(["false"]))
    assert systemd.refused_starts(["docker.service"]) is None


def test_nobody_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_ADDRESS", f"unix:path={tmp_path}/private".encode())
    for ask in (
        lambda: systemd.unit_states(["docker.service"]),
        lambda: systemd.wanted_units(["docker.service"]),
        lambda: systemd.start_unit("docker.service"),
        lambda: systemd.stop_units(["docker.service"]),
        systemd.system_state,
    ):
        with pytest.raises(RpinfsError, match="systemd cannot be reached over /run/systemd/private: ") as refusal:
            ask()
        assert refusal.value.remedy == "run this as root, on a running system"
    # Who asks for nothing needs nobody.
    assert systemd.unit_states([]) == {}


def test_words_of_systemd() -> None:
    assert systemd._text(b"fail\xff") == "fail\ufffd"
    assert systemd._text("text") == "text"
    error = ValueError("[err 2]: b'No such unit.'")
    assert systemd._reason(error) == str(error)
    error.err_message = b"No such unit."  # type: ignore[attr-defined]
    assert systemd._reason(error) == "No such unit."
