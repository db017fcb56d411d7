"""The one table of dockerd's options: flag, key of daemon.json, kind, and the versions that have it; and its parser.

A key of daemon.json is known to dockerd when it is the long name of a flag or the name of the list that a flag adds
to (moby daemon/config/config.go, findConfigurationConflicts). The table was compared with 20.10.24 and 26.1.5 of
Debian 12 and 13 (tests/tools/docker/test_refusals.py) and 28.5.2 of Debian 14; what came in between and later is from
release notes and sources. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from rpinfs.boot.values import dataclass
from rpinfs.docker.service import Word

Version = tuple[int, int]


class Kind(Enum):
    """What a value may be in daemon.json; the text is for messages."""

    TEXT = "text"
    SWITCH = "true or false"
    NUMBER = "a whole number"
    TEXTS = "a list of texts"
    LIST = "a list"
    TEXT_OF_NAME = "an object of texts"
    SWITCH_OF_NAME = "an object of true and false"
    OBJECT = "an object"
    IGNORED = "anything"

    def takes(self, value: object) -> bool:
        """Whether Go's decoder takes a value for this; null is always taken, for none."""
        if value is None or self is Kind.IGNORED:
            return True
        if self in (Kind.TEXTS, Kind.LIST):
            return isinstance(value, list) and (self is Kind.LIST or all(_is_text(one) for one in value))
        if self in (Kind.TEXT_OF_NAME, Kind.SWITCH_OF_NAME, Kind.OBJECT):
            return isinstance(value, dict) and all(self._takes_member(one) for one in value.values())
        return {Kind.TEXT: isinstance(value, str), Kind.SWITCH: isinstance(value, bool)}.get(
            self, isinstance(value, int) and not isinstance(value, bool)
        )

    def _takes_member(self, value: object) -> bool:
        if self is Kind.TEXT_OF_NAME:
            return _is_text(value)
        return self is Kind.OBJECT or value is None or isinstance(value, bool)


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


@dataclass(frozen=True)
class Option:
    """One option. `key` is its name in daemon.json where that is another; "" for `flag` is a key without one.

    `since` and `until` are the first versions with and again without it.
    """

    flag: str
    kind: Kind
    key: str = ""
    short: str = ""
    since: Version = (0, 0)
    until: Version = (999, 0)

    @property
    def name(self) -> str:
        """The key of daemon.json with which it may not be given together."""
        return self.key or self.flag

    def is_in(self, version: Version) -> bool:
        """Whether a version has it."""
        return self.since <= version < self.until


V23, V24, V25, V28, V29 = (23, 0), (24, 0), (25, 0), (28, 0), (29, 0)
_T, _S, _N, _L, _I = Kind.TEXT, Kind.SWITCH, Kind.NUMBER, Kind.TEXTS, Kind.IGNORED

OPTIONS = (
    Option("add-runtime", Kind.OBJECT, "runtimes"),
    Option("allow-direct-routing", _S, since=V28),
    Option("allow-nondistributable-artifacts", _L, until=V28),
    Option("", _I, "allow-nondistributable-artifacts", since=V28),
    Option("api-cors-header", _T, until=V29),
    Option("authorization-plugin", _L, "authorization-plugins"),
    Option("bip", _T),
    Option("bip6", _T, since=V28),
    Option("bridge", _T, short="b"),
    Option("bridge-accept-fwmark", _T, since=V29),
    Option("", Kind.OBJECT, "builder"),
    Option("cdi-spec-dir", _L, "cdi-spec-dirs", since=V25),
    Option("cgroup-parent", _T),
    Option("cluster-advertise", _T, until=V23),
    Option("cluster-store", _T, until=V23),
    Option("cluster-store-opt", Kind.TEXT_OF_NAME, "cluster-store-opts", until=V23),
    Option("config-file", _I),
    Option("containerd", _T),
    Option("containerd-namespace", _T),
    Option("containerd-plugins-namespace", _I),
    Option("cpu-rt-period", _N),
    Option("cpu-rt-runtime", _N),
    Option("cri-containerd", _S),
    Option("data-root", _T),
    Option("debug", _S, short="D"),
    Option("default-address-pool", Kind.LIST, "default-address-pools"),
    Option("default-cgroupns-mode", _T),
    Option("default-gateway", _T),
    Option("default-gateway-v6", _T),
    Option("default-ipc-mode", _T),
    Option("default-network-opt", Kind.OBJECT, "default-network-opts", since=V24),
    Option("default-runtime", _T),
    Option("default-shm-size", _T),
    Option("default-ulimit", Kind.OBJECT, "default-ulimits"),
    Option("", _I, "deprecated-key-path"),
    Option("dns", _L),
    Option("dns-opt", _L, "dns-opts"),
    Option("dns-search", _L),
    Option("exec-opt", _L, "exec-opts"),
    Option("exec-root", _T),
    Option("experimental", _S),
    Option("feature", Kind.SWITCH_OF_NAME, "features", since=V28),
    Option("", Kind.SWITCH_OF_NAME, "features", until=V28),
    Option("firewall-backend", _T, since=V29),
    Option("fixed-cidr", _T),
    Option("fixed-cidr-v6", _T),
    Option("graph", _T, short="g", until=V23),
    Option("group", _T, short="G"),
    Option("help", _I, short="h"),
    Option("host", _L, "hosts", short="H"),
    Option("host-gateway-ip", _T, until=V28),
    Option("host-gateway-ip", _L, "host-gateway-ips", since=V28),
    Option("http-proxy", _I, since=V23),
    Option("https-proxy", _I, since=V23),
    Option("icc", _S),
    Option("init", _S),
    Option("init-path", _T),
    Option("insecure-registry", _L, "insecure-registries"),
    Option("ip", _T),
    Option("ip-forward", _S),
    Option("ip-forward-no-drop", _S, since=V28),
    Option("ip-masq", _S),
    Option("ip6tables", _S),
    Option("iptables", _S),
    Option("ipv6", _S),
    Option("label", _L, "labels"),
    Option("live-restore", _S),
    Option("log-driver", _T),
    Option("log-format", _T, since=V25),
    Option("log-level", _T, short="l"),
    Option("log-opt", Kind.TEXT_OF_NAME, "log-opts"),
    Option("max-concurrent-downloads", _N),
    Option("max-concurrent-uploads", _N),
    Option("max-download-attempts", _N),
    Option("metrics-addr", _T),
    Option("mtu", _N),
    Option("network-control-plane-mtu", _N),
    Option("network-diagnostic-port", _N),
    Option("no-new-privileges", _S),
    Option("no-proxy", _I, since=V23),
    Option("node-generic-resource", _L, "node-generic-resources"),
    Option("nri-opts", _I, since=V29),
    Option("oom-score-adjust", _N, until=V25),
    Option("pidfile", _T, short="p"),
    Option("raw-logs", _S),
    Option("registry-mirror", _L, "registry-mirrors"),
    Option("restart", _I, short="r"),
    Option("rootless", _S),
    Option("seccomp-profile", _T),
    Option("selinux-enabled", _S),
    Option("shutdown-timeout", _N),
    Option("storage-driver", _T, short="s"),
    Option("storage-opt", _L, "storage-opts"),
    Option("swarm-default-advertise-addr", _T),
    Option("tls", _S),
    Option("tlscacert", _T),
    Option("tlscert", _T),
    Option("tlskey", _T),
    Option("tlsverify", _S),
    Option("userland-proxy", _S),
    Option("userland-proxy-path", _T),
    Option("userns-remap", _T),
    Option("validate", _I, since=V23),
    Option("version", _I, short="v"),
)

