"""What `rpinfs netboot watch` says of what it hears; on a real wire: tests/tools/netboot/test_doctor.py."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.errors import RpinfsError
from rpinfs.lease.holders import Holder
from rpinfs.lease.owner import Owner
from rpinfs.lease.report import Report
from rpinfs.netboot import packet
from rpinfs.netboot.boards import BOARDS
from rpinfs.netboot.listening import NETCONSOLE_PORT, Said, said
from rpinfs.netboot.packet import discover, pc_discover, request
from rpinfs.netboot.rpc import NFS_PORT
from rpinfs.netboot.tftp import PORT as TFTP_PORT
from rpinfs.netboot.watch import QUIET_SECONDS, Watch
from rpinfs.netboot.wire import CLIENT_PORT, SERVER_PORT

MAC, SERIAL, TRANSACTION = bytes.fromhex("dca632123456"), bytes.fromhex("1a2b3c4d"), b"\1\2\3\4"
NAS, ROUTER, PI = "192.168.1.10", "192.168.1.1", "192.168.1.50"
FOUR = Said(SERVER_PORT, discover(BOARDS["4"], MAC, SERIAL, TRANSACTION), "0.0.0.0")
ASKS = "dc:a6:32:12:34:56: asks for the folder 1a2b3c4d"
NAMES = {"1a2b3c4d": "pi1"}


def heard(*events: Said | None, tftp: str = "", names: dict[str, str] | None = None) -> list[str]:
    return list(Watch(tftp, names).lines(events))


def from_pi(**options: bytes) -> Said:
    """A request of the board's kernel: without what its firmware says of it."""
    codes = {"kind": packet.DHCP_TYPE, "wants": packet.REQUESTED}
    return Said(
        SERVER_PORT, request(MAC, TRANSACTION, {codes[key]: value for key, value in options.items()}), "0.0.0.0"
    )


def offer(server: str, yours: str = "0.0.0.0", kind: int = packet.OFFER, **options: bytes) -> Said:
    codes = {"menu": packet.VENDOR, "name": packet.TFTP_NAME}
    made = {packet.DHCP_TYPE: bytes([kind]), packet.SERVER: socket.inet_aton(server)}
    data = bytearray(request(MAC, TRANSACTION, made | {codes[key]: value for key, value in options.items()}))
    data[16:20] = socket.inet_aton(yours)
    return Said(CLIENT_PORT, bytes(data), server, "255.255.255.255")


def file(name: str) -> Said:
    return Said(TFTP_PORT, b"\0\1" + name.encode() + b"\0octet\0", PI, NAS)


def test_who_asks(tmp_path: Path) -> None:
    (tmp_path / "1a2b3c4d").mkdir()
    assert heard(FOUR, FOUR) == [f"Raspberry Pi 4, {ASKS}"]
    assert heard(FOUR, tftp=str(tmp_path)) == [f"Raspberry Pi 4, {ASKS}, which is there"]
    assert heard(FOUR, names=NAMES) == [f"pi1: Raspberry Pi 4, {ASKS}"]
    assert heard(FOUR, names={"dc:a6:32:12:34:56": "pi2"}) == [f"pi2: Raspberry Pi 4, {ASKS}"]
    rom = discover(BOARDS["3B+"], bytes.fromhex("b827eb5e2a2e"), bytes.fromhex("e75e2a2e"), TRANSACTION)
    (line,) = heard(Said(SERVER_PORT, rom, "x"), tftp=str(tmp_path))
    assert "3B+, b8:27:eb:5e:2a:2e: asks for the folder e75e2a2e, missing" in line
    old = discover(BOARDS["3B"], bytes.fromhex("b827eb5e2a2e"), bytes.fromhex("e75e2a2e"), TRANSACTION)
    assert "a folder that ends in 5e2a2e" in heard(Said(SERVER_PORT, old, "x"))[0]


@pytest.mark.parametrize("data", [pc_discover(bytes(6), TRANSACTION), b"junk", from_pi(kind=b"\1").data])
def test_who_does_not(data: bytes) -> None:
    """A PC, noise, and a Pi whose system runs, which was told by its MAC address as one that boots."""
    assert heard(Said(SERVER_PORT, data, "x"), Said(CLIENT_PORT, data, "x")) == []


