"""Where Docker and containerd will write, by their settings, for the gate: it must be an image (promise 3).

Imported only where something may have moved their folders: the gate that passes on defaults needs none of this. What
else Docker will do with its settings is docker/'s to tell. Sources: dockerd(8), systemd.unit(5), systemd.exec(5).
"""

import os

from rpinfs.boot.config import Config
from rpinfs.boot.host import read_text
from rpinfs.boot.settings import DOCKER, split_words
from rpinfs.boot.storage import Mount, followed, mount_of
from rpinfs.errors import RpinfsError, quoted

DAEMON_JSON = "/etc/docker/daemon.json"
ENVIRONMENT = "/etc/default/docker"
CONTAINERD_TOML = "/etc/containerd/config.toml"
DATA_ROOT = "/var/lib/docker"
CONTAINERD_ROOT = "/var/lib/containerd"
UNIT_FOLDERS = (
    "/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
    "/run/systemd/generator.early", "/etc/systemd/system", "/run/systemd/system", "/run/systemd/generator",
    "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/generator.late",
)  # fmt: skip
"""Highest precedence first, as in systemd.unit(5)."""

STORE_BY_DEFAULT = 29
"""From this version of Docker on, images are containerd's unless there is a reason against it (moby,
image_store_choice.go)."""

_STORAGE_DRIVERS = ("overlay2", "fuse-overlayfs", "btrfs", "zfs")
_DATA_ROOT_FLAGS = ("--data-root", "--graph")
_CONTAINERD_FLAGS = ("--root",)


def refusals(
    config: Config, root: str, mounts: "list[Mount]", verified: "list[tuple[int, int]]"
) -> "list[RpinfsError]":
    """Tell why Docker or containerd must not start: where they will write is on no verified image.

    Args:
        mounts: the mount table.
        verified: device numbers of the verified images. What counts is the mount that a folder really lies on.
    """
    daemons = Daemons(root)
    if not daemons.docker.installed and not daemons.containerd.installed:
        return []
    found = [
        _refusal(config, f"Docker's data root {told.path} ({told.origin})", told, place)
        for told in (daemons.data_roots() if daemons.docker.installed else [])
        if (place := _outside(told, root, mounts, verified))
    ]
    for told in daemons.containerd_roots() if daemons.containerd.installed else []:
        if (place := _outside(told, root, mounts, verified)) and daemons.images_are_containerds():
            what = f"containerd's root {told.path} ({told.origin}), where images are kept,"
            found.append(_refusal(config, what, told, place, bind=True))
    return found


def _outside(told: "Told", root: str, mounts: "list[Mount]", verified: "list[tuple[int, int]]") -> str:
    """What a folder lies on that is no verified image, in words; empty where it lies on one."""
    path = followed(mounts, told.path, root)
    mount = mount_of(mounts, path)
    if mount and mount.device in verified:
        return ""
    way = f"leads to {path}, " if path != told.path else ""
    return f"{way}is on {mount.where} ({mount.kind} {mount.source})" if mount else f"{way}is on no mount that is known"


def _refusal(config: Config, what: str, told: "Told", place: str, *, bind: bool = False) -> RpinfsError:
    default = told.path in (DATA_ROOT, CONTAINERD_ROOT)
    if DOCKER in config.disabled and default:
        switch = config.disabled[DOCKER]
        return RpinfsError(
            f"{what} is on no verified image: it {place}, and [Image docker] is not in use, by Enabled=no ({switch})",
            "take Enabled=no out and reboot; where Docker is not wanted:"
            " systemctl mask docker.socket docker.service containerd.service",
        )
    wish = f"add {told.path} to Bind=" if bind else f"set Where={told.path}"
    remedy = f"{wish} of an image in rpinfs.conf and reboot"
    if not told.origin.startswith("the default"):
        daemon = quoted("containerd" if bind else "docker")
        remedy = f"{remedy}; or take it out of there, then: systemctl restart {daemon}"
    return RpinfsError(f"{what} is on no verified image: it {place}", remedy)


