"""What stops dockerd: foretold by us from unit, options and daemon.json, and then tried with Debian's dockerd.

Every row says what the daemon of each release does, and with which words it stops, so that a daemon that stops for
another reason is noticed; what we foretell must agree with that.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rpinfs.boot.host import Host
from rpinfs.docker import options, rules, settings
from rpinfs.docker.rules import Expected
from rpinfs.errors import RpinfsError
from tests.lab.releases import RELEASES
from tests.package.chroot import Chroot
from tests.parameters import EACH_RELEASE
from tests.tools.conftest import Mount, command
from tests.tools.debian import debian
from tests.tools.docker.daemon import NO_NETWORK, answer, started

pytestmark = pytest.mark.root

UNKNOWN, BOTH, TYPE = "don't match any configuration option", "both as a flag and in", "cannot unmarshal"
FLAG, WORD = "unknown flag", "accepts no argument"
IP6, SUBNET = "EnableIPTable is disabled", "no subnet is configured"
D = "/var/lib/docker"


class Case(NamedTuple):
    """Text of daemon.json, options, variables, and what dockerd says when it stops: of all, or 20.10, 26.1 and 28.5.

    Where the third is left out, it is as the second. "" is: it starts. `{root}` and `{driver}` follow where they are
    not what they are by default.
    """

    text: str | None
    stops: str | tuple[str, ...] = ""
    more: str = ""
    environment: str = ""
    root: str = D
    driver: str = "overlay2"
    options: str = NO_NETWORK


CASES = {
    "none": Case(None),
    "empty": Case("", ("EOF", "")),
    "spaces": Case(" \n", ("EOF", "")),
    "null": Case("null"),
    "two objects": Case('{"debug": true}\n{"bogus": 1}', ("", "after top-level value")),
    "byte order mark": Case("\ufeff{}", ("invalid character", "")),
    "graph": Case(f'{{"graph": "{D}/x"}}', ("", UNKNOWN), root=f"{D}/x"),
    "graph of nothing": Case('{"graph": ""}', ("", UNKNOWN)),
    "graph and data-root": Case(f'{{"graph": "{D}/x", "data-root": "{D}/y"}}', ("both", UNKNOWN)),
    "-g": Case(None, ("", "unknown shorthand flag"), f"-g {D}/x", root=f"{D}/x"),
    "-Dg": Case(None, ("", "unknown shorthand flag"), f"-Dg{D}/x", root=f"{D}/x"),
    "--graph=": Case(None, ("", "unknown flag"), f"--graph={D}/x", root=f"{D}/x"),
    "-g and --data-root": Case(None, ("both", "unknown shorthand flag"), f"-g {D}/x --data-root {D}/y"),
    "-g beside data-root": Case(f'{{"data-root": "{D}/k"}}', ("", "unknown"), f"-g {D}/x", root=f"{D}/k"),
    "graph beside --data-root": Case(f'{{"graph": "{D}/k"}}', ("", UNKNOWN), f"--data-root {D}/x", root=f"{D}/k"),
    "graph beside --graph": Case(f'{{"graph": "{D}/k"}}', (BOTH, "unknown flag"), f"--graph {D}/x"),
    "--data-root twice": Case(None, "", f"--data-root {D}/x --data-root={D}/y", root=f"{D}/y"),
    "data-root twice": Case(f'{{"data-root": "{D}/x"}}', BOTH, f"--data-root {D}/x"),
    "data-root of nothing": Case('{"data-root": ""}'),
    "hosts beside -H": Case('{"hosts": ["unix:///run/docker.sock"]}', BOTH, "-H unix:///run/docker.sock"),
    "hosts": Case('{"hosts": ["unix:///run/docker.sock"]}'),
    "debug beside -D": Case('{"debug": true}', BOTH, "-D"),
    "labels beside --label": Case('{"labels": ["a=b"]}', BOTH, "--label c=d"),
    "label is nothing": Case('{"label": ["a=b"]}', "", "--label c=d"),
    "an empty --data-root": Case(None, "mkdir : no such file", "--data-root="),
    "slash at the end": Case(None, "", f"--data-root={D}/"),
    "a value of a switch": Case(None, (WORD, WORD, "Usage:"), "--debug false"),
    "-s": Case(None, "", "-svfs", driver="vfs"),
    "driver as an option": Case('{"storage-driver": ""}', BOTH, "--storage-driver=vfs"),
    "label without a value": Case('{"labels": ["ab"]}', "bad attribute format"),
    "mirror without a scheme": Case('{"registry-mirrors": ["mirror.example"]}', "unsupported scheme|no scheme"),
    "cgroup driver": Case('{"exec-opts": ["native.cgroupdriver=foo"]}', "foo not supported"),
    "negative MTU": Case('{"mtu": -1}', ("", "invalid default MTU")),
    "runtime of ours": Case('{"runtimes": {"x": {"path": "/bin/x"}}, "default-runtime": "x"}'),
    "runtime as an option": Case('{"default-runtime": "x"}', ("'x' does not exist", ""), "--add-runtime x=/bin/x"),
    "runtimes in both": Case('{"runtimes": {"y": {"path": "/bin/y"}}}', "", "--add-runtime x=/bin/x"),
    "null in log-opts": Case('{"log-opts": {"max-file": null}}'),
    "old setting of the wrong kind": Case('{"cluster-store": 1}', (TYPE, UNKNOWN)),
    "unknown option": Case(None, "unknown flag", "--bogus"),
    "a word": Case(None, (WORD, WORD, "Usage:"), "bogus"),
    "no value": Case(None, "flag needs an argument", "--data-root"),
    "unknown key": Case('{"bogus": 1}', UNKNOWN),
    "unknown key below another": Case('{"x": {"bogus": 1}}', UNKNOWN),
    "known key below another": Case('{"x": {"debug": true}}'),
    "letters of another case": Case('{"Data-Root": "/x"}', UNKNOWN),
    "proxies": Case('{"proxies": {"no-proxy": "x"}}', (UNKNOWN, "")),
    "oom-score-adjust": Case('{"oom-score-adjust": -500}', ("", UNKNOWN)),
    "text for a switch": Case('{"debug": "yes"}', TYPE),
    "text for a number": Case('{"mtu": "1500"}', TYPE),
    "a broken number": Case('{"mtu": 1500.0}', TYPE),
    "text for a list": Case('{"insecure-registries": "x"}', TYPE),
    "number in log-opts": Case('{"log-opts": {"max-file": 3}}', TYPE),
    "text in features": Case('{"features": {"buildkit": "true"}}', TYPE),
    "number for a size": Case('{"default-shm-size": 67108864}', "invalid size"),
    "null for a switch": Case('{"debug": null}'),
    "log level": Case('{"log-level": "loud"}', "logging level"),
    "old log level": Case('{"log-level": "warning"}', ("", "logging level")),
    "log level in capitals": Case('{"log-level": "DEBUG"}'),
    "a negative number": Case('{"max-concurrent-downloads": -1}', "invalid max concurrent"),
    "cgroup namespace": Case('{"default-cgroupns-mode": "x"}', "cgroup namespace"),
    "dns": Case('{"dns": ["x"]}', "(?i)ip address"),
    "default runtime": Case('{"default-runtime": "nope"}', "'nope' does not exist"),
    "driver by a variable": Case('{"storage-driver": "overlay2"}', environment="DOCKER_DRIVER=vfs", driver="vfs"),
    "configuration not there": Case(None, "no such file", "--config-file=/no/such"),
    "no configuration": Case('{"bogus": 1}', "", "--config-file="),
    "bridge and bip": Case('{"bridge": "br9", "bip": "10.9.0.1/24"}', "mutually exclusive", options="--iptables=false"),
    "bip beside --bridge": Case('{"bip": "10.9.0.1/24"}', "mutually exclusive"),
    "icc without iptables": Case('{"icc": false}', "ICC=false uses iptables"),
    "ip6tables": Case('{"ip6tables": true}', ("experimental", "experimental", ""), options="--bridge=none"),
    "ip6tables without iptables": Case('{"ip6tables": true, "experimental": true}', (IP6, IP6, ""),
                                       options="--bridge=none --iptables=false"),
    "ipv6 without addresses": Case('{"ipv6": true}', (SUBNET, SUBNET, ""), options="--iptables=false"),
    "ipv6": Case('{"ipv6": true, "fixed-cidr-v6": "fd00:d0c::/80"}', options="--iptables=false"),
    "ipv6 without a bridge": Case('{"ipv6": true}'),
    "no such storage option": Case('{"storage-opts": ["overlay2.foo=1"]}', "unknown option"),
    "storage option of another": Case('{"storage-opts": ["dm.basesize=10G"]}', "unknown option"),
    "storage option of no value": Case('{"storage-opts": ["foo"]}', "(?i)unable to parse"),
    "kernel check": Case('{"storage-opts": ["overlay2.override_kernel_check=true"]}', ("", "unknown option")),
    "no storage options": Case('{"storage-opts": []}'),
    "storage option as an option": Case(None, "unknown option", "--storage-opt=overlay2.foo=1"),
    "options of a snapshotter": Case(
        '{"features": {"containerd-snapshotter": true}, "storage-opts": ["foo=1"]}', ("unknown option", ""),
        driver="overlayfs",
    ),
    "snapshotter as an option": Case(
        None, (FLAG, FLAG, ""), "--feature=containerd-snapshotter=true", driver="overlayfs",
    ),
    "snapshotter in both": Case(
        '{"features": {"containerd-snapshotter": true}}', (FLAG, FLAG, BOTH), "--feature=containerd-snapshotter=false",
    ),
    "snapshotter not wanted": Case('{"features": {"containerd-snapshotter": false}}'),
    "header of other origins": Case('{"api-cors-header": "*"}', ("", "", "(?i)cors")),
    "bip6": Case('{"bip6": "fd00::1/64"}', (UNKNOWN, UNKNOWN, "mutually exclusive")),
    "vfs with a size": Case('{"storage-driver": "vfs", "storage-opts": ["size=1G"]}', "quota"),
}  # fmt: skip


@pytest.fixture(scope="module", params=EACH_RELEASE)
def release(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def root(release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chroot]:
    with debian(release, tmp_path_factory.mktemp(release)) as found:
        found.path(D).mkdir(exist_ok=True)
        found.path("/etc/docker").mkdir(exist_ok=True)
        yield found


def put(root: Chroot, case: Case) -> str:
    """Write daemon.json and a drop-in with the options; the options."""
    file = root.path("/etc/docker/daemon.json")
    file.unlink(missing_ok=True)
    if case.text is not None:
        file.write_text(case.text)
    given = f"{case.options} {case.more}".strip()
    drop_in = root.path("/etc/systemd/system/docker.service.d/case.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    environment = f"Environment={case.environment}\n"
    drop_in.write_text(f"[Service]\n{environment}ExecStart=\nExecStart=/usr/sbin/dockerd {given}\n")
    return given


def foretold(root: Chroot) -> tuple[Expected | None, list[str]]:
    """What we expect, without any of Docker's programs: as of an nfsroot on a NAS."""
    table = Path("/proc/self/mountinfo").read_text().replace(f" {root.root}/", " /").replace(f" {root.root} ", " / ")
    try:
        expected = settings.expect(settings.read(Host(root=str(root.root), mountinfo=table), None))
    except RpinfsError as error:
        return None, [error.message]
    return expected, [problem.message for problem in expected.problems if problem.fatal]


