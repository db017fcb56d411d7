"""`rpinfs boot edit` and `rpinfs boot run`: the boot files writable for as long as an editor or a command runs.

Making them read-only again is the work of a guardian, a child that does nothing but wait for the end of a pipe. The
pipe ends when the command has ended, and also when this process dies, even by SIGKILL: so the same path is taken every
time. The guardian lives in a session of its own, where no Ctrl-C and no hang-up of a terminal reaches it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from rpinfs.boot import storage
from rpinfs.boot.config import Config
from rpinfs.boot.host import Host, read_text
from rpinfs.boot.units import RUNTIME_FOLDER
from rpinfs.errors import RpinfsError, quoted
from rpinfs.system import deadline
from rpinfs.system.run import CommandError, run

LOCK_FILE = f"{RUNTIME_FOLDER}/boot.lock"
DEFAULT_FILE = "cmdline.txt"
EDITORS = ("sensible-editor", "editor", "nano", "vi")

REMOUNT_SECONDS = 30.0
"""For one remount: it asks the NAS."""

BUSY_SECONDS = 20.0
"""How long the guardian tries again while something still has a file open for writing."""

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)


def edit(host: Host, config: Config, file: str | None) -> int:
    """Open one of the boot files in an editor; returns the exit status of the editor.

    Args:
        file: name below the boot mount, or a path that is; by default the kernel command line.

    Raises:
        RpinfsError: not below the boot mount, no editor, or as for `run_command`.
    """
    where = _boot_mount(host, config)
    path = _below(where, file or DEFAULT_FILE)
    return _run_writable(where, [*_editor(), path], stays_writable=_stays_writable(config))


def run_command(host: Host, config: Config, command: Sequence[str]) -> int:
    """Run a command with the boot files writable; returns its exit status, 128 + N when a signal ended it.

    Raises:
        RpinfsError: there is no such mount, it cannot be made writable, or not read-only again.
    """
    return _run_writable(_boot_mount(host, config), command, stays_writable=_stays_writable(config))


def in_progress(root: str = "") -> bool:
    """Whether such a command runs, or its guardian is still at work: for everybody to know, and for root to do.

    Asked of proc_locks(5): who can open a file can lock it, and a lock for a look would stand in the way of a command.
    """
    try:
        found = os.stat(root + LOCK_FILE)
    except OSError:
        return False
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    locks = [line.split() for line in read_text("/proc/locks").splitlines()]
    return any(fields[1] == "FLOCK" and device in fields for fields in locks if len(fields) > 2)


# What is to be made writable


def _boot_mount(host: Host, config: Config) -> str:
    """Where the boot files are mounted. Raises RpinfsError where they are not, or this is not for us to do."""
    if host.root:
        raise RpinfsError("rpinfs boot works on the running system only, and RPINFS_ROOT is set")
    if not config.in_use:
        raise RpinfsError(f"rpinfs is not in use here: {config.reason}")
    if config.boot is None:
        raise RpinfsError("there is no boot mount: Export= in [Boot] is empty", "rpinfs config show")
    where = config.boot.where
    mount = storage.mount_at(storage.parse_mountinfo(host.mountinfo), where)
    if mount is None:
        raise RpinfsError(f"nothing is mounted at {where}", "rpinfs status")
    if not mount.is_nfs:
        raise RpinfsError(f"expected an NFS mount at {where}, found {mount.source} ({mount.kind})")
    if os.geteuid() != 0:
        raise RpinfsError(f"only root can make {where} writable", "sudo rpinfs boot ...")
    return where


def _stays_writable(config: Config) -> bool:
    return config.boot is not None and "ro" not in config.boot.options


def _below(where: str, file: str) -> str:
    path = os.path.normpath(os.path.join(where, file))
    if not path.startswith(where + "/"):
        raise RpinfsError(f"expected a file below {where}, found {file}", status=2)
    return path


def _editor() -> list[str]:
    """The user's editor, which may come with arguments, or what Debian has."""
    import shutil  # Which loads libraries for compression: checks look in here, and need none.

    for variable in ("VISUAL", "EDITOR"):
        words = shlex.split(os.environ.get(variable, ""))
        if words:
            return words
    for name in EDITORS:
        if shutil.which(name):
            return [name]
    raise RpinfsError("found no editor", "set EDITOR, or: apt install nano")


# Writable, and read-only again


