"""What this machine says of itself, read once and kept as texts.

Boot path: imports os only. `Host.read` is the one place on the boot path that reads; all that decides works
on the texts it kept. `RPINFS_ROOT=DIR` moves every path below DIR, `SYSTEMD_PROC_CMDLINE` replaces the kernel command
line as it does for systemd itself.
"""

import os

from rpinfs.boot.settings import is_ipv4, is_ipv6
from rpinfs.errors import reason_of

MAIN_FILE = "/etc/rpinfs/rpinfs.conf"
DROP_IN_FOLDERS = ("/etc/rpinfs/rpinfs.conf.d", "/run/rpinfs/rpinfs.conf.d", "/usr/lib/rpinfs/rpinfs.conf.d")
"""Highest precedence first, as in systemd.syntax(7)."""

COMMAND_LINE = "kernel command line"
"""How messages call that origin."""

NIC_FILE = "/run/rpinfs/boot-nic"
"""The MAC address of the NIC that booted, as the generator found it; see remember_nic()."""

WAYS: "dict[str, str]" = {}
"""Ways to folders in memory, by the beginning of a path: for near()."""

_NFS_TYPES = ("nfs", "nfs4")
_HEX = frozenset("0123456789abcdef")
# What firmware has where nobody has put in a serial number: letters and digits of it, in lower case.
_NO_SERIALS = (
    "default", "defaultstring", "empty", "fillbyoem", "invalid", "na", "nil", "none", "noserial", "noserialnumber",
    "notapplicable", "notavailable", "notset", "notspecified", "null", "oem", "serial", "serialnumber", "sn",
    "systemserialnumber", "boardserialnumber", "baseboardserialnumber", "chassisserialnumber", "tbd", "test",
    "tobefilled", "tobefilledbyoem", "unavailable", "undefined", "uninitialized", "unknown", "unset", "unspecified",
)  # fmt: skip


class Host:
    """Texts about one machine, and the few facts that follow from them."""

    __slots__ = (
        "root", "cmdline", "config_files", "unreadable", "fstab", "mountinfo", "serial", "mac", "nic", "hostname",
        "_machine_id", "container", "has_boot_firmware",
    )  # fmt: skip

    def __init__(
        self,
        *,
        root: str = "",
        cmdline: str = "",
        config_files: "list[tuple[str, str]] | None" = None,
        unreadable: "list[tuple[str, str]] | None" = None,
        fstab: str = "",
        mountinfo: str = "",
        serial: str = "",
        mac: str = "",
        nic: str = "",
        hostname: str = "",
        machine_id: "str | None" = "",
        container: bool = False,
        has_boot_firmware: bool = True,
    ) -> None:
        self.root = root
        self.cmdline = cmdline
        self.config_files = config_files or []
        self.unreadable = unreadable or []
        self.fstab = fstab
        self.mountinfo = mountinfo
        self.serial = serial
        self.mac = mac
        self.nic = nic
        self.hostname = hostname
        self._machine_id = machine_id
        self.container = container
        self.has_boot_firmware = has_boot_firmware

    @classmethod
    def read(cls, root: "str | None" = None) -> "Host":
        """Read the machine below `root`, by default `$RPINFS_ROOT`. Missing files count as empty."""
        if root is None:
            root = os.environ.get("RPINFS_ROOT", "")
        root = root.rstrip("/")
        replaced = os.environ.get("SYSTEMD_PROC_CMDLINE")
        cmdline = read_text(root + "/proc/cmdline") if replaced is None else replaced
        mountinfo = read_text(root + "/proc/self/mountinfo")
        config_files, unreadable = _read_config(root)
        nic, mac = _boot_nic(root, cmdline)
        return cls(
            root=root,
            cmdline=cmdline.strip(),
            config_files=config_files,
            unreadable=unreadable,
            fstab=read_text(root + "/etc/fstab"),
            mountinfo=mountinfo,
            serial=serial_of(read_text(root + "/proc/device-tree/serial-number")),
            mac=mac,
            nic=nic,
            hostname=(read_text(root + "/proc/sys/kernel/hostname") or read_text(root + "/etc/hostname")).strip(),
            machine_id=None,
            container=_in_container(root),
            has_boot_firmware=_has_boot_firmware(root, mountinfo),
        )

    @property
    def machine_id(self) -> str:
        """The machine-id(5), empty where it says nothing. Read when it is asked for: few ask, and it is on the root."""
        if self._machine_id is None:
            self._machine_id = _machine_id_of(read_text(self.root + "/etc/machine-id"))
        return self._machine_id

    @property
    def switched_off(self) -> bool:
        """Whether the kernel command line says `rpinfs=off`."""
        last = ""
        for name, value in words(self.cmdline):
            if name == "rpinfs":
                last = value
        return last.lower() in ("off", "no", "false", "0")

    @property
    def root_server(self) -> "tuple[str, str]":
        """Address of the server that the root came from and what told so; two empty texts where nothing does."""
        return root_server(self.cmdline, self.mountinfo)

    @property
    def root_on_nfs(self) -> bool:
        """Whether the root is an NFS mount, by the command line or by what is mounted."""
        for name, value in words(self.cmdline):
            if name == "nfsroot" or (name == "root" and value.startswith(("/dev/nfs", "nfs:", "nfs4:"))):
                return True
        return bool(_root_source(self.mountinfo))

    @property
    def root_nic(self) -> "tuple[str, str] | None":
        """Name and MAC address, with colons, of the NIC that carries the root; None where the root is not on NFS.

        Either is empty where nothing tells it, and the name may change: udev renames NICs after the generators.
        """
        if not self.root_on_nfs:
            return None
        pairs = self.mac.split("-")
        # BOOTIF= may be anything, and these two go into unit files.
        known = len(pairs) == 6 and all(len(pair) == 2 and set(pair) <= set("0123456789abcdef") for pair in pairs)
        named = self.nic.replace("-", "").replace("_", "").isalnum() and self.nic.isascii()
        return self.nic if named else "", ":".join(pairs) if known else ""


