"""Why e2fsck is started at each boot, though an image says that it is clean: what it finds there.

A boot would open ten files less without it. By the superblock alone, with its checksum, none of these is told from a
clean image; to tell them would be to write down here what e2fsck knows of group descriptors, journals and backups.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rpinfs.image.check import check_found
from rpinfs.image.errors import ImageError
from rpinfs.image.probe import probe, verify

BLOCK, GROUP, INODE = 4096, 64, 128
SECOND_GROUP = 32768


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "docker.img"
    with path.open("wb") as file:
        file.truncate(256 << 20)
    how = ("-b", str(BLOCK), "-I", "256", "-E", "assume_storage_prezeroed=1,nodiscard")
    subprocess.run(["mkfs.ext4", "-q", *how, path], check=True)
    return path


def poke(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def ask(path: Path, question: str) -> str:
    return subprocess.run(["debugfs", "-R", question, path], capture_output=True, text=True, check=True).stdout


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, text
    return int(found[1], 0)


def journal_superblock(path: Path) -> None:
    poke(path, number(r"\(0-\d+\):(\d+)", ask(path, "stat <8>")) * BLOCK, b"\0" * 4)


def journal_inode(path: Path) -> None:
    place = ask(path, "imap <8>")
    poke(path, number(r"block (\d+)", place) * BLOCK + number(r"offset (0x[0-9a-f]+)", place), b"\0" * INODE)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "checksum of a group": lambda path: poke(path, BLOCK + GROUP + 0x1E, b"\x12\x34"),
    "journal's superblock": journal_superblock,
    "journal's inode": journal_inode,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_e2fsck_mends_in_what_calls_itself_clean(image: Path, damage: str) -> None:
    DAMAGE[damage](image)
    found = probe(str(image))
    verify(found)
    assert found.clean and not found.needs_recovery and not found.errors_recorded
    assert check_found(found).corrected
    assert not check_found(probe(str(image))).corrected


def test_a_group_that_lies_nowhere_is_refused(image: Path) -> None:
    poke(image, BLOCK, b"\xff\xff\xff\x7f")
    found = probe(str(image))
    verify(found)
    assert found.clean
    with pytest.raises(ImageError, match="errors that only a person can decide about"):
        check_found(found)


def test_other_features_in_the_backup_have_it_look_at_everything(image: Path) -> None:
    poke(image, SECOND_GROUP * BLOCK + 0x60, b"\0" * 4)
    found = probe(str(image))
    assert found.clean and "features different from backup, check forced" in check_found(found).output


def test_a_clean_one_is_left_at_that(image: Path) -> None:
    result = check_found(probe(str(image)))
    assert not result.corrected and ": clean, " in result.output
