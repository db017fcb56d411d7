"""Mounts written by hand, turned into a configuration: `rpinfs config import-fstab`.

    lines -> which one is the share, the boot files, an image -> a configuration, and a word on every line that stays

What rpinfs cannot say is left alone and named. The result is read back by the configuration's own parser before
anybody sees it: what comes out of here loads without errors, or does not come out. Pure but for the look at files.
"""

from __future__ import annotations

from collections.abc import Callable

from rpinfs.boot.ordering import TO_ADD
from rpinfs.boot.settings import BLOCK_SIZE, IMAGE_DEFAULTS
from rpinfs.boot.units import KEPT_FOLDER, escape_path
from rpinfs.errors import RpinfsError, quoted
from rpinfs.image import fstab, fstab_options
from rpinfs.image.fstab import Line, Source, is_below, mount_below
from rpinfs.image.fstab_options import default
from rpinfs.image.takeover_text import Imported, boot_section, insist_that_it_loads, section

BOOT_FOLDERS = ("/boot/firmware", "/boot")
_FIRST_IMAGE = "docker"
_CONTAINERD = "/var/lib/containerd"
_IMAGE_TYPES = ("ext4", "xfs", "auto")

_WAITING = {
    "/var/lib/containers": "podman.service podman.socket podman-restart.service podman-auto-update.service",
    "/var/lib/rancher": "k3s.service k3s-agent.service",
    "/var/lib/containerd": "containerd.service",
    "/var/lib/kubelet": "kubelet.service",
    "/var/lib/lxc": "lxc.service",
    "/var/lib/libvirt": "libvirtd.service",
    "/var/lib/postgresql": "postgresql.service",
    "/var/lib/mysql": "mariadb.service mysql.service",
}
"""What uses a folder by the usual packages: a line of an fstab has everything wait, a configuration what it names."""

Look = Callable[[str], "int | None"]
"""Tells the size of a file in bytes, or None where there is no such, or no answer."""


class NothingImportedError(RpinfsError):
    """No configuration can be made; `remarks` says of every line concerned why it is left alone."""

    def __init__(self, error: RpinfsError, remarks: list[str]) -> None:
        super().__init__(error.message, error.remedy, error.status)
        self.remarks = remarks


def import_fstab(text: str, look: Look) -> Imported:
    """Turn the lines of an fstab that mount the boot files, a share and the images on it into a configuration.

    Args:
        look: tells the size of a backing file; it is called with paths below the share and must not hang.

    Raises:
        NothingImportedError: there is no such line, or what is there cannot be said in a configuration.
    """
    lines = fstab.parse(text)
    made = Imported()
    try:
        _import(lines, made, look)
        insist_that_it_loads(made)
    except RpinfsError as error:
        made.replaced = []
        _remark_the_rest(lines, [], None, made, nothing=True)
        raise NothingImportedError(error, made.remarks) from error
    return made


def _import(lines: list[Line], made: Imported, look: Look) -> None:
    images = _images(lines, made)
    share = _share(lines, images) or _share_without_image(lines, images)
    boot = _boot_line(lines, share, made)
    main = share or boot
    if main is None or (not images and (boot is None or any(line.where == _docker() for line in lines))):
        raise RpinfsError(
            "found no line that mounts an image file from an NFS share; expected one such as:"
            " /nfs/docker/loop /var/lib/docker ext4 loop 0 2",
            "with no image yet there is nothing to import: write /etc/rpinfs/rpinfs.conf, see rpinfs.conf(5)",
        )
    source = fstab.source(main)
    version = _version(main, boot, made)
    server_options, boot_options = fstab_options.of_nfs(share, boot, made.remark)
    sections = [
        section("Server", [("Address", source.server), ("Version", version), ("Options", ",".join(server_options))]),
        boot_section(boot, boot_options),
    ]
    if share:
        sections.append(section("Share", [("Export", source.export), ("Where", share.where)]))
    if not images:
        _remark_no_image(main, share, source, made)
    sections += _image_sections(images, share, made, look)
    _remark_the_rest(lines, images, share, made)
    made.replaced = [line for line in lines if line is boot or line is share or line in images]
    made.config = "\n".join(section for section in sections if section)


# Which line is what


def _images(lines: list[Line], made: Imported) -> list[Line]:
    """Find the images; say of every other file that is mounted why it is none."""
    images: list[Line] = []
    for line in lines:
        if not line.is_of_file:
            continue
        reason = _no_image(line, lines, images)
        if reason:
            made.remark(line, f"{reason}; left alone")
        else:
            _refuse_part_of_file(line)
            images.append(line)
    return images


def _no_image(line: Line, lines: list[Line], images: list[Line]) -> str:
    if any(one.is_nfs and one.where == line.what for one in lines):
        raise RpinfsError(f"line {line.number}: {line.what} is the share itself; expected a file below it")
    share = mount_below(lines, line.what)
    if share is None or not share.is_nfs:
        return f"{line.what} does not lie on an NFS mount of this fstab"
    if not set(line.kinds) & set(_IMAGE_TYPES):
        return f"an image is ext4 or xfs, this is {line.kind}"
    for image in images:
        if image.where == line.where:
            return f"line {image.number} mounts at {line.where} already, and systemd takes the first"
        if is_below(line.where, image.where):
            return (
                f"{line.where} lies below {image.where}, where line {image.number} mounts an image: give it the options"
                f" {TO_ADD}, without which it makes an ordering cycle at boot"
            )
    return ""


