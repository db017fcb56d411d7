"""Where Docker and containerd will write, for the gate: by their settings alone, and no program is started for it.

dockerd --version takes seconds from a cold NAS: the version is that of the package, and where no package tells, every
version that there are rules for is asked. What one of them does not start with moves nothing in that one.
"""

from __future__ import annotations

from collections.abc import Iterator

from rpinfs.boot.daemons import Told
from rpinfs.boot.host import Host
from rpinfs.docker import containerd, rules, service, settings
from rpinfs.docker.daemonjson import NoJsonError
from rpinfs.docker.told import Choice
from rpinfs.errors import RpinfsError
from rpinfs.system import deadline

# Small files of the root; but an EnvironmentFile= may be a pipe, or on a NAS that does not answer.
_SECONDS = 30.0
_OF_PACKAGES = ("dockerd", "/usr/sbin/dockerd", "/usr/bin/dockerd", "/sbin/dockerd", "/bin/dockerd")


class _DoesNotStartError(RpinfsError):
    """dockerd of a version does not start so, and writes nowhere."""


def soon(host: Host) -> list[Told]:
    """What read() returns, from a child with a time limit; TimedOut is an RpinfsError, too."""
    return deadline.within(_SECONDS, read, host)


def read(host: Host) -> list[Told]:
    """The folders of Docker and, where images are kept there, of containerd; none of what is not installed.

    Raises:
        RpinfsError: it cannot be told; the message says why.
        OSError: a file cannot be read.
    """
    docker = service.read(host.root, settings.UNIT)
    if not docker.file or docker.masked:
        return _without_docker(host)
    found: dict[tuple[str, str], Told] = {}
    errors: list[RpinfsError] = []
    for version in _versions(host.root, docker.program):
        try:
            found.update({(told.daemon, told.path): told for told in _of_version(host, version)})
        except (NoJsonError, _DoesNotStartError) as error:
            errors.append(error)
    if found:
        return list(found.values())
    for reason in errors:
        # Of an option that we do not know that may be untrue. What is no JSON is none to dockerd.
        if isinstance(reason, _DoesNotStartError):
            raise reason
    return _without_docker(host)


def _versions(root: str, program: str) -> list[str]:
    """The version of Docker as the package manager has it, or all that there are rules for."""
    version = settings.packaged_version(root) if program in _OF_PACKAGES else ""
    try:
        rules.rules_for(version)
    except RpinfsError:
        return ["{}.{}".format(*known.since) for known in rules.RULES]
    return [version]


def _of_version(host: Host, version: str) -> Iterator[Told]:
    installed = settings.read(host, None, version)
    # Not what is wrong in daemon.json: dockerd says that itself.
    for problem in installed.settings.problems:
        if problem.fatal:
            raise _DoesNotStartError(problem.message, problem.remedy)
    expected = rules.expected(version, installed.settings, prior=lambda folder: _prior(host.root + folder))
    if not expected.is_told:
        raise RpinfsError(installed.settings.untold, expected.problems[-1].remedy)
    yield _told("docker", expected.data_root)
    if expected.snapshotter:
        yield _told("containerd", expected.containerd_root)


def _prior(folder: str) -> list[str]:
    try:
        return settings.with_something(folder)
    except OSError:
        # Without layers Docker 29 takes containerd: the stricter rule.
        return []


def _without_docker(host: Host) -> list[Told]:
    """Others use containerd, too: its folder counts."""
    unit = service.read(host.root, containerd.UNIT)
    if not unit.file or unit.masked:
        return []
    root = containerd.root_of(host.root, None, "") or Choice(rules.CONTAINERD_ROOT, "default of containerd")
    return [_told("containerd", root)]


def _told(daemon: str, choice: Choice) -> Told:
    if not choice.value:
        raise RpinfsError(
            choice.origin.removeprefix("cannot be told: "),
            "have containerd.service start containerd itself, with its options written out, and Docker use that one",
        )
    if choice.origin.startswith("default of "):
        # Of whichever version.
        return Told(daemon, choice.value, f"the {choice.origin.rstrip('.0123456789 ')}")
    return Told(daemon, choice.value, choice.origin)
