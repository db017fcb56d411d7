"""`rpinfs netboot add`, `clone`, `list` on images as a card has them: what is kept, what is new, what is refused."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rpinfs.netboot.add import partitions, unpack
from rpinfs.system.run import silent
from tests.lab.machine import native_machine
from tests.lab.root import base_root, quiet
from tests.package.conftest import make_deb
from tests.support import PYTHON, TOP, Content, listing, make_tree
from tests.tools.conftest import Mount, Traced, command
from tests.tools.crash import kill_at, some
from tests.tools.image.files import XFS_SIZE, sparse
from tests.tools.netboot.stock import BOOT, BOOT_START, SECTOR, make_image, make_root, stock_image

pytestmark = pytest.mark.root

PLACE = ("--server", "192.168.1.10", "--root", "roots", "--tftp", "tftp")
MAIN = (
    f"import sys; sys.path.insert(0, {str(TOP)!r}); from rpinfs.commands.cli import main; sys.exit(main(sys.argv[1:]))"
)
PI1 = ("--name", "pi1", "--serial", "10000000A1B2C3D4", "--board", "4")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stock_image(tmp_path_factory.mktemp("stock"))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("roots", "tftp"):
        (tmp_path / name).mkdir()
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key")
    return tmp_path


def run(here: Path, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """With rpinfs of this tree, whatever the folder."""
    return subprocess.run(
        [*PYTHON, "-c", MAIN, "netboot", *(str(word) for word in words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=here,
        env={"PATH": os.environ["PATH"], **env},
    )


def add(here: Path, source: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run(here, "add", source, *PLACE, *(words or PI1), **env)


def refused(here: Path, done: subprocess.CompletedProcess[str], *said: str) -> None:
    """One line and at most one more with what to do, and nothing is left of it."""
    assert done.returncode in (1, 2), done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, done.stderr
    assert all(line.startswith("rpinfs: ") for line in lines), done.stderr
    for word in said:
        assert word in done.stderr
    assert done.stdout == ""
    assert nothing_left(here)


def nothing_left(here: Path) -> bool:
    return sorted(os.listdir(here / "roots")) == [] and sorted(os.listdir(here / "tftp")) == []


def test_what_a_copy_keeps(image: Path, here: Path) -> None:
    done = add(here, image, *PI1, "--user", "me", "--ssh-key", "key.pub")
    assert (done.returncode, done.stderr) == (0, "")
    root, stock = here / "roots/pi1", image.parent / "stock-root"
    assert (root / "usr/bin/sudo").stat().st_mode == stat.S_IFREG | 0o4755
    assert os.path.samefile(root / "usr/bin/sudo", root / "usr/bin/sudoedit")
    assert command("getcap", root / "usr/bin/ping").split()[-1] == "cap_net_raw=ep"
    acls = [command("getfacl", "--omit-header", "--absolute-names", one / "var/log/journal") for one in (root, stock)]
    assert "default:group:adm:r-x" in acls[0]
    assert acls[0] == acls[1]
    assert (root / "var/lib/sparse").read_bytes() == (stock / "var/lib/sparse").read_bytes()
    assert (root / "var/lib/sparse").stat().st_blocks * 512 < 1 << 20
    assert stat.S_ISFIFO((root / "var/lib/pipe").lstat().st_mode)
    assert stat.S_ISSOCK((root / "var/lib/socket").lstat().st_mode)
    assert ((root / "var/lib/null").lstat().st_rdev, (root / "home/pi").stat().st_uid) == (os.makedev(1, 3), 1000)
    assert (root / "usr/bin/ping").stat().st_mtime == 1_500_000_000
    assert (root / "a name with 'quotes'\nand a newline").read_text() == "odd"
    for name, content in BOOT.items():
        if name not in ("cmdline.txt", "config.txt"):
            expected = content.encode() if isinstance(content, str) else content
            assert (here / "tftp/a1b2c3d4" / name).read_bytes() == expected
    assert "capabilities of 1 file (usr/bin/ping) are not seen by a Pi over NFS 4.1" in done.stdout
    assert "\r" not in done.stdout + done.stderr


def test_what_is_new(image: Path, here: Path) -> None:
    done = add(here, image, *PI1, "--user", "me", "--ssh-key", "key.pub")
    assert (done.returncode, done.stderr) == (0, "")
    root, boot = here / "roots/pi1", here / "tftp/a1b2c3d4"
    assert (root / "etc/hostname").read_text() == "pi1\n"
    assert (root / "etc/hosts").read_text() == "127.0.0.1\tlocalhost\n127.0.1.1\tpi1\n"
    assert (root / "etc/machine-id").read_bytes() == b""
    assert not (root / "var/lib/systemd/random-seed").exists()
    keys = sorted(path.name for path in (root / "etc/ssh").glob("ssh_host_*"))
    assert keys == [f"ssh_host_{kind}_key{end}" for kind in ("ecdsa", "ed25519", "rsa") for end in ("", ".pub")]
    assert (root / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    shown = command("ssh-keygen", "-l", "-f", root / "etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    assert f"ED25519 {shown}" in done.stdout
    cmdline = (
        f"console=serial0,115200 console=tty1 rootwait root=/dev/nfs nfsroot=192.168.1.10:{root},vers=4.1,proto=tcp"
    )
    assert (boot / "cmdline.txt").read_text() == f"{cmdline} rw ip=dhcp\n"
    assert (boot / "config.txt").read_text().splitlines()[-1] == "auto_initramfs=0"
    assert "BOOT_ORDER=0xf2" in (boot / "boot.conf").read_text()
    fstab = [line.split()[:3] for line in (root / "etc/fstab").read_text().splitlines() if not line.startswith("#")]
    assert fstab == [["proc", "/proc", "proc"], [f"192.168.1.10:{boot}", "/boot/firmware", "nfs"]]
    assert not (root / "etc/systemd/system/multi-user.target.wants/rpi-resize.service").is_symlink()
    assert (root / "etc/systemd/system/rpi-resize.service").readlink() == Path("/dev/null")
    assert "Mechanism=none" in (root / "etc/rpi/swap.conf.d/50-rpinfs.conf").read_text()
    assert "switched off: rpi-resize.service, rpi-swap\n" in done.stdout
    assert (boot / "userconf.txt").read_text() == (root / "boot/firmware/userconf.txt").read_text() == "me:*\n"
    authorized = root / "home/pi/.ssh/authorized_keys"
    assert (authorized.read_text(), authorized.stat().st_uid) == ((here / "key.pub").read_text(), 1000)
    assert not [path for path in boot.rglob("*") if not path.stat().st_mode & 0o004]
    found = run(here, "check", "tftp", "roots")
    assert [line for line in found.stdout.splitlines() if "lib/modules" not in line] == [
        "nothing is wrong in tftp, roots"
    ]


@pytest.mark.parametrize("kind", ["xz", "zst", "gpt"])
def test_images_of_each_kind(kind: str, image: Path, here: Path) -> None:
    source = here / "i.img"
    if kind == "gpt":
        source = make_image(here / "i.img", image.parent / "stock-root", image.parent / "stock-boot", "gpt")
    else:
        source = here / f"i.img.{kind}"
        argv = ("xz", "-0", "-T2", "--stdout") if kind == "xz" else ("zstd", "-q", "--stdout")
        with source.open("wb") as file:
            subprocess.run([*argv, image], stdout=file, check=True)
    done = add(here, source)
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / "roots/pi1/usr/bin/ping").read_text() == "ping"
    record = json.loads((here / "roots/.pi1.rpinfs-board").read_text())
    assert record["sha256"] == command("sha256sum", source).split()[0]
    assert (record["source"], record["system"]) == (source.name, "Debian GNU/Linux 13 (trixie)")


def test_a_root_and_boot_folder(here: Path) -> None:
    root = make_root(here / "that", {f"boot/firmware/{name}": content for name, content in BOOT.items()})
    done = add(here, root)
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / "tftp/a1b2c3d4/kernel8.img").exists()
    assert (root / "etc/hostname").read_text() == "raspberrypi\n"


def test_a_second_one_is_refused(image: Path, here: Path) -> None:
    assert add(here, image).returncode == 0
    before = command("find", here / "roots", here / "tftp", "-mindepth", "1", "-printf", "%p %T@ %i\n")
    done = add(here, image)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is a board of this name already" in done.stderr
    done = add(here, image, "--name", "pi2", "--serial", "a1b2c3d4")
    assert (done.returncode, done.stdout) == (1, "")
    assert "tftp/a1b2c3d4: is there already" in done.stderr
    assert command("find", here / "roots", here / "tftp", "-mindepth", "1", "-printf", "%p %T@ %i\n") == before


def test_clone_and_list(image: Path, here: Path) -> None:
    assert add(here, image, *PI1, "--user", "me", "--ssh-key", "key.pub").returncode == 0
    make_tree(here / "roots/pi1", {"var/lib/rpinfs/docker": "memory", "etc/machine-id": "1" * 32})
    done = run(here, "clone", "pi1", "pi2", "--serial", "5e6f7a8b", *PLACE)
    assert (done.returncode, done.stderr) == (0, "")
    one, two = here / "roots/pi1", here / "roots/pi2"
    assert (two / "etc/hostname").read_text() == "pi2\n"
    assert (two / "etc/machine-id").read_bytes() == b""
    assert not (two / "var/lib/rpinfs/docker").exists()
    keys = [(root / "etc/ssh/ssh_host_ed25519_key").read_text() for root in (one, two)]
    assert keys[0] != keys[1]
    words = (here / "tftp/5e6f7a8b/cmdline.txt").read_text().split()
    assert f"nfsroot=192.168.1.10:{two},vers=4.1,proto=tcp" in words
    assert words.count("rw") == 1
    assert (here / "tftp/5e6f7a8b/config.txt").read_text().count("auto_initramfs=0") == 1
    assert "host name" not in run(here, "check", "roots", "tftp").stdout
    share = make_tree(here / "share", {
        f".docker-{serial}.img.rpinfs-owner": json.dumps({
            "version": 1, "serial": serial, "hostname": host, "machine_id": "", "boot_id": "", "since": 1_700_000_000,
        })
        for serial, host in (("1000000000a1b2c3", "pi1"), ("100000005e6f7a8b", "pi2"))
    })  # fmt: skip
    (share / ".docker-100000005e6f7a8b.img.rpinfs-lock").touch()
    done = run(here, "list", "--root", "roots", "--share", "share", "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert [(row["name"], len(row["images"]), bool(row["record"])) for row in found] == [
        ("pi1", 0, True), ("pi1", 1, False), ("pi2", 1, True),
    ]  # fmt: skip
    assert found[2]["record"]["source"] == "pi1"
    text = run(here, "list", "--root", "roots", "--share", "share").stdout
    assert "share/docker-100000005e6f7a8b.img" in text
    assert "netboot add has not made it" in text


LARGE = 24 << 20
"""Bytes of a file of which there is room for one, and not for two."""


@pytest.mark.parametrize(
    ("make", "shares"),
    [
        (("mkfs.xfs", "-q", "-m", "reflink=1"), True),
        (("mkfs.btrfs", "-q", "--mixed"), True),
        (("mkfs.xfs", "-q", "-m", "reflink=0"), False),
        (("mkfs.ext4", "-q"), False),
    ],
    ids=["xfs", "btrfs", "xfs without", "ext4"],
)
def test_a_clone_shares_its_blocks_where_it_can(
    make: tuple[str, ...], shares: bool, here: Path, mounted: Mount
) -> None:
    """By the kernel's word for each file, and by the room that it takes; what is changed is changed in one of both."""
    disk = sparse(here / "disk", XFS_SIZE)
    command(*make, disk)
    with mounted("-o", "loop", disk) as there:
        (there / "tftp").mkdir()
        place = (*PLACE[:2], "--root", there / "roots", "--tftp", there / "tftp")
        if "btrfs" in make[0]:
            command("btrfs", "subvolume", "create", there / "roots")
        (there / "roots").mkdir(exist_ok=True)
        made = make_root(here / "that", {f"boot/firmware/{name}": content for name, content in BOOT.items()})
        (made / "usr/large").write_bytes(os.urandom(LARGE))
        assert run(here, "add", made, *PI1, *place).returncode == 0
        if "btrfs" in make[0]:
            # Each shared folder of a Synology is a subvolume, and its device has a number of its own.
            command("btrfs", "subvolume", "create", there / "roots/new")
            command("cp", "--archive", "--reflink=always", "-T", there / "roots/pi1", there / "roots/new")
            shutil.rmtree(there / "roots/pi1")
            (there / "roots/new").rename(there / "roots/pi1")
        before = used(there)
        done = run(here, "clone", "pi1", "pi2", "--serial", "5e6f7a8b", *place)
        assert (done.returncode, done.stderr) == (0, "")
        large = there / "roots/pi2/usr/large"
        assert large.read_bytes() == (made / "usr/large").read_bytes()
        assert ("shared" in command("filefrag", "-v", large)) is shares
        assert ("shared with the original until one of both changes" in done.stdout) is shares
        assert (used(there) - before < LARGE) is shares
        with large.open("r+b") as file:
            file.write(b"changed")
        assert (there / "roots/pi1/usr/large").read_bytes() == (made / "usr/large").read_bytes()


