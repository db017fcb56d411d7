"""An owner that is cut off while another Pi takes its image: how long it writes on when its cable is back."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import Tell

from .lab import Lab
from .nas import LEASE_SECONDS
from .pi import Pi

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.long]

IMAGE = "/nfs/docker/cut.img"
LOG = "/run/cut.log"
# For what the kernel has to send, and a look at a record, by an emulated processor.
REACTION_SECONDS = 5.0

# What an owner does: it writes all the time, asks the share in a thread of its own whether it answers, and looks who
# has its image at once when the share was silent. All that is needed then is in memory: the root is on the same NAS.
OWNER = f"""
import json, os, subprocess, sys, threading, time
sys.path.insert(0, "/usr/share/rpinfs")
from rpinfs.boot.host import Host
from rpinfs.lease import lease
from rpinfs.system import loop, syscalls

owner = lease.Owner.of(Host.read())
held = lease.acquire({IMAGE!r}, owner)
with open({IMAGE!r}, "wb") as file:
    file.truncate(256 << 20)
subprocess.run(["mkfs.ext4", "-q", "-E", "assume_storage_prezeroed=1", {IMAGE!r}], check=True)
device = loop.attach({IMAGE!r})
held.keep(device.path)
os.makedirs("/run/cut", exist_ok=True)
subprocess.run(["mount", device.path, "/run/cut"], check=True)
lease.still_ours({IMAGE!r}, owner, held)
log = open({LOG!r}, "w", buffering=1)

def tell(what, **more):
    log.write(json.dumps({{"what": what, "time": time.monotonic(), **more}}) + "\\n")

def write():
    fd = os.open("/run/cut/file", os.O_WRONLY | os.O_CREAT)
    while True:
        try:
            os.write(fd, b"x" * 4096)
            os.fsync(fd)
        except OSError as error:
            tell("stopped", error=error.strerror)
            return
        tell("written")

threading.Thread(target=write, daemon=True).start()
tell("ready")
while True:
    begun = time.monotonic()
    os.statvfs("/nfs/docker")
    silence = time.monotonic() - begun
    if silence > 1:
        tell("answer", silence=silence)
        try:
            lease.still_ours({IMAGE!r}, owner, held)
        except lease.TakenError as error:
            tell("taken", error=error.message)
            syscalls.end_writing("/run/cut")
            tell("ended")
            break
        except OSError as error:
            tell("lost", error=error.strerror)
    time.sleep(1)
time.sleep(600)
"""
OTHER = f"""
import sys, time
sys.path.insert(0, "/usr/share/rpinfs")
from rpinfs.boot.host import Host
from rpinfs.lease import lease
owner = lease.Owner.of(Host.read())
begun = time.monotonic()
while True:
    try:
        print(lease.adopt({IMAGE!r}, owner, now=sys.argv[1:] == ["--now"]))
        break
    except lease.LeaseError as error:
        if "in use by" not in error.message:
            sys.exit(error.message)
    time.sleep(1)
lease.acquire({IMAGE!r}, owner).keep()
print(f"{{time.monotonic() - begun:.0f}} s")
"""


def test_an_owner_that_was_cut_off_learns_it(lab: Lab, tell: Tell) -> None:
    owner, other = lab.pi("one"), lab.pi("two")
    for pi in (owner, other):
        # All that is asked here is the lease; what the agent makes of it has tests of its own.
        pi.mask("docker.service", "docker.socket", "containerd.service", "rpinfs-agent.service")
    with ThreadPoolExecutor() as both:
        list(both.map(Pi.boot, (owner, other)))
    for pi, code in ((owner, OWNER), (other, OTHER)):
        pi.write("/root/cut.py", code)
        pi.run("systemctl start nfs-docker.mount")
    owner.run(f"systemd-run --unit=cut python3 /root/cut.py; until grep -q ready {LOG}; do sleep 1; done")

    owner.unplug()
    refused = other.try_run("python3 /root/cut.py", timeout=600)
    assert refused.status != 0 and "or come back with what it could not write yet" in refused.stderr, refused
    taken = other.run("python3 /root/cut.py --now")
    owner.plug()

    owner.run(f"until grep -q stopped {LOG}; do sleep 1; done", timeout=600)
    events = [json.loads(line) for line in owner.run(f"cat {LOG}").splitlines()]
    when = {event["what"]: event["time"] for event in events}
    answer = next(event for event in events if event["what"] == "answer" and event["silence"] > LEASE_SECONDS)
    back = answer["time"]
    late = [event for event in events if event["what"] == "written" and back - 5 < event["time"]]
    first = min([back, *(event["time"] for event in late)])
    known, ended, stopped = (when[what] - first for what in ("taken", "ended", "stopped"))
    tell(
        f"cut off for {answer['silence']:.0f} s, adopted after {taken.splitlines()[-1]}; when back, {len(late)} more "
        f"writes of 4 KiB: known after {known:.2f} s, ended after {ended:.2f} s, the last after {stopped:.2f} s"
    )
    assert "belongs to two" in next(event["error"] for event in events if event["what"] == "taken")
    assert stopped < REACTION_SECONDS
