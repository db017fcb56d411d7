"""Whether what Docker writes lies on an image of the configuration. Pure but for the symbolic links asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rpinfs.docker.rules import Expected
from rpinfs.docker.told import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.boot.config import Image


def problems(
    expected: Expected,
    images: Sequence[Image] | None,
    real: Callable[[str], str] = str,
    switched_off: str = "",
) -> list[Problem]:
    """What is wrong with where Docker keeps its data, on a machine with these images in its configuration.

    Args:
        images: None where rpinfs is not in use.
        real: a folder with symbolic links followed.
        switched_off: where the image docker is taken out of use; "" where it is not.
    """
    if images is None or not expected.is_told:
        return []
    found = []
    data = real(expected.data_root.value)
    if image_of(data, images) is None:
        link = "" if data == expected.data_root.value else f", a symbolic link to {data},"
        found.append(
            Problem(
                f"Docker's data root {expected.data_root.value}{link} is on no image ({expected.data_root.origin})",
                _move(images, switched_off),
            )
        )
    if not expected.snapshotter:
        return found
    folder = expected.containerd_root.value
    if not folder:
        found.append(Problem(f"where Docker keeps its images {expected.containerd_root.origin}", None))
    elif image_of(real(folder), images) is None:
        found.append(
            Problem(
                f"Docker keeps its images in {folder}, which is on no image ({expected.containerd_root.origin})",
                f"add to [Image {images[0].name}]: Bind={folder}" if images else _move(images, switched_off),
            )
        )
    return found


def _move(images: Sequence[Image], switched_off: str) -> str:
    if switched_off:
        return f"[Image docker] is not in use: take Enabled=no out ({switched_off}), and reboot"
    if not images:
        return "there is no image in use: rpinfs config show"
    return f"make data-root in daemon.json and Where= of an image agree; Where={images[0].where} is one"


def image_of(path: str, images: Sequence[Image]) -> Image | None:
    """The image of the configuration that a folder is on, by its mount point or one of its bind mounts."""
    # At most one: a mount point below another is refused.
    return next(
        (image for image in images if any(_is_below(path, where) for where in (image.where, *image.bind))), None
    )


def _is_below(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")