def used(folder: Path) -> int:
    """Bytes that are taken on a file system."""
    command("sync", "--file-system", folder)
    there = os.statvfs(folder)
    return (there.f_blocks - there.f_bfree) * there.f_frsize


FAT = BOOT_START * SECTOR
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no image": (lambda path: path.write_bytes(b"text" * 10_000), "expected an image of a disk"),
    "empty": (lambda path: path.write_bytes(b""), "expected an image of a disk"),
    "cut off": (lambda path: os.truncate(path, 60 << 20), "it is cut off"),
    "cut in its table": (lambda path: os.truncate(path, 300), "expected an image of a disk"),
    "no root": (lambda path: overwrite(path, FAT + (36 << 20) + 1024, bytes(1024)), "expected a root partition (ext4)"),
    "no boot files": (lambda path: overwrite(path, FAT, bytes(512)), "expected a partition with the boot"),
    "broken FAT": (lambda path: overwrite(path, FAT + 11, b"\xff" * 30), "cannot be read"),
    "sectors of 4096 bytes": (
        lambda path: overwrite(path, 0, table_of(0x0C, FAT // 4096, 1024)),
        "for sectors of 512 bytes, found one for 4096",
    ),
    "GPT for sectors of 4096 bytes": (
        lambda path: overwrite(path, 0, table_of(0xEE, 1, 100) + b"EFI PART".rjust(4096 - 512 + 8, b"\0")),
        "for sectors of 512 bytes, found one for 4096",
    ),
    "gzip": (lambda path: overwrite(path, 0, b"\x1f\x8b\x08"), "found gzip"),
}  # fmt: skip


def table_of(kind: int, start: int, size: int) -> bytes:
    """An MBR with one partition."""
    entry = struct.pack("<8B2I", 0, 0, 0, 0, kind, 0, 0, 0, start, size)
    return bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa"


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("bad", BAD, ids=BAD)
def test_bad_images(bad: str, image: Path, here: Path) -> None:
    spoil, said = BAD[bad]
    path = here / "i.img"
    shutil.copyfile(image, path)
    spoil(path)
    refused(here, add(here, path), said)


def test_names_that_are_links(image: Path, here: Path) -> None:
    """To an image and to the folders, which are who types the names; a device is no image, and is named."""
    (here / "link.img").symlink_to(image)
    for name in ("roots", "tftp"):
        (here / f"link-{name}").symlink_to(here / name)
    links = ("--server", "192.168.1.10", "--root", "link-roots", "--tftp", "link-tftp")
    done = run(here, "add", "link.img", *links, *PI1)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"root=192.168.1.10:{here}/roots/pi1, NFS 4.1" in done.stdout
    done = run(here, "add", "/dev/zero", *links, "--name", "pi2")
    assert done.stderr == "rpinfs: /dev/zero: expected a regular file, found something else\n"


@pytest.mark.parametrize("kind", ["xz", "zst"])
@pytest.mark.parametrize("how", ["cut", "changed"])
def test_broken_compression(kind: str, how: str, image: Path, here: Path) -> None:
    source = here / f"i.img.{kind}"
    argv = ("xz", "-0", "--stdout") if kind == "xz" else ("zstd", "-q", "--check", "--stdout")
    with source.open("wb") as file:
        subprocess.run([*argv, image], stdout=file, check=True)
    size = source.stat().st_size
    os.truncate(source, size // 2) if how == "cut" else overwrite(source, size // 2, b"\xff" * 64)
    refused(here, add(here, source), "i.img")


def test_a_checksum_beside_it(image: Path, here: Path) -> None:
    shutil.copyfile(image, here / "i.img")
    (here / "i.img.sha256").write_text(f"{'0' * 64}  i.img\n")
    refused(here, add(here, here / "i.img"), "expected the checksum")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--name", "PI 1"), "expected a host name"),
        (("--name", "../x"), "expected a host name"),
        (("--name", "pi1", "--serial", "0000000000000000"), "this one says nothing"),
        (("--name", "pi1", "--serial", "xyz"), "expected eight hexadecimal digits"),
        (("--name", "pi1", "--mac", "dc:a6:32"), "expected a MAC address"),
        (("--name", "pi1", "--board", "9"), "expected one of 3B"),
        (("--name", "pi1", "--user", "root"), "and not root"),
        (("--name", "pi1", "--user", "me", "--ssh-key", "key"), "a private one"),
        (("--name", "pi1", "--ssh-key", "key.pub"), "--user is missing"),
        (("--name", "pi1", "--deb", "key.pub"), "expected a Debian package"),
        (("--name", "pi1", "--server", "nas.local"), "expected an IPv4 address"),
    ],
)
def test_bad_words(words: tuple[str, ...], said: str, image: Path, here: Path) -> None:
    refused(here, add(here, image, *words), said)


