"""`rpinfs netboot doctor`: asks the wire as a board does, and says whether it boots, or what keeps it from it.

The order is that of a boot: offers, the choice between them, the files, the NFS server. The first thing that keeps a
board from booting is the last sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rpinfs.errors import RpinfsError
from rpinfs.netboot import packet, rpc, tftp, wire
from rpinfs.netboot.boards import BOARDS, Board
from rpinfs.netboot.finding import Gravity
from rpinfs.netboot.judge import Remark, Verdict, judge
from rpinfs.netboot.model import Pi, Plan
from rpinfs.netboot.read.bootfiles import values, words

MISSING_IS_NORMAL = ("bootsig.bin", "pieeprom.upd", "recover4.elf", "recovery.elf", "pieeprom.sig", "vl805.sig")
"""Files that a board asks for at every boot, and that are nowhere (nobodd, docs/explain-pi-netboot.rst)."""


@dataclass
class Diagnosis:
    """What one board would do. `remarks` in the order of a boot; `folder`: where its files are, "" for the top."""

    pi: Pi
    verdict: Verdict
    folder: str | None = None
    files: dict[str, int] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    @property
    def obstacle(self) -> Remark | None:
        """The first thing that keeps it from booting."""
        return next((remark for remark in self.remarks if remark.gravity is Gravity.FAULT), None)


def boards_to_ask_for(plan: Plan | None) -> list[Pi]:
    """The boards of the plan, else one of each kind."""
    if plan and plan.pis:
        return list(plan.pis)
    return [Pi(f"a {model}", BOARDS[model]) for model in ("3B", "3B+", "4", "5")]


def request_of(pi: Pi, number: int) -> bytes:
    """What a board would broadcast. `number` tells those apart whose MAC address nobody knows."""
    mac = bytes.fromhex(pi.mac.replace(":", "")) if pi.mac else _made_up(pi.board, number)
    serial = bytes.fromhex(pi.serial) if pi.serial else mac[2:]
    return packet.discover(pi.board, mac, serial, wire.new_transaction())


def _made_up(board: Board, number: int) -> bytes:
    """An address of the right maker, near the end of its range: no board has it."""
    return bytes.fromhex("dca632fffe" if board.eeprom else "b827ebfffe") + bytes([255 - number % 256])


def offers_to(interface: str, pis: Sequence[Pi], seconds: float) -> tuple[list[list[packet.Reply]], list[Remark]]:
    """Ask for all boards at once: the offers to each, and remarks on what was no packet. Raises RpinfsError."""
    requests = [request_of(pi, number) for number, pi in enumerate(pis)]
    answers, faults = wire.ask(interface, requests, seconds)
    remarks = [Remark(12, Gravity.WARNING, fault.message) for fault in faults]
    return [answers[request[4:8]] for request in requests], remarks


def diagnose(pi: Pi, offers: Sequence[packet.Reply], plan: Plan | None) -> Diagnosis:
    """Go the way of one board from the offers that it got, as far as it comes."""
    found = Diagnosis(pi, judge(pi.board, offers))
    found.remarks += found.verdict.remarks
    if found.verdict.tftp:
        found.remarks += _files(found, pi)
    if found.obstacle is None:
        found.remarks += _root(found, plan)
    return found


# The files


def _files(found: Diagnosis, pi: Pi) -> Iterator[Remark]:
    server = found.verdict.tftp
    try:
        if not pi.board.eeprom:
            yield from _needed(found, "", "bootcode.bin")
        found.folder = _folder(found, pi)
        if found.folder is None:
            where = f"{pi.serial}/ or at the top" if pi.serial else "the top"
            message = f"{server} has no {' and no '.join(pi.board.starts)} in {where}"
            yield Remark(
                15, Gravity.FAULT, message, "copy the whole boot partition of the image there, readable for everybody"
            )
            return
        yield from _configured(found, pi)
    except tftp.SilentError as error:
        remedy = (
            f"start the TFTP server on {server}; it asked there by {found.verdict.why} of {found.verdict.says_boot}"
        )
        yield Remark(13, Gravity.FAULT, error.message, remedy)
    except tftp.TftpError as error:
        yield Remark(15, Gravity.FAULT, error.message, "look at the log of the TFTP server")


def _folder(found: Diagnosis, pi: Pi) -> str | None:
    for folder in ([f"{pi.serial}/"] if pi.serial else []) + [""]:
        for name in pi.board.starts:
            if _size(found, folder + name) is not None:
                return folder
    return None


def _size(found: Diagnosis, path: str) -> int | None:
    try:
        found.files[path] = tftp.size(found.verdict.tftp, path)
    except tftp.NotServedError:
        return None
    return found.files[path]


def _needed(found: Diagnosis, folder: str, name: str, why: str = "") -> Iterator[Remark]:
    if _size(found, folder + name) is None:
        message = f"{found.verdict.tftp} does not serve {folder}{name}{why}"
        yield Remark(15, Gravity.FAULT, message, "is it there, and readable for everybody (chmod go+r)?")


def _configured(found: Diagnosis, pi: Pi) -> Iterator[Remark]:
    server, folder = found.verdict.tftp, found.folder or ""
    if _size(found, f"{folder}config.txt") is None:
        yield Remark(
            15, Gravity.WARNING, f"{server} does not serve {folder}config.txt: the firmware's defaults are used"
        )
        settings = []
    else:
        settings = list(values(tftp.fetch(server, f"{folder}config.txt").decode("utf-8", "replace")))
    kernel = next((one.value for one in reversed(settings) if one.key == "kernel"), pi.board.kernel)
    yield from _needed(found, folder, kernel, " (the kernel)")
    for value in (one for one in settings if one.key == "initramfs"):
        yield from _needed(found, folder, value.value.split()[0], " (named by config.txt)")
    if _size(found, f"{folder}cmdline.txt") is None:
        yield Remark(15, Gravity.FAULT, f"{server} does not serve {folder}cmdline.txt: the kernel finds no root", "")
        return
    line = tftp.fetch(server, f"{folder}cmdline.txt").decode("utf-8", "replace")
    if not any(name == "nfsroot" for name, _ in words(line)):
        message = f"{folder}cmdline.txt has no nfsroot=: {line.strip()[:120]}"
        yield Remark(19, Gravity.FAULT, message, "rpinfs netboot check names the line to write")


# The root


def _root(found: Diagnosis, plan: Plan | None) -> Iterator[Remark]:
    line = ""
    if found.folder is not None:
        line = tftp.fetch(found.verdict.tftp, f"{found.folder}cmdline.txt").decode("utf-8", "replace")
    source = next((value for name, value in words(line) if name == "nfsroot"), "")
    server = source.partition(":")[0] or (plan.nas.address if plan else "")
    version = next((option[5:] for option in source.split(",") if option.startswith("vers=")), "3")
    try:
        if not rpc.null_call(server, int(version[0])):
            remedy = f"switch NFS {version} on there, or write another vers= into cmdline.txt"
            yield Remark(30, Gravity.FAULT, f"{server} serves NFS, but not version {version[0]}", remedy)
    except RpinfsError as error:
        yield Remark(30, Gravity.FAULT, error.message, f"start the NFS server on {server}")


def sentence(found: Diagnosis) -> str:
    """The last word on a board."""
    if (obstacle := found.obstacle) is not None:
        return f"{found.pi.name} does not boot: {obstacle.message}"
    verdict = found.verdict
    where = f"/{found.folder}" if found.folder else "the top folder"
    return f"{found.pi.name} boots: files from {verdict.tftp} ({verdict.why} of {verdict.says_boot}), {where}"
