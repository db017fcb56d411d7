"""From texts to settings: which value counts, and the rules between values.

Boot path: imports nothing but its neighbours. Pure: `Host` holds the texts.
"""

from rpinfs.boot.host import Host, words
from rpinfs.boot.settings import (
    DOCKER,
    IMAGE_DEFAULTS,
    LARGEST_IMAGE,
    SETTINGS,
    SMALLEST_IMAGE,
    TYPE_CHECKING,
    Setting,
    size_text,
    split_words,
)
from rpinfs.boot.syntax import Assignment, header, parse_command_line, parse_lines
from rpinfs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rpinfs.boot.settings import Value

DEFAULT = "default"


class Shown:
    """One setting in force, as `rpinfs config show` lists it."""

    __slots__ = ("section", "name", "key", "text", "origin")

    def __init__(self, section: str, name: str, key: str, text: str, origin: str) -> None:
        self.section = section
        self.name = name
        self.key = key
        self.text = text
        self.origin = origin


class Server:
    """The NAS."""

    __slots__ = ("address", "version", "options")

    def __init__(self, address: str, version: str, options: "list[str]") -> None:
        self.address = address
        self.version = version
        self.options = options

    @property
    def source(self) -> str:
        """The address as it stands before the colon of an NFS source; IPv6 in brackets."""
        return f"[{self.address}]" if ":" in self.address else self.address


class Boot:
    """The mount of the boot files."""

    __slots__ = ("export", "where", "options")

    def __init__(self, export: str, where: str, options: "list[str]") -> None:
        self.export = export
        self.where = where
        self.options = options


class Share:
    """The mount that holds the images."""

    __slots__ = ("export", "where")

    def __init__(self, export: str, where: str) -> None:
        self.export = export
        self.where = where


class Image:
    """One image and its mount. Size in bytes; the `..._is_set` tell a value of the user's from the default."""

    __slots__ = (
        "name", "file", "path", "size", "size_is_set", "filesystem", "filesystem_is_set", "where", "options", "bind",
        "before", "direct_io", "fence",
    )  # fmt: skip

    def __init__(
        self,
        *,
        name: str,
        file: str,
        path: str,
        size: int,
        size_is_set: bool,
        filesystem: str,
        filesystem_is_set: bool,
        where: str,
        options: "list[str]",
        bind: "list[str]",
        before: "list[str]",
        direct_io: bool,
        fence: str,
    ) -> None:
        self.name = name
        self.file = file
        self.path = path
        self.size = size
        self.size_is_set = size_is_set
        self.filesystem = filesystem
        self.filesystem_is_set = filesystem_is_set
        self.where = where
        self.options = options
        self.bind = bind
        self.before = before
        self.direct_io = direct_io
        self.fence = fence


class Config:
    """Everything that is wanted on this machine.

    Attributes:
        reason: why rpinfs is not in use, where it is not.
        images: those in use.
        disabled: names of those that are not, with the file and line that say so.
        values: all settings, for `rpinfs config show`.
        notify: the program that is told of news, with its arguments; empty for none.
    """

    __slots__ = ("in_use", "reason", "server", "boot", "share", "images", "values", "disabled", "notify")

    def __init__(
        self,
        in_use: bool,
        reason: str,
        server: Server,
        boot: "Boot | None",
        share: Share,
        images: "list[Image]",
        values: "list[Shown]",
        disabled: "dict[str, str] | None" = None,
        notify: "list[str] | None" = None,
    ) -> None:
        self.in_use = in_use
        self.reason = reason
        self.server = server
        self.boot = boot
        self.share = share
        self.images = images
        self.values = values
        self.disabled = disabled or {}
        self.notify = notify or []


def load(host: Host) -> Config:
    """Read the configuration of a machine.

    Raises:
        ConfigError: the first thing that is wrong. A machine where rpinfs is not in use has no errors.
    """
    config, errors = examine(host)
    if errors:
        raise errors[0]
    return config


def examine(host: Host) -> "tuple[Config, list[ConfigError]]":
    """Read the configuration of a machine and everything that is wrong with it, in the order of the files."""
    reason = _why_not_in_use(host)
    if reason:
        return Config(False, reason, Server("", "4.1", []), None, Share("", ""), [], []), []
    reader = _Reader(host)
    return reader.config(), reader.errors


