"""A service as systemd finds it: unit file, drop-ins, environment and command line, with the places they stand in.

Read from the files, so that it holds for a root that is not running, too, and for what was changed since the last
`systemctl daemon-reload`. What `systemctl set-environment` put into a running systemd is not seen.
Source: systemd.unit(5) "Unit File Load Path"; trials with systemd 252 and 257 (tests/tools/docker/test_service.py).
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Mapping

from rpinfs.boot.host import COMMAND_LINE, read_text, words
from rpinfs.boot.units import MANAGER_FOLDERS, UNIT_FOLDERS
from rpinfs.boot.values import dataclass, field
from rpinfs.docker.words import NotTold, assignments, environment_file, is_name, specified, split, substituted
from rpinfs.errors import RpinfsError

_OTHER_ROOT = ("RootDirectory", "RootImage", "RootMStack")
_OF_LISTS = {
    "BindPaths": 1, "BindReadOnlyPaths": 1, "TemporaryFileSystem": 0, "MountImages": 1, "InaccessiblePaths": 0,
    "InaccessibleDirectories": 0,
}  # fmt: skip
"""Settings that put something else into the service's view, and which part of each word says where."""

_OF_SWITCHES = {
    "PrivateTmp": ("/tmp", "/var/tmp"), "ProtectHome": ("/home", "/root", "/run/user"),
    "ExtensionImages": ("/usr", "/opt"), "ExtensionDirectories": ("/usr", "/opt"), "PrivateDevices": ("/dev",),
}  # fmt: skip
_OFF = ("no", "n", "false", "f", "off", "0", "read-only")
_LINKS = 40


@dataclass(frozen=True)
class Word:
    """A word of a command line and where it stands: a file with line, and the variable that brought it."""

    text: str
    origin: str


@dataclass(frozen=True)
class Service:
    """What systemd would start.

    Attributes:
        file: the unit file; "" where there is none.
        words: the command line, without the program.
        program: path of the program.
        origin: file and line of the command line.
        variables: the environment, as far as files say it, and where each comes from.
        covered: paths at which it sees something else than everybody, by systemd.exec(5) "Paths" and "Sandboxing".
        refused: why systemd does not start it at all; "" where it does.
        masked: whether that is because it is masked.
        untold: why its command line cannot be told from the files; "" where it can.
    """

    file: str = ""
    program: str = ""
    words: tuple[Word, ...] = ()
    origin: str = ""
    variables: Mapping[str, Word] = field(default_factory=dict)
    covered: tuple[Word, ...] = ()
    refused: str = ""
    masked: bool = False
    untold: str = ""


@dataclass(frozen=True)
class _Setting:
    key: str
    value: str
    place: str


def read(root: str, name: str) -> Service:
    """Read a service below a root.

    Raises:
        OSError: a file is there and cannot be read.
        RpinfsError: a circle of symbolic links.
    """
    file, names = _unit_file(root, name)
    if not file:
        return Service()
    text = text_of(root, file)
    if not text:
        return Service(file, refused=f"{file}: {name} is masked", masked=True)
    settings = list(_settings(file, text))
    for drop_in in _drop_ins(root, names):
        settings += _settings(drop_in, text_of(root, drop_in) or "")
    return _Reading(root, name, file, settings).service()


