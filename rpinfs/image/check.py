"""Checking the file system in an image, and putting right what is safe to put right: e2fsck and xfs_repair."""

import re

from rpinfs.boot.values import dataclass, replace
from rpinfs.image import door, features
from rpinfs.image.errors import ImageError
from rpinfs.image.probe import Kind, Probe, absolute, probe, refuse_attached, verify
from rpinfs.image.protection import attached_to_see_marks, judge_protection
from rpinfs.image.remedy import command
from rpinfs.system.run import CommandError, Completed, Tell, last_line, reporting, run, silent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


@dataclass(frozen=True)
class CheckResult:
    """A check of a file system that ended well.

    Attributes:
        found: what is in the image now.
        corrected: something was put right, be it only a journal that was replayed.
        needs_recovery: an xfs log waits for the next mount to replay it.
        output: what the checking program said.
    """

    found: Probe
    corrected: bool
    needs_recovery: bool
    output: str


def check(path: str, progress: Tell = silent, *, locked: bool = True) -> CheckResult:
    """Check the file system in an image and put right what is safe to put right (e2fsck -p).

    xfs is only looked at (xfs_repair -n): mounting replays its log, and nothing is repaired unasked.
    The caller sees to it that no other host uses the image.

    Args:
        locked: False where nothing but multi-mount protection tells whether another host uses it: then a protected
            image is not touched where direct I/O cannot be had.

    Raises:
        ImageError: not an image, in use here, or something only a person can decide; the remedy says how.
    """
    found = probe(path)
    verify(found)
    return check_found(found, progress, locked=locked)


def check_by_hand(path: str, progress: Tell = silent) -> CheckResult:
    """As check(), of an image that no other Pi has: one that is locked is not even looked at.

    Raises:
        ImageError: as check(); or another uses it.
    """
    path = absolute(path)
    remedy = f"shut down the Pi that has it, then: {command('rpinfs', 'image', 'check', path)}"
    with door.opened(path, remedy, only_for_owner=False) as held:
        found = probe(path)
        verify(found)
        # Of an image with protection and without a lock nothing else can tell who has it.
        return check_found(found, progress, locked=held.locked if held is not None else not found.mmp)


def check_found(found: Probe, progress: Tell = silent, *, locked: bool = True) -> CheckResult:
    """As check(), of what was looked at and verified a moment ago."""
    path = found.path
    refuse_attached(path)
    try:
        if found.kind is not Kind.EXT4:
            return _check_xfs(found, progress)
        if found.mmp:
            return _check_protected(found, progress, locked)
        return _check_ext4(found, progress, absolute(path))
    except CommandError as error:
        raise ImageError(f"{path}: cannot be checked: {error.message}", error.remedy) from error


def _check_protected(found: Probe, progress: Tell, locked: bool) -> CheckResult:
    """Check what has multi-mount protection as the device that it will be mounted from.

    e2fsck asks for direct I/O on devices only (ext2fs_mmp_read()). What it read of a file came out of our own page
    cache: over NFS, that of another host that writes to the image all the time looks as if nobody did.
    """
    with attached_to_see_marks(found, locked) as device:
        return _check_ext4(found, progress, device)


_FSCK_CORRECTED, _FSCK_REBOOT, _FSCK_UNCORRECTED = 1, 2, 4
_FSCK_FAILED, _FSCK_USAGE, _FSCK_CANCELLED, _FSCK_LIBRARY = 8, 16, 32, 128


def _check_ext4(found: Probe, progress: Tell, target: str) -> CheckResult:
    # Of a file system that calls itself clean -p looks no further, though the kernel has recorded errors in it: they
    # would stay, and keep the image from ever being used (gate.py).
    whole = ["-f"] if found.errors_recorded else []
    with reporting() as (reader, writer):
        done = run(
            ["e2fsck", "-p", *whole, "-C", str(writer), target],
            ok=range(256),
            pass_fds=[writer],
            report=(reader, _Percent(progress).line),
            die_with_us=True,
        )
    judge_e2fsck(found.path, done)
    # After a mere replay of the journal the status is 0 with some versions, 1 with others.
    corrected = found.needs_recovery or bool(done.returncode & (_FSCK_CORRECTED | _FSCK_REBOOT))
    return CheckResult(
        replace(found, clean=True, needs_recovery=False, errors_recorded=0), corrected, False, done.stdout + done.stderr
    )


