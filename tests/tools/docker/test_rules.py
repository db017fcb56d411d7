"""What `rpinfs docker show` foretells, and what the real Docker of Debian 12 and 13 then does."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from tests.tools.conftest import Mount, command
from tests.tools.debian import debian
from tests.tools.docker.daemon import answer, started

pytestmark = pytest.mark.root

SNAPSHOTTER: dict[str, object] = {"features": {"containerd-snapshotter": True}}
REMAP: dict[str, object] = {"userns-remap": "default"}

# daemon.json, drivers that have data in the folder, file system below it: a tmpfs, where overlay works as on ext4, and
# which no loop device keeps attached until the last namespace is gone; or the overlay that the root is on.
CASES: dict[str, tuple[dict[str, object], tuple[str, ...], str]] = {
    "nothing is set": ({}, (), "tmpfs"),
    "no overlay there": ({}, (), "overlay"),
    "remapped": (REMAP, (), "tmpfs"),
    "snapshotter": (SNAPSHOTTER, (), "tmpfs"),
    "remapped snapshotter": ({**SNAPSHOTTER, **REMAP}, (), "tmpfs"),
    "remapped elsewhere": ({"data-root": "/var/lib/docker/sub", **REMAP}, (), "tmpfs"),
    "two drivers before": ({}, ("overlay2", "fuse-overlayfs"), "tmpfs"),
    "vfs": ({"storage-driver": "vfs"}, (), "tmpfs"),
    "a snapshotter as storage driver": ({"storage-driver": "overlayfs"}, (), "tmpfs"),
    "root to root": ({"userns-remap": "root"}, (), "tmpfs"),
}


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
@pytest.mark.parametrize("name", CASES)
def test_docker_does_what_was_foretold(tmp_path: Path, mounted: Mount, release: str, name: str) -> None:
    keys, prior, filesystem = CASES[name]
    with debian(release, tmp_path) as root, mounted("-t", "tmpfs", "none") as data, contextlib.ExitStack() as stack:
        root.path("/var/lib/docker").mkdir(exist_ok=True)
        if filesystem == "tmpfs":
            command("mount", "--bind", data, root.path("/var/lib/docker"))
            stack.callback(command, "umount", root.path("/var/lib/docker"))
        for driver in prior:
            root.path(f"/var/lib/docker/{driver}/layer").mkdir(parents=True)
        root.path("/etc/docker").mkdir(exist_ok=True)
        root.path("/etc/docker/daemon.json").write_text(json.dumps(keys))
        foretold = json.loads(root.run("rpinfs", "docker", "show", "--json", ok=(0, 1)).stdout)
        assert foretold["rules_seen_with"]
        fatal = [problem["message"] for problem in foretold["problems"] if problem["fatal"]]
        with started(root) as came_up:
            assert came_up is not bool(fatal), (fatal, root.path("/tmp/log").read_text())
            if came_up:
                info = answer(root)
                assert (info["Driver"], info["DockerRootDir"]) == (foretold["driver"]["value"], foretold["root"])
                assert ("name=userns" in info["SecurityOptions"]) is (
                    foretold["userns_remap"]["value"] not in (None, "root")
                )
                kind = ["driver-type", "io.containerd.snapshotter.v1"]
                assert (kind in (info["DriverStatus"] or [])) is foretold["snapshotter"]
