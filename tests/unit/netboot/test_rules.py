"""Each rule of `netboot check` has a file that breaks it; what render writes breaks none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rpinfs.netboot.check import check
from rpinfs.netboot.finding import Finding, Gravity
from rpinfs.netboot.model import Plan
from rpinfs.netboot.plan import load, parse
from rpinfs.netboot.render.targets import render
from rpinfs.netboot.rules import eeprom
from rpinfs.netboot.seen import look
from tests.support import Content, golden, make_tree

FAULT, WARNING, NOTE = Gravity.FAULT, Gravity.WARNING, Gravity.NOTE
BOOT = {"start4.elf": "", "kernel8.img": "", "config.txt": "auto_initramfs=0\n"}
LINE = "console=tty1 rootwait root=/dev/nfs nfsroot=192.168.1.10:/nfsroot/pi1,vers=4.1,proto=tcp rw ip=dhcp\n"
KEA43 = '{"Dhcp4": {%s "option-data": [{"name": "vendor-encapsulated-options", "csv-format": false, "data": "%s"}]}}'
DEF43 = '"option-def": [{"name": "vendor-encapsulated-options", "code": 43, "space": "dhcp4", "type": "binary"}],'
TEXT = b"Raspberry Pi Boot   ".hex()
CLASS = '{"Dhcp4": {%s "client-classes": [{"name": "x", "test": "%s", "option-data": [{"code": 43, "data": "%s"}]}]}}'

PLAN = '[network]\nsubnet = "192.168.1.0/24"\npcs = true\n[nas]\naddress = "192.168.1.10"\n{}\n[[pi]]\nname = "pi1"\n'
PLAN += 'board = "4"\nserial = "1a2b3c4d"\n{}\n'
EEPROM, NAS = PLAN.format("", 'eeprom = "%s"'), PLAN.format('kind = "%s"', "")
SHARE = PLAN.format('share = "/nfsroot/docker"', "")


def plan(board: str = "4", pcs: bool = True) -> Plan:
    pis = [{"name": "pi1", "board": board, "serial": "1a2b3c4d"}]
    network = {"subnet": "192.168.1.0/24", "pcs": pcs}
    return parse({"network": network, "nas": {"address": "192.168.1.10"}, "pi": pis}, "plan")


def boot(**changed: Content) -> dict[str, Content]:
    files: dict[str, Content] = {**BOOT, "cmdline.txt": LINE}
    files.update({name.replace("__", "."): text for name, text in changed.items()})
    return {f"tftpboot/1a2b3c4d/{name}": text for name, text in files.items() if text is not None}


def root(name: str, **files: str) -> dict[str, Content]:
    plain = {"etc/hostname": f"{name}\n", "etc/machine-id": "", "usr/bin/true": ""}
    return {f"nfsroot/{name}/{path}": text for path, text in {**plain, **files}.items()}


def found_in(tmp_path: Path, files: dict[str, Content], with_plan: Plan | None) -> list[Finding]:
    (tmp_path / "top").mkdir()
    if isinstance(text := files.get("plan.toml"), str):
        (tmp_path / "plan.toml").write_text(text)
        with_plan = load(str(tmp_path / "plan.toml"))
    top = make_tree(tmp_path / "top", {name: text for name, text in files.items() if name != "plan.toml"})
    seen = look([str(path) for path in sorted(top.iterdir())], with_plan)
    assert [error.message for error in seen.unreadable] == []
    return check(seen)


Case = tuple[dict[str, Content], int, Gravity, str]
CASES: dict[str, Case] = {
    "no range": ({"dnsmasq.conf": 'pxe-service=0,"Raspberry Pi Boot   "'}, 2, FAULT, "dhcp-range=192.168.1.0,proxy"),
    "proxy with 66": ({"dnsmasq.conf": "dhcp-range=192.168.1.0,proxy\ndhcp-option=66,192.168.1.9"}, 3, FAULT, ""),
    "proxy with option:tftp-server": (
        {"dnsmasq.conf": "dhcp-range=192.168.1.0,proxy\ndhcp-option=option:tftp-server,1.2.3.4"},
        3,
        FAULT,
        "",
    ),
    "proxy with a server": (
        {"dnsmasq.conf": 'dhcp-range=192.168.1.0,proxy\npxe-service=0,"Raspberry Pi Boot   ",x,192.168.1.9'},
        3,
        FAULT,
        "pxe-service",
    ),
    "no block size": ({"dnsmasq.conf": "tftp-no-blocksize"}, 4, WARNING, ""),
    "no block size, tftpd-hpa": (
        {"tftpd-hpa": 'TFTP_DIRECTORY="/srv"\nTFTP_OPTIONS="--secure --refuse blksize -v"\n'},
        4,
        WARNING,
        'TFTP_OPTIONS="--secure -v"',
    ),
    "no size, tftpd-hpa": ({"tftpd-hpa": "TFTP_OPTIONS='-r tsize'\n"}, 4, WARNING, 'TFTP_OPTIONS=""'),
    "PCs are answered": (
        {"dnsmasq.conf": 'dhcp-range=192.168.1.0,proxy\npxe-service=x86PC,"Raspberry Pi Boot   "'},
        5,
        WARNING,
        "dhcp-ignore=tag:!rpi",
    ),
    "no spaces": (
        {"dnsmasq.conf": 'dhcp-range=192.168.1.0,proxy\npxe-service=tag:rpi,0,"Raspberry Pi Boot"'},
        6,
        FAULT,
        'Boot   "',
    ),
    "no spaces, Kea": ({"kea-dhcp4.conf": KEA43 % (DEF43, b"Raspberry Pi Boot".hex())}, 6, FAULT, "csv-format"),
    "no spaces, ISC": ({"dhcpd.conf": 'option vendor-encapsulated-options "Raspberry Pi Boot";'}, 6, FAULT, "52:61:73"),
    "Kea without a definition": ({"kea-dhcp4.conf": KEA43 % ("", TEXT)}, 7, FAULT, "option-def"),
    "a class by option 60": (
        {"kea-dhcp4.conf": CLASS % (DEF43, "substring(option[60].hex,0,9) == 'PXEClient'", TEXT)},
        8,
        FAULT,
        "option[97]",
    ),
    "a class by option 60, ISC": (
        {
            "dhcpd.conf": 'class "p" { match if substring(option vendor-class-identifier,0,9) = "PXEClient";\n'
            f'option vendor-encapsulated-options "{bytes.fromhex(TEXT).decode()}"; }}'
        },
        8,
        FAULT,
        "hardware",
    ),
    "a member of a class by option 60": (
        {
            "kea-dhcp4.conf": f'{{"Dhcp4": {{{DEF43} "client-classes": [{{"name": "pxe", "test": "option[60].exists"}},'
            '{"name": "pi", "test": "member(\'pxe\') and substring(pkt4.mac,0,3) == 0xdca632",'
            f'"option-data": [{{"code": 43, "data": "{TEXT}"}}]}}]}}}}'
        },
        8,
        FAULT,
        "option[97]",
    ),
    "an old list": (
        {"dnsmasq.conf": "dhcp-range=10.0.0.0,proxy\ndhcp-mac=set:rpi,b8:27:eb:*:*:*\ndhcp-mac=set:r,dc:a6:32:*:*:*"},
        9,
        WARNING,
        "dhcp-match",
    ),
    "another text": (
        {"dnsmasq.conf": 'dhcp-range=192.168.1.0,proxy\npxe-service=0,"Raspberry Boot"'},
        10,
        FAULT,
        "Raspberry Pi Boot",
    ),
    "another text, Kea": ({"kea-dhcp4.conf": KEA43 % (DEF43, "0401")}, 10, FAULT, ""),
    "no start.elf": (boot(start4__elf=None), 15, FAULT, ""),
    "a long serial": (
        {"tftpboot/100000001a2b3c4d/cmdline.txt": LINE, "tftpboot/1a2b3c4d/cmdline.txt": LINE},
        17,
        FAULT,
        "mv -T --backup=numbered",
    ),
    "upper case": ({"tftpboot/1A2B3C4D/cmdline.txt": LINE}, 17, FAULT, "/1a2b3c4d"),
    "no folder": ({"tftpboot/99999999/cmdline.txt": LINE}, 17, FAULT, "copy the boot partition"),
    "two lines": (boot(cmdline__txt=LINE + "quiet\n"), 19, FAULT, "root=/dev/nfs"),
    "nothing in it": (boot(cmdline__txt="\n"), 19, FAULT, "root=/dev/nfs"),
    "a stock root": (
        boot(cmdline__txt="console=tty1 root=PARTUUID=1-02 rootwait\n"),
        19,
        FAULT,
        "root=/dev/nfs nfsroot=192.168.1.10:",
    ),
    "rootfstype": (boot(cmdline__txt=LINE.replace("rw ", "rw rootfstype=ext4 ")), 19, FAULT, ""),
    "fsck.repair": (boot(cmdline__txt=LINE.replace("rw ", "rw fsck.repair=yes ")), 19, FAULT, ""),
    "init=": (boot(cmdline__txt=LINE.replace("rw ", "rw init=/usr/lib/firstboot ")), 19, FAULT, ""),
    "an SD card's first run": (
        boot(cmdline__txt=LINE.replace("rw ", "rw systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot ")),
        19,
        FAULT,
        "root=/dev/nfs",
    ),
    "resize": (boot(cmdline__txt=LINE.replace("rw ", "rw resize ")), 19, FAULT, ""),
    "no ip=": (boot(cmdline__txt=LINE.replace(" ip=dhcp", "")), 19, FAULT, "ip=dhcp"),
    "no nfsroot=": (boot(cmdline__txt="root=/dev/nfs ip=dhcp\n"), 19, FAULT, "nfsroot="),
    "not exported": (
        {**boot(), "exports": "/srv 192.168.1.0/24(rw,sync,no_subtree_check,no_root_squash)"},
        19,
        FAULT,
        "/nfsroot/pi1",
    ),
    "no command line": (boot(cmdline__txt=None), 19, FAULT, "of this one line: console=serial0,115200 console=tty1"),
    "lines of Windows": (boot(cmdline__txt=LINE.replace("\n", "\r\n")), 19, WARNING, LINE.rstrip()),
    "UTF-16": (boot(cmdline__txt=LINE.encode("utf-16")), 19, FAULT, ""),
    "a byte order mark in config.txt": (boot(config__txt=b"\xef\xbb\xbfauto_initramfs=0\n"), 20, WARNING, ""),
    "NFS over UDP": (boot(cmdline__txt=LINE.replace("proto=tcp", "udp")), 19, FAULT, LINE.rstrip()),
    "another protocol": (boot(cmdline__txt=LINE.replace("tcp", "rdma")), 19, FAULT, LINE.rstrip()),
    "NFS 2": (boot(cmdline__txt=LINE.replace("vers=4.1", "v2")), 19, FAULT, LINE.rstrip()),
    "NFS 4.3": (boot(cmdline__txt=LINE.replace("vers=4.1", "nfsvers=4.3")), 19, FAULT, LINE.rstrip()),
    "soft": (boot(cmdline__txt=LINE.replace("proto=tcp", "soft")), 19, WARNING, ",hard "),
    "Kerberos": (boot(cmdline__txt=LINE.replace("proto=tcp", "sec=krb5")), 19, FAULT, ",sec=sys "),
    "no rw": (boot(cmdline__txt=LINE.replace(" rw", "")), 19, WARNING, " rw"),
    "ro": (boot(cmdline__txt=LINE.replace(" rw", " rw ro")), 19, WARNING, " rw rw ip"),
    "no address": (boot(cmdline__txt=LINE.replace("ip=dhcp", "ip=off")), 19, FAULT, "ip=dhcp"),
    "an initramfs": (boot(config__txt="auto_initramfs=1\n"), 20, FAULT, "auto_initramfs=0"),
    "an initramfs that is not there": (boot(config__txt="initramfs initramfs8 followkernel\n"), 20, FAULT, ""),
    "no modules": ({**boot(), **root("pi1")}, 21, WARNING, ""),
    "async": ({"exports": "/nfsroot 192.168.1.0/24(rw,async,no_subtree_check,no_root_squash)"}, 22, WARNING, "sync"),
    "root is squashed": ({"exports": "/nfsroot 192.168.1.0/24(rw,sync,no_subtree_check)"}, 22, FAULT, "no_root_squash"),
    "all are squashed": (
        {"exports": "/nfsroot 192.168.1.0/24(rw,sync,no_subtree_check,no_root_squash,all_squash)"},
        22,
        FAULT,
        "",
    ),
    "read-only": ({"exports": "/nfsroot 192.168.1.0/24(sync,no_subtree_check,no_root_squash)"}, 22, FAULT, "rw"),
    "the world": ({"exports": "/nfsroot *(rw,sync,no_subtree_check,no_root_squash)"}, 22, WARNING, "192.168.1.0/24("),
    "a space": ({"exports": "/nfsroot 192.168.1.0/24 (rw,sync,no_subtree_check,no_root_squash)"}, 22, FAULT, ""),
    "subtree_check": ({"exports": "/nfsroot 192.168.1.0/24(rw,sync,subtree_check,no_root_squash)"}, 22, WARNING, ""),
    "Kerberos alone": (
        {"exports": "/nfsroot 192.168.1.0/24(rw,sync,no_subtree_check,no_root_squash,sec=krb5:krb5i)"},
        22,
        FAULT,
        "sec=sys",
    ),
    "one host name": ({**root("pi1"), **root("pi2", **{"etc/hostname": "pi1\n"})}, 24, FAULT, "hostname"),
    "one machine-id": (
        {**root("pi1", **{"etc/machine-id": "0123\n"}), **root("pi2", **{"etc/machine-id": "0123\n"})},
        24,
        WARNING,
        "machine-id",
    ),
    "one ssh key": (
        {
            **root("pi1", **{"etc/ssh/ssh_host_ed25519_key": "k"}),
            **root("pi2", **{"etc/ssh/ssh_host_ed25519_key": "k"}),
        },
        24,
        WARNING,
        "ssh_host",
    ),
    "a card's fstab": (
        root("pi1", **{"etc/fstab": "PARTUUID=1-01 /boot/firmware vfat defaults 0 2\n"}),
        25,
        FAULT,
        "# PARTUUID",
    ),
    "resizing": (
        {**root("pi1"), "nfsroot/pi1/etc/systemd/system/basic.target.wants/rpi-resize.service": Path("/lib/x")},
        25,
        WARNING,
        "rm ",
    ),
    "an unknown key": (boot(boot__conf="NET_WAIT=1\n"), 26, WARNING, ""),
    "a name for an address": (boot(boot__conf="TFTP_IP=nas.local\n"), 26, FAULT, "(leave the line out)"),
    "no network": (boot(boot__conf="BOOT_ORDER=0xf41\n"), 27, FAULT, "0xf2"),
    "no again": (boot(boot__conf="BOOT_ORDER=0x21\n"), 27, WARNING, "0xf21"),
    "an old EEPROM": ({**boot(), "plan.toml": EEPROM % "2021-11-22"}, 28, WARNING, "rpi-eeprom-update"),
    "an old EEPROM that is to be written": (
        boot(pieeprom__upd=b"\xff\0release\0BUILD_TIMESTAMP=1637580212\0\xff"),
        28,
        WARNING,
        "rpi-eeprom-update",
    ),
    "no log": (boot(boot__conf="BOOT_ORDER=0xf2\n"), 32, NOTE, "NETCONSOLE=6665@"),
    "HTTP from the Internet": (boot(boot__conf="NETCONSOLE=x\nBOOT_ORDER=0xf72\n"), 32, NOTE, "HTTP_HOST"),
    "a version that no Synology speaks": (
        {**boot(cmdline__txt=LINE.replace("4.1", "4.2")), "plan.toml": NAS % "synology"},
        23,
        WARNING,
        "vers=4.1",
    ),
    "a version that no QNAP speaks": ({"plan.toml": NAS % 'qnap"\nversion = "4.2'}, 23, WARNING, 'version = "4.1"'),
    "a version that is off": (
        {**boot(), "nfs.conf": "[nfsd]\nthreads=8\nvers4.1=y\nvers4.1=n\n[mountd]\nvers4.1=y\n"},
        23,
        FAULT,
        "vers4.1=y",
    ),
    "a major version that is off": ({"nfs.conf": "[exportd]\n\n[nfsd]\nvers4 = no\n"}, 23, FAULT, "vers4=y"),
    "a relay, and a 3B": (
        {"dnsmasq.conf": "dhcp-relay=192.168.1.1,10.0.0.1", "plan.toml": PLAN.format("", "").replace('"4"', '"3B"')},
        33,
        FAULT,
        "dnsmasq-proxy",
    ),
    "two rights": (
        {
            "exports": "/nfsroot 192.168.1.0/24(rw,sync,no_subtree_check,no_root_squash)\n"
            "/nfsroot/docker 192.168.1.0/24(rw,sync,no_subtree_check)",
            "plan.toml": SHARE,
        },
        34,
        WARNING,
        "/nfsroot/docker  192.168.1.0/24(rw,sync,no_subtree_check,no_root_squash)",
    ),
    "another boot folder": (
        root("pi1", **{"etc/fstab": "192.168.1.10:/tftpboot /boot/firmware nfs vers=4.1 0 0\n"}),
        31,
        WARNING,
        "/tftpboot/1a2b3c4d",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_rule_has_a_file_that_breaks_it(
    case: tuple[dict[str, Content], int, Gravity, str], tmp_path: Path
) -> None:
    files, rule, gravity, write = case
    found = [one for one in found_in(tmp_path, files, plan("3B" if rule == 6 else "4")) if one.rule == rule]
    assert [one for one in found if one.gravity is gravity and write in one.write], found
    assert all(one.line > 0 or rule in (15, 17, 19, 21, 23, 24, 25, 28, 32, 33) for one in found)


@pytest.mark.parametrize(("test", "code", "falls_out"), [
    ("substring(option[60].hex,0,9) == 'PXEClient'", 43, True),
    ("option[vendor-class-identifier].exists", 43, True),
    ("substring(option[60].hex,0,9) == 'PXEClient'", 66, False),
    ("option[97].exists", 43, False),
    ("option[60].exists or option[97].exists", 43, False),
    ("option[60].exists or pkt4.mac == 0xdca632123456", 43, False),
    ("option[60].exists and option[97].exists", 43, True),
    ("option[60].exists or option[12].exists", 43, True),
])  # fmt: skip
def test_a_class_of_kea_that_a_request_falls_out_of(test: str, code: int, falls_out: bool, tmp_path: Path) -> None:
    made = {"name": "x", "test": test, "option-data": [{"code": code, "data": TEXT}]}
    files: dict[str, Content] = {"kea-dhcp4.conf": json.dumps({"Dhcp4": {"client-classes": [made]}})}
    assert any(one.rule == 8 for one in found_in(tmp_path, files, plan())) is falls_out


@pytest.mark.parametrize(("where", "target", "enabled"), [
    ("basic.target.wants", "/lib/systemd/system/rpi-resize.service", True),
    ("basic.target.requires", "/lib/systemd/system/rpi-resize.service", True),
    ("basic.target.wants", "/dev/null", False),
    ("basic.target.wants", "", False),
    ("basic.target.upholds", "/lib/systemd/system/rpi-resize.service", False),
    (".", "/lib/systemd/system/other.service", False),
])  # fmt: skip
def test_a_unit_is_enabled_by_a_link_in_a_folder_of_wants(
    where: str, target: str, enabled: bool, tmp_path: Path
) -> None:
    files = root("pi1")
    folder = tmp_path / "top/nfsroot/pi1/etc/systemd/system" / where
    folder.mkdir(parents=True)
    if target:
        (folder / "rpi-resize.service").symlink_to(target)
    else:
        (folder / "rpi-resize.service").touch()
    make_tree(tmp_path / "top", files)
    found = check(look([str(tmp_path / "top/nfsroot")], plan()))
    assert any("rpi-resize.service is enabled" in one.message for one in found) is enabled


def test_every_word_that_is_said(tmp_path: Path) -> None:
    """A name, a number or a line of somebody else's in a message or a remedy would be noticed by nobody."""
    text = ""
    for number, (name, (files, rule, _, _)) in enumerate(CASES.items()):
        top = tmp_path / str(number)
        top.mkdir()
        text += f"== {name}\n"
        for one in found_in(top, files, plan("3B" if rule == 6 else "4")):
            said = f"{one.place}: {one.gravity.name} ({one.rule}): {one.message}\n{one.write}".rstrip()
            text += f"{said.replace(f'{top}/', '')}\n"
    assert text == golden(Path(__file__).with_name("findings.txt"), text)


