"""The gate: the last check before Docker. It passes when every mount that the config wants is really the right image.

Boot path: on the way to Docker it opens /proc, /sys, the configuration and the superblock of the mounted image, and
nothing on the share. `verdict` decides by them. Only what it finds right is then tried, by an overlay in the image.
"""

import os
import sys

from rpinfs.boot.config import Config, Image, load
from rpinfs.boot.host import Host, read_text
from rpinfs.boot.storage import Loop, Mount, ext4_errors, loop_of, mount_at, parse_mountinfo, superblock_uuid
from rpinfs.boot.units import AGENT, KEPT_FOLDER, RUNTIME_FOLDER, escape_path, fstab_mount_points, mount_unit
from rpinfs.errors import RpinfsError

REFUSED = 2
"""Exit status when Docker must not start: critical, as for checks."""

STATE_FILE = f"{RUNTIME_FOLDER}/agent.json"
_LOOK = "rpinfs status"


def main() -> int:
    """Judge this machine; what is wrong goes to standard error, and so to the journal. 0 or 2."""
    host = Host.read()
    try:
        config = load(host)
        refusals = verdict(config, host) or trials(config, host)
    except RpinfsError as error:
        refusals = [error]
    for refusal in refusals:
        sys.stderr.write(f"rpinfs: {refusal.message}\n")
        if refusal.remedy:
            sys.stderr.write(f"rpinfs: {refusal.remedy}\n")
    return REFUSED if refusals else 0


def verdict(config: Config, host: Host) -> "list[RpinfsError]":
    """List what keeps Docker from starting; empty means that it may."""
    if not config.in_use:
        return []
    mounts = parse_mountinfo(host.mountinfo)
    by_fstab = fstab_mount_points(host.fstab)
    return [error for image in config.images if (error := refusal_of(config, image, mounts, by_fstab, host.root))]


def refusal_of(
    config: Config, image: Image, mounts: "list[Mount]", by_fstab: "dict[str, int]", root: str = ""
) -> "RpinfsError | None":
    """Tell what is wrong with the mounts of one image, the first that is; None where all is right."""
    try:
        mount = _check_image(config, image, mounts, root, image.where in by_fstab)
        for bind in image.bind:
            _check_bind(image, bind, mount, mounts, bind in by_fstab)
    except RpinfsError as error:
        return error
    return None


def trials(config: Config, host: Host) -> "list[RpinfsError]":
    """Try an overlay in every image; what failed. Nothing is tried in a world below a folder."""
    # Imported here: there is nothing to try where the mounts are wrong.
    from rpinfs.boot.overlay import try_overlay

    refusals = []
    for image in config.images if config.in_use and not host.root else []:
        try:
            try_overlay(image.where)
        except RpinfsError as error:
            refusals.append(error)
        except PermissionError as error:
            refusals.append(RpinfsError(f"{image.where}: no overlay can be tried there: {error.strerror}", _LOOK))
    return refusals


def _check_image(config: Config, image: Image, mounts: "list[Mount]", root: str, by_fstab: bool) -> Mount:
    mount = mount_at(mounts, image.where)
    if mount is None:
        raise RpinfsError(
            f"image {image.name} is not mounted at {image.where}{_why(image, root)}", _remedy(image, root)
        )
    if not mount.writable:
        raise RpinfsError(
            f"image {image.name} at {image.where} is read-only; journalctl -k says why",
            mount_anew([image], image.where),
        )
    if by_fstab:
        # The user's own mount: that something is mounted is all that can be asked of it.
        return mount
    loop = loop_of(mount, root)
    if loop is None:
        raise RpinfsError(
            f"{image.where} is not image {image.name}: {mount.source} ({mount.kind}) is mounted there",
            f"find out who mounted it, unmount it, then: systemctl restart rpinfs-agent; {_LOOK}",
        )
    if loop.backing_file != image.path or loop.offset:
        raise RpinfsError(
            f"{image.where} is not image {image.name}: expected {image.path}, found {loop.backing_file}",
            "if the configuration was changed since the boot, reboot; else find out who mounted it",
        )
    share = mount_at(mounts, config.share.where)
    if share is None or not share.is_nfs:
        raise RpinfsError(f"{config.share.where} is not the NFS share: nothing of NFS is mounted there", _LOOK)
    _check_file_system(image, loop, root)
    return mount


