"""Making images: a new file system beside the name that it will have, then the name, in one step (publish.py).

The rules that nothing here may break:

1. Only what is proven to hold no data is ever formatted, and not even that is written to: a new image is made
   beside it, whole, and then takes its name. Whatever fails on the way, the name means what it meant before.
2. Nothing is removed but what has the exact form of our temporary names and is nobody's work in progress.

So a power cut at any instant leaves under the name either what was there or a whole, synced, verified image,
and at most a temporary file `.NAME.rpinfs-new-*` beside it, which the next attempt knows as ours and removes.
"""

import contextlib
import os
from collections.abc import Callable

from rpinfs.boot.settings import BLOCK_SIZE, LARGEST_IMAGE, MIB, SMALLEST_IMAGE, TIB, human_size
from rpinfs.boot.storage import uuid_text
from rpinfs.boot.values import dataclass, replace
from rpinfs.image import door, publish
from rpinfs.image.errors import ImageError, as_image_error
from rpinfs.image.probe import Kind, Probe, absolute, probe, refuse_attached, stamp_of, verify
from rpinfs.lease import memory
from rpinfs.system.files import open_regular, sync_folder
from rpinfs.system.run import CommandError, Tell, run, silent

# --- Kinds of file systems ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Maker:
    """One kind of file system that we make.

    Attributes:
        label_length: bytes.
        room: bytes that it takes on the share at once or when first used: metadata and journal, by size.
        argv: the command, by (path, size, label, uuid, whether it is to have multi-mount protection).
        in_memory: whether it writes many zeros, which the share need not get: made in memory, and the rest is sent.
        verify: the check that a fresh one must pass without a single remark.
    """

    label_length: int
    room: Callable[[int], int]
    argv: Callable[[str, int, str, str, bool], list[str]]
    in_memory: bool
    verify: Callable[[str], list[str]]


