"""The generator in the sandbox that systemd gives it, on each Debian, started by its shim from its place.

systemd 257 (manager_run_generators) gives a mount namespace in which all is read-only but /run, /dev/shm and a /tmp of
its own; 252 gives none. /dev/kmsg is a pipe here, read by the test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.boot.config import load
from rpinfs.boot.host import MAIN_FILE, Host
from rpinfs.boot.units import FROM_NEXT_BOOT, SOCKET_DROP_IN
from rpinfs.errors import ConfigError
from tests.package import chroot
from tests.parameters import EACH_RELEASE
from tests.support import TOP, listing

pytestmark = pytest.mark.root

GOLDEN = TOP / "tests/golden/22-no-serial-number"
CMDLINE = (GOLDEN / "root/proc/cmdline").read_text().strip()
GENERATOR = "/usr/lib/systemd/system-generators/rpinfs-generator"
FOLDERS = ("/run/systemd/generator", "/run/systemd/generator.early", "/run/systemd/generator.late")
# systemd.generator(7).
ENVIRONMENT = {
    "SYSTEMD_SCOPE": "system", "SYSTEMD_IN_INITRD": "0", "SYSTEMD_FIRST_BOOT": "0", "SYSTEMD_VIRTUALIZATION": "vm:qemu",
    "SYSTEMD_ARCHITECTURE": "x86-64", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PROC_CMDLINE": CMDLINE,
}  # fmt: skip
# What the sandbox leaves writable; $1 is the root, $2 holds the three folders.
SANDBOX = """
set -e
mount --bind "$1" "$1"
for name in run tmp dev/shm; do mount --bind "$2/$name" "$1/$name"; done
mount -t proc proc "$1/proc"
mount -o remount,bind,ro "$1"
root=$1
shift 2
exec chroot "$root" "$@"
"""
LONGEST_RECORD = 976
"""Bytes. The kernel refuses a longer one with EINVAL (LOG_LINE_MAX, 1024 less the prefix, before Linux 6)."""


class Machine:
    """A root with rpinfs in it, what of it can be written, and what came to /dev/kmsg."""

    def __init__(self, root: Path, writable: Path) -> None:
        self.root = root
        self.writable = writable
        self.kmsg = os.open(root / "dev/kmsg", os.O_RDWR | os.O_NONBLOCK)

    def configure(self, text: str) -> None:
        path = self.root / MAIN_FILE.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the sandbox."""
        command = ["unshare", "--mount", "sh", "-c", SANDBOX, "sandbox", str(self.root), str(self.writable)]
        return subprocess.run(
            [*command, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**ENVIRONMENT, **env},
        )

    def generate(self, **env: str) -> int:
        done = self.run(GENERATOR, *FOLDERS, **env)
        assert (done.stdout, done.stderr) == ("", "")
        return done.returncode

    def written(self) -> dict[str, str]:
        """All in /run, /tmp and /dev/shm but the three folders themselves."""
        return {
            name: text
            for name, text in listing(self.writable).items()
            if f"/{name}".rstrip("/") not in (*FOLDERS, "/tmp", "/dev/shm")
        }

    def said(self) -> str:
        """What came to the kernel's log since the last look."""
        try:
            return os.read(self.kmsg, 1 << 16).decode()
        except BlockingIOError:
            return ""


@pytest.fixture(scope="module", params=EACH_RELEASE)
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    with chroot.chroot(request.param) as made:
        shutil.copytree(
            TOP / "rpinfs", made.path("/usr/share/rpinfs/rpinfs"), ignore=shutil.ignore_patterns("__pycache__")
        )
        made.run("py3compile", "/usr/share/rpinfs")
        for name, inside in (("rpinfs", "/usr/bin/rpinfs"), ("rpinfs-generator", GENERATOR)):
            made.path(inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / "units" / name, made.path(inside))
        made.path("/boot/firmware").mkdir(parents=True, exist_ok=True)
        made.path("/dev/shm").mkdir(exist_ok=True)
        made.path("/dev/kmsg").unlink(missing_ok=True)
        os.mkfifo(made.path("/dev/kmsg"))
        yield made.root


