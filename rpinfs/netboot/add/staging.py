"""A board gets its names when it is whole, and all of them or none, whatever kills us.

1.  Root and boot files are made in folders of ours, `.NAME.rpinfs-new-DIGITS`, beside where they will be. Whoever is
    killed here has left folders that the next attempt knows by their form, and removes.
2.  All is synced; then the record gets its name. From here on the board is made: it says which digits are `staged`.
3.  The root gets its name, and last the boot folder: it is what makes a Pi boot.
4.  The record is written once more, without `staged`.

Whoever is killed after 2 has left a board that lacks nothing but names: the next attempt gives them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rpinfs.boot.storage import parse_mountinfo
from rpinfs.errors import RpinfsError, quoted
from rpinfs.image.publish import is_named
from rpinfs.netboot.add import record as records
from rpinfs.netboot.add.record import Record
from rpinfs.system import files
from rpinfs.system.run import run
from rpinfs.system.syscalls import rename_to_free_name

_DIGITS = 8
_ELSEWHERE = (errno.EINVAL, errno.ENOSYS)
"""What renaming to a free name says on network file systems, and on old kernels."""


@dataclass(frozen=True)
class Place:
    """Where a board goes: `roots` and `tftp` are folders, `name` and `folder` what it is called in them."""

    roots: str
    name: str
    tftp: str
    folder: str

    @property
    def root(self) -> str:
        """Path of its root."""
        return f"{self.roots}/{self.name}"

    @property
    def boot(self) -> str:
        """Path of its boot files."""
        return f"{self.tftp}/{self.folder}"

    def staged(self, digits: str) -> tuple[str, str]:
        """The folders in which root and boot files are made."""
        return f"{self.roots}/.{self.name}.rpinfs-new-{digits}", f"{self.tftp}/.{self.name}.rpinfs-new-{digits}"


@dataclass(frozen=True)
class Staging:
    """Folders for a board in the making: `root` and `boot` become what they are called; `mounts` is for mounts."""

    place: Place
    digits: str

    @property
    def root(self) -> str:
        """Path of the root in the making."""
        return f"{self.place.staged(self.digits)[0]}/root"

    @property
    def boot(self) -> str:
        """Path of the boot files in the making."""
        return f"{self.place.staged(self.digits)[1]}/boot"

    def mount_point(self, name: str) -> str:
        """A folder to mount something at, for as long as the board is in the making."""
        return f"{self.place.staged(self.digits)[0]}/{name}"


@contextlib.contextmanager
def alone(place: Place) -> Iterator[None]:
    """Be the only one who makes this board, as far as the file systems know locks. Raises RpinfsError, OSError.

    In both folders: who makes one of this name below other roots may have the same TFTP folder.
    """
    with _locked(f"{place.roots}/.{place.name}.rpinfs-lock", place), contextlib.ExitStack() as stack:
        if place.tftp != place.roots:
            stack.enter_context(_locked(f"{place.tftp}/.{place.name}.rpinfs-lock", place))
        yield


@contextlib.contextmanager
def _locked(path: str, place: Place) -> Iterator[None]:
    fd = files.open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        with contextlib.suppress(files.NoLocks):
            if not files.lock(fd) or not is_named(path, fd):
                raise RpinfsError(f"{place.name}: another rpinfs is making it at this moment", "wait for its end")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
    finally:
        os.close(fd)


def settle(place: Place) -> Record | None:
    """Complete what an interrupted attempt has made, and remove what it had not; for who is alone.

    Returns:
        the record of the board, where there is one.

    Raises:
        RpinfsError: the record is none, or a name that the board was to get means something else by now.
        OSError: the file systems failed.
    """
    found = records.read(place.roots, place.name)
    if found and found.staged:
        tftp, folder = os.path.split(found.boot)
        if tftp != place.tftp:
            raise RpinfsError(
                f"{place.name}: was interrupted when it was whole, but for its name in {tftp}",
                f"run it again with: --tftp {quoted(tftp)}",
            )
        found = _give_names(replace(place, folder=folder), found)
    _remove_leftovers(place)
    files.remove_own_leftovers(records.path_of(place.roots, place.name))
    return found


def _remove_leftovers(place: Place) -> None:
    """Remove what interrupted attempts to make a board have left. Raises RpinfsError, OSError.

    What is in the TFTP folder is theirs where these roots have its other half: the folder may serve other roots, in
    which a whole board of the same name waits for its names. So roots are made first and removed last.
    """
    ours = re.compile(rf"\.{re.escape(place.name)}\.rpinfs-new-([0-9a-f]{{{2 * _DIGITS}}})")
    for entry in os.listdir(place.roots):
        if match := ours.fullmatch(entry):
            _remove_staged(place, match[1])


def _remove_staged(place: Place, digits: str) -> None:
    for folder in reversed(place.staged(digits)):
        if os.path.lexists(folder):
            _remove(folder)


def _remove(folder: str) -> None:
    """Remove a folder of ours, unless something is mounted in it: what that is would go with it."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        mounts = [mount.where for mount in parse_mountinfo(file.read())]
    busy = [where for where in mounts if f"{where}/".startswith(f"{os.path.realpath(folder)}/")]
    if busy:
        raise RpinfsError(
            f"{folder}: cannot be removed: {busy[0]} is mounted", f"see what it is, then: umount {quoted(busy[0])}"
        )
    if os.path.isdir(folder) and not os.path.islink(folder):
        # rm goes as deep as there are folders (Python 3.11 does not), and into nothing that is mounted meanwhile.
        run(["rm", "--recursive", "--force", "--one-file-system", "--", folder], die_with_us=True)


