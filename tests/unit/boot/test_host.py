"""What the machine says of itself: the kernel command line, the server of the root, identity, configuration files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpinfs.boot import host
from rpinfs.boot.config import load
from rpinfs.boot.host import Host, remember_nic, root_server, serial_of, words
from rpinfs.lease.owner import Owner
from tests.support import Content, Installed, make_pi, make_tree

BY_NFSROOT = "nfsroot= on the kernel command line"
BY_IP = "ip= on the kernel command line"
BY_MOUNT = "the mounted root"


def mountinfo(where: str = "/", kind: str = "nfs4", source: str = "10.0.0.9:/pi", options: str = "rw") -> str:
    return f"22 1 0:20 / {where} rw,relatime shared:1 master:2 - {kind} {source} {options}\n"


# Linux Documentation/admin-guide/nfs/nfsroot.rst and dracut.cmdline(7).
@pytest.mark.parametrize(
    ("cmdline", "mounted", "expected"),
    [
        ("", "", ("", "")),
        ("root=/dev/sda1", mountinfo(kind="ext4", source="/dev/sda1"), ("", "")),
        ("root=/dev/nfs nfsroot=10.0.0.1:/pi", "", ("10.0.0.1", BY_NFSROOT)),
        ("root=/dev/nfs nfsroot=10.0.0.1:/pi,vers=4.1,proto=tcp rw ip=dhcp", "", ("10.0.0.1", BY_NFSROOT)),
        ("nfsroot=nas.local:/pi", "", ("nas.local", BY_NFSROOT)),
        ("nfsroot=[2001:db8::1]:/pi,vers=4.2", "", ("2001:db8::1", BY_NFSROOT)),
        ("nfsroot=10.0.0.1:/pi/%s", "", ("10.0.0.1", BY_NFSROOT)),
        # No server in nfsroot=: the second field of ip=.
        ("nfsroot=/pi ip=10.0.0.5:10.0.0.1:10.0.0.254:255.255.255.0:pi:eth0:off", "", ("10.0.0.1", BY_IP)),
        ("nfsroot=/pi,vers=3 ip=:10.0.0.1::::eth0:dhcp", "", ("10.0.0.1", BY_IP)),
        ("nfsroot=/pi ip=[2001:db8::5]:[2001:db8::1]::64:pi:eth0:none", "", ("2001:db8::1", BY_IP)),
        ("nfsroot=10.0.0.2:/pi ip=:10.0.0.1:::::", "", ("10.0.0.2", BY_NFSROOT)),
        # With DHCP the server is told by DHCP, and only the mounted root knows it.
        ("nfsroot=/pi ip=dhcp", mountinfo(options="rw,addr=10.0.0.9"), ("10.0.0.9", BY_MOUNT)),
        ("nfsroot=/pi,vers=4.1 ip=10.0.0.5::10.0.0.254:255.255.255.0::eth0:off", mountinfo(), ("10.0.0.9", BY_MOUNT)),
        ("nfsroot=/pi ip=eth0:dhcp", mountinfo(), ("10.0.0.9", BY_MOUNT)),
        ("nfsroot=/pi ip=eth0:dhcp:1500", "", ("", "")),
        ("nfsroot=/pi ip=any", "", ("", "")),
        # dracut has the root itself in root=.
        ("root=nfs:10.0.0.1:/pi:vers=4.1", "", ("10.0.0.1", BY_NFSROOT)),
        ("root=nfs4:[2001:db8::1]:/pi", "", ("2001:db8::1", BY_NFSROOT)),
        ("root=nfs:/pi ip=dhcp", mountinfo(), ("10.0.0.9", BY_MOUNT)),
        # The last word wins, as in the kernel.
        ("nfsroot=10.0.0.1:/a nfsroot=10.0.0.2:/b", "", ("10.0.0.2", BY_NFSROOT)),
        ("nfsroot=10.0.0.1:/a nfsroot=/b", mountinfo(), ("10.0.0.9", BY_MOUNT)),
        # The mounted root: the number that the kernel talks to, before the name; of two mounts the one on top.
        ("", mountinfo(kind="nfs", source="nas:/pi"), ("nas", BY_MOUNT)),
        ("", mountinfo(source="nas:/pi", options="rw,clientaddr=10.0.0.5,addr=10.0.0.9"), ("10.0.0.9", BY_MOUNT)),
        ("", mountinfo(source="[2001:db8::1]:/pi", options="rw,addr=2001:db8::1"), ("2001:db8::1", BY_MOUNT)),
        ("", mountinfo() + mountinfo(kind="overlay", source="overlay"), ("", "")),
        ("", mountinfo(kind="tmpfs", source="tmpfs") + mountinfo(source="nas:/pi"), ("nas", BY_MOUNT)),
        ("", mountinfo(where="/nfs/docker"), ("", "")),
        ("", "garbage\n22 1 0:20 / / rw -\n", ("", "")),
    ],
)  # fmt: skip
def test_server_of_the_root(cmdline: str, mounted: str, expected: tuple[str, str]) -> None:
    assert root_server(cmdline, mounted) == expected


@pytest.mark.parametrize(
    ("cmdline", "mounted", "on_nfs"),
    [
        ("root=/dev/nfs", "", True),
        ("nfsroot=/pi", "", True),
        ("root=nfs:/pi", "", True),
        ("root=nfs4:x:/pi", "", True),
        ("", mountinfo(), True),
        ("root=/dev/nfsx1", "", True),
        ("root=/dev/mmcblk0p2", mountinfo(kind="ext4", source="/dev/mmcblk0p2"), False),
        ("xroot=/dev/nfs -- root=/dev/nfs", "", False),
        ("", "", False),
    ],
)
def test_root_on_nfs(cmdline: str, mounted: str, on_nfs: bool) -> None:
    assert Host(cmdline=cmdline, mountinfo=mounted).root_on_nfs is on_nfs


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [
        ("", []),
        ("  a  b=c\t d=e=f\n", [("a", ""), ("b", "c"), ("d", "e=f")]),
        ('a="b c" "d=e f" g"h i"j', [("a", "b c"), ("d", "e f"), ("gh ij", "")]),
        ("a -- b", [("a", "")]),
        ('a "--x" --', [("a", ""), ("--x", "")]),
        ('a "b', [("a", "")]),
    ],
)
def test_words_of_a_kernel_command_line(cmdline: str, expected: list[tuple[str, str]]) -> None:
    assert words(cmdline) == expected


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_text_breaks_the_readers(cmdline: str, mounted: str) -> None:
    for prefix in ("", "nfsroot=", "ip=", "root=nfs:"):
        root_server(prefix + cmdline, mounted)
    _ = Host(cmdline=cmdline, mountinfo=mounted).root_on_nfs


# Identity

ETH0: dict[str, Content] = {"sys/class/net/eth0/address": "dc:a6:32:00:00:01\n", "sys/class/net/eth0/device": None}
ETH1: dict[str, Content] = {"sys/class/net/eth1/address": "dc:a6:32:00:00:02\n", "sys/class/net/eth1/device": None}
BRIDGE: dict[str, Content] = {"sys/class/net/br0/address": "02:00:00:00:00:03\n"}
ETH0_IS_ETH1: dict[str, Content] = {"sys/class/net/eth0/address": "dc:a6:32:00:00:02\n"}
LOOPBACK: dict[str, Content] = {"sys/class/net/lo/address": "00:00:00:00:00:00\n"}
NICS: dict[str, Content] = {**BRIDGE, **ETH0, **ETH1, **LOOPBACK}
ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
DEFAULT_ROUTE = (
    ROUTES
    + "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    + "eth1\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
)


@pytest.mark.parametrize(
    ("cmdline", "files", "mac"),
    [
        ("", {}, ""),
        ("", LOOPBACK, ""),
        ("", BRIDGE, ""),
        ("", NICS, "dc-a6-32-00-00-01"),
        ("BOOTIF=01-AA-BB-CC-00-00-09", NICS, "aa-bb-cc-00-00-09"),
        ("BOOTIF=", NICS, "dc-a6-32-00-00-01"),
        ("ip=10.0.0.5:10.0.0.1::255.0.0.0:pi:eth1:off", NICS, "dc-a6-32-00-00-02"),
        ("ip=:::::eth1:dhcp", NICS, "dc-a6-32-00-00-02"),
        ("ip=eth1:dhcp", NICS, "dc-a6-32-00-00-02"),
        ("ip=10.0.0.5:10.0.0.1", NICS, "dc-a6-32-00-00-01"),
        ("ip=:::::../../x:dhcp", NICS, "dc-a6-32-00-00-01"),
        ("ip=:::::eth9:dhcp", NICS, "dc-a6-32-00-00-01"),
        ("ip=:::::lo:dhcp", NICS, "dc-a6-32-00-00-01"),
        ("ip=dhcp", {**NICS, "proc/net/route": DEFAULT_ROUTE}, "dc-a6-32-00-00-02"),
        ("ip=:::::eth0:dhcp", {**NICS, "proc/net/route": DEFAULT_ROUTE}, "dc-a6-32-00-00-01"),
        ("ip=dhcp", {**NICS, "proc/net/route": ROUTES}, "dc-a6-32-00-00-01"),
    ],
)
def test_mac_of_the_nic_that_booted(root: Path, cmdline: str, files: Mapping[str, Content], mac: str) -> None:
    make_tree(root, {"proc/cmdline": cmdline + "\n", **files})
    assert Host.read(str(root)).mac == mac


@pytest.mark.parametrize(
    ("nic", "mac", "cmdline", "carries"),
    [
        ("eth0", "dc-a6-32-00-00-01", "root=/dev/nfs", ("eth0", "dc:a6:32:00:00:01")),
        ("en-x_1", "", "nfsroot=/pi", ("en-x_1", "")),
        ("", "dc-a6-32-00-00-01", "root=nfs:10.0.0.1:/pi", ("", "dc:a6:32:00:00:01")),
        # These go into unit files: a name that is no word there, and an address that is none.
        ("eth0\nExecStart=x", "", "root=/dev/nfs", ("", "")),
        ("eth 0", "dc-a6-32-00-00-01-02", "root=/dev/nfs", ("", "")),
        ("größe0", "dc-a6-32-00-00-0x", "root=/dev/nfs", ("", "")),
        ("%i", "dc-a6-32-00-00-001", "root=/dev/nfs", ("", "")),
        ("eth0", "dc-a6-32-00-00-01", "root=/dev/sda1 rw", None),
    ],
)
def test_the_nic_that_carries_the_root(nic: str, mac: str, cmdline: str, carries: tuple[str, str] | None) -> None:
    assert Host(nic=nic, mac=mac, cmdline=cmdline).root_nic == carries


# Found on boards, or named by those who collect what firmware says (dmidecode, lshw, cloud-init's "bogus" serials).
@pytest.mark.parametrize(
    "text",
    ["", "\0", " \n", "0", "0000000000000000", "00000000000000000\0", "0x00000000", "00-00-00-00", "FFFFFFFFFFFFFFFF",
     "xxxxxxxx", "XXX", "........", "----", "None", " none\0", "NULL", "N/A", "To be filled by O.E.M.",
     "To Be Filled By O.E.M", "TO BE FILLED BY OEM\n", "Default string", "default", "Not Specified", "Not Available",
     "not set", "System Serial Number", "Serial Number", "Chassis Serial Number", "0123456789", "123456789",
     "0123456789ABCDEF", "12345678", "1234567890123456", "unknown", "Undefined", "OEM", "\udcff\udcff\udcff", "\udcff1",
     "\x1b[31m", "Ünspecified\x85"],
)  # fmt: skip
def test_a_serial_number_that_says_nothing_is_none(text: str) -> None:
    assert serial_of(text) == ""


@pytest.mark.parametrize(
    "text", ["10000000a1b2c3d4", "00000000a1b2c3d4", "0000000000000001", "PF0ABCDE", "C02-0001", "none1", "12"]
)
def test_a_serial_number_that_says_something_stays_as_it_is(text: str) -> None:
    assert serial_of(f"{text}\0") == serial_of(f" {text}\n") == text


@given(st.text(max_size=40))
def test_no_serial_number_breaks_the_reader(text: str) -> None:
    assert serial_of(text) in ("", text.strip("\0 \t\r\n"))


def test_two_boards_with_zeros_are_two_owners(tmp_path: Path) -> None:
    """Seen: real boards have a serial number of zeros, and two of them were one owner."""
    owners = set()
    for number in (1, 2):
        files = {**NICS, "proc/device-tree/serial-number": "0" * 16 + "\0"}
        files["sys/class/net/eth0/address"] = f"dc:a6:32:00:00:0{number}\n"
        root = make_pi(tmp_path / str(number), files=files)
        owner = Owner.of(Host.read(str(root)))
        images = load(Host.read(str(root))).images
        assert [image.file for image in images] == [f"docker-{owner.serial}.img"]
        owners.add(owner.serial)
    assert owners == {"dc-a6-32-00-00-01", "dc-a6-32-00-00-02"}


def test_the_identity_of_a_boot_does_not_follow_the_default_route(root: Path) -> None:
    make_tree(root, {"proc/cmdline": "ip=dhcp\n", **NICS})
    remember_nic(Host.read(str(root)))
    for change in (
        {"proc/net/route": DEFAULT_ROUTE},
        # udev has renamed it, and another has its name.
        {"sys/class/net/end0/address": "dc:a6:32:00:00:01\n", "sys/class/net/end0/device": None, **ETH0_IS_ETH1},
    ):
        host = Host.read(str(make_tree(root, change)))
        assert Owner.of(host).serial == host.mac == "dc-a6-32-00-00-01"
        remember_nic(host)
    assert host.nic == "end0"
    assert (root / "run/rpinfs/boot-nic").stat().st_mode & 0o777 == 0o644
    # What is not an address is not believed, and a boot loader knows better.
    for text in ("", "nonsense", "dc-a6-32-00-00", "00-00-00-00-00-00", "\x1b" * 17):
        (root / "run/rpinfs/boot-nic").write_text(text)
        assert Host.read(str(root)).mac == "dc-a6-32-00-00-02"
    (root / "proc/cmdline").write_text("BOOTIF=01-AA-BB-CC-00-00-09\n")
    assert Host.read(str(root)).mac == "aa-bb-cc-00-00-09"


@pytest.mark.parametrize(
    ("files", "cmdline", "remembered"),
    [
        ({}, "", True),
        ({"proc/device-tree/serial-number": "a1b2c3d4"}, "", False),
        ({"proc/device-tree/serial-number": "a1b2c3d4"}, "rpinfs.image.docker.file={mac}.img", True),
        ({"proc/device-tree/serial-number": "a1b2c3d4", "etc/rpinfs/rpinfs.conf": "# {mac}"}, "", True),
        ({}, "BOOTIF=01-AA-BB-CC-00-00-09", False),
    ],
)
def test_only_what_something_follows_from_is_remembered(
    root: Path, files: Mapping[str, Content], cmdline: str, remembered: bool
) -> None:
    remember_nic(Host.read(str(make_tree(root, {"proc/cmdline": cmdline, **NICS, **files}))))
    assert (root / "run/rpinfs/boot-nic").exists() is remembered


@pytest.mark.parametrize(
    ("address", "kind", "mac"),
    [
        ("00:00:00:00:00:00", "", ""),
        ("ff:ff:ff:ff:ff:ff", "", ""),
        ("01:00:5e:00:00:01", "", ""),
        ("", "", ""),
        ("00:00:00:00:00:00:00:00", "", ""),
        ("dc:a6:32:00:00", "", ""),
        ("dc:a6:32:00:00:001", "", ""),
        ("dc:a6:32:00:00:0x", "", ""),
        ("dc:a6:32:00:00:", "", ""),
        ("DC:A6:32:00:00:01", "", "dc-a6-32-00-00-01"),
        # Locally administered: QEMU's are kept, and those that the kernel made up for this boot are not.
        ("52:54:00:12:34:56", "0", "52-54-00-12-34-56"),
        ("52:54:00:12:34:56", "1", ""),
        ("52:54:00:12:34:56", "3", "52-54-00-12-34-56"),
    ],
)
def test_an_address_that_says_nothing_is_none(root: Path, address: str, kind: str, mac: str) -> None:
    nic = "sys/class/net/eth0"
    files = {f"{nic}/address": f"{address}\n", f"{nic}/addr_assign_type": f"{kind}\n", f"{nic}/device": None}
    assert Host.read(str(make_tree(root, files))).mac == mac


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ""), ("uninitialized\n", ""), ("0" * 32, ""), ("0123456789abcdef" * 2 + "\n", "0123456789abcdef" * 2),
     ("0123456789abcdef", ""), ("x" * 32, ""), ("g123456789abcdef" * 2, "")],
)  # fmt: skip
def test_a_machine_id_that_says_nothing_is_none(root: Path, text: str, expected: str) -> None:
    assert Host.read(str(make_tree(root, {"etc/machine-id": text}))).machine_id == expected


def test_identity(root: Path) -> None:
    make_pi(root, files={"etc/hostname": "pi-4\n", "etc/machine-id": "0123456789abcdef" * 2 + "\n"})
    host = Host.read(str(root))
    assert (host.serial, host.hostname, host.machine_id) == ("10000000a1b2c3d4", "pi-4", "0123456789abcdef" * 2)
    make_tree(root, {"proc/sys/kernel/hostname": "from-dhcp\n"})
    assert Host.read(str(root)).hostname == "from-dhcp"


@pytest.mark.parametrize(
    ("files", "environment", "container"),
    [
        ({}, None, False),
        ({"run/systemd/container": "lxc\n"}, None, True),
        ({}, "container:lxc", True),
        ({}, "vm:kvm", False),
        # What systemd says to a generator goes before a file that something left behind.
        ({"run/systemd/container": "lxc\n"}, "vm:kvm", False),
    ],
)
def test_container(
    root: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, Content], environment: str | None, container: bool
) -> None:
    if environment is not None:
        monkeypatch.setenv("SYSTEMD_VIRTUALIZATION", environment)
    assert Host.read(str(make_tree(root, files))).container is container


@pytest.mark.parametrize(
    ("files", "has"),
    [
        ({}, False),
        ({"boot/firmware": None}, True),
        ({"boot/firmware": "a file\n"}, False),
        ({"boot/firmware": None, "proc/self/mountinfo": mountinfo("/boot")}, False),
        ({"boot": None, "proc/self/mountinfo": mountinfo("/boot/firmware")}, True),
        ({"proc/self/mountinfo": mountinfo("/boot") + mountinfo("/boot/firmware")}, True),
        ({"boot/firmware": None, "proc/self/mountinfo": mountinfo("/")}, True),
    ],
)
def test_boot_firmware_is_not_looked_into_where_something_is_mounted(
    root: Path, files: Mapping[str, Content], has: bool
) -> None:
    assert Host.read(str(make_tree(root, files))).has_boot_firmware is has


# The world that is read


def test_an_empty_root_is_an_empty_machine(root: Path) -> None:
    host = Host.read(str(root))
    assert (host.cmdline, host.fstab, host.mountinfo, host.serial, host.mac) == ("", "", "", "", "")
    assert (host.config_files, host.unreadable) == ([], [])


def test_rpinfs_root_and_the_command_line_come_from_the_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pi(root, "[Server]\n")
    monkeypatch.setenv("RPINFS_ROOT", str(root) + "/")
    host = Host.read()
    assert host.root == str(root) and host.config_files == [("/etc/rpinfs/rpinfs.conf", "[Server]\n")]
    monkeypatch.setenv("SYSTEMD_PROC_CMDLINE", "rpinfs=off")
    assert Host.read().cmdline == "rpinfs=off" and Host.read().switched_off
    monkeypatch.setenv("SYSTEMD_PROC_CMDLINE", "")
    assert Host.read().cmdline == ""


def test_drop_ins_by_name_and_folder(root: Path) -> None:
    etc, run, usr = (f"{folder}/rpinfs/rpinfs.conf.d" for folder in ("/etc", "/run", "/usr/lib"))
    make_pi(root, "main", {
        f"{etc}/b.conf": "etc b", f"{run}/a.conf": "run a", f"{run}/b.conf": "run b", f"{usr}/a.conf": "usr a",
        f"{usr}/c.conf": "usr c", f"{usr}/d.conf": "usr d", f"{etc}/d.conf": Path("/dev/null"), f"{etc}/c.conf": "",
        f"{etc}/e": "no", f"{etc}/.f.conf": "no", f"{etc}/g.conf~": "no", f"{etc}/h.conf/x": "no",
    })  # fmt: skip
    host = Host.read(str(root))
    assert host.config_files == [
        ("/etc/rpinfs/rpinfs.conf", "main"),
        (f"{run}/a.conf", "run a"),
        (f"{etc}/b.conf", "etc b"),
        (f"{etc}/c.conf", ""),
        (f"{etc}/d.conf", ""),
    ]
    assert host.unreadable == [(f"{etc}/h.conf", "Is a directory")]


def test_a_configuration_that_is_a_pipe_does_not_hang(root: Path, installed: Installed) -> None:
    make_pi(root)
    path = root / "etc/rpinfs/rpinfs.conf"
    path.unlink()
    os.mkfifo(path)
    # In a program of its own, which is killed when it hangs.
    assert installed.run(installed.rpinfs, "config", "check", root=root).returncode == 0


def test_bytes_that_are_no_utf8_are_kept(root: Path) -> None:
    make_pi(root, b"# \xff\n", {"etc/fstab": b"\xe4 /x nfs\n"})
    host = Host.read(str(root))
    assert host.config_files[0][1].encode("utf-8", "surrogateescape") == b"# \xff\n"
    assert host.fstab.encode("utf-8", "surrogateescape") == b"\xe4 /x nfs\n"


def test_what_is_in_memory_is_reached_by_the_way_that_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And nothing else is: a folder whose name only begins so, what lies below RPINFS_ROOT."""
    assert host.near("/run/rpinfs/docker") == "/run/rpinfs/docker"
    (tmp_path / "rpinfs").mkdir()
    (tmp_path / "rpinfs/docker.uuid").write_text("1-2")
    monkeypatch.setattr(host, "WAYS", {"/proc/": "", "/run/": f"{tmp_path}/"})
    assert host.read_text("/run/rpinfs/docker.uuid") == "1-2"
    assert host.near("/proc/self/mountinfo") == "self/mountinfo"
    for path in ("/runner/a", "/run", "/srv/root/run/a", "/etc/rpinfs/rpinfs.conf"):
        assert host.near(path) == path
