"""What is said of settings that stop dockerd; tests/tools/docker/test_refusals.py tries each with the real ones."""

from __future__ import annotations

from typing import Any

import pytest

from rpinfs.docker import refusals
from rpinfs.docker.told import Choice, Settings

V20, V26, V28 = (20, 10), (26, 1), (28, 5)
FILE = "/etc/docker/daemon.json"
END = ": Docker x.y does not start so"


def said(version: tuple[int, int], keys: dict[str, Any], **flags: list[str]) -> list[str]:
    given = {name.replace("_", "-"): [Choice(value, "unit:1") for value in values] for name, values in flags.items()}
    settings = Settings(keys, flags=given, lines={key: number for number, key in enumerate(keys, 2)})
    problems = refusals.of_settings(version, "x.y", settings)
    assert all(problem.fatal and problem.remedy and problem.message.endswith(END) for problem in problems)
    return [problem.message.removesuffix(END) for problem in problems]


@pytest.mark.parametrize(
    ("keys", "old", "new"),
    [
        ({}, [], []),
        ({"bogus": 1, "x": {"odd": 1, "debug": 1}}, [f"{FILE}:2: bogus is no setting of this version",
                                                     f"{FILE}:3: odd is no setting of this version"], None),
        ({"graph": "/x"}, [], [f"{FILE}:2: graph is no setting of this version"]),
        ({"graph": "/x", "data-root": "/y"}, [f"{FILE}:2: graph and data-root are both given, and mean the same"],
         [f"{FILE}:2: graph is no setting of this version",
          f"{FILE}:2: graph and data-root are both given, and mean the same"]),
        ({"debug": "yes"}, [f"{FILE}:2: debug: expected true or false, found 'yes'"], None),
        ({"log-opts": {"max-size": "1m", "max-file": 3}},
         [f"{FILE}:2: log-opts: max-file: expected text, found 3"], None),
        ({"log-opts": {"max-size": "1m", "tag": None}}, [], []),
        ({"log-opts": "x"}, [f"{FILE}:2: log-opts: expected an object of texts, found 'x'"], None),
        ({"log-level": "warning"}, [],
         [f"{FILE}:2: log-level: expected one of panic, fatal, error, warn, info, debug, trace, found warning"]),
        ({"log-level": "INFO"}, [], []),
        ({"log-format": "xml"}, [f"{FILE}:2: log-format is no setting of this version"],
         [f"{FILE}:2: log-format: expected text or json, found xml"]),
        ({"default-ipc-mode": "host"},
         [f"{FILE}:2: default-ipc-mode: expected private or shareable, found host"], None),
        ({"max-download-attempts": -1},
         [f"{FILE}:2: max-download-attempts: expected no negative number, found -1"], None),
        ({"max-download-attempts": 0, "mtu": 0}, [], []),
        ({"mtu": -1}, [], [f"{FILE}:2: mtu: expected no negative number, found -1"]),
        ({"dns": ["1.1.1.1", "fd00::1", "nas"]}, [f"{FILE}:2: dns: expected IP addresses, found nas"], None),
        ({"default-runtime": "x"}, [f"{FILE}:2: default-runtime: there is no runtime x"], None),
        ({"default-runtime": "io.containerd.runc.v2"}, [], []),
        ({"default-runtime": "x", "runtimes": {"x": {}}}, [], []),
        ({"labels": ["a=b", "c"]}, [f"{FILE}:2: labels: expected NAME=VALUE, found c"], None),
        ({"registry-mirrors": ["https://a", "b"]},
         [f"{FILE}:2: registry-mirrors: expected http:// or https://, found b"], None),
        ({"exec-opts": ["native.cgroupdriver=systemd", "native.cgroupdriver=x"]},
         [f"{FILE}:2: native.cgroupdriver: expected systemd or cgroupfs, found x"], None),
        ({"bridge": "br0", "bip": "10.0.0.1/24"},
         [f"bridge=br0 ({FILE}:2) and bip=10.0.0.1/24 ({FILE}:3) exclude each other"], None),
        ({"icc": False}, [], []),
        ({"icc": False, "iptables": False},
         [f"icc=false ({FILE}:2) wants iptables, and iptables=false ({FILE}:3)"], None),
        ({"ip6tables": True}, [f"ip6tables=true ({FILE}:2) is an experimental feature"], None),
        ({"ip6tables": True, "experimental": True}, [], []),
        ({"ip6tables": True, "experimental": True, "iptables": False},
         [f"ip6tables=true ({FILE}:2) wants iptables, and iptables=false ({FILE}:4)"], None),
        ({"ipv6": True}, [f"ipv6=true ({FILE}:2) has no fixed-cidr-v6"], None),
        ({"ipv6": True, "fixed-cidr-v6": "fd00::/80"}, [], []),
        ({"ipv6": True, "bridge": "none"}, [], []),
    ],
)  # fmt: skip
def test_of_settings(keys: dict[str, Any], old: list[str], new: list[str] | None) -> None:
    assert said(V20, keys) == old
    assert said(V26, keys) == (old if new is None else new)
    # What is right before it, and what is wrong, hides nothing of it.
    count = len(old if new is None else new)
    assert len(said(V26, {"live-restore": False, **keys})) == count
    assert len(said(V26, {"bogus-too": 1, "selinux-enabled": "x", "cluster-store-opts": 1, **keys})) == count + 3


