"""What the agent measures, where the kernel does not know the way without asking the NAS."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from rpinfs.agent import measure
from rpinfs.agent.picture import ShareFacts
from rpinfs.agent.states import Memory, ShareMemory, State
from rpinfs.agent.work import Room
from rpinfs.boot.config import Image
from rpinfs.boot.storage import parse_mountinfo
from rpinfs.system import syscalls

WHERE = "/var/lib/docker"
MOUNTED = f"41 22 7:3 / {WHERE} rw - ext4 /dev/loop3 rw\n"


def not_in_memory(path: str) -> int:
    raise BlockingIOError(11, "the NAS would have to be asked", path)


def test_what_the_pulse_has_seen_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rpinfs.prom"
    monkeypatch.setattr(measure, "_write", file.write_text)
    monkeypatch.setattr(measure, "mount_table", lambda: parse_mountinfo(MOUNTED))
    monkeypatch.setattr(syscalls, "open_in_memory", not_in_memory)
    image = Image(
        name="docker", file="docker.img", path="/nfs/docker/docker.img", size=1 << 30, size_is_set=False,
        filesystem="ext4", filesystem_is_set=False, where=WHERE, options=[], bind=[], before=["docker.service"],
        direct_io=True, fence="lease",
    )  # fmt: skip
    held = SimpleNamespace(size=1 << 30, allocated=1 << 20, lease=None)
    memory = Memory(since=0.0, state=State.MOUNTED)
    pulse = SimpleNamespace(rooms={}, renewed={})
    meter = measure.Meter("/nfs/docker")

    def told() -> dict[str, str]:
        meter._next = 0.0
        meter.tell(ShareMemory(), ShareFacts(), [(image, memory, held)], pulse)  # type: ignore[list-item, arg-type]
        lines = [line.split(" ") for line in file.read_text().splitlines() if line.startswith("rpinfs_image_")]
        return {name.partition("{")[0].removeprefix("rpinfs_image_"): value for name, value in lines}

    before = told()
    assert "filesystem_avail_bytes" not in before
    assert float(before["allocated_bytes"]) == 1 << 20
    pulse.rooms["docker"] = Room(10.0, 5000, 3000, 2000)
    after = told()
    assert [float(after[f"filesystem_{name}_bytes"]) for name in ("size", "avail")] == [5000, 3000]
    assert float(after["allocated_bytes"]) == 2000
    # What cannot be told any more is as it was.
    pulse.rooms["docker"] = Room(20.0, 5000, 1000, None)
    after = told()
    assert (float(after["filesystem_avail_bytes"]), float(after["allocated_bytes"])) == (1000, 2000)
