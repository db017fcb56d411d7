"""Numbers of protocols, as others have them: Linux's headers, dnsmasq, and a calendar."""

from __future__ import annotations

import datetime
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from rpinfs.netboot import clock, nfs, packet, root, rpc

NAMES = {
    "NFS4_ACCESS_READ": nfs.READ,
    "NFS4_ACCESS_MODIFY": nfs.MODIFY,
    "NFS4_ACCESS_EXTEND": nfs.EXTEND,
    "NFS3_ACCESS_READ": nfs.READ,
    "NFS3_ACCESS_MODIFY": nfs.MODIFY,
    "NFS3_ACCESS_EXTEND": nfs.EXTEND,
    "NFREG": nfs.FILE,
    "NFDIR": nfs.FOLDER,
    "NFLNK": nfs.LINK,
    "NFSERR_MINOR_VERS_MISMATCH": nfs._MINOR_MISMATCH,
    "NFSERR_OP_ILLEGAL": nfs._ILLEGAL,
    "NFS_MNT_PROGRAM": nfs._MOUNT_PROGRAM,
    "NFS_PROGRAM": rpc.NFS_PROGRAM,
    "NFS_PORT": rpc.NFS_PORT,
    "EM_ARM": root._ARM,
    "EM_AARCH64": root._ARM_64,
}
OPTIONS = {
    "netmask": packet.NETMASK,
    "router": packet.ROUTER,
    "vendor-class": packet.VENDOR_CLASS_ID,
    "tftp-server": packet.TFTP_NAME,
    "bootfile-name": packet.BOOT_FILE,
    "client-arch": packet.ARCHITECTURE,
    "client-interface-id": packet.UNDI,
    "client-machine-id": packet.MACHINE_ID,
}


DEFINED = re.compile(r"^(?:#define\s+|\s+)(\w+)\s+(?:=\s*)?(0x[0-9a-f]+|[1-9]\d*)\b", re.MULTILINE)


@cache
def defined() -> dict[str, int]:
    """Each number in Linux's own headers about NFS and ELF."""
    found: dict[str, int] = {}
    for name in ("nfs.h", "nfs3.h", "nfs4.h", "elf-em.h"):
        for word, number in DEFINED.findall(Path("/usr/include/linux", name).read_text()):
            found[word] = int(number, 0)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_of_linux(name: str) -> None:
    assert defined()[name] == NAMES[name]


def test_of_dhcp() -> None:
    done = subprocess.run(["dnsmasq", "--help", "dhcp"], stdout=subprocess.PIPE, text=True, check=True)
    known = {name: int(number) for number, name in re.findall(r"^ *(\d+) (\S+)$", done.stdout, re.MULTILINE)}
    assert {name: known[name] for name in OPTIONS} == OPTIONS


def test_ntp_counts_from_1900() -> None:
    assert (datetime.date(1970, 1, 1) - datetime.date(1900, 1, 1)).days * 24 * 3600 == clock._SINCE_1900
