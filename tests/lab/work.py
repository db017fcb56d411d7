"""A Pi whose containers write all the time, and which serves for as many tests as it survives.

Each test begins with storage and a writer at work, and ends with all that was acknowledged still there.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support import Tell

from .conftest import FAILED, LABS
from .demo import STATUS_TRIES
from .lab import Lab
from .pi import Pi
from .records import Recorder, count_records, install_writer, start_writer

WRITER_RESTS = 100
"""Milliseconds after each record: what is looked at meanwhile wants its share of an emulated processor."""

NO_ANSWER = "no answer within"
"""How status says that it was not told in time."""


@dataclass
class Work:
    """A Pi at work."""

    lab: Lab
    pi: Pi
    recorder: Recorder
    fault: str = ""
    tell: Tell = print
    writer_installed: bool = False
    cursor: str = ""

    def put_to_work(self) -> None:
        """Storage up and a writer writing, from whatever state the last test left."""
        if not self.pi.is_on():
            self.pi.power_on()
        self.pi.wait_started("docker.service")
        if not self.writer_installed:
            install_writer(self.pi)
            start_writer(self.pi, self.recorder, rest=WRITER_RESTS)
            self.writer_installed = True
        self.recorder.wait_beyond(self.recorder.acknowledged)

    def nothing_is_lost(self) -> None:
        """Everything acknowledged is there, and the writer goes on."""
        acknowledged = self.recorder.acknowledged
        checked = count_records(self.pi, acknowledged)
        self.recorder.wait_beyond(acknowledged)
        self.tell(f"{self.fault}: {checked} records checked, lost 0")

    def listen(self) -> None:
        """Forget what the agent has told so far: a row that finds an earlier row's words has found nothing."""
        self.cursor = self.pi.run("journalctl --quiet --lines 0 --show-cursor").removeprefix("-- cursor: ")

    @property
    def journal(self) -> str:
        """The command that shows what the agent has told since listen()."""
        return f"journalctl --after-cursor '{self.cursor}' --unit rpinfs-agent.service --output cat"

    def told(self) -> str:
        """What the agent has told since listen()."""
        return self.pi.run(self.journal)

    def wait_for_docker(self) -> None:
        self.pi.run("until docker info >/dev/null 2>&1; do sleep 1; done", timeout=300)

    def status(self, *words: str) -> str:
        """What `rpinfs status` says in a fault: it must not be well, and must have all these words.

        An emulated Pi on a busy machine may not know within the seconds that an answer may take.
        """
        for _ in range(STATUS_TRIES):
            report = self.pi.try_run("rpinfs status")
            if all(word in report.stdout for word in words) or NO_ANSWER not in report.stdout:
                break
        print(report.stdout)
        assert report.status != 0, report.stdout
        for word in words:
            assert word in report.stdout, report.stdout
        return report.stdout


def taken_up(request: pytest.FixtureRequest, work: Work, tell: Tell) -> None:
    """For the fixture that hands a workplace to the next test of its module; skips where an earlier one has failed."""
    if failed := request.node.parent.stash.get(FAILED, ""):
        pytest.skip(f"{failed} has failed, and left the Pi who knows how")
    request.node.stash[LABS] = [work.lab]
    work.fault, work.tell = request.node.name.removeprefix("test_").replace("_", " "), tell
    work.put_to_work()
    work.listen()
