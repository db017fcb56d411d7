"""What is done at once: what systemd is asked and told, link and UUID, and what becomes of an error."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from rpinfs.agent import do, picture
from rpinfs.agent.picture import Answer, Failed, Held
from rpinfs.agent.states import Action, Do
from rpinfs.boot import gate, host, units
from rpinfs.boot.config import Image, load
from rpinfs.boot.host import Host
from rpinfs.errors import RpinfsError
from rpinfs.image.prepare import Prepared
from rpinfs.system import systemd
from rpinfs.system.systemd import UnitState
from tests.support import make_pi

MOUNT, DOCKER, GATE = "var-lib-docker.mount", "docker.service", "rpinfs-gate.service"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    run = tmp_path / "run"
    run.mkdir()
    for module in (do, gate, units):
        monkeypatch.setattr(module, "RUNTIME_FOLDER", str(run))
    return load(Host.read(str(make_pi(tmp_path / "pi", "[Image docker]\nFile=docker.img\n")))).images[0]


def a_device(image: Image) -> Prepared:
    return Prepared(image.path, cast("object", SimpleNamespace(path="/dev/loop3")), "1-2", 4096, None, None)  # type: ignore[arg-type]


# systemd


def answering(monkeypatch: pytest.MonkeyPatch, **active: str) -> list[tuple[str, object]]:
    """Have systemd answer; what it is asked."""
    asked: list[tuple[str, object]] = []

    def recording(name: str, answer: object) -> None:
        def ask(*arguments: object) -> object:
            asked.append((name, *arguments))  # type: ignore[arg-type]
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(systemd, name, ask)

    states = {
        name: UnitState(name, "loaded", active.get(name.partition(".")[0], "inactive"), "", "", "", "", None, True)
        for name in (MOUNT, DOCKER, GATE, "nfs-docker.mount")
    }
    recording("system_state", "degraded")
    recording("unit_states", states)
    recording("wanted_units", frozenset({DOCKER}))
    recording("refused_starts", {DOCKER: 5.0})
    recording("why_failed", {MOUNT: "bad superblock"})
    return asked


def test_systemd_is_asked_why_a_mount_has_failed_and_of_no_service(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answering(monkeypatch, **{"var-lib-docker": "failed", "docker": "failed"})
    result, made = do.at_once(image, Action(Do.ASK, (MOUNT, DOCKER)), None)
    assert isinstance(result, Answer) and made is None
    assert (result.system, result.units[MOUNT].active) == ("degraded", "failed")
    assert (result.said, result.wanted, result.refused) == ({MOUNT: "bad superblock"}, frozenset(), None)
    assert asked == [("system_state",), ("unit_states", (MOUNT, DOCKER)), ("why_failed", [MOUNT])]


def test_where_nothing_has_failed_the_journal_is_not_read(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, docker="failed")
    result, _ = do.at_once(image, Action(Do.ASK, (MOUNT, DOCKER)), None)
    assert isinstance(result, Answer) and result.said == {}
    assert [name for name, *_ in asked] == ["system_state", "unit_states"]


def test_a_journal_that_cannot_be_read_says_nothing(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, **{"var-lib-docker": "failed"})
    monkeypatch.setattr(systemd, "why_failed", failing(RpinfsError("no journal")))
    result, _ = do.at_once(image, Action(Do.ASK, (MOUNT,)), None)
    assert isinstance(result, Answer) and result.said == {}


def test_with_the_gate_systemd_is_asked_for_what_that_has_held_back(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answering(monkeypatch, **{"var-lib-docker": "failed"})
    result, _ = do.at_once(image, Action(Do.ASK, (MOUNT, DOCKER, GATE)), None)
    assert isinstance(result, Answer)
    assert (result.wanted, result.refused, result.said) == (frozenset({DOCKER}), {DOCKER: 5.0}, {})
    names = (MOUNT, DOCKER, GATE)
    assert asked[2:] == [("wanted_units", names), ("refused_starts", names)]


def failing(error: Exception) -> object:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("what", [Do.START, Do.STOP])
def test_what_one_unit_meets_is_no_reason_to_leave_the_others_out(
    image: Image, monkeypatch: pytest.MonkeyPatch, what: Do
) -> None:
    told: list[tuple[Do, list[str]]] = []

    def queue(order: Do, names: list[str]) -> None:
        told.append((order, names))
        if names[0].startswith("broken"):
            raise RpinfsError(f"{names[0]} is masked")

    monkeypatch.setattr(systemd, "start_units", lambda names: queue(Do.START, names))
    monkeypatch.setattr(systemd, "stop_units", lambda names: queue(Do.STOP, names))
    assert do.at_once(image, Action(what, (MOUNT, DOCKER)), None) == (None, None)
    assert told == [(what, [MOUNT]), (what, [DOCKER])]
    result, _ = do.at_once(image, Action(what, ("broken.mount", DOCKER, "broken.service")), None)
    assert result == Failed("broken.mount is masked; broken.service is masked")
    assert told[2:] == [(what, ["broken.mount"]), (what, [DOCKER]), (what, ["broken.service"])]


# Link and UUID


def test_published_and_taken_away(image: Image, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / ".new").write_text("left by an agent that was killed")
    assert do.at_once(image, Action(Do.PUBLISH), a_device(image)) == (None, None)
    assert os.readlink(run / "docker") == "/dev/loop3"
    assert (run / "docker.uuid").read_text().startswith("1-2\n")
    assert (run / "docker.uuid").stat().st_mode & 0o777 == 0o644
    assert sorted(os.listdir(run)) == ["docker", "docker.uuid"]
    for _ in range(2):
        assert do.at_once(image, Action(Do.UNPUBLISH), None) == (None, None)
        assert os.listdir(run) == []


def test_published_again_is_replaced_whole(image: Image, tmp_path: Path) -> None:
    """The link leads to a device in each moment."""
    run = tmp_path / "run"
    (run / "docker").symlink_to("/dev/loop9")
    (run / "docker.uuid").write_text("another")
    do.at_once(image, Action(Do.PUBLISH), a_device(image))
    assert os.readlink(run / "docker") == "/dev/loop3" and "another" not in (run / "docker.uuid").read_text()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RpinfsError("no /dev/loop3", "look"), "no /dev/loop3"),
        (OSError(errno.ENOSPC, "No space left on device"), "{run}: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device", "/run/x"), "/run/x: No space left on device"),
    ],
)
def test_what_cannot_be_done_is_told(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    for name, action in (("hold", Do.HOLD), ("publish", Do.PUBLISH), ("unpublish", Do.UNPUBLISH)):
        monkeypatch.setattr(do, name, failing(error))
        result = do.at_once(image, Action(action, loop="loop3"), a_device(image))
        assert result == (Failed(message.format(run=tmp_path / "run")), None)


def test_what_cannot_be_done_by_another_way_is_told_by_the_usual_one(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(host, "WAYS", {f"{run}/": "run/"})
    (run / ".new").mkdir()
    result = do.at_once(image, Action(Do.PUBLISH), a_device(image))
    assert result == (Failed(f"{run}/.new: Is a directory"), None)


def test_what_is_held_is_handed_on(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    made = a_device(image)
    monkeypatch.setattr(do, "hold", lambda one, loop: (Held(loop), made) if one is image else None)
    assert do.at_once(image, Action(Do.HOLD, loop="loop3"), None) == (Held("loop3"), made)


def test_what_leads_nowhere_is_taken_away_and_no_more(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do.publish(image, a_device(image))
    for proven, left in (("loop3", ["docker", "docker.uuid"]), ("", [])):
        monkeypatch.setattr(do, "proven_loop", lambda *_, proven=proven: proven)
        do.clean([image])
        assert sorted(os.listdir(tmp_path / "run")) == left


@pytest.mark.parametrize(
    ("link", "name"),
    [("/dev/loop3", "loop3"), ("/dev/loop12", "loop12"), ("/dev/sda1", ""), ("/dev/loop", ""), ("/dev/loopx", ""),
     ("/dev/mapper/loop3p1", ""), ("", "")],
)  # fmt: skip
def test_what_a_link_leads_to(image: Image, tmp_path: Path, link: str, name: str) -> None:
    if link:
        os.symlink(link, tmp_path / "run/docker")
    assert picture.published_loop(image) == name
