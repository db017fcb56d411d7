"""The entry point: /usr/bin/rpinfs and `python3 -m rpinfs`.

The gate and the agent are on the way of the boot, where each file opened is a round trip to the NAS: they start before
anything of the command line is imported. Until then /usr/bin/rpinfs has Python look for no garbage, which it would do
thirty times while it imports, and find none.
"""

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rpinfs.boot.daemons import Told
    from rpinfs.boot.host import Host

_OBJECTS_OF_A_COMMAND = 50_000
"""More than `rpinfs status` makes: so many more objects there are before Python looks for garbage."""


def run(arguments: "list[str]") -> "NoReturn":
    """Run a command, and end the process with its exit status.

    At once: of the instructions of a gate that passes, a fifth were Python's taking down of its modules one by one.
    """
    status = main(arguments)
    for stream in (sys.stdout, sys.stderr):
        if stream:
            stream.flush()
    os._exit(status)


def main(arguments: "list[str]") -> int:
    """Run a command; returns the exit status."""
    if arguments == ["gate"]:
        from rpinfs.boot import gate

        return gate.main(_roots)
    if arguments == ["agent"]:
        from rpinfs.agent import agent

        gc.enable()
        return agent.main()
    # A command ends before there is much; some go on for as long as somebody watches.
    gc.set_threshold(_OBJECTS_OF_A_COMMAND)
    gc.enable()
    from rpinfs.commands import cli

    return cli.main(arguments)


def _roots(host: "Host") -> "list[Told]":
    # Only where something may have moved Docker's folders is it asked.
    from rpinfs.docker import roots

    return roots.soon(host)


if __name__ == "__main__":
    run(sys.argv[1:])