def _share(lines: list[Line], images: list[Line]) -> Line | None:
    """The one NFS mount that all images lie on; None where there is no image."""
    shares = {share.number: share for image in images if (share := mount_below(lines, image.what))}
    if len(shares) > 1:
        places = " and ".join(f"{line.where} (line {line.number})" for line in shares.values())
        raise RpinfsError(f"expected all images on one share, found them on {places}", "move them to one share")
    return next(iter(shares.values()), None)


def _share_without_image(lines: list[Line], images: list[Line]) -> Line | None:
    """With no image yet, what is mounted from an NFS server where the share is by default."""
    found = [line for line in lines if line.is_nfs and line.where == default("Share", "Where")]
    return found[0] if found and not images else None


def _docker() -> str:
    return default("Image", "Where")


def _refuse_part_of_file(line: Line) -> None:
    for option in line.options:
        name, _, value = option.partition("=")
        if name in ("offset", "sizelimit") and value.strip("0"):
            raise RpinfsError(
                f"line {line.number}: {option}: an image is one file system from the first byte of a file to its last",
                f"copy the file system out of {line.what} into a file of its own",
            )


def _boot_line(lines: list[Line], share: Line | None, made: Imported) -> Line | None:
    """Find the line of the boot files, if it is one that rpinfs can take over."""
    server = fstab.source(share).server if share else ""
    found: Line | None = None
    for where in BOOT_FOLDERS:
        for line in lines:
            if line.where != where or line is share or line.is_swap:
                continue
            reason = _not_our_boot(line, server, found)
            if reason:
                made.remark(line, f"{reason}; left alone")
            else:
                found = line
    return found


def _not_our_boot(line: Line, share_server: str, found: Line | None) -> str:
    if not line.is_nfs:
        return f"{line.where} is mounted from {line.what}, not over NFS"
    if found is not None:
        return f"the boot files are taken from line {found.number}"
    server = fstab.source(line).server
    if share_server and server.lower() != share_server.lower():
        return f"the boot files come from {server}, the share from {share_server}, and rpinfs knows one server"
    return ""


# What is said of lines


def _remark_no_image(main: Line, share: Line | None, source: Source, made: Imported) -> None:
    made_there = f"an image of {default('Image', 'Size')} for Docker is made there at the next boot"
    if share:
        made.remark(main, f"no line mounts an image from this share: {made_there}")
        return
    export, where = default("Share", "Export"), default("Share", "Where")
    made.remark(
        main,
        f"no line mounts a share with an image, so the defaults count: {source.server}:{export} is mounted at {where},"
        f" and {made_there}. Where the NAS has the share under another name, write [Share] with Export= below",
    )


def _remark_the_rest(
    lines: list[Line], images: list[Line], share: Line | None, made: Imported, nothing: bool = False
) -> None:
    """Say of every other line that has to do with an image, the share or Docker why it is left alone."""
    for line in lines:
        if line in images or line is share or line.number in made.remarked:
            continue
        reason = _reason(line, lines, images, share, nothing)
        if reason:
            made.remark(line, reason)


def _reason(line: Line, lines: list[Line], images: list[Line], share: Line | None, nothing: bool) -> str:
    if (line.is_bind or line.is_swap) and (image := mount_below(images, line.what)):
        return _kept_in(image, line) if line.is_bind else _swap(line, f"the image of line {image.number}")
    below = mount_below([share] if share else [one for one in lines if one.is_nfs], line.what)
    if (line.is_bind or line.is_swap) and below:
        if line.is_swap:
            return _swap(line, f"the NFS mount of line {below.number}")
        return f"{line.where} shows a folder of the NFS mount of line {below.number}; left alone"
    for image in images:
        if is_below(line.where, image.where):
            return (
                f"{line.where} lies below {image.where}, where line {image.number} mounts an image; left alone. Give it"
                f" the options {TO_ADD}, without which it makes an ordering cycle at boot"
            )
    place = next((place for place in (_docker(), _CONTAINERD) if line.where == place), "")
    if place and not line.is_swap:
        return (
            f"{line.what} ({line.kind}) is mounted at {place}, and is no image on an NFS share; left alone. As long as"
            f" it stands there it wins, and rpinfs mounts nothing at {place}"
        )
    if line.is_nfs and (nothing or share is None) and line.where not in BOOT_FOLDERS:
        return f"{line.where} is an NFS mount with no image on it; left alone"
    if nothing and line.is_nfs:
        return f"{line.where}: left alone with the rest"
    return ""


def _swap(line: Line, where: str) -> str:
    return (
        f"swap in {line.what} lies on {where}; left alone. rpinfs sees to its order at boot, but a Pi that swaps to its"
        " NAS stands still with it: zram is better"
    )


