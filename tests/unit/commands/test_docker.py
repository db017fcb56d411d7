"""`rpinfs docker show` and `apply` to the letter. What Docker really does: tests/tools/docker."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from rpinfs.commands import cli
from tests.support import Content, make_pi, make_tree

Captured = pytest.CaptureFixture[str]
MOUNTED = "40 22 0:40 / / rw - nfs4 192.168.1.10:/pi rw\n41 40 7:3 / /var/lib/docker rw - ext4 /dev/loop3 rw\n"
IMAGES = "var/lib/docker/image/overlay2/imagedb/content/sha256/ab"
HIDDEN = "Docker will not see 1 image in /var/lib/docker, for its data will be in /var/lib/docker/100000.100000"


@pytest.fixture
def pi(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Pi with Docker 26; the commands look at it."""
    monkeypatch.setenv("RPINFS_ROOT", str(root))
    files: dict[str, Content] = {
        "proc/self/mountinfo": MOUNTED,
        "var/lib/dpkg/status": "Package: docker.io\nStatus: install ok installed\nVersion: 26.1.5+dfsg1-9\n\n",
        "etc/passwd": "root:x:0:0::/:\n", "etc/group": "root:x:0:\n", "etc/subuid": "", "etc/subgid": "",
    }  # fmt: skip
    return make_pi(root, files=files)


def daemon_json(pi: Path, text: str) -> None:
    (pi / "etc/docker").mkdir(exist_ok=True)
    (pi / "etc/docker/daemon.json").write_text(text)


