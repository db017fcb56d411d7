"""Files hidden under mount points, on real mounts: found, counted, named, and left alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.boot.host import Host
from rpinfs.health import checks
from rpinfs.health.checks import Result, Status
from rpinfs.health.facts import Facts, facts_of
from rpinfs.health.questions import ask
from rpinfs.system import deadline, hidden
from rpinfs.system.hidden import Hidden
from tests.support import listing, make_pi, make_tree
from tests.tools.conftest import Mount, command, mounts
from tests.unit.health.test_status import hanging

pytestmark = pytest.mark.root

LONG = 60.0  # seconds; far more than such a walk takes


@pytest.fixture
def root(mounted: Mount) -> Iterator[Path]:
    """A file system of its own that plays the root: mount points below it are folders of it."""
    with mounted("-t", "tmpfs", "tmpfs") as folder:
        yield folder


@contextmanager
def covered(folder: Path) -> Iterator[None]:
    """Mount something upon a folder."""
    command("mount", "-t", "tmpfs", "tmpfs", folder)
    try:
        (folder / "on-top").write_text("not hidden")
        yield
    finally:
        command("umount", folder)


def find(*where: Path, seconds: float = LONG) -> list[Hidden]:
    table = storage.parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    return deadline.within(LONG, hidden.find, [str(one) for one in where], table, seconds)


def test_files_are_counted_sized_and_named(root: Path) -> None:
    docker = root / "docker"
    files = {"overlay2/a/b/big": "x" * 100_000, "overlay2/small": "x", "image/db": "x" * 20_000, "one": "x", "two": "x"}
    make_tree(docker, {**files, "empty/folder": None, "link": Path("/usr"), "overlay2/up": Path("../..")})
    before = listing(docker)
    with covered(docker):
        mounted = mounts(root)
        (found,) = find(docker)
        assert mounts(root) == mounted
    assert (found.where, found.below, found.complete) == (str(docker), str(root), True)
    assert found.files == 7  # the five files and the two links; folders do not count, and no link is followed
    assert [name for name, _ in found.largest] == ["overlay2", "image", "one"]
    assert dict(found.largest)["overlay2"] == 102_400 + 4096  # whole pages of a tmpfs
    assert found.size == 102_400 + 4096 + 20_480 + 2 * 4096
    assert listing(docker) == before


def test_an_empty_mount_point_hides_nothing(root: Path) -> None:
    make_tree(root, {"docker/made-by-systemd": None})
    with covered(root / "docker"):
        assert find(root / "docker") == [Hidden(str(root / "docker"), str(root), 0, 0, (), complete=True)]


def test_where_nothing_is_mounted_nothing_is_hidden(root: Path) -> None:
    make_tree(root, {"docker/file": "x"})
    assert find(root / "docker") == []


def test_a_mount_point_on_another_mount(root: Path) -> None:
    make_tree(root, {"srv/file-below": "x"})
    with covered(root / "srv"):
        make_tree(root, {"srv/docker/file": "x"})
        with covered(root / "srv/docker"):
            outer, inner = find(root / "srv", root / "srv/docker")
    assert (outer.below, [name for name, _ in outer.largest]) == (str(root), ["file-below"])
    assert (inner.below, [name for name, _ in inner.largest]) == (str(root / "srv"), ["file"])


@pytest.mark.parametrize("instead", ["nothing", "a file", "a link"])
def test_where_the_folder_is_no_more_nothing_is_hidden(root: Path, instead: str) -> None:
    """Another mount went over the one that has the mount point as a folder."""
    share, docker = root / "srv", root / "srv/docker"
    share.mkdir()
    with covered(share):
        docker.mkdir()
        with covered(docker), covered(share):
            if instead == "a file":
                docker.write_text("x")
            elif instead == "a link":
                docker.symlink_to(root)
            (found,) = find(docker)
    assert found == Hidden(str(docker), str(share), 0, 0, (), complete=True)


def test_a_walk_that_is_cut_short_says_so(root: Path) -> None:
    make_tree(root, {f"docker/{number}": "x" for number in range(50)})
    with covered(root / "docker"):
        (found,) = find(root / "docker", seconds=0.0)
    assert (found.files, found.complete) == (1, False)


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse")
def test_it_looks_under_a_share_that_hangs(root: Path) -> None:
    """Nothing on top is ever asked."""
    make_tree(root, {"share/file": "x", "share/link": Path("../share/file")})
    with hanging(root / "share"):
        (found,) = find(root / "share")
    assert found.files == 2


def test_without_root_it_is_refused(root: Path) -> None:
    make_tree(root, {"docker/file": "x"})

    def as_nobody() -> None:
        os.setuid(65534)
        find(root / "docker")

    with covered(root / "docker"), pytest.raises(PermissionError):
        deadline.within(LONG, as_nobody)


Judged = Callable[[str], dict[str, Result]]


@pytest.fixture
def judged(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    """The two thorough checks on a machine with an ext4 mounted over files that nobody sees; its fstab is given."""
    docker = root / "docker"
    make_tree(docker, {"overlay2/lost": "x" * 5000})
    monkeypatch.setattr(Facts, "live", property(lambda _: True))

    def judge(fstab: str) -> dict[str, Result]:
        config = f"[Image docker]\nWhere={docker}\nBind=\n[Share]\nWhere={root}/share\n[Boot]\nExport=\n"
        host = Host.read(str(make_pi(tmp_path / "pi", config, {"etc/fstab": fstab})))
        host.mountinfo = Path("/proc/self/mountinfo").read_text()
        facts = facts_of(host)
        assert facts.errors == []
        selected = checks.select(["mount.hidden", "mount.overlay"])
        ask(facts, LONG, checks.needs(selected))
        return {result.name: result for result in checks.judge(facts, selected)}

    return judge


def test_the_checks_of_a_running_machine(root: Path, tmp_path: Path, judged: Judged) -> None:
    """From the question to the sentence."""
    with loop_upon(tmp_path, root / "docker"):
        found = judged(f"/some/image {root}/docker ext4 loop,_netdev,nofail 0 0\n")
        assert not (root / "docker/.rpinfs").exists()
    assert found["mount.overlay"].status is Status.OK
    assert found["mount.hidden"].status is Status.WARNING
    assert found["mount.hidden"].message == f"{root}/docker hides 1 file with 8 KiB (overlay2 8 KiB)"
    shell = f"mount --bind {root} /mnt && ls -lA /mnt/docker && exec sh"
    assert found["mount.hidden"].remedy.endswith(f"unshare -m sh -c '{shell}'")


def test_nothing_is_tried_on_what_is_not_the_image(root: Path, tmp_path: Path, judged: Judged) -> None:
    with loop_upon(tmp_path, root / "docker"):
        assert set(judged("")) == {"mount.hidden"}


@contextmanager
def loop_upon(tmp_path: Path, folder: Path) -> Iterator[None]:
    """Mount a new ext4 upon a folder."""
    file = tmp_path / "image"
    with file.open("wb") as opened:
        opened.truncate(64 << 20)
    command("mkfs.ext4", "-q", file)
    command("mount", "-o", "loop", file, folder)
    try:
        yield
    finally:
        command("umount", folder)


def test_what_takes_the_place_of_a_folder_meanwhile_is_not_entered(root: Path) -> None:
    """A link above a folder that is still to be looked at would lead to wherever whoever made it likes."""
    make_tree(root, {"below/a/b/file": "x", "outside/b/secret": "y" * 5000})
    top = os.open(root / "below", os.O_RDONLY | os.O_DIRECTORY)
    seen = []
    try:
        for path, _ in hidden._entries(top):
            seen.append(path)
            if path == "./a/b":
                (root / "below/a").rename(root / "below/away")
                (root / "below/a").symlink_to(root / "outside")
    finally:
        os.close(top)
    assert seen == ["./a", "./a/b"]


def test_a_mount_point_below_a_link_is_not_looked_at(root: Path) -> None:
    make_tree(root, {"real/docker/file": "x"})
    (root / "link").symlink_to("real")
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(NotADirectoryError):
            hidden._open_below(top, "link/docker")
        os.close(hidden._open_below(top, "real/docker"))
    finally:
        os.close(top)
