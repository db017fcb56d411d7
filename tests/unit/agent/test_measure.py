"""What the agent measures, where the kernel does not know the way without asking the NAS."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rpinfs.agent import measure
from rpinfs.agent.picture import ShareFacts
from rpinfs.agent.states import Lock, Memory, ShareMemory, ShareState, State
from rpinfs.agent.work import Room
from rpinfs.boot.config import Image
from rpinfs.boot.storage import parse_mountinfo
from rpinfs.system import syscalls

WHERE = "/var/lib/docker"
MOUNTED = f"41 22 7:3 / {WHERE} rw - ext4 /dev/loop3 rw\n"

IMAGE = Image(
    name="docker", file="docker.img", path="/nfs/docker/docker.img", size=1 << 30, size_is_set=False,
    filesystem="ext4", filesystem_is_set=False, where=WHERE, options=[], bind=[], before=["docker.service"],
    direct_io=True, fence="lease",
)  # fmt: skip


def not_in_memory(path: str) -> int:
    raise BlockingIOError(11, "the NAS would have to be asked", path)


def test_what_the_pulse_has_seen_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rpinfs.prom"
    monkeypatch.setattr(measure, "_write", file.write_text)
    monkeypatch.setattr(measure, "mount_table", lambda: parse_mountinfo(MOUNTED))
    monkeypatch.setattr(syscalls, "open_in_memory", not_in_memory)
    held = SimpleNamespace(size=1 << 30, allocated=1 << 20, lease=None)
    memory = Memory(since=0.0, state=State.MOUNTED)
    pulse = SimpleNamespace(rooms={}, renewed={})
    meter = measure.Meter("/nfs/docker")

    def told() -> dict[str, str]:
        meter._next = 0.0
        meter.tell(ShareMemory(), ShareFacts(), [(IMAGE, memory, held)], pulse)  # type: ignore[list-item, arg-type]
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


def test_it_is_written_when_something_is_new_and_each_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same again would be some thousand files a day; news that wait for the pulse are not what an alarm is for."""
    clock, written = [1000.0], []
    monkeypatch.setattr(measure, "now", lambda: clock[0])
    monkeypatch.setattr(measure, "_write", lambda _: written.append(clock[0]))
    monkeypatch.setattr(measure, "mount_table", list)
    meter, pulse = measure.Meter("/nfs/docker"), SimpleNamespace(rooms={}, renewed={})
    share, memory = ShareMemory(state=ShareState.MOUNTED), Memory(since=0.0)

    def tells(later: float, share: ShareMemory = share, memory: Memory = memory) -> bool:
        clock[0] += later
        meter.tell(share, ShareFacts(), [(IMAGE, memory, None)], pulse)  # type: ignore[arg-type]
        return written[-1:] == clock

    assert tells(0)
    assert not tells(measure.PULSE_SECONDS - 1)
    assert tells(1)
    silent = replace(share, state=ShareState.SILENT)
    assert tells(1, silent) and not tells(1, silent) and tells(1)
    taken = replace(memory, lock=Lock.LOST)
    assert tells(1, memory=taken) and not tells(1, memory=taken)
    refused = replace(taken, state=State.REFUSED)
    assert tells(1, memory=refused)
    assert not tells(measure.PULSE_SECONDS - 1, memory=refused) and tells(1, memory=refused)
