"""Where Docker and containerd will write, by all the ways to tell them, and whether that is a verified image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from rpinfs.boot.config import load
from rpinfs.boot.daemons import Told
from rpinfs.boot.gate import REFUSED, misplaced, verdict
from rpinfs.boot.host import Host
from rpinfs.docker import roots, settings
from tests.support import CMDLINE, Content, Installed, make_pi, make_tree
from tests.unit.boot.test_gate import ALL, IMAGE, SHARE, UUID, loop

ROOT = "22 1 0:20 / / rw - nfs4 192.168.1.10:/nfsroot/pi rw\n"
USB = "60 22 8:1 / /mnt/ssd rw - ext4 /dev/sda1 rw\n"
UNIT = "usr/lib/systemd/system/docker.service"
DOCKER: dict[str, Content] = {
    UNIT: "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n",
    f"{UNIT}.d/rpinfs.conf": "[Unit]\nRequires=rpinfs-gate.service\n",
    "usr/lib/systemd/system/containerd.service": "[Service]\nExecStart=/usr/bin/containerd\n",
    "usr/lib/systemd/system/containerd.service.d/rpinfs.conf": "[Unit]\nRequires=rpinfs-gate.service\n",
    "etc/default/docker": '# DOCKER_OPTS="--data-root /mnt/ssd"\n\n',
    "etc/containerd/config.toml": 'version = 2\n# root = "/mnt/ssd"\n[plugins]\n',
}
DIETPI = "/mnt/dietpi_userdata/docker-data"
JSON = "etc/docker/daemon.json"
TOML = "etc/containerd/config.toml"
ON_ROOT = "on no verified image: it is on / (nfs4 192.168.1.10:/nfsroot/pi)"
DROP_IN = "docker.service.d/data.conf"
UNTOLD = "it cannot be told where Docker will write:"
EXEC = "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd "


class Place(NamedTuple):
    title: str
    files: Mapping[str, Content]
    refusals: list[str]
    """A part of each."""
    config: str = ""
    mounts: str = ALL


def dpkg(version: str) -> dict[str, Content]:
    return {"var/lib/dpkg/status": "Package: docker.io\nStatus: install ok installed\nVersion: " + version + "\n\n"}


NO_DOCKER = "[Image docker]\nEnabled=no\n"
REGISTRY = "[Image registry]\nWhere=/srv/registry\nFile=r.img\n"
R_MOUNT = "61 22 7:4 / /srv/registry rw - ext4 /dev/loop4 rw\n"
NO_BIND = "[Image docker]\nBind=\n"

PLACES = [
    Place("all at its default", {}, []),
    Place("a daemon.json that moves nothing", {JSON: '{"log-driver": "local"}'}, []),
    Place("the data root of DietPi", {JSON: '{"data-root": "' + DIETPI + '"}'},
          [f"Docker's data root {DIETPI} (/etc/docker/daemon.json:1) is {ON_ROOT}"]),
    Place("graph, as 20.10 has it", {JSON: '{"graph": "/srv/docker"}'},
          ["root /srv/docker (/etc/docker/daemon.json:1)"]),
    Place("an escaped key", {JSON: '{"data\\u002droot": "/srv/docker"}'}, ["Docker's data root /srv/docker"]),
    Place("the last of two keys", {JSON: '{"data-root": "/var/lib/docker", "data-root": "/srv/d"}'}, ["root /srv/d "]),
    Place("a folder in the image", {JSON: '{"data-root": "/var/lib/docker/data/"}'}, []),
    Place("a folder on another disk", {JSON: '{"data-root": "/mnt/ssd/docker"}'}, ["is on /mnt/ssd (ext4 /dev/sda1)"]),
    Place("a folder on the share itself", {JSON: '{"data-root": "/nfs/docker/data"}'}, ["is on /nfs/docker (nfs4 "]),
    Place("a link out of the image", {JSON: '{"data-root": "/var/lib/docker/x"}', "var/lib/docker/x": Path("/srv/x")},
          ["leads to /srv/x, is on / (nfs4"]),
    Place("a link into the image", {JSON: '{"data-root": "/srv/d"}', "srv/d": Path("../var/lib/docker/d")}, []),
    Place("a circle of links", {JSON: '{"data-root": "/srv/a"}', "srv/a": Path("b"), "srv/b": Path("a")}, ["is on /"]),
    Place("a daemon.json that is none", {JSON: '{"data-root": '}, []),
    Place("an option in a drop-in", {f"etc/systemd/system/{DROP_IN}": f"{EXEC}--data-root=/srv/d\n"},
          [f"Docker's data root /srv/d (--data-root in /etc/systemd/system/{DROP_IN}:3)"]),
    Place("an option and its value", {f"run/systemd/system/{DROP_IN}": f"{EXEC}--data-root \\\n /srv/d\n"}, ["/srv/d"]),
    Place("a drop-in of a package", {f"usr/lib/systemd/system/{DROP_IN}": f"{EXEC}-g /srv/d\n"}, ["/srv/d (-g in"]),
    Place("a short option among others", {f"run/systemd/system/{DROP_IN}": f"{EXEC}-Dg/srv/d\n"}, ["/srv/d (-g in"]),
    Place("what a later drop-in takes back", {f"run/systemd/system/{DROP_IN}": f"{EXEC}-g /srv/d\n",
          "etc/systemd/system/docker.service.d/later.conf": f"{EXEC}-H fd://\n"}, []),
    Place("a drop-in of the same name", {f"run/systemd/system/{DROP_IN}": f"{EXEC}-g /srv/d\n",
          f"etc/systemd/system/{DROP_IN}": f"{EXEC}-H fd://\n"}, []),
    Place("a unit of one's own", {"etc/systemd/system/docker.service": f"{EXEC}--data-root /srv/d\n"}, ["/srv/d"]),
    Place("in a shell", {f"etc/systemd/system/{DROP_IN}": "[Service]\nExecStart=\nExecStart=/bin/sh -c "
          "'exec dockerd --data-root /srv/d'\n"}, [f"{UNTOLD} /etc/systemd/system/{DROP_IN}:3 starts /bin/sh"]),
    Place("DOCKER_OPTS", {"etc/default/docker": 'DOCKER_OPTS="--data-root /srv/d"\n'},
          ["Docker's data root /srv/d (--data-root in /etc/default/docker:1)"]),
    Place("another variable of another file", {f"etc/systemd/system/{DROP_IN}":
          "[Service]\nEnvironmentFile=/etc/mine\nExecStart=\nExecStart=/usr/sbin/dockerd $MINE\n",
          "etc/mine": "MINE='--data-root=/srv/d'\n"}, ["(--data-root in /etc/mine:1)"]),
    Place("a variable within a word", {f"etc/systemd/system/{DROP_IN}":
          '[Service]\nEnvironment="WHERE=/srv/d"\nExecStart=\nExecStart=/usr/sbin/dockerd --data-root=${WHERE}\n'},
          ["root /srv/d "]),
    Place("another daemon.json", {f"etc/systemd/system/{DROP_IN}": f"{EXEC}--config-file=/etc/d.json\n",
          "etc/d.json": '{"data-root": "/srv/d"}'}, ["root /srv/d (/etc/d.json:1)"]),
    Place("files of variables by a wildcard", {f"etc/systemd/system/{DROP_IN}":
          "[Service]\nEnvironmentFile=/etc/docker.d/*.env\n", "etc/docker.d/a.env": "DOCKER_OPTS=--data-root=/srv/d\n"},
          ["(--data-root in /etc/docker.d/a.env:1)"]),
    *(Place(f"a drop-in of all services in {folder}", {f"{folder}/service.d/a.conf":
            "[Service]\nEnvironment=DOCKER_OPTS=--data-root=/srv/d\n"}, [f"in /{folder}/service.d/a.conf:2)"])
      for folder in ("etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system")),
    *(Place(f"a drop-in in {folder}", {f"{folder}/{DROP_IN}": f"{EXEC}--data-root /srv/d\n"}, ["root /srv/d "])
      for folder in ("etc/systemd/system.control", "run/systemd/transient", "etc/systemd/system.attached")),
    Place("a comment within a continuation", {f"etc/systemd/system/{DROP_IN}":
          f"{EXEC}--debug \\\n# with more room\n --data-root=/srv/d\n"}, ["root /srv/d "]),
    Place("a drop-in of an alias", {"etc/systemd/system/docker.service": Path("moby.service"),
          "etc/systemd/system/moby.service": "[Service]\nExecStart=/usr/sbin/dockerd\n",
          "etc/systemd/system/moby.service.d/a.conf": f"{EXEC}--data-root=/srv/d\n"}, ["root /srv/d "]),
    Place("an escape", {f"etc/systemd/system/{DROP_IN}": f"{EXEC}--data-root=\\x2fsrv\\x2fd\n"}, ["root /srv/d "]),
    Place("a specifier", {f"etc/systemd/system/{DROP_IN}": f"{EXEC}--data-root=/srv/%N\n"}, ["root /srv/docker "]),
    Place("a specifier that no file tells", {f"etc/systemd/system/{DROP_IN}": f"{EXEC}--data-root=/srv/%b\n"},
          [f"{UNTOLD} /etc/systemd/system/{DROP_IN}:3: %b"]),
    Place("a variable that is taken back", {"etc/default/docker": "DOCKER_OPTS=--data-root=/srv/d\n",
          f"etc/systemd/system/{DROP_IN}": "[Service]\nUnsetEnvironment=DOCKER_OPTS\n"}, []),
    Place("no daemon.json", {f"etc/systemd/system/{DROP_IN}": f"{EXEC}--config-file=\n",
          JSON: '{"data-root": "/srv/d"}'}, []),
    Place("another daemon.json that is not there", {f"etc/systemd/system/{DROP_IN}":
          f"{EXEC}--config-file=/etc/d.json\n"},
          [f"{UNTOLD} /etc/d.json is not there"]),
    Place("no variables by the colon", {f"etc/systemd/system/{DROP_IN}": "[Service]\nEnvironment=D=/var/lib/docker\n"
          "ExecStart=\nExecStart=:/usr/sbin/dockerd --data-root=${D}\n"}, ["Docker's data root /${D} "]),
    Place("the environment of all services", {"etc/systemd/system.conf.d/a.conf":
          "[Manager]\nDefaultEnvironment=DOCKER_OPTS=--data-root=/srv/d\n"}, ["root /srv/d "]),
    Place("the kernel command line", {"proc/cmdline": CMDLINE + " systemd.setenv=DOCKER_OPTS=--data-root=/srv/d\n"},
          ["(--data-root in systemd.setenv= on the kernel command line)"]),
    Place("an option that is not known", {**dpkg("26.1.5"), f"etc/systemd/system/{DROP_IN}":
          f"{EXEC}--new -g /srv/d\n"},
          [f"{UNTOLD} option --new (/etc/systemd/system/{DROP_IN}:3) is unknown"]),
    Place("a second command", {f"etc/systemd/system/{DROP_IN}": "[Service]\nType=oneshot\n"
          "ExecStart=/usr/sbin/dockerd --data-root=/srv/d\n"}, ["a second ExecStart="]),
    Place("another root", {f"etc/systemd/system/{DROP_IN}": "[Service]\nRootDirectory=/srv\n"},
          [f"{UNTOLD} /{UNIT}:3: RootDirectory= gives it another root"]),
    *(Place(f"{value.partition('=')[0]} over {title}", {f"etc/systemd/system/{DROP_IN}": f"[Service]\n{value}\n"},
            [f"{UNTOLD} {value.partition('=')[0]}= in /etc/systemd/system/{DROP_IN}:2 puts something else at {at}"])
      for title, value, at in [
          ("the folder", "BindPaths=/srv/d:/var/lib/docker", "/var/lib/docker"),
          ("the folder, if it is there", "BindPaths=-/srv/d:/var/lib/docker:norbind", "/var/lib/docker"),
          ("a folder above", "BindReadOnlyPaths=/etc/a /srv/d:/var/lib", "/var/lib"),
          ("a folder below", '"BindPaths=/srv/d:/var/lib/docker/overlay2"'.strip('"'), "/var/lib/docker/overlay2"),
          ("all", "TemporaryFileSystem=/var:ro", "/var"),
          ("the folder, quoted", 'MountImages="/srv/d.img:/var/lib/docker:ext4"', "/var/lib/docker"),
          ("the folder, by a specifier", "BindPaths=/srv/d:%S/%p", "/var/lib/docker"),
          ("the folder, by its closing", "InaccessiblePaths=-/var/lib/docker/", "/var/lib/docker/"),
      ]),
    Place("a link to the folder, and something else at it", {f"etc/systemd/system/{DROP_IN}":
          "[Service]\nBindPaths=/srv/d:/srv/link\n", "srv/link": Path("/var/lib/docker")}, [UNTOLD]),
    Place("something else elsewhere", {f"etc/systemd/system/{DROP_IN}":
          "[Service]\nBindPaths=/var/lib/docker /srv/a:/srv/b\nTemporaryFileSystem=/mnt\nPrivateTmp=yes\n"}, []),
    Place("what is taken back", {f"etc/systemd/system/{DROP_IN}":
          "[Service]\nBindPaths=/srv/a:/var/lib/docker\nBindPaths=\nPrivateTmp=no\n"}, []),
    Place("a home of nobody's", {JSON: '{"data-root": "/home/docker"}', f"etc/systemd/system/{DROP_IN}":
          "[Service]\nProtectHome=tmpfs\n"}, [f"{UNTOLD} ProtectHome= in "]),
    Place("something else for containerd", {**dpkg("29.1"), "etc/systemd/system/containerd.service.d/a.conf":
          "[Service]\nBindPaths=/srv/c:/var/lib/containerd\n"},
          [f"{UNTOLD} BindPaths= in /etc/systemd/system/containerd.service.d/a.conf:2 puts something else at"]),
    *(Place(f"a drop-in of a link to Docker's unit in {folder}", {
            f"{folder}/moby.service": Path("/usr/lib/systemd/system/docker.service"),
            "etc/systemd/system/moby.service.d/a.conf": f"{EXEC}--data-root /srv/d\n"}, ["root /srv/d "])
      for folder in ("etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system",
                     "run/systemd/generator.late")),
    Place("a drop-in in /run of a link", {"etc/systemd/system/moby.service": Path("../../../usr/lib/systemd/system/"
          "docker.service"), "run/systemd/system/moby.service.d/a.conf": f"{EXEC}--data-root /srv/d\n"},
          ["root /srv/d "]),
    *(Place(f"of another generator in {folder}", {f"run/systemd/{folder}/{DROP_IN}": f"{EXEC}--data-root /srv/d\n",
            "run/systemd/generator/docker.service.d/50-rpinfs-mounts.conf": "[Unit]\n"}, ["root /srv/d "])
      for folder in ("generator", "generator.early", "generator.late")),
    Place("a whole unit of another generator", {"run/systemd/generator/docker.service": f"{EXEC}--data-root /srv/d\n",
          UNIT: "[Service]\n"}, ["root /srv/d "]),
    Place("system.conf", {"etc/systemd/system.conf": "[Manager]\n#DefaultEnvironment=\n DefaultEnvironment="
          "DOCKER_OPTS=--data-root=/srv/d\n"}, ["(--data-root in /etc/systemd/system.conf:3)"]),
    Place("system.conf in /run", {"run/systemd/system.conf": "[Manager]\nDefaultEnvironment=DOCKER_OPTS=-g/srv/d\n"},
          ["root /srv/d "]),
    Place("the unit of the package, changed in place", {UNIT: "[Service]\nExecStart=/usr/bin/dockerd -H fd:// \\\n"
          " --data-root /srv/d\n"}, ["root /srv/d "]),
    Place("likewise, with a view of its own", {UNIT: "[Service]\nExecStart=/usr/bin/dockerd -H fd://\nBindPaths ="
          "/srv/d:/var/lib/docker\n"}, [UNTOLD]),
    Place("Docker's own package", {UNIT: "[Service]\nExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/"
          "containerd.sock\nExecReload=/bin/kill -s HUP $MAINPID\n"}, []),
    Place("a daemon.json with bytes that are no text", {JSON: b'{"data-root": "/srv/d", "labels": ["\xff"]}'},
          [f"{UNTOLD} /etc/docker/daemon.json: expected text in UTF-8"]),
    Place("a daemon.json that ends early for some", {JSON: '{"data-root": "/srv/d"} {}'}, ["root /srv/d "]),
    Place("containerd's imports", {**dpkg("29.1"), TOML: 'imports = ["/etc/containerd/conf.d/*.toml"]\n',
          "etc/containerd/conf.d/a.toml": "root = '/srv/c'\n"}, ["root /srv/c (/etc/containerd/conf.d/a.toml:1)"]),
    Place("an escaped key of containerd's", {**dpkg("29.1"), TOML: '"r\\u006fot" = "/srv/c"\n'}, ["root /srv/c "]),
    Place("another file of containerd's", {**dpkg("29.1"), "etc/systemd/system/containerd.service.d/a.conf":
          "[Service]\nExecStart=\nExecStart=containerd -c /etc/c.toml\n", "etc/c.toml": "root = '/srv/c'\n"},
          ["root /srv/c (/etc/c.toml:1)"]),
    Place("containerd in a shell", {**dpkg("29.1"), "etc/systemd/system/containerd.service.d/a.conf":
          "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exec containerd'\n"},
          [f"{UNTOLD} /etc/systemd/system/containerd"]),
    Place("containerd in a shell, Docker 26", {**dpkg("26.1.5"), "etc/systemd/system/containerd.service.d/a.conf":
          "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exec containerd'\n"}, []),
    Place("containerd in a shell, a Docker of no package", {"etc/systemd/system/containerd.service.d/a.conf":
          "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exec containerd'\n"},
          [f"{UNTOLD} /etc/systemd/system/containerd"]),
    Place("a NUL", {JSON: '{"data-root": "/srv/\\u0000"}'}, ["embedded null"]),
    Place("containerd's TOML that is none", {**dpkg("29.1"), TOML: "root = /srv\n"},
          [f"{UNTOLD} /{TOML}: expected TOML"]),
    Place("another containerd", {**dpkg("29.1"), f"etc/systemd/system/{DROP_IN}":
          f"{EXEC}--containerd=/run/k3s/containerd/containerd.sock\n"},
          [f"{UNTOLD} dockerd is given another containerd"]),
    *(Place(f"another containerd in daemon.json, {version}", {**dpkg(version),
            JSON: '{"containerd": "/run/other/containerd.sock"' + feature + "}"},
            [f"{UNTOLD} dockerd is given another containerd (/etc/docker/daemon.json:1)"])
      for version, feature in (("29.1", ""), ("26.1.5", ', "features": {"containerd-snapshotter": true}'))),
    Place("containerd's own socket in daemon.json", {**dpkg("29.1"),
          JSON: '{"containerd": "/run/containerd/containerd.sock"}'}, []),
    Place("a containerd of Docker's own", {**dpkg("29.1"), "etc/systemd/system/containerd.service": Path("/dev/null"),
          TOML: 'root = "/srv/c"\n'}, []),
    Place("containerd elsewhere, a Docker of no package", {TOML: 'root = "/srv/c"\n'}, ["containerd's root /srv/c"]),
    Place("containerd elsewhere, another Docker than the package's", {**dpkg("26.1.5"), TOML: 'root = "/srv/c"\n',
          f"etc/systemd/system/{DROP_IN}": "[Service]\nExecStart=\nExecStart=/opt/docker/dockerd\n"},
          ["containerd's root /srv/c"]),
    Place("containerd elsewhere, Docker 26", {**dpkg("26.1.5+dfsg1-9"), TOML: 'root = "/srv/c"\n'}, []),
    Place("containerd elsewhere, Docker 29", {**dpkg("5:29.0.1-1"), TOML: 'root = "/srv/c"\n'},
          ["containerd's root /srv/c (/etc/containerd/config.toml:1), where images are kept, is on no verified"]),
    Place("containerd elsewhere, by its command line", {**dpkg("5:29.0.1-1"),
          "etc/systemd/system/containerd.service.d/a.conf":
          "[Service]\nExecStart=\nExecStart=containerd --root /srv/c\n"},
          ["containerd's root /srv/c (--root in /etc/systemd/system/containerd.service.d/a.conf:3)"]),
    Place("containerd elsewhere, asked for", {**dpkg("26.1.5"), JSON: '{"features": {"containerd-snapshotter": true}}',
          TOML: "root = '/srv/c'\n"}, ["containerd's root /srv/c"]),
    Place("no bind mount, Docker 26", dpkg("26.1.5"), [], NO_BIND, SHARE + IMAGE),
    Place("no bind mount, Docker 29", dpkg("29.1"),
          ["containerd's root /var/lib/containerd (the default of containerd)"], NO_BIND, SHARE + IMAGE),
    Place("no bind mount, Docker 29 with layers of before", {**dpkg("29.1"), "var/lib/docker/overlay2/l": None}, [],
          NO_BIND, SHARE + IMAGE),
    Place("no bind mount, Docker 29 with userns-remap", {**dpkg("29.1"), JSON: '{"userns-remap": "default"}'}, [],
          NO_BIND, SHARE + IMAGE),
    Place("the image docker out of use", {}, [
          (f"Docker's data root /var/lib/docker (the default of Docker) is {ON_ROOT}, and [Image docker] is not in use,"
          " by Enabled=no (/etc/rpinfs/rpinfs.conf:2)"), "containerd's root /var/lib/containerd"], NO_DOCKER, SHARE),
    Place("out of use, and another image has Docker's data",
          {**dpkg("26.1.5"), JSON: '{"data-root": "/srv/registry/d"}'}, [], NO_DOCKER + REGISTRY, SHARE + R_MOUNT),
    Place("out of use, and Docker is masked", {"etc/systemd/system/docker.service": Path("/dev/null"),
          "etc/systemd/system/containerd.service": Path("/dev/null")}, [], NO_DOCKER, SHARE),
    Place("Docker's folder is a link to the image's", {"var/lib/docker": Path("/srv/docker"), **dpkg("26.1.5")}, [],
          "[Image docker]\nWhere=/srv/docker\nBind=\n", SHARE + IMAGE.replace("/var/lib/docker", "/srv/docker")),
    Place("the image elsewhere, and Docker does not know", dpkg("26.1.5"), [(f"Docker's data root /var/lib/docker (the"
          f" default of Docker) is {ON_ROOT}")],
          "[Image docker]\nWhere=/srv/docker\nBind=\n", SHARE + IMAGE.replace("/var/lib/docker", "/srv/docker")),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=[place.title for place in PLACES])
def test_where_docker_will_write(root: Path, place: Place) -> None:
    """Promise 3: an image is mounted, and Docker with these settings does not write to it."""
    files = {**DOCKER, **loop(), **loop(4, "/nfs/docker/r.img"), "run/rpinfs/registry.uuid": UUID + "\n"}
    # What is masked lies over what is installed.
    make_pi(root, place.config, {**files, **place.files})
    make_tree(root, {"proc/self/mountinfo": ROOT + USB + place.mounts})
    host = Host.read(str(root))
    config = load(host)
    assert verdict(config, host) == []
    found = misplaced(config, host, roots.read)
    assert len(found) == len(place.refusals)
    for refusal, expected in zip(found, place.refusals, strict=True):
        assert expected in refusal.message
        assert refusal.remedy


@pytest.mark.parametrize(
    ("files", "is_asked"),
    [
        ({}, False),
        ({JSON: '{"log-driver": "local"}', "proc/cmdline": CMDLINE + " systemd.unit=rescue.target"}, False),
        ({JSON: '{"data-root": "/var/lib/docker"}'}, True),
        ({JSON: '{"graph": "/var/lib/docker"}'}, True),
        ({JSON: '{"d\\u0061ta": 1}'}, True),
        ({"etc/default/docker": "DOCKER_OPTS=-D\n"}, True),
        ({TOML: 'root="/var/lib/containerd"\n'}, True),
        ({TOML: "'imports' = []\n"}, True),
        ({TOML: '# r\\u006fot = "/x"\n'}, False),
        ({"proc/cmdline": CMDLINE + " systemd.setenv=A=b"}, True),
        *(({f"{folder}/{name}": None}, True) for name in ("docker.service", "containerd.service", "service.d")
          for folder in ("etc/systemd/system", "run/systemd/system", "run/systemd/transient")),
        ({"run/systemd/generator/service.d": None}, True),
        ({"run/systemd/generator/docker.service.d": None}, False),
        ({"usr/lib/systemd/system/service.d": None}, True),
        ({"etc/systemd/system/containerd.service.d": None}, True),
        ({f"usr/lib/systemd/system/{DROP_IN}": ""}, True),
        ({"usr/lib/systemd/system/containerd.service.d/a.conf": ""}, True),
        *(({f"{folder}/a.conf": "[Manager]\nDefaultEnvironment=A=b\n"}, True) for folder in (
            "etc/systemd/system.conf.d", "run/systemd/system.conf.d", "usr/lib/systemd/system.conf.d")),
        ({"usr/lib/systemd/system.conf.d/a.conf": "[Manager]\nRuntimeWatchdogSec=60\n"}, False),
        ({"lib": Path("usr/lib")}, False),
        ({"etc/systemd/system/systemd-udevd.service": Path("/dev/null"),
          "usr/lib/systemd/system/systemd-udevd.service.d/a.conf": "[Service]\n"}, False),
        ({"usr/lib/systemd/system/user@.service.d/a.conf": "[Service]\n",
          "usr/lib/systemd/system/user@.service": "[Service]\n"}, False),
    ],
)  # fmt: skip
def test_where_all_is_at_its_default_nobody_is_asked(root: Path, files: Mapping[str, Content], is_asked: bool) -> None:
    """Each question is a file on the NAS; and none is left out where anything may have moved a folder."""
    make_pi(root, "", {**DOCKER, **loop(), "proc/self/mountinfo": ROOT + ALL})
    make_tree(root, files)
    host = Host.read(str(root))
    asked: list[Host] = []

    def nothing(host: Host) -> list[Told]:
        asked.append(host)
        return []

    assert misplaced(load(host), host, nothing) == []
    assert bool(asked) is is_asked


def test_a_drop_in_of_the_one_that_is_installed(root: Path) -> None:
    """containerd.service is another package, which need not be there."""
    make_pi(root, "", {**loop(), "proc/self/mountinfo": ROOT + ALL, UNIT: DOCKER[UNIT]})
    host = Host.read(str(make_tree(root, {f"usr/lib/systemd/system/{DROP_IN}": f"{EXEC}-g /srv/d\n"})))
    assert [error.message.partition(" (")[0] for error in misplaced(load(host), host, roots.read)] == [
        "Docker's data root /srv/d"
    ]


def test_the_gate_refuses_what_is_misplaced(root: Path, installed: Installed) -> None:
    make_pi(root, "", {**DOCKER, **loop(), JSON: '{"data-root": "' + DIETPI + '"}'})
    make_tree(root, {"proc/self/mountinfo": ROOT + ALL})
    done = installed.run(installed.rpinfs, "gate", root=root)
    assert done.returncode == REFUSED
    assert done.stderr == (
        f"rpinfs: Docker's data root {DIETPI} (/etc/docker/daemon.json:1) is {ON_ROOT}\n"
        f"rpinfs: set Where={DIETPI} of an image in rpinfs.conf and reboot; or take it out of there, then:"
        " systemctl restart docker\n"
    )


def test_where_docker_is_not_installed_its_folder_holds_nobody_back(root: Path) -> None:
    """Podman's image alone: the gate is its gate, too."""
    make_pi(root, NO_DOCKER, loop())
    make_tree(root, {"proc/self/mountinfo": ROOT + SHARE})
    host = Host.read(str(root))
    assert misplaced(load(host), host, roots.read) == []


