"""`rpinfs netboot watch`: who asks to boot on this LAN. One broadcast tells a board's model, serial and folder.

Pure but for the iterator of events that it is given. Source of option 97: packet.machine_id().
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from rpinfs.errors import printable
from rpinfs.netboot.boards import BOARDS, OUIS
from rpinfs.netboot.packet import DISCOVER, MACHINE_ID, PacketError, parse
from rpinfs.netboot.wire import NETCONSOLE_PORT


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
    if request.kind != DISCOVER:
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


def lines(events: Iterator[tuple[int, bytes, str]], tftp: str) -> Iterator[str]:
    """A line for each board that asks for the first time, and for each line of a bootloader's log.

    Args:
        events: as wire.listen() gives them.
        tftp: the TFTP root, where it is on this machine; empty where it is not.
    """
    known: set[str] = set()
    for port, data, sender in events:
        if port == NETCONSOLE_PORT:
            yield from (
                f"{sender}: {printable(line)}" for line in data.decode("utf-8", "replace").splitlines() if line.strip()
            )
            continue
        try:
            board = asking(data)
        except PacketError:
            continue
        if board is not None and board.mac not in known:
            known.add(board.mac)
            yield _line(board, tftp)


def _line(board: Asking, tftp: str) -> str:
    said = f"{board.model}{f' rev {board.revision}' if board.revision else ''}, {board.mac}"
    if not board.serial:
        return f"{said}: asks to boot, and does not tell its serial number"
    if "?" in board.serial:
        return f"{said}: asks to boot, for a folder that ends in {board.serial[2:]}"
    if not tftp:
        return f"{said}: asks for the folder {board.serial}"
    if os.path.isdir(f"{tftp}/{board.serial}"):
        return f"{said}: asks for the folder {board.serial}, which is there"
    return f"{said}: asks for the folder {board.serial}, missing in {tftp}"
