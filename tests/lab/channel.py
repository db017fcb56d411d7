"""The wires into an emulated machine that are not its network: the guest agent's serial port, and QEMU's monitor.

QEMU connects to sockets on which we listen already, so there is nothing to poll for.
"""

from __future__ import annotations

import base64
import itertools
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .process import LabError

CONNECT_SECONDS = 30.0


@dataclass(frozen=True)
class Result:
    """What a command in the Pi did."""

    command: str
    status: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"{self.command}: exit status {self.status}\n{self.stdout}{self.stderr}"


class Listener:
    """A socket that waits for QEMU."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._socket.settimeout(CONNECT_SECONDS)

    def accept(self) -> socket.socket:
        """The connection from QEMU; there is only one."""
        try:
            connection, _ = self._socket.accept()
        except TimeoutError:
            raise LabError(f"QEMU has not connected within {CONNECT_SECONDS:.0f} s") from None
        finally:
            self._socket.close()
        connection.settimeout(None)
        return connection


class Agent:
    """Commands to the agent in the Pi; any number of them at once, from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[tuple[int, str, str]]] = {}
        self._lock = threading.Lock()
        self._hello: Future[None] = Future()
        threading.Thread(target=self._read_answers, name="lab agent", daemon=True).start()

    def wait_ready(self, timeout: float) -> None:
        """Wait until the agent in the Pi is there: systemd has begun."""
        try:
            self._hello.result(timeout)
        except NotInTime:
            raise LabError(f"no agent answers after {timeout:.0f} s") from None

    def call(self, command: str, timeout: float, shell: str) -> Result:
        """Run a command and wait for it."""
        number = next(self._numbers)
        future: Future[tuple[int, str, str]] = Future()
        with self._lock:
            self._waiting[number] = future
            coded = base64.b64encode(command.encode()).decode()
            try:
                self._connection.sendall(f"{number} {timeout:.0f} {shell} {coded}\n".encode())
            except OSError:
                raise LabError(f"{command}: the Pi is off") from None
        try:
            status, stdout, stderr = future.result(timeout)
        except NotInTime:
            raise LabError(f"{command}: no answer within {timeout:.0f} s") from None
        finally:
            self._waiting.pop(number, None)
        return Result(command, status, stdout, stderr)

    def _read_answers(self) -> None:
        try:
            with self._connection.makefile("rb") as lines:
                for line in lines:
                    self._take(line)
        except OSError:
            pass  # A reset by QEMU's death says the same as its end of file.
        self._fail_all()
        self._connection.close()

    def _take(self, line: bytes) -> None:
        if line.strip() == b"hello":
            if not self._hello.done():
                self._hello.set_result(None)
            return
        number, status, stdout, stderr = line.split()
        future = self._waiting.get(int(number))
        if future and not future.done():
            future.set_result((int(status), _decoded(stdout), _decoded(stderr)))

    def _fail_all(self) -> None:
        off = LabError("the Pi went off")
        with self._lock:
            if not self._hello.done():
                self._hello.set_exception(off)
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(off)


class Monitor:
    """QEMU's machine protocol, as much of it as a cable needs."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rwb")
        self._receive(lambda message: "QMP" in message)
        self.call("qmp_capabilities")

    def call(self, command: str, **arguments: object) -> None:
        """One command; returns when QEMU has done it."""
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._stream.flush()
        answer = self._receive(lambda message: "return" in message or "error" in message)
        if "error" in answer:
            raise LabError(f"QEMU: {command}: {answer['error']}")

    def close(self) -> None:
        """Let go of a QEMU that has ended."""
        self._stream.close()
        self._connection.close()

    def _receive(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for line in self._stream:
            message: dict[str, Any] = json.loads(line)
            if wanted(message):
                return message
        raise LabError("QEMU: its monitor is gone")


def _decoded(field: bytes) -> str:
    return base64.b64decode(field[1:]).decode(errors="replace")
