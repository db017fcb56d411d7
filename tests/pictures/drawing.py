"""From what was seen to pictures: a terminal and the dashboard as SVG, the page as a phone shows it.

None of them asks anybody for anything when it is looked at: no scripts, and no fonts but the reader's own.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from rpinfs.boot.settings import human_size
from tests.lab.process import run
from tests.watching import Panel

from .scene import STEP_SECONDS, Courses

STYLE = re.compile(r"<style.*?</style>", re.DOTALL)
NOT_SHOWN = re.compile(rf' id=""|<!--.*?-->|{STYLE.pattern}', re.DOTALL)
"""In each panel: pygal's name, and its style, of which one is enough for all."""
COLUMN, ROW = 40, 32
"""Pixels of a cell of the dashboard's grid."""
PHONE = (420, 900)
MOST_COLUMNS = 100
GAP_SECONDS = 3 * STEP_SECONDS
"""Where there is no value for longer, a line is interrupted."""


def terminal(title: str, text: str) -> bytes:
    """A window with what a program has written, escape sequences and all."""
    import rich.console  # type: ignore[import-not-found]  # For make pictures alone, as all below.
    import rich.text  # type: ignore[import-not-found]

    shown = rich.text.Text.from_ansi(text)
    width = min(MOST_COLUMNS, max(len(line) for line in shown.plain.splitlines()))
    console = rich.console.Console(record=True, width=width, file=io.StringIO())
    console.print(shown, highlight=False)
    svg = re.sub(r"@font-face {.*?}", "", console.export_svg(title=title, unique_id="terminal"), flags=re.DOTALL)
    return "".join(f"{line.strip()}\n" for line in svg.splitlines() if line.strip()).encode()


def phone(page: str) -> bytes:
    """A page in the browser of a phone that has no network."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "page.html").write_text(page)
        run(
            [
                "unshare", "--net", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={folder}/profile", "--window-size={},{}".format(*PHONE),
                f"--screenshot={folder}/page.png", f"file://{folder}/page.html",
            ],
            env={"HOME": name},
        )  # fmt: skip
        return (folder / "page.png").read_bytes()


def dashboard(courses: Courses, silent_at: float) -> bytes:
    """All panels, where Grafana has them; each with its whole course, in minutes from `silent_at` on."""
    width = max(panel.place[0] + panel.place[2] for panel, _ in courses) * COLUMN
    height = max(panel.place[1] + panel.place[3] for panel, _ in courses) * ROW
    charts = {}
    for panel, lines in courses:
        svg = chart(panel, {name: course(line, silent_at) for name, line in lines.items()})
        charts[panel.place] = svg[svg.index("<svg") :]
    styles = [found[0] for svg in charts.values() if (found := STYLE.search(svg))]
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">', max(styles, key=len)]
    for (x, y, columns, rows), svg in charts.items():
        where = f'x="{x * COLUMN}" y="{y * ROW}" width="{columns * COLUMN}" height="{rows * ROW}"'
        parts.append(NOT_SHOWN.sub("", svg).replace("<svg ", f"<svg {where} ", 1))
    return "\n".join([*parts, "</svg>", ""]).encode()


def course(points: list[tuple[float, float]], zero: float) -> list[tuple[float, float | None]]:
    """A line in minutes from `zero` on, interrupted where values are missing."""
    found: list[tuple[float, float | None]] = []
    before = points[0][0]
    for when, value in points:
        if when - before > GAP_SECONDS:
            found.append(((before - zero) / 60, None))
        found.append(((when - zero) / 60, value))
        before = when
    return found


def chart(panel: Panel, lines: Mapping[str, list[tuple[float, float | None]]]) -> str:
    """One panel as SVG."""
    import pygal  # type: ignore[import-not-found]
    import pygal.style  # type: ignore[import-not-found]

    look = pygal.style.Style(
        background="white", plot_background="white", font_family="sans-serif", title_font_size=15,
        legend_font_size=12, label_font_size=11, major_label_font_size=11,
        colors=("#1f77b4", "#d95f02", "#2ca02c"), opacity=1,
    )  # fmt: skip
    plot = pygal.XY(
        style=look, js=(), no_prefix=True, width=panel.place[2] * COLUMN, height=panel.place[3] * ROW, margin=8,
        spacing=6, title=panel.title, show_dots=False, allow_interruptions=True, legend_at_bottom=True,
        legend_at_bottom_columns=1, legend_box_size=9, truncate_legend=-1, include_x_axis=True, max_scale=5,
    )  # fmt: skip
    minutes = [when for line in lines.values() for when, _ in line] or [0.0]
    plot.x_labels = range(int(min(minutes)) // 3 * 3, int(max(minutes)) + 1, 3)
    plot.x_value_formatter = "{:.0f} min".format
    plot.value_formatter = formatter(panel)
    if panel.words:
        plot.y_labels = sorted(panel.words)
    for name, line in lines.items():
        plot.add(name, line)
    svg: str = plot.render().decode()
    return svg


def formatter(panel: Panel) -> Callable[[float], str]:
    """How a panel writes a value."""
    if panel.words:
        return lambda value: panel.words.get(value, "")
    if panel.unit == "bytes":
        return lambda value: human_size(round(value))
    unit = {"s": " s", "percent": " %", "none": ""}[panel.unit]
    return lambda value: f"{value:.4g}{unit}"
