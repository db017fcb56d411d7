"""Giving freed blocks back: real file systems in real files, and what stands in the way."""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rpinfs.boot import storage
from rpinfs.boot.storage import Loop, Mount
from rpinfs.errors import RpinfsError
from rpinfs.image import make, trim
from rpinfs.image.trim import CannotTrim, Chain
from rpinfs.system import loop
from rpinfs.system.files import OddFileError
from tests.tools.conftest import Mount as Mounted
from tests.tools.conftest import Traced, command, python
from tests.tools.image.files import fingerprint
from tests.tools.images import SIZE, image_at

WRITTEN = 100 << 20
MIB = 1 << 20

TRIM = """\
import sys
from rpinfs.image import trim
from rpinfs.boot import storage
from tests.tools.images import image_at

def progress(line):
    print(line, flush=True)
    sys.stdin.readline()

mounts = storage.parse_mountinfo(open("/proc/self/mountinfo").read())
trim.trim(image_at({where!r}), mounts, progress)
"""


def trimmed(where: Path) -> trim.Trimmed:
    mounts = storage.parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    return trim.trim(image_at(str(where)), mounts, lambda _: None)


def write_and_remove(where: Path) -> None:
    (where / "layer").write_bytes(os.urandom(WRITTEN))
    command("sync", "--file-system", where)
    (where / "layer").unlink()


@contextlib.contextmanager
def attached(mounted: Mounted, folder: Path, filesystem: str = "ext4") -> Iterator[Path]:
    """A new image in a folder, attached and mounted as on a Pi."""
    path = folder / "docker.img"
    make.create(str(path), SIZE, filesystem)
    with contextlib.ExitStack() as stack:
        # As after a restart of the agent: only the mount holds the device, and no child of ours inherits it.
        with loop.attach(str(path)) as device:
            where = stack.enter_context(mounted(device.path))
        yield where


@pytest.mark.root
@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_what_was_removed_is_given_back(filesystem: str, tmp_path: Path, mounted: Mounted) -> None:
    with attached(mounted, tmp_path, filesystem) as where:
        (where / "kept").write_bytes(b"kept" * MIB)
        write_and_remove(where)
        assert trim.allocated(str(tmp_path / "docker.img")) >= WRITTEN
        done = trimmed(where)
        assert done.path == str(tmp_path / "docker.img")
        assert done.before - done.after == done.given_back
        assert abs(done.given_back - WRITTEN) < 4 * MIB
        assert 4 * MIB <= done.held < WRITTEN
        assert (where / "kept").read_bytes() == b"kept" * MIB
        assert sorted(path.name for path in tmp_path.glob(".*")) == []
        assert trimmed(where).given_back < 4 * MIB


@pytest.mark.root
def test_a_server_that_frees_nothing(tmp_path: Path, mounted: Mounted, traced: Traced) -> None:
    """fstrim would count gigabytes, and nothing would come of it: we ask the server first."""
    with attached(mounted, tmp_path) as where:
        code = TRIM.format(where=str(where))
        ended = traced(code, [], inject="fallocate:error=EOPNOTSUPP", whole=True)
        assert "CannotTrim" in ended.stderr
        assert "cannot free blocks inside a file" in ended.stderr
        assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.root
def test_a_silent_share(tmp_path: Path, mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen file system answers as a NAS that is gone does: not at all."""
    monkeypatch.setattr(trim, "ANSWER_SECONDS", 0.5)
    disk = tmp_path / "disk"
    command("truncate", "--size", str(2 * SIZE), disk)
    command("mkfs.ext4", "-q", "-F", disk)
    with mounted("-o", "loop", disk) as share, attached(mounted, share) as where:
        write_and_remove(where)
        with frozen(share), pytest.raises(RpinfsError, match=f"{share} gave no answer within 0.5 s") as silence:
            trimmed(where)
        assert not isinstance(silence.value, CannotTrim)
        interrupt_in_the_middle(share, where)
        assert trimmed(where).after < WRITTEN


@contextlib.contextmanager
def frozen(where: Path) -> Iterator[None]:
    command("fsfreeze", "--freeze", where)
    try:
        yield
    finally:
        command("fsfreeze", "--unfreeze", where)


def interrupt_in_the_middle(share: Path, where: Path) -> None:
    """Ctrl-C while fstrim waits for the share: we end, and fstrim when the share lets it."""
    process = python(TRIM.format(where=str(where)), stdin=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    assert "not yet written" in process.stdout.readline()
    process.stdin.write("\n")
    process.stdin.flush()
    assert "free blocks" in process.stdout.readline()
    with frozen(share):
        process.stdin.write("\n")
        process.stdin.flush()
        started = child_of(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert select.select([started], [], [], 60)[0]
    os.close(started)


def child_of(pid: int) -> int:
    """Descriptor of a process's child, which becomes readable when that has ended; waits for its start."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not (numbers := children.read_text().split()):
        pass
    return os.pidfd_open(int(numbers[0]))


# What the tables of the kernel say is enough to refuse.


def a_mount(where: str, kind: str = "ext4", options: str = "rw", super_options: str = "rw") -> Mount:
    return Mount(1, 0, (7, 0), "/", where, options.split(","), kind, "source", super_options.split(","))


def a_chain(*, version: str = "4.2", kind: str = "nfs4", discards: bool = True, image: Mount | None = None) -> Chain:
    return Chain(
        "/var/lib/docker",
        image or a_mount("/var/lib/docker"),
        Loop("loop999", "/nfs/docker/docker.img", True, True, 4096, 0, SIZE),
        a_mount("/nfs/docker", kind, super_options=f"rw,vers={version},hard"),
        discards,
    )


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (a_chain(version="4.1"), "the share /nfs/docker is mounted with NFS 4.1, and only NFS 4.2 can free blocks"),
        (a_chain(version="3", kind="nfs"), "is mounted with NFS 3, and only"),
        (a_chain(discards=False), "/dev/loop999 offers no discard"),
    ],
)
def test_impossible(chain: Chain, message: str) -> None:
    with pytest.raises(CannotTrim, match=message) as refusal:
        trim.refuse("docker", chain)
    assert refusal.value.remedy