def said_by(release: str, case: Case) -> str:
    """What the Docker of a release says when it stops."""
    if isinstance(case.stops, str):
        return case.stops
    return case.stops[min(list(RELEASES).index(release), len(case.stops) - 1)]


@pytest.mark.parametrize("name", CASES)
def test_what_stops_docker(root: Chroot, release: str, name: str, mounted: Mount) -> None:
    case = CASES[name]
    stops = said_by(release, case)
    given = put(root, case)
    with mounted("-t", "tmpfs", "none") as data:
        command("mount", "--bind", data, root.path(D))
        try:
            expected, fatal = foretold(root)
            with started(root, given, case.environment) as came_up:
                said = root.path("/tmp/log").read_text()
                assert came_up is not bool(stops), said
                assert came_up or re.search(stops, said), said
                assert bool(fatal) is bool(stops), (fatal, said)
                if came_up:
                    assert expected
                    info = answer(root)
                    assert (info["Driver"], info["DockerRootDir"]) == (case.driver, case.root)
                    assert (expected.driver.value, expected.root) == (case.driver, case.root)
        finally:
            command("umount", root.path(D))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "xfs with pquota"])
@pytest.mark.parametrize(("option", "wrong"), [("1G", ""), ("0", ""), ("bogus", "invalid size")])
def test_size_of_layers(root: Chroot, tmp_path: Path, mounted: Mount, kind: str, option: str, wrong: str) -> None:
    """overlay2.size wants project quotas, which only xfs has, and only when it is mounted with them."""
    filesystem, _, quota = kind.partition(" with ")
    image = tmp_path / "image"
    command("truncate", "-s", "400M", image)
    command(f"mkfs.{filesystem}", "-q", image)
    if quota and subprocess.run(["mount", "-o", f"loop,{quota}", image, "/mnt"], check=False).returncode:
        pytest.skip("this kernel has no quotas for xfs")
    if quota:
        command("umount", "/mnt")
    put(root, Case(f'{{"storage-opts": ["overlay2.size={option}"]}}'))
    with mounted("-o", f"loop,{quota}" if quota else "loop", image) as data:
        command("mount", "--bind", data, root.path(D))
        try:
            expected, fatal = foretold(root)
            stops = wrong or ("" if quota or option == "0" else "XFS|Project Quota")
            with started(root) as came_up:
                said = root.path("/tmp/log").read_text()
                assert came_up is not bool(stops), said
                assert came_up or re.search(stops, said), said
                assert bool(fatal) is bool(stops), (expected, fatal)
        finally:
            command("umount", root.path(D))


