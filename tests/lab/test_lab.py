"""The lab itself: what it promises to the tests that are written on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .initramfs import Entry, cpio
from .lab import WORK, Lab, remove_leftovers
from .network import namespaces_of
from .pi import CommandFailed, Pi
from .process import LabError
from .root import cached
from .sources import configured, sources_for

TOP = Path(__file__).resolve().parents[2]
HOLD_A_LAB = """\
import sys
from pathlib import Path
from tests.lab import Lab
with Lab(work=Path(sys.argv[1])) as lab:
    print(lab.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def pi(plain_lab: Lab) -> Pi:
    """A Pi without Docker: nothing here is about it, and on an NFS root it has nowhere to go."""
    pi = plain_lab.pi()
    pi.mask("docker.service", "docker.socket", "containerd.service")
    return pi


@pytest.mark.lab
@pytest.mark.root
def test_a_pi_from_power_on_to_power_off(plain_lab: Lab, pi: Pi) -> None:
    pi.power_on()
    assert pi.wait_booted() == "running"
    netboots_as_a_pi_does(pi)
    runs_commands(pi)
    can_be_unplugged(pi)
    waits_for_its_nas(plain_lab, pi)

    assert pi.read("/etc/hostname") == pi.run("hostname") + "\n"
    pi.run("echo kept > /root/kept; sync /root/kept; nohup sleep 1000 >/dev/null 2>&1 &")
    pi.pull_power()
    assert not pi.is_on()
    with pytest.raises(LabError, match="it is off"):
        pi.run("true")
    assert pi.read("/root/kept") == "kept\n"

    assert pi.boot() == "running"
    assert pi.run("cat /root/kept") == "kept"
    pi.power_off()
    assert not pi.is_on()
    assert "Power down" in pi.console()


def netboots_as_a_pi_does(pi: Pi) -> None:
    log = pi.boot_log.read_text()
    assert f"boot ROM: {pi.serial}/cmdline.txt: " in log
    assert "boot ROM: vmlinuz: " in log
    assert pi.run("cat /proc/cmdline") == pi.cmdline.replace("serial0", pi.machine.serial_console)
    source, kind, options = pi.run("findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS /").split()
    assert (source, kind) == (f"10.77.0.1:/nfsroot/{pi.name}", "nfs4")
    assert {"rw", "vers=4.1", "hard"} <= set(options.split(","))
    assert pi.run("cat /sys/class/net/eth0/address") == pi.mac
    assert pi.run("cat /sys/module/nfs/parameters/nfs4_unique_id") == pi.mac
    assert pi.run("getent ahostsv4 nas.local | head -n 1").split()[0] == "10.77.0.1"


def runs_commands(pi: Pi) -> None:
    assert pi.run("printf 'two\\nlines\\n\\n'") == "two\nlines"
    with pytest.raises(CommandFailed, match="exit status 3\nout\nerr") as failed:
        pi.run("echo out; echo err >&2; exit 3")
    assert failed.value.result.status == 3
    assert len(pi.run("head -c 300000 /dev/zero | tr '\\0' x")) == 300000
    with pytest.raises(LabError, match=r"no answer within \d+ s"):
        pi.run("sleep 1000", timeout=5)
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(pi.run, ("sleep 2; echo a", "echo b"))) == ["a", "b"]


def can_be_unplugged(pi: Pi) -> None:
    assert pi.run("cat /sys/class/net/eth0/carrier") == "1"
    pi.unplug()
    assert pi.run("cat /sys/class/net/eth0/carrier", from_memory=True) == "0"
    assert pi.try_run("ping -c 1 -W 2 10.77.0.1", from_memory=True).status != 0
    pi.plug()
    pi.run("until ping -c 1 -W 2 10.77.0.1; do :; done", from_memory=True)
    assert pi.run("echo again > /root/again; sync /root/again; cat /root/again") == "again"


def waits_for_its_nas(lab: Lab, pi: Pi) -> None:
    lab.nas.stop()
    answers: list[str] = []
    writer = threading.Thread(
        target=lambda: answers.append(pi.run("echo late > /root/late; sync /root/late; cat /root/late", timeout=300))
    )
    writer.start()
    assert pi.run("cat /proc/sys/kernel/ostype", from_memory=True) == "Linux"
    writer.join(timeout=3)
    assert not answers
    assert not (pi.path("/root/late").exists() and pi.read("/root/late"))
    lab.nas.start()
    writer.join(timeout=300)
    assert answers == ["late"]


@pytest.mark.root
def test_what_a_killed_lab_leaves_is_removed(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLD_A_LAB, str(tmp_path)]
    with subprocess.Popen(argv, cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        name = holder.stdout.readline().strip()
        assert namespaces_of(name) == [f"{name}-nas", f"{name}-switch"]
        assert (tmp_path / name).is_dir()
        remove_leftovers(tmp_path)
        assert (tmp_path / name).is_dir(), "it is in use"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    # Its janitor is at work at the same time; both may, and the work is done when this returns.
    remove_leftovers(tmp_path)
    assert not (tmp_path / name).exists()
    assert namespaces_of(name) == []


@pytest.mark.root
def test_a_lab_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Lab(work=tmp_path) as lab:
        with Lab(work=tmp_path) as other:
            assert namespaces_of(other.name)
        assert namespaces_of(lab.name), "the other's end is not ours"
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["rpinfs-lab-lock"]
    assert namespaces_of(lab.name) == []
    assert tmp_path != WORK


def test_sources_of_another_release(tmp_path: Path) -> None:
    lists = tmp_path / "sources.list.d"
    lists.mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://nowhere/debian trixie main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://mirror/debian bookworm main contrib # ours\n"
        "deb http://mirror/debian bookworm-backports main\n"
        "deb-src http://mirror/debian bookworm main\n"
        "deb http://vendor/apt bookworm stable\n"
        "deb http://vendor/node nodistro main\n"
    )
    (lists / "debian.sources").write_text(
        "Types: deb deb-src\nURIs: http://mirror/security\nSuites: bookworm-security\nComponents: main\n"
        "Signed-By: /k.gpg\n\nEnabled: no\nTypes: deb\nURIs: http://off/debian\nSuites: bookworm\nComponents: main\n"
    )
    (lists / "debian.sources.save").write_text("deb http://old/debian bookworm main\n")
    assert len(configured(tmp_path)) == 5
    assert sources_for("trixie", tmp_path) == (
        "deb [signed-by=/k.gpg] http://mirror/debian trixie main\n"
        "deb [signed-by=/k.gpg] http://mirror/security trixie-security main\n"
    )


def test_no_sources_for_debian(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://vendor/apt stable vendor\n")
    with pytest.raises(LabError, match="no entry for Debian's archive"):
        sources_for("trixie", tmp_path)


def test_a_cached_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise LabError("no space")

    with pytest.raises(LabError, match="no space"):
        cached(tmp_path / "root", fails)
    assert not (tmp_path / "root").exists()
    assert cached(tmp_path / "root", lambda folder: (folder / "whole").touch()) == tmp_path / "root"
    assert os.listdir(cached(tmp_path / "root", fails)) == ["whole"]


def test_cpio_archive(tmp_path: Path) -> None:
    archive = cpio([Entry("folder", 0o040755), Entry("folder/file", 0o100640, b"text\n"), Entry("odd", 0o100644, b"1")])
    subprocess.run(["busybox", "cpio", "-i"], input=archive, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "folder/file").read_text() == "text\n"
    assert (tmp_path / "folder/file").stat().st_mode == 0o100640
    assert (tmp_path / "odd").read_bytes() == b"1"