class _Reading:
    """What the settings of one service come to."""

    def __init__(self, root: str, name: str, file: str, settings: list[_Setting]) -> None:
        self._root = root
        self._file = file
        self._settings = settings
        self._specifiers = _specifiers(root, name)

    def service(self) -> Service:
        commands = self._last("ExecStart")
        if not commands:
            return Service(self._file, refused=f"{self._file}: there is no ExecStart=")
        if len(commands) > 1:
            # Only Type=oneshot may have several; a drop-in without the empty ExecStart= before its own makes them so.
            return Service(
                self._file,
                refused=f"{commands[1].place}: a second ExecStart=, without an empty one before it that takes back"
                f" that of {commands[0].place}",
            )
        origin = commands[0].place
        try:
            self._insist_on_this_root()
            variables = self._variables()
            program, words = self._words(commands[0], variables)
            covered = tuple(self._covered())
        except NotTold as error:
            return Service(self._file, origin=origin, untold=f"{origin}: {error}")
        except _Refused as error:
            return Service(self._file, origin=origin, refused=str(error))
        return Service(self._file, program, tuple(words), origin, variables, covered)

    def _covered(self) -> Iterator[Word]:
        for key, part in _OF_LISTS.items():
            for setting in self._last(key):
                for word in split(specified(setting.value, self._specifiers), c_escapes=True):
                    parts = word.lstrip("-+").split(":")
                    if part and parts[0] == (parts[part] if part < len(parts) else parts[0]):
                        # Bound to where it is anyway.
                        continue
                    yield Word(parts[part], f"{key}= in {setting.place}")
        for key, paths in _OF_SWITCHES.items():
            for setting in self._last(key)[-1:]:
                if setting.value.lower() not in _OFF:
                    yield from (Word(path, f"{key}= in {setting.place}") for path in paths)

    def _last(self, key: str) -> list[_Setting]:
        """The settings of a key that are in force: an empty one takes back all before it."""
        found: list[_Setting] = []
        for setting in self._settings:
            if setting.key == key:
                found = [*found, setting] if setting.value else []
        return found

    def _insist_on_this_root(self) -> None:
        for key in _OTHER_ROOT:
            if self._last(key):
                raise NotTold(f"{key}= gives it another root")

    # Environment

    def _variables(self) -> dict[str, Word]:
        """Those of systemd itself, then Environment=, then EnvironmentFile=, each over the one before."""
        found = dict(_of_manager(self._root, self._specifiers))
        for setting in self._last("Environment"):
            found.update(_assigned(setting, self._specifiers))
        for setting in self._last("EnvironmentFile"):
            found.update(self._of_file(setting))
        for setting in self._last("UnsetEnvironment"):
            for word in split(specified(setting.value, self._specifiers), c_escapes=True):
                name, equals, value = word.partition("=")
                if name in found and (not equals or found[name].text == value):
                    del found[name]
        return found

    def _of_file(self, setting: _Setting) -> dict[str, Word]:
        optional = setting.value.startswith("-")
        pattern = specified(setting.value.removeprefix("-"), self._specifiers)
        files = _matching(self._root, pattern)
        if not files and not optional:
            raise _Refused(f"{setting.place}: EnvironmentFile={pattern} is not there")
        found: dict[str, Word] = {}
        for file in files:
            text = text_of(self._root, file)
            if text is None:
                continue
            found.update(
                (name, Word(value, f"{file}:{line}")) for name, (value, line) in environment_file(text).items()
            )
        return found

    # Command line

    def _words(self, command: _Setting, variables: Mapping[str, Word]) -> tuple[str, list[Word]]:
        text = command.value
        prefixes = text[: len(text) - len(text.lstrip("@-:+!|"))]
        raw = split(text[len(prefixes) :], c_escapes=True)
        if ";" in raw:
            raise _Refused(f"{command.place}: several commands in one ExecStart=")
        specified_words = [specified(word, self._specifiers) for word in raw]
        program, words = specified_words[0], specified_words[2 if "@" in prefixes else 1 :]
        if ":" in prefixes:
            return program, [Word(word, command.place) for word in words]
        texts = {name: word.text for name, word in variables.items()}
        made = []
        for word, variable in substituted(words, texts):
            origin = variables[variable].origin if variable in variables else command.place
            made.append(Word(word, origin))
        return program, made


def hidden(root: str, service: Service, folder: str) -> str:
    """Why a service may see something else at a folder than everybody; "" where it sees the same."""
    for word in service.covered:
        for path in {word.text, followed(root, word.text).removeprefix(root)}:
            below, above = (f"{os.path.normpath(one).rstrip('/')}/" for one in (folder, path))
            if below.startswith(above) or above.startswith(below):
                return f"{word.origin} puts something else at {word.text}"
    return ""


class _Refused(Exception):
    """systemd does not start it."""


