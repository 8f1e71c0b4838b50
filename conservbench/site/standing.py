"""How models stand: verdicts, ranks, what a force scheme costs and saves, and fronts, as tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from conservbench.leaderboard.number import spelled
from conservbench.leaderboard.ranking import rankable, ranks
from conservbench.leaderboard.sheet import label_of, limits_of, plain, value_of
from conservbench.leaderboard.twins import scheme_of
from conservbench.leaderboard.verdict import verdict
from conservbench.outcome import Outcome
from conservbench.site.figures import SLOTS, Figure, axis_of, literal
from conservbench.site.views import Field, headlines

if TYPE_CHECKING:
    from conservbench.leaderboard.pareto import Front, Point
    from conservbench.leaderboard.twins import TwinRow, TwinTable
    from conservbench.leaderboard.verdict import Verdict
    from conservbench.scored import ScoredCell

SIGNS: Final = {"usable": "✓", "usable with care": "!", "not usable": "✗", "not measured": "–"}
"""How a level is shown, without colour."""

KINDS: Final = {"usable": "pass", "usable with care": "unclear", "not usable": "fail", "not measured": "none"}
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


def standing(name: str, cells: Iterable[ScoredCell]) -> Standing:
    """Where a model stands."""
    own = [cell for cell in cells if cell.model["name"] == name]
    measured = sum(cell.outcome in (Outcome.COMPLETED, Outcome.EXPLODED, Outcome.NOT_CONVERGED) for cell in own)
    return Standing(verdict(own), name, own[0].is_control, scheme_of(own[0].model), measured, len(own))


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
    for metric in rankable(headlines(cells)):
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
    """One a member: gates that it fails and the gradient passes."""

    @property
    def gated(self) -> int:
        """Gates that the gradient passes."""
        return sum(row.fields[0].gate == "pass" for row in self.costs)


def network_view(table: TwinTable) -> NetworkView:
    """A network's rows as fields."""
    costs = tuple(map(_cost_row, table.costs))
    lost = tuple(
        sum(row.fields[0].gate == "pass" and row.fields[place].gate == "fail" for row in costs)
        for place in range(len(table.members))
    )
    saves = tuple(map(_cost_row, table.saves))
    return NetworkView(table.network, table.members, table.schemes, table.control, costs, saves, lost)


def _cost_row(row: TwinRow) -> CostRow:
    fields = []
    for score, change in zip(row.scores, row.changes, strict=True):
        if score is None:
            fields.append(Field("not asked"))
            continue
        less = "" if change is None else f"change {spelled(change.value, change.low, change.high, row.metric.digits)}"
        fields.append(Field(value_of(score, row.metric), score.value, score.gate, less))
    title = plain(f"{row.title}, {row.tier}")
    return CostRow(title, row.protocol, row.system, label_of(row.metric), limits_of(row.metric), tuple(fields))


def front_figure(front: Front) -> Figure:
    """Speed against another metric: a colour for each model, a filled sign on the front, an open one behind it."""
    speed, other = front.speed, front.metric
    traces: list[dict[str, Any]] = []
    ahead = sorted((p for p in front.points if p.standing == "front"), key=lambda p: p.speed.value)
    if len(ahead) > 1:
        traces.append(_front_line(ahead))
    for place, point in enumerate(front.points):
        traces.append(_point_trace(point, place))
    log = all(point.other.value > 0 for point in front.points)
    return {"data": traces, "layout": {"xaxis": axis_of(plain(speed.label), speed.unit, log=True),
                                       "yaxis": axis_of(plain(other.label), other.unit, log=log)}}  # fmt: skip


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


def _point_trace(point: Point, place: int) -> dict[str, Any]:
    said = "control" if point.control else point.standing or ""
    symbol = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "cross", "x")[place // SLOTS % 8]
    bars = {
        key: {
            "type": "data",
            "symmetric": False,
            "array": [each.high - each.value],
            "arrayminus": [each.value - each.low],
            "thickness": 1.5,
            "width": 3,
        }
        for key, each in (("error_x", point.speed), ("error_y", point.other))
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "name": literal(f"{point.model} ({said})"),
        "x": [point.speed.value],
        "y": [point.other.value],
        "customdata": [[point.other.low, point.other.high]],
        "line": {},
        "marker": {"symbol": symbol if said == "front" else f"{symbol}-open", "size": 11},
        "meta": {"slot": place % SLOTS, "model": "", "line": point.model},
        **bars,
    }
