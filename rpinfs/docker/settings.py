"""Docker's settings on this machine: what they are, and how one of them is changed. What Docker makes of them decides
rpinfs.docker.

A change of daemon.json leaves either the old file or the new one, whole, wherever it is interrupted: a temporary file
beside it, synced, validated by dockerd where it can, and then renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import stat
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rpinfs.boot import storage
from rpinfs.boot.host import Host, read_text
from rpinfs.docker import jsonedit, rules, subids
from rpinfs.errors import RpinfsError
from rpinfs.system import deadline
from rpinfs.system.run import CommandError, run

if TYPE_CHECKING:
    from rpinfs.boot.config import Image

KEY = "userns-remap"
NONE = "none"
"""Word for: not remapped, the key taken out."""

_DAEMON_JSON = "/etc/docker/daemon.json"
_CONTAINERD_TOML = "/etc/containerd/config.toml"
_ENVIRONMENT = "/etc/default/docker"
_UNITS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_TEMPORARY = ".rpinfs-new-"
_BYTE_ORDER_MARK = "\ufeff"

# dockerd is 75 to 95 MB, which a cold NAS has to deliver first.
_DOCKERD_SECONDS = 60.0
_DATA_SECONDS = 5.0


@dataclass(frozen=True)
class Stored:
    """What Docker has in its folders: numbers of things, layers only where containerd keeps the images."""

    images: int = 0
    containers: int = 0
    volumes: int = 0
    layers: int = 0

    def __str__(self) -> str:
        found = vars(self).items()
        return ", ".join(f"{number} {name[:-1] if number == 1 else name}" for name, number in found if number)


@dataclass(frozen=True)
class Installed:
    """Docker on this machine: its version, daemon.json as it stands there, what it was told, and the images."""

    host: Host
    images: Sequence[Image]
    version: str
    path: str
    text: str
    settings: rules.Settings


@dataclass(frozen=True)
class Change:
    """What setting userns-remap will do.

    `hidden`: what Docker does not see any more afterwards, for a person; "" is nothing. `text` is the new daemon.json.
    """

    installed: Installed
    before: rules.Expected
    after: rules.Expected
    text: str
    hidden: str

    @property
    def is_none(self) -> bool:
        """Whether all is so already."""
        return self.text == self.installed.text


# Reading


def read(host: Host, images: Sequence[Image]) -> Installed:
    """Read Docker's settings; `images` are those of the configuration.

    Raises:
        RpinfsError: Docker is not installed, or a file is wrong (exit status 2).
    """
    flags = _flags(host.root)
    given = flags.pop("config-file", None)
    file = given.value if given else _DAEMON_JSON
    path = _followed(host.root, file)
    text = _text_of(path, file)
    settings = rules.Settings(_object(text, file), file, flags, _containerd_root(host.root))
    return Installed(host, images, _version(host.root), path, text, settings)


def expect(installed: Installed) -> rules.Expected:
    """What Docker will do on this machine; what is wrong with the numbers of userns-remap is among the problems."""
    root, settings = installed.host.root, installed.settings
    wanted = rules.expected(installed.version, settings).userns_remap.value
    remapped, problems = None, []
    if wanted and not rules.is_root(wanted):
        try:
            remap = subids.resolve(wanted, _accounts(root))
            remapped = (remap.uid, remap.gid)
        except RpinfsError as error:
            problems.append(rules.Problem(error.message, error.remedy, fatal=True))
    expected = rules.expected(
        installed.version,
        settings,
        prior=lambda folder: _prior(root + folder) if _can_be_seen(installed, folder) else (),
        filesystem=lambda folder: _filesystem(installed, folder),
        remapped=remapped,
    )
    return replace(expected, problems=(*problems, *expected.problems))


def stored(installed: Installed, expected: rules.Expected) -> Stored:
    """Count what there is in Docker's folders.

    Raises:
        RpinfsError: the image is not mounted, or the NAS does not answer.
    """
    root, folders = installed.host.root, (expected.root, expected.image_folder)
    unseen = next((folder for folder in folders if not _can_be_seen(installed, folder)), None)
    if unseen:
        raise RpinfsError(f"the image of {unseen} is not mounted", "rpinfs status")
    return deadline.within(_DATA_SECONDS, _count, *(root + folder for folder in folders))


def _count(data: str, layers: str) -> Stored:
    volumes = (os.path.isdir(f"{data}/volumes/{name}") for name in _names(f"{data}/volumes"))
    return Stored(
        images=sum(len(_names(f"{data}/image/{driver}/imagedb/content/sha256")) for driver in _names(f"{data}/image")),
        containers=len(_names(f"{data}/containers")),
        volumes=sum(volumes),
        layers=sum(
            len(_names(f"{layers}/{plugin}/snapshots"))
            for plugin in _names(layers)
            if plugin.startswith("io.containerd.snapshotter.v1.")
        ),
    )


def _prior(folder: str) -> list[str]:
    """The folders with something in them, which is how Docker knows a driver that was used."""
    return [name for name in deadline.within(_DATA_SECONDS, _names, folder) if _names(f"{folder}/{name}")]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _can_be_seen(installed: Installed, folder: str) -> bool:
    """Whether a folder shows what Docker will find there: not where the image that it is on is not mounted yet."""
    image = rules.image_of(folder, installed.images)
    return image is None or storage.mount_at(storage.parse_mountinfo(installed.host.mountinfo), image.where) is not None


def _filesystem(installed: Installed, folder: str) -> str:
    """The type of the file system on which a folder is, or will be: the gate lets Docker start on its image only."""
    image = rules.image_of(folder, installed.images)
    if image:
        return image.filesystem
    mounts = storage.parse_mountinfo(installed.host.mountinfo)
    while (mount := storage.mount_at(mounts, folder)) is None and folder != "/":
        folder = os.path.dirname(folder)
    return mount.kind if mount else ""


def _version(root: str) -> str:
    """The version of Docker: as it says itself, and of another root as its package manager has it."""
    if root:
        return _packaged_version(read_text(f"{root}/var/lib/dpkg/status"))
    try:
        said = run(["dockerd", "--version"], timeout=_DOCKERD_SECONDS).stdout
    except CommandError as error:
        if error.returncode is None and "not found" in error.reason:
            raise _not_installed() from error
        raise
    found = re.search(r"version (\S+?),", said)
    if not found:
        raise RpinfsError(f"dockerd --version: expected a version, found {said.strip() or 'nothing'}")
    return found[1]


def _packaged_version(status: str) -> str:
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        if fields.get("Package") in ("docker.io", "docker-ce") and fields.get("Status", "").endswith(" installed"):
            return fields["Version"].rpartition(":")[2]
    raise _not_installed()


def _not_installed() -> RpinfsError:
    return RpinfsError("Docker is not installed", "apt install docker.io")


def _text_of(path: str, file: str) -> str:
    """The text of a file, "" where it is not there. Not read_text(): what cannot be read must not count as empty."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise RpinfsError(f"{file}: expected text in UTF-8: {error.reason}", status=2) from error


