"""The systemd generator: reads the machine, makes the units, writes them.

Boot path: imports os and sys only, and its neighbours. Every file opened at boot is a round trip to the NAS.
systemd ignores the exit status and keeps what was written before a crash, so everything is made in memory first.
Source: systemd.generator(7).
"""

import os
import sys

from rpinfs.boot.config import examine
from rpinfs.boot.host import Host, remember_nic
from rpinfs.boot.units import FROM_NEXT_BOOT, Units, guards, unescape_octal, units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rpinfs.boot.config import Config


def run(arguments: "list[str]") -> "NoReturn":
    """main(), and the end of the process with what it returns: at once, without Python's taking down of its modules."""
    os._exit(main(arguments))


def main(arguments: "list[str]") -> int:
    """Write the units of this machine to the first of the folders that systemd gives; 0, or 1 on a config error."""
    environment = os.environ
    if environment.get("SYSTEMD_SCOPE", "system") != "system" or environment.get("SYSTEMD_IN_INITRD") == "1":
        return 0
    if not arguments:
        sys.stderr.write("rpinfs-generator: expected a folder to write units to; systemd starts this program\n")
        return 2
    host = Host.read()
    if os.path.lexists(host.root + FROM_NEXT_BOOT):
        return 0
    config, errors = examine(host)
    if errors:
        # No mounts: the gate holds Docker back, and says this same sentence.
        _log(errors[0].message)
    try:
        made = guards(config) if errors else units(config, host.fstab, host.root_nic)
        write(made, arguments[0], host.root)
        if config.in_use and not errors:
            remember_nic(host)
        for cycle in made.cycles:
            _log(cycle)
        if config.in_use and not errors and _may_be_links(config, host):
            # Imported here: only who has one pays for what is opened to say so.
            from rpinfs.boot.gate import links

            for link in links(config, host):
                _log(f"{link.message}; {link.remedy}")
    except OSError as error:
        _log(f"units cannot be written: {error}")
        return 1
    return 1 if errors else 0


def _may_be_links(config: "Config", host: Host) -> bool:
    """Whether a symbolic link may lead to a mount point; no mount is looked at, nor what is in it: it may be silent."""
    mounted = {unescape_octal(line.split(" ")[4]) for line in host.mountinfo.splitlines() if line.count(" ") > 4}
    places = [config.boot.where] if config.boot else []
    places += [config.share.where, *(where for image in config.images for where in (image.where, *image.bind))]
    for where in places:
        here = ""
        for part in where.strip("/").split("/"):
            here = f"{here}/{part}"
            if here in mounted:
                break
            if os.path.islink(host.root + here):
                return True
    return False


def write(made: Units, folder: str, root: str) -> None:
    """Write unit files and links below a folder, and files of other programs below a root. Raises OSError."""
    for name, text in made.files.items():
        _write_file(f"{folder}/{name}", text)
    for name, target in made.links.items():
        path = f"{folder}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(target, path)
    # Last: where these cannot be written, the units stand.
    for path, text in made.others.items():
        _write_file(root + path, text)


def _write_file(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, text.encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)


def _log(message: str) -> None:
    """Write to the kernel log: a generator's output goes to /dev/null, and the journal is not up yet."""
    try:
        # Opened for writing only: for reading it is refused in the sandbox of systemd 257.
        descriptor = os.open("/dev/kmsg", os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return
    try:
        line = f"<3>rpinfs-generator[{os.getpid()}]: {message}".encode("utf-8", "replace")
        # The kernel refuses records that are longer (printk, LOG_LINE_MAX), and a refused one says nothing at all.
        os.write(descriptor, line[:900].decode("utf-8", "ignore").encode() + b"\n")
    except OSError:
        # Nothing is left to tell it to; the gate says it again.
        return
    finally:
        os.close(descriptor)