def _why_not_in_use(host: Host) -> str:
    if host.container:
        return "this is a container"
    if host.switched_off:
        return "rpinfs=off stands on the kernel command line"
    if host.root_on_nfs or host.unreadable or any(_says_something(text) for _, text in host.config_files):
        return ""
    if any(name.startswith("rpinfs.") for name, _ in words(host.cmdline)):
        return ""
    return "the root is not on NFS and there is no configuration"


def _says_something(text: str) -> bool:
    return any(line.strip() and line.strip()[0] not in "#;" for line in text.splitlines())


# Values and the rules between them


class _Reader:
    """Collects values and errors on the way from texts to a `Config`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.errors: list[ConfigError] = []
        self.shown: list[Shown] = []
        self.origins: dict[tuple[str, str, str], Assignment] = {}
        self.word_origins: dict[tuple[str, str, str, str], Assignment] = {}
        self.headers: dict[str, tuple[str, int]] = {}
        self.assignments: list[Assignment] = []
        self.names: list[str] = []
        self.disabled: dict[str, str] = {}
        self._read_texts()

    def _read_texts(self) -> None:
        for file, reason in self.host.unreadable:
            self.errors.append(ConfigError(file, 0, "", f"cannot be read: {reason}"))
        for file, text in self.host.config_files:
            assignments, images, errors = parse_lines(file, text)
            self.assignments += assignments
            self.errors += errors
            self._add_names(name for name, _ in images)
            for name, line in images:
                self.headers.setdefault(name, (file, line))
        if DOCKER not in self.names:
            # First and whatever else is there: another image must not take Docker's away.
            self.names.insert(0, DOCKER)
        assignments, errors = parse_command_line(self.host.cmdline)
        self.errors += errors
        for assignment in assignments:
            if assignment.name and assignment.name not in self.names:
                from rpinfs.boot.suggest import suggestion

                # A slip of the pen here would else make another image.
                self.errors.append(assignment.error("unknown image" + suggestion(assignment.name, self.names, "{}")))
            else:
                self.assignments.append(assignment)

    def _add_names(self, names: "Iterable[str]") -> None:
        for name in names:
            if name not in self.names:
                self.names.append(name)

    def config(self) -> Config:
        server = self._server()
        boot = self._boot()
        share = Share(self.text("Share", "", "Export"), self.text("Share", "", "Where"))
        images = [image for name in self.names if (image := self._image(name, share, server.version))]
        notify = split_words(self.text("Notify", "", "Command"))
        self._check_options(server, boot, images)
        if not self.errors:
            # Where a value is wrong its default stands in, and would only make up a second complaint.
            self._check_mount_points(boot, share, images)
            self._check_files(images)
        self.errors.sort(key=self._order)
        return Config(True, "", server, boot, share, images, self.shown, self.disabled, notify)

    def _order(self, error: ConfigError) -> "tuple[int, int]":
        files = [file for file, _ in self.host.config_files]
        return (files.index(error.file) if error.file in files else len(files), error.line)

    # One value

    def value(self, setting: Setting, name: str, default: "str | None" = None) -> "Value":
        """Evaluate one setting: default, assignments in order, reset by an empty value; an error leaves the default."""
        text = self._default(setting, name) if default is None else default
        value = _parse_default(setting, text)
        default_value, default_text = value, text
        origin = Assignment(setting.section, name, setting.key, text, DEFAULT, 0)
        fresh = True
        for assignment in self.assignments:
            if (assignment.section, assignment.name, assignment.key) != (setting.section, name, setting.key):
                continue
            if not assignment.text and not setting.empty_is_value:
                value, text = ([], "") if setting.is_list else (default_value, default_text)
                fresh = False
                origin = assignment
                continue
            try:
                parsed = setting.parse(assignment.text)
            except ValueError as error:
                self.errors.append(assignment.error(str(error)))
                continue
            if isinstance(parsed, list):
                self.word_origins.update(((setting.section, name, setting.key, word), assignment) for word in parsed)
            if isinstance(parsed, list) and isinstance(value, list) and not fresh:
                parsed = value + parsed
                separator = "," if "options" in setting.kind else " "
                text = f"{text}{separator}{assignment.text}" if text else assignment.text
            else:
                text = assignment.text
            value, origin, fresh = parsed, assignment, False
        self.origins[setting.section, name, setting.key] = origin
        self.shown.append(Shown(setting.section, name, setting.key, text, origin.origin))
        return value

    def _default(self, setting: Setting, name: str) -> str:
        if setting.section == "Image":
            default = IMAGE_DEFAULTS.get(name, {}).get(setting.key, setting.default)
            return default.replace("{name}", name)
        return setting.default

    def text(self, section: str, name: str, key: str, default: "str | None" = None) -> str:
        value = self.value(_setting(section, key), name, default)
        assert isinstance(value, str)
        return value

    def words(self, section: str, name: str, key: str) -> "list[str]":
        value = self.value(_setting(section, key), name)
        assert isinstance(value, list)
        return list(dict.fromkeys(value))

    def is_set(self, section: str, name: str, key: str) -> bool:
        return self.origins[section, name, key].file != DEFAULT and self.origins[section, name, key].text != ""

    def fail(self, section: str, name: str, key: str, rule: str, word: str = "") -> None:
        """Record a rule that a value breaks, or one word of a list."""
        origin = self.word_origins.get((section, name, key, word)) or self.origins[section, name, key]
        error = origin.error(rule)
        if origin.file == DEFAULT and name in self.headers:
            # Nobody wrote this value, but somebody wrote the section that has it.
            error = ConfigError(*self.headers[name], error.what, rule)
        self.errors.append(error)

    # Sections

    def _server(self) -> Server:
        found, origin = self.host.root_server
        address = self.text("Server", "", "Address", default="")
        if not address and found:
            address = found
            self.shown[-1].text, self.shown[-1].origin = found, origin
        elif not address and not self.errors:
            self.fail(
                "Server", "", "Address",
                "nfsroot= and ip= on the kernel command line do not name the server; set Address= in [Server]",
            )  # fmt: skip
        return Server(address, self.text("Server", "", "Version"), self.words("Server", "", "Options"))

    def _boot(self) -> "Boot | None":
        export = self.text("Boot", "", "Export")
        where = self.text("Boot", "", "Where", "/boot/firmware" if self.host.has_boot_firmware else "/boot")
        options = self.words("Boot", "", "Options")
        return Boot(export, where, options) if export else None

    def _image(self, name: str, share: Share, version: str) -> "Image | None":
        """Evaluate one image; None where it is not in use: then its values need not agree with others."""
        file = self.text("Image", name, "File")
        size = self.value(_setting("Image", "Size"), name)
        filesystem = self.text("Image", name, "FileSystem")
        enabled = self.value(_setting("Image", "Enabled"), name)
        where = self.text("Image", name, "Where")
        options = self.words("Image", name, "Options")
        bind = self.words("Image", name, "Bind")
        before = self.words("Image", name, "Before")
        direct_io = self.value(_setting("Image", "DirectIO"), name)
        fence = self.text("Image", name, "Fence")
        assert isinstance(size, int) and isinstance(direct_io, bool)
        if not enabled:
            self.disabled[name] = self.origins["Image", name, "Enabled"].origin
            return None
        file = self._expand(name, file)
        if size < SMALLEST_IMAGE[filesystem] or size > LARGEST_IMAGE:
            self.fail(
                "Image",
                name,
                "Size",
                f"expected at least {size_text(SMALLEST_IMAGE[filesystem])} for {filesystem}",
            )
        if version == "3" and fence == "lease":
            fence = "both"
            self._check_mmp(name, filesystem, direct_io, "Version=3 needs ext4's multi-mount protection, which")
        elif fence != "lease":
            self._check_mmp(name, filesystem, direct_io, f"Fence={fence}")
        return Image(
            name=name,
            file=file,
            path=f"{share.where}/{file}",
            size=size,
            size_is_set=self.is_set("Image", name, "Size"),
            filesystem=filesystem,
            filesystem_is_set=self.is_set("Image", name, "FileSystem"),
            where=where,
            options=options,
            bind=bind,
            before=before,
            direct_io=direct_io,
            fence=fence,
        )

    def _check_mmp(self, name: str, filesystem: str, direct_io: bool, who: str) -> None:
        if filesystem != "ext4":
            self.fail("Image", name, "FileSystem", f"{who} works on ext4 only")
        elif not direct_io:
            # FACTS: over buffered loop devices the second host mounts after 46 s and replays the live journal.
            self.fail("Image", name, "DirectIO", f"{who} protects only with DirectIO=yes")

    def _expand(self, name: str, template: str) -> str:
        host = self.host
        hostname = "" if host.hostname in ("(none)", "localhost") else host.hostname
        # Read on need: it is on the root.
        machine_id = host.machine_id if "{machine-id}" in template and len(host.machine_id) == 32 else ""
        fields = {
            "serial": host.serial or host.mac,
            "mac": host.mac,
            "hostname": hostname,
            "machine-id": machine_id,
        }
        for field, value in fields.items():
            if "{" + field + "}" not in template:
                continue
            if not value or "/" in value:
                self.fail(
                    "Image",
                    name,
                    "File",
                    f"this machine has no {{{field}}} to put in; write the name out with File=",
                )
            template = template.replace("{" + field + "}", value)
        return template

    # Between values

    def _check_mount_points(self, boot: "Boot | None", share: Share, images: "list[Image]") -> None:
        places: list[tuple[str, str, str, str]] = []
        if boot:
            places.append((boot.where, "Boot", "", "Where"))
        places.append((share.where, "Share", "", "Where"))
        for image in images:
            places.append((image.where, "Image", image.name, "Where"))
            places += [(folder, "Image", image.name, "Bind") for folder in image.bind]
        for index, (path, section, name, key) in enumerate(places):
            for other, other_section, other_name, other_key in places[:index]:
                what = f"{header(other_section, other_name)} {other_key}={other}"
                # The complaint goes to the value that somebody wrote, of two such to the later one.
                to_later = self.is_set(section, name, key) or not self.is_set(other_section, other_name, other_key)
                culprit = (section, name, key) if to_later else (other_section, other_name, other_key)
                word = path if to_later else other
                hint = self._hint_at_docker(name, other_name)
                if path == other:
                    peer = what if to_later else f"{header(section, name)} {key}={path}"
                    self.fail(*culprit, f"two mounts at {path}: {peer}{hint}", word)
                elif path.startswith(other + "/") or other.startswith(path + "/"):
                    inner, outer = (path, other) if path.startswith(other + "/") else (other, path)
                    self.fail(*culprit, f"the mount point {inner} lies below the mount point {outer}{hint}", word)

    def _hint_at_docker(self, *names: str) -> str:
        """What a person needs to know of an image that no file of theirs has."""
        if DOCKER not in names or DOCKER in self.headers:
            return ""
        return "; the image docker is always there, [Image docker] with Enabled=no takes it out of use"

    def _check_options(self, server: Server, boot: "Boot | None", images: "list[Image]") -> None:
        """Refuse what the file system or this version of NFS would refuse at the mount."""
        checked = [image for image in images if self.is_set("Image", image.name, "Options")]
        if not checked and not server.options and not self.is_set("Boot", "", "Options"):
            return
        from rpinfs.boot import options

        if rule := options.against_version(server.options, server.version):
            self.fail("Server", "", "Options", rule)
        if boot and (rule := options.against_version(boot.options, server.version)):
            self.fail("Boot", "", "Options", rule)
        for image in checked:
            filesystem = image.filesystem if image.filesystem_is_set else ""
            if rule := options.against_file_system(image.options, filesystem):
                self.fail("Image", image.name, "Options", rule)

    def _check_files(self, images: "list[Image]") -> None:
        seen: dict[str, str] = {}
        for image in images:
            if image.file in seen:
                self.fail(
                    "Image",
                    image.name,
                    "File",
                    f"one file for two images: [Image {seen[image.file]}] has {image.file}",
                )
            seen.setdefault(image.file, image.name)


def _setting(section: str, key: str) -> Setting:
    return next(setting for setting in SETTINGS if (setting.section, setting.key) == (section, key))


def _parse_default(setting: Setting, text: str) -> "Value":
    if text or setting.empty_is_value:
        return setting.parse(text)
    return [] if setting.is_list else ""
