"""Checks of images, their loop devices, and the file systems that are mounted from them."""

from __future__ import annotations

from rpinfs.boot.config import Image
from rpinfs.boot.settings import BLOCK_SIZE, GIB, human_size, size_text
from rpinfs.boot.units import KEPT_FOLDER, fstab_mount_points
from rpinfs.errors import RpinfsError, quoted
from rpinfs.health.checks.base import FULLNESS, Check, Finding, by_fullness, critical, ok, unknown, warning
from rpinfs.health.facts import NOBODY, Facts, File, Space, ext4_errors
from rpinfs.health.questions import HIDDEN_SECONDS
from rpinfs.image.superblock import Superblock
from rpinfs.lease.owner import Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.system.hidden import Hidden

_RESTART = "systemctl restart rpinfs-agent"

WASTE = 5 * GIB
"""Bytes that an image may take on the NAS beyond what it holds."""


def _is_ours(facts: Facts, image: Image) -> bool:
    """Whether the mount is made by rpinfs; where fstab has a line for it, what is mounted is the user's choice."""
    return image.where not in fstab_mount_points(facts.host.fstab)


# Image files


def _image_present(facts: Facts, image: Image) -> Finding | None:
    if not _is_ours(facts, image):
        return None
    said = facts.agent_on_image(image)
    if said.get("state") == "refused":
        return critical(str(said.get("message")), str(said.get("remedy") or ""))
    if said.get("state") == "preparing":
        return warning(
            f"image {image.name} is being prepared: {said.get('message')}", "wait for it: rpinfs status --watch"
        )
    if facts.share is None:
        return None
    try:
        file = facts.answer(f"image:{image.name}", File)
    except FileNotFoundError:
        return critical(f"there is no {image.path}")
    return ok(f"{image.path} is there, {human_size(file.size)} long")


def _image_owner(facts: Facts, image: Image) -> Finding | None:
    if facts.share is None or not _is_ours(facts, image) or image.fence == "mmp":
        return None
    owner = facts.answer(f"owner:{image.name}", Owner)
    if owner == NOBODY:
        return warning(f"image {image.name} belongs to nobody: no Pi has taken its lease", _RESTART)
    if owner.serial != Owner.serial_of(facts.host):
        return critical(f"image {image.name} belongs to {owner.with_times()}")
    return ok(f"image {image.name} belongs to this Pi")


def _image_size(facts: Facts, image: Image) -> Finding | None:
    if facts.share is None or not _is_ours(facts, image) or not image.size_is_set:
        return None
    file = facts.known(f"image:{image.name}", File)
    # What the agent refuses is no image of this size, or of any.
    if file is None or facts.agent_on_image(image).get("state") == "refused":
        return None
    differs = f"image {image.name} has {human_size(file.size)}, the configuration says {human_size(image.size)}"
    by_hand = f"rpinfs image grow {quoted(image.path)} --size {size_text(image.size)}"
    # The file may have become longer and its file system not.
    if not_grown := facts.agent_on_image(image).get("not_grown"):
        return warning(f"image {image.name} has not been grown to {human_size(image.size)}: {not_grown}", by_hand)
    if file.size < image.size:
        return warning(differs, f"the next boot grows it; at once: {by_hand}")
    if file.size > image.size:
        return warning(differs, "an image is never made smaller: take Size= out, or correct it")
    return ok(f"image {image.name} has the {human_size(image.size)} that the configuration says")


def _image_allocated(facts: Facts, image: Image) -> Finding | None:
    if facts.share is None or not _is_ours(facts, image):
        return None
    file = facts.known(f"image:{image.name}", File)
    space = facts.known(f"space:{image.name}", Space)
    if file is None:
        return None
    takes = f"image {image.name} takes {human_size(file.allocated)} of its {human_size(file.size)} on the NAS"
    if space is None:
        return ok(takes)
    used = space.size - space.available
    message = f"{takes}, and holds {human_size(used)}"
    if file.allocated - used <= WASTE:
        return ok(message)
    version = facts.share.nfs_version
    if version != "4.2":
        return ok(f"{message}; to give the rest back takes NFS 4.2, and the share is mounted with {version}")
    return warning(message)


