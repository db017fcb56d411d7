"""`rpinfs netboot doctor`: asks the wire as a board does, and says whether it boots, or what keeps it from it.

The order is that of a boot: offers, the choice between them, the files, the NFS server. The first thing that keeps a
board from booting is the last sentence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rpinfs.errors import quoted
from rpinfs.netboot import mtu, packet, root, tftp, wire
from rpinfs.netboot.boards import BOARDS, Board
from rpinfs.netboot.finding import Gravity
from rpinfs.netboot.judge import Remark, Verdict, judge
from rpinfs.netboot.model import Pi, Plan
from rpinfs.netboot.read.bootfiles import Value, applies, nfs_version, root_problems, values, words
from rpinfs.netboot.read.source import bytes_inside


@dataclass(frozen=True)
class Way:
    """How the questions are put.

    Attributes:
        interface: of this machine, on the boards' LAN.
        tftp: the TFTP root where it is on this machine; empty where it is not.
        write: whether a file may be made in each root, and removed.
    """

    interface: str = ""
    tftp: str = ""
    write: bool = False


@dataclass
class Diagnosis:
    """What one board would do.

    Attributes:
        remarks: in the order of a boot.
        folder: where its files are, "" for the top; None where they are nowhere.
        files: sizes in bytes, -1 where the server does not tell.
        command_line: cmdline.txt as it is served.
        nas: address of the server of its root, empty where nobody has come so far.
    """

    pi: Pi
    verdict: Verdict
    way: Way = Way()
    folder: str | None = None
    files: dict[str, int] = field(default_factory=dict)
    command_line: str = ""
    nas: str = ""
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
    """Ask for all boards at once: the offers to each, and remarks that concern them all. Raises RpinfsError."""
    requests = [request_of(pi, number) for number, pi in enumerate(pis)]
    heard = wire.ask(interface, requests, seconds)
    remarks = [Remark(12, Gravity.WARNING, fault.message) for fault in heard.faults]
    if heard.bridge is not None:
        remarks += _on_spanning_tree(heard.bridge)
    return [heard.answers[request[4:8]] for request in requests], remarks


PATIENCE_OF_A_3B = 25.0
_LONGEST_DELAY = 5.0


def _on_spanning_tree(bridge: wire.Bpdu) -> Iterator[Remark]:
    """What the port of this machine says of the switch; whether the board's port is an edge port it cannot say."""
    if bridge.delay <= _LONGEST_DELAY:
        return
    listens = f"a port that comes up listens for {2 * bridge.delay:g} s before it forwards"
    remedy = "make the ports of boards edge ports (portfast), or switch spanning tree off on them"
    if bridge.rapid:
        message = f"the switch speaks rapid spanning tree: {listens}, unless it is an edge port"
        yield Remark(29, Gravity.NOTE, message, remedy)
    else:
        message = (
            f"the switch speaks spanning tree: {listens}, and a 3B gives up after {PATIENCE_OF_A_3B:g} s; whether the"
            " board's own port does cannot be seen from here"
        )
        yield Remark(29, Gravity.WARNING, message, remedy)


def diagnose(pi: Pi, offers: Sequence[packet.Reply], plan: Plan | None, way: Way = Way()) -> Diagnosis:
    """Go the way of one board from the offers that it got, as far as it comes."""
    found = Diagnosis(pi, judge(pi.board, offers), way)
    found.remarks += found.verdict.remarks
    if found.verdict.tftp:
        found.remarks += _files(found, pi)
    if found.obstacle is None:
        found.remarks += _root(found, plan)
    return found


# The files

_WHOLE = "copy the whole boot partition of the image there, readable for everybody"


def _files(found: Diagnosis, pi: Pi) -> Iterator[Remark]:
    server = found.verdict.tftp
    try:
        if not pi.board.eeprom:
            yield from _needed(found, "", "bootcode.bin")
        found.folder = _folder(found, pi)
        if found.folder is None:
            where = f"{pi.serial}/ or at the top" if pi.serial else "the top"
            message = f"{server} has no {' and no '.join(pi.board.starts)} in {where}"
            yield Remark(15, Gravity.FAULT, message, f"on {server}: {_WHOLE}")
            return
        yield from _configured(found, pi)
    except tftp.SilentError as error:
        remedy = (
            f"start the TFTP server on {server}; it asked there by {found.verdict.why} of {found.verdict.says_boot}"
        )
        yield Remark(13, Gravity.FAULT, error.message, remedy)
    except tftp.NotReadableError as error:
        yield Remark(
            15,
            Gravity.FAULT,
            error.message,
            f"on {server}: make all in its TFTP folder readable for everybody (chmod -R go+rX)",
        )
    except tftp.TftpError as error:
        yield Remark(15, Gravity.FAULT, error.message, f"look at the log of the TFTP server on {server}")


