"""What is in an image: by what its partitions begin with, as sfdisk says where they are."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.netboot.add.partitions import Layout, Partition, choose, layout_of, parse_table, what_is
from rpinfs.netboot.add.unpack import ImageError, ImageFile

MIB = 1 << 20
IMAGE = ImageFile("/i.img", -1, 100 * MIB, "")
PART = Partition(2, MIB, 48 * MIB)
FAT32 = b"\xeb" + b"\0" * 81 + b"FAT32   " + b"\0" * 420 + b"\x55\xaa"
FAT16 = b"\xeb" + b"\0" * 53 + b"FAT16   " + b"\0" * 448 + b"\x55\xaa"


def ext4_head(folder: Path, size: int = 16 * MIB, needs_recovery: bool = False) -> bytes:
    """The first 4 KiB of a real ext4."""
    path = folder / "ext4"
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    head = bytearray(path.read_bytes()[:4096])
    if needs_recovery:  # s_feature_incompat: INCOMPAT_RECOVER. Checksum of the superblock is not asked for here.
        struct.pack_into("<I", head, 1024 + 96, struct.unpack_from("<I", head, 1024 + 96)[0] | 4)
    return bytes(head)


def test_what_begins_with_what(tmp_path: Path) -> None:
    assert what_is(ext4_head(tmp_path), PART, "/i") == "ext4"
    assert [what_is(head, PART, "/i") for head in (FAT32, FAT16)] == ["FAT", "FAT"]
    for nothing in (
        b"", b"\0" * 4096, FAT32[:-2] + b"\x55\xab", FAT32[:-2], FAT32.replace(b"FAT32", b"EXFAT"),
        FAT16.replace(b"FAT16", b"NTFS "),
    ):  # fmt: skip
        assert what_is(nothing, PART, "/i") == ""


def test_a_file_system_that_does_not_fit(tmp_path: Path) -> None:
    head = ext4_head(tmp_path)
    assert what_is(head, Partition(2, 0, 16 * MIB), "/i") == "ext4"
    with pytest.raises(ImageError, match=f"/i: the file system of partition 2 has {16 * MIB} bytes, expected at most"):
        what_is(head, Partition(2, 0, 16 * MIB - 1), "/i")
    with pytest.raises(ImageError, match="partition 2 was not unmounted") as caught:
        what_is(ext4_head(tmp_path, needs_recovery=True), PART, "/i")
    assert caught.value.remedy == "shut the Pi down before its card is copied"


BOOT, SMALL, LARGE, NOTHING = (
    Partition(1, 0, MIB, "FAT"), Partition(2, 0, MIB, "ext4"), Partition(3, 0, 2 * MIB, "ext2"), Partition(4, 0, MIB),
)  # fmt: skip


@pytest.mark.parametrize("found", [[BOOT, SMALL, LARGE], [NOTHING, LARGE, SMALL, BOOT, Partition(5, 0, MIB, "FAT")]])
def test_the_first_fat_and_the_largest_root(found: list[Partition]) -> None:
    assert choose(found, IMAGE) == Layout(BOOT, LARGE)


@pytest.mark.parametrize(("found", "said"), [
    ([], "expected a root partition (ext4), found no partition at all"),
    ([BOOT, NOTHING], "expected a root partition (ext4), found 1: FAT, 1 MiB; 4: something else, 1 MiB"),
    ([SMALL], "expected a partition with the boot files (FAT), found 2: ext4, 1 MiB"),
])  # fmt: skip
def test_what_is_missing(found: list[Partition], said: str) -> None:
    with pytest.raises(ImageError, match=re.escape(f"/i.img: {said}")):
        choose(found, IMAGE)


@pytest.mark.parametrize(("table", "parts"), [
    ({}, []),
    ({"partitions": [{"start": 1, "size": 2}, {"start": 10, "size": 20}]},
     [Partition(1, 512, 1024), Partition(2, 5120, 10240)]),
    ({"sectorsize": 4096, "partitions": [{"start": 1, "size": 2}]}, [Partition(1, 4096, 8192)]),
])  # fmt: skip
def test_tables(table: dict[str, object], parts: list[Partition]) -> None:
    assert parse_table(json.dumps({"partitiontable": table})) == parts


@pytest.fixture
def image(tmp_path: Path) -> Iterator[ImageFile]:
    """40 MiB with a table: 8 MiB at 1 MiB, 16 MiB at 9 MiB; what is in them, each test writes."""
    path = tmp_path / "i.img"
    with path.open("wb") as file:
        file.truncate(40 * MIB)
    text = "label: dos\nstart=2048, size=16384, type=c\nstart=18432, size=32768, type=83\n"
    subprocess.run(["sfdisk", "--quiet", path], input=text, text=True, check=True)
    fd = os.open(path, os.O_RDWR)
    yield ImageFile(str(path), fd, 40 * MIB, "")
    os.close(fd)


def test_an_image(image: ImageFile, tmp_path: Path) -> None:
    os.pwrite(image.fd, FAT32, MIB)
    os.pwrite(image.fd, ext4_head(tmp_path), 9 * MIB)
    layout = Layout(Partition(1, MIB, 8 * MIB, "FAT"), Partition(2, 9 * MIB, 16 * MIB, "ext4"))
    assert layout_of(image) == layout
    assert layout_of(ImageFile(image.path, image.fd, 25 * MIB, "")) == layout
    with pytest.raises(ImageError, match=rf"expected at least {25 * MIB} bytes \(partition 2\), found {25 * MIB - 1}"):
        layout_of(ImageFile(image.path, image.fd, 25 * MIB - 1, ""))


def test_no_table(image: ImageFile) -> None:
    os.pwrite(image.fd, b"\0" * 512, 0)
    with pytest.raises(ImageError, match="expected an image of a disk with a partition table, found none") as caught:
        layout_of(image)
    assert "name the folder that it is mounted at, and --boot DIR" in str(caught.value.remedy)


@pytest.mark.parametrize("how", ["gpt", "mbr", ""])
def test_sectors_of_4096_bytes(how: str, image: ImageFile) -> None:
    """A table that counts in 4096 bytes says nothing of what lies where it is taken to count in 512."""
    if how == "gpt":
        os.pwrite(image.fd, b"EFI PART", 4096)
    if how == "mbr":
        os.pwrite(image.fd, FAT32, 8 * MIB)
    with pytest.raises(ImageError) as caught:
        layout_of(image)
    large = "expected a table for sectors of 512 bytes, found one for 4096"
    assert (large in caught.value.message) is bool(how)
    assert how or "expected a root partition (ext4), found 1: something else, 8 MiB" in caught.value.message
