"""What `rpinfs docker show` foretells, and what the real Docker of each Debian then does."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.container import container_tar
from tests.package.chroot import Chroot
from tests.parameters import EACH_RELEASE
from tests.tools.conftest import Mount, command
from tests.tools.debian import debian
from tests.tools.docker.daemon import NO_NETWORK, answer, client, started

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


@contextlib.contextmanager
def with_data(release: str, tmp_path: Path, mounted: Mount, filesystem: str = "tmpfs") -> Iterator[Chroot]:
    """The root of a release; below Docker's folder is a tmpfs, or nothing but the root."""
    with debian(release, tmp_path) as root, mounted("-t", "tmpfs", "none") as data, contextlib.ExitStack() as stack:
        root.path("/var/lib/docker").mkdir(exist_ok=True)
        root.path("/etc/docker").mkdir(exist_ok=True)
        if filesystem == "tmpfs":
            command("mount", "--bind", data, root.path("/var/lib/docker"))
            stack.callback(command, "umount", root.path("/var/lib/docker"))
        yield root


@pytest.mark.parametrize("release", EACH_RELEASE)
@pytest.mark.parametrize("name", CASES)
def test_docker_does_what_was_foretold(tmp_path: Path, mounted: Mount, release: str, name: str) -> None:
    keys, prior, filesystem = CASES[name]
    with with_data(release, tmp_path, mounted, filesystem) as root:
        for driver in prior:
            root.path(f"/var/lib/docker/{driver}/layer").mkdir(parents=True)
        foretold = shown_with(root, keys)
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


def shown_with(root: Chroot, keys: dict[str, object]) -> dict[str, Any]:
    """What `rpinfs docker show` says, before Docker is started with these keys of daemon.json."""
    root.path("/etc/docker/daemon.json").write_text(json.dumps(keys))
    shown: dict[str, Any] = json.loads(root.run("rpinfs", "docker", "show", "--json", ok=(0, 1)).stdout)
    return shown


# Settings in which the image made without any is not seen, and what else is not: made with the settings before.
SWITCHES: tuple[tuple[dict[str, object], str], ...] = (
    ({}, ""),
    (REMAP, "1 image of the storage driver overlay2 in /var/lib/docker"),
    ({"storage-driver": "vfs"}, "1 image of the storage driver overlay2 in /var/lib/docker/100000.100000"),
    (SNAPSHOTTER, "1 image of the storage driver vfs in /var/lib/docker"),
    ({**SNAPSHOTTER, **REMAP}, "1 image of containerd in /var/lib/docker/containerd/daemon"),
    ({}, r"\d+ (layer|blob)s? of containerd in /var/lib/docker/containerd/daemon"),
)


@pytest.mark.parametrize("release", EACH_RELEASE)
def test_what_becomes_invisible_is_said_first(tmp_path: Path, mounted: Mount, release: str) -> None:
    """From setting to setting and back: what the real one does not show was foretold, and all is there again."""
    with with_data(release, tmp_path, mounted) as root:
        drop_in = root.path("/etc/systemd/system/docker.service.d/test.conf")
        drop_in.parent.mkdir(parents=True)
        # No containerd runs here but its own.
        root.path("/etc/systemd/system/containerd.service").symlink_to("/dev/null")
        drop_in.write_text(f"[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd {NO_NETWORK}\n")
        root.path("/tmp/image.tar").write_bytes(container_tar(root.root))
        has_store = shown_with(root, SNAPSHOTTER)["snapshotter"]
        switches = [one for one in SWITCHES if has_store or "features" not in one[0]]
        for number, (keys, wanted) in enumerate(switches):
            is_back = number == len(switches) - 1
            unseen = [f"{one['what']} in {one['folder']}" for one in shown_with(root, keys)["unseen"]]
            has_none = is_back and len(switches) < len(SWITCHES)
            assert not wanted or has_none or any(re.fullmatch(wanted, one) for one in unseen), unseen
            with started(root) as came_up:
                assert came_up, root.path("/tmp/log").read_text()
                names = client(root, "images", "--format={{.Repository}}").split()
                assert names == (["test-0"] if is_back else []), keys
                if not is_back:
                    client(root, "import", "/tmp/image.tar", f"test-{number}")
                    assert client(root, "images", "--format={{.Repository}}").split() == [f"test-{number}"]
