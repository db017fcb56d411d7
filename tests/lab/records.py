"""Proof that nothing is lost: a container writes records and acknowledges each one; later they must all be there.

The writer (guest/writer.c) sends the number of a record once fsync() has returned for it. The recorder listens in the
network of the NAS, so that what it heard is known whatever happens to the Pi.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .container import container_tar
from .nas import GaneshaNas
from .pi import Pi
from .process import Daemon, run

WRITER = Path(__file__).parent / "guest" / "writer.c"
IMAGE = "lab/writer"
PORT = 7777
RECORD = 64
EVERY = 8
WAIT_SECONDS = 240.0

LISTEN = """\
import socket
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
listener.bind(("", {port}))
print("listening", flush=True)
while True:
    print(int(listener.recv(64)), flush=True)
"""


class LostError(AssertionError):
    """A record that was acknowledged is not there."""


class Recorder:
    """Hears the acknowledgements of one writer, for as long as a with statement lasts."""

    def __init__(self, nas: GaneshaNas, folder: Path, port: int = PORT) -> None:
        self.address, self.port = nas.address, port
        argv = nas.inside(sys.executable, "-I", "-c", LISTEN.format(port=port))
        self._listener = Daemon("recorder", argv, folder / f"recorder-{port}.log")

    def __enter__(self) -> Recorder:
        self._listener.wait_for("listening", WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.kill()

    @property
    def acknowledged(self) -> int:
        """The highest number heard: records are written one after the other."""
        return _last(self._listener.output())

    def wait_beyond(self, number: int, timeout: float = WAIT_SECONDS) -> None:
        """Wait until a record after this one was acknowledged."""
        self._listener.wait_until(lambda heard: _last(heard) > number, timeout, f"a record after {number}")


def writer(compiler: str) -> bytes:
    """The writer, linked statically."""
    with tempfile.NamedTemporaryFile() as binary:
        run([compiler, "-Wall", "-Werror", "-O1", "-static", "-o", binary.name, WRITER])
        return Path(binary.name).read_bytes()


def install_writer(pi: Pi) -> None:
    """Import the container image with the writer. Docker must run."""
    pi.path("/root/writer.tar").write_bytes(container_tar(pi.root, {"bin/writer": writer(pi.machine.compiler)}))
    pi.run(f"docker import /root/writer.tar {IMAGE}")


def start_writer(pi: Pi, recorder: Recorder, name: str = "writer", rest: int = 0) -> None:
    """Start a writer that Docker starts again at each boot; it rests so many milliseconds after each record.

    Its records are in a volume of its name.
    """
    pi.run(
        f"docker run --detach --restart always --network host --name {name} --volume {name}:/data {IMAGE} "
        f"/bin/writer /data {recorder.address} {recorder.port} {rest}"
    )


def boot_writing(pi: Pi, recorder: Recorder) -> None:
    """Boot until Docker runs, and have a container write, fsync and acknowledge records from then on."""
    pi.power_on()
    pi.wait_started("docker.service")
    install_writer(pi)
    start_writer(pi, recorder, rest=20)


def count_records(pi: Pi, acknowledged: int, name: str = "writer") -> int:
    """Read all records back, in the Pi; see checked()."""
    data = pi.run(f"docker volume inspect --format '{{{{.Mountpoint}}}}' {name}")
    log = pi.run(f"cat {data}/log", timeout=300)
    files = dict(pair.split(":", 1) for pair in pi.run(f"cd {data}/files && grep -r . || true").splitlines())
    return checked(log, files, acknowledged)


def checked(log: str, files: Mapping[str, str], acknowledged: int) -> int:
    """The number of records that are there and right, in the writer's log and in its files by their names.

    Raises:
        LostError: an acknowledged one is missing or damaged, or one in the middle is.
    """
    records = [line for line in log.split("\n") if len(line) == RECORD - 1]
    for number, line in enumerate(records, start=1):
        if line != record_of(number):
            raise LostError(f"record {number} of {acknowledged} acknowledged: found {line!r}")
    if len(records) < acknowledged:
        raise LostError(f"{acknowledged} records acknowledged, {len(records)} there")
    wanted = {str(number): record_of(number) for number in range(EVERY, acknowledged + 1, EVERY)}
    lost = {name for name in wanted if files.get(name) != wanted[name]}
    if lost:
        raise LostError(f"files with acknowledged records are lost: {sorted(lost, key=int)}")
    return len(records)


def record_of(number: int) -> str:
    """A record without its line end, as writer.c makes it."""
    digits = f"{number:016d}"
    return f"{digits} {fnv1a(digits.encode()):016x} ".ljust(RECORD - 1, ".")


def fnv1a(data: bytes) -> int:
    """The 64-bit FNV-1a hash."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value


def _last(heard: str) -> int:
    """The number in the last whole line; datagrams on one wire keep their order, and the lab has one wire."""
    last = heard.rpartition("\n")[0].rpartition("\n")[2]
    return int(last) if last.isdigit() else 0
