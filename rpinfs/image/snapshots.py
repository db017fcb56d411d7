"""The snapshots of an image: their names, their list, and deleting one. Taking is in taking.py, restoring.py puts back.

A snapshot is a whole image beside the image, `IMAGE.snapshot-YYYYMMDDTHHMMSSZ`. What a restore has replaced is one,
too; the record `.SNAPSHOT.rpinfs-replaced` beside it says so (replacing.py). The first version of rpinfs called that
`IMAGE.replaced`: it is listed, and can be restored and removed as any other.

The rules that nothing here may break:

1. Nobody writes to a snapshot, or opens one for writing.
2. A snapshot goes when a person asks for it by its name, and never by itself.
3. Whoever can write to the share can put anything under such a name: a link, another name of an image, a pipe. That
   is told of, and neither opened nor removed.
"""

import calendar
import contextlib
import os
import stat
import time
from shlex import quote

from rpinfs.boot.config import Image
from rpinfs.boot.settings import REPLACED, SNAPSHOT_MARK
from rpinfs.boot.values import dataclass, field
from rpinfs.errors import RpinfsError, quoted
from rpinfs.image import door, hold, names, publish, replacing
from rpinfs.image.errors import ImageError, as_image_error
from rpinfs.image.probe import refuse_attached
from rpinfs.image.remedy import FOR_TWO
from rpinfs.image.signature import describe_special
from rpinfs.lease.lease import Owner
from rpinfs.system.files import NoLocks, lock, open_regular, remove_own_leftovers, sync_folder
from rpinfs.system.run import Tell, silent

_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of an image.

    Attributes:
        path: of its file.
        time: when it was taken, by the clock of the NAS, in seconds since 1970.
        size: length in bytes.
        allocated: bytes that it takes on the NAS; blocks that it shares with the image count for both.
        remarks: what a person should know about how it was taken.
        origin: where it was not taken but is what a restore has replaced: that, in words.
    """

    path: str
    time: int
    size: int
    allocated: int
    remarks: tuple[str, ...] = ()
    origin: str = ""

    @property
    def name(self) -> str:
        """Name of its file."""
        return os.path.basename(self.path)

    @property
    def when(self) -> str:
        """The time for people."""
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.time))


@dataclass(frozen=True)
class Listing:
    """What has the names of snapshots of one image.

    Attributes:
        snapshots: the oldest first.
        odd: sentences on what only has such a name, by path.
    """

    snapshots: list[Snapshot] = field(default_factory=list)
    odd: dict[str, str] = field(default_factory=dict)

    def leave_alone(self, path: str, found: str) -> None:
        """Add a sentence on what is odd."""
        self.odd[path] = f"{path}: expected a snapshot, found {found}; it is left alone"


# --- Names -------------------------------------------------------------------------------------------------


def time_of(path: str) -> int | None:
    """The time in the name of a snapshot; None where it is none, or no calendar has it."""
    image, mark, when = path.rpartition(SNAPSHOT_MARK)
    if not mark or not names.snapshot_form(image).fullmatch(os.path.basename(path)):
        return None
    try:
        return calendar.timegm(time.strptime(when, _TIME))
    except ValueError:
        return None


def free_path(image: str, seconds: int) -> str:
    """Path of a snapshot of this time, or of the next second of which there is nothing. Raises OSError."""
    while True:
        path = image + SNAPSHOT_MARK + time.strftime(_TIME, time.gmtime(seconds))
        if not os.path.lexists(path) and not os.path.lexists(names.record_of(path)):
            return path
        seconds += 1


# --- Listing -----------------------------------------------------------------------------------------------


def snapshots(path: str) -> Listing:
    """The snapshots of the image with this path. Raises OSError."""
    folder, name = os.path.split(path)
    entries = set(os.listdir(folder))
    image = _status(path)
    found = Listing()
    for entry in sorted(entries):
        is_snapshot = names.snapshot_form(path).fullmatch(entry) and time_of(entry) is not None
        if is_snapshot or entry == name + REPLACED:
            record = os.path.basename(names.record_of(f"{folder}/{entry}"))
            _add(found, f"{folder}/{entry}", image, has_record=record in entries)
    found.snapshots.sort(key=lambda one: (one.time, one.name))
    return found


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _add(found: Listing, path: str, image: os.stat_result | None, *, has_record: bool) -> None:
    """Add what has such a name to the list; but not the empty file of an attempt that was interrupted."""
    status = _status(path)
    if status is None:
        return
    if not stat.S_ISREG(status.st_mode):
        found.leave_alone(path, describe_special(path, status.st_mode))
    elif image is not None and os.path.samestat(status, image):
        found.leave_alone(path, "another name of the image itself")
    elif status.st_nlink > 1:
        found.leave_alone(path, f"a file that has {status.st_nlink} names (hard links)")
    elif status.st_size:
        found.snapshots.append(_snapshot(path, status, _origin(path, found) if has_record else ""))


def _snapshot(path: str, status: os.stat_result, origin: str) -> Snapshot:
    taken = time_of(path)
    if taken is None:
        taken, origin = int(status.st_mtime), "replaced by a restore of an earlier version of rpinfs"
    return Snapshot(path, taken, status.st_size, status.st_blocks * 512, origin=origin)


def _origin(path: str, found: Listing) -> str:
    """What the record beside a snapshot says; an odd one is told of."""
    try:
        record = replacing.read(path.rpartition(SNAPSHOT_MARK)[0], names.record_of(path))
    except RpinfsError as odd:
        found.odd[names.record_of(path)] = f"{odd.message}; it is left alone"
        return ""
    return f"replaced by restore of {record.of}" if record else ""


def find(image: Image, which: str, listing: Listing) -> Snapshot:
    """The snapshot that a person means: by the name of its file, or by the time at the end of that. Pure.

    Raises:
        ImageError: there is none, or what has the name is none.
    """
    for snapshot in listing.snapshots:
        if which in _words_for(snapshot.path):
            return snapshot
    for path, sentence in listing.odd.items():
        if which in _words_for(path):
            # Not find -samefile, which waits for whoever writes into a pipe.
            raise ImageError(sentence, f"ls -lid {quote(path)}; ls -li {quote(os.path.dirname(path))}")
    known = ", ".join(snapshot.name for snapshot in listing.snapshots) or "none"
    raise ImageError(
        f"{image.path}: no snapshot {which}; there are: {known}", f"rpinfs snapshot --list {quoted(image.name)}"
    )


def _words_for(path: str) -> tuple[str, ...]:
    return path, os.path.basename(path), path.rpartition(SNAPSHOT_MARK)[2]


# --- Deleting ----------------------------------------------------------------------------------------------


def delete(image: Image, owner: Owner, which: str, progress: Tell = silent) -> Snapshot:
    """Delete a snapshot of an image, whether that is mounted or not.

    Args:
        which: as find() has it.

    Raises:
        RpinfsError: there is no such snapshot, it is attached or locked, or the image is not ours. It is still there.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(as_image_error(image.path, "the snapshot cannot be deleted"))
        if hold.mount_of(image) is not None:
            door.refuse_taken(image.path, FOR_TWO, owner)
        else:
            stack.enter_context(hold.leased(image, owner, progress))
            # What an interrupted restore calls a snapshot may be the image, and its only name.
            replacing.settle(image.path)
        wanted = find(image, which, snapshots(image.path))
        refuse_attached(wanted.path)
        _unlink(wanted.path)
        _remove_stray_record(image.path, wanted.path)
        sync_folder(image.path)
    return wanted