def judge_e2fsck(path: str, done: Completed) -> None:
    """Tell the exit statuses of e2fsck(8) apart. 1 (corrected) and 2 (reboot, never needed for a file) are fine.

    Raises:
        ImageError: anything that leaves the file system unfit to mount.
    """
    code = done.returncode
    said = last_line(done.stderr) or last_line(done.stdout)
    if code & ~(_FSCK_CORRECTED | _FSCK_REBOOT) == 0:
        return
    judge_protection(path, done)
    if unknown := features.unknown_to_e2fsck(done.stdout + done.stderr):
        _refuse_unknown(path, "e2fsck", "e2fsprogs", unknown)
    if code & _FSCK_UNCORRECTED:
        raise ImageError(
            f"{path}: its file system has errors that only a person can decide about (e2fsck status {code})",
            f"make a copy if you can, then: {command('e2fsck', '-f', path)}",
        )
    meanings = (
        (_FSCK_FAILED, "e2fsck could not do its work", command("e2fsck", "-f", path)),
        (_FSCK_CANCELLED, "e2fsck was cancelled", None),
        (_FSCK_LIBRARY, "e2fsck lacks a shared library", "apt install --reinstall e2fsprogs"),
        (_FSCK_USAGE, "e2fsck was called wrongly", None),
    )
    what, remedy = next(((what, remedy) for bit, what, remedy in meanings if code & bit), ("e2fsck failed", None))
    raise ImageError(f"{path}: {what} (exit status {code}): {said}", remedy)


class _Percent:
    """Turns e2fsck's lines "PASS DONE OF NAME" into a percentage, weighted as in its own bar."""

    _WEIGHTS = (0, 70, 90, 92, 95, 100)

    def __init__(self, progress: Tell) -> None:
        self._progress = progress
        self._told = -1

    def line(self, line: str) -> None:
        words = line.split()
        if len(words) < 3 or not all(word.isdigit() for word in words[:3]):
            return
        number, done, of = (int(word) for word in words[:3])
        if not 1 <= number <= 5 or not of:
            return
        low, high = self._WEIGHTS[number - 1 : number + 1]
        percent = low + (high - low) * min(done, of) // of
        if percent > self._told:
            self._told = percent
            self._progress(f"checking the file system: {percent} %")


_XFS_DIRTY_LOG = "valuable metadata changes in a log"


def _check_xfs(found: Probe, progress: Tell) -> CheckResult:
    """Status 1 is damage, unless a log waits to be replayed: then it saw but the state before the log."""
    path = found.path
    progress("looking through the file system")
    done = run(["xfs_repair", "-n", "-f", absolute(path)], ok=(0, 1), die_with_us=True)
    output = done.stdout + done.stderr
    if unknown := features.unknown_to_xfs_repair(output):
        _refuse_unknown(path, "xfs_repair", "xfsprogs", unknown)
    dirty = _XFS_DIRTY_LOG in output
    if done.returncode and not dirty:
        raise ImageError(
            f"{path}: its file system has errors that only a person can decide about (xfs_repair -n)",
            f"make a copy if you can, then: {command('xfs_repair', '-f', path)}",
        )
    return CheckResult(found, False, dirty, output)


def _refuse_unknown(path: str, program: str, package: str, unknown: str) -> "NoReturn":
    """A file system that is newer than the program that is to check it: nothing can be said of damage."""
    said = run([program, "-V"], ok=range(256))
    version = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
    raise ImageError(
        f"{path}: this {program} does not know all features of its file system: {unknown}",
        f"it is not damaged by that: install a newer {package} (this is {version[0] if version else 'too old'}), "
        "or check it on a host that has one",
    )
