"""Fixtures for all tests."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from tests.support import Installed, Tell, thorough

# A test that is slow on a busy machine is not wrong.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell that starts the tests in the background has them ignore Ctrl-C, and nohup the end of a session, and all that
# they start as well: the programs under test must get these, or the tests of it wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The lab's tests first: they take minutes each, and what takes a moment fills the gap at the end."""
    if not thorough():
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: make test-lab, make test-crash"))
    items.sort(key=lambda item: item.get_closest_marker("lab") is None)
    for item in items:
        # They share what the machine has one of: its loop devices, and the control groups that containers get.
        if item.path.parent.name in ("tools", "package"):
            item.add_marker(pytest.mark.xdist_group("machine"))


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Say something in the summary: how many points were tried, with which seed."""

    def tell_summary(line: str) -> None:
        record_property("told", line)

    return tell_summary


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests had to tell."""
    reports = [report for key in ("passed", "failed") for report in terminalreporter.getreports(key)]
    told = [str(line) for report in reports for name, line in report.user_properties if name == "told"]
    if told:
        terminalreporter.section("what was tried")
        for line in told:
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def no_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    """What moves rpinfs into another world must not come from whoever runs the tests."""
    for name in ("RPINFS_ROOT", "SYSTEMD_PROC_CMDLINE", "SYSTEMD_VIRTUALIZATION", "SYSTEMD_SCOPE", "SYSTEMD_IN_INITRD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """rpinfs with its two programs in a folder of its own."""
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder to make a machine of."""
    path = tmp_path / "root"
    path.mkdir()
    return path
