"""What the programs of the boot cost: modules imported, files opened, each a round trip to the NAS, and instructions.

Exact lists, not limits: who adds to them sees it here. What `rpinfs status` costs has a limit, and the agent's is in
tests/tools/agent/test_weight.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import rpinfs
from tests.instructions import instructions
from tests.support import PATH, Installed, Tell, make_pi

PYTHON = ("/usr/bin/python3", "-ISB")
NOTHING = (*PYTHON, "-c", "import gc, os, sys")
DECISION = ["boot", "boot.config", "errors", "boot.host", "boot.settings", "boot.syntax", "boot.units"]
MODULES = {
    "generator": ["boot.generator", *DECISION],
    "gate": ["__main__", "boot.gate", "boot.storage", "boot.overlay", *DECISION],
}
# On a Pi that has everything: relative to the root.
READ = [
    "etc/fstab",
    "etc/rpinfs/rpinfs.conf",
    "etc/rpinfs/rpinfs.conf.d",
    "etc/rpinfs/rpinfs.conf.d/10.conf",
    "proc/cmdline",
    "proc/device-tree/serial-number",
    "proc/net/route",
    "proc/self/mountinfo",
    "proc/sys/kernel/hostname",
    "run/rpinfs/rpinfs.conf.d",
    "sys/class/net",
    "sys/class/net/eth0/address",
    "usr/lib/rpinfs/rpinfs.conf.d",
]
# What could have moved the folders of Docker and containerd, as the packages of Debian install it.
TOLD = [
    "etc/containerd/config.toml",
    "etc/default/docker",
    # Drop-ins for another name of docker.service, which may lie in each of the folders, and what is changed in place:
    # nothing else tells. systemd has just read these.
    "etc/systemd/system",
    "etc/systemd/system.conf",
    "run/systemd/generator",
    "run/systemd/generator/containerd.service.d",
    "run/systemd/generator/docker.service.d",
    "usr/lib/systemd/system",
    "usr/lib/systemd/system/containerd.service",
    "usr/lib/systemd/system/docker.service",
    "usr/lib/systemd/system/containerd.service.d",
    "usr/lib/systemd/system/docker.service.d",
]
WRITTEN = [
    "boot-firmware.mount",
    "containerd.service.d/50-rpinfs-mounts.conf",
    "docker.service.d/50-rpinfs-mounts.conf",
    "docker.socket.d/50-rpinfs-limit.conf",
    "ifup@.service.d/50-rpinfs-nic.conf",
    "networking.service.d/50-rpinfs-nic.conf",
    "nfs-docker.mount",
    "rpinfs-agent.service.d/50-rpinfs-mounts.conf",
    "rpinfs-gate.service.d/50-rpinfs-mounts.conf",
    "var-lib-containerd-.mount.d/50-rpinfs-mounts.conf",
    "var-lib-containerd.mount",
    "var-lib-docker-.mount.d/50-rpinfs-mounts.conf",
    "var-lib-docker.mount",
]
MOUNTED = (
    "40 22 0:40 / /nfs/docker rw - nfs4 192.168.1.10:/docker rw\n"
    "41 22 7:3 / /var/lib/docker rw - ext4 /dev/loop3 rw\n"
    "42 22 7:3 /.rpinfs/var-lib-containerd /var/lib/containerd rw - ext4 /dev/loop3 rw\n"
)
DOCKER = """[Service]
Type=notify
EnvironmentFile=-/etc/default/docker
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS
ExecReload=/bin/kill -s HUP $MAINPID
Delegate=yes
"""
DISK_SEQUENCE = "sys/block/loop3/diskseq"
UUID_FILE = "run/rpinfs/docker.uuid"
ERRORS = "sys/fs/ext4/loop3/errors_count"


@pytest.fixture
def pi(root: Path) -> Path:
    """A Pi with all the files that are looked for, and its storage mounted."""
    return make_pi(root, "[Image docker]\nFile=docker.img\n", {
        "etc/fstab": "# empty\n",
        "etc/hostname": "pi\n",
        "etc/machine-id": "01" * 16 + "\n",
        "etc/rpinfs/rpinfs.conf.d/10.conf": "# empty\n",
        "proc/net/route": "Iface\n",
        "proc/self/mountinfo": MOUNTED,
        "proc/sys/kernel/hostname": "pi\n",
        "run/rpinfs/rpinfs.conf.d": None,
        "sys/class/net/eth0/address": "dc:a6:32:01:02:03\n",
        "sys/class/net/eth0/device": None,
        "usr/lib/rpinfs/rpinfs.conf.d": None,
        "dev/loop3": b"XFSB".ljust(4096, b"\0"),
        UUID_FILE: "00000000-0000-0000-0000-000000000000\n945\n/nfs/docker/docker.img\n",
        ERRORS: "0\n",
        DISK_SEQUENCE: "945\n",
        "etc/containerd/config.toml": "version = 2\n",
        "etc/default/docker": '#DOCKER_OPTS="--dns 8.8.8.8"\n',
        "etc/systemd/system/multi-user.target.wants/docker.service": "",
        "etc/systemd/system.conf": "[Manager]\n#DefaultEnvironment=\n",
        "run/systemd/generator/docker.service.d/50-rpinfs-mounts.conf": "[Unit]\n",
        "run/systemd/generator/containerd.service.d/50-rpinfs-mounts.conf": "[Unit]\n",
        "usr/lib/systemd/system/containerd.service": "[Service]\nExecStart=/usr/bin/containerd\n",
        "usr/lib/systemd/system/docker.service": DOCKER,
        "usr/lib/systemd/system/containerd.service.d/rpinfs.conf": "[Unit]\n",
        "usr/lib/systemd/system/docker.service.d/rpinfs.conf": "[Unit]\n",
    })  # fmt: skip


def environment(root: Path) -> dict[str, str]:
    # LC_ALL as in the units: of C.UTF-8 the interpreter reads three files.
    return {"LC_ALL": "C", "PATH": PATH, "RPINFS_ROOT": str(root)}


def imported(root: Path, *argv: str | Path) -> set[str]:
    """Modules that Python imports, without those that the bare interpreter has, with os and sys."""

    def modules(*argv: str | Path) -> set[str]:
        done = subprocess.run(
            [PYTHON[0], "-X", "importtime", *map(str, argv)],
            capture_output=True, text=True, check=True, env=environment(root),
        )  # fmt: skip
        return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}

    return modules(PYTHON[1], *argv) - modules(PYTHON[1], *NOTHING[2:])


def opened(root: Path, *argv: str | Path) -> Counter[str]:
    """Files that a program has opened successfully, and how often each."""
    return traced(root.parent, environment(root), *argv)


def traced(folder: Path, environment: dict[str, str], *argv: str | Path) -> Counter[str]:
    trace = folder / "trace"
    # A file for each process: in one, two of them cut each other's lines in two.
    command = ["strace", "-ff", "-e", "trace=open,openat,openat2", "-o", str(trace), *map(str, argv)]
    subprocess.run(command, capture_output=True, check=True, env=environment)
    text = "".join(path.read_text() for path in folder.glob(f"{trace.name}.*"))
    for path in folder.glob(f"{trace.name}.*"):
        path.unlink()
    found = re.findall(r'open(?:at2?)?\((?:[A-Z_]+, )?"([^"]*)".*\) = \d+$', text, re.MULTILINE)
    # Byte code has the version of Python in its name.
    return Counter(re.sub(r"\.cpython-\d+\.pyc$", ".pyc", path) for path in found)


def program(installed: Installed) -> list[str]:
    """What running the shim opens: not itself, but the folder of the package, what looks for the bound file, and it."""
    return [str(installed.share), str(installed.share / "rpinfs/__pycache__/__init__.pyc"), str(bound_in(installed))]


def bound_in(installed: Installed) -> Path:
    return installed.share / rpinfs.BOUND


def unbound(installed: Installed, modules: list[str]) -> list[str]:
    """What running the shim opens where the bound file is not there: the folders to the modules, and each module."""
    package = installed.share / "rpinfs"
    files = ["__init__.pyc", *(f"{name.replace('.', '/')}.pyc" for name in modules)]
    paths = [package / file.replace("boot.pyc", "boot/__init__.pyc") for file in files]
    byte_code = [str(path.parent / "__pycache__" / path.name) for path in paths]
    return [str(installed.share), str(package), str(package / "boot"), *byte_code]


def test_the_generator_imports_its_own_modules_only(pi: Path, installed: Installed, tmp_path: Path) -> None:
    found = imported(pi, installed.generator, tmp_path / "units")
    assert found == {"rpinfs", *(f"rpinfs.{name}" for name in MODULES["generator"])}


def test_the_gate_imports_its_own_modules_only(pi: Path, installed: Installed) -> None:
    assert imported(pi, installed.rpinfs, "gate") == {
        "rpinfs",
        "fcntl",
        *(f"rpinfs.{name}" for name in MODULES["gate"]),
    }


def test_files_that_the_generator_opens(pi: Path, installed: Installed, tmp_path: Path) -> None:
    units = tmp_path / "units"
    more = opened(pi, installed.generator, units) - opened(pi, *NOTHING)
    assert sorted(more.elements()) == sorted([
        *program(installed),
        *(str(pi / name) for name in READ),
        *(str(units / name) for name in WRITTEN),
        str(pi / "run/NetworkManager/conf.d/50-rpinfs.conf"),
    ])  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_without_the_bound_file_the_modules_are_opened_one_by_one(pi: Path, tmp_path: Path, name: str) -> None:
    """As while the package is upgraded, and after a new Python came."""
    bare = Installed(tmp_path / "i", bound=False)
    argv = (bare.generator, tmp_path / "units") if name == "generator" else (bare.rpinfs, "gate")
    found = opened(pi, *argv) - opened(pi, *NOTHING)
    assert sorted(path for path in found.elements() if path.startswith(str(bare.share))) == sorted(
        unbound(bare, MODULES[name])
    )


LIMIT = 22
"""Files of the root that the generator may open with a configuration of one file: 11 are the bare interpreter's."""


