"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from rpinfs.system import syscalls
from tests import origin, watch
from tests.support import TOP, Installed, Tell, thorough

origin.watch()

# A test that is slow on a busy machine is not wrong.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

# A shell that starts the tests in the background has them ignore Ctrl-C, and nohup the end of a session, and all that
# they start as well: the programs under test must get these, or the tests of it wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

WATCH = pytest.StashKey[watch.Watch]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, and what takes a moment last: it fills the gap at the end.

    What one worker has to do alone takes longest of all; then come the lab's tests, which take minutes each.
    """
    if not thorough():
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: make test-lab, make test-crash"))
    items.sort(key=lambda item: (not scope_of(item.nodeid), item.get_closest_marker("lab") is None))


def scope_of(nodeid: str) -> str:
    """What a test shares with others that the machine or a lab has one of; nothing for most."""
    path = nodeid.partition("::")[0]
    if path.startswith(("tests/tools/", "tests/package/")):
        return "loop devices, and control groups of containers"
    return path if path in ("tests/lab/test_faults.py", "tests/lab/test_containerd_store.py") else ""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Watch over whoever runs tests: without xdist's workers that is this process.

    Its mounts are its own: whoever makes a mount namespace beside it, as another worker's container or a service of the
    machine, would copy them, and keep their devices busy for as long as it runs.
    """
    if not session.config.getoption("numprocesses", None):
        if os.geteuid() == 0:
            syscalls.mounts_of_our_own()
        session.stash[WATCH] = watch.Watch(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Give each test, with the making and clearing away of what it uses, its time."""
    item.session.stash[WATCH].begin(item)
    try:
        return (yield)
    finally:
        item.session.stash[WATCH].end()


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """One worker for all that share something; everything else goes to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid) or nodeid

    # A worker that had to be killed is replaced by xdist, and by its own scheduling (3.8) the rest of the run stood
    # still: the test that killed it was given out again, and alone: a worker begins one only when it knows the next.

    def remove_node(self, node: WorkerController) -> str | None:
        left = {
            scope: [nodeid for nodeid, done in unit.items() if not done]
            for scope, unit in self.assigned_work.pop(node).items()
        }
        crashed = next((nodeid for nodeids in left.values() for nodeid in nodeids), None)
        for scope, nodeids in left.items():
            if again := {nodeid: False for nodeid in nodeids if nodeid != crashed}:
                self.workqueue[scope] = again
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed

    def _reschedule(self, node: WorkerController) -> None:
        super()._reschedule(node)
        while self.workqueue and not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            self._assign_work_unit(node)
        if not self.workqueue:
            node.shutdown()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Scheduling:
    """Share the tests out between the workers, see _Scheduling."""
    return _Scheduling(config, log)


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
def no_influence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """What moves rpinfs into another world must not come from whoever runs the tests.

    After tmp_path: what a test has put in place of os.open and its like is gone when its folder is removed.
    """
    for name in ("RPINFS_ROOT", "SYSTEMD_PROC_CMDLINE", "SYSTEMD_VIRTUALIZATION", "SYSTEMD_SCOPE", "SYSTEMD_IN_INITRD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def only_what_make_installs() -> Iterator[None]:
    """A program that PACKAGES of the Makefile does not bring is on this machine by chance."""
    yield
    assert origin.strangers() == []


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """rpinfs with its two programs in a folder of its own."""
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def watchers() -> Iterator[Path]:
    """Where WATCHERS of the Makefile are: Prometheus, its promtool and node exporter, Nagios, a wrapper of plug-ins."""
    before = os.environ.get("RPINFS_WATCHERS")
    if before is None:
        done = subprocess.run(
            ["make", "--silent", f"--directory={TOP}", "watchers"], capture_output=True, text=True, check=True
        )
        # tests/origin.py asks for it.
        os.environ["RPINFS_WATCHERS"] = done.stdout.splitlines()[-1]
    yield Path(os.environ["RPINFS_WATCHERS"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder to make a machine of."""
    path = tmp_path / "root"
    path.mkdir()
    return path
