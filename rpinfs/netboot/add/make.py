"""`rpinfs netboot add` and `clone`: from an image, folders or another board to the root and boot files of a new one.

Each function here is one step; what a step is lies in the module that has its subject. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rpinfs import __version__
from rpinfs.boot.settings import human_size
from rpinfs.errors import RpinfsError, quoted
from rpinfs.netboot.add import asked, fat, partitions, programs, record, staging, unpack, user
from rpinfs.netboot.add.copying import copy, insist_on_a_roots_file_system
from rpinfs.netboot.add.identity import FIRST_RUN, boot_inside, personalize
from rpinfs.netboot.add.order import Order
from rpinfs.netboot.add.record import Record
from rpinfs.netboot.add.staging import Staging
from rpinfs.netboot.add.survey import Survey, unseen
from rpinfs.netboot.add.tree import Tree
from rpinfs.system.files import OddFileError
from rpinfs.system.run import Tell, run
from rpinfs.system.syscalls import mounts_of_our_own

DOCKER = "docker.io"
_STARTS = ("start4.elf", "start.elf")


@dataclass(frozen=True)
class Wanted:
    """What a board is to have.

    Attributes:
        source: an image, or a folder with a root.
        boot: a folder with boot files, where the source is a folder; empty: those in the root.
        deb: file of rpinfs's package; empty: none is put in.
    """

    source: str
    boot: str = ""
    user: user.User | None = None
    deb: str = ""
    docker: bool = False


@dataclass
class _Made:
    """What is known of the source once it is copied."""

    source: str
    sha256: str = ""
    lost: list[str] = field(default_factory=list)
    did: list[str] = field(default_factory=list)


def insist_on_root(what: str) -> None:
    """Raises RpinfsError where we are not root."""
    if os.geteuid() != 0:
        raise RpinfsError(
            f"netboot {what}: expected root, who alone can keep owners of files", f"sudo rpinfs netboot {what} ..."
        )


def add(order: Order, wanted: Wanted, tell: Tell) -> Record:
    """Make a board of an image or of folders.

    Raises:
        RpinfsError: nothing was made, or what was made lacks a name that the next attempt gives it.
        OSError: the file systems failed; likewise.
    """
    _refuse_early(wanted)
    folder = os.path.isdir(wanted.source)
    words = {
        "made of": os.path.realpath(wanted.source) if folder else os.path.basename(wanted.source),
        "--boot": wanted.boot and os.path.realpath(wanted.boot),
        "--user": wanted.user.name if wanted.user else "",
        "--ssh-key": "\n".join(wanted.user.keys) if wanted.user else "",
        "--docker": "yes" if wanted.docker else "",
        "--deb": asked.digest_of(wanted.deb),
    }
    with _in_place(order, words, tell, "" if folder else wanted.source) as (made, done):
        if done is not None:
            return done
        with _readable(wanted.source):
            copying = _copy_folders if os.path.isdir(wanted.source) else _copy_image
            copied = copying(wanted, made, order.plan.nas.version, tell)
            return _finish(order, wanted, made, copied, tell)


def clone(order: Order, other: Record, tell: Tell) -> Record:
    """Make a board of another one, which should be off. Raises as add()."""
    root, boot = f"{order.place.roots}/{other.name}", f"{order.place.tftp}/{os.path.basename(other.boot)}"
    for folder in (root, boot):
        if not os.path.isdir(folder):
            message = f"{folder}: expected a folder of {other.name}, found none"
            raise RpinfsError(message, record.listed(order.place.roots))
    with _in_place(order, {"made of": other.name}, tell) as (made, done):
        if done is not None:
            return done
        with _readable(root):
            copied = _copy_folders(Wanted(root, boot), made, order.plan.nas.version, tell)
            copied.source = other.name
            return _finish(order, Wanted(root, boot), made, copied, tell, other)


def _refuse_early(wanted: Wanted) -> None:
    """What would otherwise be found after minutes."""
    if wanted.deb:
        with open(wanted.deb, "rb") as file:
            if file.read(8) != b"!<arch>\n":
                raise RpinfsError(f"{wanted.deb}: expected a Debian package, found something else", status=2)
    if wanted.boot and not os.path.isdir(wanted.source):
        raise RpinfsError("--boot goes with a folder; an image has its own boot files", status=2)


@contextlib.contextmanager
def _in_place(
    order: Order, words: Mapping[str, str], tell: Tell, image: str = ""
) -> Iterator[tuple[Staging, Record | None]]:
    """Be alone with the names of a board, and have folders for it; or its record, if it lacked only its names."""
    place = order.place
    with staging.alone(place):
        before = record.read(place.roots, place.name)
        wanted = asked.asked(order, words)
        if before is not None and before.staged:
            asked.refuse_another(place, before, wanted, image)
        found = staging.settle(place)
        if before is not None and before.staged and found is not None:
            tell(f"{place.name} was whole but for its names")
            found.did.append("completed what an interrupted attempt had made")
            yield Staging(place, ""), found
            return
        staging.refuse_taken(place, found)
        with staging.staging(place) as made:
            insist_on_a_roots_file_system(made.root)
            mounts_of_our_own()
            asked.keep(place, made.digits, wanted)
            yield made, None


@contextlib.contextmanager
def _readable(source: str) -> Iterator[None]:
    """A folder that is none is the image's fault, and lies in a copy that nobody will find."""
    try:
        yield
    except OddFileError as error:
        inside = error.path.partition(".rpinfs-new-")[2].partition("/")[2]
        raise RpinfsError(
            f"{source}: in it {inside or error.path} is {error.found}, expected a folder or file"
        ) from error


