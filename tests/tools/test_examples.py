"""The examples of [Notify] Command= that come with the package: told in the agent's words, heard by real servers."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rpinfs.agent.news import News, text_of
from rpinfs.agent.summary import Subject
from tests.support import PATH, TOP

EXAMPLES = TOP / "units" / "examples"
BAD = Subject("image docker", "lost", "critical", "docker: is gone; $(reboot) `id` @/etc/passwd", "rpinfs status")
GOOD = Subject("image docker", "mounted", "ok", "docker: mounted at /var/lib/docker")


class Server(HTTPServer):
    """Keeps what it is sent, and answers with a status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sent: list[tuple[str, dict[str, str], str]] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/topic"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.sent.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening
        finally:
            listening.shutdown()
            thread.join()


def tell(name: str, *words: str | Path, about: Subject = BAD, path: str = PATH) -> int:
    """Run an example as systemd does: with its news as standard input, no shell, and little else."""
    text = text_of(News((about,), None, 0), "pi1", "1a2b")
    done = subprocess.run(
        [EXAMPLES / name, *words], input=text, text=True, capture_output=True, check=False, env={"PATH": path}
    )
    return done.returncode


@pytest.mark.parametrize("name", sorted(os.listdir(EXAMPLES)))
def test_each_can_be_run_as_it_is_installed(name: str) -> None:
    path = EXAMPLES / name
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/bin/sh\n") and f"/usr/share/doc/rpinfs/examples/{name}" in path.read_text()


def test_ntfy(server: Server, tmp_path: Path) -> None:
    assert tell("notify-ntfy", server.url) == 0
    ((path, headers, body),) = server.sent
    assert path == "/topic" and body == f"pi1: critical: {BAD.message}\nrpinfs status"
    assert (headers["Title"], headers["Priority"], headers["Tags"]) == (
        "rpinfs on pi1: critical", "high", "rotating_light"
    )  # fmt: skip
    token = tmp_path / "token"
    token.write_text("Authorization: Bearer tk_1\n")
    assert tell("notify-ntfy", server.url, token, about=GOOD) == 0
    _, headers, body = server.sent[1]
    assert (headers["Authorization"], headers["Priority"]) == ("Bearer tk_1", "low")
    assert body == f"pi1: ok: {GOOD.message}"


def test_healthchecks(server: Server) -> None:
    assert tell("notify-healthchecks", server.url) == tell("notify-healthchecks", server.url, about=GOOD) == 0
    assert [path for path, _, _ in server.sent] == ["/topic/fail", "/topic"]
    assert server.sent[0][2] == f"pi1: critical: {BAD.message}\nrpinfs status"


@pytest.mark.parametrize("name", ["notify-ntfy", "notify-healthchecks"])
def test_what_the_server_refuses_nobody_has_heard(name: str, server: Server) -> None:
    server.status = 403
    assert tell(name, server.url) != 0
    assert tell(name, "http://127.0.0.1:1/nobody") != 0


def test_mail(tmp_path: Path) -> None:
    """sendmail is whatever is there; of what it is given, and of its exit status, nothing gets lost."""
    sendmail = tmp_path / "sendmail"
    sendmail.write_text(
        f'#!/bin/sh\nprintf "%s " "$@" >{tmp_path}/words\ncat >{tmp_path}/mail\nexit $(cat {tmp_path}/status)\n'
    )
    sendmail.chmod(0o755)
    (tmp_path / "status").write_text("0")
    assert tell("notify-mail", "you@example.org", path=f"{tmp_path}:{PATH}") == 0
    assert (tmp_path / "words").read_text() == "-oi -- you@example.org "
    head, _, body = (tmp_path / "mail").read_text().partition("\n\n")
    assert head.splitlines()[:2] == ["To: you@example.org", "Subject: rpinfs on pi1: critical"]
    assert body.startswith(f"pi1: critical: {BAD.message}\nrpinfs status\n\n{{") and body.endswith("}\n")
    (tmp_path / "status").write_text("75")
    assert tell("notify-mail", "you@example.org", path=f"{tmp_path}:{PATH}") == 75
