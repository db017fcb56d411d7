"""Images: what is recognised, what is refused, and what is left when making one goes wrong."""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import select
import socket
import stat
import struct
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rpinfs.image import make, publish, signature
from rpinfs.image import probe as images
from rpinfs.image.make import create
from rpinfs.image.probe import ImageError, Kind, check, probe, verify
from rpinfs.system import loop
from rpinfs.system.run import ENVIRONMENT, Completed
from tests.support import Tell
from tests.tools.conftest import Ended, Mount, Traced, command, python
from tests.tools.crash import fail_at, kill_at, some

MIB = 1 << 20
SIZE = 64 * MIB  # the smallest image
XFS_SIZE = 300 * MIB


def sparse(path: Path, size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def fingerprint(path: Path) -> object:
    """Everything that tells whether somebody has touched it, but the time of the last reading."""
    status = path.lstat()
    regular = stat.S_ISREG(status.st_mode)
    content = hashlib.sha256(path.read_bytes()).hexdigest() if regular else ""
    kept = ("st_mode", "st_ino", "st_uid", "st_gid", "st_nlink", "st_size", "st_mtime_ns", "st_ctime_ns", "st_blocks")
    return content, [getattr(status, name) for name in kept]


def assert_whole(path: Path, size: int = SIZE) -> None:
    made = probe(str(path))
    assert (made.kind, made.size, made.fs_size, made.clean) == (Kind.EXT4, size, size, True)
    command("e2fsck", "-f", "-n", path)


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


def ext4_with_wrong_checksum(path: Path) -> None:
    command("mkfs.ext4", "-q", sparse(path))
    write_at(path, 1024 + 0x78, b"other label")


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
        "import os, sys\nsys.path.insert(0, '.')\nfrom rpinfs.image import make, probe\n"
        "os.setresuid(65534, 65534, 65534)\n"
        f"try: make.create({str(path)!r}, {SIZE})\nexcept probe.ImageError as error: print(error.message)"
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


def written_zeros(path: Path) -> None:
    path.write_bytes(bytes(SIZE))


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


# --- Making ------------------------------------------------------------------------------------------------


def test_create_ext4_as_the_design_says(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    told: list[str] = []
    made = create(str(path), 10 << 30, label="docker", progress=told.append)
    shown = command("dumpe2fs", "-h", path)
    assert (made.kind, made.size, made.fs_size, made.label) == (Kind.EXT4, 10 << 30, 10 << 30, "docker")
    for line in (
        f"Filesystem features: +{make.EXT4_FEATURES.replace(',', ' ')}$",
        r"Errors behavior: +Remount read-only$",
        r"Filesystem state: +clean$",
        r"Reserved block count: +0$",
        r"Block size: +4096$",
        r"Inode size:\s+256$",
        r"Inode count: +655360$",
        r"Total journal size: +64M$",
        r"Maximum mount count: +-1$",
        r"Check interval: +0 ",
    ):
        assert re.search(f"^{line}", shown, re.MULTILINE), line
    assert made.allocated < 6 * MIB
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert told == ["formatting 10 GiB with ext4", "verifying the new file system"]
    assert os.listdir(tmp_path) == ["disk.img"]


def test_create_does_not_depend_on_mke2fs_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "mke2fs.conf"
    odd.write_text(
        "[defaults]\nbase_features = sparse_super,mmp\nblocksize = 1024\ninode_size = 512\nenable_periodic_fsck = 1\n"
        "[fs_types]\next4 = {\nfeatures = has_journal,bigalloc,quota,orphan_file\n}\n"
    )
    create(str(tmp_path / "usual"), SIZE)
    monkeypatch.setitem(ENVIRONMENT, "MKE2FS_CONFIG", str(odd))
    create(str(tmp_path / "odd"), SIZE)
    features = [
        re.findall(r"Filesystem features.*", command("dumpe2fs", "-h", tmp_path / name)) for name in ("usual", "odd")
    ]
    assert features[0] == features[1] != []
    assert probe(str(tmp_path / "odd")).block_size == 4096


@pytest.mark.root
@pytest.mark.parametrize(("filesystem", "size"), [("ext4", SIZE), ("xfs", XFS_SIZE)])
def test_created_image_mounts_over_4096_byte_blocks(tmp_path: Path, mounted: Mount, filesystem: str, size: int) -> None:
    path = tmp_path / "disk.img"
    made = create(str(path), size, filesystem)
    assert (made.sector_size, made.label) == (4096, "disk")
    with loop.attach(str(path)) as device, mounted("-t", filesystem, device.path) as folder:
        (folder / "file").write_text("data")
    assert check(str(path)).corrected is False


def test_nothing_is_zeroed_later(tmp_path: Path) -> None:
    """Inode tables are marked as zeroed, so that the kernel does not do it in the background after the mount."""
    path = tmp_path / "disk.img"
    create(str(path), 1 << 30)
    groups = re.findall(r"^Group \d+:.*\[(.*)\]", command("dumpe2fs", path), re.MULTILINE)
    assert len(groups) == 8
    assert all("ITABLE_ZEROED" in flags for flags in groups)


@pytest.mark.parametrize("size", [SIZE, 127 * MIB, 128 * MIB, 1 << 30, 2 << 30, 17 << 30, 33 << 30, 65 << 30, 1 << 40])
def test_room_asked_for_is_enough(tmp_path: Path, size: int) -> None:
    """What mkfs writes, and the journal, which is written full in time."""
    path = tmp_path / "disk.img"
    made = create(str(path), size)
    shown = command("dumpe2fs", "-h", path)
    journal_size = re.search(r"Total journal size: +(\d+)([kM])", shown)
    assert journal_size
    journal_bytes = int(journal_size[1]) << (20 if journal_size[2] == "M" else 10)
    assert made.allocated + journal_bytes <= make.room_needed(size)


def test_room_asked_for_is_enough_for_xfs(tmp_path: Path) -> None:
    for size in (XFS_SIZE, 10 << 30, 1 << 40):
        made = create(str(tmp_path / f"{size}"), size, "xfs")
        assert made.allocated <= make.room_needed(size, "xfs")


@pytest.mark.parametrize(
    ("label", "filesystem", "expected"),
    [
        (None, "ext4", "a-very-long-name"),
        (None, "xfs", "a-very-long-"),
        ("", "ext4", ""),
        ("gr\u00fcn" * 6, "ext4", "gr\u00fcngr\u00fcngr\u00fcng"),
    ],
)
def test_labels_are_cut_to_fit(tmp_path: Path, label: str | None, filesystem: str, expected: str) -> None:
    path = tmp_path / "a-very-long-name-of-an-image.img"
    assert create(str(path), XFS_SIZE, filesystem, label=label).label == expected


def test_every_image_has_a_uuid_of_its_own(tmp_path: Path) -> None:
    assert create(str(tmp_path / "a"), SIZE).uuid != create(str(tmp_path / "b"), SIZE).uuid


@pytest.mark.parametrize("name", ["-F", "a b", "%n", "x;y", "gr\u00fcn", ".hidden", "new\nline", "$(id)"])
def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    create(name, SIZE)
    check(name)
    assert_whole(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("size", "filesystem", "words"),
    [
        (SIZE - 1, "ext4", "expected a size from 64 MiB to 16.0 TiB for ext4, found 64.0 MiB"),
        (0, "ext4", "found 0 bytes"),
        (-1, "ext4", "found -1 bytes"),
        (17 << 40, "ext4", "found 17 TiB"),
        (XFS_SIZE - 1, "xfs", "expected a size from 300 MiB"),
        (SIZE, "btrfs", "btrfs: expected ext4 or xfs"),
    ],
)
def test_senseless_sizes_and_kinds(tmp_path: Path, size: int, filesystem: str, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        create(str(tmp_path / "disk.img"), size, filesystem)
    assert os.listdir(tmp_path) == []


def test_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be made: No such file or directory") as caught:
        create(str(tmp_path / "none" / "disk.img"), SIZE)
    assert caught.value.remedy == "make the folder, or mount the share that has it"


@pytest.mark.root
@pytest.mark.parametrize("build", [sparse, written_zeros])
def test_blank_file_is_replaced_with_size_owner_and_mode(tmp_path: Path, build: Callable[[Path], object]) -> None:
    path = tmp_path / "disk.img"
    build(path)
    os.chown(path, 1234, 5678)
    path.chmod(0o640)
    create(str(path), 1 << 30)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 5678, 0o640)
    assert_whole(path)
    assert os.listdir(tmp_path) == ["disk.img"]


def test_empty_file_gets_the_size_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.touch(0o644)
    create(str(path), 2 * SIZE)
    assert_whole(path, 2 * SIZE)


def test_blank_file_of_odd_size(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img", SIZE + 1234)
    made = create(str(path), 0)
    assert (made.size, made.fs_size) == (SIZE + 1234, SIZE)


def test_blank_file_that_is_too_small(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img", 1000)
    before = fingerprint(path)
    with pytest.raises(ImageError, match="found 1000 bytes"):
        create(str(path), SIZE)
    assert fingerprint(path) == before


@pytest.mark.root
def test_blank_file_in_use_is_left_alone(tmp_path: Path) -> None:
    path = sparse(tmp_path / "disk.img")
    with loop.attach(str(path)) as device, pytest.raises(ImageError, match=f"is in use: attached to {device.path}"):
        create(str(path), SIZE)
    assert probe(str(path)).kind is Kind.BLANK


@pytest.mark.parametrize("meddle", ["write", "replace", "remove", "grow"])
def test_blank_file_that_changes_meanwhile(tmp_path: Path, meddle: str) -> None:
    path = sparse(tmp_path / "disk.img")

    def progress(line: str) -> None:
        if line.startswith("verifying"):
            match meddle:
                case "write":
                    write_at(path, 5000, b"data")
                case "replace":
                    (tmp_path / "other").write_text("data")
                    (tmp_path / "other").rename(path)
                case "remove":
                    path.unlink()
                case "grow":
                    os.truncate(path, 2 * SIZE)

    with pytest.raises(ImageError, match="it changed while its file system was made; it is left alone"):
        create(str(path), SIZE, progress=progress)
    assert os.listdir(tmp_path) == ([] if meddle == "remove" else ["disk.img"])
    if meddle == "write":
        assert path.read_bytes()[5000:5004] == b"data"
    if meddle == "replace":
        assert path.read_text() == "data"


def test_name_that_is_taken_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"

    def progress(line: str) -> None:
        if line.startswith("verifying"):
            path.write_text("data")

    with pytest.raises(ImageError, match="somebody else made it in the meantime; it is left alone"):
        create(str(path), SIZE, progress=progress)
    assert (os.listdir(tmp_path), path.read_text()) == (["disk.img"], "data")


# --- Making: leftovers -------------------------------------------------------------------------------------


def test_only_our_own_leftovers_go(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    ours = [".disk.img.rpinfs-new-0123456789abcdef", ".disk.img.rpinfs-new-fedcba9876543210"]
    others = [
        ".disk.img.rpinfs-new-0123456789abcde",  # too short
        ".disk.img.rpinfs-new-0123456789abcdef0",
        ".disk.img.rpinfs-new-0123456789ABCDEF",
        ".diskximg.rpinfs-new-0123456789abcdef",
        ".other.img.rpinfs-new-0123456789abcdef",
        "disk.img.rpinfs-new-0123456789abcdef",
        ".disk.img.rpinfs-new-0123456789abcdef\n",
    ]
    for name in (*ours, *others):
        (tmp_path / name).write_text("data")
    (tmp_path / ".disk.img.rpinfs-new-0000000000000001").mkdir()
    (tmp_path / ".disk.img.rpinfs-new-0000000000000002").symlink_to(others[0])
    os.mkfifo(tmp_path / ".disk.img.rpinfs-new-0000000000000003")
    assert publish.remove_leftovers(str(path), images.silent) == [str(tmp_path / name) for name in sorted(ours)]
    create(str(path), SIZE)
    strange = [f".disk.img.rpinfs-new-000000000000000{number}" for number in (1, 2, 3)]
    assert sorted(os.listdir(tmp_path)) == sorted([*others, *strange, "disk.img"])


def test_leftover_that_somebody_works_on_stays(tmp_path: Path) -> None:
    leftover = tmp_path / ".disk.img.rpinfs-new-0123456789abcdef"
    with leftover.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert publish.remove_leftovers(str(tmp_path / "disk.img"), images.silent) == []
    assert publish.remove_leftovers(str(tmp_path / "disk.img"), images.silent) == [str(leftover)]


def test_second_name_of_the_image_goes_even_when_locked(tmp_path: Path) -> None:
    """The power went between link and unlink, and the image is in use by now."""
    path, leftover = tmp_path / "disk.img", tmp_path / ".disk.img.rpinfs-new-0123456789abcdef"
    create(str(path), SIZE)
    os.link(path, leftover)
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert publish.remove_leftovers(str(path), images.silent) == [str(leftover)]
    assert_whole(path)


def test_two_at_once_make_one_image(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    code = (
        "import sys\nfrom rpinfs.image import probe as image, make as making\nsys.stdin.read(1)\n"
        f"try: print(making.create({str(path)!r}, {SIZE}).uuid)\n"
        "except image.ImageError as error: print(error.message)"
    )
    for _ in range(5):
        rivals = [python(code, stdin=-1) for _ in range(3)]
        for rival in rivals:
            assert rival.stdin
            rival.stdin.write("g")
            rival.stdin.flush()
        said = [rival.communicate()[0].strip() for rival in rivals]
        winner = probe(str(path)).uuid
        assert said.count(str(winner)) == 1
        for line in said:
            assert line == winner or "it is left alone" in line
        assert os.listdir(tmp_path) == ["disk.img"]
        path.unlink()


# --- Making: everything that can go wrong ------------------------------------------------------------------

ATTEMPT = """
import os, sys
random = os.urandom
os.urandom = lambda count: bytes.fromhex("0123456789abcdef") if count == 8 else random(count)
from rpinfs.image import make, probe
try:
    make.create({path!r}, {size})
except probe.ImageError as error:
    print(error.message, "|", error.remedy, file=sys.stderr)
    sys.exit(3)
"""


def attempt(path: Path) -> tuple[str, list[Path]]:
    """Code that makes an image, and the paths on the share that it touches."""
    temporary = path.parent / f".{path.name}.rpinfs-new-0123456789abcdef"
    return ATTEMPT.format(path=str(path), size=SIZE), [path.parent, path, temporary]


def points_of(traced: Traced, path: Path, *, children: bool = False) -> list[str]:
    """Every system call of ours that touches the share while an image is made."""
    code, paths = attempt(path)
    ended = traced(code, paths, children=children)
    assert (ended.returncode, ended.stderr) == (0, "")
    path.unlink()
    return ended.points


def assert_next_attempt_completes(path: Path, blank: bool) -> None:
    """Whatever is left: under the name nothing (or the blank file) or a whole image; and then all is well."""
    found = probe(str(path))
    if found.kind is Kind.EXT4:
        publish.remove_leftovers(str(path), images.silent)
    else:
        assert found.kind is (Kind.BLANK if blank else Kind.MISSING)
        create(str(path), SIZE)
    assert_whole(path)
    assert [name for name in os.listdir(path.parent) if "rpinfs-new" in name] == []


@pytest.fixture(params=[False, True], ids=["no file", "blank file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Path]:
    """Makes a share as it is before an image is made, and says under which name."""

    def place() -> Path:
        share = tmp_path / "share"
        share.mkdir(exist_ok=True)
        path = share / "disk.img"
        return sparse(path) if request.param else path

    return place


def tampered(
    place: Callable[[], Path], traced: Traced, injections: list[str], *, children: bool = False
) -> Iterator[tuple[str, Ended]]:
    """An attempt with each of these injected, and how it ended; then the next attempt completes."""
    for injected in injections:
        path = place()
        blank = path.exists()
        code, paths = attempt(path)
        yield injected, traced(code, paths, inject=injected, children=children)
        assert_next_attempt_completes(path, blank)
        path.unlink()


@pytest.mark.crash
def test_killed_at_every_call(place: Callable[[], Path], traced: Traced, tell: Tell) -> None:
    path = place()
    last = "rename:when=1" if path.exists() else "linkat:when=1"
    tried = points_of(traced, path)
    assert len(tried) > 30
    assert {last, "ftruncate:when=1", "fsync:when=2"} <= set(tried)
    for injected, ended in tampered(place, traced, [kill_at(point) for point in tried]):
        assert ended.returncode == -9, injected
    tell(f"create: killed at {len(tried)} of {len(tried)} calls")


@pytest.mark.crash
def test_killed_with_its_children(place: Callable[[], Path], traced: Traced, tell: Tell) -> None:
    """mkfs and e2fsck are killed as well, each process at its own call of that number."""
    found = points_of(traced, place(), children=True)
    tried = some(found, 9)
    for injected, ended in tampered(place, traced, [kill_at(point) for point in tried], children=True):
        assert ended.returncode in (-9, 3), injected
    tell(f"create: killed with its children at {len(tried)} of {len(found)} calls")


@pytest.mark.crash
def test_every_call_fails(place: Callable[[], Path], traced: Traced, tell: Tell) -> None:
    """Either it goes on without, or it says so and leaves nothing half-made. Looking back afterwards is harmless."""
    path = place()
    tried = fail_at(points_of(traced, path))
    for injected, ended in tampered(place, traced, tried):
        assert ended.returncode in (0, 3), f"{injected}: {ended.stderr}"
        if ended.returncode == 3:
            assert str(path) in ended.stderr
            assert "Traceback" not in ended.stderr
    tell(f"create: {len(tried)} failing calls")


@pytest.mark.parametrize("when", [1, 2, 3, 10, 20])
@pytest.mark.parametrize("effect", ["error=ENOSPC", "error=EIO", "signal=KILL"])
def test_mkfs_fails_or_dies_while_it_writes(tmp_path: Path, traced: Traced, effect: str, when: int) -> None:
    share = tmp_path / "share"
    share.mkdir()
    path = share / "disk.img"
    code, paths = attempt(path)
    ended = traced(code, paths, inject=f"pwrite64:{effect}:when={when}", whole=True)
    if ended.returncode == 0:  # A lost write of zeros over a hole is no loss: the verification passed.
        assert_whole(path)
    else:
        assert (ended.returncode, os.listdir(share)) == (3, [])
        assert "mkfs.ext4" in ended.stderr or "e2fsck" in ended.stderr or "expected" in ended.stderr


def test_sync_of_mkfs_fails(tmp_path: Path, traced: Traced) -> None:
    share = tmp_path / "share"
    share.mkdir()
    path = share / "disk.img"
    code, paths = attempt(path)
    ended = traced(code, paths, inject="fsync:error=EIO", whole=True)
    assert (ended.returncode, os.listdir(share)) == (3, [])


@pytest.mark.parametrize("error", ["EPERM", "EOPNOTSUPP"])
def test_share_without_hard_links(tmp_path: Path, traced: Traced, error: str) -> None:
    path = tmp_path / "disk.img"
    code, paths = attempt(path)
    assert traced(code, paths, inject=f"link,linkat:error={error}").returncode == 0
    assert_whole(path)
    assert os.listdir(tmp_path) == ["disk.img"]


@pytest.mark.parametrize("error", ["ENOLCK", "EOPNOTSUPP"])
def test_share_without_locks(tmp_path: Path, traced: Traced, error: str) -> None:
    path = tmp_path / "disk.img"
    stays = tmp_path / ".disk.img.rpinfs-new-0000000000000001"
    stays.touch()
    code, paths = attempt(path)
    assert traced(code, [*paths, stays], inject=f"flock:error={error}").returncode == 0
    assert_whole(path)
    assert sorted(os.listdir(tmp_path)) == [stays.name, "disk.img"]


def test_share_that_keeps_owners_to_itself(tmp_path: Path, traced: Traced) -> None:
    path = sparse(tmp_path / "disk.img")
    if os.geteuid() == 0:
        os.chown(path, 1234, 1234)
    code, paths = attempt(path)
    assert traced(code, paths, inject="fchown:error=EPERM").returncode == 0
    assert_whole(path)


def test_link_that_was_answered_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS sends a request again when the answer was lost, and is told that the name exists: by its own doing."""
    real = os.link

    def link_twice(source: str, target: str, *, follow_symlinks: bool) -> None:
        real(source, target, follow_symlinks=follow_symlinks)
        real(source, target, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "link", link_twice)
    create(str(tmp_path / "disk.img"), SIZE)
    assert_whole(tmp_path / "disk.img")


@pytest.mark.root
def test_no_room_is_refused_before_the_first_byte(mounted: Mount) -> None:
    with mounted("-t", "tmpfs", "-o", "size=8M", "none") as share:
        with pytest.raises(
            ImageError, match=r"expected 12.0 MiB of free space for a new file system, found 8 MiB"
        ) as caught:
            create(str(share / "disk.img"), SIZE)
        assert caught.value.remedy == "free some space on the share, or choose another one"
        assert os.listdir(share) == []


@pytest.mark.root
@pytest.mark.parametrize(("filesystem", "size"), [("ext4", SIZE), ("xfs", XFS_SIZE)])
def test_share_that_fills_up_meanwhile(mounted: Mount, filesystem: str, size: int) -> None:
    with mounted("-t", "tmpfs", "-o", "size=100M", "none") as share:

        def fill(line: str) -> None:
            if line.startswith("formatting"):
                with contextlib.suppress(OSError), (share / "other").open("wb", buffering=0) as other:
                    while True:
                        other.write(bytes(4096))

        with pytest.raises(ImageError, match="No space left on device"):
            create(str(share / "disk.img"), size, filesystem, progress=fill)
        assert os.listdir(share) == ["other"]


@pytest.mark.root
def test_largest_file_of_the_share(tmp_path: Path, mounted: Mount) -> None:
    """ext3 without large_file ends at 2 GiB."""
    disk = sparse(tmp_path / "disk", 1 << 30)
    command("mkfs.ext2", "-q", "-b", "1024", disk)
    with mounted("-o", "loop", disk) as share:
        with pytest.raises(ImageError, match="File too large") as caught:
            create(str(share / "disk.img"), 17 << 30)
        assert caught.value.remedy == "choose a size that the file system of the share can hold in one file"
        assert [name for name in os.listdir(share) if name != "lost+found"] == []


@pytest.mark.root
def test_read_only_share(tmp_path: Path, mounted: Mount) -> None:
    disk = sparse(tmp_path / "disk", 128 * MIB)
    command("mkfs.ext4", "-q", disk)
    with mounted("-o", "loop,ro", disk) as share, pytest.raises(ImageError, match="Read-only file system") as caught:
        create(str(share / "disk.img"), SIZE)
    assert caught.value.remedy == "export and mount the share read-write"


# --- Checking ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", range(256))
def test_exit_statuses_of_e2fsck(code: int) -> None:
    done = Completed(code, "", "why\n")
    if code in (0, 1, 2, 3):
        images.judge_e2fsck("disk.img", done)
        return
    with pytest.raises(ImageError) as caught:
        images.judge_e2fsck("disk.img", done)
    words = {
        4: ("only a person can decide", "e2fsck -f disk.img"),
        8: ("could not do its work", "e2fsck -f disk.img"),
        16: ("called wrongly", ""),
        32: ("was cancelled", ""),
        128: ("lacks a shared library", "apt install --reinstall e2fsprogs"),
    }
    if code in words:
        assert words[code][0] in caught.value.message
        assert words[code][1] in (caught.value.remedy or "")


def test_multi_mount_protection_is_named() -> None:
    with pytest.raises(ImageError, match="another host uses it: e2fsck: MMP: device currently active"):
        images.judge_e2fsck("disk.img", Completed(8, "", "e2fsck: MMP: device currently active\n"))


def test_clean(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(str(path), SIZE)
    before = path.read_bytes()
    result = check(str(path))
    assert (result.corrected, result.needs_recovery) == (False, False)
    assert path.read_bytes() == before


@pytest.mark.root
def test_journal_is_replayed(tmp_path: Path, mounted: Mount) -> None:
    """A power cut: a copy of the file taken while it is mounted, after an fsync."""
    path, cut = tmp_path / "disk.img", tmp_path / "cut.img"
    create(str(path), SIZE)
    with loop.attach(str(path)) as device, mounted(device.path) as folder:
        with (folder / "file").open("w") as file:
            file.write("data")
            file.flush()
            os.fsync(file.fileno())
        command("cp", "--sparse=always", path, cut)
    found = probe(str(cut))
    assert (found.needs_recovery, found.clean) == (True, False)
    assert check(str(cut)).corrected is True
    found = probe(str(cut))
    assert (found.needs_recovery, found.clean) == (False, True)
    assert command("debugfs", "-R", "cat /file", cut) == "data"


def test_small_damage_is_repaired_with_progress(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(str(path), SIZE)
    command("debugfs", "-w", "-R", "ssv free_inodes_count 7", path)
    command("debugfs", "-w", "-R", "ssv state 2", path)  # errors: a full check is due
    found = probe(str(path))
    assert found.clean is False
    told: list[str] = []
    assert check(str(path), told.append).corrected is True
    assert told[-1] == "checking the file system: 100 %"
    assert told == sorted(told, key=lambda line: int(line.split()[-2]))
    command("e2fsck", "-f", "-n", path)


def test_damage_for_a_person_is_refused_with_the_command(tmp_path: Path) -> None:
    path, source = tmp_path / "disk.img", tmp_path / "file"
    create(str(path), SIZE)
    source.write_bytes(b"x" * 8192)
    for name in ("one", "two"):
        command("debugfs", "-w", "-R", f"write {source} {name}", path)
    # Two files on one block: e2fsck -p does not decide who keeps it.
    block = command("debugfs", "-R", "bmap one 0", path).strip()
    command("debugfs", "-w", "-R", f"sif two block[5] {block}", path)
    command("debugfs", "-w", "-R", "ssv state 2", path)
    with pytest.raises(ImageError, match="errors that only a person can decide about") as caught:
        check(str(path))
    assert caught.value.remedy == f"make a copy if you can, then: e2fsck -f {path}"


def test_damaged_superblock_is_refused_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    ext4_with_wrong_checksum(path)
    before = fingerprint(path)
    with pytest.raises(
        ImageError, match=r"could not do its work \(exit status 8\): .*checksum does not match"
    ) as caught:
        check(str(path))
    assert caught.value.remedy == f"e2fsck -f {path}"
    assert fingerprint(path) == before


@pytest.mark.root
@pytest.mark.parametrize("use", [check, lambda path: create(path, SIZE)], ids=["check", "create"])
def test_attached_image_is_not_checked(tmp_path: Path, use: Callable[[str], object]) -> None:
    path = tmp_path / "disk.img"
    create(str(path), SIZE)
    with loop.attach(str(path)) as device:
        with pytest.raises(ImageError) as caught:
            use(str(path))
        if use is check:
            assert caught.value.message == f"{path}: is in use: attached to {device.path}"


def test_check_dies_with_us(tmp_path: Path) -> None:
    """A repair that outlived its agent would write into the file below the next agent's mount."""
    path, fifo = tmp_path / "disk.img", tmp_path / "fifo"
    create(str(path), SIZE)
    os.mkfifo(fifo)
    fake = tmp_path / "bin" / "e2fsck"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho $$ >{fifo}\nexec sleep 1000\n")
    fake.chmod(0o755)
    code = (
        "from rpinfs.image import probe as image; from rpinfs.system import run\n"
        f"run.ENVIRONMENT['PATH'] = '{fake.parent}:' + run.PATH\nimage.check({str(path)!r})"
    )
    with python(code) as process:
        pid = int(fifo.read_text())
        watched = os.pidfd_open(pid)
        process.kill()
        process.communicate()
    assert select.select([watched], [], [], 30)[0]
    os.close(watched)


@pytest.mark.root
def test_xfs_log_is_left_to_the_mount(tmp_path: Path, mounted: Mount) -> None:
    path = tmp_path / "disk.img"
    create(str(path), XFS_SIZE, "xfs")
    with loop.attach(str(path)) as device, mounted(device.path) as folder:
        for number in range(100):
            (folder / f"file{number}").write_text("data")
        command("sync", folder / "file99")
        command("xfs_io", "-x", "-c", "shutdown -f", folder)
    before = fingerprint(path)
    result = check(str(path))
    assert (result.corrected, result.needs_recovery) == (False, True)
    assert fingerprint(path) == before
    with loop.attach(str(path)) as device, mounted(device.path) as folder:
        assert (folder / "file99").read_text() == "data"
    assert check(str(path)).needs_recovery is False


def test_xfs_damage_is_refused_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(str(path), XFS_SIZE, "xfs")
    write_at(path, 4096, b"damage" * 100)
    with pytest.raises(ImageError, match="errors that only a person can decide about") as caught:
        check(str(path))
    assert caught.value.remedy == f"make a copy if you can, then: xfs_repair -f {path}"


def test_what_cannot_be_read_does_not_count_as_nothing(tmp_path: Path) -> None:
    """blkid says the same of both."""
    path = tmp_path / "x"
    path.write_bytes(b"x" * 4096)
    with path.open("ab") as unreadable, pytest.raises(OSError, match="Bad file descriptor"):
        signature.signatures(unreadable.fileno())
