"""Runs in a booted container of test_guard.py, with the package installed.

    guarded.py agent | gate | ...     as `rpinfs agent` and the like, where the share is a plain folder
    guarded.py drive                  takes mounts away, makes mistakes, and writes down what came of it

There is no NFS in a container: that the share counts as one is all that differs from a Pi.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, "/usr/share/rpinfs")
sys.path.append("/usr/lib/python3/dist-packages")

SHARE = "/nfs/docker"
MOUNT = "/var/lib/docker"
KEPT = "/var/lib/containerd"
UUID_FILE = Path("/run/rpinfs/docker.uuid")
CONFIG = Path("/etc/rpinfs/rpinfs.conf")
RESULT = Path("/result.json")
DOCKER, CONTAINERD, SOCKET = "docker.service", "containerd.service", "docker.socket"
AGENT, GATE = "rpinfs-agent.service", "rpinfs-gate.service"
SECONDS = float(os.environ.get("GUARDED_SECONDS", "90"))
"""What takes longer than this is not waited for: on a machine; an emulated Pi is slower."""

Facts = dict[str, object]


def program(*words: str) -> int:
    """A program of the package, in a world where the folder at SHARE is an NFS mount."""
    from rpinfs.__main__ import main
    from rpinfs.boot import storage

    def on_share(mount: storage.Mount, *_: object) -> bool:
        # What a test mounts over it is no share.
        return mount.where == SHARE and mount.kind != "tmpfs"

    storage.Mount.is_nfs = property(on_share)  # type: ignore[assignment]
    storage.Mount.is_from = on_share  # type: ignore[method-assign,assignment]
    return main(list(words))


def drive() -> None:
    """One step after the other; each leaves Docker as the next one wants it, running."""
    go_through(STEPS)


def go_through(steps: list[Callable[[], Facts]]) -> None:
    """Write down what came of each step, and end the container."""
    make_loop_nodes()
    result: dict[str, Facts] = {}
    for step in steps:
        try:
            begun = time.monotonic()
            result[step.__name__] = step()
            result[step.__name__]["seconds"] = round(time.monotonic() - begun, 1)
        finally:
            RESULT.write_text(json.dumps(result))
    systemctl("poweroff", "--no-block")


def make_loop_nodes() -> None:
    """A container's /dev has only the nodes that it was given; other tests may have taken these devices."""
    for number in range(256):
        if not os.path.exists(f"/dev/loop{number}"):
            os.mknod(f"/dev/loop{number}", 0o60660, os.makedev(7, number))


# Docker starts on the image


def first_start() -> Facts:
    return {"failed": systemctl("start", DOCKER), **state()}


def window_on_systemd() -> Facts:
    """rpinfs.system.systemd on the units of this system."""
    from rpinfs.system import systemd

    unit = "asked-for.service"
    before = systemd.unit_states([unit, "no-such.service", "var-lib-docker.mount"])
    systemd.start_units([unit])
    wait(lambda: show(unit, "ActiveState") == "active")
    started = systemd.unit_states([unit])[unit]
    systemd.stop_units([unit])
    wait(lambda: show(unit, "ActiveState") == "inactive")
    stopped = systemd.unit_states([unit])[unit]
    return {
        "before": vars(before[unit]),
        "missing": vars(before["no-such.service"]),
        "mount": vars(before["var-lib-docker.mount"]),
        "started": vars(started),
        "stopped": vars(stopped),
        "system": systemd.system_state(),
    }


# The mount goes away under a running Docker


def unmounted_lazily() -> Facts:
    return lost_and_back(lambda: run("umount", "-l", MOUNT))


def mounted_over() -> Facts:
    return covered(MOUNT)


def mounted_over_a_folder_above() -> Facts:
    return covered("/var/lib")


def covered(where: str) -> Facts:
    """Something is mounted over the image for a while."""
    before = state()
    run("mount", "-t", "tmpfs", "tmpfs", where)
    wait(lambda: not is_active(DOCKER) and not is_active(CONTAINERD))
    refused = systemctl("start", DOCKER)
    agent = agent_says()
    run("umount", where)
    wait(whole)
    return {"before": before, "refused": refused, "agent": agent, **state()}


def agent_killed_while_it_is_lost() -> Facts:
    before = state()
    run("mount", "-t", "tmpfs", "tmpfs", MOUNT)
    wait(lambda: not is_active(DOCKER) and not is_active(CONTAINERD))
    kill_agent()
    run("umount", MOUNT)
    wait(whole)
    return {"before": before, **state()}


def lost_while_the_agent_is_dead() -> Facts:
    before = state()
    os.kill(main_pid(AGENT), signal.SIGSTOP)
    run("umount", "-l", MOUNT)
    kill_agent()
    wait(lambda: whole() and main_pid(DOCKER) != before["docker_pid"])
    return {"before": before, **state()}


def lost_and_back(lose: Callable[[], object]) -> Facts:
    """The agent stops Docker, mounts what is missing, and starts Docker again."""
    before = state()
    lose()
    wait(lambda: whole() and main_pid(DOCKER) != before["docker_pid"])
    return {"before": before, **state()}


