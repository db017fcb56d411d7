"""The entry point: /usr/bin/rpinfs and `python3 -m rpinfs`.

The gate and the agent are on the way of the boot, where each file opened is a round trip to the NAS: they start before
anything of the command line is imported.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rpinfs.boot.daemons import Told
    from rpinfs.boot.host import Host


def main(arguments: "list[str]") -> int:
    """Run a command; returns the exit status."""
    if arguments == ["gate"]:
        from rpinfs.boot import gate

        return gate.main(_roots)
    if arguments == ["agent"]:
        from rpinfs.agent import agent, whole

        whole.soon()
        return agent.main()
    if arguments == ["--version"]:
        from rpinfs import __version__

        print(f"rpinfs {__version__}")
        return 0
    from rpinfs.commands import cli

    return cli.main(arguments)


def _roots(host: "Host") -> "list[Told]":
    # Only where something may have moved Docker's folders is it asked.
    from rpinfs.docker import roots

    return roots.soon(host)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
