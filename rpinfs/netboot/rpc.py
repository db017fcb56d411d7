"""The NULL call of ONC RPC over TCP: whether a server answers for NFS, and in which versions. Source: RFC 5531."""

from __future__ import annotations

import os
import socket
import struct

from rpinfs.errors import RpinfsError

NFS_PROGRAM, NFS_PORT = 100003, 2049
_CALL, _REPLY, _ACCEPTED, _SUCCESS, _PROG_MISMATCH = 0, 1, 0, 0, 2


def null_call(server: str, version: int, seconds: float = 5.0) -> bool:
    """Whether the server answers NFS's NULL procedure of a version (3 or 4); False where it has other versions alone.

    Raises:
        RpinfsError: nobody answers, or not as an NFS server.
    """
    transaction = int.from_bytes(os.urandom(4), "big")
    body = struct.pack("!10I", transaction, _CALL, 2, NFS_PROGRAM, version, 0, 0, 0, 0, 0)
    try:
        with socket.create_connection((server, NFS_PORT), seconds) as connection:
            connection.settimeout(seconds)
            connection.sendall(struct.pack("!I", 0x80000000 | len(body)) + body)
            answer = _received(connection, 28)
    except OSError as error:
        raise RpinfsError(f"{server} does not answer at port {NFS_PORT} (NFS): {error.strerror or error}") from error
    got, kind, status, _, _, accepted = struct.unpack("!6I", answer[4:28])
    if got != transaction or kind != _REPLY or status != _ACCEPTED:
        raise RpinfsError(f"{server}: expected an NFS server at port {NFS_PORT}, found something else")
    return bool(accepted == _SUCCESS)


def _received(connection: socket.socket, wanted: int) -> bytes:
    data = b""
    while len(data) < wanted:
        piece = connection.recv(4096)
        if not piece:
            raise OSError("the connection was closed")
        data += piece
    return data
