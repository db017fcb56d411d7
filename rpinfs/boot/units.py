"""From a configuration to unit files: which mounts, in which order, and what waits for them.

Boot path: imports nothing but its neighbours. Pure: settings in, a table of names and texts out.

The rules, each with the trouble that it avoids:

1. No mount is ordered before local-fs.target. The fstab recipe is, and makes an ordering cycle on Debian 13 (the image
   follows the share, the share follows the network, the network follows local-fs.target): `_netdev` on every mount.
2. No mount fails the boot: `nofail` on every mount. It must stand in Options=, leaving out Before= is not enough
   (zfs#17148).
3. The image requires and follows the share (RequiresMountsFor=), but only wants the agent: a restart of a unit is
   passed on to what requires it, and the image must outlive a restart of the agent.
4. The image is mounted only once the agent has published its loop device (ConditionPathExists=). A mount whose
   condition fails counts as started, so a bind mount binds to the image's: BindsTo= with After= insists that it is
   really there (systemd.unit(5)). Else it would make its folder below the empty mount point.
   What was unmounted by request is not attached any more, so that a person can work on the file: the mount first has
   the agent asked for it, by rpinfs-attach@NAME.service, which is skipped where the link is there.
5. Docker follows the mounts directly, not only through the gate. The gate is inactive again once it has passed, and at
   shutdown systemd orders only units that have something to stop. It requires them and does not bind to them: a
   BindsTo= that comes with a daemon-reload, as after installing rpinfs on a running Pi, stops Docker at once. That
   the image is really there at a start is the gate's to see.
6. The gate wants the mounts and does not require them, so that it runs without them too, and says what is wrong.
7. The share's own start is bounded. A job that waits for a late NAS keeps the whole boot unfinished; the agent waits
   instead and starts the mounts when the NAS comes.
8. The NIC that carries the root stays up when its manager stops. All of them are ordered before network.target, so at
   shutdown they stop after the mounts; but the root is never unmounted, and all that is still to run comes from it.
   They keep on managing it: only they renew its lease, the kernel's ip=dhcp does not.
9. The timer that gives freed blocks back is there only where NFS can carry that: from version 4.2 on. What it starts
   follows the images' mounts, so that at shutdown it is stopped before they are unmounted: it keeps them busy.
10. What Docker mounts below an image, an overlay for each container, systemd would order before local-fs.target: with a
   container running, the shutdown then has the cycle of rule 1, and systemd drops a job of it, such as the agent's
   stop. A drop-in for the prefix of their names (systemd.unit(5)) takes their default dependencies away; that they are
   unmounted before the image follows from their paths.
11. A client of Docker's socket gets an error soon while the gate refuses, and does not hang. systemd starts
   docker.service for it, meets the gate, listens again, finds the client still waiting, and so on, until the trigger
   limit closes the socket: 20 in 2 s by default, which a gate that takes half a second or more never reaches (tried on
   systemd 252 and 257: the client waits for ever, and the gate runs without end). Docker itself may not be started more
   often than three times a minute either. When the storage comes, the agent starts Docker, which requires its socket.
   Not a drop-in of the package: where rpinfs is not in use, Docker's socket is nobody's business. Where the generator
   crashed, and so wrote none, the gate's refusal closes the socket (rpinfs-close.service).
12. The program of [Notify] Command= has a unit of its own, where there is one: the agent's sandbox talks to nobody. The
   agent names it in its Before=, so that systemd has it loaded: to load it when the agent wants it started, systemd
   itself would look into folders on the root, and stand still with the NAS that is the news. Nothing in it may make a
   mount namespace: a program that hangs would keep its copy of the share and of the images mounted.
13. A line of fstab that depends on one of these mounts must not be ordered before local-fs.target: see ordering.py.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.boot.config import Config, Image

AGENT = "rpinfs-agent.service"
ATTACH = "rpinfs-attach@{}.service"
GATE = "rpinfs-gate.service"
NOTIFY = "rpinfs-notify.service"
THAW = "rpinfs-thaw.service"
TRIM = "rpinfs-trim.service"
TRIM_TIMER = "rpinfs-trim.timer"
DROP_IN = "50-rpinfs-mounts.conf"
NIC_DROP_IN = "50-rpinfs-nic.conf"
SOCKET_DROP_IN = "docker.socket.d/50-rpinfs-limit.conf"
SOCKET_LIMIT = "[Socket]\nTriggerLimitIntervalSec=60s\nTriggerLimitBurst=3\n"
IFUPDOWN = ("networking.service", "ifup@.service")
NETWORKMANAGER_FILE = "/run/NetworkManager/conf.d/50-rpinfs.conf"
RUNTIME_FOLDER = "/run/rpinfs"
FROM_NEXT_BOOT = "/run/rpinfs-from-next-boot"
"""Made by the package when it is installed where Docker runs already: until the next boot nothing of ours acts, whoever
reloads systemd. rpinfs-gate.service has it as a condition, so that the drop-ins of the package let Docker pass.
"""
METRICS_FILE = f"{RUNTIME_FOLDER}/metrics/rpinfs.prom"
NEWS_FILE = f"{RUNTIME_FOLDER}/news"
"""What the program of [Notify] Command= gets on its standard input."""

GENERATED = "/run/systemd/generator"
SYSTEM_UNITS = "/usr/lib/systemd/system"
OLD_SYSTEM_UNITS = "/lib/systemd/system"
UNIT_FOLDERS = (
    "/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
    "/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system",
    "/run/systemd/system.attached", GENERATED, "/usr/local/lib/systemd/system", SYSTEM_UNITS, OLD_SYSTEM_UNITS,
    "/run/systemd/generator.late",
)  # fmt: skip
"""Where systemd looks for units, highest precedence first: systemd.unit(5) "Unit File Load Path"."""

MANAGER_FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
"""Where system.conf and system.conf.d/ lie, highest precedence first: systemd-system.conf(5)."""

KEPT_FOLDER = ".rpinfs"
"""Folder at the top of an image that holds what Bind= keeps there."""

DEFAULT_ROOTS = ("/var/lib/docker", "/var/lib/containerd")
"""Where Docker and containerd write unless they are told otherwise."""

GUARDED = ("docker.service", "containerd.service")
"""Units that require the gate by drop-ins of the package, so that the guard stands without the generator."""

_BEHIND_GATE = (f"Requires={GATE}", f"After={GATE}")

MOUNT_TIMEOUT = 30
"""Seconds that one try to mount from the NAS may take."""

NOTIFY_SECONDS = 30
"""Seconds that the program of [Notify] Command= may take; it then has five more to end in order."""

_WRITTEN = "# Written by rpinfs-generator(8)."

_PLAIN = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:_.")


class Units:
    """Unit files (name to text), links (name to target), files of other programs (path to text), and remarks.

    `cycles` are the remarks on what makes an ordering cycle.
    """

    __slots__ = ("files", "links", "others", "remarks", "cycles")

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.others: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.remarks: list[str] = []
        self.cycles: list[str] = []


def link_of(image: "Image") -> str:
    """Path of the link to the image's loop device that the agent publishes."""
    return f"{RUNTIME_FOLDER}/{image.name}"


