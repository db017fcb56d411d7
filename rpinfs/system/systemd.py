"""The window on systemd: states of units, starting and stopping them, over systemd's private socket.

The private socket (/run/systemd/private, root only) answers before D-Bus is up and after it is down. Properties are
read by name on one connection: pystemd's own objects first fetch and parse a description of every interface of
every unit. What is here may be called from any thread; each call has a connection of its own.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType

from rpinfs.boot.host import near
from rpinfs.boot.values import dataclass
from rpinfs.errors import RpinfsError, printable
from rpinfs.system.run import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_JOURNAL_SECONDS = 20.0
_WHY_LINES, _WHY_SECONDS, _LONGEST_LINE = 20, 5.0, 200
_SAYS_NO_REASON = (
    "Failed to mount ", "Failed with result", "Mount process exited", "Dependency failed", "Mounting ", "dmesg(1)",
    "Job ", "Unmounting ", "Unmounted ", "Deactivated successfully",
)  # fmt: skip
_PRIVATE = "/run/systemd/private"
_ADDRESS = f"unix:path={_PRIVATE}".encode()
_ANSWER_SECONDS = 5.0
_NAME = b"org.freedesktop.systemd1"
_MANAGER_PATH = b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"
_UNIT = b"org.freedesktop.systemd1.Unit"
_WITH_RESULT = {"service": "Service", "mount": "Mount", "socket": "Socket", "swap": "Swap", "timer": "Timer"}


@dataclass(frozen=True)
class UnitState:
    """How a unit is, in the words of systemctl(1).

    Attributes:
        load: "loaded", "not-found", "masked", "bad-setting", ...
        active: "active", "activating", "inactive", "failed", ...
        sub: such as "running", "mounted", "dead".
        result: of the last run, "success" or what went wrong; empty for a kind of unit that has none.
        enabled: state of the unit file, "enabled", "static", "generated", ...; empty where there is none.
        job: a job that waits or runs, such as "start"; empty where there is none.
        since: seconds of CLOCK_MONOTONIC at which it came into this state; None where it was never in another.
        has_run: whether it has left the state "inactive" since the boot.
        left_active: seconds of CLOCK_MONOTONIC at which it was last not "active" any more; None where it never was.
        became_inactive: seconds of CLOCK_MONOTONIC at which it last became "inactive" or "failed"; None: never.
        left_inactive: seconds of CLOCK_MONOTONIC at which it last began to start; None where it never did.
    """

    name: str
    load: str
    active: str
    sub: str
    result: str
    enabled: str
    job: str
    since: float | None
    has_run: bool
    left_active: float | None = None
    became_inactive: float | None = None
    left_inactive: float | None = None


def answers(seconds: float = _ANSWER_SECONDS) -> bool:
    """Whether systemd reads what it is sent: it stands still where its root is on a NAS that is gone.

    To be asked first by who may not wait: while pystemd waits it keeps the whole interpreter (the GIL), so that a
    thread of the agent that asked such a systemd stopped all of the agent, for 90 s each time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(near(_PRIVATE))
            # How a connection to D-Bus begins; whatever comes back, somebody is there.
            connection.sendall(b"\0AUTH EXTERNAL 30\r\n")
            return bool(connection.recv(1))
        except OSError:
            return False


def unit_states(names: Iterable[str]) -> dict[str, UnitState]:
    """Ask for the states of units; a name that systemd does not know comes back as "not-found".

    Raises:
        RpinfsError: systemd cannot be reached, or refuses.
    """
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    with _manager() as bus:
        return {name: _unit_state(bus, name) for name in wanted}


def wanted_units(names: Iterable[str]) -> frozenset[str]:
    """Tell which units are pulled in by one that runs or is about to: by its [Install], a link, or as a dependency.

    That is what "enabled" means for units that have no such state: generated, static, linked ones.

    Raises:
        RpinfsError: systemd cannot be reached, or refuses.
    """
    with _manager() as bus:
        return frozenset(name for name in dict.fromkeys(names) if _is_wanted(bus, name))


def refused_starts(names: Iterable[str]) -> dict[str, float] | None:
    """Tell when units of this boot were last refused, since something that they require had failed.

    systemd keeps that nowhere but in the journal.

    Returns:
        seconds of CLOCK_MONOTONIC by name; nothing for who was never refused; None where there is no journal.
    """
    matches = [f"UNIT={name}" for name in names]
    argv = ["journalctl", "--boot", "--quiet", "--output=json", "--output-fields=UNIT", "--lines=1000"]
    try:
        done = run([*argv, "_PID=1", "JOB_RESULT=dependency", *matches], timeout=_JOURNAL_SECONDS)
    except RpinfsError:
        return None
    found = {}
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            found[str(entry["UNIT"])] = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
    return found