def _image_clean(facts: Facts, image: Image) -> Finding | None:
    if not _is_ours(facts, image):
        return None
    if facts.image_mount(image) is not None:
        clean = facts.agent_on_image(image).get("clean")
        if clean is None:
            return None
        was = "was unmounted in order" if clean else "was not unmounted in order, and was put right"
        return ok(f"image {image.name} {was} before it was mounted")
    if facts.share is None:
        return None
    try:
        found = facts.answer(f"superblock:{image.name}", object)
    except FileNotFoundError:
        return None
    if not isinstance(found, Superblock):
        return None
    if found.errors_recorded:
        return warning(f"image {image.name}, not mounted, has errors recorded ({found.errors_recorded})")
    if not found.clean:
        return warning(f"image {image.name}, not mounted, was not unmounted in order")
    return ok(f"image {image.name}, not mounted, was unmounted in order")


# Loop devices


def _loop_direct_io(facts: Facts, image: Image) -> Finding | None:
    loop = facts.loop(image) if _is_ours(facts, image) else None
    if loop is None:
        return None
    if loop.direct_io:
        return ok(f"/dev/{loop.name} does direct I/O")
    if not image.direct_io:
        return ok(f"/dev/{loop.name} is buffered, as DirectIO=no says")
    return warning(f"/dev/{loop.name} is buffered: each page of image {image.name} is kept in memory twice")


def _loop_block_size(facts: Facts, image: Image) -> Finding | None:
    loop = facts.loop(image) if _is_ours(facts, image) else None
    if loop is None:
        return None
    message = f"/dev/{loop.name} has blocks of {loop.block_size} bytes"
    return ok(message) if loop.block_size == BLOCK_SIZE else warning(f"{message}, expected {BLOCK_SIZE}")


# Mounts


def _mount_right(facts: Facts, image: Image) -> Finding:
    """The gate's own verdict, so that the two never differ."""
    refusals: list[RpinfsError] = facts.answer(f"gate:{image.name}", list)
    if refusals:
        # The gate sends people here.
        remedy = "" if refusals[0].remedy == "rpinfs status" else refusals[0].remedy or ""
        return critical(refusals[0].message, remedy)
    return ok(f"{' '.join([image.where, *image.bind])}: the right image is mounted")


def _mount_writable(facts: Facts, image: Image) -> Finding | None:
    mount = facts.image_mount(image)
    if mount is None:
        return None
    if not mount.writable:
        return critical(f"{image.where} is read-only; ext4 turns itself so when it meets an error: journalctl -k")
    return ok(f"{image.where} is writable")


def _mount_errors(facts: Facts, image: Image) -> Finding | None:
    errors = ext4_errors(facts, image)
    if errors is None:
        return None
    if errors:
        return critical(f"ext4 has recorded errors ({errors}) in image {image.name}")
    return ok("no errors recorded")


def _mount_space(facts: Facts, image: Image) -> Finding | None:
    if facts.image_mount(image) is None:
        return None
    space = facts.answer(f"space:{image.name}", Space)
    free = f"{human_size(space.available)} of {human_size(space.size)} free"
    message = f"{image.where} is {space.used_percent:.0f} % full, {free}"
    return by_fullness(space.used_percent, message, _room_remedy(image))


def _mount_inodes(facts: Facts, image: Image) -> Finding | None:
    if facts.image_mount(image) is None:
        return None
    space = facts.answer(f"space:{image.name}", Space)
    if not space.inodes:
        return None
    used = 100.0 * (space.inodes - space.inodes_free) / space.inodes
    message = f"{image.where} has used {used:.0f} % of its {space.inodes} inodes"
    return by_fullness(used, message, _room_remedy(image))


