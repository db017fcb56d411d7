"""DHCP servers: dnsmasq (proxy and full), ISC dhcpd, Kea, OpenWrt's uci.

What they really send was tried with dnsmasq 2.90, ISC dhcpd 4.4.3-P1 and Kea 2.2 (tests/tools/netboot): the bytes of
every offer, to each board and to a PC beside it. The rules, each with the trouble that it avoids:

1. The text has three spaces behind it: the ROM of the 3B takes no other; nobody else minds.
2. Only Pis are spoken to, by the first bytes of option 97 (RPi4, RPi5) or by the MAC address of the 3B and 3B+: every
   board calls itself an x86 PC, so whatever answers a Pi by its architecture answers the PCs of the LAN as well.
3. No class by option 60: a board's DHCPREQUEST lacks it (rpi-eeprom#82).
4. Where raw bytes are to be given, they are those that dnsmasq makes of pxe-service, with the final ff.
5. dnsmasq ends option 66 with a NUL, whatever is written; EEPROMs take that since 2020 (rpi-eeprom#72).
"""

from __future__ import annotations

import json

from rpinfs.netboot.model import Plan
from rpinfs.netboot.packet import BOOT_TEXT, boot_menu
from rpinfs.netboot.render.text import Rendered, comment

_ROM_OUI = "b8:27:eb"
_GUIDS = ("00:52:50:69:34*", "00:52:50:69:35*")
"""Option 97 of boards with an EEPROM: a type byte, then "RPi4" or "RPi5"."""

PROXY_CONFIG = "/etc/rpi-netboot/dnsmasq-proxy.conf"
_HEAD = "Made by rpinfs netboot render. What is odd here is explained in rpinfs-netboot(8)."


def colons(data: bytes) -> str:
    """Bytes as dnsmasq, ISC dhcpd and MikroTik take them."""
    return data.hex(":")


PI_TAGS = (*(f"dhcp-match=set:rpi,97,{guid}" for guid in _GUIDS), f"dhcp-mac=set:rpi,{_ROM_OUI}:*:*:*")
"""Lines of dnsmasq that give Pis the tag rpi, and nobody else."""

PI_SERVICE = f'pxe-service=tag:rpi,0,"{BOOT_TEXT.decode()}   "'
PI_OPTIONS = (
    f"dhcp-option-force=tag:rpi,43,{colons(boot_menu())}",
    "dhcp-option-force=tag:rpi,60,PXEClient",
)
"""What says "boot from here" where dnsmasq gives addresses as well, byte for byte as PI_SERVICE does, to Pis alone."""


def _dnsmasq_tags(plan: Plan) -> list[str]:
    tags = ["# These are Pis. A Pi calls itself an x86 PC: by its architecture it cannot be told from one.", *PI_TAGS]
    return tags + [f"dhcp-mac=set:rpi,{pi.mac}" for pi in plan.pis if pi.mac and not pi.mac.startswith(_ROM_OUI)]


def dnsmasq_proxy(plan: Plan) -> Rendered:
    """dnsmasq beside a DHCP server that stays as it is: it adds "boot from here", and gives no addresses."""
    serves_files = plan.topology == "D"
    lines = [
        *comment(_HEAD),
        *comment(
            "Beside the DHCP server of this LAN, which stays as it is: this one gives no addresses and no names, it"
            " only tells a Pi where to boot from."
        ),
        "port=0",
        "",
        *_dnsmasq_tags(plan),
        *comment("And nobody else is answered: a PC that netboots would get an empty menu."),
        "dhcp-ignore=tag:!rpi",
        "",
        *comment(
            "Proxy. The Pi takes its files from the host that this answer comes from, whatever is written here: in"
            " proxy mode dnsmasq drops option 66, and the Pi ignores a server in pxe-service (firmware#871)."
        ),
        f"dhcp-range={plan.network.subnet.network_address},proxy,{plan.network.subnet.netmask}",
        "# The three spaces are for the boot ROM of the 3B, which takes no other text.",
        PI_SERVICE,
    ]
    lines += _dnsmasq_tftp(plan) if serves_files else ["", "# No enable-tftp: the NAS has a TFTP server of its own."]
    box = "the Linux box" if serves_files else "the NAS"
    # Not in /etc/dnsmasq.d: port=0 would take the names from a dnsmasq that is there. It is for a service of its own.
    return Rendered("dnsmasq-proxy.conf", PROXY_CONFIG, box, _joined(lines))


def _dnsmasq_tftp(plan: Plan) -> list[str]:
    return [
        "",
        *comment(
            "Not enable-tftp=INTERFACE: with the name of an interface that is not there dnsmasq serves no files at all,"
            " without a word."
        ),
        "enable-tftp",
        f"tftp-root={plan.nas.boot}",
        "# The folder may be a mount from the NAS that comes late.",
        "tftp-no-fail",
        *comment("One port for all answers, so that a firewall needs to know 69 alone. Never tftp-no-blocksize."),
        "tftp-single-port",
    ]


def dnsmasq_full(plan: Plan) -> Rendered:
    """dnsmasq that gives addresses as well. The options are raw: pxe-service would send PCs an empty menu."""
    server = plan.tftp_address
    lines = [
        *comment(_HEAD),
        *_dnsmasq_tags(plan),
        "",
        *comment(
            f'Option 43 as dnsmasq makes it of pxe-service=0,"{BOOT_TEXT.decode()}   ", byte for byte, but for Pis'
            " alone: pxe-service answers PCs too, with an empty menu."
        ),
        *PI_OPTIONS,
        "# Where the files are. The boot ROM ignores next-server (firmware#670): so it is option 66.",
        f"dhcp-option-force=tag:rpi,66,{server}",
    ]
    if plan.network.pool:
        first, last = plan.network.pool
        lines += ["", f"dhcp-range={first},{last},{plan.network.subnet.netmask},12h"]
        lines += [f"dhcp-option=3,{plan.network.router}"] if plan.network.router else []
    else:
        lines += ["", "# The dhcp-range is that of your own configuration."]
    if plan.topology == "D":
        lines += _dnsmasq_tftp(plan)
    box = "the Linux box" if plan.topology == "D" else "the router"
    return Rendered("dnsmasq.conf", "/etc/dnsmasq.d/rpi-netboot.conf", box, _joined(lines))