def _check_file_system(image: Image, loop: Loop, root: str) -> None:
    """Compare what is on the device with what the agent has verified: the file may have been replaced in between."""
    verified = read_text(root + uuid_file(image)).strip()
    found = superblock_uuid(root + loop.path)
    if not verified:
        raise RpinfsError(
            f"rpinfs-agent.service has not verified what is mounted at {image.where}",
            "systemctl restart rpinfs-agent",
        )
    # rpinfs status is for everybody, and devices are for root alone.
    if found != verified and (found or not os.geteuid()):
        raise RpinfsError(
            f"{image.where} is not the file system that rpinfs-agent.service has verified: "
            f"expected UUID {verified}, found {found or 'none'}",
            f"find out who changed {image.path}, then reboot",
        )
    if errors := ext4_errors(loop.name, root):
        raise RpinfsError(
            f"image {image.name} at {image.where} is damaged: ext4 has recorded errors ({errors})",
            mount_anew([image], image.where),
        )


def _check_bind(image: Image, bind: str, outer: Mount, mounts: "list[Mount]", by_fstab: bool) -> None:
    mount = mount_at(mounts, bind)
    if mount is None:
        raise RpinfsError(f"{bind} is not mounted from image {image.name}", f"systemctl start {mount_unit(bind)}")
    if not mount.writable:
        raise RpinfsError(f"{bind} is read-only", f"mount -o remount,bind,rw {bind}")
    if not by_fstab and not is_kept(mount, bind, outer):
        raise RpinfsError(
            f"{bind} is not kept in image {image.name}: {mount.source} ({mount.kind}) is mounted there",
            f"find out who mounted it, unmount it, then: systemctl start {mount_unit(bind)}",
        )


def is_kept(mount: Mount, bind: str, outer: Mount) -> bool:
    """Whether what is mounted at `bind` is its folder in the image that is mounted as `outer`."""
    return mount.device == outer.device and mount.top == f"/{KEPT_FOLDER}/{escape_path(bind)}"


def mount_anew(images: "list[Image]", where: str) -> str:
    """The command that unmounts `where` and the images that depend on it, has them checked, and starts all again."""
    before = list(dict.fromkeys(unit for image in images for unit in image.before))
    # A start of docker.service starts its socket too; a socket that stays would start Docker in the middle of the stop.
    sockets = ["docker.socket"] if "docker.service" in before else []
    down = [*sockets, mount_unit(where), AGENT]
    up = before or [mount_unit(image.where) for image in images]
    return f"systemctl stop {' '.join(down)}; systemctl start {' '.join(up)}"


def uuid_file(image: Image) -> str:
    """Path of the file with the UUID of the file system that the agent has verified, beside the link to its device."""
    return f"{RUNTIME_FOLDER}/{image.name}.uuid"


# What the agent knows of it, read only when there is something to explain


def agent_state(root: str = "") -> "dict[str, dict[str, dict[str, object]]]":
    """What the agent last published, empty where it published nothing."""
    text = read_text(root + STATE_FILE)
    if not text:
        return {}
    # Imported here: a gate that passes needs no JSON.
    import json

    try:
        state = json.loads(text)
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}


def _of_image(image: Image, root: str, key: str) -> str:
    # Whatever stands in the file, the gate has its sentence.
    found: object = agent_state(root)
    for step in ("images", image.name, key):
        found = found.get(step) if isinstance(found, dict) else None
    return str(found or "")


def _why(image: Image, root: str) -> str:
    message = _of_image(image, root, "message")
    if message:
        return f": {message}"
    return "" if os.path.exists(root + STATE_FILE) else ": rpinfs-agent.service has not run"


def _remedy(image: Image, root: str) -> str:
    return _of_image(image, root, "remedy") or _LOOK
