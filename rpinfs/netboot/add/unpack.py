"""The file of an image: what it is by its first bytes, its checksum, and unpacked where it is compressed.

What is unpacked is a file without a name, below $TMPDIR or /var/tmp: it is gone with this process, killed or not.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from rpinfs.boot.settings import human_size
from rpinfs.errors import RpinfsError, quoted
from rpinfs.netboot.add.meter import Meter, looking
from rpinfs.system.files import open_regular
from rpinfs.system.run import CommandError, Tell, run

_CHUNK = 1 << 20
_XZ, _ZSTD = b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
_OTHERS = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"7z\xbc\xaf": "7z"}
WORK = "/var/tmp"


class ImageError(RpinfsError):
    """An image that is none, or not whole."""


@dataclass(frozen=True)
class ImageFile:
    """An image that can be read as it is on a card.

    Attributes:
        path: of the file that was named.
        fd: of the whole image, open for reading.
        size: of it, in bytes.
        sha256: of the file that was named, in hexadecimal digits.
    """

    path: str
    fd: int
    size: int
    sha256: str


@contextlib.contextmanager
def opened(path: str, tell: Tell) -> Iterator[ImageFile]:
    """Open an image, and unpack it where it is compressed. Raises ImageError, OSError."""
    # Who names a link means what it leads to.
    with open_regular(os.path.realpath(path), os.O_RDONLY) as fd:
        head = os.pread(fd, 32, 0)
        for magic, name in _OTHERS.items():
            if head.startswith(magic):
                raise ImageError(f"{path}: expected .img, .img.xz or .img.zst, found {name}", "unpack it first")
        size = os.fstat(fd).st_size
        digest = _checked(path, fd, size, tell)
        argv = _unpacker(head)
        if not argv:
            yield ImageFile(path, fd, size, digest)
            return
        with _nameless(path) as target:
            _refuse_without_room(path, target, _unpacked_size(path, head))
            _unpack(argv, path, fd, size, target, tell)
            yield ImageFile(path, target, os.fstat(target).st_size, digest)


def _unpacker(head: bytes) -> list[str]:
    if head.startswith(_XZ):
        return ["xz", "--decompress", "--stdout", "--threads=0"]
    if head.startswith(_ZSTD):
        return ["zstd", "--decompress", "--stdout", "--quiet", "--sparse"]
    return []


def _checked(path: str, fd: int, size: int, tell: Tell) -> str:
    """The checksum of the file, which must be the one that is beside it, where there is one."""
    digest = hashlib.sha256()
    meter = Meter(tell, "reading the image", size)
    position = 0
    while chunk := os.pread(fd, _CHUNK, position):
        digest.update(chunk)
        position += len(chunk)
        meter(position)
    with contextlib.suppress(FileNotFoundError), open(f"{path}.sha256", encoding="ascii", errors="replace") as file:
        wanted = file.read(4096).split()
        if wanted and wanted[0].lower() != digest.hexdigest():
            raise ImageError(
                f"{path}: expected the checksum in {path}.sha256, {wanted[0][:64]}, found {digest.hexdigest()}",
                "fetch the image again",
            )
    return digest.hexdigest()


@contextlib.contextmanager
def _nameless(path: str) -> Iterator[int]:
    work = os.environ.get("TMPDIR") or WORK
    try:
        with tempfile.TemporaryFile(dir=work, prefix="rpinfs-image-") as file:
            yield file.fileno()
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no place to unpack it: {work} is not there", "set TMPDIR") from error


def _refuse_without_room(path: str, target: int, needed: int) -> None:
    there = os.fstatvfs(target)
    free = there.f_bavail * there.f_frsize
    if free < needed:
        work = os.environ.get("TMPDIR") or WORK
        raise ImageError(
            f"{path}: expected {human_size(needed)} of free space in {work} to unpack it, found {human_size(free)}",
            "set TMPDIR to a folder with room, or unpack it first",
        )


def _unpacked_size(path: str, head: bytes) -> int:
    """Bytes that it will have, 0 where it does not say."""
    if head.startswith(_ZSTD):
        return zstd_size(head)
    try:
        listed = run(["xz", "--robot", "--list", path]).stdout
    except CommandError as error:
        raise _broken(path, error) from error
    totals = next((row.split("\t") for row in listed.splitlines() if row.startswith("totals\t")), [])
    return int(totals[4]) if len(totals) > 4 and totals[4].isdigit() else 0


def zstd_size(head: bytes) -> int:
    """What the first frame says of its content, in bytes; 0 where it says nothing (RFC 8878, 3.1.1.1)."""
    if len(head) < 18:
        return 0
    descriptor = head[4]
    single = descriptor >> 5 & 1
    begin = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    length = (single, 2, 4, 8)[descriptor >> 6]
    return int.from_bytes(head[begin : begin + length], "little") + (256 if length == 2 else 0)


def _unpack(argv: list[str], path: str, fd: int, size: int, target: int, tell: Tell) -> None:
    meter = Meter(tell, "unpacking the image", size)
    os.lseek(fd, 0, os.SEEK_SET)
    # The program reads by our open file, and so moves its position.
    with looking(lambda: meter(os.lseek(fd, 0, os.SEEK_CUR))):
        try:
            run(argv, stdin=fd, stdout=target, die_with_us=True)
        except CommandError as error:
            raise _broken(path, error) from error


def _broken(path: str, error: CommandError) -> RpinfsError:
    if error.returncode is None:
        return error
    if os.strerror(errno.ENOSPC) in error.stderr:
        work = os.environ.get("TMPDIR") or WORK
        return ImageError(f"{path}: no space left in {work} to unpack it", "set TMPDIR to a folder with room")
    said = error.reason.partition(": ")[2].replace("(stdin): ", "") or error.reason
    return ImageError(f"{path}: cannot be unpacked: {said}", f"fetch the image again; {quoted(path)} is not whole")
