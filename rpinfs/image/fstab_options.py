"""Options of hand-written mounts: which of them a configuration keeps, and why the others are dropped.

Pure. Source: mount(8), nfs(5), systemd.mount(5).
"""

from __future__ import annotations

from collections.abc import Callable

from rpinfs.boot.settings import SETTINGS
from rpinfs.image.fstab import VERSION_WORDS, Line, is_short_version

Remark = Callable[[Line, str], None]
"""Notes something about a line."""

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


def of_nfs(share: Line | None, boot: Line | None, remark: Remark) -> tuple[list[str], list[str]]:
    """Options for both mounts, and those for the boot files alone."""
    for_share = _kept_nfs_options(share, remark) if share else []
    if share and "ro" in for_share:
        for_share.remove("ro")
        remark(share, "ro is dropped: the share holds the images and must be writable")
    if boot is None:
        return for_share, []
    for_boot = _kept_nfs_options(boot, remark)
    if "ro" not in for_boot:
        remark(boot, f"{boot.where} becomes read-only; rpinfs boot edit makes it writable for as long as you edit")
    if share and (only_share := [option for option in for_share if option not in for_boot]):
        remark(share, f"{','.join(only_share)}: options of the share count for the boot files too")
    return for_share, [option for option in for_boot if option not in for_share and option != "ro"]


def _kept_nfs_options(line: Line, remark: Remark) -> list[str]:
    kept = []
    for option in line.options:
        name = option.partition("=")[0]
        if _is_of_fstab(option) or option.startswith(VERSION_WORDS) or is_short_version(option):
            continue
        if name in _DROPPED_OF_NFS:
            remark(line, f"{option} is dropped: {_DROPPED_OF_NFS[name]}")
        else:
            kept.append(option)
    return kept


def _is_of_fstab(option: str) -> bool:
    return option in _OF_FSTAB or option.startswith(_OF_FSTAB_WITH_VALUE)


def of_image(line: Line, remark: Remark) -> list[str]:
    """Options of the file system in an image."""
    kept: list[str] = []
    for option in line.options:
        name = option.partition("=")[0]
        if _is_of_fstab(option) or name in ("loop", "offset", "sizelimit"):
            continue
        if name in _DROPPED_OF_IMAGE and option != "barrier=1":
            remark(line, f"{option} is dropped: {_DROPPED_OF_IMAGE[name]}")
        elif name != "barrier":
            kept.append(option)
    # Options= replaces the default: without a word of the user's on access times, keep that of the default.
    return kept if _ACCESS_TIMES & set(kept) else [default("Image", "Options"), *kept]


def default(section: str, key: str) -> str:
    """The text that a setting has by default."""
    return next(setting.default for setting in SETTINGS if (setting.section, setting.key) == (section, key))
