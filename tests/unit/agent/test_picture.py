"""What is known of the share and of an image, by mount tables as Pis have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpinfs.agent import picture
from rpinfs.agent.picture import ImageFacts, ShareFacts
from rpinfs.boot import storage
from rpinfs.boot.config import Config, Image, load
from rpinfs.boot.host import Host
from tests.support import make_pi

ROOT = "30 1 0:38 / / rw - nfs4 192.168.1.10:/nfsroot/pi rw\n"
SHARE = "41 30 0:40 / /nfs/docker rw - nfs4 192.168.1.10:/docker rw\n"
BOOT = "42 30 0:41 / /boot/firmware ro - nfs4 192.168.1.10:/tftpboot ro\n"
OUTER = "50 30 7:3 / /var/lib/docker rw - ext4 /dev/loop3 rw\n"
KEPT = "51 30 7:3 /.rpinfs/var-lib-containerd /var/lib/containerd rw - ext4 /dev/loop3 rw\n"
OVER = "52 50 0:50 / /var/lib/docker rw - tmpfs tmpfs rw\n"
ABOVE = "53 30 0:51 / /var/lib rw - tmpfs tmpfs rw\n"
BOTH = ("/var/lib/docker", "/var/lib/containerd")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load(Host.read(str(make_pi(tmp_path / "pi", "[Image docker]\nFile=docker.img\n"))))


@pytest.fixture
def image(config: Config, monkeypatch: pytest.MonkeyPatch) -> Image:
    """Of which nothing is published, and whose device has recorded no errors."""
    monkeypatch.setattr(picture, "proven_loop", lambda *_: "")
    monkeypatch.setattr(storage, "ext4_errors", lambda _: None)
    monkeypatch.setattr(storage, "has_file_system", lambda _: False)
    return config.images[0]


def known(image: Image, *lines: str, loop: str = "loop3", **by_fstab: int) -> ImageFacts:
    lines_of_fstab = {f"/var/lib/{name}": number for name, number in by_fstab.items()}
    return picture.image_facts(image, loop, storage.parse_mountinfo("".join((ROOT, *lines))), lines_of_fstab)


def test_nothing_is_mounted(image: Image) -> None:
    assert known(image, SHARE) == ImageFacts(free=BOTH)


def test_all_is_in_its_place(image: Image) -> None:
    facts = known(image, OUTER, KEPT)
    assert facts == ImageFacts(device="loop3", over="/dev/loop3 (ext4)", binds=True, in_use=True)
    assert facts.is_in_place("loop3") and not facts.is_in_place("loop4") and not facts.is_in_place("")


@pytest.mark.parametrize(
    "bound",
    ["", "51 30 7:3 /other /var/lib/containerd rw - ext4 /dev/loop3 rw\n",
     "51 30 7:4 /.rpinfs/var-lib-containerd /var/lib/containerd rw - ext4 /dev/loop4 rw\n",
     "51 30 0:52 / /var/lib/containerd rw - tmpfs tmpfs rw\n"],
)  # fmt: skip
def test_a_folder_that_it_keeps_is_elsewhere(image: Image, bound: str) -> None:
    """Not there, another folder of the image, another image's, something else."""
    facts = known(image, OUTER, bound)
    assert not facts.binds and not facts.is_in_place("loop3") and facts.device == "loop3"
    assert facts.free == (() if bound else BOTH[1:])
    # What fstab mounts there is the user's own affair.
    assert known(image, OUTER, bound, containerd=1).binds
    assert not known(image, KEPT, containerd=1).binds, "and the image itself?"


def test_something_is_mounted_over_it(image: Image) -> None:
    facts = known(image, OUTER, KEPT, OVER)
    assert facts == ImageFacts(over="tmpfs (tmpfs)", in_use=True)


def test_something_is_mounted_over_a_folder_above(image: Image) -> None:
    facts = known(image, OUTER, KEPT, ABOVE)
    assert facts == ImageFacts(hidden=True, in_use=True, free=BOTH)


def test_its_file_system_lives_on_without_a_mount(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "has_file_system", lambda loop: loop == "loop3")
    assert known(image) == ImageFacts(in_use=True, free=BOTH)
    assert not known(image, loop="").in_use and not known(image, loop="loop4").in_use


def test_what_is_known_of_the_device_that_is_held(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its errors; where none is held, which one an earlier agent has published."""
    monkeypatch.setattr(storage, "ext4_errors", {"loop3": 7}.get)
    monkeypatch.setattr(picture, "proven_loop", lambda *_: "loop5")
    held, other, none = (known(image, OUTER, KEPT, loop=loop) for loop in ("loop3", "loop4", ""))
    assert (held.errors, held.proven) == (7, "") and (other.errors, other.proven) == (0, "")
    assert (none.errors, none.proven) == (0, "loop5")


def test_what_is_no_loop_device_is_nobodys_image(image: Image) -> None:
    facts = known(image, OUTER.replace("7:3", "8:3").replace("loop3", "sda3"), KEPT)
    assert (facts.device, facts.over, facts.in_use) == ("", "/dev/sda3 (ext4)", True), "its folder is still mounted"
    assert not known(image, OUTER.replace("7:3", "8:3")).in_use


@pytest.mark.parametrize(("lines", "missing"), [((), True), ((BOOT,), False)])
def test_the_mount_of_the_boot_files(config: Config, lines: tuple[str, ...], missing: bool) -> None:
    for share in ((), (SHARE,)):
        mounts = storage.parse_mountinfo("".join((ROOT, *lines, *share)))
        facts = picture.share_facts(config, mounts, {})
        assert facts == (ShareFacts(41, (0, 40), boot_missing=missing) if share else ShareFacts(boot_missing=missing))


def test_where_no_boot_files_are_wanted_none_are_missing(tmp_path: Path) -> None:
    config = load(Host.read(str(make_pi(tmp_path / "pi", "[Boot]\nExport=\n"))))
    assert picture.share_facts(config, storage.parse_mountinfo(ROOT), {}) == ShareFacts()


def test_what_holds_a_snapshot_still(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "RUNTIME_FOLDER", str(tmp_path))
    assert not picture.is_frozen(image)
    (tmp_path / "docker.frozen").write_text("")
    assert picture.is_frozen(image)