@pytest.fixture
def machine(root: Path, tmp_path: Path) -> Iterator[Machine]:
    for folder in (*FOLDERS, "/tmp", "/dev/shm"):
        (tmp_path / folder.lstrip("/")).mkdir(parents=True)
    made = Machine(root, tmp_path)
    made.configure("")
    yield made
    os.close(made.kmsg)


def test_the_sandbox_is_one(machine: Machine) -> None:
    """Were all writable, the other tests would show nothing."""
    done = machine.run("sh", "-c", "touch /run/a /tmp/b /dev/shm/c; touch /etc/d /usr/share/rpinfs/e /dev/f /var/tmp/g")
    assert done.stderr.count("Read-only file system") == 4
    assert set(machine.written()) == {"run/a", "tmp/b", "dev/shm/c"}


def test_it_writes_its_units_and_nothing_else(machine: Machine) -> None:
    assert machine.generate() == 0
    # What is for other programs stands below `run` in the golden folder, and in /run itself here.
    expected = {
        name if name.startswith("run/") else f"{FOLDERS[0]}/{name}".lstrip("/"): text
        for name, text in listing(GOLDEN / "expected").items()
    }
    assert machine.written() == expected
    assert machine.said() == ""


def test_a_second_run_into_the_same_folders_changes_nothing(machine: Machine) -> None:
    machine.generate()
    first = machine.written()
    assert machine.generate() == 0
    assert machine.written() == first != {}


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_streams_do_not_matter(machine: Machine, closed: str) -> None:
    machine.generate()
    expected = machine.written()
    for path in [machine.writable / name for name in expected]:
        path.unlink()
    machine.run("sh", "-c", f'exec "$@" {closed}', "sh", GENERATOR, *FOLDERS)
    assert {name: text for name, text in machine.written().items() if not name.endswith("/")} == expected


@pytest.mark.parametrize(
    "variable", ["SYSTEMD_SCOPE=user", "SYSTEMD_IN_INITRD=1", "SYSTEMD_VIRTUALIZATION=container:systemd-nspawn",
                 f"SYSTEMD_PROC_CMDLINE={CMDLINE} rpinfs=off", "SYSTEMD_PROC_CMDLINE=root=/dev/sda1"],
)  # fmt: skip
def test_nothing_to_do(machine: Machine, variable: str) -> None:
    name, _, value = variable.partition("=")
    assert machine.generate(**{name: value}) == 0
    assert (machine.written(), machine.said()) == ({}, "")


def test_until_the_next_boot_where_docker_ran_already(machine: Machine) -> None:
    """Whoever reloads systemd: the package was installed beside a running Docker, whose folders stay as they are."""
    mark = machine.writable / FROM_NEXT_BOOT.lstrip("/")
    mark.touch()
    assert machine.generate() == 0
    assert [*machine.written()] == [FROM_NEXT_BOOT.lstrip("/")]
    mark.unlink()
    assert machine.generate() == 0 and machine.written()


def test_a_config_error_is_one_line_in_the_kernel_log_that_the_gate_repeats(machine: Machine) -> None:
    machine.configure("[Server]\nAdress=nas.local\n")
    assert machine.generate() == 1
    assert [*machine.written()] == [f"{FOLDERS[0]}/{SOCKET_DROP_IN}".lstrip("/")]
    with pytest.raises(ConfigError) as error:
        load(Host(config_files=[(MAIN_FILE, "[Server]\nAdress=nas.local\n")], cmdline=CMDLINE, mac="-"))
    said = machine.said()
    # 3: an error, for those who watch the console (sd-daemon(3)).
    assert said.startswith("<3>rpinfs-generator[")
    assert said.endswith(f"]: {error.value.message}\n") and said.count("\n") == 1
    gate = machine.run("/usr/bin/rpinfs", "gate")
    assert (gate.returncode, gate.stderr.splitlines()[0]) == (2, f"rpinfs: {error.value.message}")


