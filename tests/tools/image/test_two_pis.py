"""Two Pis and one image: any sequence of boots, crashes, stops, takeovers, against a model.

Real files, real locks, real ext4 in real loop devices. Each Pi sees the share in a place of its own, as its kernel
would; its loop devices are those whose files lie there. A power cut is ext4's own (FS_IOC_SHUTDOWN): nothing more is
written. The NAS may keep a dead Pi's lock for a while.

The invariants are two promises. What was synced is there, and nothing foreign is changed. Never do both have it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rpinfs.boot import storage
from rpinfs.boot.config import Image
from rpinfs.boot.settings import MIB
from rpinfs.errors import RpinfsError
from rpinfs.image import prepare
from rpinfs.image.probe import probe
from rpinfs.lease import lease
from rpinfs.lease.lease import LeaseError, Owner, OwnLockError
from rpinfs.system import loop
from rpinfs.system.run import silent
from tests.support import thorough
from tests.tools.conftest import command

pytestmark = [pytest.mark.root, pytest.mark.crash]

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
FOREIGN = {"docker.img.bak": b"another's", ".docker.img.rpinfs-owner-new-mine": b"not of our form", "notes": b""}
NAMES = st.sampled_from(["one", "two"])


@dataclass
class Pi:
    """One Pi. Off, it has nothing; up, it may have the image mounted, with or without an agent."""

    name: str
    share: Path
    where: Path
    image: Image
    boots: int = 0
    up: bool = False
    mounted: bool = False
    prepared: prepare.Prepared | None = None
    pinned: bool = False
    ghost: int = -1  # the lock of a boot that is over, which the NAS has not let go of yet
    history: list[str] = field(default_factory=list)

    @property
    def owner(self) -> Owner:
        # The roots are copies: host name and machine-id are the same.
        return Owner(f"serial-{self.name}", "raspberrypi", "m" * 32, f"boot-{self.boots}")

    @property
    def path(self) -> str:
        return self.image.path

    @property
    def holds(self) -> bool:
        return self.pinned or self.ghost >= 0


def until_detached(path: str) -> None:
    """Whoever just looks at all loop devices, as other tests do, keeps one for a moment."""
    for _ in range(1000):
        if not storage.loops_on(path):
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} is still attached")


class TwoPis(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        # What one kernel knows of all its loop devices, two hosts do not know of each other's.
        self.patch.setattr(loop, "find", storage.loops_on)
        self.folder = Path(tempfile.mkdtemp(prefix="two-pis-"))
        self.nas = self.folder / "nas"
        self.nas.mkdir()
        for name, content in FOREIGN.items():
            (self.nas / name).write_bytes(content)
        self.pis = {name: self._new_pi(name) for name in ("one", "two")}
        self.owner: str | None = None
        self.content: dict[str, str] = {}
        self.size = 0

    def _new_pi(self, name: str) -> Pi:
        share, where = self.folder / name / "share", self.folder / name / "docker"
        for folder in (share, where):
            folder.mkdir(parents=True)
        command("mount", "--bind", self.nas, share)
        image = Image(
            name="docker", file="docker.img", path=str(share / "docker.img"), size=64 * MIB, size_is_set=False,
            filesystem="ext4", filesystem_is_set=False, where=str(where), options=[], bind=[], before=[],
            direct_io=True, fence="lease",
        )  # fmt: skip
        return Pi(name, share, where, image)

    def teardown(self) -> None:
        for pi in self.pis.values():
            if pi.up:
                self._power_off(pi, cut=False)
            self._forget(pi)
            command("umount", pi.share)
        shutil.rmtree(self.folder)
        self.patch.undo()

    # What happens

    @rule(name=NAMES)
    def boot_or_start_agent(self, name: str) -> None:
        pi = self.pis[name]
        if not pi.up:
            pi.up, pi.boots = True, pi.boots + 1
        if pi.mounted:
            self._take_up(pi)
        else:
            self._prepare(pi)

    def _prepare(self, pi: Pi) -> None:
        other = self._other(pi)
        try:
            prepared = prepare.prepare(pi.image, pi.owner, silent)
        except OwnLockError:
            assert pi.ghost >= 0 and not other.holds
            return
        except LeaseError as error:
            assert other.holds or self.owner == other.name, error
            assert f"serial-{other.name}" in error.message or self.owner != other.name
            assert "its root is a copy" in error.message or self.owner != other.name
            return
        except RpinfsError as error:
            assert pi.image.size_is_set and pi.image.size < self.size, error
            self.owner, pi.pinned = pi.name, False
            return
        assert not other.holds and pi.ghost < 0 and self.owner in (None, pi.name)
        self.owner, pi.pinned, pi.prepared = pi.name, True, prepared
        command("mount", prepared.path, pi.where)
        pi.mounted = True
        found = probe(pi.path)
        assert found.fs_size >= self.size
        self.size = found.size
        # Promise 2: what was synced is there.
        assert self._read(pi) == self.content

    def _take_up(self, pi: Pi) -> None:
        """The agent is started again while the image is mounted."""
        if pi.prepared is None:
            pi.prepared = prepare.hold(pi.image)
            pi.prepared.lease = lease.acquire(pi.path, pi.owner)
            pi.prepared.lease.keep()

    @precondition(lambda self: self._with_image())
    @rule(key=st.sampled_from("abc"), text=st.text("xy", max_size=3))
    def write(self, key: str, text: str) -> None:
        (pi,) = self._with_image()
        with open(pi.where / key, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(pi.where, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self.content[key] = text

    @precondition(lambda self: self._with_image())
    @rule(killed=st.booleans(), unmounted=st.booleans())
    def agent_ends(self, killed: bool, unmounted: bool) -> None:
        """Killed, or stopped while the containers go on: the lock stays. A person may unmount the image then."""
        (pi,) = self._with_image()
        if pi.prepared is not None:
            self._end_agent(pi, killed)
        if unmounted:
            self._unmount(pi)

    def _end_agent(self, pi: Pi, killed: bool) -> None:
        assert pi.prepared is not None
        if killed:
            pi.prepared.device.close()
            if pi.prepared.lease:
                pi.prepared.lease.leave()
        else:
            pi.prepared.close()
        pi.prepared = None

    @rule(name=NAMES)
    def shut_down(self, name: str) -> None:
        pi = self.pis[name]
        if pi.up:
            self._power_off(pi, cut=False)

    @rule(name=NAMES, lingers=st.booleans())
    def power_cut(self, name: str, lingers: bool) -> None:
        pi = self.pis[name]
        if pi.up:
            held = pi.prepared.lease if pi.prepared else None
            if lingers and held is not None and held.fd >= 0:
                self._forget(pi)
                pi.ghost = os.dup(held.fd)
            self._power_off(pi, cut=True)

    def _power_off(self, pi: Pi, cut: bool) -> None:
        if pi.mounted and cut:
            fd = os.open(pi.where, os.O_RDONLY)
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("=I", NO_LOG_FLUSH))
            os.close(fd)
        if pi.mounted:
            self._unmount(pi)
        if pi.prepared is not None:
            self._end_agent(pi, killed=cut)
        # Nothing of the kernel's is there after a reboot either.
        for pin in storage.loops_on(lease.path_of(pi.path)):
            loop.hold(pin.path).detach()
        until_detached(pi.path)
        until_detached(lease.path_of(pi.path))
        pi.up = pi.pinned = False

    def _unmount(self, pi: Pi) -> None:
        command("umount", pi.where)
        pi.mounted = False
        if pi.prepared is None:
            until_detached(pi.path)

    @rule()
    def the_nas_lets_go_of_dead_locks(self) -> None:
        for pi in self.pis.values():
            self._forget(pi)

    def _forget(self, pi: Pi) -> None:
        if pi.ghost >= 0:
            os.close(pi.ghost)
            pi.ghost = -1

    @rule(name=NAMES, act=st.sampled_from([lease.adopt, lease.release]))
    def pass_on(self, name: str, act: object) -> None:
        pi = self.pis[name]
        if not pi.up:
            return
        in_use = pi.mounted or pi.ghost >= 0 or self._other(pi).holds
        allowed = not in_use and (act is lease.adopt or self.owner in (None, name))
        try:
            if act is lease.adopt:
                lease.adopt(pi.path, pi.owner, now=True)
            else:
                lease.release(pi.path, pi.owner)
        except LeaseError as error:
            assert not allowed, error
        else:
            assert allowed
            self.owner = name if act is lease.adopt else None
        if not pi.mounted:
            pi.pinned = False

    @precondition(lambda self: self.size)
    @rule(name=NAMES, more=st.integers(0, 2))
    def configure_size(self, name: str, more: int) -> None:
        """Size= of what it was, or larger: at the next start. One that is too small by then is refused."""
        image = self.pis[name].image
        image.size, image.size_is_set = self.size + more * 16 * MIB, True

    # What must be so

    @invariant()
    def never_do_both_have_it(self) -> None:
        assert [pi.mounted for pi in self.pis.values()].count(True) <= 1
        attached = [pi.name for pi in self.pis.values() if storage.loops_on(pi.path)]
        assert attached == [pi.name for pi in self.pis.values() if pi.mounted]
        assert [pi.holds for pi in self.pis.values()].count(True) <= 1

    @invariant()
    def the_record_says_whose_it_is(self) -> None:
        for pi in self.pis.values():
            found = lease.owner_of(pi.path)
            assert (found.serial if found else None) == (f"serial-{self.owner}" if self.owner else None)

    @invariant()
    def what_is_mounted_is_locked(self) -> None:
        for pi in self.pis.values():
            with open(lease.path_of(pi.path), "a") as file:
                taken = subprocess.run(
                    ["flock", "--nonblock", str(file.fileno())], pass_fds=[file.fileno()], check=False
                )
                assert bool(taken.returncode) == any(one.holds for one in self.pis.values())

    @invariant()
    def nothing_foreign_is_changed(self) -> None:
        assert {name: (self.nas / name).read_bytes() for name in FOREIGN} == FOREIGN

    def _with_image(self) -> list[Pi]:
        return [pi for pi in self.pis.values() if pi.mounted]

    def _other(self, pi: Pi) -> Pi:
        return self.pis["two" if pi.name == "one" else "one"]

    def _read(self, pi: Pi) -> dict[str, str]:
        return {entry.name: entry.read_text() for entry in pi.where.iterdir() if entry.is_file()}


TwoPis.TestCase.settings = settings(
    max_examples=400 if thorough() else 12,
    stateful_step_count=50 if thorough() else 20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


TestTwoPis = TwoPis.TestCase