def test_a_pipe_in_place_of_a_file_holds_the_gate_up_for_a_limited_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate has a minute; then Docker would be told nothing but a time-out."""
    drop_in = f"{EXEC}--config-file=/etc/pipe.json\n"
    make_pi(root, "", {**DOCKER, **loop(), f"etc/systemd/system/{DROP_IN}": drop_in})
    make_tree(root, {"proc/self/mountinfo": ROOT + ALL})
    os.mkfifo(root / "etc/pipe.json")
    monkeypatch.setattr(roots, "_SECONDS", 0.5)
    host = Host.read(str(root))
    (refusal,) = misplaced(load(host), host, roots.soon)
    assert refusal.message == f"{UNTOLD} no answer within 0.5 s"
    assert refusal.remedy == "rpinfs docker show"


def test_no_program_is_started_for_it(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """dockerd --version is 75 MB from a cold NAS."""
    make_pi(root, "", {**DOCKER, **loop(), JSON: '{"data-root": "/srv/d"}'})
    monkeypatch.setattr(settings, "run", None)
    assert [told.path for told in roots.read(Host.read(str(root)))] == ["/srv/d", "/var/lib/containerd"]


def test_what_cannot_be_read_is_no_answer_to_who_is_not_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pi(root, NO_BIND, {**DOCKER, **loop()})
    make_tree(root, {"proc/self/mountinfo": ROOT + SHARE + IMAGE})
    host = Host.read(str(root))

    def unreadable(_: Host) -> list[Told]:
        raise PermissionError(13, "Permission denied", JSON)

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionError):
        misplaced(load(host), host, unreadable)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert [error.message for error in misplaced(load(host), host, unreadable)] == [
        f"{UNTOLD} {JSON}: Permission denied"
    ]
