"""The boot ROM and the firmware of a Pi, as far as netboot goes: DHCP, then TFTP, then a kernel to start.

Runs as a program inside the Pi's end of its cable, with that Pi's MAC address, before the emulated machine takes
the cable over: `bootrom.py INTERFACE MAC SERIAL FOLDER`. What it fetches goes to FOLDER; what it did, as a Pi shows
it on its screen, to standard output; the last line is "kernel=NAME initramfs=NAME".

Asks as the ROM does (vendor class PXEClient:Arch:00000:UNDI:002001), and like it takes no offer without the words
"Raspberry Pi Boot" in option 43. Each file is looked for in the Pi's own folders first, by serial number and by MAC
address, then at the top.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MAGIC = bytes.fromhex("63825363")
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
NETMASK, DHCP_TYPE, REQUESTED, SERVER, WANTED, VENDOR, VENDOR_CLASS = 1, 53, 50, 54, 55, 43, 60
TFTP_NAME, ARCHITECTURE, UNDI_VERSION, MACHINE_ID = 66, 93, 94, 97
READ, DATA, ACKNOWLEDGE, ERROR, OPTIONS = 1, 3, 4, 5, 6
NOT_FOUND = 1
BLOCK_SIZE = 1468  # One block fills one Ethernet frame.
ANSWER_SECONDS = 2.0
PATIENCE_SECONDS = 300.0


class NotOnServer(Exception):
    """The TFTP server has no such file."""


class NoBoot(Exception):
    """The board cannot boot; the text is what its screen would show."""


def main(interface: str, mac: str, serial: str, folder: Path) -> None:
    """Fetch what config.txt names into the folder."""
    server = configure_interface(interface, mac)
    own_folders = (f"{serial}/", f"{mac.replace(':', '-')}/", "")
    config = fetch_first(server, own_folders, "config.txt").decode()
    kernel, initramfs = names_in(config)
    for name in ("cmdline.txt", kernel, initramfs):
        (folder / name).write_bytes(fetch_first(server, own_folders, name))
    print(f"kernel={kernel} initramfs={initramfs}")


def names_in(config: str) -> tuple[str, str]:
    """Kernel and initramfs as config.txt names them (its own defaults otherwise)."""
    kernel, initramfs = "kernel8.img", "initramfs8"
    for line in config.splitlines():
        if line.startswith("kernel="):
            kernel = line.partition("=")[2].strip()
        elif line.startswith("initramfs "):
            initramfs = line.split()[1]
    return kernel, initramfs


def configure_interface(interface: str, mac: str) -> str:
    """An address by DHCP, put on the interface; returns the address of the TFTP server."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            address, netmask, server = lease(interface, bytes.fromhex(mac.replace(":", "")))
        except TimeoutError:
            show("no answer from a DHCP server")
            continue
        length = int.from_bytes(netmask, "big").bit_count()
        subprocess.run(["ip", "address", "add", f"{address}/{length}", "dev", interface], check=True)
        show(f"address {address}, TFTP server {server}")
        return server
    raise NoBoot("no DHCP server offered a boot")