def _folder(found: Diagnosis, pi: Pi) -> str | None:
    for folder in ([f"{pi.serial}/"] if pi.serial else []) + [""]:
        for name in pi.board.starts:
            if _size(found, folder + name) is not None:
                return folder
    return None


def _size(found: Diagnosis, path: str) -> int | None:
    try:
        found.files[path] = tftp.size(found.verdict.tftp, path, found.way.interface)
    except tftp.NotServedError:
        return None
    return found.files[path]


def _fetched(found: Diagnosis, path: str) -> bytes:
    return tftp.fetch(found.verdict.tftp, path, found.way.interface)


def _needed(found: Diagnosis, folder: str, name: str, why: str = "") -> Iterator[Remark]:
    server = found.verdict.tftp
    if _size(found, folder + name) is None:
        message = f"{server} does not serve {folder}{name}{why}"
        yield Remark(15, Gravity.FAULT, message, f"on {server}: is it there, and readable for everybody (chmod go+r)?")


def _configured(found: Diagnosis, pi: Pi) -> Iterator[Remark]:
    server, folder = found.verdict.tftp, found.folder or ""
    settings: list[Value] = []
    if _size(found, f"{folder}config.txt") is None:
        message = f"{server} does not serve {folder}config.txt: the firmware's defaults are used"
        yield Remark(15, Gravity.WARNING, message)
    else:
        text = _fetched(found, f"{folder}config.txt")
        yield from _unlike_the_disks(found, f"{folder}config.txt", text)
        settings = [one for one in values(text.decode("utf-8", "replace")) if applies(one.section, pi.board.model)]
    kernel = next((one.value for one in reversed(settings) if one.key == "kernel"), pi.board.kernel)
    yield from _needed(found, folder, kernel, " (the kernel)")
    if found.files.get(folder + kernel):
        yield from _large_blocks(found, folder + kernel)
        yield from _unlike_the_disks(found, folder + kernel)
    for value in (one for one in settings if one.key == "initramfs" and one.value):
        yield from _needed(found, folder, value.value.split()[0], " (named by config.txt)")
    if _size(found, f"{folder}cmdline.txt") is None:
        message = f"{server} does not serve {folder}cmdline.txt: the kernel finds no root"
        yield Remark(
            15,
            Gravity.FAULT,
            message,
            f"on {server}: put the one there that rpinfs netboot render makes (target boards)",
        )
        return
    text = _fetched(found, f"{folder}cmdline.txt")
    yield from _unlike_the_disks(found, f"{folder}cmdline.txt", text)
    found.command_line = text.decode("utf-8", "replace")
    if not any(name == "nfsroot" for name, _ in words(found.command_line)):
        message = f"{folder}cmdline.txt has no nfsroot=: {found.command_line.strip()[:120]}"
        yield Remark(
            19, Gravity.FAULT, message, f"on {server}: write the line that rpinfs netboot check names for it there"
        )


def _large_blocks(found: Diagnosis, path: str) -> Iterator[Remark]:
    """Whether a block that fills a frame comes through: where it does not, a smaller one may."""
    server, interface = found.verdict.tftp, found.way.interface
    try:
        tftp.begins(server, path, interface)
    except (tftp.SilentError, tftp.StoppedError) as error:
        try:
            tftp.begins(server, path, interface, tftp.SMALL_BLOCK)
        except tftp.TftpError:
            raise error from None
        message = (
            f"blocks of {tftp.BLOCK_SIZE} bytes from {server} are lost, those of {tftp.SMALL_BLOCK} come through:"
            " something on the way takes no frame of 1500 bytes"
        )
        yield Remark(15, Gravity.FAULT, message, f"set the MTU to 1500 on {server}, on this machine and in between")