def test_the_keys_that_a_version_knows(root: Chroot, release: str) -> None:
    """All keys of all versions in one file: dockerd lists those that it does not know, and it knows no others."""
    version = rules.number(RELEASES[release].docker)
    odd = {"bogus", "swarm-raft-heartbeat-tick", "resolv-conf", "default-init", "containerd-plugin-namespace", "H"}
    keys = {name for option in options.OPTIONS for name in (option.flag, option.key) if name} | odd
    put(root, Case(f"{{{', '.join(f'{chr(34)}{key}{chr(34)}: [[]]' for key in sorted(keys))}}}"))
    with started(root) as came_up:
        assert not came_up
    listed = re.search(f"{UNKNOWN}: (.*)", root.path("/tmp/log").read_text())
    assert listed
    assert set(listed[1].split(", ")) == keys - set(options.of_version(version))


def test_the_options_that_a_version_has(root: Chroot, release: str) -> None:
    version = rules.number(RELEASES[release].docker)
    help_text = root.run("dockerd", "--help").stdout
    shown = dict(re.findall(r"^  (?:-(\w), |    )--([\w-]+)", help_text, re.MULTILINE))
    assert len(shown) > 5
    known = {o.flag: o for o in options.OPTIONS if o.flag and o.is_in(version)}
    for short, name in re.findall(r"^ +(?:-(\w), )?--([\w-]+)", help_text, re.MULTILINE):
        assert name in known
        assert known[name].short == short or name == "help"
