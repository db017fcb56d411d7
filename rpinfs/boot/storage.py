"""What is really mounted and attached, from /proc/self/mountinfo and /sys, which answer whatever the NAS does.

Boot path: imports os only, and its neighbours. Never touches a file on the share.
Source: proc_pid_mountinfo(5), Linux Documentation/ABI/testing/sysfs-block-loop.
"""

import fcntl
import os

from rpinfs.boot.host import near, read_text
from rpinfs.boot.units import unescape_octal

LOOP_MAJOR = 7
_LOOP_GET_STATUS64 = 0x4C05
_STATUS_SIZE = 232

NFS_KINDS = ("nfs", "nfs4")
_MAY_HANG = (*NFS_KINDS, "cifs", "smb3", "9p", "ceph", "afs", "autofs")
"""File systems whose server may be gone; and FUSE, whatever is behind it."""


class Mount:
    """One line of the mount table."""

    __slots__ = ("number", "parent", "device", "top", "where", "options", "kind", "source", "super_options")

    def __init__(
        self,
        number: int,
        parent: int,
        device: "tuple[int, int]",
        top: str,
        where: str,
        options: "list[str]",
        kind: str,
        source: str,
        super_options: "list[str]",
    ) -> None:
        self.number = number
        self.parent = parent
        self.device = device
        self.top = top
        self.where = where
        self.options = options
        self.kind = kind
        self.source = source
        self.super_options = super_options

    @property
    def writable(self) -> bool:
        """Whether neither this mount nor its file system is read-only; ext4 turns the latter so on an error.

        From Linux 6.15 on, it says `emergency_ro` then, and goes on to call itself `rw` as well.
        """
        return "ro" not in self.options and not {"ro", "emergency_ro"}.intersection(self.super_options)

    @property
    def is_nfs(self) -> bool:
        """Whether this is a mount from an NFS server."""
        return self.kind in NFS_KINDS

    @property
    def nfs_version(self) -> "str | None":
        """The version of NFS, as nfs(5) writes it in the mount table; None where this is no NFS mount."""
        version = next((option[5:] for option in self.super_options if option.startswith("vers=")), None)
        return "4.0" if version == "4" else version

    def is_from(self, source: str) -> bool:
        """Whether this is a mount of `SERVER:EXPORT`; a slash at its end means nothing."""
        return self.source.rstrip("/") == source.rstrip("/")


class Loop:
    """State of an attached loop device as sysfs shows it. Sizes in bytes.

    Attributes:
        name: "loop3".
        backing_file: its path as the kernel sees it; ends in " (deleted)" when it was unlinked on this host.
        direct_io: past the page cache of the backing file. What is so, not what was asked for.
        block_size: of the device's logical blocks.
        offset: where the device begins in the backing file.
    """

    __slots__ = ("name", "backing_file", "direct_io", "autoclear", "block_size", "offset", "size")

    def __init__(
        self, name: str, backing_file: str, direct_io: bool, autoclear: bool, block_size: int, offset: int, size: int
    ) -> None:
        self.name = name
        self.backing_file = backing_file
        self.direct_io = direct_io
        self.autoclear = autoclear
        self.block_size = block_size
        self.offset = offset
        self.size = size

    @property
    def path(self) -> str:
        """Path of the device node."""
        return f"/dev/{self.name}"


def parse_mountinfo(text: str) -> "list[Mount]":
    """Parse a mount table, in its order: of several mounts at one place the last one is on top."""
    mounts = []
    # Only \n ends a line: the kernel leaves other separators in names as they are.
    for line in text.split("\n"):
        left, separator, right = line.partition(" - ")
        fields, last = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(last) < 3:
            continue
        major, _, minor = fields[2].partition(":")
        mounts.append(
            Mount(
                int(fields[0]),
                int(fields[1]),
                (int(major), int(minor)),
                unescape_octal(fields[3]),
                unescape_octal(fields[4]),
                fields[5].split(","),
                last[0],
                unescape_octal(last[1]),
                last[2].split(","),
            )
        )
    return mounts


def mount_at(mounts: "list[Mount]", where: str) -> "Mount | None":
    """Find what is on top at a mount point, where a path leads to it: a mount on a folder above would hide it."""
    found = next((mount for mount in reversed(mounts) if mount.where == where), None)
    return None if found is None or _is_hidden(found, mounts) else found


def _is_hidden(mount: Mount, mounts: "list[Mount]") -> bool:
    by_number = {other.number: other for other in mounts}
    above = []
    parent = mount.parent
    while parent in by_number and parent not in above:
        above.append(parent)
        parent = by_number[parent].parent
    above.append(parent)
    # The way to it goes through the mounts above it alone; another one on the way leads somewhere else.
    return any(
        other.parent in above
        and other.number not in above
        and other.where != mount.where
        and mount.where.startswith(other.where.rstrip("/") + "/")
        for other in mounts
    )


def mount_of(mounts: "list[Mount]", path: str) -> "Mount | None":
    """Find the mount that a path without symbolic links lies on."""
    below = [mount for mount in mounts if f"{path}/".startswith(f"{mount.where.rstrip('/')}/")]
    # Of several at one place the last one is on top.
    return max(reversed(below), key=lambda mount: len(mount.where), default=None)


