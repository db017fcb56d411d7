"""Asking questions that may never be answered.

A call that touches a share whose NAS is gone can sleep for hours. Each such call is made in a forked child
with a time to live; what it returns comes back through a pipe. The child is killed when its time is up, but
never waited for: a process in uninterruptible sleep dies only when the NAS answers, and is reaped later.

Children inherit the open files of their parent and leave them alone, since even close() can wait for a share.
A program that uses this must not reap children that it does not know (waitpid(-1), SIGCHLD ignored), and a
question that starts programs must tie them to the child (run(..., die_with_us=True)).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from rpinfs.boot.host import read_text
from rpinfs.errors import RpinfsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, TypeVar

    T = TypeVar("T")


class TimedOut(RpinfsError):
    """No answer in time.

    Attributes:
        seconds: the time that was given.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s")
        self.seconds = seconds

    def __reduce__(self) -> tuple[object, ...]:
        return TimedOut, (self.seconds,)


def within(seconds: float, function: Callable[..., T], *args: object) -> T:
    """Call function(*args) in a child that has so many seconds, and return what it returns.

    Raises:
        TimedOut: it did not answer in time.
        Exception: whatever the function raised; an RpinfsError of the same text where the exception cannot
            travel between processes.
    """
    return _returned(gather({"": lambda: function(*args)}, seconds)[""])


def as_a_whole(seconds: float, function: Callable[..., T], *args: object) -> T:
    """As within(), for a function that asks questions in children itself: they are killed with it.

    One that waited on would hold our standard output open, and a monitoring system that reads that to its end would
    wait with it.
    """
    return _returned(_gather({"": lambda: function(*args)}, seconds, leads=True)[""])


def _returned(answer: T | Exception) -> T:
    if isinstance(answer, Exception):
        raise answer
    return answer


def gather(questions: Mapping[str, Callable[[], T]], seconds: float) -> dict[str, T | Exception]:
    """Ask all questions at once, each in a child of its own, under one deadline of so many seconds.

    Returns:
        for each name what its function returned, or the exception that it raised, or TimedOut.
    """
    return _gather(questions, seconds, leads=False)


def _gather(questions: Mapping[str, Callable[[], T]], seconds: float, *, leads: bool) -> dict[str, T | Exception]:
    """As gather(); `leads`: whether each child leads a group of its own, in which its children are killed with it."""
    _reap()
    deadline = time.monotonic() + seconds
    children: dict[str, _Child] = {}
    try:
        for name, question in questions.items():
            children[name] = _Child(question, leads)
        _listen(children.values(), deadline)
        return {name: child.answer(seconds) for name, child in children.items()}  # type: ignore[misc]
    finally:
        for child in children.values():
            child.end()
        _reap()


def seconds_of_life() -> float:
    """How long ago this process was started: a limit for all that it does counts from there. 0 where nothing tells."""
    fields = read_text("/proc/self/stat").rpartition(")")[2].split()
    if len(fields) <= 19:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


class _Child:
    """One forked process that answers one question through a pipe."""

    def __init__(self, question: Callable[[], object], leads: bool) -> None:
        self.reader, writer = os.pipe()
        with _closed_on_error(self.reader, writer):
            self.pid = os.fork()
            if self.pid == 0:
                if leads:
                    os.setpgid(0, 0)
                _live(question, writer)
        if leads:
            # Here as well: whichever of the two comes first.
            with contextlib.suppress(OSError):
                os.setpgid(self.pid, self.pid)
        self._kill = os.killpg if leads else os.kill
        os.close(writer)
        self._received = bytearray()
        self._complete = False

    def receive(self) -> bool:
        """Take what has come; False when all has."""
        chunk = os.read(self.reader, 1 << 20)
        self._received += chunk
        self._complete = not chunk
        return not self._complete

    def answer(self, seconds: float) -> object:
        if not self._complete:
            return TimedOut(seconds)
        if not self._received:
            return RpinfsError("the process that asked died without an answer")
        return pickle.loads(self._received)

    def end(self) -> None:
        """Kill it, whether it still runs or has answered; its number is its own until it is reaped."""
        os.close(self.reader)
        with contextlib.suppress(ProcessLookupError):
            self._kill(self.pid, signal.SIGKILL)
        _unreaped.add(self.pid)


def _listen(children: Iterable[_Child], deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child.reader, selectors.EVENT_READ, child)
        while selector.get_map() and (remaining := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(remaining):
                if not key.data.receive():
                    selector.unregister(key.fileobj)


def _live(question: Callable[[], object], writer: int) -> NoReturn:
    """The child's whole life. It ends by os._exit: no clean-up of the parent's belongings may run here."""
    try:
        _forget_signals()
        message = _packed(_outcome(question))
        while message:
            message = message[os.write(writer, message) :]
    finally:
        os._exit(0)


def _outcome(question: Callable[[], object]) -> object:
    try:
        return question()
    except Exception as error:  # noqa: BLE001 - the parent raises it again
        return error


def _packed(outcome: object) -> bytes:
    """The outcome as bytes; whatever cannot be unpacked again goes as its text."""
    try:
        message = pickle.dumps(outcome)
        pickle.loads(message)
    except Exception:  # noqa: BLE001 - pickle passes on whatever a class raises
        return pickle.dumps(RpinfsError(str(outcome), getattr(outcome, "remedy", None)))
    return message


def _forget_signals() -> None:
    """The parent's handlers mean the parent: a child told to stop just stops."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


# Children that were killed and have not died yet.
_unreaped: set[int] = set()


def _reap() -> None:
    for pid in list(_unreaped):
        try:
            reaped, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            reaped = pid
        if reaped:
            _unreaped.discard(pid)


@contextlib.contextmanager
def _closed_on_error(*fds: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
