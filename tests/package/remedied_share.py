"""Runs in a booted container of test_remedies.py, as remedied.py: another Pi's image, and odd things beside ours.

Whatever had a name of ours is whole afterwards, under another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from tests.package import guarded, remedied
    from tests.package.remedied import image, mended, of_check, of_command, of_refusal, paste, start_all, stop_all
else:
    import guarded
    import remedied
    from remedied import image, mended, of_check, of_command, of_refusal, paste, start_all, stop_all

LONG_AGO = 7200.0
"""Seconds: for an owner that is gone."""

KEPT_HERE = Path(guarded.MOUNT) / ".rpinfs"
TRIAL = KEPT_HERE / "overlay-trial"


def beside(what: str) -> Path:
    return image().with_name(f".{image().name}.rpinfs-{what}")


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def records() -> guarded.Facts:
    return remedied.records()


# Another Pi's image


def owned_by_another(seconds: float) -> None:
    """Its owner is another board, which was seen so many seconds ago."""
    stop_all()
    record = json.loads(beside("owner").read_text())
    record.update(serial="10000000abcdef99", hostname="other", machine_id="n" * 32, boot_id="boot-9")
    beside("owner").write_text(json.dumps(record))
    seen = time.time() - seconds
    os.utime(beside("lock"), (seen, seen))
    start_all()


def another_pis() -> guarded.Facts:
    owned_by_another(LONG_AGO)
    return mended(of_refusal("belongs to other"), remedied.is_usable)


def another_pis_by_check() -> guarded.Facts:
    owned_by_another(LONG_AGO)
    of_refusal("belongs to other")
    return mended(of_check("image.owner"), remedied.is_usable)


def another_pis_of_late() -> guarded.Facts:
    """It was seen a moment ago, and somebody has seen that it is off."""
    owned_by_another(1)
    of_refusal("belongs to other")
    return mended(of_command("rpinfs", "adopt", "docker"), remedied.is_usable)


def adopted() -> guarded.Facts:
    """What adopt says in the end, where the agent has given up: it does not try a damaged record's image for ever."""
    owned_by_another(LONG_AGO)
    guarded.systemctl("stop", guarded.AGENT)
    return mended(of_command("rpinfs", "adopt", "docker", out=True), remedied.is_usable)


def unreadable_record() -> guarded.Facts:
    stop_all()
    beside("owner").write_text("no record")
    os.utime(beside("lock"), (1, 1))
    start_all()
    return mended(of_refusal("nobody can tell whose it is"), remedied.is_usable)


def record_is_another_name() -> guarded.Facts:
    """A hard link: what it is the other name of stays what it is."""
    stop_all()
    victim = image().with_suffix(".victim")
    victim.write_bytes(os.urandom(5000))
    before = hash_of(victim)
    beside("owner").unlink()
    os.link(victim, beside("owner"))
    os.utime(beside("lock"), (1, 1))
    start_all()
    facts = mended(of_refusal("nobody can tell whose it is"), remedied.is_usable)
    return {**facts, "whole": facts["whole"] and hash_of(victim) == before}


# Something else under a name of ours


def kept_odd(path: Path, of: Callable[[], str], gone: Callable[[], bool]) -> guarded.Facts:
    """A folder of somebody's has a name of ours; it has another one afterwards, and so has what had that before."""
    path.unlink(missing_ok=True)
    for folder in (path, path.with_name(f"{path.name}.odd")):
        folder.mkdir()
        (folder / "kept").write_text(str(folder))
    start_all()
    facts = mended(of(), gone)
    found = sorted(one.read_text() for one in path.parent.glob(f"{path.name}.odd*/kept"))
    for folder in path.parent.glob(f"{path.name}.odd*"):
        shutil.rmtree(folder)
    return {**facts, "whole": facts["whole"] and found == [str(path), f"{path}.odd"], "found": found}


def odd_lock() -> guarded.Facts:
    stop_all()
    return kept_odd(beside("lock"), lambda: of_refusal("expected a file of rpinfs"), remedied.is_usable)


def odd_restore_record() -> guarded.Facts:
    stop_all()
    return kept_odd(beside("replaced"), lambda: of_refusal("expected a file of rpinfs"), remedied.is_usable)


def odd_trial() -> guarded.Facts:
    """A file of somebody's in the folder of the trial: the gate refuses."""
    guarded.systemctl("stop", guarded.SOCKET, guarded.DOCKER, guarded.CONTAINERD)
    TRIAL.mkdir()
    (TRIAL / "kept").write_text("x")

    def starts() -> bool:
        return not guarded.systemctl("start", guarded.DOCKER) and guarded.whole()

    facts = mended(of_check("mount.overlay"), starts)
    there = (KEPT_HERE / "overlay-trial.odd/kept").read_text() == "x"
    shutil.rmtree(KEPT_HERE / "overlay-trial.odd")
    return {**facts, "whole": facts["whole"] and there}


