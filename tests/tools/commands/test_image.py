"""Commands on real things: `rpinfs image` on files, `rpinfs boot` on a mount."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.image.probe import Kind, probe
from tests.tools.conftest import ROOT, Mount, command

MIB = 1 << 20


def rpinfs(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The real program, in a world without systemd and configuration."""
    return subprocess.run(
        [sys.executable, "-m", "rpinfs", *map(str, words)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_create_show_check(tmp_path: Path) -> None:
    file = tmp_path / "docker.img"
    made = rpinfs("image", "create", file, "--size", "64M", "--label", "mine")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith(f"{file}: made, ext4, 64 MiB, of which ")
    found = probe(str(file))
    assert (found.kind, found.size, found.label) == (Kind.EXT4, 64 * MIB, "mine")

    shown = rpinfs("image", "show", file)
    assert shown.returncode == 0
    rows = dict(line.split("  ", 1) for line in shown.stdout.splitlines())
    values = {name: value.strip() for name, value in rows.items()}
    assert values["Holds"] == "an ext4 file system"
    assert values["Length"] == f"64 MiB ({64 * MIB} bytes)"
    assert values["State"] == "clean"
    document = json.loads(rpinfs("image", "show", file, "--json").stdout)
    assert (document["schema"], document["kind"], document["uuid"]) == (1, "ext4", found.uuid)
    assert "stamp" not in document

    checked = rpinfs("image", "check", file)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, f"{file}: no errors\n", "")


def test_a_name_below_the_working_folder(tmp_path: Path) -> None:
    assert rpinfs("image", "create", "a.img", "--size", "64M", cwd=tmp_path).returncode == 0
    assert probe(str(tmp_path / "a.img")).kind is Kind.EXT4


def test_create_leaves_data_alone(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"not blank")
    done = rpinfs("image", "create", file, "--size", "64M")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rpinfs: {file}: expected nothing or a blank file, found 9 bytes with data")
    assert file.read_bytes() == b"not blank"


@pytest.mark.parametrize("words", [("show",), ("check",)])
def test_a_file_that_is_not_there(words: tuple[str], tmp_path: Path) -> None:
    done = rpinfs("image", *words, tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rpinfs: {tmp_path}/nothing: ")


def test_check_puts_right_what_is_safe(tmp_path: Path) -> None:
    file = tmp_path / "docker.img"
    rpinfs("image", "create", file, "--size", "64M")
    command("debugfs", "-w", "-R", "set_super_value free_blocks_count 1", file)
    command("debugfs", "-w", "-R", "set_super_value state 0", file)
    done = rpinfs("image", "check", file)
    assert (done.returncode, done.stdout) == (0, f"{file}: errors were corrected\n")


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    line = f"{sys.executable} -m rpinfs image create {tmp_path}/a.img --size 64M"
    done = subprocess.run(
        ["script", "-qec", line, "/dev/null"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    # As bytes: text would have its carriage returns turned into ends of lines.
    shown = done.stdout.decode()
    assert "\r\x1b[K" in shown
    # Nothing of it is left beside the result.
    assert shown.rpartition("\r\x1b[K")[2].startswith(f"{tmp_path}/a.img: made"), shown
    assert "\x1b" not in rpinfs("image", "create", tmp_path / "b.img", "--size", "64M").stderr


# boot: on a tmpfs in the place of the NFS mount, with the lock in a folder of the test

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

RUN = """
import sys
sys.path.insert(0, {root!r})
from rpinfs.commands import cli
from rpinfs.system import bootedit
bootedit.LOCK_FILE = {lock!r}
bootedit.BUSY_SECONDS = {busy}
cli._dispatch = lambda words: bootedit._run_writable({where!r}, words, stays_writable={stays})
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def boot(mounted: Mount) -> Iterator[Path]:
    """A mount that is read-only, with a file on it."""
    with mounted("-t", "tmpfs", "boot") as folder:
        (folder / "cmdline.txt").write_text("console=tty1\n")
        command("mount", "-o", "remount,ro", folder)
        yield folder


def writable(where: Path) -> bool:
    mount = storage.mount_at(storage.parse_mountinfo(Path("/proc/self/mountinfo").read_text()), str(where))
    assert mount
    return mount.writable


def start(where: Path, *words: str, stays: bool = False, busy: float = 5.0) -> subprocess.Popen[str]:
    """Start `rpinfs boot run -- WORDS`."""
    code = RUN.format(root=str(ROOT), lock=f"{where}.lock", where=str(where), stays=stays, busy=busy)
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate()
    return process.returncode, output, errors


def kill(pid: int) -> None:
    """Kill a process that is not our child, and wait until it has let go of its files."""
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([descriptor], [], [])
    os.close(descriptor)


def wait_read_only(where: Path) -> None:
    """Until the mount table says so; it tells when it changes."""
    with open("/proc/self/mountinfo", "rb") as mountinfo:
        poll = select.poll()
        poll.register(mountinfo, select.POLLPRI)
        deadline = time.monotonic() + 60
        while writable(where):
            assert time.monotonic() < deadline
            poll.poll(1000)


STARTED = "echo started; read line; echo $line"


def started(where: Path) -> subprocess.Popen[str]:
    """A command that has begun and waits for a line."""
    process = start(where, "sh", "-c", f"{STARTED}; exit 7")
    assert process.stdout
    assert process.stdout.readline() == "started\n"
    assert writable(where)
    return process


@pytest.mark.root
@needs_root
def test_writable_for_as_long_as_the_command_runs(boot: Path) -> None:
    done = start(boot, "sh", "-c", f"echo more >> {boot}/cmdline.txt; exit 7")
    assert ended(done) == (7, "", "")
    assert (boot / "cmdline.txt").read_text() == "console=tty1\nmore\n"
    assert not writable(boot)


@pytest.mark.root
@needs_root
def test_a_command_that_is_not_there(boot: Path) -> None:
    assert ended(start(boot, "/no/such")) == (127, "", "rpinfs: /no/such: command not found\n")
    assert not writable(boot)


@pytest.mark.root
@needs_root
def test_a_command_that_is_killed(boot: Path) -> None:
    assert ended(start(boot, "sh", "-c", "kill -9 $$")) == (128 + 9, "", "")
    assert not writable(boot)


@pytest.mark.root
@needs_root
def test_ctrl_c_is_for_the_command(boot: Path) -> None:
    """It comes to the whole group; a command that lives on keeps the mount writable."""
    process = start(boot, "sh", "-c", f"trap '' INT; {STARTED}")
    assert process.stdout
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    assert writable(boot)
    assert process.stdin
    process.stdin.write("went on\n")
    assert ended(process) == (0, "went on\n", "")
    assert not writable(boot)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on_to_the_command(number: signal.Signals, boot: Path) -> None:
    process = started(boot)
    process.send_signal(number)
    # Waited for before its standard input ends, which would end the command as well.
    process.wait()
    assert ended(process) == (128 + number, "", "")
    assert not writable(boot)


@pytest.mark.root
@needs_root
def test_a_command_without_its_rpinfs_ends_and_the_mount_is_read_only_again(boot: Path) -> None:
    process = started(boot)
    process.kill()
    process.wait()
    # The end of its output is the end of the command too, not only that of rpinfs.
    assert ended(process)[:2] == (-signal.SIGKILL, "")
    wait_read_only(boot)


@pytest.mark.root
@needs_root
def test_only_one_at_a_time(boot: Path) -> None:
    first = started(boot)
    code, _, errors = ended(start(boot, "true"))
    assert code == 1
    assert errors.startswith("rpinfs: another rpinfs boot edit or run is at work\n")
    assert writable(boot)
    assert first.stdin
    first.stdin.write("\n")
    assert ended(first)[0] == 7
    assert ended(start(boot, "true"))[0] == 0


@pytest.mark.root
@needs_root
def test_a_file_that_stays_open_is_said(boot: Path) -> None:
    """The command is gone, a child of it still writes."""
    line = f"exec 3>>{boot}/cmdline.txt; sleep 1000 >/dev/null 2>&1 & echo $!"
    code, output, errors = ended(start(boot, "sh", "-c", line, busy=0.1))
    kill(int(output))
    assert code == 1
    assert f"rpinfs: {boot} is STILL WRITABLE: it could not be made read-only again\n" in errors
    assert writable(boot)


@pytest.mark.root
@needs_root
def test_a_mount_that_the_configuration_wants_writable_stays_so(boot: Path) -> None:
    command("mount", "-o", "remount,rw", boot)
    assert ended(start(boot, "true", stays=True)) == (0, "", "")
    assert writable(boot)


@pytest.mark.root
@needs_root
def test_a_mount_that_cannot_be_made_writable(tmp_path: Path, mounted: Mount) -> None:
    """The nearest to an export that the NAS has made read-only: an overlay without an upper folder."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with mounted("-t", "overlay", "-o", f"lowerdir={tmp_path}/a:{tmp_path}/b", "boot") as folder:
        code, _, errors = ended(start(folder, "true"))
        assert code == 1
        assert errors.startswith(
            f"rpinfs: {folder} cannot be made writable: mount -o remount,rw {folder}: exit status 32"
        )
        assert not writable(folder)
