"""Rules 21, 24 and 25 on roots."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from rpinfs.errors import quoted
from rpinfs.netboot.finding import Finding, Gravity
from rpinfs.netboot.read.source import inside, text_inside
from rpinfs.netboot.seen import Seen
from rpinfs.system.files import walk

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
            text = text_inside(root, path).strip()
            if not text or text == "uninitialized":
                continue
            # A key is not to be kept, nor to be compared by what it is.
            digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
            if digest in first:
                file = quoted(f"{root}/{path}")
                remedy = f"truncate --size=0 {file}"
                if what == "host name":
                    remedy = f"printf '%s\\n' {quoted(os.path.basename(root))} >{file}"
                elif "ssh" in what:
                    # An image of Debian's makes no new ones at its next boot, and sshd does not start without.
                    remedy = f"rm {quoted(f'{root}/etc/ssh')}/ssh_host_* && ssh-keygen -A -f {quoted(root)}"
                gravity = Gravity.FAULT if what == "host name" else Gravity.WARNING
                yield Finding(24, gravity, f"{root}/{path}", 0, f"{first[digest]} has the same {what}: {why}", remedy)
            first.setdefault(digest, root)


def leftovers_of_a_card(seen: Seen) -> Iterator[Finding]:
    """Units that are for an SD card, enabled in a root."""
    for root in seen.roots:
        units = inside(root, "etc/systemd/system/x")
        for folder, _, names in walk(os.path.dirname(units), strict=False) if units else ():
            for name in sorted(set(names).intersection(_UNITS)):
                path = f"{folder}/{name}"
                enabled = folder.endswith((".wants", ".requires")) and os.path.islink(path)
                if enabled and os.readlink(path) != "/dev/null":
                    message = f"{name} is enabled: {_UNITS[name]}"
                    yield Finding(25, Gravity.WARNING, path, 0, message, f"rm {quoted(path)}")
        for number, line in enumerate(text_inside(root, "etc/fstab").split("\n"), 1):
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
            below = inside(root, "lib/modules/x")
            versions = os.listdir(os.path.dirname(below)) if below else []
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
    line = text_inside(boot, "cmdline.txt")
    source = next((word.removeprefix("nfsroot=") for word in line.split() if word.startswith("nfsroot=")), "")
    path = source.partition(":")[2].split(",")[0].rstrip("/")
    name = os.path.basename(path)
    return next((root for root in seen.roots if name and os.path.basename(root) == name), None)


RULES = (twins, leftovers_of_a_card, modules)
