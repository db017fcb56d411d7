"""What is there on a machine: the configuration files of servers, TFTP folders, roots, found and read in one place.

A folder that is named stands for itself: what is in it tells what it is. With none, the usual places of this machine
are looked at, or of the one below `root`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from rpinfs.errors import RpinfsError
from rpinfs.netboot.model import Plan
from rpinfs.netboot.read import dnsmasq, exports, isc, kea, nfsconf, uci
from rpinfs.netboot.read.source import SyntaxFault, text_of

PLACES = (
    "/etc/dnsmasq.conf", "/etc/dnsmasq.d", "/etc/config/dhcp", "/etc/dhcp/dhcpd.conf", "/etc/kea/kea-dhcp4.conf",
    "/etc/exports", "/etc/exports.d", "/etc/nfs.conf", "/etc/nfs.conf.d", "/etc/default/tftpd-hpa",
)  # fmt: skip
BOOT_FILES = ("cmdline.txt", "config.txt", "bootcode.bin", "start.elf", "start4.elf")
_MOST_ENTRIES = 10_000


@dataclass(frozen=True)
class BootFolder:
    """A folder that a board boots from, or the top of a TFTP root. `files`: names in it. `top`: the folder above."""

    path: str
    files: frozenset[str]
    top: str

    @property
    def name(self) -> str:
        """Its last part: the serial number that asks for it."""
        return os.path.basename(self.path)


@dataclass(frozen=True)
class Line:
    """A line of a file, or what stands behind the = in it."""

    file: str
    line: int
    text: str


@dataclass
class Seen:
    """Everything that was found and could be read, and the faults of what could not.

    Attributes:
        interfaces: names of the network interfaces of this machine; None where another machine's files are looked at.
        tftpd: options of tftpd-hpa.
        tftp: folders that a TFTP server serves, and how each is known.
        boots: folders with boot files.
        roots: folders with roots of boards.
    """

    plan: Plan | None = None
    interfaces: frozenset[str] | None = None
    dnsmasq: list[dnsmasq.Option] = field(default_factory=list)
    isc: list[isc.Statement] = field(default_factory=list)
    kea: list[kea.KeaConfig] = field(default_factory=list)
    exports: list[exports.Export] = field(default_factory=list)
    nfsd: list[nfsconf.Switch] = field(default_factory=list)
    tftpd: list[Line] = field(default_factory=list)
    tftp: dict[str, str] = field(default_factory=dict)
    boots: list[BootFolder] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    unreadable: list[RpinfsError] = field(default_factory=list)
    looked_at: list[str] = field(default_factory=list)


def look(paths: Iterable[str], plan: Plan | None = None, root: str = "") -> Seen:
    """Read what is at these paths; with none, at the usual places. Never raises: what cannot be read is a fault."""
    seen = Seen(plan)
    named = list(paths)
    seen.unreadable += [RpinfsError(f"{path}: a folder with nothing in it") for path in named if _is_empty(path)]
    if not named:
        seen.interfaces = _interfaces(root)
        named = [root + place for place in PLACES if os.path.exists(root + place)]
        if plan:
            named += [root + path for path in (plan.nas.boot, plan.nas.root) if os.path.isdir(root + path)]
    for path in named:
        _look_at(seen, os.path.normpath(path), plan)
    for option in seen.dnsmasq:
        if option.key == "tftp-root":
            _add_tftp(seen, option.value.split(",")[0], f"{option.file}:{option.line}")
    return seen


def _interfaces(root: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(f"{root}/sys/class/net"))
    except OSError:
        return frozenset()


def _look_at(seen: Seen, path: str, plan: Plan | None) -> None:
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            _look_at_folder(seen, path, plan)
        elif not _look_at_file(seen, path):
            seen.unreadable.append(RpinfsError(f"{path}: nobody knows what that is", _KNOWN))
    except SyntaxFault as fault:
        seen.unreadable.append(fault)
    except OSError as error:
        seen.unreadable.append(RpinfsError(f"{path}: {error.strerror}"))


_KNOWN = (
    "known are dnsmasq*.conf, config/dhcp, dhcpd*.conf, kea-dhcp4*.conf, exports, nfs.conf, tftpd-hpa, folders of them,"
    " TFTP folders and roots"
)


def _look_at_file(seen: Seen, path: str) -> bool:
    name = os.path.basename(path)
    folder = os.path.basename(os.path.dirname(path))
    if name.startswith("dnsmasq") or folder == "dnsmasq.d":
        seen.dnsmasq += dnsmasq.read(path)
    elif name.startswith("dhcpd") and name.endswith(".conf"):
        seen.isc += isc.read(path)
    elif name == "dhcp" and folder == "config":
        seen.dnsmasq += uci.parse(text_of(path), path)
    elif name.startswith("kea-dhcp4"):
        seen.kea.append(kea.read(path))
    elif name == "exports" or name.endswith(".exports"):
        seen.exports += exports.parse(text_of(path), path)
    elif name == "nfs.conf" or (folder == "nfs.conf.d" and name.endswith(".conf")):
        seen.nfsd += nfsconf.parse(text_of(path), path)
    elif name == "tftpd-hpa":
        _look_at_tftpd(seen, path)
    else:
        return False
    seen.looked_at.append(path)
    return True


def _look_at_tftpd(seen: Seen, path: str) -> None:
    for number, line in enumerate(text_of(path).split("\n"), 1):
        key, _, value = line.strip().partition("=")
        if key == "TFTP_DIRECTORY":
            _add_tftp(seen, value.strip("\"' \r"), f"{path}:{number}")
        elif key == "TFTP_OPTIONS":
            seen.tftpd.append(Line(path, number, value.strip("\"' \r")))


def _look_at_folder(seen: Seen, path: str, plan: Plan | None) -> None:
    names = _names(path)
    known = [name for name in sorted(names) if _is_file(f"{path}/{name}") and _look_at_file(seen, f"{path}/{name}")]
    if "etc" in names and ("usr" in names or "bin" in names):
        seen.roots.append(path)
    elif any(name in names for name in BOOT_FILES) or _holds_boot_folders(path, names) or _is_tftp(path, plan):
        _add_tftp(seen, path, path)
    elif roots := [f"{path}/{name}" for name in sorted(names) if _is_root(f"{path}/{name}")]:
        seen.roots += roots
    elif not known:
        if names:
            seen.unreadable.append(RpinfsError(f"{path}: a folder with nothing of netbooting in it", _KNOWN))
        return
    if not known:
        seen.looked_at.append(path)


def _is_empty(path: str) -> bool:
    try:
        return not os.listdir(path)
    except OSError:
        return False


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.basename(path).startswith(".")


def _is_tftp(path: str, plan: Plan | None) -> bool:
    return plan is not None and path.endswith(plan.nas.boot)


def _is_root(path: str) -> bool:
    return os.path.isdir(f"{path}/etc") and os.path.isdir(f"{path}/usr")


def _holds_boot_folders(path: str, names: frozenset[str]) -> bool:
    return any(os.path.isfile(f"{path}/{name}/{file}") for name in names for file in BOOT_FILES)


def _names(path: str) -> frozenset[str]:
    found = []
    with os.scandir(path) as entries:
        for entry in entries:
            found.append(entry.name)
            if len(found) >= _MOST_ENTRIES:
                break
    return frozenset(found)


def _add_tftp(seen: Seen, path: str, why: str) -> None:
    if path in seen.tftp or not os.path.isdir(path):
        seen.tftp.setdefault(path, why)
        return
    seen.tftp[path] = why
    names = _names(path)
    if any(name in names for name in BOOT_FILES):
        seen.boots.append(BootFolder(path, names, path))
    for name in sorted(names):
        folder = f"{path}/{name}"
        # A serial number may be a link to a name; what leads elsewhere is not looked at.
        if os.path.isdir(folder) and os.path.realpath(folder).startswith(f"{os.path.realpath(path)}/"):
            inside = _names(folder)
            if any(file in inside for file in BOOT_FILES):
                seen.boots.append(BootFolder(folder, inside, path))