def test_the_gravest_come_first(tmp_path: Path) -> None:
    """Of one gravity in the order of the files and of their lines."""
    lines = "tftp-no-blocksize\ndhcp-range=192.168.1.0,proxy\ndhcp-option=66,192.168.1.9\n"
    found = found_in(tmp_path, {"b/dnsmasq.conf": lines, "a/dnsmasq.conf": f"\n{lines}"}, plan())
    told = [(one.gravity, one.file, one.line) for one in found]
    assert told == sorted(told, key=lambda one: (-one[0], *one[1:]))
    assert {FAULT, WARNING} <= {gravity for gravity, _, _ in told}
    assert len({file for _, file, _ in told}) == 2


def test_an_interface_that_is_not_there(tmp_path: Path) -> None:
    """Rule 1, on the machine itself."""
    make_tree(
        tmp_path,
        {"etc/dnsmasq.conf": "port=0\nenable-tftp=eth0\n", "sys/class/net/enp1s0": None, "sys/class/net/lo": None},
    )
    seen = look([], root=str(tmp_path))
    (finding,) = check(seen)
    assert (finding.rule, finding.line, finding.write) == (1, 2, "enable-tftp")
    assert "there is enp1s0" in finding.message


def test_a_tftp_folder_that_is_not_there(tmp_path: Path) -> None:
    """Rule 17: of this machine, and not where the files of another one are looked at."""
    files: dict[str, Content] = {"etc/default/tftpd-hpa": 'TFTP_DIRECTORY="/nowhere/tftp"\n', "sys/class/net/lo": None}
    make_tree(tmp_path, files)
    (finding,) = check(look([], root=str(tmp_path)))
    assert (finding.rule, finding.gravity, finding.file) == (17, FAULT, "/nowhere/tftp")
    assert check(look([str(tmp_path / "etc/default/tftpd-hpa")])) == []


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nowhere", "nowhere: No such file or directory"), ("ring", "ring: Too many levels of symbolic links"),
        ("empty", "empty: a folder with nothing in it"), ("odd.txt", "odd.txt: nobody knows what that is"),
        ("pipe", "pipe: nobody knows what that is"),
    ],
)  # fmt: skip
def test_what_is_named_and_cannot_be_looked_at(what: str, said: str, tmp_path: Path) -> None:
    """It was said that nothing is wrong, or that nobody knows what a file is that is not there."""
    make_tree(tmp_path, {"ring": Path("ring"), "empty": None, "odd.txt": "x"})
    os.mkfifo(tmp_path / "pipe")
    (error,) = look([str(tmp_path / what)]).unreadable
    assert error.message == f"{tmp_path}/{said}"