def why_failed(names: Iterable[str]) -> dict[str, str]:
    """Units that have failed, each with what the journal has of why; journalctl runs only where there are any.

    Raises:
        RpinfsError: systemd cannot be reached, or there is no journal.
    """
    failed = [name for name, state in unit_states(names).items() if state.active == "failed"]
    options = ["--boot", "--no-pager", "--output=cat", f"--lines={_WHY_LINES}"]
    return {
        name: telling_line(run(["journalctl", *options, f"--unit={name}"], timeout=_WHY_SECONDS).stdout)
        for name in failed
    }


def telling_line(journal: str) -> str:
    """The last line about a unit that says why it failed; that it did, systemd says in several more."""
    lines = [printable(line).strip() for line in journal.splitlines() if line.strip()]
    telling = [line for line in lines if not any(word in line for word in _SAYS_NO_REASON)]
    return next(reversed(telling or lines), "")[:_LONGEST_LINE].encode("ascii", "replace").decode()


def _is_wanted(bus: Any, name: str) -> bool:  # noqa: ANN401  pystemd has no types
    path_encode = _pystemd("dbuslib").path_encode

    def read(unit: bytes, key: bytes, kind: bytes) -> Any:  # noqa: ANN401
        return bus.get_property(_NAME, path_encode(b"/org/freedesktop/systemd1/unit", unit), _UNIT, key, kind)

    with _explained(f"systemd does not tell what wants {name}"):
        for other in [one for key in (b"WantedBy", b"RequiredBy") for one in read(name.encode(), key, b"as")]:
            if _text(read(other, b"ActiveState", b"s")) in ("active", "activating", "reloading"):
                return True
            if read(other, b"Job", b"(uo)")[0]:
                return True
    return False


def start_unit(name: str) -> None:
    """Queue the start of a unit, as `systemctl start --no-block` does; how it ends is in its state.

    Raises:
        RpinfsError: systemd cannot be reached, or refuses.
    """
    start_units([name])


def start_units(names: Sequence[str]) -> None:
    """Queue the start of units, one job each; see `start_unit`.

    Failures of before are forgotten: what the gate has refused some times in a minute could else not be started at all
    (StartLimitBurst=), now that there is nothing to refuse any more.
    """
    for name in names:
        # systemd knows nothing of a unit that is not loaded, and so nothing bad either.
        with contextlib.suppress(RpinfsError):
            _queue(b"ResetFailedUnit", "forget the failure of", [name])
    _queue(b"StartUnit", "start", names)


def stop_units(names: Sequence[str]) -> None:
    """Queue the stop of units, as `systemctl stop --no-block` does; what requires them stops too.

    Raises:
        RpinfsError: systemd cannot be reached, or refuses.
    """
    _queue(b"StopUnit", "stop", names)


def _queue(method: bytes, verb: str, names: Sequence[str]) -> None:
    apply_signature = _pystemd("dbuslib").apply_signature

    with _manager() as bus:
        for name in names:
            words = [name.encode()] if method == b"ResetFailedUnit" else [name.encode(), b"replace"]
            arguments = apply_signature(b"s" * len(words), words)
            with _explained(f"systemd refuses to {verb} {name}"):
                bus.call_method(_NAME, _MANAGER_PATH, _MANAGER, method, arguments)


def system_state() -> str:
    """Ask for the state of the whole system: "running", "degraded", "starting", ... (systemctl is-system-running).

    Raises:
        RpinfsError: systemd cannot be reached.
    """
    with _manager() as bus:
        return _text(bus.get_property(_NAME, _MANAGER_PATH, _MANAGER, b"SystemState", b"s"))


def outcome(service: str) -> str | None:
    """How the last run of a service has ended: "success", or what went wrong; None while a job for it waits or runs.

    Asks for nothing that systemd would look up on a disk, which may be on a NAS that is gone: for a unit that is
    loaded, as what another one names in its Before= is.

    Raises:
        RpinfsError: systemd cannot be reached, or refuses.
    """
    path_encode = _pystemd("dbuslib").path_encode

    path = path_encode(b"/org/freedesktop/systemd1/unit", service.encode())
    kind = f"{_NAME.decode()}.Service".encode()
    with _manager() as bus, _explained(f"systemd does not tell how {service} has ended"):
        if bus.get_property(_NAME, path, _UNIT, b"Job", b"(uo)")[0]:
            return None
        result = _text(bus.get_property(_NAME, path, kind, b"Result", b"s"))
        if result != "exit-code":
            return result
        return f"exit status {bus.get_property(_NAME, path, kind, b'ExecMainStatus', b'i')}"


