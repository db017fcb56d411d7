"""Docker's settings on this machine: its version, what it was told, what it has stored. What Docker makes of them
decides rpinfs.docker.rules; what systemd starts it with, rpinfs.docker.service.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from rpinfs.boot import storage
from rpinfs.boot.host import Host, read_text
from rpinfs.boot.values import dataclass, replace
from rpinfs.docker import containerd, daemonjson, options, placement, rules, service, subids
from rpinfs.docker.told import Choice, Problem, Settings
from rpinfs.errors import RpinfsError
from rpinfs.system import deadline
from rpinfs.system.run import CommandError, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.boot.config import Image

UNIT = "docker.service"
DAEMON_JSON = "/etc/docker/daemon.json"

# dockerd is 75 to 95 MB, which a cold NAS has to deliver first.
DOCKERD_SECONDS = 60.0
DATA_SECONDS = 5.0
_QUOTA = ("prjquota", "pquota")


@dataclass(frozen=True)
class Stored:
    """What Docker has in its folders: numbers of things.

    Layers only where containerd keeps the images, and its blobs where it has unpacked none of them to layers, as after
    `docker import` and `docker load`.
    """

    images: int = 0
    containers: int = 0
    volumes: int = 0
    layers: int = 0
    blobs: int = 0

    def __str__(self) -> str:
        found = vars(self).items()
        return ", ".join(f"{number} {name[:-1] if number == 1 else name}" for name, number in found if number)


@dataclass(frozen=True)
class Installed:
    """Docker on this machine: its version, daemon.json as it stands there, what it was told, and the images.

    `path` is where daemon.json really is; `text` is None where there is none; `images` is None where rpinfs is not in
    use.
    """

    host: Host
    images: Sequence[Image] | None
    version: str
    path: str
    text: str | None
    settings: Settings


# Reading


def read(host: Host, images: Sequence[Image] | None, version: str = "") -> Installed:
    """Read Docker's settings.

    Args:
        images: those of the configuration, None where rpinfs is not in use.
        version: of Docker, for whoever knows it; otherwise Docker is asked.

    Raises:
        RpinfsError: Docker is not installed, or a file is wrong (exit status 2).
        OSError: a file cannot be read.
    """
    root = host.root
    version = version or _version(root)
    unit = service.read(root, UNIT)
    flags, problems, untold = _flags(unit, version)
    given = flags.pop("config-file", None)
    file = given[-1].value if given else DAEMON_JSON
    path = service.followed(root, file)
    # dockerd takes an empty name for no file at all.
    text = read_file(path, file) if file else None
    if text is None and given and file:
        problems.append(_stops(f"{file} is not there, which {given[-1].origin} names", version, f"touch {file}"))
    driver = unit.variables.get("DOCKER_DRIVER")
    settings = Settings(
        {},
        file,
        flags,
        driver=Choice(driver.text, f"DOCKER_DRIVER in {driver.origin}") if driver and driver.text else None,
        problems=tuple(problems),
        untold=untold,
    )
    settings = with_text(settings, text, version)
    if unit.covered and not untold:
        settings = replace(settings, untold=service.hidden(root, unit, _data_root_of(version, settings)))
    containerd_root = containerd.root_of(
        root, _address(settings), _data_root_of(version, settings) if unit.file else ""
    )
    return Installed(host, images, version, path, text, replace(settings, containerd_root=containerd_root))


def with_text(settings: Settings, text: str | None, version: str) -> Settings:
    """The settings with what is in this text of daemon.json. Raises RpinfsError."""
    found = daemonjson.parse(text, settings.file, rules.number(version), rules.short(version))
    return replace(settings, keys=found.keys, lines=found.lines, file_problems=found.problems)


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
            problems.append(Problem(error.message, error.remedy, fatal=True))
    expected = rules.expected(
        installed.version,
        settings,
        prior=lambda folder: _prior(root + folder) if can_be_seen(installed, folder) else (),
        filesystem=lambda folder: _filesystem(installed, folder),
        quota=lambda folder: _has_quota(installed, folder),
        remapped=remapped,
    )
    return replace(expected, problems=(*problems, *expected.problems))


def real(installed: Installed, folder: str) -> str:
    """A folder with the symbolic links in it followed, in the world below the root of the machine."""
    try:
        return deadline.within(DATA_SECONDS, _real, installed.host.root, folder)
    except (RpinfsError, OSError):
        return folder


def _real(root: str, folder: str) -> str:
    found = ""
    for part in folder.strip("/").split("/"):
        found = os.path.normpath(service.followed(root, f"{found}/{part}").removeprefix(root))
    return found


def stored(installed: Installed, expected: rules.Expected) -> Stored:
    """Count what there is in Docker's folders.

    Raises:
        RpinfsError: the image is not mounted, or the NAS does not answer.
    """
    root, folders = installed.host.root, (expected.root, expected.image_folder)
    unseen = next((folder for folder in folders if not can_be_seen(installed, folder)), None)
    if unseen:
        raise RpinfsError(f"the image of {unseen} is not mounted", "rpinfs status")
    return deadline.within(DATA_SECONDS, _count, *(root + folder for folder in folders))


def _count(data: str, folder: str) -> Stored:
    return replace(
        of_containerd(folder),
        images=sum(images_of(data, driver) for driver in names(f"{data}/image")),
        containers=len(names(f"{data}/containers")),
        volumes=volumes_in(data),
    )


def images_of(data: str, driver: str) -> int:
    """The number of images that a storage driver has in a data folder."""
    return len(names(f"{data}/image/{driver}/imagedb/content/sha256"))


def volumes_in(data: str) -> int:
    """The number of volumes in a data folder, without the file that keeps their settings."""
    return sum(os.path.isdir(f"{data}/volumes/{name}") for name in names(f"{data}/volumes"))


def of_containerd(folder: str) -> Stored:
    """What containerd has of images in its folder."""
    plugins = [name for name in names(folder) if name.startswith("io.containerd.snapshotter.v1.")]
    layers = sum(len(names(f"{folder}/{plugin}/snapshots")) for plugin in plugins)
    return Stored(
        layers=layers, blobs=0 if layers else len(names(f"{folder}/io.containerd.content.v1.content/blobs/sha256"))
    )


def _prior(folder: str) -> list[str]:
    return deadline.within(DATA_SECONDS, with_something, folder)


def with_something(folder: str) -> list[str]:
    """The folders with something in them, which is how Docker knows a driver that was used."""
    return [name for name in names(folder) if names(f"{folder}/{name}")]


def names(folder: str) -> list[str]:
    """What is in a folder; nothing where it is none."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def image_of(installed: Installed, folder: str) -> Image | None:
    """The image that a folder is on, by whatever symbolic links lead there; None where it is on none."""
    return placement.image_of(real(installed, folder), installed.images or ())


