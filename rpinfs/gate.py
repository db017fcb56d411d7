"""The gate: the last check before Docker. It passes when every mount that the config wants is really the right image.

Boot path: on the way to Docker it opens /proc, /sys and the configuration, and nothing on the share. `verdict` decides
and is pure but for /sys.
"""

import os
import sys

from rpinfs.config import Config, Image, load
from rpinfs.errors import RpinfsError
from rpinfs.escape import escape_path, mount_unit
from rpinfs.host import Host, read_text
from rpinfs.storage import Mount, loop_of, mount_at, parse_mountinfo
from rpinfs.units import KEPT_FOLDER, RUNTIME_FOLDER, fstab_mount_points

REFUSED = 2
"""Exit status when Docker must not start: critical, as for checks."""

STATE_FILE = f"{RUNTIME_FOLDER}/agent.json"
_LOOK = "rpinfs status"


def main() -> int:
    """Judge this machine; what is wrong goes to standard error, and so to the journal. 0 or 2."""
    host = Host.read()
    try:
        refusals = verdict(load(host), host)
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
    refusals = []
    for image in config.images:
        try:
            mount = _check_image(config, image, mounts, host.root, image.where in by_fstab)
            for bind in image.bind:
                _check_bind(image, bind, mount, mounts, bind in by_fstab)
        except RpinfsError as error:
            refusals.append(error)
    return refusals


def _check_image(config: Config, image: Image, mounts: "list[Mount]", root: str, by_fstab: bool) -> Mount:
    mount = mount_at(mounts, image.where)
    if mount is None:
        raise RpinfsError(
            f"image {image.name} is not mounted at {image.where}{_why(image, root)}", _remedy(image, root)
        )
    if not mount.writable:
        raise RpinfsError(
            f"image {image.name} at {image.where} is read-only",
            f"see journalctl -k for the error that made it so, then check it: rpinfs image check {image.path}",
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
    return mount


def _check_bind(image: Image, bind: str, outer: Mount, mounts: "list[Mount]", by_fstab: bool) -> None:
    mount = mount_at(mounts, bind)
    if mount is None:
        raise RpinfsError(f"{bind} is not mounted from image {image.name}", f"systemctl start {mount_unit(bind)}")
    expected = f"/{KEPT_FOLDER}/{escape_path(bind)}"
    if not by_fstab and (mount.device != outer.device or mount.top != expected):
        raise RpinfsError(
            f"{bind} is not kept in image {image.name}: {mount.source} ({mount.kind}) is mounted there",
            f"find out who mounted it, unmount it, then: systemctl start {mount_unit(bind)}",
        )


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
