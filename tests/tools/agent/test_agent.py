"""What the agent does when the NAS fails it: a lock given away, no room. Only the errors of NFS are made up here."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rpinfs.agent.agent import SHARE_RETRY_SECONDS, Agent, Held, now
from rpinfs.boot import storage
from rpinfs.boot.config import load
from rpinfs.boot.host import Host
from rpinfs.image.prepare import Prepared
from rpinfs.lease import lease
from rpinfs.lease.lease import Lease, Owner
from rpinfs.system import loop
from tests.support import make_pi
from tests.tools.conftest import command

pytestmark = pytest.mark.root

OTHER = Owner("2", "pi2")


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """An agent that holds nothing yet."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    share = tmp_path / "share"
    share.mkdir()
    host = Host.read(str(make_pi(tmp_path / "root", f"[Share]\nWhere={share}\n[Image docker]\nSize=1G\n")))
    made = Agent(host, load(host), -1)
    yield made
    made._notifier.socket.close()
    manager.close()
    os.close(made._event_fd)


@pytest.fixture
def agent(idle: Agent) -> Iterator[Agent]:
    """An agent with an image that it has leased and attached."""
    made = idle
    image = made.config.images[0]
    command("truncate", "--size", "1M", image.path)
    held = lease.acquire(image.path, made._owner)
    with loop.attach(image.path) as device:
        held.keep()
        made.held = [Held(image, "mounted", prepared=Prepared(image.path, device, "", 0, None, held))]
        yield made
    if (prepared := made.held[0].prepared) and prepared.lease:
        prepared.lease.close()


@pytest.fixture
def lost(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Held:
    def fail(_: Lease) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Lease, "renew", fail)
        agent._renew_leases()
        agent._take_events()
    (held,) = agent.held
    assert held.message == "mounted here, but its lock on the NAS is lost (Input/output error); taking it again"
    assert held.state == "mounted"
    assert held.is_to_lease(held.lease_retry_at)
    return held


def test_a_lost_lock_is_taken_again(agent: Agent, lost: Held) -> None:
    agent._renew(lost)
    agent._take_events()
    assert lost.message.endswith("; its lock is held again")
    assert lost.remedy == ""
    assert lost.prepared and lost.prepared.lease and lost.prepared.lease.pin


def test_another_pi_was_quicker(agent: Agent, lost: Held) -> None:
    assert lost.lost_lease
    lost.lost_lease.close()
    path = lost.image.path
    # From elsewhere, where this Pi's own use of the image is not known.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "loops_on", lambda _: [])
        lease.adopt(path, OTHER, now=True)
    agent._renew(lost)
    agent._take_events()
    assert lost.state == "mounted"
    assert lost.message.startswith(f"mounted here, but {path}: belongs to pi2 (serial 2), last seen ")
    assert lost.remedy == "shut one of the two Pis down now"
    assert not lost.is_to_lease(lost.lease_retry_at - 1)
    # The other gives way: all is well again.
    lease.release(path, OTHER)
    agent._renew(lost)
    agent._take_events()
    assert lost.message.endswith("; its lock is held again")


def test_a_full_nas_is_no_loss(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Lease) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Lease, "renew", fail)
    before = replace(agent.held[0])
    agent._renew_leases()
    agent._take_events()
    assert agent.held[0].message == before.message
    assert "its lease cannot be renewed: No space left on device" in capsys.readouterr().err


def test_a_share_without_room_is_tried_again(idle: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpinfs.agent.agent._publish", lambda *_: None)
    held = Held(idle.config.images[0])
    assert held.is_to_prepare(now())
    command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path / "share"))
    try:
        idle._prepare([held])
        idle._take_events()
        assert held.state == "refused"
        assert "free" in held.message, held
        assert list((tmp_path / "share").glob("*.img")) == []
        assert not held.is_to_prepare(now())
        assert held.is_to_prepare(now() + SHARE_RETRY_SECONDS)
        command("mount", "-o", "remount,size=300M", str(tmp_path / "share"))
        idle._prepare([held])
        idle._take_events()
        assert held.state == "attached", held
        assert held.prepared
        held.prepared.close()
    finally:
        command("umount", "--lazy", str(tmp_path / "share"))


def test_what_is_refused_is_left_alone_and_looked_at_again_by_a_restart(idle: Agent) -> None:
    held = Held(idle.config.images[0])
    path = Path(held.image.path)
    path.write_bytes(b"precious" * 1000)
    idle._prepare([held])
    idle._take_events()
    assert held.state == "refused"
    assert f"mv -n {path} {path}.kept" in held.remedy
    assert held.remedy.endswith("; then: systemctl restart rpinfs-agent")
    assert not held.is_to_prepare(now() + SHARE_RETRY_SECONDS)
    assert path.read_bytes() == b"precious" * 1000
