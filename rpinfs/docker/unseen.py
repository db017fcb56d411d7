"""What Docker has stored and does not see with its present settings: of another store, driver or user namespace.

Nothing of it is deleted when a setting changes, and all of it comes back with the setting that it was made with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rpinfs.boot.values import dataclass
from rpinfs.docker import namespaces
from rpinfs.docker.rules import NAMESPACE, RULES, Expected
from rpinfs.docker.settings import (
    DATA_SECONDS,
    Installed,
    Stored,
    can_be_seen,
    images_of,
    names,
    of_containerd,
    volumes_in,
)
from rpinfs.system import deadline

_DRIVERS = frozenset(driver for rules in RULES for driver in rules.drivers)
_REMAPPED = re.compile(r"\d{1,10}\.\d{1,10}")
"""The data folder of userns-remap: numbers of the user and the group that are root in a container."""
_NAMESPACE = re.compile(rf"{NAMESPACE}(-{_REMAPPED.pattern})?")
"""Docker's in containerd: what others have there is not Docker's to see."""


@dataclass(frozen=True)
class Unseen:
    """Things in a folder; `what` says how many, and of which store they are."""

    what: str
    folder: str


def find(installed: Installed, expected: Expected) -> list[Unseen]:
    """What is in Docker's folders and will not be seen; nothing where their image is not mounted.

    Raises:
        RpinfsError: the NAS does not answer.
    """
    folders = filter(None, (expected.data_root.value, expected.containerd_root.value))
    if not expected.is_told or not all(can_be_seen(installed, folder) for folder in folders):
        return []
    return deadline.within(DATA_SECONDS, _look, installed.host.root, expected)


def _look(root: str, expected: Expected) -> list[Unseen]:
    data = expected.data_root.value.rstrip("/") or "/"
    found = [
        Unseen(what, folder)
        for folder in (data, *_remapped(root, data))
        for what in _in(root + folder, expected, is_seen=folder == expected.root)
    ]
    containerd = expected.containerd_root.value
    there = _of_containerd(root + containerd, expected) if containerd else ""
    return [*found, Unseen(f"{there} of containerd", containerd)] if there else found


def _of_containerd(folder: str, expected: Expected) -> str:
    if not expected.snapshotter:
        return str(of_containerd(folder))
    try:
        found = namespaces.images(folder)
    except ValueError:
        # Not to be read today: that there is nothing would be a guess.
        return "perhaps images"
    of_docker = {name: number for name, number in found.items() if _NAMESPACE.fullmatch(name)}
    return str(Stored(images=sum(number for name, number in of_docker.items() if name != expected.namespace)))


def _remapped(root: str, data: str) -> list[str]:
    return [f"{data.rstrip('/')}/{name}" for name in sorted(names(root + data)) if _REMAPPED.fullmatch(name)]


def _in(folder: str, expected: Expected, is_seen: bool) -> Iterator[str]:
    """What is unseen of a data folder: all of it, or the images of other drivers."""
    for driver in sorted(_DRIVERS.intersection(names(f"{folder}/image"))):
        if is_seen and not expected.snapshotter and driver == expected.driver.value:
            continue
        images = Stored(images=images_of(folder, driver))
        if images.images:
            yield f"{images} of the storage driver {driver}"
    others = Stored(containers=len(names(f"{folder}/containers")), volumes=volumes_in(folder))
    if not is_seen and str(others):
        yield str(others)
