"""A container image without a registry: one static busybox, as a tar for `docker import`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from .initramfs import busybox_of
from .pi import Pi

IMAGE = "lab/busybox"
FOLDERS = ("bin", "dev", "etc", "proc", "root", "sys", "tmp")
PROGRAMS = (
    *("cat", "cp", "date", "dd", "df", "echo", "env", "grep", "hostname", "id", "ls", "mkdir", "mount", "mv", "ps"),
    *("rm", "sh", "sleep", "sync", "tail", "test", "touch", "true", "uname"),
)


def without_network(pi: Pi) -> None:
    """Let its Docker make no network for containers: that takes a tenth of an emulated boot.

    And let it wait for containers that are slow to die as long as an emulated processor takes.
    """
    settings = {"bridge": "none", "iptables": False, "ip6tables": False, "shutdown-timeout": 60}
    pi.write("/etc/docker/daemon.json", json.dumps(settings))


def container_tar(root: Path, programs: Mapping[str, bytes] | None = None) -> bytes:
    """The tar, made of the busybox of a Pi's root, so that it runs on that Pi's processor; with more programs."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in FOLDERS:
            _add(tar, name, tarfile.DIRTYPE, 0o755)
        _add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, data=busybox_of(root).read_bytes())
        for name in PROGRAMS:
            _add(tar, f"bin/{name}", tarfile.SYMTYPE, 0o777, target="busybox")
        for path, data in (programs or {}).items():
            _add(tar, path, tarfile.REGTYPE, 0o755, data=data)
    return content.getvalue()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar of plain files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            _add(tar, name, tarfile.REGTYPE, 0o644, data)
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, data: bytes = b"", target: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size, member.linkname = kind, mode, len(data), target
    tar.addfile(member, io.BytesIO(data))
