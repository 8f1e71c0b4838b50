"""A ladder of models on a page: what errors on labels say of errors of properties, as a table and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from conservbench.leaderboard.correlation import Correlation, Ladder, Point
from conservbench.leaderboard.number import spelled
from conservbench.leaderboard.sheet import plain
from conservbench.site.figures import SLOTS, Figure, axis_of, length, literal
from conservbench.site.views import Field

if TYPE_CHECKING:
    from conservbench.statistics import Interval

NOTE: Final = (
    "One sign a model: filled, conservative forces; open, direct ones. Further left fits better, further down is "
    "better in the property. Bars are 95 % intervals."
)

_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "cross", "x")


@dataclass(frozen=True)
class Row:
    """One property, one error on labels, one kind of forces.

    Attributes:
        words: property, error on labels and forces.
        numbers: models, and the three coefficients.
    """

    words: tuple[str, ...]
    numbers: tuple[Field, ...]


def rows_of(found: Iterable[Ladder]) -> list[Row]:
    """A row for each ladder and kind of forces that has a coefficient."""
    return [_row(each, kind) for each in found for kind in each.kinds if kind.spearman or kind.pearson]


def ladder_figure(ladder: Ladder) -> Figure:
    """Errors of a property against errors on labels: filled for conservative forces, open for direct ones."""
    points = sorted((p for kind in ladder.kinds for p in kind.points), key=lambda p: (p.fit.value, p.model))
    log = all(point.other.value > 0 for point in points)
    return {
        "data": [_trace(point, place) for place, point in enumerate(points)],
        "layout": {
            "xaxis": axis_of(plain(ladder.fit.label), ladder.fit.unit, log=True),
            "yaxis": axis_of(plain(ladder.other.label), ladder.other.unit, log=log),
        },
    }


def _row(ladder: Ladder, kind: Correlation) -> Row:
    of = ", ".join(filter(None, (plain(ladder.other.label), ladder.system, ladder.elements)))
    lost = f" ({len(kind.lost)} lost)" if kind.lost else ""
    count = Field(f"{len(kind.points)}{lost}", float(len(kind.points)), note=", ".join(kind.lost))
    coefficients = tuple(map(_field, (kind.spearman, kind.kendall, kind.pearson)))
    return Row((of, plain(ladder.fit.label), kind.forces), (count, *coefficients))


def _field(found: Interval | None) -> Field:
    return Field("–") if found is None else Field(spelled(found.value, found.low, found.high, 2), found.value)


def _trace(point: Point, place: int) -> dict[str, Any]:
    bars = {
        key: {
            "type": "data",
            "symmetric": False,
            "array": [length(each.value, each.high)],
            "arrayminus": [length(each.low, each.value)],
            "thickness": 1.5,
            "width": 3,
        }
        for key, each in (("error_x", point.fit), ("error_y", point.other))
    }
    # models of one colour differ in their sign
    symbol = _SYMBOLS[place // SLOTS % len(_SYMBOLS)]
    said = f"{point.forces}, control" if point.control else point.forces
    return {
        "type": "scatter",
        "mode": "markers",
        "name": literal(f"{point.model} ({said})"),
        "x": [point.fit.value],
        "y": [point.other.value],
        "customdata": [[point.other.low, point.other.high]],
        "line": {},
        "marker": {"symbol": symbol if point.forces == "conservative" else f"{symbol}-open", "size": 11},
        "meta": {"slot": place % SLOTS, "model": "", "line": ""},
        **bars,
    }