def _unit_state(bus: Any, name: str) -> UnitState:  # noqa: ANN401  pystemd has no types
    path_encode = _pystemd("dbuslib").path_encode

    path = path_encode(b"/org/freedesktop/systemd1/unit", name.encode())

    def read(key: str, kind: bytes = b"s", interface: bytes = _UNIT) -> Any:  # noqa: ANN401
        return bus.get_property(_NAME, path, interface, key.encode(), kind)

    def moment(key: str) -> float | None:
        return int(read(f"{key}TimestampMonotonic", b"t")) / 1e6 or None

    with _explained(f"systemd does not tell the state of {name}"):
        kind = _WITH_RESULT.get(name.rpartition(".")[2])
        job = read("Job", b"(uo)")
        return UnitState(
            name=name,
            load=_text(read("LoadState")),
            active=_text(read("ActiveState")),
            sub=_text(read("SubState")),
            result=_text(read("Result", interface=f"{_NAME.decode()}.{kind}".encode())) if kind else "",
            enabled=_text(read("UnitFileState")),
            job=_job_type(bus, job),
            since=moment("StateChange"),
            has_run=(left_inactive := moment("InactiveExit")) is not None,
            left_active=moment("ActiveExit"),
            became_inactive=moment("InactiveEnter"),
            left_inactive=left_inactive,
        )


def _job_type(bus: Any, job: Any) -> str:  # noqa: ANN401
    number, path = job
    if not number:
        return ""
    try:
        return _text(bus.get_property(_NAME, path, b"org.freedesktop.systemd1.Job", b"JobType", b"s"))
    except _bus_error():
        # It has ended in the meantime.
        return ""


@contextlib.contextmanager
def _manager() -> Iterator[Any]:
    """A connection to systemd itself."""
    try:
        bus = _pystemd("dbuslib").DBusAddress(_ADDRESS, peer_to_peer=True)
    except ImportError as error:
        raise RpinfsError(f"systemd cannot be asked: {error}", "apt install python3-pystemd") from error
    with _explained("systemd cannot be reached over /run/systemd/private", "run this as root, on a running system"):
        bus.open()
    try:
        yield bus
    finally:
        bus.close()


@contextlib.contextmanager
def _explained(what: str, remedy: str | None = None) -> Iterator[None]:
    try:
        yield
    except _bus_error() as error:
        raise RpinfsError(f"{what}: {_reason(error)}", remedy) from error


def _reason(error: Exception) -> str:
    """systemd's own sentence; str(error) would show it as a Python literal behind an error number."""
    return _text(getattr(error, "err_message", "") or error)


def _bus_error() -> type[Exception]:
    """What every error of pystemd's is derived from."""
    error: type[Exception] = _pystemd("dbusexc").DBusBaseError
    return error


def _pystemd(module: str) -> Any:  # noqa: ANN401  pystemd has no types
    """A module of pystemd, without what the package imports for whoever asks it for units as objects.

    That is lxml with its libraries: 29 files of the root, a quarter of the time, and memory that the agent keeps.

    Raises:
        ImportError: pystemd is not installed.
    """
    if "pystemd" not in sys.modules and (spec := PathFinder.find_spec("pystemd")):
        sys.modules["pystemd"] = module_from_spec(spec)
    stand_in = _OnNeed("pprint")
    has_it = sys.modules.setdefault("pprint", stand_in) is not stand_in
    try:
        return import_module(f"pystemd.{module}")
    finally:
        if not has_it:
            del sys.modules["pprint"]


class _OnNeed(ModuleType):
    """In the place of a module of functions, which is imported when one of them is called.

    That is pprint, with which pystemd shows a message to whoever looks for a fault in it, by one function or another
    from version to version. With it came dataclasses, inspect and ten more: half of what it took to ask systemd.
    """

    def __getattr__(self, function: str) -> object:
        if function.startswith("__"):
            raise AttributeError(function)

        def called(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
            return getattr(import_module(self.__name__), function)(*arguments, **more)

        return called


def _text(value: object) -> str:
    """Values of pystemd are bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
