"""Mount options: which of them break a promise.

Imported where somebody has set some: the defaults need no look.
"""

_WAITS = "it turns a pause of the NAS into I/O errors and a damaged image; leave it out"
_NOT_BY_FSTAB = "it is for fstab; these are native units, use a drop-in for the unit"
_NFS_REFUSED = {
    "soft": _WAITS,
    "softerr": _WAITS,
    "bg": "the mount would look finished before it is; rpinfs waits for a late NAS itself",
    "vers=": "say it with Version=",
    "nfsvers=": "say it with Version=",
    "minorversion=": "say it with Version=",
    **dict.fromkeys(("v2", "v3", "v4", "v4.0", "v4.1", "v4.2"), "say it with Version="),
    "noauto": "use Export= with no value, or rpinfs=off",
    "x-systemd.automount": "Docker would start before the mount is there",
}
_POWER_CUT = "the image would not survive a power cut"
_IMAGE_REFUSED = {
    "loop": "the agent attaches the loop device itself",
    "loop=": "the agent attaches the loop device itself",
    "offset=": "an image holds its file system from the first byte",
    "sizelimit=": "an image holds its file system up to the last byte",
    "ro": "Docker must write",
    "noload": _POWER_CUT,
    "norecovery": _POWER_CUT,
    "nobarrier": _POWER_CUT,
    "barrier=0": _POWER_CUT,
    "journal_async_commit": _POWER_CUT,
    "errors=continue": "a file system that goes on after an error ruins what is left",
    "noauto": "remove the section instead, or use rpinfs=off",
    "x-systemd.automount": "Docker would start before the mount is there",
}


def of_server(text: str) -> list[str]:
    """Accept options for both NFS mounts. Raises ValueError(rule), as all here do."""
    return _options(text, {**_NFS_REFUSED, "ro": "the share must be writable; for /boot use [Boot] Options="})


def of_nfs(text: str) -> list[str]:
    """Accept options of the boot mount."""
    return _options(text, _NFS_REFUSED)


def of_image(text: str) -> list[str]:
    """Accept options of the file system in an image."""
    return _options(text, _IMAGE_REFUSED)


def _options(text: str, refused: dict[str, str]) -> list[str]:
    options = [option.strip() for option in text.split(",") if option.strip()]
    for option in options:
        if " " in option or "\\" in option or '"' in option:
            raise ValueError("expected mount options separated by commas, without spaces, quotes and backslashes")
        rule = refused.get(option) or refused.get(option.partition("=")[0] + "=")
        if not rule and option.startswith("x-systemd."):
            rule = _NOT_BY_FSTAB
        if rule:
            raise ValueError(f"{option} is refused: {rule}")
    return options