@pytest.mark.parametrize(
    "image",
    [a_mount("/var/lib/docker", options="ro"), a_mount("/var/lib/docker", super_options="ro,errors=remount-ro")],
)
def test_nothing_is_given_away_of_what_may_be_damaged(image: Mount) -> None:
    """That is a failure, for a timer too."""
    with pytest.raises(RpinfsError, match="read-only or has errors") as refusal:
        trim.refuse("docker", a_chain(image=image))
    assert not isinstance(refusal.value, CannotTrim)


def test_possible() -> None:
    trim.refuse("docker", a_chain())
    trim.refuse("docker", a_chain(kind="ext4", version=""))


def test_not_mounted() -> None:
    with pytest.raises(CannotTrim, match="image docker is not mounted at /var/lib/docker"):
        trim.trim(image_at("/var/lib/docker"), [a_mount("/")], lambda _: None)


def test_the_mount_of_a_file() -> None:
    mounts = [a_mount("/"), a_mount("/nfs/docker", "autofs"), a_mount("/nfs/docker", "nfs4"), a_mount("/nfs")]
    assert trim.mount_of("/nfs/docker/docker.img", mounts) is mounts[2]
    assert trim.mount_of("/nfs/dockers/docker.img", mounts) is mounts[3]
    assert trim.mount_of("/docker.img", mounts) is mounts[0]


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / ".docker.img.rpinfs-trim"
    path.write_text("a letter")
    with pytest.raises(RpinfsError, match="expected an empty file"):
        trim.punches_holes(str(path))
    assert path.read_text() == "a letter"
    path.write_text("")
    assert trim.punches_holes(str(path))
    assert not path.exists()


@pytest.mark.parametrize("put", [Path.symlink_to, Path.hardlink_to])
def test_an_empty_file_of_somebody_else(tmp_path: Path, put: Callable[[Path, Path], None]) -> None:
    """An image that is about to be made, say: neither opened for writing nor removed."""
    path, victim = tmp_path / ".docker.img.rpinfs-trim", tmp_path / "other.img"
    victim.touch()
    put(path, victim)
    before = fingerprint(victim), fingerprint(path)
    with pytest.raises(OddFileError, match="expected a file of rpinfs, found a"):
        trim.punches_holes(str(path))
    assert (fingerprint(victim), fingerprint(path)) == before


def test_a_full_share_is_trimmed_all_the_same(tmp_path: Path, traced: Traced) -> None:
    path = tmp_path / ".docker.img.rpinfs-trim"
    code = f"import sys; from rpinfs.image import trim; sys.exit(0 if trim.punches_holes({str(path)!r}) else 7)"
    assert traced(code, [path], inject="openat:error=ENOSPC").returncode == 0
    assert traced(code, [path], inject="fallocate:error=EOPNOTSUPP").returncode == 7
    assert not path.exists()


def test_what_a_file_takes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(MIB))
    os.truncate(tmp_path / "file", 64 * MIB)
    assert trim.allocated(str(tmp_path / "file")) == int(command("du", "--block-size=1", tmp_path / "file").split()[0])


@pytest.mark.parametrize(("before", "after", "given_back"), [(5, 3, 2), (5, 5, 0), (3, 5, 0)])
def test_containers_write_meanwhile(before: int, after: int, given_back: int) -> None:
    assert trim.Trimmed("image", before, after, 1).given_back == given_back
