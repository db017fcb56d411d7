"""Rule 30: what `rpinfs netboot doctor` says of NFS servers, each an nfs-ganesha, and of clocks that are off."""

from __future__ import annotations

import email.utils
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.nas import GANESHA_CONFIG, GANESHA_EXPORT
from tests.lab.process import Daemon
from tests.support import PYTHON
from tests.tools.netboot import lan
from tests.tools.netboot.asking import PC, dnsmasq, doctor, make_pi_root, program
from tests.tools.netboot.lan import Lan

pytestmark = pytest.mark.root

KINDS = {"nfsroot": "No_Root_Squash", "squashed": "Root_Squash", "read-only": "No_Root_Squash"}


def write_exports(work: Path, protocols: str, names: Iterable[str]) -> dict[str, Path]:
    """A folder for each, with a root in it, and ganesha.conf."""
    text = GANESHA_CONFIG.replace("Minor_Versions = 0, 1;", "Minor_Versions = 1;\n    Graceless = true;")
    text = text.replace("Protocols = 4;", protocols).format(recovery=work / "recovery", lease=5, grace=5, plugins="")
    (work / "recovery").mkdir(parents=True)
    for number, name in enumerate(names, 1):
        make_pi_root(work / name / "pi1", {"etc/shadow": "root:*:1::::::\n"})
        (work / name / "pi1/etc/shadow").chmod(0o640)
        rights = f"Squash = {KINDS[name]};\n    Access_Type = {'RO' if name == 'read-only' else 'RW'};\n    FSAL"
        text += GANESHA_EXPORT.format(number=number, export=f"/{name}", path=work / name).replace("FSAL", rights)
    (work / "ganesha.conf").write_text(text)
    return {name: work / name / "pi1" for name in names}


@pytest.fixture(scope="module")
def exports(whole_lan: Lan) -> Iterator[dict[str, Path]]:
    """An export as it must be, one that squashes root, one that is read-only; without NFS 4.0, and no time of grace."""
    work = whole_lan.folder / "exports"
    made = write_exports(work, "Protocols = 4;", KINDS)
    argv = ("ganesha.nfsd", "-F", "-L", "STDOUT", "-p", work / "pid", "-f", work / "ganesha.conf")
    daemon = Daemon("ganesha", whole_lan.server.inside(*argv), work / "log")
    daemon.wait_for("NFS SERVER INITIALIZED", 60)
    yield made
    daemon.terminate()


def asked(hosts: Lan, tftpboot: Path, source: str, *more: str, line: str = "") -> dict[str, Any]:
    """What is said of a board whose command line asks for this root."""
    dnsmasq(hosts)
    source = source if ":" in source else f"{lan.SERVER}:{source}"
    (tftpboot / "1a2b3c4d/cmdline.txt").write_text(f"root=/dev/nfs nfsroot={source} ip=dhcp rw {line}\n")
    try:
        return doctor(hosts, *more)["pi1"]
    finally:
        hosts.stop()


def on_nfs(found: dict[str, Any]) -> list[tuple[str, str]]:
    """All but what every nfs-ganesha before 9.11 is remarked on for."""
    said = [(one["gravity"], one["message"]) for one in found["remarks"] if one["rule"] == 30]
    return [(gravity, message) for gravity, message in said if "GET_DIR_DELEGATION" not in message]


def listed(exports: dict[str, Path]) -> dict[str, list[str]]:
    return {name: sorted(os.listdir(path)) for name, path in exports.items()}


def test_a_root_that_is_right(hosts: Lan, tftpboot: Path, exports: dict[str, Path]) -> None:
    before = listed(exports), exports["nfsroot"].stat().st_mtime_ns
    found = asked(hosts, tftpboot, "/nfsroot/pi1,vers=4.1")
    assert on_nfs(found) == []
    assert found["boots"]
    assert (listed(exports), exports["nfsroot"].stat().st_mtime_ns) == before


