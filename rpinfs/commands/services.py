"""`rpinfs agent` and `rpinfs gate`, as far as they are called with more than that: see rpinfs.__main__."""

from __future__ import annotations

import argparse

from rpinfs.cli import describe


def add_agent(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs agent` is."""
    describe(parser, _agent, "The daemon; started by systemd.")


def add_gate(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs gate` is."""
    describe(parser, _gate, "The last check before Docker; started by systemd.")


def _agent(_: argparse.Namespace) -> int:
    from rpinfs import agent

    return agent.main()


def _gate(_: argparse.Namespace) -> int:
    from rpinfs import gate

    return gate.main()
