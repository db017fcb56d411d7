"""What Docker will do: driver or snapshotter, folders, user namespaces, by its version, its settings and the storage.

Pure: nothing is read here. The rules were read in the sources of the daemon (moby): daemon/graphdriver/driver.go and
driver_linux.go (order of the drivers, prior data), daemon/image_store_choice.go and daemon/command/daemon_linux.go
(29), daemon/daemon.go (24 to 28), daemon/daemon_unix.go setupDaemonRoot (the folder of userns-remap) and
RemapContainerdNamespaces (its namespace in containerd). `Rules.seen`
says against which package each was tried, and is empty where none was to be had.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from enum import Enum

from rpinfs.boot.values import dataclass
from rpinfs.docker import refusals
from rpinfs.docker.told import Choice, Problem, Settings
from rpinfs.errors import RpinfsError

DATA_ROOT = "/var/lib/docker"
CONTAINERD_ROOT = "/var/lib/containerd"
NAMESPACE = "moby"
GOOD_DRIVERS = ("overlay2", "overlayfs")

_GRAPH_UNTIL = (23, 0)
_DRIVERS_25 = ("overlay2", "fuse-overlayfs", "btrfs", "zfs", "vfs")
_OLD = ("aufs", "overlay", "devicemapper")
_OWN_FILE_SYSTEM = ("btrfs", "zfs")
"""Drivers that work on the file system of their name, and only there."""

_NO_OVERLAY = ("nfs", "nfs4", "overlay", "zfs")
"""File systems that can hold no upper layer of an overlay mount."""


class Snapshotter(Enum):
    """Whether a version keeps images with a snapshotter of containerd's, in containerd's folder."""

    NEVER = "never"
    ON_REQUEST = "with features.containerd-snapshotter"
    BY_DEFAULT = "unless there is a reason against it"


@dataclass(frozen=True)
class Rules:
    """How Docker of `since` (major, minor) and later decides.

    Attributes:
        drivers: the storage drivers that it has, in the order in which it tries them.
        validate: whether `dockerd --validate` is there.
        seen: the package that these rules were tried with; empty: they are read in source and documentation only.
        store_seen: the package that has the same image store as an option, and with which that was tried.
    """

    since: tuple[int, int]
    drivers: tuple[str, ...]
    snapshotter: Snapshotter
    validate: bool
    seen: str = ""
    store_seen: str = ""


RULES = (
    Rules((20, 10), ("btrfs", "zfs", "overlay2", "fuse-overlayfs", *_OLD, "vfs"), Snapshotter.NEVER, False,
          seen="20.10.24 of Debian 12"),
    Rules((23, 0), ("overlay2", "fuse-overlayfs", "btrfs", "zfs", *_OLD, "vfs"), Snapshotter.NEVER, True),
    Rules((24, 0), ("overlay2", "fuse-overlayfs", "btrfs", "zfs", "devicemapper", "vfs"), Snapshotter.ON_REQUEST, True),
    Rules((25, 0), _DRIVERS_25, Snapshotter.ON_REQUEST, True),
    Rules((26, 0), _DRIVERS_25, Snapshotter.ON_REQUEST, True, seen="26.1.5 of Debian 13"),
    Rules((27, 0), _DRIVERS_25, Snapshotter.ON_REQUEST, True),
    Rules((28, 0), _DRIVERS_25, Snapshotter.ON_REQUEST, True, seen="28.5.2 of Debian 14"),
    Rules((29, 0), _DRIVERS_25, Snapshotter.BY_DEFAULT, True, store_seen="28.5.2 of Debian 14"),
)  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """What Docker will do.

    Attributes:
        snapshotter: whether images are containerd's, below `containerd_root`.
        driver: the storage driver, or the snapshotter; `Driver` of `docker info`.
        data_root: as it is set.
        root: where the data really is, `DockerRootDir` of `docker info`: with userns-remap a folder in `data_root`.
        namespace: whose images it sees of those that containerd has.
        userns_remap: "" is off; so is root to itself, but for the folder.

    Where it cannot be told with which options dockerd starts, all of them are "", and their origins say why.
    """

    version: str
    rules: Rules
    snapshotter: bool
    driver: Choice
    data_root: Choice
    root: str
    containerd_root: Choice
    userns_remap: Choice
    namespace: str
    problems: tuple[Problem, ...]

    @property
    def image_folder(self) -> str:
        """The folder that holds the images."""
        return self.containerd_root.value if self.snapshotter else self.root

    @property
    def is_told(self) -> bool:
        """Whether it can be told at all what Docker will do."""
        return bool(self.data_root.value)


def _no_prior(_: str) -> Collection[str]:
    return ()


def _ext4(_: str) -> str:
    return "ext4"


def _no_quota(_: str) -> bool:
    return False


def expected(
    version: str,
    settings: Settings,
    *,
    prior: Callable[[str], Collection[str]] = _no_prior,
    filesystem: Callable[[str], str] = _ext4,
    quota: Callable[[str], bool] = _no_quota,
    remapped: tuple[int, int] | None = None,
) -> Expected:
    """Foretell what Docker does when it starts.

    Args:
        version: as `dockerd --version` or the package says it: "26.1.5+dfsg1".
        settings: its configuration.
        prior: the storage drivers that have data in a data folder.
        filesystem: the type of the file system that a folder is on.
        quota: whether that file system keeps project quotas.
        remapped: the user and group number of root in a container; None where userns-remap is off or that is unknown.

    Raises:
        RpinfsError: no such version, or a value of daemon.json is of the wrong kind. Exit status 2.
    """
    rules = rules_for(version)
    if settings.untold:
        return _untold(version, rules, settings)
    default = f"default of Docker {short(version)}"
    data_root = _data_root(version, settings, default)
    userns_remap = settings.text("userns-remap", default)
    root = _root(data_root.value, userns_remap.value, remapped)
    containerd_root = settings.containerd_root or Choice(CONTAINERD_ROOT, "default of containerd")
    found = sorted(driver for driver in prior(root) if driver in rules.drivers and driver != "vfs")
    named = settings.driver or settings.text("storage-driver", default)
    store = _Store(version, rules, settings, named, found, root, bool(userns_remap.value), default)
    folder = containerd_root.value if store.snapshotter else root
    on = filesystem(folder) if folder else ""
    driver = store.driver(on)
    problems = [
        *settings.problems,
        *settings.file_problems,
        *refusals.of_settings(number(version), short(version), settings),
        *_root_to_root(userns_remap, root),
        *store.problems(),
        *_slow(driver, folder, on),
    ]
    if not store.snapshotter:
        storage = (driver.value, folder, on, quota(folder))
        problems += refusals.of_storage(number(version), short(version), settings, *storage)
    places = (data_root, root, containerd_root, userns_remap, _namespace(settings, userns_remap.value, root))
    return Expected(version, rules, store.snapshotter, driver, *places, tuple(problems))


def _untold(version: str, rules: Rules, settings: Settings) -> Expected:
    nothing = Choice("", f"cannot be told: {settings.untold}")
    problem = Problem(
        f"it cannot be told with which settings Docker starts: {settings.untold}",
        "have docker.service start dockerd itself, with its options written out",
    )
    containerd = settings.containerd_root or nothing
    problems = (*settings.problems, problem)
    return Expected(version, rules, False, nothing, nothing, "", containerd, nothing, "", problems)


def _data_root(version: str, settings: Settings, default: str) -> Choice:
    """The data root, which until 22 has an older name as well; what daemon.json says goes before any option."""
    names = ("data-root", "graph") if number(version) < _GRAPH_UNTIL else ("data-root",)
    by_file = [settings.text(name, default) for name in names if settings.keys.get(name) is not None]
    by_flag = [settings.flags[name][-1] for name in names if name in settings.flags]
    told = next((choice for choice in (*by_file, *by_flag) if choice.value), Choice(DATA_ROOT, default))
    return told if told.value.startswith("/") else Choice(f"/{told.value}", told.origin)


def rules_for(version: str) -> Rules:
    """The rules of a version; those of the newest that is known for what is newer.

    Raises:
        RpinfsError: it is none, or older than all.
    """
    fitting = [rules for rules in RULES if rules.since <= number(version)]
    if not fitting:
        raise RpinfsError(f"Docker {version}: expected 20.10 or later", "install a newer Docker")
    return fitting[-1]


def short(version: str) -> str:
    """The version without what packagers add: 26.1."""
    return "{}.{}".format(*number(version))


class _Store:
    """Where images go, and by which driver: the decision of one version about one set of settings."""

    def __init__(
        self,
        version: str,
        rules: Rules,
        settings: Settings,
        named: Choice,
        prior: Sequence[str],
        root: str,
        remapped: bool,
        default: str,
    ) -> None:
        self._version = short(version)
        self._rules = rules
        self._named = named
        self._prior = prior
        self._root = root
        self._remapped = remapped
        self._default = default
        self._file = settings.file
        self._wish = settings.feature("containerd-snapshotter")
        self.snapshotter, self._origin = self._choose()

    def _choose(self) -> tuple[bool, str]:
        """Snapshotter or storage driver, and why."""
        rules = self._rules
        wish, asked = (self._wish.value == "true", self._wish.origin) if self._wish else (None, "")
        if rules.snapshotter is Snapshotter.NEVER:
            return False, self._default
        if rules.snapshotter is Snapshotter.ON_REQUEST:
            return bool(wish), asked if wish else self._default
        if self._remapped:
            return False, "userns-remap, which wants a storage driver"
        if wish is not None:
            return wish, asked
        if self._prior:
            return False, f"data of an earlier Docker in {self._root}"
        if self._named.value in rules.drivers:
            return False, self._named.origin
        return True, self._default

    def driver(self, filesystem: str) -> Choice:
        """The driver or snapshotter, for a folder on such a file system."""
        if self._named.value:
            return self._named
        if self.snapshotter:
            by_default = self._rules.snapshotter is Snapshotter.BY_DEFAULT
            return Choice("native" if by_default and filesystem in _NO_OVERLAY else "overlayfs", self._origin)
        if self._prior:
            first = next(driver for driver in self._rules.drivers if driver in self._prior)
            return Choice(first, f"data of an earlier Docker in {self._root}")
        return Choice(_first_that_works(self._rules.drivers, filesystem), self._origin)

    def problems(self) -> list[Problem]:
        """Why Docker does not start, or fails later."""
        found = []
        if self._remapped and self._wish and self._wish.value == "true":
            found.append(self._remap_with_snapshotter())
        if not self.snapshotter and self._named.value and self._named.value not in self._rules.drivers:
            found.append(self._no_such_driver("storage driver"))
        if self.snapshotter and self._named.value in self._rules.drivers and self._named.value not in _OWN_FILE_SYSTEM:
            found.append(self._no_such_driver("snapshotter"))
        if not self.snapshotter and not self._named.value and len(self._prior) > 1:
            found.append(
                Problem(
                    f"{self._root} has data of {', '.join(self._prior)}: Docker does not start",
                    f'set "storage-driver" in {self._file} to the one that you mean',
                    fatal=True,
                )
            )
        return found

    def _remap_with_snapshotter(self) -> Problem:
        remedy = f"take containerd-snapshotter out of features in {self._file}"
        if self._rules.snapshotter is Snapshotter.BY_DEFAULT:
            what = f"Docker {self._version} does not start with both userns-remap and containerd-snapshotter"
            return Problem(what, remedy, fatal=True)
        return Problem("docker build fails with both userns-remap and containerd-snapshotter (moby#47377)", remedy)

    def _no_such_driver(self, kind: str) -> Problem:
        known = "overlayfs" if kind == "snapshotter" else "overlay2"
        return Problem(
            f"Docker {self._version} has no {kind} {self._named.value} ({self._named.origin})",
            f"make it {known}, or take it out",
            fatal=True,
        )


def _first_that_works(drivers: Sequence[str], filesystem: str) -> str:
    """What Docker takes by itself; fuse-overlayfs, which wants a program of its own, and deprecated ones left aside."""
    for driver in drivers:
        if driver == filesystem in _OWN_FILE_SYSTEM or (driver == "overlay2" and filesystem not in _NO_OVERLAY):
            return driver
    return "vfs"


def _slow(driver: Choice, folder: str, filesystem: str) -> list[Problem]:
    """Say so of a driver that works, but not as one wants it."""
    if driver.value in GOOD_DRIVERS or driver.value == filesystem:
        return []
    if filesystem in _NO_OVERLAY:
        reason = f"{folder} is on {filesystem}, where overlay does not work"
        return [Problem(f"Docker stores with {driver.value}, slow and large: {reason}", "rpinfs status")]
    return [
        Problem(
            f"Docker stores with {driver.value} ({driver.origin}); expected overlay2 or overlayfs",
            'take "storage-driver" out of there; what is stored with it becomes invisible to Docker',
        )
    ]


def _root_to_root(userns_remap: Choice, root: str) -> list[Problem]:
    if not is_root(userns_remap.value):
        return []
    message = f"userns-remap={userns_remap.value} remaps nothing, and still moves the data to {root}"
    return [Problem(message, f"take it out of {userns_remap.origin}")]


def is_root(userns_remap: str) -> bool:
    """Whether a value of userns-remap maps root to itself: Docker goes on without, but in another folder."""
    return userns_remap.partition(":")[0] in ("root", "0")


def _root(data_root: str, userns_remap: str, remapped: tuple[int, int] | None) -> str:
    if not userns_remap:
        return data_root.rstrip("/") or "/"
    if is_root(userns_remap):
        remapped = (0, 0)
    return f"{data_root.rstrip('/')}/{'UID.GID' if remapped is None else '{}.{}'.format(*remapped)}"


def _namespace(settings: Settings, userns_remap: str, root: str) -> str:
    told = settings.text("containerd-namespace", "").value
    if told or not userns_remap or is_root(userns_remap):
        return told or NAMESPACE
    return f"{NAMESPACE}-{root.rpartition('/')[2]}"


def number(version: str) -> tuple[int, int]:
    """Major and minor; a Debian epoch before them means nothing. Raises RpinfsError."""
    found = re.match(r"(?:\d+:)?v?(\d+)\.(\d+)", version)
    if not found:
        raise RpinfsError(f"expected a version of Docker such as 26.1.5, found {version or 'nothing'}")
    return int(found[1]), int(found[2])