def test_writing_is_tried_where_it_is_allowed(hosts: Lan, tftpboot: Path, exports: dict[str, Path]) -> None:
    before = listed(exports)
    ((gravity, said),) = on_nfs(asked(hosts, tftpboot, "/nfsroot/pi1,vers=4.1", "--write"))
    assert gravity in ("note", "warning")
    assert "a file of 4096 bytes is made, and on the disk by the NAS's word, within" in said
    ((gravity, said), *_) = on_nfs(asked(hosts, tftpboot, "/squashed/pi1,vers=4.1", "--write"))
    assert (gravity, "root is squashed" in said) == ("fault", True)
    assert listed(exports) == before
    (exports["squashed"] / "etc/shadow").chmod(0o644)
    exports["squashed"].chmod(0o777)
    try:
        assert on_nfs(asked(hosts, tftpboot, "/squashed/pi1,vers=4.1")) == []
        said = on_nfs(asked(hosts, tftpboot, "/squashed/pi1,vers=4.1", "--write"))[0][1]
    finally:
        (exports["squashed"] / "etc/shadow").chmod(0o640)
        exports["squashed"].chmod(0o755)
    assert "what user 0 makes belongs to 4294967294: root is squashed" in said
    assert listed(exports) == before


INITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no init": (lambda root: (root / "usr/sbin/init").unlink(), "/sbin/init is not in it: the kernel has nothing to"),
    "a link into nothing": (lambda root: (root / "usr/lib/systemd/systemd").unlink(), "/sbin/init is not in it"),
    "a ring of links": (lambda root: link(root / "usr/lib/systemd/systemd", "/sbin/init"), "/sbin/init is not in it"),
    "a folder": (lambda root: link(root / "usr/sbin/init", "../.."), "/sbin/init is not in it"),
    "not executable": (lambda root: (root / "usr/lib/systemd/systemd").chmod(0o644), "may not be executed (mode 0644)"),
    "of a PC": (
        lambda root: (root / "usr/lib/systemd/systemd").write_bytes(program(PC)),
        "/sbin/init is for another processor (x86-64) than a Pi's",
    ),
}


def link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("version", ["3", "4.1"])
@pytest.mark.parametrize("what", INITS)
def test_a_root_that_nothing_starts_in(
    hosts: Lan, tftpboot: Path, exports: dict[str, Path], nfs_3: dict[str, Path], what: str, version: str
) -> None:
    """As the kernel of a board finds it, by whichever version: each ends in a panic, on a screen that nobody has."""
    break_it, expected = INITS[what]
    server, made = (lan.OTHER, nfs_3) if version == "3" else (lan.SERVER, exports)
    root = made["nfsroot"]
    shutil.copytree(root, root.parent / "pi7", symlinks=True)
    try:
        break_it(root.parent / "pi7")
        ((gravity, said),) = on_nfs(asked(hosts, tftpboot, f"{server}:/nfsroot/pi7,vers={version}"))
        assert (gravity, expected in said) == ("fault", True), said
        link(root.parent / "pi7/sbin", "..//./usr/../usr/sbin/")
        ((_, again),) = on_nfs(asked(hosts, tftpboot, f"{server}:/nfsroot/pi7,vers={version}"))
        assert again == said
    finally:
        shutil.rmtree(root.parent / "pi7")


def version_of_ganesha() -> tuple[int, ...]:
    done = subprocess.run(["ganesha.nfsd", "-v"], capture_output=True, text=True, check=True)
    found = re.search(r"V([0-9.]+)", done.stdout + done.stderr)
    assert found
    return tuple(int(part) for part in found[1].split(".") if part)


