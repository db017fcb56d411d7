"""Mounts written by hand, turned into a configuration: `rpinfs config import-fstab`.

    texts -> lines -> which line is the share, the boot files, an image -> a configuration, with remarks

What rpinfs cannot say is left alone and named. The result is read back by the configuration's own parser before
anybody sees it: what comes out of here loads without errors, or does not come out.
Source: fstab(5), nfs(5), systemd.mount(5).
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rpinfs.boot.config import examine
from rpinfs.boot.host import Host
from rpinfs.boot.settings import BLOCK_SIZE, IMAGE_DEFAULTS, SETTINGS
from rpinfs.boot.units import KEPT_FOLDER, escape_path, unescape_octal
from rpinfs.errors import RpinfsError

NFS_TYPES = ("nfs", "nfs4")
BOOT_FOLDERS = ("/boot/firmware", "/boot")
_FIRST_IMAGE = "docker"

_IMAGE_TYPES = ("ext4", "xfs", "auto")
_NEVER_FILES = ("none", "swap", "tmpfs", "proc", "sysfs", "devpts", "bind", "overlay")

# Options that the generator says in other words, or that are how it is anyway.
_OF_FSTAB = frozenset(
    [
        "defaults",
        "rw",
        "auto",
        "nofail",
        "_netdev",
        "user",
        "users",
        "nouser",
        "owner",
        "group",
        "suid",
        "dev",
        "exec",
        "async",
        "hard",
        "fg",
        "intr",
        "nointr",
    ]
)
_OF_FSTAB_WITH_VALUE = ("x-systemd.", "x-gvfs-", "comment=", "addr=", "clientaddr=", "mountaddr=")
_VERSION_WORDS = ("vers=", "nfsvers=", "minorversion=")
_ACCESS_TIMES = frozenset(["noatime", "relatime", "strictatime", "norelatime", "nostrictatime", "atime"])

_PAUSES = "it turns a pause of the NAS into I/O errors and a damaged image"
_POWER_CUT = "the image would not survive a power cut"
_DROPPED_OF_NFS = {
    "soft": _PAUSES,
    "softerr": _PAUSES,
    "bg": "rpinfs waits for a late NAS itself",
    "noauto": "rpinfs mounts at boot",
}
_DROPPED_OF_IMAGE = {
    "ro": "Docker must write",
    "noauto": "rpinfs mounts at boot",
    "noload": _POWER_CUT,
    "norecovery": _POWER_CUT,
    "nobarrier": _POWER_CUT,
    "barrier": _POWER_CUT,
    "journal_async_commit": _POWER_CUT,
}


@dataclass(frozen=True)
class Line:
    """One line of an fstab that mounts something. `number` counts from 1, `text` is the line as it stands."""

    number: int
    text: str
    what: str
    where: str
    kind: str
    options: list[str]

    @property
    def is_nfs(self) -> bool:
        """Whether it mounts from an NFS server."""
        return self.kind in NFS_TYPES

    @property
    def is_bind(self) -> bool:
        """Whether it shows a folder at a second place."""
        return "bind" in self.options or "rbind" in self.options

    @property
    def is_of_file(self) -> bool:
        """Whether it mounts a file, by a loop device; mount(8) takes one also where `loop` is not said."""
        if "loop" in self.options or any(option.startswith("loop=") for option in self.options):
            return True
        is_path = self.what.startswith("/") and not self.what.startswith("/dev/")
        return is_path and not self.is_bind and not self.is_nfs and self.kind not in _NEVER_FILES


@dataclass(frozen=True)
class Source:
    """The first field of an NFS line, taken apart."""

    server: str
    export: str


@dataclass
class Imported:
    """A configuration made from an fstab.

    Attributes:
        config: text of the configuration, without comments.
        replaced: lines that it replaces, to be commented out.
        remarks: what a person should know, each with the line that it is about.
    """

    config: str = ""
    replaced: list[Line] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def remark(self, line: Line, text: str) -> None:
        """Note something about a line."""
        self.remarks.append(f"line {line.number}: {text}")


Look = Callable[[str], "int | None"]
"""Tells the size of a file in bytes, or None where there is no such, or no answer."""


def parse(text: str) -> list[Line]:
    """Read the lines of an fstab; what is no mount is skipped, as mount(8) does."""
    lines = []
    for number, raw in enumerate(text.splitlines(), 1):
        fields = raw.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        what, where = unescape_octal(fields[0]), unescape_octal(fields[1])
        options = fields[3].split(",") if len(fields) > 3 else []
        lines.append(Line(number, raw.strip(), what, _normal(where), fields[2], [o for o in options if o]))
    return lines


def import_fstab(text: str, look: Look) -> Imported:
    """Turn the lines of an fstab that mount a share and the images on it into a configuration.

    Args:
        look: tells the size of a backing file; it is called with paths below the share and must not hang.

    Raises:
        RpinfsError: there is no such line, or what is there cannot be said in a configuration.
    """
    lines = parse(text)
    made = Imported()
    images, share = _images_and_share(lines, made)
    source = _source(share)
    boot = _boot_line(lines, share, source, made)
    version = _version(share, boot, made)
    server_options, boot_options = _nfs_options(share, boot, made)
    sections = [
        _section("Server", [("Address", source.server), ("Version", version), ("Options", ",".join(server_options))]),
        _boot_section(boot, boot_options),
        _section("Share", [("Export", source.export), ("Where", share.where)]),
    ]
    names: list[str] = []
    for line in images:
        names.append(_image_name(line, names))
        sections.append(_image_section(names[-1], line, share, made, look))
    _remark_binds(lines, images, made)
    made.replaced = [line for line in lines if line is boot or line is share or line in images]
    made.config = "\n".join(section for section in sections if section)
    _insist_that_it_loads(made)
    return made


def render(made: Imported, path: str) -> str:
    """Write out an imported configuration with what is to be done about the fstab, as comments."""
    comments = [f"Made by rpinfs config import-fstab from {path}.", ""]
    comments.append(f"Comment out in {path} what this replaces; as long as a line stands there, it wins:")
    comments += [f"  line {line.number}: {line.text}" for line in made.replaced]
    if made.remarks:
        comments += ["", "Remarks:"]
        for remark in made.remarks:
            comments += textwrap.wrap(
                remark,
                110,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "".join(f"# {comment}".rstrip() + "\n" for comment in comments) + "\n" + made.config


# Which line is what


def _images_and_share(lines: list[Line], made: Imported) -> tuple[list[Line], Line]:
    """Find the images, and the one NFS mount that they lie on."""
    shares: dict[int, Line] = {}
    images = []
    for line in lines:
        if not line.is_of_file:
            continue
        share = _mount_below(lines, line.what)
        if share is None or not share.is_nfs:
            made.remark(line, f"{line.what} does not lie on an NFS mount of this fstab; left alone")
        elif line.kind not in _IMAGE_TYPES:
            made.remark(line, f"an image is ext4 or xfs, this is {line.kind}; left alone")
        else:
            _refuse_part_of_file(line)
            shares[share.number] = share
            images.append(line)
    if not images:
        raise RpinfsError(
            "found no line that mounts an image file from an NFS share; expected one such as:"
            " /nfs/docker/loop /var/lib/docker ext4 loop 0 2",
            "with no image yet there is nothing to import: write /etc/rpinfs/rpinfs.conf, see rpinfs.conf(5)",
        )
    if len(shares) > 1:
        places = " and ".join(f"{line.where} (line {line.number})" for line in shares.values())
        raise RpinfsError(f"expected all images on one share, found them on {places}", "move them to one share")
    return images, next(iter(shares.values()))


def _mount_below(lines: Iterable[Line], path: str) -> Line | None:
    """Find the mount that a path lies on: the one with the longest mount point above it."""
    above = [line for line in lines if line.where != "/" and path.startswith(line.where + "/")]
    return max(above, key=lambda line: (len(line.where), line.number), default=None)


def _refuse_part_of_file(line: Line) -> None:
    for option in line.options:
        name, _, value = option.partition("=")
        if name in ("offset", "sizelimit") and value.strip("0"):
            raise RpinfsError(
                f"line {line.number}: {option}: an image is one file system from the first byte of a file to its last",
                f"copy the file system out of {line.what} into a file of its own",
            )


def _source(line: Line) -> Source:
    """Take SERVER:/EXPORT apart; an IPv6 server stands in brackets."""
    if line.what.startswith("["):
        server, _, rest = line.what[1:].partition("]")
        colon, export = rest[:1], rest[1:]
    else:
        server, colon, export = line.what.partition(":")
    if not server or not colon or not export:
        raise RpinfsError(f"line {line.number}: expected SERVER:/EXPORT, found {line.what}")
    return Source(server, _normal(export))


def _boot_line(lines: list[Line], share: Line, source: Source, made: Imported) -> Line | None:
    """Find the line of the boot files, if it is one that rpinfs can take over."""
    found: Line | None = None
    for where in BOOT_FOLDERS:
        for line in lines:
            if line.where != where or line is share:
                continue
            reason = _not_our_boot(line, source, found)
            if reason:
                made.remark(line, f"{reason}; left alone")
            else:
                found = line
    return found


def _not_our_boot(line: Line, source: Source, found: Line | None) -> str:
    if not line.is_nfs:
        return f"{line.where} is mounted from {line.what}, not over NFS"
    if found is not None:
        return f"the boot files are taken from line {found.number}"
    server = _source(line).server
    if server.lower() != source.server.lower():
        return f"the boot files come from {server}, the share from {source.server}, and rpinfs knows one server"
    return ""


def _remark_binds(lines: list[Line], images: list[Line], made: Imported) -> None:
    """Folders that are kept in an image by hand: rpinfs keeps them at another place in it, so the line must stay."""
    for line in lines:
        image = _mount_below(images, line.what) if line.is_bind else None
        if image is None:
            continue
        kept = f"{image.where}/{KEPT_FOLDER}"
        made.remark(
            line,
            f"{line.where} is kept in the image by a bind mount of your own. Either leave the line, with the options"
            " bind,_netdev,nofail (without _netdev it makes an ordering cycle at boot); or, with Docker and containerd"
            f" stopped and {line.where} unmounted: mkdir -p {kept} && mv {line.what} {kept}/{escape_path(line.where)}"
            + ("" if _binds_by_default(image, line) else f", write Bind={line.where} below the image,")
            + " and comment the line out.",
        )


def _binds_by_default(image: Line, bind: Line) -> bool:
    name = _FIRST_IMAGE if image.where == _default("Image", "Where") else ""
    return bind.where in IMAGE_DEFAULTS.get(name, {}).get("Bind", "").split()


# Server, share and boot files


def _version(share: Line, boot: Line | None, made: Imported) -> str:
    version = _version_of(share, made)
    if boot and (other := _said_version(boot)) and other not in (version, "4"):
        made.remark(boot, f"version {other} gives way to {version}, that of the share: rpinfs has one for both")
    if version == "3":
        made.remark(
            share,
            "with version 3 a Pi's hold on its image does not end with the Pi, so the image needs ext4's multi-mount"
            " protection; take Version=4.1 if the NAS has it",
        )
    return version


def _version_of(line: Line, made: Imported) -> str:
    said = _said_version(line)
    if said in ("3", "4.0", "4.1", "4.2"):
        return said
    default = _default("Server", "Version")
    if said in ("", "4"):
        made.remark(
            line,
            f"it leaves the version to be agreed on with the server, rpinfs does not: it is {default}; with 4.2 the"
            " image could give freed blocks back to the NAS",
        )
        return default
    raise RpinfsError(
        f"line {line.number}: NFS version {said}: expected 3, 4.0, 4.1 or 4.2", "use what the NAS has of these"
    )


def _said_version(line: Line) -> str:
    """The version that a line asks for, as far as it says so; the last word wins, as in nfs(5)."""
    major = "4" if line.kind == "nfs4" else ""
    minor = ""
    for option in line.options:
        name, _, value = option.partition("=")
        if name in ("vers", "nfsvers"):
            major, _, dotted = value.partition(".")
            minor = dotted or minor
        elif name == "minorversion":
            minor = value
        elif _is_short_version(option):
            major, _, minor = option[1:].partition(".")
    if minor and major in ("", "4"):
        return f"4.{minor}"
    return major


def _is_short_version(option: str) -> bool:
    return option[:1] == "v" and option[1:] in ("2", "3", "4", "4.0", "4.1", "4.2")


def _nfs_options(share: Line, boot: Line | None, made: Imported) -> tuple[list[str], list[str]]:
    """Options for both mounts, and those for the boot files alone."""
    for_share = _kept_nfs_options(share, made)
    if "ro" in for_share:
        for_share.remove("ro")
        made.remark(share, "ro is dropped: the share holds the images and must be writable")
    if boot is None:
        return for_share, []
    for_boot = _kept_nfs_options(boot, made)
    if "ro" not in for_boot:
        made.remark(boot, f"{boot.where} becomes read-only; rpinfs boot edit makes it writable for as long as you edit")
    if only_share := [option for option in for_share if option not in for_boot]:
        made.remark(share, f"{','.join(only_share)}: options of the share count for the boot files too")
    return for_share, [option for option in for_boot if option not in for_share and option != "ro"]


def _kept_nfs_options(line: Line, made: Imported) -> list[str]:
    kept = []
    for option in line.options:
        name = option.partition("=")[0]
        if _is_of_fstab(option) or option.startswith(_VERSION_WORDS) or _is_short_version(option):
            continue
        if name in _DROPPED_OF_NFS:
            made.remark(line, f"{option} is dropped: {_DROPPED_OF_NFS[name]}")
        else:
            kept.append(option)
    return kept


def _is_of_fstab(option: str) -> bool:
    return option in _OF_FSTAB or option.startswith(_OF_FSTAB_WITH_VALUE)


def _boot_section(boot: Line | None, options: list[str]) -> str:
    if boot is None:
        # The default would mount what was not mounted before.
        return "[Boot]\nExport=\n"
    return _section(
        "Boot",
        [
            ("Export", _source(boot).export),
            ("Where", boot.where),
            ("Options", ",".join(["ro", *options]) if options else ""),
        ],
    )


# Images


def _image_name(line: Line, taken: list[str]) -> str:
    """Name an image after its mount point; the one of Docker has the name that brings Docker's defaults along."""
    if line.where == _default("Image", "Where") and _FIRST_IMAGE not in taken:
        return _FIRST_IMAGE
    last = line.where.rpartition("/")[2].lower()
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in last).strip("-_")[:24] or "image"
    # /var/lib/docker is the image docker, and no other is.
    candidates = [stem] if stem != _FIRST_IMAGE else []
    candidates += [f"{stem}-{number}" for number in range(2, len(taken) + 3)]
    return next(candidate for candidate in candidates if candidate not in taken)


