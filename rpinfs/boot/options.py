"""Mount options: which of them break a promise, and which NFS and the file systems take.

Imported where somebody has set some: the defaults need no look. What is not taken fails the mount at boot, where nobody
reads why. Sources: nfs(5), and the lists in Linux fs/nfs/fs_context.c, fs/ext4/super.c, fs/xfs/xfs_super.c (6.18 and
before); mount(8) and fs/namespace.c for those of all file systems. tests/tools/boot/test_options.py tries them.
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

# What is taken: a name alone, a name with a value, or either.

_ALL = frozenset(
    (
        "defaults", "rw", "ro", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "mand",
        "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
        "nostrictatime", "lazytime", "nolazytime", "iversion", "noiversion", "silent", "loud", "nosymfollow", "auto",
        "noauto", "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup", "_netdev", "nofail",
        "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable",
    )
)  # fmt: skip
_ALL_WITH_VALUE = frozenset(("comment", "context", "fscontext", "defcontext", "rootcontext"))

_NFS = frozenset(
    (
        "ac", "noac", "acl", "noacl", "alignwrite", "noalignwrite", "bg", "fg", "cto", "nocto", "fsc", "nofsc", "hard",
        "soft", "softerr", "intr", "nointr", "lock", "nolock", "migration", "nomigration", "posix", "noposix",
        "rdirplus", "nordirplus", "rdma", "resvport", "noresvport", "sharecache", "nosharecache", "sloppy", "softreval",
        "nosoftreval", "tcp", "udp", "trunkdiscovery", "notrunkdiscovery", "v3", "v4", "v4.0", "v4.1", "v4.2",
    )
)  # fmt: skip
_NFS_NUMBERS = frozenset(
    (
        "acregmin", "acregmax", "acdirmin", "acdirmax", "actimeo", "bsize", "max_connect", "mountport", "mountvers",
        "namlen", "nconnect", "port", "retrans", "retry", "rsize", "wsize", "timeo",
    )
)  # fmt: skip
_NFS_WORDS = {
    "local_lock": ("all", "flock", "posix", "none"),
    "lookupcache": ("all", "none", "pos", "positive"),
    "mountproto": ("tcp", "tcp6", "udp", "udp6"),
    "proto": ("tcp", "tcp6", "udp", "udp6", "rdma", "rdma6"),
    "rdirplus": ("none", "force"),
    "sec": ("none", "sys", "krb5", "krb5i", "krb5p", "lkey", "lkeyi", "lkeyp", "spkm", "spkmi", "spkmp"),
    "write": ("lazy", "eager", "wait"),
    "xprtsec": ("none", "tls", "mtls"),
}
_NFS_WITH_VALUE = frozenset(
    ("addr", "clientaddr", "fsc", "mountaddr", "mounthost", "mountvers", "cert_serial", "privkey_serial")
)

_EXT4 = frozenset(
    (
        "acl", "noacl", "auto_da_alloc", "noauto_da_alloc", "barrier", "block_validity", "noblock_validity", "bsddf",
        "bsdgroups", "dax", "debug", "delalloc", "nodelalloc", "dioread_lock", "dioread_nolock", "nodioread_nolock",
        "discard", "nodiscard", "grpid", "nogrpid", "grpquota", "init_itable", "noinit_itable", "inlinecrypt",
        "journal_checksum", "nojournal_checksum", "minixdf", "no_mbcache", "nombcache", "no_prefetch_block_bitmaps",
        "nouid32", "prefetch_block_bitmaps", "prjquota", "quota", "noquota", "sysvgroups", "user_xattr", "usrquota",
        "nowarn_on_error", "warn_on_error",
    )
)  # fmt: skip
_EXT4_WITH_VALUE = frozenset(
    (
        "auto_da_alloc", "barrier", "commit", "data", "data_err", "dax", "debug_want_extra_isize", "errors",
        "grpjquota", "init_itable", "inode_readahead_blks", "journal_dev", "journal_ioprio", "journal_path", "jqfmt",
        "max_batch_time", "max_dir_size_kb", "mb_optimize_scan", "min_batch_time", "resgid", "resuid", "sb", "stripe",
        "usrjquota",
    )
)  # fmt: skip
_XFS = frozenset(
    (
        "attr2", "noattr2", "bsdgroups", "dax", "discard", "nodiscard", "filestreams", "gqnoenforce", "gquota", "grpid",
        "nogrpid", "grpquota", "ikeep", "noikeep", "inode32", "inode64", "largeio", "nolargeio", "lifetime",
        "nolifetime", "noalign", "nouuid", "pqnoenforce", "pquota", "prjquota", "qnoenforce", "quota", "noquota",
        "swalloc", "sysvgroups", "uqnoenforce", "uquota", "usrquota", "wsync",
    )
)  # fmt: skip
_XFS_WITH_VALUE = frozenset(
    ("allocsize", "dax", "logbsize", "logbufs", "max_atomic_write", "max_open_zones", "sunit", "swidth")
)
_FILE_SYSTEMS = {"ext4": (_EXT4, _EXT4_WITH_VALUE), "xfs": (_XFS, _XFS_WITH_VALUE)}


def of_server(text: str) -> list[str]:
    """Accept options for both NFS mounts. Raises ValueError(rule), as all here do."""
    return _of_nfs(_options(text, {**_NFS_REFUSED, "ro": "the share must be writable; for /boot use [Boot] Options="}))


def of_nfs(text: str) -> list[str]:
    """Accept options of the boot mount."""
    return _of_nfs(_options(text, _NFS_REFUSED))


def of_image(text: str) -> list[str]:
    """Accept options of the file system in an image."""
    options = _options(text, _IMAGE_REFUSED)
    for option in options:
        if not any(_takes(option, kind) for kind in _FILE_SYSTEMS):
            raise ValueError(f"{option} is refused: neither ext4 nor xfs has such a mount option")
    return options


def against_version(options: list[str], version: str) -> str:
    """Tell why NFS of a version does not take one of its options; empty where it takes all."""
    for option in options:
        if version != "3" and option in ("udp", "proto=udp", "proto=udp6"):
            return f"{option} is refused: NFS {version} goes over TCP, see nfs(5)"
    return ""


def against_file_system(options: list[str], filesystem: str) -> str:
    """Tell why a file system does not take one of its options; empty where it takes all.

    Args:
        filesystem: empty where an image that is there may hold either: one of them must take all.
    """
    kinds = [filesystem] if filesystem else list(_FILE_SYSTEMS)
    missing = {kind: [option for option in options if not _takes(option, kind)] for kind in kinds}
    if not all(missing.values()):
        return ""
    (first, refused), *others = missing.items()
    if others:
        return f"no file system has all of them: {first} not {refused[0]}, {others[0][0]} not {others[0][1][0]}"
    other = next(kind for kind in _FILE_SYSTEMS if kind != filesystem)
    hint = f"; it is one of {other}" if _takes(refused[0], other) else ""
    return f"{refused[0]} is refused: {filesystem} has no such mount option{hint}"


def _of_nfs(options: list[str]) -> list[str]:
    for option in options:
        name, equals, value = option.partition("=")
        if _of_all(option) or (not equals and name in _NFS):
            continue
        if equals and name in _NFS_NUMBERS:
            if not value.isdigit() or not value.isascii():
                raise ValueError(f"{option} is refused: expected a number, see nfs(5)")
        elif equals and name in _NFS_WORDS:
            if not set(value.split(":") if name == "sec" else [value]) <= set(_NFS_WORDS[name]):
                raise ValueError(f"{option} is refused: expected {name}= with {', '.join(_NFS_WORDS[name])}")
        elif not (equals and name in _NFS_WITH_VALUE):
            raise ValueError(f"{option} is refused: nfs(5) has no such mount option")
    return options


def _takes(option: str, filesystem: str) -> bool:
    alone, with_value = _FILE_SYSTEMS[filesystem]
    name, equals, _ = option.partition("=")
    return _of_all(option) or name in (with_value if equals else alone)


def _of_all(option: str) -> bool:
    name, equals, _ = option.partition("=")
    return option in _ALL or name.startswith(("x-", "X-")) or (bool(equals) and name in _ALL_WITH_VALUE)


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
