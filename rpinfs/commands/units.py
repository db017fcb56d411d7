"""`rpinfs units`."""

from __future__ import annotations

import argparse
import sys

from rpinfs.boot.config import examine
from rpinfs.boot.host import Host
from rpinfs.boot.units import GENERATED
from rpinfs.commands.cli import describe
from rpinfs.commands.common import load
from rpinfs.errors import ConfigError


def add_units(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs units` takes."""
    describe(
        parser,
        _units,
        "Show the systemd units that rpinfs makes at boot. Nothing is changed.",
        "  rpinfs units\n  rpinfs units --output /tmp/units\n  RPINFS_ROOT=/srv/nfs/pi1 rpinfs units",
    )
    parser.add_argument("--output", metavar="DIR", help="write them below this folder instead of showing them")


def _units(options: argparse.Namespace) -> int:
    from rpinfs.boot import generator, units

    try:
        host, config = load()
    except ConfigError:
        if options.output is not None:
            # As the generator does: no mounts, and what keeps Docker and its like from starting.
            generator.write(units.guards(examine(Host.read())[0]), options.output, options.output)
        raise
    if not config.in_use:
        print(f"# rpinfs writes no units: {config.reason}")
        return 0
    made = units.units(config, host.fstab, host.root_nic)
    if options.output is not None:
        generator.write(made, options.output, options.output)
        for remark in made.remarks:
            sys.stderr.write(f"rpinfs: {remark}\n")
        return 0
    print(f"# In use: {_why_in_use(host)}. Settings: rpinfs config show")
    for remark in made.remarks:
        print(f"# {remark}")
    for name, text in made.files.items():
        print(f"\n# {GENERATED}/{name}\n{text.rstrip()}")
    for path, text in made.others.items():
        print(f"\n# {path}\n{text.rstrip()}")
    print()
    for name, target in made.links.items():
        print(f"# {GENERATED}/{name} -> {target}")
    return 0


def _why_in_use(host: Host) -> str:
    return "the root is on NFS" if host.root_on_nfs else "there is a configuration"
