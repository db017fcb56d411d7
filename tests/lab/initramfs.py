"""An initramfs that gives a stock Debian kernel what the kernel of a Pi has built in: its root on NFS 4.

busybox, the modules for the network card and NFS, and one script. Nothing is compressed: emulated processors take
longer to unpack than the lab to send.
"""

from __future__ import annotations

import lzma
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG

from .process import LabError, run

GUEST = Path(__file__).parent / "guest"
DIRECTORIES = ("bin", "dev", "lab", "modules", "proc", "root", "run", "sys")
NAS_MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "virtio_console", "ext4", "xfs", "nfsd")
NAS_DIRECTORIES = ("bin", "dev", "jobs", "modules", "proc", "srv", "sys")


@dataclass(frozen=True)
class Entry:
    """One file of a cpio archive."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def make_initramfs(root: Path, modules: tuple[str, ...]) -> bytes:
    """The initramfs for the kernel that is installed in a root: it mounts a Pi's root and hands over to it.

    modules are those of its network card, and what else a Pi's kernel has built in.
    """
    entries = _common(root, DIRECTORIES, (*modules, "nfsv4"))
    entries += [_program(name, name) for name in ("init", "dhcp")]
    entries += [
        Entry(f"lab/{name}", S_IFREG | 0o644, (GUEST / name).read_bytes())
        for name in ("agent", "box", "rpinfs-lab-agent.service")
    ]
    return cpio(entries)


def make_nas_initramfs(root: Path, modules: tuple[str, ...] = ()) -> bytes:
    """The whole system of a NAS whose NFS server is the kernel's: nothing but this initramfs and its disk."""
    entries = _common(root, NAS_DIRECTORIES, (*NAS_MODULES, *modules))
    # Where the lab's agent looks for its busybox.
    entries.append(Entry("busybox", S_IFLNK | 0o777, b"bin/busybox"))
    return cpio([*entries, _program("init", "nas-init"), _program("agent", "agent")])


def _common(root: Path, directories: tuple[str, ...], modules: tuple[str, ...]) -> list[Entry]:
    found = list(modules_of(root, modules))
    return [
        *(Entry(name, S_IFDIR | 0o755) for name in directories),
        Entry("dev/console", S_IFCHR | 0o600, device=(5, 1)),
        Entry("bin/busybox", S_IFREG | 0o755, busybox_of(root).read_bytes()),
        *(Entry(f"modules/{name}", S_IFREG | 0o644, data) for name, _, data in found),
        Entry(
            "modules/list",
            S_IFREG | 0o644,
            "".join(f"{name} {parameters}\n" for name, parameters, _ in found).encode(),
        ),
    ]


def _program(name: str, source: str) -> Entry:
    return Entry(name, S_IFREG | 0o755, (GUEST / source).read_bytes())


def kernel_version(root: Path) -> str:
    """The version of the one kernel in a root."""
    versions = sorted(path.name for path in (root / "usr/lib/modules").iterdir())
    if len(versions) != 1:
        raise LabError(f"{root}: expected one kernel, found {', '.join(versions) or 'none'}")
    return versions[0]


def busybox_of(root: Path) -> Path:
    """The root's own static busybox."""
    return next(path for name in ("usr/bin/busybox", "bin/busybox") if (path := root / name).is_file())


def modules_of(root: Path, names: tuple[str, ...]) -> Iterator[tuple[str, str, bytes]]:
    """Name, parameters and content of the modules and of what they need, in the order in which they load."""
    version = kernel_version(root)
    seen: set[str] = set()
    for wanted in names:
        steps = run(["chroot", root, "modprobe", "--show-depends", "--set-version", version, wanted])
        for line in steps.splitlines():
            verb, path, *parameters = line.split()
            if verb == "insmod" and path not in seen:
                seen.add(path)
                name, data = unpacked(root / path.lstrip("/"))
                yield name, " ".join(parameters), data


def unpacked(path: Path) -> tuple[str, bytes]:
    """A module's name and content, whatever it is compressed with."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return path.stem, lzma.decompress(data)
    if path.suffix == ".zst":
        return path.stem, subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    return path.name, data


def cpio(entries: list[Entry]) -> bytes:
    """A cpio archive in the "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    archive = bytearray()
    for inode, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.name.encode() + b"\0"
        numbers = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        archive += b"070701" + b"".join(b"%08x" % number for number in numbers) + name
        archive += bytes(-len(archive) % 4) + entry.data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
