"""What stops dockerd before or while it starts, by version, as far as its settings and its storage tell.

Pure. Each rule was tried with the dockerd of Debian 12 and 13; tests/tools/docker/test_refusals.py starts it for every
one, and for its neighbour that is all right. What only the network, plugins or other programs decide (a bridge that
is not there, a log driver's options, certificates) is not foretold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rpinfs.boot.settings import is_ipv4, is_ipv6
from rpinfs.docker.options import MERGED, NOT_FLATTENED, Kind, Version, of_version
from rpinfs.docker.told import Choice, Problem, Settings

_IP6TABLES_FOR_ALL = (27, 0)
_WHOLE_CHECK = (23, 0)
"""From this version on dockerd checks file and options taken together, and more strictly."""

_NO_CORS = (28, 0)
_BIP6 = (28, 0)

_LEVELS = ("panic", "fatal", "error", "warn", "info", "debug", "trace")
_LEVELS_20 = ("panic", "fatal", "error", "warn", "warning", "info", "debug", "trace")
_STORAGE_OPTIONS = {"overlay2": ("overlay2.size",), "vfs": ("size",)}
"""The storage options that a driver knows; of others it is not foretold."""

_SIZE = re.compile(r"\d+(\.\d+)*\s*[kmgtp]?i?b?", re.IGNORECASE)
_WORDS = {
    "default-cgroupns-mode": ("host", "private"),
    "default-ipc-mode": ("private", "shareable"),
    "log-format": ("text", "json"),
}
_NOT_NEGATIVE = ("max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts")

_OVERRIDE = "overlay2.override_kernel_check"
_OVERRIDE_UNTIL = (24, 0)


def of_settings(version: Version, short: str, settings: Settings) -> list[Problem]:
    """What stops dockerd in its settings, whatever the storage."""
    found = [
        *_unknown(version, settings),
        *_twice(settings),
        *_two_data_roots(settings),
        *_kinds(version, settings),
        *_values(version, settings),
        *_bridge(version, settings),
    ]
    return [Problem(f"{what}: Docker {short} does not start so", remedy, fatal=True) for what, remedy in found]


_Found = Iterator[tuple[str, str]]


def _flattened(keys: Mapping[str, object]) -> dict[str, str]:
    """The keys that dockerd looks at, each with the key at the top that it stands below."""
    found: dict[str, str] = {}
    for key, value in keys.items():
        members = value if isinstance(value, dict) and key not in NOT_FLATTENED else {key: value}
        found.update((member, key) for member in members)
    return found


def _unknown(version: Version, settings: Settings) -> _Found:
    known = of_version(version)
    for key, top in _flattened(settings.keys).items():
        if key in known:
            continue
        where = settings.place(top)
        instead = {"graph": 'write "data-root" instead'}.get(key, f"take it out of {settings.file}")
        yield f"{where}: {key} is no setting of this version", instead


def _twice(settings: Settings) -> _Found:
    flat = _flattened(settings.keys)
    for key, given in settings.flags.items():
        if key not in flat or key in MERGED:
            continue
        remedy = f"take it out of {settings.file}"
        if key == "hosts":
            remedy += ", or have systemctl edit docker.service start dockerd without -H"
        yield f"{key} is given in {settings.place(flat[key])} and as an option ({given[0].origin})", remedy


def _two_data_roots(settings: Settings) -> _Found:
    for one in (settings.keys, settings.flags):
        if one.get("graph") and one.get("data-root"):
            where = settings.place("graph") if one is settings.keys else settings.flags["graph"][0].origin
            yield f"{where}: graph and data-root are both given, and mean the same", "take graph out"
    given = settings.flags.get("data-root")
    if given and not given[-1].value:
        yield f"the data root is empty ({given[-1].origin})", "name a folder, or take the option out"


def _kinds(version: Version, settings: Settings) -> _Found:
    known = of_version(version)
    for key, value in settings.keys.items():
        option = known.get(key)
        if option is None or option.kind.takes(value):
            continue
        expected = option.kind.value
        if option.kind is Kind.TEXT_OF_NAME and isinstance(value, dict):
            name, wrong = next((k, v) for k, v in value.items() if v is not None and not isinstance(v, str))
            yield f"{settings.place(key)}: {key}: {name}: expected text, found {wrong!r}", f'write "{wrong}"'
            continue
        yield f"{settings.place(key)}: {key}: expected {expected}, found {value!r}", f"make it {expected}"


def _values(version: Version, settings: Settings) -> _Found:
    level = settings.keys.get("log-level")
    given = Choice(level, settings.place("log-level")) if isinstance(level, str) else settings.text("log-level", "")
    known = _LEVELS_20 if version < _WHOLE_CHECK else _LEVELS
    if given.value and given.value.lower() not in known:
        yield f"{given.origin}: log-level: expected one of {', '.join(_LEVELS)}, found {given.value}", "make it info"
    for key, words in _WORDS.items():
        value = settings.keys.get(key)
        if key in of_version(version) and isinstance(value, str) and value and value not in words:
            yield f"{settings.place(key)}: {key}: expected {' or '.join(words)}, found {value}", f"make it {words[-1]}"
    for key in _NOT_NEGATIVE:
        value = settings.keys.get(key)
        if isinstance(value, int) and value < 0:
            yield f"{settings.place(key)}: {key}: expected no negative number, found {value}", "take it out"
    for one in settings.texts("dns"):
        if not (is_ipv4(one.value) or is_ipv6(one.value)):
            yield f"{one.origin}: dns: expected IP addresses, found {one.value}", "write the address of the server"
    yield from _runtime(version, settings)
    yield from _lists(settings)
    cors = _text(settings, "api-cors-header")
    if version >= _NO_CORS and cors.value:
        yield f"{cors.origin}: api-cors-header is no more", "take it out, and use a reverse proxy"
    mtu = settings.keys.get("mtu")
    if version >= _WHOLE_CHECK and isinstance(mtu, int) and mtu < 0:
        yield f"{settings.place('mtu')}: mtu: expected no negative number, found {mtu}", "take it out"


def _lists(settings: Settings) -> _Found:
    """Members of lists that dockerd looks at before it starts."""
    for label in settings.texts("labels"):
        if "=" not in label.value:
            yield f"{label.origin}: labels: expected NAME=VALUE, found {label.value}", "write NAME=VALUE"
    for mirror in settings.texts("registry-mirrors"):
        if not mirror.value.startswith(("http://", "https://")):
            yield (
                f"{mirror.origin}: registry-mirrors: expected http:// or https://, found {mirror.value}",
                "add https://",
            )
    for option in settings.texts("exec-opts"):
        name, _, value = option.value.partition("=")
        if name.strip().lower() == "native.cgroupdriver" and value.strip() not in ("systemd", "cgroupfs"):
            yield (
                f"{option.origin}: native.cgroupdriver: expected systemd or cgroupfs, found {value}",
                "make it systemd",
            )


def _runtime(version: Version, settings: Settings) -> _Found:
    runtime, runtimes = _text(settings, "default-runtime"), settings.keys.get("runtimes")
    names = list(runtimes) if isinstance(runtimes, dict) else []
    if version >= _WHOLE_CHECK or "default-runtime" in settings.flags:
        # Older ones look at what is in the file before the options join it.
        names += [one.value.partition("=")[0] for one in settings.flags.get("runtimes", ())]
    if runtime.value not in ("", "runc", *names) and not runtime.value.startswith(("io.containerd.", "/")):
        yield f"{runtime.origin}: default-runtime: there is no runtime {runtime.value}", "add it to runtimes"


def _bridge(version: Version, settings: Settings) -> _Found:
    bridge = _text(settings, "bridge")
    for key in ("bip", "bip6") if version >= _BIP6 else ("bip",):
        address = _text(settings, key)
        if bridge.value and address.value:
            given = f"bridge={bridge.value} ({bridge.origin}) and {key}={address.value} ({address.origin})"
            yield f"{given} exclude each other", f"take {key} out of {address.origin}"
    icc, iptables = settings.switch("icc", True), settings.switch("iptables", True)
    if icc.value == iptables.value == "false":
        yield (
            f"icc=false ({icc.origin}) wants iptables, and iptables=false ({iptables.origin})",
            f"take one of them out: icc of {icc.origin}, iptables of {iptables.origin}",
        )
    six, experimental = settings.switch("ip6tables", False), settings.switch("experimental", False)
    if version < _IP6TABLES_FOR_ALL and six.value == "true" and experimental.value == "false":
        yield f"ip6tables=true ({six.origin}) is an experimental feature", 'set "experimental" to true, too'
    if version < _IP6TABLES_FOR_ALL and six.value == "true" and iptables.value == "false":
        yield f"ip6tables=true ({six.origin}) wants iptables, and iptables=false ({iptables.origin})", "take one out"
    ipv6 = settings.switch("ipv6", False)
    if (
        version < _IP6TABLES_FOR_ALL
        and ipv6.value == "true"
        and bridge.value != "none"
        and not _text(settings, "fixed-cidr-v6").value
    ):
        yield f"ipv6=true ({ipv6.origin}) has no fixed-cidr-v6", 'set "fixed-cidr-v6", such as fd00:d0c::/80'


def _text(settings: Settings, key: str) -> Choice:
    """A text; what is none is complained about elsewhere."""
    if settings.keys.get(key) is not None and not isinstance(settings.keys[key], str):
        return Choice("", "")
    return settings.text(key, "")


def of_storage(
    version: Version, short: str, settings: Settings, driver: str, folder: str, filesystem: str, quota: bool
) -> list[Problem]:
    """What stops dockerd in the options of its storage driver.

    Args:
        driver: the storage driver, "" where a snapshotter is used, which takes no options.
        quota: whether the file system below the folder keeps project quotas.
    """
    found = []
    for option in settings.texts("storage-opts"):
        what = _storage_option(version, driver, option.value, filesystem, quota)
        if what:
            message = f"storage option {option.value} ({option.origin}): {what[0]}: Docker {short} does not start so"
            found.append(Problem(message.replace("{folder}", folder), what[1], fatal=True))
    return found


def _storage_option(version: Version, driver: str, option: str, filesystem: str, quota: bool) -> tuple[str, str] | None:
    known = _STORAGE_OPTIONS.get(driver)
    if known is None:
        return None
    remedy = "take it out of storage-opts"
    name, equals, value = option.partition("=")
    name = name.strip().lower()
    if not equals:
        return "expected NAME=VALUE", remedy
    if driver == "overlay2" and name == _OVERRIDE and version < _OVERRIDE_UNTIL:
        return None
    if name not in known:
        return f"{driver} has no such option", remedy
    if not _SIZE.fullmatch(value.strip()):
        return f"expected a size such as 10G, found {value.strip()}", remedy
    if not value.strip(" 0"):
        return None
    if filesystem != "xfs":
        return f"{{folder}} is on {filesystem or 'another file system'}, and it wants xfs with pquota", remedy
    if not quota:
        return "{folder} is on xfs without pquota", "add pquota to Options= of the image, and reboot"
    return None
