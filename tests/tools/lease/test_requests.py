"""What a Pi's word beside its image costs the NAS: the requests of a real NFS client, counted by its kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import Tell
from tests.tools.lease.test_cut_off import BOOT_SECONDS, COMMON, FORGETFUL, UML, Guest, nas_on_switch

pytestmark = [
    pytest.mark.lab,
    pytest.mark.root,
    pytest.mark.skipif(not UML.exists(), reason="needs user-mode-linux"),
]

COUNTS = (
    COMMON
    + """
from rpinfs.lease import report

def requests(where="/mnt/docker"):
    found, here = {}, False
    for line in open("/proc/self/mountstats"):
        if line.startswith("device "):
            here = f" mounted on {where} " in line
        elif here and line.startswith("\\t") and ": " in line:
            name, rest = line.strip().split(": ", 1)
            if name.isupper() and rest.split()[0].isdigit() and int(rest.split()[0]):
                found[name] = int(rest.split()[0])
    return found

def cost(action):
    before = requests()
    for _ in range(10):
        action()
    after = requests()
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}

owner = lease.Owner("one", "one")
held = lease.acquire(IMAGE, owner)
held.keep()
said = report.record_of(report.Report("one", "0", "board", "ok", "well", 10 << 30, 5 << 30))
renew = lambda record: lambda: lease.still_ours(IMAGE, owner, held, record=record)
tell("open", plain=cost(renew(b"\\n")), said=cost(renew(said)))
held.leave()
held = lease.acquire(IMAGE, owner)
assert held.fd < 0
tell("pinned", plain=cost(renew(b"\\n")), said=cost(renew(said)))

os.makedirs("/mnt/docker/a/b", exist_ok=True)
def look(walk):
    def once():
        try:
            os.close(walk("/mnt/docker/a/b"))
        except BlockingIOError:
            pass
    return once
os.stat("/mnt/docker/a/b")
remembered = cost(look(syscalls.open_in_memory))
# Longer than the client believes what it has heard.
time.sleep(7)
forgotten = cost(look(syscalls.open_in_memory))
try:
    os.close(syscalls.open_in_memory("/mnt/docker/a/b"))
    refused = False
except BlockingIOError:
    refused = True
asked = cost(look(lambda path: os.open(path, os.O_PATH)))
tell("looked", remembered=remembered, forgotten=forgotten, refused=refused, asked=asked)
tell("done")
"""
)


def test_a_word_costs_no_request(tmp_path: Path, tell: Tell) -> None:
    with nas_on_switch(tmp_path) as (switch, nas):
        guest = Guest("one", 1, switch, nas, tmp_path / "guests", COUNTS, FORGETFUL)
        try:
            guest.wait_for("done", BOOT_SECONDS + 120)
        finally:
            guest.end()
    for how in ("open", "pinned"):
        counted = guest.wait_for(how, 1)
        tell(f"ten renewals, lock {how}: {counted['plain']}; with a record: {counted['said']}")
        plain, said = (dict(counted[kind]) for kind in ("plain", "said"))  # type: ignore[call-overload]
        assert said["WRITE"] == plain["WRITE"] == 10
        # A page that is written in part may be read before.
        assert all(said[name] <= plain.get(name, 0) for name in said), counted
    looked = guest.wait_for("looked", 1)
    tell(f"ten looks at a folder: {looked}")
    assert (looked["remembered"], looked["forgotten"], looked["refused"]) == ({}, {}, True)
    assert looked["asked"] != {}, "the count counts"
