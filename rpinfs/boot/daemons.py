"""What the gate says of where Docker and containerd will write: it must be a verified image (promise 3).

Imported only where something may have moved their folders: the gate that passes on defaults needs none of this. Where
they will write is docker/'s to tell (docker/roots.py); whoever calls the gate knows that room, and hands it in.
"""

import os

from rpinfs.boot.config import Config
from rpinfs.boot.settings import DOCKER
from rpinfs.boot.storage import Mount, followed, mount_of
from rpinfs.boot.units import DEFAULT_ROOTS
from rpinfs.errors import RpinfsError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rpinfs.boot.host import Host


class Told:
    """A folder that a daemon was told to use.

    Attributes:
        daemon: "docker" or "containerd".
        path: absolute.
        origin: by what, in words for a message; they begin with "the default" where nothing was said.
    """

    __slots__ = ("daemon", "path", "origin")

    def __init__(self, daemon: str, path: str, origin: str) -> None:
        self.daemon = daemon
        self.path = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
        self.origin = origin


def refusals(
    config: Config,
    host: "Host",
    mounts: "list[Mount]",
    verified: "list[tuple[int, int]]",
    roots: "Callable[[Host], list[Told]]",
) -> "list[RpinfsError]":
    """Tell why Docker or containerd must not start: where they will write is on no verified image, or cannot be told.

    Args:
        mounts: the mount table.
        verified: device numbers of the verified images. What counts is the mount that a folder really lies on.
        roots: tells the folders of what is installed.

    Raises:
        PermissionError: to who is not root: that says nothing of Docker.
    """
    try:
        return [
            _refusal(config, told, place)
            for told in roots(host)
            if (place := _outside(told, host.root, mounts, verified))
        ]
    except RpinfsError as error:
        return [_untold(error.message, error.remedy)]
    except OSError as error:
        if isinstance(error, PermissionError) and os.geteuid():
            raise
        return [_untold(f"{error.filename}: {error.strerror}", None)]
    except ValueError as error:
        # A NUL in a path.
        return [_untold(str(error), None)]


def _untold(why: str, remedy: "str | None") -> RpinfsError:
    return RpinfsError(f"it cannot be told where Docker will write: {why}", remedy or "rpinfs docker show")


def _outside(told: Told, root: str, mounts: "list[Mount]", verified: "list[tuple[int, int]]") -> str:
    """What a folder lies on that is no verified image, in words; empty where it lies on one."""
    path = followed(mounts, told.path, root)
    mount = mount_of(mounts, path)
    if mount and mount.device in verified:
        return ""
    way = f"leads to {path}, " if path != told.path else ""
    return f"{way}is on {mount.where} ({mount.kind} {mount.source})" if mount else f"{way}is on no mount that is known"


def _refusal(config: Config, told: Told, place: str) -> RpinfsError:
    is_docker = told.daemon == "docker"
    what = (
        f"Docker's data root {told.path} ({told.origin})"
        if is_docker
        else f"containerd's root {told.path} ({told.origin}), where images are kept,"
    )
    if DOCKER in config.disabled and told.path in DEFAULT_ROOTS:
        switch = config.disabled[DOCKER]
        return RpinfsError(
            f"{what} is on no verified image: it {place}, and [Image docker] is not in use, by Enabled=no ({switch})",
            "take Enabled=no out and reboot; where Docker is not wanted:"
            " systemctl mask docker.socket docker.service containerd.service",
        )
    wish = f"set Where={told.path}" if is_docker else f"add {told.path} to Bind="
    remedy = f"{wish} of an image in rpinfs.conf and reboot"
    if not told.origin.startswith("the default"):
        remedy = f"{remedy}; or take it out of there, then: systemctl restart {quoted(told.daemon)}"
    return RpinfsError(f"{what} is on no verified image: it {place}", remedy)
