"""Sheets drawn for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Final

from conservbench.leaderboard.sheet import LEGEND, Entry, Sheet, sheets

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from conservbench.scoring import Gate, ScoredCell

_COLOURS: Final[dict[Gate | None, str]] = {"pass": "green", "fail": "red", "unclear": "yellow", None: ""}


def rich_tables(cells: Iterable[ScoredCell]) -> RenderableType:
    """One table a protocol, its systems one below the other, then notes and the legend."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    drawn: list[RenderableType] = []
    for sheet in sheets(cells):
        drawn += [Text(sheet.title, style="bold"), Text(sheet.question, style="italic"), _rich_table(sheet)]
        for system, notes in sheet.notes.items():
            drawn += [Padding(Text(f"{system}, {note}", style="dim"), (0, 0, 0, 2)) for note in notes]
        drawn.append(Text())
    return Group(*drawn, Text(LEGEND, style="dim") if drawn else Text("no scores"))


def html_tables(cells: Iterable[ScoredCell]) -> str:
    """The same tables as HTML; all text of cards is escaped."""
    return "\n".join([*(_html_table(sheet) for sheet in sheets(cells)), f"<p><small>{escape(LEGEND)}</small></p>"])


def _rich_table(sheet: Sheet) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("model", no_wrap=True, overflow="fold")
    for heading in sheet.headings:
        table.add_column(Text(heading), justify="right")
    for system, rows in sheet.systems.items():
        table.add_section()
        table.add_row(Text(system, style="bold cyan"))
        for row in rows:
            table.add_row(Text(row.name, style="dim" if row.control else ""), *map(_rich_entry, row.entries))
    return table


def _rich_entry(entry: Entry) -> RenderableType:
    from rich.text import Text

    # a number and its interval stay on one line
    return Text(entry.marked, style=_COLOURS[entry.gate], no_wrap=True, overflow="fold")


def _html_table(sheet: Sheet) -> str:
    heads = "".join(f"<th>{escape(heading)}</th>" for heading in ("model", *sheet.headings))
    lines = [f"<table><caption>{escape(sheet.title)}</caption>", f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for system, rows in sheet.systems.items():
        lines.append(f'<tr><th colspan="{len(sheet.headings) + 1}">{escape(system)}</th></tr>')
        for row in rows:
            fields = "".join(f"<td>{escape(entry.marked)}</td>" for entry in row.entries)
            lines.append(f"<tr><td>{escape(row.name)}</td>{fields}</tr>")
    lines.append("</tbody></table>")
    notes = "".join(f"<li>{escape(f'{system}, {note}')}</li>" for system in sheet.notes for note in sheet.notes[system])
    return "\n".join([*lines, f"<ul>{notes}</ul>" if notes else ""])