def isc(plan: Plan) -> Rendered:
    """ISC dhcpd: a class for Pis."""
    server = plan.tftp_address
    lines = [
        *comment(_HEAD),
        *comment("A UUID of the PXE standard; that of a Pi 4 or 5 begins with RPi4 or RPi5 behind its type byte."),
        "option rpi-machine-id code 97 = string;",
        "",
        'class "raspberry-pi" {',
        *("  " + line for line in comment("Not by option 60: a Pi's DHCPREQUEST lacks it (rpi-eeprom#82).")),
        '  match if substring(option rpi-machine-id, 1, 3) = "RPi" or substring(hardware, 1, 3) = b8:27:eb;',
        '  option vendor-class-identifier "PXEClient";',
        "  # The menu with its one entry, three spaces behind the text for the ROM of the 3B, and the final ff.",
        f"  option vendor-encapsulated-options {colons(boot_menu())};",
        "  # Its files. next-server is ignored by the boot ROM (firmware#670), and set for whoever looks at it.",
        f'  option tftp-server-name "{server}";',
        f"  next-server {server};",
        "}",
    ]
    whole = plan.network.pool is not None
    if plan.network.pool:
        first, last = plan.network.pool
        subnet = plan.network.subnet
        lines += ["", f"subnet {subnet.network_address} netmask {subnet.netmask} {{", f"  range {first} {last};"]
        lines += [f"  option routers {plan.network.router};"] if plan.network.router else []
        lines += ["}"]
    return Rendered("dhcpd.conf", "/etc/dhcp/dhcpd.conf", "the router", _joined(lines), owned=whole)


def kea(plan: Plan) -> Rendered:
    """Kea: option 43 needs a definition of its own, or a bare text is sent with length 0."""
    server = plan.tftp_address
    menu = {"name": "vendor-encapsulated-options", "code": 43, "csv-format": False, "data": boot_menu().hex()}
    document: dict[str, object] = {
        # In front of all: without it Kea takes the value apart, and sends a bare text with length 0.
        "option-def": [{"name": "vendor-encapsulated-options", "code": 43, "space": "dhcp4", "type": "binary"}],
        "client-classes": [
            {
                "name": "raspberry-pi",
                "test": "substring(option[97].hex,1,3) == 'RPi' or substring(pkt4.mac,0,3) == 0xb827eb",
                "option-data": [
                    {**menu, "always-send": True},
                    {"name": "vendor-class-identifier", "data": "PXEClient", "always-send": True},
                    {"name": "tftp-server-name", "data": server, "always-send": True},
                ],
                "next-server": server,
            }
        ],
    }
    if plan.network.pool:
        first, last = plan.network.pool
        subnet: dict[str, object] = {
            "id": 1, "subnet": str(plan.network.subnet), "pools": [{"pool": f"{first} - {last}"}],
        }  # fmt: skip
        if plan.network.router:
            subnet["option-data"] = [{"name": "routers", "data": plan.network.router}]
        document = {
            "interfaces-config": {"interfaces": ["*"]},
            "lease-database": {"type": "memfile", "name": "/var/lib/kea/kea-leases4.csv"},
            **document,
            "subnet4": [subnet],
        }
    lines = [
        *comment(_HEAD, "//"),
        *comment(
            "option-def: without it Kea sends a bare text as option 43 with length 0 (opnsense/core#10509).", "//"
        ),
        *comment("The class: not by option 60, which a Pi's DHCPREQUEST lacks (rpi-eeprom#82).", "//"),
        json.dumps({"Dhcp4": document}, indent=2),
    ]
    return Rendered(
        "kea-dhcp4.conf", "/etc/kea/kea-dhcp4.conf", "the router", _joined(lines), owned=bool(plan.network.pool)
    )


def openwrt(plan: Plan) -> Rendered:
    """OpenWrt: the same options by uci, to be pasted into a shell of the router."""
    server = plan.tftp_address
    options = (
        f"tag:rpi,43,{colons(boot_menu())}",
        "tag:rpi,60,PXEClient",
        f"tag:rpi,66,{server}",
    )
    lines = [
        *comment(_HEAD),
        *comment("To be pasted into a shell of the router. It adds to its dnsmasq, and changes nothing that is there."),
        *comment("A Pi calls itself an x86 PC: it is known by option 97 (RPi4, RPi5) or by its MAC address."),
        *(
            f"uci add dhcp match; uci set dhcp.@match[-1].networkid=rpi; uci set dhcp.@match[-1].match='97,{guid}'"
            for guid in _GUIDS
        ),
        f"uci add dhcp mac; uci set dhcp.@mac[-1].networkid=rpi; uci set dhcp.@mac[-1].mac='{_ROM_OUI}:*:*:*'",
        *comment("Lists are added to with add_list: a plain set would replace what is there (openwrt#13116)."),
        *(f"uci add_list dhcp.@dnsmasq[0].dhcp_option_force='{option}'" for option in options),
        "uci commit dhcp",
        "service dnsmasq restart",
    ]
    return Rendered("openwrt.sh", "", "the router", _joined(lines))


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
