"""Rules 15, 17 to 20 and 31 on the folders that boards boot from."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from rpinfs.errors import quoted
from rpinfs.netboot.finding import Finding, Gravity
from rpinfs.netboot.model import Pi
from rpinfs.netboot.read.bootfiles import Value, root_problems, values, words
from rpinfs.netboot.read.exports import path_text
from rpinfs.netboot.read.source import oddity_inside, text_inside
from rpinfs.netboot.render.board import DROPPED, DROPPED_WORDS, boot_folder, command_line
from rpinfs.netboot.seen import BootFolder, Seen
from rpinfs.system.files import move_away

_STOCK = {
    "root": "the SD card's root is left in it: the Pi waits for a partition that is not there",
    "rootfstype": "an NFS root has no such type: the kernel finds no file system for it",
    "fsck.repair": "there is no partition to check",
    "init": "the first boot of an SD card resizes a partition that is not there",
    "systemd.run": "the customisation of an SD card is run in place of the system, and the Pi reboots, again and again",
    "resize": "the first boot of an SD card resizes a partition that is not there",
}
_SERIAL = re.compile(r"[0-9a-f]{8}")
_LONG_SERIAL = re.compile(r"[0-9a-f]{16}")


def _pi_of(seen: Seen, folder: BootFolder) -> Pi | None:
    return next((pi for pi in seen.plan.pis if folder.name in (pi.serial, pi.name)), None) if seen.plan else None


def folder_names(seen: Seen) -> Iterator[Finding]:
    """A board asks for the low eight digits of its serial number, in lower case."""
    for folder in seen.boots:
        name = folder.name
        if folder.path == folder.top:
            continue
        low = name.lower()
        if _LONG_SERIAL.fullmatch(low):
            message = f"no board asks for {name}: it asks for the last eight digits"
            yield Finding(17, Gravity.FAULT, folder.path, 0, message, _called(folder, low[-8:]))
        elif name != low and _SERIAL.fullmatch(low):
            message = f"no board asks for {name}: it asks in lower case"
            yield Finding(17, Gravity.FAULT, folder.path, 0, message, _called(folder, low))


def _called(folder: BootFolder, name: str) -> str:
    """How a folder gets the name that is asked for; where another one has it, this one lies there in vain."""
    wanted = f"{folder.top}/{name}"
    if os.path.lexists(wanted):
        return f"{name} is there as well, and is what it boots from; move this one away: {move_away(folder.path)}"
    return f"mv -nT {quoted(folder.path, wanted)}"


def missing_folders(seen: Seen) -> Iterator[Finding]:
    """Boards of the plan that have no folder."""
    for top in seen.tftp:
        # The configuration of another machine names folders of that one.
        if not os.path.isdir(top) and (seen.plan or seen.interfaces is not None):
            yield Finding(17, Gravity.FAULT, top, 0, f"the TFTP folder is not there ({seen.tftp[top]} names it)", "")
    if seen.plan is None:
        return
    for top in filter(os.path.isdir, seen.tftp):
        here = {folder.name for folder in seen.boots if folder.top == top}
        for pi in seen.plan.pis:
            if top.endswith(seen.plan.nas.boot) and pi.serial and pi.serial not in here:
                message = f"{pi.name} asks for the folder {pi.serial}, which is not there"
                yield Finding(
                    17,
                    Gravity.FAULT,
                    top,
                    0,
                    message,
                    f"copy the boot partition of the image of {pi.name} to {top}/{pi.serial}",
                )


def unreadable_files(seen: Seen) -> Iterator[Finding]:
    """A TFTP server gives out what everybody may read (rpi-eeprom#188)."""
    for folder in seen.boots:
        for name in sorted(folder.files):
            path = f"{folder.path}/{name}"
            try:
                mode = os.stat(path).st_mode
            except OSError:
                continue
            wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
            if mode & wanted != wanted:
                message = (
                    f"not readable for everybody (mode {stat.S_IMODE(mode):04o}): the TFTP server does not give it out"
                )
                yield Finding(18, Gravity.FAULT, path, 0, message, f"chmod -R go+rX {quoted(folder.path)}")
                break


def start_files(seen: Seen) -> Iterator[Finding]:
    """A folder counts for a board only where start4.elf or start.elf lies in it; a Pi 5 asks for them as well."""
    for folder in seen.boots:
        if folder.path != folder.top and not folder.files.intersection(("start4.elf", "start.elf")):
            message = "neither start4.elf nor start.elf is in it: the board drops this folder and asks at the top"
            yield Finding(
                15, Gravity.FAULT, folder.path, 0, message, "copy the whole boot partition of the image there"
            )


def no_command_line(seen: Seen) -> Iterator[Finding]:
    """A folder that a board takes for its own, without cmdline.txt: the kernel starts, and finds no root."""
    for folder in seen.boots:
        if folder.files.intersection(("start4.elf", "start.elf")) and "cmdline.txt" not in folder.files:
            # Where every board has a folder of its own, the top is nobody's.
            if folder.path == folder.top and any(one.top == folder.top != one.path for one in seen.boots):
                continue
            message = "cmdline.txt is not in it: the kernel starts, and finds no root"
            pi = _pi_of(seen, folder)
            right = command_line(seen.plan, pi) if seen.plan and pi else _right("console=tty1 rootwait rw")
            yield Finding(19, Gravity.FAULT, folder.path, 0, message, f"write cmdline.txt, of this one line: {right}")


def command_lines(seen: Seen) -> Iterator[Finding]:
    """cmdline.txt: one line, and nothing of an SD card left in it."""
    for folder in seen.boots:
        if "cmdline.txt" in folder.files:
            path = f"{folder.path}/cmdline.txt"
            if oddity := oddity_inside(folder.path, "cmdline.txt"):
                yield Finding(19, Gravity.FAULT, path, 0, f"the firmware cannot take it as it is: {oddity}")
                continue
            yield from _judge_command_line(seen, folder, path, text_inside(folder.path, "cmdline.txt"))


def _judge_command_line(seen: Seen, folder: BootFolder, path: str, text: str) -> Iterator[Finding]:
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    if "\r" in text:
        message = "its line ends as those of Windows do: the kernel has the carriage return in its last word"
        yield Finding(19, Gravity.WARNING, path, 1, message, lines[0] if lines else "")
    pi = _pi_of(seen, folder)
    right = command_line(seen.plan, pi, " ".join(lines)) if seen.plan and pi else _right(" ".join(lines))
    if len(lines) != 1:
        yield Finding(
            19,
            Gravity.FAULT,
            path,
            2 if lines else 0,
            f"expected one line, found {len(lines)}: only the first counts",
            right,
        )
    if not lines:
        return
    found = words(lines[0])
    by_name = dict(found)
    for name, value in found:
        is_stock = f"{name}=".startswith(DROPPED) or name in DROPPED_WORDS
        if not is_stock or name in ("nfsroot", "ip") or (name == "root" and value.startswith(("/dev/nfs", "nfs"))):
            continue
        yield Finding(
            19,
            Gravity.FAULT,
            path,
            1,
            f"{name}={value}: ".replace("=: ", ": ") + _STOCK.get(name, "it is the SD card's"),
            right,
        )
    if by_name.get("root") != "/dev/nfs" and "nfsroot" in by_name and "root" not in by_name:
        yield Finding(
            19, Gravity.FAULT, path, 1, "root=/dev/nfs is missing: the kernel does not look for an NFS root", right
        )
    if "nfsroot" not in by_name and by_name.get("root", "") in ("/dev/nfs", ""):
        yield Finding(19, Gravity.FAULT, path, 1, "nfsroot= is missing: nothing says where the root is", right)
    if "nfsroot" in by_name and "ip" not in by_name:
        yield Finding(
            19, Gravity.FAULT, path, 1, "ip=dhcp is missing: the kernel gets no address, and finds no NAS", right
        )
    for problem in root_problems(lines[0]):
        gravity = Gravity.FAULT if problem.fatal else Gravity.WARNING
        yield Finding(19, gravity, path, 1, problem.message, problem.mended(lines[0]))
    yield from _judge_root(seen, path, by_name.get("nfsroot", ""))


def _right(line: str) -> str:
    kept = [
        w
        for w in line.split()
        if not w.startswith(tuple(d for d in DROPPED if d not in ("nfsroot=", "ip="))) and w not in DROPPED_WORDS
    ]
    more = [] if any(w.startswith("nfsroot=") for w in kept) else ["nfsroot=NAS:/PATH,vers=4.1,proto=tcp"]
    more += [] if any(w.startswith("ip=") for w in kept) else ["ip=dhcp"]
    return " ".join([*kept, "root=/dev/nfs", *more])


def _judge_root(seen: Seen, path: str, nfsroot: str) -> Iterator[Finding]:
    """Whether the root that is asked for is exported, and to whom."""
    _, colon, place = nfsroot.partition(":")
    folder = (place if colon else nfsroot).split(",")[0].rstrip("/")
    if folder and seen.exports and not any(_covers(export.path, folder) for export in seen.exports):
        known = ", ".join(sorted({export.path for export in seen.exports}))
        message = f"nfsroot={nfsroot}: {folder} is in no export (there are {known})"
        clients = str(seen.plan.network.subnet) if seen.plan else "NETWORK"
        line = f"{path_text(folder)}  {clients}(rw,sync,no_subtree_check,no_root_squash)"
        yield Finding(19, Gravity.FAULT, path, 1, message, f"add to the exports of the NAS: {line}")


def _covers(export: str, folder: str) -> bool:
    return export == "/" or f"{folder}/".startswith(export.rstrip("/") + "/")


def _config(folder: BootFolder) -> list[Value]:
    return list(values(text_inside(folder.path, "config.txt"))) if "config.txt" in folder.files else []


def initramfs(seen: Seen) -> Iterator[Finding]:
    """The image's initramfs speaks NFS 3 at the most, and holds the drivers of another machine."""
    for folder in seen.boots:
        path = f"{folder.path}/config.txt"
        if "config.txt" in folder.files and (oddity := oddity_inside(folder.path, "config.txt")):
            yield Finding(20, Gravity.WARNING, path, 1, f"the firmware does not understand all of it: {oddity}")
        settings = _config(folder)
        last = {value.key: value for value in settings}
        cmdline = text_inside(folder.path, "cmdline.txt")
        version = re.search(r"vers=(\d(?:\.\d)?)", cmdline)
        if "nfsroot=" not in cmdline or (version and version[1].startswith("3")):
            continue
        if (automatic := last.get("auto_initramfs")) and automatic.value == "1":
            message = "the image's initramfs cannot mount a root by NFS 4 (bookworm-feedback#267)"
            yield Finding(20, Gravity.FAULT, path, automatic.line, message, "auto_initramfs=0")
        for value in (one for one in settings if one.key == "initramfs"):
            name = value.value.split()[0] if value.value else ""
            if name and name not in folder.files:
                yield Finding(
                    20, Gravity.FAULT, path, value.line, f"{name} is not in {folder.path}", "(leave the line out)"
                )


def not_the_mounted_one(seen: Seen) -> Iterator[Finding]:
    """What the Pi mounts at /boot/firmware must be what it boots from, or a new kernel never boots."""
    if seen.plan is None:
        return
    for root in seen.roots:
        pi = next((pi for pi in seen.plan.pis if pi.name == os.path.basename(root)), None)
        for number, line in enumerate(text_inside(root, "etc/fstab").split("\n"), 1):
            fields = line.split()
            if (
                pi is None
                or len(fields) < 3
                or fields[0].startswith("#")
                or fields[1] not in ("/boot/firmware", "/boot")
            ):
                continue
            source = f"{seen.plan.nas.address}:{boot_folder(seen.plan, pi)}"
            if fields[2].startswith("nfs") and fields[0].rstrip("/") != source:
                folder = boot_folder(seen.plan, pi)
                message = f"{pi.name} boots from {folder} and mounts {fields[0]}: what apt updates is not what boots"
                yield Finding(
                    31, Gravity.WARNING, f"{root}/etc/fstab", number, message, line.replace(fields[0], source)
                )


RULES = (
    folder_names, missing_folders, unreadable_files, start_files, no_command_line,
    command_lines, initramfs, not_the_mounted_one,
)  # fmt: skip