# Every choice is stated, so that an image does not depend on the mke2fs.conf of the machine that made it.
# Not among the features: orphan_file and metadata_csum_seed, which Debian 13 would add. They gain nothing here,
# and an older e2fsck on the NAS should be able to check the image. Nor fast_commit, with which an fsync sends
# less: after most power cuts neither e2fsck 1.47 nor Linux brings it up again (tests/lab/test_crash_instants.py).
EXT4_FEATURES = (
    "has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)

# Sizes of file systems below which mke2fs chooses this journal (ext2fs_default_journal_size()), in MiB each.
_JOURNALS = ((128, 4), (1024, 16), (2048, 32), (16384, 64), (32768, 128), (65536, 256), (131072, 512))


def _ext4_journal(size: int) -> int:
    """Size of the journal in bytes."""
    return next((journal for below, journal in _JOURNALS if size < below * MIB), 1024) * MIB


def _ext4_room(size: int) -> int:
    """The journal, and a bound on what mkfs writes: 0.8 MB at 10 GiB, 16 MB at 1 TiB, 224 MB at 15 TiB."""
    return _ext4_journal(size) + 8 * MIB + size // 65536


def _ext4_grows_to(size: int) -> int:
    """Bytes up to which it grows with the group descriptors at its beginning, room for which mkfs writes in zeros.

    By default that is for a thousand times its size, 4.2 MB at 10 GiB. Beyond this the kernel goes on with descriptors
    in the groups themselves (meta_bg), and gives up the reserve.
    """
    return max(TIB, 16 * size)


def _ext4_argv(path: str, size: int, label: str, identity: str, mmp: bool) -> list[str]:
    """The file is a hole, so its zeros need not be written (assume_storage_prezeroed); a second -E would
    replace the first. -F: mke2fs wants to be asked to write into a file; that it is ours we know.
    """
    extended = f"assume_storage_prezeroed=1,nodiscard,root_owner=0:0,resize={_ext4_grows_to(size) // BLOCK_SIZE}"
    return [
        *("mkfs.ext4", "-F", "-q", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-e", "remount-ro"),
        *("-O", f"none,{EXT4_FEATURES}{',mmp' * mmp}", "-J", f"size={_ext4_journal(size) // MIB}"),
        *("-L", label, "-U", identity, "-E", extended, path),
    ]


# The least that mkfs makes. From 128 GiB on it would make a 2048th of the size, all of which is written to in turn.
_XFS_LOG = 64 * MIB


def _xfs_room(_size: int) -> int:
    """The log, of which the share gets what is used, and a little."""
    return _XFS_LOG + 8 * MIB


def _xfs_argv(path: str, _size: int, label: str, identity: str, _mmp: bool) -> list[str]:
    return [
        "mkfs.xfs",
        "-q",
        "-K",
        "-s",
        "size=4096",
        "-b",
        "size=4096",
        "-l",
        f"size={_XFS_LOG}",
        "-m",
        f"uuid={identity}",
        "-L",
        label,
        path,
    ]


_MAKERS = {
    "ext4": _Maker(16, _ext4_room, _ext4_argv, False, lambda path: ["e2fsck", "-f", "-n", path]),
    "xfs": _Maker(12, _xfs_room, _xfs_argv, True, lambda path: ["xfs_repair", "-n", "-f", path]),
}


# --- Making ------------------------------------------------------------------------------------------------


def create(
    path: str,
    size: int,
    filesystem: str = "ext4",
    *,
    label: str | None = None,
    mmp: bool = False,
    progress: Tell = silent,
) -> Probe:
    """Make an image under a name that is free or blank. All or nothing, whatever happens.

    Args:
        size: bytes; a blank file that has a length keeps that.
        filesystem: "ext4" or "xfs".
        label: cut to the 16 or 12 bytes that the file system has room for; by default the file's name.
        mmp: give it ext4's multi-mount protection, so that it never has its name without; nothing to xfs.
        progress: told what is being done, in ASCII.

    Raises:
        ImageError: there is something under the name, no room, a size out of bounds, or a step failed. The
            name means what it meant before.
    """
    if filesystem not in _MAKERS:
        raise ImageError(f"{filesystem}: expected ext4 or xfs")
    path = absolute(path)
    return make(probe(path, progress), size, filesystem, label=label, mmp=mmp, progress=progress)


def create_by_hand(path: str, size: int, filesystem: str, *, label: str | None, progress: Tell = silent) -> Probe:
    """As create(), of an image that is nobody's or this machine's; then it counts as verified (memory.py).

    Raises:
        ImageError: as create(); or another Pi has it.
    """
    path = absolute(path)
    remedy = "have the Pi that has it give it up, by rpinfs release with the name of its [Image] section"
    with door.opened(path, remedy) as held:
        made = create(path, size, filesystem, label=label, progress=progress)
        if held is not None and (not_kept := memory.made_anew(path, made.uuid or "", held)):
            progress(not_kept)
        return made


def make(
    target: Probe, size: int, filesystem: str, *, label: str | None, mmp: bool = False, progress: Tell = silent
) -> Probe:
    """As create(), where a look a moment ago has shown what is under the name."""
    path, maker = target.path, _MAKERS[filesystem]
    _refuse_occupied(target)
    size = target.size or size
    _refuse_size(path, size, filesystem)
    with as_image_error(path, "cannot be made"):
        publish.remove_leftovers(path, progress)
        publish.refuse_without_room(path, maker.room(size), "for a new file system")
        with publish.temporary(path, progress) as temporary:
            if target.kind is Kind.BLANK:
                publish.take_ownership(temporary.fd, path, progress)
            os.ftruncate(temporary.fd, size)
            identity = _random_uuid()
            progress(f"formatting {human_size(size)} with {filesystem}")
            fitting = _fitting(label, path, maker)
            _format(maker, temporary, lambda where: maker.argv(where, size, fitting, identity, mmp))
            os.fsync(temporary.fd)
            progress("verifying the new file system")
            made = prove_whole(temporary, size, identity, maker.verify(temporary.path))
            _publish(temporary, target)
        sync_folder(path)
        return replace(made, path=path, stamp=stamp_of(os.lstat(path)))


def _format(maker: _Maker, temporary: publish.Temporary, argv: Callable[[str], list[str]]) -> None:
    """Make the file system, by a command of which only the path is open. Raises OSError, CommandError."""
    made = _in_memory(argv, os.fstat(temporary.fd).st_size) if maker.in_memory else None
    if made is None:
        run(argv(temporary.path), die_with_us=True)
        return
    from rpinfs.image import copying

    try:
        copying.copy(made, f"/proc/self/fd/{made}", temporary.fd, silent)
    finally:
        os.close(made)


def _in_memory(argv: Callable[[str], list[str]], size: int) -> int | None:
    """A new file system, open, in a file in memory; None where there is too little of that."""
    made = None
    try:
        made = os.memfd_create("new file system")
        os.ftruncate(made, size)
        run(argv(f"/proc/self/fd/{made}"), pass_fds=(made,), die_with_us=True)
    except (OSError, CommandError):
        if made is not None:
            os.close(made)
        return None
    return made


def _random_uuid() -> str:
    """A UUID of version 4 (RFC 9562): all random but the six bits that say so."""
    data = bytearray(os.urandom(16))
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    return uuid_text(bytes(data))


def room_needed(size: int, filesystem: str = "ext4") -> int:
    """Bytes that must be free on the share for an image of this size to be made."""
    return _MAKERS[filesystem].room(size)


def _refuse_occupied(target: Probe) -> None:
    if target.kind not in (Kind.MISSING, Kind.BLANK):
        # It may be ours, of an attempt that was killed between its last two steps.
        with contextlib.suppress(OSError):
            publish.remove_second_names(target.path)
        raise ImageError(
            f"{target.path}: expected nothing or a blank file, found {target.description}; it is left alone",
            target.remedy,
        )
    if target.kind is Kind.BLANK:
        refuse_attached(target.path)


def _refuse_size(path: str, size: int, filesystem: str) -> None:
    smallest = SMALLEST_IMAGE[filesystem]
    if not smallest <= size <= LARGEST_IMAGE:
        raise ImageError(
            f"{path}: expected a size from {human_size(smallest)} to {human_size(LARGEST_IMAGE)} for {filesystem}, "
            f"found {human_size(size)}"
        )


def _fitting(label: str | None, path: str, maker: _Maker) -> str:
    wanted = label if label is not None else os.path.splitext(os.path.basename(path))[0]
    return wanted.encode()[: maker.label_length].decode("utf-8", "ignore")


# --- Proof and publication ---------------------------------------------------------------------------------


def prove_whole(temporary: publish.Temporary, size: int, identity: str | None, checker: list[str] | None) -> Probe:
    """Read a new file system back from where it is stored, and have it checked.

    Args:
        size: of the file, in bytes.
        identity: UUID of the file system.
        checker: a program that must succeed.

    Raises:
        ImageError: it is not what was written.
        CommandError: the program did not succeed.
    """
    os.posix_fadvise(temporary.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    made = probe(temporary.path)
    if (made.uuid, made.size) != (identity, size):
        raise ImageError(
            f"{temporary.path}: expected {size} bytes with file system {identity}, "
            f"found {made.size} bytes with {made.description} {made.uuid or ''}".rstrip()
        )
    verify(made)
    if checker:
        run(checker, die_with_us=True)
    return made


def _publish(new: publish.Temporary, target: Probe) -> None:
    """Give the whole image its name, in one step, without ever replacing data."""
    if target.kind is Kind.BLANK:
        _replace_blank(new, target)
        return
    try:
        publish.take_free_name(new, target.path)
    except FileExistsError:
        raise ImageError(f"{target.path}: somebody else made it in the meantime; it is left alone") from None


def _replace_blank(temporary: publish.Temporary, blank: Probe) -> None:
    """Take the name of a blank file that is, to the last time stamp, the one that was proven blank."""
    try:
        with open_regular(blank.path, os.O_RDONLY) as fd:  # Opening makes an NFS client ask the server again.
            stamp = stamp_of(os.fstat(fd))
    except OSError:
        stamp = ()
    if stamp != blank.stamp:
        raise ImageError(f"{blank.path}: it changed while its file system was made; it is left alone")
    refuse_attached(blank.path)
    os.rename(temporary.path, blank.path)
