"""What a table of scores says, before it is drawn: the terminal, the notebook and the page draw the same sheets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from conservbench.leaderboard.machine import machine_name, machine_of
from conservbench.leaderboard.number import spelled
from conservbench.outcome import Outcome
from conservbench.provenance import data_of

if TYPE_CHECKING:
    from conservbench.cards import Metric
    from conservbench.scored import Gate, Score, ScoredCell

MARKS: Final[Mapping[Gate, str]] = {"pass": "✓", "fail": "✗", "unclear": "?"}
"""How a gate is shown, without colour."""

LEGEND: Final = (
    "± and [ ] give 95 % intervals. ✓ the whole interval is inside the gate, ✗ outside, ? it straddles the limit; "
    "the last column counts all gates, also of metrics not shown."
)

CAVEAT: Final = "†"
"""Follows a value that a note below the table qualifies."""


def tally(scores: Iterable[Score]) -> str:
    """How many gates passed, failed and stayed unclear, such as ``5✓3✗``; a dash where there is none."""
    count = Counter(score.gate for score in scores if score.gate is not None)
    return "".join(f"{count[gate]}{mark}" for gate, mark in MARKS.items() if count[gate]) or "–"


@dataclass(frozen=True)
class Entry:
    """One field of a table: its text without the mark of its gate, and the gate."""

    text: str
    gate: Gate | None = None

    @property
    def marked(self) -> str:
        """The text with the mark of its gate."""
        return f"{self.text} {MARKS[self.gate]}" if self.gate else self.text


@dataclass(frozen=True)
class Row:
    """One model on one system.

    Attributes:
        model: its name.
        control: whether its answer was known beforehand.
        entries: one a heading.
    """

    model: str
    control: bool
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """The model, with a control told apart."""
        return f"{self.model} (control)" if self.control else self.model


@dataclass(frozen=True)
class Sheet:
    """One protocol, in one version and one tier.

    Attributes:
        protocol: name of the protocol.
        title: of the table.
        question: what the protocol finds out.
        headings: label and unit of each column after the model.
        systems: system to its rows.
        notes: system to what a reader must know of its rows, one line for what is the same of several.
    """

    protocol: str
    title: str
    question: str
    headings: tuple[str, ...]
    systems: Mapping[str, tuple[Row, ...]]
    notes: Mapping[str, tuple[str, ...]]


def sheets(cells: Iterable[ScoredCell]) -> list[Sheet]:
    """One sheet for each protocol, version, card and tier: what is not comparable does not share a table."""
    return [sheet_of(group) for group in comparable(cells)]


def comparable(cells: Iterable[ScoredCell]) -> list[list[ScoredCell]]:
    """The cells of each sheet: of one protocol, version, card, tier, data, and for times of one running machine."""
    groups: dict[tuple[object, ...], list[ScoredCell]] = {}
    for cell in cells:
        card = cell.protocol
        key = card["name"], card["version"], card.get("digest", ""), cell.tier, machine_of(cell)
        groups.setdefault(key, []).append(cell)
    return [part for group in groups.values() for part in _by_data(group)]


def _by_data(cells: Sequence[ScoredCell]) -> list[list[ScoredCell]]:
    """The same cells, those of models apart that were asked about other data on one system."""
    known: dict[str, dict[str, dict[str, str]]] = {}
    for cell in cells:
        if data := data_of(cell.provenance):
            known.setdefault(cell.model["name"], {})[cell.system] = data
    parts: list[tuple[dict[str, dict[str, str]], list[str]]] = []
    for model, own in known.items():
        for agreed, models in parts:
            if all(agreed.get(system, data) == data for system, data in own.items()):
                agreed.update(own)
                models.append(model)
                break
        else:
            parts.append((dict(own), [model]))
    place = {model: index for index, (_, models) in enumerate(parts) for model in models}
    split: list[list[ScoredCell]] = [[] for _ in range(max(len(parts), 1))]
    for cell in cells:
        split[place.get(cell.model["name"], 0)].append(cell)
    return split


def without_idle_columns(cells: Sequence[ScoredCell]) -> list[ScoredCell]:
    """The same cells of one protocol without headline metrics that have no meaning for any of them."""
    asked = [cell for cell in cells if cell.outcome is not Outcome.UNSUPPORTED]
    useful = {score.metric for cell in asked for score in cell.scores if not _asked_in_vain(score, cell)}
    kept = []
    for cell in cells:
        shown = {metric.key for metric in cell.headlines} & useful
        metrics = {key: each for key, each in cell.metrics.items() if key in shown or not each.headline}
        kept.append(replace(cell, metrics=metrics) if shown else cell)
    return kept


def plain(text: str) -> str:
    """Text on one line, without characters that a terminal would act on."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def label_of(metric: Metric) -> str:
    """Heading of a metric: its label, and its unit where it has one."""
    return plain(metric.label if metric.unit == "1" else f"{metric.label} [{metric.unit}]")


def limits_of(metric: Metric) -> str:
    """The gate of a metric in words; empty where it has none."""
    limits = (("above", metric.above), ("below", metric.below))
    return " and ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)


