"""Other people's lines of fstab that depend on mounts of ours: in which order systemd would start them.

Imported where fstab mentions one of them. Pure. What systemd makes of each line was tried with 252 and 257, see
tests/oracle/test_ordering.py.

A mount of ours follows the network, which follows local-fs.target. What fstab mounts below an image, or from a folder
in it, follows the image and is ordered before local-fs.target: a cycle, of which systemd drops a job at random, such as
dbus.socket. `Before=` of a unit cannot be taken back by a drop-in; options of the line can, so they are named. Of swap
files and automounts that ordering is a default dependency, which a drop-in can take away.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NETWORK_TYPES = frozenset(
    ("afs", "ceph", "cifs", "davfs", "gfs", "gfs2", "glusterfs", "lustre", "ncp", "ncpfs", "nfs", "nfs4", "ocfs2",
     "pvfs2", "smb3", "smbfs", "sshfs")
)  # fmt: skip
"""Types that systemd takes for the network's (systemd, mountpoint-util.c)."""

TO_ADD = "nofail,_netdev"
"""Options with which a mount is no longer ordered before local-fs.target, and fails no boot."""

_WAITS = ("x-systemd.requires=", "x-systemd.after=", "x-systemd.requires-mounts-for=")
AT_SHUTDOWN = ("DefaultDependencies=no", "Conflicts=umount.target", "Before=umount.target")
"""Instead of the default dependencies, which order a unit before local-fs.target or swap.target."""


class Line:
    """One line of fstab."""

    __slots__ = ("number", "what", "where", "kind", "options")

    def __init__(self, number: int, what: str, where: str, kind: str, options: "list[str]") -> None:
        self.number = number
        self.what = what
        self.where = where
        self.kind = kind
        self.options = options

    @property
    def is_swap(self) -> bool:
        """Whether this is no mount but swap."""
        return self.kind == "swap"

    @property
    def is_of_network(self) -> bool:
        """Whether systemd orders it with the mounts of the network."""
        return self.kind.removeprefix("fuse.") in NETWORK_TYPES or "_netdev" in self.options

    def waits_for(self, late: "set[str]", units: "set[str]") -> str:
        """Why it waits for one of some mount points or units, in words; empty where it does not."""
        if not self.is_swap and (outer := _above(self.where, late)):
            return f"{self.where} lies below {outer}"
        if self.what.startswith("/") and not self.what.startswith("/dev/") and _at_or_above(self.what, late):
            return f"{self.what if self.is_swap else self.where} is kept in {self.what}"
        for option in self.options:
            for start in _WAITS:
                wanted = option.removeprefix(start)
                if option.startswith(start) and (wanted in units or _at_or_above(_normal(wanted), late)):
                    return f"{self.where} waits for {wanted}"
        return ""


def parse(texts: "list[str]", unescape: "Callable[[str], str]") -> "list[Line]":
    """Read the lines that mount something or are swap."""
    lines = []
    for number, text in enumerate(texts, 1):
        fields = [unescape(field) for field in text.split()]
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        options = fields[3].split(",") if len(fields) > 3 else []
        lines.append(Line(number, _normal(fields[0]), _normal(fields[1]), fields[2], options))
    return lines


def order(lines: "list[Line]", ours: "set[str]", units: "set[str]") -> "tuple[list[tuple[str, str]], list[str]]":
    """Tell what to do about the lines that wait for mounts of ours.

    Args:
        lines: those of fstab.
        ours: mount points that rpinfs writes units for.
        units: names of units that follow them.

    Returns:
        units that a drop-in with AT_SHUTDOWN sets right, by path and kind; and what only a person can set right.
    """
    late = ours | {line.where for line in lines if line.is_of_network and not line.is_swap}
    mended: list[tuple[str, str]] = []
    wrong: dict[int, str] = {}
    # What waits for a mount that waits is as late: until no line is added.
    waiting: dict[int, str] = {}
    while more := {
        line.number: reason for line in lines if line.number not in waiting and (reason := line.waits_for(late, units))
    }:
        waiting.update(more)
        late |= {line.where for line in lines if line.number in more and not line.is_swap}
    for line in lines:
        if line.number not in waiting:
            continue
        if line.is_swap:
            mended.append((line.what, "swap"))
        elif "x-systemd.automount" in line.options and _above(line.where, late):
            mended.append((line.where, "automount"))
        elif not line.is_of_network and not {"nofail", "noauto", "x-systemd.automount"}.intersection(line.options):
            wrong[line.number] = (
                f"line {line.number} of /etc/fstab makes an ordering cycle, of which systemd drops a unit at each boot:"
                f" {waiting[line.number]}, which comes after the network; add {TO_ADD} to its options"
            )
    return mended, list(wrong.values())


def _above(path: str, places: "set[str]") -> str:
    return next((place for place in sorted(places) if path.startswith(place.rstrip("/") + "/") and path != place), "")


def _at_or_above(path: str, places: "set[str]") -> str:
    return path if path in places else _above(path, places)


def _normal(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", ".")) if path.startswith("/") else path
