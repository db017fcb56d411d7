"""`rpinfs metrics`."""

from __future__ import annotations

import argparse

from rpinfs.commands.check import CHECK_SECONDS
from rpinfs.commands.cli import describe
from rpinfs.commands.common import facts_within, replace_output


def add_metrics(parser: argparse.ArgumentParser) -> None:
    """Say what `rpinfs metrics` takes."""
    describe(
        parser,
        _metrics,
        "Show what Prometheus takes: all checks but the long ones, and the figures behind them, in its text format."
        "\nThe agent keeps /run/rpinfs/metrics/rpinfs.prom fresh with what it knows without asking; man rpinfs says how"
        "\nthe node exporter takes either.",
        "  rpinfs metrics\n  rpinfs metrics --output /run/rpinfs-metrics/rpinfs.prom",
    )
    parser.add_argument("--output", metavar="FILE", help="write it there, whole or not at all, for everybody to read")


def _metrics(options: argparse.Namespace) -> int:
    text = _text()
    if options.output is None:
        print(text, end="")
    else:
        # A link in the node exporter's folder to a file in memory stays one.
        replace_output(options.output, text, "rpinfs metrics", "--output")
    return 0


def _text() -> str:
    from rpinfs.health import checks, measuring, metrics
    from rpinfs.health.questions import ask

    facts = facts_within(CHECK_SECONDS)
    if facts.config.in_use:
        ask(facts, CHECK_SECONDS)
    known = measuring.known_of(facts, checks.judge(facts))
    return metrics.render(known, measuring.told_by_agent(facts.host.root))
