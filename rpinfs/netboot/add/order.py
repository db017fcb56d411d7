"""What was asked for: which board, made of what, and where it goes. Options and plan come together here."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rpinfs.errors import RpinfsError, quoted
from rpinfs.netboot import plan as plans
from rpinfs.netboot.add.staging import Place
from rpinfs.netboot.model import Pi, Plan, PlanError
from rpinfs.netboot.render.board import boot_folder

OPTIONS = "the options"


@dataclass(frozen=True)
class Order:
    """A board to be made. `board_known`: whether its model was said; else it is taken for one, and not written down."""

    plan: Plan
    pi: Pi
    place: Place
    board_known: bool


def order(given: Mapping[str, str], plan: Plan | None) -> Order:
    """Put options and the plan together.

    Args:
        given: name, serial, mac, board, server, version, roots, tftp; empty where nobody said.

    Raises:
        PlanError: a value that cannot be, or that the plan says otherwise.
        RpinfsError: a folder is not there.
    """
    pi = _pi(given)
    planned = next((one for one in plan.pis if one.name == pi.name), None) if plan else None
    if planned:
        pi = _agreed(pi, planned, given)
    roots, tftp = given["roots"] or (plan.nas.root if plan else ""), given["tftp"] or (plan.nas.boot if plan else "")
    for option, folder, what in (("--root", roots, "roots"), ("--tftp", tftp, "boot files")):
        if not folder:
            raise PlanError(OPTIONS, option, "is missing, and there is no plan", "rpinfs netboot plan")
        if not os.path.isdir(folder):
            raise RpinfsError(
                f"{folder}: expected the folder with the {what} of all boards, found none",
                f"mount the share that has it, or: mkdir -p {quoted(os.path.abspath(folder))}",
            )
    roots, tftp = os.path.realpath(roots), os.path.realpath(tftp)
    if roots == tftp:
        raise PlanError(OPTIONS, "--tftp", "is the folder with the roots: TFTP gives out all that is in it")
    plan = plan or _plan(given, roots, tftp)
    _refuse_another(plan, pi)
    place = Place(roots, pi.name, tftp, os.path.basename(boot_folder(plan, pi)))
    return Order(plan, pi, place, bool(given["board"]) or planned is not None)


def _pi(given: Mapping[str, str]) -> Pi:
    values = {key: given[key] for key in ("name", "serial", "mac") if given[key]}
    document = {**_NOWHERE, "pi": [{**values, "board": given["board"] or "4"}]}
    return plans.parse(document, OPTIONS).pis[0]


_NOWHERE = {"network": {"subnet": "192.0.2.0/24"}, "nas": {"address": "192.0.2.1"}}
"""For looking at a board alone."""


def _agreed(pi: Pi, planned: Pi, given: Mapping[str, str]) -> Pi:
    for key in ("serial", "mac"):
        said, there = getattr(pi, key), getattr(planned, key)
        if said and there and said != there:
            raise PlanError(OPTIONS, f"--{key} {said}", f"the plan has {there} for {pi.name}")
    if given["board"] and pi.board != planned.board:
        raise PlanError(OPTIONS, f"--board {pi.board.model}", f"the plan has {planned.board.model} for {pi.name}")
    return replace(planned, serial=pi.serial or planned.serial, mac=pi.mac or planned.mac)


def _plan(given: Mapping[str, str], roots: str, tftp: str) -> Plan:
    """Without a plan: the NAS exports what is here under the same paths, as a Linux NAS does."""
    if not given["server"]:
        raise PlanError(OPTIONS, "--server", "is missing, and there is no plan", "rpinfs netboot plan")
    nas = {"address": given["server"], "root": roots, "boot": tftp, "version": given["version"] or "4.1"}
    try:
        subnet = str(ipaddress.IPv4Network(f"{given['server']}/24", strict=False))
    except ValueError:
        subnet = _NOWHERE["network"]["subnet"]  # What is wrong with the address is said by whoever looks at it.
    return plans.parse({"network": {"subnet": subnet}, "nas": nas}, OPTIONS)


def _refuse_another(plan: Plan, pi: Pi) -> None:
    for key in ("serial", "mac"):
        value = getattr(pi, key)
        for other in plan.pis:
            if value and other.name != pi.name and getattr(other, key) == value:
                raise PlanError(OPTIONS, f"--{key} {value}", f"the plan has it for {other.name}")