# A person unmounts it


def stopped_mount() -> Facts:
    systemctl("stop", "var-lib-docker.mount")
    wait(lambda: agent_says()["state"] == "unmounted")
    after = {"agent": agent_says(), **state()}
    return {"failed": systemctl("start", DOCKER), "after": after, **state()}


def worked_on_the_file() -> Facts:
    """What a person may do with an unmounted image: nothing is lost by it, and nothing of it is undone."""
    kept = Path(MOUNT, "kept")
    kept.mkdir(exist_ok=True)
    for number in range(200):
        with open(kept / str(number), "w") as file:
            file.write(str(number))
            file.flush()
            os.fsync(file.fileno())
    image = next(str(path) for path in Path(SHARE).glob("docker-*.img"))
    systemctl("stop", "var-lib-docker.mount")
    # Neither the image nor its lock, whose name has the image's in it; other containers' are listed, too.
    wait(lambda: agent_says()["state"] == "unmounted" and os.path.basename(image) not in run("losetup", "--list"))
    alone = {"link": os.path.lexists("/run/rpinfs/docker"), "verified": UUID_FILE.exists()}
    run("tune2fs", "-L", "by-hand", image)
    run("debugfs", "-w", "-R", "write /etc/hostname by-hand", image)
    run("e2fsck", "-f", "-p", image)
    failed = systemctl("start", "var-lib-docker.mount")
    mounted = os.path.ismount(MOUNT)
    texts = [Path(kept, str(number)).read_text() for number in range(200)] if mounted else []
    label = run("blkid", "-p", "-o", "value", "-s", "LABEL", os.path.realpath("/run/rpinfs/docker"))
    by_hand = Path(MOUNT, "by-hand").exists()
    docker = systemctl("start", DOCKER)
    return {
        "alone": alone, "failed": failed, "mounted_alone": mounted, "kept_files": texts == [str(n) for n in range(200)],
        "label": label.strip(), "by_hand": by_hand, "docker_failed": docker, **state(),
    }  # fmt: skip


def unmounted_with_docker_down() -> Facts:
    systemctl("stop", DOCKER, CONTAINERD, SOCKET)
    run("umount", KEPT)
    run("umount", MOUNT)
    wait(lambda: agent_says()["state"] == "lost")
    after = {"agent": agent_says(), **state()}
    return {"failed": systemctl("start", DOCKER), "after": after, **state()}


# The gate refuses


def another_file_system() -> Facts:
    right = UUID_FILE.read_text()
    UUID_FILE.write_text("00000000-0000-0000-0000-000000000000\n")
    return refused(lambda: UUID_FILE.write_text(right))


def data_root_elsewhere() -> Facts:
    """The image is mounted, and Docker would write to the root."""
    settings = Path("/etc/docker/daemon.json")
    settings.parent.mkdir(exist_ok=True)
    settings.write_text('{"data-root": "/mnt/dietpi_userdata/docker-data"}')
    return refused(settings.unlink)


def data_root_by_a_drop_in() -> Facts:
    drop_in = Path("/run/systemd/system/docker.service.d/data.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd --data-root /srv/docker\n")
    systemctl("daemon-reload")

    def mend() -> None:
        drop_in.unlink()
        systemctl("daemon-reload")

    return refused(mend)


def no_room_for_an_overlay() -> Facts:
    """A file where the trial wants its folder: what it cannot set up is not skipped."""
    trial = Path(f"{MOUNT}/.rpinfs/overlay-trial")
    trial.touch()
    return refused(trial.unlink)


def a_trial_was_killed() -> Facts:
    """Its remains do not trouble the next one."""
    remains = Path(f"{MOUNT}/.rpinfs/overlay-trial")
    (remains / "work/work/deeper").mkdir(parents=True)
    os.mknod(remains / "upper", 0o20000, os.makedev(0, 0))
    (remains / "work/work").chmod(0)
    systemctl("stop", DOCKER)
    failed = systemctl("start", DOCKER)
    return {"failed": failed, "in_image": sorted(os.listdir(f"{MOUNT}/.rpinfs")), **state()}


def restarted_while_running() -> Facts:
    """A wrong configuration since then; podman.service waits behind the gate for it too."""
    right = CONFIG.read_text()
    CONFIG.write_text(right + "Sise=1G\n")
    systemctl("daemon-reload")
    failed = systemctl("restart", DOCKER)
    podman = systemctl("start", "podman.service")

    def mend() -> None:
        CONFIG.write_text(right)
        systemctl("daemon-reload")

    return {"restart": failed, "podman": podman, **refused(mend)}


def half_unpacked() -> Facts:
    """As dpkg leaves it when it dies: the units are there, and not all of the program, nor what was bound of it."""
    for bound in Path("/usr/share/rpinfs").glob("bound.*"):
        bound.unlink()
    os.rename("/usr/share/rpinfs/rpinfs/boot/config.py", "/srv/config.py")
    return refused(lambda: os.rename("/srv/config.py", "/usr/share/rpinfs/rpinfs/boot/config.py"))


