"""Curves of replicas: means with their 95 % intervals, and the replica that exploded first. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from conservbench.plot import Line, Plot, line
from conservbench.statistics import Interval, mean_interval, median_interval

POINTS: Final = 25
"""Points of a curve with a band: a cell of a leaderboard has five or so pictures, of which a page loads many."""

STRETCHES: Final = 10
"""Stretches of time over which a noisy series is averaged."""


def mean_line(name: str, x: ArrayLike, samples: ArrayLike, points: int = POINTS) -> Line:
    """Mean of independent samples at each x, with its Student-t interval as the band.

    Args:
        name: of the line.
        x: (n_x,).
        samples: (n, n_x); those that are not finite are left out; a single one gives no band.
        points: how many to keep at most, evenly, the first and the last among them.
    """
    across, found = _at_places(mean_interval, x, samples, points)
    value, low, high = _columns(found)
    widths = high - low
    if not np.isfinite(widths).any():
        return line(name, across, value)
    return line(name, across, _shortened(value, widths), _shortened(low, widths), _shortened(high, widths))


def median_line(name: str, x: ArrayLike, samples: ArrayLike, points: int = POINTS) -> Line:
    """Median of independent samples at each x, with its interval by order statistics as the band.

    Args:
        name: of the line.
        x: (n_x,).
        samples: (n, n_x); those that are not finite are left out; fewer than six give no band.
        points: see :func:`mean_line`.
    """
    return interval_line(name, *_at_places(median_interval, x, samples, points), "curve")


def interval_line(
    name: str, x: ArrayLike, intervals: Sequence[Interval | None], style: Literal["curve", "points"] = "points"
) -> Line:
    """Values with their intervals as the band; a gap where there is none, no edge where nothing bounds the value.

    Args:
        name: of the line.
        x: (n_x,).
        intervals: (n_x,).
        style: of the line.
    """
    value, low, high = _columns(intervals)
    if not np.isfinite(high - low).any():
        return line(name, x, value, style=style)
    return line(name, x, value, low, high, style)


def replica_lines(name: str, x: ArrayLike, samples: ArrayLike, lasted: ArrayLike, points: int = POINTS) -> list[Line]:
    """Mean of the replicas that lasted, with its band, and the replica that exploded first, on its own.

    Args:
        name: of the line; that of the exploded replica says so.
        x: (n_x,).
        samples: (n_replicas, n_x), NaN once a replica has exploded.
        lasted: (n_replicas,) whether a replica did not explode.
        points: see :func:`mean_line`.

    Returns:
        Neither where there is nothing to draw.
    """
    values, sound = np.asarray(samples, dtype=float), np.asarray(lasted, dtype=bool)
    lines = [mean_line(name, x, values[sound], points)] if sound.any() else []
    lengths = np.isfinite(values).sum(1)
    ended = np.flatnonzero(~sound & (lengths > 0))
    if len(ended):
        first = ended[np.argmin(lengths[ended])]
        kept = np.flatnonzero(np.isfinite(values[first]))[_spread(int(lengths[first]), points)]
        lines.append(line(" ".join(filter(None, (name, "exploded"))), np.asarray(x)[kept], values[first, kept]))
    return lines


def level(name: str, x: ArrayLike, value: float) -> Line:
    """A level that lines are compared with, from the lowest to the highest x."""
    ends = [float(np.min(x)), float(np.max(x))]
    return line(name, ends, [value, value], style="reference")


def size_line(name: str, x: ArrayLike, intervals: Sequence[Interval | None]) -> Line:
    """Distances from zero with their intervals, for an axis in powers of ten.

    A bar reaches up to the farthest from zero that is in the interval, and down to the nearest; it has no lower half
    where zero itself is in it. A value of zero is a gap.

    Args:
        name: of the line.
        x: (n_x,).
        intervals: (n_x,).
    """
    return interval_line(name, x, [_size(each) for each in intervals])


def drawn(plots: Sequence[Plot]) -> list[Plot]:
    """Those in which something was measured: without it, what it is compared with tells nothing."""
    return [plot for plot in plots if any(_is_measured(each) for each in plot.lines)]


def in_stretches(series: xr.DataArray, stretches: int = STRETCHES) -> xr.DataArray:
    """Means over so many stretches of the time, or fewer: what is left of a noisy series is its trend.

    The first samples are left out where they do not fill a stretch; a stretch in which a replica exploded is NaN.

    Args:
        series: with a dimension ``time``.
        stretches: how many, or all samples where there are fewer.
    """
    length = max(series.sizes["time"] // stretches, 1)
    return series.coarsen(time=length, boundary="trim", side="right").reduce(np.mean)


def _is_measured(one: Line) -> bool:
    return one.style != "reference" and any(value is not None for value in one.y)


def _spread(n: int, points: int) -> NDArray[np.int64]:
    """(min(n, points),) places, evenly spread, the first and the last among them."""
    return np.round(np.linspace(0, n - 1, min(n, points))).astype(np.int64)


def _at_places(
    estimate: Callable[[NDArray[np.float64]], Interval], x: ArrayLike, samples: ArrayLike, points: int
) -> tuple[NDArray[np.float64], list[Interval | None]]:
    """Places that are kept of (n_x,), and what samples (n, n_x) give there: None where none is finite."""
    across, values = np.asarray(x, dtype=float), np.asarray(samples, dtype=float)
    places = _spread(len(across), points)
    found = [estimate(column) if np.isfinite(column).any() else None for column in values[:, places].T]
    return across[places], found


def _columns(intervals: Sequence[Interval | None]) -> NDArray[np.float64]:
    """(3, n) values, lower and upper ends."""
    rows = [(np.nan,) * 3 if each is None else (each.value, each.low, each.high) for each in intervals]
    return np.array(rows, dtype=float).reshape(-1, 3).T


def _size(interval: Interval | None) -> Interval | None:
    if interval is None or interval.value == 0:
        return None
    value, ends = abs(interval.value), (abs(interval.low), abs(interval.high))
    return Interval(value, value if interval.low * interval.high <= 0 else min(ends), max(ends), interval.n)


def _shortened(values: NDArray[np.float64], widths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values to about a hundredth of the usual width of their band: nobody sees a digit more."""
    positive = widths[np.isfinite(widths) & (widths > 0)]
    if not len(positive):
        return values
    return np.round(values, int(np.clip(2 - np.floor(np.log10(np.median(positive))), -300, 300)))