def test_links_that_lead_out(here: Path) -> None:
    """The image's /etc is this machine's: it is no root, and nothing here is touched."""
    outside = make_tree(here / "outside", {"hostname": "mine\n", "fstab": "mine\n", "machine-id": "mine\n"})
    for number, (path, said) in enumerate(
        (("etc", "expected a root"), ("etc/systemd", "etc/systemd is a symbolic link"))
    ):
        folder = here / str(number)
        root = make_root(folder / "stock-root")
        shutil.rmtree(root / path)
        (root / path).symlink_to(outside)
        made = make_image(folder / "i.img", root, make_tree(folder / "stock-boot", BOOT))
        refused(here, add(here, made), said)
    root = make_root(here / "files/stock-root")
    for name in ("hostname", "fstab", "machine-id"):
        (root / "etc" / name).unlink()
        (root / "etc" / name).symlink_to(outside / name)
    made = make_image(here / "files/i.img", root, make_tree(here / "files/stock-boot", BOOT))
    assert add(here, made).returncode == 0
    assert (here / "roots/pi1/etc/hostname").read_text() == "pi1\n"
    assert listing(outside) == {"hostname": "mine\n", "fstab": "mine\n", "machine-id": "mine\n"}


def test_devices_under_our_names(here: Path) -> None:
    root = make_root(here / "stock-root", without=("etc/hostname", "etc/fstab", "etc/machine-id"))
    os.mkfifo(root / "etc/hostname")
    os.mknod(root / "etc/fstab", 0o20666, os.makedev(1, 7))
    os.link(root / "usr/bin/ping", root / "etc/machine-id")
    made = make_image(here / "i.img", root, make_tree(here / "stock-boot", BOOT))
    done = add(here, made)
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / "roots/pi1/etc/fstab").is_file()
    assert (here / "roots/pi1/usr/bin/ping").read_text() == "ping"


