"""The releases of Debian that rpinfs is for, a line each: the lab, the chroots and the containers go by this table."""

from __future__ import annotations

from dataclasses import dataclass

from .process import LabError


@dataclass(frozen=True)
class Release:
    """One release.

    Attributes:
        docker: the version that its docker.io says it is.
        packages: what a Pi's root has of it, beyond what all have.
        ganesha: the release whose nfs-ganesha serves its Pis; "" is this machine's own.
        is_long: whether it is tried with `make test-lab` alone.
    """

    name: str
    docker: str
    packages: str
    ganesha: str = ""
    is_long: bool = False


RELEASES = {
    release.name: release
    for release in (
        Release("bookworm", docker="20.10.24", packages="apparmor"),
        Release("trixie", docker="26.1.5", packages="docker-cli"),
        # Its Linux opens no folder of an nfs-ganesha before 9.11 (rpinfs/system/trouble.py).
        Release("forky", docker="28.5.2", packages="docker-cli", ganesha="forky", is_long=True),
    )
}
DEFAULT = "trixie"


def release_of(name: str) -> Release:
    """The line of a release."""
    if name not in RELEASES:
        raise LabError(f"release {name!r}: expected one of {', '.join(RELEASES)}")
    return RELEASES[name]