def _room_remedy(image: Image) -> str:
    # Nothing that removes: what is pasted must lose nothing, and a container that has ended holds data.
    look = "docker system df" if "docker.service" in image.before else f"du -xhd 1 {quoted(image.where)}"
    return f"remove what nobody needs, or set a larger Size=, which the next boot gives it; what takes the room: {look}"


def _mount_overlay(facts: Facts, image: Image) -> Finding | None:
    if not image.before:
        return None
    refusals: list[RpinfsError] = facts.answer(f"overlay:{image.name}", list)
    if refusals:
        return critical(refusals[0].message, refusals[0].remedy or "")
    return ok(f"a trial overlay in {image.where} worked")


def _mount_hidden(facts: Facts) -> Finding | None:
    found: list[Hidden] = facts.answer("hidden", list)
    hiding = [one for one in found if one.files]
    if hiding:
        return warning("; ".join(map(_hidden_words, hiding)), _hidden_remedy(hiding[0]))
    if not all(one.complete for one in found):
        return unknown(f"not all that lies under the mount points was seen within {HIDDEN_SECONDS:g} s")
    return ok(f"nothing is hidden under {', '.join(one.where for one in found)}") if found else None


def _hidden_words(found: Hidden) -> str:
    count = f"{'' if found.complete else 'at least '}{found.files} file{'' if found.files == 1 else 's'}"
    largest = ", ".join(f"{name} {human_size(size)}" for name, size in found.largest)
    return f"{found.where} hides {count} with {human_size(found.size)} ({largest})"


def _hidden_remedy(found: Hidden) -> str:
    place = f"/mnt/{found.where.removeprefix(found.below).lstrip('/')}"
    shell = f"mount --bind {quoted(found.below)} /mnt && ls -lA {quoted(place)} && exec sh"
    # In a mount namespace of its own: nothing has to be unmounted, and nothing stays.
    return f"move away or remove what nobody needs, in a shell that sees it: unshare -m sh -c {quoted(shell)}"