def _image_section(name: str, line: Line, share: Line, made: Imported, look: Look) -> str:
    file = line.what.removeprefix(share.where + "/")
    if not file.strip("/"):
        raise RpinfsError(f"line {line.number}: {line.what} is the share itself; expected a file below it")
    _remark_size(line, made, look)
    options = _image_options(line, made)
    return _section(
        f"Image {name}",
        [
            ("File", file),
            ("FileSystem", line.kind if line.kind not in ("auto", _default("Image", "FileSystem")) else ""),
            ("Where", line.where if line.where != _default("Image", "Where") else ""),
            ("Options", ",".join(options) if options != [_default("Image", "Options")] else ""),
        ],
    )


def _remark_size(line: Line, made: Imported, look: Look) -> None:
    size = look(line.what)
    if size is None:
        made.remark(
            line,
            f"{line.what} could not be seen from here; an image that is there is used as it is, one that is missing at"
            f" boot is made, of {_default('Image', 'Size')} if you do not set Size=",
        )
    elif size % BLOCK_SIZE:
        made.remark(line, f"{line.what} has {size} bytes, which is no multiple of {BLOCK_SIZE}")


def _image_options(line: Line, made: Imported) -> list[str]:
    kept: list[str] = []
    for option in line.options:
        name = option.partition("=")[0]
        if _is_of_fstab(option) or name in ("loop", "offset", "sizelimit"):
            continue
        if name in _DROPPED_OF_IMAGE and option != "barrier=1":
            made.remark(line, f"{option} is dropped: {_DROPPED_OF_IMAGE[name]}")
        elif name != "barrier":
            kept.append(option)
    # Options= replaces the default: without a word of the user's on access times, keep that of the default.
    return kept if _ACCESS_TIMES & set(kept) else [_default("Image", "Options"), *kept]


# Writing


def _section(header: str, values: list[tuple[str, str]]) -> str:
    """Write a section; settings without a value are left to their default."""
    return "".join([f"[{header}]\n", *(f"{key}={value}\n" for key, value in values if value)])


def _insist_that_it_loads(made: Imported) -> None:
    # A machine of its own: the kernel command line and the files of this one have their say only when it is used.
    _, errors = examine(Host(config_files=[("the imported configuration", made.config)], serial="0"))
    if errors:
        error = errors[0]
        lines = ", ".join(str(line.number) for line in made.replaced)
        reason = error.message.removeprefix(f"{error.file}:{error.line}: ")
        raise RpinfsError(f"lines {lines} cannot be said in a configuration: {reason}", error.remedy)


def _default(section: str, key: str) -> str:
    return next(setting.default for setting in SETTINGS if (setting.section, setting.key) == (section, key))


def _normal(path: str) -> str:
    return os.path.normpath("/" + path.lstrip("/")) if path.startswith("/") else path
