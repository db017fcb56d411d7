"""Looking at images: what is recognised, what is refused."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import socket
import stat
import struct
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.image import signature
from rpinfs.image.check import check
from rpinfs.image.errors import ImageError
from rpinfs.image.make import create
from rpinfs.image.probe import Kind, probe, verify
from rpinfs.system import loop
from tests.tools.conftest import Mount, command, python
from tests.tools.image.files import (
    MIB,
    SIZE,
    XFS_SIZE,
    fingerprint,
    sparse,
    write_at,
    written_zeros,
)

# --- The zoo: what is not ours -----------------------------------------------------------------------------


def btrfs(path: Path) -> None:
    command("mkfs.btrfs", "-q", sparse(path, 256 * MIB))


def minix(path: Path) -> None:
    command("mkfs.minix", sparse(path))


def bfs(path: Path) -> None:
    command("mkfs.bfs", sparse(path))


def cramfs(path: Path) -> None:
    folder = path.parent / "content"
    folder.mkdir()
    (folder / "file").write_text("data")
    command("mkfs.cramfs", folder, path)
    (folder / "file").unlink()
    folder.rmdir()


def swap(path: Path) -> None:
    sparse(path).chmod(0o600)
    command("mkswap", path)


def journal(path: Path) -> None:
    command("mke2fs", "-q", "-O", "journal_dev", "-b", "4096", sparse(path))


def luks(path: Path) -> None:
    header = struct.pack(">6sH32s32s32sII", b"LUKS\xba\xbe", 1, b"aes", b"xts-plain64", b"sha256", 4096, 64)
    write_at(sparse(path), 0, header.ljust(168, b"\0") + str(uuid.uuid4()).encode())


def lvm(path: Path) -> None:
    body = struct.pack("<I8s32s", 32, b"LVM2 001", b"0123456789abcdef" * 2).ljust(492, b"\0")
    checksum = zlib.crc32(body, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    write_at(sparse(path), 512, struct.pack("<8sQI", b"LABELONE", 1, checksum) + body)


def raid(path: Path) -> None:
    superblock = bytearray(256)
    struct.pack_into("<4I16s16s32sQI", superblock, 0, 0xA92B4EFC, 1, 0, 0, b"u" * 16, b"u" * 16, b"host:0", 0, 1)
    struct.pack_into("<Q", superblock, 80, SIZE // 512 - 2048)
    struct.pack_into("<I", superblock, 92, 2)
    struct.pack_into("<3Q", superblock, 128, 2048, SIZE // 512 - 2048, 8)
    halves = struct.unpack("<64I", superblock)
    total = sum(halves)
    struct.pack_into("<I", superblock, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    write_at(sparse(path), 4096, bytes(superblock))


def dos_table(path: Path) -> None:
    entry = struct.pack("<B3sB3sII", 0, b"\x20\x21\x00", 0x83, b"\xfe\xff\xff", 2048, SIZE // 512 - 2048)
    write_at(sparse(path), 440, struct.pack("<IH", 0x12345678, 0) + entry.ljust(64, b"\0") + b"\x55\xaa")


def gpt(path: Path) -> None:
    last = SIZE // 512 - 1
    entries = (uuid.uuid4().bytes_le * 2 + struct.pack("<3Q", 2048, last - 34, 0)).ljust(128 * 128, b"\0")
    header = bytearray(
        struct.pack("<8s4I4Q", b"EFI PART", 0x10000, 92, 0, 0, 1, last, 34, last - 33)
        + uuid.uuid4().bytes_le
        + struct.pack("<Q3I", 2, 128, 128, zlib.crc32(entries))
    )
    struct.pack_into("<I", header, 16, zlib.crc32(header))
    protective = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, last).ljust(64, b"\0") + b"\x55\xaa"
    write_at(sparse(path), 446, protective)
    write_at(path, 512, bytes(header))
    write_at(path, 1024, entries)


def iso9660(path: Path) -> None:
    write_at(sparse(path), 32768, b"\x01CD001\x01".ljust(2048, b"\0") + b"\xffCD001\x01")


def qcow2(path: Path) -> None:
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, SIZE, 0, 1, 0x30000, 0x10000, 1, 0, 0)
    write_at(sparse(path, 0x40000), 0, header)


def vmdk(path: Path) -> None:
    write_at(sparse(path, 65536), 0, struct.pack("<4sIIQQ", b"KDMV", 1, 3, SIZE // 512, 128))


def vdi(path: Path) -> None:
    write_at(sparse(path, MIB), 0, b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe")


def zip_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("file", "data")


def tar_archive(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add("/etc/hostname")


def gzip_data(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b\x08\0" + os.urandom(1000))


def text(path: Path) -> None:
    path.write_text("not an image\n")


def one_byte_at_the_end(path: Path) -> None:
    sparse(path, 10 << 30)
    write_at(path, (10 << 30) - 1, b"\x01")


def one_byte_in_the_middle(path: Path) -> None:
    write_at(sparse(path), SIZE // 2 + 5, b"\x01")


def one_byte_among_written_zeros(path: Path) -> None:
    path.write_bytes(bytes(SIZE))
    write_at(path, SIZE // 2 + 5, b"\x01")


def ext4_at_an_offset(path: Path) -> None:
    command("mkfs.ext4", "-q", "-E", f"offset={8 * MIB}", sparse(path), "50M")


def ext4_without_superblock(path: Path) -> None:
    command("mkfs.ext4", "-q", "-b", "4096", sparse(path, 200 * MIB))
    write_at(path, 0, bytes(4096))


def small_ext4_without_superblock(path: Path) -> None:
    command("mkfs.ext4", "-q", "-b", "1024", sparse(path))
    write_at(path, 1024, bytes(1024))


def ext4_and_btrfs(path: Path) -> None:
    command("mkfs.btrfs", "-q", sparse(path, 256 * MIB))
    saved = path.read_bytes()[65536 : 65536 + 4096]
    command("mkfs.ext4", "-F", "-q", "-b", "4096", "-E", "nodiscard", path)
    write_at(path, 65536, saved)


def ext4_and_partitions(path: Path) -> None:
    command("mkfs.ext4", "-q", sparse(path))
    entry = struct.pack("<B3sB3sII", 0, b"\x20\x21\x00", 0x83, b"\xfe\xff\xff", 2048, SIZE // 512 - 2048)
    write_at(path, 440, struct.pack("<IH", 0x12345678, 0) + entry.ljust(64, b"\0") + b"\x55\xaa")


Zoo = dict[Callable[[Path], None], str]
ZOO: Zoo = {
    btrfs: "a btrfs file system",
    minix: "a minix file system",
    bfs: "a bfs file system",
    cramfs: "a cramfs file system",
    iso9660: "an iso9660 file system",
    swap: "swap space",
    journal: "an external ext4 journal",
    luks: "a LUKS container",
    lvm: "an LVM2 member",
    raid: "a Linux RAID member",
    dos_table: "a dos partition table",
    gpt: "a gpt partition table",
    qcow2: "a qcow2 image",
    vmdk: "a VMDK image",
    vdi: "a VirtualBox disk image",
    zip_archive: "a zip archive",
    tar_archive: "a tar archive",
    gzip_data: "gzip data",
    text: "13 bytes with data of unknown kind, the first at byte 0",
    one_byte_at_the_end: "10737418240 bytes with data of unknown kind, the first at byte 10737418239",
    one_byte_in_the_middle: f"{SIZE} bytes with data of unknown kind, the first at byte {SIZE // 2 + 5}",
    one_byte_among_written_zeros: f"{SIZE} bytes with data of unknown kind, the first at byte {SIZE // 2 + 5}",
    ext4_at_an_offset: f"{SIZE} bytes with data of unknown kind, the first at byte {8 * MIB + 1024}",
    ext4_without_superblock: "an ext4 file system with a damaged superblock (there is a backup in block 32768)",
    small_ext4_without_superblock: "an ext4 file system with a damaged superblock (there is a backup in block 8193)",
    ext4_and_btrfs: "signs of more than one kind of data and a btrfs file system and an ext4 file system",
    ext4_and_partitions: "a dos partition table and an ext4 file system",
}


@pytest.mark.parametrize(("build", "words"), ZOO.items(), ids=list(ZOO.values()))
def test_foreign_data_is_named_refused_and_untouched(tmp_path: Path, build: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "disk.img"
    build(path)
    before = fingerprint(path) if path.stat().st_size <= 512 * MIB else path.stat().st_mtime_ns
    found = probe(str(path))
    if build is ext4_and_btrfs and found.description != words:
        # blkid of util-linux 2.41 believes neither.
        words = "an ext4 file system with a damaged superblock"
    assert (found.kind, found.description) == (Kind.FOREIGN, words)
    refused = f"{path}: expected nothing or a blank file, found {words}; it is left alone"
    for filesystem in ("ext4", "xfs"):
        with pytest.raises(ImageError) as caught:
            create(str(path), SIZE, filesystem)
        assert caught.value.message == refused
    for use in (lambda: verify(found), lambda: check(str(path))):
        with pytest.raises(ImageError, match=re.escape(f"{path}: expected an ext4 or xfs file system, found {words}")):
            use()
    assert before == (fingerprint(path) if path.stat().st_size <= 512 * MIB else path.stat().st_mtime_ns)
    assert os.listdir(tmp_path) == ["disk.img"]


def test_remedy_for_a_lost_superblock_works(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    ext4_without_superblock(path)
    remedy = probe(str(path)).remedy
    assert remedy
    words = remedy.partition(": ")[2].replace("COPY", str(path)).split()
    with contextlib.suppress(AssertionError):  # 1: corrected
        command(words[0], "-y", *words[1:])
    assert probe(str(path)).kind is Kind.EXT4
    command("e2fsck", "-f", "-n", path)


def special(path: Path, kind: str) -> None:
    if kind == "a directory":
        path.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "a block device":
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 250))
    elif kind == "a character device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    else:
        path.symlink_to(kind.removeprefix("a symbolic link to "))


@pytest.mark.root
@pytest.mark.parametrize(
    "kind",
    [
        "a directory",
        "a FIFO",
        "a socket",
        "a block device",
        "a character device",
        "a symbolic link to /etc/passwd",
        "a symbolic link to disk.img",
        "a symbolic link to nowhere",
    ],
)
def test_special_files_are_never_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "disk.img"
    special(path, kind)
    before = fingerprint(path)
    found = probe(str(path))
    assert (found.kind, found.description) == (Kind.FOREIGN, kind)
    with pytest.raises(ImageError, match=re.escape(f"found {kind}; it is left alone")):
        create(str(path), SIZE)
    assert fingerprint(path) == before
    assert os.listdir(tmp_path) == ["disk.img"]


@pytest.mark.root
def test_file_without_permissions(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_text("data")
    path.chmod(0)
    tmp_path.chmod(0o777)
    command("chmod", "a+x", *list(tmp_path.parents)[:-2])
    before = path.stat()
    code = (
        "import os, sys\nsys.path.insert(0, '.')\nfrom rpinfs.image import errors, make\n"
        "os.setresuid(65534, 65534, 65534)\n"
        f"try: make.create({str(path)!r}, {SIZE})\nexcept errors.ImageError as error: print(error.message)"
    )
    with python(code) as process:
        assert process.communicate()[0] == f"{path}: cannot be read: Permission denied\n"
    assert path.stat() == before


# --- What is ours or the user's ----------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    found = probe(str(tmp_path / "disk.img"))
    assert (found.kind, found.description, found.size) == (Kind.MISSING, "nothing", 0)
    with pytest.raises(ImageError, match="expected an ext4 or xfs file system, found nothing"):
        verify(found)


def preallocated(path: Path) -> None:
    command("fallocate", "-l", str(SIZE), path)


def partly_written(path: Path) -> None:
    write_at(sparse(path), SIZE // 2, bytes(3 * MIB))


@pytest.mark.parametrize("build", [sparse, written_zeros, preallocated, partly_written])
def test_blank(tmp_path: Path, build: Callable[[Path], object]) -> None:
    path = tmp_path / "disk.img"
    build(path)
    found = probe(str(path))
    assert (found.kind, found.description, found.size) == (Kind.BLANK, "a blank file", SIZE)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.touch()
    assert (probe(str(path)).kind, probe(str(path)).description) == (Kind.BLANK, "an empty file")


@pytest.mark.parametrize("lie", ["SEEK_DATA unknown", "SEEK_DATA says hole"])
def test_blank_is_not_taken_on_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    """A server that knows no holes, and one that says hole where there is data: the bytes decide."""

    def seek(_: int, __: int, ___: int) -> int:
        raise OSError(errno.ENXIO if lie == "SEEK_DATA says hole" else errno.EINVAL, os.strerror(errno.EINVAL))

    blank, full = sparse(tmp_path / "blank"), tmp_path / "full"
    one_byte_among_written_zeros(full)
    monkeypatch.setattr(os, "lseek", seek)
    assert probe(str(blank)).kind is Kind.BLANK
    assert probe(str(full)).kind is Kind.FOREIGN


@pytest.mark.parametrize("where", [0, MIB - 1, SIZE - MIB, SIZE - 1], ids=["first", "head", "tail", "last"])
@pytest.mark.parametrize("size", [SIZE, SIZE + 1234])
def test_both_ends_are_read_whatever_the_map_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: int, size: int
) -> None:
    """A server that calls all of a nearly empty file a hole: the ends are read all the same."""

    def hole(_: int, __: int, ___: int) -> int:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    path = sparse(tmp_path / "disk.img", size)
    position = where + size - SIZE if where >= SIZE - MIB else where
    write_at(path, position, b"\x01")
    monkeypatch.setattr(os, "lseek", hole)
    found = probe(str(path))
    assert (found.kind, found.description.rpartition(" ")[2]) == (Kind.FOREIGN, str(position))


def test_progress_of_a_long_proof(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    written_zeros(path)
    told: list[str] = []
    probe(str(path), told.append)
    assert len(told) > 5
    assert all(re.fullmatch(r"proving that the file is blank: \d+ %", line) for line in told)


@pytest.mark.parametrize("version", ["ext2", "ext3", "ext4"])
def test_ext_superblock_as_dumpe2fs_reads_it(tmp_path: Path, version: str) -> None:
    path = sparse(tmp_path / "disk.img")
    command(f"mkfs.{version}", "-q", "-L", "a label", path)
    fields = dict(
        line.split(":", 1) for line in command("dumpe2fs", "-h", path).splitlines() if re.match(r"[A-Z][^:]*:", line)
    )
    found = probe(str(path))
    article = "an"
    assert (found.kind, found.description) == (Kind.EXT4, f"{article} {version} file system")
    assert found.uuid == fields["Filesystem UUID"].strip()
    assert found.label == "a label"
    assert found.block_size == int(fields["Block size"])
    assert found.fs_size == int(fields["Block count"]) * found.block_size == SIZE
    assert (found.clean, found.needs_recovery, found.errors_recorded, found.obstacles) == (True, False, 0, ())
    verify(found)


@pytest.mark.root
@pytest.mark.parametrize(
    ("make", "options"), [("ext2", ()), ("ext3", ()), ("ext4", ()), ("ext4", ("-b", "4096")), ("xfs", ())]
)
def test_file_systems_made_by_hand_mount(tmp_path: Path, mounted: Mount, make: str, options: tuple[str, ...]) -> None:
    """Also those that would not mount from a device with 4096-byte blocks."""
    path = sparse(tmp_path / "disk.img", XFS_SIZE)
    command(f"mkfs.{make}", "-q", *options, path)
    found = probe(str(path))
    verify(found)
    driver = "xfs" if make == "xfs" else "ext4"
    with (
        loop.attach(str(path), block_size=found.sector_size) as device,
        mounted("-t", driver, device.path) as folder,
    ):
        (folder / "file").write_text("data")
        assert device.direct_io


def test_large_file_system_size(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img", 15 << 40)
    command("mkfs.ext4", "-q", "-m0", "-E", "assume_storage_prezeroed=1,nodiscard,packed_meta_blocks=1", path)
    assert probe(str(path)).fs_size == 15 << 40


def test_features_of_the_future_are_refused(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img")
    command("mkfs.ext4", "-q", "-O", "^metadata_csum", path)
    for offset, bit, words in ((0x60, 1 << 31, "incompat 0x80000000"), (0x64, 1 << 30, "ro_compat 0x40000000")):
        saved = path.read_bytes()[1024 + offset : 1028 + offset]
        write_at(path, 1024 + offset, struct.pack("<I", struct.unpack("<I", saved)[0] | bit))
        with pytest.raises(ImageError, match=f"this kernel cannot mount it: feature {words}"):
            verify(probe(str(path)))
        write_at(path, 1024 + offset, saved)
    verify(probe(str(path)))


def test_external_journal_is_refused(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img")
    command("mkfs.ext4", "-q", "-O", "^metadata_csum", path)
    write_at(path, 1024 + 0xE0, bytes(4))
    with pytest.raises(ImageError, match="its journal is on another device"):
        verify(probe(str(path)))


def test_blocks_larger_than_a_page(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img")
    command("mkfs.ext4", "-F", "-q", "-b", "65536", path)
    with pytest.raises(ImageError, match="blocks of 65536 bytes, larger than a page of 4096"):
        verify(probe(str(path)))


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_image_that_was_cut_short(tmp_path: Path, filesystem: str) -> None:
    path = tmp_path / "disk.img"
    create(str(path), XFS_SIZE, filesystem)
    os.truncate(path, XFS_SIZE - 4096)
    before = fingerprint(path)
    found = probe(str(path))
    words = f"{path}: the file has {XFS_SIZE - 4096} bytes, its file system {XFS_SIZE}: cut short"
    for use in (lambda: verify(found), lambda: check(str(path))):
        with pytest.raises(ImageError, match=re.escape(words)):
            use()
    with pytest.raises(ImageError, match="left alone"):
        create(str(path), XFS_SIZE)
    assert fingerprint(path) == before


def test_file_longer_than_its_file_system_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(str(path), SIZE)
    os.truncate(path, 2 * SIZE)
    verify(probe(str(path)))


def test_probe_travels_as_json(tmp_path: Path) -> None:
    create(str(tmp_path / "disk.img"), SIZE)
    fields = dataclasses.asdict(probe(str(tmp_path / "disk.img")))
    assert json.loads(json.dumps({**fields, "kind": fields["kind"].value}))["kind"] == "ext4"


def test_what_cannot_be_read_does_not_count_as_nothing(tmp_path: Path) -> None:
    """blkid says the same of both."""
    path = tmp_path / "x"
    path.write_bytes(b"x" * 4096)
    with path.open("ab") as unreadable, pytest.raises(OSError, match="Bad file descriptor"):
        signature.signatures(unreadable.fileno())