class Told:
    """A folder that a daemon was told to use, and by what, in words for a message."""

    __slots__ = ("path", "origin")

    def __init__(self, path: str, origin: str) -> None:
        self.path = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
        self.origin = origin


class Daemons:
    """What is known of Docker and containerd on the machine below a root."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.docker = _Unit(root, "docker.service")
        self.containerd = _Unit(root, "containerd.service")
        self._keys = self._read_keys()

    def data_roots(self) -> "list[Told]":
        """Docker's data root; several where it is said more than once: which of them counts is for dockerd to say."""
        found = [Told(value, f"{flag} in {file}") for flag, value, file in self.docker.flags(_DATA_ROOT_FLAGS, "g")]
        found += [
            Told(value, f'"{key}" in {self._file}')
            for key in ("data-root", "graph")
            if isinstance(value := self._keys.get(key), str) and value
        ]
        return found or [Told(DATA_ROOT, "the default of Docker")]

    def containerd_roots(self) -> "list[Told]":
        """The folder of containerd, that of its configuration or of its command line."""
        found = [Told(value, f"{flag} in {file}") for flag, value, file in self.containerd.flags(_CONTAINERD_FLAGS, "")]
        if not found and (value := _toml_root(read_text(self._root + CONTAINERD_TOML))):
            found.append(Told(value, f"root in {CONTAINERD_TOML}"))
        return found or [Told(CONTAINERD_ROOT, "the default of containerd")]

    def images_are_containerds(self) -> bool:
        """Whether Docker keeps its images in containerd's folder; True where nothing tells, and without Docker."""
        if not self.docker.installed:
            return True
        features = self._keys.get("features")
        wish = features.get("containerd-snapshotter") if isinstance(features, dict) else None
        if any("containerd-snapshotter=true" in word for word, _ in self.docker.words):
            wish = True
        version = _docker_version(read_text(f"{self._root}/var/lib/dpkg/status"))
        if version and version < STORE_BY_DEFAULT:
            return bool(wish)
        if self._keys.get("userns-remap") or any(word.startswith("--userns-remap") for word, _ in self.docker.words):
            return False
        if wish is not None:
            return bool(wish)
        return self._keys.get("storage-driver") not in _STORAGE_DRIVERS and not self._has_layers()

    def _has_layers(self) -> bool:
        """Whether there are layers of a storage driver: Docker goes on with what it has."""
        folders = [f"{self._root}{told.path}/{driver}" for told in self.data_roots() for driver in _STORAGE_DRIVERS]
        return any(_names(folder) for folder in folders)

    def _read_keys(self) -> "dict[str, object]":
        self._file = next((value for _, value, _ in self.docker.flags(("--config-file",), "")), DAEMON_JSON)
        text = read_text(self._root + self._file).removeprefix("\ufeff")
        if not text.strip():
            return {}
        # Imported here: only a daemon.json that mentions such a key brings us here.
        import json

        try:
            # dockerd 20.10 takes the first of several objects.
            found = json.JSONDecoder().raw_decode(text.lstrip())[0]
        except (ValueError, RecursionError):
            # Docker does not start with it either.
            return {}
        return found if isinstance(found, dict) else {}


