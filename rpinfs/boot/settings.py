"""The one table of settings.

Parser, validation, `rpinfs config show`, the man page rpinfs.conf(5) and the tests derive from `SETTINGS`.
Boot path: imports nothing but a neighbour; every parser is a pure function from text to value that raises
`ValueError(rule)`, where the rule says what was expected and fits behind "Key=value: ".
"""

from rpinfs.boot.units import mount_unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Value = str | int | bool | list[str]
    Parser = Callable[[str], Value]

LONGEST_NAME = 255
"""Bytes. Neither a unit of systemd nor a file may have a longer name."""

KIB = 1024
MIB = KIB**2
GIB = KIB**3
TIB = KIB**4

BLOCK_SIZE = 4096
"""Bytes. Block size of the file systems and of the loop devices, so every image is a multiple of it."""

SMALLEST_IMAGE = {"ext4": 64 * MIB, "xfs": 300 * MIB}
"""Bytes. Below this mkfs.xfs refuses, and ext4 has no room for a journal worth having."""

LARGEST_IMAGE = 16 * TIB - BLOCK_SIZE
"""Bytes. The largest file that ext4, the usual file system of a NAS, can hold."""

SNAPSHOT_MARK = ".snapshot-"
"""What stands between the name of an image and the time of a snapshot of it, YYYYMMDDTHHMMSSZ."""

REPLACED = ".replaced"
"""The end of the name of an image that a restore of the first version has replaced."""

TEMPLATE_FIELDS = ("serial", "mac", "hostname", "machine-id")

_SYSTEM_FOLDERS = frozenset(
    (
        "/bin", "/boot", "/boot/firmware", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/nfs", "/opt",
        "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local",
        "/usr/sbin", "/usr/share", "/var", "/var/cache", "/var/lib", "/var/lib/dpkg", "/var/lib/systemd",
        "/var/lib/rpinfs", "/var/log", "/var/run", "/var/spool", "/var/tmp",
    )
)  # fmt: skip
_FOLDERS_FOR_MOUNTS = ("/home", "/media", "/mnt", "/nfs", "/opt", "/srv")
_KERNEL_FOLDERS = ("/dev", "/proc", "/run", "/sys")
_UNIT_SUFFIXES = (".service", ".socket", ".target", ".timer", ".path", ".mount", ".slice", ".scope")
_LABEL = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-")
_DIGITS = frozenset("0123456789")
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


class Setting:
    """One key of one section: how it is written, read and explained."""

    __slots__ = (
        "section",
        "key",
        "default",
        "default_help",
        "is_list",
        "empty_is_value",
        "parse",
        "kind",
        "help",
    )

    def __init__(
        self,
        section: str,
        key: str,
        default: str,
        parse: "Parser",
        kind: str,
        help: str,
        *,
        default_help: str = "",
        is_list: bool = False,
        empty_is_value: bool = False,
    ) -> None:
        self.section = section
        self.key = key
        self.default = default
        self.default_help = default_help
        self.is_list = is_list
        self.empty_is_value = empty_is_value
        self.parse = parse
        self.kind = kind
        self.help = help


# Values


def _refuse_unprintable(text: str) -> None:
    for character in text:
        if character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff":
            raise ValueError("expected printable UTF-8 text")


def is_ipv4(text: str) -> bool:
    """Whether text is an IPv4 address in dotted decimal."""
    parts = text.split(".")
    return len(parts) == 4 and all(
        # No leading zeros: some programs read such a number as octal.
        0 < len(part) <= 3 and set(part) <= _DIGITS and int(part) < 256 and part == str(int(part))
        for part in parts
    )


def is_ipv6(text: str) -> bool:
    """Whether text is an IPv6 address without brackets; a zone (`%eth0`) may follow."""
    address, percent, zone = text.partition("%")
    if percent and not (zone and set(zone) <= _LABEL | {"."}):
        return False
    halves = address.split("::")
    if len(halves) > 2:
        return False
    groups = 0
    for index, half in enumerate(halves):
        parts = half.split(":") if half else []
        if parts and "." in parts[-1] and index == len(halves) - 1:
            if not is_ipv4(parts.pop()):
                return False
            groups += 2
        groups += len(parts)
        if not all(part and len(part) <= 4 and set(part) <= _HEXADECIMAL for part in parts):
            return False
    return groups < 8 if len(halves) == 2 else groups == 8


