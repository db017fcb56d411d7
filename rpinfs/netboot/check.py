"""All rules on all that is there."""

from __future__ import annotations

from rpinfs.netboot.finding import Finding
from rpinfs.netboot.rules import boot, dhcp, dnsmasq, eeprom, nfs, plan, roots
from rpinfs.netboot.seen import Seen

RULES = (*dnsmasq.RULES, *dhcp.RULES, *boot.RULES, *eeprom.RULES, *nfs.RULES, *roots.RULES, *plan.RULES)


def check(seen: Seen) -> list[Finding]:
    """Every fault, the gravest first; of one gravity by file and line."""
    found = [finding for rule in RULES for finding in rule(seen)]
    return sorted(found, key=lambda one: (-one.gravity, one.file, one.line, one.rule))
