"""The table of targets: what render can make, and which of it a plan needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rpinfs.netboot.model import Plan, PlanError
from rpinfs.netboot.render import board, dhcp, nfs, router, server
from rpinfs.netboot.render.text import Rendered

Maker = Callable[[Plan], Iterable[Rendered]]


@dataclass(frozen=True)
class Target:
    """Something that render can make.

    Attributes:
        help: what it is, for the command line and the man page.
        make: the files for a plan.
        needed: whether this plan needs it, where nobody asks for one by name.
    """

    help: str
    make: Maker
    needed: Callable[[Plan], bool]


def _one(make: Callable[[Plan], Rendered]) -> Maker:
    return lambda plan: [make(plan)]


def _boards(plan: Plan) -> Iterable[Rendered]:
    for pi in plan.pis:
        makers = (board.cmdline, board.config, board.eeprom, board.fstab, board.rpinfs_config)
        yield from (one for make in makers if (one := make(plan, pi)) is not None)


def _on_router(kind: str) -> Callable[[Plan], bool]:
    return lambda plan: plan.topology == "B" and plan.network.dhcp == kind


def _gives_addresses(plan: Plan) -> bool:
    return _on_router("dnsmasq")(plan) or (plan.topology == "D" and plan.network.dhcp == "box")


def _is_proxy(plan: Plan) -> bool:
    return plan.topology in ("A", "D") and plan.network.dhcp != "box"


TARGETS = {
    "dnsmasq-proxy": Target("dnsmasq beside the DHCP server of the LAN", _one(dhcp.dnsmasq_proxy), _is_proxy),
    "dnsmasq": Target("dnsmasq as the DHCP server", _one(dhcp.dnsmasq_full), _gives_addresses),
    "isc": Target("ISC dhcpd", _one(dhcp.isc), _on_router("isc")),
    "kea": Target("Kea", _one(dhcp.kea), _on_router("kea")),
    "openwrt": Target("OpenWrt, by uci", _one(dhcp.openwrt), _on_router("openwrt")),
    "router": Target(
        "the router's web page or command line, in words",
        lambda plan: [router.words(plan)] if plan.topology != "B" or router.has_words(plan) else [],
        router.has_words,
    ),
    "compose": Target(
        "a container with the proxy", lambda plan: [server.compose(plan), server.dockerfile(plan)],
        lambda plan: plan.topology == "A",
    ),
    "systemd": Target(
        "a systemd unit with the proxy", _one(server.unit), lambda plan: plan.topology == "D" and _is_proxy(plan)
    ),
    "tftpd-hpa": Target(
        "Debian's TFTP server", _one(server.tftpd_hpa), lambda plan: plan.topology != "D" and plan.nas.kind == "linux"
    ),
    "exports": Target("exports(5) of a Linux NAS", _one(nfs.exports), lambda plan: plan.nas.kind in ("linux", "omv")),
    "nfs": Target("the NAS's web page, in words", _one(nfs.appliance), lambda plan: plan.nas.kind != "linux"),
    "boards": Target(
        "cmdline.txt, config.txt, boot.conf, fstab, netboot.conf of each board", _boards, lambda plan: bool(plan.pis)
    ),
}  # fmt: skip


def render(plan: Plan, wanted: Iterable[str] = ()) -> list[Rendered]:
    """Make what is asked for by name, else what the plan needs. Raises PlanError where there is nothing to make."""
    asked = list(wanted)
    found = []
    for name in asked or [name for name, target in TARGETS.items() if target.needed(plan)]:
        made = list(TARGETS[name].make(plan))
        if not made:
            why = "the plan has no board ([[pi]])"
            if name == "router":
                why = f"a {plan.network.dhcp} is told by a file: --for {plan.network.dhcp}"
            raise PlanError("the options", f"--for {name}", why)
        found += made
    return found
