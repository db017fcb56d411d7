"""The gate: every mount that the config wants is really the right image, or a sentence says what is not so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from rpinfs.boot.config import examine, load
from rpinfs.boot.gate import REFUSED, Verified, verdict
from rpinfs.boot.host import Host
from tests.support import DOCKER_FILE, Content, Installed, make_pi, make_tree

SHARE = "40 22 0:40 / /nfs/docker rw,noatime shared:9 - nfs4 192.168.1.10:/docker rw,vers=4.1,hard,addr=192.168.1.10\n"
IMAGE = "41 22 7:3 / /var/lib/docker rw,noatime shared:10 - ext4 /dev/loop3 rw\n"
BIND = "42 22 7:3 /.rpinfs/var-lib-containerd /var/lib/containerd rw,noatime shared:10 - ext4 /dev/loop3 rw\n"
ALL = SHARE + IMAGE + BIND
FILE = f"/nfs/docker/{DOCKER_FILE}"
RESTART = "find out who mounted it, unmount it, then: systemctl restart rpinfs-agent; rpinfs status"
START_BIND = "systemctl start var-lib-containerd.mount"


UUID = "6d1e4b0c-39f2-4c5e-9d0a-0c1b2a3f4e5d"


def ext4(uuid: str = UUID) -> bytes:
    """The first blocks of a device, as far as the gate looks at them."""
    data = bytearray(4096)
    data[1024 + 0x38 : 1024 + 0x3A] = b"\x53\xef"
    data[1024 + 0x68 : 1024 + 0x78] = bytes.fromhex(uuid.replace("-", ""))
    return bytes(data)


def xfs(uuid: str = UUID) -> bytes:
    return (b"XFSB".ljust(32, b"\0") + bytes.fromhex(uuid.replace("-", ""))).ljust(4096, b"\0")


def loop(
    number: int = 3, backing_file: str = FILE, offset: int = 0, content: bytes | None = None, errors: int = 0
) -> dict[str, Content]:
    folder = f"sys/dev/block/7:{number}"
    return {
        f"{folder}/loop/backing_file": backing_file + "\n",
        f"{folder}/loop/offset": f"{offset}\n",
        f"{folder}/loop/dio": "1\n",
        f"{folder}/loop/autoclear": "1\n",
        f"{folder}/queue/logical_block_size": "4096\n",
        f"dev/loop{number}": ext4() if content is None else content,
        f"sys/fs/ext4/loop{number}/errors_count": f"{errors}\n",
        "run/rpinfs/docker.uuid": UUID + "\n",
        "run/rpinfs/data.uuid": UUID + "\n",
    }


def agent(message: str = "", remedy: str = "", name: str = "docker") -> dict[str, Content]:
    state = {"version": 1, "images": {name: {"state": "refused", "message": message, "remedy": remedy}}}
    return {"run/rpinfs/agent.json": json.dumps(state)}


def attached(
    backing_file: str = FILE, sequence: str = "945", verified: str = "945", path: str = FILE
) -> dict[str, Content]:
    """A loop device, and what the agent wrote down of the one that it attached."""
    return {
        **loop(backing_file=backing_file),
        "sys/block/loop3/diskseq": f"{sequence}\n",
        "run/rpinfs/docker.uuid": f"{UUID}\n{verified}\n{path}\n",
    }


class Case(NamedTuple):
    title: str
    mounts: str
    refusals: list[tuple[str, str | None]]
    """Message and remedy of each."""
    config: str = ""
    files: Mapping[str, Content] = loop()
    cmdline: str = ""


NOT_RUN = "rpinfs-agent.service has not run"
LINK = "leads by a symbolic link to /srv/docker, and systemd mounts on no link"
LINK_REMEDY = "[Image docker] Where=, then reboot; who goes by /var/lib/docker still gets there"
NOT_MOUNTED = "image docker is not mounted at /var/lib/docker"
MOUNT_ANEW = ("systemctl stop docker.socket var-lib-docker.mount rpinfs-agent.service; "
              "systemctl start docker.service containerd.service")  # fmt: skip
READ_ONLY = "image docker at /var/lib/docker is read-only; journalctl -k says why", MOUNT_ANEW
CHANGED = "if the configuration was changed since the boot, reboot; else find out who mounted it"
OTHER = "00000000-0000-0000-0000-000000000000"
CHANGED_UUID = ("/var/lib/docker is not the file system that rpinfs-agent.service has verified: "
                f"expected UUID {UUID}, found")  # fmt: skip
REPLACED = f"find out who changed {FILE}, then reboot"
TWO = "[Image docker]\n[Image data]\nWhere=/srv/my data\nFile=data.img\n"
DATA = "43 22 7:4 / /srv/my\\040data rw,noatime - xfs /dev/loop4 rw\n"

CASES = [
    Case("all is right", ALL, []),
    Case("the share by version 3", ALL.replace("nfs4", "nfs"), []),
    Case("nothing is mounted", "", [(f"{NOT_MOUNTED}: {NOT_RUN}", "rpinfs status")], files={}),
    Case("the mount point is a link", SHARE,
         [(f"[Image docker] Where=/var/lib/docker {LINK}", f"write /srv/docker in its place in {LINK_REMEDY}")],
         files={**agent("the mount failed", "rpinfs status"), "var/lib/docker": Path("/srv/docker")}),
    Case("a folder above it is a link", SHARE,
         [(f"[Image docker] Where=/var/lib/docker {LINK}", f"write /srv/docker in its place in {LINK_REMEDY}")],
         files={"var/lib": Path("../srv")}),
    Case("fstab's mount point may be one", SHARE, [(f"{NOT_MOUNTED}: {NOT_RUN}", "rpinfs status")],
         files={"var/lib/docker": Path("/srv/docker"), "etc/fstab": "/dev/sda1 /var/lib/docker ext4 defaults 0 2\n"}),
    Case("the agent says why", SHARE, [(f"{NOT_MOUNTED}: leased by pi-5", "rpinfs adopt docker")],
         files=agent("leased by pi-5", "rpinfs adopt docker")),
    Case("the agent says why and knows no remedy", "", [(f"{NOT_MOUNTED}: waiting for 192.168.1.10", "rpinfs status")],
         files=agent("waiting for 192.168.1.10")),
    Case("the agent speaks of another image", "", [(NOT_MOUNTED, "rpinfs status")], files=agent("x", "y", "data")),
    Case("the agent's state is torn", "", [(NOT_MOUNTED, "rpinfs status")],
         files={"run/rpinfs/agent.json": '{"images": {"do'}),
    Case("the agent's state is no object", "", [(NOT_MOUNTED, "rpinfs status")],
         files={"run/rpinfs/agent.json": "[1]\n"}),
    Case("the agent's state has other things in it", "", [(NOT_MOUNTED, "rpinfs status")],
         files={"run/rpinfs/agent.json": '{"images": {"docker": "gone"}}'}),
    Case("read-only by its options", SHARE + IMAGE.replace(" rw,noatime", " ro,noatime") + BIND, [READ_ONLY]),
    Case("read-only after an error of ext4", SHARE + IMAGE.replace("loop3 rw", "loop3 ro") + BIND, [READ_ONLY]),
    Case("read-only after an error of ext4 from Linux 6.15 on",
         SHARE + IMAGE.replace("loop3 rw", "loop3 rw,emergency_ro") + BIND, [READ_ONLY]),
    Case("errors recorded", ALL, [("image docker at /var/lib/docker is damaged: ext4 has recorded errors (2)",
         MOUNT_ANEW)], files=loop(errors=2)),
    Case("xfs", ALL.replace("ext4", "xfs"), [], files=loop(content=xfs())),
    Case("the file was replaced before it was attached", ALL, [(f"{CHANGED_UUID} {OTHER}", REPLACED)],
         files=loop(content=ext4(OTHER))),
    Case("an xfs in its place", ALL, [(f"{CHANGED_UUID} {OTHER}", REPLACED)], files=loop(content=xfs(OTHER))),
    Case("no file system that is known", ALL, [(f"{CHANGED_UUID} none", REPLACED)], files=loop(content=b"")),
    Case("nobody has verified it", ALL, [("rpinfs-agent.service has not verified what is mounted at /var/lib/docker",
         "systemctl restart rpinfs-agent")], files={**loop(), "run/rpinfs/docker.uuid": "\n"}),
    Case("something over a folder above", ALL + "50 22 0:50 / /var rw - tmpfs tmpfs rw\n",
         [(NOT_MOUNTED, "rpinfs status")], files={**loop(), **agent()}),
    Case("the bind mount is read-only", SHARE + IMAGE + BIND.replace(" rw,noatime", " ro,noatime"),
         [("/var/lib/containerd is read-only", "mount -o remount,bind,rw /var/lib/containerd")]),
    Case("the image of another Pi", ALL,
         [(f"/var/lib/docker is not image docker: expected {FILE}, found /nfs/docker/other.img", CHANGED)],
         files=loop(backing_file="/nfs/docker/other.img")),
    Case("the file was deleted on the NAS", ALL,
         [(f"/var/lib/docker is not image docker: expected {FILE}, found {FILE} (deleted)", CHANGED)],
         files=loop(backing_file=f"{FILE} (deleted)")),
    # By the device that the agent has attached: the NAS is not asked, and names on it are anybody's.
    Case("the device that the agent attached", ALL, [], files=attached()),
    Case("its file was renamed on the NAS", ALL, [], files=attached("/nfs/docker/renamed.img")),
    Case("its file was deleted on the NAS", ALL, [], files=attached(f"{FILE} (deleted)")),
    Case("another file under the same name, of the same UUID", ALL,
         [((f"/var/lib/docker is not image docker: expected {FILE}, found {FILE} on /dev/loop3, which"
           " rpinfs-agent.service has not attached"), CHANGED)], files=attached(sequence="946")),
    Case("what a killed agent left leads to a device of somebody else", ALL,
         [((f"/var/lib/docker is not image docker: expected {FILE}, found /home/a.iso on /dev/loop3, which"
           " rpinfs-agent.service has not attached"), CHANGED)], files=attached("/home/a.iso", sequence="946")),
    Case("the configuration names another file now", ALL,
         [(f"/var/lib/docker is not image docker: expected {FILE}, found /nfs/docker/old.img", CHANGED)],
         files=attached(path="/nfs/docker/old.img")),
    Case("nothing behind the device any more", ALL,
         [("/var/lib/docker is not image docker: /dev/loop3 (ext4) is mounted there", RESTART)],
         files={**attached(sequence="946"), "sys/dev/block/7:3/loop/backing_file": "\n"}),
    Case("the right file from another offset", ALL,
         [(f"/var/lib/docker is not image docker: expected {FILE}, found {FILE}", CHANGED)],
         files=loop(offset=1048576)),
    Case("a loop device with nothing behind it", ALL,
         [("/var/lib/docker is not image docker: /dev/loop3 (ext4) is mounted there", RESTART)],
         files={}),
    Case("a disk", SHARE + IMAGE.replace("7:3", "8:1").replace("loop3", "sda1"),
         [("/var/lib/docker is not image docker: /dev/sda1 (ext4) is mounted there", RESTART)]),
    Case("a tmpfs on top of the image", ALL + "50 41 0:50 / /var/lib/docker rw - tmpfs tmpfs rw\n",
         [("/var/lib/docker is not image docker: tmpfs (tmpfs) is mounted there", RESTART)]),
    Case("the image on top of a tmpfs", "50 41 0:50 / /var/lib/docker rw - tmpfs tmpfs rw\n" + ALL, []),
    Case("the share is gone", IMAGE + BIND, [("/nfs/docker is not the NFS share: nothing of NFS is mounted there",
         "rpinfs status")]),
    Case("a disk in place of the share", ALL.replace("nfs4 192.168.1.10:/docker", "ext4 /dev/sda1"),
         [("/nfs/docker is not the NFS share: nothing of NFS is mounted there", "rpinfs status")]),
    Case("the bind mount is missing", SHARE + IMAGE, [("/var/lib/containerd is not mounted from image docker",
         START_BIND)]),
    Case("the bind mount is of another folder", ALL.replace("/.rpinfs/var-lib-containerd", "/containerd"),
         [("/var/lib/containerd is not kept in image docker: /dev/loop3 (ext4) is mounted there",
           f"find out who mounted it, unmount it, then: {START_BIND}")]),
    Case("the bind mount is of another image", SHARE + IMAGE + BIND.replace("7:3", "7:4").replace("loop3", "loop4"),
         [("/var/lib/containerd is not kept in image docker: /dev/loop4 (ext4) is mounted there",
           f"find out who mounted it, unmount it, then: {START_BIND}")]),
    Case("something on top of the bind mount", ALL + "50 42 0:50 / /var/lib/containerd rw - tmpfs tmpfs rw\n",
         [("/var/lib/containerd is not kept in image docker: tmpfs (tmpfs) is mounted there",
           f"find out who mounted it, unmount it, then: {START_BIND}")]),
    Case("no bind mount is wanted", SHARE + IMAGE, [], "[Image docker]\nBind=\n"),
    Case("a folder whose name systemd escapes",
         ALL + "44 22 7:3 /.rpinfs/srv-a\\134x2db\\134x20c /srv/a-b\\040c rw - ext4 /dev/loop3 rw\n",
         [], "[Image docker]\nBind=/var/lib/containerd \"/srv/a-b c\"\n"),
    Case("two images, both right", ALL + DATA, [], TWO, {**loop(), **loop(4, "/nfs/docker/data.img")}),
    Case("two images, neither mounted", "", [(f"{NOT_MOUNTED}: {NOT_RUN}", "rpinfs status"),
         (f"image data is not mounted at /srv/my data: {NOT_RUN}", "rpinfs status")], TWO, {}),
    Case("two images, swapped", ALL + DATA,
         [(f"/var/lib/docker is not image docker: expected {FILE}, found /nfs/docker/data.img", CHANGED),
          (f"/srv/my data is not image data: expected /nfs/docker/data.img, found {FILE}", CHANGED)],
         TWO, {**loop(4), **loop(3, "/nfs/docker/data.img")}),
    Case("fstab has the image: anything mounted there will do", IMAGE.replace("7:3", "8:1") + BIND.replace("7:3",
         "8:1"), [],
         files={"etc/fstab": "/dev/sda1 /var/lib/docker ext4 defaults 0 2\n"}),
    Case("fstab has the image, and it is not mounted", SHARE, [(f"{NOT_MOUNTED}: {NOT_RUN}", "rpinfs status")],
         files={"etc/fstab": "/dev/sda1 /var/lib/docker ext4 defaults 0 2\n"}),
    Case("fstab has the image, and it is read-only", IMAGE.replace(" rw,noatime", " ro"), [READ_ONLY],
         files={"etc/fstab": "/dev/sda1 /var/lib/docker ext4 defaults 0 2\n"}),
    Case("fstab has the bind mount", SHARE + IMAGE + BIND.replace("7:3", "8:1"), [],
         files={**loop(), "etc/fstab": "/srv/c /var/lib/containerd none bind\n"}),
    Case("fstab has the bind mount, and it is not mounted", SHARE + IMAGE,
         [("/var/lib/containerd is not mounted from image docker", START_BIND)],
         files={**loop(), "etc/fstab": "/srv/c /var/lib/containerd none bind\n"}),
    Case("switched off", "", [], "[Image docker]\nSize=nonsense\n", {}, "rpinfs=off"),
    Case("a container", "", [], files={"run/systemd/container": "lxc\n"}),
]  # fmt: skip


def make(root: Path, case: Case) -> Path:
    make_pi(root, case.config, case.files, case.cmdline)
    return make_tree(root, {"proc/self/mountinfo": case.mounts})


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_verdict(root: Path, case: Case) -> None:
    host = Host.read(str(make(root, case)))
    refusals = verdict(load(host), host)
    assert [(refusal.message, refusal.remedy) for refusal in refusals] == case.refusals


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_the_program_says_so_and_refuses(root: Path, case: Case, installed: Installed) -> None:
    done = installed.run(installed.rpinfs, "gate", root=make(root, case))
    lines = [f"rpinfs: {line}\n" for refusal in case.refusals for line in refusal if line]
    assert (done.stderr, done.stdout) == ("".join(lines), "")
    assert done.returncode == (REFUSED if case.refusals else 0)


@pytest.mark.parametrize("text", ["[Server]\nAddress=n s\n", "[Image docker]\nSise=1G\n", "[Sever]\n"])
def test_a_config_error_holds_docker_back_whatever_is_mounted(root: Path, text: str, installed: Installed) -> None:
    """The generator logs the same sentence, see tests/sandbox."""
    make(root, Case("", ALL, [], text))
    _, errors = examine(Host.read(str(root)))
    done = installed.run(installed.rpinfs, "gate", root=root)
    assert (done.returncode, done.stderr) == (REFUSED, f"rpinfs: {errors[0].message}\n")


def test_what_the_agent_writes_down_is_what_the_gate_reads(root: Path) -> None:
    make(root, Case("", ALL, [], files=attached("/nfs/docker/renamed.img", verified="")))
    host = Host.read(str(root))
    (image,) = load(host).images
    assert verdict(load(host), host) != []
    make_tree(root, {"run/rpinfs/docker.uuid": Verified.of(image, UUID, "loop3", str(root)).text})
    read = Verified.read(image, str(root))
    assert (read.uuid, read.sequence, read.path) == (UUID, "945", FILE)
    assert verdict(load(host), host) == []