def test_another_init_and_a_word_that_the_server_does_not_know(
    hosts: Lan, tftpboot: Path, exports: dict[str, Path]
) -> None:
    """nfs-ganesha before 9.11 calls a word of NFS 4.1 illegal, and Linux 6.19 then lists no folder."""
    assert exports
    found = asked(hosts, tftpboot, "/nfsroot/pi1,vers=4.1", line="init=/usr/bin/other")
    assert "/usr/bin/other is not in it" in found["sentence"]
    remarks = asked(hosts, tftpboot, "/nfsroot/pi1,vers=4.1")["remarks"]
    said = [(one["gravity"], one["remedy"]) for one in remarks if "GET_DIR_DELEGATION" in one["message"]]
    remedy = "write nfsv4.directory_delegations=0 into cmdline.txt, or vers=4.0; nfs-ganesha 9.11 has it mended"
    assert said == ([("note", remedy)] if version_of_ganesha() < (9, 11) else [])
    remarks = asked(hosts, tftpboot, "/nfsroot/pi1,vers=4.1", line="nfsv4.directory_delegations=0")["remarks"]
    assert [one for one in remarks if "GET_DIR_DELEGATION" in one["message"]] == []


def test_long_answers_that_are_lost_on_the_way(hosts: Lan, tftpboot: Path, nfs_3: dict[str, Path]) -> None:
    """Whoever asks for little sees nothing of it; a Pi's kernel hangs at its first long answer."""
    assert nfs_3
    hosts.narrow("port1")
    try:
        found = asked(hosts, tftpboot, f"{lan.OTHER}:/nfsroot/pi1,vers=3")
    finally:
        hosts.as_it_was()
    assert f"{lan.OTHER}:/nfsroot/pi1: short answers come, and one of 4096 bytes does not" in found["sentence"]
    assert f"packets of 1500 bytes do not come back from {lan.OTHER}, those of up to 140" in str(found["remarks"])


LATE = """\
import contextlib, os, socket, threading
from rpinfs.netboot import root

def carry(here, there, state, asks):
    # A connection that was given up is reset.
    with contextlib.suppress(OSError):
        while data := here.recv(65536):
            # What is as long is the WRITE: from then on nothing comes back on this connection.
            if asks and len(data) > 4096:
                state.append("late")
            if asks or not state:
                there.sendall(data)

def serve(server):
    while True:
        here, there, state = server.accept()[0], socket.create_connection(("{server}", 2049)), []
        threading.Thread(target=carry, args=(here, there, state, True), daemon=True).start()
        threading.Thread(target=carry, args=(there, here, state, False), daemon=True).start()

server = socket.create_server(("127.0.0.1", 2049))
threading.Thread(target=serve, args=(server,), daemon=True).start()
for one in root.look_at(root.Source("127.0.0.1", "/nfsroot/pi1", "4.1"), "", True, 2.0):
    "GET_DIR" in one.message or print(one.message, flush=True)
# Threads that run on while Python ends can have it end badly.
os._exit(0)
"""


def test_nothing_stays_where_a_flush_takes_too_long(hosts: Lan, tftpboot: Path, exports: dict[str, Path]) -> None:
    """The answer to the WRITE was taken for that of the removal, which the NAS had refused: its session was busy."""
    assert tftpboot
    before = listed(exports)
    said = hosts.run_on_board(*PYTHON, "-c", LATE.format(server=lan.SERVER)).stdout
    where = "127.0.0.1:/nfsroot/pi1: a file cannot be written in it"
    assert said == f"{where}: 127.0.0.1 does not answer at port 2049 (NFS): timed out\n"
    assert listed(exports) == before


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/squashed/pi1,vers=4.1", ":/squashed/pi1: root is squashed"),
        ("/read-only/pi1,vers=4.1", ":/read-only/pi1: is read-only"),
        ("/nfsroot/pi9,vers=4.1", "does not give /nfsroot/pi9 to this machine: 192.168.1.10: /nfsroot/pi9: not there"),
        ("/nfsroot,vers=4.1", ":/nfsroot holds no root: etc or usr is not in it"),
        ("/nfsroot/pi1,vers=4.2", "serves NFS, but not version 4.2 (it offers 4.1)"),
        ("/nfsroot/pi1,vers=4.0", "serves NFS, but not version 4.0 (it offers 4.1)"),
        ("/nfsroot/pi1,vers=3", "serves NFS, but not version 3 (it offers 4.1)"),
        ("nas.local:/nfsroot/pi1,vers=4.1", "nfsroot= names 'nas.local': a kernel without an initramfs knows no names"),
        (f"{'x' * 90}:/nfsroot", "knows no names"),
        ("/nfsroot/pi1", "serves NFS, but not version 3 (it offers 4.1)"),
    ],
)
def test_a_root_that_is_not(hosts: Lan, tftpboot: Path, exports: dict[str, Path], source: str, expected: str) -> None:
    """Rule 30."""
    assert exports
    found = asked(hosts, tftpboot, source)
    ((gravity, said),) = on_nfs(found)
    assert (gravity, expected in said) == ("fault", True), said
    assert found["sentence"].startswith("pi1 does not boot: ")
    assert "; to do: " in found["sentence"]


