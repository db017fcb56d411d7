"""What several groups of commands share."""

from __future__ import annotations

import json
import os
import sys

from rpinfs.commands.cli import BAD_USAGE, UsageError
from rpinfs.errors import RpinfsError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.boot.config import Config, Image
    from rpinfs.boot.host import Host
    from rpinfs.health.facts import Facts
    from rpinfs.health.status import Paint

HOST_SECONDS = 1.0
"""For reading the configuration and the machine, when the root is on a NAS that does not answer."""


ROOT_REMEDY = "if the root is on NFS: look at the NAS and at the network to it"
"""Where nothing can be read, not even the configuration."""


def load() -> tuple[Host, Config]:
    """Read this machine and its configuration."""
    from rpinfs.boot import config
    from rpinfs.boot.host import Host

    host = Host.read()
    return host, config.load(host)


def facts_within(seconds: float) -> Facts:
    """Read this machine in a child: with the root on a NAS that is gone, even the configuration cannot be read."""
    from rpinfs.boot.host import Host
    from rpinfs.health.facts import facts_of
    from rpinfs.system import deadline

    try:
        host = deadline.within(seconds, Host.read)
    except deadline.TimedOut as silence:
        raise RpinfsError(
            f"the root file system gave {silence.message}",
            ROOT_REMEDY,
            status=2,
        ) from silence
    return facts_of(host)


def image_on_share(name: str) -> tuple[Host, Image]:
    """Find an image of the configuration whose share is really mounted: a lease below an empty mount point is none."""
    from rpinfs.boot import storage

    host, config = load()
    image = image_named(config, name)
    mount = storage.mount_at(storage.parse_mountinfo(host.mountinfo), config.share.where)
    if mount is None or not mount.is_nfs:
        raise RpinfsError(f"the share is not mounted at {config.share.where}", "rpinfs status")
    return host, image


def image_named(config: Config, name: str) -> Image:
    """Find an image of the configuration."""
    image = next((image for image in config.images if image.name == name), None)
    if image is None:
        known = ", ".join(image.name for image in config.images) or "none"
        raise RpinfsError(f"unknown image {name}; known are {known}", "rpinfs config show", status=2)
    return image


def print_document(found: object) -> None:
    """Print a result as JSON."""
    print(as_document(found), end="")


def as_document(found: object) -> str:
    """A result as JSON."""
    return json.dumps(found, indent=2, ensure_ascii=True) + "\n"


def replace_output(output: str, text: str, command: str, option: str, status: int = BAD_USAGE) -> None:
    """Write a result to the file of an option, whole or not at all; a symbolic link stays one. Raises OSError.

    Raises:
        UsageError: it is no file, with the given exit status.
    """
    from rpinfs.system.replace import replace_file

    path = os.path.realpath(output)
    if os.path.lexists(path) and not os.path.isfile(path):
        # It is renamed over: nobody wants that of /dev/null, or of a folder.
        raise UsageError(f"{option} {output}: expected a file, found something else", command, status)
    replace_file(path, text.encode(), lambda _: None)


def paint() -> Paint:
    """Colours for a terminal, none for a file or where NO_COLOR asks for none."""
    from rpinfs.health.status import Paint

    return Paint(sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


class Progress:
    """Shows how long work gets on: on a terminal, in one line that is gone afterwards."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __call__(self, message: str) -> None:
        """Show this in place of what was shown."""
        self._write(message)

    def __exit__(self, *_: object) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        if self._on:
            sys.stderr.write(f"\r\x1b[K{printable(text)}")
            sys.stderr.flush()


def end_in_order() -> None:
    """Clear up also when systemd or the end of a session ends us: the same as Ctrl-C."""
    import signal

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