def _unlike_the_disks(found: Diagnosis, path: str, served: bytes | None = None) -> Iterator[Remark]:
    """Where the TFTP root is on this machine: whether what is served is what lies in it."""
    top = found.way.tftp
    if not top:
        return
    try:
        there = bytes_inside(top, path) if served is not None else b""
        size = os.lstat(f"{top}/{path}").st_size
    except OSError as error:
        there, size, why = b"", -2, error.strerror
    else:
        why = "another one"
    same = there == served if served is not None else found.files[path] in (size, -1)
    if not same:
        message = f"{found.verdict.tftp} serves another {path} than the one in {top} ({why}): there are two TFTP roots"
        yield Remark(16, Gravity.WARNING, message, f"edit the files that {found.verdict.tftp} serves, or serve {top}")


# The root


def _root(found: Diagnosis, plan: Plan | None) -> Iterator[Remark]:
    said = dict(words(found.command_line))
    source = said.get("nfsroot", "")
    server, _, path = source.split(",")[0].rpartition(":")
    found.nas = server or (plan.nas.address if plan else found.verdict.tftp)
    version = nfs_version(source) or "3"
    asked = root.Source(
        found.nas, path, "4.0" if version == "4" else version, said.get("init") or "/sbin/init",
        said.get("nfsv4.directory_delegations", "").lower() not in ("0", "n", "no", "off"),
    )  # fmt: skip
    for problem in root_problems(found.command_line):
        gravity = Gravity.FAULT if problem.fatal else Gravity.WARNING
        remedy = f"on {found.verdict.tftp}: write {problem.instead} there"
        yield Remark(19, gravity, f"{found.folder}cmdline.txt: {problem.message}", remedy)
    yield from root.look_at(asked, found.way.interface, found.way.write)


def look_at_the_ways(all_found: Sequence[Diagnosis]) -> None:
    """Try once how long a packet may be on the way to each server, and say so to each board that it matters to."""
    interface = all_found[0].way.interface if all_found else ""
    servers = dict.fromkeys(one for found in all_found for one in (found.verdict.tftp, found.nas) if one)
    for server in servers:
        remarks = list(_on_the_way(server, interface, mtu.way_to(server, interface)))
        for found in all_found:
            if server in (found.verdict.tftp, found.nas):
                found.remarks += remarks


def _on_the_way(server: str, interface: str, way: mtu.Passage) -> Iterator[Remark]:
    """A board sends and takes packets of 1500 bytes, whatever this machine's own interface does."""
    own = min(way.own or mtu.USUAL, mtu.USUAL)
    if own < mtu.USUAL:
        message = f"{interface} of this machine has an MTU of {own}: what a board gets beyond that cannot be tried here"
        yield Remark(15, Gravity.WARNING, message, f"ip link set {quoted(interface)} mtu 1500")
    if way.why_not and way.why_not != mtu.OURS:
        message = f"whether packets of {mtu.USUAL} bytes come through to {server} was not tried by ping: {way.why_not}"
        yield Remark(15, Gravity.NOTE, message)
    elif not way.why_not and not way.largest:
        message = f"{server} answers no ping: whether packets of {mtu.USUAL} bytes come through is known by TFTP alone"
        yield Remark(15, Gravity.NOTE, message)
    elif not way.why_not and way.largest < own:
        message = (
            f"packets of {own} bytes do not come back from {server}, those of up to {way.largest} do: on the way there"
            f" is an MTU of {way.largest}, and TFTP and NFS stop where a longer one is sent"
        )
        remedy = f"look at the MTU of {server}, of the switch's ports and of what is in between: {mtu.USUAL}"
        yield Remark(15, Gravity.WARNING, message, remedy)


def sentence(found: Diagnosis) -> str:
    """The last word on a board: it boots, or what keeps it from it, and what to change on which machine."""
    if (obstacle := found.obstacle) is not None:
        to_do = f"; to do: {obstacle.remedy}" if obstacle.remedy else ""
        return f"{found.pi.name} does not boot: {obstacle.message}{to_do}"
    verdict = found.verdict
    where = f"/{found.folder}" if found.folder else "the top folder"
    return f"{found.pi.name} boots: files from {verdict.tftp} ({verdict.why} of {verdict.says_boot}), {where}"
