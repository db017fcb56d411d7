"""What a plan holds: a network, its NAS and its boards. Values that were checked when they were read, see plan.py."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from rpinfs.errors import RpinfsError
from rpinfs.netboot.boards import Board

ROUTERS = (
    "consumer", "unifi", "edgeos", "mikrotik", "openwrt", "opnsense", "pfsense", "dnsmasq", "isc", "kea", "synology",
    "box",
)  # fmt: skip
"""What gives addresses. `consumer`: a router that can be told nothing of netbooting; `box`: our Linux box."""

NASES = ("linux", "synology", "truenas", "omv", "qnap")
VERSIONS = ("3", "4.0", "4.1", "4.2")
TOPOLOGIES = ("A", "B", "C", "D")


class PlanError(RpinfsError):
    """A plan that cannot be: `FILE: KEY=VALUE: RULE`. Exit status 2."""

    def __init__(self, file: str, what: str, rule: str, remedy: str | None = None) -> None:
        super().__init__(": ".join(part for part in (file, what, rule) if part), remedy, status=2)


@dataclass(frozen=True)
class Network:
    """The LAN.

    Attributes:
        dhcp: what gives addresses, one of ROUTERS.
        subnet: in CIDR form; the boards and whatever serves them are in it.
        router: its address, for the boards' way out; empty where they need none.
        pool: first and last address that are given out, where a whole DHCP server is to be rendered.
        pcs: whether other machines netboot here, which must be left alone.
    """

    dhcp: str
    subnet: ipaddress.IPv4Network
    router: str = ""
    pool: tuple[str, str] | None = None
    pcs: bool = False


@dataclass(frozen=True)
class Nas:
    """The server of the files.

    Attributes:
        tftp: whether it has a TFTP server.
        containers: whether it runs containers with the host's network.
        root, boot, share: its exports: the folder with the boards' roots, the TFTP folder, the images.
    """

    kind: str
    address: str
    version: str = "4.1"
    tftp: bool = True
    containers: bool = True
    root: str = "/nfsroot"
    boot: str = "/tftpboot"
    share: str = "/docker"


@dataclass(frozen=True)
class Box:
    """A Linux machine beside the NAS that may answer DHCP and TFTP. `interface`: the one on the boards' LAN."""

    address: str
    interface: str


@dataclass(frozen=True)
class Pi:
    """One board of ours.

    Attributes:
        name: its host name, and the name of its folder below the roots.
        serial: eight hexadecimal digits, which its TFTP folder is called by; empty while nobody knows it.
        mac: with colons; empty while nobody knows it.
        eeprom: the day of its bootloader, such as 2023-01-11, which `vcgencmd bootloader_version` prints; empty while
            nobody knows it.
    """

    name: str
    board: Board
    serial: str = ""
    mac: str = ""
    eeprom: str = ""


@dataclass(frozen=True)
class Plan:
    """All of it. `topology`: one of TOPOLOGIES, see topology.py."""

    topology: str
    network: Network
    nas: Nas
    box: Box | None = None
    pis: tuple[Pi, ...] = field(default_factory=tuple)

    @property
    def has_rom_boards(self) -> bool:
        """Whether a board boots by its ROM, which looks at option 43 alone."""
        return any(not pi.board.eeprom for pi in self.pis)

    @property
    def tftp_address(self) -> str:
        """Address of the server that the boards fetch their boot files from."""
        return self.box.address if self.topology == "D" and self.box else self.nas.address
