"""The boot files of an image, copied out of its FAT by mtools.

Not mounted: the kernel of a NAS, or of a container on one, often has no vfat. FAT has neither owners nor links.
"""

from __future__ import annotations

import errno
import os
import re

from rpinfs.errors import RpinfsError
from rpinfs.netboot.add.copying import refuse_without_bytes
from rpinfs.netboot.add.partitions import Partition
from rpinfs.netboot.add.unpack import ImageError, ImageFile
from rpinfs.system.files import walk
from rpinfs.system.run import CommandError, Completed, run
from rpinfs.system.trouble import REMEDIES

_TOTAL = re.compile(r"^ *\d+ files? +([\d ]+) bytes", re.MULTILINE)


def copy_out(image: ImageFile, one: Partition, target: str) -> tuple[int, int]:
    """Copy all that is in a FAT into an empty folder; returns the number of files and folders, and bytes.

    Raises:
        ImageError: the FAT cannot be read, or the copy lacks something.
        RpinfsError: there is no room.
    """
    names = {
        line.removeprefix("::/").rstrip("/") for line in _mtools(image, one, "mdir", "-/", "-a", "-b").splitlines()
    }
    names.discard("")
    totals = _TOTAL.findall(_mtools(image, one, "mdir", "-/", "-a"))
    size = int(totals[-1].replace(" ", "")) if totals else 0
    refuse_without_bytes(target, size, "the boot files")
    try:
        _mtools(image, one, "mcopy", "-s", "-m", "-n", "-Q", target=target)
    except CommandError as error:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            if os.strerror(number) in error.stderr:
                raise RpinfsError(f"{target}: {os.strerror(number)}", REMEDIES[number]) from error
        raise
    copied = {
        f"{folder}/{name}"[len(target) + 1 :] for folder, folders, files in walk(target) for name in (*folders, *files)
    }
    if missing := names - copied:
        raise ImageError(f"{image.path}: {min(missing)} of partition {one.number} was not copied")
    run(["sync", "--file-system", target], die_with_us=True)
    return len(names), size


def _mtools(image: ImageFile, one: Partition, program: str, *options: str, target: str = "") -> str:
    # The geometry that a FAT claims is from another time, and often wrong.
    source = f"/proc/self/fd/{image.fd}@@{one.offset}"
    argv = [program, *options, "-i", source, *(["::*", target] if target else ["::"])]
    try:
        done: Completed = run(argv, pass_fds=[image.fd], env={"MTOOLS_SKIP_CHECK": "1"}, die_with_us=True)
    except CommandError as error:
        if error.returncode is None or target:
            raise
        raise ImageError(
            f"{image.path}: the boot files in partition {one.number} cannot be read: {error.reason}",
            "fetch the image again",
        ) from error
    return done.stdout
