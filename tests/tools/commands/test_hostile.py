"""What stands on a share, in an image or in what programs say of them reaches terminals and pipes as harmless text."""

from __future__ import annotations

import json
import os
import pty
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import SERIAL, Installed, make_pi
from tests.tools.conftest import ROOT, command

EVIL = "\x1b[31mred\x1b[2J\x07\x08\x7f\r\n<0>emergency\nMAINPID=1\x9b31m\u202eback\u2066\u200b\ud83d"
"""ESC, bell, backspace, DEL, newlines, C1, bidi controls, half a character."""
EVIL_BYTES = b"\x1b[31m\nMAINPID=1\x9b\xff\x7f"


def assert_harmless(said: bytes) -> None:
    assert said
    text = said.decode("utf-8")  # Nothing else may come out.
    bad = [c for c in text if not c.isprintable() and c not in "\n\t"]
    assert not bad, (bad, text)
    # A line of its own would be a row, or an assignment, of ours.
    assert not [line for line in text.splitlines() if line.startswith(("MAINPID", "<0>"))], text


def said_by(*argv: str | Path, root: Path | None = None, code: str = "") -> bytes:
    """What a command writes to a pipe, and what to a terminal without colours."""
    program: list[str | Path | bytes] = [sys.executable, "-c", code] if code else [sys.executable, "-m", "rpinfs"]
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    if root is not None:
        environment["RPINFS_ROOT"] = str(root)
    words = [*program, *argv]
    piped = subprocess.run(words, capture_output=True, check=False, env=environment, timeout=120, cwd="/")
    controller, terminal = pty.openpty()
    try:
        subprocess.run(words, stdout=terminal, stderr=subprocess.DEVNULL, check=False, env=environment, cwd="/")
        os.close(terminal)
        drawn = _drained(controller)
    finally:
        os.close(controller)
    # The terminal itself makes CR LF of a newline.
    return piped.stdout + piped.stderr + drawn.replace(b"\r\n", b"\n")


def _drained(controller: int) -> bytes:
    found = b""
    try:
        while chunk := os.read(controller, 65536):
            found += chunk
    except OSError:
        # EIO: the other end is closed, and all is read.
        return found
    return found


def ext4(path: Path | bytes, label: bytes = b"") -> None:
    subprocess.run(["truncate", "--size", "16M", path], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    with open(path, "r+b") as file:
        # s_volume_name; without metadata_csum nobody minds.
        subprocess.run(["tune2fs", "-O", "^metadata_csum", path], check=True, capture_output=True)
        file.seek(1024 + 0x78)
        file.write(label.ljust(16, b"\0")[:16])


@pytest.mark.parametrize("verb", ["show", "check", "grow"])
def test_a_files_name_and_its_label(tmp_path: Path, verb: str) -> None:
    path = bytes(tmp_path) + b"/evil\x1b[2J\nUUID MAINPID=1\nMAINPID=1\x9b\xff\xe2\x80\xae.img"
    ext4(path, EVIL_BYTES)
    more = ["--size", "32M"] if verb == "grow" else []
    assert_harmless(said_by("image", verb, os.fsdecode(path), *more))
    if verb == "show":
        assert_harmless(said_by("image", verb, "--json", os.fsdecode(path)))


def test_what_e2fsck_says_last(tmp_path: Path) -> None:
    """It begins its lines with the label."""
    path = tmp_path / "image"
    ext4(path, EVIL_BYTES)
    with path.open("r+b") as file:
        # The root folder is no folder any more, which -p does not repair.
        command("debugfs", "-w", "-R", "set_inode_field <2> mode 0100644", path)
        file.seek(1024 + 0x3A)
        file.write(struct.pack("<H", 2))
    assert_harmless(said_by("image", "check", path))


@pytest.mark.parametrize("line", [EVIL, "e\x1b]0;title\x07", "\x9b2J"])
def test_what_a_program_says(tmp_path: Path, line: str) -> None:
    """A fake e2fsck, since the real one cleans some of it."""
    path = tmp_path / "image"
    ext4(path)
    fake = tmp_path / "e2fsck"
    fake.write_bytes(b"#!/bin/cat\n")
    out = tmp_path / "out"
    out.write_bytes(line.encode("utf-8", "surrogatepass"))
    fake.write_text(f"#!/bin/sh\ncat {out}; cat {out} >&2; exit 8\n")
    fake.chmod(0o755)
    code = (
        "import sys; from rpinfs.system import run; from rpinfs.commands import cli\n"
        f"run.ENVIRONMENT['PATH'] = {str(tmp_path)!r} + ':' + run.PATH\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    said = said_by("image", "check", path, code=code)
    assert_harmless(said)
    assert b"could not do its work (exit status 8)" in said


def record_of(**fields: str) -> str:
    texts = {"serial": "1", "hostname": "pi", "machine_id": "m", "boot_id": "b", **fields}
    return json.dumps({"version": 1, **texts, "since": 1})


@pytest.mark.parametrize("field", ["serial", "hostname", "machine_id", "boot_id", "version"])
@pytest.mark.parametrize("verb", ["adopt", "adopt --now", "release"])
def test_an_owner_record(tmp_path: Path, field: str, verb: str) -> None:
    """Seen: MAINPID= was taken over by systemd, and a line went to every terminal of the machine."""
    (tmp_path / ".docker.img.rpinfs-owner").write_text(record_of(**{field: EVIL}))
    assert_harmless(said_by(*verb.split(), "docker", code=on_a_share(tmp_path)))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to(EVIL.replace("\ud83d", "")),
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(EVIL_BYTES),
        lambda path: path.write_bytes(b"[" * 4096),
    ],
)
@pytest.mark.parametrize("name", ["lock", "owner"])
def test_what_is_odd_on_a_share(tmp_path: Path, name: str, make: Callable[[Path], object]) -> None:
    make(tmp_path / f".docker.img.rpinfs-{name}")
    for verb in ("release", "adopt"):
        assert_harmless(said_by(verb, "docker", code=on_a_share(tmp_path)))