def kept_folder(image: "Image", bind: str) -> str:
    """Path of the folder inside the mounted image that holds what belongs at `bind`."""
    return f"{image.where}/{KEPT_FOLDER}/{escape_path(bind)}"


def units(config: "Config", fstab: str = "", root_nic: "tuple[str, str] | None" = None) -> Units:
    """Make the units for a configuration; where fstab has a mount point already, fstab wins.

    `root_nic` is what Host.root_nic says.
    """
    made = Units()
    if not config.in_use:
        return made
    taken = fstab_mount_points(fstab)
    mounts = _mounts(config)
    for where, text in mounts:
        name = mount_unit(where)
        if where in taken:
            made.remarks.append(f"{where} is mounted by line {taken[where]} of /etc/fstab; rpinfs writes no {name}")
            continue
        made.files[name] = text
        made.links[f"remote-fs.target.wants/{name}"] = f"../{name}"
    _add_agent(made, config)
    _add_gate(made, config)
    if config.server.version == "4.2" and config.images:
        _add_trim(made, config)
    for image in config.images:
        _add_below(made, image)
        _add_waiting(made, image)
    _add_socket(made)
    _order_others(made, config, fstab)
    if root_nic:
        _add_nic(made, *root_nic)
    return made


def guards(config: "Config") -> Units:
    """Make what stands whatever else is wrong in the configuration: nothing of `Before=` starts without the gate.

    docker.service and containerd.service have it from the package.
    """
    made = Units()
    for unit in dict.fromkeys(unit for image in config.images for unit in image.before):
        if unit not in GUARDED:
            made.files[f"{unit}.d/{DROP_IN}"] = _drop_in(list(_BEHIND_GATE))
    _add_socket(made)
    return made


