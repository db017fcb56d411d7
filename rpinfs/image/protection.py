"""Multi-mount protection of ext4: what its marks say of other hosts, and what it needs to hold between hosts."""

import contextlib
from collections.abc import Iterator

from rpinfs.image.errors import CutShortError, ImageError, ProtectedError
from rpinfs.image.probe import Probe, probe
from rpinfs.image.remedy import TAKE_UP, command
from rpinfs.system import loop
from rpinfs.system.run import Completed, Tell, last_line, run, silent


def refuse_marked(path: str, progress: Tell = silent) -> None:
    """Insist that no other host marks an image as its own, where nothing but multi-mount protection can tell.

    It waits for 11 s and more, and changes nothing. What has no protection is accepted.

    Raises:
        ImageError: another host uses it, or it cannot be told.
    """
    found = probe(path)
    if not found.mmp:
        return
    progress("waiting to see whether another host uses it")
    with attached_to_see_marks(found, locked=False) as device:
        done = run(["e2mmpstatus", device], ok=range(256), die_with_us=True)
        judge_protection(path, done)
        if done.returncode:
            raise ImageError(f"{path}: its multi-mount protection cannot be read: {last_line(done.stderr)}")


@contextlib.contextmanager
def attached_to_see_marks(found: Probe, locked: bool) -> Iterator[str]:
    """Path of a device on an image with multi-mount protection; who is refused by that learns whose mark it was."""
    path = found.path
    with loop.attached(path, block_size=found.sector_size) as device:
        if not locked:
            refuse_without_direct_io(path, device)
        try:
            yield device.path
        except ProtectedError as error:
            raise type(error)(f"{error.message} (last marked by {_marked_by(device.path)})", error.remedy) from error


def refuse_without_direct_io(path: str, device: loop.LoopDevice) -> None:
    """Insist on what multi-mount protection needs to hold between hosts.

    Raises:
        ImageError: the device is attached without direct I/O.
    """
    if not device.direct_io:
        raise ImageError(
            f"{path}: multi-mount protection holds only with direct I/O, which the kernel refuses on this share",
            f"set Fence=lease in its [Image] section, then: {TAKE_UP}",
        )


def _marked_by(device: str) -> str:
    """Name of the host whose mark stands in the protection of an image."""
    said = run(["dumpe2fs", "-h", device], ok=range(256), die_with_us=True).stdout
    label = "mmp_node_name:"
    return next((line.split(label)[1].strip() for line in said.splitlines() if label in line), "") or "nobody"


_MMP_CHECKING = "MMP: e2fsck being run"


def judge_protection(path: str, done: Completed) -> None:
    """Raise a ProtectedError where a program of e2fsprogs has failed for that."""
    # With the colon: e2fsck also says how long it waits for multi-mount protection, "MMP interval is ...".
    protection = next((line for line in done.stderr.splitlines() if "MMP: " in line), "") if done.returncode else ""
    if _MMP_CHECKING in protection:
        raise CutShortError(
            f"{path}: multi-mount protection says that e2fsck is at work on it, or was cut short: {protection}",
            f"make sure that no other host uses it, then: {command('tune2fs', '-f', '-E', 'clear_mmp', path)}",
        )
    if protection:
        raise ProtectedError(
            f"{path}: multi-mount protection says that another host uses it: {protection}",
            "unmount it there",
        )


def clear_cut_short(path: str) -> None:
    """Take off the mark of a check that was cut short. Only for who holds the lock of the image.

    Raises:
        CommandError: tune2fs failed.
    """
    run(["tune2fs", "-f", "-E", "clear_mmp", path], die_with_us=True)
