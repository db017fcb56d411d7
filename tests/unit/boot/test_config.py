"""From texts to settings: whether rpinfs is in use, where values come from, and the parts of the parser.

Wrong and right values have a table of their own, test_wrong_values.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.boot.config import DEFAULT, Config, examine, load
from rpinfs.boot.host import COMMAND_LINE, MAIN_FILE, Host
from rpinfs.errors import ConfigError
from tests.support import Installed, make_tree

ON_NFS = "root=/dev/nfs nfsroot=10.0.0.1:/pi ip=dhcp"
NFS_ROOT = "30 1 0:26 / / rw,relatime shared:1 - nfs4 10.0.0.2:/pi rw,vers=4.2,addr=10.0.0.2\n"
DISK_ROOT = "30 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"


def host(
    config: str = "", cmdline: str = ON_NFS, mountinfo: str = "", container: bool = False, drop_in: str | None = None
) -> Host:
    files = [(MAIN_FILE, config)] + ([] if drop_in is None else [("/etc/rpinfs/rpinfs.conf.d/a.conf", drop_in)])
    return Host(config_files=files, cmdline=cmdline, mountinfo=mountinfo, container=container, serial="5e", mac="aa-bb")


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (host(), ""),
        (host(cmdline="nfsroot=/pi"), "server"),
        (host(cmdline="root=nfs4:10.0.0.1:/pi"), ""),
        (host(cmdline="", mountinfo=NFS_ROOT), ""),
        (host(cmdline="root=/dev/sda1", mountinfo=DISK_ROOT), "the root is not on NFS and there is no configuration"),
        (host("# nothing\n\n;\n", cmdline=""), "the root is not on NFS and there is no configuration"),
        (host("[Server]\nAddress=nas\n", cmdline=""), ""),
        (host("", cmdline="", drop_in="[Server]\nAddress=nas\n"), ""),
        (host("", cmdline="rpinfs.server.address=nas"), ""),
        (host("[Server]\nAddress=nas\n", ON_NFS + " rpinfs=off"), "rpinfs=off stands on the kernel command line"),
        (host(cmdline=ON_NFS + " rpinfs=No"), "rpinfs=off stands on the kernel command line"),
        (host(cmdline=ON_NFS + ' "rpinfs=off"'), "rpinfs=off stands on the kernel command line"),
        (host(cmdline=ON_NFS + " rpinfs=0 rpinfs=1"), ""),
        (host("[Server]\nAddress=nas\n", container=True), "this is a container"),
        (host(cmdline=ON_NFS + " rpinfs=off", container=True), "this is a container"),
        # After `--` are words for init.
        (host(cmdline=ON_NFS + " -- rpinfs=off"), ""),
    ],
)
def test_in_use(machine: Host, reason: str) -> None:
    config, errors = examine(machine)
    if reason == "server":
        assert "set Address= in [Server]" in errors[0].message
    else:
        assert (config.in_use, config.reason, errors) == (not reason, reason, [])


def test_a_machine_that_is_not_in_use_has_no_errors() -> None:
    assert not load(host("nonsense\n", ON_NFS + " rpinfs=off")).in_use
    assert not load(host("nonsense\n", container=True)).in_use


@pytest.mark.parametrize("cmdline", [ON_NFS, "root=/dev/sda1"])
def test_a_file_that_cannot_be_read_is_not_taken_for_none(cmdline: str) -> None:
    """With the root elsewhere, rpinfs would else not be in use, and Docker start on whatever is there."""
    config, errors = examine(Host(unreadable=[(MAIN_FILE, "Permission denied")], cmdline=cmdline, serial="5e"))
    assert config.in_use
    assert [error.message for error in errors if error.file == MAIN_FILE] == [
        f"{MAIN_FILE}: cannot be read: Permission denied"
    ]


@pytest.mark.parametrize("name", ["rpinfs.conf", "rpinfs.conf.d/a.conf"])
@pytest.mark.parametrize("cmdline", [ON_NFS, "root=/dev/sda1"])
def test_a_link_to_nowhere_holds_docker_back(root: Path, installed: Installed, name: str, cmdline: str) -> None:
    make_tree(root, {"proc/cmdline": cmdline, "proc/device-tree/serial-number": "5e",
                     f"etc/rpinfs/{name}": Path("/nonexistent")})  # fmt: skip
    done = installed.run(installed.rpinfs, "gate", root=root)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"rpinfs: /etc/rpinfs/{name}: cannot be read: No such file or directory\n")
    assert installed.run(installed.generator, root / "units", root=root).returncode == 1


def test_load_raises_the_first_error() -> None:
    with pytest.raises(ConfigError) as caught:
        load(host("[Server]\nOptions=soft\nVersion=9\n[Image docker]\nSize=1\n"))
    assert (caught.value.file, caught.value.line, caught.value.status) == (MAIN_FILE, 2, 2)


def shown(config: Config) -> dict[str, tuple[str, str]]:
    return {
        f"{value.section}{'.' if value.name else ''}{value.name}.{value.key}": (value.text, value.origin)
        for value in config.values
    }


def test_every_value_tells_where_it_comes_from() -> None:
    text = "[Server]\nOptions=acl\nOptions=timeo=50\n[Image docker]\nSize=20G\nBind=/srv/a\nBind=/srv/b\nBefore=\n"
    config = load(
        host(text, ON_NFS + " rpinfs.server.version=4.2 rpinfs.image.docker.size=30G", drop_in="[Boot]\nExport=\n")
    )
    values = shown(config)
    assert values == {
        "Server.Address": ("10.0.0.1", "nfsroot= on the kernel command line"),
        "Server.Version": ("4.2", COMMAND_LINE),
        "Server.Options": ("acl,timeo=50", f"{MAIN_FILE}:3"),
        "Boot.Export": ("", "/etc/rpinfs/rpinfs.conf.d/a.conf:2"),
        "Boot.Where": ("/boot/firmware", DEFAULT),
        "Boot.Options": ("ro", DEFAULT),
        "Share.Export": ("/docker", DEFAULT),
        "Share.Where": ("/nfs/docker", DEFAULT),
        "Image.docker.File": ("docker-{serial}.img", DEFAULT),
        "Image.docker.Size": ("30G", COMMAND_LINE),
        "Image.docker.FileSystem": ("ext4", DEFAULT),
        "Image.docker.Enabled": ("yes", DEFAULT),
        "Image.docker.Where": ("/var/lib/docker", DEFAULT),
        "Image.docker.Options": ("noatime", DEFAULT),
        "Image.docker.Bind": ("/srv/a /srv/b", f"{MAIN_FILE}:7"),
        "Image.docker.Before": ("", f"{MAIN_FILE}:8"),
        "Image.docker.DirectIO": ("yes", DEFAULT),
        "Image.docker.Fence": ("lease", DEFAULT),
        "Notify.Command": ("", DEFAULT),
    }


@pytest.mark.parametrize(
    ("text", "is_set"),
    [("", False), ("Size=10G\nFileSystem=ext4\n", True), ("Size=1G\nSize=\nFileSystem=xfs\nFileSystem=\n", False)],
)
def test_a_value_that_somebody_wrote_is_told_from_the_default(text: str, is_set: bool) -> None:
    (image,) = load(host("[Image docker]\n" + text)).images
    assert (image.size, image.filesystem) == (10 << 30, "ext4")
    assert (image.size_is_set, image.filesystem_is_set) == (is_set, is_set)


def test_what_docker_has_by_default_no_other_image_has() -> None:
    docker, data = load(host("[Image docker]\n[Image data]\nWhere=/srv/data\n")).images
    assert (docker.bind, docker.before) == (["/var/lib/containerd"], ["docker.service", "containerd.service"])
    assert (data.file, data.bind, data.before) == ("data-5e.img", [], [])


@pytest.mark.parametrize(
    ("text", "cmdline", "images", "disabled"),
    [
        # Promise 3: it sent Docker to the NFS root, by vfs, and everything was called right.
        ("[Image registry]\nWhere=/srv/registry\n", "", ["docker", "registry"], {}),
        ("[Image registry]\nWhere=/srv/registry\n[Image docker]\n", "", ["registry", "docker"], {}),
        ("[Image docker]\nEnabled=no\n", "", [], {"docker": f"{MAIN_FILE}:2"}),
        ("", " rpinfs.image.docker.enabled=off", [], {"docker": COMMAND_LINE}),
        ("[Image docker]\nEnabled=no\n", " rpinfs.image.docker.enabled=1", ["docker"], {}),
        ("[Image docker]\nEnabled=no\nEnabled=\n", "", ["docker"], {}),
        ("[Image a]\nWhere=/srv/a\nEnabled=0\n", "", ["docker"], {"a": f"{MAIN_FILE}:3"}),
        # What is out of use need not agree with what is in use.
        ("[Image docker]\nEnabled=no\n[Image m]\nWhere=/var/lib/docker\n", "", ["m"], {"docker": f"{MAIN_FILE}:2"}),
        ("[Image a]\nFile={hostname}\nWhere=/nfs/docker\nFence=mmp\nFileSystem=xfs\nSize=64M\nEnabled=no\n", "",
         ["docker"], {"a": f"{MAIN_FILE}:7"}),
    ],
)  # fmt: skip
def test_images_in_use(text: str, cmdline: str, images: list[str], disabled: dict[str, str]) -> None:
    config = load(host(text, ON_NFS + cmdline))
    assert ([image.name for image in config.images], config.disabled) == (images, disabled)


def test_what_is_out_of_use_is_checked_and_shown_all_the_same() -> None:
    config, errors = examine(host("[Image a]\nEnabled=no\nSize=2X\nWhere=/srv/a\n"))
    assert [error.line for error in errors] == [3]
    assert shown(config)["Image.a.Enabled"] == ("no", f"{MAIN_FILE}:2")
    assert shown(config)["Image.a.Where"] == ("/srv/a", f"{MAIN_FILE}:4")


@given(
    st.lists(
        st.sampled_from(["[Server]", "[Image a]", "Address=x", "Where=/x", "", "#", "\\", "x\\", "[", "=", "Size=1G"])
    )
)
def test_no_file_breaks_the_reading(lines: list[str]) -> None:
    config, errors = examine(host("\n".join(lines)))
    assert config.in_use and all(error.message for error in errors)
