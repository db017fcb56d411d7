"""The lab's Debian roots, with their Docker, to run programs in without booting them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.lab.machine import native_machine
from tests.lab.root import base_root, quiet
from tests.package.chroot import Chroot
from tests.support import TOP
from tests.tools.conftest import command


@contextlib.contextmanager
def debian(release: str, tmp_path: Path) -> Iterator[Chroot]:
    """The lab's root of a release, with this rpinfs in it, and a layer above it that takes all that is written."""
    base = base_root(release, native_machine(), quiet)
    for name in ("upper", "work", "root"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={base},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    command("mount", "-t", "overlay", "-o", layers, "overlay", tmp_path / "root")
    try:
        root = Chroot(tmp_path / "root")
        root.put(TOP / "rpinfs", "/usr/share/rpinfs/rpinfs")
        root.put(TOP / "units" / "rpinfs", "/usr/bin/rpinfs")
        yield root
    finally:
        command("umount", tmp_path / "root")