def test_a_3b_is_remarked_on(tmp_path: Path) -> None:
    assert [one.rule for one in found_in(tmp_path, {}, plan("3B"))] == [33]


@pytest.mark.parametrize(("eeprom", "faults"), [("2023-01-11", 1), ("2025-09-23", 0)])
def test_a_file_too_large_for_an_old_eeprom(eeprom: str, faults: int, tmp_path: Path) -> None:
    """Rule 28."""
    files = boot(initramfs8="")
    make_tree(tmp_path, {**files, "plan.toml": EEPROM % eeprom})
    folder = tmp_path / "tftpboot/1a2b3c4d"
    os.truncate(folder / "initramfs8", (96 << 20) + 1)
    found = check(look([str(tmp_path / "tftpboot")], load(str(tmp_path / "plan.toml"))))
    assert [(one.rule, one.gravity) for one in found] == [(28, FAULT)] * faults
    assert all(f"{folder}/initramfs8 is one" in one.message for one in found)


def test_files_that_the_server_does_not_give_out(tmp_path: Path) -> None:
    """Rule 18."""
    make_tree(tmp_path / "top", boot())
    (tmp_path / "top/tftpboot/1a2b3c4d/kernel8.img").chmod(0o600)
    (finding,) = check(look([str(tmp_path / "top/tftpboot")], plan()))
    assert (finding.rule, finding.write) == (18, f"chmod -R go+rX {tmp_path}/top/tftpboot/1a2b3c4d")


