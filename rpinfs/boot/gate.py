"""The gate: the last check before Docker. It passes when every mount that the config wants is really the right image.

Boot path: on the way to Docker it opens /proc, /sys, the configuration and the superblock of the mounted image, and
nothing on the share. `verdict` decides by them. Only what it finds right is then tried, by an overlay in the image.
"""

import os
import sys

from rpinfs.boot.config import Config, Image, load
from rpinfs.boot.host import Host, lines_of, read_text, words
from rpinfs.boot.storage import (
    LOOP_MAJOR,
    NFS_KINDS,
    Mount,
    ext4_errors,
    followed,
    identity,
    loop_of,
    mount_at,
    mount_of,
    parse_mountinfo,
    sequence,
)
from rpinfs.boot.units import (
    AGENT,
    DEFAULT_ROOTS,
    DROP_IN,
    GENERATED,
    GUARDED,
    KEPT_FOLDER,
    MANAGER_FOLDERS,
    OLD_SYSTEM_UNITS,
    RUNTIME_FOLDER,
    SYSTEM_UNITS,
    UNIT_FOLDERS,
    escape_path,
    fstab_mount_points,
    mount_unit,
)
from rpinfs.errors import RpinfsError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rpinfs.boot.daemons import Told

REFUSED = 2
"""Exit status when Docker must not start: critical, as for checks."""

_OF_PACKAGES = {
    "docker.service": (
        "ExecStart=/usr/sbin/dockerd", "ExecStart=/usr/bin/dockerd", "-H", "fd://", "$DOCKER_OPTS",
        "--containerd=/run/containerd/containerd.sock", "EnvironmentFile=-/etc/default/docker",
    ),
    "containerd.service": ("ExecStart=/usr/bin/containerd",),
}  # fmt: skip
"""The words by which Debian and Docker start them."""

_MOVING = (
    "Exec", "Environment", "Pass", "Root", "Bind", "Temporary", "Mount", "Inaccessible", "Extension", "Private",
    "Protect", "Dynamic",
)  # fmt: skip
"""How settings begin that could move a folder of a service."""

_OURS = {SYSTEM_UNITS: {"rpinfs.conf"}, GENERATED: {DROP_IN}}
"""Our drop-ins for both, by folder. Who changes these could as well take the gate out of them."""

STATE_FILE = f"{RUNTIME_FOLDER}/agent.json"
_LOOK = "rpinfs status"


def main(roots: "Callable[[Host], list[Told]]") -> int:
    """Judge this machine; what is wrong goes to standard error, and so to the journal. `roots` is that of misplaced().

    Returns:
        0, or REFUSED.
    """
    host = Host.read()
    try:
        config = load(host)
        refusals = verdict(config, host) or misplaced(config, host, roots) or trials(config, host)
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
            _check_bind(image, bind, mount, mounts, bind in by_fstab, root)
    except RpinfsError as error:
        return error
    return None


def misplaced(config: Config, host: Host, roots: "Callable[[Host], list[Told]]") -> "list[RpinfsError]":
    """List what is wrong with where Docker and containerd will write, on a machine whose mounts are right.

    Args:
        roots: tells where they will write; called only where something could have moved their folders.

    Raises:
        PermissionError: to who is not root.
    """
    if not config.in_use:
        return []
    mounts = parse_mountinfo(host.mountinfo)
    verified = [mount.device for image in config.images if (mount := mount_at(mounts, image.where))]
    at_home = all((mount := mount_at(mounts, folder)) and mount.device in verified for folder in DEFAULT_ROOTS)
    if at_home and not _are_told_something(host):
        return []
    # Imported here: where all is at its default there is nothing to look for.
    from rpinfs.boot import daemons

    return daemons.refusals(config, host, mounts, verified, roots)


def _are_told_something(host: Host) -> bool:
    """Whether anything could have moved the folders of Docker and containerd. By few files: all are on the NAS.

    It may pass only what daemons.refusals() would pass; tests/unit/boot/test_quick_look.py compares the two.
    """
    try:
        return _are_told_by_files(host) or _manager_is_told(host.root) or _units_are_changed(host.root)
    except OSError:
        # Who looks closer says what cannot be read.
        return True