def test_a_boot_from_its_first_request_to_its_lease(tmp_path: Path) -> None:
    """On the host of all servers everything is heard."""
    (tmp_path / "1a2b3c4d").mkdir()
    (tmp_path / "1a2b3c4d/cmdline.txt").touch()
    events = [
        Said(NETCONSOLE_PORT, b"RPi: BOOTLOADER\n\x1b[2Jx\n", PI),
        FOUR, FOUR, offer(ROUTER, PI), offer(NAS, menu=packet.boot_menu()), offer(NAS, menu=packet.boot_menu()),
        from_pi(kind=b"\3", wants=socket.inet_aton(PI)), offer(ROUTER, PI, packet.ACK),
        Said(NETCONSOLE_PORT, b"NET 192.168.1.50\n\n", PI),
        file("1a2b3c4d/start4.elf"), file("1a2b3c4d/config.txt"), file("1a2b3c4d/kernel8.img"),
        file("1a2b3c4d/kernel8.img"), file("1a2b3c4d/cmdline.txt"),
        from_pi(kind=b"\1"), offer(ROUTER, PI), from_pi(kind=b"\1"),
        Said(NFS_PORT, b"", PI, NAS), Said(NFS_PORT, b"", PI, NAS), Said(NFS_PORT, b"", "192.168.1.77", NAS),
    ]  # fmt: skip
    top = str(tmp_path)
    assert heard(*events, tftp=top, names=NAMES) == [
        f"{PI}: RPi: BOOTLOADER",
        f"{PI}:  [2Jx",
        f"pi1: Raspberry Pi 4, {ASKS}, which is there",
        f"pi1: {ROUTER} offers {PI}, and does not say to boot: it sends no option 43",
        f"pi1: {NAS} offers no address, and says to boot from {NAS} (by option 54)",
        "pi1: NET 192.168.1.50",
        f"pi1: fetches its files from {NAS}, 1a2b3c4d/start4.elf first",
        f"pi1: asks for 1a2b3c4d/kernel8.img, missing in {top}",
        "pi1: asks for 1a2b3c4d/cmdline.txt",
        "pi1: its kernel runs, and asks for an address",
        f"pi1: asks {NAS} for its root (NFS)",
    ]


@pytest.mark.parametrize(("wants", "whose"), [
    ({"wants": socket.inet_aton(PI)}, "pi1"),
    ({}, "pi1"),
    ({"wants": b"\1\2\3"}, PI),
    ({"wants": bytes(4)}, PI),
])  # fmt: skip
def test_whose_an_address_is_tells_the_request_for_it(wants: dict[str, bytes], whose: str) -> None:
    """By option 50, or where that is not sent by the address that it has; the answer may go to the board alone."""
    asked = bytearray(from_pi(kind=b"\3", **wants).data)
    asked[12:16] = bytes(4) if wants else socket.inet_aton(PI)
    log = Said(NETCONSOLE_PORT, b"NET", PI)
    assert heard(FOUR, Said(SERVER_PORT, bytes(asked), "0.0.0.0"), log, names=NAMES)[1:] == [f"{whose}: NET"]


def test_where_servers_are_elsewhere_a_file_tells_whose_it_is() -> None:
    """On the host of the TFTP server alone: no offer was heard, and so no address."""
    assert heard(file("1a2b3c4d/start4.elf"), FOUR, file("99999999/x"), file("1a2b3c4d/start4.elf")) == [
        f"Raspberry Pi 4, {ASKS}",
        f"dc:a6:32:12:34:56: fetches its files from {NAS}, 1a2b3c4d/start4.elf first",
    ]


def test_a_board_that_nobody_answers_and_one_that_begins_again() -> None:
    unheard = "nobody was heard to offer it anything: rpinfs netboot doctor says why"
    again = f"dc:a6:32:12:34:56: has asked 3 times, and {unheard}"
    assert heard(*[FOUR] * 5) == [f"Raspberry Pi 4, {ASKS}", again]
    told = offer(NAS, PI, menu=packet.boot_menu())
    said_of_it = f"dc:a6:32:12:34:56: {NAS} offers {PI}, and says to boot from {NAS} (by option 54)"
    assert heard(FOUR, told, *[FOUR] * 5) == [f"Raspberry Pi 4, {ASKS}", said_of_it]
    first = f"dc:a6:32:12:34:56: fetches its files from {NAS}, start4.elf first"
    assert heard(FOUR, told, file("start4.elf"), FOUR, told, file("start4.elf")) == [
        f"Raspberry Pi 4, {ASKS}", said_of_it, first,
        "dc:a6:32:12:34:56: begins again; it had got so far: it fetches start4.elf",
        f"Raspberry Pi 4, {ASKS}", said_of_it, first,
    ]  # fmt: skip


class Share:
    """Leases as they are at each look."""

    def __init__(self, *looks: Iterable[Holder] | Exception) -> None:
        self.looks = list(looks)

    def __call__(self) -> Iterable[Holder]:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, Exception):
            raise look
        return look


def lease(seen: float, serial: str = "100000001a2b3c4d", name: str = "pi1", report: Report | None = None) -> Holder:
    return Holder(f"/docker/docker-{serial}.img", Owner(serial, name, seen=seen), report)


UP = "is up: its lease of docker-100000001a2b3c4d.img is on the share"


def watched(share: Share, *events: Said | None, names: dict[str, str] | None = None) -> list[str]:
    return list(Watch("", names, share).lines(events))


