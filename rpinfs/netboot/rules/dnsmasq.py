"""Rules 1 to 6, 9, 10 and 12 on dnsmasq. Each was tried on dnsmasq 2.90 (tests/tools/netboot/test_servers.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rpinfs.netboot.boards import OUIS
from rpinfs.netboot.finding import Finding, Gravity
from rpinfs.netboot.packet import BOOT_TEXT
from rpinfs.netboot.read.dnsmasq import Option
from rpinfs.netboot.render.dhcp import PI_OPTIONS, PI_SERVICE, PI_TAGS
from rpinfs.netboot.seen import Seen

_TEXT = BOOT_TEXT.decode()


def _found(rule: int, gravity: Gravity, option: Option, message: str, write: str = "") -> Finding:
    if write and option.file.endswith(_UCI):
        write = "write it in the words of uci, as rpinfs netboot render does (target openwrt)"
    return Finding(rule, gravity, option.file, option.line, message, write)


_UCI = "/config/dhcp"


def _lines(*lines: str) -> str:
    return "\n".join(lines)


def _service(seen: Seen, option: Option) -> str:
    """A pxe-service as a Pi takes it: with its own tags and type, the text with three spaces, and no server."""
    if not option.tags:
        return _lines(*_for_pis_alone(seen))
    tags = [part.strip() for part in option.parts if part.strip().startswith("tag:")]
    plain = [part.strip() for part in option.parts if part.strip() not in tags]
    return f'pxe-service={",".join([*tags, plain[0] if plain else "0"])},"{_TEXT}   "'


def _for_pis_alone(seen: Seen) -> tuple[str, ...]:
    """What says "boot from here" to Pis and to nobody else. `dhcp-ignore` where addresses are given is for nobody."""
    return (*PI_TAGS, "dhcp-ignore=tag:!rpi", PI_SERVICE) if _is_proxy(seen) else (*PI_TAGS, *PI_OPTIONS)


def _with_key(seen: Seen, *keys: str) -> list[Option]:
    return [option for option in seen.dnsmasq if option.key in keys]


def _is_pi_service(option: Option) -> bool:
    return option.key == "pxe-service" and _TEXT in option.value


def _is_proxy(seen: Seen) -> bool:
    return any("proxy" in [part.strip() for part in option.parts] for option in _with_key(seen, "dhcp-range"))


def interface_of_tftp(seen: Seen) -> Iterator[Finding]:
    """enable-tftp=IF for an interface that is not there: no file is served at all, and nothing says so."""
    if seen.interfaces is None:
        return
    for option in _with_key(seen, "enable-tftp"):
        missing = [
            name.strip() for name in option.value.split(",") if name.strip() and name.strip() not in seen.interfaces
        ]
        if missing:
            here = ", ".join(sorted(seen.interfaces - {"lo"})) or "none"
            message = (
                f"no interface {missing[0]} is here (there is {here}): dnsmasq serves no file at all, without a word"
            )
            yield _found(1, Gravity.FAULT, option, message, "enable-tftp")


def service_without_range(seen: Seen) -> Iterator[Finding]:
    """pxe-service and no dhcp-range: dnsmasq sends nothing, and beside another DHCP server nobody notices."""
    if not _with_key(seen, "dhcp-range"):
        for option in _with_key(seen, "pxe-service"):
            message = "without a dhcp-range dnsmasq answers no DHCP request: this line does nothing"
            subnet = str(seen.plan.network.subnet.network_address) if seen.plan else "192.168.1.0"
            yield _found(2, Gravity.FAULT, option, message, f"add the line: dhcp-range={subnet},proxy")


def server_in_proxy_mode(seen: Seen) -> Iterator[Finding]:
    """In proxy mode the Pi fetches its files from the host that dnsmasq runs on, whatever else is written."""
    if not _is_proxy(seen):
        return
    for option in _with_key(seen, "dhcp-option", "dhcp-option-force"):
        if "66" in option.parts or "option:tftp-server" in option.parts:
            message = "in proxy mode dnsmasq drops option 66: the Pi asks this host for its files"
            yield _found(
                3, Gravity.FAULT, option, message, "run dnsmasq on the host that serves the files, or mount them here"
            )
    for option in filter(_is_pi_service, _with_key(seen, "pxe-service")):
        parts = [part for part in option.parts if not part.strip().startswith("tag:")]
        if len(parts) > 3:
            message = f"the Pi ignores the server {parts[3].strip()} (firmware#871): it asks this host for its files"
            yield _found(3, Gravity.FAULT, option, message, _service(seen, option))


def small_blocks(seen: Seen) -> Iterator[Finding]:
    """tftp-no-blocksize, or tftpd-hpa with --refuse blksize: 512 bytes a round trip."""
    for option in _with_key(seen, "tftp-no-blocksize"):
        message = "all files go in blocks of 512 bytes, each a round trip: a boot takes minutes"
        yield _found(4, Gravity.WARNING, option, message, "(leave the line out)")
    for line in seen.tftpd:
        if refused := re.search(r"(?:-r|--refuse)[ =](blksize|tsize)\b", line.text):
            message = "all files go in blocks of 512 bytes, each a round trip: a boot takes minutes"
            if refused[1] == "tsize":
                message = "a board that asks for the size of a file is not told: some take the file for missing"
            right = " ".join(line.text.replace(refused[0], "").split())
            yield Finding(4, Gravity.WARNING, line.file, line.line, message, f'TFTP_OPTIONS="{right}"')


def answers_to_pcs(seen: Seen) -> Iterator[Finding]:
    """A Pi calls itself an x86 PC, so what answers it by its architecture answers PCs as well (rpi-eeprom#182)."""
    ignores = any("tag:!" in option.value for option in _with_key(seen, "dhcp-ignore"))
    for option in filter(_is_pi_service, _with_key(seen, "pxe-service")):
        if not option.tags and not ignores:
            message = "this answers every PC of the LAN that netboots as well: a Pi calls itself an x86 PC"
            gravity = Gravity.WARNING if seen.plan is None or seen.plan.network.pcs else Gravity.NOTE
            yield _found(5, gravity, option, message, _lines(*_for_pis_alone(seen)))


def three_spaces(seen: Seen) -> Iterator[Finding]:
    """The ROM of the 3B takes the text with three spaces behind it alone."""
    for option in filter(_is_pi_service, _with_key(seen, "pxe-service")):
        if f"{_TEXT}   " in option.value:
            continue
        needed = seen.plan is not None and any(pi.board.model == "3B" for pi in seen.plan.pis)
        gravity = Gravity.FAULT if needed else Gravity.NOTE
        message = "the boot ROM of a 3B takes no offer without three spaces behind the text"
        yield _found(6, gravity, option, message, option.text.replace(_TEXT, f"{_TEXT}   "))


def old_addresses(seen: Seen) -> Iterator[Finding]:
    """A list of MAC address halves that is older than the boards (piserver#166)."""
    listed = {
        part.strip().lower()[:8]
        for option in _with_key(seen, "dhcp-mac", "dhcp-host")
        for part in option.parts
        if part.strip().lower().endswith(":*:*:*")
    }
    ours = listed.intersection(OUIS)
    by_guid = any("52:50:69:3" in option.value for option in _with_key(seen, "dhcp-match"))
    missing = sorted(set(OUIS) - listed)
    if ours and missing and not by_guid:
        option = next(
            o for o in _with_key(seen, "dhcp-mac", "dhcp-host") if any(oui in o.value.lower() for oui in ours)
        )
        message = f"Pis whose MAC address begins with {', '.join(missing)} are not known here"
        tag = next((part.strip() for part in option.parts if part.strip().startswith("set:")), "set:rpi")
        guids = (line.replace("set:rpi", tag) for line in PI_TAGS if line.startswith("dhcp-match="))
        yield _found(9, Gravity.WARNING, option, message, _lines(option.text, *guids))


def other_text(seen: Seen) -> Iterator[Finding]:
    """A boot menu whose text is nearly the right one."""
    for option in _with_key(seen, "pxe-service"):
        if _TEXT not in option.value and "raspberry" in option.value.lower():
            message = f'the text must be "{_TEXT}" to the letter (PXE_OPTION43 in an EEPROM can say another)'
            yield _found(10, Gravity.FAULT, option, message, _service(seen, option))


def boot_file_alone(seen: Seen) -> Iterator[Finding]:
    """dhcp-boot and nothing of option 43: a PC boots from it, and a Pi takes no notice."""
    options = _with_key(seen, "dhcp-option", "dhcp-option-force")
    says = any(part == "43" or part.startswith(("vendor:", "encap:")) for option in options for part in option.parts)
    if says or _with_key(seen, "pxe-service") or not _with_key(seen, "dhcp-range"):
        return
    for option in _with_key(seen, "dhcp-boot"):
        message = "no offer says a Pi shall boot from it: without option 43 a file and a server are for PCs alone"
        server = option.parts[2].strip() if len(option.parts) > 2 else ""
        files = [f"dhcp-option-force=tag:rpi,66,{server}"] if server and not _is_proxy(seen) else []
        yield _found(12, Gravity.FAULT, option, message, _lines(option.text, *_for_pis_alone(seen), *files))


RULES = (
    interface_of_tftp, service_without_range, server_in_proxy_mode, small_blocks, answers_to_pcs, three_spaces,
    old_addresses, other_text, boot_file_alone,
)  # fmt: skip