def test_at_an_ordinary_boot_the_generator_opens_few_files_of_the_root(
    root: Path, installed: Installed, tmp_path: Path
) -> None:
    pi = make_pi(root, "[Image docker]\nFile=docker.img\n", {"etc/fstab": "# empty\n", "proc/net/route": "Iface\n"})
    elsewhere = tuple(f"{pi}/{folder}/" for folder in ("proc", "sys", "run"))
    bare = opened(pi, *PYTHON, "-c", "pass")
    more = (opened(pi, installed.generator, tmp_path / "units") - bare).elements()
    found = sorted(path for path in more if not path.startswith((*elsewhere, f"{tmp_path}/units")))
    assert found == sorted([*program(installed), str(pi / "etc/fstab"), str(pi / "etc/rpinfs/rpinfs.conf")])
    assert sum(bare.values()) + len(found) <= LIMIT


def test_what_depends_on_the_nic_costs_one_file_of_the_memory(pi: Path, installed: Installed, tmp_path: Path) -> None:
    """Written by the generator, and read by all that come later; both in /run, and neither on the NAS."""
    (pi / "proc/device-tree/serial-number").write_text("0" * 16 + "\0")
    nic = str(pi / "run/rpinfs/boot-nic")
    for times in (1, 1, 1):
        assert opened(pi, installed.generator, tmp_path / "units")[nic] == times
    assert opened(pi, installed.rpinfs, "gate")[nic] == 1


