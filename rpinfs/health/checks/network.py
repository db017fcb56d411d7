"""Checks of the way to the NAS."""

from __future__ import annotations

from rpinfs.boot.settings import milliseconds
from rpinfs.errors import RpinfsError, quoted
from rpinfs.health.checks.base import Check, Finding, critical, ok, warning
from rpinfs.health.facts import Facts, Nas, NotAskedError, Space, link_to_nas, route
from rpinfs.system.deadline import TimedOut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.system.nic import Manager

SLOW_LINK = 100
"""Mb/s. What a Raspberry Pi has at the least when its cable and switch are well."""

SLOW_CONNECTION = 0.2
"""Seconds. A server in the same house takes a connection within a few milliseconds."""


def _network_route(facts: Facts) -> Finding | None:
    if not facts.live:
        return None
    way = route(facts)
    if way is None:
        facts.answer("route", object)
        return None
    by = f" by {way.gateway}" if way.gateway else ""
    return ok(f"the NAS {way.address} is reached over {way.interface}{by}")


def _network_server(facts: Facts) -> Finding:
    server = facts.config.server.address
    try:
        nas = facts.answer("nas", Nas)
    except NotAskedError:
        raise
    except TimedOut as silence:
        if facts.known("share", Space):
            raise
        return critical(f"the NAS {server} gave {silence.message}")
    except RpinfsError as error:
        return critical(error.message, error.remedy or "")
    message = f"the NAS {server} takes a connection in {milliseconds(nas.seconds)}"
    if nas.seconds > SLOW_CONNECTION:
        return warning(
            message,
            f"storage wants a NAS in the same network, by cable, with time to spare: ping -c 5 {quoted(nas.address)}",
        )
    return ok(message)


def _network_link(facts: Facts) -> Finding | None:
    link = link_to_nas(facts)
    if link is None or link.name == "lo":
        return None
    if not link.carrier:
        return critical(f"{link.name} has no link", "look at the cable and the switch")
    if link.wireless:
        return warning(f"{link.name}, on the way to the NAS, is wireless", "use a cable for storage")
    if link.duplex == "half":
        return warning(f"{link.name} runs at half duplex")
    if link.speed is not None and link.speed < SLOW_LINK:
        return warning(f"{link.name} runs at {link.speed} Mb/s")
    speed = f" at {link.speed} Mb/s" if link.speed else ""
    return ok(f"{link.name} has a link{speed}{f', {link.duplex} duplex' if link.duplex else ''}")


def _network_manager(facts: Facts) -> Finding | None:
    answer: tuple[str, list[Manager]] = facts.answer("nic", tuple)
    name, found = answer
    if name == "lo":
        return None
    if not found:
        return ok(f"nobody manages {name}; reserve its address on the DHCP server, nobody renews it")
    taker = next((manager for manager in found if not manager.keeps), None)
    if taker and facts.host.root_on_nfs:
        return warning(f"{taker.name} may take down {name}, which carries the root: {taker.why}", taker.remedy)
    renewing = [manager.name for manager in found if manager.renews]
    if len(renewing) > 1:
        return warning(
            f"{' and '.join(renewing)} both manage {name}", "have one of them manage it, and the others leave it alone"
        )
    by = ", ".join(manager.name for manager in found)
    if taker:
        # Its stop comes after the mounts are gone: all four are ordered before network.target.
        return ok(f"{by} manages {name}, and stops after the mounts")
    unrenewed = "" if renewing else "; nobody renews its address: reserve it on the DHCP server"
    return ok(f"{by} manages {name} and leaves it up: {found[0].why}{unrenewed}")


CHECKS = (
    Check(
        "network.link",
        "the interface to the NAS has a full-speed link",
        _network_link,
        remedy="look at the cable and the switch",
        explanation=f"""
            Looks at the interface that the way to the NAS goes over: carrier, speed and duplex as the driver tells
            them in /sys/class/net. Critical: there is no link. Warning: it is wireless, it runs at half duplex (a
            switch port that is not set to auto: collisions, and a tenth of the speed), or at less than {SLOW_LINK}
            Mb/s (mostly a bad cable).
        """,
        needs=("route",),
    ),
    Check(
        "network.manager",
        "whoever manages the interface to the NAS leaves it up",
        _network_manager,
        remedy="see NETWORK in rpinfs-generator(8)",
        explanation="""
            Reads from files and /run who manages the interface (NetworkManager, systemd-networkd, ifupdown, dhcpcd) and
            whether it is told to leave it up when it stops. Warning: the root is on NFS and would lose its network, or
            two of them renew the same address. Where nobody renews it, the DHCP server must not give it away.
        """,
        needs=("nic",),
    ),
    Check(
        "network.route",
        "there is a way to the NAS",
        _network_route,
        remedy="ip route; ip link",
        explanation="""
            Asks the kernel over which interface and gateway it would send to the server's address, and names them.
            Where that takes too long, its plain table of IPv4 routes has to do. Unknown: there is no route, or the
            server's name cannot be resolved.
        """,
        needs=("route",),
    ),
    Check(
        "network.server",
        "the NFS server of the NAS takes connections",
        _network_server,
        remedy="look whether the NAS is on, and whether the address in [Server] is right",
        explanation=f"""
            Connects to TCP port 2049 of the server, and hangs up. Critical: nobody answers, or the NAS is on and
            its NFS server is not; the message tells which. Warning: the connection took more than
            {milliseconds(SLOW_CONNECTION)}. Unknown: no answer yet, while the share itself answers.
        """,
        needs=("nas", "share"),
    ),
)
"""Rows of the table."""
