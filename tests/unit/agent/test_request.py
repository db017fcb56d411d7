"""Asking the agent for an image: both ends, on a socket of the test's own."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.agent import request
from rpinfs.agent.request import Requests
from rpinfs.errors import RpinfsError


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "agent.sock")


@pytest.fixture
def agent(path: str) -> Iterator[Requests]:
    Path(path).write_text("left by an agent that was killed")
    requests = Requests(path)
    yield requests
    requests.close()
    assert not os.path.lexists(path)
    requests.close()


def connected(path: str, *said: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(path)
    for message in said:
        client.send(message)
    return client


def test_whoever_asks_is_told_and_nobody_else(agent: Requests, path: str) -> None:
    assert os.stat(path).st_mode & 0o777 == 0o600, "for root alone"
    agent.take()
    assert agent.names() == frozenset(), "nobody has come, and nobody is waited for"
    with connected(path, b"docker") as one, connected(path, b"docker") as two, connected(path, b"data") as other:
        agent.take()
        assert agent.names() == {"docker", "data"}
        # That long does the main thread wait for one who says nothing: the watchdog is to be fed meanwhile.
        assert {client.gettimeout() for client, _ in agent._waiting} == {1.0}
        agent.answer("docker", "it is attached")
        assert agent.names() == {"data"}
        for client in (one, two):
            assert (client.recv(100), client.recv(100)) == (b"it is attached", b"")
        agent.refuse_unknown(["docker", "data"])
        assert agent.names() == {"data"}
        agent.close()
        assert (other.recv(100), other.recv(100)) == (b"the agent is stopped", b"")
    assert agent.names() == frozenset()


def test_what_becomes_readable_is_the_asking(agent: Requests, path: str) -> None:
    assert select.select([agent], [], [], 0)[0] == []
    with connected(path, b"docker"):
        assert select.select([agent], [], [], 30)[0] == [agent]
        agent.take()
        assert select.select([agent], [], [], 0)[0] == []
        agent.answer("docker", "x")


def test_who_asks_for_what_is_not_there_is_told_so(agent: Requests, path: str) -> None:
    with connected(path, b"nob\xffdy") as client:
        agent.take()
        agent.refuse_unknown(["docker"])
        assert client.recv(100).decode() == "the agent has no image nob\ufffddy"
    assert agent.names() == frozenset()


def test_who_connects_and_says_nothing_is_let_go(agent: Requests, path: str) -> None:
    """It would hold up everything; the next one is heard."""
    with connected(path) as silent, connected(path, b"docker") as asking:
        agent.take()
        assert agent.names() == {"docker"} and silent.recv(100) == b""
        agent.answer("docker", "yes")
        assert asking.recv(100) == b"yes"


def test_who_has_gone_away_is_no_trouble(agent: Requests, path: str) -> None:
    gone = connected(path, b"docker")
    with connected(path, b"docker") as waiting:
        agent.take()
        gone.close()
        agent.answer("docker", "long: " + "x" * 5000)
        assert waiting.recv(5000) == b"long: " + b"x" * (4096 - 6)
        agent.answer("nobody", "nothing")


def test_a_sentence_with_what_is_no_character_is_told_all_the_same(agent: Requests, path: str) -> None:
    with connected(path, b"docker") as client:
        agent.take()
        agent.answer("docker", "a\udcffb")
        assert client.recv(100) == b"a?b"


def asked(agent: Requests, path: str, name: str, sentence: str) -> list[str]:
    """What ask_for tells when the agent answers with a sentence."""
    told: list[str] = []
    asking = threading.Thread(target=request.ask_for, args=(name, told.append, path))
    asking.start()
    assert select.select([agent], [], [], 30)[0]
    agent.take()
    agent.answer(name, sentence)
    asking.join()
    return told


def test_the_sentence_is_told(agent: Requests, path: str) -> None:
    assert asked(agent, path, "docker", "it is ü") == ["it is ü"]
    assert asked(agent, path, "docker", "y" * 4097) == ["y" * 4096]
    assert asked(agent, path, "data", "") == [], "an agent that dies says nothing"


def test_where_no_agent_is_that_is_said(path: str) -> None:
    told: list[str] = []
    with pytest.raises(RpinfsError) as caught:
        request.ask_for("docker", told.append, path)
    assert caught.value.message == ("rpinfs-agent.service cannot be asked for image docker: No such file or directory")
    assert caught.value.remedy == "systemctl start rpinfs-agent" and told == []
