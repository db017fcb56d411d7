"""A Pi for the tests of snapshots: a share with one image, which is mounted or not, and programs that die at a call."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rpinfs.boot.config import Image
from rpinfs.image import freeze, make, names, snapshots
from rpinfs.image.probe import probe
from rpinfs.image.taking import take
from rpinfs.lease import memory
from rpinfs.lease.lease import Owner
from tests.tools.conftest import Ended, command, unmount
from tests.tools.image.files import MIB, SIZE

OWNER = Owner("10000000aaaaaaaa", "pi1")
OTHER = Owner("10000000bbbbbbbb", "pi2")

# Appends numbered lines, and says of each that it is on stable storage.
WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
while True:
    number += 1
    os.write(fd, b"%d\\n" % number)
    os.fsync(fd)
    print(number, flush=True)
"""


class Pi:
    """A share with one image, a place to mount it, and a folder for markers."""

    def __init__(self, folder: Path, filesystem: str = "ext4", size: int = SIZE) -> None:
        self.share = folder / "share"
        self.path = self.share / "docker.img"
        self.where = folder / "docker"
        self.runtime = folder / "run"
        for made in (self.share, self.where, self.runtime):
            made.mkdir(exist_ok=True)
        make.create(str(self.path), size, filesystem)
        self.image = Image(
            name="docker", file="docker.img", path=str(self.path), size=size, size_is_set=False, filesystem=filesystem,
            filesystem_is_set=False, where=str(self.where), options=[], bind=[], before=["docker.service"],
            direct_io=True, fence="lease",
        )  # fmt: skip

    @property
    def marker(self) -> Path:
        return Path(freeze.marker_of("docker", str(self.runtime)))

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        command("mount", "-o", "loop", self.path, self.where)
        try:
            yield self.where
        finally:
            # A test that failed must not leave anybody hanging.
            self.thaw()
            # A mount namespace that somebody has made meanwhile keeps a copy of the mount, and the file system alive.
            command("mount", "-o", "remount,ro", self.where)
            unmount(self.where)

    def thaw(self) -> bool:
        """Whether it was frozen. To ask this way hangs nobody."""
        folder = os.open(self.where, os.O_RDONLY)
        try:
            return freeze._thaw(folder)
        finally:
            os.close(folder)

    def take(self) -> Path:
        return Path(take(self.image, OWNER, runtime=str(self.runtime)).path)

    def snapshots(self) -> list[Path]:
        return [Path(one.path) for one in snapshots.snapshots(str(self.path)).snapshots]

    def strays(self) -> set[str]:
        """What does not belong on a share with an image and snapshots, and into /run."""
        ours = {f".{self.path.name}.rpinfs-{what}" for what in ("lock", "owner")}
        kept = self.snapshots()
        records = {Path(names.record_of(str(path))).name for path in kept}
        # The note of the last snapshot, for whoever measures, stays in /run.
        expected = {self.path.name, *ours, *records, *(path.name for path in kept), "docker.snapshot"}
        return (set(os.listdir(self.share)) | set(os.listdir(self.runtime))) - expected

    def attempt(self, call: str) -> tuple[str, list[Path]]:
        """Code that calls something with the image, and the paths that it touches."""
        values = ", ".join(f"{name}={getattr(self.image, name)!r}" for name in Image.__slots__)
        record = Path(names.record_of(str(self.path)))
        working = [f".{self.path.name}.rpinfs-new-{RANDOM}", f"{record.name}-new-{RANDOM}"]
        hidden = [record, *(self.share / name for name in working), self.share / f".{self.path.name}.rpinfs-lock"]
        paths = [self.share, self.path, *hidden, self.where, self.runtime, self.marker]
        return ATTEMPT.format(values=values, call=call, runtime=str(self.runtime), memory=memory.FOLDER), paths


RANDOM = "0123456789abcdef"
ATTEMPT = f"""
import os, sys
random = os.urandom
os.urandom = lambda count: bytes.fromhex("{RANDOM}") if count == 8 else random(count)
from rpinfs import errors
from rpinfs.image import replacing, restoring, snapshots, taking
from rpinfs.lease import lease, memory
from rpinfs.boot.config import Image
memory.FOLDER = {{memory!r}}
def no_links(*_, **__):
    raise PermissionError(1, "no links here")
image, owner, runtime = Image({{values}}), lease.Owner("10000000aaaaaaaa", "pi1"), {{runtime!r}}
try:
    {{call}}
except errors.RpinfsError as error:
    print(error.message, "|", error.remedy, file=sys.stderr)
    sys.exit(3)
"""
TAKE = "taking.take(image, owner, runtime=runtime)"


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[Callable[[], int]]:
    """A writer that goes on all the while; tells how far it is for certain, when it has got further than before."""
    argv = [sys.executable, "-c", WRITER, str(folder / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            yield lambda: int(writer.stdout.readline())  # type: ignore[union-attr]
        finally:
            writer.kill()


def fill(folder: Path) -> None:
    """Files of all sizes, some with holes, and gaps between them."""
    (folder / "many").mkdir()
    for number in range(300):
        (folder / "many" / str(number)).write_bytes(os.urandom(number * 37))
    for number in range(0, 300, 3):
        (folder / "many" / str(number)).unlink()
    (folder / "large").write_bytes(os.urandom(8 * MIB))
    with (folder / "sparse").open("wb") as file:
        file.seek(5 * MIB)
        file.write(b"end")


def wait_for_guard(pi: Pi) -> None:
    """The guard has the marker locked for as long as it lives."""
    with contextlib.suppress(FileNotFoundError), pi.marker.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def assert_said(ended: Ended, pi: Pi, point: str) -> None:
    """It ended well, or with a sentence that names what it is about."""
    assert ended.returncode in (0, 3), f"{point}: {ended.stderr}"
    if ended.returncode == 3:
        assert str(pi.path) in ended.stderr or str(pi.where) in ended.stderr or str(pi.runtime) in ended.stderr, point
        assert "Traceback" not in ended.stderr


def assert_whole(path: Path) -> None:
    assert probe(str(path)).clean
    command("e2fsck", "-f", "-n", path)


def label(path: Path) -> str | None:
    return probe(str(path)).label
