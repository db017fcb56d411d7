"""What the real agent tells the service manager, the journal and status of what whoever owns the share has written.

Seen with systemd 252: a newline in an owner record's host name took over MAINPID, and a line went to every terminal.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tools.agent.conftest import Started
from tests.tools.commands.test_hostile import EVIL, EVIL_BYTES, assert_harmless, ext4, record_of, said_by
from tests.tools.conftest import command

pytestmark = pytest.mark.root

CLEAN = EVIL.replace("\ud83d", "")
_MMP_BLOCK, _MMP_FSCK, _MMP_NODE_NAME = 0x168, 0xE24D4D50, 16


def a_record(**fields: str) -> Callable[[Path], object]:
    return lambda share: (share / ".docker.img.rpinfs-owner").write_text(record_of(**fields))


def a_link(share: Path) -> None:
    (share / ".docker.img.rpinfs-lock").symlink_to(CLEAN)


def a_restore(share: Path) -> None:
    ext4(share / "docker.img")
    record = {"version": 2, "of": CLEAN, "kept": CLEAN, "replaced": 1, "restored": 2, "uuid": CLEAN}
    (share / ".docker.img.rpinfs-replaced").write_text(json.dumps(record))


def a_label(share: Path) -> None:
    """With an error that e2fsck -p does not repair; all that it says begins with the label."""
    path = share / "docker.img"
    ext4(path, EVIL_BYTES)
    with path.open("r+b") as file:
        command("debugfs", "-w", "-R", "set_inode_field <2> mode 0100644", path)
        file.seek(1024 + 0x3A)
        file.write(struct.pack("<H", 2))


def a_host(share: Path) -> None:
    """That e2fsck is at work on it, on a host whose name is in the block of the multi-mount protection."""
    path = share / "docker.img"
    ext4(path)
    command("tune2fs", "-O", "mmp", path)
    with path.open("r+b") as file:
        file.seek(1024 + _MMP_BLOCK)
        block = 1024 * struct.unpack("<Q", file.read(8))[0]
        file.seek(block + 4)
        file.write(struct.pack("<I", _MMP_FSCK))
        file.seek(block + _MMP_NODE_NAME)
        file.write(EVIL_BYTES.ljust(64, b"\0"))


def strange_files(share: Path) -> None:
    """Beside an image: names of the form of snapshots, of leftovers, of odd records."""
    for name in (f"docker.img.snapshot-{CLEAN}", f".docker.img.rpinfs-new-{CLEAN}", CLEAN):
        (share / name.replace("/", "")).write_bytes(EVIL_BYTES)


HOSTILE = {
    # What is planted, and what of it is told.
    "host name": (a_record(hostname=CLEAN), "nobody can tell whose it is"),
    "serial": (a_record(serial=CLEAN), "nobody can tell whose it is"),
    "version": (lambda share: (share / ".docker.img.rpinfs-owner").write_text(
        json.dumps({"version": CLEAN})), "expected version 1, found"),
    "bytes": (lambda share: (share / ".docker.img.rpinfs-owner").write_bytes(EVIL_BYTES), "nobody can tell"),
    "lock": (a_link, "expected a file of rpinfs"),
    "restore": (a_restore, "expected the record of a restore"),
    "label": (a_label, "only a person can decide about"),
    "last line of e2fsck": (lambda share: ext4(share / "docker.img"), "e2fsck could not do its work"),
    "mmp_node_name": (a_host, "last marked by"),
    "names of files": (strange_files, "is attached"),
}  # fmt: skip


def saying(folder: Path, said: bytes) -> str:
    """Have the agent find a fake e2fsck, since the real one cleans some of what it says."""
    (folder / "said").write_bytes(said)
    fake = folder / "e2fsck"
    fake.write_text(f"#!/bin/sh\ncat {folder}/said >&2; exit 8\n")
    fake.chmod(0o755)
    path = f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"
    return f"from rpinfs.system import run\nrun.ENVIRONMENT['PATH'] = {path!r}"


def told(agent: Started, word: str) -> Iterator[bytes]:
    """Every datagram, up to the one whose STATUS= has a word in it, and those of the stop."""
    stopped, deadline = False, time.monotonic() + 60
    while not (stopped and agent.process.poll() is not None):
        assert time.monotonic() < deadline, f"not told: {word}"
        try:
            datagram = agent.manager.recv(65536)
        except TimeoutError:
            assert stopped, f"not told: {word}"
            return
        yield datagram
        if not stopped and b"STATUS=" in datagram and word.encode() in datagram:
            stopped = True
            shutil.copy(agent.run / "agent.json", agent.run.parent / "agent.json")
            agent.process.terminate()
            agent.process.wait(60)
            agent.manager.settimeout(0.1)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_told(start: Callable[..., Started], tmp_path: Path, name: str) -> None:
    plant, word = HOSTILE[name]
    plant(tmp_path / "share")
    if name == "mmp_node_name":
        with (tmp_path / "root/etc/rpinfs/rpinfs.conf").open("a") as file:
            file.write("Fence=mmp\n")
    agent = start(saying(tmp_path, EVIL.encode("utf-8", "surrogatepass")) if name.endswith("e2fsck") else "")
    datagrams = list(told(agent, word))
    for line in b"\n".join(datagrams).split(b"\n"):
        assert re.fullmatch(rb"(READY|STOPPING|WATCHDOG)=1|EXTEND_TIMEOUT_USEC=[0-9]+|STATUS=[ -~]+", line), line
    said = agent.log.read_text()
    assert_harmless(said.encode())
    assert all(re.match(r"<[3-7]>", line) for line in said.splitlines()), said
    assert word in said
    (tmp_path / "root/run/rpinfs").mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / "agent.json", tmp_path / "root/run/rpinfs")
    for words in (["status"], ["check"], ["status", "--json"]):
        assert_harmless(said_by(*words, root=tmp_path / "root"))