def generator_crashed() -> Facts:
    """No drop-ins but those of the package, nothing is mounted, and the gate is too slow for systemd's own limit."""
    generator = Path("/etc/systemd/system-generators/rpinfs-generator")
    right = generator.read_text()
    generator.write_text("#!/bin/false\n")
    slow = Path("/etc/systemd/system/rpinfs-gate.service.d/slow.conf")
    slow.parent.mkdir(exist_ok=True)
    slow.write_text("[Service]\nExecStartPre=/usr/bin/sleep 1\n")
    systemctl("stop", DOCKER, CONTAINERD, SOCKET, "var-lib-docker.mount")
    systemctl("daemon-reload")

    def mend() -> None:
        generator.write_text(right)
        slow.unlink()
        systemctl("daemon-reload")

    return refused(mend)


def refused(mend: Callable[[], object]) -> Facts:
    """Docker does not start, by hand or by its socket, until what is wrong is mended."""
    systemctl("stop", DOCKER, CONTAINERD)
    since = time.time()
    systemctl("reset-failed")
    systemctl("start", SOCKET)
    by_hand = systemctl("start", DOCKER)
    containerd = systemctl("start", CONTAINERD)
    by_socket = ask_docker()
    # A gate that was just asked by the socket may still be at work.
    wait(lambda: show(GATE, "ActiveState") == "failed")
    said = journal(GATE, since)
    down = state()
    mend()
    return {
        "by_hand": by_hand, "containerd_by_hand": containerd, "by_socket": by_socket, "said": said, "down": down,
        "failed": systemctl("start", DOCKER), **state(), "socket": show(SOCKET, "ActiveState"),
    }  # fmt: skip


def ask_docker() -> str:
    """A client of Docker's socket that waits as long as it takes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        try:
            client.connect("/run/docker.sock")
            client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return f"answered {client.recv(100)!r}"
        except TimeoutError:
            return "hangs"
        except ConnectionError as error:
            return f"refused: {error.strerror}"


def damaged() -> Facts:
    """ext4 finds an error, and makes itself read-only. The last step: only a reboot mends that."""
    device = os.path.basename(os.path.realpath("/run/rpinfs/docker"))
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("for a test")
    since = time.time()
    refused = systemctl("restart", DOCKER)
    return {"refused": refused, "said": journal(GATE, since), **state()}


STEPS: list[Callable[[], Facts]] = [
    first_start, window_on_systemd,
    unmounted_lazily, mounted_over, mounted_over_a_folder_above, agent_killed_while_it_is_lost,
    lost_while_the_agent_is_dead,
    stopped_mount, worked_on_the_file, unmounted_with_docker_down,
    another_file_system, data_root_elsewhere, data_root_by_a_drop_in,
    no_room_for_an_overlay, a_trial_was_killed, restarted_while_running, half_unpacked,
    generator_crashed, damaged,
]  # fmt: skip


# What is so


def whole() -> bool:
    """Whether the image and the folder that it keeps are mounted, and Docker runs."""
    return os.path.ismount(MOUNT) and os.path.ismount(KEPT) and is_active(DOCKER) and is_active(CONTAINERD)


def state() -> Facts:
    return {
        "docker": show(DOCKER, "ActiveState"),
        "docker_pid": main_pid(DOCKER),
        "containerd": show(CONTAINERD, "ActiveState"),
        "mounted": os.path.ismount(MOUNT),
        "kept": os.path.ismount(KEPT),
    }


def agent_says() -> dict[str, str]:
    try:
        said = json.loads(Path("/run/rpinfs/agent.json").read_text())["images"]["docker"]
    except (FileNotFoundError, ValueError):
        return {"state": ""}
    return {key: said[key] for key in ("state", "message", "remedy")}


def kill_agent() -> None:
    """As the kernel would when memory is short; systemd starts it again."""
    killed = main_pid(AGENT)
    os.kill(killed, signal.SIGKILL)
    wait(lambda: main_pid(AGENT) not in (0, killed) and is_active(AGENT))


def wait(so: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Until something is so; an error where that takes longer than anything here may take."""
    deadline = time.monotonic() + seconds
    while not so():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain: {state()} {agent_says()}\n{run('journalctl', '--no-pager', '-b')}")
        time.sleep(0.1)


def journal(unit: str, since: float) -> list[str]:
    text = run("journalctl", "--no-pager", "-o", "cat", "-b", "-u", unit, f"--since=@{since:.6f}")
    return [line for line in text.splitlines() if line.startswith("rpinfs: ")]


def is_active(unit: str) -> bool:
    return show(unit, "ActiveState") == "active"


def main_pid(unit: str) -> int:
    return int(show(unit, "MainPID"))


def show(unit: str, name: str) -> str:
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def systemctl(*words: str) -> bool:
    """Run systemctl; whether it failed."""
    return subprocess.run(["systemctl", *words], capture_output=True, check=False).returncode != 0


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{argv}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    drive() if sys.argv[1] == "drive" else sys.exit(program(*sys.argv[1:]))