def _kept_in(image: Line, bind: Line) -> str:
    """Folders that are kept in an image by hand: rpinfs keeps them at another place in it, so the line must stay."""
    kept = f"{image.where}/{KEPT_FOLDER}"
    return (
        f"{bind.where} is kept in the image by a bind mount of your own. Either leave the line, with the options"
        f" bind,{TO_ADD} (without _netdev it makes an ordering cycle at boot); or comment it out"
        + ("" if _binds_by_default(image, bind) else f", write Bind={bind.where} below the image")
        + f" and, with Docker and containerd stopped and {bind.where} unmounted: mkdir -p {quoted(kept)} &&"
        f" mv {quoted(bind.what, kept + '/' + escape_path(bind.where))}"
    )


def _binds_by_default(image: Line, bind: Line) -> bool:
    name = _FIRST_IMAGE if image.where == default("Image", "Where") else ""
    return bind.where in IMAGE_DEFAULTS.get(name, {}).get("Bind", "").split()


# Server and boot files


def _version(main: Line, boot: Line | None, made: Imported) -> str:
    version = _version_of(main, made)
    other = fstab.said_version(boot) if boot and boot is not main else ""
    if boot and other and other not in (version, "4"):
        made.remark(boot, f"version {other} gives way to {version}, that of the share: rpinfs has one for both")
    if version == "3":
        made.remark(
            main,
            "with version 3 a Pi's hold on its image does not end with the Pi, so the image needs ext4's multi-mount"
            " protection; take Version=4.1 if the NAS has it",
        )
    return version


def _version_of(line: Line, made: Imported) -> str:
    said = fstab.said_version(line)
    if said in ("3", "4.0", "4.1", "4.2"):
        return said
    version = default("Server", "Version")
    if said in ("", "4"):
        made.remark(
            line,
            f"it leaves the version to be agreed on with the server, rpinfs does not: it is {version}; with 4.2 the"
            " image could give freed blocks back to the NAS",
        )
        return version
    raise RpinfsError(
        f"line {line.number}: NFS version {said}: expected 3, 4.0, 4.1 or 4.2", "use what the NAS has of these"
    )


# Images


def _image_sections(images: list[Line], share: Line | None, made: Imported, look: Look) -> list[str]:
    names: list[str] = []
    sections = []
    for line in images:
        assert share
        names.append(_image_name(line, names))
        bind = [other for other in images if other.where == _CONTAINERD]
        text = _image_section(names[-1], line, share, made, look)
        if bind and names[-1] == _FIRST_IMAGE:
            # The default would have it at the same place.
            text += "Bind=\n"
        if names[-1] != _FIRST_IMAGE:
            _remark_waiting(names[-1], line, made)
        sections.append(text)
    return sections


def _remark_waiting(name: str, line: Line, made: Imported) -> None:
    """By an fstab line everything waits for a mount; by a configuration only what it names."""
    above = sorted((place for place in _WAITING if line.where == place or is_below(line.where, place)), key=len)
    units = _WAITING[above[-1]] if above else ""
    made.remark(
        line,
        f"nothing waits for the image {name} at {line.where} any more, and what starts before it is mounted writes"
        f" below its mount point; write below [Image {name}]: Before={units or 'UNIT.service'}"
        + ("" if units else ", with the units that use it")
        + (", less those that you do not have" if " " in units else ""),
    )


def _image_name(line: Line, taken: list[str]) -> str:
    """Name an image after its mount point; the one of Docker has the name that brings Docker's defaults along."""
    if line.where == default("Image", "Where") and _FIRST_IMAGE not in taken:
        return _FIRST_IMAGE
    last = line.where.rpartition("/")[2].lower()
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in last).strip("-_")[:24] or "image"
    # /var/lib/docker is the image docker, and no other is.
    candidates = [stem] if stem != _FIRST_IMAGE else []
    candidates += [f"{stem}-{number}" for number in range(2, len(taken) + 3)]
    return next(candidate for candidate in candidates if candidate not in taken)


def _image_section(name: str, line: Line, share: Line, made: Imported, look: Look) -> str:
    file = line.what.removeprefix(share.where + "/")
    _remark_size(line, made, look)
    options = fstab_options.of_image(line, made.remark)
    kinds = [kind for kind in line.kinds if kind in _IMAGE_TYPES]
    kind = kinds[0] if len(kinds) == 1 else "auto"
    return section(
        f"Image {name}",
        [
            ("File", file),
            ("FileSystem", kind if kind not in ("auto", default("Image", "FileSystem")) else ""),
            ("Where", line.where if line.where != default("Image", "Where") else ""),
            ("Options", ",".join(options) if options != [default("Image", "Options")] else ""),
        ],
    )


def _remark_size(line: Line, made: Imported, look: Look) -> None:
    size = look(line.what)
    if size is None:
        made.remark(
            line,
            f"{line.what} could not be seen from here; an image that is there is used as it is, one that is missing at"
            f" boot is made, of {default('Image', 'Size')} if you do not set Size=",
        )
    elif size % BLOCK_SIZE:
        made.remark(line, f"{line.what} has {size} bytes, which is no multiple of {BLOCK_SIZE}")
