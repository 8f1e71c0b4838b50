"""What a measurement shows in a picture: curves and axes, as plain numbers that any library can draw. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

MOST_POINTS = 120
"""Points that a curve keeps: more than a screen shows of a column's width, few enough for a file that people send."""


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what is on it.
        unit: of the numbers; ``1`` where there is none.
        log: whether it is drawn in powers of ten.
    """

    label: str
    unit: str = "1"
    log: bool = False


@dataclass(frozen=True)
class Line:
    """One curve, or points, with a band where there is one.

    Attributes:
        name: what sets it apart from the other lines of the plot; empty where the model has one.
        x: (n,).
        y: (n,); None where there is no value, which is a gap.
        low: (n,) lower edge of the band; empty for none.
        high: (n,) upper edge of the band; empty for none.
        style: a curve, points, or the dashed curve of what the model is compared with.

    Raises:
        ValueError: the lengths differ.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    style: Literal["curve", "points", "reference"] = "curve"

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or any(len(edge) not in (0, len(self.x)) for edge in (self.low, self.high)):
            raise ValueError(f"line {self.name!r}: x, y and the edges of its band differ in length")


@dataclass(frozen=True)
class Plot:
    """One picture of one cell; those of several models with equal keys share their axes.

    Attributes:
        key: name of the picture within its protocol.
        title: what is drawn.
        x: horizontal axis.
        y: vertical axis.
        lines: in the order in which they are named.
        note: one sentence: what to look for, and what the band is.
    """

    key: str
    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = field(repr=False)
    note: str = ""


def line(
    name: str,
    x: ArrayLike,
    y: ArrayLike,
    low: ArrayLike = (),
    high: ArrayLike = (),
    style: Literal["curve", "points", "reference"] = "curve",
) -> Line:
    """A line of arrays: at most :data:`MOST_POINTS` points, five significant digits, gaps where a number is not finite.

    Points are left out evenly, the first and the last are kept. Points whose x is not finite are left out.

    Args:
        name: see :class:`Line`.
        x: (n,).
        y: (n,).
        low: (n,) or empty.
        high: (n,) or empty.
        style: see :class:`Line`.
    """
    places = np.flatnonzero(np.isfinite(np.asarray(x, dtype=float)))
    if len(places) > MOST_POINTS:
        places = places[np.round(np.linspace(0, len(places) - 1, MOST_POINTS)).astype(int)]
    across = tuple(value for value in _taken(x, places) if value is not None)
    return Line(name, across, _taken(y, places), _taken(low, places), _taken(high, places), style)


def _taken(values: ArrayLike, places: Sequence[int] | np.ndarray) -> tuple[float | None, ...]:
    array = np.asarray(values, dtype=float)
    if not array.size:
        return ()
    return tuple(float(f"{value:.5g}") if np.isfinite(value) else None for value in array[places])
