"""Taking a snapshot of an image, while Docker runs or not.

A snapshot is one instant of the file system: it is frozen while it is copied, and thawed whatever happens (freeze.py).
It appears under its name only when it is whole, checked and synced (duplicating.py, publish.py).
"""

import contextlib
import os
from collections.abc import Iterator

from rpinfs.boot.config import Image
from rpinfs.boot.storage import Mount
from rpinfs.boot.units import RUNTIME_FOLDER
from rpinfs.image import door, freeze, hold, publish, replacing
from rpinfs.image.duplicating import Copied, Still, duplicate, unused
from rpinfs.image.errors import as_image_error
from rpinfs.image.freeze import LIMIT_SECONDS
from rpinfs.image.probe import probe, verify
from rpinfs.image.remedy import FOR_TWO
from rpinfs.image.snapshots import Snapshot, clear_up, free_path, time_of
from rpinfs.lease.lease import Owner
from rpinfs.system.files import open_regular, sync_folder
from rpinfs.system.run import Tell, silent


def take(
    image: Image,
    owner: Owner,
    progress: Tell = silent,
    *,
    freeze_limit: float = LIMIT_SECONDS,
    runtime: str = RUNTIME_FOLDER,
) -> Snapshot:
    """Take a snapshot of an image, whether it is mounted here or not. To be called by a process of one thread.

    Args:
        progress: told what is being done, in ASCII.
        freeze_limit: seconds for which the file system may be frozen; then the snapshot is given up.
        runtime: folder for the marker of what is frozen.

    Raises:
        RpinfsError: the image is not one or not ours, there is no room, or a step failed. Nothing is frozen, there is
            no snapshot, and the image is as it was.
    """
    mount = hold.mount_of(image)
    with (
        as_image_error(image.path, "no snapshot can be taken"),
        _held(image, mount, owner, freeze_limit, runtime, progress) as still,
    ):
        clear_up(image.path, progress)
        with publish.temporary(image.path, progress) as new:
            publish.take_ownership(new.fd, image.path, progress)
            with open_regular(image.path, os.O_RDONLY) as source:
                if mount is not None:
                    hold.refuse_another(image, mount, source)
                copied = duplicate(source, image.path, new, still, progress)
            path = _name(new, image.path, copied.seconds)
            allocated = os.fstat(new.fd).st_blocks * 512
        sync_folder(path)
    when = time_of(path) or copied.seconds
    _note(f"{runtime}/{image.name}.snapshot", when)
    return Snapshot(path, when, copied.size, allocated, _remarks(copied))


@contextlib.contextmanager
def _held(
    image: Image, mount: Mount | None, owner: Owner, limit: float, runtime: str, progress: Tell
) -> Iterator[Still]:
    """Have a hold on the image, and a way to keep it still: by freezing it, or because nobody uses it."""
    if mount is not None:
        door.refuse_taken(image.path, FOR_TWO, owner)
        with freeze.guarded(image.name, mount, limit, runtime) as freezer:
            yield freezer.frozen
    else:
        with hold.leased(image, owner, progress):
            replacing.settle(image.path)
            verify(probe(image.path))
            yield unused


def _name(new: publish.Temporary, image: str, seconds: int) -> str:
    """Give the snapshot the name of its second, or of the next that is free."""
    while True:
        path = free_path(image, seconds)
        # Somebody else may have taken it since.
        with contextlib.suppress(FileExistsError):
            publish.take_free_name(new, path)
            return path


def _note(path: str, when: int) -> None:
    """Tell the agent, which measures and does not ask the NAS for it, that there is a snapshot of this time."""
    with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
        file.write(f"{when}\n")


def _remarks(copied: Copied) -> tuple[str, ...]:
    if copied.clean is False:
        return ("the image had not been unmounted in order; e2fsck has put the snapshot right",)
    return ()
