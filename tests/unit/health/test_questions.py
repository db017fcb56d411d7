"""Questions: what is asked, and what comes of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rpinfs.boot import gate
from rpinfs.boot.host import read_text
from rpinfs.errors import RpinfsError
from rpinfs.health import questions
from rpinfs.health.facts import Docker, DockerConfig, File, Machine, Nas, NotAskedError, Space
from rpinfs.health.questions import (
    BUDGET_SECONDS,
    LEAST_SECONDS,
    _ask_docker_config,
    _ask_files,
    _ask_space,
    _ask_superblock,
    _get,
)
from rpinfs.system import network, systemd
from tests.support import TOP, make_tree
from tests.unit.health.pi import IMAGE_LINE, MOUNTINFO, ROOT_LINE, SHARE_LINE, facts, live


@contextlib.contextmanager
def docker_that_says(tmp_path: Path, said: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A real socket, whose daemon is played: its address, and what the daemon was asked."""
    import socket

    address, asked = str(tmp_path / "docker.sock"), list[bytes]()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(said)

        player = threading.Thread(target=serve)
        player.start()
        yield address, asked
        player.join()


def test_the_answer_of_docker(tmp_path: Path) -> None:
    said = b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n" + b'{"Driver": "overlay2"}'
    with docker_that_says(tmp_path, said) as (address, asked):
        assert json.loads(_get(address, "/info")) == {"Driver": "overlay2"}
    assert asked[0].startswith(b"GET /info HTTP/1.0\r\n")


DOCKER_INFO = {
    "ServerVersion": "26.1.5", "Driver": "overlay2", "DockerRootDir": "/var/lib/docker", "Containers": 3,
    "ContainersRunning": 2, "Images": 5, "SecurityOptions": ["name=seccomp", "name=userns"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (DOCKER_INFO, Docker("26.1.5", "overlay2", "/var/lib/docker", 3, 2, 5, True)),
        ({**DOCKER_INFO, "SecurityOptions": ["name=seccomp"]},
         Docker("26.1.5", "overlay2", "/var/lib/docker", 3, 2, 5, False)),
        ({"Images": None, "SecurityOptions": None}, Docker("", "", "", 0, 0, 0, False)),
    ],
)  # fmt: skip
def test_docker_is_asked_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: dict[str, object], expected: Docker
) -> None:
    """A connection to its socket would start it: its number has to be that of a dockerd."""
    pid = tmp_path / "docker.pid"
    monkeypatch.setattr(questions, "_DOCKER_PID", str(pid))
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(questions, "_get", lambda *what: asked.append(what) or json.dumps(info).encode())  # type: ignore[func-returns-value]
    comm = "dockerd\n"
    monkeypatch.setattr(questions, "read_text", lambda path: comm if path == "/proc/1234/comm" else read_text(path))
    for text in ("", "x\n", "-1\n", f"{os.getpid()}\n"):
        pid.write_text(text)
        with pytest.raises(NotAskedError, match="Docker does not run"):
            questions._ask_docker()
    pid.write_text("1234\n")
    assert questions._ask_docker() == expected and asked == [("/run/docker.sock", "/info")]
    comm = "bash\n"
    with pytest.raises(NotAskedError):
        questions._ask_docker()


@pytest.mark.parametrize(
    ("said", "found"),
    [(b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "HTTP/1.1 500 Internal Server Error"), (b"", "nothing"),
     (b"x\r\n\r\n", "x")],
)  # fmt: skip
def test_an_answer_of_docker_that_is_none(tmp_path: Path, said: bytes, found: str) -> None:
    with docker_that_says(tmp_path, said) as (address, _), pytest.raises(RpinfsError) as caught:
        _get(address, "/info")
    assert caught.value.message == f"{address} /info: expected an answer, found {found}"
    assert caught.value.remedy == "journalctl -u docker -n 20"


def test_room_is_counted_in_the_units_that_statvfs_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks in fragments, which NFS tells; what is root's reserve is not there for anybody else."""
    clock = iter([10.0, 10.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 1024, 100, 50, 40, 1000, 900, 900, 0, 255)))
    assert _ask_space("/x") == Space(100 * 1024, 40 * 1024, 1000, 900, 0.5)


def test_a_file_and_a_link_are_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 5000)
    (tmp_path / "link").symlink_to("a")
    os.truncate(tmp_path / "a", 1 << 20)
    allocated = (tmp_path / "a").stat().st_blocks * 512
    assert 5000 <= allocated < 1 << 20
    assert questions._ask_file(str(tmp_path / "a")) == File(1 << 20, allocated)
    assert questions._ask_file(str(tmp_path / "link")).size == 1, "it leads wherever who made it likes"
    assert _ask_files(str(tmp_path)).files == {"a": File(1 << 20, allocated)}