class _Unit:
    """A service as systemd has it: the words of its command line, each with the file that has it."""

    def __init__(self, root: str, name: str) -> None:
        self._root = root
        file = next((f"{folder}/{name}" for folder in UNIT_FOLDERS if os.path.lexists(f"{root}{folder}/{name}")), "")
        target = os.path.islink(root + file) and os.readlink(root + file)
        self.installed = bool(file) and target != "/dev/null"
        self._environment: dict[str, tuple[str, str]] = {}
        self._lines: list[tuple[str, str]] = []
        for path in [file, *self._drop_ins(name)] if self.installed else []:
            self._read(path)
        self.words = [found for line, path in self._lines for found in self._expanded(line, path)]

    def flags(self, names: "tuple[str, ...]", letter: str) -> "list[tuple[str, str, str]]":
        """Options with one of the names or the letter: as it is written, its value, and the file."""
        found = []
        for position, (word, file) in enumerate(self.words):
            following = self.words[position + 1][0] if position + 1 < len(self.words) else ""
            name, equals, value = word.partition("=")
            if name in names:
                found.append((name, value if equals else following, file))
            elif letter and (cluster := _cluster(word, letter)) is not None:
                found.append((f"-{letter}", cluster or following, file))
        return [(flag, value, file) for flag, value, file in found if value]

    def _drop_ins(self, name: str) -> "list[str]":
        found: dict[str, str] = {}
        for folder in UNIT_FOLDERS:
            for file in _names(f"{self._root}{folder}/{name}.d"):
                if file.endswith(".conf"):
                    found.setdefault(file, f"{folder}/{name}.d/{file}")
        return [found[file] for file in sorted(found)]

    def _read(self, path: str) -> None:
        for line in read_text(self._root + path).replace("\\\n", " ").split("\n"):
            key, _, value = line.strip().partition("=")
            key, value = key.strip(), value.strip()
            if key == "ExecStart":
                # An empty value resets; what comes later adds to a oneshot and replaces nothing.
                self._lines = [*self._lines, (value, path)] if value else []
            elif key == "Environment":
                self._set(_words(value), path)
            elif key == "EnvironmentFile" and (file := value.removeprefix("-")).startswith("/"):
                for assignment in read_text(self._root + file).replace("\\\n", " ").split("\n"):
                    if assignment.strip()[:1] not in ("", "#", ";"):
                        name, _, text = assignment.strip().partition("=")
                        self._environment[name.strip()] = (" ".join(_words(text)), f"{name.strip()} in {file}")

    def _set(self, assignments: "list[str]", path: str) -> None:
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if equals:
                self._environment[name] = (text, f"{name} in {path}")

    def _expanded(self, line: str, path: str) -> "list[tuple[str, str]]":
        """Words of a command line with its variables put in; the words of a shell's script count as its own."""
        found = []
        for word in _words(line):
            name = word.strip('"').removeprefix("$").removeprefix("{").removesuffix("}")
            if word.startswith("$") and name in self._environment:
                text, origin = self._environment[name]
                found += [(inner, origin) for inner in _words(text)]
                continue
            full = word
            for variable, (text, _) in self._environment.items():
                full = full.replace("${" + variable + "}", text)
            found += [(inner, path) for inner in (_words(full) if " " in full else [full])]
        return found


def _cluster(word: str, wanted: str) -> "str | None":
    """Value of a short option among others, such as `-Dg/srv`; empty where it is the next word, None without it."""
    if word[:1] != "-" or word[:2] == "--":
        return None
    for position, letter in enumerate(word[1:], 1):
        if letter == wanted:
            return word[position + 1 :].removeprefix("=")
        if letter not in "Dv":
            # The others take a value: what follows is no option.
            return None
    return None


def _words(text: str) -> "list[str]":
    try:
        return split_words(text)
    except ValueError:
        return text.split()


def _names(folder: str) -> "list[str]":
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _toml_root(text: str) -> str:
    import tomllib

    try:
        value = tomllib.loads(text).get("root")
    except tomllib.TOMLDecodeError:
        # containerd does not start with it either.
        return ""
    return value if isinstance(value, str) else ""


def _docker_version(status: str) -> int:
    """Major version of the package of Docker; 0 where there is none that dpkg knows."""
    for package in ("docker.io", "docker-ce"):
        paragraph = f"\n{status}".partition(f"\nPackage: {package}\n")[2].partition("\n\n")[0]
        for line in paragraph.split("\n"):
            if line.startswith("Version: "):
                number = line.rpartition(" ")[2].rpartition(":")[2].partition(".")[0]
                return int(number) if number.isdigit() else 0
    return 0
