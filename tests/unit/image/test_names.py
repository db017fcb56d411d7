"""What a file on the share is, by its name."""

from __future__ import annotations

import pytest

from rpinfs.image.names import Role, record_of, role_of, snapshot_form

ROLES = {
    "docker-10000000a1b2c3d4.img": Role.IMAGE,
    "anything": Role.IMAGE,
    ".hidden": Role.IMAGE,
    "docker.img.kept": Role.IMAGE,
    "docker.img.snapshot-20261122T201500Z": Role.SNAPSHOT,
    ".img.snapshot-20261122T201500Z": Role.SNAPSHOT,
    "docker.img.snapshot-20261122T201500": Role.IMAGE,
    "docker.img.snapshot-20261122T201500Zx": Role.IMAGE,
    "docker.img.snapshot-": Role.IMAGE,
    "docker.img.replaced": Role.REPLACED,
    "docker.img.replaced.img": Role.IMAGE,
    ".docker.img.rpinfs-lock": Role.LOCK,
    ".docker.img.rpinfs-owner": Role.RECORD,
    ".docker.img.rpinfs-replaced": Role.RECORD,
    ".docker.img.snapshot-20261122T201500Z.rpinfs-replaced": Role.RECORD,
    ".docker.img.rpinfs-new-0123456789abcdef": Role.WORKING,
    ".docker.img.rpinfs-owner-new-0123456789abcdef": Role.WORKING,
    ".docker.img.rpinfs-trim": Role.WORKING,
    ".docker\nimg.rpinfs-new-0123456789abcdef": Role.WORKING,
    ".rpinfs-lock": Role.IMAGE,
    "docker.rpinfs-lock": Role.IMAGE,
}


@pytest.mark.parametrize(("name", "role"), ROLES.items(), ids=repr)
def test_roles(name: str, role: Role) -> None:
    assert role_of(name) is role


@pytest.mark.parametrize("name", ["docker.img", "a.b+c*.img"])
def test_the_form_of_a_snapshot(name: str) -> None:
    form = snapshot_form(f"/nfs/docker/{name}")
    match = form.fullmatch(f"{name}.snapshot-20261122T201500Z")
    assert match
    assert match[1] == "20261122T201500Z"
    # Digits of other scripts are digits to a regular expression, and no time.
    for other in ("x", "\n", "\u0662"):
        assert not form.fullmatch(f"{name}.snapshot-20261122T20150{other}Z")
    assert not form.fullmatch(f"{name}.snapshot-20261122T201500Z\n")
    assert not form.fullmatch(f"x{name}.snapshot-20261122T201500Z")


def test_the_place_of_a_record() -> None:
    assert record_of("/nfs/docker/docker.img") == "/nfs/docker/.docker.img.rpinfs-replaced"
    assert role_of(record_of("/nfs/docker/docker.img").rpartition("/")[2]) is Role.RECORD
