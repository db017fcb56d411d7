"""The first user of a board: what is asked for, how each kind of image takes it, and what of an image is refused."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from rpinfs.errors import RpinfsError
from rpinfs.netboot.add import user
from rpinfs.netboot.add.programs import Image
from rpinfs.netboot.add.tree import Tree
from rpinfs.system.run import Completed
from tests.support import Content, make_tree

KEY = "ssh-ed25519 AAAAC3 me@here"
ME = user.User("me", (KEY,))
PASSWD = "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1001:,,,:/home/pi:/bin/bash\n"


class Recording(Image):
    """An image that only remembers what would be run in it: useradd of a real one is in tools/netboot."""

    def __init__(self, root: Tree, adds: str = "") -> None:
        super().__init__(root, "", "boot")
        self.ran: list[tuple[str, ...]] = []
        self._adds = adds

    def run(self, *argv: str, deb: str = "", network: bool = False) -> Completed:
        assert (deb, network) == ("", False)
        self.ran.append(argv)
        if argv[0] == "useradd":
            self.root.write("etc/passwd", self.root.read("etc/passwd") + self._adds)
        return Completed(0, "", "")


def trees(tmp_path: Path, files: dict[str, Content]) -> tuple[Tree, Tree]:
    for name in ("root", "boot"):
        (tmp_path / name).mkdir()
    return Tree(str(make_tree(tmp_path / "root", files))), Tree(str(tmp_path / "boot"))


@pytest.mark.parametrize(("name", "fits"), [
    ("a", True), ("a" * 32, True), ("a" * 33, False), ("a-1", True), ("", False), ("1a", False), ("A", False),
    ("a_b", False), ("root", False), ("roots", True), ("a\n", False), ("a:b", False),
])  # fmt: skip
def test_names(name: str, fits: bool) -> None:
    if fits:
        assert user.user_of(name, "") == user.User(name)
    else:
        with pytest.raises(RpinfsError, match=r"^--user .*expected a name of lower-case letters") as caught:
            user.user_of(name, "")
        assert caught.value.status == 2


@pytest.mark.parametrize(("text", "keys"), [
    (f"{KEY}\n", (KEY,)),
    (f"# mine\n\n  {KEY}  \nsk-ssh-ed25519@openssh.com AAAA\necdsa-sha2-nistp256 AAAA b\n",
     (KEY, "sk-ssh-ed25519@openssh.com AAAA", "ecdsa-sha2-nistp256 AAAA b")),
    ("sk-ecdsa-sha2-nistp256@openssh.com AAAA", ("sk-ecdsa-sha2-nistp256@openssh.com AAAA",)),
])  # fmt: skip
def test_keys(text: str, keys: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(text)
    assert user.user_of("me", str(tmp_path / "key.pub")).keys == keys


@pytest.mark.parametrize(("text", "found"), [
    ("", "something else"), ("# only this\n", "something else"), ("ssh-ed25519\n", "something else"),
    (f"{KEY}\nrubbish here\n", "something else"), ("ssh-ed25519 AA\x07AA\n", "something else"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "a private one, which nobody else may have"),
])  # fmt: skip
def test_files_without_public_keys(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(RpinfsError, match=f"{tmp_path}/key: expected a public ssh key, found {found}$") as caught:
        user.user_of("me", str(tmp_path / "key"))
    assert (caught.value.status, caught.value.remedy) == (2, "a public one ends in .pub")


@pytest.mark.parametrize(("there", "way"), [
    ((), "useradd"), (("usr/bin/cloud-init",), "cloud-init"), (("usr/lib/userconf-pi/userconf",), "userconf"),
    (("usr/lib/userconf-pi/userconf", "usr/bin/cloud-init"), "cloud-init"),
    (("usr/bin/rpi-preseed", "usr/bin/cloud-init", "usr/lib/userconf-pi/userconf"), "rpi-preseed"),
])  # fmt: skip
def test_what_an_image_takes(there: tuple[str, ...], way: str, tmp_path: Path) -> None:
    assert user.way_of(trees(tmp_path, dict.fromkeys(there, ""))[0]) == way


@pytest.mark.root
@pytest.mark.parametrize(("program", "boot_files", "more"), [
    ("usr/bin/rpi-preseed", ["rpi-preseed.toml"], []),
    ("usr/bin/cloud-init", ["meta-data", "user-data"],
     [f"var/lib/cloud/seed/nocloud/{name}" for name in ("meta-data", "user-data")]),
    ("usr/lib/userconf-pi/userconf", ["userconf.txt"], ["home/pi/.ssh/authorized_keys"]),
])  # fmt: skip
def test_seeds_in_both_places(program: str, boot_files: list[str], more: list[str], tmp_path: Path) -> None:
    wizard = "usr/lib/systemd/system/userconfig.service"
    root, boot = trees(tmp_path, {
        program: "", wizard: "", "etc/passwd": PASSWD, "boot/firmware": None,
        "usr/lib/systemd/system/ssh.service": "",
    })  # fmt: skip
    image = Recording(root)
    way = user.way_of(root)
    assert user.seed(ME, root, boot, image, "pi1", "0f0f") == [
        f"user me: by {way}, 1 ssh key, no password", "ssh: starts at boot",
    ]  # fmt: skip
    assert image.ran == []
    assert sorted(os.listdir(boot.top)) == boot_files
    for name in boot_files:
        assert root.read(f"boot/firmware/{name}") == boot.read(name) != ""
    for name in more:
        assert stat.S_IMODE(os.stat(root.path(name)).st_mode) == 0o600
    masked = os.path.lexists(root.path("etc/systemd/system/userconfig.service"))
    assert masked is (way != "userconf"), "userconf is what asks and what makes the user"
    assert not root.has("var/lib/cloud/seed/nocloud") or "cloud" in program
    assert way != "cloud-init" or boot.read("meta-data") == "instance-id: pi1-0f0f\nlocal-hostname: pi1\n"
    assert way != "userconf" or boot.read("userconf.txt") == "me:*\n"


@pytest.mark.root
@pytest.mark.parametrize(("keys", "service", "said"), [
    ((), True, ["user me: by rpi-preseed, 0 ssh keys, no password"]),
    ((KEY, KEY), False, ["user me: by rpi-preseed, 2 ssh keys, no password"]),
])  # fmt: skip
def test_ssh_starts_for_who_has_a_key(keys: tuple[str, ...], service: bool, said: list[str], tmp_path: Path) -> None:
    files: dict[str, Content] = {"usr/lib/systemd/system/ssh.service": ""} if service else {}
    root, boot = trees(tmp_path, {"usr/bin/rpi-preseed": "", **files})
    assert user.seed(user.User("me", keys), root, boot, Recording(root), "pi1", "0") == said
    assert not root.has("etc/systemd/system/multi-user.target.wants")


@pytest.mark.root
def test_nobody(tmp_path: Path) -> None:
    root, boot = trees(tmp_path, {"usr/lib/systemd/system/userconfig.service": ""})
    said = user.seed(None, root, boot, Recording(root), "pi1", "0")
    assert said == ["switched off: the question for a user (userconfig)"]
    assert os.listdir(boot.top) == []


@pytest.mark.root
@pytest.mark.parametrize("there", [False, True])
def test_a_plain_debian(there: bool, tmp_path: Path) -> None:
    mine = "me:x:1007:1008::/home/me:/bin/bash\n"
    root, boot = trees(tmp_path, {
        "etc/passwd": PASSWD + (f"{mine}me:short\n" if there else ""), "etc/sudoers.d": None,
        "etc/group": "sudo:x:27:\nspi:x:1:\nother:x:2:\nadm:x:4:\n",
    })  # fmt: skip
    image = Recording(root, mine)
    assert user.seed(ME, root, boot, image, "pi1", "0") == ["user me: by useradd, 1 ssh key, no password"]
    assert image.ran[0] == ("true",)
    groups = ("--groups", "sudo,adm,spi", "me")
    expected = ("usermod", "--append") if there else ("useradd", "--create-home", "--shell", "/bin/bash")
    assert image.ran[1:] == [(*expected, *groups)]
    sudoers = root.path("etc/sudoers.d/010-me")
    assert (root.read("etc/sudoers.d/010-me"), stat.S_IMODE(os.stat(sudoers).st_mode)) == (
        "me ALL=(ALL) NOPASSWD:ALL\n", 0o440,
    )  # fmt: skip
    keys = os.stat(root.path("home/me/.ssh/authorized_keys"))
    assert (keys.st_uid, keys.st_gid, stat.S_IMODE(keys.st_mode)) == (1007, 1008, 0o600)
    assert stat.S_IMODE(os.stat(root.path("home/me/.ssh")).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(root.path("home/me")).st_mode) == 0o755
    assert root.read("home/me/.ssh/authorized_keys") == f"{KEY}\n"
    assert not root.has("home/pi")


@pytest.mark.root
def test_sudo_is_not_everywhere(tmp_path: Path) -> None:
    root, boot = trees(tmp_path, {"etc/passwd": PASSWD, "etc/group": ""})
    user.seed(user.User("pi"), root, boot, Recording(root), "pi1", "0")
    assert not root.has("etc/sudoers.d")
    assert not root.has("home/pi"), "without a key nothing is to be written there"


@pytest.mark.root
def test_userconf_takes_the_one_with_uid_1000(tmp_path: Path) -> None:
    passwd = "a:x:1000:1000:six:fields\nb:x:10000:1:,,,:/home/b:/bin/sh\nc:x:1000:1001:,,,:/home/c:/bin/sh\n"
    root, boot = trees(tmp_path, {"usr/lib/userconf-pi/userconf": "", "etc/passwd": passwd, "home/c": None})
    os.chmod(root.path("home/c"), 0o750)
    user.seed(ME, root, boot, Recording(root), "pi1", "0")
    assert os.listdir(root.path("home")) == ["c"]
    assert stat.S_IMODE(os.stat(root.path("home/c")).st_mode) == 0o750, "a home that is there stays as it is"
    root.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    with pytest.raises(RpinfsError, match="expected one with uid 1000 in the image, as userconf does, found none"):
        user.seed(ME, root, boot, Recording(root), "pi1", "0")


@pytest.mark.root
@pytest.mark.parametrize(("numbers", "home", "said"), [
    ("1:4294967295", "/h", "expected numbers of a user and a group in the image, found '1:4294967295'"),
    ("4294967295:1", "/h", "found '4294967295:1'"),
    ("1:-1", "/h", "found '1:-1'"), ("1:", "/h", "found '1:'"), ("1:\u0661", "/h", "found '1:\u0661'"),
    ("1:12345678901", "/h", "found '1:12345678901'"),
    ("1:1", "/", "expected a home in the image, found '/'"), ("1:1", "", "found ''"),
    ("1:1", "/home/../etc", "found '/home/../etc'"), ("1:1", "/h\0", "found '/h"),
    ("4294967294:4294967294", "/home/..me/", ""),
])  # fmt: skip
def test_what_an_image_says_of_a_user(numbers: str, home: str, said: str, tmp_path: Path) -> None:
    root, boot = trees(tmp_path, {"etc/passwd": f"me:x:{numbers}::{home}:/bin/sh\n", "etc/group": ""})
    if said:
        with pytest.raises(RpinfsError, match=f"^user me: .*{re.escape(said)}"):
            user.seed(ME, root, boot, Recording(root), "pi1", "0")
        return
    user.seed(ME, root, boot, Recording(root), "pi1", "0")
    assert os.stat(root.path("home/..me/.ssh/authorized_keys")).st_uid == 4294967294


@pytest.mark.root
def test_a_clone_is_another_instance(tmp_path: Path) -> None:
    root, boot = trees(tmp_path, {"boot": None})
    user.anew(root, boot, "pi2", "1e1e")
    for tree, name in ((boot, "meta-data"), (root, "boot/meta-data"), (root, "var/lib/cloud/seed/nocloud/meta-data")):
        assert tree.read(name) == "instance-id: pi2-1e1e\nlocal-hostname: pi2\n"
    assert stat.S_IMODE(os.stat(root.path("var/lib/cloud/seed/nocloud/meta-data")).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(boot.path("meta-data")).st_mode) == 0o644


@pytest.mark.root
def test_every_seed_gets_the_name(tmp_path: Path) -> None:
    line = "hostname: old\n"
    seeds = ("user-data", "meta-data", "rpi-preseed.toml", "custom.toml")
    renamed = [
        *(f"boot/firmware/{name}" for name in seeds), *(f"var/lib/cloud/seed/nocloud/{name}" for name in seeds),
        "etc/cloud/cloud.cfg", "etc/cloud/cloud.cfg.d/90_x.cfg",
    ]  # fmt: skip
    kept = ["etc/cloud/cloud.cfg.d/90_x.cfg.old", "boot/firmware/other", "etc/cloud/other.cfg"]
    root, boot = trees(tmp_path, dict.fromkeys([*renamed, *kept], line))
    make_tree(Path(boot.top), dict.fromkeys([*seeds, "other"], line))
    os.utime(root.path("etc/cloud/cloud.cfg"), (1, 1))
    user.rename(root, boot, "pi2")
    for tree, names, said in (
        (root, renamed, 'hostname: "pi2"\n'), (root, kept, line), (boot, seeds, 'hostname: "pi2"\n'),
        (boot, ["other"], line),
    ):  # fmt: skip
        assert {name: tree.read(name) for name in names} == dict.fromkeys(names, said)
    modes = [stat.S_IMODE(os.stat(root.path(name)).st_mode) for name in (renamed[0], renamed[4])]
    assert modes == [0o644, 0o600]
    inodes = [os.stat(root.path(name)).st_ino for name in renamed]
    user.rename(root, boot, "pi2")
    assert [os.stat(root.path(name)).st_ino for name in renamed] == inodes, "what says it already is not written"


@pytest.mark.root
def test_no_folder_of_cloud_init(tmp_path: Path) -> None:
    make_tree(tmp_path / "mine", {"x.cfg": "hostname: old\n"})
    root, boot = trees(tmp_path, {"etc/cloud/cloud.cfg.d": tmp_path / "mine"})
    user.rename(root, boot, "pi2")
    assert (tmp_path / "mine/x.cfg").read_text() == "hostname: old\n"
