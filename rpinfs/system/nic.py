"""Who manages an interface, and whether it stays up when that manager stops or loses its link.

Read from files, /run and the list of processes: nothing is asked that might not answer. None of these files is an
interface for others to read (systemd says so in its own).

Tried on Debian 13 with an address that the kernel had set, dhcpcd excepted; read in the packages of Debian 12:

- systemd-networkd removes what it finds at its start, when the link is lost and when it stops; with
  KeepConfiguration=yes never. That is the default where the root is a network file system (systemd#22383, 251).
- NetworkManager takes what it finds for a connection of somebody else and touches nothing, at its stop neither. With
  keep-configuration=no it starts afresh, and after some seconds without a link it takes down a connection of its own;
  ignore-carrier=yes prevents that (NetworkManager.conf(5)).
- ifupdown runs `ifdown -a` when networking.service stops, and that removes the address; its old init script spares it
  while NFS is mounted.
- dhcpcd leaves it with `persistent` in dhcpcd.conf(5), which Debian and Raspberry Pi OS set.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator

from rpinfs.boot.host import read_text
from rpinfs.boot.units import GENERATED, IFUPDOWN, NETWORKMANAGER_FILE, NIC_DROP_IN
from rpinfs.boot.values import dataclass
from rpinfs.errors import quoted

NETWORKD, NETWORKMANAGER, IFUPDOWN_NAME, DHCPCD = "systemd-networkd", "NetworkManager", "ifupdown", "dhcpcd"

_NETWORK_FILE_SYSTEMS = ("nfs", "nfs4")
_YES = ("yes", "true", "on", "1")
_COMM_LENGTH = 15
"""The kernel keeps that many characters of the name of a process (TASK_COMM_LEN)."""


@dataclass(frozen=True)
class Manager:
    """A program that manages an interface.

    Attributes:
        keeps: whether the interface stays up without it.
        renews: whether it holds and renews the address; else it only looks on.
        why: what makes it keep the interface, or what does not.
        remedy: what makes it, where it does not.
    """

    name: str
    keeps: bool
    renews: bool
    why: str
    remedy: str = ""


def managers(interface: str, root: str = "") -> list[Manager]:
    """Tell who manages an interface, all of them: two at once are a fault, and common. Empty where nobody does."""
    running = _processes(root)
    found = [
        _networkd(interface, root) if NETWORKD[:_COMM_LENGTH] in running else None,
        _networkmanager(interface, root) if NETWORKMANAGER in running else None,
        _ifupdown(interface, root),
        _dhcpcd(interface, root) if DHCPCD in running else None,
    ]
    # NetworkManager and ifupdown have dhcpcd as their servant; it is not told apart here from one on its own.
    return [manager for manager in found if manager]


# systemd-networkd


def _networkd(interface: str, root: str) -> Manager | None:
    state = _assignments(read_text(f"{root}/run/systemd/netif/links/{_index(interface, root)}"))
    if state.get("ADMIN_STATE", "unmanaged") == "unmanaged":
        return None
    main = state.get("NETWORK_FILE", "")
    # Drop-ins come after the file itself, and the last word wins.
    keep, where = "", ""
    paths = [main, *state.get("NETWORK_FILE_DROPINS", "").replace(":", " ").split()]
    for path in paths:
        for section, key, value in _settings(read_text(root + path)):
            if section == "Network" and key == "KeepConfiguration":
                keep, where = value.lower(), path
    renews = _has_dhcp(root, paths)
    if not keep:
        if _root_type(root) in _NETWORK_FILE_SYSTEMS:
            return Manager(NETWORKD, True, renews, "the default where the root is on NFS")
        why, where = "its default, where it does not see that the root is on NFS", main
    elif keep in _YES:
        return Manager(NETWORKD, True, renews, f"KeepConfiguration=yes in {where}")
    else:
        why = f"KeepConfiguration={keep} in {where}"
    drop_in = f"/etc/systemd/network/{os.path.basename(main)}.d"
    remedy = (
        f"mkdir -p {quoted(drop_in)};"
        f" printf '[Network]\\nKeepConfiguration=yes\\n' >{quoted(drop_in + '/90-nfsroot.conf')};"
        " networkctl reload"
    )
    return Manager(NETWORKD, False, renews, why, remedy)


def _has_dhcp(root: str, paths: Iterable[str]) -> bool:
    return any(
        (section, key) == ("Network", "DHCP") and value.lower() in (*_YES, "ipv4")
        for path in paths
        for section, key, value in _settings(read_text(root + path))
    )


def _root_type(root: str) -> str:
    kind = ""
    for line in read_text(f"{root}/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        if len(fields) > 6 and fields[4] == "/" and "-" in fields:
            kind = fields[fields.index("-") + 1]
    return kind


# NetworkManager


def _networkmanager(interface: str, root: str) -> Manager | None:
    index = _index(interface, root)
    state = {key: value for _, key, value in _settings(read_text(f"{root}/run/NetworkManager/devices/{index}"))}
    if state.get("managed") != "true":
        return None
    settings = _device_settings(interface, root)
    keep, keep_in = settings.get("keep-configuration", ("yes", ""))
    ignore, ignore_in = settings.get("ignore-carrier", ("no", ""))
    renews = not _is_external(state.get("connection-uuid", ""), root)
    if keep.lower() not in _YES:
        remedy = f"take it out of {keep_in}, then reboot"
        return Manager(NETWORKMANAGER, False, renews, f"keep-configuration={keep} in {keep_in}", remedy)
    if ignore.lower() not in _YES:
        return Manager(
            NETWORKMANAGER, False, renews, "ignore-carrier=yes is not set: it goes when the cable is out",
            f"reboot where {NETWORKMANAGER_FILE} is missing; who overrides it: NetworkManager --print-config",
        )  # fmt: skip
    return Manager(NETWORKMANAGER, True, renews, f"ignore-carrier={ignore} in {ignore_in}")


def _is_external(uuid: str, root: str) -> bool:
    folder = f"{root}/run/NetworkManager/system-connections"
    for name in _names(folder):
        settings = _settings(read_text(f"{folder}/{name}"))
        found = {(section, key): value for section, key, value in settings}
        if found.get(("connection", "uuid")) == uuid:
            return found.get((".nmmeta", "external")) == "true"
    return False


def _device_settings(interface: str, root: str) -> dict[str, tuple[str, str]]:
    """Settings of [device] sections that are for an interface: key to value and file. Later files win."""
    mac = read_text(f"{root}/sys/class/net/{interface}/address").strip().lower()
    found: dict[str, tuple[str, str]] = {}
    for path in _networkmanager_files(root):
        sections: dict[str, dict[str, str]] = {}
        for section, key, value in _settings(read_text(root + path)):
            if section == "device" or section.startswith("device-"):
                sections.setdefault(section, {})[key] = value
        # Within a file the first section that matches wins, and the one of no name comes last.
        for section in sorted(sections, key=lambda name: name == "device", reverse=True):
            keys = sections[section]
            if _matches(keys.get("match-device", "*"), interface, mac):
                found.update({key: (value, path) for key, value in keys.items()})
    return found


def _networkmanager_files(root: str) -> list[str]:
    folders = ("/usr/lib/NetworkManager/conf.d", "/run/NetworkManager/conf.d", "/etc/NetworkManager/conf.d")
    masks = {name: folder for folder in folders for name in _names(root + folder)}
    files = {
        folder: [f"{folder}/{name}" for name in sorted(masks) if name.endswith(".conf") and masks[name] == folder]
        for folder in folders
    }
    library, runtime, etc = (files[folder] for folder in folders)
    return [*library, *runtime, "/etc/NetworkManager/NetworkManager.conf", *etc]


def _matches(specs: str, interface: str, mac: str) -> bool:
    """Whether a device list of NetworkManager.conf(5) has an interface in it."""
    wanted = [spec.strip() for spec in specs.replace(",", ";").split(";") if spec.strip()]
    refused = [spec.removeprefix("except:") for spec in wanted if spec.startswith("except:")]
    wanted = [spec for spec in wanted if not spec.startswith("except:")] or ["*"] * bool(refused)
    return not _one_matches(refused, interface, mac) and _one_matches(wanted, interface, mac)


def _one_matches(specs: Iterable[str], interface: str, mac: str) -> bool:
    return any(_matches_one(spec, interface, mac) for spec in specs)


def _matches_one(spec: str, interface: str, mac: str) -> bool:
    if spec.startswith("interface-name:"):
        return fnmatch.fnmatchcase(interface, spec.removeprefix("interface-name:").lstrip("=~"))
    return spec in ("*", interface, "type:ethernet") or spec.lower() in (mac, f"mac:{mac}")


# ifupdown


def _ifupdown(interface: str, root: str) -> Manager | None:
    physical = [line.partition("=")[0] for line in read_text(f"{root}/run/network/ifstate").split()]
    if interface not in physical:
        return None
    stanzas = list(_interfaces("/etc/network/interfaces", root))
    renews = any(words[:2] == ["iface", interface] and "dhcp" in words[3:4] for words in stanzas)
    if any(words[0] == "no-auto-down" and interface in words[1:] for words in stanzas):
        return Manager(IFUPDOWN_NAME, True, renews, "no-auto-down in /etc/network/interfaces")
    for unit in IFUPDOWN:
        if not os.path.exists(f"{root}{GENERATED}/{unit}.d/{NIC_DROP_IN}"):
            return Manager(
                IFUPDOWN_NAME, False, renews, f"{unit} runs ifdown when it stops",
                # The last line may lack its end, or go on in the next one.
                f"printf '\\n\\nno-auto-down %s\\n' {quoted(interface)} >>/etc/network/interfaces",
            )  # fmt: skip
        for folder in ("/etc/systemd/system", "/run/systemd/system"):
            masking = f"{folder}/{unit}.d/{NIC_DROP_IN}"
            if os.path.lexists(root + masking):
                return Manager(
                    IFUPDOWN_NAME, False, renews, f"{masking} replaces what rpinfs says", f"rm {quoted(masking)}"
                )
    return Manager(IFUPDOWN_NAME, True, renews, f"{GENERATED}/{IFUPDOWN[0]}.d/{NIC_DROP_IN} says so")


def _interfaces(path: str, root: str, depth: int = 0) -> Iterator[list[str]]:
    """Lines of interfaces(5) as words, with those of the files that it names by source and source-directory."""
    for line in read_text(root + path).replace("\\\n", " ").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        yield words
        if depth < 3 and words[0] in ("source", "source-directory") and len(words) > 1:
            folder, pattern = os.path.split(words[1]) if words[0] == "source" else (words[1], "*")
            folder = os.path.join(os.path.dirname(path), folder)
            for name in fnmatch.filter(_names(root + folder), pattern):
                yield from _interfaces(f"{folder}/{name}", root, depth + 1)


# dhcpcd


def _dhcpcd(interface: str, root: str) -> Manager | None:
    allowed, persistent, top = True, False, True
    text = read_text(f"{root}/etc/dhcpcd.conf")
    for line in text.splitlines():
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        if words[0] in ("interface", "ssid", "profile", "arping"):
            # All of the line is the name, as dhcpcd reads it.
            top = words == ["interface", interface]
        if words[0] == "denyinterfaces" and _any_pattern(interface, words[1:]):
            allowed = False
        if words[0] == "allowinterfaces" and not _any_pattern(interface, words[1:]):
            allowed = False
        persistent |= words[0] == "persistent" and top
    if not allowed:
        return None
    if persistent:
        return Manager(DHCPCD, True, True, "persistent in /etc/dhcpcd.conf")
    return Manager(
        DHCPCD, False, True, "persistent is missing in /etc/dhcpcd.conf",
        # sed puts nothing before the first line of a file that has none.
        "it counts from the next boot on: "
        + ("sed -i '1i persistent' /etc/dhcpcd.conf" if text else "echo persistent >>/etc/dhcpcd.conf"),
    )  # fmt: skip


# Files


def _any_pattern(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _index(interface: str, root: str) -> str:
    return read_text(f"{root}/sys/class/net/{interface}/ifindex").strip() or "none"


def _processes(root: str) -> set[str]:
    return {read_text(f"{root}/proc/{name}/comm").strip() for name in _names(f"{root}/proc") if name.isdigit()}


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _assignments(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def _settings(text: str) -> Iterator[tuple[str, str, str]]:
    """Section, key and value of each line of an ini file."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            yield section, key.strip(), value.strip()