def test_files_that_the_gate_opens(pi: Path, installed: Installed) -> None:
    more = opened(pi, installed.rpinfs, "gate") - opened(pi, *NOTHING)
    assert sorted(more.elements()) == sorted([
        *program(installed),
        *(str(pi / name) for name in READ),
        *(str(pi / name) for name in TOLD),
        # The device, the verified file system, and errors recorded in it: none of these is a file of the NAS.
        *(str(pi / name) for name in ("dev/loop3", DISK_SEQUENCE, UUID_FILE, ERRORS)),
    ])  # fmt: skip


def test_what_moves_nothing_costs_one_file(pi: Path, installed: Installed) -> None:
    """daemon.json is read where it is there; only what could move a folder of Docker's is looked into."""
    (pi / "etc/docker").mkdir()
    before = opened(pi, installed.rpinfs, "gate")
    (pi / "etc/docker/daemon.json").write_text('{"log-driver": "local"}')
    assert opened(pi, installed.rpinfs, "gate") - before == Counter([str(pi / "etc/docker/daemon.json")])
    more = {"rpinfs.boot.daemons", "rpinfs.docker.roots", "rpinfs.docker.settings"}
    assert not more & imported(pi, installed.rpinfs, "gate")
    (pi / "etc/docker/daemon.json").write_text('{"data-root": "/var/lib/docker/data"}')
    assert more <= imported(pi, installed.rpinfs, "gate")


def test_where_rpinfs_is_not_in_use_nothing_is_written(pi: Path, installed: Installed, tmp_path: Path) -> None:
    (pi / "proc/cmdline").write_text("rpinfs=off\n")
    assert not [
        path for path in opened(pi, installed.generator, tmp_path / "units") if path.startswith(str(tmp_path / "units"))
    ]


