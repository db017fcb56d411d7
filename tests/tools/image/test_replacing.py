"""Giving an image's name to another file: real files on a share with hard links, and on one without."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from rpinfs.image import names, publish, replacing
from rpinfs.image.replacing import Record
from rpinfs.system.run import silent

THEN, KEPT = "docker.img.snapshot-20261122T201500Z", "docker.img.snapshot-20261126T184000Z"
UUID = "0b6f3c9a-5f0e-4b8e-9d1c-2f3e4a5b6c7d"


class Share:
    """An image, the name under which it is to be kept, and the two records."""

    def __init__(self, folder: Path) -> None:
        self.image, self.kept = folder / "docker.img", folder / KEPT
        self.record, self.record_of_kept = (Path(names.record_of(str(path))) for path in (self.image, self.kept))
        self.image.write_text("now")

    def swap(self, *, keep: bool = True) -> None:
        with publish.temporary(str(self.image), silent) as new:
            os.write(new.fd, b"then")
            replacing.swap(new, str(self.image), THEN, str(self.kept) if keep else "", UUID)

    def write(self, *, kept: str = KEPT, replaced: int = 0, restored: int = 0) -> None:
        replacing._write(str(self.image), Record(THEN, kept, replaced, restored, UUID))

    def found(self) -> dict[str, str]:
        """What has which name."""
        return {path.name: path.read_text() for path in self.image.parent.iterdir() if not path.name.startswith(".")}

    def records(self) -> set[Path]:
        return {path for path in self.image.parent.iterdir() if path.name.startswith(".")}


@pytest.fixture
def share(tmp_path: Path) -> Share:
    return Share(tmp_path)


def no_links(number: int) -> Callable[..., NoReturn]:
    def link(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return link


@pytest.mark.parametrize("links", [0, errno.EPERM, errno.EOPNOTSUPP])
def test_what_was_replaced_is_kept(share: Share, links: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = share.image.stat().st_ino
    if links:
        monkeypatch.setattr(os, "link", no_links(links))
    share.swap()
    assert share.found() == {"docker.img": "then", KEPT: "now"}
    assert share.records() == {share.record_of_kept}
    assert share.kept.stat().st_ino == replaced
    assert replacing.read(str(share.image), str(share.record_of_kept)) == Record(
        THEN, KEPT, replaced, share.image.stat().st_ino, UUID
    )


def test_where_the_number_goes_with_the_name(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT and its like: the record has the number that the kept one has then."""
    rename = os.rename

    def renamed(source: str, target: str) -> None:
        if target == str(share.kept):
            Path(target).write_text(Path(source).read_text())
            os.unlink(source)
        else:
            rename(source, target)

    monkeypatch.setattr(os, "link", no_links(errno.EPERM))
    monkeypatch.setattr(os, "rename", renamed)
    share.swap()
    record = replacing.read(str(share.image), str(share.record_of_kept))
    assert record is not None
    assert record.replaced == share.kept.stat().st_ino


def test_where_there_was_no_image(share: Share) -> None:
    share.image.unlink()
    share.swap(keep=False)
    assert (share.found(), share.records()) == ({"docker.img": "then"}, set())


def test_an_image_that_has_come_meanwhile_stays(share: Share) -> None:
    with pytest.raises(FileExistsError):
        share.swap(keep=False)
    assert (share.found(), share.records()) == ({"docker.img": "now"}, set())


def test_a_repeated_link_finds_its_own_success(share: Share) -> None:
    share.kept.hardlink_to(share.image)
    share.swap()
    assert share.found() == {"docker.img": "then", KEPT: "now"}


