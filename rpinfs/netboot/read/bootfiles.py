"""What lies in a board's boot folder: cmdline.txt, config.txt, and the settings of an EEPROM (boot.conf)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_EEPROM = """
    BOOT_UART UART_BAUD WAKE_ON_GPIO POWER_OFF_ON_HALT PSU_MAX_CURRENT USB_MSD_EXCLUDE_VID_PID
    USB_MSD_DISCOVER_TIMEOUT USB_MSD_LUN_TIMEOUT USB_MSD_PWR_OFF_TIME USB_MSD_STARTUP_DELAY VL805 XHCI_DEBUG
    BOOT_ORDER MAX_RESTARTS SD_BOOT_MAX_RETRIES NET_BOOT_MAX_RETRIES DHCP_TIMEOUT DHCP_REQ_TIMEOUT
    TFTP_FILE_TIMEOUT TFTP_IP TFTP_PREFIX TFTP_PREFIX_STR PXE_OPTION43 DHCP_OPTION97 MAC_ADDRESS MAC_ADDRESS_OTP
    STATIC_IP CLIENT_IP SUBNET GATEWAY DISABLE_HDMI HDMI_DELAY ENABLE_SELF_UPDATE FREEZE_VERSION HTTP_HOST
    HTTP_PORT HTTP_PATH HTTP_CACERT_HASH IMAGER_REPO_URL NET_INSTALL_ENABLED NET_INSTALL_AT_POWER_ON
    NET_INSTALL_KEYBOARD_WAIT NETCONSOLE PARTITION PARTITION_WALK PCIE_PROBE REBOOT_BOOTLOADER_UPDATE SIGNED_BOOT
    SDRAM_BANKLOW SDRAM_HEAP TRYBOOT RPIBOOT NVME_BOOT_MAX_RETRIES USB_BOOT_MAX_RETRIES CONFIG_TXT FAN_TEMP0
    BOOT_WATCHDOG_TIMEOUT BOOT_WATCHDOG_PARTITION BOOT_LOAD_FLAGS BOOTVAR0 PCIEx1 CM4_ENABLE_RPIBOOT_GPIO
    ERASE_EEPROM USER_SERIAL_NUM EEPROM_HASH
"""
EEPROM_KEYS = frozenset(_EEPROM.split())
"""raspberrypi/documentation, eeprom-bootloader.adoc. An EEPROM takes any key, known or not, without a word."""


@dataclass(frozen=True)
class Value:
    """One KEY=VALUE and the condition above it, such as "pi4"; "all" where there is none."""

    line: int
    section: str
    key: str
    value: str


def values(text: str) -> Iterator[Value]:
    """Read config.txt or boot.conf: KEY=VALUE below [conditions]; `initramfs FILE ADDRESS` has no `=`."""
    section = "all"
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.partition("#")[0].strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif line.startswith("initramfs "):
            yield Value(number, section, "initramfs", line.removeprefix("initramfs ").strip())
        elif line:
            key, equals, value = line.partition("=")
            yield Value(number, section, key.strip(), value.strip() if equals else "")


_FAMILIES = {"3B": ("pi3",), "3B+": ("pi3", "pi3+"), "4": ("pi4",), "400": ("pi4", "pi400"), "CM4": ("pi4", "cm4"),
             "5": ("pi5",), "500": ("pi5", "pi500"), "CM5": ("pi5", "cm5")}  # fmt: skip


def applies(section: str, model: str) -> bool:
    """Whether a board goes by what stands below a condition of config.txt; those on other things are taken as met.

    Source: raspberrypi/documentation, config_txt/conditional.adoc.
    """
    name = section.lower()
    if name == "none":
        return False
    about_a_board = re.fullmatch(r"pi\d+\+?|pi0w|pi02|cm\d+s?|board-type=.*", name)
    return about_a_board is None or name in _FAMILIES[model] or name.startswith("board-type=")


def words(cmdline: str) -> list[tuple[str, str]]:
    """The words of a kernel command line, as (name, value)."""
    found = []
    for word in cmdline.split():
        name, _, value = word.partition("=")
        found.append((name, value))
    return found


def nfs_version(source: str) -> str:
    """The version that an nfsroot= asks for, such as "4.1"; empty where it names none, or nonsense."""
    asked = [word.partition("=") for word in source.split(",")[1:]]
    # The kernel takes vers=4.1, nfsvers=4.1 and v4.1.
    named = [value or name[1:] for name, _, value in asked if name in ("vers", "nfsvers") or name in _VERSION_WORDS]
    last = named[-1] if named else ""
    return last if last in VERSIONS else ""


VERSIONS = ("3", "4", "4.0", "4.1", "4.2")
_VERSION_WORDS = ("v2", *(f"v{version}" for version in VERSIONS))


@dataclass(frozen=True)
class RootProblem:
    """Words of a command line by which a kernel does not mount its root, or not for long.

    Attributes:
        fatal: whether it is not mounted at all.
        found: the word or the option at fault; empty where one is missing.
        instead: what is to stand there.
    """

    fatal: bool
    found: str
    message: str
    instead: str

    def mended(self, cmdline: str) -> str:
        """The command line with this put right."""
        if not self.found:
            return f"{cmdline} {self.instead}"
        at = re.escape(self.found)
        return re.sub(rf"(?<![^\s,]){at}(?![^\s,])", lambda _: self.instead, cmdline)


_UNTIL_SILENT = "where the NAS is silent for some seconds, programs of the Pi fail, and files are torn"


def root_problems(cmdline: str) -> Iterator[RootProblem]:
    """What is wrong with how a root is asked for. Sources: Linux, nfsroot.rst; fs/nfs/fs_context.c; nfs(5)."""
    said = words(cmdline)
    source = next((value for name, value in reversed(said) if name == "nfsroot"), "")
    if not source:
        return
    for option in source.split(",")[1:]:
        name, _, value = option.partition("=")
        if option == "v2" or (name in ("vers", "nfsvers") and value not in VERSIONS):
            message = f"{option}: the kernel knows the versions {', '.join(VERSIONS)}"
            yield RootProblem(True, option, message, "vers=4.1")
        elif option in ("udp", "proto=udp"):
            yield RootProblem(True, option, f"{option}: kernels have no NFS over UDP any more", "proto=tcp")
        elif name == "proto" and value != "tcp":
            yield RootProblem(True, option, f"{option}: a Pi mounts its root by tcp", "proto=tcp")
        elif option in ("soft", "softerr"):
            yield RootProblem(False, option, f"{option}: {_UNTIL_SILENT}", "hard")
        elif name == "sec" and value != "sys":
            message = f"{option}: a kernel that mounts its root has no tickets of Kerberos"
            yield RootProblem(True, option, message, "sec=sys")
    writable = next((name for name, _ in reversed(said) if name in ("ro", "rw")), "")
    if writable != "rw":
        message = f"{writable or 'rw is missing'}: the root is read-only, unless its fstab has a line for /"
        yield RootProblem(False, writable, message, "rw")
    addressing = next((f"ip={value}" for name, value in reversed(said) if name == "ip"), None)
    if addressing in ("ip=off", "ip=none", "ip="):
        message = f"{addressing}: the kernel gets no address, and finds no NAS"
        yield RootProblem(True, addressing, message, "ip=dhcp")
