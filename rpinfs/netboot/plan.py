"""The plan: a few facts about a network, its NAS and its boards, in a TOML file that the other verbs read.

Pure but for load() and save(). Every value is checked when it is read; an error names the file, the key, the value and
the rule.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from rpinfs.netboot.boards import BOARDS
from rpinfs.netboot.model import NASES, ROUTERS, TOPOLOGIES, VERSIONS, Box, Nas, Network, Pi, Plan, PlanError
from rpinfs.netboot.topology import choose

T = TypeVar("T")

# Reading


def load(path: str) -> Plan:
    """Read a plan. Raises PlanError, OSError."""
    with open(path, "rb") as file:
        try:
            # Editors of Windows put a byte order mark in front.
            document = tomllib.loads(file.read().decode("utf-8-sig").replace("\r\n", "\n"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PlanError(path, "", f"expected TOML: {error}") from error
    return parse(document, path)


def parse(document: Mapping[str, Any], file: str) -> Plan:
    """Make a plan of what a TOML file holds. Raises PlanError."""
    top = _Table(document, file, "")
    tables = [top.table(name) for name in ("network", "nas", "box")]
    boards = top.tables("pi")
    wanted = top.take("topology", _one_of(TOPOLOGIES), "")
    # First, so that [NAS] is not told as one that is missing.
    top.finish()
    network, nas = _network(tables[0]), _nas(tables[1])
    box = _box(tables[2]) if "box" in document else None
    pis = tuple(_pi(table) for table in boards)
    _refuse_twins(pis, file)
    _refuse_addresses(network, nas, box, file)
    plan = Plan(wanted or "A", network, nas, box, pis)
    return choose(plan, wanted, file)


class _Table:
    """One table of the file: takes keys with their rules, and says at the end what it does not know."""

    def __init__(self, values: object, file: str, name: str) -> None:
        if not isinstance(values, Mapping):
            raise PlanError(file, name, "expected a table of keys and values")
        self.values: dict[str, object] = dict(values)
        self.file = file
        self.name = name
        self.known: list[str] = []

    def error(self, key: str, rule: str) -> PlanError:
        return PlanError(self.file, f"{self.name} {key}={self.values.get(key)!r}".strip(), rule)

    def take(self, key: str, rule: Callable[[object], T], default: T | None = None) -> T:
        self.known.append(key)
        if key not in self.values:
            if default is None:
                raise PlanError(self.file, f"{self.name} {key}".strip(), "is missing")
            return default
        try:
            return rule(self.values[key])
        except ValueError as error:
            raise self.error(key, str(error)) from error

    def table(self, name: str) -> _Table:
        self.known.append(name)
        return _Table(self.values.get(name, {}), self.file, f"[{name}]")

    def tables(self, name: str) -> list[_Table]:
        self.known.append(name)
        found = self.values.get(name, [])
        if not isinstance(found, list):
            raise PlanError(self.file, name, f"expected tables, each below a line [[{name}]]")
        return [_Table(values, self.file, f"[[{name}]] {number}") for number, values in enumerate(found, 1)]

    def finish(self) -> None:
        for key in self.values:
            if key not in self.known:
                raise self.error(key, f"unknown key; known are {', '.join(self.known)}")


def _network(table: _Table) -> Network:
    found = Network(
        dhcp=table.take("dhcp", _one_of(ROUTERS), "consumer"),
        subnet=table.take("subnet", _subnet),
        router=table.take("router", _address, ""),
        pool=table.take("pool", _pool, ("", "")),
        pcs=table.take("pcs", _yes_or_no, False),
    )
    table.finish()
    for address in found.pool or ():
        if address and ipaddress.IPv4Address(address) not in found.subnet:
            raise table.error("pool", f"expected addresses in {found.subnet}")
    return replace(found, pool=None) if found.pool == ("", "") else found


def _nas(table: _Table) -> Nas:
    kind = table.take("kind", _one_of(NASES), "linux")
    found = Nas(
        kind=kind,
        address=table.take("address", _address),
        version=table.take("version", _one_of(VERSIONS), "4.1"),
        tftp=table.take("tftp", _yes_or_no, True),
        containers=table.take("containers", _yes_or_no, True),
        root=table.take("root", _export, "/nfsroot"),
        boot=table.take("boot", _export, "/tftpboot"),
        share=table.take("share", _export, "/docker"),
    )
    table.finish()
    for key in ("root", "share"):
        if f"{getattr(found, key)}/".startswith(f"{found.boot.rstrip('/')}/"):
            raise table.error(
                "boot", f"expected a folder without {key}: TFTP gives out all that is in it, to everybody"
            )
    if kind == "synology" and found.version == "4.2":
        raise table.error("version", "expected at most 4.1: DSM does not speak NFS 4.2")
    return found


def _box(table: _Table) -> Box:
    found = Box(table.take("address", _address), table.take("interface", _interface, "eth0"))
    table.finish()
    return found


def _pi(table: _Table) -> Pi:
    found = Pi(
        name=table.take("name", _host_name),
        board=BOARDS[table.take("board", _one_of(tuple(BOARDS)))],
        serial=table.take("serial", _serial, ""),
        mac=table.take("mac", _mac, ""),
        eeprom=table.take("eeprom", _day, ""),
    )
    table.finish()
    if found.eeprom and not found.board.eeprom:
        raise table.error("eeprom", f"expected none: a {found.board.model} has no EEPROM")
    return found


def _refuse_addresses(network: Network, nas: Nas, box: Box | None, file: str) -> None:
    """Each machine has an address of a host in the network, which no DHCP server gives to another one."""
    machines = {"[nas] address": nas.address, "[box] address": box.address if box else "",
                "[network] router": network.router}  # fmt: skip
    first, last = (ipaddress.IPv4Address(one) for one in network.pool or ("0.0.0.0", "0.0.0.0"))
    for what, text in machines.items():
        address = ipaddress.IPv4Address(text or "0.0.0.0")
        if text and address not in network.subnet:
            why = "a relay breaks netboot" if "router" not in what else "a board finds no other one"
            raise PlanError(file, f"{what}={text}", f"expected an address in {network.subnet}: {why}")
        if text and address in (network.subnet.network_address, network.subnet.broadcast_address):
            raise PlanError(
                file, f"{what}={text}", f"expected the address of a machine: it is that of {network.subnet}"
            )
        if text and first <= address <= last:
            rule = f"expected no address of a machine in it: {text} is {what.replace('[', 'that of [')}"
            raise PlanError(file, f"[network] pool={first}-{last}", rule)


def _refuse_twins(pis: tuple[Pi, ...], file: str) -> None:
    for key in ("name", "serial", "mac"):
        seen: dict[str, str] = {}
        for pi in pis:
            value = getattr(pi, key)
            if value and value in seen:
                raise PlanError(file, f"{key}={value}", f"two boards have it: {seen[value]} and {pi.name}")
            seen[value] = pi.name
    folders: dict[str, str] = {}
    for pi in pis:
        folder = pi.serial or pi.name
        if folder in folders:
            raise PlanError(
                file, f"name={folder}", f"expected another name: it is the TFTP folder of {folders[folder]}"
            )
        folders[folder] = pi.name


# Rules


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("expected a printable text in quotes")
    return value


def _one_of(known: tuple[str, ...]) -> Callable[[object], str]:
    def rule(value: object) -> str:
        if value in known:
            return str(value)
        meant = next((one for one in known if one.lower() == str(value).lower()), "")
        raise ValueError(f'expected "{meant}", as it stands here' if meant else f"expected one of {', '.join(known)}")

    return rule


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _subnet(value: object) -> ipaddress.IPv4Network:
    try:
        found = ipaddress.IPv4Network(_text(value), strict=False)
    except ValueError as error:
        raise ValueError("expected an IPv4 network such as 192.168.1.0/24 (boards netboot by IPv4 alone)") from error
    if not 8 <= found.prefixlen <= 30:
        raise ValueError("expected a network with its length, from /8 to /30, such as 192.168.1.0/24")
    if found.is_loopback or found.is_multicast or found.is_reserved:
        raise ValueError("expected the network of a LAN, such as 192.168.1.0/24")
    return found


def _address(value: object) -> str:
    try:
        return str(ipaddress.IPv4Address(_text(value)))
    except ValueError as error:
        raise ValueError("expected an IPv4 address such as 192.168.1.10: a board that boots knows no names") from error


def _pool(value: object) -> tuple[str, str]:
    first, dash, last = _text(value).partition("-")
    try:
        low, high = ipaddress.IPv4Address(first.strip()), ipaddress.IPv4Address(last.strip())
    except ValueError:
        dash = ""
    if not dash or low > high:
        raise ValueError("expected two addresses, the lower one first, such as 192.168.1.100-192.168.1.200")
    return str(low), str(high)


def _export(value: object) -> str:
    path = _text(value)
    if not path.startswith("/") or ".." in path.split("/") or any(c in path for c in " \"'\\#,"):
        raise ValueError("expected an absolute path without spaces, quotes, backslashes, commas, # and ..")
    return "/" + "/".join(part for part in path.split("/") if part)


def _interface(value: object) -> str:
    name = _text(value)
    if not 0 < len(name) < 16 or not name.replace("-", "").replace(".", "").replace("_", "").isalnum():
        raise ValueError("expected the name of a network interface, such as eth0")
    return name


def _host_name(value: object) -> str:
    name = _text(value)
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    if not 0 < len(name) <= 63 or not set(name) <= allowed or name[0] == "-" or name[-1] == "-":
        raise ValueError("expected a host name of lower-case letters, digits and dashes, such as pi1")
    return name


def _serial(value: object) -> str:
    text = _text(value).lower().removeprefix("0x")
    if len(text) not in (8, 16) or not set(text) <= set("0123456789abcdef"):
        raise ValueError("expected eight hexadecimal digits, or the sixteen of /proc/cpuinfo")
    low = text[-8:]
    if len(set(low)) == 1:
        raise ValueError("expected the serial number of a board: this one says nothing")
    return low


def _mac(value: object) -> str:
    text = _text(value).lower().replace("-", ":").replace(".", "")
    # As labels and switches have it: dca632123456, dca6.3212.3456.
    pairs = text.split(":") if ":" in text else [text[at : at + 2] for at in range(0, len(text), 2)]
    if len(pairs) != 6 or any(len(pair) != 2 or not set(pair) <= set("0123456789abcdef") for pair in pairs):
        raise ValueError("expected a MAC address such as dc:a6:32:12:34:56")
    return ":".join(pairs)


def _day(value: object) -> str:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    try:
        return datetime.date.fromisoformat(_text(value).replace("/", "-")).isoformat()
    except ValueError as error:
        raise ValueError("expected a day such as 2023-01-11, as vcgencmd bootloader_version prints it") from error


# Writing


def text_of(plan: Plan) -> str:
    """A plan as TOML."""
    nas, network = plan.nas, plan.network
    lines = [
        "# Made by rpinfs netboot plan; rpinfs-netboot(8) explains every key.",
        f'topology = "{plan.topology}"',
        "",
        "[network]",
        f'dhcp = "{network.dhcp}"',
        f'subnet = "{network.subnet}"',
        *([f'router = "{network.router}"'] if network.router else []),
        *([f'pool = "{"-".join(network.pool)}"'] if network.pool else []),
        f"pcs = {str(network.pcs).lower()}",
        "",
        "[nas]",
        *(f'{key} = "{getattr(nas, key)}"' for key in ("kind", "address", "version", "root", "boot", "share")),
        *(f"{key} = {str(getattr(nas, key)).lower()}" for key in ("tftp", "containers")),
    ]
    if plan.box:
        lines += ["", "[box]", f'address = "{plan.box.address}"', f'interface = "{plan.box.interface}"']
    for pi in plan.pis:
        lines += ["", "[[pi]]", f'name = "{pi.name}"', f'board = "{pi.board.model}"']
        lines += [f'{key} = "{getattr(pi, key)}"' for key in ("serial", "mac", "eeprom") if getattr(pi, key)]
    return "\n".join(lines) + "\n"


def save(plan: Plan, path: str) -> None:
    """Write a plan to a file, whole or not at all. Raises OSError."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text_of(plan))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
