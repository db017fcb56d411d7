"""`rpinfs docker` on real files: one key of daemon.json, whole at every instant, and with the real dockerd."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rpinfs.boot.config import examine
from rpinfs.boot.host import Host
from rpinfs.commands import cli
from rpinfs.docker import change, settings
from rpinfs.errors import RpinfsError
from rpinfs.system import replace
from rpinfs.system import run as running
from tests.lab.releases import RELEASES
from tests.package.chroot import Chroot
from tests.parameters import EACH_RELEASE
from tests.support import CMDLINE, TOP, Content, Installed, Tell, make_pi, make_tree
from tests.tools.conftest import Traced
from tests.tools.crash import fail_at, kill_at
from tests.tools.debian import debian

Captured = pytest.CaptureFixture[str]
Pi = Callable[..., Path]

OLD = '{\n  "live-restore": true,\n  "log-opts": {"max-size": "10m"}\n}\n'
NEW = '{\n  "live-restore": true,\n  "log-opts": {"max-size": "10m"},\n  "userns-remap": "default"\n}\n'
FILE = "etc/docker/daemon.json"
MOUNTED = "40 22 0:40 / / rw - nfs4 192.168.1.10:/pi rw\n41 40 7:3 / /var/lib/docker rw - ext4 /dev/loop3 rw\n"
DATA = "var/lib/docker/image/overlay2/imagedb/content/sha256/ab"


def status_of(version: str, package: str = "docker.io") -> str:
    other = "Package: docker-cli\nStatus: install ok installed\nVersion: 1.2\n\n"
    return f"{other}Package: {package}\nStatus: install ok installed\nVersion: {version}\nDescription: x\n  y: z\n"


@pytest.fixture
def pi(root: Path, monkeypatch: pytest.MonkeyPatch) -> Pi:
    """Make an nfsroot with a Docker; the commands look at it."""
    monkeypatch.setenv("RPINFS_ROOT", str(root))

    def make(version: str = "26.1.5+dfsg1-9+b1", **files: Content) -> Path:
        return make_pi(root, "", {
            "proc/self/mountinfo": MOUNTED,
            "var/lib/dpkg/status": status_of(version),
            "etc/passwd": "root:x:0:0::/:\n",
            "etc/group": "root:x:0:\n",
            "etc/subuid": "",
            "etc/subgid": "",
            FILE: OLD,
            **{name.replace("__", "/"): content for name, content in files.items()},
        })  # fmt: skip

    return make


def apply(*words: str) -> int:
    return cli.main(["docker", "apply", *words])


def complaint(capsys: Captured) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("rpinfs: ") for line in lines)
    return [line.removeprefix("rpinfs: ") for line in lines]


# What is changed, and what is not


def test_one_key_is_added_and_taken_out_again(pi: Pi, capsys: Captured) -> None:
    file = pi() / FILE
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 123, 456)
    before = file.stat()
    assert apply("--userns-remap=default") == 0
    assert capsys.readouterr().out.splitlines() == [
        "/etc/docker/daemon.json: userns-remap is default now; before, it was off",
        "Docker will keep its data in /var/lib/docker/100000.100000",
        "to use it, which stops the containers: systemctl restart docker",
    ]
    assert file.read_text() == NEW
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert apply("--userns-remap=default") == 0
    assert capsys.readouterr().out == "/etc/docker/daemon.json: userns-remap is default already; nothing to change\n"
    assert file.stat().st_ino == after.st_ino
    assert apply("--userns-remap=none") == 0
    assert file.read_text() == OLD
    assert os.listdir(file.parent) == ["daemon.json"]


def test_the_file_and_its_folder_are_made(pi: Pi) -> None:
    file = pi() / FILE
    file.unlink()
    file.parent.rmdir()
    assert apply("--userns-remap=default") == 0
    assert file.read_text() == '{\n    "userns-remap": "default"\n}\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


@pytest.mark.parametrize("target", ["../../srv/real.json", "/srv/real.json"])
def test_a_symbolic_link_is_followed(pi: Pi, target: str) -> None:
    """An absolute one, too, means the world below RPINFS_ROOT."""
    root = pi()
    (root / FILE).unlink()
    make_tree(root, {"srv/real.json": OLD, FILE: Path(target)})
    assert apply("--userns-remap=default") == 0
    assert os.readlink(root / FILE) == target
    assert (root / "srv/real.json").read_text() == NEW


def test_a_circle_of_links(pi: Pi, capsys: Captured) -> None:
    root = pi()
    (root / FILE).unlink()
    make_tree(root, {FILE: Path("daemon.json")})
    assert apply("--userns-remap=default") == 1
    assert complaint(capsys) == ["/etc/docker/daemon.json: expected a file, found a circle of symbolic links"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "a": 1\n  "b": 2\n}\n', "/etc/docker/daemon.json:3: expected JSON: Expecting ',' delimiter (column 3)"),
        (
            "{\n  // no\n}",
            "/etc/docker/daemon.json:2: expected JSON: Expecting property name",
        ),
        ("[]", "/etc/docker/daemon.json:1: expected an object in braces, found []"),
        ('{"a": NaN}', "/etc/docker/daemon.json: expected JSON: NaN is no JSON"),
        (b'{"a": "\xff"}', "/etc/docker/daemon.json: expected text in UTF-8: invalid start byte"),
        ('{"userns-remap": 1}', "/etc/docker/daemon.json: userns-remap: expected text, found 1"),
    ],
)
@pytest.mark.parametrize("words", ["apply --userns-remap=default", "show"])
def test_a_wrong_file_is_left_as_it_is(pi: Pi, capsys: Captured, text: Content, message: str, words: str) -> None:
    file = make_tree(pi(), {FILE: text}) / FILE
    before = file.read_bytes()
    assert cli.main(["docker", *words.split()]) == 2
    assert complaint(capsys)[0].startswith(message)
    assert file.read_bytes() == before


def test_a_byte_order_mark_stays(pi: Pi) -> None:
    """Docker takes it, from 23 on."""
    file = make_tree(pi(), {FILE: "\ufeff" + OLD}) / FILE
    assert apply("--userns-remap=default") == 0
    assert file.read_text() == "\ufeff" + NEW


# What Docker would refuse


@pytest.mark.parametrize(
    ("version", "files", "message"),
    [
        ("26.1.5", {"etc/subuid": "dockremap:100000:100\n"}, "/etc/subuid:1: dockremap has 100 numbers"),
        ("26.1.5", {"etc/subgid": "a:1:200000\ndockremap:100000:65536\n"}, "/etc/subgid:2: the range of dockremap"),
        ("29.0.0", {FILE: '{"features": {"containerd-snapshotter": true}}'}, "Docker 29.0 does not start with both"),
        ("29.0.0", {FILE: '{"storage-driver": "overlayfs"}'}, "Docker 29.0 has no storage driver overlayfs"),
        (
            "26.1.5",
            {
                "usr/lib/systemd/system/docker.service": "[Service]\nEnvironmentFile=-/etc/default/docker\n"
                "ExecStart=/usr/sbin/dockerd $DOCKER_OPTS\n",
                "etc/default/docker": 'DOCKER_OPTS="--iptables=false --userns-remap=pi"\n',
                "etc/passwd": "pi:x:1000:1000:::\n", "etc/group": "pi:x:1000:\n",
                "etc/subuid": "pi:100000:65536\n", "etc/subgid": "pi:100000:65536\n",
            },
            "userns-remap is given in /etc/docker/daemon.json:4 and as an option (--userns-remap in /etc/default",
        ),
    ],
)  # fmt: skip
def test_what_docker_would_not_start_with(
    pi: Pi, capsys: Captured, version: str, files: dict[str, Content], message: str
) -> None:
    file = make_tree(pi(version), files) / FILE
    before = file.read_text()
    assert apply("--userns-remap=default", "--yes") == 1
    assert complaint(capsys)[0].startswith(message)
    assert file.read_text() == before


def test_docker_is_not_installed(pi: Pi, capsys: Captured) -> None:
    make_tree(pi(), {"var/lib/dpkg/status": status_of("1", "docker-doc")})
    for words in ("apply --userns-remap=default", "show"):
        assert cli.main(["docker", *words.split()]) == 1
        assert complaint(capsys) == ["Docker is not installed", "apt install docker.io"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo Docker version 26.1.5+dfsg1, build a72d7cd", "26.1.5+dfsg1"),
        ("echo Docker 26", "dockerd --version: expected a version, found Docker 26"),
        ("true", "dockerd --version: expected a version, found nothing"),
        ("echo libdevmapper not found >&2; exit 127", "dockerd --version: exit status 127: libdevmapper not found"),
        ("", "Docker is not installed"),
    ],
)
def test_the_version_of_the_docker_that_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    """What went wrong is said: only a dockerd that is nowhere is not installed."""
    monkeypatch.setattr(running, "PATH", str(tmp_path))
    monkeypatch.setattr(running, "ENVIRONMENT", {"PATH": str(tmp_path)})
    if script:
        (tmp_path / "dockerd").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "dockerd").chmod(0o755)
    try:
        found = settings._version("")
    except RpinfsError as error:
        found = error.message
    assert found == said


def test_options_of_drop_ins_count(pi: Pi, capsys: Captured) -> None:
    """The last ExecStart= does; --config-file= says where the settings are."""
    make_tree(pi(), {
        "lib/systemd/system/docker.service": "[Service]\nExecStart=/usr/sbin/dockerd --data-root=/no $DOCKER_OPTS\n",
        "etc/default/docker": "DOCKER_OPTS='-g /no'\n",
        "etc/systemd/system/docker.service.d/10.conf":
            "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd \\\n  --data-root /srv/d --config-file=/etc/d.json\n",
        "etc/d.json": "{}\n",
    })  # fmt: skip
    assert cli.main(["docker", "show"]) == 1
    out = capsys.readouterr().out
    assert "/srv/d, on no image" in out
    assert "# --data-root in /etc/systemd/system/docker.service.d/10.conf" in out
    assert apply("--userns-remap=default", "--yes") == 0
    assert "/etc/d.json: userns-remap is default now" in capsys.readouterr().out


# Wherever it is said

DOCKERD = "[Service]\nType=notify\nExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock"
UNIT, DROP_IN = "usr/lib/systemd/system/docker.service", "docker.service.d/x.conf"


def shown(capsys: Captured, status: int = 1) -> dict[str, Any]:
    assert cli.main(["docker", "show", "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    ("files", "origin"),
    [
        ({FILE: '{\n  "debug": true,\n  "data-root": "/mnt/x"\n}'}, "/etc/docker/daemon.json:3"),
        ({f"usr/lib/systemd/system/{DROP_IN}": "[Service]\nEnvironment='A=--data-root /mnt/x'\n",
          UNIT: f"{DOCKERD} $A\n"}, f"--data-root in /usr/lib/systemd/system/{DROP_IN}:2"),
        ({f"run/systemd/system/{DROP_IN}": "[Service]\nExecStart=\nExecStart=dockerd --data-root=/mnt/x\n",
          UNIT: f"{DOCKERD}\n"}, f"--data-root in /run/systemd/system/{DROP_IN}:3"),
        ({f"etc/systemd/system/{DROP_IN}": "[Service]\nEnvironmentFile=-/etc/sysconfig/docker\n",
          UNIT: f"{DOCKERD} $OPTIONS\n", "etc/sysconfig/docker": "# x\nOPTIONS='-D --data-root \"/mnt/x\"'\n"},
         "--data-root in /etc/sysconfig/docker:2"),
        ({UNIT: f"{DOCKERD} --data-root=${{ROOT}}\nEnvironment=ROOT=/mnt/x\n"}, "--data-root in"),
        ({UNIT: f"{DOCKERD} --config-file=/etc/d.json\n", "etc/d.json": '{"data-root": "/mnt/x"}'}, "/etc/d.json:1"),
        ({UNIT: f"{DOCKERD} --data-root mnt/x\n"}, "--data-root in"),
        ({UNIT: f"{DOCKERD} $X\n", "proc/cmdline": f"{CMDLINE} systemd.setenv=X=--data-root=/mnt/x\n"},
         "--data-root in systemd.setenv= on the kernel command line"),
    ],
)  # fmt: skip
def test_the_data_root_wherever_it_is_said(pi: Pi, capsys: Captured, files: dict[str, Content], origin: str) -> None:
    make_tree(pi(), files)
    found = shown(capsys)
    assert (found["data_root"]["value"], found["data_root"]["image"]) == ("/mnt/x", None)
    assert found["data_root"]["origin"].startswith(origin)
    slow, outside = (one["message"] for one in found["problems"])
    assert slow == "Docker stores with vfs, slow and large: /mnt/x is on nfs4, where overlay does not work"
    assert outside == f"Docker's data root /mnt/x is on no image ({found['data_root']['origin']})"


@pytest.mark.parametrize("version", ["20.10.24+dfsg1-1+deb12u1", "26.1.5"])
def test_the_old_name_of_the_data_root(pi: Pi, capsys: Captured, version: str) -> None:
    make_tree(pi(version), {FILE: '{"graph": "/mnt/x"}'})
    found = shown(capsys)
    if version.startswith("20"):
        assert found["data_root"]["value"] == "/mnt/x"
        return
    assert found["problems"] == [
        {
            "message": "/etc/docker/daemon.json:1: graph is no setting of this version: Docker 26.1 does not start so",
            "remedy": 'write "data-root" instead',
            "fatal": True,
        }
    ]


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        (
            "[Service]\nExecStart=/usr/local/bin/start-docker -H fd://\n",
            f"/{UNIT}:2 starts /usr/local/bin/start-docker",
        ),
        ("[Service]\nExecStart=/bin/sh -c 'exec dockerd --data-root=$X'\n", f"/{UNIT}:2 starts /bin/sh"),
        ("[Service]\nExecStart=/usr/sbin/dockerd --data-root=/mnt/%b\n", f"/{UNIT}:2: %b"),
        ("[Service]\nRootDirectory=/srv/root\nExecStart=/usr/sbin/dockerd\n", f"/{UNIT}:3: RootDirectory= gives it"),
    ],
)
def test_what_cannot_be_told_is_said_and_no_default_shown(pi: Pi, capsys: Captured, unit: str, reason: str) -> None:
    root = make_tree(pi(), {UNIT: unit})
    found = shown(capsys)
    assert (found["data_root"]["value"], found["driver"]["value"], found["root"]) == (None, None, None)
    assert found["data_root"]["origin"].startswith(f"cannot be told: {reason}")
    assert found["problems"][0]["message"].startswith(f"it cannot be told with which settings Docker starts: {reason}")
    assert cli.main(["docker", "show"]) == 1
    text = capsys.readouterr().out
    assert "default of Docker" not in text
    assert "Data root     cannot be told" in text
    assert apply("--userns-remap=default") == 1
    assert complaint(capsys)[0].startswith("it cannot be told with which settings Docker starts")
    assert (root / FILE).read_text() == OLD


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"etc/systemd/system/docker.service": Path("/dev/null"), UNIT: DOCKERD},
         "/etc/systemd/system/docker.service: docker.service is masked"),
        ({UNIT: f"{DOCKERD}\n", f"etc/systemd/system/{DROP_IN}": "[Service]\nExecStart=/usr/sbin/dockerd -D\n"},
         f"/etc/systemd/system/{DROP_IN}:2: a second ExecStart="),
        ({UNIT: f"{DOCKERD}\nEnvironmentFile=/etc/no\n"}, f"/{UNIT}:4: EnvironmentFile=/etc/no is not there"),
        ({UNIT: f"{DOCKERD} --bogus\n"}, f"option --bogus (/{UNIT}:3) is unknown"),
        ({UNIT: f"{DOCKERD} --config-file /etc/no\n"}, f"/etc/no is not there, which --config-file in /{UNIT}:3 names"),
        ({UNIT: f"{DOCKERD}\n", FILE: '{\n"hosts": ["fd://"]}'},
         f"hosts is given in /etc/docker/daemon.json:2 and as an option (-H in /{UNIT}:3)"),
    ],
)  # fmt: skip
def test_what_keeps_docker_from_starting_is_said(
    pi: Pi, capsys: Captured, files: dict[str, Content], message: str
) -> None:
    make_tree(pi(), files)
    found = shown(capsys)["problems"]
    assert [one["message"] for one in found] == [f"{message}{found[0]['message'].removeprefix(message)}"]
    assert found[0]["message"].endswith(": Docker 26.1 does not start so")
    assert found[0]["fatal"]
    assert found[0]["remedy"]


def test_the_driver_by_a_variable(pi: Pi, capsys: Captured) -> None:
    make_tree(pi(), {UNIT: f"{DOCKERD}\nEnvironment=DOCKER_DRIVER=vfs\n", FILE: '{"storage-driver": "overlay2"}'})
    assert shown(capsys)["driver"] == {"value": "vfs", "origin": f"DOCKER_DRIVER in /{UNIT}:4"}


def test_no_image_for_docker(pi: Pi, capsys: Captured) -> None:
    """Switched off, or another image alone: Docker would write to the NFS root."""
    root = pi()
    make_tree(root, {"etc/rpinfs/rpinfs.conf": "[Image docker]\nEnabled=no\n"})
    problem = shown(capsys)["problems"][-1]
    assert problem["message"] == "Docker's data root /var/lib/docker is on no image (default of Docker 26.1)"
    assert "Enabled=no" in problem["remedy"]
    make_tree(root, {"etc/rpinfs/rpinfs.conf": "[Image docker]\nEnabled=no\n[Image db]\nWhere=/srv/db\n"})
    problem = shown(capsys)["problems"][-1]
    assert problem["message"] == "Docker's data root /var/lib/docker is on no image (default of Docker 26.1)"
    assert "Enabled=no" in problem["remedy"]


def test_symbolic_links_lead_elsewhere(pi: Pi, capsys: Captured) -> None:
    root = pi()
    make_tree(root, {FILE: '{"data-root": "/srv/docker"}', "srv/docker": Path("/var/lib/docker/data")})
    assert shown(capsys, 0)["data_root"]["image"] == "docker"
    make_tree(root, {FILE: "{}", "var/lib/docker": Path("/mnt/ssd")})
    problem = shown(capsys)["problems"][-1]
    assert problem["message"].startswith(
        "Docker's data root /var/lib/docker, a symbolic link to /mnt/ssd, is on no image"
    )


CTD = "usr/lib/systemd/system/containerd.service"
TOML = "etc/containerd/config.toml"


@pytest.mark.parametrize(
    ("files", "value", "origin"),
    [
        ({CTD: "[Service]\nExecStart=/usr/bin/containerd\n"}, "/var/lib/containerd", "default of containerd"),
        ({TOML: "version = 2\nroot = '/mnt/c'\n"}, "/mnt/c", "/etc/containerd/config.toml:2"),
        ({CTD: "[Service]\nExecStart=/usr/bin/containerd --root /mnt/c\n", TOML: "root = '/mnt/d'\n"}, "/mnt/c",
         f"--root in /{CTD}:2"),
        ({CTD: "[Service]\nExecStart=/usr/bin/containerd -c /etc/c.toml\n", "etc/c.toml": 'root = "/mnt/c"\n'},
         "/mnt/c", "/etc/c.toml:1"),
        ({CTD: "[Service]\nExecStart=/opt/wrap containerd\n"}, None, f"cannot be told: /{CTD}:2 starts /opt/wrap"),
        ({UNIT: "[Service]\nExecStart=dockerd --containerd=/run/k3s/containerd/containerd.sock\n"}, None,
         "cannot be told: dockerd is given another containerd"),
        ({UNIT: "[Service]\nExecStart=dockerd --data-root=/mnt/d\n"}, "/mnt/d/containerd/daemon",
         "default of the containerd that dockerd starts"),
    ],
)  # fmt: skip
def test_the_folder_of_containerd(
    pi: Pi, capsys: Captured, files: dict[str, Content], value: str | None, origin: str
) -> None:
    make_tree(pi("29.0.0"), files)
    assert cli.main(["docker", "show", "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)["containerd_root"]
    assert found["value"] == value
    assert found["origin"].startswith(origin)


# What becomes invisible


def test_nothing_becomes_invisible_without_consent(pi: Pi, capsys: Captured) -> None:
    file = pi(**{DATA.replace("/", "__"): "{}", "var__lib__docker__volumes__db___data": None}) / FILE
    assert apply("--userns-remap=default") == 1
    error, remedy = complaint(capsys)
    assert error == (
        "not changed: Docker will not see 1 image, 1 volume in /var/lib/docker, for its data will be in"
        " /var/lib/docker/100000.100000"
    )
    assert remedy == ("nothing is deleted; if that is what you want: rpinfs docker apply --userns-remap=default --yes")
    assert file.read_text() == OLD
    assert apply("--userns-remap=default", "--yes") == 0
    assert complaint(capsys)[0].startswith("warning: Docker will not see 1 image, 1 volume in /var/lib/docker")
    assert file.read_text() == NEW


def test_nor_on_the_way_back(pi: Pi, capsys: Captured) -> None:
    root = pi(**{FILE.replace("/", "__"): NEW, "var__lib__docker__100000.100000__containers__c1": None})
    assert apply("--userns-remap=none") == 1
    assert complaint(capsys)[0] == (
        "not changed: Docker will not see 1 container in /var/lib/docker/100000.100000, for its data will be in"
        " /var/lib/docker"
    )
    assert (root / FILE).read_text() == NEW


def test_what_containerd_has_not_unpacked_counts_too(pi: Pi, capsys: Captured) -> None:
    """After `docker import` there are only blobs: these were hidden without a word."""
    blobs = "var__lib__containerd__io.containerd.content.v1.content__blobs__sha256"
    pi("5:29.0.1-1~debian.13~trixie", **{f"{blobs}__{name}": "" for name in "abc"})
    assert apply("--userns-remap=default") == 1
    assert complaint(capsys)[0].startswith("not changed: Docker will not see 3 blobs in /var/lib/containerd, for")


def test_from_29_on_the_image_store_changes_too(pi: Pi, capsys: Captured) -> None:
    layers = "var__lib__containerd__io.containerd.snapshotter.v1.overlayfs__snapshots"
    pi("5:29.0.1-1~debian.13~trixie", **{f"{layers}__1": None, f"{layers}__2": None})
    assert apply("--userns-remap=default") == 1
    assert complaint(capsys)[0] == (
        "not changed: Docker will not see 2 layers in /var/lib/containerd, for its data will be in"
        " /var/lib/docker/100000.100000, with the storage driver overlay2 in place of containerd"
    )


def test_what_cannot_be_seen_counts_as_something(pi: Pi, capsys: Captured) -> None:
    """The image is not mounted: the folder below it is not what Docker has."""
    root = pi()
    make_tree(root, {"proc/self/mountinfo": ""})
    assert apply("--userns-remap=default") == 1
    assert complaint(capsys)[0].startswith(
        "not changed: Docker will not see whatever is in /var/lib/docker, which cannot be looked at now"
    )


@pytest.mark.parametrize(("answer", "status", "text"), [("y", 0, NEW), ("n", 1, OLD), ("", 1, OLD)])
def test_on_a_terminal_it_asks(pi: Pi, installed: Installed, answer: str, status: int, text: str) -> None:
    root = pi(**{DATA.replace("/", "__"): "{}"})
    words = f"{installed.rpinfs} docker apply --userns-remap=default"
    done = subprocess.run(
        ["script", "-qec", words, "/dev/null"],
        input=f"{answer}\n",
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "RPINFS_ROOT": str(root)},
    )
    assert "Go on? [y/N] " in done.stdout
    assert (done.returncode, (root / FILE).read_text()) == (status, text), done.stdout


# Cut off, and failing, at every call

ATTEMPT = """
import os, sys
sys.path.insert(0, {top!r})
from rpinfs.system import replace
replace.os.urandom = bytes
try:
    replace.replace_file({path!r}, {content!r}, lambda temporary: None)