def text_of(root: str, file: str) -> str | None:
    """The text of a file; None where it is not there. Not read_text(): what cannot be read must not count as empty."""
    try:
        with open(followed(root, file), encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def followed(root: str, file: str) -> str:
    """Where a file really is, with symbolic links that mean the world below root. Raises RpinfsError: a circle."""
    path = root + file
    for _ in range(_LINKS):
        if not os.path.islink(path):
            return path
        target = os.readlink(path)
        if target == "/dev/null":
            # Also where the root has no devices.
            return target
        path = root + target if target.startswith("/") else os.path.join(os.path.dirname(path), target)
    raise RpinfsError(f"{file}: expected a file, found a circle of symbolic links")


# Files


def _unit_file(root: str, name: str) -> tuple[str, list[str]]:
    """The unit file in force, and all names of the unit: its own, what it is a link to, and links to it."""
    file = next((path for folder in UNIT_FOLDERS if os.path.lexists(root + (path := f"{folder}/{name}"))), "")
    names = [name]
    if file and os.path.islink(root + file):
        target = os.path.basename(os.readlink(root + file))
        names += [target] if target.endswith(".service") and target != name else []
    for folder in UNIT_FOLDERS:
        for other in _names(root + folder):
            path = f"{root}{folder}/{other}"
            alias = other.endswith(".service") and other not in names and os.path.islink(path)
            if alias and os.path.basename(os.readlink(path)) in names:
                names.append(other)
    return file, names


def _drop_ins(root: str, names: list[str]) -> list[str]:
    """Drop-ins in their order: by name across the folders; of the same name the first folder's hides the others."""
    folders = [f"{folder}/{name}.d" for name in names for folder in UNIT_FOLDERS]
    folders += [f"{folder}/service.d" for folder in UNIT_FOLDERS]
    found: dict[str, str] = {}
    for folder in folders:
        for name in _names(root + folder):
            if name.endswith(".conf"):
                found.setdefault(name, f"{folder}/{name}")
    return [found[name] for name in sorted(found, key=os.fsencode)]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _matching(root: str, pattern: str) -> list[str]:
    """Files that a path with wildcards means, as glob(7) has them, in their order."""
    if not any(character in pattern for character in "*?["):
        return [pattern] if os.path.exists(followed(root, pattern)) else []
    found = [""]
    for part in pattern.strip("/").split("/"):
        found = [
            f"{folder}/{name}"
            for folder in found
            for name in sorted(_names(f"{root}{folder}/"))
            if fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
        ]
    return found


def _settings(file: str, text: str) -> Iterator[_Setting]:
    for section, key, value, line in assignments(text):
        if section == "Service":
            yield _Setting(key, value, f"{file}:{line}")


# What systemd itself puts in


def _of_manager(root: str, specifiers: Mapping[str, str]) -> dict[str, Word]:
    """DefaultEnvironment= of systemd-system.conf(5), and systemd.setenv= of kernel-command-line(7)."""
    main = next((path for folder in MANAGER_FOLDERS if os.path.exists(root + (path := f"{folder}/system.conf"))), "")
    drop_ins: dict[str, str] = {}
    for folder in MANAGER_FOLDERS:
        for name in _names(f"{root}{folder}/system.conf.d"):
            if name.endswith(".conf"):
                drop_ins.setdefault(name, f"{folder}/system.conf.d/{name}")
    files = [*filter(None, [main]), *(drop_ins[name] for name in sorted(drop_ins, key=os.fsencode))]
    found: dict[str, Word] = {}
    for file in files:
        for section, key, value, line in assignments(text_of(root, file) or ""):
            if section == "Manager" and key == "DefaultEnvironment":
                found = {**found, **_assigned(_Setting(key, value, f"{file}:{line}"), specifiers)} if value else {}
    for word, value in words(read_text(f"{root}/proc/cmdline")):
        name, equals, text = value.partition("=")
        if word == "systemd.setenv" and equals and is_name(name):
            found[name] = Word(text, f"systemd.setenv= on the {COMMAND_LINE}")
    return found


def _assigned(setting: _Setting, specifiers: Mapping[str, str]) -> dict[str, Word]:
    """The variables of an Environment=."""
    found = {}
    for word in split(setting.value, c_escapes=True):
        name, equals, value = specified(word, specifiers).partition("=")
        if equals and is_name(name):
            found[name] = Word(value, setting.place)
    return found


def _specifiers(root: str, name: str) -> dict[str, str]:
    """Values of the specifiers of a service of the system that follow from its name and from files."""
    prefix = name.rpartition(".")[0]
    values = {
        "n": name, "N": prefix, "p": prefix, "j": prefix.rpartition("-")[2], "i": "", "I": "", "f": f"/{prefix}",
        "t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc", "T": "/tmp", "V": "/var/tmp",
        "h": "/root", "u": "root", "U": "0", "g": "root", "G": "0",
    }  # fmt: skip
    host = (read_text(f"{root}/proc/sys/kernel/hostname") or read_text(f"{root}/etc/hostname")).strip()
    machine = read_text(f"{root}/etc/machine-id").strip()
    if host:
        values["H"], values["l"] = host, host.partition(".")[0]
    if machine:
        values["m"] = machine
    return values
