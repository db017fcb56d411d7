"""What a Pi says of itself beside its image: a record in the lock file, written by the renewal of the lease.

The time of the lock file is when its holder was last seen, so something is written there every RENEW_SECONDS. That used
to be one byte that nobody read, and now is the record: the same one write, to the same file, so that it costs the NAS
nothing, and cannot be newer or older than the sign of life that it comes with. A holder that has nothing to say, as one
that has just taken the lease, still writes that one byte (Lease.renew); so does the first version.

Who reads it has read the owner record first: what another board than the owner has written here says nothing. It was
written by whoever can write to the share, and is believed no further than to be shown. There is no remedy in it: people
paste those, as root.
"""

import json

from rpinfs.boot.host import read_text
from rpinfs.boot.values import dataclass
from rpinfs.errors import printable
from rpinfs.system import files

SIZE = 4096
"""Bytes of a record, always: the page of a file that is written whole is not read before. A pin (loop.py) is as large,
and an agent that was started anew writes through that."""

STATUSES = ("ok", "warning", "critical")

_VERSION = 1
_LONGEST = {"serial": 255, "version": 64, "board": 128, "status": 8, "message": 600}
"""Characters. Even where each needs two bytes, they fit into SIZE, with all that is around them."""

_LARGEST = 1 << 63
_BLANK = b"\n\0 "


@dataclass(frozen=True)
class Report:
    """How one Pi is, by its own word.

    Attributes:
        serial: of the board that says it, as in the owner record.
        version: of rpinfs.
        board: its model; empty where nothing tells it.
        status: the worst that there is to say, one of STATUSES.
        message: how it is, in one sentence.
        size: bytes that the file system in the image has room for; None where nobody has asked yet.
        free: bytes of it that are free.
    """

    serial: str
    version: str
    board: str
    status: str
    message: str
    size: int | None = None
    free: int | None = None


def record_of(report: Report) -> bytes:
    """A report as it is written: SIZE bytes, whatever its texts are."""
    record: dict[str, object] = {"report": _VERSION}
    for name, longest in _LONGEST.items():
        record[name] = _clean(getattr(report, name), longest)
    if report.size is not None and report.free is not None:
        record |= {"size": report.size, "free": report.free}
    return json.dumps(record).encode().ljust(SIZE, b"\n")


def _clean(text: str, longest: int) -> str:
    return printable(text).encode("ascii", "replace").decode()[:longest]


def parse(data: bytes) -> Report | None:
    """Understand what stands in a lock file; None where that says nothing. Raises ValueError."""
    data = data[:SIZE].strip(_BLANK) if data[:1] == b"{" else b""
    if not data:
        return None
    record = files.parsed(data)
    if record.get("report") != _VERSION:
        raise ValueError(f"expected version {_VERSION} of a report, found {record.get('report')!r:.40}")
    serial, version, model, status, message = (_text(record, name) for name in _LONGEST)
    if status not in STATUSES:
        raise ValueError(f"expected {', '.join(STATUSES)} in status")
    return Report(serial, version, model, status, message, *_room(record))


def _text(record: dict[str, object], name: str) -> str:
    text = record.get(name)
    if not isinstance(text, str) or len(text) > _LONGEST[name] or not text.isprintable():
        raise ValueError(f"expected a text of printable characters in {name}")
    return text


def _room(record: dict[str, object]) -> tuple[int, int] | tuple[None, None]:
    size, free = record.get("size"), record.get("free")
    if size is None and free is None:
        return None, None
    # A bool is an int, too.
    if type(size) is not int or type(free) is not int or not 0 <= free <= size < _LARGEST:
        raise ValueError("expected numbers of bytes in size and free")
    return size, free


def board() -> str:
    """The model of this board, such as "Raspberry Pi 4 Model B Rev 1.4"; empty where the firmware tells none."""
    return read_text("/proc/device-tree/model").strip("\0 \n")
