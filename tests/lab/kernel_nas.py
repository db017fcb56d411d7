"""A NAS whose NFS server is the kernel's: an emulated machine of its own, for what a userspace server cannot do.

It speaks NFS 4.2. On an ext4 DEALLOCATE really frees blocks of its disk, on an xfs CLONE shares them. It serves a share
and nothing else: the Pis' roots stay on the other NAS. Its files are seen by commands that run in it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from stat import S_IFREG

from .channel import Agent, Listener, Monitor, Result
from .image import BLOCK, Space
from .initramfs import Entry, cpio, kernel_version, make_nas_initramfs
from .machine import AGENT_SOCKET, MONITOR_SOCKET, Machine
from .nas import LEASE_SECONDS
from .network import NETWORK, PREFIX_LENGTH, Switch
from .process import Daemon, LabError, run, tail
from .slow_disk import SlowDisk

MEMORY = 512
DISK_SIZE = 16 << 30
"""Bytes, of a sparse file."""

SERVING_SECONDS = 240.0
COMMAND_SECONDS = 60.0
SHARE = "/srv/docker"
"""The folder behind the export /docker, in the emulated machine."""


class KernelNas:
    """Off until start(); as other NASes are, by its address and the export /docker."""

    def __init__(
        self,
        name: str,
        switch: Switch,
        number: int,
        folder: Path,
        machine: Machine,
        root: Path,
        filesystem: str,
        modules: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self._mac = f"52:54:00:77:00:{number:02x}"
        self._switch = switch
        self._folder = folder
        self._machine = machine
        self._filesystem = filesystem
        self.qemu_options: list[str] = []
        """More options for QEMU, such as another disk, from start() on."""
        self.slow_disk: SlowDisk | None = None
        """What its disk is to be, from start() on; else it has nothing to flush."""
        self._qemu: Daemon | None = None
        self._agent: Agent | None = None
        folder.mkdir()
        shutil.copyfile(root / "boot" / f"vmlinuz-{kernel_version(root)}", folder / "vmlinuz")
        (folder / "initramfs.img").write_bytes(make_nas_initramfs(root, modules))
        self._make_disk()
        switch.add_tap(name)

    def start(self) -> None:
        """Switch on; returns when it serves."""
        if self._qemu is not None:
            raise LabError(f"{self.name}: it is on already")
        agent, monitor = Listener(self._folder / AGENT_SOCKET), Listener(self._folder / MONITOR_SOCKET)
        self._qemu = Daemon(f"{self.name}: QEMU", self._switch.inside(*self._argv()), self._folder / "console.log")
        try:
            self._agent = Agent(agent.accept())
            Monitor(monitor.accept()).close()
            self._agent.wait_ready(SERVING_SECONDS * self._machine.patience)
        except LabError as error:
            raise LabError(f"{self.name}: {error}\n{tail(self.log())}") from None

    def install(self, name: str, program: bytes) -> None:
        """Put a program into its file system, from start() on."""
        with (self._folder / "initramfs.img").open("ab") as initramfs:
            initramfs.write(cpio([Entry(name.lstrip("/"), S_IFREG | 0o755, program)]))

    def stop(self) -> None:
        """Shut down in order; returns when it serves no more."""
        self.run("echo 0 >/proc/fs/nfsd/threads && umount /srv")
        self.pull_power()

    def pull_power(self) -> None:
        """Take the power away. What the guest's kernel had not yet written to its disk is lost."""
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu = self._agent = None

    def unplug(self) -> None:
        """Pull its network cable."""
        self._switch.unplug(self.name)

    def plug(self) -> None:
        """Put the network cable back."""
        self._switch.plug(self.name)

    def log(self) -> str:
        """What its kernel has written to the console, for error messages."""
        return "" if self._qemu is None else self._qemu.output()

    def run(self, command: str, timeout: float = COMMAND_SECONDS) -> str:
        """Run a command of busybox's shell in it; its standard output without the last line end."""
        if self._agent is None:
            raise LabError(f"{self.name}: it is off")
        result: Result = self._agent.call(command, timeout * self._machine.patience, "memory")
        if result.status != 0:
            raise LabError(f"{self.name}: {result}")
        return result.stdout.rstrip("\n")

    def space(self, name: str) -> Space:
        """The space that a file on the share takes on the NAS's disk."""
        size, blocks = self.run(f"sync; stat -c '%s %b' {SHARE}/{name}").split()
        return Space(apparent=int(size), allocated=int(blocks) * BLOCK)

    def _make_disk(self) -> None:
        with self._disk.open("xb") as file:
            file.truncate(DISK_SIZE)
        prezeroed = ["-F", "-E", "assume_storage_prezeroed=1"] if self._filesystem == "ext4" else []
        run([f"mkfs.{self._filesystem}", "-q", *prezeroed, self._disk])

    @property
    def _disk(self) -> Path:
        return self._folder / "disk.img"

    def _argv(self) -> list[str | Path]:
        cmdline = (
            f"console={self._machine.serial_console} quiet rdinit=/init nas.address={self.address}/{PREFIX_LENGTH} "
            f"nas.clients={NETWORK} nas.lease={LEASE_SECONDS} nas.disk={self._filesystem}"
        )
        boot = (self._folder / "vmlinuz", self._folder / "initramfs.img", cmdline)
        # The host's page cache outlives the emulated machine: there is nothing to flush.
        cache = "writeback" if self.slow_disk else "unsafe"
        return [
            *(self.slow_disk.argv() if self.slow_disk else ()),
            *self._machine.argv(boot, self.name, self._mac, MEMORY, self._folder),
            *("-drive", f"if=none,id=disk,format=raw,cache={cache},file={self._disk}"),
            *("-device", "virtio-blk-pci,drive=disk"),
            *self.qemu_options,
        ]