def test_later_versions() -> None:
    assert said(V28, {"ip6tables": True, "ipv6": True}) == []
    assert said(V28, {"api-cors-header": "*"}) == [f"{FILE}:2: api-cors-header is no more"]
    assert said((29, 0), {"api-cors-header": "*"})[0] == f"{FILE}:2: api-cors-header is no setting of this version"


@pytest.mark.parametrize(
    ("keys", "last_without", "first_with"),
    [
        ({"mtu": -1}, (22, 99), (23, 0)),
        ({"log-level": "warning"}, (22, 99), (23, 0)),
        ({"api-cors-header": "*"}, (27, 99), (28, 0)),
        ({"graph": "/x"}, (22, 99), (23, 0)),
        ({"oom-score-adjust": 1}, (24, 99), (25, 0)),
    ],
)
def test_what_a_version_refuses_first(
    keys: dict[str, Any], last_without: tuple[int, int], first_with: tuple[int, int]
) -> None:
    assert said(last_without, keys) == [] != said(first_with, keys)


@pytest.mark.parametrize(
    ("keys", "last_with", "first_without"),
    [
        ({"ip6tables": True}, (26, 99), (27, 0)),
        ({"ip6tables": True, "experimental": True, "iptables": False}, (26, 99), (27, 0)),
        ({"ipv6": True}, (26, 99), (27, 0)),
        ({"log-format": "text"}, (24, 99), (25, 0)),
        ({"bip6": "fd00::1/64"}, (27, 99), (28, 0)),
        ({"firewall-backend": "x"}, (28, 99), (29, 0)),
    ],
)
def test_what_a_version_takes_first(
    keys: dict[str, Any], last_with: tuple[int, int], first_without: tuple[int, int]
) -> None:
    assert said(last_with, keys) != [] == said(first_without, keys)


def test_given_twice() -> None:
    assert said(V26, {"hosts": ["fd://"]}, hosts=["fd://"]) == [f"hosts is given in {FILE}:2 and as an option (unit:1)"]
    assert said(V26, {"x": {"debug": True}}, debug=["true"]) == [
        f"debug is given in {FILE}:2 and as an option (unit:1)"
    ]
    assert said(V26, {"runtimes": {"a": {}}}, runtimes=["b=/b"]) == []
    assert said(V26, {"hosts": ["fd://"], "debug": True}, bip=["10.0.0.1/24"], debug=["true"], hosts=["fd://"]) == [
        f"debug is given in {FILE}:3 and as an option (unit:1)",
        f"hosts is given in {FILE}:2 and as an option (unit:1)",
    ]
    assert said(V26, {}, data_root=["/x", ""]) == ["the data root is empty (unit:1)"]
    assert said(V20, {}, data_root=["/x"], graph=["/y"]) == [
        "unit:1: graph and data-root are both given, and mean the same"
    ]


def test_switches_as_options() -> None:
    assert said(V26, {"icc": False}, iptables=["false"]) == [
        f"icc=false ({FILE}:2) wants iptables, and iptables=false (unit:1)"
    ]
    assert said(V26, {"icc": False}, iptables=["true"]) == []


@pytest.mark.parametrize(
    ("option", "driver", "filesystem", "quota", "expected"),
    [
        ("overlay2.size=1G", "overlay2", "ext4", False, "/d is on ext4, and it wants xfs with pquota"),
        ("overlay2.size=1G", "overlay2", "xfs", False, "/d is on xfs without pquota"),
        ("overlay2.size=1G", "overlay2", "xfs", True, ""),
        ("Overlay2.Size = 0", "overlay2", "ext4", False, ""),
        ("overlay2.size=x", "overlay2", "xfs", True, "expected a size such as 10G, found x"),
        ("overlay2.foo=1", "overlay2", "xfs", True, "overlay2 has no such option"),
        ("foo", "overlay2", "xfs", True, "expected NAME=VALUE"),
        ("size=1G", "vfs", "ext4", False, "/d is on ext4, and it wants xfs with pquota"),
        ("zfs.fsname=x", "zfs", "zfs", False, ""),
    ],
)
def test_storage_options(option: str, driver: str, filesystem: str, quota: bool, expected: str) -> None:
    settings = Settings({"storage-opts": [option]})
    found = refusals.of_storage(V26, "x.y", settings, driver, "/d", filesystem, quota)
    assert [problem.message for problem in found] == (
        [f"storage option {option} ({FILE}): {expected}{END}"] if expected else []
    )


def test_the_kernel_check_was_an_option_once() -> None:
    settings = Settings({"storage-opts": ["overlay2.override_kernel_check=true"]})
    assert refusals.of_storage(V20, "x.y", settings, "overlay2", "/d", "ext4", False) == []
    assert len(refusals.of_storage(V26, "x.y", settings, "overlay2", "/d", "ext4", False)) == 1
