"""Which box does what: four ways to netboot, and the one that fits a network.

A  Everything from the NAS: its own TFTP and NFS, and beside them one container that only says "boot from here" (proxy
   DHCP). The router is left as it is.
B  The router's DHCP says it: options 43, 60 and 66. TFTP and NFS of the NAS.
C  Nobody's DHCP: each board is told in its EEPROM where to boot from (TFTP_IP). Not for the ROM of the 3B and 3B+.
D  A Linux box beside the NAS does DHCP or proxy DHCP, and TFTP; NFS is the NAS's.
"""

from __future__ import annotations

from dataclasses import replace

from rpinfs.netboot.model import Plan, PlanError

SAYS_43 = ("openwrt", "mikrotik", "dnsmasq", "isc", "kea", "opnsense")
"""Routers whose DHCP can be told option 43, which every board takes."""

SAYS_66 = (*SAYS_43, "unifi", "edgeos")
"""Routers that can be told at least option 66, which is enough for a board with an EEPROM."""

NAMES = {
    "A": "everything from the NAS",
    "B": "the router's DHCP says where to boot from",
    "C": "each board is told where to boot from",
    "D": "a Linux box answers",
}


def obstacles(plan: Plan, topology: str) -> list[str]:
    """Why a topology does not fit, in words; empty where it does."""
    found: list[str] = []
    if topology in ("A", "B", "C") and not plan.nas.tftp:
        found.append("the NAS has no TFTP server ([nas] tftp=false)")
    if topology == "A" and not plan.nas.containers:
        found.append("the NAS runs no containers ([nas] containers=false)")
    if topology == "B":
        needed = SAYS_43 if plan.has_rom_boards or not plan.pis else SAYS_66
        if plan.network.dhcp not in needed:
            option = "43" if needed is SAYS_43 else "66"
            found.append(f"this DHCP server cannot be told option {option} ([network] dhcp={plan.network.dhcp})")
    if topology == "C":
        roms = [pi.name for pi in plan.pis if not pi.board.eeprom]
        if roms:
            found.append(f"the ROM of a 3B or 3B+ cannot be told anything ({', '.join(roms)})")
    if topology == "D" and plan.box is None:
        found.append("there is no Linux box ([box])")
    if topology != "D" and plan.network.dhcp == "box":
        found.append("the Linux box gives the addresses ([network] dhcp=box)")
    return found


def choose(plan: Plan, wanted: str, file: str) -> Plan:
    """Give a plan its topology: the one asked for, else the first that fits.

    Raises:
        PlanError: it does not fit, or none does.
    """
    if wanted:
        if found := obstacles(plan, wanted):
            raise PlanError(file, f"topology={wanted}", f"does not fit: {'; '.join(found)}")
        return replace(plan, topology=wanted)
    for topology in NAMES:
        if not obstacles(plan, topology):
            return replace(plan, topology=topology)
    reasons = "; ".join(f"{topology}: {', '.join(obstacles(plan, topology))}" for topology in NAMES)
    raise PlanError(file, "", f"no way to netboot fits: {reasons}", "a Linux box ([box]) on the same LAN always fits")
