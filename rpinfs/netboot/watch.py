"""`rpinfs netboot watch`: who asks to boot on this LAN, what each is offered, and how far it gets.

One broadcast tells a board's model, serial and folder. Of what follows is heard what comes by this interface: offers
that are broadcast, and on a server's host all that is said to it. That a board is up its lease tells, on the share.
Pure but for the iterator of what is heard, the clock and the leases that it is given.
Source of option 97: packet.machine_id().
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rpinfs.errors import RpinfsError, printable, reason_of
from rpinfs.lease.holders import Holder
from rpinfs.netboot.boards import BOARDS, OUIS, Board, folder_of
from rpinfs.netboot.judge import NO_ADDRESS, menu_in_words, takes, tftp_server
from rpinfs.netboot.listening import NETCONSOLE_PORT, Said
from rpinfs.netboot.packet import (
    ACK,
    DISCOVER,
    MACHINE_ID,
    OFFER,
    REQUEST,
    REQUESTED,
    VENDOR_CLASS_ID,
    PacketError,
    Reply,
    address_text,
    parse,
)
from rpinfs.netboot.rpc import NFS_PORT
from rpinfs.netboot.tftp import PORT as TFTP_PORT
from rpinfs.netboot.tftp import READ
from rpinfs.netboot.wire import CLIENT_PORT, SERVER_PORT

QUIET_SECONDS = 120.0
"""So long a board may say nothing, as one does that makes its image, before it is told how far it got."""

_MOST_BOARDS = 1000


@dataclass(frozen=True)
class Asking:
    """A board that asks. `serial`: its TFTP folder, empty where its request does not tell; `revision`: of the board."""

    model: str
    mac: str
    serial: str
    revision: str = ""


def asking(data: bytes) -> Asking | None:
    """What a DISCOVER tells of its sender; None where it is no board's. Raises PacketError."""
    request = parse(data, "a request")
    # A Pi whose system runs, from a card or by Wi-Fi, is no board that boots.
    if request.kind != DISCOVER or not request.options.get(VENDOR_CLASS_ID, b"").startswith(b"PXEClient"):
        return None
    mac = data[28:34].hex(":")
    guid = request.options.get(MACHINE_ID, b"")[1:]
    if len(guid) == 16 and guid[:4] in (b"RPi4", b"RPi5"):
        return Asking(f"Raspberry Pi {guid[3:4].decode()}", mac, guid[12:16].hex(), guid[4:8].hex().lstrip("0"))
    if mac[:8] not in OUIS:
        return None
    if len(guid) == 16 and guid == b"\x44" * 16:
        return Asking(BOARDS["3B"].name, mac, _from_mac(mac))
    if len(guid) == 16 and guid == guid[:4] * 4:
        return Asking(BOARDS["3B+"].name, mac, guid[:4][::-1].hex())
    return Asking("Raspberry Pi", mac, "")


def _from_mac(mac: str) -> str:
    """On a Pi 3 and before, the low three bytes of the address are those of the serial number; the fourth it hides."""
    return f"??{mac.replace(':', '')[6:]}"


@dataclass
class _Seen:
    """A board since it was first heard.

    Attributes:
        said: what was told of it in this boot; none of it is told twice.
        stage: how far it got, in words.
        when: it was last heard, by time.monotonic(); 0 where nothing is waited for.
        asked: how many requests it has made in this boot.
    """

    asking: Asking
    name: str
    said: set[str] = field(default_factory=set)
    stage: str = "it asks"
    when: float = 0
    asked: int = 0

    @property
    def board(self) -> Board:
        return next((one for one in BOARDS.values() if one.name == self.asking.model), BOARDS["4"])


