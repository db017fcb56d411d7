"""Every write of a file system under load is an instant at which the power may go: what was fsynced is there.

These are more instants than cables can be pulled at, and worse ones: of what no flush had settled, chance picks what
the disk still got. The kernel is that of the Pis, the disk one of QEMU's, which logs what it gets.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rpinfs.image import make
from tests.support import Tell, random_seed, thorough

from . import block_log
from .block_log import Replay, Write
from .image import repair
from .lab import Lab
from .process import LabError, run
from .records import RECORD, LostError, checked, writer

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.crash]

SIZE = 512 << 20
WRITTEN = re.compile(rb"^(\d{16}) [0-9a-f]{16} \.+$", re.MULTILINE)
# Beside the writer, which alone syncs what it does: files that come and go, and now and then a sync of everything.
LOAD = """\
mkdir -p /mnt && mount -t {filesystem} /dev/vdb /mnt && mkdir /mnt/data /mnt/other && cd /mnt/other || exit
/writer /mnt/data 127.0.0.1 9 & writer=$!
round=0
until [ $(stat -c %s ../data/log || echo 0) -ge {bytes} ]; do
    mkdir $round
    for name in a b c; do seq $round $((round + 500)) >$round/$name; done
    mv $round/a $round/d; ln $round/b $round/e; ln -s d $round/f; : >$round/c; rm $round/b
    if [ $((round % 5)) = 4 ]; then sync; rm -r $((round - 2)) $((round - 4)); fi
    round=$((round + 1))
done
kill $writer || exit; wait
cd / && umount /mnt
"""


RELEASES = pytest.mark.parametrize("release", ["trixie", pytest.param("bookworm", marks=pytest.mark.long)])


@RELEASES
@pytest.mark.parametrize("filesystem", ["ext4", pytest.param("xfs", marks=pytest.mark.long)])
def test_crash_at_any_write(plain_lab: Lab, tmp_path: Path, tell: Tell, filesystem: str, release: str) -> None:
    before, writes = image_and_writes(plain_lab, tmp_path, filesystem)
    chance, seed = random_seed()
    cuts = 500 if thorough() else 50
    found = 0
    for disk, acknowledged in power_cuts(before, writes, tmp_path, chance, cuts):
        repair(disk)
        found = records_in(disk, tmp_path, acknowledged)
    tell(
        f"{filesystem}, kernel of {release}: power cut at {cuts} of {len(writes)} requests, seed {seed}: "
        f"up to {found} records checked, lost 0"
    )


@pytest.mark.long
@RELEASES
def test_fast_commit_is_off_for_a_reason(
    plain_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell, release: str
) -> None:
    """It loses data with nothing but power cuts. When this fails, it has been mended, and may be thought of again."""
    monkeypatch.setattr(make, "EXT4_FEATURES", f"fast_commit,{make.EXT4_FEATURES}")
    before, writes = image_and_writes(plain_lab, tmp_path, "ext4")
    chance, seed = random_seed()
    cuts = 200
    lost = unrepaired = 0
    for disk, acknowledged in power_cuts(before, writes, tmp_path, chance, cuts):
        try:
            repair(disk)
        except LabError:
            unrepaired += 1
            continue
        try:
            records_in(disk, tmp_path, acknowledged)
        except LostError:
            lost += 1
    tell(
        f"ext4 with fast_commit, kernel of {release}: power cut at {cuts} of {len(writes)} requests, "
        f"seed {seed}: after {lost} of them fsynced records were lost, after {unrepaired} e2fsck -p had left errors"
    )
    assert lost and unrepaired


def image_and_writes(lab: Lab, folder: Path, filesystem: str) -> tuple[Path, list[Write]]:
    """A new image as rpinfs makes it, and what it got as a disk under load, up to its unmounting."""
    before, disk, log = (folder / name for name in ("before.img", "disk.img", "writes.log"))
    make.create(str(before), SIZE, filesystem)
    block_log.copy(before, disk)
    machine = lab.kernel_nas()
    machine.install("/writer", writer(lab.machine.compiler))
    machine.qemu_options = block_log.qemu_options(disk, log)
    machine.start()
    records = 1000 if thorough() else 50
    machine.run(LOAD.format(filesystem=filesystem, bytes=records * RECORD), timeout=1200)
    machine.pull_power()
    return before, list(block_log.read(log))


def power_cuts(
    before: Path, writes: Sequence[Write], folder: Path, chance: random.Random, cuts: int
) -> Iterator[tuple[Path, int]]:
    """The disk after so many power cuts at random instants, and the highest record that was acknowledged by then."""
    replay = Replay(before, writes, folder)
    acknowledged = acknowledged_at(writes)
    for instant in sorted(chance.sample(range(1, len(writes) + 1), cuts)):
        yield replay.cut(instant, chance), acknowledged[instant]


def acknowledged_at(writes: Sequence[Write]) -> list[int]:
    """The highest record known to be fsynced after so many writes: the writer begins none before the last one is."""
    highest = [0]
    for write in writes:
        numbers = [int(number) for number in WRITTEN.findall(write.data)]
        highest.append(max([highest[-1], *(number - 1 for number in numbers)]))
    return highest


def records_in(disk: Path, folder: Path, acknowledged: int) -> int:
    """Mount it and read the records back; see checked()."""
    where = folder / "mounted"
    where.mkdir(exist_ok=True)
    run(["mount", "-o", "loop", disk, where])
    try:
        data = where / "data"
        log = (data / "log").read_text() if (data / "log").exists() else ""
        files = {path.name: path.read_text().rstrip("\n") for path in data.glob("files/*")}
        return checked(log, files, acknowledged)
    except LostError as error:
        # Whether it is the file system that lost them, or the loop device of somebody else that was mounted.
        mounted = run(["sh", "-c", 'findmnt -n "$0"; losetup -l; ls -Rl "$0" | head -50', where])
        there = run(["sh", "-c", 'debugfs -R "ls -l /" "$0"; debugfs -R "ls -l /data" "$0"', disk])
        raise LostError(f"{error}\nmounted: {mounted}\nin the file: {there}") from error
    finally:
        run(["umount", where])