def near(path: str) -> str:
    """The same place by a way that does not lead over the root, where the agent keeps one open (agent/near.py)."""
    return next((way + path[len(top) :] for top, way in WAYS.items() if path.startswith(top)), path)


def read_text(path: str) -> str:
    """Read a small file; what is not there or not readable is empty. Bytes that are no UTF-8 become surrogates."""
    try:
        descriptor = os.open(near(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return _read_all(descriptor)
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def lines_of(text: str) -> "list[str]":
    """The lines of a text as systemd ends them, by its read_line(): at a carriage return and at a NUL, too."""
    for end in ("\r\n", "\r", "\0"):
        text = text.replace(end, "\n")
    return text.split("\n")


def _read_all(descriptor: int) -> str:
    chunks = []
    # Files in /proc and /sys have no length to ask for, and give at most a page or so a read.
    while chunk := os.read(descriptor, 65536):
        chunks.append(chunk)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def words(cmdline: str) -> "list[tuple[str, str]]":
    """Split a kernel command line into (name, value); double quotes protect spaces, as the kernel has it."""
    found = []
    current = ""
    quoted = False
    for character in cmdline + " ":
        if character == '"':
            quoted = not quoted
        elif character in " \t\n" and not quoted:
            if current == "--":
                break
            if current:
                name, _, value = current.partition("=")
                found.append((name, value))
            current = ""
        else:
            current += character
    return found


# The server that the root came from


def root_server(cmdline: str, mountinfo: str) -> "tuple[str, str]":
    """Tell the NFS server of the root and its origin.

    Sources: Linux Documentation/admin-guide/nfs/nfsroot.rst (`nfsroot=[<server-ip>:]<root-dir>[,<nfs-options>]`, else
    the second field of `ip=`), dracut.cmdline(7) (`root=nfs4:[<server>:]<dir>[:<options>]`), else the mounted root.
    """
    nfsroot = ip_server = ""
    for name, value in words(cmdline):
        if name == "nfsroot":
            nfsroot = _server_part(value)
        elif name == "root" and value.startswith(("nfs:", "nfs4:")):
            nfsroot = _server_part(value.partition(":")[2])
        elif name == "ip":
            fields = _ip_fields(value)
            # The short form of dracut, ip=<device>:<autoconf>, has no server there.
            if len(fields) > 1 and (is_ipv4(fields[1]) or is_ipv6(fields[1])):
                ip_server = fields[1]
    if nfsroot:
        return nfsroot, "nfsroot= on the " + COMMAND_LINE
    if ip_server:
        return ip_server, "ip= on the " + COMMAND_LINE
    source = _root_source(mountinfo)
    return (source, "the mounted root") if source else ("", "")


def _server_part(nfsroot: str) -> str:
    if nfsroot.startswith("["):
        return nfsroot[1:].partition("]")[0]
    if nfsroot.startswith("/"):
        return ""
    server, colon, _ = nfsroot.partition(":")
    return server if colon else ""


def _ip_fields(value: str) -> "list[str]":
    # <client-ip>:<server-ip>:<gw-ip>:<netmask>:<hostname>:<device>:<autoconf>:...; dracut puts brackets around IPv6.
    fields = [""]
    bracket = False
    for character in value:
        if character in "[]":
            bracket = character == "["
        elif character == ":" and not bracket:
            fields.append("")
        else:
            fields[-1] += character
    return fields


def _root_source(mountinfo: str) -> str:
    server = ""
    for line in mountinfo.split("\n"):
        fields = line.split(" ")
        if len(fields) < 10 or fields[4] != "/" or "-" not in fields:
            continue
        kind, source, options = (*fields[fields.index("-") + 1 :], "", "", "")[:3]
        server = ""
        if kind in _NFS_TYPES:
            server = _server_part(source)
            for option in options.split(","):
                # The number that the kernel really talks to, also where the source says a name or nothing.
                if option.startswith("addr="):
                    server = option.removeprefix("addr=")
    return server


# Identity: what says nothing is none, and what is one is the same for the whole boot


def serial_of(text: str) -> str:
    """The serial number that a firmware gives; empty where it says nothing, as two boards would then be one.

    That is one character repeated, the digits in their order, words for "none", or bytes that are no text. Real boards
    have `0000000000000000`.
    """
    serial = text.strip("\0 \t\r\n")
    said = "".join(c for c in serial.lower() if c.isalnum())
    said = said.removeprefix("0x") or said
    in_order = len(said) > 3 and any((digits * 4).find(said) in (0, 1) for digits in ("0123456789", "0123456789abcdef"))
    if len(set(said)) < 2 or in_order or said in _NO_SERIALS or not serial.isprintable():
        return ""
    return serial


def _machine_id_of(text: str) -> str:
    machine_id = text.strip()
    digits = machine_id.lower().replace("-", "")
    return machine_id if len(digits) == 32 and set(digits) <= _HEX and len(set(digits)) > 1 else ""


def _boot_nic(root: str, cmdline: str) -> "tuple[str, str]":
    """Tell name and MAC address of the NIC that booted.

    The boot loader's BOOTIF= is a MAC address, and tells no name. All else may change while the machine runs: names,
    and default routes. So where the generator has told the address to remember_nic(), that one stays.
    """
    if told := _told_by_boot_loader(cmdline):
        return "", told
    device, mac = _found_nic(root, cmdline)
    remembered = _mac_text(read_text(root + NIC_FILE))
    if not remembered or remembered == mac:
        return device, mac
    named = (name for name in _network_devices(root) if _mac_of(root, name) == remembered)
    return next(named, ""), remembered


def _told_by_boot_loader(cmdline: str) -> str:
    # The first of the two numbers in it is the kind of network: 01-dc-a6-32-00-00-01.
    told = next((value for name, value in words(cmdline) if name == "BOOTIF" and len(value) == 20), "")
    return _mac_text(told[3:])


def _found_nic(root: str, cmdline: str) -> "tuple[str, str]":
    """Name and MAC address of the device of ip=, else of the default route, else of the first NIC."""
    device = ""
    for name, value in words(cmdline):
        if name == "ip":
            fields = _ip_fields(value)
            if len(fields) > 5:
                device = fields[5]
            elif len(fields) == 2 and not fields[0][:1].isdigit():
                # The short form of dracut: ip=<device>:<autoconf>.
                device = fields[0]
    if mac := _mac_of(root, device):
        return device, mac
    device = _default_route_device(root)
    if mac := _mac_of(root, device):
        return device, mac
    return next(((name, mac) for name in _network_devices(root) if (mac := _mac_of(root, name))), ("", ""))


def remember_nic(host: Host) -> None:
    """Keep the address of the NIC that booted for as long as this boot lasts; by the generator, the first to look.

    Where the board has no serial number, or File= has {mac} in it, owner and file name of an image follow from it: an
    agent that starts anew when another NIC has the default route would be another Pi. Raises OSError.
    """
    texts = [host.cmdline, *(text for _, text in host.config_files)]
    wanted = not host.serial or any("{mac}" in text for text in texts)
    path = host.root + NIC_FILE
    if not wanted or not host.mac or _told_by_boot_loader(host.cmdline) or os.path.lexists(path):
        return
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o644)
    except FileExistsError:
        return
    try:
        os.write(descriptor, f"{host.mac}\n".encode())
    finally:
        os.close(descriptor)


def _mac_of(root: str, device: str) -> str:
    if not device or "/" in device:
        return ""
    folder = f"{root}/sys/class/net/{device}"
    mac = _mac_text(read_text(f"{folder}/address"))
    # Made up, it is another one at the next boot (net/core/dev.c: NET_ADDR_RANDOM).
    local = mac and int(mac[:2], 16) & 2
    return "" if local and read_text(f"{folder}/addr_assign_type").strip() == "1" else mac


def _mac_text(text: str) -> str:
    """A MAC address with hyphens; empty where it is none, or nobody's: zeros, a group's, everybody's."""
    mac = text.strip().lower().replace(":", "-")
    pairs = mac.split("-")
    if len(pairs) != 6 or not all(len(pair) == 2 and set(pair) <= _HEX for pair in pairs):
        return ""
    return "" if int(pairs[0], 16) & 1 or not any(int(pair, 16) for pair in pairs) else mac


def _default_route_device(root: str) -> str:
    for line in read_text(root + "/proc/net/route").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
            return fields[0]
    return ""


def _network_devices(root: str) -> "list[str]":
    """Name the NICs that are hardware; bridges and the like have no `device`."""
    folder = root + "/sys/class/net"
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [name for name in names if os.path.exists(f"{folder}/{name}/device")]


def _in_container(root: str) -> bool:
    told = os.environ.get("SYSTEMD_VIRTUALIZATION")
    if told is not None:
        return told.startswith("container:")
    return os.path.exists(root + "/run/systemd/container")


def _has_boot_firmware(root: str, mountinfo: str) -> bool:
    # At a daemon-reload these folders are NFS mounts, and looking into one whose NAS is gone hangs PID 1
    # (systemd#3353): where something is mounted, the mount table has the answer.
    mounted = [fields[4] for line in mountinfo.split("\n") if len(fields := line.split(" ")) > 4]
    if "/boot/firmware" in mounted:
        return True
    if "/boot" in mounted:
        return False
    return os.path.isdir(root + "/boot/firmware")


# Configuration files


def _read_config(root: str) -> "tuple[list[tuple[str, str]], list[tuple[str, str]]]":
    """Read the main file, then the drop-ins by name: (path, text) pairs, and (path, reason) of what cannot be read."""
    texts: list[tuple[str, str]] = []
    unreadable: list[tuple[str, str]] = []
    for path in [MAIN_FILE, *_drop_ins(root, unreadable)]:
        try:
            if (text := _read_file(root + path)) is not None:
                texts.append((path, text))
        except OSError as error:
            unreadable.append((path, reason_of(error)))
    return texts, unreadable


def _read_file(path: str) -> "str | None":
    # One open for each file: whether it exists, is a mask or is a folder shows on the way.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if os.path.islink(path) and os.readlink(path) != "/dev/null":
            raise
        return None
    try:
        return _read_all(descriptor)
    finally:
        os.close(descriptor)


def _drop_ins(root: str, unreadable: "list[tuple[str, str]]") -> "list[str]":
    found: dict[str, str] = {}
    for folder in DROP_IN_FOLDERS:
        try:
            names = os.listdir(root + folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            unreadable.append((folder, reason_of(error)))
            continue
        for name in names:
            if name.endswith(".conf") and not name.startswith("."):
                found.setdefault(name, f"{folder}/{name}")
    return [found[name] for name in sorted(found)]
