"""An owner that is cut off while another Pi takes its image: how long it writes on when its cable is back.

Two machines of user-mode Linux and a NAS, each in the network of the lab: real NFS clients, and a real server that
takes the lock of a client that it has not heard of for its lease time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.nas import LEASE_SECONDS, GaneshaNas
from tests.lab.network import NETWORK, PREFIX_LENGTH, Switch
from tests.support import Tell
from tests.tools.conftest import ROOT

UML = Path("/usr/bin/linux.uml")
pytestmark = [
    # It needs what a lab needs: network namespaces with taps in them, and nfs-ganesha.
    pytest.mark.lab,
    pytest.mark.root,
    pytest.mark.crash,
    pytest.mark.skipif(not UML.exists(), reason="needs user-mode-linux"),
]

BOOT_SECONDS, CUT_SECONDS = 120.0, 240.0
SILENT_SECONDS = 45.0
SETTLED_SECONDS = 3.0
REACTION_SECONDS = 5.0
MOST_KIB = 32 << 10
"""What a loop device may have under way: 128 requests of 256 KiB at most."""

# The root is the machine's own, read-only.
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/mnt/tree
mount -t proc proc /proc && mount -t sysfs sysfs /sys
for folder in /run /tmp /mnt; do mount -t tmpfs tmpfs $folder; done
echo {name} >/proc/sys/kernel/hostname
mkdir -p /run/kernel/lib/modules /run/log /run/cut /mnt/docker /mnt/tree
ln -s /usr/lib/uml/modules/$(uname -r) /run/kernel/lib/modules/
modprobe -d /run/kernel loop
modprobe -d /run/kernel nfs nfs4_unique_id={name}
modprobe -d /run/kernel nfsv4
ip link set lo up && ip addr add {address}/{prefix} dev vec0 && ip link set vec0 up
LIBMOUNT_FORCE_MOUNT2=always mount -t hostfs -o {folder} none /run/log
# Under a name of its own: the tree may lie in /tmp. By mount(2): it takes no option of newer calls.
LIBMOUNT_FORCE_MOUNT2=always mount -t hostfs -o {root} none /mnt/tree
until mount -t nfs -o vers=4.1,hard{options} {nas}:/docker /mnt/docker; do sleep 1; done
/usr/bin/python3 /run/log/{name}.py >/run/log/{name}.said 2>&1
echo "exit status $?" >>/run/log/{name}.said
echo o >/proc/sysrq-trigger
exec sleep infinity
"""

FORGETFUL = ",acdirmin=5,acdirmax=5"
"""nfs(5): what an NFS client has heard of a folder it believes for 5 seconds, instead of 30 to 60."""

COMMON = """
import json, os, subprocess, sys, threading, time
from rpinfs.lease import lease
from rpinfs.system import loop, syscalls

IMAGE = "/mnt/docker/cut.img"
log = open("/run/log/NAME.log", "w", buffering=1)

def tell(what, **more):
    log.write(json.dumps({"what": what, "time": time.monotonic(), **more}) + "\\n")
"""

# It writes all the time, asks the share in a thread of its own whether it answers, and looks who has its image at once
# when the share was silent: what the agent does, without the agent.
OWNER = (
    COMMON
    + """
owner = lease.Owner("one", "one")
held = lease.acquire(IMAGE, owner)
with open(IMAGE, "wb") as file:
    file.truncate(64 << 20)
subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-E", "assume_storage_prezeroed=1", IMAGE], check=True)
device = loop.attach(IMAGE)
held.keep(device.path)
subprocess.run(["mount", device.path, "/run/cut"], check=True)
lease.still_ours(IMAGE, owner, held)
stopped = threading.Event()

def write():
    fd = os.open("/run/cut/file", os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, b"x" * 4096)
            os.fsync(fd)
            tell("written")
    except OSError as error:
        tell("stopped", error=error.strerror)
        stopped.set()

def write_much():
    with open("/run/cut/much", "wb", buffering=0) as file:
        while not stopped.is_set():
            try:
                file.seek(0)
                for number in range(16):
                    file.write(os.urandom(1 << 20))
            except OSError:
                return

for what in (write, write_much):
    threading.Thread(target=what, daemon=True).start()
tell("ready")
while True:
    begun = time.monotonic()
    os.statvfs("/mnt/docker")
    silence = time.monotonic() - begun
    if silence > 1:
        tell("answer", silence=silence)
        try:
            lease.still_ours(IMAGE, owner, held)
        except lease.TakenError as error:
            tell("taken", error=error.message)
            syscalls.end_writing("/run/cut")
            tell("ended")
            break
        except OSError as error:
            tell("lost", error=error.strerror)
    time.sleep(0.5)
stopped.wait()
tell("done")
"""
)

OTHER = (
    COMMON
    + """
owner = lease.Owner("two", "two")
tell("ready")
for now in (False, True):
    while True:
        try:
            tell("adopted", before=lease.adopt(IMAGE, owner, now=now))
            break
        except lease.LeaseError as error:
            tell("refused", error=error.message)
            if "in use by" not in error.message:
                break
        time.sleep(1)
lease.acquire(IMAGE, owner).keep()
tell("held")
time.sleep(600)
"""
)


