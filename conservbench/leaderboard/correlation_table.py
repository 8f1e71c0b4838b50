"""What errors on labels say of errors of properties, as rows of text: one a property, error and kind of forces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from conservbench.leaderboard.correlation import Correlation, Ladder, is_rung, ladders
from conservbench.leaderboard.number import spelled
from conservbench.leaderboard.sheet import plain

if TYPE_CHECKING:
    from conservbench.scored import ScoredCell

TITLE: Final = "What a better fit buys"

HEADINGS: Final = ("of", "with", "forces", "models", "Spearman", "Kendall", "Pearson")
"""Of the columns."""

NAMES: Final = 3
"""Columns that hold names, before those that hold numbers."""


def correlation_rows(cells: Sequence[ScoredCell]) -> list[tuple[str, ...]]:
    """A row for each coefficient, and for models that were lost; none for cells that are no rungs of a ladder.

    Args:
        cells: of one sheet.
    """
    found = ladders(cells) if cells and is_rung(cells[0]) else ()
    return [_row(each, kind) for each in found for kind in each.kinds if kind.tells]


def _row(ladder: Ladder, kind: Correlation) -> tuple[str, ...]:
    fields = ["–" if each is None else spelled(each.value, each.low, each.high, 2) for each in kind.coefficients]
    return ladder.of, plain(ladder.fit.label), kind.forces, kind.count, *fields