def test_a_tftp_folder_that_is_read_only(image: Path, here: Path) -> None:
    command("mount", "--bind", here / "tftp", here / "tftp")
    try:
        command("mount", "-o", "remount,bind,ro", here / "tftp")
        refused(here, add(here, image), "tftp", "Read-only file system")
    finally:
        command("umount", here / "tftp")


def test_no_room(image: Path, here: Path, mounted: Mount) -> None:
    with mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs") as small:
        done = run(here, "add", image, *PI1, "--server", "192.168.1.10", "--root", small, "--tftp", "tftp")
        assert "of free space for the root" in done.stderr
        assert (done.returncode, list(small.iterdir()), list((here / "tftp").iterdir())) == (1, [], [])
    with mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs") as small:
        done = run(here, "add", image, *PI1, "--server", "192.168.1.10", "--root", "roots", "--tftp", small)
        assert "of free space for the boot files" in done.stderr
        assert (done.returncode, list(small.iterdir()), list((here / "roots").iterdir())) == (1, [], [])
    source = here / "i.img.xz"
    with source.open("wb") as file:
        subprocess.run(["xz", "-0", "--stdout", image], stdout=file, check=True)
    with mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs") as small:
        refused(here, add(here, source, TMPDIR=str(small)), "of free space in", "to unpack it")


def test_file_systems_that_cannot(image: Path, here: Path, mounted: Mount) -> None:
    """Without extended attributes a root is made, and it is said what is lost; capabilities and ACLs are."""
    with mounted("-t", "ramfs", "ramfs") as where:
        done = run(here, "add", image, *PI1, "--server", "192.168.1.10", "--root", where, "--tftp", "tftp")
        assert (done.returncode, done.stderr) == (0, "")
        for word in ("capabilities of 1 file (usr/bin/ping)", "ACLs of 1 file (var/log/journal)"):
            assert f"lost: {word} cannot be kept by the file system of" in done.stdout


def test_an_image_that_wants_a_panic(image: Path, here: Path) -> None:
    """What follows on a damage in the image is said by us: the kernel shows the option where the image says another."""
    own = here / "panic.img"
    shutil.copy(image, own)
    with unpack.opened(str(own), silent) as opened:
        part = partitions.layout_of(opened).root
        command("tune2fs", "-e", "panic", f"{own}?offset={part.offset}")
        with partitions.mounted(opened, part, str(here / "where")):
            shown = command("findmnt", "--noheadings", "--output", "OPTIONS", here / "where")
    assert {"ro", "errors=remount-ro"} <= set(shown.strip().split(","))