def can_be_seen(installed: Installed, folder: str) -> bool:
    """Whether a folder shows what Docker will find there: not where the image that it is on is not mounted yet."""
    image = image_of(installed, folder)
    return image is None or storage.mount_at(storage.parse_mountinfo(installed.host.mountinfo), image.where) is not None


def _filesystem(installed: Installed, folder: str) -> str:
    """The type of the file system on which a folder is, or will be: the gate lets Docker start on its image only."""
    image = image_of(installed, folder)
    if image:
        return image.filesystem
    mount = _mount_of(installed, folder)
    return mount.kind if mount else ""


def _has_quota(installed: Installed, folder: str) -> bool:
    """Whether the file system of a folder keeps project quotas, or will."""
    image = image_of(installed, folder)
    if image:
        return bool(set(_QUOTA) & set(image.options))
    mount = _mount_of(installed, folder)
    return mount is not None and bool(set(_QUOTA) & set(mount.super_options))


def _mount_of(installed: Installed, folder: str) -> storage.Mount | None:
    folder, mounts = real(installed, folder), storage.parse_mountinfo(installed.host.mountinfo)
    while (mount := storage.mount_at(mounts, folder)) is None and folder not in ("/", ""):
        folder = os.path.dirname(folder)
    return mount


def _version(root: str) -> str:
    """The version of Docker: as it says itself, and of another root as its package manager has it."""
    if root:
        packaged = packaged_version(root)
        if not packaged:
            raise _not_installed()
        return packaged
    try:
        said = run(["dockerd", "--version"], timeout=DOCKERD_SECONDS).stdout
    except CommandError as error:
        if error.returncode is None and "not found" in error.reason:
            raise _not_installed() from error
        raise
    found = re.search(r"version (\S+?),", said)
    if not found:
        raise RpinfsError(f"dockerd --version: expected a version, found {said.strip() or 'nothing'}")
    return found[1]


def packaged_version(root: str) -> str:
    """The version of Docker as the package manager has it; "" where it has none."""
    for paragraph in read_text(f"{root}/var/lib/dpkg/status").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        if fields.get("Package") in ("docker.io", "docker-ce") and fields.get("Status", "").endswith(" installed"):
            return fields["Version"].rpartition(":")[2]
    return ""


def _not_installed() -> RpinfsError:
    return RpinfsError("Docker is not installed", "apt install docker.io")


def read_file(path: str, file: str) -> str | None:
    """The text of a file, None where it is not there. Not read_text(): what cannot be read must not count as empty."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise RpinfsError(f"{file}: expected text in UTF-8: {error.reason}", status=2) from error


def _flags(unit: service.Service, version: str) -> tuple[dict[str, list[Choice]], list[Problem], str]:
    """The options that docker.service gives dockerd, what is wrong with them, and why they cannot be told."""
    if unit.refused:
        return {}, [_stops(unit.refused, version, f"systemctl cat {UNIT}")], ""
    if unit.untold or not unit.file:
        return {}, [], unit.untold
    if os.path.basename(unit.program) != "dockerd":
        return {}, [], f"{unit.origin} starts {unit.program}"
    try:
        given = options.parse(unit.words, rules.number(version))
    except options.UnknownFlagError as error:
        return {}, [_stops(f"option {error}", version, f"take it out: systemctl edit {UNIT}")], ""
    flags: dict[str, list[Choice]] = {}
    for one in given:
        flags.setdefault(one.option.name, []).append(Choice(one.value, f"{one.written} in {one.origin}"))
    return flags, [], ""


def _stops(what: str, version: str, remedy: str) -> Problem:
    return Problem(f"{what}: Docker {rules.short(version)} does not start so", remedy, fatal=True)


def _address(settings: Settings) -> Choice | None:
    """The socket of containerd that dockerd is told."""
    told = settings.text("containerd", "")
    return told if told.value else None


def _data_root_of(version: str, settings: Settings) -> str:
    return rules.expected(version, settings).data_root.value or rules.DATA_ROOT


def _accounts(root: str) -> subids.Accounts:
    def text_or_none(path: str) -> str | None:
        return read_text(root + path) if os.path.exists(root + path) else None

    return subids.Accounts(
        passwd=read_text(f"{root}/etc/passwd"),
        group=read_text(f"{root}/etc/group"),
        subuid=text_or_none("/etc/subuid"),
        subgid=text_or_none("/etc/subgid"),
    )
