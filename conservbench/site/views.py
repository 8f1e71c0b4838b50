"""Tables of scored cells as the templates draw them: text, what it is sorted by, and what a reader may ask of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from conservbench.leaderboard.machine import machine_name, machine_of
from conservbench.leaderboard.sheet import (
    MARKS,
    columns_of,
    comparable,
    label_of,
    limits_of,
    plain,
    value_of,
    without_idle_columns,
)
from conservbench.outcome import Outcome
from conservbench.site.command import Installed, command_of, origin_of

if TYPE_CHECKING:
    from conservbench.cards import Metric
    from conservbench.scored import Gate, Score, ScoredCell

WORDS: Final[dict[Gate, str]] = {"pass": "passes", "fail": "fails", "unclear": "unclear"}
"""What a screen reader says of a gate."""


@dataclass(frozen=True)
class Field:
    """One number in a table.

    Attributes:
        text: value and interval, or how its measurement ended.
        order: what it is sorted by; None where there is no value, which is sorted last.
        gate: of the metric.
        note: why there is no value, or what a reader must know of it.
    """

    text: str
    order: float | None = None
    gate: Gate | None = None
    note: str = ""

    @property
    def mark(self) -> str:
        """The gate as a sign, without colour."""
        return MARKS[self.gate] if self.gate else ""

    @property
    def word(self) -> str:
        """The gate in a word."""
        return WORDS[self.gate] if self.gate else ""


@dataclass(frozen=True)
class Row:
    """One cell: a model on a system."""

    model: str
    control: bool
    system: str
    outcome: str
    reason: str
    fields: tuple[Field, ...]
    gates: Field
    command: str
    origin: str


@dataclass(frozen=True)
class Heading:
    """A metric at the head of a column: its label with unit, and its gate in words."""

    label: str
    limits: str


@dataclass(frozen=True)
class Table:
    """Cells of one protocol, version, card and tier; times of one running machine."""

    key: str
    title: str
    tier: str
    version: int
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    coverage: str


@dataclass(frozen=True)
class Line:
    """One metric of one cell."""

    label: str
    headline: bool
    field: Field
    unit: str
    n: int
    limits: str
    source: str


@dataclass(frozen=True)
class CellView:
    """All of one cell."""

    system: str
    tier: str
    outcome: str
    reason: str
    lines: tuple[Line, ...]
    command: str
    origin: str


def groups(cells: Iterable[ScoredCell]) -> list[tuple[ScoredCell, ...]]:
    """Cells that may share a table, in its order; tables by protocol, version, card, tier and machine."""

    def place(group: Sequence[ScoredCell]) -> tuple[object, ...]:
        card = group[0].protocol
        return card["name"], card["version"], card.get("digest", ""), group[0].tier, machine_of(group[0])

    return [tuple(_ordered(group)) for group in sorted(comparable(cells), key=place)]


def _ordered(cells: Sequence[ScoredCell]) -> list[ScoredCell]:
    """By system, that of most models first; then models before controls."""
    count = Counter(cell.system for cell in cells if not cell.is_control)
    return sorted(cells, key=lambda c: (-count[c.system], c.system, c.is_control, c.model["name"]))


def table_of(cells: Sequence[ScoredCell], here: Installed) -> Table:
    """The headline metrics of the cells of one group that mean something there, a row for each."""
    card = cells[0].protocol
    columns = columns_of(without_idle_columns(cells))
    measured = sum(cell.outcome not in _NOT_MEASURED for cell in cells)
    tier = cells[0].tier
    return Table(
        key=card["name"],
        title=title_of(cells),
        tier=tier,
        version=card["version"],
        headings=tuple(Heading(label_of(metric), limits_of(metric)) for metric in columns),
        rows=tuple(_row(cell, columns, here) for cell in cells),
        coverage=f"{measured} of {len(cells)} cells measured",
    )


def title_of(cells: Sequence[ScoredCell]) -> str:
    """Title of a group: protocol, version and tier, and the machine of times."""
    card = cells[0].protocol
    where = f", on {machine_name(cells[0])}" if machine_of(cells[0]) else ""
    return plain(f"{card.get('title') or card['name']}: version {card['version']}, {cells[0].tier} tier{where}")


def view_of(cell: ScoredCell, here: Installed) -> CellView:
    """Every metric of a cell, headlines first."""
    lines = [_line(score, cell) for score in cell.scores]
    return CellView(
        system=cell.system,
        tier=cell.tier,
        outcome=_spelled(cell.outcome),
        reason=plain(cell.reason),
        lines=tuple(sorted(lines, key=lambda line: not line.headline)),
        command=command_of(cell, here),
        origin=origin_of(cell.provenance),
    )


_NOT_MEASURED: Final = {Outcome.FAILED, Outcome.UNSUPPORTED, Outcome.OUT_OF_MEMORY}


def field_of(score: Score | None, metric: Metric | None, cell: ScoredCell) -> Field:
    """One score; a dash where a metric has no meaning for a cell that was measured."""
    if score is None:
        return Field("–", note="not among the findings of this cell")
    idle = score.outcome is Outcome.UNSUPPORTED and cell.outcome is not Outcome.UNSUPPORTED and score.value is None
    text = "–" if idle else value_of(score, metric)
    needs_note = score.value is None or score.outcome is not Outcome.COMPLETED
    note = plain(score.reason) if needs_note else ""
    return Field(text, score.value, score.gate, note)


def _row(cell: ScoredCell, columns: Sequence[Metric], here: Installed) -> Row:
    scores = {score.metric: score for score in cell.scores}
    count = Counter(score.gate for score in cell.scores if score.gate is not None)
    tally = " ".join(f"{count[gate]}{mark}" for gate, mark in MARKS.items() if count[gate]) or "–"
    said = ", ".join(f"{count[gate]} {word}" for gate, word in WORDS.items() if count[gate]) or "no gates"
    return Row(
        model=cell.model["name"],
        control=cell.is_control,
        system=cell.system,
        outcome=_spelled(cell.outcome),
        reason=plain(cell.reason),
        fields=tuple(field_of(scores.get(metric.key), metric, cell) for metric in columns),
        gates=Field(tally, float(count["fail"] * 1000 + count["unclear"]) if count else None, note=said),
        command=command_of(cell, here),
        origin=origin_of(cell.provenance),
    )


def _line(score: Score, cell: ScoredCell) -> Line:
    metric = cell.metrics.get(score.metric)
    return Line(
        label=plain(metric.label if metric else score.metric),
        headline=metric in cell.headlines if metric else False,
        field=field_of(score, metric, cell),
        unit="" if score.unit == "1" else plain(score.unit),
        n=score.n,
        limits=limits_of(metric) if metric else "",
        source=plain(metric.source) if metric else "",
    )


def _spelled(outcome: Outcome) -> str:
    return outcome.replace("_", " ")