def test_a_leftover_in_which_something_is_mounted(image: Path, here: Path) -> None:
    """Whatever the folder is called: the kernel's table of mounts has spaces, tabs, # and backslashes as numbers."""
    make_tree(here / "precious", {"all": "I have"})
    (here / "plan").write_text('[network]\nsubnet = "192.168.1.0/24"\n[nas]\naddress = "192.168.1.10"\n')
    for number, name in enumerate(("my roots", "tab\troots", "back\\slash", "#1")):
        inside = here / name / f".pi1.rpinfs-new-{number:016x}/image"
        inside.mkdir(parents=True)
        command("mount", "--bind", here / "precious", inside)
        try:
            done = run(here, "add", image, *PI1, "--plan", "plan", "--root", name, "--tftp", "tftp")
            assert listing(here / "precious") == {"all": "I have"}
        finally:
            command("umount", inside)
        assert done.returncode == 1
        assert "is mounted" in done.stderr


def test_no_room_for_python(here: Path) -> None:
    """What an image may have, and no program should fall over: folders in folders, numbers that are none."""
    boot = {f"boot/firmware/{name}": content for name, content in BOOT.items()}
    root = make_root(here / "deep", boot)
    for start in ("var/lib", "etc/systemd/system"):
        command("mkdir", "-p", root / start / "/".join("d" * 1300))
    done = add(here, root)
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / "roots/pi1/var/lib" / "/".join("d" * 1300)).is_dir()
    command("rm", "-r", here / "deep", here / "roots", here / "tftp")
    for name in ("roots", "tftp"):
        (here / name).mkdir()
    for number, fields in enumerate(
        ("1000:g::/home/pi", f"1000:{2**32}::/home/pi", "1000:4294967295::/home/pi", "1000:1000::/home/\0pi")
    ):
        root = make_root(here / str(number), {**boot, "etc/passwd": f"pi:x:{fields}:/bin/sh\n"})
        refused(here, add(here, root, *PI1, "--user", "me", "--ssh-key", "key.pub"), "user pi: expected")


def test_needs_root(here: Path) -> None:
    words = ("netboot", "add", "x.img", *PLACE, *PI1)
    # Nobody, who may read the tree wherever it lies: a clone in /root is nobody else's to read.
    argv = ["unshare", "--user", *PYTHON, "-c", MAIN, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=here)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "rpinfs: netboot add: expected root, who alone can keep owners of files\nrpinfs: sudo rpinfs netboot add ...\n"
    )


# Killed and failing


CALLS = "mkdir,mkdirat,rename,renameat,renameat2,unlinkat,fsync,openat,mount,ioctl"
"""What changes names, and what a step begins or ends with; cp's are its own."""


def whole(here: Path, name: str, folder: str) -> bool:
    """Whether the board is there, with all its names and nothing else; fails where it is half there."""
    roots, tftp = (
        sorted(one for one in os.listdir(here / top) if one == folder or re.match(rf"\.?{name}(\.|$)", one))
        for top in ("roots", "tftp")
    )
    record = here / f"roots/.{name}.rpinfs-board"
    made = record.exists() and not json.loads(record.read_text())["staged"]
    if folder in tftp:
        assert name in roots, "a board that boots, and has no root"
    if name in roots:
        assert record.exists(), "a root without a record"
        assert (here / f"roots/{name}/etc/hostname").read_text() == f"{name}\n"
    return made and (roots, tftp) == ([f".{name}.rpinfs-board", name], [folder])


def as_it_was(here: Path, name: str, folder: str) -> None:
    """Take everything away that an attempt to make a board has made."""
    for top in ("roots", "tftp"):
        for one in os.listdir(here / top):
            if one == folder or re.match(rf"\.?{name}(\.|$)", one):
                command("rm", "-r", here / top / one)


CLONE = "clone"