def test_an_ordering_cycle_by_fstab_is_said(machine: Machine) -> None:
    fstab = machine.root / "etc/fstab"
    before = fstab.read_text() if fstab.exists() else ""
    fstab.write_text("/dev/sda1 /var/lib/docker/volumes ext4 defaults,noatime 0 2\n")
    try:
        assert machine.generate() == 0
        assert "line 1 of /etc/fstab makes an ordering cycle" in machine.said()
    finally:
        fstab.write_text(before)


def test_a_mount_point_that_is_a_link_is_said(machine: Machine) -> None:
    """systemd mounts on none; also where the link is above it, and with other mounts beside it."""
    for link, where in (("srv/docker", "/srv/docker"), ("srv/link", "/srv/link/docker")):
        path = machine.root / link
        path.symlink_to("/mnt")
        machine.configure(f"[Image docker]\nWhere={where}\nBind=\n")
        try:
            assert machine.generate() == 0
        finally:
            path.unlink()
        said = machine.said()
        target = where.replace(f"/{link}", "/mnt")
        assert f"[Image docker] Where={where} leads by a symbolic link to {target}, and systemd mounts on no" in said
        assert f"write {target} in its place" in said and said.count("\n") == 1
        assert machine.generate() == 0 and machine.said() == ""


@pytest.mark.parametrize("text", [f"[Server]\nAddress={'ä' * 3000}\n", f"[Server]\nOptions=vers={'ä' * 3000}\n"])
def test_a_long_sentence_is_what_the_kernel_takes(machine: Machine, text: str) -> None:
    machine.configure(text)
    assert machine.generate() == 1
    said = machine.said()
    assert f"{MAIN_FILE}:2: [Server] " in said and "ää..." in said
    assert len(said.encode()) <= LONGEST_RECORD and said.endswith("\n")


def test_no_kernel_log_does_not_matter(machine: Machine) -> None:
    machine.configure("[Server]\nAdress=nas.local\n")
    pipe = machine.root / "dev/kmsg"
    pipe.rename(pipe.with_name("away"))
    try:
        assert machine.generate() == 1
    finally:
        pipe.with_name("away").rename(pipe)


def test_a_folder_that_cannot_be_written_is_said(machine: Machine) -> None:
    done = machine.run(GENERATOR, "/usr/generator", *FOLDERS[1:])
    assert (done.returncode, done.stdout, done.stderr, machine.written()) == (1, "", "", {})
    assert "units cannot be written: [Errno 30] Read-only file system" in machine.said()


def test_no_kernel_log_is_not_made_up(machine: Machine) -> None:
    """Without a sandbox a file could come to be where /dev/kmsg is missing."""
    machine.configure("[Server]\nAdress=nas.local\n")
    pipe = machine.root / "dev/kmsg"
    pipe.rename(pipe.with_name("away"))
    command = ["chroot", str(machine.root), GENERATOR, *FOLDERS]
    try:
        before = chroot.files_below(machine.root / "dev")
        done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT)
        assert (done.returncode, chroot.files_below(machine.root / "dev")) == (1, before)
    finally:
        pipe.with_name("away").replace(pipe)
        shutil.rmtree(f"{machine.root}{FOLDERS[0]}", ignore_errors=True)


def test_without_a_sandbox_it_writes_no_more(machine: Machine) -> None:
    """systemd 252 gives none: byte code or the like could be left behind."""
    before = chroot.files_below(machine.root)
    folders = [str(machine.root / "usr/generator")] * 3
    command = ["chroot", str(machine.root), GENERATOR, *(folder.removeprefix(str(machine.root)) for folder in folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    try:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        units = {name: text for name, text in listing(GOLDEN / "expected").items() if not name.startswith("run/")}
        assert listing(Path(folders[0])) == units
    finally:
        shutil.rmtree(folders[0], ignore_errors=True)
        shutil.rmtree(machine.root / "run/NetworkManager", ignore_errors=True)
    assert chroot.files_below(machine.root) == before
