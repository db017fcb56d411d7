"""What Prometheus is told: the one table of metrics, and its text format.

The agent fills in what it knows anyway, `rpinfs metrics` and `rpinfs check --format prometheus` what they found out.
Help, the man page and the tests follow from the table. Names, units and text are by Prometheus' own pages: practices on
naming, writing exporters, exposition formats. A textfile collector refuses a file with time stamps, so there are none.

Imports nothing but errors.py: the agent loads it a minute after its start.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping

from rpinfs.boot.values import dataclass, field
from rpinfs.errors import printable

NUMBERS = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}
"""What rpinfs_check_status says by its value: the exit status of `rpinfs check`."""


@dataclass(frozen=True)
class Share:
    """The share. Sizes in bytes, times in seconds; None where nobody knows.

    Attributes:
        where: its mount point.
        answer: how long its last answer took.
        silent: for how long it has not answered; 0 where it does.
        outages: how often it was silent or failing since the agent was started.
        outage_seconds: for how long together.
    """

    where: str
    up: bool | None = None
    answer: float | None = None
    silent: float | None = None
    size: float | None = None
    free: float | None = None
    outages: int | None = None
    outage_seconds: float | None = None


@dataclass(frozen=True)
class Image:
    """An image. Sizes in bytes; times in seconds since 1970, as clocks are compared by them.

    Attributes:
        size: length of its file.
        allocated: what the file takes on the NAS.
        room: size of the file system in it.
        available: what is free in there.
        errors: how many ext4 has recorded.
        snapshot: when its newest snapshot was taken.
        held: whether this Pi has the lock on it.
        renewed: when it showed so for the last time.
    """

    name: str
    mounted: bool | None = None
    read_only: bool | None = None
    size: float | None = None
    allocated: float | None = None
    room: float | None = None
    available: float | None = None
    errors: int | None = None
    snapshot: float | None = None
    held: bool | None = None
    renewed: float | None = None


@dataclass(frozen=True)
class Known:
    """Everything that is known.

    Attributes:
        gate: whether the gate would let Docker start.
        pulse: when the agent was seen to be at work, seconds since 1970.
        checks: name, image or nothing, and one of NUMBERS, of each check.
        checked: when they were made.
    """

    version: str
    share: Share | None = None
    images: tuple[Image, ...] = ()
    gate: bool | None = None
    pulse: float | None = None
    checks: tuple[tuple[str, str, str], ...] = ()
    checked: float | None = None


Sample = tuple[tuple[str, ...], float | None]
"""The values of the labels, and what was measured; None where nobody knows."""


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        help: what its value means, one sentence.
        counter: whether it only grows, from the start of the agent on.
        agent: whether the agent alone can know it: commands take it from the agent's file.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Known], Iterable[Sample]]
    counter: bool = False
    agent: bool = False

    @property
    def kind(self) -> str:
        """In the words of Prometheus."""
        return "counter" if self.counter else "gauge"


def _of_share(take: Callable[[Share], float | None]) -> Callable[[Known], Iterable[Sample]]:
    return lambda known: [((known.share.where,), take(known.share))] if known.share else []


def _of_images(take: Callable[[Image], float | None]) -> Callable[[Known], Iterable[Sample]]:
    return lambda known: [((image.name,), take(image)) for image in known.images]


_SHARE, _IMAGE = ("share",), ("image",)

METRICS: tuple[Metric, ...] = (
    Metric(
        "rpinfs_build_info", "1, with the version of rpinfs as its label.",
        ("version",), lambda known: [((known.version,), 1)],
    ),
    Metric(
        "rpinfs_check_status",
        "How a check of rpinfs-checks(7) ended: 0 ok, 1 warning, 2 critical, 3 unknown. Only of rpinfs metrics and"
        " rpinfs check: checks ask the NAS.",
        ("check", "object"),
        lambda known: [((name, image), NUMBERS[status]) for name, image, status in known.checks],
    ),
    Metric(
        "rpinfs_checks_run_timestamp_seconds", "When the checks were made, in seconds since 1970.",
        (), lambda known: [((), known.checked)],
    ),
    Metric(
        "rpinfs_share_up", "1 while the share is mounted and answers, 0 while it is silent, failing or not mounted.",
        _SHARE, _of_share(lambda share: share.up),
    ),
    Metric(
        "rpinfs_share_answer_seconds", "How long the share took for its last answer.",
        _SHARE, _of_share(lambda share: share.answer),
    ),
    Metric(
        "rpinfs_share_silent_seconds", "For how long the share has not answered; 0 while it does.",
        _SHARE, _of_share(lambda share: share.silent),
    ),
    Metric(
        "rpinfs_share_size_bytes", "Size of the file system of the NAS that the share is in, when it answered last.",
        _SHARE, _of_share(lambda share: share.size),
    ),
    Metric(
        "rpinfs_share_free_bytes", "What is free of it, when it answered last.",
        _SHARE, _of_share(lambda share: share.free),
    ),
    Metric(
        "rpinfs_share_outages_total", "How often the share was silent or failing since the agent was started.",
        _SHARE, _of_share(lambda share: share.outages), counter=True, agent=True,
    ),
    Metric(
        "rpinfs_share_outage_seconds_total", "For how long it was so, together.",
        _SHARE, _of_share(lambda share: share.outage_seconds), counter=True, agent=True,
    ),
    Metric(
        "rpinfs_image_mounted", "1 while the image is mounted in its place.",
        _IMAGE, _of_images(lambda image: image.mounted),
    ),
    Metric(
        "rpinfs_image_readonly", "1 while the image is mounted read-only.",
        _IMAGE, _of_images(lambda image: image.read_only),
    ),
    Metric(
        "rpinfs_image_size_bytes", "Length of the image's file.", _IMAGE, _of_images(lambda image: image.size),
    ),
    Metric(
        "rpinfs_image_allocated_bytes", "What the image's file takes on the NAS, as far as this Pi was told.",
        _IMAGE, _of_images(lambda image: image.allocated),
    ),
    Metric(
        "rpinfs_image_filesystem_size_bytes",
        "Size of the file system in the image; the agent tells it with what is free.",
        _IMAGE, _of_images(lambda image: image.room),
    ),
    Metric(
        "rpinfs_image_filesystem_avail_bytes",
        "What is free in the file system in the image. Where the kernel does not know the way there without asking the"
        " NAS, as on a root on NFS, the agent looks every ten minutes; rpinfs metrics looks at once.",
        _IMAGE, _of_images(lambda image: image.available),
    ),
    Metric(
        "rpinfs_image_filesystem_errors", "Number of errors that ext4 has recorded in the image.",
        _IMAGE, _of_images(lambda image: image.errors),
    ),
    Metric(
        "rpinfs_snapshot_newest_timestamp_seconds",
        "When the newest snapshot of the image was taken, in seconds since 1970. The agent knows of those that this Pi"
        " has taken since its boot; rpinfs metrics looks at the share.",
        _IMAGE, _of_images(lambda image: image.snapshot),
    ),
    Metric(
        "rpinfs_lease_held", "1 while this Pi has the lock on the image, by which it is kept from other Pis.",
        _IMAGE, _of_images(lambda image: image.held), agent=True,
    ),
    Metric(
        "rpinfs_lease_renewed_timestamp_seconds", "When this Pi renewed its lock last, in seconds since 1970.",
        _IMAGE, _of_images(lambda image: image.renewed), agent=True,
    ),
    Metric(
        "rpinfs_gate_open", "1 while everything that Docker is to write to is mounted as it should be.",
        (), lambda known: [((), known.gate)],
    ),
    Metric(
        "rpinfs_agent_pulse_timestamp_seconds",
        "When the agent wrote this, in seconds since 1970: every 15 seconds, whatever the NAS does.",
        (), lambda known: [((), known.pulse)], agent=True,
    ),
)  # fmt: skip
"""Rows of the table."""


@dataclass(frozen=True)
class Told:
    """Lines of samples that the agent has written, by the name of their metric."""

    lines: Mapping[str, list[str]] = field(default_factory=dict)


def render(known: Known, told: Told | None = None) -> str:
    """All that is known, in the text format; of a metric of which nothing is known, nothing.

    Args:
        told: what the agent has written, for what it alone knows.
    """
    parts: list[str] = []
    for metric in METRICS:
        lines = [_line(metric, values, value) for values, value in metric.samples(known) if value is not None]
        if told is not None and metric.agent:
            lines = told.lines.get(metric.name, [])
        if lines:
            head = (f"# HELP {metric.name} {escaped_help(metric.help)}", f"# TYPE {metric.name} {metric.kind}")
            parts += [*head, *lines]
    return "".join(f"{line}\n" for line in parts)


_LINE = re.compile(r'([a-z_]+)(?:\{(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*\})? -?[0-9.e+-]+')


def told_by(text: str) -> Told:
    """What the agent's file says; lines that are none of its are left out."""
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        if found := _LINE.fullmatch(line):
            lines.setdefault(found[1], []).append(line)
    return Told(lines)


def _line(metric: Metric, values: tuple[str, ...], value: float) -> str:
    labels = ",".join(
        f'{name}="{escaped(text)}"' for name, text in zip(metric.labels, values, strict=True) if text
    )  # A label without a value is the same as none.
    return f"{metric.name}{{{labels}}} {number(value)}" if labels else f"{metric.name} {number(value)}"


def escaped(text: str) -> str:
    """The value of a label: backslash, quote and newline escaped, and nothing that is no UTF-8."""
    text = printable(text).encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def escaped_help(text: str) -> str:
    """A help text: backslash and newline escaped."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def number(value: float) -> str:
    """A value, without a loss."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
