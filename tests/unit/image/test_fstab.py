"""Hand-written mounts become a configuration that says the same, or an error; never something that does not load."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.boot.config import Config, load
from rpinfs.boot.host import Host
from rpinfs.errors import RpinfsError
from rpinfs.image import fstab

RECIPE = """\
nas.local:/tftpboot /boot nfs defaults,vers=4.1,ro 0 0
nas.local:/docker /nfs/docker nfs defaults,vers=4.1 0 0
/nfs/docker/loop /var/lib/docker ext4 loop,x-systemd.requires=/nfs/docker 0 2
"""
CONFIG = """\
[Server]
Address=nas.local
Version=4.1

[Boot]
Export=/tftpboot
Where=/boot

[Share]
Export=/docker
Where=/nfs/docker

[Image docker]
File=loop
"""


def seen(_: str) -> int:
    return 10 << 30


def unseen(_: str) -> None:
    return None


def imported(text: str) -> fstab.Imported:
    return fstab.import_fstab(text, seen)


def loaded(made: fstab.Imported) -> Config:
    return load(Host(config_files=[("imported", made.config)], serial="1"))


def lines(boot: str = "", share: str = "", image: str = "") -> str:
    """The recipe with other lines; one that is "-" is left out."""
    recipe = RECIPE.splitlines()
    chosen = [given or usual for given, usual in zip((boot, share, image), recipe, strict=True)]
    return "".join(f"{line}\n" for line in chosen if line != "-")


def test_the_recipe() -> None:
    made = imported(RECIPE)
    assert made.config == CONFIG
    assert [line.number for line in made.replaced] == [1, 2, 3]
    assert made.remarks == []


def test_the_file_as_it_is_printed_loads_too() -> None:
    made = imported(lines(share="nas.local:/docker /nfs/docker nfs soft,vers=4.1"))
    text = fstab.render(made, "/etc/fstab")
    assert "#   line 3: /nfs/docker/loop /var/lib/docker ext4 loop,x-systemd.requires=/nfs/docker 0 2\n" in text
    assert "#   line 2: soft is dropped: it turns a pause of the NAS into I/O errors" in text
    assert text.endswith(made.config)
    config = load(Host(config_files=[("imported", text)]))
    assert config.images[0].path == "/nfs/docker/loop"


class Variation(NamedTuple):
    title: str
    fstab: str
    config: str
    """Lines that the configuration must have, one after the other in its order."""
    remarks: tuple[str, ...] = ()
    """A part of each remark, in order; no others may be there."""
    absent: tuple[str, ...] = ()
    """Keys that must be left to their defaults."""


SHARE = "nas.local:/docker /nfs/docker"
BOOT = "nas.local:/tftpboot /boot"
IMAGE = "/nfs/docker/loop /var/lib/docker"
OPEN_VERSION = "line 2: it leaves the version to be agreed on"

VARIATIONS = [
    Variation("comments, blank lines, tabs", f"# mounts\n\n{RECIPE.replace(' ', chr(9))}\n  # end\n", CONFIG),
    Variation("fields without numbers at the end", RECIPE.replace(" 0 0", "").replace(" 0 2", ""), CONFIG),
    Variation("any order of the lines", "\n".join(reversed(RECIPE.splitlines())), CONFIG),
    Variation("any order of the options", lines(boot=f"{BOOT} nfs ro,vers=4.1,defaults 0 0"), CONFIG),
    Variation("CRLF", RECIPE.replace("\n", "\r\n"), CONFIG),
    Variation("a slash too many", RECIPE.replace("/nfs/docker ", "/nfs//docker/ "), CONFIG),
    Variation("type nfs4", lines(share=f"{SHARE} nfs4 minorversion=2"), "Version=4.2", ("line 1: version 4.1",)),
    Variation("version 4.2", RECIPE.replace("4.1", "4.2"), "Version=4.2"),
    Variation("short version", RECIPE.replace("vers=4.1", "v4.2"), "Version=4.2"),
    Variation("nfsvers", RECIPE.replace("vers=4.1", "nfsvers=4.0"), "Version=4.0"),
    Variation("version 3", RECIPE.replace("vers=4.1", "nfsvers=3"), "Version=3", ("line 2: with version 3",)),
    Variation("vers=4", RECIPE.replace("vers=4.1", "vers=4"), "Version=4.1", (OPEN_VERSION,)),
    Variation("no version", RECIPE.replace(",vers=4.1", ""), "Version=4.1", (OPEN_VERSION,)),
    Variation("the last version wins", lines(share=f"{SHARE} nfs vers=3,vers=4.1"), CONFIG),
    Variation("IPv6", RECIPE.replace("nas.local", "[fd00::10]"), "Address=fd00::10\nExport=/tftpboot\nExport=/docker"),
    Variation("IPv6 with a zone", RECIPE.replace("nas.local", "[fe80::1%eth0]"), "Address=fe80::1%eth0"),
    Variation("IPv4", RECIPE.replace("nas.local", "192.168.1.10"), "Address=192.168.1.10"),
    Variation("LABEL and UUID lines", f"LABEL=data /srv ext4 defaults 0 2\nUUID=AA-BB /x vfat\n{RECIPE}", CONFIG),
    Variation("swap and tmpfs", f"{RECIPE}/swapfile none swap sw 0 0\ntmpfs /tmp tmpfs size=10M\n", CONFIG),
    Variation("boot in /boot/firmware", RECIPE.replace(" /boot ", " /boot/firmware "), "Where=/boot/firmware"),
    Variation(
        "no boot line", lines(boot="-"), "[Boot]\nExport=\n[Share]", absent=("Where=/boot",)
    ),
    Variation(
        "boot from a card",
        lines(boot="LABEL=bootfs /boot/firmware vfat defaults 0 2"),
        "[Boot]\nExport=\n[Share]",
        ("line 1: /boot/firmware is mounted from LABEL=bootfs, not over NFS; left alone",),
    ),
    Variation(
        "boot from another server",
        lines(boot="other:/tftpboot /boot nfs ro"),
        "Address=nas.local\n[Boot]\nExport=\n[Share]",
        ("line 1: the boot files come from other, the share from nas.local",),
    ),
    Variation(
        "two boot lines",
        f"{RECIPE}nas.local:/tftpboot /boot/firmware nfs ro,vers=4.1",
        "Where=/boot/firmware",
        ("line 1: the boot files are taken from line 4; left alone",),
    ),
    Variation(
        "boot writable",
        lines(boot=f"{BOOT} nfs vers=4.1"),
        "[Boot]\nExport=/tftpboot\nWhere=/boot\n[Share]",
        ("line 1: /boot becomes read-only",),
        absent=("Options=",),
    ),
    Variation(
        "options of both",
        RECIPE.replace("vers=4.1", "vers=4.1,proto=tcp,nolock"),
        "Version=4.1\nOptions=proto=tcp,nolock\n[Boot]",
    ),
    Variation(
        "options of the boot files", lines(boot=f"{BOOT} nfs ro,vers=4.1,noatime"), "Where=/boot\nOptions=ro,noatime"
    ),
    Variation(
        "options of the share",
        lines(share=f"{SHARE} nfs vers=4.1,rsize=1048576"),
        "Version=4.1\nOptions=rsize=1048576\n[Boot]",
        ("line 2: rsize=1048576: options of the share count for the boot files too",),
    ),
    Variation(
        "options that go without saying",
        lines(share=f"{SHARE} nfs rw,hard,_netdev,nofail,auto,x-systemd.automount,x-systemd.mount-timeout=30,vers=4.1"),
        CONFIG,
    ),
    Variation(
        "soft", lines(share=f"{SHARE} nfs vers=4.1,soft,timeo=50"), "Options=timeo=50",
        ("line 2: soft is dropped", "line 2: timeo=50: options of the share"),
    ),
    Variation(
        "bg and noauto", lines(share=f"{SHARE} nfs vers=4.1,bg,noauto"), CONFIG,
        ("line 2: bg is dropped", "line 2: noauto is dropped"),
    ),
    Variation("share read-only", lines(share=f"{SHARE} nfs vers=4.1,ro"), CONFIG, ("line 2: ro is dropped",)),
    Variation(
        "spaces",
        RECIPE.replace("/nfs/docker", "/nfs/my\\040docker").replace(":/docker", ":/my\\040docker"),
        "Export=/my docker\nWhere=/nfs/my docker\nFile=loop",
    ),
    Variation("percent", RECIPE.replace("/loop", "/100%"), "File=100%"),
    Variation("type auto", lines(image=f"{IMAGE} auto loop"), CONFIG),
    Variation("type xfs", lines(image=f"{IMAGE} xfs loop"), "File=loop\nFileSystem=xfs"),
    Variation("a loop device by name", lines(image=f"{IMAGE} ext4 loop=/dev/loop3"), CONFIG),
    Variation("loop not said", lines(image=f"{IMAGE} ext4 defaults"), CONFIG),
    Variation("requires-mounts-for", RECIPE.replace("systemd.requires=", "systemd.requires-mounts-for="), CONFIG),
    Variation("nothing required", lines(image=f"{IMAGE} ext4 loop"), CONFIG),
    Variation("offset of nothing", lines(image=f"{IMAGE} ext4 loop,offset=0"), CONFIG),
    Variation("a folder on the share", RECIPE.replace("/docker/loop", "/docker/pi1/loop"), "File=pi1/loop"),
    Variation("options of the image", lines(image=f"{IMAGE} ext4 loop,discard"), "Options=noatime,discard"),
    Variation("access times", lines(image=f"{IMAGE} ext4 loop,relatime"), "File=loop\nOptions=relatime"),
    Variation("the default option", lines(image=f"{IMAGE} ext4 loop,noatime"), CONFIG),
    Variation(
        "options that a power cut would punish",
        lines(image=f"{IMAGE} ext4 loop,barrier=0,noload,ro"),
        CONFIG,
        ("line 3: barrier=0 is dropped", "line 3: noload is dropped", "line 3: ro is dropped"),
    ),
    Variation(
        "another mount point",
        lines(image="/nfs/docker/loop /srv/data ext4 loop"),
        "[Image data]\nFile=loop\nWhere=/srv/data",
    ),
    Variation(
        "two images",
        f"{RECIPE}/nfs/docker/two /srv/Some.Data xfs loop\n/nfs/docker/three /mnt/docker ext4 loop\n",
        "[Image docker]\nFile=loop\n[Image some-data]\nFile=two\nFileSystem=xfs\nWhere=/srv/Some.Data\n"
        "[Image docker-2]\nFile=three\nWhere=/mnt/docker",
    ),
    Variation(
        "an image on a disk of its own",
        f"{RECIPE}/srv/disk.img /srv/data ext4 loop\n",
        CONFIG,
        ("line 4: /srv/disk.img does not lie on an NFS mount",),
    ),
    Variation(
        "an image that is no image", f"{RECIPE}/nfs/docker/cd.iso /mnt/cd iso9660 loop,ro\n", CONFIG,
        ("line 4: an image is ext4 or xfs, this is iso9660",),
    ),
    Variation(
        "a bind mount out of the image",
        f"{RECIPE}/var/lib/docker/containerd /var/lib/containerd none bind 0 0\n",
        CONFIG,
        ("line 4: /var/lib/containerd is kept in the image by a bind mount of your own",),
    ),
    Variation("a bind mount of something else", f"{RECIPE}/srv/a /srv/b none bind 0 0\n", CONFIG),
    Variation("other NFS mounts", f"{RECIPE}nas.local:/home /home nfs defaults 0 0\n", CONFIG),
]  # fmt: skip


def in_order(text: str, wanted: str) -> bool:
    """Whether all lines of `wanted` stand in `text`, in that order."""
    rest = iter(text.splitlines())
    return all(line in rest for line in wanted.splitlines() if line)


@pytest.mark.parametrize("case", VARIATIONS, ids=lambda case: case.title)
def test_variation(case: Variation) -> None:
    made = imported(case.fstab)
    loaded(made)
    if case.config == CONFIG:
        assert made.config == CONFIG
    assert in_order(made.config, case.config), made.config
    assert not any(key in made.config for key in case.absent)
    assert len(made.remarks) == len(case.remarks), made.remarks
    for remark, part in zip(made.remarks, case.remarks, strict=True):
        assert part in remark


def test_lines_that_stay_are_not_to_be_commented_out() -> None:
    made = imported(
        f"LABEL=x /boot vfat defaults\n{SHARE} nfs vers=4.1\n{IMAGE} ext4 loop\n/srv/disk /srv/d ext4 loop\n"
    )
    assert [line.number for line in made.replaced] == [2, 3]


REFUSED = [
    ("nothing", "", "found no line that mounts an image file from an NFS share"),
    ("no image", lines(image="-"), "found no line that mounts an image file"),
    ("no share", lines(share="-"), "found no line that mounts an image file"),
    (
        "an offset",
        lines(image=f"{IMAGE} ext4 loop,offset=1048576"),
        "line 3: offset=1048576: an image is one file system",
    ),
    ("a part", lines(image=f"{IMAGE} ext4 loop,sizelimit=1G"), "line 3: sizelimit=1G"),
    ("version 2", RECIPE.replace("4.1", "2"), "line 2: NFS version 2: expected 3, 4.0, 4.1 or 4.2"),
    ("no server", lines(share="/docker /nfs/docker nfs defaults"), "line 2: expected SERVER:/EXPORT, found /docker"),
    ("two shares", f"{RECIPE}nas.local:/b /nfs/b nfs\n/nfs/b/x /srv/x ext4 loop\n", "expected all images on one share"),
    ("a brace", RECIPE.replace("/loop", "/{loop}"), "lines 1, 2, 3 cannot be said in a configuration"),
    ("a system folder", lines(image="/nfs/docker/loop /var ext4 loop"), "mount point that is not a system folder"),
    ("xfs on version 3", f"{SHARE} nfs vers=3\n{IMAGE} xfs loop\n", "works on ext4 only"),
]


@pytest.mark.parametrize(("title", "text", "message"), REFUSED, ids=[case[0] for case in REFUSED])
def test_refused(title: str, text: str, message: str) -> None:
    with pytest.raises(RpinfsError) as caught:
        imported(text)
    assert message in caught.value.message, title


def test_a_file_that_cannot_be_seen_is_remarked() -> None:
    asked: list[str] = []
    fstab.import_fstab(RECIPE, asked.append)
    assert asked == ["/nfs/docker/loop"]
    (remark,) = fstab.import_fstab(RECIPE, unseen).remarks
    assert "could not be seen" in remark
    assert "10G" in remark


def test_the_size_is_left_to_the_file() -> None:
    assert "Size=" not in imported(RECIPE).config


@pytest.mark.parametrize("what", ["/nfs/docker/", "/nfs/docker//"])
def test_the_share_itself_is_no_image(what: str) -> None:
    with pytest.raises(RpinfsError, match=f"line 3: {what} is the share itself; expected a file below it"):
        imported(RECIPE.replace("/nfs/docker/loop", what))


def test_a_length_that_is_no_multiple_of_a_block_is_remarked() -> None:
    assert "has 1000001 bytes" in fstab.import_fstab(RECIPE, lambda _: 1000001).remarks[0]


words = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=12)
option = st.sampled_from(
    ["ro", "rw", "soft", "vers=4.1", "vers=3", "nfsvers=4", "minorversion=1", "loop", "noatime", "bg", "offset=0",
     "nolock", "x-systemd.requires=/a", "defaults", "barrier=0", "data=journal", "retry=5", "a b", 'q"'],
)  # fmt: skip
options = st.lists(option | words, max_size=5).map(lambda found: ",".join(found).replace(" ", "\\040") or "defaults")
path = st.lists(words, max_size=3).map(lambda found: "/" + "/".join(found).replace(" ", "\\040"))
kind = st.sampled_from(["nfs", "nfs4", "ext4", "xfs", "auto", "none"])


@given(boot=options, share=options, image=options, folder=path, file=path, where=path, kind=kind)
def test_whatever_comes_out_loads(
    boot: str, share: str, image: str, folder: str, file: str, where: str, kind: str
) -> None:
    text = (
        f"nas:/tftpboot /boot nfs {boot}\nnas:{folder} /nfs{folder} nfs {share}\n"
        f"/nfs{folder}{file} /var/lib/docker {kind} {image}\n/nfs{folder}/x {where} ext4 loop\n"
    )
    try:
        made = imported(text)
    except RpinfsError as error:
        assert "\n" not in error.message
        return
    config = loaded(made)
    assert config.share.where.startswith("/nfs")
    load(Host(config_files=[("printed", fstab.render(made, "/etc/fstab"))]))
