"""The window on the network: the way to the NAS, and the link that it goes over.

What is asked of the kernel here is answered at once. Names are not: `resolve` and `knock` wait for a name server and
for the NAS, and pyroute2 takes some two thousand requests to a cold root to be imported, so it is asked only where the
kernel's answer to one question is not a plain one. Call those in a child with a time to live (probe.py).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time

from rpinfs.boot.host import read_text
from rpinfs.boot.settings import is_ipv4, is_ipv6
from rpinfs.boot.values import dataclass
from rpinfs.errors import RpinfsError, quoted

NFS_PORT = 2049


@dataclass(frozen=True)
class Route:
    """The way to an address. `gateway` is empty where the address is on the same network."""

    address: str
    interface: str
    gateway: str = ""
    source: str = ""


@dataclass(frozen=True)
class Link:
    """A network interface as /sys/class/net shows it.

    Attributes:
        carrier: whether there is a link; None where the interface is switched off.
        speed: Mb/s; None where it does not say so (virtual, wireless, no link).
        duplex: "full", "half" or empty.
        mac: hardware address with colons.
        wireless: whether it is a radio.
    """

    name: str
    carrier: bool | None
    speed: int | None
    duplex: str
    mac: str
    wireless: bool


def route_to(address: str) -> Route:
    """Ask the kernel for the way to an IP address.

    Raises:
        RpinfsError: there is none, or pyroute2 is missing.
    """
    if plain := _plain_route(address):
        return plain
    try:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError
    except ImportError as error:
        raise RpinfsError(f"the network cannot be asked: {error}", "apt install python3-pyroute2") from error
    bare, _, zone = address.partition("%")
    where = {"oif": socket.if_nametoindex(zone)} if zone else {}
    with IPRoute() as kernel:
        try:
            answer = next(iter(kernel.route("get", dst=bare, **where)))
        except NetlinkError as error:
            raise RpinfsError(f"no route to {address}: {os.strerror(error.code)}", "ip route; ip link") from error
        return Route(
            address,
            socket.if_indextoname(answer.get_attr("RTA_OIF")),
            answer.get_attr("RTA_GATEWAY") or "",
            answer.get_attr("RTA_PREFSRC") or "",
        )


# linux/rtnetlink.h, linux/netlink.h
_NEW_ROUTE, _GET_ROUTE, _REQUEST = 24, 26, 1
_DESTINATION, _INTERFACE, _GATEWAY, _SOURCE = 1, 4, 5, 7
_ROUTE = struct.Struct("=IHHII8BI")


def _plain_route(address: str) -> Route | None:
    """As route_to(), by one question of rtnetlink(7); None where the answer is anything but a route."""
    bare, _, zone = address.partition("%")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    number = socket.inet_pton(family, bare)
    said = _attribute(_DESTINATION, number)
    if zone:
        said += _attribute(_INTERFACE, struct.pack("=I", socket.if_nametoindex(zone)))
    length = (_ROUTE.size + len(said), _GET_ROUTE, _REQUEST, 1, 0)
    question = _ROUTE.pack(*length, family, 8 * len(number), *[0] * 7) + said
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
            kernel.sendto(question, (0, 0))
            answer, (sender, _) = kernel.recvfrom(65536)
    except OSError:
        return None
    if sender or len(answer) < _ROUTE.size or _ROUTE.unpack_from(answer)[1] != _NEW_ROUTE:
        return None
    found = _attributes(answer[_ROUTE.size :])
    if len(found.get(_INTERFACE, b"")) != 4:
        return None
    gateway, source = (
        socket.inet_ntop(family, found[kind]) if len(found.get(kind, b"")) == len(number) else ""
        for kind in (_GATEWAY, _SOURCE)
    )
    return Route(address, socket.if_indextoname(struct.unpack("=I", found[_INTERFACE])[0]), gateway, source)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:size]
        # Each begins at a multiple of four bytes.
        data = data[max(4, -(-size // 4) * 4) :]
    return found


def route_in_table(table: str, address: str) -> Route | None:
    """Find the way to an IPv4 address in the text of /proc/net/route: for want of a better answer, but at once.

    Policy routing and local addresses are not in that table.
    """
    best: tuple[int, int, Route] | None = None
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or not int(fields[3], 16) & 1:
            continue
        target, gateway, mask = (int(fields[column], 16) for column in (1, 2, 7))
        if _number(address) & mask != target:
            continue
        length, metric = mask.bit_count(), -int(fields[6])
        if best is None or (length, metric) > best[:2]:
            best = (length, metric, Route(address, fields[0], _dotted(gateway) if gateway else ""))
    return best[2] if best else None


def link(name: str, root: str = "") -> Link | None:
    """Look at an interface; None where there is no such."""
    folder = f"{root}/sys/class/net/{name}"
    mac = read_text(f"{folder}/address").strip()
    if not mac:
        return None
    carrier = read_text(f"{folder}/carrier").strip()
    speed = read_text(f"{folder}/speed").strip()
    return Link(
        name,
        carrier == "1" if carrier else None,
        int(speed) if speed.isdigit() and int(speed) else None,
        duplex if (duplex := read_text(f"{folder}/duplex").strip()) in ("full", "half") else "",
        mac,
        os.path.exists(f"{folder}/wireless") or os.path.exists(f"{folder}/phy80211"),
    )


def is_number(address: str) -> bool:
    """Whether an address needs no name server."""
    return is_ipv4(address) or is_ipv6(address)


def resolve(address: str) -> str:
    """Turn a name into an IP address; may wait for a name server.

    Raises:
        RpinfsError: there is no such name, or nobody to ask.
    """
    if is_number(address):
        return address
    try:
        found = socket.getaddrinfo(address, NFS_PORT, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise RpinfsError(
            f"the name {address} cannot be resolved: {error.strerror}",
            f"write the address itself, Address= in [Server], or have the name known: getent ahosts {quoted(address)}",
        ) from error
    return str(found[0][4][0])


def knock(address: str, seconds: float) -> float:
    """Connect to the NFS port of a server, and return how many seconds that took.

    Raises:
        RpinfsError: nobody answers, or nobody serves NFS there.
    """
    asked = time.monotonic()
    try:
        # Not by create_connection(): it looks the number up as if it were a name, for which Python loads idna.
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect((address, NFS_PORT))
            return time.monotonic() - asked
    except TimeoutError as error:
        raise RpinfsError(
            f"{address} does not answer on the NFS port ({NFS_PORT})",
            f"look whether the NAS is on: ping -c 5 {quoted(address)}",
        ) from error
    except OSError as error:
        remedy = f"look whether the NAS is on: ping -c 5 {quoted(address)}"
        if error.errno == errno.ECONNREFUSED:
            remedy = "the NAS is on, but its NFS server is not; start it there"
        raise RpinfsError(f"{address} does not serve NFS: {os.strerror(error.errno or 0)}", remedy) from error


def _number(address: str) -> int:
    # As in the table: the address in memory order, read as a number of this machine.
    number: int = struct.unpack("=I", socket.inet_aton(address))[0]
    return number


def _dotted(number: int) -> str:
    return socket.inet_ntoa(struct.pack("=I", number))
