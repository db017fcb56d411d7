"""What Docker was told, and what is said about it: a value with its origin, all settings, something that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rpinfs.boot.values import dataclass, field
from rpinfs.errors import RpinfsError


@dataclass(frozen=True)
class Choice:
    """A value, and where it comes from. Where it cannot be told, `value` is "" and `origin` says why."""

    value: str
    origin: str


@dataclass(frozen=True)
class Problem:
    """What is wrong, and what to do. `fatal`: Docker does not start so."""

    message: str
    remedy: str | None
    fatal: bool = False


@dataclass(frozen=True)
class Settings:
    """What Docker was told.

    Attributes:
        keys: what is in daemon.json, and `lines` where.
        file: the path of daemon.json.
        flags: options of dockerd, by the key of daemon.json that they stand for, each with all its values.
        driver: the storage driver by the variable DOCKER_DRIVER, which counts for more than all else.
        containerd_root: where containerd's own configuration names its folder.
        problems: what was wrong already in reading the unit and its options, and `file_problems` in daemon.json.
        untold: why it cannot be told with which options systemd starts dockerd; "" where it can.
    """

    keys: Mapping[str, object]
    file: str = "/etc/docker/daemon.json"
    flags: Mapping[str, Sequence[Choice]] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    driver: Choice | None = None
    containerd_root: Choice | None = None
    problems: tuple[Problem, ...] = ()
    file_problems: tuple[Problem, ...] = ()
    untold: str = ""

    def place(self, key: str) -> str:
        """Where a key of daemon.json stands."""
        return f"{self.file}:{self.lines[key]}" if key in self.lines else self.file

    def text(self, key: str, default: str) -> Choice:
        """The value of a key, by daemon.json before any option; "" from `default` where there is none.

        Raises:
            RpinfsError: it is no text. Exit status 2.
        """
        value = self.keys.get(key)
        if value is None:
            given = self.flags.get(key)
            return given[-1] if given else Choice("", default)
        if not isinstance(value, str):
            raise self.wrong(key, "text", value)
        return Choice(value, self.place(key))

    def texts(self, key: str) -> list[Choice]:
        """The values of a list."""
        value = self.keys.get(key)
        if isinstance(value, list):
            return [Choice(one, self.place(key)) for one in value if isinstance(one, str)]
        return list(self.flags.get(key, ()))

    def switch(self, key: str, default: bool) -> Choice:
        """The value of a switch, "true" or "false"; `origin` is "" for the default."""
        value = self.keys.get(key)
        if isinstance(value, bool):
            return Choice(str(value).lower(), self.place(key))
        given = self.flags.get(key)
        if not given:
            return Choice(str(default).lower(), "")
        return Choice("false" if given[-1].value in ("0", "f", "F", "false", "FALSE", "False") else "true",
                      given[-1].origin)  # fmt: skip

    def feature(self, name: str) -> Choice | None:
        """A member of the object `features`, or the flag for it; "true" or "false".

        Raises:
            RpinfsError: it is of the wrong kind. Exit status 2.
        """
        features = self.keys.get("features")
        if features is None:
            words = [(*one.value.partition("="), one.origin) for one in self.flags.get("features", ())]
            given = [Choice(value or "true", origin) for key, _, value, origin in words if key == name]
            return given[-1] if given else None
        if not isinstance(features, dict):
            raise self.wrong("features", "an object", features)
        value = features.get(name)
        if value is None:
            return None
        if not isinstance(value, bool):
            raise self.wrong(f"features.{name}", "true or false", value)
        return Choice(str(value).lower(), f"features.{name} in {self.place('features')}")

    def wrong(self, key: str, wanted: str, found: object) -> RpinfsError:
        """The error for a value of the wrong kind."""
        return RpinfsError(f"{self.file}: {key}: expected {wanted}, found {found!r}", status=2)