def fstab_mount_points(fstab: str) -> "dict[str, int]":
    """Mount points of an fstab with their line numbers; fstab(5) writes a space in octal."""
    found: dict[str, int] = {}
    for number, line in enumerate(fstab.split("\n"), 1):
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#") or not fields[1].startswith("/"):
            continue
        path = unescape_octal(fields[1])
        found["/" + "/".join(part for part in path.split("/") if part)] = number
    return found


def unescape_octal(text: str) -> str:
    """Undo the octal escapes of fstab(5) and mountinfo."""
    if "\\" not in text:
        return text
    head, *rest = text.split("\\")
    for part in rest:
        digits = part[:3]
        if len(digits) == 3 and set(digits) <= set("01234567"):
            head += chr(int(digits, 8)) + part[3:]
        else:
            head += "\\" + part
    return head


def _mounts(config: "Config") -> "list[tuple[str, str]]":
    """List mount points and unit texts, outer before inner."""
    mounts = []
    if config.boot:
        mounts.append((config.boot.where, _boot_mount(config)))
    mounts.append((config.share.where, _share_mount(config)))
    for image in config.images:
        mounts.append((image.where, _image_mount(config, image)))
        mounts += [(bind, _bind_mount(image, bind)) for bind in image.bind]
    return mounts


def _boot_mount(config: "Config") -> str:
    assert config.boot
    return _mount_text(
        f"Boot files of this machine on {config.server.address}",
        [],
        what=f"{config.server.source}:{config.boot.export}",
        where=config.boot.where,
        kind="nfs",
        options=[f"vers={config.server.version}", *config.boot.options, *config.server.options],
        timeout=MOUNT_TIMEOUT,
    )


def _share_mount(config: "Config") -> str:
    return _mount_text(
        f"Share for images on {config.server.address}",
        [],
        what=f"{config.server.source}:{config.share.export}",
        where=config.share.where,
        kind="nfs",
        # Last wins in nfs(5): nothing that a person adds turns "hard" off.
        options=[f"vers={config.server.version}", *config.server.options, "hard"],
        timeout=MOUNT_TIMEOUT,
    )


def _image_mount(config: "Config", image: "Image") -> str:
    attach = ATTACH.format(image.name)
    return _mount_text(
        f"Image {image.name} ({image.path})",
        [
            f"RequiresMountsFor={word(config.share.where)}",
            f"Wants={AGENT} {attach}",
            f"After={AGENT} {attach}",
            f"ConditionPathExists={link_of(image)}",
        ],
        what=link_of(image),
        where=image.where,
        # The default is for making an image; one that is there may hold the other file system and is used as it is.
        kind=image.filesystem if image.filesystem_is_set else "auto",
        options=image.options,
    )


def _bind_mount(image: "Image", bind: str) -> str:
    outer, kept = mount_unit(image.where), f"{image.where}/{KEPT_FOLDER}"
    return _mount_text(
        f"Folder {bind}, kept in image {image.name}",
        # systemd would make the folder behind a link that whoever owns the top of the image has put there.
        [f"BindsTo={outer}", f"After={outer}", f"ConditionPathIsSymbolicLink=!{specifier(kept)}"],
        what=kept_folder(image, bind),
        where=bind,
        kind="none",
        options=["bind"],
        # systemd makes the source of a bind mount; Docker and containerd keep theirs from other users.
        extra=["DirectoryMode=0711"],
    )


