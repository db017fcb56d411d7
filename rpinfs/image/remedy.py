"""Remedies about images: whole command lines that work when they are pasted in the state in which they are printed.

What is changed in the file of an image that is mounted, or still attached, is lost, or destroys its file system: the
next mount reads what the loop device has in memory. So what uses it is stopped first, the sockets that would start that
again before it, and the agent last, which lets the device go.
"""

from rpinfs.boot.config import Image
from rpinfs.boot.units import AGENT, mount_unit
from rpinfs.errors import quoted

TRY_AGAIN = "systemctl restart rpinfs-agent"
"""Has the agent try again, with the configuration that it knows."""

TAKE_UP = f"systemctl daemon-reload; {TRY_AGAIN}"
"""Has a changed configuration taken up."""

FOR_TWO = "shut one of the two Pis down now"
"""What to do where an image is mounted here that another Pi has."""

# A socket that stays would start its service in the middle of the stop.
_SOCKETS = {"docker.service": "docker.socket", "podman.service": "podman.socket"}


def command(*words: str) -> str:
    """One command, quoted for a shell."""
    return quoted(*words)


def stop(image: Image) -> str:
    """The command that stops all that uses an image, so that nothing has its file open."""
    units = (unit if "." in unit else f"{unit}.service" for unit in image.before)
    sockets = [_SOCKETS[unit] for unit in units if unit in _SOCKETS]
    binds = [mount_unit(where) for where in image.bind]
    return command("systemctl", "stop", *sockets, *image.before, *binds, mount_unit(image.where), AGENT)


def start(image: Image) -> str:
    """The command that starts again what stop() has stopped; each unit that waits for the image starts it."""
    units = image.before or [mount_unit(image.where)]
    return command("systemctl", "start", AGENT, *units)


def unmounted(image: Image, *words: str) -> str:
    """The command line that runs a command on an image's file while nothing uses it, and then has all go on.

    Where something does not let the image go, the command is not run.
    """
    free = f'test -z "$({command("losetup", "--associated", image.path)})"'
    return f"{stop(image)}; {free} && {command(*words)}; {start(image)}"