@pytest.mark.crash
@pytest.mark.parametrize("verb", ["add", CLONE])
def test_killed_at_every_call(verb: str, image: Path, here: Path, traced: Traced) -> None:
    """Killed anywhere, the same command again makes a whole board; nothing else stays, the cloned one is untouched."""
    place = ["--server", "192.168.1.10", "--root", str(here / "roots"), "--tftp", str(here / "tftp")]
    name, folder = "pi1", "a1b2c3d4"
    words = ["netboot", "add", str(image), *PI1, *place]
    if verb == CLONE:
        assert run(here, *words[1:]).returncode == 0
        name, folder = "pi2", "5e6f7a8b"
        words = ["netboot", "clone", "pi1", name, "--serial", folder, *place]
    before = of_the_others(here, name, folder)
    code = f"from rpinfs.commands.cli import main; import sys; sys.exit(main({words!r}))"
    paths = [here / "roots", here / "tftp"]
    first = traced(code, paths, whole=True)
    assert first.returncode == 0, first.stderr
    assert whole(here, name, folder)
    tried = [point for point in first.points if point.split(":")[0] in CALLS.split(",")]
    naming = [point for point in tried if point.startswith(("rename:", "renameat2:"))]
    parts = 5 if verb == "add" else 2
    tried = list(dict.fromkeys([*some(tried, max(1, len(tried) // parts), last=4), *naming]))
    completed = 0
    for point in tried:
        as_it_was(here, name, folder)
        killed = traced(code, paths, inject=kill_at(point), whole=True)
        if killed.returncode == 0:
            continue  # The process with this many calls was another one, or none.
        whole(here, name, folder)
        record = here / f"roots/.{name}.rpinfs-board"
        done = record.exists() and not json.loads(record.read_text())["staged"]
        if record.exists() and not done:
            assert f"the same rpinfs netboot {verb} again completes it" in run(here, "list", "--root", "roots").stdout
        again = run(here, *words[1:])
        assert again.returncode == (1 if done else 0), f"{point}: {again.stderr}"
        assert ("there is a board of this name already" in again.stderr) == done
        assert whole(here, name, folder), point
        completed += "completed what an interrupted attempt had made" in again.stdout
    assert completed, "no point lay between the record and the last name"
    assert of_the_others(here, name, folder) == before


def of_the_others(here: Path, name: str, folder: str) -> list[str]:
    """All that is not of this board, with what would tell that it was written to."""
    found = command("find", here / "roots", here / "tftp", "-mindepth", "1", "-printf", "%P %i %s %C@\\0").split("\0")
    own = re.compile(rf"({folder}|\.?{name}[./ ])")
    return sorted(line for line in found if not own.match(line))


DIES = """
import os, sys
from rpinfs.commands.cli import main
from rpinfs.netboot.add import staging
staging._give_names = lambda *_: os._exit(9)
main(sys.argv[1:])
"""


def dies_before_the_names(here: Path, image: Path, *words: str) -> None:
    """A board that is whole, and lacks only its names."""
    argv = [*PYTHON, "-c", f"import sys; sys.path.insert(0, {str(TOP)!r}){DIES}", "netboot", "add", str(image), *words]
    assert subprocess.run(argv, check=False, cwd=here, capture_output=True).returncode == 9


def test_one_name_below_other_roots(image: Path, here: Path) -> None:
    """A whole board that waits for its names keeps its boot files, though the TFTP folder serves other roots too."""
    (here / "others").mkdir()
    dies_before_the_names(here, image, *PLACE, *PI1)
    other = ("--server", "192.168.1.10", "--root", "others", "--tftp", "tftp", "--name", "pi1", "--serial", "5e6f7a8b")
    done = run(here, "add", image, *other)
    assert (done.returncode, done.stderr) == (0, "")
    done = add(here, image)
    assert (done.returncode, done.stderr) == (0, "")
    assert "completed what an interrupted attempt had made" in done.stdout
    assert sorted(os.listdir(here / "tftp")) == ["5e6f7a8b", "a1b2c3d4"]


@pytest.mark.parametrize("other", [
    ("--serial", "5e6f7a8b"), ("--user", "you"), ("--ssh-key", "other.pub"), ("--server", "192.168.1.11"),
    ("image", ""), ("source", ""), ("--mac", "dc:a6:32:00:00:01"), ("--nfs-version", "4.2"),
])  # fmt: skip
def test_another_order_completes_nothing(other: tuple[str, str], image: Path, here: Path) -> None:
    """What waits for its names is what was asked for then; the remedy makes the other one."""
    own = here / "own.img"
    os.link(image, own)
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", here / "other")
    options = {"--serial": "a1b2c3d4", "--user": "me", "--ssh-key": "key.pub", "--server": "192.168.1.10"}
    words = [word for option in options.items() for word in option]
    dies_before_the_names(here, own, "--name", "pi1", *PLACE, *words)
    if other[0] == "image":
        own.unlink()
        shutil.copy(image, own)
        overwrite(own, 64, b"another")
    elif other[0] == "source":
        own = own.rename(here / "own2.img")
    else:
        words = [word for option in (options | dict([other])).items() for word in option]
    done = run(here, "add", own, "--name", "pi1", *PLACE, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "an interrupted attempt has made it whole, of something else" in done.stderr
    command("sh", "-c", done.stderr.splitlines()[1].rpartition(": ")[2])
    done = run(here, "add", own, "--name", "pi1", *PLACE, *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_boot_files_that_are_gone(image: Path, here: Path) -> None:
    """What was made is half lost: the remedy that is printed makes the board anew."""
    dies_before_the_names(here, image, *PLACE, *PI1)
    (lost,) = (here / "tftp").glob(".pi1.rpinfs-new-*")
    shutil.rmtree(lost)
    done = add(here, image)
    assert (done.returncode, done.stdout) == (1, "")
    remedy = done.stderr.splitlines()[1].removeprefix("rpinfs: to make the board anew: ")
    command("sh", "-c", remedy)
    done = add(here, image)
    assert done.returncode == 1
    command("sh", "-c", done.stderr.splitlines()[1].rpartition(": ")[2])
    done = add(here, image)
    assert (done.returncode, done.stderr) == (0, "")


def test_originals_around_the_copy(here: Path) -> None:
    """A root or boot folder in which the copy would be; and roots that TFTP would give out."""
    root = make_root(here / "stock", {f"boot/firmware/{name}": content for name, content in BOOT.items()})
    refused(here, add(here, Path("/"), *PI1, "--boot", str(root / "boot/firmware")), "a part of its own original")
    make_tree(here, {"config.txt": ""})
    refused(here, add(here, root, *PI1, "--boot", str(here)), "a part of its own original")
    done = run(here, "add", root, *PI1, "--server", "192.168.1.10", "--root", "roots", "--tftp", "roots")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is the folder with the roots" in done.stderr


def test_ended_by_systemd(image: Path, here: Path) -> None:
    """SIGTERM is as Ctrl-C: nothing stays of what was half made."""
    code = f"""
import sys; sys.path.insert(0, {str(TOP)!r})
import os, signal
from rpinfs.commands.cli import main
from rpinfs.netboot.add import make
make._finish = lambda *_: (os.kill(os.getpid(), signal.SIGTERM), signal.pause())
sys.exit(main(sys.argv[1:]))
"""
    argv = [*PYTHON, "-c", code, "netboot", "add", str(image), *PLACE, *PI1]
    done = subprocess.run(argv, check=False, cwd=here, capture_output=True)
    assert done.returncode not in (0, -15)
    assert nothing_left(here)


def test_two_at_once(image: Path, here: Path) -> None:
    """Who has the name in the TFTP folder is alone with it, whatever the roots."""
    with (here / "tftp/.pi1.rpinfs-lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        done = add(here, image)
    assert (done.returncode, done.stdout) == (1, "")
    assert "another rpinfs is making it at this moment" in done.stderr


def test_no_room_in_the_middle(here: Path, mounted: Mount) -> None:
    """It was enough when it was looked at; another program took it meanwhile, as an ext4 whose blocks are reserved."""
    root = make_root(here / "stock-root", {f"usr/share/{number}": bytes([number]) * 200_000 for number in range(20)})
    made = make_image(here / "i.img", root, make_tree(here / "stock-boot", BOOT))
    code = (
        "from rpinfs.netboot.add import copying; copying.refuse_without_bytes = lambda *_: None; "
        "from rpinfs.commands.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    )
    with mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs") as small:
        words = ["netboot", "add", made, *PI1, "--server", "192.168.1.10", "--root", small, "--tftp", here / "tftp"]
        argv = [*PYTHON, "-c", code, *(str(word) for word in words)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=TOP)
        assert (done.returncode, done.stdout) == (1, "")
        assert "No space left on device" in done.stderr.splitlines()[0]
        assert (list(small.iterdir()), list((here / "tftp").iterdir())) == ([], [])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("RPINFS_DEB")
    return Path(given) if given else make_deb(tmp_path_factory.mktemp("deb"))


def test_packages_and_a_user_in_a_debian(here: Path, package: Path) -> None:
    """The image's own apt and useradd; no service starts, and nothing of the way in is left."""
    base = base_root("trixie", native_machine(), quiet)
    make_tree(here / "boot", BOOT)
    done = add(
        here, base, *PI1, "--boot", "boot", "--user", "me", "--ssh-key", "key.pub", "--deb", str(package), "--docker"
    )
    assert (done.returncode, done.stderr) == (0, "")
    root = here / "roots/pi1"
    record = json.loads((here / "roots/.pi1.rpinfs-board").read_text())
    assert sorted(record["packages"]) == ["docker.io", "rpinfs"]
    assert (root / "usr/bin/rpinfs").is_file()
    assert (root / "home/me/.ssh/authorized_keys").read_text() == (here / "key.pub").read_text()
    assert "\nme:" in (root / "etc/passwd").read_text()
    assert not (root / "usr/sbin/policy-rc.d").exists()
    assert (root / "etc/resolv.conf").read_bytes() == (base / "etc/resolv.conf").read_bytes()
    for name in ("proc", "sys", "dev", "run", "tmp"):
        assert sorted(os.listdir(root / name)) == sorted(os.listdir(base / name))
    # rpinfs mounts what the plan says; a line of fstab for the boot files would win over it, and be warned of for ever.
    make_tree(root, {"proc/device-tree/serial-number": "10000000a1b2c3d4\0"})
    assert " /boot/firmware " not in (root / "etc/fstab").read_text()
    settings = subprocess.run(
        [*PYTHON, "-m", "rpinfs", "config", "show"],
        capture_output=True, text=True, check=True, cwd=TOP,
        env={"RPINFS_ROOT": str(root), "SYSTEMD_PROC_CMDLINE": (here / "tftp/a1b2c3d4/cmdline.txt").read_text()},
    ).stdout.splitlines()  # fmt: skip
    for setting in ("Address=192.168.1.10", "Version=4.1", f"Export={here}/tftp/a1b2c3d4", "Export=/docker"):
        where = settings[settings.index(setting) - 1]
        assert "/etc/rpinfs/rpinfs.conf.d/netboot.conf:" in where


def test_a_hostile_program_of_an_image(here: Path) -> None:
    """What the image's own programs, which are root, find of this machine: nothing. Each is the same one here."""
    root = make_root(
        here / "stock-root",
        {f"boot/firmware/{name}": content for name, content in BOOT.items()},
        without=("usr/lib/userconf-pi/userconf",),
    )
    os.mknod(root / "var/lib/kmsg", 0o20666, os.makedev(1, 11))
    source = TOP / "tests/tools/netboot/escape.c"
    built = here / "escape"
    command("gcc", "-static", f'-DTARGET="{here}/out"', "-o", built, source)
    for name in ("usr/bin/true", "usr/sbin/useradd"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(built, root / name)
    done = add(here, root, *PI1, "--user", "me", "--ssh-key", "key.pub")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (here / "out").exists()
    kept = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 29, 31))
    one = ["NSpid:\t1", "CapInh:\t0000000000000000", f"CapEff:\t{kept:016x}"]
    assert (here / "roots/pi1/report").read_text().splitlines() == one * 2


def test_programs_of_another_machine(here: Path) -> None:
    """What this kernel cannot run is said before anything is installed: the image is for another architecture."""
    elf = bytearray(20)
    elf[:6], elf[18] = b"\x7fELF\x02\x01", 0xF3
    root = make_root(
        here / "stock-root",
        {"usr/bin/true": bytes(elf), "bin/sh": bytes(elf), **{f"boot/firmware/{k}": v for k, v in BOOT.items()}},
    )
    for name in ("usr/bin/true", "bin/sh"):
        (root / name).chmod(0o755)
    installed = Path("/usr/lib/binfmt.d/qemu-riscv64.conf").exists()
    remedy = "systemctl restart systemd-binfmt" if installed else "apt install qemu-user-static"
    for words in (("--docker",), ("--user", "me")):
        (root / "usr/lib/userconf-pi/userconf").unlink(missing_ok=True)
        done = add(here, root, *PI1, *words)
        refused(here, done, "the image's programs (riscv64) do not run on this machine", remedy)


def test_progress_on_a_terminal(image: Path, here: Path) -> None:
    """A bar with sizes, in one line that is gone at the end; a pipe gets none of it (test_what_a_copy_keeps)."""
    master, slave = os.openpty()
    words = ["netboot", "add", image, *PI1, *PLACE]
    argv = [*PYTHON, "-c", MAIN, *(str(word) for word in words)]
    with subprocess.Popen(argv, cwd=here, stdout=subprocess.PIPE, stderr=slave, text=True) as process:
        os.close(slave)
        shown = b""
        # The terminal ends with an error when nobody has its other end any more.
        with contextlib.suppress(OSError):
            while chunk := os.read(master, 65536):
                shown += chunk
        out = process.communicate()[0]
    os.close(master)
    assert process.returncode == 0
    assert b"copying the root [                    ] 0 %, 0 bytes of " in shown
    assert shown.endswith(b"\r\x1b[K")
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("program", "seeds"), [("cloud-init", {"user-data", "meta-data"}), ("rpi-preseed", {"rpi-preseed.toml"})]
)
def test_a_user_by_what_the_image_takes(program: str, seeds: set[str], here: Path) -> None:
    """In the boot folder, and in the root below it as well: services read it before /boot/firmware is mounted."""
    more = {f"usr/bin/{program}": "", **{f"boot/firmware/{name}": content for name, content in BOOT.items()}}
    done = add(here, make_root(here / "that", more), *PI1, "--user", "me", "--ssh-key", "key.pub")
    assert (done.returncode, done.stderr) == (0, "")
    root, boot = here / "roots/pi1", here / "tftp/a1b2c3d4"
    key = (here / "key.pub").read_text().strip()
    assert any(key in (boot / name).read_text() for name in seeds)
    assert {name: (root / "boot/firmware" / name).read_text() for name in seeds} == {
        name: (boot / name).read_text() for name in seeds
    }
    assert (root / "etc/systemd/system/userconfig.service").readlink() == Path("/dev/null")
    assert (root / "etc/systemd/system/multi-user.target.wants/ssh.service").is_symlink()
    assert run(here, "clone", "pi1", "pi2", *PLACE).returncode == 0
    for name in seeds:
        for seed in (here / "tftp/pi2" / name, here / "roots/pi2/boot/firmware" / name):
            assert "pi2" in seed.read_text() and "pi1" not in seed.read_text()
    if program == "cloud-init":
        assert '"hostname": "pi2"' in (here / "roots/pi2/var/lib/cloud/seed/nocloud/user-data").read_text()
        ids = [(here / f"roots/{pi}/var/lib/cloud/seed/nocloud/meta-data").read_text() for pi in ("pi1", "pi2")]
        assert [text.splitlines()[1] for text in ids] == ["local-hostname: pi1", "local-hostname: pi2"]
        assert ids[1] == (here / "tftp/pi2/meta-data").read_text()


IMAGER = "root=PARTUUID=1-02 systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot "
IMAGER += "systemd.unit=kernel-command-line.target systemd.hostname=other hostname=other "
IMAGER += "ds=nocloud;h=other;i=rpi-imager-1;s=/boot/firmware/ rootwait\n"
NAMES: dict[str, Content] = {
    "boot/firmware/user-data": "#cloud-config\nhostname: other\nmanage_etc_hosts: true\n",
    "boot/firmware/meta-data": "instance-id: x\nlocal-hostname: other\n",
    "boot/firmware/custom.toml": 'config_version = 1\n[system]\nhostname = "other"\n',
    "boot/firmware/rpi-preseed.toml": '[system]\nhostname = "other"\n',
    "boot/firmware/firstrun.sh": "#!/bin/bash\necho other >/etc/hostname\n",
    "boot/firmware/cmdline.txt": IMAGER,
    "var/lib/cloud/seed/nocloud/user-data": "#cloud-config\nfqdn: other.lan\n",
    "etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg": "hostname: other\ndatasource_list: [ NoCloud ]\n",
    "etc/cloud/cloud.cfg": "preserve_hostname: false\nhostname: 'other'\n",
}


def test_the_name_of_a_board_wins(here: Path) -> None:
    """Over all that Raspberry Pi Imager and cloud-init say of another one; nor does an SD card's first run begin."""
    more = {f"boot/firmware/{name}": content for name, content in BOOT.items()}
    done = add(here, make_root(here / "that", {**more, **NAMES}), *PI1)
    assert (done.returncode, done.stderr) == (0, "")
    root, boot = here / "roots/pi1", here / "tftp/a1b2c3d4"
    line = (boot / "cmdline.txt").read_text()
    assert line.startswith("ds=nocloud;s=/boot/firmware/ rootwait root=/dev/nfs nfsroot=")
    assert not (boot / "firstrun.sh").exists()
    assert (
        "left to do: the user, keys and Wi-Fi that Raspberry Pi Imager has put into this image are not set"
        in done.stdout
    )
    said = {str(path.relative_to(top)): path.read_text() for top in (root, boot) for path in top.rglob("*")
            if path.name in {Path(name).name for name in NAMES} and path.is_file()}  # fmt: skip
    assert len(said) > len(NAMES)
    hidden = ("boot/firmware/firstrun.sh", "boot/firmware/cmdline.txt")  # Below the mount of the boot files.
    assert [name for name, text in said.items() if "other" in text and name not in hidden] == []
    assert "\ndatasource_list: [ NoCloud ]\n" in said["etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg"]