@pytest.mark.parametrize("links", [True, False])
def test_a_snapshot_that_has_come_meanwhile_stays(share: Share, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    share.kept.write_text("somebody's")
    if not links:
        monkeypatch.setattr(os, "link", no_links(errno.EPERM))
    with pytest.raises(FileExistsError):
        share.swap()
    assert (share.found(), share.records()) == ({"docker.img": "now", KEPT: "somebody's"}, set())


def test_a_share_that_fails(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has links, but not now: that is no reason to rename the only name of the image."""
    monkeypatch.setattr(os, "link", no_links(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        share.swap()
    assert (share.found(), share.records()) == ({"docker.img": "now"}, set())


@pytest.mark.parametrize("links", [True, False])
def test_the_last_step_fails(share: Share, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def renamed(source: str, target: str) -> None:
        if target == str(share.image) and ".rpinfs-new-" in source:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    if not links:
        monkeypatch.setattr(os, "link", no_links(errno.EPERM))
    monkeypatch.setattr(os, "rename", renamed)
    with pytest.raises(OSError, match="Input/output"):
        share.swap()
    assert (share.found(), share.records()) == ({"docker.img": "now"}, set())


# --- Settling ----------------------------------------------------------------------------------------------


def test_nothing_to_settle(share: Share) -> None:
    assert replacing.settle(str(share.image)) == []
    share.record.touch()
    assert replacing.settle(str(share.image)) == []
    assert share.found() == {"docker.img": "now"}


def test_an_image_by_two_names(share: Share) -> None:
    share.kept.hardlink_to(share.image)
    share.write(replaced=share.image.stat().st_ino, restored=1)
    assert replacing.settle(str(share.image)) == []
    assert (share.found(), share.records()) == ({"docker.img": "now"}, set())


def test_an_image_under_the_other_name_alone(share: Share) -> None:
    share.image.rename(share.kept)
    share.write(replaced=share.kept.stat().st_ino, restored=1)
    said = f"{share.image}: a restore was interrupted; the image has its name again"
    assert replacing.settle(str(share.image)) == [said]
    assert (share.found(), share.records()) == ({"docker.img": "now"}, set())


def test_all_names_given(share: Share) -> None:
    """The record stays with what it tells of; that goes on as a snapshot."""
    share.image.rename(share.kept)
    share.image.write_text("then")
    share.write(replaced=share.kept.stat().st_ino, restored=share.image.stat().st_ino)
    assert replacing.settle(str(share.image)) == [f"{share.image}: a restore was interrupted; it is completed"]
    assert (share.found(), share.records()) == ({"docker.img": "then", KEPT: "now"}, {share.record_of_kept})


@pytest.mark.parametrize("kept", [KEPT, ""])
def test_all_names_given_and_nothing_kept(share: Share, kept: str) -> None:
    """Deleted since, or there was nothing."""
    share.write(kept=kept, replaced=1 if kept else 0, restored=share.image.stat().st_ino)
    assert replacing.settle(str(share.image)) == [f"{share.image}: a restore was interrupted; it is completed"]
    assert (share.found(), share.records()) == ({"docker.img": "now"}, set())


def test_what_was_not_begun(share: Share) -> None:
    share.kept.write_text("somebody's")
    share.write(replaced=share.image.stat().st_ino, restored=1)
    assert replacing.settle(str(share.image)) == []
    assert (share.found(), share.records()) == ({"docker.img": "now", KEPT: "somebody's"}, set())


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_never_put_back(share: Share, put: Callable[[Path], None]) -> None:
    share.image.unlink()
    put(share.kept)
    share.write(replaced=share.kept.lstat().st_ino, restored=1)
    assert replacing.settle(str(share.image)) == []
    assert not os.path.lexists(share.image)
    assert os.path.lexists(share.kept)


def test_a_record_of_the_first_version(share: Share) -> None:
    replaced = share.image.with_name("docker.img.replaced")
    share.image.rename(replaced)
    share.record.write_text(json.dumps({"inode": replaced.stat().st_ino}))
    assert len(replacing.settle(str(share.image))) == 1
    assert (share.found(), share.records()) == ({"docker.img": "now"}, set())


def test_the_numbers_of_a_record() -> None:
    """Up to what an inode has, and the first of them too."""
    for number in (1, (1 << 64) - 1):
        record = Record(THEN, KEPT, number, number, UUID)
        data = json.dumps({"version": 2, **record.__dict__}).encode()
        assert replacing.parse(data, "docker.img") == record
    for number in (-1, 1 << 64):
        data = json.dumps({"version": 2, **Record(THEN, KEPT, 1, number, UUID).__dict__}).encode()
        with pytest.raises(ValueError, match="other numbers"):
            replacing.parse(data, "docker.img")