def _is_host_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return (
        0 < len(text) <= 253
        and all(0 < len(label) <= 63 and set(label) <= _LABEL and label[0] != "-" != label[-1] for label in labels)
        and not set(labels[-1]) <= _DIGITS
    )


def parse_address(text: str) -> str:
    """Accept an IPv4 address, an IPv6 address with or without brackets, or a host name."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if is_ipv6(bare) or (bare == text and (is_ipv4(text) or _is_host_name(text))):
        return bare
    raise ValueError("expected an IP address or a host name")


def parse_version(text: str) -> str:
    """Accept an NFS version."""
    if text not in ("3", "4.0", "4.1", "4.2"):
        raise ValueError("expected 3, 4.0, 4.1 or 4.2")
    return text


def parse_server_options(text: str) -> list[str]:
    """Accept options for both NFS mounts; refuse those that break a promise."""
    _refuse_unprintable(text)
    from rpinfs.boot import options

    return options.of_server(text)


def parse_boot_options(text: str) -> list[str]:
    """Accept options of the boot mount."""
    if text == "ro":
        return ["ro"]
    _refuse_unprintable(text)
    from rpinfs.boot import options

    return options.of_nfs(text)


def parse_image_options(text: str) -> list[str]:
    """Accept options of the file system in the image."""
    if text == "noatime":
        return ["noatime"]
    _refuse_unprintable(text)
    from rpinfs.boot import options

    return options.of_image(text)


def _parse_path(text: str) -> str:
    _refuse_unprintable(text)
    if not text.startswith("/"):
        raise ValueError("expected an absolute path")
    if "\\" in text or '"' in text or "'" in text:
        raise ValueError("expected a path without quotes and backslashes")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError('expected a path without ".."')
    if any(len(part.encode()) > 255 for part in parts):
        raise ValueError("expected a path whose names have at most 255 bytes")
    return "/" + "/".join(parts)


def parse_export(text: str) -> str:
    """Accept the path of an export as the server names it."""
    return _parse_path(text)


def parse_boot_export(text: str) -> str:
    """Accept the path of the boot export, or nothing for no boot mount."""
    return _parse_path(text) if text else ""


def _parse_mount_point(text: str, allowed: tuple[str, ...] = ()) -> str:
    path = _parse_path(text)
    if path == "/" or (path in _SYSTEM_FOLDERS and path not in allowed):
        # There is room for mounts below these, and other things lie beside them.
        below = f"; take a folder below it, such as {path}/docker" if path in _FOLDERS_FOR_MOUNTS else ""
        raise ValueError("expected a mount point that is not a system folder" + below)
    if any(path.startswith(folder + "/") for folder in _KERNEL_FOLDERS):
        raise ValueError("expected a mount point that is not below " + ", ".join(_KERNEL_FOLDERS))
    if len(mount_unit(path)) > LONGEST_NAME:
        # systemd writes each byte but ASCII letters and digits as four.
        raise ValueError(f"expected a mount point whose unit name has at most {LONGEST_NAME} characters")
    return path


def parse_mount_point(text: str) -> str:
    """Accept a mount point that hides nothing of the system."""
    return _parse_mount_point(text)


def parse_boot_mount_point(text: str) -> str:
    """Accept a mount point for the boot files."""
    return _parse_mount_point(text, ("/boot", "/boot/firmware"))


def is_kept_name(name: str) -> bool:
    """Whether a file name is that of a snapshot, or of an image that a restored one has replaced (snapshots.py)."""
    _, mark, when = name.rpartition(SNAPSHOT_MARK)
    is_time = len(when) == 16 and when[8] == "T" and when[15] == "Z" and set(when[:8] + when[9:15]) <= _DIGITS
    return bool(mark and is_time) or name.endswith(REPLACED)


def parse_file(text: str) -> str:
    """Accept the name of a backing file below the share, with fields in braces."""
    _refuse_unprintable(text)
    if text.startswith("/") or text.endswith("/"):
        raise ValueError("expected a file name below the share, not an absolute path or a folder")
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError('expected a file name below the share without "." and ".." in it')
    if "\\" in text or '"' in text or "'" in text:
        raise ValueError("expected a file name without quotes and backslashes")
    if ".rpinfs-" in text or parts[0] == ".rpinfs":
        raise ValueError("expected a name without .rpinfs, which rpinfs keeps for its own files")
    if is_kept_name(text):
        raise ValueError("expected an image, not a snapshot or what a restored one has replaced")
    if any(len(part.encode()) > 200 for part in parts):
        raise ValueError("expected names of at most 200 bytes")
    rest = text
    while "{" in rest or "}" in rest:
        before, brace, rest = rest.partition("{")
        field, closing, rest = rest.partition("}")
        if "}" in before or not brace or not closing or field not in TEMPLATE_FIELDS:
            raise ValueError("expected only the fields " + ", ".join("{" + name + "}" for name in TEMPLATE_FIELDS))
    return text


def parse_size(text: str) -> int:
    """Accept a size and return bytes; K, M, G, T are powers of 1024 (systemd.syntax)."""
    rule = "expected a size such as 20G (a whole number, then K, M, G or T, powers of 1024)"
    number = text.removesuffix("B").removesuffix("i") if text[-3:-2] in tuple("KMGT") and text.endswith("iB") else text
    exponent = "BKMGT".find(number[-1:]) if number else -1
    if exponent > 0:
        number = number[:-1]
    if not number or not set(number) <= _DIGITS or len(number) > 20:
        raise ValueError(rule)
    size = int(number) << (10 * max(exponent, 0))
    if size % BLOCK_SIZE:
        raise ValueError("expected a multiple of 4096 bytes (4K)")
    if size > LARGEST_IMAGE:
        raise ValueError(
            f"expected less than {size_text(LARGEST_IMAGE + BLOCK_SIZE)}, the largest file that the usual NAS can hold"
        )
    if size < SMALLEST_IMAGE["ext4"]:
        raise ValueError(f"expected at least {size_text(SMALLEST_IMAGE['ext4'])}")
    return size


def size_text(size: int) -> str:
    """Write a number of bytes as Size= takes it, to the byte: `64M`."""
    power = 0
    while size and size % KIB == 0 and power < 4:
        size //= KIB
        power += 1
    return f"{size}{('', 'K', 'M', 'G', 'T')[power]}"


def human_size(size: float) -> str:
    """Write a number of bytes for people, in powers of 1024: `9.8 GiB`."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = 0
    while size >= KIB and power < len(units) - 1:
        size /= KIB
        power += 1
    return f"{size:.0f} {units[power]}" if size >= 100 or size == int(size) else f"{size:.1f} {units[power]}"


