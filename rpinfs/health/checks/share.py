"""Checks of the share: the NFS mount that holds the images, and the room on it."""

from __future__ import annotations

import errno

from rpinfs.boot.gate import mount_anew
from rpinfs.boot.settings import GIB, human_size, milliseconds
from rpinfs.errors import quoted
from rpinfs.health.checks.base import Check, Finding, by_fullness, critical, ok, warning
from rpinfs.health.facts import Facts, File, Files, Space
from rpinfs.image.names import Role, role_of
from rpinfs.system.deadline import TimedOut
from rpinfs.system.fullness import ENOUGH_ROOM, FULL
from rpinfs.system.trouble import remedy_of

SLOW_ANSWER = 0.5
"""Seconds. A share that takes longer for one small question makes every sync of a container wait as long."""

LEAST_ROOM = 5 * GIB
"""Bytes. A share with less room than this, and images that may grow by more, can be full within the hour."""


def _expected_share(facts: Facts) -> str:
    return f"{facts.config.server.source}:{facts.config.share.export}"


def _share_mounted(facts: Facts) -> Finding:
    where, expected = facts.config.share.where, _expected_share(facts)
    mount = facts.mount(where)
    if mount is None:
        said = facts.agent_on_share()
        return critical(f"the share {expected} is not mounted at {where}", str(said.get("remedy") or ""))
    if not mount.is_nfs:
        return critical(f"{where} is not the share {expected}: {mount.source} ({mount.kind}) is mounted there")
    if not mount.is_from(expected):
        return warning(f"{where} is mounted from {mount.source}, the configuration says {expected}")
    if not mount.writable:
        return critical(f"the share {expected} is mounted read-only", f"mount -o remount,rw {quoted(where)}")
    return ok(f"{expected} is mounted at {where}")


def _share_options(facts: Facts) -> Finding | None:
    mount = facts.share
    if mount is None:
        return None
    if "hard" not in mount.super_options:
        return critical(f"{mount.where} is mounted soft: a pause of the NAS becomes an I/O error and damages the image")
    if "proto=udp" in mount.super_options:
        return critical(f"{mount.where} is mounted over UDP, which can damage data without anybody noticing")
    version, wanted = mount.nfs_version, facts.config.server.version
    if version != wanted:
        return warning(f"{mount.where} is mounted with NFS {version}, the configuration says {wanted}")
    return ok(f"{mount.where} is mounted hard, with NFS {version}")


def _share_answers(facts: Facts) -> Finding | None:
    if facts.share is None:
        return None
    where = facts.config.share.where
    try:
        seconds = facts.answer("share", Space).seconds
    except TimedOut as silence:
        return critical(f"{where} gave {silence.message}; whatever writes there waits, and nothing is lost")
    except OSError as error:
        if error.errno == errno.ESTALE:
            return critical(
                f"{where} fails: {error.strerror}: the NAS has removed or replaced the export; put it back there first",
                mount_anew(facts.config.images, where),
            )
        return critical(f"{where} fails: {error.strerror}", remedy_of(error))
    listing = facts.answers.get("files")
    if isinstance(listing, OSError) and listing.errno == errno.EREMOTEIO:
        # What asks for the size of the share goes well, and every folder that is opened fails.
        return critical(f"{where}: no folder can be opened: {listing.strerror}", remedy_of(listing))
    if seconds > SLOW_ANSWER:
        return warning(f"{where} answers slowly, in {milliseconds(seconds)}")
    return ok(f"{where} answers in {milliseconds(seconds)}")


def _share_space(facts: Facts) -> Finding | None:
    if facts.share is None:
        return None
    space = facts.answer("share", Space)
    free = f"{facts.config.share.where} has {human_size(space.available)} of {human_size(space.size)} free"
    return ok(free) if space.available >= ENOUGH_ROOM else by_fullness(space.used_percent, free)


def _image_fits_share(facts: Facts) -> Finding | None:
    """Sparse files promise more than there is; what can still grow is compared with what is free."""
    if facts.share is None:
        return None
    space, found = facts.answer("share", Space), facts.answer("files", Files)
    files = dict(found.files)
    for image in facts.config.images:
        own = facts.known(f"image:{image.name}", File)
        if own:
            files[image.file] = own
    # A snapshot is as long as its image, and nobody writes to it.
    images = [file for path, file in files.items() if role_of(path.rpartition("/")[2]) is Role.IMAGE]
    growth = sum(max(0, file.size - file.allocated) for file in images)
    message = (
        f"the images on the share may still grow by {human_size(growth)}, and {human_size(space.available)} are free"
    )
    if not found.complete:
        message += f" (of more than {len(found.files)} files)"
    if growth <= space.available:
        return ok(message)
    return critical(message) if space.available < LEAST_ROOM else warning(message)


CHECKS = (
    Check(
        "share.mounted",
        "the share is mounted, from the right export",
        _share_mounted,
        remedy="if the configuration was changed since the boot, reboot; else: systemctl restart rpinfs-agent",
        explanation="""
            Compares the mount table with the configuration. Critical: nothing is mounted at Where= of [Share], or
            something that is not NFS, or it is mounted read-only; Docker has no storage then. Warning: it is
            mounted from another server or export than the configuration says.
        """,
    ),
    Check(
        "share.options",
        "the share is mounted hard, over TCP, with the NFS version that was asked for",
        _share_options,
        remedy="take the options out of /etc/fstab and the configuration, then reboot; if the NAS does not have the"
        " version, set Version= in [Server]",
        explanation="""
            Looks at the mount options that the kernel says are in force. Critical: soft, by which a restart of the
            NAS is an I/O error for ext4, which then turns read-only or is damaged; or UDP, whose fragments a fast
            network can put together wrongly, see nfs(5). Warning: another NFS version than Version= in [Server].
        """,
    ),
    Check(
        "share.answers",
        "the share answers, and soon",
        _share_answers,
        remedy="look at the NAS and at the network to it; it goes on by itself when the NAS is back",
        explanation=f"""
            Asks the server for the free space of the share, in a process that is killed when no answer comes;
            nothing of that is cached. Critical: no answer in time, or an error, such as a stale file handle after
            an export was replaced, or a "Remote I/O error" for folders, all or some and now and then, which Linux 6.19
            and later get from nfs-ganesha before 9.11. Warning: the answer took more than {SLOW_ANSWER:g} seconds:
            every sync of a container takes longer than that.
        """,
        needs=("share", "files"),
    ),
    Check(
        "share.space",
        "the share has room",
        _share_space,
        remedy="make room on the NAS: when it is full, containers get I/O errors although the image has room",
        explanation=f"""
            How full the share is by what the server says. Warning: {FULL[0]:g} % full; critical: {FULL[1]:g} %. A
            share with {human_size(ENOUGH_ROOM)} free or more is never called full. An image is a sparse file: when
            the NAS is full, writes into the image fail although the file system inside has room.
        """,
        needs=("share",),
    ),
    Check(
        "image.fits-share",
        "the images fit on the share even when they are full",
        _image_fits_share,
        remedy="make room on the NAS, or remove images that nobody needs, before they have grown",
        explanation=f"""
            Adds up, for all images at the top of the share and those of this Pi, what each may still grow by: its
            length less what it takes on the NAS. Snapshots grow no more, and are not counted. Warning: that is more
            than is free, so that the NAS will be full if all images are filled; it is long before it happens.
            Critical: and less than {human_size(LEAST_ROOM)} are free.
        """,
        needs=("share", "files", "image"),
    ),
)
"""Rows of the table."""
