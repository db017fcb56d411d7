"""OpenWrt's /etc/config/dhcp: the options of dnsmasq that are made of it. Source: OpenWrt, dnsmasq.init."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rpinfs.netboot.read.dnsmasq import Option
from rpinfs.netboot.read.source import SyntaxFault

_SAME = ("dhcp_boot", "dhcp_option", "dhcp_option_force", "tftp_root")
"""Keys that are the options themselves, with another dash."""


def parse(text: str, file: str) -> list[Option]:
    """Read a file. What is not about booting is left out. Raises SyntaxFault."""
    found: list[Option] = []
    section: dict[str, tuple[int, str]] = {}
    kind, begun = "", 0
    for number, words in _lines(text, file):
        if words[0] == "package" and len(words) == 2:
            continue  # As `uci export` begins.
        if words[0] == "config":
            found += _of_section(kind, section, file, begun)
            kind, begun, section = words[1] if len(words) > 1 else "", number, {}
        elif words[0] in ("option", "list") and len(words) == 3:
            key, value = words[1], words[2]
            if kind in ("dnsmasq", "dhcp") and key in _SAME:
                found.append(Option(file, number, key.replace("_", "-"), value))
            section[key] = number, value
        else:
            raise SyntaxFault(file, number, "expected config TYPE, option KEY VALUE or list KEY VALUE")
    return found + _of_section(kind, section, file, begun)


def _lines(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise SyntaxFault(file, number, "expected a closing quote") from error
        if words:
            yield number, words


def _of_section(kind: str, section: dict[str, tuple[int, str]], file: str, begun: int) -> list[Option]:
    """What several lines of a section say together."""

    def value(key: str) -> str:
        return section.get(key, (0, ""))[1]

    if kind == "dnsmasq" and value("enable_tftp") == "1":
        return [Option(file, section["enable_tftp"][0], "enable-tftp", "")]
    if kind == "dhcp" and value("ignore") != "1":
        return [Option(file, begun, "dhcp-range", ",".join((value("start"), value("limit"))))]
    if kind == "boot":
        return [Option(file, begun, "dhcp-boot", ",".join(map(value, ("filename", "servername", "serveraddress"))))]
    if kind in ("match", "mac"):
        return [Option(file, begun, f"dhcp-{kind}", f"set:{value('networkid')},{value(kind)}")]
    return []
