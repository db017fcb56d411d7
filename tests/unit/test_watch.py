"""A test that hangs fails, and the run goes on: tests/watch.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import watch, watcher
from tests.support import TOP

TESTS = """\
import os, signal, subprocess, time
import pytest

def test_hangs():
    time.sleep(3600)

def test_waits_for_a_child_that_ends_late():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGXCPU])
    time.sleep(3600)

@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_writes_to_a_frozen_file_system(tmp_path):
    subprocess.run(["truncate", "--size=64M", tmp_path / "disk"], check=True)
    subprocess.run(["mkfs.ext4", "-q", tmp_path / "disk"], check=True)
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", "-o", "loop", tmp_path / "disk", tmp_path / "mnt"], check=True)
    try:
        subprocess.run(["fsfreeze", "--freeze", tmp_path / "mnt"], check=True)
        (tmp_path / "mnt" / "file").write_text("in state D")
        time.sleep(3600)
    finally:
        subprocess.run(["umount", tmp_path / "mnt"], check=True)

def test_goes_on():
    pass
"""


def test_a_run_goes_on_after_tests_that_hang(tmp_path: Path) -> None:
    shutil.copy(TOP / "tests/conftest.py", tmp_path)
    (tmp_path / "test_hanging.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n1", f"--basetemp={tmp_path}/base", f"--rootdir={tmp_path}", "-p",
         "no:cacheprovider", "--import-mode=importlib", "-ra", str(tmp_path)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, watch.LIMIT_VARIABLE: "3", watch.GRACE_VARIABLE: "3", "PYTHONPATH": str(TOP),
             "COLUMNS": "200"},
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "test_hangs - Failed: it took longer than anything here may take" in said
    assert "worker 'gw0' crashed while running" in said and "test_waits_for_a_child_that_ends_late" in said
    if os.geteuid() == 0:
        assert "test_writes_to_a_frozen_file_system - Failed: it took longer" in said
        assert f"{tmp_path}/" not in Path("/proc/self/mountinfo").read_text()
    assert f"{3 if os.geteuid() == 0 else 2} failed, 1 passed" in said


def test_limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    devices, others, everything = watch.LIMITS
    monkeypatch.delenv("RPINFS_ALL_POINTS", raising=False)
    assert watch.limit_of(request.node) == others
    request.node.add_marker("root")
    assert watch.limit_of(request.node) == devices
    monkeypatch.setenv("RPINFS_ALL_POINTS", "1")
    assert watch.limit_of(request.node) == everything


def test_only_what_is_the_tests_own_is_thawed() -> None:
    table = Path("/proc/self/mountinfo").read_text()
    mounts = "90 1 7:0 / /tmp/a/disk rw - ext4 /dev/loop0 rw\n91 1 7:1 / /tmp/ab rw - ext4 /dev/loop1 rw\n"
    assert list(watcher.mounts_below(table + mounts, "/tmp/a")) == ["/tmp/a/disk"]