def refuse_taken(place: Place, found: Record | None) -> None:
    """Insist that nothing has the names of a board. Raises RpinfsError."""
    if found is not None:
        raise RpinfsError(
            f"{place.name}: there is a board of this name already, made of {found.source}", records.listed(place.roots)
        )
    for path in (place.root, place.boot):
        if os.path.lexists(path):
            raise RpinfsError(
                f"{path}: is there already", f"choose another name, or move it away: {files.move_away(path)}"
            )


@contextlib.contextmanager
def staging(place: Place) -> Iterator[Staging]:
    """Empty folders for root and boot files; what did not get its name is gone afterwards. Raises OSError."""
    made = Staging(place, os.urandom(_DIGITS).hex())
    outer = place.staged(made.digits)
    try:
        for folder in outer:
            os.mkdir(folder, 0o700)
            files.sync_folder(folder)
        for folder in (made.root, made.boot):
            os.mkdir(folder, 0o755)
        yield made
    finally:
        found = None
        with contextlib.suppress(OSError, RpinfsError):
            found = records.read(place.roots, place.name)
        # Once the record names them, they are the board.
        if found is None or found.staged != made.digits:
            _remove_staged(place, made.digits)


def publish(made: Staging, record: Record) -> Record:
    """Make a board that is whole and synced be there, under its names. Raises RpinfsError, OSError."""
    staged = replace(record, staged=made.digits)
    records.write(made.place.roots, staged)
    return _give_names(made.place, staged)


def _give_names(place: Place, staged: Record) -> Record:
    outer = place.staged(staged.staged)
    names = ((f"{outer[0]}/root", place.root), (f"{outer[1]}/boot", place.boot))
    # Both before the first: a board whose number another one has by now is not left with half of its names.
    for source, target in names:
        if os.path.lexists(source) and os.path.lexists(target):
            raise _taken(source, target, place)
    for source, target in names:
        _give_name(source, target, place)
        files.sync_folder(target)
    done = replace(staged, staged="")
    records.write(place.roots, done)
    _remove_staged(place, staged.staged)
    return done


def _give_name(source: str, target: str, place: Place) -> None:
    if not os.path.lexists(source):
        if os.path.isdir(target):
            return  # It has it already.
        raise RpinfsError(
            f"{target}: expected what an earlier attempt has made, found neither it nor {source}",
            f"to make the board anew: {files.move_away(records.path_of(place.roots, place.name))}",
        )
    try:
        try:
            rename_to_free_name(source, target)
        except OSError as error:
            if error.errno not in _ELSEWHERE:
                raise
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
            os.rename(source, target)
    except FileExistsError as error:
        raise _taken(source, target, place) from error


def _taken(source: str, target: str, place: Place) -> RpinfsError:
    """What has the name of a board's root or boot files, while they wait for it."""
    if (owner := _board_of(target, place)) is not None:
        record = records.path_of(place.roots, place.name)
        return RpinfsError(
            f"{target}: is {owner}'s by now, and a serial number is one board's; {place.name} waits in {source}",
            f"see whose number it is; to make {place.name} anew: {files.move_away(record)}",
        )
    return RpinfsError(
        f"{target}: was made by somebody else meanwhile; the board waits in {source}",
        f"move it away, and then add it again: {files.move_away(target)}",
    )


def _board_of(boot: str, place: Place) -> str | None:
    """Name of the other board below these roots that a folder with boot files belongs to; None where nobody says so."""
    for name, record in records.all_in(place.roots):
        if (
            isinstance(record, Record)
            and name != place.name
            and os.path.realpath(record.boot) == os.path.realpath(boot)
        ):
            return name
    return None
