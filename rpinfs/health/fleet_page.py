"""The page with all Pis: one HTML file, with no script and nothing that is fetched, for a phone as for a wall."""

from __future__ import annotations

from html import escape

from rpinfs.errors import printable
from rpinfs.health import fleet as fleets
from rpinfs.health.fleet import Fleet, Pi
from rpinfs.lease.owner import utc

REFRESH_SECONDS = 60

# Colours are never alone: the word of each status stands beside them. Narrow, each line becomes a card.
_STYLE = """
:root {
  color-scheme: light dark;
  --line: #8884; --ok: #1a7f37; --warning: #9a6700; --critical: #cf222e; --unknown: #8250df
}
@media (prefers-color-scheme: dark) {
  :root { --ok: #3fb950; --warning: #d29922; --critical: #ff7b72; --unknown: #bc8cff }
}
body { font: 16px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 80rem; padding: 0 .75rem }
h1 { font-size: 1.3rem; margin: 0 }
p { margin: .3rem 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--line); overflow-wrap: anywhere; padding: .4rem .6rem .4rem 0; text-align: left;
  vertical-align: top }
th, td.status, td.seen { white-space: nowrap }
td.name { font-weight: 600; min-width: 6rem }
td.how { width: 45% }
td.room, td.board { min-width: 8rem }
td.version { min-width: 4rem }
.status { border-left: .3rem solid; font-weight: 600; padding-left: .5rem }
.ok { color: var(--ok) } .warning { color: var(--warning) } .critical { color: var(--critical) }
.unknown { color: var(--unknown) }
small { display: block; opacity: .85 }
@media (max-width: 48rem) {
  thead { display: none }
  table, tbody, tr, td { display: block }
  tr { border-bottom: 1px solid var(--line); padding: .6rem 0 }
  td, td.how { border: 0; padding: .1rem 0; white-space: normal; width: auto }
  td[data-of]:not(:empty)::before { content: attr(data-of) ": "; opacity: .7 }
  td.status { padding-left: .5rem }
}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_HEADS = ("Status", "Name", "How it is", "Room", "Last seen", "Board", "rpinfs")


def page(fleet: Fleet) -> str:
    """The page as text."""
    when = utc(fleet.now) + ("" if fleet.asked else " by the clock of the machine that made this page")
    word = fleet.status.word
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">',
        '<meta name="robots" content="noindex">',
        f"<title>{word}: {_safe(fleets.counts(fleet))}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        f'<h1 class="{word}">{_safe(fleets.counts(fleet))}</h1>',
        f"<p>{_safe(fleet.folder)}, as it was at {_safe(when)}</p>",
        *([f'<p class="unknown">{_safe(fleet.fault)}</p>'] if fleet.fault else []),
        "<table>",
        f"<thead><tr>{_heads()}</tr></thead>",
        "<tbody>",
        *map(_row, fleet.pis),
        "</tbody>",
        "</table>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _heads() -> str:
    return "".join(f'<th scope="col">{head}</th>' for head in _HEADS)


def _row(pi: Pi) -> str:
    hint = f"<small>{_safe(pi.remedy)}</small>" if pi.remedy else ""
    cells = (
        f'<td class="status {pi.status.word}">{pi.status.word}</td>',
        f'<td class="name" title="{_safe(pi.serial)}">{_safe(pi.name)}</td>',
        f'<td class="how">{_safe(pi.message)}{hint}</td>',
        f'<td class="room" data-of="room">{_safe(fleets.room_text(pi))}</td>',
        f'<td class="seen" data-of="last seen">{_safe(fleets.last_seen(pi))}</td>',
        f'<td class="board" data-of="board">{_safe(fleets.board_text(pi))}</td>',
        f'<td class="version" data-of="rpinfs">{_safe(pi.version)}</td>',
    )
    return f"<tr>{''.join(cells)}</tr>"


def _safe(text: str) -> str:
    """A text of anybody's as a part of the page: also names of files that are no UTF-8."""
    return escape(printable(text).encode("utf-8", "replace").decode(), quote=True)
