"""`rpinfs netboot`: the server side, on any Debian host, with no configuration of rpinfs."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING

from rpinfs.commands.boards import add_boards
from rpinfs.commands.cli import UsageError, add_command, add_group
from rpinfs.commands.common import Progress, print_document
from rpinfs.errors import RpinfsError, printable, quoted

if TYPE_CHECKING:
    from rpinfs.commands.cli import Group
    from rpinfs.netboot.doctor import Diagnosis
    from rpinfs.netboot.model import Plan
    from rpinfs.netboot.render.text import Rendered

PLAN = "rpinfs-netboot.toml"
"""Where the verbs look for the plan when none is named: in the folder that one is in."""


def add_netboot(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs netboot` takes."""
    group = add_group(parser, "From a NAS and a few Pis to Pis that boot. Begin with: rpinfs netboot plan")
    _add_plan(group)
    _add_render(group)
    parser = add_command(
        group,
        "check",
        "name every fault in the files of DHCP, TFTP and NFS servers, boot folders and roots",
        _check,
        "Read what is there and name what keeps a Pi from booting: file, line, why, and the line to write instead."
        "\nWith no FILE or DIR, the usual places of this machine. Exit status: 0 nothing, 1 warnings, 2 faults.",
        "  rpinfs netboot check\n  rpinfs netboot check /etc/dnsmasq.d /srv/tftp",
    )
    parser.add_argument("paths", metavar="FILE|DIR", nargs="*")
    _add_plan_option(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser = add_command(
        group,
        "doctor",
        "ask the wire as a Pi does, and say whether it boots or what keeps it from it",
        _doctor,
        "Broadcast the request of each board, judge all answers as its firmware does, fetch the files by TFTP, ask NFS."
        "\nNothing is changed but with --write, no address is taken. Needs root. Exit status: 0 all boot, 2 not all.",
        "  sudo rpinfs netboot doctor --interface eth0",
    )
    parser.add_argument("--interface", required=True, metavar="I", help="on the boards' LAN, such as eth0")
    parser.add_argument(
        "--tftp", type=_folder, default="", metavar="DIR", help="the TFTP root on this machine: is it what is served?"
    )
    parser.add_argument("--write", action="store_true", help="also make a file in each root, and remove it")
    parser.add_argument("--seconds", type=_seconds, default=5.0, metavar="S", help="to wait for all offers; default 5")
    _add_plan_option(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    _add_watch(group)
    add_boards(group, _plan_of)


def _add_watch(group: Group) -> None:
    parser = add_command(
        group,
        "watch",
        "listen to who asks to boot, and how far each gets, until it is up; and to the bootloaders' own logs",
        _watch,
        "Print a line for each Pi that asks to boot, what it is offered, how far it gets, what its bootloader logs"
        "\n(NETCONSOLE), and when its lease is on the share. Most is heard on the host of the servers. Needs root."
        "\nIt ends with Ctrl-C.",
        "  sudo rpinfs netboot watch --interface eth0 --share /docker",
    )
    parser.add_argument("--interface", required=True, metavar="I", help="on the boards' LAN, such as eth0")
    parser.add_argument(
        "--tftp", type=_folder, default="", metavar="DIR", help="the TFTP root, where it is on this machine"
    )
    parser.add_argument("--share", default="", metavar="DIR", help="folder with the images; default: the plan's")
    _add_plan_option(parser)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) <= 60:
            return seconds
    raise argparse.ArgumentTypeError(f"expected seconds, more than 0 and 60 at the most, found {text}")


def _folder(text: str) -> str:
    """A folder that is named is there: with a wrong one every board would lack its files."""
    if text and not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"expected a folder, found none: {text}")
    return text


def _add_plan_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", metavar="FILE", help=f"the plan; default: {PLAN} in this folder, if it is there")