def _run_writable(where: str, command: Sequence[str], *, stays_writable: bool) -> int:
    with _lock(), _signals() as passed_on:
        if stays_writable:
            return _run(command, passed_on)
        with _Guardian(where):
            _make_writable(where)
            return _run(command, passed_on)


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One at a time: the first to end would make the mount read-only under the other. The guardian inherits it."""
    os.makedirs(RUNTIME_FOLDER, exist_ok=True)
    descriptor = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # An older version made it for everybody to open.
        os.fchmod(descriptor, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RpinfsError(
                "another rpinfs boot edit or run is at work", "wait for its end; who it is: lslocks"
            ) from error
        yield
    finally:
        os.close(descriptor)


class _PassedOn:
    """Signals that mean the command, and not us: we have to outlive it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.pending: list[int] = []

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.process is None:
            self.pending.append(number)
        elif self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


@contextlib.contextmanager
def _signals() -> Iterator[_PassedOn]:
    passed_on = _PassedOn()
    before: dict[signal.Signals, object] = {number: signal.signal(number, passed_on) for number in _PASSED_ON}
    # Ctrl-C goes to the command as well, from the terminal; what it does with it is its own affair, as in system(3).
    for number in (signal.SIGINT, signal.SIGQUIT):
        before[number] = signal.signal(number, _nothing)
    try:
        yield passed_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def _nothing(_: int, __: FrameType | None) -> None:
    """A handler, because a signal that is ignored would be ignored by the command too."""


def _run(command: Sequence[str], passed_on: _PassedOn) -> int:
    """Run a command on our terminal, with the user's environment: unlike run(), which is for programs of ours."""
    import shutil

    if passed_on.pending:
        return 128 + passed_on.pending[0]
    program = shutil.which(command[0])
    if program is None:
        raise RpinfsError(f"{command[0]}: command not found", status=_NOT_FOUND)
    # Should we be killed, the command goes before the mount becomes read-only under it.
    leash = [setpriv, "--pdeathsig", "TERM", "--"] if (setpriv := shutil.which("setpriv")) else []
    try:
        process = subprocess.Popen([*leash, program, *command[1:]])
    except OSError as error:
        raise RpinfsError(f"{program}: {error.strerror}", status=_NOT_EXECUTABLE) from error
    passed_on.process = process
    for number in passed_on.pending:
        process.send_signal(number)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _make_writable(where: str) -> None:
    try:
        run(["mount", "-o", "remount,rw", where], timeout=REMOUNT_SECONDS)
    except CommandError as error:
        raise RpinfsError(f"{where} cannot be made writable: {error.message}", "rpinfs status") from error
    if not deadline.within(REMOUNT_SECONDS, os.access, where, os.W_OK):
        raise RpinfsError(
            f"the NAS does not let this Pi write to {where}: exported read-only, or root is squashed",
            "on the NAS, export it rw,no_root_squash for this Pi; or edit the files there",
        )


class _Guardian:
    """Makes the mount read-only when the pipe to it ends."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._pid = 0
        self._alive = -1

    def __enter__(self) -> None:
        reader, self._alive = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._alive)
            _guard(reader, self._where)
        os.close(reader)

    def __exit__(self, *_: object) -> None:
        os.close(self._alive)
        status = os.waitpid(self._pid, 0)[1]
        if status:
            # More urgent than whatever else went wrong.
            raise RpinfsError(
                f"{self._where} is STILL WRITABLE: it could not be made read-only again",
                f"end what has files open there, then: find /proc/[0-9]*/fd -lname {quoted(self._where + '/*')};"
                f" mount -o remount,ro {quoted(self._where)}",
            )


def _guard(reader: int, where: str) -> None:
    """The guardian's whole life. It ends by os._exit: no clean-up of the parent's belongings may run here."""
    failed = True
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while os.read(reader, 1):
            pass
        _until(lambda: _made_read_only(where), BUSY_SECONDS)
        failed = False
    except (RpinfsError, OSError) as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"rpinfs: {error}\n")
            sys.stderr.flush()
    finally:
        os._exit(failed)


def _made_read_only(where: str) -> bool:
    mount = storage.mount_at(storage.parse_mountinfo(read_text("/proc/self/mountinfo")), where)
    if mount is None or not mount.writable:
        return True
    try:
        run(["mount", "-o", "remount,ro", where], timeout=REMOUNT_SECONDS)
    except CommandError as error:
        if "busy" not in error.stderr:
            raise
        return False
    return True


def _until(done: Callable[[], bool], seconds: float) -> None:
    """Try until it works. Nobody tells when the last writer closes its file, so this is one of the few sleeps."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= deadline:
            raise RpinfsError("a process still has a file open for writing")
        time.sleep(0.5)