class Watch:
    """What is known of the boards of a LAN, and what there is to say of each thing that is heard.

    Args:
        tftp: the TFTP root, where it is on this machine; empty where it is not.
        names: of boards, by serial number and by MAC address.
        leases: all that are on the share, each time that it is called. It may raise OSError and RpinfsError.
    """

    def __init__(
        self,
        tftp: str = "",
        names: Mapping[str, str] | None = None,
        leases: Callable[[], Iterable[Holder]] = tuple,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tftp = tftp
        self.names = names or {}
        self.leases = leases
        self.now = now
        self.boards: dict[str, _Seen] = {}  # By MAC address.
        self.addresses: dict[str, str] = {}  # MAC addresses by the IP address that was given.
        self.seen: dict[str, float] = {}  # By image: when its holder was last seen.
        self.up: set[str] = set()  # Images whose holders were said to be up.
        self.trouble = ""

    def lines(self, heard: Iterable[Said | None]) -> Iterator[str]:
        """A line for each thing that is new, as listening.listen() gives what is heard."""
        list(self._of_leases())  # Whoever is up already is no news.
        self.up.clear()
        ways = {SERVER_PORT: self._request, CLIENT_PORT: self._answer, TFTP_PORT: self._file, NFS_PORT: self._root}
        for one in heard:
            if one is None:
                yield from self._of_leases()
                yield from self._of_quiet_ones()
            elif one.port == NETCONSOLE_PORT:
                yield from self._log(one)
            else:
                try:
                    yield from ways[one.port](one)
                except PacketError:
                    continue

    def _log(self, one: Said) -> Iterator[str]:
        """Of a bootloader, to everybody."""
        mac = self.addresses.get(one.sender, "")
        who = self.boards[mac].name if mac in self.boards else one.sender
        for line in one.data.decode("utf-8", "replace").splitlines():
            if line.strip():
                yield f"{who}: {printable(line)}"

    def _told(self, board: _Seen, what: str, stage: str = "") -> Iterator[str]:
        board.when = self.now()
        board.stage = stage or board.stage
        if what not in board.said:
            board.said.add(what)
            yield printable(f"{board.name}: {what}")

    # DHCP

    def _request(self, one: Said) -> Iterator[str]:
        request = parse(one.data, "a request")
        mac = one.data[28:34].hex(":")
        known = self.boards.get(mac)
        if known and request.kind == REQUEST:
            asked = request.options.get(REQUESTED, one.data[12:16])
            if len(asked) == 4 and any(asked):
                self.addresses[address_text(asked)] = mac
            return
        found = asking(one.data)
        if found is None or (known is None and len(self.boards) >= _MOST_BOARDS):
            if known and request.kind == DISCOVER:
                yield from self._kernel(known)
        elif known and MACHINE_ID not in request.options:
            yield from self._kernel(known)
        elif known is None or known.stage not in _FIRMWARE:
            name = self.names.get(found.serial) or self.names.get(mac) or found.mac
            board = self.boards[mac] = _Seen(found, name, when=self.now(), asked=1)
            if known:
                yield printable(f"{name}: begins again; it had got so far: {known.stage}")
            yield self._line(board)
        else:
            known.asked, known.when = known.asked + 1, self.now()
            if known.asked >= _TOO_OFTEN and known.stage == _FIRMWARE[0]:
                yield from self._told(known, f"has asked {_TOO_OFTEN} times, and {_UNHEARD}")

    def _kernel(self, board: _Seen) -> Iterator[str]:
        """A request without what firmware puts into it."""
        yield from self._told(board, "its kernel runs, and asks for an address", "its kernel runs")

    def _line(self, board: _Seen) -> str:
        found, tftp = board.asking, self.tftp
        said = f"{found.model}{f' rev {found.revision}' if found.revision else ''}, {found.mac}"
        said = said if board.name == found.mac else f"{board.name}: {said}"
        if not found.serial:
            return f"{said}: asks to boot, and does not tell its serial number"
        if "?" in found.serial:
            return f"{said}: asks to boot, for a folder that ends in {found.serial[2:]}"
        if not tftp:
            return f"{said}: asks for the folder {found.serial}"
        if os.path.isdir(f"{tftp}/{found.serial}"):
            return f"{said}: asks for the folder {found.serial}, which is there"
        return f"{said}: asks for the folder {found.serial}, missing in {tftp}"

    def _answer(self, one: Said) -> Iterator[str]:
        reply = parse(one.data, one.sender)
        mac = one.data[28:34].hex(":")
        board = self.boards.get(mac)
        if board is None or reply.kind not in (OFFER, ACK):
            return
        if reply.yours != NO_ADDRESS:
            self.addresses[reply.yours] = mac
        if reply.kind == OFFER and board.stage in _FIRMWARE:
            yield from self._told(board, _offered(board.board, reply))
            if takes(board.board, reply):
                board.stage = "it is told where to boot from"

    # What is said to servers on this host

    def _file(self, one: Said) -> Iterator[str]:
        name = one.data[2:].partition(b"\0")[0].decode("utf-8", "replace")
        board = self._of(one.sender, name.partition("/")[0])
        if board is None or one.data[:2] != READ.to_bytes(2, "big"):
            return
        if not any(said.startswith("fetches") for said in board.said):
            yield from self._told(board, f"fetches its files from {one.to}, {name} first")
        board.when, board.stage = self.now(), f"it fetches {name}"
        base = os.path.basename(name)
        if base == "cmdline.txt" or (base.startswith("kernel") and base.endswith(".img")):
            missing = self.tftp and not os.path.exists(f"{self.tftp}/{name}")
            yield from self._told(board, f"asks for {name}{f', missing in {self.tftp}' if missing else ''}")

    def _root(self, one: Said) -> Iterator[str]:
        if board := self._of(one.sender):
            yield from self._told(board, f"asks {one.to} for its root (NFS)", "its kernel asks for its root")

    def _of(self, address: str, folder: str = "") -> _Seen | None:
        mac = self.addresses.get(address, "")
        if mac not in self.boards and folder:
            mac = next((mac for mac, board in self.boards.items() if board.asking.serial == folder), "")
            if mac:
                self.addresses[address] = mac
        return self.boards.get(mac)

    # Leases

    def _of_leases(self) -> Iterator[str]:
        """Whoever has renewed its lease since it was last looked at is up; said once a boot."""
        try:
            for holder in self.leases():
                if holder.owner is not None:
                    yield from self._lease(holder)
        except (OSError, RpinfsError) as error:
            said = error.message if isinstance(error, RpinfsError) else f"{error.filename}: {reason_of(error)}"
            if said != self.trouble:
                self.trouble = said
                yield f"leases cannot be looked at: {printable(said)}"

    def _lease(self, holder: Holder) -> Iterator[str]:
        owner, image = holder.owner, holder.image
        assert owner is not None
        before, self.seen[image] = self.seen.get(image, 0.0), owner.seen
        if owner.seen <= before:
            return
        board = self._who(owner.serial)
        name = board.name if board and board.name != board.asking.mac else owner.hostname or owner.serial
        health = f"; by its own word: {holder.report.status}, {holder.report.message}" if holder.report else ""
        told = f"is up: its lease of {os.path.basename(image)} is on the share{health}"
        if board is not None:
            if not any(said.startswith("is up") for said in board.said):
                board.said.add(told)
                yield printable(f"{name} {told}")
            board.stage, board.when = "it is up", 0
        elif image not in self.up:
            self.up.add(image)
            yield printable(f"{name} {told}")

    def _who(self, serial: str) -> _Seen | None:
        for mac, board in self.boards.items():
            if serial.replace("-", ":") == mac or (board.asking.serial and folder_of(serial) == board.asking.serial):
                return board
            if "?" in board.asking.serial and folder_of(serial).endswith(board.asking.serial[2:]):
                return board
        return None

    def _of_quiet_ones(self) -> Iterator[str]:
        for board in self.boards.values():
            if board.when and self.now() - board.when >= QUIET_SECONDS:
                board.when = 0
                yield printable(
                    f"{board.name}: nothing was heard of it for {QUIET_SECONDS:.0f} s; so far it got: {board.stage}"
                )


_TOO_OFTEN = 3
_UNHEARD = "nobody was heard to offer it anything: rpinfs netboot doctor says why"
_FIRMWARE = ("it asks", "it is told where to boot from")
"""Stages in which an offer is one to the firmware: a kernel that asks wants an address alone."""


def _offered(board: Board, reply: Reply) -> str:
    """What one server offers, as the board takes it."""
    address = (
        f"{reply.server} offers {reply.yours}" if reply.yours != NO_ADDRESS else f"{reply.server} offers no address"
    )
    if not takes(board, reply):
        return f"{address}, and does not say to boot: it sends {menu_in_words(board, reply)}"
    server, why = tftp_server(board, reply)
    return f"{address}, and says to boot from {server or 'nowhere'}{f' (by {why})' if why else ''}"
