"""Status: the document, the text that is drawn from it, and that neither hangs nor touches the share itself."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rpinfs import __version__
from rpinfs.boot import gate
from rpinfs.boot.host import Host
from rpinfs.boot.settings import human_size
from rpinfs.health import checks, status
from rpinfs.health.facts import Facts, File, Nas, Space, facts_of
from rpinfs.health.status import Paint
from rpinfs.system.deadline import TimedOut
from rpinfs.system.network import Route
from tests.support import DOCKER_FILE, SERIAL, Installed, make_tree
from tests.unit.health.pi import GIB, IMAGE, LOOP, NAS, ROOT_LINE, SHARE_LINE, WELL, agent, facts, live, mountinfo

PLAIN = Paint(on=False)


def document(found: Facts) -> dict[str, Any]:
    results = checks.judge(found)
    return status.document(found, results, checks.worst(results))


def drawn(found: Facts) -> str:
    return status.render(document(found), PLAIN)


def keys(value: object) -> object:
    """The form of a document: its keys, without the values."""
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [keys(value[0])]
    return None


def names(*words: str) -> dict[str, None]:
    return dict.fromkeys(" ".join(words).split())


MOUNT = "expected_source where mounted source type nfs_version read_only"
FORM = {
    **names("schema version in_use reason status exit_status"),
    "host": names("hostname serial mac uptime_seconds memory memory_available"),
    "boot": names(MOUNT),
    "share": names(MOUNT, "hard answers answer_seconds error size available state state_seconds message"),
    "images": [
        names(
            "name file where bind mounted source filesystem read_only loop direct_io block_size file_size",
            "file_allocated size available inodes inodes_free errors clean state state_seconds message",
        )
    ],
    "agent": names("active pid memory"),
    "docker": names("installed active version driver root containers containers_running images"),
    "network": names(
        "server address reachable connect_seconds interface gateway source carrier speed_mbps duplex wireless mac"
    ),
    "checks": [names("name image title status message remedy")],
}


def test_the_form_of_the_document_is_what_is_documented(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schema 1: keys may be added here and in rpinfs(8), none may go."""
    found = document(live(facts(root), monkeypatch))
    assert found["schema"] == 1
    assert keys(found) == FORM
    assert json.loads(json.dumps(found)) == found


def test_the_form_is_the_same_when_nothing_is_known(root: Path) -> None:
    found = facts(root, files={"proc/self/mountinfo": ""})
    found.answers = {}
    assert keys(document(found)) == FORM


SAID = {
    "pid": 301,
    "share": {"state": "silent", "since": 40.0, "size": 7, "free": 5, "message": "does not answer"},
    "images": {
        "docker": {
            "state": "mounted", "since": 60.0, "message": "read-only", "size": 11, "allocated": 9, "clean": False
        }
    },
}  # fmt: skip
UNASKED = ("share", "image:docker", "space:docker", "nas", "route", "machine", "docker", "systemd")


