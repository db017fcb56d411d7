"""The folder of containerd by its configuration, as we read it and as the containerd of each Debian does."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest

from rpinfs.docker import containerd
from rpinfs.docker.told import Choice
from tests.package.chroot import Chroot
from tests.parameters import EACH_RELEASE
from tests.support import Content, make_tree
from tests.tools.conftest import command
from tests.tools.debian import debian

pytestmark = pytest.mark.root

MAIN = "etc/containerd/config.toml"
TOLD = Choice(containerd.ADDRESS, "test")
CASES: dict[str, tuple[dict[str, Content], str, str]] = {
    "nothing": ({MAIN: "version = 2\n"}, "", "/var/lib/containerd"),
    "root": ({MAIN: 'version = 2\nroot = "/mnt/a"\n'}, "", "/mnt/a"),
    "empty root": ({MAIN: 'version = 2\nroot = ""\nimports = ["b.toml"]\n', "etc/containerd/b.toml": "version = 2\n"},
                   "", "/var/lib/containerd"),
    "imported": ({MAIN: 'version = 2\nroot = "/mnt/a"\nimports = ["/etc/b.toml"]\n',
                  "etc/b.toml": 'version = 2\nroot = "/mnt/b"\n'}, "", "/mnt/b"),
    "imported from beside": ({MAIN: 'version = 2\nimports = ["b.toml"]\n',
                              "etc/containerd/b.toml": 'version = 2\nroot = "/mnt/b"\n'}, "", "/mnt/b"),
    "imported without a root": ({MAIN: 'version = 2\nroot = "/mnt/a"\nimports = ["/etc/b.toml"]\n',
                                 "etc/b.toml": "version = 2\n"}, "", "/mnt/a"),
    "wildcard": ({MAIN: 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n',
                  "etc/containerd/conf.d/1.toml": 'version = 2\nroot = "/mnt/1"\n',
                  "etc/containerd/conf.d/2.toml": 'version = 2\nroot = "/mnt/2"\n',
                  "etc/containerd/conf.d/3.off": 'version = 2\nroot = "/mnt/3"\n'}, "", "/mnt/2"),
    "imported by an imported": (
        {MAIN: 'version = 2\nimports = ["/etc/b.toml", "/etc/c.toml"]\n',
         "etc/b.toml": 'version = 2\nroot = "/mnt/b"\nimports = ["/etc/d.toml"]\n',
         "etc/c.toml": 'version = 2\nroot = "/mnt/c"\n', "etc/d.toml": 'version = 2\nroot = "/mnt/d"\n'},
        "", "/mnt/d",
    ),
    "option": ({MAIN: 'version = 2\nroot = "/mnt/a"\n'}, "--root /mnt/o", "/mnt/o"),
    "option with =": ({MAIN: 'version = 2\nroot = "/mnt/a"\n'}, "-root=/mnt/o", "/mnt/o"),
    "another file": ({MAIN: 'version = 2\nroot = "/mnt/a"\n', "etc/x.toml": 'version = 2\nroot = "/mnt/x"\n'},
                     "-c /etc/x.toml", "/mnt/x"),
}  # fmt: skip


def dumped(root: Chroot) -> str:
    said = command("chroot", root.root, "containerd", "config", "dump")
    found = re.search(r"^root = ['\"](.*)['\"]$", said, re.MULTILINE)
    assert found, said
    return found[1]


def started(root: Chroot, options: str) -> str:
    """Options count only for a start: it makes its folder, and ends at a socket that cannot be."""
    places = ["/mnt/a", "/mnt/o", "/mnt/x", "/var/lib/containerd"]
    for place in places:
        shutil.rmtree(root.path(place), ignore_errors=True)
    root.run("containerd", "--address=/proc/none/socket", "--state=/run/none", *shlex.split(options), ok=(1,))
    (made,) = [place for place in places if root.path(place).exists()]
    return made


@pytest.mark.parametrize("release", EACH_RELEASE)
def test_the_folder_that_containerd_takes(tmp_path_factory: pytest.TempPathFactory, release: str) -> None:
    with debian(release, tmp_path_factory.mktemp(release)) as root:
        drop_in = "etc/systemd/system/containerd.service.d/case.conf"
        for name, (files, options, wanted) in CASES.items():
            text = f"[Service]\nExecStart=\nExecStart=/usr/bin/containerd {options}\n"
            make_tree(root.root, {drop_in: text, **files})
            theirs = started(root, options) if options else dumped(root)
            ours = containerd.root_of(str(root.root), TOLD, "/var/lib/docker")
            found = ours.value if ours else "/var/lib/containerd"
            assert (name, theirs, found) == (name, wanted, wanted)