def _object(text: str, file: str) -> dict[str, object]:
    """The keys of daemon.json; an empty file counts as none, as it does for Docker."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    if not text.strip():
        return {}
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise RpinfsError(
            f"{file}:{error.lineno}: expected JSON: {error.msg} (column {error.colno})",
            "mend it by hand; Docker does not start with it either",
            status=2,
        ) from error
    except ValueError as error:
        raise RpinfsError(f"{file}: expected JSON: {error}", status=2) from error
    if not isinstance(found, dict):
        raise RpinfsError(f"{file}:1: expected an object in braces, found {text.split()[0][:20]}", status=2)
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _followed(root: str, file: str) -> str:
    """Where a file really is, with symbolic links that mean the world below root."""
    path = root + file
    for _ in range(40):
        if not os.path.islink(path):
            return path
        target = os.readlink(path)
        path = root + target if target.startswith("/") else os.path.join(os.path.dirname(path), target)
    raise RpinfsError(f"{file}: expected a file, found a circle of symbolic links")


def _containerd_root(root: str) -> rules.Choice | None:
    text = read_text(root + _CONTAINERD_TOML)
    try:
        value = tomllib.loads(text).get("root")
    except tomllib.TOMLDecodeError as error:
        raise RpinfsError(f"{_CONTAINERD_TOML}: expected TOML: {error}", status=2) from error
    return rules.Choice(value, _CONTAINERD_TOML) if isinstance(value, str) else None


def _flags(root: str) -> dict[str, rules.Choice]:
    """The settings that docker.service gives dockerd as options, and where."""
    flags = {}
    for words, origin in _command_line(root):
        for word, following in zip(words, [*words, ""][1:], strict=True):
            option, equals, value = word.partition("=")
            key = "config-file" if option == "--config-file" else rules.FLAGS.get(option)
            if key:
                flags[key] = rules.Choice(value if equals else following, f"{option} in {origin}")
    return flags


def _command_line(root: str) -> Iterable[tuple[list[str], str]]:
    """The words after dockerd in docker.service and its drop-ins, with the file that they stand in."""
    units = [f"{folder}/docker.service" for folder in _UNITS]
    unit = next((path for path in units if os.path.exists(root + path)), "")
    drop_ins = f"{_UNITS[0]}/docker.service.d"
    files = [unit, *(f"{drop_ins}/{name}" for name in sorted(_names(root + drop_ins)) if name.endswith(".conf"))]
    words: list[str] = []
    origin = ""
    for file in filter(None, files):
        text = read_text(root + file).replace("\\\n", " ")
        for line in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE):
            words, origin = _split(line), file
    yield words, origin
    if "$DOCKER_OPTS" in words:
        for value in re.findall(r"^DOCKER_OPTS=(.*)$", read_text(root + _ENVIRONMENT), re.MULTILINE):
            yield _split(" ".join(_split(value))), _ENVIRONMENT


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _accounts(root: str) -> subids.Accounts:
    def text_or_none(path: str) -> str | None:
        return read_text(root + path) if os.path.exists(root + path) else None

    return subids.Accounts(
        passwd=read_text(f"{root}/etc/passwd"),
        group=read_text(f"{root}/etc/group"),
        subuid=text_or_none("/etc/subuid"),
        subgid=text_or_none("/etc/subgid"),
    )


# Changing


def plan(installed: Installed, wanted: str) -> Change:
    """What setting userns-remap to `wanted` ("default", USER, USER:GROUP or "none") will do. Nothing is changed.

    Raises:
        RpinfsError: Docker would not start so.
    """
    before = expect(installed)
    text = _edited(installed.text, wanted)
    settings = replace(installed.settings, keys=_object(text, installed.settings.file))
    after = expect(replace(installed, text=text, settings=settings))
    new = next((problem for problem in after.problems if problem.fatal and problem not in before.problems), None)
    if new and text != installed.text:
        raise RpinfsError(new.message, new.remedy)
    return Change(installed, before, after, text, _hidden(installed, before, after))


def apply(change: Change) -> None:
    """Write daemon.json.

    Raises:
        RpinfsError: dockerd refuses it, or somebody changed it meanwhile; the file is as it was.
        OSError: it cannot be written; the file is as it was.
    """
    installed = change.installed
    file = installed.settings.file

    def validate(temporary: str) -> None:
        if _text_of(installed.path, file) != installed.text:
            raise RpinfsError(f"{file} was changed by somebody else meanwhile", "do it again")
        if change.after.rules.validate and not installed.host.root:
            _validate(temporary, file)

    replace_file(installed.path, change.text.encode(), validate)


def _edited(text: str, wanted: str) -> str:
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    return mark + (jsonedit.remove_member(text, KEY) if wanted == NONE else jsonedit.set_member(text, KEY, wanted))


def _hidden(installed: Installed, before: rules.Expected, after: rules.Expected) -> str:
    """What Docker does not find any more: userns-remap has another data folder and another namespace of containerd."""
    if before.root == after.root and before.snapshotter == after.snapshotter:
        return ""
    try:
        there = stored(installed, before)
    except (RpinfsError, OSError):
        return f"whatever is in {before.root}, which cannot be looked at now"
    return f"{there} in {before.image_folder}" if str(there) else ""


def _validate(temporary: str, file: str) -> None:
    """Have dockerd look at it. With userns-remap=default it makes the user dockremap, with ranges, as a start does."""
    try:
        run(["dockerd", "--validate", "--config-file", temporary], timeout=_DOCKERD_SECONDS)
    except CommandError as error:
        raise RpinfsError(
            f"{file} is left as it was, dockerd refuses the new one: {error.reason.replace(temporary, file)}", status=2
        ) from error


def replace_file(path: str, content: bytes, validate: Callable[[str], None]) -> None:
    """Put a file in the place of another one, with its owner and mode; `path` must be no symbolic link.

    Args:
        path: the file; it need not be there, nor its folder.
        content: its new bytes.
        validate: is called with the path of the new file; what it raises leaves all as it was.
    """
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    _remove_leftovers(folder, name)
    temporary = f"{folder}/.{name}{_TEMPORARY}{os.urandom(8).hex()}"
    try:
        _write(temporary, content, _state(path))
        validate(temporary)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    # The new file is in place: what fails from here on cannot leave half of it.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _state(path: str) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _write(path: str, content: bytes, old: os.stat_result | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        if old and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode) if old else 0o644)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _remove_leftovers(folder: str, name: str) -> None:
    """Of a run that was killed. Should another one be at it, its rename fails, and daemon.json stays as it is."""
    for left in os.listdir(folder):
        if left.startswith(f".{name}{_TEMPORARY}"):
            os.unlink(os.path.join(folder, left))
