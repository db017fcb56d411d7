"""The one way in which rpinfs starts programs.

A program gets an argument list (never a shell), /dev/null or the given bytes as its standard input, a small
clean environment and a process group of its own. What went wrong is told apart: not found, killed by a
signal, an exit status that was not expected, out of time. Nothing outlives a time-out, nor, with
`die_with_us`, ourselves.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence

from rpinfs.boot.values import dataclass
from rpinfs.errors import RpinfsError, quoted

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# With C.UTF-8, each program opens the 14 files of that locale, and tries as many that are not there: over the network.
ENVIRONMENT = {"LC_ALL": "C", "PATH": PATH}

# A killed program that waits for a dead share cannot end before the share answers: we do not wait for that.
_SECONDS_TO_DIE = 2.0

Tell = Callable[[str], None]
"""What is called with each line of a log or of a progress, in ASCII."""


def silent(_: str) -> None:
    """Progress that nobody wants to hear of."""


@dataclass(frozen=True)
class Completed:
    """What a program left behind: its exit status and its texts."""

    returncode: int
    stdout: str
    stderr: str


class CommandError(RpinfsError):
    """A program that did not do what it was started for.

    Attributes:
        argv: the program and its arguments.
        returncode: exit status; minus the signal number when killed; None when it did not start or end.
        stdout, stderr: what it had written until then.
    """

    def __init__(
        self,
        argv: Sequence[str],
        reason: str,
        *,
        returncode: int | None = None,
        stdout: str = "",
        stderr: str = "",
        remedy: str | None = None,
    ) -> None:
        super().__init__(f"{quoted(*argv)}: {reason}", remedy)
        self.argv = list(argv)
        self.reason = reason
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr

    def __reduce__(self) -> tuple[object, ...]:
        told = (self.argv, self.reason, self.returncode, self.stdout, self.stderr, self.remedy)
        return _command_error, told


def run(
    argv: Sequence[str],
    *,
    ok: Container[int] = (0,),
    timeout: float | None = None,
    input: bytes | None = None,
    log: Tell | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    report: tuple[int, Tell] | None = None,
    die_with_us: bool = False,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
) -> Completed:
    """Run a program to its end.

    Args:
        argv: program name or path, and its arguments.
        ok: exit statuses that mean success.
        timeout: seconds; then the program and its children are killed.
        input: bytes for its standard input; otherwise that is /dev/null.
        log: is called with the command line before the start.
        env: variables on top of the clean environment.
        pass_fds: file descriptors that the program inherits under their numbers.
        report: read end of a pipe whose other end is among pass_fds (see reporting()), and what to call with
            each line that the program writes there.
        die_with_us: the program is killed when this process dies, however it dies.
        stdin, stdout: open files in place of /dev/null and of a pipe to us.

    Raises:
        CommandError: not found, not started, killed by a signal, exit status not in `ok`, or timed out.
    """
    environment = {**ENVIRONMENT, **(env or {})}
    program = _find(argv[0], environment["PATH"])
    if program is None:
        raise CommandError(argv, "command not found", remedy=_package_hint(argv[0]))
    if log is not None:
        log(quoted(*argv))
    command = [*_leash(die_with_us, environment), program, *argv[1:]]
    process = _start(argv, command, environment, stdin if input is None else subprocess.PIPE, stdout, pass_fds)
    deadline = None if timeout is None else time.monotonic() + timeout
    with _nothing_left_behind(process):
        exchange = _Exchange(process, input, report)
        finished = exchange.until(deadline) and _wait(process, deadline)
    out, err = exchange.texts()
    if not finished:
        raise CommandError(argv, f"timed out after {timeout:g} s", stdout=out, stderr=err)
    return _judged(argv, ok, Completed(process.returncode, out, err))


@contextlib.contextmanager
def reporting() -> Iterator[tuple[int, int]]:
    """A pipe for `report` and `pass_fds`: (read end, write end). Closed afterwards, whatever happens."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def _find(program: str, path: str) -> str | None:
    """Where a program is, or None. As shutil.which(), which loads three libraries for compression with it."""
    folders = [folder for folder in path.split(os.pathsep) if folder]
    candidates = [program] if "/" in program else [os.path.join(folder, program) for folder in folders]
    return next((found for found in candidates if os.path.isfile(found) and os.access(found, os.X_OK)), None)


def _start(
    argv: Sequence[str],
    command: list[str],
    environment: dict[str, str],
    stdin: int,
    stdout: int,
    pass_fds: Sequence[int],
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=pass_fds,
            process_group=0,
        )
    except OSError as error:
        raise CommandError(argv, f"cannot be started: {error.strerror}") from error