def _are_told_by_files(host: Host) -> bool:
    root = host.root
    text = _text(f"{root}/etc/docker/daemon.json")
    # With a backslash any key can be written. Of another containerd nobody knows the folder.
    if any(word in text for word in ('root"', '"graph"', '"containerd"', "\\")):
        return True
    toml = _text(f"{root}/etc/containerd/config.toml")
    if not text.isascii() or text.strip()[:1] not in ("", "{") or not toml.isascii():
        # No text, or one that begins with a byte order mark.
        return True
    if any(line.strip()[:1] not in ("", "#") for line in lines_of(_text(f"{root}/etc/default/docker"))):
        return True
    keys = [line.partition("=")[0].strip().strip("\"'") for line in toml.split("\n")]
    if any(key.startswith(("root", "imports")) or (key[:1] != "#" and "\\" in key) for key in keys):
        return True
    return any(word == "systemd.setenv" for word, _ in words(host.cmdline))


def _manager_is_told(root: str) -> bool:
    """Whether systemd gives all services an environment."""
    files = [f"{root}{folder}/system.conf" for folder in MANAGER_FOLDERS]
    for folder in MANAGER_FOLDERS:
        files += [f"{root}{folder}/system.conf.d/{name}" for name in _listed(f"{root}{folder}/system.conf.d")]
    return any(line.lstrip().startswith("DefaultEnvironment") for file in files for line in lines_of(_text(file)))


def _units_are_changed(root: str) -> bool:
    """Whether anybody has changed how systemd starts Docker and containerd, or any service."""
    # Lists of the folders tell all names at once. systemd has just read these, and what does not exist costs nothing.
    units = {folder: _listed(root + folder) for folder in UNIT_FOLDERS if not _is_merged(root, folder)}
    every = {name for names in units.values() for name in names}
    for folder, names in units.items():
        if "service.d" in names or any(_is_told(root, folder, unit, names) for unit in GUARDED):
            return True
        # Drop-ins for a unit that is a link, and so may be Docker's by another name.
        named = [name for name in names if name.endswith(".service") and f"{name}.d" in every]
        if any(_is_alias(f"{root}{folder}/{name}") for name in named):
            return True
    return False


def _is_told(root: str, folder: str, unit: str, names: "list[str]") -> bool:
    """Whether what a folder has for a unit is not what packages and our generator put there."""
    if f"{unit}.d" in names and (folder not in _OURS or set(_listed(f"{root}{folder}/{unit}.d")) - _OURS[folder]):
        return True
    if unit not in names:
        return False
    path = f"{root}{folder}/{unit}"
    # A package's may be changed in place, which no folder tells.
    return folder != SYSTEM_UNITS or os.path.islink(path) or not _is_packaged(unit, _text(path))


def _is_packaged(unit: str, text: str) -> bool:
    lines = [line.strip() for line in lines_of(text)]
    moving = {word for line in lines if _could_move(line) for word in line.split()}
    started = [line for line in lines if line.startswith("ExecStart=")]
    return len(started) == 1 and moving <= set(_OF_PACKAGES[unit])


def _could_move(line: str) -> bool:
    """Whether a line of a unit file says what is started, and with what in view; or goes on in the next."""
    is_other = line.startswith(("ExecStartP", "ExecReload", "ExecStop"))
    return line.endswith("\\") or (line.startswith(_MOVING) and not is_other)


def _is_alias(path: str) -> bool:
    """Whether a unit is a link, and not a masked one."""
    return os.path.islink(path) and os.readlink(path) != "/dev/null"


def _is_merged(root: str, folder: str) -> bool:
    """Whether a folder of units is another one by the link /lib, as on Debian since 12."""
    return folder == OLD_SYSTEM_UNITS and os.path.islink(f"{root}/lib")


def _text(path: str) -> str:
    """The text of a file, empty where there is none. Raises OSError: it is there, and not to be read just so."""
    text = read_text(path)
    if os.path.islink(path) or (not text and os.path.lexists(path) and os.lstat(path).st_size):
        # A link may lead to another file in a world below a folder.
        raise OSError(f"{path}: cannot be read")
    return text