@pytest.mark.parametrize(
    "files",
    [
        {"dhcpd.conf": "{ x; }\n"},
        {"dhcpd.conf": b"option vendor-encapsulated-options 52:\xff;\n"},
        {"dhcpd.conf": b'option vendor-encapsulated-options "\xff";\n'},
        {"kea-dhcp4.conf": '{"Dhcp4": {"client-classes": 5, "option-def": 5, "option-data": "x"}}'},
        {"kea-dhcp4.conf": '{"Dhcp4": {"client-classes": [1, {"option-data": 5, "test": []}]}}'},
    ],
)
def test_what_is_odd_stops_no_rule(files: dict[str, Content], tmp_path: Path) -> None:
    """Each ended in a traceback once, found by chance (test_fuzz.py)."""
    found_in(tmp_path, files, plan())


@pytest.mark.parametrize("dhcp", ["isc", "kea", "dnsmasq"])
def test_what_render_writes_breaks_no_rule(dhcp: str, tmp_path: Path) -> None:
    document = {
        "topology": "B",
        "network": {"subnet": "192.168.1.0/24", "dhcp": dhcp, "pool": "192.168.1.100-192.168.1.200", "pcs": True},
        "nas": {"address": "192.168.1.10"},
        "pi": [
            {"name": "pi1", "board": "4", "serial": "1a2b3c4d"},
            {"name": "pi2", "board": "3B", "serial": "2a2b3c4d"},
        ],
    }
    made = parse(document, "plan")
    files: dict[str, Content] = {}
    for one in render(made):
        if one.place.startswith("/tftpboot"):
            files[one.place.removeprefix("/")] = one.text
            files[str(Path(one.place.removeprefix("/")).parent / "start4.elf")] = ""
        elif one.place.startswith("/nfsroot"):
            files[one.place.removeprefix("/")] = one.text
        elif one.name in ("dhcpd.conf", "kea-dhcp4.conf", "exports", "dnsmasq.conf", "dnsmasq-proxy.conf"):
            files[f"{one.name.replace('.conf', '')}/{one.name}"] = one.text
    files |= root("pi1") | root("pi2")
    found = found_in(tmp_path, files, made)
    assert [one for one in found if one.gravity is not NOTE] == []


