"""How models stand: verdicts, ranks, what a force scheme costs and saves, and fronts, as tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from conservbench.leaderboard.coverage import Coverage
from conservbench.leaderboard.number import spelled
from conservbench.leaderboard.ranking import rankable, ranks
from conservbench.leaderboard.sheet import columns_of, label_of, limits_of, plain, value_of
from conservbench.leaderboard.twins import gate_in, is_lost, scheme_of
from conservbench.leaderboard.verdict import verdict
from conservbench.outcome import Outcome
from conservbench.site.figures import Figure
from conservbench.site.scatter import Sign, scatter
from conservbench.site.views import Field

if TYPE_CHECKING:
    from conservbench.leaderboard.pareto import Front, Point
    from conservbench.leaderboard.twins import TwinRow, TwinTable
    from conservbench.leaderboard.verdict import Verdict
    from conservbench.scored import Score, ScoredCell
    from conservbench.statistics import Interval

SIGNS: Final = {"usable": "✓", "usable with care": "!", "not usable": "✗", "not measured": "–", "no verdict": "–"}
"""How a level is shown, without colour."""

KINDS: Final = {
    "usable": "pass",
    "usable with care": "unclear",
    "not usable": "fail",
    "not measured": "none",
    "no verdict": "none",
}
"""Its class in the style."""


@dataclass(frozen=True)
class Standing:
    """A model in the first table: its verdict, its forces, and how much of it was measured."""

    verdict: Verdict
    model: str
    control: bool
    forces: str
    measured: int
    asked: int

    @property
    def share(self) -> float:
        """What was measured of what was asked."""
        return self.measured / self.asked if self.asked else 0.0

    @property
    def sign(self) -> str:
        """The level as a sign."""
        return SIGNS[self.verdict.level]

    @property
    def kind(self) -> str:
        """The level as a class of the style."""
        return KINDS[self.verdict.level]

    @property
    def order(self) -> int:
        """What the level is sorted by, the best first."""
        return list(SIGNS).index(self.verdict.level)


def standings(cells: Sequence[ScoredCell], coverages: Iterable[Coverage]) -> dict[str, Standing]:
    """Where each model stands.

    Args:
        cells: of any models.
        coverages: how much of what is asked of each of them they are.
    """
    found = {}
    for covered in coverages:
        own = [cell for cell in cells if cell.model["name"] == covered.model]
        said = verdict(own, covered)
        forces = scheme_of(own[0].model)
        found[covered.model] = Standing(said, covered.model, own[0].is_control, forces, covered.measured, covered.asked)
    return found


@dataclass(frozen=True)
class RankTable:
    """Ranks of models under one protocol.

    Attributes:
        title: of the protocol, its version and tier.
        headings: metrics with ranks.
        rows: model to a field for each heading.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Field, ...]], ...]


def rank_table(cells: Sequence[ScoredCell], title: str) -> RankTable | None:
    """Ranks in the headline metrics of one group of cells; None where nothing is ranked."""
    columns: list[str] = []
    found: list[Mapping[str, Field]] = []
    for metric in rankable(columns_of(cells)):
        if ranked := ranks(cells, metric.key):
            columns.append(plain(metric.label))
            found.append({each.model: Field(each.text, each.best + each.high / 1000.0) for each in ranked})
    models = sorted({model for each in found for model in each})
    rows = tuple((model, tuple(each.get(model, Field("–", note="not ranked")) for each in found)) for model in models)
    return RankTable(title, tuple(columns), rows) if rows else None


@dataclass(frozen=True)
class CostRow:
    """A metric of the rows of one network: values with gates, and what changed against the gradient."""

    title: str
    protocol: str
    system: str
    label: str
    limits: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class NetworkView:
    """What dropping the gradient costs and saves."""

    network: str
    members: tuple[str, ...]
    schemes: tuple[str, ...]
    control: bool
    costs: tuple[CostRow, ...]
    saves: tuple[CostRow, ...]
    lost: tuple[int, ...]
    """One a member: gates that the gradient passes and it fails, or should have a value for and has none."""
    silent: tuple[int, ...]
    """One a member: those of them without a value."""
    unclear: tuple[int, ...]
    """One a member: gates that the gradient passes and that do not tell of it."""
    shared: tuple[int, ...]
    """One a member: gates that the gradient passes and that it was asked about too."""


def network_view(table: TwinTable) -> NetworkView:
    """A network's rows as fields."""
    passed = [row for row in table.costs if gate_in(row.scores[0]) == "pass"]
    places = range(len(table.members))
    return NetworkView(
        network=table.network,
        members=table.members,
        schemes=table.schemes,
        control=table.control,
        costs=tuple(map(_cost_row, table.costs)),
        saves=tuple(map(_cost_row, table.saves)),
        lost=tuple(sum(is_lost(row.scores[place]) for row in passed) for place in places),
        silent=tuple(
            sum(is_lost(row.scores[place]) and gate_in(row.scores[place]) != "fail" for row in passed)
            for place in places
        ),
        unclear=tuple(sum(gate_in(row.scores[place]) == "unclear" for row in passed) for place in places),
        shared=tuple(sum(_is_gated(row.scores[place]) for row in passed) for place in places),
    )


def _is_gated(score: Score | None) -> bool:
    """Whether a row stands at a gate, or should."""
    return gate_in(score) is not None or is_lost(score)


def _cost_row(row: TwinRow) -> CostRow:
    fields = []
    for score, change in zip(row.scores, row.changes, strict=True):
        if score is None:
            fields.append(Field("not asked"))
            continue
        # a metric has no meaning for a row, such as the regret of the gradient against itself
        idle = score.value is None and score.outcome is Outcome.UNSUPPORTED
        text = "–" if idle else value_of(score, row.metric)
        fields.append(Field(text, score.value, score.gate, _said_of(change, row.metric.digits)))
    title = plain(f"{row.title}, {row.tier}{f', on {row.machine}' if row.machine else ''}")
    return CostRow(title, row.protocol, row.system, label_of(row.metric), limits_of(row.metric), tuple(fields))


def _said_of(change: Interval | None, digits: int) -> str:
    """A change in words; nothing of one without bounds, which tells nothing."""
    if change is None or (math.isinf(change.low) and math.isinf(change.high)):
        return ""
    return f"change {spelled(change.value, change.low, change.high, digits)}"


def front_figure(front: Front) -> Figure:
    """Speed against another metric: a colour for each model, a filled sign on the front, an open one behind it."""
    ahead = sorted((p for p in front.points if p.standing == "front"), key=lambda p: p.speed.value)
    signs = [
        Sign(p.model, "control" if p.control else p.standing or "", p.speed, p.other, p.standing == "front", p.model)
        for p in front.points
    ]
    return scatter(signs, front.speed, front.metric, [_front_line(ahead)] if len(ahead) > 1 else [])


def _front_line(points: Sequence[Point]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "front",
        "x": [point.speed.value for point in points],
        "y": [point.other.value for point in points],
        "line": {"dash": "dash", "width": 1.5},
        "marker": {},
        "meta": {"slot": None, "model": "", "line": "front"},
    }
