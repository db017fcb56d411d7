"""The quick look of the gate passes only what the full look passes: both look at every world of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rpinfs.boot import daemons
from rpinfs.boot.config import load
from rpinfs.boot.gate import misplaced
from rpinfs.boot.host import Host
from rpinfs.boot.storage import parse_mountinfo
from rpinfs.boot.units import MANAGER_FOLDERS, UNIT_FOLDERS
from rpinfs.docker import roots
from tests.support import CMDLINE, Content, make_pi, make_tree
from tests.unit.boot.test_daemons import DOCKER, EXEC, JSON, PLACES, ROOT, TOML, UNIT, dpkg
from tests.unit.boot.test_gate import ALL, loop

World = Mapping[str, Content]
LOOP_DEVICE = (7, 3)
FOLDERS = [folder[1:] for folder in UNIT_FOLDERS]
ELSEWHERE = "DOCKER_OPTS=--data-root=/srv/d\n"
OF_ALL = f"[Manager]\nDefaultEnvironment={ELSEWHERE}"
CONTAINERD = "usr/lib/systemd/system/containerd.service"
STARTED = "[Service]\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n"
LINK = Path("/usr/lib/systemd/system/docker.service")
CIRCLE = {"srv/circle": Path("circle")}


def drop_ins() -> Iterator[World]:
    """Something in every folder of units, for Docker, containerd, all services, or another name of Docker's."""
    for folder in FOLDERS:
        yield {f"{folder}/docker.service.d/a.conf": f"{EXEC}--data-root=/srv/d\n"}
        yield {f"{folder}/containerd.service.d/a.conf": "[Service]\nRootDirectory=/srv\n"}
        yield {f"{folder}/service.d/a.conf": f"[Service]\nEnvironment={ELSEWHERE}"}
        yield {f"{folder}/docker.service": f"{EXEC}--data-root=/srv/d\n"}
        yield {f"{folder}/containerd.service": "[Service]\nExecStart=/usr/bin/containerd --root /srv/c\n"}
        for other in FOLDERS:
            yield {f"{folder}/moby.service": LINK, f"{other}/moby.service.d/a.conf": f"{EXEC}--data-root=/srv/d\n"}


def of_the_manager() -> Iterator[World]:
    for folder in MANAGER_FOLDERS:
        for name in ("system.conf", "system.conf.d/a.conf"):
            yield {f"{folder[1:]}/{name}": OF_ALL}
            yield {f"{folder[1:]}/{name}": OF_ALL.replace("\n", "\r")}
            yield {f"{folder[1:]}/{name}": f"[Manager]\n# x\0DefaultEnvironment={ELSEWHERE}"}


def in_place() -> Iterator[World]:
    """A unit of a package, changed in its own file."""
    for line in ("BindPaths=/srv/d:/var/lib/docker", " BindPaths =/srv/d:/var/lib/docker", "RootDirectory=/srv",
                 "# x\rRootDirectory=/srv", "TemporaryFileSystem=/var", f"Environment={ELSEWHERE}", "ExecStart=/bin/x",
                 "ExecStart=/usr/sbin/dockerd -H fd://"):  # fmt: skip
        yield {UNIT: f"{STARTED}{line}\n"}
        yield {CONTAINERD: f"[Service]\nExecStart=/usr/bin/containerd\n{line.replace('docker', 'containerd')}\n"}
    for text in ("[Unit]\n", "[Service]\nExecStart=/usr/sbin/dockerd\n", "[Service]\nExecStart = /opt/containerd\n",
                 "[Unit]\nDescription=x \\\nExecStart=/usr/bin/containerd\n",
                 "[Service]\nExecStart=/usr/bin/containerd \\\n --root /srv/c\n"):  # fmt: skip
        yield {CONTAINERD: text}


def by_files() -> Iterator[World]:
    for text in ('{"containerd": "/run/other/containerd.sock"}', '{"data-root": "/srv/d"}', "[]", '"x"',
                 '\ufeff{"data-root": "/srv/d"}', b'{"labels": ["\xff"]}'):  # fmt: skip
        yield {JSON: text}
    for text in (f"# x\r{ELSEWHERE}", f"\r\n{ELSEWHERE}", f"# x\r\n # y\r {ELSEWHERE}", f"; x\n{ELSEWHERE}"):
        yield {"etc/default/docker": text}
    for text in ("root='/srv/c'", "\ufeffroot='/srv/c'\n", "'imports' = ['/etc/c.toml']\n", b"# \xff\n"):
        yield {TOML: text, "etc/c.toml": "root='/srv/c'\n"}
    yield {"proc/cmdline": f"{CMDLINE} systemd.setenv={ELSEWHERE}"}
    # What cannot be read, or is elsewhere in a world below a folder.
    for file in (JSON, TOML, "etc/systemd/system.conf.d/a.conf", UNIT, CONTAINERD):
        yield {**CIRCLE, file: Path("/srv/circle")}
    yield {JSON: Path("/etc/d.json"), "etc/d.json": '{"data-root": "/srv/d"}'}
    yield {f"{JSON}/a": ""}
    yield {f"{TOML}/a": ""}
    yield {**CIRCLE, "etc/systemd/system.attached": Path("/srv/circle")}


KINDS = {
    "drop-ins": (drop_ins, 220),
    "of the manager": (of_the_manager, 24),
    "in place": (in_place, 18),
    "by files": (by_files, 22),
    "where Docker will write": (lambda: (place.files for place in PLACES if not place.config), 70),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_quick_look_passes_only_what_the_full_look_passes(tmp_path: Path, kind: str) -> None:
    """Promise 3. With defaults alone the gate opens few files, and none of these worlds may look like that."""
    worlds, at_least = KINDS[kind]
    refused = 0
    for number, world in enumerate(worlds()):
        root = tmp_path / str(number)
        packaged = {path: content for path, content in DOCKER.items() if not any(one.startswith(path) for one in world)}
        make_pi(root, "", {**packaged, **loop(), **dpkg("29.1"), **world})
        host = Host.read(str(make_tree(root, {"proc/self/mountinfo": ROOT + ALL})))
        config = load(host)
        mounts = parse_mountinfo(host.mountinfo)
        full = daemons.refusals(config, host, mounts, [LOOP_DEVICE], roots.read)
        found = misplaced(config, host, roots.read)
        assert [one.message for one in found] == [one.message for one in full], world
        refused += bool(full)
    assert refused >= at_least, "worlds that must be refused were not"