def test_in_a_users_systemd_and_in_the_initrd_nothing_is_read(pi: Path, installed: Installed, tmp_path: Path) -> None:
    for variable in ("SYSTEMD_SCOPE=user", "SYSTEMD_IN_INITRD=1"):
        found = opened(pi, "env", variable, installed.generator, tmp_path / "units")
        assert not [path for path in found if path.startswith((str(pi), str(tmp_path / "units") + os.sep))]


STATUS = """
import sys
sys.path[:0] = [sys.argv[1]]
sys.path.append("/usr/lib/python3/dist-packages")
from rpinfs.health import questions
# What is not answered in time opens nothing more: a busy machine would hide it.
questions.seconds_left = lambda: 300.0
from rpinfs.__main__ import main
main(["status"])
"""
STATUS_LIMIT = 150
"""Files of the root that `rpinfs status` may open with all its children: as it says in README.md."""

STATUS_LIBRARY = {(3, 11): 74, (3, 13): 63}
"""How many of these are Python's own and its libraries, by version: who adds to them sees it here."""


def test_files_that_status_opens(installed: Installed, tmp_path: Path) -> None:
    """Of the running machine, with all that it asks: nothing is mounted, so systemd is asked twice."""
    told = {"LC_ALL": "C", "PATH": PATH, "SYSTEMD_PROC_CMDLINE": "root=/dev/nfs nfsroot=127.0.0.1:/pi"}
    found = traced(tmp_path, told, *PYTHON, "-c", STATUS, installed.share)
    of_root = [path for path in found.elements() if not path.startswith(("/proc", "/sys", "/dev", "/run"))]
    windows = [path for path in of_root if path.startswith("/usr/lib/python3/")]
    assert len(of_root) <= STATUS_LIMIT, of_root
    assert {Path(path).name.split(".")[0] for path in windows} == {
        "dist-packages", "pystemd", "dbuslib", "dbusexc", "utils"
    }  # fmt: skip
    # Only where containerd has a configuration, which this machine may have.
    toml = re.compile("/tomllib|/string.pyc|/datetime.pyc")
    settings = ("/etc/rpinfs", "/etc/fstab", "/etc/docker", "/etc/containerd")
    elsewhere = (str(installed.share), "/usr/lib/python3/", *settings)
    library = [path for path in of_root if not path.startswith(elsewhere) and not toml.search(path)]
    assert len(library) <= STATUS_LIBRARY.get(sys.version_info[:2], STATUS_LIMIT), (len(of_root), *library)
    assert [path for path in of_root if path.startswith(str(installed.share))] == program(installed)


PROGRAMS_LIMITS = {(3, 11): (1.40, 1.48)}
OTHERS_LIMITS = 1.47, 1.54
"""Times the instructions of a bare `python3 -ISB -c pass` for generator and gate, by version of Python.

From 3.13 on `import os`, of which a bare one does without, is 0.3 of them, and was 0.25.
"""

STATUS_INSTRUCTIONS = {(3, 11): 180_000_000}
OTHERS_STATUS_INSTRUCTIONS = 215_000_000
"""With all its children, where nothing is mounted: systemd is asked twice then, of which once is 18 million."""

TOML_INSTRUCTIONS = 35_000_000
"""More, on a machine with a configuration of containerd's, which this one may be."""


def test_instructions_of_the_programs_of_the_boot(pi: Path, installed: Installed, tmp_path: Path, tell: Tell) -> None:
    bare = instructions(*PYTHON, "-c", "pass", environment=environment(pi))
    generator = instructions(installed.generator, tmp_path / "units", environment=environment(pi)) / bare
    gate = instructions(installed.rpinfs, "gate", environment=environment(pi)) / bare
    tell(f"of a bare Python's {bare / 1e6:.1f} million instructions: generator {generator:.3f}, gate {gate:.3f}")
    of_generator, of_gate = PROGRAMS_LIMITS.get(sys.version_info[:2], OTHERS_LIMITS)
    assert generator <= of_generator
    assert gate <= of_gate


def test_instructions_of_status(installed: Installed, tell: Tell) -> None:
    told = {"LC_ALL": "C", "PATH": PATH, "SYSTEMD_PROC_CMDLINE": "root=/dev/nfs nfsroot=127.0.0.1:/pi"}
    found = instructions(installed.rpinfs, "status", environment=told)
    tell(f"rpinfs status, nothing mounted: {found / 1e6:.0f} million instructions")
    limit = STATUS_INSTRUCTIONS.get(sys.version_info[:2], OTHERS_STATUS_INSTRUCTIONS)
    assert found <= limit + TOML_INSTRUCTIONS * Path("/etc/containerd/config.toml").exists()