def _listed(folder: str) -> "list[str]":
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def links(config: Config, host: Host) -> "list[RpinfsError]":
    """List the mount points that are symbolic links: systemd mounts on none (its unit_fail_if_noncanonical())."""
    if not config.in_use:
        return []
    mounts = parse_mountinfo(host.mountinfo)
    places = [("Boot", "Where", config.boot.where)] if config.boot else []
    places.append(("Share", "Where", config.share.where))
    for image in config.images:
        places.append((f"Image {image.name}", "Where", image.where))
        places += [(f"Image {image.name}", "Bind", bind) for bind in image.bind]
    by_fstab = fstab_mount_points(host.fstab)
    found = (_link_at(*place, mounts, host.root) for place in places if place[2] not in by_fstab)
    return [error for error in found if error]


def _link_at(section: str, key: str, where: str, mounts: "list[Mount]", root: str) -> "RpinfsError | None":
    # What is mounted there is no link, and what is on another server is not looked at.
    target = where if mount_at(mounts, where) else followed(mounts, where, root)
    if target == where:
        return None
    return RpinfsError(
        f"[{section}] {key}={where} leads by a symbolic link to {target}, and systemd mounts on no link",
        f"write {target} in its place in [{section}] {key}=, then reboot; who goes by {where} still gets there",
    )


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
        for section, key, where in (
            (f"Image {image.name}", "Where", image.where),
            ("Share", "Where", config.share.where),
        ):
            if not by_fstab and (error := _link_at(section, key, where, mounts, root)):
                raise error
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
    if mount.device[0] != LOOP_MAJOR:
        raise RpinfsError(
            f"{image.where} is not image {image.name}: {mount.source} ({mount.kind}) is mounted there",
            f"find out who mounted it, unmount it, then: systemctl restart rpinfs-agent; {_LOOK}",
        )
    share = mount_at(mounts, config.share.where)
    verified = Verified.read(image, root)
    _check_device(image, mount, verified, root)
    if share is None or not share.is_nfs:
        raise RpinfsError(f"{config.share.where} is not the NFS share: nothing of NFS is mounted there", _LOOK)
    _check_file_system(image, mount, verified, mount_of(mounts, image.path) or share, root)
    return mount


def _check_device(image: Image, mount: Mount, verified: "Verified", root: str) -> None:
    """Insist on the very device that the agent has attached. By its numbers: names on the share are anybody's.

    An image that is renamed on the NAS stays what it is, and another file under its name does not become it.
    """
    name = f"loop{mount.device[1]}"
    if verified.sequence:
        if verified.sequence == sequence(name, root) and verified.path == image.path:
            return
        found = verified.path if verified.sequence == sequence(name, root) else _backing_file(mount, root)
    else:
        # No agent has run, or one of a version that wrote down less.
        loop = loop_of(mount, root)
        if loop and loop.backing_file == image.path and not loop.offset:
            return
        found = loop.backing_file if loop else ""
    if not found:
        raise RpinfsError(
            f"{image.where} is not image {image.name}: {mount.source} ({mount.kind}) is mounted there",
            f"find out who mounted it, unmount it, then: systemctl restart rpinfs-agent; {_LOOK}",
        )
    raise RpinfsError(
        f"{image.where} is not image {image.name}: expected {image.path}, found {found}",
        "if the configuration was changed since the boot, reboot; else find out who mounted it",
    )


def _backing_file(mount: Mount, root: str) -> str:
    loop = loop_of(mount, root)
    return f"{loop.backing_file} on {loop.path}, which rpinfs-agent.service has not attached" if loop else ""


def _check_file_system(image: Image, mount: Mount, verified: "Verified", share: Mount, root: str) -> None:
    """Compare what is on the device with what the agent has verified: the file may have been replaced in between."""
    name = f"loop{mount.device[1]}"
    found, holder = identity(f"{root}/dev/{name}")
    if not verified.uuid:
        raise RpinfsError(
            f"rpinfs-agent.service has not verified what is mounted at {image.where}",
            "systemctl restart rpinfs-agent",
        )
    # rpinfs status is for everybody, and devices are for root alone.
    if found != verified.uuid and (found or not os.geteuid()):
        raise RpinfsError(
            f"{image.where} is not the file system that rpinfs-agent.service has verified: "
            f"expected UUID {verified.uuid}, found {found or 'none'}",
            f"find out who changed {image.path}, then reboot",
        )
    # Of NFS both numbers are that of the superblock; other file systems have more than one.
    if holder and share.kind in NFS_KINDS and holder != share.device:
        raise RpinfsError(
            f"image {image.name} at {image.where} is from another mount than the one that is at {share.where} now",
            mount_anew([image], image.where),
        )
    if errors := ext4_errors(name, root):
        raise RpinfsError(
            f"image {image.name} at {image.where} is damaged: ext4 has recorded errors ({errors})",
            mount_anew([image], image.where),
        )


