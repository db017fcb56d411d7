"""Who manages an interface, read from prepared trees: the files are those that the four leave on Debian 12 and 13."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from rpinfs.system.nic import _networkmanager_files, managers
from tests.support import Content, make_tree

Files = dict[str, Content]

MAC = "dc:a6:32:00:00:01"
ETH0: Files = {"sys/class/net/eth0/ifindex": "2\n", "sys/class/net/eth0/address": MAC + "\n"}
NFS_ROOT: Files = {"proc/self/mountinfo": "22 1 0:20 / / rw shared:1 - nfs4 10.0.0.9:/pi rw\n"}
OVERLAY_ROOT: Files = {"proc/self/mountinfo": "22 1 0:20 / / rw shared:1 - overlay overlay rw\n"}

NETWORK_FILE = "/etc/systemd/network/10-eth.network"
NETWORKD: Files = {
    "proc/301/comm": "systemd-network\n",
    "run/systemd/netif/links/2": f"# Do not parse.\nADMIN_STATE=configured\nNETWORK_FILE={NETWORK_FILE}\n",
    NETWORK_FILE: "[Match]\nName=eth0\n[Network]\nDHCP=yes\n",
}
UNMANAGED: Files = {"run/systemd/netif/links/2": "ADMIN_STATE=unmanaged\n"}
KEEP_NO: Files = {NETWORK_FILE: "[Network]\nDHCP=yes\nKeepConfiguration=no\n"}
KEEP_YES: Files = {
    "run/systemd/netif/links/2": "ADMIN_STATE=configured\n"
    f"NETWORK_FILE={NETWORK_FILE}\nNETWORK_FILE_DROPINS={NETWORK_FILE}.d/90.conf\n",
    NETWORK_FILE + ".d/90.conf": "[Network]\nKeepConfiguration=true\n",
}

OURS = "run/NetworkManager/conf.d/50-rpinfs.conf"
TOLD: Files = {OURS: f"[device-rpinfs]\nmatch-device=mac:{MAC.upper()}\nkeep-configuration=yes\nignore-carrier=yes\n"}
NM: Files = {
    "proc/302/comm": "NetworkManager\n",
    "run/NetworkManager/devices/2": "[device]\nmanaged=true\nconnection-uuid=3ca4\nnm-owned=false\n",
}
EXTERNAL: Files = {
    "run/NetworkManager/system-connections/eth0.nmconnection": "[connection]\nuuid=3ca4\n\n[.nmmeta]\nexternal=true\n"
}
OVERRIDE = "etc/NetworkManager/conf.d/99.conf"

IFUPDOWN: Files = {
    "run/network/ifstate": "lo=lo\neth0=eth0\n",
    "etc/network/interfaces": "# x\nsource /etc/network/interfaces.d/*\n",
    "etc/network/interfaces.d/eth0": "auto eth0\niface eth0 inet dhcp\n",
}
DROP_INS: Files = {
    "run/systemd/generator/networking.service.d/50-rpinfs-nic.conf": "",
    "run/systemd/generator/ifup@.service.d/50-rpinfs-nic.conf": "",
}
MASK = "etc/systemd/system/networking.service.d/50-rpinfs-nic.conf"

DHCPCD: Files = {"proc/303/comm": "dhcpcd\n", "etc/dhcpcd.conf": "duid\npersistent\n"}


@pytest.mark.parametrize(
    ("files", "name", "keeps", "renews", "why"),
    [
        ({**NETWORKD, **NFS_ROOT}, "systemd-networkd", True, True, "the default where the root is on NFS"),
        ({**NETWORKD, **OVERLAY_ROOT}, "systemd-networkd", False, True, "does not see that the root is on NFS"),
        ({**NETWORKD, **NFS_ROOT, **KEEP_NO}, "systemd-networkd", False, True, "KeepConfiguration=no in"),
        ({**NETWORKD, **KEEP_NO, **KEEP_YES}, "systemd-networkd", True, True, "90.conf"),
        *(
            ({**NETWORKD, **NFS_ROOT, NETWORK_FILE: f"[Network]\nAddress=::1\n{text}\n"},
             "systemd-networkd", True, renews, "the default where the root is on NFS")
            for text, renews in (
                ("DHCP=ipv4", True), ("DHCP=Yes", True), ("DHCP=no", False), ("DHCP=ipv6", False), ("LLDP=yes", False),
                ("[Link]\nDHCP=yes", False), ("[Bridge]\nKeepConfiguration=no\n[DHCPv4]\nUseDNS=yes", False),
            )
        ),
        ({**NM, **TOLD, **EXTERNAL}, "NetworkManager", True, False, "ignore-carrier=yes in /run"),
        ({**NM, **TOLD}, "NetworkManager", True, True, "ignore-carrier=yes"),
        (NM, "NetworkManager", False, True, "ignore-carrier=yes is not set"),
        ({**NM, **TOLD, "etc/" + OURS.removeprefix("run/"): ""}, "NetworkManager", False, True, "is not set"),
        (
            {**NM, **TOLD, OVERRIDE: "[device]\nkeep-configuration=no\n"},
            "NetworkManager", False, True, "keep-configuration=no in /" + OVERRIDE,
        ),
        (
            {**NM, **TOLD, OVERRIDE: "[device-x]\nmatch-device=*,except:interface-name:eth*\nkeep-configuration=no\n"},
            "NetworkManager", True, True, "ignore-carrier=yes",
        ),
        ({**IFUPDOWN, **DROP_INS}, "ifupdown", True, True, "50-rpinfs-nic.conf says so"),
        (IFUPDOWN, "ifupdown", False, True, "networking.service runs ifdown"),
        ({**IFUPDOWN, **DROP_INS, MASK: Path("/dev/null")}, "ifupdown", False, True, f"/{MASK} replaces"),
        (
            {**IFUPDOWN, "etc/network/interfaces.d/eth0": "no-auto-down eth0\niface eth0 inet static\n"},
            "ifupdown", True, False, "no-auto-down",
        ),
        # What ifupdown itself would complain about, and a file that names itself, hold nobody up.
        (
            {**IFUPDOWN, "etc/network/interfaces": "source\nsource-directory\nsource /etc/network/interfaces\nauto\n"
             "source-directory interfaces.d\n", "etc/network/interfaces.d/eth0": "no-auto-down eth0\n"},
            "ifupdown", True, False, "no-auto-down",
        ),
        (DHCPCD, "dhcpcd", True, True, "persistent in"),
        ({**DHCPCD, "etc/dhcpcd.conf": "#persistent\n"}, "dhcpcd", False, True, "persistent is missing"),
        ({**DHCPCD, "etc/dhcpcd.conf": "interface wlan0\npersistent\n"}, "dhcpcd", False, True, "is missing"),
        # Words that speak of the interface and forbid nothing, others' words, and lines with nothing in them.
        ({**DHCPCD, "etc/dhcpcd.conf": "\n\nmetric eth0\npersistent\n"}, "dhcpcd", True, True, "persistent in"),
        ({**DHCPCD, "etc/dhcpcd.conf": "denyinterfaces wlan0\npersistent"}, "dhcpcd", True, True, "persistent in"),
        ({**DHCPCD, "etc/dhcpcd.conf": "allowinterfaces eth0,wlan0\n"}, "dhcpcd", False, True, "is missing"),
        ({**DHCPCD, "etc/dhcpcd.conf": "allowinterfaces wlan0 eth*\n"}, "dhcpcd", False, True, "is missing"),
        ({**DHCPCD, "etc/dhcpcd.conf": "ssid x\ninterface eth0\npersistent"}, "dhcpcd", True, True, "persistent in"),
        ({**DHCPCD, "etc/dhcpcd.conf": "ssid eth0\npersistent\n"}, "dhcpcd", False, True, "is missing"),
    ],
)  # fmt: skip
def test_one_manager(root: Path, files: Mapping[str, Content], name: str, keeps: bool, renews: bool, why: str) -> None:
    make_tree(root, {**ETH0, **files})
    (found,) = managers("eth0", str(root))
    assert (found.name, found.keeps, found.renews) == (name, keeps, renews)
    assert why in found.why
    assert bool(found.remedy) == (not keeps)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {**NETWORKD, **UNMANAGED},
        {**NETWORKD, "proc/301/comm": "bash\n"},
        {**NM, "run/NetworkManager/devices/2": "[device]\nmanaged=false\n"},
        {**IFUPDOWN, "run/network/ifstate": "lo=lo\n"},
        {**DHCPCD, "etc/dhcpcd.conf": "denyinterfaces wlan0, eth*\n"},
        {**DHCPCD, "etc/dhcpcd.conf": "allowinterfaces wlan0\n"},
    ],
)
def test_nobody(root: Path, files: Mapping[str, Content]) -> None:
    make_tree(root, {**ETH0, **files})
    assert managers("eth0", str(root)) == []


def test_two_at_once(root: Path) -> None:
    make_tree(root, {**ETH0, **NM, **DHCPCD})
    assert [found.name for found in managers("eth0", str(root))] == ["NetworkManager", "dhcpcd"]


def test_each_file_of_networkmanager_is_read_where_it_counts_and_nowhere_else(root: Path) -> None:
    """NetworkManager.conf(5): of one name that in the highest folder; the main file before those of /etc."""
    library, runtime, etc = (f"{folder}/NetworkManager/conf.d" for folder in ("/usr/lib", "/run", "/etc"))
    there = (f"{library}/b.conf", f"{library}/a.conf", f"{library}/x", f"{runtime}/a.conf", f"{runtime}/c.conf",
             f"{etc}/c.conf", f"{etc}/a.txt")  # fmt: skip
    make_tree(root, {name[1:]: "" for name in there})
    assert _networkmanager_files(str(root)) == [
        f"{library}/b.conf", f"{runtime}/a.conf", "/etc/NetworkManager/NetworkManager.conf", f"{etc}/c.conf"
    ]  # fmt: skip