def _add_plan(group: Group) -> None:
    parser = add_command(
        group,
        "plan",
        "from a few facts to the way that fits, and one page of steps",
        _plan,
        "Choose the way to netboot that fits, write it down as a plan, and print the page of steps."
        "\nWhat no option says is asked for on a terminal. A plan that is there is read, checked and printed again.",
        "  rpinfs netboot plan --nas 192.168.1.10 --subnet 192.168.1.0/24 --pi pi1,4,1a2b3c4d\n  rpinfs netboot plan",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", default=PLAN, help=f"the plan; default {PLAN}")
    parser.add_argument("--nas", metavar="ADDRESS", help="IPv4 address of the NAS")
    parser.add_argument("--nas-kind", metavar="KIND", help="linux, synology, truenas, omv or qnap")
    parser.add_argument("--subnet", metavar="NETWORK", help="such as 192.168.1.0/24")
    parser.add_argument("--dhcp", metavar="WHO", help="what gives addresses: consumer, openwrt, isc, kea, ...")
    parser.add_argument("--box", metavar="ADDRESS,INTERFACE", help="a Linux box that may answer DHCP and TFTP")
    parser.add_argument(
        "--pi", metavar="NAME,BOARD[,SERIAL[,MAC]]", action="append", default=[], help="a board; may be repeated"
    )
    parser.add_argument("--pcs", action="store_true", help="PCs netboot on this LAN, too: they are to be left alone")
    parser.add_argument("--topology", metavar="A|B|C|D", help="the way, where it is not to be chosen")
    parser.add_argument("--force", action="store_true", help="write a new plan over one that is there")


def _add_render(group: Group) -> None:
    parser = add_command(
        group,
        "render",
        "write the files and pages that the plan needs",
        _render,
        "Write what DHCP, TFTP and NFS servers and each board need into a folder, each with the place where it belongs."
        "\n--apply puts those for this machine in their places; what is there is shown as a diff first, and kept.",
        "  rpinfs netboot render --output netboot\n  rpinfs netboot render --for kea",
    )
    parser.add_argument("plan", metavar="PLAN", nargs="?", help=f"default: {PLAN} in this folder")
    parser.add_argument(
        "--for", dest="targets", action="append", default=[], metavar="TARGET", help="only this; may be repeated"
    )
    parser.add_argument("--output", metavar="DIR", help="where to write them; default: they are printed")
    parser.add_argument(
        "--apply", metavar="BOX", help='put those for "the NAS", "the Linux box" or "the router" in place here'
    )
    parser.add_argument(
        "--yes",
        action="store_true",
        help="with --apply: also over files that are there (each is kept as FILE.before-rpinfs~)",
    )


# plan


def _plan(options: argparse.Namespace) -> int:
    from rpinfs.netboot import plan
    from rpinfs.netboot.page import page

    given = any(
        (
            options.nas,
            options.nas_kind,
            options.subnet,
            options.dhcp,
            options.box,
            options.pi,
            options.topology,
            options.pcs,
        )
    )
    if os.path.exists(options.file) and not options.force:
        if given:
            message = f"{options.file}: there is a plan already"
            reading = f"rpinfs netboot plan {quoted(options.file)}"
            raise RpinfsError(message, f"edit it, or write a new one by --force; to read it: {reading}", status=2)
        made = plan.load(options.file)
    else:
        made = plan.parse(_document(options), "the options")
        plan.save(made, options.file)
    print(page(made, options.file), end="")
    return 0


def _document(options: argparse.Namespace) -> dict[str, object]:
    """What a plan's file would hold, of options and of what a person answers."""
    ask = _Questions()
    nas: dict[str, object] = {"address": options.nas or ask("IPv4 address of the NAS", "--nas")}
    if kind := options.nas_kind or ask("kind of NAS: linux, synology, truenas, omv, qnap", "", "linux"):
        nas["kind"] = kind
    network: dict[str, object] = {
        "subnet": options.subnet or ask("network of the boards, such as 192.168.1.0/24", "--subnet"),
        "dhcp": options.dhcp
        or ask("what gives addresses: consumer, openwrt, isc, kea, mikrotik, unifi, ...", "", "consumer"),
    }
    if options.pcs or ask("do PCs netboot on this LAN, too: yes, no", "", "no").lower().startswith("y"):
        network["pcs"] = True
    document: dict[str, object] = {"network": network, "nas": nas}
    if options.box:
        address, _, interface = options.box.partition(",")
        document["box"] = {"address": address, **({"interface": interface} if interface else {})}
    if options.topology:
        document["topology"] = options.topology
    boards = options.pi or ask.many("a board as NAME,BOARD,SERIAL, such as pi1,4,1a2b3c4d; empty: no more")
    document["pi"] = [_board(board) for board in boards]
    return document


def _board(text: str) -> dict[str, str]:
    """What is known of a board; what is left empty is not."""
    keys, words = ("name", "board", "serial", "mac"), [word.strip() for word in text.split(",")]
    if len(words) > len(keys):
        raise UsageError(f"--pi: expected NAME,BOARD[,SERIAL[,MAC]], found {text}", "rpinfs netboot plan")
    return {key: word for key, word in zip(keys, words, strict=False) if word}


class _Questions:
    """Asks a person, where there is one."""

    def __init__(self) -> None:
        self.on = sys.stdin.isatty() and sys.stderr.isatty()

    def __call__(self, question: str, option: str, default: str = "") -> str:
        if not self.on:
            if option:
                raise UsageError(f"{option} is missing", "rpinfs netboot plan")
            return default
        sys.stderr.write(f"{question}{f' [{default}]' if default else ''}: ")
        sys.stderr.flush()
        return sys.stdin.readline().strip() or default

    def many(self, question: str) -> list[str]:
        found: list[str] = []
        while self.on and (answer := self(question, "")):
            found.append(answer)
        return found


def _plan_of(named: str | None) -> Plan | None:
    """The plan that is named, else the one in this folder, if there is one."""
    from rpinfs.netboot import plan

    if named is None and not os.path.exists(PLAN):
        return None
    return plan.load(named or PLAN)


# render


def _render(options: argparse.Namespace) -> int:
    from rpinfs.netboot.render.targets import TARGETS, render

    plan = _plan_of(options.plan)
    if plan is None:
        raise RpinfsError(f"there is no plan: {PLAN} is not in this folder", "rpinfs netboot plan", status=2)
    if unknown := [name for name in options.targets if name not in TARGETS]:
        raise UsageError(f"--for {unknown[0]}: expected one of {', '.join(TARGETS)}", "rpinfs netboot render")
    made = render(plan, options.targets)
    if options.apply:
        return _apply(made, options.apply, options.yes)
    if options.output:
        from rpinfs.netboot.place import write_all

        write_all(made, options.output)
    for one in made:
        _show(one, options.output)
    return 0


def _show(one: Rendered, output: str | None) -> None:
    where = f" -> {one.place}" if one.place else ""
    if output:
        print(f"{output}/{one.name}: for {one.box}{where}{'' if one.owned else ' (a part of it)'}")
    else:
        print(f"# ---- {one.name}: for {one.box}{where}\n{one.text}")


def _apply(made: list[Rendered], box: str, yes: bool) -> int:
    from rpinfs.netboot.place import apply, changes

    mine = [one for one in made if one.box == box and one.place]
    if not mine:
        boxes = ", ".join(sorted({f'"{one.box}"' for one in made if one.place}))
        raise UsageError(
            f'--apply "{box}": nothing is for it; there is something for {boxes or "nobody"}', "rpinfs netboot render"
        )
    refused = 0
    for one in mine:
        diff = changes(one)
        if not diff:
            print(f"{one.place}: is so already")
        elif not one.owned or (os.path.exists(one.place) and not yes):
            print(diff, end="")
            why = (
                "this is a part of a file"
                if not one.owned
                else "it is there and differs; --yes keeps it as FILE.before-rpinfs~"
            )
            print(f"{one.place}: left alone: {why}")
            refused = 1
        else:
            apply(one)
            print(f"{one.place}: written")
    return refused


# check, doctor, watch


def _check(options: argparse.Namespace) -> int:
    from rpinfs.netboot.check import check
    from rpinfs.netboot.finding import Gravity
    from rpinfs.netboot.seen import look

    seen = look(options.paths, _plan_of(options.plan))
    found = check(seen)
    if options.json:
        print_document({
            "looked_at": seen.looked_at,
            "unreadable": [error.message for error in seen.unreadable],
            "findings": [
                {"rule": one.rule, "gravity": one.gravity.name.lower(), "file": one.file, "line": one.line,
                 "message": one.message, "write": one.write} for one in found
            ],
        })  # fmt: skip
    else:
        for error in seen.unreadable:
            print(f"fault    {error.message}")
        for one in found:
            print(f"{one.gravity.name.lower():8} {printable(one.place)}: {printable(one.message)}")
            for line in one.write.split("\n") if one.write else ():
                print(f"         {printable(line)}")
        if not found and not seen.unreadable:
            print(f"nothing is wrong in {', '.join(seen.looked_at) or 'what is here: there is nothing to look at'}")
    if seen.unreadable or any(one.gravity is Gravity.FAULT for one in found):
        return 2
    return int(any(one.gravity is Gravity.WARNING for one in found))


def _doctor(options: argparse.Namespace) -> int:
    from rpinfs.netboot.doctor import Way, boards_to_ask_for, diagnose, look_at_the_ways, offers_to

    plan = _plan_of(options.plan)
    pis = boards_to_ask_for(plan)
    found = []
    with Progress() as progress:
        progress(f"asking as {', '.join(pi.name for pi in pis)}")
        offers, remarks = offers_to(options.interface, pis, options.seconds)
        for pi, to_it in zip(pis, offers, strict=True):
            progress(f"{pi.name}, {pi.board.name}: fetching its files")
            found.append(diagnose(pi, to_it, plan, Way(options.interface, options.tftp, options.write)))
            found[-1].remarks += remarks
        progress("trying how long packets may be")
        look_at_the_ways(found)
    if options.json:
        print_document([_as_document(one) for one in found])
    else:
        for one in found:
            _print_diagnosis(one)
    return 2 if any(one.obstacle for one in found) else 0


def _as_document(found: Diagnosis) -> dict[str, object]:
    from rpinfs.netboot.doctor import sentence

    verdict = found.verdict
    return {
        "name": found.pi.name, "board": found.pi.board.model,
        "boots": found.obstacle is None, "sentence": sentence(found),
        "address": verdict.address, "says_boot": verdict.says_boot, "tftp": verdict.tftp, "why": verdict.why,
        "folder": found.folder, "files": found.files,
        "remarks": [
            {"rule": one.rule, "gravity": one.gravity.name.lower(), "message": one.message, "remedy": one.remedy}
            for one in found.remarks
        ],
    }  # fmt: skip


def _print_diagnosis(found: Diagnosis) -> None:
    from rpinfs.netboot.doctor import sentence

    for remark in found.remarks:
        print(f"{remark.gravity.name.lower():8} {printable(remark.message)}")
        if remark.remedy:
            print(f"         {printable(remark.remedy)}")
    print(printable(sentence(found)))


def _watch(options: argparse.Namespace) -> int:
    from rpinfs.lease.holders import holders
    from rpinfs.netboot.listening import listen
    from rpinfs.netboot.watch import Watch

    plan = _plan_of(options.plan)
    share = options.share or (plan.nas.share if plan and os.path.isdir(plan.nas.share) else "")
    if share:
        os.listdir(share)  # What is wrong with it is said now, and not when nobody looks.
    names = {key: pi.name for pi in (plan.pis if plan else ()) for key in (pi.serial, pi.mac) if key}
    watch = Watch(options.tftp, names, lambda: holders(share) if share else ())
    for line in watch.lines(listen(options.interface)):
        print(line, flush=True)
    return 0
