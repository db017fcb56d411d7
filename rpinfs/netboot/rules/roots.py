"""Rules 21, 24 and 25 on roots."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from rpinfs.netboot.finding import Finding, Gravity
from rpinfs.netboot.seen import Seen

_KERNELS = {"kernel8.img": "-v8", "kernel_2712.img": "-2712"}
"""Raspberry Pi's kernels by file, and how the names of their modules' folders end."""

_UNITS = {
    "rpi-resize.service": "it resizes a partition that is not there",
    "resize2fs_once.service": "it resizes a partition that is not there",
    "rpi-resize-swap-file.service": "it makes a swap file on the NAS",
    "dphys-swapfile.service": "it makes a swap file on the NAS",
    "rpi-swap.service": "it swaps to the NAS",
    "rpi-zram-writeback.timer": "it swaps to the NAS",
}


def _read(path: str) -> bytes:
    """Of a root that may be hostile: no link is followed, and nothing but a small regular file is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def twins(seen: Seen) -> Iterator[Finding]:
    """Two roots with one host name steal each other's NFS lease; with one machine-id they get one address."""
    identities = (
        ("host name", "etc/hostname", "two NFS clients of one name steal each other's lease, without end"),
        ("machine-id", "etc/machine-id", "DHCP gives both the same address"),
        ("ssh host key", "etc/ssh/ssh_host_ed25519_key", "who has one of them can pass for the other"),
    )
    for what, path, why in identities:
        first: dict[str, str] = {}
        for root in seen.roots:
            data = _read(f"{root}/{path}").strip()
            if not data or data == b"uninitialized":
                continue
            digest = hashlib.sha256(data).hexdigest()
            if digest in first:
                remedy = (
                    f"echo {os.path.basename(root)} >{root}/etc/hostname"
                    if what == "host name"
                    else f": >{root}/{path}"
                )
                if "ssh" in what:
                    remedy = f"rm {root}/etc/ssh/ssh_host_*; they are made anew at the next boot"
                gravity = Gravity.FAULT if what == "host name" else Gravity.WARNING
                yield Finding(24, gravity, f"{root}/{path}", 0, f"{first[digest]} has the same {what}: {why}", remedy)
            first.setdefault(digest, root)


def leftovers_of_a_card(seen: Seen) -> Iterator[Finding]:
    """Units that are for an SD card, enabled in a root."""
    for root in seen.roots:
        for folder, _, names in os.walk(f"{root}/etc/systemd/system"):
            for name in sorted(set(names).intersection(_UNITS)):
                path = f"{folder}/{name}"
                if (
                    os.path.islink(path)
                    and os.readlink(path) != "/dev/null"
                    and folder.endswith((".wants", ".requires"))
                ):
                    yield Finding(25, Gravity.WARNING, path, 0, f"{name} is enabled: {_UNITS[name]}", f"rm {path}")
        for number, line in enumerate(_read(f"{root}/etc/fstab").decode("utf-8", "replace").split("\n"), 1):
            fields = line.split()
            if len(fields) > 2 and fields[0].startswith(("PARTUUID=", "/dev/mmcblk")):
                message = f"{fields[0]} is a partition of an SD card: the boot waits 90 s for it"
                yield Finding(25, Gravity.FAULT, f"{root}/etc/fstab", number, message, f"# {line}")


def modules(seen: Seen) -> Iterator[Finding]:
    """A kernel without its modules has no overlay, and Docker no overlay2."""
    for folder in seen.boots:
        kernels = sorted(folder.files.intersection(_KERNELS))
        root = _root_of(seen, folder.path)
        if not kernels or root is None:
            continue
        try:
            versions = os.listdir(f"{root}/lib/modules")
        except OSError:
            versions = []
        for kernel in kernels:
            if not any(version.endswith(_KERNELS[kernel]) for version in versions):
                here = ", ".join(sorted(versions)) or "nothing"
                message = f"{root}/lib/modules has none for it ({here}): no overlay, so no Docker"
                yield Finding(
                    21,
                    Gravity.WARNING,
                    f"{folder.path}/{kernel}",
                    0,
                    message,
                    "copy boot files and root from one image",
                )


def _root_of(seen: Seen, boot: str) -> str | None:
    """The root that a boot folder's command line names, where it is here."""
    line = _read(f"{boot}/cmdline.txt").decode("utf-8", "replace")
    source = next((word.removeprefix("nfsroot=") for word in line.split() if word.startswith("nfsroot=")), "")
    path = source.partition(":")[2].split(",")[0].rstrip("/")
    name = os.path.basename(path)
    return next((root for root in seen.roots if name and os.path.basename(root) == name), None)


RULES = (twins, leftovers_of_a_card, modules)
