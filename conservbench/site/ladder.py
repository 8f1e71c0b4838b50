"""A ladder of models on a page: what errors on labels say of errors of properties, as a table and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from conservbench.leaderboard.correlation import Correlation, Ladder
from conservbench.leaderboard.number import spelled
from conservbench.leaderboard.sheet import plain
from conservbench.site.figures import Figure
from conservbench.site.scatter import Sign, scatter
from conservbench.site.views import Field

if TYPE_CHECKING:
    from conservbench.statistics import Interval

NOTE: Final = (
    "One sign a model: filled, conservative forces; open, direct ones. Further left fits better, further down is "
    "better in the property. Bars are 95 % intervals."
)


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
    """A row for each ladder and kind of forces that has a coefficient, or lost models to an explosion."""
    return [_row(each, kind) for each in found for kind in each.kinds if kind.tells]


def ladder_figure(ladder: Ladder) -> Figure:
    """Errors of a property against errors on labels: filled for conservative forces, open for direct ones."""
    points = sorted((p for kind in ladder.kinds for p in kind.points), key=lambda p: (p.fit.value, p.model))
    signs = [
        Sign(p.model, f"{p.forces}, control" if p.control else p.forces, p.fit, p.other, p.forces == "conservative")
        for p in points
    ]
    return scatter(signs, ladder.fit, ladder.other)


def _row(ladder: Ladder, kind: Correlation) -> Row:
    note = "; ".join(f"{why}: {', '.join(models)}" for why, models in kind.left_out.items())
    count = Field(kind.count, float(len(kind.points) - len(kind.vague)), note=note)
    return Row((ladder.of, plain(ladder.fit.label), kind.forces), (count, *map(_field, kind.coefficients)))


def _field(found: Interval | None) -> Field:
    return Field("–") if found is None else Field(spelled(found.value, found.low, found.high, 2), found.value)