CHECKS = (
    Check(
        "image.present",
        "the image is there",
        _image_present,
        remedy=f"if it was moved, put it back first; to have it made, or to hear what keeps it from that: {_RESTART}",
        explanation="""
            Looks for the file on the share, and asks the agent what it made of it. Critical: there is none, or the
            agent refused it (it holds something else, it is shorter than its file system, it belongs to another Pi,
            it cannot be repaired); the message has the reason. Warning: the agent is making or checking it.
        """,
        needs=("image",),
        per_image=True,
    ),
    Check(
        "image.owner",
        "the image belongs to this Pi",
        _image_owner,
        remedy="if the other Pi is gone for good: rpinfs adopt {name} && systemctl restart rpinfs-agent",
        explanation="""
            Reads the owner record beside the image. Critical: it has the serial number of another board. Warning:
            there is no record.
        """,
        needs=("owner",),
        per_image=True,
    ),
    Check(
        "image.size",
        "the image has the size that the configuration says",
        _image_size,
        remedy="set Size= to what you want; an image only ever grows",
        explanation="""
            Compares the length of the file with Size=, where that is set. Warning: they differ, or the agent could not
            grow the image. A shorter image is grown at the next boot; a longer one stays as it is.
        """,
        needs=("image",),
        per_image=True,
    ),
    Check(
        "image.allocated",
        "the image takes about as much on the NAS as it holds",
        _image_allocated,
        remedy="rpinfs trim {name}",
        explanation=f"""
            Compares what the file takes on the NAS with what the file system inside holds. Warning: it takes
            {human_size(WASTE)} more, and the share is mounted with NFS 4.2, so that the difference can be given
            back. With an older version it cannot, and the check says so.
        """,
        needs=("image", "space"),
        per_image=True,
    ),
    Check(
        "image.clean",
        "the image was unmounted in order",
        _image_clean,
        remedy="to have it checked, and then attached: systemctl restart rpinfs-agent; rpinfs status",
        explanation="""
            While the image is mounted: says in which state the agent found it. One that was cut off was repaired by
            e2fsck -p before it was mounted, or it would not be; that is no warning. While it is not mounted: reads
            its superblock. Warning: it has errors recorded, or was not unmounted in order. xfs does not tell.
        """,
        needs=("superblock",),
        per_image=True,
    ),
    Check(
        "loop.direct-io",
        "the loop device goes past the page cache of the share",
        _loop_direct_io,
        remedy="if it stays so, NAS or kernel refuse direct I/O, and DirectIO=no takes note of it: systemctl reboot",
        explanation="""
            Reads /sys/block/loopN/loop/dio. Warning: it is off although DirectIO= is yes, so that each page is kept
            in memory twice, as image and as share.
        """,
        per_image=True,
    ),
    Check(
        "loop.block-size",
        f"the loop device has blocks of {BLOCK_SIZE} bytes",
        _loop_block_size,
        remedy="somebody attached the image by hand: unmount it, then: systemctl restart rpinfs-agent",
        explanation="""
            Reads /sys/block/loopN/queue/logical_block_size. Warning: another size, which an image that was made by
            hand may need, and which makes small writes slower.
        """,
        per_image=True,
    ),
    Check(
        "mount.right",
        "the right image is mounted where it belongs",
        _mount_right,
        remedy=_RESTART,
        explanation="""
            The verdict of the gate at this moment: the right file of the right share is attached, mounted at
            Where=, writable, and the Bind= folders are in place. Critical: Docker would not be allowed to start.
        """,
        needs=("gate",),
        per_image=True,
    ),
    Check(
        "mount.writable",
        "the image is writable",
        _mount_writable,
        remedy="{anew}",
        explanation="""
            Looks at the mount table. Critical: the file system is read-only. ext4 turns itself so when it meets an
            error, and no remount brings it back before it was checked: the remedy stops what uses the image, and has
            the agent check and attach it anew.
        """,
        per_image=True,
    ),
    Check(
        "mount.errors",
        "ext4 has recorded no errors",
        _mount_errors,
        remedy="{anew}",
        explanation="""
            Reads /sys/fs/ext4/loopN/errors_count; journalctl -k has what happened: most often the NAS refused a write.
            Critical: it is not 0. From then on the file system may be read-only, whatever the mount table says.
        """,
        per_image=True,
    ),
    Check(
        "mount.space",
        "the image has room",
        _mount_space,
        remedy="remove what nobody needs, or set a larger Size=, which the next boot gives it",
        explanation=f"""
            How full the file system in the image is. {FULLNESS}
        """,
        needs=("space",),
        per_image=True,
    ),
    Check(
        "mount.inodes",
        "the image has room for more files",
        _mount_inodes,
        remedy="remove what nobody needs, or set a larger Size=, which the next boot gives it",
        explanation=f"""
            How many of its inodes ext4 has used; xfs has no fixed number. {FULLNESS}
        """,
        needs=("space",),
        per_image=True,
    ),
    Check(
        "mount.overlay",
        "overlayfs works on the image",
        _mount_overlay,
        remedy="the kernel says why: journalctl -k -n 20",
        explanation=f"""
            Mounts an overlay as Docker does, attached nowhere, of folders of its own below {KEPT_FOLDER}/ of the
            image; writes, removes and renames files in it, and looks at what came of it. All is removed again. It is
            the trial that the gate makes at each start of Docker. Nothing is tried where mount.right is not ok.
            Critical: that does not work; Docker would fall back to a driver that copies whole layers.
        """,
        needs=("overlay",),
        per_image=True,
    ),
    Check(
        "mount.hidden",
        "no files are hidden under a mount point",
        _mount_hidden,
        remedy="move away or remove what nobody needs",
        explanation=f"""
            Looks under the mount points of share, boot files, images and Bind= folders, through a copy of the mount
            below that nobody else sees. Warning: there are files, written while nothing was mounted: with their
            number, the bytes that they take, and the largest. Nothing is ever removed. Folders do not count:
            systemd makes mount points. After {HIDDEN_SECONDS:g} seconds it ends, and says "at least".
        """,
        needs=("hidden",),
    ),
)
"""Rows of the table."""