def _check_bind(image: Image, bind: str, outer: Mount, mounts: "list[Mount]", by_fstab: bool, root: str = "") -> None:
    mount = mount_at(mounts, bind)
    if mount is None:
        if not by_fstab and (error := _link_at(f"Image {image.name}", "Bind", bind, mounts, root)):
            raise error
        # Its unit waits for that to be gone, see units.py.
        kept = f"{image.where}/{KEPT_FOLDER}"
        if os.path.islink(root + kept):
            from rpinfs.boot.overlay import refused

            raise refused(kept, "a symbolic link")
        raise RpinfsError(
            f"{bind} is not mounted from image {image.name}", f"systemctl start {quoted(mount_unit(bind))}"
        )
    if not mount.writable:
        raise RpinfsError(f"{bind} is read-only", f"mount -o remount,bind,rw {quoted(bind)}")
    if not by_fstab and not is_kept(mount, bind, outer):
        raise RpinfsError(
            f"{bind} is not kept in image {image.name}: {mount.source} ({mount.kind}) is mounted there",
            f"find out who mounted it, unmount it, then: systemctl start {quoted(mount_unit(bind))}",
        )


def is_kept(mount: Mount, bind: str, outer: Mount) -> bool:
    """Whether what is mounted at `bind` is its folder in the image that is mounted as `outer`."""
    return mount.device == outer.device and mount.top == f"/{KEPT_FOLDER}/{escape_path(bind)}"


def mount_anew(images: "list[Image]", where: str) -> str:
    """The command that unmounts `where` and the images that depend on it, has them checked, and starts all again."""
    before = list(dict.fromkeys(unit for image in images for unit in image.before))
    down = [*sockets_of(before), mount_unit(where), AGENT]
    up = before or [mount_unit(image.where) for image in images]
    return f"systemctl stop {quoted(*down)}; systemctl start {quoted(*up)}"


def sockets_of(before: "list[str] | tuple[str, ...]") -> "list[str]":
    """Sockets that start a unit again in the middle of its stop; its own start starts them too.

    By their names: whether there are others stands in files of the root, which may be on a NAS that is gone.
    """
    return [f"{name}.socket" for name in ("docker", "podman") if f"{name}.service" in before]


def uuid_file(image: Image) -> str:
    """Path of the file with what the agent has verified (`Verified`), beside the link to its device."""
    return f"{RUNTIME_FOLDER}/{image.name}.uuid"


class Verified:
    """What the agent wrote down of an image that it verified while it held the lease: see uuid_file.

    Attributes:
        uuid: of the file system; empty where nothing is verified.
        sequence: of the attachment of its loop device; empty where nothing tells.
        path: of the backing file as the configuration had it.
    """

    __slots__ = ("uuid", "sequence", "path")

    def __init__(self, uuid: str, sequence: str, path: str) -> None:
        self.uuid = uuid
        self.sequence = sequence
        self.path = path

    @classmethod
    def read(cls, image: Image, root: str = "") -> "Verified":
        """Read it; where nothing is verified, all of it is empty."""
        lines = [*read_text(root + uuid_file(image)).split("\n"), "", "", ""]
        return cls(lines[0].strip(), lines[1], lines[2])

    @classmethod
    def of(cls, image: Image, uuid: str, loop: str, root: str = "") -> "Verified":
        """Make it for the loop device to which an image is attached, such as "loop3"."""
        return cls(uuid, sequence(loop, root), image.path)

    @property
    def text(self) -> str:
        """What is written to the file."""
        return f"{self.uuid}\n{self.sequence}\n{self.path}\n"


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