def _mount_text(
    description: str,
    unit: "list[str]",
    *,
    what: str,
    where: str,
    kind: str,
    options: "list[str]",
    timeout: int = 0,
    extra: "list[str] | None" = None,
) -> str:
    lines = [
        _WRITTEN,
        "[Unit]",
        f"Description={specifier(description)}",
        "Documentation=man:rpinfs.conf(5) man:rpinfs-generator(8)",
        *unit,
        "",
        "[Mount]",
        f"What={specifier(what)}",
        f"Where={specifier(where)}",
        f"Type={kind}",
        f"Options={specifier(','.join([*options, '_netdev', 'nofail']))}",
        # mount(8) reads the 14 files of systemd's own C.UTF-8 otherwise, over the network.
        "Environment=LC_ALL=C",
        *(extra or []),
    ]
    if timeout:
        lines.append(f"TimeoutSec={timeout}s")
    return "\n".join(lines) + "\n"


def _image_mounts(image: "Image") -> "list[str]":
    return [mount_unit(where) for where in (image.where, *image.bind)]


def _add_agent(made: Units, config: "Config") -> None:
    share = mount_unit(config.share.where)
    made.links[f"multi-user.target.wants/{AGENT}"] = f"{SYSTEM_UNITS}/{AGENT}"
    # Wants, not Requires: the agent outlives a failed or restarted mount of the share, and mends it.
    notify = [f"Before={NOTIFY}"] if config.notify else []
    made.files[f"{AGENT}.d/{DROP_IN}"] = _drop_in([f"Wants={share}", f"After={share}", *notify])
    if config.notify:
        made.files[NOTIFY] = _notify(config.notify)


def _notify(command: "list[str]") -> str:
    # ":" has systemd leave "$" alone. Each word stands in quotes, within which these three mean something.
    words = " ".join('"' + specifier(part).replace("\\", "\\\\").replace('"', '\\"') + '"' for part in command)
    return "\n".join(
        [
            _WRITTEN, "[Unit]", "Description=Tell of News of the Storage", "Documentation=man:rpinfs.conf(5)",
            # The agent starts it, with a limit of its own.
            "StartLimitIntervalSec=0", "",
            "[Service]", "Type=oneshot", f"ExecStart=:{words}", f"StandardInput=file:{NEWS_FILE}",
            # Its children end with it (KillMode=control-group is the default).
            f"TimeoutStartSec={NOTIFY_SECONDS}s", "TimeoutStopSec=5s", "Nice=10", "MemoryMax=128M", "TasksMax=64",
            "LimitCORE=0", "UMask=0077", "",
        ]
    )  # fmt: skip


def _add_gate(made: Units, config: "Config") -> None:
    mounts = " ".join(name for image in config.images for name in _image_mounts(image))
    wants = [f"Wants={mounts}"] if mounts else []
    made.files[f"{GATE}.d/{DROP_IN}"] = _drop_in([*wants, f"After={AGENT} {mounts}".rstrip()])


def _add_trim(made: Units, config: "Config") -> None:
    mounts = " ".join(mount_unit(image.where) for image in config.images)
    made.links[f"timers.target.wants/{TRIM_TIMER}"] = f"{SYSTEM_UNITS}/{TRIM_TIMER}"
    made.files[f"{TRIM}.d/{DROP_IN}"] = _drop_in([f"After={mounts}"])


def _order_others(made: Units, config: "Config", fstab: str) -> None:
    """See to the lines of fstab that depend on mounts or units of ours (rule 13)."""
    places = [where for where, _ in _mounts(config)]
    ours = {where for where in places if mount_unit(where) in made.files}
    waiting = {AGENT, GATE, *GUARDED, *(unit for image in config.images for unit in image.before)}
    waiting |= {mount_unit(where) for where in ours}
    plain = unescape_octal(fstab)
    if not any(name in plain for name in (*places, *waiting)):
        return
    # Imported here: the fstab of most netbooted machines has nothing to do with us.
    from rpinfs.boot import ordering

    mended, made.cycles = ordering.order(ordering.parse(fstab.split("\n"), unescape_octal), ours, waiting)
    made.remarks += made.cycles
    for path, kind in mended:
        made.files[f"{escape_path(path)}.{kind}.d/{DROP_IN}"] = _drop_in(list(ordering.AT_SHUTDOWN))


def _add_below(made: Units, image: "Image") -> None:
    for name in _image_mounts(image):
        if name in made.files:
            made.files[f"{name.removesuffix('.mount')}-.mount.d/{DROP_IN}"] = _drop_in(["DefaultDependencies=no"])