def lease(interface: str, mac: bytes) -> tuple[str, bytes, str]:
    """Address, netmask and TFTP server; TimeoutError when nobody offers a boot for a Pi."""
    transaction = os.urandom(4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        wire.bind(("0.0.0.0", 68))
        wire.settimeout(ANSWER_SECONDS)
        ask(wire, mac, transaction, {DHCP_TYPE: bytes([DISCOVER])})
        (offered, offering), (next_server, menu) = offers(wire, transaction)
        accept = {DHCP_TYPE: bytes([REQUEST]), REQUESTED: offered, SERVER: offering[SERVER]}
        ask(wire, mac, transaction, accept)
        address, _, options = answer(wire, transaction, ACK)
    name = menu.get(TFTP_NAME, b"").rstrip(b"\0").decode()
    server = socket.inet_ntoa(next_server if any(next_server) else menu[SERVER])
    return socket.inet_ntoa(address), options[NETMASK], name or server


Options = dict[int, bytes]


def offers(wire: socket.socket, transaction: bytes) -> tuple[tuple[bytes, Options], tuple[bytes, Options]]:
    """An address and who offers it, the next server and who says "boot from here": one server, or a proxy beside it.

    TimeoutError when nobody offers the one or the other.
    """
    address = menu = None
    while address is None or menu is None:
        offered, next_server, options = answer(wire, transaction, OFFER)
        if any(offered) and address is None:
            address = offered, options
        if b"Raspberry Pi Boot" in options.get(VENDOR, b"") and menu is None:
            menu = next_server, options
    return address, menu


def ask(wire: socket.socket, mac: bytes, transaction: bytes, options: dict[int, bytes]) -> None:
    """Broadcast one request (RFC 2131), answers wanted by broadcast too."""
    header = struct.pack("!4B4sHH16s16s192x", 1, 1, 6, 0, transaction, 0, 0x8000, bytes(16), mac)
    common = {
        VENDOR_CLASS: b"PXEClient:Arch:00000:UNDI:002001",
        ARCHITECTURE: bytes(2),  # dnsmasq sends the boot menu only to a client that names its architecture.
        UNDI_VERSION: bytes([1, 2, 1]),
        MACHINE_ID: bytes(1) + b"RPi4" + bytes(6) + mac,
        WANTED: bytes([NETMASK, VENDOR, VENDOR_CLASS, TFTP_NAME]),
    }
    coded = b"".join(bytes([code, len(value)]) + value for code, value in {**options, **common}.items())
    wire.sendto(header + MAGIC + coded + b"\xff", ("255.255.255.255", 67))


def answer(wire: socket.socket, transaction: bytes, kind: int) -> tuple[bytes, bytes, Options]:
    """The answer of that kind to us: our address, the next server's address, the options."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        packet = wire.recv(2048)
        options = dict(options_in(packet[240:]))
        if packet[4:8] == transaction and options.get(DHCP_TYPE) == bytes([kind]):
            return packet[16:20], packet[20:24], options
    raise TimeoutError


def options_in(coded: bytes) -> Iterator[tuple[int, bytes]]:
    """Code and value of each DHCP option."""
    at = 0
    while at < len(coded) and coded[at] != 255:
        if coded[at] == 0:
            at += 1
            continue
        length = coded[at + 1]
        yield coded[at], coded[at + 2 : at + 2 + length]
        at += 2 + length


def fetch_first(server: str, folders: tuple[str, ...], name: str) -> bytes:
    """The file from the first of the folders that has it."""
    for folder in folders:
        try:
            data = fetch(server, folder + name)
        except NotOnServer:
            continue
        show(f"{folder}{name}: {len(data)} bytes")
        return data
    raise NoBoot(f"{name}: not found on {server}")


def fetch(server: str, path: str) -> bytes:
    """One file by TFTP (RFC 1350, 2348)."""
    request = struct.pack("!H", READ) + b"".join(
        word.encode() + b"\0" for word in (path, "octet", "blksize", str(BLOCK_SIZE))
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.settimeout(ANSWER_SECONDS)
        data = bytearray()
        size, expected = 512, 1
        message, to = request, (server, 69)
        tries = int(PATIENCE_SECONDS / ANSWER_SECONDS)
        while tries:
            wire.sendto(message, to)
            try:
                packet, to = wire.recvfrom(BLOCK_SIZE + 4)
            except TimeoutError:
                tries -= 1
                continue
            kind, number = struct.unpack("!HH", packet[:4])
            if kind == ERROR:
                if number == NOT_FOUND:
                    raise NotOnServer(path)
                raise NoBoot(f"{path}: {packet[4:-1].decode(errors='replace')}")
            if kind == OPTIONS:
                size, message = BLOCK_SIZE, struct.pack("!HH", ACKNOWLEDGE, 0)
            elif kind == DATA and number == expected & 0xFFFF:
                data += packet[4:]
                message = struct.pack("!HH", ACKNOWLEDGE, number)
                if len(packet) - 4 < size:
                    wire.sendto(message, to)
                    return bytes(data)
                expected += 1
    raise NoBoot(f"{path}: no answer from {server}")


def show(line: str) -> None:
    """A line on the screen."""
    print(f"boot ROM: {line}", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    except NoBoot as reason:
        sys.exit(f"boot ROM: {reason}")