def milliseconds(seconds: float) -> str:
    """A short time for people: `3 ms`."""
    milli = 1000.0 * seconds
    return f"{milli:.0f} ms" if milli >= 1 else "less than 1 ms"


def parse_file_system(text: str) -> str:
    """Accept a file system that Docker's overlay2 works on."""
    if text not in SMALLEST_IMAGE:
        raise ValueError("expected ext4 or xfs")
    return text


def parse_boolean(text: str) -> bool:
    """Accept a boolean as systemd does."""
    lower = text.lower()
    if lower in ("1", "yes", "y", "true", "t", "on"):
        return True
    if lower in ("0", "no", "n", "false", "f", "off"):
        return False
    raise ValueError("expected yes or no")


def parse_fence(text: str) -> str:
    """Accept what keeps a second Pi away."""
    if text not in ("lease", "mmp", "both"):
        raise ValueError("expected lease, mmp or both")
    return text


def split_words(text: str) -> list[str]:
    """Split at spaces as systemd does, outside of single and double quotes."""
    words: list[str] = []
    current = ""
    quote = ""
    started = False
    for character in text:
        if quote:
            if character == quote:
                quote = ""
            else:
                current += character
        elif character in "\"'":
            quote, started = character, True
        elif character in " \t":
            if started:
                words.append(current)
            current, started = "", False
        else:
            current += character
            started = True
    if quote:
        raise ValueError("expected a closing quote")
    if started:
        words.append(current)
    return words


