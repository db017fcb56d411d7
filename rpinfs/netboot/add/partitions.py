"""What is in an image: its table of partitions, and which of them are the root and the boot files.

By what is in them and not by their types: those of a root differ between MBR, GPT and their makers.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rpinfs.boot.settings import human_size
from rpinfs.errors import RpinfsError
from rpinfs.image.superblock import parse_ext4
from rpinfs.netboot.add.unpack import ImageError, ImageFile
from rpinfs.system.loop import attach_part
from rpinfs.system.run import CommandError, run

_SECTOR, _LARGE_SECTOR = 512, 4096
_HEAD = 4096


@dataclass(frozen=True)
class Partition:
    """A part of an image, in bytes. `found`: what is in it, in words: "ext4", "FAT", else nothing that is wanted."""

    number: int
    offset: int
    size: int
    found: str = ""

    def __str__(self) -> str:
        return f"{self.number}: {self.found or 'something else'}, {human_size(self.size)}"


@dataclass(frozen=True)
class Layout:
    """The two partitions that are wanted."""

    boot: Partition
    root: Partition


def layout_of(image: ImageFile) -> Layout:
    """Read the table of an image. Raises ImageError."""
    try:
        text = run(["sfdisk", "--json", f"/proc/self/fd/{image.fd}"], pass_fds=[image.fd]).stdout
    except CommandError as error:
        if error.returncode is None:
            raise
        raise ImageError(
            f"{image.path}: expected an image of a disk with a partition table, found none",
            "is it one partition alone? then name the folder that it is mounted at, and --boot DIR",
        ) from error
    table = parse_table(text)
    try:
        return choose([_looked_at(image, one) for one in table], image)
    except ImageError:
        _refuse_large_sectors(image, table)
        raise


def _refuse_large_sectors(image: ImageFile, table: list[Partition]) -> None:
    """An image of a disk with sectors of 4096 bytes (UFS, some NVMe): its table is read as if they had 512."""
    times = _LARGE_SECTOR // _SECTOR
    parts = [replace(one, offset=one.offset * times, size=one.size * times) for one in table]
    in_mbr = any(what_is(os.pread(image.fd, _HEAD, one.offset), one, image.path) for one in parts)
    if os.pread(image.fd, 8, _LARGE_SECTOR) == b"EFI PART" or in_mbr:
        raise ImageError(
            f"{image.path}: expected a table for sectors of {_SECTOR} bytes, found one for {_LARGE_SECTOR}",
            "attach it (losetup --sector-size 4096 -P), mount its partitions, and name both folders: DIR --boot DIR",
        )


def parse_table(text: str) -> list[Partition]:
    """What `sfdisk --json` says. Raises ValueError where it says something else."""
    table = json.loads(text)["partitiontable"]
    sector = table.get("sectorsize", _SECTOR)
    return [
        Partition(number, one["start"] * sector, one["size"] * sector)
        for number, one in enumerate(table.get("partitions", []), 1)
    ]


def _looked_at(image: ImageFile, one: Partition) -> Partition:
    if one.offset + one.size > image.size:
        # GPT keeps its second table at the end, and the last partition of a cut file ends behind it.
        raise ImageError(
            f"{image.path}: expected at least {one.offset + one.size} bytes (partition {one.number}),"
            f" found {image.size}: it is cut off",
            "fetch the image again",
        )
    return Partition(one.number, one.offset, one.size, what_is(os.pread(image.fd, _HEAD, one.offset), one, image.path))


def what_is(head: bytes, one: Partition, path: str) -> str:
    """What a partition begins with, in words. Raises ImageError where its file system does not fit into it."""
    found = parse_ext4(head[1024:2048].ljust(1024, b"\0"))
    if found is not None:
        if found.size > one.size:
            raise ImageError(
                f"{path}: the file system of partition {one.number} has {found.size} bytes, expected at most"
                f" {one.size}",
                "fetch the image again",
            )
        if found.needs_recovery:
            raise ImageError(
                f"{path}: the file system of partition {one.number} was not unmounted: its journal is not replayed",
                "shut the Pi down before its card is copied",
            )
        return found.type
    if head[510:512] == b"\x55\xaa" and (head[54:57] == b"FAT" or head[82:87] == b"FAT32"):
        return "FAT"
    return ""


def choose(found: list[Partition], image: ImageFile) -> Layout:
    """The first FAT and the largest ext4. Raises ImageError where there is no such."""
    there = "; ".join(str(one) for one in found) or "no partition at all"
    boot = next((one for one in found if one.found == "FAT"), None)
    roots = [one for one in found if one.found.startswith("ext")]
    if not roots:
        raise ImageError(f"{image.path}: expected a root partition (ext4), found {there}")
    if boot is None:
        raise ImageError(f"{image.path}: expected a partition with the boot files (FAT), found {there}")
    return Layout(boot, max(roots, key=lambda one: one.size))


@contextlib.contextmanager
def mounted(image: ImageFile, one: Partition, where: str) -> Iterator[str]:
    """Mount an ext4 partition read-only at a folder for as long as a with statement lasts. Raises RpinfsError."""
    os.makedirs(where, exist_ok=True)
    with attach_part(image.fd, image.path, (one.offset, one.size)) as device:
        # The driver of ext4 is that of ext2 and ext3 as well.
        # Without errors= the image says what follows on a damage in it: a panic of this kernel, if it likes.
        argv = ["mount", "-t", "ext4", "-o", "ro,nosuid,nodev,noexec,noatime,errors=remount-ro", device.path, where]
        try:
            run(argv)
        except CommandError as error:
            raise RpinfsError(
                f"{image.path}: partition {one.number} ({one.found}) cannot be mounted: {error.reason}",
                "fetch the image again; what the kernel said: dmesg",
            ) from error
    # The mount keeps the device attached, and the device goes with it.
    try:
        yield where
    finally:
        run(["umount", "--lazy", where])