def followed(mounts: "list[Mount]", path: str, root: str = "") -> str:
    """Follow the symbolic links of an absolute path, as far as that cannot hang: not into mounts of other servers.

    Only the mount at / may be one: without it nothing runs. Where a circle of links leads is the path that closes it.
    """
    here = ""
    rest = [part for part in path.split("/") if part not in ("", ".")]
    links = 0
    while rest:
        part = rest.pop(0)
        if part == "..":
            here = here.rpartition("/")[0]
            continue
        here = f"{here}/{part}"
        mount = mount_of(mounts, here)
        if mount and mount.where != "/" and (mount.kind in _MAY_HANG or mount.kind.startswith("fuse")):
            break
        try:
            target = os.readlink(root + here)
        except OSError:
            # No link, or nothing there.
            continue
        links += 1
        if links > 40:
            break
        here = "" if target.startswith("/") else here.rpartition("/")[0]
        rest = [part for part in target.split("/") if part not in ("", ".")] + rest
    return "/".join([here, *rest]) or "/"


def loop_of(mount: Mount, root: str = "") -> "Loop | None":
    """State of the loop device that a mount is from; None where it is from something else."""
    major, minor = mount.device
    return loop_state(f"loop{minor}", root, f"{root}/sys/dev/block/{major}:{minor}") if major == LOOP_MAJOR else None


def loop_state(name: str, root: str = "", folder: str = "") -> "Loop | None":
    """State of a loop device by name; None where nothing is attached."""
    folder = folder or f"{root}/sys/block/{name}"
    backing_file = read_text(f"{folder}/loop/backing_file").removesuffix("\n")
    if not backing_file:
        return None
    return Loop(
        name,
        backing_file,
        read_text(f"{folder}/loop/dio").strip() == "1",
        read_text(f"{folder}/loop/autoclear").strip() == "1",
        int(read_text(f"{folder}/queue/logical_block_size").strip() or 0),
        int(read_text(f"{folder}/loop/offset").strip() or 0),
        int(read_text(f"{folder}/size").strip() or 0) * 512,
    )


def ext4_errors(loop: str, root: str = "") -> "int | None":
    """Number of errors that ext4 has recorded on a loop device; None where no ext4 is mounted from it."""
    text = read_text(f"{root}/sys/fs/ext4/{loop}/errors_count").strip()
    return int(text) if text.isdigit() else None


def superblock_uuid(device: str) -> str:
    """UUID of the ext4 or xfs on a block device; empty where none can be read."""
    return identity(device)[0]


def identity(device: str) -> "tuple[str, tuple[int, int] | None]":
    """UUID of the ext4 or xfs on a loop device, and the number of the file system that holds its backing file.

    Either is empty where it cannot be read. The superblock of a mounted ext4 is in memory, and for the number of a
    file's file system the kernel asks no server: this answers whatever the NAS does.
    Layouts: see superblock.py, which is not for the boot path; loop(4).
    """
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "", None
    try:
        return _uuid_on(descriptor), _backing_device(descriptor)
    finally:
        os.close(descriptor)


def _uuid_on(descriptor: int) -> str:
    try:
        data = os.pread(descriptor, 4096, 0)
    except OSError:
        return ""
    if data[1080:1082] == b"\x53\xef":
        return uuid_text(data[1128:1144])
    return uuid_text(data[32:48]) if data[:4] == b"XFSB" else ""


def _backing_device(descriptor: int) -> "tuple[int, int] | None":
    try:
        status = fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, bytes(_STATUS_SIZE))
    except OSError:
        return None
    number = int.from_bytes(status[:8], "little")
    return os.major(number), os.minor(number)


def sequence(loop: str, root: str = "") -> str:
    """Number of the attachment of a loop device, which no other has; empty where the kernel has none (before 5.15)."""
    return read_text(f"{root}/sys/block/{loop}/diskseq").strip()


def uuid_text(data: bytes) -> str:
    """16 bytes as people write a UUID. By hand: the module uuid costs more to import than all of this."""
    digits = data.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def has_file_system(loop: str, root: str = "") -> bool:
    """Whether the kernel has the file system on a loop device in use, also one that was unmounted lazily."""
    return any(os.path.isdir(near(f"{root}/sys/fs/{kind}/{loop}")) for kind in ("ext4", "xfs"))


def is_in_use(path: str) -> bool:
    """Whether the kernel has the file system of an attached image in use, though no path of ours may lead to it."""
    return any(has_file_system(loop.name) for loop in loops_on(path))


def loops(root: str = "") -> "list[Loop]":
    """All attached loop devices, by number."""
    try:
        names = os.listdir(near(f"{root}/sys/block"))
    except OSError:
        return []
    numbers = sorted(int(name[4:]) for name in names if name[:4] == "loop" and name[4:].isdigit())
    return [loop for number in numbers if (loop := loop_state(f"loop{number}", root))]


def loops_on(path: str, root: str = "") -> "list[Loop]":
    """Loop devices whose backing file has this path. By name: a look at the file itself could hang with the NAS."""
    return [loop for loop in loops(root) if loop.backing_file == path]