def parse_bind(text: str) -> list[str]:
    """Accept folders to keep in the image."""
    return [parse_mount_point(word) for word in split_words(text)]


def parse_before(text: str) -> list[str]:
    """Accept names of units that shall wait for the image."""
    names = split_words(text)
    for name in names:
        if not name.endswith(_UNIT_SUFFIXES):
            raise ValueError(f"expected unit names with their ending, such as {name}.service")
        if not name.endswith(".service"):
            # Sockets, timers, paths and most targets come before basic.target, and the agent after it: a cycle.
            raise ValueError("expected services; others are started before an image can be there")
        stem = name.rpartition(".")[0]
        if not stem or not set(stem) <= _LABEL | set(":.\\@") or len(name) > 255:
            raise ValueError(f"{name} cannot be the name of a unit")
        if stem.startswith("rpinfs-"):
            raise ValueError("a unit of rpinfs cannot wait for itself")
    return names


def parse_command(text: str) -> str:
    """Accept a program with its arguments; it is not given to a shell."""
    _refuse_unprintable(text)
    program = (split_words(text) or [""])[0]
    if not program.startswith("/") or program.endswith("/"):
        raise ValueError("expected a program with its whole path, such as /usr/local/bin/notify; no shell reads this")
    return text


SETTINGS: "tuple[Setting, ...]" = (
    Setting("Server", "Address", "", parse_address, "IP address or host name",
            "The NAS. IPv6 addresses may stand in brackets.",
            default_help="the server of the root: nfsroot= or ip= on the kernel command line, or the mounted root"),
    Setting("Server", "Version", "4.1", parse_version, "3, 4.0, 4.1 or 4.2",
            "NFS version of both mounts. 4.2 lets the image give freed blocks back (rpinfs trim); 3 has no lock that "
            "dies with the Pi, so its images need ext4's multi-mount protection."),
    Setting("Server", "Options", "", parse_server_options, "mount options",
            "Options added to both NFS mounts, see nfs(5). soft and softerr are refused: they turn a pause of the NAS "
            "into a damaged image.",
            is_list=True),
    Setting("Boot", "Export", "/tftpboot", parse_boot_export, "path on the server",
            "The export with the boot files of the Pi. An empty value means no boot mount.",
            empty_is_value=True),
    Setting("Boot", "Where", "", parse_boot_mount_point, "mount point",
            "Where the boot files are mounted.",
            default_help="/boot/firmware if the root has that folder, else /boot"),
    Setting("Boot", "Options", "ro", parse_boot_options, "mount options",
            "Options of the boot mount. It is read-only, so that nothing but a person changes what the Pi boots;"
            " rpinfs boot edit opens it for a while.",
            is_list=True),
    Setting("Share", "Export", "/docker", parse_export, "path on the server",
            "The export that holds the images."),
    Setting("Share", "Where", "/nfs/docker", parse_mount_point, "mount point",
            "Where the share is mounted."),
    Setting("Image", "File", "{name}-{serial}.img", parse_file, "file name",
            "Backing file below the share. {serial} is the serial number of the board (where there is none, or one "
            "that says nothing, such as zeros, the MAC address of the NIC that booted), {mac} that MAC address with "
            "dashes, {hostname} and {machine-id} are what they say. Its snapshots, and what a restore has replaced, "
            "lie beside it until somebody deletes them: rpinfs(8).",
            default_help="NAME-{serial}.img"),
    Setting("Image", "Size", "10G", parse_size, "size",
            "Size of the image. The file is sparse: it takes on the NAS what is written to it. The default is only for "
            "making an image; an image that is there keeps its size. A larger value grows the image at the next start "
            "of the agent, before it is mounted; where that cannot be, the image is used as it is, and rpinfs status "
            "says why. A smaller value is refused."),
    Setting("Image", "FileSystem", "ext4", parse_file_system, "ext4 or xfs",
            "File system to make. An image that is there keeps its own. xfs is for databases on a NAS with a hard disk "
            "(6 ms a flush): an append with fsync took 0.93 of the time of an image mounted by hand there, and 1.38 on "
            "ext4; an SQLite commit 0.88 and 1.15. ext4 is for the rest: the worst fsync beside a large write took "
            "0.54 of that by hand there, and 1.43 on xfs; to unpack 2,000 small files into folders in turn 1.55, and "
            "3.23. With an SSD (1 ms a flush) that was 0.60 and 1.82, and 1.10 and 1.70. See DirectIO= as well."),
    Setting("Image", "Enabled", "yes", parse_boolean, "yes or no",
            "Whether the image is in use. no leaves its file alone and mounts nothing. Without the image docker, Docker"
            " and containerd start only where the folders that they write to lie on another image."),
    Setting("Image", "Where", "/var/lib/docker", parse_mount_point, "mount point",
            "Where the image is mounted."),
    Setting("Image", "Options", "noatime", parse_image_options, "mount options",
            "Mount options of the file system in the image.",
            is_list=True),
    Setting("Image", "Bind", "", parse_bind, "folders",
            "Further folders that are kept in the image: each is a bind mount from the folder .rpinfs at its top.",
            default_help="/var/lib/containerd for the image docker, else none", is_list=True),
    Setting("Image", "Before", "", parse_before, "unit names",
            "Units that wait behind the gate for this image. docker.service and containerd.service always wait for all "
            "images.",
            default_help="docker.service containerd.service for the image docker, else none", is_list=True),
    Setting("Image", "DirectIO", "yes", parse_boolean, "yes or no",
            "Whether the loop device goes past the page cache of the share: half the memory, and no double caching. no "
            "is for a NAS with a hard disk and a Pi with memory to spare: on ext4, an append with fsync took 1.01 of "
            "the time of an image mounted by hand then, for 1.38 with yes, and to unpack 2,000 small files 0.90 for "
            "1.58; but what is read is in memory twice, reading took 1.08 for 0.72, and the worst fsync beside a large "
            "write 0.85 for 0.54 (with an SSD, 2.01 for 0.60)."),
    Setting("Image", "Fence", "lease", parse_fence, "lease, mmp or both",
            "What keeps a second Pi from mounting the same image. mmp is ext4's multi-mount protection; it needs "
            "DirectIO=yes. Version=3 shares have mmp at the least."),
    Setting("Notify", "Command", "", parse_command, "program and its arguments",
            "Program that is told when this Pi gets worse or better: the share silent or back, an image refused, lost "
            "or mounted again, the share nearly full; and at each boot, how it went. No shell reads the line; words "
            "may be quoted. On its standard input it gets a line with the host name, the status (ok, warning, "
            "critical) and the sentence, a line with the remedy, which may be empty, and a line of JSON. It runs as "
            "rpinfs-notify.service, as root unless a drop-in says User=, for 30 s at most, then it is killed with all "
            "its children; one at a time, at most once a minute, after six of them once in ten minutes; what happens "
            "meanwhile is told as it is then. An exit status other than 0 means that nobody heard it: it is tried "
            "again, five times in all, and the check notify.heard says so. Where the root is on the NAS that is gone, "
            "the program may be out of reach until that is back: only something outside that misses a sign of life, "
            "such as rpinfs fleet on the NAS, tells of that for sure. Examples: /usr/share/doc/rpinfs/examples.",
            default_help="nobody is told"),
)  # fmt: skip

SECTIONS = ("Server", "Boot", "Share", "Image", "Notify")
DOCKER = "docker"
"""The image that is always there."""
IMAGE_DEFAULTS = {
    DOCKER: {"Bind": "/var/lib/containerd", "Before": "docker.service containerd.service"},
}
"""Defaults that one image name has for itself: the image `docker` is there with no configuration at all."""
