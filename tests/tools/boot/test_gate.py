"""The gate on real loop devices: a device is what it is, whatever its file is called by now."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpinfs.boot import gate, storage
from rpinfs.boot.config import Config, Image, examine
from rpinfs.boot.host import Host, read_text
from tests.tools.conftest import command

pytestmark = pytest.mark.root


def attach(file: Path, device: str = "") -> str:
    """Attach a file by losetup(8), to a device of that name or to a free one; its name."""
    path = device and f"/dev/{device}"
    found = command("losetup", *([path] if path else ["--find", "--show"]), file)
    return device or Path(found.strip()).name


@contextlib.contextmanager
def mount(where: Path, *arguments: str) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    command("mount", *arguments, where)
    try:
        yield where
    finally:
        command("umount", where)


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mount that counts as the share."""
    folder = tmp_path / "share"
    monkeypatch.setattr(storage.Mount, "is_nfs", property(lambda mount: mount.where == str(folder)))
    monkeypatch.setattr(gate, "RUNTIME_FOLDER", str(tmp_path))
    with mount(folder, "-t", "tmpfs", "tmpfs"):
        yield folder


def config_of(share: Path, where: Path) -> tuple[Config, Image]:
    text = f"[Share]\nWhere={share}\n[Image docker]\nFile=docker.img\nWhere={where}\nBind=\n"
    config, errors = examine(Host(config_files=[("x", f"[Server]\nAddress=nas\n{text}")]))
    assert errors == []
    return config, config.images[0]


def refusal(config: Config, image: Image) -> str:
    mounts = storage.parse_mountinfo(read_text("/proc/self/mountinfo"))
    error = gate.refusal_of(config, image, mounts, {})
    return error.message if error else ""


def test_the_device_counts_and_not_the_name_of_its_file(share: Path, tmp_path: Path) -> None:
    where = tmp_path / "where"
    config, image = config_of(share, where)
    file, other = share / "docker.img", share / "other.img"
    file.touch()
    os.truncate(file, 64 << 20)
    command("mkfs.ext4", "-q", file)
    shutil.copyfile(file, other)
    number = file.stat().st_dev
    device = attach(file)
    try:
        uuid = storage.superblock_uuid(f"/dev/{device}")
        (tmp_path / "docker.uuid").write_text(gate.Verified.of(image, uuid, device).text)
        with mount(where, f"/dev/{device}"):
            assert refusal(config, image) == ""
            assert storage.identity(f"/dev/{device}") == (uuid, (os.major(number), os.minor(number)))
            # On a NAS somebody renames it, or removes it, under a running Pi.
            file.rename(share / "renamed.img")
            assert refusal(config, image) == ""
            (share / "renamed.img").unlink()
            assert refusal(config, image) == ""
        command("losetup", "--detach", f"/dev/{device}")
        # A copy of it, with the same UUID, under its name, on a device of its number.
        other.rename(file)
        attach(file, device)
        with mount(where, f"/dev/{device}"):
            assert storage.superblock_uuid(f"/dev/{device}") == uuid
            assert refusal(config, image).endswith("which rpinfs-agent.service has not attached")
    finally:
        command("losetup", "--detach", f"/dev/{device}")


def test_the_mount_of_the_share_must_be_the_one_that_the_image_is_from(
    share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after umount -l and a new mount of another export: what is there now is not what the image is written to."""
    where = tmp_path / "where"
    config, image = config_of(share, where)
    # Both numbers are the same for a tmpfs, as they are for NFS.
    monkeypatch.setattr(gate, "NFS_KINDS", ("tmpfs",))
    file = share / "docker.img"
    file.touch()
    os.truncate(file, 64 << 20)
    command("mkfs.ext4", "-q", file)
    device = attach(file)
    try:
        uuid = storage.superblock_uuid(f"/dev/{device}")
        (tmp_path / "docker.uuid").write_text(gate.Verified.of(image, uuid, device).text)
        with mount(where, f"/dev/{device}"):
            assert refusal(config, image) == ""
            with mount(share, "-t", "tmpfs", "tmpfs"):
                assert "is from another mount than the one that is at" in refusal(config, image)
    finally:
        command("losetup", "--detach", f"/dev/{device}")
