"""Labs for tests: one with our package in its Pis' roots, one without. Both end with the test that asked for them.

RPINFS_LAB_RELEASE=bookworm, or another of releases.py, in the environment makes the Pis that Debian, and
RPINFS_LAB_ARCH=arm64, or another of machine.py, gives them that processor. When a test fails, the report has what its
Pis wrote to their consoles and journals and what the NAS logged.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.package.conftest import make_deb

from .lab import Lab
from .pi import Pi
from .process import LabError, tail
from .releases import DEFAULT

CONSOLE_LINES = 150
ANSWER_SECONDS = 30.0
WAITING_IN = """\
for task in /proc/[0-9]*; do
    args=$(tr '\\0' ' ' <"$task/cmdline")
    [ -z "$args" ] || echo "${task#/proc/} $(cat "$task/wchan"): $args"
done
"""
QUESTIONS = {
    "jobs": ("systemctl --no-pager list-jobs", False),
    # By a busybox in memory: it answers while the root's NAS is away, and when nothing new can be run from the root.
    "tasks": (WAITING_IN, True),
    "journal": (f"journalctl --no-pager --boot --lines={CONSOLE_LINES}", False),
}
"""What a failed test's Pi is asked: a name, a command, and whether it runs from memory."""
LABS = pytest.StashKey[list[Lab]]()
FAILED = pytest.StashKey[str]()
"""Of a module whose tests share a lab: the last one that failed, and has left it who knows how."""


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package under test: the one that make has built, or one that is built here."""
    given = os.environ.get("RPINFS_DEB")
    return Path(given) if given else make_deb(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def release() -> str:
    """The Debian release of the Pis."""
    return os.environ.get("RPINFS_LAB_RELEASE", DEFAULT)


@pytest.fixture(scope="session")
def architecture() -> str:
    """The architecture of the Pis, "" for this machine's own."""
    return os.environ.get("RPINFS_LAB_ARCH", "")


@pytest.fixture
def lab(request: pytest.FixtureRequest, deb: Path, release: str, architecture: str) -> Iterator[Lab]:
    """A lab whose Pis have our package."""
    with Lab(deb=deb, release=release, architecture=architecture) as lab:
        request.node.stash[LABS] = [lab]
        yield lab


@pytest.fixture
def plain_lab(request: pytest.FixtureRequest, release: str, architecture: str) -> Iterator[Lab]:
    """A lab whose Pis are Debian and nothing else."""
    with Lab(release=release, architecture=architecture) as lab:
        request.node.stash[LABS] = [lab]
        yield lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the consoles and the NAS's log beside a failure: the lab is gone when somebody reads it."""
    report = yield
    if report.failed:
        if item.parent is not None:
            item.parent.stash[FAILED] = item.name
        for lab in item.stash.get(LABS, []):
            # What says most comes first: who shows a report in part leaves out its end.
            for pi in lab.pis.values():
                if pi.is_on():
                    report.sections += [(f"{what} of {pi.name}", asked(pi, *how)) for what, how in QUESTIONS.items()]
                report.sections.append((f"console of {pi.name}", tail(pi.console(), CONSOLE_LINES)))
            report.sections.append(("log of the NAS", tail(lab.nas.log(), CONSOLE_LINES)))
    return report


def asked(pi: Pi, command: str, from_memory: bool = False) -> str:
    """What a Pi answers, if it still does."""
    try:
        return str(pi.try_run(command, ANSWER_SECONDS, from_memory))
    except LabError as error:
        return str(error)