def _copy_image(wanted: Wanted, made: Staging, version: str, tell: Tell) -> _Made:
    with unpack.opened(os.path.abspath(wanted.source), tell) as image:
        layout = partitions.layout_of(image)
        copied = _Made(os.path.basename(wanted.source), image.sha256)
        with partitions.mounted(image, layout.root, made.mount_point("image")) as where:
            _insist_on_a_root(where, f"{wanted.source}: partition {layout.root.number}")
            copied.lost += unseen(_copy(where, made.root, "the root", copied, tell), version)
        tell("copying the boot files")
        files, size = fat.copy_out(image, layout.boot, made.boot)
        copied.did.append(f"the boot files: {files} files, {human_size(size)}")
    return copied


def _copy_folders(wanted: Wanted, made: Staging, version: str, tell: Tell) -> _Made:
    root = os.path.realpath(wanted.source)
    boot = os.path.realpath(wanted.boot) if wanted.boot else Tree(root).path(boot_inside(Tree(root)))
    _insist_on_a_root(root, root)
    if not os.path.isdir(boot) or not any(name in os.listdir(boot) for name in ("cmdline.txt", "config.txt", *_STARTS)):
        raise RpinfsError(
            f"{boot}: expected a folder with boot files (config.txt, cmdline.txt), found none", "name it: --boot DIR"
        )
    for folder in (root, boot):
        # The root of all has its slash already.
        if any(f"{new}/".startswith(f"{folder.rstrip('/')}/") for new in (made.root, made.boot)):
            raise RpinfsError(f"{folder}: the new board would be a part of its own original", "choose another --root")
    copied = _Made(root)
    copied.lost += unseen(_copy(root, made.root, "the root", copied, tell), version)
    _copy(boot, made.boot, "the boot files", copied, tell)
    return copied


def _insist_on_a_root(folder: str, said: str) -> None:
    if not all(os.path.isdir(f"{folder}/{name}") and not os.path.islink(f"{folder}/{name}") for name in ("etc", "usr")):
        raise RpinfsError(f"{said}: expected a root with the folders /etc and /usr, found none")


def _copy(source: str, target: str, what: str, copied: _Made, tell: Tell) -> Survey:
    done = copy(source, target, tell, what)
    copied.lost += done.lost
    shared = ", shared with the original until one of both changes" if done.shared else ""
    copied.did.append(f"{what}: {done.survey.files} files, {human_size(done.survey.allocated)}{shared}")
    return done.survey