def _unlink(path: str) -> None:
    """Remove a file that nobody has locked. NFS locks only what is open for writing; it is not written to."""
    with open_regular(path, os.O_RDWR) as fd:
        try:
            if not lock(fd):
                raise ImageError(f"{path}: is in use: somebody has locked it", "wait for what uses it to end")
        except NoLocks:
            pass
        if not publish.is_named(path, fd) or os.fstat(fd).st_nlink > 1:
            raise ImageError(f"{path}: has changed meanwhile", "try again")
        os.unlink(path)


def clear_up(path: str, progress: Tell) -> None:
    """Remove what interrupted attempts have left beside an image, and nothing else. Only for who holds it.

    That is working files; records beside snapshots that are no more; and, on a share without links, the empty files
    by which names are claimed.

    Raises:
        OSError: the folder cannot be read, or what is ours cannot be removed.
    """
    publish.remove_leftovers(path, progress)
    remove_own_leftovers(names.record_of(path))
    folder = os.path.dirname(path)
    entries = set(os.listdir(folder))
    for entry in entries:
        snapshot = entry.removeprefix(".").removesuffix(".rpinfs-replaced")
        if not names.snapshot_form(path).fullmatch(snapshot):
            continue
        if entry == snapshot:
            _remove_claim(f"{folder}/{entry}")
        elif snapshot not in entries:
            _remove_stray_record(path, f"{folder}/{snapshot}")


def _remove_claim(path: str) -> None:
    status = _status(path)
    if status is not None and stat.S_ISREG(status.st_mode) and not status.st_size:
        os.unlink(path)


def _remove_stray_record(image: str, snapshot: str) -> None:
    # One that stays does no harm: no snapshot gets a name beside which there is one.
    with contextlib.suppress(RpinfsError, OSError):
        if replacing.read(image, names.record_of(snapshot)):
            os.unlink(names.record_of(snapshot))
