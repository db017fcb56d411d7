"""The generator's own part: when it does nothing, what it writes over, and its exit status. Its texts: tests/golden."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rpinfs.boot import generator
from rpinfs.boot.config import load
from rpinfs.boot.host import NIC_FILE, Host
from rpinfs.boot.units import FROM_NEXT_BOOT, Units
from tests.support import Content, listing, make_pi, make_tree

AGENT = "multi-user.target.wants/rpinfs-agent.service"
NAMELESS: dict[str, Content] = {
    "proc/device-tree/serial-number": "\0",
    "sys/class/net/eth0/address": "dc:a6:32:00:00:01\n",
    "sys/class/net/eth0/device": None,
}


@pytest.fixture
def pi(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The generator looks at it."""
    monkeypatch.setenv("RPINFS_ROOT", str(root))
    return root


def test_a_right_configuration(pi: Path, tmp_path: Path) -> None:
    make_pi(pi, files=NAMELESS)
    assert generator.main([str(tmp_path / "normal"), str(tmp_path / "early"), str(tmp_path / "late")]) == 0
    assert AGENT in listing(tmp_path / "normal")
    assert not (tmp_path / "early").exists() and not (tmp_path / "late").exists()
    assert (pi / NIC_FILE.lstrip("/")).read_text() == "dc-a6-32-00-00-01\n"


def test_a_wrong_configuration(pi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no mounts, and the NIC is not remembered by what is wrong; the first error is logged, and once."""
    said: list[str] = []
    monkeypatch.setattr(generator, "_log", said.append)
    make_pi(pi, "[Server]\nVersion=9\n[Share]\nWhere=x\n", NAMELESS)
    assert generator.main([str(tmp_path / "units")]) == 1
    assert [line for line in said if "Version=9" in line] == said and len(said) == 1
    assert not any(name.endswith(".mount") for name in listing(tmp_path / "units"))
    assert not (pi / NIC_FILE.lstrip("/")).exists()


def test_an_ordering_cycle_is_logged(pi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(generator, "_log", said.append)
    make_pi(pi, files={"etc/fstab": "/dev/sda1 /var/lib/docker/v ext4 defaults 0 2\n"})
    assert generator.main([str(tmp_path / "units")]) == 0
    assert len(said) == 1 and "ordering cycle" in said[0]


def test_a_machine_that_is_not_in_use_remembers_no_nic(pi: Path, tmp_path: Path) -> None:
    make_tree(pi, {**NAMELESS, "proc/cmdline": "root=/dev/sda1\n"})
    assert generator.main([str(tmp_path / "units")]) == 0
    assert not (pi / NIC_FILE.lstrip("/")).exists()


def test_no_folder_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert generator.main([]) == 2
    assert "expected a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "acts"),
    [
        ("SYSTEMD_SCOPE", "user", False),
        ("SYSTEMD_SCOPE", "system", True),
        ("SYSTEMD_IN_INITRD", "1", False),
        ("SYSTEMD_IN_INITRD", "0", True),
    ],
)
def test_where_it_acts(
    pi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, acts: bool
) -> None:
    make_pi(pi)
    monkeypatch.setenv(name, value)
    assert generator.main([str(tmp_path / "units")]) == 0
    assert (tmp_path / "units").exists() is acts


def test_installed_beside_a_running_docker_it_waits_for_the_next_boot(pi: Path, tmp_path: Path) -> None:
    make_pi(pi, files={FROM_NEXT_BOOT: Path("/nonexistent")})
    assert generator.main([str(tmp_path / "units")]) == 0
    assert not (tmp_path / "units").exists()


ROOT_ON = "20 1 0:20 / / rw - nfs4 n:/r rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "looks"),
    [
        ("", True),
        (ROOT_ON, True),
        (ROOT_ON + "\n21 20 0:21 /\n21 20 0:21 / /nfs\n", True),
        (ROOT_ON + "21 20 0:21 / /nfs rw\n", False),
        (ROOT_ON + "21 20 0:21 /nfs /srv rw - nfs4 n:/nfs rw\n", True),
        (ROOT_ON + "21 20 0:21 / /nf\\163 rw - nfs4 n:/nfs rw\n", False),
    ],
)
def test_links_are_looked_for_up_to_the_first_mount(pi: Path, mountinfo: str, looks: bool) -> None:
    """What is in a mount may be silent; a line that is cut short names none."""
    make_pi(pi, files={"proc/self/mountinfo": mountinfo, "nfs/docker": Path("/srv")})
    host = Host.read(str(pi))
    assert generator._may_be_links(load(host), host) is looks


def test_what_is_there_is_written_over(tmp_path: Path) -> None:
    units = make_tree(tmp_path / "units", {"a.mount": "much longer than what comes\n", "x.wants/a": Path("/old")})
    made = Units()
    made.files = {"a.mount": "new \udcff\n", "b.d/c.conf": "c\n"}
    made.links = {"x.wants/a": "../new", "y.wants/b": "b"}
    made.others = {"/etc/nm/conf.d/a.conf": "nm\n"}
    generator.write(made, str(units), str(tmp_path / "root"))
    assert (units / "a.mount").read_bytes() == b"new \xff\n"
    assert (units / "b.d/c.conf").read_text() == "c\n"
    assert [os.readlink(units / name) for name in made.links] == ["../new", "b"]
    assert listing(tmp_path / "root") == {"etc/nm/conf.d/a.conf": "nm\n"}
    assert (units / "b.d/c.conf").stat().st_mode & 0o777 == 0o644


def test_units_that_cannot_be_written(pi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(generator, "_log", said.append)
    (tmp_path / "file").write_text("")
    make_pi(pi)
    assert generator.main([str(tmp_path / "file")]) == 1
    assert [line.partition(":")[0] for line in said] == ["units cannot be written"]


@pytest.mark.parametrize("message", ["short", "x" * 899 + "ä" * 300])
def test_a_line_for_the_kernel_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    """The kernel refuses a record of more than some 1,000 bytes, and half a letter is none."""
    log = tmp_path / "kmsg"
    log.touch()
    there = os.open
    monkeypatch.setattr(os, "open", lambda path, flags: there(log if path == "/dev/kmsg" else path, flags))
    generator._log(message)
    line = log.read_bytes()
    start = f"<3>rpinfs-generator[{os.getpid()}]: ".encode()
    assert line.startswith(start + message[:5].encode()) and line.endswith(b"\n") and len(line) <= 901
    assert line.decode() == f"{start.decode()}{message}"[: len(line.decode()) - 1] + "\n"
    assert len(line) >= min(900, len(start) + len(message))