def _finish(
    order: Order, wanted: Wanted, made: Staging, copied: _Made, tell: Tell, other: Record | None = None
) -> Record:
    """Make a copy a board, and give it its names."""
    root, boot = Tree(made.root), Tree(made.boot)
    image = programs.Image(root, made.boot, boot_inside(root))
    names = [DOCKER] if wanted.docker else []
    packages = dict(other.packages) if other else {}
    if wanted.deb or names:
        packages = programs.install(image, os.path.abspath(wanted.deb) if wanted.deb else "", names, tell)
        copied.did += [f"installed: {name} {version}" for name, version in packages.items()]
    tell(f"making it {order.pi.name}")
    if other is None:
        copied.did += user.seed(wanted.user, root, boot, image, order.pi.name, made.digits)
    elif root.has("var/lib/cloud/seed/nocloud/meta-data"):
        user.anew(root, boot, order.pi.name, made.digits)
    user.rename(root, boot, order.pi.name)
    customised = boot.has(FIRST_RUN)
    copied.did += personalize(root, boot, order.plan, order.pi, eeprom=order.board_known)
    # A TFTP server gives out what everybody may read (rpi-eeprom#188).
    run(["chmod", "--recursive", "go+rX", made.boot])
    for folder in (made.root, made.boot):
        tell("writing all of it to the disk")
        run(["sync", "--file-system", folder], die_with_us=True)
    done = Record(
        name=order.pi.name, serial=order.pi.serial, mac=order.pi.mac,
        board=order.pi.board.model if order.board_known else "",
        server=order.plan.nas.address, root=order.place.root, boot=order.place.boot,
        source=copied.source, sha256=copied.sha256, made=int(time.time()), by=f"rpinfs {__version__}",
        system=_system(root), user=wanted.user.name if wanted.user else other.user if other else "",
        kernels=root.names("usr/lib/modules"), packages=packages, did=copied.did, lost=copied.lost,
        left=[*([_CUSTOMISED] if customised else []), *_left(order, root, boot, packages)],
    )  # fmt: skip
    return staging.publish(made, done)


_CUSTOMISED = (
    "the user, keys and Wi-Fi that Raspberry Pi Imager has put into this image are not set: a user comes by --user"
    " and --ssh-key"
)


def _system(root: Tree) -> str:
    for line in root.read("usr/lib/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip("\"'")[:100]
    return ""


def _left(order: Order, root: Tree, boot: Tree, packages: dict[str, str]) -> list[str]:
    """What a person is still to do."""
    left = []
    place, nas = order.place, order.plan.nas
    if not order.pi.serial:
        link = f"ln -s {quoted(place.folder)} {quoted(place.tftp)}/SERIAL"
        left.append(f"its serial number is not known (rpinfs netboot watch shows it): {link}")
    if "rpinfs" not in packages and not root.has("usr/share/rpinfs"):
        left.append(
            "rpinfs is not in its root: add it with --deb FILE, or on the Pi: apt install ./rpinfs_VERSION_all.deb"
        )
    if not root.has("usr/bin/dockerd") and not root.has("usr/sbin/dockerd"):
        left.append("Docker is not in its root: add it with --docker, or on the Pi: apt install docker.io")
    if order.board_known and not order.pi.board.eeprom and not os.path.exists(f"{place.tftp}/bootcode.bin"):
        copying = f"cp {quoted(f'{place.boot}/bootcode.bin', place.tftp)}"
        left.append(f"a {order.pi.board.model} asks for bootcode.bin at the top of the TFTP folder: {copying}")
    if not any(boot.kind(name) == stat.S_IFREG for name in _STARTS):
        left.append(
            f"neither start4.elf nor start.elf is in {place.boot}: a board does not take the folder for its own"
        )
    if order.board_known and order.pi.board.eeprom:
        left.append("once, on the Pi, from an SD card: rpi-eeprom-config --apply boot.conf")
    options = "rw,sync,no_subtree_check,no_root_squash"
    left.append(f"{nas.address} is to export {nas.root}, {nas.boot} and {nas.share} to the boards, each with {options}")
    return left