def _leash(die_with_us: bool, environment: dict[str, str]) -> list[str]:
    """A prefix that ties a program's life to ours.

    Without it, a repair started by a process that was killed would go on writing while the next one already uses
    the file. (preexec_fn could do the same, but not beside threads.)
    """
    setpriv = _find("setpriv", environment["PATH"]) if die_with_us else None
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


class _Exchange:
    """Moves the bytes between a program's pipes and us, all at once, so that none can fill up and block."""

    def __init__(self, process: subprocess.Popen[bytes], input: bytes | None, report: tuple[int, Tell] | None) -> None:
        self._process = process
        self._input = memoryview(input or b"")
        self._report = report
        self._report_rest = b""
        self._output: dict[str, list[bytes]] = {"stdout": [], "stderr": []}

    def until(self, deadline: float | None) -> bool:
        """Go on until the program has closed its pipes; False when the deadline came first."""
        with selectors.DefaultSelector() as selector:
            self._register(selector)
            # The report pipe never ends, since we hold its other end too.
            while any(key.data != "report" for key in selector.get_map().values()):
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return False
                for key, _ in selector.select(remaining):
                    if not self._step(key):
                        self._close(selector.unregister(key.fileobj).data)
        self._drain_report()
        return True

    def texts(self) -> tuple[str, str]:
        return self._text("stdout"), self._text("stderr")

    def _text(self, name: str) -> str:
        return b"".join(self._output[name]).decode("utf-8", "replace")

    def _close(self, name: str) -> None:
        pipe = getattr(self._process, name)
        if pipe is not None:
            pipe.close()

    def _register(self, selector: selectors.BaseSelector) -> None:
        for name in ("stdout", "stderr"):
            if (pipe := getattr(self._process, name)) is not None:
                selector.register(pipe, selectors.EVENT_READ, name)
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
            selector.register(self._process.stdin, selectors.EVENT_WRITE, "stdin")
        if self._report is not None:
            selector.register(self._report[0], selectors.EVENT_READ, "report")

    def _step(self, key: selectors.SelectorKey) -> bool:
        """Move what can be moved through one pipe; False when that pipe is done."""
        if key.data == "stdin":
            return self._write(key.fd)
        if key.data == "report":
            return self._drain_report()
        chunk = os.read(key.fd, 65536)
        self._output[key.data].append(chunk)
        return bool(chunk)

    def _write(self, fd: int) -> bool:
        try:
            self._input = self._input[os.write(fd, self._input[:65536]) :] if self._input else self._input
        except BrokenPipeError:
            # It does not want the rest; its exit status says whether that is a fault.
            self._input = memoryview(b"")
        return bool(self._input)

    def _drain_report(self) -> bool:
        """Tell what is in the report pipe by now; it stays registered: the program's pipes end the loop."""
        if self._report is None:
            return True
        reader, tell = self._report
        with contextlib.suppress(BlockingIOError):
            self._report_rest += os.read(reader, 65536)
        *lines, self._report_rest = self._report_rest.split(b"\n")
        for line in lines:
            tell(line.decode("utf-8", "replace"))
        return True


@contextlib.contextmanager
def _nothing_left_behind(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """No process and no pipe stays: after a time-out, and after any exception while we wait."""
    try:
        yield
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            _wait(process, time.monotonic() + _SECONDS_TO_DIE)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _wait(process: subprocess.Popen[bytes], deadline: float | None) -> bool:
    try:
        process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _judged(argv: Sequence[str], ok: Container[int], completed: Completed) -> Completed:
    code = completed.returncode
    if code >= 0 and code in ok:
        return completed
    what = f"killed by signal {-code} ({_signal_name(-code)})" if code < 0 else f"exit status {code}"
    said = last_line(completed.stderr) or last_line(completed.stdout)
    raise CommandError(
        argv,
        f"{what}: {said}" if said else what,
        returncode=code,
        stdout=completed.stdout,
        stderr=completed.stderr,
    )


def last_line(text: str) -> str:
    """The last line with something on it, in ASCII: what most programs say when they give up."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].encode("ascii", "replace").decode("ascii") if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


_PACKAGES = {
    "blkid": "util-linux",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "e2mmpstatus": "e2fsprogs",
    "mcopy": "mtools",
    "mdir": "mtools",
    "mkfs.ext4": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "sfdisk": "fdisk",
    "ssh-keygen": "openssh-client",
    "xfs_growfs": "xfsprogs",
    "xfs_repair": "xfsprogs",
    "xz": "xz-utils",
    "zstd": "zstd",
}


def _package_hint(program: str) -> str | None:
    package = _PACKAGES.get(os.path.basename(program))
    return f"apt install {package}" if package else None


def _command_error(
    argv: Sequence[str], reason: str, returncode: int | None, stdout: str, stderr: str, remedy: str | None
) -> CommandError:
    return CommandError(argv, reason, returncode=returncode, stdout=stdout, stderr=stderr, remedy=remedy)