def kept_folder_is_a_link() -> guarded.Facts:
    """systemd makes the source of a bind mount, but no folder behind a link; what is kept comes back with the name."""
    for unit in (guarded.SOCKET, guarded.DOCKER, guarded.CONTAINERD, "var-lib-containerd.mount"):
        guarded.systemctl("stop", unit)
    kept, victim = KEPT_HERE.with_name("kept"), Path("/srv/victim")
    KEPT_HERE.rename(kept)
    victim.mkdir()
    KEPT_HERE.symlink_to(victim)
    failed = guarded.systemctl("start", guarded.DOCKER)
    untouched = not list(victim.iterdir())
    remedy = of_check("mount.right")
    said = paste(remedy)
    moved = KEPT_HERE.with_name(".rpinfs.odd").is_symlink()
    # The agent may have started Docker by now, and systemd have made a new folder.
    for unit in (guarded.SOCKET, guarded.DOCKER, guarded.CONTAINERD, "var-lib-containerd.mount"):
        guarded.systemctl("stop", unit)
    shutil.rmtree(KEPT_HERE, ignore_errors=True)
    kept.rename(KEPT_HERE)
    KEPT_HERE.with_name(".rpinfs.odd").unlink()
    facts = mended("systemctl start docker", guarded.whole)
    return {
        **facts, "remedy": remedy, "said": said, "gone": facts["gone"] and failed and moved,
        "whole": facts["whole"] and untouched, "untouched": untouched,
    }  # fmt: skip


def kept_folder_of_a_user() -> guarded.Facts:
    guarded.systemctl("stop", guarded.SOCKET, guarded.DOCKER, guarded.CONTAINERD)
    os.chown(KEPT_HERE, 1000, 1000)
    KEPT_HERE.chmod(0o777)
    before = sorted(os.listdir(KEPT_HERE))
    facts = mended(of_check("mount.overlay"), lambda: of_check("mount.overlay") == "")
    return {**facts, "whole": facts["whole"] and sorted(os.listdir(KEPT_HERE)) == before}


def folder_in_place_of_the_image() -> guarded.Facts:
    """Restored is only where an image or nothing was."""
    guarded.run("rpinfs", "snapshot", "docker")
    snapshot = max(image().parent.glob(f"{image().name}.snapshot-*"))
    stop_all()
    good = image().with_suffix(".good")
    image().rename(good)
    image().mkdir()
    (image() / "kept").write_text("x")
    restore = ("rpinfs", "restore", "docker", snapshot.name)
    remedy = of_command(*restore)
    said = paste(remedy)
    odd = image().with_name(f"{image().name}.odd")
    there = (odd / "kept").read_text() == "x"
    shutil.rmtree(odd)
    guarded.run(*restore)
    start_all()
    guarded.wait(guarded.whole)
    restored = remedied.are_whole()
    stop_all()
    good.rename(image())
    guarded.run("rpinfs", "adopt", "docker")
    start_all()
    guarded.wait(guarded.whole)
    whole = there and restored and remedied.are_whole()
    return {"remedy": remedy, "said": said, "gone": restored, "whole": whole}


def restored() -> guarded.Facts:
    """A restore while Docker runs says what to stop, and afterwards what to start."""
    guarded.run("rpinfs", "snapshot", "docker")
    snapshot = max(image().parent.glob(f"{image().name}.snapshot-*"))
    (Path(guarded.MOUNT) / "since").write_text("x")
    restore = ("rpinfs", "restore", "docker", snapshot.name)
    stop = of_command(*restore)
    said = paste(stop)
    start = of_command(*restore, out=True)
    facts = mended(start, guarded.whole)
    since = (Path(guarded.MOUNT) / "since").exists()
    gone = facts["gone"] and not since
    return {**facts, "remedies": [stop, start], "said": [*said, str(facts["said"])], "gone": gone}


STEPS: list[Callable[[], guarded.Facts]] = [
    records, another_pis, another_pis_by_check, another_pis_of_late, adopted, unreadable_record,
    record_is_another_name, odd_lock, odd_restore_record, odd_trial, kept_folder_is_a_link,
    kept_folder_of_a_user, folder_in_place_of_the_image, restored,
]  # fmt: skip

if __name__ == "__main__":
    guarded.go_through(STEPS) if sys.argv[1] == "drive" else sys.exit(guarded.program(*sys.argv[1:]))