def test_nothing_is_known(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a/b": "c", "dhcpd.conf": "x {"})
    seen = look([str(tmp_path / "a"), str(tmp_path / "dhcpd.conf"), str(tmp_path / "gone")])
    assert [error.message.removeprefix(str(tmp_path)) for error in seen.unreadable] == [
        "/a: a folder with nothing of netbooting in it",
        "/dhcpd.conf:1: expected a closing } for: x",
        "/gone: No such file or directory",
    ]


def test_a_root_and_a_boot_folder_of_somebody_hostile(tmp_path: Path) -> None:
    """Links lead nowhere: nothing of this machine is read, and no command that is printed touches it."""
    make_tree(tmp_path, {
        "host/etc/systemd/system/x.wants/rpi-resize.service": Path("/lib/x"),
        "host/etc/fstab": "PARTUUID=1 / ext4 x 0 0\n",
        "host/secret": "zebra\nquagga\n", "nfsroot/pi1/usr": None, "nfsroot/pi1/etc": tmp_path / "host/etc",
        "tftpboot/1a2b3c4d/start4.elf": "", "tftpboot/1a2b3c4d/cmdline.txt": tmp_path / "host/secret",
        "tftpboot/2a2b3c4d": tmp_path / "host",
    })  # fmt: skip
    os.mkfifo(tmp_path / "tftpboot/1a2b3c4d/config.txt")
    found = check(look([str(tmp_path / "nfsroot"), str(tmp_path / "tftpboot")], plan()))
    said = " ".join(f"{one.file} {one.message} {one.write}" for one in found)
    assert not [word for word in ("host/", "zebra", "quagga", "PARTUUID", "rpi-resize") if word in said]
    assert "rm " not in said
    assert "2a2b3c4d" not in said


def test_a_serial_number_that_is_a_link_to_a_name(tmp_path: Path) -> None:
    make_tree(tmp_path, {**{path.replace("1a2b3c4d", "pi1"): text for path, text in boot().items()}})
    (tmp_path / "tftpboot/1a2b3c4d").symlink_to("pi1")
    assert [one.message for one in check(look([str(tmp_path / "tftpboot")], plan()))] == []


def test_names_are_quoted_for_a_shell(tmp_path: Path) -> None:
    make_tree(tmp_path, {"tftp $(reboot)/AABBCCDD/cmdline.txt": LINE})
    (finding,) = [one for one in check(look([str(tmp_path / "tftp $(reboot)")])) if one.rule == 17]
    assert finding.write == f"mv -nT '{tmp_path}/tftp $(reboot)/AABBCCDD' '{tmp_path}/tftp $(reboot)/aabbccdd'"


@pytest.mark.parametrize(("content", "day"), [
    (b"x BUILD_TIMESTAMP=1700000000 y", "2023-11-14"), (b"nothing", ""), (None, ""), (Path("other"), ""), ("fifo", ""),
    ("none", ""),
])  # fmt: skip
def test_the_day_on_which_an_eeprom_was_built(content: Content, day: str, tmp_path: Path) -> None:
    """What is in a TFTP folder is somebody else's: a link is not followed, a pipe not waited for."""
    make_tree(tmp_path, {"other": b"BUILD_TIMESTAMP=1700000000"})
    path = tmp_path / "pieeprom.upd"
    if content == "fifo":
        os.mkfifo(path)
    elif content != "none":
        make_tree(tmp_path, {"pieeprom.upd": content})
    assert eeprom._built(str(path)) == day
    assert eeprom._size(str(path)) == (len(content) if isinstance(content, bytes) else 0)