def value_of(score: Score, metric: Metric | None) -> str:
    """A score's value and interval, or how its measurement ended; never empty."""
    if score.value is None or score.low is None or score.high is None:
        return "–" if score.outcome is Outcome.COMPLETED else score.outcome.replace("_", " ")
    text = spelled(score.value, score.low, score.high, 3 if metric is None else metric.digits)
    return text if score.outcome is Outcome.COMPLETED else f"{text} {CAVEAT}"


def sheet_of(cells: Sequence[ScoredCell]) -> Sheet:
    """The sheet of cells that are comparable, see :func:`comparable`.

    A column that means nothing for any row is left out; why it does stays in the notes.
    """
    card = cells[0].protocol
    columns, told = columns_of(without_idle_columns(cells)), columns_of(cells)
    rows: dict[str, list[Row]] = {}
    # system to note to the models it is about
    notes: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        rows.setdefault(cell.system, []).append(_row(cell, columns))
        about = notes.setdefault(cell.system, {})
        for note in _notes(cell, told):
            about.setdefault(note, []).append(cell.model["name"])
    where = f", on {machine_name(cells[0])}" if machine_of(cells[0]) else ""
    return Sheet(
        protocol=card["name"],
        title=plain(f"{card.get('title') or card['name']}: version {card['version']}, {cells[0].tier} tier{where}"),
        question=plain(card.get("question", "")),
        headings=(*(label_of(metric) for metric in columns), "gates"),
        systems={system: tuple(each) for system, each in rows.items()},
        notes={
            system: tuple(plain(f"{_named(models, rows[system])}: {note}") for note, models in each.items())
            for system, each in notes.items()
        },
    )


def _named(models: Sequence[str], rows: Sequence[Row]) -> str:
    """The models a note is about."""
    return "all" if 1 < len(models) == len(rows) else ", ".join(models)


def columns_of(cells: Sequence[ScoredCell]) -> tuple[Metric, ...]:
    """Headline metrics, in the order of the judge: the cell with most findings gives it."""
    fullest = max(cells, key=lambda cell: sum(score.value is not None for score in cell.scores))
    order = {score.metric: place for place, score in enumerate(fullest.scores)}
    return tuple(sorted(fullest.headlines, key=lambda metric: order.get(metric.key, len(order))))


def _row(cell: ScoredCell, columns: Sequence[Metric]) -> Row:
    scores = {score.metric: score for score in cell.scores}
    entries = [_entry(scores.get(metric.key), metric, cell) for metric in columns]
    return Row(plain(cell.model["name"]), cell.is_control, (*entries, Entry(tally(cell.scores))))


def _entry(score: Score | None, metric: Metric, cell: ScoredCell) -> Entry:
    if score is None:
        return Entry("missing")
    return Entry(_asked_in_vain(score, cell) or value_of(score, metric), score.gate)


def _asked_in_vain(score: Score, cell: ScoredCell) -> str:
    """A dash where a metric has no meaning for a cell that was measured, such as species where there is one."""
    return "–" if score.outcome is Outcome.UNSUPPORTED and cell.outcome is not Outcome.UNSUPPORTED else ""


def _needs_a_note(score: Score, cell: ScoredCell) -> bool:
    """Whether a reader must be told more than the field says: not of a dash that has no reason."""
    if not score.reason and _asked_in_vain(score, cell):
        return False
    return score.value is None or score.outcome is not Outcome.COMPLETED


def _notes(cell: ScoredCell, columns: Sequence[Metric]) -> list[str]:
    """Why values are missing or qualified, and which gates failed that no column shows."""
    shown = {metric.key for metric in columns}
    whys: dict[tuple[str, str], list[str]] = {}
    failed = []
    for score in cell.scores:
        metric = cell.metrics.get(score.metric)
        label = metric.label if metric else score.metric
        if score.metric in shown and _needs_a_note(score, cell):
            why = (score.outcome.replace("_", " "), score.reason or "no reason recorded")
            whys.setdefault(why, []).append(label)
        elif score.metric not in shown and metric is not None and score.gate == "fail":
            value = f"{value_of(score, metric)} {'' if metric.unit == '1' else metric.unit}".strip()
            failed.append(f"{label} {value} (gate: {limits_of(metric)})")
    reasons = [
        f"{outcome}: {reason}" if len(labels) == len(columns) else f"{', '.join(labels)}: {outcome}: {reason}"
        for (outcome, reason), labels in whys.items()
    ]
    gates = [f"{MARKS['fail']} {'; '.join(failed)}"] if failed else []
    return [*_ending(cell, shown), *reasons, *gates]


def _ending(cell: ScoredCell, shown: Collection[str]) -> list[str]:
    """How a cell ended, where it ended badly and no field says so."""
    outcomes = {score.outcome for score in cell.scores if score.metric in shown}
    if cell.outcome in outcomes | {Outcome.COMPLETED, Outcome.UNSUPPORTED}:
        return []
    return [f"{cell.outcome.replace('_', ' ')}: {cell.reason or 'no reason recorded'}"]
