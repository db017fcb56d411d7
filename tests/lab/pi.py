"""An emulated Pi: a boot ROM, a QEMU, and a root on the NAS."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from pathlib import Path

from .channel import Agent, Listener, Monitor, Result
from .machine import AGENT_SOCKET, MONITOR_SOCKET, Machine
from .nas import Nas
from .network import NETWORK, Namespace, Switch
from .process import Daemon, LabError, run, tail
from .slow_disk import SlowDisk

BOOTROM = Path(__file__).with_name("bootrom.py")
BOOT_SECONDS = 600.0
COMMAND_SECONDS = 300.0
POWER_OFF_SECONDS = 300.0
# Without mitigations: an emulator has no speculation to guard, and a boot takes a twelfth less.
CMDLINE = (
    "console=serial0,115200 console=tty1 root=/dev/nfs nfsroot={server}:/nfsroot/{name},vers=4.1,proto=tcp rw ip=dhcp "
    "rootwait mitigations=off"
)

# A reader of our own for the journal's end: in a pipeline, the shell would wait for journalctl too.
WAIT_STARTED = """\
pipe=$(mktemp -u)
mkfifo "$pipe"
journalctl --boot --follow --lines all --output cat UNIT={unit} JOB_TYPE=start JOB_RESULT=done >"$pipe" &
read -r line <"$pipe"
kill $!
rm "$pipe"
"""


class CommandFailed(LabError):
    """A command in the Pi ended with another status than 0; .result has everything."""

    def __init__(self, pi: str, result: Result) -> None:
        super().__init__(f"{pi}: {result}")
        self.result = result


class Pi:
    """One board with its own MAC address, serial number, root and line in DHCP.

    Every timeout is in seconds of a patience of 1: see machine.py.
    """

    def __init__(
        self, lab: str, name: str, number: int, machine: Machine, switch: Switch, nas: Nas, folder: Path
    ) -> None:
        self.name = name
        self.mac = f"b8:27:eb:77:00:{number:02x}"
        self.serial = f"770000{number:02x}"
        self.address = f"{NETWORK}.{10 + number}"
        self.root = nas.root_of(name)
        self.memory = 1024
        # More would be quicker, and now and then panic: a Linux that patches its own code (static keys) while another
        # emulated processor runs it, which then meets half of a jump ("eb <36>" in __set_next_task_fair, 1 boot of 25).
        self.cpus = 1
        self.qemu_options: list[str] = []
        """More options for QEMU, such as `-rtc base=1970-01-02`, from the next power_on()."""
        self.slow_disk: SlowDisk | None = None
        """What a disk of its own, which only such options give it, is to be."""
        self.boot_log = folder / "bootrom.log"
        self._lab = lab
        self._nas = nas
        self.machine = machine
        self._switch = switch
        self._folder = folder
        self._qemu: Daemon | None = None
        self._agent: Agent | None = None
        self._monitor: Monitor | None = None
        self._powered_on = 0.0
        folder.mkdir()
        nas.add_pi(name, self.mac, self.address)
        switch.add_tap(name)

    # Its root, from the NAS side

    def path(self, name: str) -> Path:
        """A file of its root as the host sees it."""
        return self.root / name.lstrip("/")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Write a file of its root."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def read(self, name: str) -> str:
        """Read a file of its root."""
        return self.path(name).read_text()

    def mask(self, *units: str) -> None:
        """Mask units."""
        for unit in units:
            link = self.path(f"/etc/systemd/system/{unit}")
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")

    @property
    def cmdline(self) -> str:
        """The kernel command line that the NAS serves for it."""
        return self._cmdline_txt.read_text().strip()

    @cmdline.setter
    def cmdline(self, text: str) -> None:
        self._cmdline_txt.parent.mkdir(exist_ok=True)
        self._cmdline_txt.write_text(f"{text}\n")

    @property
    def _cmdline_txt(self) -> Path:
        return self._nas.tftpboot / self.serial / "cmdline.txt"

    def personalize(self) -> None:
        """What differs between the roots of two Pis, and its command line."""
        self.write("/etc/hostname", f"{self.name}\n")
        self.write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        self.write("/etc/resolv.conf", f"nameserver {self._nas.address}\n")
        self.write("/etc/machine-id", hashlib.md5(f"{self._lab} {self.name}".encode()).hexdigest() + "\n")
        self.cmdline = CMDLINE.format(server=self._nas.address, name=self.name)

    # Its power

    def power_on(self) -> None:
        """Power it: the ROM fetches kernel, initramfs and command line by TFTP, and the kernel starts."""
        if self.is_on():
            raise LabError(f"{self.name}: it is on already")
        self.close()
        self._powered_on = time.monotonic()
        boot = self.netboot()
        agent, monitor = Listener(self._folder / AGENT_SOCKET), Listener(self._folder / MONITOR_SOCKET)
        board = self.machine.argv(boot, self.name, self.mac, self.memory, self._folder)
        disk = self.slow_disk.argv() if self.slow_disk else []
        argv = self._switch.inside(*disk, *board, "-smp", str(self.cpus), *self.qemu_options)
        self._qemu = Daemon(f"{self.name}: QEMU", argv, self._folder / "console.log")
        try:
            self._agent = Agent(agent.accept())
            self._monitor = Monitor(monitor.accept())
        except LabError as error:
            raise LabError(f"{self.name}: {error}\n{tail(self.console())}") from None

    def netboot(self) -> tuple[Path, Path, str]:
        """The boot ROM at work, in its end of the cable: kernel, initramfs, and the command line it passes on."""
        fetched = self._folder / "fetched"
        shutil.rmtree(fetched, ignore_errors=True)
        fetched.mkdir()
        port = f"{self.name}-rom"
        end = Namespace(f"{self._lab}-{port}")
        try:
            self._switch.connect(end, port, self.mac)
            output = run(end.inside(sys.executable, "-I", BOOTROM, "eth0", self.mac, self.serial, fetched))
        except LabError as error:
            raise LabError(f"{self.name}: {error}\n{self._nas.log()}") from None
        finally:
            # The interface explicitly: a namespace lets go of its own in its own time, and this MAC moves on now.
            self._switch.ip("link", "del", port)
            end.remove()
        self.boot_log.write_text(output)
        names = dict(word.split("=", 1) for word in output.splitlines()[-1].split())
        cmdline = (fetched / "cmdline.txt").read_text().strip()
        # The Pi's firmware does the same: serial0 is whichever UART is the primary one.
        cmdline = cmdline.replace("console=serial0", f"console={self.machine.serial_console}")
        return fetched / names["kernel"], fetched / names["initramfs"], cmdline

    def wait_agent(self, timeout: float = BOOT_SECONDS) -> None:
        """Wait until commands can be run: early, long before the boot is done."""
        try:
            self._on()[1].wait_ready(timeout * self.machine.patience)
        except LabError as error:
            raise LabError(f"{self.name}: {error}\n{tail(self.console())}") from None

    def wait_booted(self, timeout: float = BOOT_SECONDS) -> str:
        """Wait until systemd is done; "running" or "degraded" (units have failed)."""
        self.wait_agent(timeout)
        result = self.try_run("systemctl is-system-running --wait", timeout=timeout)
        state = result.stdout.strip()
        if state not in ("running", "degraded"):
            raise LabError(f"{self.name}: {result}\n{tail(self.console())}")
        return state

    def boot(self) -> str:
        """power_on() and wait_booted()."""
        self.power_on()
        return self.wait_booted()

    def power_off(self, timeout: float = POWER_OFF_SECONDS) -> None:
        """systemctl poweroff, and wait until it is off."""
        self._shut_down("poweroff", timeout)

    def reboot(self, timeout: float = POWER_OFF_SECONDS) -> None:
        """systemctl reboot: down in order, then through the boot ROM again. wait_booted() is the caller's."""
        self._shut_down("reboot", timeout)
        self.power_on()

    def pull_power(self) -> None:
        """Take the power away, now."""
        qemu, _, _ = self._on()
        qemu.kill()

    def close(self) -> None:
        """Off at once if it is on, and nothing of it open here. It can be powered on again."""
        if self._qemu is not None:
            self._qemu.kill()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def wait_off(self, timeout: float = POWER_OFF_SECONDS) -> None:
        """Wait until it has gone off by itself."""
        self._on_once()[0].wait(timeout * self.machine.patience)

    def is_on(self) -> bool:
        """Whether it has power."""
        return self._qemu is not None and self._qemu.alive()

    def seconds_since_power_on(self) -> float:
        """Seconds since power_on() began."""
        return time.monotonic() - self._powered_on

    # Its network cable

    def unplug(self) -> None:
        """Pull the network cable: no carrier, no packets."""
        self._on()[2].call("set_link", name="cable", up=False)

    def plug(self) -> None:
        """Put the network cable back."""
        self._on()[2].call("set_link", name="cable", up=True)

    # What happens inside

    def run(self, command: str, timeout: float = COMMAND_SECONDS, from_memory: bool = False) -> str:
        """Run a shell command in it; its standard output without the last line end. CommandFailed if it fails.

        from_memory runs it by a busybox in memory instead, which works while the root's NAS is away. There /proc, /sys
        and the network are the Pi's, and its files are below /proc/1/root.
        """
        result = self.try_run(command, timeout, from_memory)
        if result.status != 0:
            raise CommandFailed(self.name, result)
        return result.stdout.rstrip("\n")

    def try_run(self, command: str, timeout: float = COMMAND_SECONDS, from_memory: bool = False) -> Result:
        """Run a shell command in it; whatever its exit status, the caller decides."""
        try:
            seconds = timeout * self.machine.patience
            return self._on()[1].call(command, seconds, "memory" if from_memory else "root")
        except LabError as error:
            last = "" if self.is_on() else f"\n{tail(self.console())}"
            raise LabError(f"{self.name}: {error}{last}") from None

    def wait_started(self, unit: str, timeout: float = BOOT_SECONDS) -> None:
        """Wait until a unit's start, in this boot, has succeeded."""
        self.wait_agent(timeout)
        self.run(WAIT_STARTED.format(unit=unit), timeout)

    def console(self) -> str:
        """What it has written to its serial console since it was powered on."""
        return "" if self._qemu is None else self._qemu.output()

    def _on(self) -> tuple[Daemon, Agent, Monitor]:
        if not self.is_on():
            raise LabError(f"{self.name}: it is off\n{tail(self.console())}")
        return self._on_once()

    def _on_once(self) -> tuple[Daemon, Agent, Monitor]:
        if self._qemu is None or self._agent is None or self._monitor is None:
            raise LabError(f"{self.name}: it is off")
        return self._qemu, self._agent, self._monitor

    def _shut_down(self, verb: str, timeout: float) -> None:
        qemu, _, _ = self._on()
        self.run(f"systemctl --no-block {verb}")
        qemu.wait(timeout * self.machine.patience)