def _add_waiting(made: Units, image: "Image") -> None:
    mounts = " ".join(_image_mounts(image))
    for unit in image.before:
        lines = [] if unit in GUARDED else _BEHIND_GATE
        name = f"{unit}.d/{DROP_IN}"
        text = _drop_in([*lines, f"Requires={mounts}", f"After={mounts}"])
        # A unit that waits for two images gets the lines of both.
        made.files[name] = made.files[name] + "\n".join(text.splitlines()[2:]) + "\n" if name in made.files else text


def _add_socket(made: Units) -> None:
    made.files[SOCKET_DROP_IN] = f"{_WRITTEN}\n{SOCKET_LIMIT}"


def _drop_in(lines: "list[str]") -> str:
    return "\n".join([_WRITTEN, "[Unit]", *lines]) + "\n"


def _add_nic(made: Units, name: str, mac: str) -> None:
    """Tell ifupdown and NetworkManager not to take down the NIC of the root.

    systemd-networkd keeps it unasked where the root is a network file system (systemd#22383, 251 and later). dhcpcd
    has no folder for drop-ins; the dhcpcd.conf of Debian and of Raspberry Pi OS says `persistent`.
    """
    for unit, down in zip(IFUPDOWN, (_down_all_but, _down_unless), strict=True):
        # An empty ExecStop= first takes back ifupdown's own, which asks nobody: only its old init script spares the
        # network of an NFS root. The DHCP client lives in the control group of the unit, and must go on to renew.
        made.files[f"{unit}.d/{NIC_DROP_IN}"] = "\n".join(
            [_WRITTEN, "[Service]", "ExecStop=", *([f"ExecStop={down(mac)}"] if mac else []), "KillMode=process", ""]
        )
    matches = [*([f"mac:{mac}"] if mac else []), *([f"interface-name:{name}"] if name else [])]
    if matches:
        # By itself NetworkManager takes over as it is what the kernel has configured, until the cable is out for some
        # seconds: then it starts afresh, and what it loads for that is on the root. Where a person has turned
        # keep-configuration off, in /etc, that is read later and wins.
        made.others[NETWORKMANAGER_FILE] = "\n".join(
            [
                _WRITTEN, "[device-rpinfs]", f"match-device={';'.join(matches)}", "keep-configuration=yes",
                "ignore-carrier=yes", "",
            ]
        )  # fmt: skip


# By the MAC address: a generator runs before udev renames the NIC, and a bridge or a VLAN on it has the same.


def _down_all_but(mac: str) -> str:
    return (
        "/bin/sh -c 'for nic in /sys/class/net/*; do"
        f' if grep -qx {mac} $$nic/address; then keep="$$keep --exclude=$${{nic##*/}}"; fi; done;'
        " exec ifdown -a --read-environment --exclude=lo $$keep'"
    )


def _down_unless(mac: str) -> str:
    return f"/bin/sh -c 'grep -qsx {mac} /sys/class/net/%I/address || exec ifdown %I'"


# How systemd writes paths and values. Source: systemd.unit(5), "String escaping for inclusion in unit names"


def escape_path(path: str) -> str:
    """Escape an absolute, normalised path as `systemd-escape -p` does: `/var/lib/docker` is `var-lib-docker`."""
    relative = path.strip("/")
    if not relative:
        return "-"
    escaped = []
    for position, byte in enumerate(relative.encode("utf-8", "surrogateescape")):
        character = chr(byte)
        if character == "/":
            escaped.append("-")
        elif character in _PLAIN and not (character == "." and position == 0):
            escaped.append(character)
        else:
            escaped.append(f"\\x{byte:02x}")
    return "".join(escaped)


def mount_unit(path: str) -> str:
    """Name of the mount unit for a mount point; systemd insists on just this name."""
    return escape_path(path) + ".mount"


def specifier(text: str) -> str:
    """Protect a value from systemd's `%` specifiers."""
    return text.replace("%", "%%")


def word(text: str) -> str:
    """Protect a value in a space-separated unit setting; paths hold no quotes (settings.py refuses them)."""
    protected = specifier(text)
    return f'"{protected}"' if " " in protected else protected