def test_show_where_all_is_well(pi: Path, capsys: Captured) -> None:
    assert pi and cli.main(["docker", "show"]) == 0
    assert capsys.readouterr().out == (
        "Docker 26.1.5+dfsg1-9, by rules tried with 26.1.5 of Debian 13\n"
        "Images        storage driver overlay2, in /var/lib/docker  # default of Docker 26.1\n"
        "Data root     /var/lib/docker, on image docker             # default of Docker 26.1\n"
        "containerd    /var/lib/containerd, on image docker         # default of containerd\n"
        "userns-remap  off                                          # default of Docker 26.1\n"
    )
    assert cli.main(["docker", "show", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data_root"] == {"value": "/var/lib/docker", "origin": "default of Docker 26.1", "image": "docker"}
    assert (found["schema"], found["snapshotter"], found["root"]) == (1, False, "/var/lib/docker")
    assert (found["rules_seen_with"], found["problems"]) == ("26.1.5 of Debian 13", [])
    assert found["unseen"] == []
    assert found["userns_remap"] == {"value": None, "origin": "default of Docker 26.1"}


def test_show_what_is_wrong(pi: Path, capsys: Captured) -> None:
    daemon_json(pi, '{"data-root": "/srv/d"}')
    assert cli.main(["docker", "show"]) == 1
    out = capsys.readouterr().out
    assert "Data root     /srv/d, on no image" in out
    wrong = out.partition("\n\nWhat is wrong, and what to do:\n")[2]
    assert wrong.startswith(
        "  Docker stores with vfs, slow and large: /srv/d is on nfs4, where overlay does not work\n"
    )
    assert "  Docker's data root /srv/d is on no image (/etc/docker/daemon.json:1)\n      make data-root in" in wrong
    assert cli.main(["docker", "show", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["data_root"]["image"] is None and len(found["problems"]) == 2


@pytest.mark.parametrize(
    ("version", "rests_on"),
    [
        ("28.0.1", "tried with 28.5.2 of Debian 14"),
        ("29.1.0", "from its documentation, the image store tried with 28.5.2 of Debian 14"),
        ("27.5.1", "from its documentation"),
    ],
)
def test_show_what_its_rules_rest_on(pi: Path, capsys: Captured, version: str, rests_on: str) -> None:
    status = pi / "var/lib/dpkg/status"
    status.write_text(status.read_text().replace("26.1.5+dfsg1-9", version))
    assert cli.main(["docker", "show"]) == 0
    assert capsys.readouterr().out.startswith(f"Docker {version}, by rules {rests_on}\n")


SNAPSHOTTER, REMAPPED = '{"features": {"containerd-snapshotter": true}}', "var/lib/docker/100000.100000"
LAYERS = "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
OF_OVERLAY2 = ["1 image of the storage driver overlay2, in /var/lib/docker"]
OF_VFS = ["1 image of the storage driver vfs, in /var/lib/docker"]
OF_CONTAINERD = ["2 layers of containerd, in /var/lib/containerd"]
OF_REMAPPED = [
    "1 image of the storage driver overlay2, in /var/lib/docker/100000.100000",
    "1 container, 1 volume, in /var/lib/docker/100000.100000",
]
STORED: dict[str, Content] = {
    IMAGES: "", IMAGES.replace("overlay2", "vfs"): "", "var/lib/docker/containers/a": None,
    "var/lib/docker/image/bogus\x1b/imagedb/content/sha256/ab": "",
    f"{LAYERS}/1": None, f"{LAYERS}/2": None,
    f"{REMAPPED}/containers/b": None, f"{REMAPPED}/volumes/v": None, f"{REMAPPED}/volumes/metadata.db": "",
    IMAGES.replace("var/lib/docker", REMAPPED): "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "unseen"),
    [
        ("{}", [*OF_VFS, *OF_REMAPPED, *OF_CONTAINERD]),
        (SNAPSHOTTER, [*OF_OVERLAY2, *OF_VFS, *OF_REMAPPED]),
        ('{"storage-driver": "vfs"}', [*OF_OVERLAY2, *OF_REMAPPED, *OF_CONTAINERD]),
        ('{"userns-remap": "default"}', [*OF_OVERLAY2, *OF_VFS, "1 container, in /var/lib/docker", *OF_CONTAINERD]),
    ],
)
def test_show_what_docker_will_not_see(pi: Path, capsys: Captured, text: str, unseen: list[str]) -> None:
    """Another store, driver or user namespace has images of its own; containers of both stores lie in one folder."""
    daemon_json(make_tree(pi, STORED), text)
    cli.main(["docker", "show", "--json"])
    found = json.loads(capsys.readouterr().out)["unseen"]
    assert [f"{one['what']}, in {one['folder']}" for one in found] == unseen
    cli.main(["docker", "show"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Not seen")]
    assert [row[14:].partition("  #")[0].rstrip() for row in rows] == unseen
    assert all(row.endswith("# kept, and seen again with the settings it was made with") for row in rows)


def test_a_snapshotter_may_be_called_as_a_storage_driver_is(pi: Path, capsys: Captured) -> None:
    make_tree(pi, {IMAGES.replace("overlay2", "btrfs"): ""})
    daemon_json(pi, '{"storage-driver": "btrfs", "features": {"containerd-snapshotter": true}}')
    cli.main(["docker", "show", "--json"])
    (unseen,) = json.loads(capsys.readouterr().out)["unseen"]
    assert unseen["what"] == "1 image of the storage driver btrfs"


def test_what_cannot_be_seen_now_is_not_called_unseen(pi: Path, capsys: Captured) -> None:
    """The image is not mounted: what is below its mount point is none of Docker's."""
    make_tree(pi, STORED)
    (pi / "proc/self/mountinfo").write_text(MOUNTED.splitlines()[0] + "\n")
    cli.main(["docker", "show", "--json"])
    assert json.loads(capsys.readouterr().out)["unseen"] == []


def test_apply_and_back(pi: Path, capsys: Captured) -> None:
    assert cli.main(["docker", "apply", "--userns-remap=default"]) == 0
    assert capsys.readouterr().out == (
        "/etc/docker/daemon.json: userns-remap is default now; before, it was off\n"
        "Docker will keep its data in /var/lib/docker/100000.100000\n"
        "to use it, which stops the containers: systemctl restart docker\n"
    )
    assert json.loads((pi / "etc/docker/daemon.json").read_text()) == {"userns-remap": "default"}
    assert cli.main(["docker", "apply", "--userns-remap=default"]) == 0
    assert capsys.readouterr().out == "/etc/docker/daemon.json: userns-remap is default already; nothing to change\n"
    assert cli.main(["docker", "show"]) == 0
    assert "userns-remap  default, data in /var/lib/docker/100000.100000  " in capsys.readouterr().out
    assert cli.main(["docker", "apply", "--userns-remap=none"]) == 0
    assert "userns-remap is off now; before, it was default\n" in capsys.readouterr().out


@pytest.mark.parametrize("wanted", ["", "-x", ":x", "a:b:c", "a\nb", "root", "0", "root:root"])
def test_values_that_are_none(pi: Path, capsys: Captured, wanted: str) -> None:
    assert cli.main(["docker", "apply", f"--userns-remap={wanted}"]) == 2
    assert "expected default, USER, USER:GROUP or none" in capsys.readouterr().err
    assert not (pi / "etc/docker").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "terminals", "goes_on"),
    [("y\n", 2, True), (" YES \n", 2, True), ("n\n", 2, False), ("\n", 2, False), ("", 2, False), ("y\n", 1, False),
     ("y\n", 0, False)],
)  # fmt: skip
def test_consent(
    pi: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, answer: str, terminals: int, goes_on: bool
) -> None:
    (pi / IMAGES).parent.mkdir(parents=True)
    (pi / IMAGES).write_text("")
    said = Terminal() if terminals == 2 else io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(sys, "stdin", Terminal(answer) if terminals else io.StringIO(answer))
    assert cli.main(["docker", "apply", "--userns-remap=default"]) == (0 if goes_on else 1)
    assert (pi / "etc/docker/daemon.json").exists() is goes_on
    assert HIDDEN in said.getvalue()
    assert said.getvalue().endswith("Go on? [y/N] ") is goes_on
    assert ("--userns-remap=default --yes" in said.getvalue()) is (terminals < 2)
    assert bool(capsys.readouterr().out) is goes_on


def test_consent_beforehand(pi: Path, capsys: Captured) -> None:
    (pi / IMAGES).parent.mkdir(parents=True)
    (pi / IMAGES).write_text("")
    assert cli.main(["docker", "apply", "--userns-remap=default", "--yes"]) == 0
    assert capsys.readouterr().err == f"rpinfs: warning: {HIDDEN}\n"