def test_every_value_of_the_document(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the NAS, the kernel, Docker and the agent say it: no two numbers are alike that belong to different keys."""
    file, space = File(10 * GIB, 6 * GIB), Space(90 * GIB, 40 * GIB, 3000, 1800, 0.1)
    way = Route(NAS, "eth0", "192.168.1.1", "192.168.1.77")
    answers = {"image:docker": file, "space:docker": space, "route": way}
    files = {"proc/sys/kernel/hostname": "pi1\n", gate.STATE_FILE: json.dumps(SAID)}
    found = live(facts(root, files=files, answers=answers), monkeypatch)
    found.now = 100.0
    told = document(found)
    mount = {"mounted": True, "type": "nfs4", "nfs_version": "4.1"}
    assert told["host"] == {
        "hostname": "pi1", "serial": SERIAL, "mac": None, "uptime_seconds": 100.0, "memory": 4 * GIB,
        "memory_available": 3 * GIB,
    }  # fmt: skip
    boot, share = f"{NAS}:/tftpboot", f"{NAS}:/docker"
    assert told["boot"] == {
        "expected_source": boot, "where": "/boot/firmware", "source": boot, "read_only": True, **mount
    }  # fmt: skip
    assert told["share"] == {
        "expected_source": share, "where": "/nfs/docker", "source": share, "read_only": False, **mount, "hard": True,
        "answers": True, "answer_seconds": 0.002, "error": None, "size": 100 * GIB, "available": 60 * GIB,
        "state": "silent", "state_seconds": 60.0, "message": "does not answer",
    }  # fmt: skip
    assert told["images"] == [{
        "name": "docker", "file": IMAGE, "where": "/var/lib/docker", "bind": ["/var/lib/containerd"], "mounted": True,
        "source": "/dev/loop3", "filesystem": "ext4", "read_only": False, "loop": "loop3", "direct_io": True,
        "block_size": 4096, "file_size": 10 * GIB, "file_allocated": 6 * GIB, "size": 90 * GIB, "available": 40 * GIB,
        "inodes": 3000, "inodes_free": 1800, "errors": 0, "clean": False, "state": "mounted", "state_seconds": 40.0,
        "message": "read-only",
    }]  # fmt: skip
    assert told["agent"] == {"active": "active", "pid": 301, "memory": 20 << 20}
    assert told["docker"] == {
        "installed": True, "active": "active", "version": "26.1.5", "driver": "overlay2", "root": "/var/lib/docker",
        "containers": 2, "containers_running": 1, "images": 3,
    }  # fmt: skip
    assert told["network"] == {
        "server": NAS, "address": NAS, "reachable": True, "connect_seconds": 0.001, "interface": "eth0",
        "gateway": "192.168.1.1", "source": "192.168.1.77", "carrier": True, "speed_mbps": 1000, "duplex": "full",
        "wireless": False, "mac": "dc:a6:32:00:00:01",
    }  # fmt: skip


def test_what_nobody_has_answered_is_what_the_agent_knew_or_null(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**mountinfo(ROOT_LINE), f"{LOOP}/loop/backing_file": "/other.img\n", gate.STATE_FILE: json.dumps(SAID)}
    found = live(facts(root, files=files), monkeypatch)
    for name in UNASKED:
        del found.answers[name]
    told = document(found)
    assert all(told["boot"][key] is None for key in ("source", "read_only", "type", "nfs_version"))
    assert (told["share"]["size"], told["share"]["available"]) == (7, 5)
    for key in ("hard", "answers", "answer_seconds", "error", "source", "type", "nfs_version", "read_only"):
        assert told["share"][key] is None, key
    (image,) = told["images"]
    assert (image["file_size"], image["file_allocated"], image["mounted"]) == (11, 9, False)
    for key in ("source", "filesystem", "read_only", "size", "available", "inodes"):
        assert image[key] is None, key
    assert told["agent"] == {"active": None, "pid": 301, "memory": None}
    assert set(told["docker"].values()) == {None}
    for key in ("reachable", "connect_seconds", "gateway", "source"):
        assert told["network"][key] is None, key
    assert (told["host"]["memory"], told["host"]["memory_available"]) == (None, None)


def test_not_in_use(root: Path) -> None:
    make_tree(root, {"proc/cmdline": "root=/dev/sda1\n"})
    found = document(facts_of(Host.read(str(root))))
    assert (found["in_use"], found["exit_status"], found["boot"], found["images"]) == (False, 0, None, [])
    text = status.render(found, PLAIN)
    assert text == "rpinfs is not in use here: the root is not on NFS and there is no configuration\n"


def test_all_is_well(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = live(facts(root, files={"proc/sys/kernel/hostname": "pi1\n"}), monkeypatch)
    found.now = 3 * 3600.0 + 12 * 60
    assert (
        drawn(found)
        == f"""\
pi1: ok  (rpinfs {__version__}, serial 10000000a1b2c3d4, up 3 h 12 min, 3 GiB of 4 GiB memory available)
Boot     {NAS}:/tftpboot on /boot/firmware, NFS 4.1, read-only
Share    {NAS}:/docker on /nfs/docker, NFS 4.1, hard
         answers in 2 ms, 60 GiB of 100 GiB free
Image    docker: {IMAGE} on /var/lib/docker
         ext4, 40 % full (40 GiB of 100 GiB), 10 GiB long, takes 1 GiB on the NAS
         /dev/loop3, direct I/O, 4096-byte blocks
         keeps /var/lib/containerd too
Docker   26.1.5, overlay2, data in /var/lib/docker
         1 of 2 containers run, 3 images
Network  NAS {NAS}, reachable in 1 ms
         over eth0 from 192.168.1.77, 1000 Mb/s, full duplex

All {len(checks.judge(found))} checks are well.
"""
    )


def test_figures_of_the_document_are_as_exact_as_they_mean_something(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = facts(root, answers={"share": replace(WELL, seconds=0.00246), "nas": Nas(NAS, 0.12344)})
    found.now = 1234.56
    told = document(live(found, monkeypatch))
    assert (told["share"]["answer_seconds"], told["network"]["connect_seconds"]) == (0.0025, 0.1234)
    assert told["host"]["uptime_seconds"] == 1234.6


@pytest.mark.parametrize(("gateway", "source"), [("192.168.1.1", "192.168.2.77"), ("", "192.168.1.77"), ("", "")])
def test_the_way_to_the_nas(root: Path, monkeypatch: pytest.MonkeyPatch, gateway: str, source: str) -> None:
    """What is not there is null: an empty word would be taken for an address."""
    answers = {"route": Route(NAS, "eth0", gateway, source)}
    network = document(live(facts(root, answers=answers), monkeypatch))["network"]
    assert (network["interface"], network["gateway"], network["source"]) == ("eth0", gateway or None, source or None)


@pytest.mark.parametrize(
    ("answers", "known"),
    [
        ({"nas": Nas(NAS, 0.1), "share": WELL}, True),
        ({"nas": OSError(errno.ECONNREFUSED, "Connection refused"), "share": WELL}, False),
        # Time was up, and the share, by the same way, has answered.
        ({"nas": TimedOut(1.4), "share": WELL}, None),
        ({"nas": TimedOut(1.4), "share": TimedOut(1.4)}, False),
    ],
)
def test_whether_the_nas_is_reachable(
    root: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, object], known: bool | None
) -> None:
    found = facts(root, answers=answers)
    # A tree that is looked at from elsewhere: what this machine reaches says nothing of it.
    assert document(found)["network"]["reachable"] is (True if known else None)
    found = live(found, monkeypatch)
    assert document(found)["network"]["reachable"] is known
    del found.answers["nas"]
    assert document(found)["network"]["reachable"] is None


def test_a_silent_share(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = '{"share": {"state": "silent", "since": 940.0, "size": 2147483648, "free": 1073741824}}'
    silence = TimedOut(1.4)
    answers = {"share": silence, "files": silence, "image:docker": silence}
    found = live(facts(root, files={"run/rpinfs/agent.json": state}, answers=answers), monkeypatch)
    found.now = 1000.0
    text = drawn(found)
    assert "         DOES NOT ANSWER for 60 s, 1 GiB of 2 GiB free when it answered last\n" in text
    wrong = text.partition("What is wrong, and what to do:\n")[2].splitlines()
    assert wrong[0].startswith("  critical  /nfs/docker gave no answer within 1.4 s")
    assert wrong[-1] == "  unknown  share.space, image.fits-share, image.present(docker): no answer within 1.4 s"
    assert document(found)["exit_status"] == 2


def test_a_share_that_fails_is_not_called_silent(root: Path) -> None:
    found = facts(root, answers={"share": OSError(errno.ESTALE, "Stale file handle", "/nfs/docker")})
    assert "         FAILS: Stale file handle\n" in drawn(found)
    assert document(found)["share"]["error"] == "Stale file handle"
    assert document(facts(root / "well"))["share"]["error"] is None


def test_a_share_that_was_not_asked_is_not_called_silent(root: Path) -> None:
    found = facts(root)
    found.answers = {}
    assert "DOES NOT ANSWER" not in drawn(found)


def test_an_image_that_is_refused(root: Path) -> None:
    text = drawn(facts(root, files={**mountinfo(SHARE_LINE), **agent("refused", "it is LUKS", "move it away")}))
    assert f"Image    docker: nothing is mounted at /var/lib/docker (wanted: {IMAGE})\n         it is LUKS\n" in text
    assert "  critical  it is LUKS  image.present(docker)\n      move it away\n" in text


def test_the_worst_comes_first(root: Path) -> None:
    files = {"sys/class/net/eth0/speed": "10\n", "sys/fs/ext4/loop3/errors_count": "1\n"}
    text = drawn(facts(root, files=files))
    assert text.index("critical  ext4 has recorded") < text.index("warning  eth0 runs at 10 Mb/s")


def test_colours_are_only_added(root: Path) -> None:
    found = document(facts(root, files={"sys/fs/ext4/loop3/errors_count": "1\n"}))
    coloured = status.render(found, Paint(on=True))
    assert "\x1b[31mcritical\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d*m", "", coloured) == status.render(found, PLAIN)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (10 << 30, "10 GiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_size(number: int, text: str) -> None:
    assert human_size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h 0 min"), (200000, "2 d 7 h")],
)
def test_duration(seconds: int, text: str) -> None:
    assert status.duration(seconds) == text


def test_the_main_process_never_touches_the_share(root: Path, installed: Installed) -> None:
    """Its children may, and do: so that the test would see it."""
    make_pi_with_share(root)
    log = root.parent / "strace"
    argv = ["strace", "-ff", "-qq", "-e", "trace=%file", "-o", str(log), str(installed.rpinfs), "status"]
    done = installed.run(*argv, root=root)
    assert "answers in" in done.stdout, done.stderr
    logs = sorted(log.parent.glob("strace.*"), key=lambda path: int(path.suffix[1:]))
    touching = [
        path for path in logs if f'"{root}/nfs/docker' in path.read_text() or '"/nfs/docker' in path.read_text()
    ]
    assert logs[0] not in touching
    assert touching != []


def make_pi_with_share(root: Path) -> None:
    facts(root, files={f"nfs/docker/{DOCKER_FILE}": "x"})
    make_tree(root, {"var/lib/docker": None})


@contextmanager
def hanging(folder: Path) -> Iterator[None]:
    """A mount whose every question waits for ever: a FUSE file system that nobody serves."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"nas", os.fsencode(folder), b"fuse", 0, options):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            yield
        finally:
            libc.umount2(os.fsencode(folder), 2)
    finally:
        os.close(device)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse")
def test_status_ends_although_the_share_hangs(root: Path, installed: Installed) -> None:
    make_pi_with_share(root)
    with hanging(root / "nfs/docker"):
        done = installed.run(installed.rpinfs, "status", "--json", root=root)
        found = json.loads(done.stdout)
        assert done.returncode == found["exit_status"] == 2
        assert found["share"]["answers"] is False
        by_name = {check["name"]: check for check in found["checks"]}
        assert by_name["share.answers"]["status"] == "critical"
        assert by_name["image.present"]["status"] == "unknown"
        assert by_name["mount.right"]["status"] == "ok"
        assert no_children_left(str(root))


def no_children_left(root: str) -> bool:
    """Whether no process of that world is left; those that were killed need a moment to die."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = subprocess.run(["pgrep", "-f", "rpinfs status --json"], capture_output=True, text=True, check=False)
        pids = [pid for pid in found.stdout.split() if f"RPINFS_ROOT={root}" in environment(pid)]
        if not pids:
            return True
        time.sleep(0.05)
    return False


def environment(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text()
    except OSError:
        return ""
