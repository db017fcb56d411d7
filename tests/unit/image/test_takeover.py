"""Hand-written mounts become a configuration that says the same, or an error; never something that does not load."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.boot.config import Config, load
from rpinfs.boot.host import Host
from rpinfs.errors import RpinfsError
from rpinfs.image import takeover, takeover_text

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


def imported(text: str) -> takeover_text.Imported:
    return takeover.import_fstab(text, seen)


def loaded(made: takeover_text.Imported) -> Config:
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
    text = takeover_text.render(made, "/etc/fstab")
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
        ("line 3: nothing waits for the image data at /srv/data any more",),
    ),
    Variation(
        "two images",
        f"{RECIPE}/nfs/docker/two /srv/Some.Data xfs loop\n/nfs/docker/three /mnt/docker ext4 loop\n",
        "[Image docker]\nFile=loop\n[Image some-data]\nFile=two\nFileSystem=xfs\nWhere=/srv/Some.Data\n"
        "[Image docker-2]\nFile=three\nWhere=/mnt/docker",
        ("line 4: nothing waits for the image some-data", "line 5: nothing waits for the image docker-2"),
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
    Variation("type of a list", lines(image=f"{IMAGE} ext3,ext4 loop"), CONFIG),
    Variation("types to try", lines(image=f"{IMAGE} xfs,ext4 loop"), CONFIG),
    Variation("type auto for NFS", lines(share=f"{SHARE} auto vers=4.1"), CONFIG),
    Variation("any NFS type", lines(share=f"{SHARE} nfs4,nfs vers=4.1"), CONFIG),
    Variation("slashes in the sources", RECIPE.replace(":/docker", "://docker/").replace("/loop", "//loop"), CONFIG),
    Variation("the root of the server", RECIPE.replace(":/docker ", ":/ "), "Export=/\nWhere=/nfs/docker\nFile=loop"),
    Variation("escapes", RECIPE.replace("/loop", "/lo\\157p").replace("nas.", "n\\141s."), CONFIG),
    Variation("tags in quotes", f'LABEL="a" /srv ext4 defaults\nUUID="AA" /var/x ext4\n{RECIPE}', CONFIG),
    Variation(
        "an older file system", f"{RECIPE}/nfs/docker/old /srv/old ext3 loop\n", CONFIG,
        ("line 4: an image is ext4 or xfs, this is ext3; left alone",),
    ),
    Variation(
        "podman's", f"{RECIPE}/nfs/docker/pod /var/lib/containers ext4 loop\n", "File=pod\nWhere=/var/lib/containers",
        (("line 4: nothing waits for the image containers at /var/lib/containers any more, and what starts before it"
          " is mounted writes below its mount point; write below [Image containers]: Before=podman.service podman"),),
    ),
    Variation(
        "k3s's", lines(image="/nfs/docker/k3s /var/lib/rancher/k3s ext4 loop"), "[Image k3s]\nFile=k3s",
        ("write below [Image k3s]: Before=k3s.service k3s-agent.service",),
    ),
    Variation(
        "containerd's own", f"{RECIPE}/nfs/docker/ctd /var/lib/containerd ext4 loop\n",
        "[Image docker]\nFile=loop\nBind=\n[Image containerd]\nFile=ctd\nWhere=/var/lib/containerd",
        ("line 4: nothing waits for the image containerd at /var/lib/containerd any more",),
    ),
    Variation(
        "a disk below the image", f"{RECIPE}/dev/sda1 /var/lib/docker/volumes ext4 defaults,noatime 0 2\n", CONFIG,
        (("line 4: /var/lib/docker/volumes lies below /var/lib/docker, where line 3 mounts an image; left alone. Give"
          " it the options nofail,_netdev"),),
    ),
    Variation(
        "an image below the image", f"{RECIPE}/nfs/docker/vol /var/lib/docker/volumes ext4 loop\n", CONFIG,
        ("line 4: /var/lib/docker/volumes lies below /var/lib/docker, where line 3 mounts an image: give it",),
    ),
    Variation(
        "two at one place", f"{RECIPE}/nfs/docker/b /var/lib/docker/ ext4 loop\n", CONFIG,
        ("line 4: line 3 mounts at /var/lib/docker already, and systemd takes the first; left alone",),
    ),
    Variation(
        "swap on the image", f"{RECIPE}/var/lib/docker/swap none swap sw 0 0\n", CONFIG,
        ("line 4: swap in /var/lib/docker/swap lies on the image of line 3; left alone",),
    ),
    Variation(
        "swap on the share", f"{RECIPE}/nfs/docker/swap none swap sw 0 0\n", CONFIG,
        ("line 4: swap in /nfs/docker/swap lies on the NFS mount of line 2; left alone",),
    ),
    Variation(
        "a folder of the share elsewhere", f"{RECIPE}/nfs/docker/media /srv/media none bind 0 0\n", CONFIG,
        ("line 4: /srv/media shows a folder of the NFS mount of line 2; left alone",),
    ),
    Variation(
        "containerd on a disk", f"{RECIPE}LABEL=ctd /var/lib/containerd ext4 defaults 0 2\n", CONFIG,
        ("line 4: LABEL=ctd (ext4) is mounted at /var/lib/containerd, and is no image on an NFS share; left alone",),
    ),
    Variation(
        "the tutorial's Pi",
        "192.0.2.10:/volume1/rpi-tftpboot/92003445 /boot/firmware nfs defaults,vers=3,proto=tcp 0 0\n",
        "[Server]\nAddress=192.0.2.10\nVersion=3\n[Boot]\nExport=/volume1/rpi-tftpboot/92003445\n"
        "Where=/boot/firmware\nOptions=ro,proto=tcp",
        ("line 1: with version 3", "line 1: /boot/firmware becomes read-only",
         ("line 1: no line mounts a share with an image, so the defaults count: 192.0.2.10:/docker is mounted at"
         " /nfs/docker")),
        absent=("[Share]", "[Image"),
    ),
    Variation(
        "boot files and a share", lines(image="-"),
        "Address=nas.local\nExport=/tftpboot\n[Share]\nExport=/docker\nWhere=/nfs/docker",
        ("line 2: no line mounts an image from this share: an image of 10G for Docker is made there",),
        absent=("[Image",),
    ),
    Variation(
        "boot files and other mounts", "nas:/boot /boot nfs ro,vers=4.1\nnas:/media /media nfs\n", "Export=/boot",
        ("line 1: no line mounts a share", "line 2: /media is an NFS mount with no image on it; left alone"),
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
    ("no image, no boot files", lines(boot="-", image="-"), "found no line that mounts an image file"),
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


NOTHING = [
    (
        "an image on no share",
        "/srv/disk.img /var/lib/docker ext4 loop\n",
        ["line 1: /srv/disk.img does not lie on an NFS mount of this fstab; left alone"],
    ),
    (
        "Docker straight on NFS",
        "nas:/boot /boot nfs ro,vers=4.1\nnas:/d /var/lib/docker nfs vers=4.1\n",
        [
            "line 1: /boot: left alone with the rest",
            (
                "line 2: nas:/d (nfs) is mounted at /var/lib/docker, and is no image on an NFS share; left alone. As"
                " long as it stands there it wins, and rpinfs mounts nothing at /var/lib/docker"
            ),
        ],
    ),
    (
        "Docker on a disk",
        "LABEL=a / ext4\n/dev/sda1 /var/lib/docker ext4 noatime 0 2\n/var/lib/docker/s none swap\n",
        ["line 2: /dev/sda1 (ext4) is mounted at /var/lib/docker"],
    ),
    (
        "a share with nothing on it",
        "nas:/docker /nfs/docker nfs vers=4.1\nnas:/m /m nfs\n",
        ["line 1: /nfs/docker is an NFS mount with no image on it", "line 2: /m is an NFS mount with no image on it"],
    ),
    (
        "version 2",
        RECIPE.replace("4.1", "2"),
        ["line 1: /boot: left alone with the rest", "line 2: /nfs/docker", "line 3: "],
    ),
]


@pytest.mark.parametrize(("title", "text", "remarks"), NOTHING, ids=[case[0] for case in NOTHING])
def test_with_nothing_to_import_every_line_is_told_of(title: str, text: str, remarks: list[str]) -> None:
    with pytest.raises(takeover.NothingImportedError) as caught:
        imported(text)
    found = caught.value.remarks
    assert len(found) == len(remarks), found
    for remark, part in zip(found, remarks, strict=True):
        assert remark.startswith(part), title


def test_a_file_that_cannot_be_seen_is_remarked() -> None:
    asked: list[str] = []
    takeover.import_fstab(RECIPE, asked.append)
    assert asked == ["/nfs/docker/loop"]
    (remark,) = takeover.import_fstab(RECIPE, unseen).remarks
    assert "could not be seen" in remark
    assert "10G" in remark


def test_the_size_is_left_to_the_file() -> None:
    assert "Size=" not in imported(RECIPE).config


@pytest.mark.parametrize("what", ["/nfs/docker/", "/nfs/docker//"])
def test_the_share_itself_is_no_image(what: str) -> None:
    with pytest.raises(RpinfsError, match="line 3: /nfs/docker is the share itself; expected a file below it"):
        imported(RECIPE.replace("/nfs/docker/loop", what))


def test_a_length_that_is_no_multiple_of_a_block_is_remarked() -> None:
    assert "has 1000001 bytes" in takeover.import_fstab(RECIPE, lambda _: 1000001).remarks[0]


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
    load(Host(config_files=[("printed", takeover_text.render(made, "/etc/fstab"))], serial="1"))
