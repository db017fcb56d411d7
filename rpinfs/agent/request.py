"""Asking the agent for an image: rpinfs-attach@NAME.service does before it is mounted, where it is not attached.

A socket in /run/rpinfs, for root alone: the name of an image in one message, and one sentence back when it is decided
what becomes of it. At an ordinary boot nobody asks: the agent has published the image by then.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable

from rpinfs.boot.host import near
from rpinfs.boot.units import RUNTIME_FOLDER
from rpinfs.errors import RpinfsError

SOCKET = f"{RUNTIME_FOLDER}/agent.sock"
_LONGEST = 4096


class Requests:
    """The agent's end: who waits for which image."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen()
        self._waiting: list[tuple[socket.socket, str]] = []

    def fileno(self) -> int:
        """What becomes readable when somebody asks."""
        return self._listener.fileno()

    def take(self) -> None:
        """Take in who has come."""
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = self._listener.accept()
                # It asks in the moment in which it connects; who does not is not waited for.
                client.settimeout(1)
                try:
                    name = client.recv(_LONGEST).decode("utf-8", "replace")
                except OSError:
                    client.close()
                else:
                    self._waiting.append((client, name))

    def names(self) -> frozenset[str]:
        """Names of the images that are waited for."""
        return frozenset(name for _, name in self._waiting)

    def answer(self, name: str, sentence: str) -> None:
        """Tell who waits for an image what has become of it."""
        for client, wanted in self._waiting:
            if wanted == name:
                with contextlib.suppress(OSError):
                    client.send(sentence.encode("utf-8", "replace")[:_LONGEST])
                client.close()
        self._waiting = [(client, wanted) for client, wanted in self._waiting if wanted != name]

    def refuse_unknown(self, names: Iterable[str]) -> None:
        """Answer who waits for what is not the agent's."""
        for name in self.names() - frozenset(names):
            self.answer(name, f"the agent has no image {name}")

    def close(self) -> None:
        """Let everybody go."""
        for name in self.names():
            self.answer(name, "the agent is stopped")
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(near(self._path))


def ask_for(name: str, tell: Callable[[str], None], path: str = SOCKET) -> None:
    """Have the agent prepare an image, and wait until it is decided what becomes of it; that is told.

    Raises:
        RpinfsError: no agent answers.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as agent:
        try:
            agent.connect(path)
            agent.send(name.encode())
            sentence = agent.recv(_LONGEST).decode("utf-8", "replace")
        except OSError as error:
            raise RpinfsError(
                f"rpinfs-agent.service cannot be asked for image {name}: {error.strerror}",
                "systemctl start rpinfs-agent",
            ) from error
    if sentence:
        tell(sentence)
