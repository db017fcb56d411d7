"""From folders to a board, without an image: what is refused, what its record says, what is left to a person."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rpinfs import __version__
from rpinfs.errors import RpinfsError
from rpinfs.netboot.add import make, record, staging
from rpinfs.netboot.add.make import Wanted
from rpinfs.netboot.add.order import Order, order
from rpinfs.netboot.add.tree import Tree
from rpinfs.netboot.add.user import User
from rpinfs.netboot.plan import parse
from rpinfs.system.files import OddFileError
from tests.support import Content, make_tree

ROOT: dict[str, Content] = {
    "etc/hostname": "raspberrypi\n", "usr/lib/os-release": "NAME=x\nPRETTY_NAME='Debian 13'\nPRETTY_NAME=no\n",
    "usr/lib/modules/6.12": None, "usr/lib/modules/6.1": None, "boot/firmware/config.txt": "",
    "boot/firmware/start4.elf": "",
}  # fmt: skip
EXPORTS = (
    "192.168.1.10 is to export /nfsroot, /tftpboot and /docker to the boards, each with"
    " rw,sync,no_subtree_check,no_root_squash"
)
NO_RPINFS = "rpinfs is not in its root: add it with --deb FILE, or on the Pi: apt install ./rpinfs_VERSION_all.deb"
NO_DOCKER = "Docker is not in its root: add it with --docker, or on the Pi: apt install docker.io"
EEPROM = "once, on the Pi, from an SD card: rpi-eeprom-config --apply boot.conf"


def ordered(here: Path, board: str = "4", serial: str = "a1b2c3d4", planned: bool = True, name: str = "pi1") -> Order:
    for folder in ("roots", "tftp"):
        (here / folder).mkdir(exist_ok=True)
    pi: dict[str, Any] = {"name": name, "board": board, **({"serial": serial} if serial else {})}
    nas = {"address": "192.168.1.10", "root": "/nfsroot", "boot": "/tftpboot", "share": "/docker"}
    plan = parse({"network": {"subnet": "192.168.1.0/24"}, "nas": nas, "pi": [pi] if planned else []}, "plan")
    given = dict.fromkeys(("mac", "board", "server", "version"), "")
    folders = {"roots": str(here / "roots"), "tftp": str(here / "tftp")}
    return order({**given, **folders, "name": name, "serial": serial}, plan)


def nothing_left(here: Path) -> bool:
    return os.listdir(here / "roots") == os.listdir(here / "tftp") == []


@pytest.mark.root
def test_a_board_of_a_folder(tmp_path: Path) -> None:
    source, told = make_tree(tmp_path / "stock", ROOT), list[str]()
    before = int(time.time())
    done = make.add(ordered(tmp_path), Wanted(str(source)), told.append)
    assert before <= done.made <= int(time.time())
    assert (done.name, done.serial, done.mac, done.board) == ("pi1", "a1b2c3d4", "", "4")
    assert (done.root, done.boot) == (str(tmp_path / "roots/pi1"), str(tmp_path / "tftp/a1b2c3d4"))
    assert (done.server, done.source, done.sha256, done.staged) == ("192.168.1.10", str(source), "", "")
    assert (done.by, done.system, done.kernels) == (f"rpinfs {__version__}", "Debian 13", ["6.1", "6.12"])
    assert (done.user, done.packages, done.lost) == ("", {}, [])
    assert done.left == [NO_RPINFS, NO_DOCKER, EEPROM, EXPORTS]
    assert done.did[0].startswith("the root: 13 files, ")
    assert done.did[1].startswith("the boot files: 3 files, ")
    assert done.did[2] == "host name: pi1"
    assert done == record.read(str(tmp_path / "roots"), "pi1")
    assert "making it pi1" in told
    assert told.count("writing all of it to the disk") == 2
    assert all(path.stat().st_mode & 0o004 for path in Path(done.boot).rglob("*"))


@pytest.mark.root
def test_a_clone_of_it(tmp_path: Path) -> None:
    make.add(ordered(tmp_path), Wanted(str(make_tree(tmp_path / "stock", ROOT)), user=None), print)
    other = record.read(str(tmp_path / "roots"), "pi1")
    assert other is not None
    other = replace(other, user="me", packages={"rpinfs": "0.1.0"})
    seeded = "var/lib/cloud/seed/nocloud/meta-data"
    make_tree(tmp_path / "roots/pi1", {seeded: "instance-id: pi1-1\n"})
    done = make.clone(ordered(tmp_path, serial="", planned=False, name="pi2"), other, print)
    assert (done.source, done.user, done.packages, done.sha256) == ("pi1", "me", {"rpinfs": "0.1.0"}, "")
    assert (done.board, done.boot) == ("", str(tmp_path / "tftp/pi2"))
    assert Path(done.root, seeded).read_text().startswith("instance-id: pi2-")
    link = f"ln -s pi2 {tmp_path}/tftp/SERIAL"
    assert done.left == [
        f"its serial number is not known (rpinfs netboot watch shows it): {link}", NO_DOCKER, EXPORTS,
    ]  # fmt: skip
    for gone in (other.root, other.boot):
        os.rename(gone, f"{gone}.away")
        with pytest.raises(RpinfsError, match=f"{gone}: expected a folder of pi1, found none"):
            make.clone(ordered(tmp_path, serial="", planned=False, name="pi3"), other, print)
        os.rename(f"{gone}.away", gone)


@pytest.mark.root
@pytest.mark.parametrize(("files", "without", "said"), [
    ({}, "etc", "expected a root with the folders /etc and /usr, found none"),
    ({}, "usr", "expected a root with the folders /etc and /usr, found none"),
    ({"usr": Path("etc")}, "usr", "expected a root with the folders /etc and /usr, found none"),
    ({}, "boot/firmware/", "boot/firmware: expected a folder with boot files (config.txt, cmdline.txt), found none"),
    ({"etc/systemd": Path("/tmp")}, "x", "in it root/etc/systemd is a symbolic link, expected a folder or file"),
])  # fmt: skip
def test_folders_that_are_no_root(files: dict[str, Content], without: str, said: str, tmp_path: Path) -> None:
    kept = {name: content for name, content in ROOT.items() if not name.startswith(without)}
    if "systemd" in "".join(files):
        kept["usr/sbin/sshd"] = ""
    source = make_tree(tmp_path / "stock", {**kept, **files})
    with pytest.raises(RpinfsError, match=re.escape(said)):
        make.add(ordered(tmp_path), Wanted(str(source)), print)
    assert nothing_left(tmp_path)


@pytest.mark.root
@pytest.mark.parametrize("name", ["cmdline.txt", "config.txt", "start4.elf", "start.elf"])
def test_one_boot_file_is_enough(name: str, tmp_path: Path) -> None:
    source = make_tree(tmp_path / "stock", {"etc": None, "usr": None, "boot": None})
    boot = make_tree(tmp_path / "boot", {name: ""})
    done = make.add(ordered(tmp_path), Wanted(str(source), str(boot)), print)
    no_start = f"neither start4.elf nor start.elf is in {done.boot}: a board does not take the folder for its own"
    assert (no_start in done.left) is ("start" not in name)


@pytest.mark.root
@pytest.mark.parametrize("around", ["stock", "boot"])
def test_an_original_around_the_copy(around: str, tmp_path: Path) -> None:
    make_tree(tmp_path / "stock", {"etc": None, "usr": None})
    make_tree(tmp_path / "boot", {"config.txt": ""})
    place = make_tree(tmp_path / around / "inner", {"roots": None})
    with pytest.raises(RpinfsError, match="the new board would be a part of its own original") as caught:
        make.add(ordered(place), Wanted(str(tmp_path / "stock"), str(tmp_path / "boot")), print)
    assert caught.value.remedy == "choose another --root"
    assert nothing_left(place)


def test_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"!<arch>x")
    with pytest.raises(RpinfsError, match=r"x.deb: expected a Debian package, found something else") as caught:
        make.add(ordered(tmp_path), Wanted(str(tmp_path), deb=str(tmp_path / "x.deb")), print)
    assert caught.value.status == 2
    with pytest.raises(RpinfsError, match=r"--boot goes with a folder; an image has its own boot files") as caught:
        make.add(ordered(tmp_path), Wanted(str(tmp_path / "x.deb"), boot=str(tmp_path)), print)
    assert caught.value.status == 2
    (tmp_path / "good.deb").write_bytes(b"!<arch>\ndebian-binary")
    make._refuse_early(Wanted(str(tmp_path), deb=str(tmp_path / "good.deb"), boot=str(tmp_path)))
    with pytest.raises(FileNotFoundError):
        make.add(ordered(tmp_path), Wanted(str(tmp_path), deb=str(tmp_path / "none.deb")), print)
    assert nothing_left(tmp_path)


@pytest.mark.root
def test_an_interrupted_one_is_completed_by_the_same_words_alone(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "stock", {**ROOT, "usr/bin/rpi-preseed": ""})
    mine = ordered(tmp_path)

    def stopped(_: object, done: record.Record) -> record.Record:
        record.write(str(tmp_path / "roots"), replace(done, staged=made_digits(tmp_path)))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(staging, "publish", stopped)
        make.add(mine, Wanted(str(source), user=User("me", ("ssh-rsa A",)), docker=False), print)
    for other in (
        Wanted(str(source)), Wanted(str(source), user=User("you", ("ssh-rsa A",))), Wanted(str(source),
        user=User("me", ("ssh-rsa B",))), Wanted(str(source), user=User("me", ("ssh-rsa A",)), docker=True),
        Wanted(str(source), boot=str(source / "boot/firmware"), user=User("me", ("ssh-rsa A",))),
    ):  # fmt: skip
        with pytest.raises(RpinfsError, match="an interrupted attempt has made it whole, of something else"):
            make.add(mine, other, print)
    told: list[str] = []
    done = make.add(mine, Wanted(str(source), user=User("me", ("ssh-rsa A",))), told.append)
    assert told == ["pi1 was whole but for its names"]
    assert done.did[-1] == "completed what an interrupted attempt had made"
    with pytest.raises(RpinfsError, match="there is a board of this name already"):
        make.add(mine, Wanted(str(source)), print)


def made_digits(here: Path) -> str:
    (found,) = [name for name in os.listdir(here / "roots") if ".rpinfs-new-" in name]
    return found.rpartition("-")[2]


@pytest.mark.parametrize(("board", "serial", "planned", "there", "packages", "left"), [
    ("3B+", "a1b2c3d4", True, {}, {"rpinfs": "1"}, ["no docker", "bootcode", "no start", "exports"]),
    ("3B", "a1b2c3d4", True, {"root/usr/bin/dockerd": "", "tftp/bootcode.bin": ""}, {},
     ["no rpinfs", "no start", "exports"]),
    ("4", "", True, {"root/usr/share/rpinfs": None, "root/usr/sbin/dockerd": "", "boot/start.elf": ""}, {},
     ["serial", "eeprom", "exports"]),
    ("5", "a1b2c3d4", True, {"boot/start4.elf": Path("x")}, {"rpinfs": "1"},
     ["no docker", "no start", "eeprom", "exports"]),
    ("3B", "a1b2c3d4", False, {"boot/start.elf": ""}, {"docker.io": "1"}, ["no rpinfs", "no docker", "exports"]),
])  # fmt: skip
def test_what_is_left_to_a_person(
    board: str, serial: str, planned: bool, there: dict[str, Content], packages: dict[str, str], left: list[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    mine = ordered(tmp_path, board, serial, planned)
    make_tree(tmp_path, {"root": None, "boot": None, **there})
    folder = mine.place.folder
    said = {
        "serial": f"its serial number is not known (rpinfs netboot watch shows it): ln -s {folder} {tmp_path}/tftp/SER"
        "IAL",
        "no rpinfs": NO_RPINFS, "no docker": NO_DOCKER, "eeprom": EEPROM, "exports": EXPORTS,
        "no start": f"neither start4.elf nor start.elf is in {mine.place.boot}: a board does not take the folder for"
        " its own",
        "bootcode": f"a {board} asks for bootcode.bin at the top of the TFTP folder: cp {tmp_path}/tftp/{folder}/bootco"
        f"de.bin {tmp_path}/tftp",
    }  # fmt: skip
    trees = Tree(str(tmp_path / "root")), Tree(str(tmp_path / "boot"))
    assert make._left(mine, *trees, packages) == [said[word] for word in left]


@pytest.mark.parametrize(("text", "system"), [
    ("", ""), ("PRETTY_NAME=\"A 'b'\"\n", "A 'b"), ("X_PRETTY_NAME=a\n", ""), ("PRETTY_NAME=a=b\n", "a=b"),
    (f"PRETTY_NAME={'x' * 101}\n", "x" * 100),
])  # fmt: skip
def test_what_it_calls_itself(text: str, system: str, tmp_path: Path) -> None:
    assert make._system(Tree(str(make_tree(tmp_path, {"usr/lib/os-release": text})))) == system


def test_root_alone_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    make.insist_on_root("add")
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    with pytest.raises(RpinfsError, match="netboot add: expected root") as caught:
        make.insist_on_root("add")
    assert caught.value.remedy == "sudo rpinfs netboot add ..."


def test_a_folder_in_the_way_is_the_images_fault() -> None:
    for path, said in (
        ("/roots/.pi1.rpinfs-new-0123/root/etc", "root/etc"), ("/elsewhere/etc", "/elsewhere/etc"),
    ):  # fmt: skip
        with pytest.raises(RpinfsError) as caught, make._readable("/i.img"):
            raise OddFileError(path, "a folder", "a file")
        assert caught.value.message == f"/i.img: in it {said} is a file, expected a folder or file"