def test_the_quickest_knock_of_three_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy Pi one of them may be waiting for the processor; the deadline is that of all questions."""
    asked: list[tuple[str, float]] = []
    took = iter([0.3, 0.1, 0.2])
    monkeypatch.setattr(network, "resolve", lambda name: f"of {name}")

    def knock(number: str, seconds: float) -> float:
        asked.append((number, seconds))
        return next(took)

    monkeypatch.setattr(network, "knock", knock)
    assert questions._ask_nas("nas") == Nas("of nas", 0.1) and asked == [("of nas", 30.0)] * 3


def test_the_memory_of_machine_and_agent() -> None:
    for pid, known in ((None, False), (os.getpid(), True), (1 << 22, False)):
        found = questions._ask_machine(pid)
        assert found.memory > found.memory_available > 0 and (found.agent_memory is not None) is known
        assert not known or (found.agent_memory or 0) < found.memory


def test_the_memory_of_the_agent_is_counted_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """proc_pid_statm(5): all of it first, then what is resident; a Pi 5 has pages of 16 KiB."""
    told = {"/proc/meminfo": "MemTotal: 8 kB\nMemAvailable: 4 kB\n", "/proc/301/statm": "9000 5000 2000 1 0 700 0\n"}
    monkeypatch.setattr(questions, "read_text", told.__getitem__)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 16384}.__getitem__)
    assert questions._ask_machine(301) == Machine(8192, 4096, 5000 * 16384)


@pytest.mark.parametrize(
    "told",
    ["", "MemTotal: 100 kB\n", "MemTotal: 100 kB\nMemAvailable: 101 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n"],
)
def test_where_the_kernel_does_not_say_it_plainly_psutil_does(told: str) -> None:
    total, available = questions._memory(told)
    assert total >= available > 100 << 10


def test_what_the_kernel_says_is_what_psutil_says() -> None:
    told = read_text("/proc/meminfo")
    total, available = questions._memory(told)
    assert total == psutil.virtual_memory().total
    assert f"MemAvailable: {available // 1024} kB" in " ".join(told.split())
    found = questions._ask_machine(os.getpid()).agent_memory or 0
    assert abs(found - psutil.Process().memory_info().rss) < 64 << 20


@pytest.mark.parametrize(
    ("elapsed", "busy", "left"), [(0.0, 0.1, 1.5), (0.3, 0.1, 1.2), (9.0, 0.1, 0.5), (0.9, 0.9, 4.8), (9.0, 2.0, 6.0)]
)
def test_the_budget_of_a_slow_machine_is_larger(
    monkeypatch: pytest.MonkeyPatch, elapsed: float, busy: float, left: float
) -> None:
    monkeypatch.setattr("rpinfs.system.deadline.seconds_of_life", lambda: elapsed)
    monkeypatch.setattr(time, "process_time", lambda: busy)
    assert questions.seconds_left() == left


@pytest.mark.parametrize("fault", [None, RpinfsError("no overlay")])
def test_what_a_trial_overlay_shows_is_an_answer(
    root: Path, monkeypatch: pytest.MonkeyPatch, fault: RpinfsError | None
) -> None:
    tried: list[str] = []

    def try_overlay(where: str) -> None:
        tried.append(where)
        if fault:
            raise fault

    found = facts(root)
    image = found.config.images[0]
    monkeypatch.setattr("rpinfs.boot.overlay.try_overlay", try_overlay)
    monkeypatch.setattr(questions, "ask_gate", lambda *_: [])
    assert questions._ask_overlay(found, image) == ([fault] if fault else []) and tried == ["/var/lib/docker"]
    monkeypatch.setattr(questions, "ask_gate", lambda *_: [RpinfsError("another image")])
    with pytest.raises(
        NotAskedError, match="what is mounted at /var/lib/docker is not image docker: it is not written"
    ):
        questions._ask_overlay(found, image)
    assert len(tried) == 1


def test_where_docker_writes_is_asked_where_all_mounts_are_right(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, wrong, asked = facts(root), list[RpinfsError](), list[object]()
    monkeypatch.setattr(gate, "verdict", lambda *_: wrong)
    elsewhere = [RpinfsError("elsewhere")]
    monkeypatch.setattr(gate, "misplaced", lambda *what: asked.append(what) or elsewhere)  # type: ignore[func-returns-value]
    assert questions._ask_placed(found) is elsewhere and asked == [(found.config, found.host, questions._roots)]
    wrong.append(RpinfsError("not mounted"))
    with pytest.raises(NotAskedError, match="what is mounted is not right"):
        questions._ask_placed(found)


OF_FILES = {"gate:docker", "placed", "docker-config"}
OF_SHARE = {"share", "files", "image:docker", "owner:docker"}
OF_MACHINE = {"hidden", "systemd", "failed", "docker", "machine", "route", "nas", "nic"}


@pytest.mark.parametrize(
    ("lines", "running", "asked"),
    [
        (MOUNTINFO, False, OF_FILES | OF_SHARE | {"space:docker"}),
        # What is all mounted has not failed.
        (MOUNTINFO, True, OF_FILES | OF_SHARE | OF_MACHINE - {"failed"} | {"space:docker", "overlay:docker"}),
        (ROOT_LINE + SHARE_LINE, True, OF_FILES | OF_SHARE | OF_MACHINE | {"superblock:docker"}),
        (ROOT_LINE, False, OF_FILES),
        (ROOT_LINE + IMAGE_LINE, False, OF_FILES | {"space:docker"}),
    ],
)
def test_what_is_asked_follows_from_what_is_mounted(
    root: Path, monkeypatch: pytest.MonkeyPatch, lines: str, running: bool, asked: set[str]
) -> None:
    found = facts(root, files={"proc/self/mountinfo": lines})
    assert set(questions._questions(live(found, monkeypatch) if running else found)) == asked


def test_which_units_are_of_interest(root: Path) -> None:
    found = facts(root, "[Image data]\nWhere=/srv/d\nBefore=a.service\n")
    assert questions._units_of_interest(found) == [
        "rpinfs-agent.service", "rpinfs-gate.service", "docker.service", "containerd.service", "nfs-docker.mount",
        "boot-firmware.mount", "var-lib-docker.mount", "var-lib-containerd.mount", "srv-d.mount", "docker.service",
        "containerd.service", "a.service",
    ]  # fmt: skip


def test_what_a_folder_has(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"x" * 5000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("a.img")
    files = _ask_files(str(tmp_path))
    assert files.complete
    assert {name: file.size for name, file in files.files.items()} == {"a.img": 5000}
    space = _ask_space(str(tmp_path))
    assert isinstance(space, Space)
    assert space.size >= space.available > 0


@pytest.mark.parametrize(
    ("daemon", "containerd", "expected"),
    [
        (None, None, DockerConfig("", "/var/lib/containerd")),
        ("", "", DockerConfig("", "/var/lib/containerd")),
        ('{"userns-remap": "default"}', 'version = 2\nroot = "/srv/c"\n', DockerConfig("default", "/srv/c")),
        ("[]", 'disabled_plugins = ["cri"]\n', DockerConfig("", "/var/lib/containerd")),
    ],
)
def test_what_the_configuration_of_docker_says(
    root: Path, daemon: str | None, containerd: str | None, expected: DockerConfig
) -> None:
    files = {"etc/docker/daemon.json": daemon, "etc/containerd/config.toml": containerd}
    make_tree(root, {name: text for name, text in files.items() if text is not None})
    assert _ask_docker_config(str(root)) == expected


@pytest.mark.parametrize("name", ["etc/docker/daemon.json", "etc/containerd/config.toml"])
def test_a_configuration_of_docker_that_cannot_be_read_is_named(root: Path, name: str) -> None:
    make_tree(root, {name: "{not = json"})
    with pytest.raises(RpinfsError, match=name):
        _ask_docker_config(str(root))


def test_the_superblock_of_an_image(tmp_path: Path) -> None:
    file = tmp_path / "image"
    with file.open("wb") as opened:
        opened.truncate(8 << 20)
    assert _ask_superblock(str(file)) is None
    subprocess.run(["mkfs.ext4", "-q", "-L", "docker", file], check=True)
    found = _ask_superblock(str(file))
    assert found is not None
    assert (found.label, found.clean, found.errors_recorded) == ("docker", True, 0)
    file.write_bytes(b"short")
    assert _ask_superblock(str(file)) is None


def test_of_very_many_files_only_some_are_looked_at(tmp_path: Path) -> None:
    """Each is a question to the NAS; a folder of thousands would cost the answer to all others."""
    for number in range(1000):
        (tmp_path / f"{number}.img").touch()
    found = _ask_files(str(tmp_path))
    assert (len(found.files), found.complete) == (1000, True)
    (tmp_path / "one-more.img").touch()
    found = _ask_files(str(tmp_path))
    assert (len(found.files), found.complete) == (1000, False)


def test_the_budget_is_counted_from_the_start_of_the_process() -> None:
    code = "import time; time.sleep(0.6); from rpinfs.health.questions import seconds_left; print(seconds_left())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOP, check=True)
    left = float(done.stdout)
    assert LEAST_SECONDS <= left <= BUDGET_SECONDS - 0.5


SYMLINK = "x.mount: Mount path /x is not canonical (contains a symlink)."
OPTION = "mount: /x: wrong fs type, bad option."
JOURNALS = {
    "a symbolic link": (f"{SYMLINK}\nFailed to mount x.mount - Image docker.\n", SYMLINK),
    "an option": (f"Mounting x.mount...\n{OPTION}\nx.mount: Failed with result 'exit-code'.\n", OPTION),
    "no reason": ("Failed to mount x.\n", "Failed to mount x."),
    "nothing": ("", ""),
    "what a terminal would act on": ("mount: \x1b[31mx\u00e9" + "y" * 999, "mount:  [31mx?" + "y" * 186),
}


@pytest.mark.parametrize(("journal", "expected"), JOURNALS.values(), ids=JOURNALS)
def test_the_line_that_says_why(journal: str, expected: str) -> None:
    assert systemd.telling_line(journal) == expected
