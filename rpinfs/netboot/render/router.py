"""Routers that are told by a web page or a command line: the values, in words."""

from __future__ import annotations

from rpinfs.netboot.model import Plan
from rpinfs.netboot.packet import BOOT_TEXT, boot_menu
from rpinfs.netboot.render.text import Rendered

_TEXT = f"{BOOT_TEXT.decode()}   "


def words(plan: Plan) -> Rendered:
    """What to set on the router, or that nothing is to be set."""
    if plan.topology != "B" and plan.network.dhcp not in _TOLD_NOTHING:
        return Rendered(f"router-{plan.network.dhcp}.txt", "", "the router", _LEFT_ALONE[plan.network.dhcp == "box"])
    server, menu = plan.tftp_address, boot_menu()
    values = {
        "server": server,
        "text": _TEXT,
        "hex": menu.hex(),
        "colons": menu.hex(":"),
        "subnet": plan.network.subnet,
    }
    text = _WORDS[plan.network.dhcp].format(**values)
    return Rendered(f"router-{plan.network.dhcp}.txt", "", "the router", text)


def has_words(plan: Plan) -> bool:
    """Whether this router has a page of its own, and no file."""
    return plan.network.dhcp in _WORDS


_TOLD_NOTHING = ("consumer", "synology", "pfsense")
"""Never of topology B: what they have to say goes with each of the others."""

_LEFT_ALONE = {
    False: """\
Leave the router as it is. Where options 43 or 66, or a boot server, are set on it already, take them out: a board that
hears two answers takes either.
""",
    True: """\
Switch the DHCP server of the router off: the Linux box gives the addresses.
""",
}
"""By whether another machine gives the addresses."""

_WORDS = {
    "consumer": """\
This router can be told nothing of netbooting, and need not be: leave it as it is.
""",
    "synology": """\
Synology's DHCP server has a PXE page (a boot file and a server), and no way to set option 43: leave the page empty.
""",
    "unifi": """\
UniFi Network, Settings > Networks > (the LAN) > DHCP > DHCP Service Management:
    TFTP Server           {server}
That is option 66, which is enough for boards with an EEPROM (4, 400, CM4, 5, 500, CM5). The ROM of a 3B or 3B+ looks
for option 43, which UniFi cannot send: for those, proxy DHCP beside it (topology A or D).
""",
    "edgeos": """\
EdgeOS or VyOS, in configuration mode (NAME and SUBNET are those of your LAN):
    set service dhcp-server shared-network-name NAME subnet SUBNET tftp-server-name {server}
    commit; save
That is option 66, which is enough for boards with an EEPROM. For the ROM of a 3B or 3B+: proxy DHCP (topology A or D).
""",
    "mikrotik": """\
RouterOS, in a terminal:
    /ip dhcp-server option add name=rpi43 code=43 value=0x{hex}
    /ip dhcp-server option add name=rpi60 code=60 value="s'PXEClient'"
    /ip dhcp-server option add name=rpi66 code=66 value="s'{server}'"
    /ip dhcp-server option sets add name=rpi options=rpi43,rpi60,rpi66
    /ip dhcp-server network set [find address="{subnet}"] dhcp-option-set=rpi
All clients of that network get these options; PCs that netboot from elsewhere need a lease without the set.
""",
    "opnsense": """\
OPNsense: Services > Dnsmasq DNS & DHCP (what OPNsense itself recommends for small networks), DHCP options. Kea sends
option 43 with length 0 from its own page (opnsense/core#10509).
- DHCP tags: rpi
- DHCP options > Match:  tag rpi, option 97, value 00:52:50:69:34*    (Pi 4, 400, CM4)
                         tag rpi, option 97, value 00:52:50:69:35*    (Pi 5, 500, CM5)
- Hosts with the tag rpi for a 3B or 3B+, by its MAC address.
- DHCP options > Set, with the tag rpi, force:
    43    {colons}
    60    PXEClient
    66    {server}
""",
    "pfsense": """\
pfSense: leave it as it is, beside the proxy (topology A or D) or boards that are told by their EEPROM (C): its Kea
takes no custom options. Where there is neither, its ISC server says it (Services > DHCP Server > Additional BOOTP/DHCP
Options):
    43    String    "{text}"
    60    Text      "PXEClient"
    66    Text      "{server}"
""",
}