@pytest.fixture(scope="module")
def nfs_3(whole_lan: Lan) -> Iterator[dict[str, Path]]:
    """The other host: NFS 3 alone, with rpcbind and mountd; an export as it must be, and one that squashes root."""
    work = whole_lan.folder / "exports-3"
    made = write_exports(work, "Protocols = 3;\n    Mount_Path_Pseudo = true;", ("nfsroot", "squashed"))
    # Each with a /run of its own: nothing is said to the portmapper of this machine.
    inside = whole_lan.other.inside("unshare", "--mount", "sh", "-c", 'mount -t tmpfs run /run && exec "$@"', "sh")
    rpcbind = Daemon("rpcbind", [*inside, "sh", "-c", "echo begins; exec rpcbind -f -i"], work / "rpcbind.log")
    rpcbind.wait_for("begins", 10)
    argv = ("ganesha.nfsd", "-F", "-L", "STDOUT", "-p", work / "pid", "-f", work / "ganesha.conf")
    ganesha = Daemon("ganesha", [*inside, *argv], work / "log")
    ganesha.wait_for("NFS SERVER INITIALIZED", 60)
    yield made
    ganesha.terminate()
    rpcbind.terminate()


def test_a_root_by_nfs_3(hosts: Lan, tftpboot: Path, nfs_3: dict[str, Path]) -> None:
    before = listed(nfs_3)
    assert on_nfs(asked(hosts, tftpboot, f"{lan.OTHER}:/nfsroot/pi1,vers=3")) == []
    ((_, said),) = on_nfs(asked(hosts, tftpboot, f"{lan.OTHER}:/nfsroot/pi1,vers=3", "--write"))
    assert "a file of 4096 bytes is made" in said
    for source, expected in (("/squashed/pi1", "root is squashed"), ("/gone", "does not give /gone to this machine")):
        ((gravity, said),) = on_nfs(asked(hosts, tftpboot, f"{lan.OTHER}:{source},vers=3"))
        assert (gravity, expected in said) == ("fault", True), said
    said = asked(hosts, tftpboot, f"{lan.OTHER}:/nfsroot/pi1,vers=4.1")["sentence"]
    assert "serves NFS, but not version 4.1 (it offers 3)" in said
    assert listed(nfs_3) == before


WEB = """\
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()
    def date_time_string(self, timestamp=None):
        return {date!r}
server = http.server.HTTPServer(("", 5000), Page)
print("listening", flush=True)
server.serve_forever()
"""


def test_a_clock_that_is_off(hosts: Lan, tftpboot: Path, exports: dict[str, Path]) -> None:
    """As DSM's web page tells it."""
    assert exports
    date = email.utils.formatdate(time.time() - 86400, usegmt=True)
    hosts.run_beside(*PYTHON, "-c", WEB.format(date=date), ready="listening")
    ((gravity, said),) = on_nfs(asked(hosts, tftpboot, "/nfsroot/pi1,vers=4.1"))
    assert gravity == "warning"
    assert said.startswith(f"the clock of {lan.SERVER} is 86")
    assert "behind this machine's" in said
