"""Questions: what is asked, and what comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.health.facts import DockerConfig, Space
from rpinfs.health.questions import (
    BUDGET_SECONDS,
    LEAST_SECONDS,
    _ask_docker_config,
    _ask_files,
    _ask_space,
    _ask_superblock,
    _get,
)
from rpinfs.system import systemd
from tests.support import TOP, make_tree


def test_the_answer_of_docker(tmp_path: Path) -> None:
    """A real socket; the daemon's side is played."""
    import socket

    address = str(tmp_path / "docker.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(4096).startswith(b"GET /info HTTP/1.0\r\n")
                connection.sendall(b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n" + b'{"Driver": "overlay2"}')

        player = threading.Thread(target=serve)
        player.start()
        assert json.loads(_get(address, "/info")) == {"Driver": "overlay2"}
        player.join()


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
