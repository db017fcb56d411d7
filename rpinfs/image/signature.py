"""Names for what is not ours: what blkid(8) knows, what it does not, and what is no file at all."""

import os
import stat
from collections.abc import Callable

from rpinfs.boot.settings import MIB
from rpinfs.system.run import run

_BLKID_NOTHING, _BLKID_AMBIVALENT = 2, 8


def signatures(fd: int) -> set[str]:
    """The kinds of data that libblkid knows in an open file: file systems, volumes, partition tables.

    Raises:
        CommandError: blkid(8) is missing.
        OSError: the file cannot be read.
    """
    name = f"/proc/self/fd/{fd}"
    found = run(["blkid", "-p", "-o", "export", name], ok=(0, _BLKID_NOTHING, _BLKID_AMBIVALENT), pass_fds=[fd])
    if found.returncode == _BLKID_AMBIVALENT:
        return _all_signatures(fd)
    if found.returncode == _BLKID_NOTHING:
        _read_ends(fd)
    tags = dict(line.split("=", 1) for line in found.stdout.splitlines() if "=" in line)
    return {_qualified(tags[tag], tag == "PTTYPE") for tag in ("TYPE", "PTTYPE") if tags.get(tag)}


def _read_ends(fd: int) -> None:
    """Read where nearly all signatures are: of what it could not read, blkid says that there is nothing."""
    for offset in (0, max(0, os.fstat(fd).st_size - MIB)):
        os.pread(fd, MIB, offset)


def _all_signatures(fd: int) -> set[str]:
    """What blkid will not choose between: only wipefs(8) lists everything."""
    listed = run(["wipefs", "--no-act", "--noheadings", "-O", "TYPE,USAGE", f"/proc/self/fd/{fd}"], pass_fds=[fd])
    rows = [line.split() for line in listed.stdout.splitlines() if line.strip()]
    return {_qualified(row[0], row[-1] == "partition-table") for row in rows} | {"ambivalent"}


def _qualified(name: str, is_table: bool) -> str:
    return f"{name} partition table" if is_table else name


_TYPE_NAMES = {
    "LVM2_member": "an LVM2 member",
    "LVM1_member": "an LVM1 member",
    "ambivalent": "signs of more than one kind of data",
    "bcache": "a bcache device",
    "crypto_LUKS": "a LUKS container",
    "BitLocker": "a BitLocker container",
    "drbd": "a DRBD device",
    "jbd": "an external ext4 journal",
    "linux_raid_member": "a Linux RAID member",
    "swap": "swap space",
    "swsuspend": "a suspended system",
    "zfs_member": "a ZFS member",
}

# Kinds of files that libblkid does not know: offset, bytes, words.
_MAGICS = (
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"conectix", "a VHD image"),
    (0, b"vhdxfile", "a VHDX image"),
    (64, b"\x7f\x10\xda\xbe", "a VirtualBox disk image"),
    (0, b"PK\x03\x04", "a zip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"\xfd7zXZ\0", "xz data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd data"),
    (0, b"BZh", "bzip2 data"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"\x7fELF", "a program"),
)


def describe_type(name: str) -> str:
    """Words for a kind of data by the name that libblkid has for it: "a LUKS container"."""
    if name in _TYPE_NAMES:
        return _TYPE_NAMES[name]
    article = "an" if name[:1].lower() in "aeiou" or name.startswith("xfs") else "a"
    if name.endswith(" partition table"):
        return f"{article} {name}"
    if name.endswith("_member"):
        return f"{article} {name.removesuffix('_member')} member"
    return f"{article} {name} file system"


def describe_magic(head: bytes) -> str | None:
    """Words for kinds of files that libblkid does not know, by their first 512 bytes; None where we do not either."""
    return next((words for offset, magic, words in _MAGICS if head.startswith(magic, offset)), None)


def describe_special(path: str, mode: int) -> str:
    """Words for what is not a regular file, by its mode."""
    if stat.S_ISLNK(mode):
        return f"a symbolic link to {os.readlink(path)}".encode("ascii", "replace").decode("ascii")
    tests: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    )
    return next((words for test, words in tests if test(mode)), "something that is not a file")