except OSError as error:
    sys.stderr.write(str(error))
    sys.exit(3)
"""


def attempt(file: Path) -> tuple[str, list[Path]]:
    """The code, and the paths that it touches."""
    temporary = file.parent / f".{file.name}{replace._TEMPORARY}{bytes(8).hex()}"
    code = ATTEMPT.format(top=str(TOP), path=str(file), content=NEW.encode())
    return code, [file, file.parent, temporary]


def points_of(traced: Traced, file: Path) -> list[str]:
    """Every system call that touches one of them."""
    code, paths = attempt(file)
    ended = traced(code, paths)
    assert (ended.returncode, ended.stderr, file.read_text()) == (0, "", NEW)
    return ended.points


@pytest.mark.parametrize("there", [True, False], ids=["a file", "no file"])
@pytest.mark.crash
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "failing"])
def test_old_or_new_and_whole(tmp_path: Path, traced: Traced, killed: bool, there: bool, tell: Tell) -> None:
    file = tmp_path / "docker" / "daemon.json"
    file.parent.mkdir()

    def begin() -> None:
        file.unlink(missing_ok=True)
        if there:
            file.write_text(OLD)

    begin()
    everything = points_of(traced, file)
    assert {"fsync:when=1", "fsync:when=2", "rename:when=1", "write:when=1"} <= set(everything)
    tried = [kill_at(point) for point in everything] if killed else fail_at(everything, ())
    ends = set()
    for injected in tried:
        begin()
        code, paths = attempt(file)
        ended = traced(code, paths, inject=injected)
        text = file.read_text() if file.exists() else None
        assert text in ((OLD if there else None), NEW), injected
        assert "Traceback" not in ended.stderr, injected
        if ended.returncode == 0:
            assert text == NEW, injected
        ends.add(text == NEW)
        # The next run works, and leaves nothing behind.
        assert traced(code, paths).returncode == 0
        assert (file.read_text(), os.listdir(file.parent)) == (NEW, ["daemon.json"]), injected
    assert ends == {True, False}
    tell(f"daemon.json: {'killed' if killed else 'failing'} at {len(tried)} calls")


def test_somebody_else_was_faster(pi: Pi) -> None:
    root = pi()
    host = Host.read(str(root))
    planned = change.plan(settings.read(host, examine(host)[0].images), "default")
    (root / FILE).write_text("{}")
    with pytest.raises(RpinfsError, match="was changed by somebody else meanwhile"):
        change.apply(planned)
    assert ((root / FILE).read_text(), os.listdir((root / FILE).parent)) == ("{}", ["daemon.json"])


# With the Docker of each Debian


@pytest.fixture(params=EACH_RELEASE)
def docker_root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chroot]:
    with debian(request.param, tmp_path) as root:
        yield root


VALIDATES = tuple(f"Docker {release.docker}" for release in RELEASES.values() if not release.docker.startswith("20."))


@pytest.mark.root
def test_real_docker_takes_what_is_written(docker_root: Chroot) -> None:
    """Docker's own program makes dockremap and its ranges, as we foretold; all is undone again."""
    shown = docker_root.run("rpinfs", "docker", "show", ok=(0, 1)).stdout
    assert shown.startswith(tuple(f"Docker {release.docker}" for release in RELEASES.values()))
    done = docker_root.run("rpinfs", "docker", "apply", "--userns-remap=default", "--yes")
    assert "Docker will keep its data in /var/lib/docker/100000.100000" in done.stdout
    if shown.startswith(VALIDATES):
        ranges = docker_root.path("/etc/subuid").read_text() + docker_root.path("/etc/subgid").read_text()
        assert ranges.split() == ["dockremap:100000:65536"] * 2
        docker_root.run("dockerd", "--validate")
        assert "100000.100000" in docker_root.run("rpinfs", "docker", "show", ok=(0, 1)).stdout
    docker_root.run("rpinfs", "docker", "apply", "--userns-remap=none", "--yes")
    assert docker_root.path("/etc/docker/daemon.json").read_text() == "{}\n"


@pytest.mark.root
def test_whether_dockerd_can_validate(docker_root: Chroot) -> None:
    shown = docker_root.run("rpinfs", "docker", "show", ok=(0, 1)).stdout
    assert ("--validate" in docker_root.run("dockerd", "--help").stdout) is shown.startswith(VALIDATES)


@pytest.mark.root
def test_what_real_docker_refuses_is_not_written(tmp_path: Path) -> None:
    with debian("trixie", tmp_path) as root:
        file = root.path("/etc/docker/daemon.json")
        file.write_text('{"bogus": 1}\n')
        done = root.run("rpinfs", "docker", "apply", "--userns-remap=default", "--yes", ok=(2,))
        assert done.stderr.splitlines()[-1] == (
            "rpinfs: /etc/docker/daemon.json is left as it was, dockerd refuses the new one: exit status 1: unable to"
            " configure the Docker daemon with file /etc/docker/daemon.json: the following directives don't match any"
            " configuration option: bogus"
        )
        assert file.read_text() == '{"bogus": 1}\n'
        assert os.listdir(file.parent) == ["daemon.json"]
