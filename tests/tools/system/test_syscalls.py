"""System calls of our own, on real file systems."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rpinfs.system import syscalls
from tests.tools.conftest import Mount, command

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("make", "size"), [("mkfs.ext4", "64M"), ("mkfs.xfs", "320M")])
def test_after_the_end_of_writing_nothing_reaches_the_image(
    tmp_path: Path, mounted: Mount, make: str, size: str
) -> None:
    image = tmp_path / "image"
    command("truncate", "--size", size, image)
    command(make, "-q", image)
    with mounted("-o", "loop", image) as folder:
        (folder / "before").write_text("x")
        os.sync()
        (folder / "waits").write_text("x")
        syscalls.end_writing(str(folder))
        before = image.read_bytes()
        with pytest.raises(OSError) as refused:
            (folder / "after").write_text("x")
        assert refused.value.errno == errno.EIO
        os.sync()
    assert image.read_bytes() == before
