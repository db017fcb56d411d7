"""Runs in a booted container of test_remedies.py: brings about what is wrong, and pastes what rpinfs says to do.

Each step makes one fault, takes the remedy from rpinfs itself, pastes it into a shell as it stands, and looks whether
the fault is gone and a set of files that were synced to disk is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from tests.package import guarded
    from tests.remedies import commands
else:
    import guarded
    from remedies import commands


RECORDS = Path(guarded.MOUNT) / "records"
COUNT = 200
PASTED = Path("/run/pasted")


def image() -> Path:
    """The file of the image, by the configuration."""
    line = next(line for line in guarded.CONFIG.read_text().splitlines() if line.startswith("File="))
    return Path(guarded.SHARE) / PurePath(line.removeprefix("File=")).name


def write_records(folder: Path = RECORDS) -> None:
    folder.mkdir()
    for number in range(COUNT):
        with (folder / f"{number:03}").open("wb") as file:
            file.write(content(number))
            os.fsync(file.fileno())
    os.sync()


def content(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * (number % 60 + 1)


def are_whole(folder: Path = RECORDS) -> bool:
    """Whether all records are there, read from the disk and not from what was in memory."""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    return all((folder / f"{number:03}").read_bytes() == content(number) for number in range(COUNT))


def of_check(name: str) -> str:
    """The remedy that `rpinfs check` prints."""
    done = subprocess.run(["rpinfs", "check", "--json", name], capture_output=True, text=True, check=False)
    found = [check for check in json.loads(done.stdout)["checks"] if check["remedy"]]
    return str(found[0]["remedy"]) if found else ""


def of_agent() -> str:
    return guarded.agent_says()["remedy"]


def of_refusal(word: str) -> str:
    """The remedy of the agent, once it has refused the image with a word in its sentence."""
    guarded.wait(lambda: guarded.agent_says()["state"] == "refused" and word in guarded.agent_says()["message"])
    return of_agent()


def of_command(*words: str, out: bool = False) -> str:
    """What a command that fails says is to be done; or the last line of one that does not."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if out:
        return done.stdout.splitlines()[-1] if done.stdout else f"it said {done.stderr}"
    lines = [line.removeprefix("rpinfs: ") for line in done.stderr.splitlines() if line.startswith("rpinfs: ")]
    return lines[1] if len(lines) == 2 else f"{words} ended with {done.returncode}, and said {done.stdout}{done.stderr}"


def of_journal(word: str) -> str:
    """The last remark of the agent that has a word in it."""
    lines = guarded.run("journalctl", "--no-pager", "-o", "cat", "-b", "-u", guarded.AGENT).splitlines()
    return next((line.partition(": ")[2] for line in reversed(lines) if word in line and ": " in line), "")


