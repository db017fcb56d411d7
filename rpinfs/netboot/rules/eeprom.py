"""Rules 26 to 28 and 32 on the EEPROM of a board: its settings (boot.conf) and its age.

Ages: raspberrypi/rpi-eeprom, release notes. An image of an EEPROM tells its own (rpi-eeprom-update reads it there).
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator

from rpinfs.boot.settings import is_ipv4
from rpinfs.netboot.finding import Finding, Gravity
from rpinfs.netboot.read.bootfiles import EEPROM_KEYS, Value, values
from rpinfs.netboot.read.source import text_inside
from rpinfs.netboot.seen import BootFolder, Seen

NETCONSOLE = "NETCONSOLE=6665@169.254.1.1/,6666@/"
HANGS_BEFORE, LARGE_FILES_FROM = "2022-04-22", "2025-09-23"
LARGE_FILE = 96 << 20
"""Bytes by TFTP, over which the number of a block rolls over once more than older EEPROMs bear (rpi-eeprom#720)."""

_IMAGES = ("pieeprom.upd", "pieeprom.bin")
_BUILT = re.compile(rb"BUILD_TIMESTAMP=([0-9]{1,10})")
_LARGEST_IMAGE = 4 << 20


def settings(seen: Seen) -> Iterator[Finding]:
    """boot.conf: an EEPROM takes any key, and says nothing (rpi-eeprom#826)."""
    for path, found in _settings(seen):
        for value in found:
            if value.key not in EEPROM_KEYS:
                yield Finding(
                    26,
                    Gravity.WARNING,
                    path,
                    value.line,
                    f"no EEPROM knows {value.key}: it is taken without a word",
                    "(leave the line out)",
                )
            elif value.key == "BOOT_ORDER":
                yield from _judge_order(path, value)
            elif value.key in _ADDRESSES and not is_ipv4(value.value):
                message = f"{value.key}={value.value}: expected an IPv4 address: a bootloader knows no names"
                yield Finding(26, Gravity.FAULT, path, value.line, message, "(leave the line out)")
            elif value.key == "TFTP_PREFIX_STR" and (len(value.value) > 32 or not value.value.endswith("/")):
                yield Finding(
                    26, Gravity.FAULT, path, value.line, "expected at most 32 characters with a slash at the end", ""
                )


_ADDRESSES = ("TFTP_IP", "CLIENT_IP", "SUBNET", "GATEWAY")


def _judge_order(path: str, value: Value) -> Iterator[Finding]:
    digits = value.value.lower().removeprefix("0x")
    if "2" not in digits:
        yield Finding(
            27,
            Gravity.FAULT,
            path,
            value.line,
            f"{value.value} has no 2: this board never tries the network",
            "BOOT_ORDER=0xf2",
        )
    elif not digits.startswith("f"):
        message = f"{value.value} does not end in f (read from the right): after one failure the board stays dark"
        yield Finding(27, Gravity.WARNING, path, value.line, message, f"BOOT_ORDER=0xf{digits}")


def silent(seen: Seen) -> Iterator[Finding]:
    """A bootloader that keeps its log to itself, or asks a server on the Internet."""
    for path, found in _settings(seen):
        by_key = {value.key: value for value in found}
        if "NETCONSOLE" not in by_key:
            message = "the bootloader tells nobody what it does: with NETCONSOLE rpinfs netboot watch shows its log"
            yield Finding(32, Gravity.NOTE, path, 0, message, f"add the line: {NETCONSOLE}")
        order = by_key.get("BOOT_ORDER")
        if order and "7" in order.value.lower().removeprefix("0x") and "HTTP_HOST" not in by_key:
            message = f"{order.value} has a 7 and there is no HTTP_HOST: the board asks Raspberry Pi's own server"
            yield Finding(
                32,
                Gravity.NOTE,
                path,
                order.line,
                message,
                "write HTTP_HOST=ADDRESS into it, or an order without the 7",
            )


def _settings(seen: Seen) -> Iterator[tuple[str, list[Value]]]:
    for folder in seen.boots:
        if "boot.conf" in folder.files:
            yield f"{folder.path}/boot.conf", list(values(text_inside(folder.path, "boot.conf")))


def age(seen: Seen) -> Iterator[Finding]:
    """An EEPROM that is older than what it needs: Linux 5.16, and files of more than 96 MB."""
    for pi in seen.plan.pis if seen.plan else ():
        if pi.eeprom:
            folders = [folder for folder in seen.boots if folder.name in (pi.serial, pi.name)]
            yield from _judge_age(pi.name, "the plan", pi.eeprom, folders)
    for folder in seen.boots:
        for name in folder.files.intersection(_IMAGES):
            if built := _built(f"{folder.path}/{name}"):
                yield from _judge_age("the board that takes it", f"{folder.path}/{name}", built, [folder])


def _judge_age(whose: str, file: str, date: str, folders: list[BootFolder]) -> Iterator[Finding]:
    update = "on the Pi: apt install rpi-eeprom && rpi-eeprom-update -a"
    if date < HANGS_BEFORE:
        message = (
            f"the EEPROM of {whose} is of {date}: before {HANGS_BEFORE} it hangs at a reboot of Linux 5.16 or later"
        )
        yield Finding(28, Gravity.WARNING, file, 0, message, update)
    if date >= LARGE_FILES_FROM:
        return
    for folder in folders:
        for name in sorted(folder.files):
            if _size(f"{folder.path}/{name}") > LARGE_FILE:
                message = (
                    f"the EEPROM of {whose} is of {date}: before {LARGE_FILES_FROM} it fetches no file of more than"
                    f" {LARGE_FILE >> 20} MB by TFTP, and {folder.path}/{name} is one"
                )
                yield Finding(28, Gravity.FAULT, file, 0, message, update)


def _size(path: str) -> int:
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _built(path: str) -> str:
    """The day on which an image of an EEPROM was built; empty where it does not say."""
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, _FLAGS)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            found = _BUILT.search(file.read(_LARGEST_IMAGE))
    except OSError:
        return ""
    return time.strftime("%Y-%m-%d", time.gmtime(int(found[1]))) if found else ""


_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
RULES = (settings, silent, age)
