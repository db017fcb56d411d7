"""A root on a NAS that is gone: the kernel asks it for the way to /run, and the agent has another one.

A machine of user-mode Linux whose root is a real NFS mount, with /proc, /sys and /run in memory, as a Pi's are.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.lease.test_cut_off import BOOT_SECONDS, COMMON, FORGETFUL, UML, Guest, nas_on_switch

pytestmark = [
    pytest.mark.lab,
    pytest.mark.root,
    pytest.mark.skipif(not UML.exists(), reason="needs user-mode-linux"),
]

LOOKS = (
    COMMON
    + """
from rpinfs.agent import do, measure, near, picture
from rpinfs.boot import storage
from rpinfs.boot.host import read_text

for name, kind in (("proc", "proc"), ("sys", "sysfs"), ("run", "tmpfs")):
    os.makedirs(f"/mnt/docker/{name}", exist_ok=True)
    subprocess.run(["mount", "-t", kind, kind, f"/mnt/docker/{name}"], check=True)
os.makedirs("/mnt/docker/run/rpinfs")
os.chroot("/mnt/docker")
os.chdir("/")
near.keep()

def answers(look):
    found = []
    thread = threading.Thread(target=lambda: found.append(look()), daemon=True)
    thread.start()
    thread.join(5)
    return bool(found)

LOOKS = {
    "the root": lambda: os.listdir("/run/rpinfs"),
    "mounts": lambda: picture.mount_table(),
    "loop devices": lambda: storage.loops() is not None,
    "metrics": lambda: measure._write("rpinfs_x 1\\n") is None,
    "what was said": lambda: do.replace("/run/rpinfs/agent.json", lambda path: do.write(path, "{}")) is None,
}
tell("first", **{name: answers(look) for name, look in LOOKS.items()})
time.sleep(15)
tell("silent", **{name: answers(look) for name, look in LOOKS.items()})
tell("done", written=read_text("/run/rpinfs/metrics/rpinfs.prom"))
"""
)


def test_what_is_in_memory_is_found_without_the_root(tmp_path: Path) -> None:
    with nas_on_switch(tmp_path) as (switch, nas):
        guest = Guest("one", 1, switch, nas, tmp_path / "guests", LOOKS, FORGETFUL)
        try:
            first = guest.wait_for("first", BOOT_SECONDS)
            nas.pull_power()
            silent = guest.wait_for("silent", BOOT_SECONDS)
            done = guest.wait_for("done", 30)
        finally:
            guest.end()
    told = set(first) - {"what", "time"}
    assert [name for name in told if not first[name]] == []
    assert [name for name in told if not silent[name]] == ["the root"], "and that it waits is what is tried"
    assert done["written"] == "rpinfs_x 1\n"