def paste(remedy: str, answers: str = "y\n" * 40) -> list[str]:
    """Run the commands of a remedy as at a terminal, with yes to all that is asked; what they said."""
    said = []
    for command in commands(remedy):
        PASTED.write_text(command + "\n")
        done = subprocess.run(
            ["script", "-qec", f"bash {PASTED}", "/dev/null"],
            input=answers, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        said.append(f"{command} -> {done.returncode}: {done.stdout[-900:]}")
    return said


def mended(remedy: str, gone: Callable[[], bool], **more: Any) -> guarded.Facts:  # noqa: ANN401
    """Paste a remedy, wait until the fault is gone, and look at the records."""
    said = paste(remedy)
    deadline = time.monotonic() + guarded.SECONDS
    while not (so := gone()) and time.monotonic() < deadline:
        time.sleep(0.2)
    facts = {"remedy": remedy, "said": said, "gone": so, **more}
    if not so:
        facts["log"] = guarded.run("journalctl", "--no-pager", "-b", "-n", "60")
    if not guarded.whole():
        paste("systemctl reset-failed; systemctl start docker.service containerd.service")
        guarded.wait(guarded.whole)
    return {**facts, "whole": are_whole()}


def stop_all() -> None:
    units = (guarded.SOCKET, guarded.DOCKER, guarded.CONTAINERD, "var-lib-docker.mount", guarded.AGENT)
    guarded.systemctl("stop", *units)
    guarded.wait(lambda: not guarded.run("losetup", "--associated", str(image())))


def start_all() -> None:
    guarded.systemctl("start", guarded.AGENT)
    guarded.systemctl("start", guarded.DOCKER)


def is_usable() -> bool:
    """Whether the agent has accepted the image, so that Docker can be started."""
    return guarded.agent_says()["state"] in ("attached", "mounted")


def has_feature(name: str) -> bool:
    return name in guarded.run("dumpe2fs", "-h", str(image())).partition("Filesystem features:")[2].partition("\n")[0]


# Steps


def records() -> guarded.Facts:
    # As Debian's package has it: what is disabled is nobody's to start but a person's.
    guarded.systemctl("enable", guarded.DOCKER)
    guarded.systemctl("start", guarded.DOCKER)
    guarded.wait(guarded.whole)
    write_records()
    return {"whole": are_whole()}


def with_feature(name: str) -> guarded.Facts:
    """Somebody has set a feature; the remark of the agent says how it is taken off."""
    stop_all()
    guarded.run("tune2fs", "-O", name, str(image()))
    start_all()
    # Not every kernel mounts what has fast commits.
    word = "multi-mount protection" if name == "mmp" else name
    guarded.wait(lambda: bool(of_journal(word)))
    remedy = of_journal(word)
    return mended(remedy, lambda: guarded.whole() and not has_feature(name))


def protected() -> guarded.Facts:
    return with_feature("mmp")


def fast_commit() -> guarded.Facts:
    return with_feature("fast_commit")


def errors_recorded() -> guarded.Facts:
    """ext4 finds an error, and makes itself read-only."""
    device = os.path.basename(os.path.realpath("/run/rpinfs/docker"))
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("for a test")
    remedy = of_check("mount.errors")
    return mended(remedy, lambda: guarded.whole() and of_check("mount.errors") == of_check("mount.right") == "")


def damaged_ext4() -> guarded.Facts:
    """A folder whose block is garbage: not for e2fsck -p to decide about."""
    junk = Path(guarded.MOUNT) / "junk"
    junk.mkdir()
    (junk / "file").write_text("x")
    os.sync()
    stop_all()
    block = int(guarded.run("debugfs", "-R", "blocks /junk", str(image())).split()[0])
    with image().open("r+b") as file:
        file.seek(block * 4096)
        file.write(os.urandom(4096))
        os.fsync(file.fileno())
    # Marked as one to be looked at: e2fsck -p believes a clean superblock.
    guarded.run("debugfs", "-w", "-R", "ssv state 0", str(image()))
    start_all()
    guarded.wait(lambda: guarded.agent_says()["state"] == "refused")
    # Docker was refused meanwhile, and starts by itself.
    return mended(of_agent(), guarded.whole)


def moved_away() -> guarded.Facts:
    """Gone, as when the NAS comes up without its disk; the way on makes a new one, and the old one is as it was."""
    stop_all()
    kept = image().with_suffix(".away")
    image().rename(kept)
    before = hashlib.sha256(kept.read_bytes()).hexdigest()
    start_all()
    guarded.wait(lambda: guarded.agent_says()["state"] == "refused")
    remedy = of_agent()
    said = paste(remedy)
    guarded.wait(guarded.whole)
    same = hashlib.sha256(kept.read_bytes()).hexdigest() == before
    return {"remedy": remedy, "said": said, "gone": not RECORDS.exists(), "whole": same}


def another_image_there() -> guarded.Facts:
    """The old one is put back: it is another one than was verified last."""
    stop_all()
    new = image().with_suffix(".new")
    image().rename(new)
    image().with_suffix(".away").rename(image())
    start_all()
    guarded.wait(lambda: guarded.agent_says()["state"] == "refused")
    return {**mended(of_agent(), guarded.whole), "new": new.exists()}


def unmounted_by_systemd() -> guarded.Facts:
    guarded.systemctl("stop", "var-lib-docker.mount")
    guarded.wait(lambda: not os.path.ismount(guarded.MOUNT) and bool(of_check("mount.right")))
    return mended(of_check("mount.right"), lambda: os.path.ismount(guarded.MOUNT))


def mount_fails() -> guarded.Facts:
    """Whatever mount(8) says: nothing of the image stays attached, and Docker comes back with its mount."""
    program, kept = Path("/usr/bin/mount"), Path("/usr/bin/mount.kept")
    stop_all()
    program.rename(kept)
    program.write_text("#!/bin/sh\necho 'mount: for a test' >&2\nexit 32\n")
    program.chmod(0o755)
    start_all()
    guarded.wait(lambda: guarded.agent_says()["state"] == "unmounted", 90)
    guarded.wait(lambda: not guarded.run("losetup", "--associated", str(image())))
    remedy, message = of_agent(), guarded.agent_says()["message"]
    kept.rename(program)
    return mended(remedy, guarded.whole, message=message)


def mounted_over() -> guarded.Facts:
    guarded.run("mount", "-t", "tmpfs", "tmpfs", guarded.MOUNT)
    guarded.wait(lambda: guarded.agent_says()["state"] == "lost")
    return mended(of_agent(), guarded.whole)


def agent_dead() -> guarded.Facts:
    guarded.systemctl("stop", guarded.AGENT)
    return mended(of_check("agent.running"), lambda: guarded.is_active(guarded.AGENT))


def bind_read_only() -> guarded.Facts:
    guarded.run("mount", "-o", "remount,bind,ro", guarded.KEPT)
    return mended(of_check("mount.right"), lambda: of_check("mount.right") == "")


def not_verified() -> guarded.Facts:
    guarded.UUID_FILE.unlink()
    return mended(of_check("mount.right"), lambda: of_check("mount.right") == "")


def hidden() -> guarded.Facts:
    """What the shell shows is all that the remedy does; the file is still there after it."""
    stop_all()
    (Path(guarded.MOUNT) / "below").write_text("x")
    start_all()
    guarded.wait(guarded.whole)
    remedy = of_check("mount.hidden")
    said = paste(remedy, "exit\n")
    return {
        "remedy": remedy, "said": said, "gone": "below" in said[0], "whole": are_whole() and not os.path.ismount("/mnt")
    }  # fmt: skip


STEPS: list[Callable[[], guarded.Facts]] = [
    records, protected, fast_commit, errors_recorded, damaged_ext4, mount_fails, unmounted_by_systemd, mounted_over,
    agent_dead, bind_read_only, not_verified, hidden, moved_away, another_image_there,
]  # fmt: skip

if __name__ == "__main__":
    guarded.go_through(STEPS) if sys.argv[1] == "drive" else sys.exit(guarded.program(*sys.argv[1:]))
