"""Whether a board's root can be mounted from the NAS, is a root, and is written to as root: rule 30.

In the order of a boot, as user 0 from this machine: exports for single addresses may treat the board otherwise.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rpinfs.boot.settings import is_ipv4
from rpinfs.errors import quoted
from rpinfs.netboot import clock, nfs
from rpinfs.netboot.finding import Gravity
from rpinfs.netboot.judge import Remark
from rpinfs.netboot.read.exports import path_text
from rpinfs.netboot.rpc import SECONDS, NoPortError, RpcError

LONGEST_SKEW = 60.0
"""Seconds. A Pi without a clock of its own takes the time of its root until NTP answers."""

SLOW_SECONDS = 0.5
_OTHERS = 0o007
_EXPORT = "(rw,sync,no_subtree_check,no_root_squash)"


@dataclass(frozen=True)
class Source:
    """What a command line asks for.

    Attributes:
        version: "3", "4.0", ... as the kernel takes it.
        init: what the kernel starts in the root.
        delegations: whether the client may ask for those of folders, as Linux 6.19 and later do.
    """

    server: str
    path: str
    version: str
    init: str = "/sbin/init"
    delegations: bool = True

    @property
    def minor(self) -> int:
        """Of NFS 4."""
        return int(self.version.partition(".")[2] or 0)


def look_at(
    source: Source, interface: str = "", write: bool = False, write_seconds: float = nfs.WRITE_SECONDS
) -> Iterator[Remark]:
    """What keeps a board from its root, or is odd about it.

    Args:
        write: whether a file may be made in the root, and removed.
        write_seconds: for each call where one is.
    """
    if not is_ipv4(source.server):
        message = f"nfsroot= names {source.server[:64]!r}: a kernel without an initramfs knows no names"
        yield Remark(30, Gravity.FAULT, message, "write the address of the NAS into cmdline.txt")
        return
    try:
        offered = nfs.offered(source.server, interface)
        if source.version not in offered:
            here = ", ".join(offered) or "none that a Pi speaks"
            message = f"{source.server} serves NFS, but not version {source.version} (it offers {here})"
            remedy = f"switch NFS {source.version} on on {source.server}, or write another vers= into cmdline.txt"
            yield Remark(30, Gravity.FAULT, message, remedy)
            return
        with _opened(source, interface) as nas:
            yield from _look_inside(nas, source)
        if write:
            # NFS 4.0 opens files in more steps: what 4.1 or 3 tell of the same folder is as true.
            able = next(version for version in ("4.1", "4.2", "3", "4.0") if version in offered)
            with _opened(replace(source, version=able), interface, write_seconds) as nas:
                yield from _on_writing(nas, source)
    except nfs.StatusError as error:
        message = f"{source.server} does not give {source.path} to this machine: {error.message}"
        yield Remark(
            30, Gravity.FAULT, message, f"export it on {source.server}: {path_text(source.path)}  NETWORK{_EXPORT}"
        )
    except NoPortError as error:
        yield Remark(30, Gravity.FAULT, error.message, "see who has them on this machine, and ask again: ss -tan")
    except RpcError as error:
        yield Remark(30, Gravity.FAULT, error.message, f"start the NFS server on {source.server}")
    yield from _on_clock(source.server, clock.skew(source.server, interface))


def _opened(source: Source, interface: str, seconds: float = SECONDS) -> nfs.Nas:
    if source.version == "3":
        return nfs.Mount(source.server, interface, seconds)
    return nfs.Session(source.server, source.minor, interface, seconds)


def _look_inside(nas: nfs.Nas, source: Source) -> Iterator[Remark]:
    top = nas.handle(source.path)
    where = f"{source.server}:{source.path}"
    if not (_is_there(nas, top, "etc") and _is_there(nas, top, "usr")):
        message = f"{where} holds no root: etc or usr is not in it"
        yield Remark(30, Gravity.FAULT, message, f"on {source.server}: copy the root of the image to {source.path}")
        return
    rights = list(_on_rights(nas, top, where, source))
    yield from rights
    if not rights:
        yield from _on_init(nas, top, where, source)


def _is_there(nas: nfs.Nas, top: bytes, path: str) -> bool:
    try:
        nas.handle(path, top)
    except nfs.StatusError as error:
        if error.why == nfs.NOT_THERE:
            return False
        raise
    return True


_MOST_LINKS = 40
_FIRST_BYTES = 4096
"""More than two frames hold: what a Pi reads all the time."""

_ARM, _ARM_64 = 40, 183
_MACHINES = {3: "x86", 62: "x86-64", 8: "MIPS", 21: "PowerPC", 243: "RISC-V"}
"""By their numbers in an ELF file (elf(5), e_machine)."""


def _followed(nas: nfs.Nas, top: bytes, path: str) -> tuple[bytes, nfs.Attributes] | None:
    """A file of the root and what it is, links followed as in a root that is /; None: it is not there."""
    folders, found, links = [top], nas.attributes(top), 0
    todo = path.split("/")[::-1]
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            folders = folders[:-1] or [top]
            continue
        if not _is_there(nas, folders[-1], part):
            return None
        here = nas.handle(part, folders[-1])
        found = nas.attributes(here)
        if found.kind != nfs.LINK:
            folders.append(here)
            continue
        links += 1
        if links > _MOST_LINKS:
            return None
        target = nas.target(here)
        folders = [top] if target.startswith("/") else folders
        todo += target.split("/")[::-1]
    return folders[-1], found


def _on_init(nas: nfs.Nas, top: bytes, where: str, source: Source) -> Iterator[Remark]:
    """The first program: there, to be started, for the processor of a Pi, and read in answers of some length."""
    whole = f"on {source.server}: copy the root of the image to {source.path}, with its links (cp -a keeps them)"
    found = _followed(nas, top, source.init)
    if found is None or found[1].kind != nfs.FILE:
        message = f"{where}: {source.init} is not in it: the kernel has nothing to start, and panics"
        yield Remark(30, Gravity.FAULT, message, whole)
        return
    file, attributes = found
    if not attributes.mode & 0o111:
        message = f"{where}: {source.init} may not be executed (mode {attributes.mode & 0o7777:04o}): the kernel panics"
        yield Remark(30, Gravity.FAULT, message, whole)
        return
    try:
        head = nas.beginning(file, _FIRST_BYTES)
    except nfs.StatusError:
        raise
    except RpcError as error:
        message = f"{where}: short answers come, and one of {_FIRST_BYTES} bytes does not ({error.message})"
        yield Remark(30, Gravity.FAULT, message, f"look for what takes no frames of 1500 bytes: {_FRAMES}")
        return
    machine = int.from_bytes(head[18:20], "little") if head[:4] == b"\x7fELF" else _ARM_64
    if machine not in (_ARM, _ARM_64):
        message = f"{where}: {source.init} is for another processor ({_MACHINES.get(machine, machine)}) than a Pi's"
        yield Remark(30, Gravity.FAULT, message, f"on {source.server}: put a root for arm64 there, of a Pi's image")
    if source.delegations and not nas.knows_folder_delegations(file):
        message = (
            f"{source.server} calls GET_DIR_DELEGATION illegal: from Linux 6.19 on a Pi fails at folders there by"
            f' NFS {source.version}, at all or now and then, with "Remote I/O error"'
        )
        remedy = "write nfsv4.directory_delegations=0 into cmdline.txt, or vers=4.0; nfs-ganesha 9.11 has it mended"
        yield Remark(30, Gravity.NOTE, message, remedy)


_FRAMES = "an MTU below 1500 at a port of the switch, the NAS or this machine"


def _on_rights(nas: nfs.Nas, top: bytes, where: str, source: Source) -> Iterator[Remark]:
    """Nothing is written for it: the NAS is asked what user 0 may do to what belongs to user 0 alone."""
    found = nas.attributes(top)
    may_write = bool(nas.access(top) & nfs.MODIFY)
    reads_secrets = _reads_what_is_roots(nas, top)
    remedy = f"on {source.server}: {path_text(source.path)}  NETWORK{_EXPORT}"
    squashed = f"{where}: root is squashed: user 0 of a Pi is somebody else there, and the Pi does not boot"
    if reads_secrets is False:
        yield Remark(30, Gravity.FAULT, squashed, remedy)
    elif reads_secrets is None and not may_write and found.of_root:
        yield Remark(30, Gravity.FAULT, f"{squashed}; or it is read-only", remedy)
    elif not may_write:
        yield Remark(30, Gravity.FAULT, f"{where}: is read-only, or not root's ({found.owner})", remedy)


def _reads_what_is_roots(nas: nfs.Nas, top: bytes) -> bool | None:
    """Whether user 0 reads a file that nobody else may read; None where there is none."""
    for path in ("etc/shadow", "etc/gshadow", "etc/sudoers"):
        try:
            file = nas.handle(path, top)
            found = nas.attributes(file)
            if found.of_root and not found.mode & _OTHERS:
                return bool(nas.access(file) & nfs.READ)
        except nfs.StatusError:
            continue
    return None


def _on_writing(nas: nfs.Nas, source: Source) -> Iterator[Remark]:
    where = f"{source.server}:{source.path}"
    remedy = f"on {source.server}: {path_text(source.path)}  NETWORK{_EXPORT}"
    try:
        written = nfs.written(nas, nas.handle(source.path), f".rpinfs-doctor-{os.urandom(4).hex()}")
    except NoPortError:
        raise
    except nfs.LeftError as error:
        if error.before:
            yield _not_written(error.before, source)
        message = f"{where}: {error.name} was made in it to try that, and may be there still: {error.message}"
        remedy = f"on {source.server}: rm {quoted(f'{source.path}/{error.name}')}"
        yield Remark(30, Gravity.WARNING, message, remedy)
        return
    except RpcError as error:
        yield _not_written(error, source)
        return
    owner = written.attributes
    if not owner.of_root:
        message = f"{where}: what user 0 makes belongs to {owner.owner}: root is squashed, and the Pi does not boot"
        yield Remark(30, Gravity.FAULT, message, remedy)
    gravity = Gravity.WARNING if written.seconds > SLOW_SECONDS else Gravity.NOTE
    took = f"{1000 * written.seconds:.1f} ms"
    message = f"{where}: a file of {nfs.PROBE_BYTES} bytes is made, and on the disk by the NAS's word, within {took}"
    yield Remark(30, gravity, message)
    yield from _on_clock(source.server, owner.modified - time.time())


def _not_written(error: RpcError, source: Source) -> Remark:
    what = f"{source.server}:{source.path}: a file cannot be written in it"
    if isinstance(error, nfs.StatusError):
        gravity = Gravity.NOTE if error.why == nfs.GRACE else Gravity.FAULT
        return Remark(
            30, gravity, f"{what}: {error.why}", f"on {source.server}: {path_text(source.path)}  NETWORK{_EXPORT}"
        )
    return Remark(30, Gravity.FAULT, f"{what}: {error.message}", f"on {source.server}: see what its disks do: dmesg")


def _on_clock(server: str, skew: float | None) -> Iterator[Remark]:
    if skew is not None and abs(skew) > LONGEST_SKEW:
        message = (
            f"the clock of {server} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's:"
            " certificates, make and the times of files go wrong"
        )
        yield Remark(30, Gravity.WARNING, message, f"switch NTP on on {server}, and on this machine")
