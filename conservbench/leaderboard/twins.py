"""What dropping the gradient costs, and what it saves: the rows of one network by each of its force schemes.

A network is a gradient row of the board and the rows whose cards name it as their ``twin``: its direct forces, its
multiple time steps. Costs are the metrics with gates that tables show; savings are times, measured side by side by the
protocol ``speed``, or else the ratios that ``mts`` needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from conservbench.cards import row_name
from conservbench.leaderboard.machine import machine_name, machine_of
from conservbench.outcome import Outcome
from conservbench.scheme import KINDS
from conservbench.statistics import Interval

if TYPE_CHECKING:
    from conservbench.cards import Metric
    from conservbench.scored import Gate, Score, ScoredCell

SAVINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "speed": ("time_1", "speedup", "memory_1"),
    "mts": ("cost_ratio", "speedup"),
}
"""Metrics that say what is saved, by protocol; those of the first that was measured count."""


@dataclass(frozen=True)
class TwinRow:
    """One metric of the rows of one network, on one system.

    Attributes:
        protocol: name of the protocol.
        title: its title.
        version: of its card.
        tier: which settings.
        system: name of the system.
        machine: which running machine times were taken on, in words; empty for what is no time.
        metric: what is compared.
        scores: one a member of the table; None where there is no such cell, or it lacks the metric.
        changes: one a member: its value less that of the gradient, their errors taken as independent; None for the
            gradient itself, and where one of them has no value.
    """

    protocol: str
    title: str
    version: int
    tier: str
    system: str
    machine: str
    metric: Metric
    scores: tuple[Score | None, ...]
    changes: tuple[Interval | None, ...]


@dataclass(frozen=True)
class TwinTable:
    """The rows of one network side by side.

    Attributes:
        network: name of its gradient row.
        members: names of the rows: the gradient, then direct, then multiple time steps.
        schemes: of each member, such as ``gradient``, ``direct``, ``mts-8``.
        control: whether the answers were known beforehand.
        costs: metrics with gates.
        saves: times; empty where none was measured.
    """

    network: str
    members: tuple[str, ...]
    schemes: tuple[str, ...]
    control: bool
    costs: tuple[TwinRow, ...]
    saves: tuple[TwinRow, ...]


def twins(cells: Iterable[ScoredCell]) -> tuple[TwinTable, ...]:
    """One table for each network with a gradient row and another one; models before controls.

    Args:
        cells: of any models, protocols and tiers; what is not comparable does not share a row.
    """
    every = list(cells)
    models = {str(cell.model["name"]): cell.model for cell in every}
    tables = []
    for name, card in models.items():
        if card["scheme"] == "gradient":
            family = [other for other, its in models.items() if _of_one_network(card, its)]
            if family:
                members = (name, *sorted(family, key=lambda other: _place(models[other])))
                own = [cell for cell in every if cell.model["name"] in members]
                tables.append(_table(members, [models[each] for each in members], own))
    return tuple(sorted(tables, key=lambda table: (table.control, table.network)))


def scheme_of(card: Mapping[str, Any]) -> str:
    """Force scheme of a model card in short: ``gradient``, ``direct``, ``mts-8``."""
    return f"{card['scheme']}-{card['stride']}" if card["scheme"] == "mts" else str(card["scheme"])


def change_of(score: Score | None, other: Score | None) -> Interval | None:
    """A value less another, their errors taken as independent; None where one has no value.

    The distances of the ends from the values add in square (Zou and Donner, Stat. Med. 27, 1693, 2008).
    """
    if score is None or other is None:
        return None
    mine, its = (score.value, score.low, score.high), (other.value, other.low, other.high)
    if None in mine or None in its:
        return None
    value, low, high = (float(each) for each in mine if each is not None)
    start, least, most = (float(each) for each in its if each is not None)
    change = value - start
    below, above = math.hypot(value - low, most - start), math.hypot(high - value, start - least)
    return Interval(change, change - below, change + above, min(score.n, other.n))


def gate_in(score: Score | None) -> Gate | None:
    """The gate of a score; None where there is no score."""
    return None if score is None else score.gate


def is_lost(score: Score | None) -> bool:
    """Whether a row loses a gate that it shares with the gradient: it fails it, or should have a value and has none."""
    if score is None:
        return False
    return score.gate == "fail" or (score.value is None and score.outcome is not Outcome.UNSUPPORTED)


def _of_one_network(gradient: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a row is of the network of a gradient row."""
    if other["scheme"] == "gradient":
        return False
    named = other.get("twin")
    return row_name(named) == gradient["name"] if named else row_name(gradient.get("twin") or "") == other["name"]


def _place(card: Mapping[str, Any]) -> tuple[int, int, str]:
    # two models under one scheme after one network's own heads
    return KINDS.index(card["scheme"]), "fast" in card, str(card["name"])


def _table(members: tuple[str, ...], cards: Sequence[Mapping[str, Any]], cells: Sequence[ScoredCell]) -> TwinTable:
    saving = next((name for name in SAVINGS if any(cell.protocol["name"] == name for cell in cells)), None)
    costs, saves = [], []
    for group in _groups(cells):
        first = group[0]
        if first.protocol["name"] in SAVINGS:
            if first.protocol["name"] == saving:
                chosen = [first.metrics[key] for key in SAVINGS[first.protocol["name"]] if key in first.metrics]
                saves += [_row(metric, members, group) for metric in chosen]
        elif len(group) > 1:
            gated = [each for each in first.headlines if each.gated]
            costs += [_row(metric, members, group) for metric in gated]
    return TwinTable(
        network=members[0],
        members=members,
        schemes=tuple(scheme_of(card) for card in cards),
        control=any(card.get("role") == "control" for card in cards),
        costs=tuple(row for row in costs if _says_something(row)),
        saves=tuple(row for row in saves if _says_something(row)),
    )


def _groups(cells: Iterable[ScoredCell]) -> list[list[ScoredCell]]:
    """Cells that can be compared: of one protocol, version, card, tier and system, times of one running machine."""
    groups: dict[tuple[object, ...], list[ScoredCell]] = {}
    for cell in cells:
        card = cell.protocol
        key = card["name"], card["version"], card.get("digest"), cell.tier, cell.system, machine_of(cell)
        groups.setdefault(key, []).append(cell)
    return list(groups.values())


def _row(metric: Metric, members: Sequence[str], group: Sequence[ScoredCell]) -> TwinRow:
    found = {cell.model["name"]: score for cell in group for score in cell.scores if score.metric == metric.key}
    scores = tuple(found.get(name) for name in members)
    card = group[0].protocol
    return TwinRow(
        protocol=str(card["name"]),
        title=str(card.get("title") or card["name"]),
        version=card["version"],
        tier=group[0].tier,
        system=group[0].system,
        machine=machine_name(group[0]) if machine_of(group[0]) else "",
        metric=metric,
        scores=scores,
        changes=(None, *(change_of(score, scores[0]) for score in scores[1:])),
    )


def _says_something(row: TwinRow) -> bool:
    """Whether any but the gradient has a value, or should have one."""
    return any(score is not None and (score.value is not None or is_lost(score)) for score in row.scores[1:])
