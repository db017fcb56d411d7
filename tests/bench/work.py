"""What a Pi does while it is measured: `work.py measure ROW FOLDER`; prints milliseconds for one, and how many it did.

Runs in the Pi, by its own Python: nothing of the tests is there. FOLDER is on the storage that is measured.
"""

from __future__ import annotations

import glob
import io
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

BLOCK = bytes(range(256)) * 16
COUNT = 100
THREADS = 4
FILES = 2000
MIB = 1 << 20
CHUNK = MIB
SEQUENTIAL = 64 * MIB
BESIDE = 150 * MIB


def append(folder: str) -> int:
    """4 KiB at the end of a file, and fsync."""
    return _append(folder, COUNT)


def _append(folder: str, count: int) -> int:
    file = os.open(f"{folder}/log-{threading.get_ident()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(count):
        os.write(file, BLOCK)
        os.fsync(file)
    os.close(file)
    return count


def threads(folder: str) -> int:
    """The same by four at once."""
    each = COUNT // 2
    run_all = [threading.Thread(target=_append, args=(folder, each)) for _ in range(THREADS)]
    for one in run_all:
        one.start()
    for one in run_all:
        one.join()
    return each * THREADS


def create(folder: str) -> int:
    """A new file of 4 KiB, fsync of it and of its folder."""
    where = os.open(folder, os.O_RDONLY)
    for number in range(COUNT):
        file = os.open(f"{folder}/{number}", os.O_WRONLY | os.O_CREAT)
        os.write(file, BLOCK)
        os.fsync(file)
        os.close(file)
        os.fsync(where)
    os.close(where)
    return COUNT


def overwrite(folder: str) -> int:
    """4 KiB anywhere in a file of 16 MiB that is there, and fdatasync."""
    file = os.open(f"{folder}/there", os.O_RDWR)
    chance = random.Random(1)
    for _ in range(COUNT):
        os.pwrite(file, BLOCK, chance.randrange(16 * MIB // len(BLOCK)) * len(BLOCK))
        os.fdatasync(file)
    os.close(file)
    return COUNT


def sqlite(folder: str) -> int:
    """A transaction of one row, by SQLite's own defaults."""
    with closing(sqlite3.connect(f"{folder}/sqlite")) as connection:
        connection.execute("create table if not exists t (a integer primary key, b blob)")
        for _ in range(COUNT // 2):
            connection.execute("insert into t (b) values (?)", (BLOCK[:200],))
            connection.commit()
    return COUNT // 2


def postgresql(folder: str) -> int:
    """A transaction of one row, by PostgreSQL's own defaults."""
    rows = "".join(f"insert into t (b) values (repeat('x', {number}));\n" for number in range(200, 200 + COUNT // 2))
    _as_postgres("psql", "--quiet", "--host", _socket(folder), "postgres", input=rows)
    return COUNT // 2


def start_postgresql(folder: str) -> None:
    """A server with a database beside the folder, made where there is none; the one that ran before is ended."""
    while subprocess.run(["pkill", "--exact", "--signal", "INT", "postgres"], check=False).returncode == 0:
        time.sleep(0.5)
    cluster = Path(folder).with_name("postgresql")
    is_new = not cluster.exists()
    if is_new:
        cluster.mkdir()
        shutil.chown(cluster, "postgres")
        _as_postgres("initdb", "--no-sync", "--auth=trust", "--pgdata", str(cluster))
    options = f"-c listen_addresses= -c unix_socket_directories={_socket(folder)}"
    log = f"{_socket(folder)}/log"
    _as_postgres("pg_ctl", "--wait", "--pgdata", str(cluster), "--log", log, "--options", options, "start")
    if is_new:
        _as_postgres(
            "psql", "--host", _socket(folder), "postgres", input="create table t (a serial primary key, b text);"
        )


def _socket(folder: str) -> str:
    # Not in the folder: the path of a socket is short.
    where = f"{tempfile.gettempdir()}/{folder.replace('/', '-')}"
    Path(where).mkdir(exist_ok=True)
    shutil.chown(where, "postgres")
    return where


def _as_postgres(program: str, *words: str, input: str = "") -> None:
    (folder,) = glob.glob("/usr/lib/postgresql/*/bin")
    argv = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", f"{folder}/{program}", *words]
    subprocess.run(argv, input=input, text=True, check=True, stdout=subprocess.DEVNULL, cwd="/")


def untar(folder: str) -> int:
    """An archive of 2,000 small files in 50 folders, one folder after the other, and a sync of it all."""
    return _unpack(FOLDER_BY_FOLDER, folder)


def scatter(folder: str) -> int:
    """The same files, each in another folder than the one before."""
    return _unpack(IN_TURN, folder)


def _unpack(archive: str, folder: str) -> int:
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    os.sync()
    return 1


def stall(folder: str) -> float:
    """Seconds of the worst fsync of a small append while another process writes 150 MiB."""
    beside = subprocess.Popen(
        ["dd", "if=/dev/zero", f"of={folder}/big", "bs=1M", f"count={BESIDE // MIB}", "status=none"]
    )
    file = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    worst = 0.0
    while beside.poll() is None:
        begun = time.monotonic()
        os.write(file, BLOCK)
        os.fsync(file)
        worst = max(worst, time.monotonic() - begun)
    os.close(file)
    return worst


def write(folder: str) -> int:
    """64 MiB from end to end, and fsync."""
    file = os.open(f"{folder}/read", os.O_WRONLY | os.O_CREAT)
    for _ in range(SEQUENTIAL // CHUNK):
        os.write(file, BLOCK * (CHUNK // len(BLOCK)))
    os.fsync(file)
    os.close(file)
    return 1


def read(folder: str) -> int:
    """64 MiB from end to end, of which nothing is in memory."""
    file = os.open(f"{folder}/read", os.O_RDONLY)
    while os.read(file, CHUNK):
        pass
    os.close(file)
    return 1


FOLDER_BY_FOLDER, IN_TURN = (f"{tempfile.gettempdir()}/{name}.tar" for name in ("folder-by-folder", "in-turn"))
FOLDERS = 50
DROP_CACHES = "/proc/sys/vm/drop_caches"
ROWS: dict[str, Callable[[str], int]] = {
    function.__name__: function
    for function in (append, threads, create, overwrite, sqlite, postgresql, untar, scatter, write, read)
}


def prepare(row: str, folder: str) -> None:
    """What is there before the clock runs."""
    if row in ("untar", "scatter"):
        make_archives()
    if row == "overwrite":
        Path(folder, "there").write_bytes(BLOCK * (16 * MIB // len(BLOCK)))
    if row == "postgresql":
        start_postgresql(folder)
    if row == "read":
        write(folder)
    os.sync()
    if row == "read":
        Path(DROP_CACHES).write_text("3")


def make_archives() -> None:
    """The two archives, where they are not there yet; in memory."""
    if Path(IN_TURN).exists():
        return
    chance = random.Random(2)
    files = [chance.randbytes(chance.randrange(1, 8192)) for _ in range(FILES)]
    by_folder = [number * FOLDERS // FILES for number in range(FILES)]
    in_turn = [number % FOLDERS for number in range(FILES)]
    for path, folders in ((FOLDER_BY_FOLDER, by_folder), (IN_TURN, in_turn)):
        with tarfile.open(path, "w") as archive:
            for number, (folder, data) in enumerate(zip(folders, files, strict=True)):
                member = tarfile.TarInfo(f"{folder}/{number}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def milliseconds(row: str, folder: str) -> tuple[float, int]:
    """How long one operation of a row takes, and how many there were; of a stall, the worst."""
    if row == stall.__name__:
        return stall(folder) * 1000, 1
    begun = time.monotonic()
    count = ROWS[row](folder)
    return (time.monotonic() - begun) * 1000 / count, count


def main() -> None:
    """Prepare, or measure."""
    verb, row, folder = sys.argv[1:]
    if verb == "prepare":
        prepare(row, folder)
    else:
        print(*milliseconds(row, folder))


if __name__ == "__main__":
    main()
