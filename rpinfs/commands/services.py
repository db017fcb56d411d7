"""What the units start: `attach`, `thaw`; `agent` and `gate` where they are called with more, see __main__.py."""

from __future__ import annotations

import argparse

from rpinfs.commands.cli import describe


def add_agent(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs agent` is."""
    describe(parser, _agent, "The daemon; started by systemd.")


def add_gate(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs gate` is."""
    describe(parser, _gate, "The last check before Docker; started by systemd.")


def add_attach(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs attach` is."""
    describe(parser, _attach, "Has the agent prepare an image that is to be mounted; started by systemd.")
    parser.add_argument("name", metavar="NAME", help="name of the image in the configuration")


def add_thaw(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs thaw` is."""
    describe(parser, _thaw, "Thaws what a snapshot that was killed has left frozen; started by systemd.")


def _agent(_: argparse.Namespace) -> int:
    from rpinfs.agent import agent

    return agent.main()


def _gate(_: argparse.Namespace) -> int:
    from rpinfs.boot import gate
    from rpinfs.docker import roots

    return gate.main(roots.soon)


def _attach(arguments: argparse.Namespace) -> int:
    from rpinfs.agent import request

    request.ask_for(arguments.name, print)
    return 0


def _thaw(_: argparse.Namespace) -> int:
    from rpinfs.image import freeze

    for where in freeze.thaw_abandoned():
        print(f"{where} was frozen for a snapshot that died; it is thawed")
    return 0
