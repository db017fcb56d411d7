"""The netboot-in-a-box: a switch, a NAS and any number of Pis, on this machine and gone without a trace."""

from __future__ import annotations

import atexit
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from .initramfs import kernel_version, make_initramfs
from .kernel_nas import KernelNas
from .machine import machine_of, native_machine
from .nas import GaneshaNas
from .network import Switch, namespaces_of, processes_in, wait_readable
from .pi import Pi
from .process import LabError, run
from .releases import DEFAULT, release_of
from .root import Progress, copy_root, ganesha_root, locked, quiet, root_with

WORK = Path("/var/tmp")
PREFIX = "rpinfs-lab-"
KILL_SECONDS = 60.0
CONFIG_TXT = "[all]\narm_64bit=1\nkernel=vmlinuz\ninitramfs initramfs.img followkernel\n"

_numbers = itertools.count(1)


class Lab:
    """A lab of our own, from `with Lab() as lab:` to the end of the block.

    deb is the package to install in the Pis' roots; None leaves it out. release is one of releases.py, packages are
    more of that, and architecture is of machine.py, "" this machine's own. built_in are modules that the kernel of the
    Pis has from the start, as if they were built in. progress is told of long work. nas serves everything and is on;
    second_nas() and kernel_nas() add one for shares alone.
    """

    def __init__(
        self,
        deb: Path | None = None,
        release: str = DEFAULT,
        progress: Progress = quiet,
        work: Path = WORK,
        architecture: str = "",
        packages: str = "",
        built_in: tuple[str, ...] = (),
    ) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self.folder = work / self.name
        self.machine = machine_of(architecture)
        self.pis: dict[str, Pi] = {}
        self._progress = progress
        self._deb = deb
        self._release = release
        self._packages = packages
        self._built_in = built_in
        self._undo = ExitStack()

    def __enter__(self) -> Lab:
        self.base = root_with(self._release, self.machine, self._deb, self._progress, self._packages)
        remove_leftovers(self.folder.parent)
        # Undone from the last to the first, once, whichever way this process ends; killed outright, by the janitor.
        self._undo.callback(dismiss, start_janitor(self.folder.parent))
        self._undo.callback(claim(self.folder).close)
        self._undo.callback(demolish, self.folder)
        atexit.register(self.close)
        try:
            self.switch = Switch(f"{self.name}-switch")
            self.nas = self._nas("nas", 1, netboot=True)
            self._fill_tftpboot()
            self.nas.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything and remove it; can be called twice."""
        atexit.unregister(self.close)
        self._undo.close()

    def pi(self, name: str = "pi1") -> Pi:
        """A new Pi, off, with a fresh root; or the one that has this name already."""
        if name not in self.pis:
            copy_root(self.base, self.nas.root_of(name))
            self.board(name).personalize()
        return self.pis[name]

    def board(self, name: str) -> Pi:
        """A new Pi, off, with nothing on the NAS: its root and its boot files are the caller's to make."""
        pi = Pi(self.name, name, len(self.pis) + 1, self.machine, self.switch, self.nas, self.folder / name)
        self._undo.callback(pi.close)
        self.pis[name] = pi
        return pi

    def second_nas(self, disk: int = 0, ganesha: str | None = None) -> GaneshaNas:
        """Another NAS at 10.77.0.2, off, for shares only: it can fail while the Pis' roots stay.

        With a disk of its own of so many bytes, its share can also be full; with the nfs-ganesha of another release.
        """
        return self._nas("nas2", 2, netboot=False, disk=disk, ganesha=ganesha)

    def kernel_nas(self, filesystem: str = "ext4", modules: tuple[str, ...] = ()) -> KernelNas:
        """A NAS at 10.77.0.3 whose NFS server is the kernel's, off, for shares only: NFS 4.2.

        On ext4 it has DEALLOCATE, on xfs CLONE as well. modules are more of its kernel's.
        """
        name = "nas3"
        nas = KernelNas(name, self.switch, 3, self.folder / name, self.machine, self.base, filesystem, modules)
        self._undo.callback(nas.pull_power)
        return nas

    def _nas(self, name: str, number: int, netboot: bool, disk: int = 0, ganesha: str | None = None) -> GaneshaNas:
        server = release_of(self._release).ganesha if ganesha is None else ganesha
        # It runs on this machine, whatever the Pis are.
        root = ganesha_root(server, native_machine(), self._progress) if server else None
        nas = GaneshaNas(self.name, name, self.switch, number, self.folder / name, netboot, disk, root)
        self._undo.callback(nas.pull_power)
        return nas

    def _fill_tftpboot(self) -> None:
        boot = self.nas.tftpboot
        (boot / "config.txt").write_text(CONFIG_TXT)
        shutil.copyfile(self.base / "boot" / f"vmlinuz-{kernel_version(self.base)}", boot / "vmlinuz")
        (boot / "initramfs.img").write_bytes(make_initramfs(self.base, (*self.machine.modules, *self._built_in)))


def claim(folder: Path) -> IO[str]:
    """Make the lab's folder; it is ours for as long as the returned file, a lock on it, is open."""
    with locked(folder.with_name(f"{PREFIX}lock")):
        folder.mkdir()
        file = (folder / "lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file


def remove_leftovers(work: Path = WORK) -> None:
    """Remove the labs whose process is gone: nobody holds their lock."""
    with locked(work / f"{PREFIX}lock"):
        for folder in work.glob(f"{PREFIX}*-*"):
            with unclaimed(folder) as ours:
                if ours:
                    demolish(folder)


@contextmanager
def unclaimed(folder: Path) -> Iterator[bool]:
    """Whether nobody holds the lock of a lab's folder."""
    try:
        file = (folder / "lock").open("a")
    except FileNotFoundError:
        yield False  # Its lab has removed it just now.
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def demolish(folder: Path) -> None:
    """End every process in a lab's namespaces, then remove the namespaces, its disks and the folder."""
    for namespace in namespaces_of(folder.name):
        for pid in processes_in(namespace):
            end(pid)
        run(["ip", "netns", "del", namespace])
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if (where := line.split()[4]).startswith(f"{folder}/"):
            run(["umount", where])
    shutil.rmtree(folder, ignore_errors=True)


def end(pid: int) -> None:
    """Kill a process and wait until it is gone, child of ours or not."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        wait_readable(handle, KILL_SECONDS, f"end of process {pid}")
    finally:
        os.close(handle)


def start_janitor(work: Path) -> subprocess.Popen[bytes]:
    """A process that cleans up after us should we be killed: it waits for the end of a pipe that only we hold."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.lab", "clean", "--after-stdin", work],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )


def dismiss(janitor: subprocess.Popen[bytes]) -> None:
    """Tell the janitor that there is nothing left to do."""
    janitor.communicate()


def require_root() -> None:
    """Namespaces, chroot and file handles need root."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: network namespaces, chroot, nfs-ganesha")