def on_a_share(folder: Path) -> str:
    """The program, for a share that is a folder."""
    return (
        "import sys, types; from rpinfs.commands import cli, common, lease; from rpinfs.boot.host import Host\n"
        f"image = types.SimpleNamespace(name='docker', path={str(folder / 'docker.img')!r}, file='docker.img')\n"
        "lease.image_on_share = lambda name: (Host(serial='10000000aaaaaaaa', hostname='here'), image)\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["check"], ["check", "--json"]])
def test_what_the_agent_and_the_kernel_say(tmp_path: Path, words: list[str]) -> None:
    octal = "".join(f"\\{byte:03o}" for byte in EVIL_BYTES)
    evil = EVIL.replace("\ud83d", "")
    said = {"state": "refused", "since": 1.0, "message": evil, "remedy": evil, "file": evil, "loop": evil}
    state = {"version": 1, "pid": 1, "since": 1.0, "share": {**said, "size": None}, "images": {"docker": said}}
    root = make_pi(tmp_path / "root", "", {
        "etc/hostname": evil,
        "proc/self/mountinfo": (
            f"40 22 0:40 / /nfs/docker rw - nfs4 192.168.1.10:/{octal} rw,vers=4.1\n"
            f"41 22 0:41 / /var/lib/docker rw - {'ext4'} {octal} rw\n"
        ),
        "run/rpinfs/agent.json": json.dumps(state),
    })  # fmt: skip
    assert_harmless(said_by(*words, root=root))


@pytest.mark.parametrize("where", ["serial", "mac", "option"])
def test_the_gate_and_the_generator(tmp_path: Path, installed: Installed, where: str) -> None:
    config = {"serial": "[Image docker]\nFile={serial}/..\n", "mac": f"[Server]\nAddress={EVIL[:9]}\x9b\n"}
    text = config.get(where, "[Share]\nExport=/x\x1b[31m\x7f\u202e\n")
    root = make_pi(tmp_path / "root", text, {"proc/device-tree/serial-number": SERIAL + "\x1b[31m\0"})
    done = subprocess.run(
        [installed.rpinfs, "gate"], capture_output=True, env={"RPINFS_ROOT": str(root), "PATH": "/usr/bin:/bin"},
        check=False,
    )  # fmt: skip
    assert_harmless(done.stderr)
