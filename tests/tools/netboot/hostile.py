"""A TFTP server that does wrong what can be done wrong; what, it is told by the name of the file that is asked for.

Runs on the server's host of the LAN of the tests: `hostile.py ADDRESS OTHER`. OTHER: another address of this host.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable

DATA, ERROR, OPTIONS = 3, 5, 6
BLOCK = 1468
FULL = b"x" * BLOCK
Client = tuple[str, int]


def options(*words: str) -> bytes:
    return struct.pack("!H", OPTIONS) + b"".join(word.encode() + b"\0" for word in words)


def data(number: int, body: bytes) -> bytes:
    return struct.pack("!HH", DATA, number & 0xFFFF) + body


AGREED = options("blksize", str(BLOCK))


def stops(wire: socket.socket, client: Client) -> None:
    """It agrees, and sends nothing."""
    wire.sendto(AGREED, client)


def halfway(wire: socket.socket, client: Client) -> None:
    """It sends a block, and no other."""
    wire.sendto(AGREED, client)
    wire.recvfrom(600)
    wire.sendto(data(1, FULL), client)


def endless(wire: socket.socket, client: Client) -> None:
    """Every block is full."""
    wire.sendto(AGREED, client)
    number = 0
    while len(wire.recvfrom(600)[0]) == 4:
        number += 1
        wire.sendto(data(number, FULL), client)


def other_port(wire: socket.socket, client: Client) -> None:
    """Somebody else sends the second block first; the file is right."""
    wire.sendto(AGREED, client)
    wire.recvfrom(600)
    wire.sendto(data(1, FULL), client)
    wire.recvfrom(600)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
        another.bind((sys.argv[1], 0))
        another.settimeout(5)
        another.sendto(data(2, b"wrong"), client)
        refused = another.recvfrom(600)[0]
    wire.sendto(data(2, b"right " + refused[2:4].hex().encode()), client)


def once(packet: bytes) -> Callable[[socket.socket, Client], None]:
    return lambda wire, client: (wire.sendto(packet, client), None)[1]


def then(first: bytes, second: bytes) -> Callable[[socket.socket, Client], None]:
    def answer(wire: socket.socket, client: Client) -> None:
        wire.sendto(first, client)
        wire.recvfrom(600)
        wire.sendto(second, client)

    return answer


def stranger(_: socket.socket, client: Client) -> None:
    """The answer comes from another address of this host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
        another.bind((sys.argv[2], 0))
        another.sendto(data(1, b"hello"), client)


def noise(wire: socket.socket, client: Client) -> None:
    """Anything at all, again and again."""
    for _ in range(200):
        wire.sendto(os.urandom(int.from_bytes(os.urandom(1), "big")), client)


WAYS: dict[str, Callable[[socket.socket, Client], None]] = {
    "stops": stops,
    "halfway": halfway,
    "endless": endless,
    "other-port": other_port,
    "stranger": stranger,
    "noise": noise,
    "silent": lambda *_: None,
    "zero-blocks": once(options("blksize", "0")),
    "large-blocks": once(options("blksize", "65464")),
    "negative-blocks": once(options("blksize", "-1")),
    "unasked": once(options("blksize", "512", "windowsize", "16")),
    "large-size": once(options("tsize", "9" * 400)),
    "no-text": once(struct.pack("!H", OPTIONS) + b"\xff\0\xfe" * 30),
    "one-byte": once(b"\0"),
    "escapes": once(struct.pack("!HH", ERROR, 0) + b"\x1b[2Jgo\naway" + b"x" * 5000),
    "long-block": then(AGREED, data(1, FULL + b"more")),
    "wrong-number": then(AGREED, data(7, b"hello")),
}


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind((sys.argv[1], 69))
        print("listening", flush=True)
        while True:
            asked, client = port.recvfrom(2048)
            way = asked[2:].partition(b"\0")[0].decode(errors="replace")
            threading.Thread(target=serve, args=(WAYS[way], client), daemon=True).start()


def serve(way: Callable[[socket.socket, Client], None], client: Client) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind((sys.argv[1], 0))
        wire.settimeout(5)
        try:
            way(wire, client)
        except TimeoutError:
            return


if __name__ == "__main__":
    main()
