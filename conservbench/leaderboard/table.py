"""Sheets drawn for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from conservbench.leaderboard.correlation import WORDS
from conservbench.leaderboard.correlation_table import HEADINGS, NAMES, TITLE, correlation_rows
from conservbench.leaderboard.sheet import LEGEND, Entry, Sheet, comparable, sheet_of, sheets
from conservbench.leaderboard.verdict import Verdict, verdict

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from conservbench.scored import Gate, ScoredCell

_ANY: Final = 10_000
"""Characters that no table is wide."""

_COLOURS: Final[dict[Gate | None, str]] = {"pass": "green", "fail": "red", "unclear": "yellow", None: ""}


def rich_tables(cells: Iterable[ScoredCell]) -> RenderableType:
    """One table a protocol, its systems one below the other, then notes, what a ladder says, and the legend."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    every = list(cells)
    drawn: list[RenderableType] = []
    for group in comparable(every):
        sheet = sheet_of(group)
        drawn += [Text(sheet.title, style="bold"), Text(sheet.question, style="italic"), _Fitted(sheet)]
        for system, notes in sheet.notes.items():
            drawn += [Padding(Text(f"{system}, {note}", style="dim"), (0, 0, 0, 2)) for note in notes]
        drawn.append(Text())
        if rows := correlation_rows(group):
            drawn += [Text(TITLE, style="bold"), _correlations(rows), Padding(Text(WORDS, style="dim"), (0, 0, 1, 2))]
    if not drawn:
        return Text("no scores")
    said = [Text(f"- {each.sentence}") for each in _verdicts(every)]
    return Group(*drawn, Text(LEGEND, style="dim"), *([Text(), *said] if said else []))


def _verdicts(cells: Sequence[ScoredCell]) -> list[Verdict]:
    """Of the models whose gates were judged, not of controls, whose answer is known."""
    models: dict[str, list[ScoredCell]] = {}
    for cell in cells:
        if not cell.is_control:
            models.setdefault(cell.model["name"], []).append(cell)
    return [said for said in map(verdict, models.values()) if said.level not in ("not measured", "no verdict")]


def html_tables(cells: Iterable[ScoredCell]) -> str:
    """The same tables as HTML; all text of cards is escaped."""
    return "\n".join([*(_html_table(sheet) for sheet in sheets(cells)), f"<p><small>{escape(LEGEND)}</small></p>"])


@dataclass(frozen=True)
class _Fitted:
    """A sheet as a table, or as several with some of its columns each where the terminal is too narrow for one."""

    sheet: Sheet

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.measure import Measurement

        places: list[int] = []
        for place in range(len(self.sheet.headings)):
            wider = _rich_table(self.sheet, [*places, place])
            if places and Measurement.get(console, options.update(max_width=_ANY), wider).maximum > options.max_width:
                yield _rich_table(self.sheet, places)
                places = []
            places.append(place)
        yield _rich_table(self.sheet, places)


def _width(sheet: Sheet, place: int) -> int:
    """A column that holds its entries on one line and its heading on two."""
    heading = sheet.headings[place]
    width = max(len(row.entries[place].marked) for rows in sheet.systems.values() for row in rows)
    width = max(width, *map(len, heading.split()))
    while len(wrap(heading, width)) > 2:
        width += 1
    return width


def _rich_table(sheet: Sheet, places: Sequence[int]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("model", no_wrap=True, overflow="fold")
    for place in places:
        table.add_column(Text(sheet.headings[place]), justify="right", width=_width(sheet, place))
    for system, rows in sheet.systems.items():
        table.add_section()
        table.add_row(Text(system, style="bold cyan"))
        for row in rows:
            entries = [_rich_entry(row.entries[place]) for place in places]
            table.add_row(Text(row.name, style="dim" if row.control else ""), *entries)
    return table


def _correlations(rows: Sequence[tuple[str, ...]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    for place, heading in enumerate(HEADINGS):
        name = place < NAMES
        table.add_column(heading, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _rich_entry(entry: Entry) -> RenderableType:
    from rich.text import Text

    return Text(entry.marked, style=_COLOURS[entry.gate], overflow="fold")


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