class Guest:
    """A machine of user-mode Linux that runs one program; what that says comes past the network."""

    def __init__(
        self, name: str, number: int, switch: Switch, nas: GaneshaNas, folder: Path, program: str, options: str = ""
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._said = folder / f"{name}.said"
        (folder / f"{name}.py").write_text(program.replace("NAME", name))
        init = folder / f"{name}.init"
        texts = {"name": name, "root": ROOT, "folder": folder, "nas": nas.address, "options": options}
        init.write_text(INIT.format(**texts, address=f"{NETWORK}.{10 + number}", prefix=PREFIX_LENGTH))
        init.chmod(0o755)
        switch.add_tap(name)
        mac = f"b8:27:eb:77:00:{number:02x}"
        board = ["mem=256M", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", f"umid={name}-{os.getpid()}"]
        wires = [f"vec0:transport=tap,ifname={name},mac={mac}", "con=null", "con0=null,fd:1"]
        self._console = folder / f"{name}.console"
        with self._console.open("wb") as console:
            self._kernel = subprocess.Popen(
                switch.inside(UML, *board, *wires), stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def events(self) -> list[dict[str, object]]:
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]
        return []

    def wait_for(self, what: str, seconds: float) -> dict[str, object]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := [event for event in self.events() if event["what"] == what]:
                return found[-1]
            # It tells by a file of the host's, past the network that the test cuts.
            time.sleep(0.2)
        said = self._said.read_text() if self._said.exists() else ""
        pytest.fail(f"{self.name}: no {what}: {self.events()[-3:]} {said} {self._console.read_text(errors='replace')}")

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._kernel.pid, signal.SIGKILL)
        self._kernel.wait()


@contextlib.contextmanager
def nas_on_switch(folder: Path) -> Iterator[tuple[Switch, GaneshaNas]]:
    """A network of its own with a NAS that user-mode Linux gets on with."""
    with contextlib.ExitStack() as undo:
        name = f"rpinfs-cut-{os.getpid()}"
        switch = Switch(f"{name}-switch")
        undo.callback(switch.remove)
        nas = GaneshaNas(name, "nas", switch, 1, folder / "nas", netboot=False)
        undo.callback(nas._namespace.remove)
        # User-mode Linux drops what is longer than a frame.
        nas._namespace.ip("link", "set", "eth0", "gso_max_segs", "1")
        nas.start()
        undo.callback(nas.pull_power)
        (folder / "guests").mkdir()
        yield switch, nas


@pytest.fixture
def guests(tmp_path: Path) -> Iterator[tuple[Guest, Guest, Switch, GaneshaNas]]:
    with contextlib.ExitStack() as undo:
        switch, nas = undo.enter_context(nas_on_switch(tmp_path))
        both = []
        for number, (each, program) in enumerate((("one", OWNER), ("two", OTHER)), 1):
            both.append(Guest(each, number, switch, nas, tmp_path / "guests", program))
            undo.callback(both[-1].end)
            both[-1].wait_for("ready", BOOT_SECONDS)
        yield both[0], both[1], switch, nas


def test_an_owner_that_was_cut_off_learns_it(guests: tuple[Guest, Guest, Switch, GaneshaNas], tell: Tell) -> None:
    owner, other, switch, nas = guests
    assert "in use by one" in str(other.wait_for("refused", 30)["error"])
    # Not its tap down, on which user-mode Linux gives up: off the bridge.
    switch.ip("link", "set", "one", "nomaster")
    cut = time.monotonic()
    other.wait_for("held", CUT_SECONDS)
    taken_after = time.monotonic() - cut
    refused = [str(event["error"]) for event in other.events() if event["what"] == "refused"]
    assert "or come back with what it could not write yet" in refused[-1]
    assert "it belonged to one" in str(other.wait_for("adopted", 1)["before"])
    # Longer than a server's lease: what waits has waited for long, and TCP tries again seldom by then.
    time.sleep(max(0.0, cut + SILENT_SECONDS - time.monotonic()))
    image = nas.image_path("cut.img")
    before = image.read_bytes()
    switch.ip("link", "set", "one", "master", "switch")

    owner.wait_for("done", CUT_SECONDS)
    time.sleep(SETTLED_SECONDS)
    after = image.read_bytes()
    changed = sum(before[at : at + 4096] != after[at : at + 4096] for at in range(0, len(before), 4096))
    when = {str(event["what"]): float(str(event["time"])) for event in owner.events()}
    answer = next(event for event in owner.events() if event["what"] == "answer")
    assert float(str(answer["silence"])) > LEASE_SECONDS
    back = float(str(answer["time"]))
    late = [float(str(event["time"])) for event in owner.events() if event["what"] == "written"]
    late = [written for written in late if written > back - 10]
    first = min([back, *late])
    known, ended, stopped = (when[what] - first for what in ("taken", "ended", "stopped"))
    tell(
        f"cut off for {answer['silence']:.0f} s, taken by another after {taken_after:.0f} s (lease {LEASE_SECONDS} s); "
        f"when back, known after {known * 1000:.0f} ms, ended after {ended * 1000:.0f} ms; {len(late)} more fsyncs "
        f"came back, {changed * 4} KiB of the image were written that its kernel had under way"
    )
    assert "belongs to two" in str(owner.wait_for("taken", 1)["error"])
    assert stopped < REACTION_SECONDS
    assert changed * 4 <= MOST_KIB
