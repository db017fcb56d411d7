"""What was measured, for people: a table on the terminal and in RESULTS.md, and a plot beside it."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """\
# Results of `make bench`

Made by `make bench`, area by area; a run replaces its own. Counts repeat. Times are ratios of what ran in turn on one
machine, where emulation makes the processor a limit, too: the first column is 1.00.
"""


@dataclass(frozen=True)
class Row:
    """One line: a value for each column that has one. Of a ratio, the plot shows how far from 1 it is."""

    title: str
    values: Mapping[str, float]
    ratio: bool = False


@dataclass(frozen=True)
class Area:
    """A table: its columns in their order, its rows, and a sentence on it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    note: str = ""

    @property
    def file(self) -> str:
        """The name of its plot."""
        return f"{re.sub(r'[^a-z0-9]+', '-', self.title.lower()).strip('-')}.svg"


def text(area: Area) -> str:
    """A table for a terminal."""
    cells = [["", *area.columns], *([row.title, *_cells(area, row)] for row in area.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in cells
    ]
    return "\n".join([area.title, *lines, *filter(None, [area.note])])


def _cells(area: Area, row: Row) -> list[str]:
    return [_number(row.values[name], row.ratio) if name in row.values else "" for name in area.columns]


def _number(value: float, ratio: bool) -> str:
    return f"{value:.2f}" if ratio else f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def keep(area: Area) -> None:
    """Put an area into RESULTS.md, and its plot beside that."""
    RESULTS.write_text(with_area(RESULTS.read_text() if RESULTS.exists() else HEAD, area))
    (RESULTS.parent / area.file).write_bytes(plot(area))


def with_area(text: str, area: Area) -> str:
    """The text with an area in the place of an older one of its name, or behind the others."""
    old = re.search(rf"^## {re.escape(area.title)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    before, after = (text[: old.start()], text[old.end() :]) if old else (f"{text.rstrip()}\n\n", "")
    return f"{f'{before}{markdown(area)}{after}'.rstrip()}\n"


def markdown(area: Area) -> str:
    """A section: when and where, the table, the plot."""
    head = [f"## {area.title}", "", f"{datetime.now(UTC).date().isoformat()}, {machine()}", ""]
    table = [["", *area.columns], ["---", *["--:"] * len(area.columns)]]
    table += [[row.title, *_cells(area, row)] for row in area.rows]
    return "\n".join(
        [
            *head,
            *(f"| {' | '.join(line)} |" for line in table),
            "",
            *([area.note, ""] if area.note else []),
            f"![{area.title}]({area.file})",
            "",
            "",
        ]
    )


def machine() -> str:
    """What it ran on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = len(re.findall(r"^processor\s*:", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    return f"{cores} x {model[1] if model else platform.machine()}, QEMU without KVM"


def plot(area: Area) -> bytes:
    """Bars: of each row the columns beside the first, which is 1."""
    import pygal  # type: ignore[import-not-found]  # For make bench alone.

    shown = [row for row in area.rows if row.values.get(area.columns[0])]
    chart = pygal.HorizontalBar(
        title=area.title, x_title=f"{area.columns[0]} = 1", truncate_label=-1, legend_at_bottom=True,
        height=120 + 22 * len(shown) * len(area.columns[1:]) // 2, js=(), print_values=False,
    )  # fmt: skip
    chart.x_labels = [row.title for row in shown]
    for name in area.columns[1:]:
        chart.add(
            name, [row.values[name] / row.values[area.columns[0]] if name in row.values else None for row in shown]
        )
    found: bytes = chart.render()
    return found
