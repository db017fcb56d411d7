"""Holding a file system still for as long as it is copied, and letting it go whatever happens to us.

A frozen file system lets nobody write: containers hang, and so does whoever waits for them. So there are three who
thaw it: we, when the copy is made or has failed; a guard process, in a session of its own, when we die or stay too
long; and, should both be killed at once, the agent (rpinfs-thaw.service), which finds the marker
`/run/rpinfs/NAME.frozen` that nobody has locked any more.

Source: ioctl_fsfreeze(2), fs/super.c (freeze_super(), thaw_super()).
"""

import contextlib
import errno
import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Iterator

from rpinfs.boot.host import near
from rpinfs.boot.storage import Mount
from rpinfs.boot.units import RUNTIME_FOLDER
from rpinfs.errors import RpinfsError, quoted
from rpinfs.image.publish import is_named

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878

LIMIT_SECONDS = 600
"""For how long a file system may be frozen, unless another time is asked for."""

_SUFFIX = ".frozen"
_FREEZING, _NOT_FROZEN = b"F", b"N"

Check = Callable[[], None]
"""What is called every now and then during the work, and raises FreezeError when its time is up."""


class FreezeError(RpinfsError):
    """A file system that could not be held still, or not for long enough."""


class Freezer:
    """A mounted file system, and a guard that thaws it should we fail to."""

    def __init__(self, where: str, folder: int, tell_guard: int, limit: float) -> None:
        self._where = where
        self._folder = folder
        self._tell_guard = tell_guard
        self._limit = limit

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Check]:
        """Freeze it for as long as a with statement lasts; at its end it is sure to have been frozen throughout.

        Raises:
            FreezeError: it could not be frozen, was thawed by somebody else, or is frozen still.
        """
        self._freeze()
        deadline = time.monotonic() + self._limit
        try:
            yield lambda: self._insist_on(time.monotonic() < deadline)
        except BaseException:
            self._thaw()
            raise
        self._insist_on(self._thaw())

    def _freeze(self) -> None:
        # Told before, so that no instant is unguarded; were we killed within, the guard would hear of it afterwards.
        os.write(self._tell_guard, _FREEZING)
        try:
            fcntl.ioctl(self._folder, FIFREEZE, 0)
        except OSError as error:
            self._not_frozen()
            if error.errno == errno.EBUSY:
                raise FreezeError(
                    f"{self._where}: somebody else has frozen it", f"fsfreeze --unfreeze {quoted(self._where)}"
                ) from error
            raise FreezeError(f"{self._where}: cannot be frozen: {error.strerror}") from error

    def _thaw(self) -> bool:
        """Whether it was frozen until now. Where it cannot be thawed, the guard tries again when we end."""
        try:
            kept = _thaw(self._folder)
        except OSError as error:
            raise FreezeError(
                f"{self._where}: cannot be thawed: {error.strerror}", f"fsfreeze --unfreeze {quoted(self._where)}"
            ) from error
        self._not_frozen()
        return kept

    def _not_frozen(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # Nobody is left to be told.
            os.write(self._tell_guard, _NOT_FROZEN)

    def _insist_on(self, still_frozen: bool) -> None:
        if not still_frozen:
            raise FreezeError(
                f"{self._where}: not copied within the {self._limit:g} s that it may be frozen for, or thawed by "
                "somebody else",
                "try again when the NAS has less to do, or give it more time: --freeze-limit",
            )


@contextlib.contextmanager
def guarded(name: str, mount: Mount, limit: float = LIMIT_SECONDS, runtime: str = RUNTIME_FOLDER) -> Iterator[Freezer]:
    """Have a guard, and a marker, for a file system that is to be frozen. To be called by a process of one thread.

    Enter it before anything else is opened: the guard inherits what is open.

    Args:
        name: of the image.
        limit: seconds for which it may be frozen.
        runtime: folder of the marker.

    Raises:
        FreezeError: somebody else is at work on it.
        OSError: no process or no marker can be had.
    """
    with _marker(name, mount.where, runtime) as marker, _opened(mount) as folder, _guard(folder, marker, limit) as tell:
        yield Freezer(mount.where, folder, tell, limit)


@contextlib.contextmanager
def _opened(mount: Mount) -> Iterator[int]:
    """The mount point, open: so nobody can unmount it and leave it frozen for good."""
    folder = os.open(mount.where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(folder).st_dev != os.makedev(*mount.device):
            raise FreezeError(f"{mount.where}: something else is mounted there by now", "try again")
        yield folder
    finally:
        os.close(folder)


def _thaw(folder: int) -> bool:
    """Thaw a file system; False where it was not frozen. Raises OSError: it is frozen still."""
    try:
        fcntl.ioctl(folder, FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


# --- The guard ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _guard(folder: int, marker: "_Marker", limit: float) -> Iterator[int]:
    """A process that thaws when we end in any way, or after the limit. Gives the pipe that tells it what we do.

    It is forked and starts no program: what it does must not wait for a page of a program on the NAS.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(writer)
            _watch(folder, reader, marker, limit)
        finally:
            os._exit(0)
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)
        os.waitpid(pid, 0)


def _watch(folder: int, reader: int, marker: "_Marker", limit: float) -> None:
    """The guard's whole life."""
    # Ctrl-C, the end of a session and systemd's SIGTERM are for the one whom it guards.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # A pipe that somebody reads to its end must not stay open for our sake.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    deadline = None
    said = _NOT_FROZEN
    while said:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        if select.select([reader], [], [], remaining)[0]:
            last, said = said, os.read(reader, 1)
            deadline = time.monotonic() + limit if said == _FREEZING else None
        else:
            deadline = None
            _thaw(folder)
    if last == _FREEZING:
        _thaw(folder)
    marker.remove()


# --- The marker --------------------------------------------------------------------------------------------


class _Marker:
    """A file that is there, and locked, as long as somebody is at work."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    def remove(self) -> None:
        if is_named(self.path, self.fd):
            os.unlink(self.path)


def marker_of(name: str, runtime: str = RUNTIME_FOLDER) -> str:
    """Path of the marker of an image."""
    return f"{runtime}/{name}{_SUFFIX}"


def is_abandoned(name: str, runtime: str = RUNTIME_FOLDER) -> bool:
    """Whether an image was left frozen by somebody who is dead. Cheap: mostly there is no marker."""
    try:
        fd = os.open(near(marker_of(name, runtime)), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _locked(fd)
    finally:
        os.close(fd)


def thaw_abandoned(runtime: str = RUNTIME_FOLDER) -> list[str]:
    """Thaw what was left frozen by somebody who is dead.

    Returns:
        the mount points of what was frozen.

    Raises:
        FreezeError: one cannot be thawed; its marker stays.
        OSError: a marker cannot be read or removed.
    """
    thawed = []
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(os.listdir(runtime)):
            if entry.endswith(_SUFFIX) and not entry.startswith("."):
                thawed += _thaw_marked(f"{runtime}/{entry}")
    return thawed


def _thaw_marked(path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []
    try:
        if not _locked(fd) or not is_named(path, fd):
            return []
        where = os.fsdecode(os.pread(fd, 4096, 0))
        thawed = _thaw_at(where)
        os.unlink(path)
        return [where] if thawed else []
    finally:
        os.close(fd)


def _thaw_at(where: str) -> bool:
    try:
        folder = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False  # Unmounted, with its mount point gone.
    try:
        return _thaw(folder)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY):
            return False  # Unmounted: what lies below cannot be frozen at all.
        raise FreezeError(
            f"{where}: cannot be thawed: {error.strerror}", f"fsfreeze --unfreeze {quoted(where)}"
        ) from error
    finally:
        os.close(folder)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _marker(name: str, where: str, runtime: str) -> Iterator[_Marker]:
    """The marker, locked from the first instant on; gone afterwards."""
    os.makedirs(runtime, exist_ok=True)
    path = marker_of(name, runtime)
    fd = os.open(runtime, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, os.fsencode(where))
        _locked(fd)  # Nobody else knows this file.
        _name_marker(fd, path)
        marker = _Marker(path, fd)
        try:
            yield marker
        finally:
            marker.remove()
    finally:
        os.close(fd)


def _name_marker(fd: int, path: str) -> None:
    # With a folder given, link(2) follows the link to the file that has no name yet (proc_pid_fd(5)).
    folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(str(fd), path, src_dir_fd=folder)
            return
        _thaw_marked(path)
        os.link(str(fd), path, src_dir_fd=folder)
    except FileExistsError as error:
        raise FreezeError(f"{path}: a snapshot is being made already", "wait for it to end") from error
    finally:
        os.close(folder)