def test_a_lease_says_that_it_is_up() -> None:
    """One that is renewed: what stands there from an earlier boot says nothing. Said once a boot."""
    report = Report("100000001a2b3c4d", "0.1.0", "Pi 4", "ok", "Docker is up")
    share = Share([lease(5)], [lease(5)], [lease(9, report=report)], [lease(12)], [lease(15)])
    assert watched(share, FOUR, None, None, None, None) == [
        f"Raspberry Pi 4, {ASKS}",
        f"pi1 {UP}; by its own word: ok, Docker is up",
    ]
    named = watched(
        Share([], [lease(9)], [lease(9)], [lease(10)]), FOUR, None, FOUR, None, None, names={"1a2b3c4d": "kitchen"}
    )
    assert named == [
        f"kitchen: Raspberry Pi 4, {ASKS}", f"kitchen {UP}",
        "kitchen: begins again; it had got so far: it is up", f"kitchen: Raspberry Pi 4, {ASKS}", f"kitchen {UP}",
    ]  # fmt: skip


def test_leases_of_who_was_not_heard() -> None:
    """It asked before anybody listened, or by another switch."""
    share = Share(
        [lease(5), lease(5, "other", "")], [lease(6), lease(6, "other", "")], [lease(7), lease(7, "other", "")]
    )
    assert watched(share, None, None) == [f"pi1 {UP}", "other is up: its lease of docker-other.img is on the share"]
    broken = [Holder("/docker/x", None, fault=RpinfsError("x"))]
    assert watched(Share(broken), None) == []


def test_a_3b_and_a_board_known_by_its_mac_address() -> None:
    old = Said(SERVER_PORT, discover(BOARDS["3B"], bytes.fromhex("b827eb5e2a2e"), SERIAL, TRANSACTION), "x")
    share = Share([], [lease(9, "00000000e75e2a2e", "pi3")])
    assert watched(share, old, None)[1:] == ["pi3 is up: its lease of docker-00000000e75e2a2e.img is on the share"]
    share = Share([], [lease(9, "dc-a6-32-12-34-56", "pi4")])
    assert watched(share, FOUR, None)[1:] == ["pi4 is up: its lease of docker-dc-a6-32-12-34-56.img is on the share"]


def test_a_share_that_cannot_be_looked_at_is_told_once() -> None:
    gone, stale = FileNotFoundError(2, "No such file or directory", "/docker"), RpinfsError("too many")
    assert watched(Share(gone, gone, stale, [], gone), FOUR, None, None, None, None) == [
        f"Raspberry Pi 4, {ASKS}",
        "leases cannot be looked at: too many",
        "leases cannot be looked at: /docker: No such file or directory",
    ]


def test_who_falls_silent_is_told_how_far_it_got() -> None:
    times = iter([0.0, 1.0, QUIET_SECONDS, QUIET_SECONDS + 2, *(QUIET_SECONDS * number for number in range(9, 13))])
    watch = Watch("", NAMES, now=lambda: next(times))
    events = [FOUR, Said(TFTP_PORT, b"\0\1" + b"1a2b3c4d/start4.elf\0", PI, NAS), None, None, None]
    assert list(watch.lines(events))[2:] == [
        "pi1: nothing was heard of it for 120 s; so far it got: it fetches 1a2b3c4d/start4.elf"
    ]


def ip_packet(protocol: int, port: int, body: bytes, *, fragment: int = 0) -> bytes:
    transport = struct.pack("!HHHH", 1, port, 8 + len(body), 0) + body
    if protocol == socket.IPPROTO_TCP:
        transport = struct.pack("!HHIIBBHHH", 1, port, 0, 0, 0x50, body[0], 0, 0, 0)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x46, 0, 0, 0, fragment, 64, protocol, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    )
    return head + bytes(4) + transport


def test_what_is_read_of_a_packet() -> None:
    udp, tcp = socket.IPPROTO_UDP, socket.IPPROTO_TCP
    assert said(ip_packet(udp, 69, b"ab") + b"padding") == Said(69, b"ab", "10.0.0.1", "10.0.0.2")
    assert said(ip_packet(tcp, 2049, b"\x02")) == Said(2049, b"", "10.0.0.1", "10.0.0.2")
    assert said(ip_packet(tcp, 2049, b"\xc2")) is not None, "with ECN"
    nothing = [
        ip_packet(tcp, 2049, b"\x12"), ip_packet(tcp, 2049, b"\x10"), ip_packet(tcp, 67, b"\x02"),
        ip_packet(udp, 2049, b"a"), ip_packet(udp, 53, b"a"), ip_packet(1, 67, b"a"),
        ip_packet(udp, 69, b"a", fragment=7), ip_packet(tcp, 2049, b"\x02")[:37], ip_packet(udp, 69, b"")[:30],
        b"", b"E",
    ]  # fmt: skip
    assert [said(packet) for packet in nothing] == [None] * len(nothing)


@given(
    st.lists(st.tuples(st.sampled_from([67, 68, 69, 2049, 6666]), st.binary(max_size=300), st.booleans()), max_size=8)
)
def test_anything_that_is_heard(events: list[tuple[int, bytes, bool]]) -> None:
    """A line is one line, whatever is in it."""
    heads = {67: FOUR.data[:240], 68: offer(NAS, PI).data[:240], 69: b"\0\1"}
    packets = [Said(port, heads.get(port, b"") + data if begun else data, PI, NAS) for port, data, begun in events]
    assert all(line.isprintable() for line in heard(FOUR, *packets, None))
