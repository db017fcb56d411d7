"""Rules 6 to 8, 10 and 13 on ISC dhcpd and Kea. Tried on ISC dhcpd 4.4.3-P1 and Kea 2.2 (tests/tools/netboot)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rpinfs.netboot.finding import Finding, Gravity
from rpinfs.netboot.packet import BOOT_TEXT, boot_menu
from rpinfs.netboot.read.isc import Statement, walk
from rpinfs.netboot.read.kea import KeaConfig
from rpinfs.netboot.seen import Seen

_DEFINITION = '"option-def": [{"name": "vendor-encapsulated-options", "code": 43, "space": "dhcp4", "type": "binary"}]'
_CLASS = "substring(option[97].hex,1,3) == 'RPi' or substring(pkt4.mac,0,3) == 0xb827eb"
_OPTION_43 = "vendor-encapsulated-options"


def _kea_options(config: KeaConfig) -> Iterator[dict[str, Any]]:
    """Every option of every level."""

    def walk_json(value: object) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "option-data" and isinstance(inner, list):
                    yield from (one for one in inner if isinstance(one, dict))
                yield from walk_json(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk_json(inner)

    yield from walk_json(config.dhcp4)


def _is_43(option: dict[str, Any]) -> bool:
    return option.get("name") == _OPTION_43 or option.get("code") == 43


def _defines_43(config: KeaConfig) -> bool:
    def walk_json(value: object) -> bool:
        if isinstance(value, dict):
            defined = value.get("option-def")
            if isinstance(defined, list) and any(
                isinstance(one, dict) and one.get("code") == 43 and one.get("type") == "binary" for one in defined
            ):
                return True
            return any(walk_json(inner) for inner in value.values())
        return isinstance(value, list) and any(walk_json(inner) for inner in value)

    return walk_json(config.dhcp4)


def kea_without_definition(seen: Seen) -> Iterator[Finding]:
    """Kea sends a bare text as option 43 with length 0 (opnsense/core#10509)."""
    for config in seen.kea:
        options = [option for option in _kea_options(config) if _is_43(option)]
        if options and not _defines_43(config):
            file, line = config.place_of(f'"{_OPTION_43}"', '"code": 43')
            data = str(options[0].get("data", ""))
            taken_apart = options[0].get("csv-format") is False and data.lower().startswith(("06", "0x06"))
            gravity = Gravity.NOTE if taken_apart else Gravity.FAULT
            message = "without a definition of its own Kea takes option 43 apart: a bare text is sent with length 0"
            yield Finding(7, gravity, file, line, message, f'add to "Dhcp4": {_DEFINITION}')


def kea_text(seen: Seen) -> Iterator[Finding]:
    """Option 43 that does not hold the text, or not with its three spaces."""
    for config in seen.kea:
        for option in filter(_is_43, _kea_options(config)):
            data = str(option.get("data", ""))
            sent = _bytes_of(data)
            file, line = config.place_of(data, f'"{_OPTION_43}"')
            write = f'{{"name": "{_OPTION_43}", "csv-format": false, "data": "{boot_menu().hex()}"}}'
            yield from _judge_text(sent, file, line, write, seen)


def _bytes_of(data: str) -> bytes:
    try:
        return bytes.fromhex(data.removeprefix("0x").replace(":", "").replace(" ", ""))
    except ValueError:
        return data.encode("utf-8", "surrogateescape")


def _text_of(value: str) -> bytes:
    return value.strip('"').encode("utf-8", "surrogateescape")


def _judge_text(sent: bytes, file: str, line: int, write: str, seen: Seen) -> Iterator[Finding]:
    if BOOT_TEXT not in sent:
        message = f'a Pi takes no offer whose option 43 lacks the text "{BOOT_TEXT.decode()}"'
        yield Finding(10, Gravity.FAULT, file, line, message, write)
    elif BOOT_TEXT + b"   " not in sent:
        needed = seen.plan is not None and any(pi.board.model == "3B" for pi in seen.plan.pis)
        message = "the boot ROM of a 3B takes no offer without three spaces behind the text"
        yield Finding(6, Gravity.FAULT if needed else Gravity.NOTE, file, line, message, write)


def _maps_in(value: object) -> list[dict[str, Any]]:
    """The maps of a list; none where something else stands in its place."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def kea_class(seen: Seen) -> Iterator[Finding]:
    """A class by option 60 alone: a Pi's DHCPREQUEST lacks it (rpi-eeprom#82)."""
    for config in seen.kea:
        classes = _maps_in(config.dhcp4.get("client-classes"))
        tests = {str(one.get("name", "")): str(one.get("test", "")) for one in classes}
        for one in classes:
            test = str(one.get("test", ""))
            whole = _with_members(test, tests)
            sends_43 = any(_is_43(option) for option in _maps_in(one.get("option-data")))
            by_60 = "option[60]" in whole or "vendor-class-identifier" in whole or "PXEClient" in whole
            otherwise = " or " in whole and ("option[97]" in whole or "pkt4.mac" in whole)
            if sends_43 and by_60 and not otherwise:
                message = "a Pi's DHCPREQUEST has no option 60, and so falls out of this class (rpi-eeprom#82)"
                file, line = config.place_of(test)
                yield Finding(8, Gravity.FAULT, file, line, message, f'"test": "{_CLASS}"')


def _with_members(test: str, tests: dict[str, str]) -> str:
    """A test with those of the classes that it wants a client to be a member of."""
    whole, known = test, set[str]()
    while names := set(re.findall(r"member\('([^']*)'\)", whole)) - known:
        known |= names
        whole = " and ".join([whole, *(tests.get(name, "") for name in sorted(names))])
    return whole


def _is_isc_43(statement: Statement) -> bool:
    return statement.words[:2] == ["option", _OPTION_43] and len(statement.words) > 2 and "code" not in statement.words


def isc_text(seen: Seen) -> Iterator[Finding]:
    """Option 43 of ISC dhcpd, as bytes or as a text."""
    for statement in filter(_is_isc_43, walk(seen.isc)):
        value = "".join(statement.words[2:])
        sent = _text_of(value) if value.startswith('"') else _bytes_of(value)
        write = f"option {_OPTION_43} {boot_menu().hex(':')};"
        yield from _judge_text(sent, statement.file, statement.line, write, seen)


def isc_class(seen: Seen) -> Iterator[Finding]:
    """A class by option 60 that sends option 43."""
    for statement in walk(seen.isc):
        body = statement.body or []
        if statement.words[:1] != ["class"] or not any(_is_isc_43(one) for one in body):
            continue
        for match in (one for one in body if one.words[0] == "match"):
            if "vendor-class-identifier" not in match.text or " or " in match.text:
                continue
            only_roms = "b8:27:eb" in match.text.lower()
            message = "a DHCPREQUEST of a Pi 4 or 5 has no option 60, and so falls out of this class (rpi-eeprom#82)"
            write = 'match if substring(option pxe-client-id, 1, 3) = "RPi" or substring(hardware, 1, 3) = b8:27:eb;'
            gravity = Gravity.NOTE if only_roms else Gravity.FAULT
            yield Finding(8, gravity, match.file, match.line, message, write)


def isc_option_space(seen: Seen) -> Iterator[Finding]:
    """The text as an option of a space of its own (vendor-option-space): sent as it is written, without its header."""
    for statement in walk(seen.isc):
        value = "".join(statement.words[2:])
        in_a_space = statement.words[0:1] == ["option"] and "." in "".join(statement.words[1:2])
        if in_a_space and BOOT_TEXT in _text_of(value):
            write = f"option {_OPTION_43} {boot_menu().hex(':')};"
            yield from _judge_text(_text_of(value), statement.file, statement.line, write, seen)


def isc_next_server(seen: Seen) -> Iterator[Finding]:
    """A server that only next-server names: the boot ROM asks the DHCP server itself (firmware#670)."""
    statements = list(walk(seen.isc))
    boots_pis = any(BOOT_TEXT in _text_of(one.text) or _is_isc_43(one) for one in statements)
    if not boots_pis or any("tftp-server-name" in one.words for one in statements):
        return
    for one in statements:
        if one.words[:1] == ["next-server"] and len(one.words) > 1:
            message = "the boot ROM of a 3B or 3B+ ignores next-server: it asks this host itself for its files"
            write = f'{one.text};\noption tftp-server-name "{one.words[1]}";'
            yield Finding(13, Gravity.WARNING, one.file, one.line, message, write)


RULES = (kea_without_definition, kea_text, kea_class, isc_text, isc_class, isc_option_space, isc_next_server)
