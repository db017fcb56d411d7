"""`rpinfs netboot add`, `clone` and `list`: roots and boot files of boards."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from rpinfs.commands.cli import UsageError, add_command
from rpinfs.commands.common import Progress, end_in_order, print_document
from rpinfs.errors import printable

if TYPE_CHECKING:
    from rpinfs.commands.cli import Group
    from rpinfs.netboot.add.boards import Known
    from rpinfs.netboot.add.order import Order
    from rpinfs.netboot.add.record import Record
    from rpinfs.netboot.model import Plan

PlanOf = Callable[[str | None], "Plan | None"]


def add_boards(group: Group, plan_of: PlanOf) -> None:
    """Say what these commands take. `plan_of` finds the plan of an option --plan."""
    parser = add_command(
        group,
        "add",
        "make the root and the boot files of a board, of a stock image",
        lambda options: _add(options, plan_of),
        "Copy both partitions of an image (.img, .img.xz, .img.zst), or a folder with a root, for one board."
        "\nName, keys, fstab and command line are new; the board has its names when it is whole. Needs root.",
        "  sudo rpinfs netboot add raspios.img.xz --name pi1 --user me --ssh-key ~/.ssh/id_ed25519.pub \\\n"
        "      --deb rpinfs_0.1.0_all.deb --docker\n"
        "  sudo rpinfs netboot add raspios.img --name pi1 --serial 1a2b3c4d --server 192.168.1.10 \\\n"
        "      --root /srv/nfsroot --tftp /srv/tftp",
    )
    parser.add_argument("source", metavar="IMAGE|DIR", help="the image, or the folder of a root")
    parser.add_argument("--boot", default="", metavar="DIR", help="boot files of DIR; default: its /boot/firmware")
    parser.add_argument("--name", required=True, help="host name of the board")
    parser.add_argument("--user", default="", metavar="U", help="its first user, who may use sudo and has no password")
    parser.add_argument("--ssh-key", default="", metavar="FILE", help="public ssh key of the user")
    parser.add_argument("--deb", default="", metavar="FILE", help="package of rpinfs, to be put into the root")
    parser.add_argument("--docker", action="store_true", help="put docker.io into the root")
    _add_place(parser)
    parser = add_command(
        group,
        "clone",
        "make a board of another one, with names and keys of its own",
        lambda options: _clone(options, plan_of),
        "Copy the root and the boot files of a board, which should be off; by reflink where the file system has them."
        "\nNeeds root.",
        "  sudo rpinfs netboot clone pi1 pi2 --serial 5e6f7a8b",
    )
    parser.add_argument("other", metavar="NAME", help="the board that is there")
    parser.add_argument("name", metavar="NEW", help="host name of the new one")
    _add_place(parser)
    parser = add_command(
        group,
        "list",
        "all boards: root, image, versions, when each was last seen",
        lambda options: _list(options, plan_of),
        "List the boards that netboot add has made, and those that have an image on the share.",
    )
    parser.add_argument("--root", default="", metavar="DIR", help="folder with the roots; default: the plan's")
    parser.add_argument("--share", default="", metavar="DIR", help="folder with the images; default: the plan's")
    _add_plan_option(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--serial", default="", metavar="S", help="its serial number, which its folder is called by")
    parser.add_argument("--mac", default="", metavar="M", help="its MAC address")
    parser.add_argument("--board", default="", metavar="MODEL", help="its model, such as 4 or 3B+")
    parser.add_argument("--root", default="", metavar="DIR", help="folder with the roots; default: the plan's")
    parser.add_argument("--tftp", default="", metavar="DIR", help="the TFTP folder; default: the plan's")
    parser.add_argument("--server", default="", metavar="ADDRESS", help="of the NAS, where there is no plan")
    parser.add_argument("--nfs-version", default="", metavar="V", help="where there is no plan; default 4.1")
    _add_plan_option(parser)


def _add_plan_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", metavar="FILE", help="default: rpinfs-netboot.toml in this folder, if it is there")


def _order(options: argparse.Namespace, plan: Plan | None) -> Order:
    from rpinfs.netboot.add.order import order

    given = {key: getattr(options, key) for key in ("name", "serial", "mac", "board", "server", "tftp")}
    return order({**given, "version": options.nfs_version, "roots": options.root}, plan)


def _add(options: argparse.Namespace, plan_of: PlanOf) -> int:
    from rpinfs.netboot.add import make, user

    if options.ssh_key and not options.user:
        raise UsageError("--ssh-key: whose is it? --user is missing", "rpinfs netboot add")
    made = _order(options, plan_of(options.plan))
    asked = user.user_of(options.user, options.ssh_key) if options.user else None
    make.insist_on_root("add")
    end_in_order()
    wanted = make.Wanted(options.source, options.boot, asked, options.deb, options.docker)
    with Progress() as progress:
        done = make.add(made, wanted, progress)
    return _tell(done, made)


def _clone(options: argparse.Namespace, plan_of: PlanOf) -> int:
    from rpinfs.netboot.add import make, record
    from rpinfs.netboot.model import PlanError

    made = _order(options, plan_of(options.plan))
    make.insist_on_root("clone")
    end_in_order()
    other = record.read(made.place.roots, options.other)
    if other is None or other.staged:
        there = record.listed(made.place.roots)
        raise PlanError("the options", options.other, "expected a board that add has made", there)
    with Progress() as progress:
        done = make.clone(made, other, progress)
    return _tell(done, made)


def _tell(done: Record, order: Order) -> int:
    """What was done, what could not be kept, what check says of it, and what is left to do."""
    from rpinfs.netboot.check import check
    from rpinfs.netboot.seen import look

    print(f"{done.name}: {done.root} and {done.boot}, made of {done.source}")
    for line in done.did:
        print(f"  {line}")
    for line in done.lost:
        print(f"lost: {line}")
    seen = look([order.place.tftp, order.place.roots], order.plan)
    own = (f"{done.root}/", f"{done.boot}/")
    for finding in check(seen):
        if f"{finding.file}/".startswith(own):
            print(f"{finding.gravity.name.lower()}: {finding.place}: {finding.message}")
    for line in done.left:
        print(f"left to do: {line}")
    return 0


# list


def _list(options: argparse.Namespace, plan_of: PlanOf) -> int:
    import os

    from rpinfs.netboot.add.boards import all_boards

    plan = plan_of(options.plan)
    roots = options.root or (plan.nas.root if plan else "")
    if not roots:
        raise UsageError("--root is missing, and there is no plan", "rpinfs netboot list")
    share = options.share or (plan.nas.share if plan and os.path.isdir(plan.nas.share) else "")
    found = all_boards(roots, share)
    if options.json:
        print_document([_as_document(one) for one in found])
        return 0
    for one in found:
        _print_board(one)
    if not found:
        print(f"no boards in {roots}")
    return 0


def _as_document(one: Known) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "name": one.name, "serial": one.serial, "last_seen": one.seen or None, "images": one.images,
        "faults": one.faults, "record": asdict(one.record) if one.record else None,
    }  # fmt: skip


def _print_board(one: Known) -> None:
    from rpinfs.lease.owner import utc

    record = one.record
    print(one.name or "on the share")
    rows = [("serial", one.serial)]
    if record:
        rows += [
            ("board", record.board),
            ("root", record.root),
            ("boot files", record.boot),
            ("made", f"{utc(record.made)} of {record.source}, by {record.by}"),
            ("system", ", ".join([record.system, *record.kernels])),
            ("packages", ", ".join(f"{name} {version}" for name, version in record.packages.items())),
        ]
    elif one.serial:
        rows.append(("root", "unknown: netboot add has not made it"))
    rows += [("image", image) for image in one.images]
    rows.append(("last seen", utc(one.seen) if one.seen else ("never" if one.name else "")))
    rows += [("fault", fault) for fault in one.faults]
    for what, text in rows:
        if text.strip(", "):
            print(f"  {what:10} {printable(text)}")
