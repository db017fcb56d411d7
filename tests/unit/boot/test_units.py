"""The rules of units.py, each on the texts that it makes; whole outputs stand in tests/golden."""

from __future__ import annotations

import re

import pytest

from rpinfs.boot.config import examine, load
from rpinfs.boot.host import MAIN_FILE, Host
from rpinfs.boot.storage import LOOP_MAJOR
from rpinfs.boot.units import Units, fstab_mount_points, guards, mount_unit, unescape_octal, units
from tests.support import TOP

THREE = "[Image docker]\n[Image data]\nWhere=/srv/data\nBind=/srv/a-b /srv/50%\nBefore=docker.service k3s.service\n"
AWKWARD = (
    "[Server]\nAddress=fe80::1%eth0\nOptions=acl,comment=%h\n[Share]\nWhere=/nfs/my docker 50%\nExport=/my docker 50%\n"
    "[Image docker]\nFile=my image 50%.img\nWhere=/srv/a b-c.d%i\nOptions=context=%t\n"
)


def make(text: str = "", fstab: str = "", cmdline: str = "nfsroot=10.0.0.1:/pi") -> Units:
    return units(load(Host(config_files=[(MAIN_FILE, text)], cmdline=cmdline, serial="5e")), fstab)


def settings_of(text: str) -> dict[str, list[str]]:
    """Settings of a unit file: name to values; `[Section]` headers and comments left out."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found.setdefault(key, []).append(value)
    return found


def mounts_of(made: Units) -> dict[str, dict[str, list[str]]]:
    return {name: settings_of(text) for name, text in made.files.items() if name.endswith(".mount")}


@pytest.mark.parametrize("text", ["", THREE, AWKWARD, "[Server]\nVersion=3\n", "[Boot]\nWhere=/boot\n"])
def test_every_mount_keeps_the_boot_going(text: str) -> None:
    """Rules 1 and 2: never ordered before local-fs.target, never a reason for the boot to fail."""
    made = make(text)
    for name, settings in mounts_of(made).items():
        (options,) = settings["Options"]
        assert {"_netdev", "nofail"} <= set(options.split(",")), name
        assert name == mount_unit(settings["Where"][0].replace("%%", "%"))
        assert made.links[f"remote-fs.target.wants/{name}"] == f"../{name}"
        assert len(name) <= 255
    assert "local-fs" not in "".join(made.files.values())
    assert not any("requires" in link or "local-fs" in link for link in made.links)


def test_no_restart_of_the_agent_reaches_the_image() -> None:
    """Rule 3."""
    image = mounts_of(make())["var-lib-docker.mount"]
    agent = ["rpinfs-agent.service rpinfs-attach@docker.service"]
    assert image["Wants"] == agent and image["After"] == agent
    assert image["RequiresMountsFor"] == ["/nfs/docker"]
    assert "Requires" not in image and "BindsTo" not in image


def test_the_image_waits_for_its_device_and_what_needs_it_requires_it() -> None:
    """Rules 4 and 5."""
    made = make()
    assert mounts_of(made)["var-lib-docker.mount"]["ConditionPathExists"] == ["/run/rpinfs/docker"]
    bind = mounts_of(made)["var-lib-containerd.mount"]
    assert bind["BindsTo"] == bind["After"] == ["var-lib-docker.mount"]
    for unit in ("docker.service", "containerd.service"):
        drop_in = settings_of(made.files[f"{unit}.d/50-rpinfs-mounts.conf"])
        # The gate is required by the static drop-in of the package. BindsTo= would stop a running Docker at the
        # daemon-reload that brings it.
        mounts = ["var-lib-docker.mount var-lib-containerd.mount"]
        assert drop_in == {"Requires": mounts, "After": mounts}


def test_a_unit_of_the_users_requires_the_gate_too() -> None:
    drop_in = settings_of(make(THREE).files["k3s.service.d/50-rpinfs-mounts.conf"])
    after = ["rpinfs-gate.service", "srv-data.mount srv-a\\x2db.mount srv-50\\x25.mount"]
    assert drop_in == {"Requires": after, "After": after}


def test_guards_stand_alone() -> None:
    """What a wrong configuration leaves: docker.service and containerd.service have theirs from the package."""
    config, errors = examine(Host(config_files=[(MAIN_FILE, THREE + "Sise=1G\n")], cmdline="nfsroot=10.0.0.1:/pi"))
    made = guards(config)
    assert errors and made.links == {}
    assert list(made.files) == ["k3s.service.d/50-rpinfs-mounts.conf", "docker.socket.d/50-rpinfs-limit.conf"]
    gate = ["rpinfs-gate.service"]
    assert settings_of(made.files["k3s.service.d/50-rpinfs-mounts.conf"]) == {"Requires": gate, "After": gate}


def test_a_unit_that_waits_for_two_images_has_both_in_one_section() -> None:
    text = make(THREE).files["docker.service.d/50-rpinfs-mounts.conf"]
    assert text.count("[Unit]") == 1 and text.count("#") == 1
    assert settings_of(text)["Requires"] == [
        "var-lib-docker.mount var-lib-containerd.mount",
        "srv-data.mount srv-a\\x2db.mount srv-50\\x25.mount",
    ]


def test_the_gate_wants_the_mounts_and_requires_none() -> None:
    """Rule 6."""
    gate = settings_of(make(THREE).files["rpinfs-gate.service.d/50-rpinfs-mounts.conf"])
    all_mounts = "var-lib-docker.mount var-lib-containerd.mount srv-data.mount srv-a\\x2db.mount srv-50\\x25.mount"
    assert gate == {"Wants": [all_mounts], "After": ["rpinfs-agent.service " + all_mounts]}


def test_the_agent_outlives_the_mount_of_the_share() -> None:
    made = make()
    agent = settings_of(made.files["rpinfs-agent.service.d/50-rpinfs-mounts.conf"])
    assert agent == {"Wants": ["nfs-docker.mount"], "After": ["nfs-docker.mount"]}
    assert made.links["multi-user.target.wants/rpinfs-agent.service"] == "/usr/lib/systemd/system/rpinfs-agent.service"


def test_only_mounts_from_the_nas_are_bounded() -> None:
    """Rule 7."""
    bounded = {name for name, settings in mounts_of(make(THREE)).items() if "TimeoutSec" in settings}
    assert bounded == {"boot-firmware.mount", "nfs-docker.mount"}


def test_the_share_is_hard_whatever_a_person_adds() -> None:
    options = mounts_of(make("[Server]\nOptions=acl,timeo=50\n"))["nfs-docker.mount"]["Options"]
    assert options == ["vers=4.1,acl,timeo=50,hard,_netdev,nofail"]


def test_specifiers_and_spaces_come_through() -> None:
    made = make(AWKWARD)
    mounts = mounts_of(made)
    share = mounts[r"nfs-my\x20docker\x2050\x25.mount"]
    assert share["What"] == ["[fe80::1%%eth0]:/my docker 50%%"] and share["Where"] == ["/nfs/my docker 50%%"]
    assert "comment=%%h" in share["Options"][0]
    image = mounts[r"srv-a\x20b\x2dc.d\x25i.mount"]
    assert image["RequiresMountsFor"] == ['"/nfs/my docker 50%%"']
    assert image["Options"] == ["context=%%t,_netdev,nofail"]
    assert image["Description"] == ["Image docker (/nfs/my docker 50%%/my image 50%%.img)"]


@pytest.mark.parametrize(("text", "kind"), [("", "auto"), ("FileSystem=ext4\n", "ext4"), ("FileSystem=xfs\n", "xfs")])
def test_an_image_with_another_file_system_is_used_as_it_is(text: str, kind: str) -> None:
    made = make("[Image docker]\n" + text)
    assert mounts_of(made)["var-lib-docker.mount"]["Type"] == [kind]


def test_nothing_where_rpinfs_is_not_in_use() -> None:
    made = make("nonsense", cmdline="nfsroot=10.0.0.1:/pi rpinfs=off")
    assert (made.files, made.links, made.remarks) == ({}, {}, [])


def test_no_boot_mount() -> None:
    made = make("[Boot]\nExport=\n")
    assert not [name for name in made.files if name.startswith("boot")]


@pytest.mark.parametrize(
    ("line", "wins"),
    [
        ("nas:/docker /nfs/docker nfs defaults 0 0", True),
        ("nas:/docker\t/nfs/docker\tnfs", True),
        ("  nas:/docker /nfs//docker/ nfs noauto 0 0", True),
        ("#nas:/docker /nfs/docker nfs defaults 0 0", False),
        ("  # nas:/docker /nfs/docker nfs defaults 0 0", False),
        ("nas:/docker /nfs/docker2 nfs defaults 0 0", False),
        ("/nfs/docker /srv none bind,nofail 0 0", False),
        ("/dev/sda2 none swap sw 0 0", False),
        ("nas:/docker /nfs/docker", False),
    ],
)
def test_fstab_wins(line: str, wins: bool) -> None:
    made = make(fstab=f"# a comment\n{line}\n")
    assert ("nfs-docker.mount" not in made.files) is wins
    assert ("remote-fs.target.wants/nfs-docker.mount" not in made.links) is wins
    assert made.remarks == (
        ["/nfs/docker is mounted by line 2 of /etc/fstab; rpinfs writes no nfs-docker.mount"] if wins else []
    )
    # Who needs the mount needs it whoever made it.
    assert "Wants=nfs-docker.mount" in made.files["rpinfs-agent.service.d/50-rpinfs-mounts.conf"]


def test_mount_points_of_an_fstab() -> None:
    fstab = "/dev/a / ext4\n\n# c\n/dev/b /my\\040docker ext4\n/dev/c swap swap\n\x0c\n/dev/d /d/ ext4 defaults\n"
    assert fstab_mount_points(fstab) == {"/": 1, "/my docker": 4, "/d": 7}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("/a", "/a"),
        (r"/a\040b", "/a b"),
        (r"\011\012\134", "\t\n\\"),
        (r"a\134x2db", r"a\x2db"),
        (r"a\9", r"a\9"),
        ("a\\", "a\\"),
    ],
)
def test_octal_escapes(text: str, plain: str) -> None:
    assert unescape_octal(text) == plain


@pytest.mark.parametrize("unit", ["rpinfs-agent.service", "rpinfs-gate.service"])
def test_loop_devices_are_allowed_with_and_without_their_driver(unit: str) -> None:
    """By their number: systemd leaves out a name that is not in /proc/devices yet."""
    groups = re.findall(r"^DeviceAllow=((?:block|char)-\S+)", (TOP / "units" / unit).read_text(), re.MULTILINE)
    assert groups == [f"block-{LOOP_MAJOR}"]