NOT_FLATTENED = (
    "builder", "cluster-store-opts", "default-network-opts", "default-ulimits", "features", "log-opts", "runtimes",
)  # fmt: skip
"""Keys whose objects dockerd takes as they are; the members of every other object count as keys of their own."""

MERGED = ("runtimes",)
"""Keys that may be given both as flags and in daemon.json."""

_SWITCHES = ("help", "validate", "version", "restart")
"""Flags that take no value, beside those of the kind SWITCH."""


def of_version(version: Version) -> dict[str, Option]:
    """The options of a version by the names that daemon.json may have them under; those without a value there, too."""
    found: dict[str, Option] = {}
    for option in OPTIONS:
        if option.is_in(version):
            if option.flag and option.key:
                # Known by the name of the flag, too, and then without any effect.
                found.setdefault(option.flag, Option(option.flag, Kind.IGNORED))
            found[option.name] = option
    return found


@dataclass(frozen=True)
class Given:
    """One flag of a command line: its option, its value, the way it was written, and where."""

    option: Option
    value: str
    written: str
    origin: str


class UnknownFlagError(Exception):
    """A word of the command line that dockerd stops at; the text names it with its place."""


def parse(words: Sequence[Word], version: Version) -> list[Given]:
    """The flags of a command line, as dockerd's parser (pflag) takes them.

    Raises:
        UnknownFlagError: dockerd of this version does not start with it.
    """
    flags = {option.flag: option for option in OPTIONS if option.flag and option.is_in(version)}
    shorts = {option.short: option for option in flags.values() if option.short}
    given: list[Given] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.text.startswith("-") or word.text in ("-", "--"):
            if word.text == "--" and not rest:
                break
            raise UnknownFlagError(f"{word.text} ({word.origin}) is no option")
        if word.text.startswith("--"):
            name, equals, value = word.text[2:].partition("=")
            option = flags.get(name)
            if option is None:
                raise UnknownFlagError(f"--{name} ({word.origin}) is unknown")
            if not equals:
                value = _following(option, f"--{name}", word, rest)
            given.append(Given(option, value, f"--{name}", word.origin))
        else:
            given += _short(word, shorts, rest)
    return given


def _short(word: Word, shorts: dict[str, Option], rest: list[Word]) -> list[Given]:
    """The flags of one word such as -D, -Dg/srv, -H=unix://."""
    given = []
    letters = word.text[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = shorts.get(letter)
        if option is None:
            raise UnknownFlagError(f"-{letter} ({word.origin}) is unknown")
        if letters.startswith("="):
            value, letters = letters[1:], ""
        elif _takes_no_value(option):
            value = "true"
        elif letters:
            value, letters = letters, ""
        else:
            value = _following(option, f"-{letter}", word, rest)
        given.append(Given(option, value, f"-{letter}", word.origin))
    return given


def _following(option: Option, written: str, word: Word, rest: list[Word]) -> str:
    if _takes_no_value(option):
        return "true"
    if not rest:
        raise UnknownFlagError(f"{written} ({word.origin}) has no value")
    return rest.pop(0).text


def _takes_no_value(option: Option) -> bool:
    return option.kind is Kind.SWITCH or option.flag in _SWITCHES
