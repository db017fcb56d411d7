"""What Docker will do, by version, daemon.json and storage; and the text of a JSON object with one key changed."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from rpinfs.boot.config import examine
from rpinfs.boot.host import Host
from rpinfs.docker import placement as placing
from rpinfs.docker import rules, subids
from rpinfs.docker.jsonedit import remove_member, set_member
from rpinfs.docker.told import Choice, Settings
from rpinfs.errors import RpinfsError
from tests.support import CMDLINE, SERIAL

V20, V23, V24, V26, V28, V29, V30 = "20.10.24+dfsg1", "23.0.6", "24.0.9", "26.1.5+dfsg1", "28.5.2", "29.7.2", "30.0.0"
ALL = [V20, V23, V24, V26, V28, V29, V30]
SNAPSHOTTER: dict[str, object] = {"features": {"containerd-snapshotter": True}}
NO_SNAPSHOTTER: dict[str, object] = {"features": {"containerd-snapshotter": False}}
REMAP: dict[str, object] = {"userns-remap": "default"}


def expect(version: str, keys: dict[str, Any], prior: tuple[str, ...] = (), on: str = "ext4") -> rules.Expected:
    return rules.expected(
        version,
        Settings(keys),
        prior=lambda folder: prior if folder.startswith("/var/lib/docker") else (),
        filesystem=lambda _: on,
        remapped=(100000, 100000) if keys.get("userns-remap") else None,
    )


def shown(expected: rules.Expected) -> str:
    """Driver and root, and ! where Docker does not start or stores badly."""
    store = "containerd:" if expected.snapshotter else ""
    fatal = any(problem.fatal for problem in expected.problems)
    return f"{store}{expected.driver.value} {expected.root}{' fatal' if fatal else ' !' if expected.problems else ''}"


D, R = "/var/lib/docker", "/var/lib/docker/100000.100000"
# Versions, daemon.json, drivers with data in the folder, file system: what Docker does. The rows with a Docker of 28
# and 29 are its sources' and documentation's word: no package of them was run (see docker.RULES).
TABLE: list[tuple[list[str], dict[str, object], tuple[str, ...], str, str]] = [
    # Nothing is set
    ([V20, V23, V24, V26, V28], {}, (), "ext4", f"overlay2 {D}"),
    ([V20, V23, V24, V26, V28], {}, (), "xfs", f"overlay2 {D}"),
    ([V29, V30], {}, (), "ext4", f"containerd:overlayfs {D}"),
    # Updated: what was there goes on to be used
    (ALL, {}, ("overlay2",), "ext4", f"overlay2 {D}"),
    ([V29, V30], {}, ("vfs",), "ext4", f"containerd:overlayfs {D}"),
    (ALL, {}, ("overlay2", "fuse-overlayfs"), "ext4", f"overlay2 {D} fatal"),
    ([V20], {}, ("overlay2", "btrfs"), "ext4", f"btrfs {D} fatal"),
    ([V20], {}, ("aufs",), "ext4", f"aufs {D} !"),
    ([V26], {}, ("aufs",), "ext4", f"overlay2 {D}"),
    # The storage is not mounted: straight on NFS
    ([V20, V23, V24, V26, V28], {}, (), "nfs4", f"vfs {D} !"),
    ([V29, V30], {}, (), "nfs4", f"containerd:native {D} !"),
    ([V20], {}, (), "btrfs", f"btrfs {D}"),
    ([V26], {}, (), "btrfs", f"overlay2 {D}"),
    ([V26], {}, (), "zfs", f"zfs {D}"),
    ([V26], {}, (), "overlay", f"vfs {D} !"),
    # The snapshotter, asked for or refused
    ([V20, V23], SNAPSHOTTER, (), "ext4", f"overlay2 {D}"),
    ([V24, V26, V28, V29, V30], SNAPSHOTTER, (), "ext4", f"containerd:overlayfs {D}"),
    ([V24, V26, V28, V29, V30], SNAPSHOTTER, ("overlay2",), "ext4", f"containerd:overlayfs {D}"),
    (ALL, NO_SNAPSHOTTER, (), "ext4", f"overlay2 {D}"),
    (ALL, NO_SNAPSHOTTER, ("overlay2",), "ext4", f"overlay2 {D}"),
    # A driver is named
    (ALL, {"storage-driver": "overlay2"}, (), "ext4", f"overlay2 {D}"),
    (ALL, {"storage-driver": "overlay2"}, ("overlay2",), "ext4", f"overlay2 {D}"),
    (ALL, {"storage-driver": "vfs"}, (), "ext4", f"vfs {D} !"),
    (ALL, {"storage-driver": "fuse-overlayfs"}, (), "ext4", f"fuse-overlayfs {D} !"),
    ([V20, V23], {"storage-driver": "aufs"}, (), "ext4", f"aufs {D} !"),
    ([V24, V26, V28], {"storage-driver": "aufs"}, (), "ext4", f"aufs {D} fatal"),
    ([V24], {"storage-driver": "devicemapper"}, (), "ext4", f"devicemapper {D} !"),
    ([V26, V28], {"storage-driver": "devicemapper"}, (), "ext4", f"devicemapper {D} fatal"),
    ([V20, V26, V28], {"storage-driver": "overlayfs"}, (), "ext4", f"overlayfs {D} fatal"),
    ([V29], {"storage-driver": "overlayfs"}, (), "ext4", f"containerd:overlayfs {D}"),
    ([V29], {"storage-driver": "overlayfs"}, ("overlay2",), "ext4", f"overlayfs {D} fatal"),
    ([V29], {"storage-driver": "native"}, (), "ext4", f"containerd:native {D} !"),
    ([V26, V28, V29], {"storage-driver": "overlay2", **SNAPSHOTTER}, (), "ext4", f"containerd:overlay2 {D} fatal"),
    ([V26, V28, V29], {"storage-driver": "overlayfs", **SNAPSHOTTER}, (), "ext4", f"containerd:overlayfs {D}"),
    ([V29], {"storage-driver": "overlayfs", **NO_SNAPSHOTTER}, (), "ext4", f"overlayfs {D} fatal"),
    # Remapped: another folder, and from 29 on storage drivers again
    (ALL, REMAP, (), "ext4", f"overlay2 {R}"),
    (ALL, {"userns-remap": "bob:bob"}, (), "ext4", f"overlay2 {R}"),
    (ALL, {"userns-remap": ""}, ("overlay2",), "ext4", f"overlay2 {D}"),
    (ALL, {"userns-remap": "root"}, (), "ext4", f"overlay2 {D}/0.0 !"),
    (ALL, {"data-root": "/srv/d/", **REMAP}, (), "ext4", "overlay2 /srv/d/100000.100000"),
    ([V24, V26, V28], {**SNAPSHOTTER, **REMAP}, (), "ext4", f"containerd:overlayfs {R} !"),
    ([V29, V30], {**SNAPSHOTTER, **REMAP}, (), "ext4", f"overlay2 {R} fatal"),
    ([V29, V30], {"storage-driver": "overlayfs", **REMAP}, (), "ext4", f"overlayfs {R} fatal"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "keys", "prior", "on", "result"),
    [(version, *row) for versions, *row in TABLE for version in versions],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_expected(version: str, keys: dict[str, object], prior: tuple[str, ...], on: str, result: str) -> None:
    assert shown(expect(version, keys, prior, on)) == result


@pytest.mark.parametrize(
    ("version", "keys", "prior", "said", "remedy"),
    [
        (V26, {"storage-driver": "aufs"}, (), "Docker 26.1 has no storage driver aufs (/etc/docker/daemon.json)",
         "make it overlay2, or take it out"),
        (V29, {"storage-driver": "overlay2", **SNAPSHOTTER}, (),
         "Docker 29.7 has no snapshotter overlay2 (/etc/docker/daemon.json)", "make it overlayfs, or take it out"),
        (V29, {}, ("overlay2", "fuse-overlayfs"), f"{D} has data of fuse-overlayfs, overlay2: Docker does not start",
         'set "storage-driver" in /etc/docker/daemon.json to the one that you mean'),
        (V29, {**SNAPSHOTTER, **REMAP}, (),
         "Docker 29.7 does not start with both userns-remap and containerd-snapshotter",
         "take containerd-snapshotter out of features in /etc/docker/daemon.json"),
        (V26, {**SNAPSHOTTER, **REMAP}, (),
         "docker build fails with both userns-remap and containerd-snapshotter (moby#47377)",
         "take containerd-snapshotter out of features in /etc/docker/daemon.json"),
    ],
)  # fmt: skip
def test_why_docker_does_not_start_and_what_helps(
    version: str, keys: dict[str, object], prior: tuple[str, ...], said: str, remedy: str
) -> None:
    found = {problem.message: problem.remedy for problem in expect(version, keys, prior).problems}
    assert found[said] == remedy


def test_rules_that_were_not_tried_say_so() -> None:
    seen = {version: rules.rules_for(version).seen for version in ALL}
    assert {version for version, package in seen.items() if package} == {V20, V26, V28}
    stores = {version: rules.rules_for(version).store_seen for version in ALL}
    assert {version: package for version, package in stores.items() if package} == dict.fromkeys((V29, V30), seen[V28])


def test_rules_are_in_order() -> None:
    since = [rules.since for rules in rules.RULES]
    assert since == sorted(since)
    assert [rules.rules_for(version).validate for version in ALL] == [False] + [True] * 6


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("20.10.0", "22.99"),
        ("23.0.0", "23.99"),
        ("24.0.0", "24.99"),
        ("25.0.0", "25.99"),
        ("26.0.0", "26.99"),
        ("27.0.0", "27.99"),
        ("28.0.0", "28.99"),
        ("29.0.0", "99.0"),
    ],
)
def test_each_version_has_the_rules_of_its_own(first: str, last: str) -> None:
    major, minor = first.split(".")[:2]
    since = (int(major), int(minor))
    assert (rules.rules_for(first).since, rules.rules_for(last).since) == (since, since)


@pytest.mark.parametrize("version", ["5:29.0.1-1~debian.12~bookworm", "v29.0.1", "29.0"])
def test_versions_of_packages(version: str) -> None:
    assert rules.short(version) == "29.0"


@pytest.mark.parametrize("version", ["", "dev", "19.03.15", "1.13.1"])
def test_versions_that_are_not_known(version: str) -> None:
    with pytest.raises(RpinfsError, match="expected"):
        expect(version, {})


def test_where_it_comes_from() -> None:
    found = expect(V26, {"data-root": "/srv/docker", "storage-driver": "overlay2"})
    assert (found.data_root.origin, found.driver.origin) == ("/etc/docker/daemon.json", "/etc/docker/daemon.json")
    assert found.userns_remap == Choice("", "default of Docker 26.1")
    assert found.containerd_root == Choice("/var/lib/containerd", "default of containerd")
    found = expect(V26, {}, prior=("overlay2",))
    assert found.driver.origin == "data of an earlier Docker in /var/lib/docker"
    assert expect(V29, SNAPSHOTTER).driver.origin == "features.containerd-snapshotter in /etc/docker/daemon.json"


def test_an_option_of_dockerd_counts_and_excludes_the_key() -> None:
    flags = {"data-root": [Choice("/srv/d", "--data-root in docker.service")]}
    found = rules.expected(V26, Settings({}, flags=flags))
    assert (found.root, found.problems) == ("/srv/d", ())
    assert found.data_root.origin == "--data-root in docker.service"
    found = rules.expected(V26, Settings({"data-root": "/srv/d"}, flags=flags))
    assert [problem.fatal for problem in found.problems] == [True]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data-root": 3}, "data-root: expected text, found 3"),
        ({"features": []}, r"features: expected an object, found \[\]"),
        (
            {"features": {"containerd-snapshotter": "yes"}},
            "containerd-snapshotter: expected true or false, found 'yes'",
        ),
    ],
)
def test_values_of_the_wrong_kind(keys: dict[str, object], message: str) -> None:
    with pytest.raises(RpinfsError, match=message) as caught:
        expect(V26, keys)
    assert caught.value.status == 2


# Images of the configuration


def placement(version: str, keys: dict[str, Any], config: str = "") -> list[str]:
    found, errors = examine(Host(cmdline=CMDLINE, serial=SERIAL, config_files=[("/etc/rpinfs/rpinfs.conf", config)]))
    assert errors == []
    return [problem.message for problem in placing.problems(expect(version, keys), found.images)]


def test_data_on_an_image() -> None:
    assert placement(V26, {}) == placement(V29, {}) == placement(V26, REMAP) == []
    assert placement(V26, {"data-root": "/var/lib/docker/data"}) == []
    assert placement(V26, {"data-root": "/var/lib/docker2"}) == [
        "Docker's data root /var/lib/docker2 is on no image (/etc/docker/daemon.json)"
    ]


def test_images_of_containerd_on_an_image() -> None:
    config = "[Image docker]\nBind=\n"
    assert placement(V26, {}, config) == []
    assert placement(V29, {}, config) == [
        "Docker keeps its images in /var/lib/containerd, which is on no image (default of containerd)"
    ]
    assert placement(V29, REMAP, config) == []


# Numbers of users

PASSWD = "root:x:0:0::/root:/bin/sh\npi:x:1000:1000::/home/pi:/bin/sh\ndockremap:x:110:115::/x:/bin/false\n"
GROUP = "root:x:0:\npi:x:1000:\ndockremap:x:115:\n"
RANGES = "# who\npi:100000:65536\n\ndockremap:165536:65536\n"


def accounts(subuid: str | None = RANGES, subgid: str | None = RANGES, passwd: str = PASSWD) -> subids.Accounts:
    return subids.Accounts(passwd, GROUP, subuid, subgid)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("default", subids.Remap("dockremap", 165536, 165536)),
        ("dockremap", subids.Remap("dockremap", 165536, 165536)),
        ("pi", subids.Remap("pi", 100000, 100000)),
        ("1000", subids.Remap("pi", 100000, 100000)),
        ("pi:dockremap", subids.Remap("pi", 100000, 100000)),
        ("1000:115", subids.Remap("pi", 100000, 100000)),
    ],
)
def test_whom_userns_remap_means(wanted: str, expected: subids.Remap) -> None:
    assert subids.resolve(wanted, accounts()) == expected


def test_docker_makes_dockremap_where_it_is_not() -> None:
    passwd = PASSWD.replace("dockremap", "other")
    assert subids.resolve("default", accounts("", "", passwd)) == subids.Remap("dockremap", 100000, 100000, True)
    taken = "pi:100000:65536\n"
    assert subids.resolve("default", accounts(taken, "", passwd)) == subids.Remap("dockremap", 165536, 100000, True)


def test_a_range_by_number_comes_first() -> None:
    ranges = "pi:300000:65536\n1000:200000:65536\n"
    assert subids.resolve("pi", accounts(ranges, ranges)).uid == 200000


@pytest.mark.parametrize(
    ("wanted", "subuid", "subgid", "message", "remedy"),
    [
        ("bob", RANGES, RANGES, "there is no user bob", "useradd --system bob"),
        ("4711", RANGES, RANGES, "there is no user 4711", None),
        ("pi:users", RANGES, RANGES, "there is no group users", "groupadd --system users"),
        ("pi", None, RANGES, "/etc/subuid: not there", "touch /etc/subuid"),
        ("pi", RANGES, "dockremap:165536:65536\n", "/etc/subgid: pi has no range",
         "usermod --add-subgids 231072-296607 pi"),
        ("pi", "", RANGES, "/etc/subuid: pi has no range", "usermod --add-subuids 100000-165535 pi"),
        ("pi", "pi:100000:65535\n", RANGES, "/etc/subuid:1: pi has 65535 numbers; expected at least 65536",
         "make it pi:100000:65536"),
        ("pi", "pi:100000:65536\nbob:165535:1\n", RANGES, "/etc/subuid:1: the range of pi overlaps that of bob",
         "give pi numbers of its own: pi:165536:65536"),
        ("pi", "bob:1:4000000000\npi:100000:65536\n", RANGES,
         "/etc/subuid:2: the range of pi overlaps that of bob in line 1", None),
        ("pi", "pi:4294967000:65536\n", RANGES, "/etc/subuid:1: the range of pi ends beyond 4294967294", None),
        ("pi", "pi:100000\n", RANGES, "/etc/subuid:1: expected USER:START:COUNT, found pi:100000", None),
        ("pi", RANGES, "# x\nbob:-1:5\n", "/etc/subgid:2: expected USER:START:COUNT", None),
    ],
)  # fmt: skip
def test_ranges_that_do_not_do(
    wanted: str, subuid: str | None, subgid: str | None, message: str, remedy: str | None
) -> None:
    with pytest.raises(RpinfsError) as caught:
        subids.resolve(wanted, accounts(subuid, subgid))
    assert caught.value.message.startswith(message)
    if remedy:
        assert caught.value.remedy == remedy


def test_several_ranges_add_up() -> None:
    ranges = "pi:100000:40000\npi:200000:40000\n"
    assert subids.resolve("pi", accounts(ranges, ranges)).uid == 100000


# The text of daemon.json

KEY = "userns-remap"
EDITS = [
    ("", '{\n    "userns-remap": "default"\n}\n', "{}\n"),
    ("  \n", '{\n    "userns-remap": "default"\n}\n', "{}\n"),
    ("{}", '{\n    "userns-remap": "default"\n}\n', "{}\n"),
    ('{"b":1,"a":[1,2]}', '{"b":1,"a":[1,2], "userns-remap":"default"}', '{"b":1,"a":[1,2]}'),
    ('{ "b": 1 }\n', '{ "b": 1, "userns-remap": "default" }\n', '{ "b": 1 }\n'),
    ('{\n\t"b": 1e3,\n\t"a": "\\u00e4"\n}', '{\n\t"b": 1e3,\n\t"a": "\\u00e4",\n\t"userns-remap": "default"\n}',
     '{\n\t"b": 1e3,\n\t"a": "\\u00e4"\n}'),
    ('{\r\n  "b" : 1\r\n}\r\n', '{\r\n  "b" : 1,\r\n  "userns-remap" : "default"\r\n}\r\n', '{\r\n  "b" : 1\r\n}\r\n'),
    ('{\n\n  "b": {"x": {}}\n}', '{\n\n  "b": {"x": {}},\n  "userns-remap": "default"\n}', '{\n\n  "b": {"x": {}}\n}'),
    ('{"userns-remap":"bob", "b":1}', '{"userns-remap":"default", "b":1}', '{"b":1}'),
    ('{\n "a": 1,\n "userns-remap": "bob",\n "b": "},{"\n}', '{\n "a": 1,\n "userns-remap": "default",\n "b": "},{"\n}',
     '{\n "a": 1,\n "b": "},{"\n}'),
    ('{"userns-remap":"x","userns-remap":"y"}', '{"userns-remap":"x","userns-remap":"default"}', "{}"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "added", "removed"), EDITS, ids=range(len(EDITS)))
def test_one_key_is_changed_and_nothing_else(text: str, added: str, removed: str) -> None:
    assert set_member(text, KEY, "default") == added
    assert remove_member(added, KEY) == removed


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@hypothesis.given(
    st.dictionaries(st.text() | st.just(KEY), VALUES), st.sampled_from([None, 0, 1, 4, "\t"]), st.booleans()
)
def test_any_object(found: dict[str, Any], indent: Any, ascii_only: bool) -> None:  # noqa: ANN401  json.dumps' type
    text = json.dumps(found, indent=indent, ensure_ascii=ascii_only)
    changed = set_member(text, KEY, "default")
    assert list(json.loads(changed).items()) == list({**found, KEY: "default"}.items())
    without = {key: value for key, value in found.items() if key != KEY}
    assert list(json.loads(remove_member(changed, KEY)).items()) == list(without.items())
