"""Programs the lab runs: short ones to their end, and daemons whose output is kept and can be waited for."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TERMINATION_SECONDS = 20.0


class LabError(Exception):
    """Something in the lab itself did not work; the text says what, with the output of whatever failed."""


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = 600.0,
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    ok: Sequence[int] = (0,),
) -> str:
    """Run a program to its end and return its standard output; any failure is a LabError with all it wrote."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            check=False,
            input=input or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, "LANG": "C.UTF-8", **(env or {})},
        )
    except FileNotFoundError:
        raise LabError(f"{words[0]}: not found on this machine") from None
    except subprocess.TimeoutExpired as expired:
        raise LabError(f"{shlex.join(words)}: not done after {timeout:.0f} s\n{_text(expired.stderr)}") from None
    if done.returncode not in ok:
        raise LabError(f"{shlex.join(words)}: {_ending(done.returncode)}\n{done.stdout}{done.stderr}")
    return done.stdout


class Daemon:
    """A program that runs beside us. What it writes goes to a log file, and can be waited for as it comes."""

    def __init__(self, name: str, argv: Sequence[str | Path], log: Path) -> None:
        self.name = name
        self.log = log
        self._written = bytearray()
        self._changed = threading.Condition()
        self._ended = False
        # A session of its own: Ctrl-C reaches the lab alone, which then ends its daemons in order.
        self._process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._keep_output, name=f"output of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        """Everything it has written so far."""
        with self._changed:
            return self._written.decode(errors="replace")

    def wait_for(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait until the output matches; LabError when time is up or the program has ended without it."""
        wanted = re.compile(pattern)
        self.wait_until(lambda output: bool(wanted.search(output)), timeout, repr(pattern))
        match = wanted.search(self.output())
        assert match
        return match

    def wait_until(self, satisfied: Callable[[str], bool], timeout: float, what: str) -> None:
        """Wait until the output is as wanted; LabError when time is up or the program has ended without it."""

        def settled() -> bool:
            return satisfied(self._written.decode(errors="replace")) or self._ended

        with self._changed:
            in_time = self._changed.wait_for(settled, timeout)
        if not satisfied(self.output()):
            why = f"not seen within {timeout:.0f} s" if not in_time else "it ended without"
            raise LabError(f"{self.name}: waiting for {what}: {why}\n{tail(self.output())}")

    def wait(self, timeout: float) -> int:
        """Wait for its end; the exit status."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name}: still running after {timeout:.0f} s\n{tail(self.output())}") from None
        self._reader.join()
        return status

    def reload(self) -> None:
        """Ask it to read its configuration again."""
        self._process.send_signal(signal.SIGHUP)

    def terminate(self) -> None:
        """Ask it to end, and wait until it has."""
        if self.alive():
            self._process.send_signal(signal.SIGTERM)
        try:
            self.wait(TERMINATION_SECONDS)
        except LabError:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.alive():
            self._process.kill()
        self.wait(TERMINATION_SECONDS)

    def _keep_output(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("ab", buffering=0) as log, self._process.stdout as output:
            while piece := os.read(output.fileno(), 65536):
                log.write(piece)
                with self._changed:
                    self._written += piece
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def tail(text: str, lines: int = 40) -> str:
    """The last lines of a text, for error messages."""
    return "\n".join(text.splitlines()[-lines:])


def _ending(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
