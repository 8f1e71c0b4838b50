"""Intervals, slopes and extrapolations: every error bar of the suite is made here. No torch.

Samples are replicas, or groups of probes: independent by construction. An interval is Student's t over them, so that
correlation in time needs no model: it is inside each replica's own number, and the spread over replicas shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, betaincinv, stdtrit

LEVEL = 0.95
"""Confidence level of every interval of the suite."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval.

    Attributes:
        value: the estimate.
        low: lower end; minus infinity where nothing bounds it.
        high: upper end; infinity where nothing bounds it.
        n: independent samples behind it (replicas, snapshots, loops).
    """

    value: float
    low: float
    high: float
    n: int

    def map(self, function: Callable[[float], float]) -> Interval:
        """The interval of an increasing function of the value, which must also take infinities."""
        return Interval(function(self.value), function(self.low), function(self.high), self.n)

    def scaled(self, factor: float) -> Interval:
        """The interval in another unit; ``factor`` is positive."""
        return self.map(lambda value: value * factor)

    @property
    def size(self) -> Interval:
        """The interval of the distance from zero."""
        ends = abs(self.low), abs(self.high)
        inside = self.low <= 0.0 <= self.high
        return Interval(abs(self.value), 0.0 if inside else min(ends), max(ends), self.n)


def mean_interval(samples: ArrayLike) -> Interval:
    """Mean of independent samples with its Student-t interval.

    Args:
        samples: (n,); any that are not finite are left out.

    Returns:
        The mean over the finite samples; an infinite interval for a single one.

    Raises:
        ValueError: no sample is finite.
    """
    values = np.asarray(samples, dtype=float).ravel()
    values = values[np.isfinite(values)]
    n = len(values)
    if n == 0:
        raise ValueError("no finite sample")
    mean = float(values.mean())
    half = _half_width(float(values.std(ddof=1)) / math.sqrt(n), n) if n > 1 else math.inf
    return Interval(mean, mean - half, mean + half, n)


def slopes(times: ArrayLike, series: ArrayLike) -> NDArray[np.float64]:
    """Ordinary least-squares slope of each series.

    Args:
        times: (n_times,).
        series: (..., n_times); a series with a value that is not finite gives NaN.

    Returns:
        (...,) slopes, in the unit of the series over the unit of the times.

    Raises:
        ValueError: fewer than two times.
    """
    t = np.asarray(times, dtype=float)
    if len(t) < 2:
        raise ValueError(f"a slope needs two times or more, got {len(t)}")
    centred = t - t.mean()
    return np.asarray(series, dtype=float) @ centred / (centred @ centred)


def fluctuations(times: ArrayLike, series: ArrayLike) -> NDArray[np.float64]:
    """Standard deviation of each series (..., n_times) about its own straight line: (...,)."""
    t = np.asarray(times, dtype=float)
    y = np.asarray(series, dtype=float)
    if len(t) < 3:
        raise ValueError(f"a fluctuation about a line needs three times or more, got {len(t)}")
    line = y.mean(-1, keepdims=True) + slopes(t, y)[..., None] * (t - t.mean())
    return np.sqrt(((y - line) ** 2).sum(-1) / (len(t) - 2))


def slope_interval(times: ArrayLike, series: ArrayLike) -> Interval:
    """Mean slope of independent replicas with its Student-t interval.

    Each replica gives one least-squares slope; whatever correlates its samples in time widens the spread of the slopes
    and thereby the interval.

    Args:
        times: (n_times,).
        series: (n_replicas, n_times); replicas with a value that is not finite are left out.
    """
    return mean_interval(slopes(times, series))


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike) -> Interval:
    """Ratio of two sums with its delete-one-group jackknife interval (Efron, The Jackknife, 1982).

    Args:
        numerators: (n_groups, ...), summed within each group.
        denominators: the same shape.

    Returns:
        The bias-corrected ratio of the sums; an infinite interval for a single group.

    Raises:
        ValueError: no group, shapes that differ, or denominators whose sum is not positive.
    """
    top, bottom = (np.asarray(part, dtype=float) for part in (numerators, denominators))
    if top.shape != bottom.shape or not len(top):
        raise ValueError(f"numerators {top.shape} and denominators {bottom.shape} must be alike and not empty")
    top, bottom = (part.reshape(len(part), -1).sum(1) for part in (top, bottom))
    if not bottom.sum() > 0:
        raise ValueError(f"the denominators sum to {bottom.sum():.3g}; a ratio needs a positive sum")
    n = len(top)
    ratio = float(top.sum() / bottom.sum())
    if n == 1:
        return Interval(ratio, -math.inf, math.inf, 1)
    left_out = (top.sum() - top) / (bottom.sum() - bottom)
    return jackknife_interval(n * ratio - (n - 1) * float(left_out.mean()), left_out)


def jackknife_interval(value: float, left_out: ArrayLike) -> Interval:
    """A statistic with the interval that its delete-one jackknife gives (Efron, The Jackknife, 1982).

    Args:
        value: the statistic.
        left_out: (n_groups,) the statistic without each group.

    Returns:
        An infinite interval for a single group.
    """
    without = np.asarray(left_out, dtype=float)
    n = len(without)
    if n == 1:
        return Interval(value, -math.inf, math.inf, 1)
    half = _half_width(math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum())), n)
    return Interval(value, value - half, value + half, n)


def median_interval(samples: ArrayLike) -> Interval:
    """Median of independent samples with its interval by order statistics, whatever their distribution.

    The k-th lowest and the k-th highest of n samples enclose the median unless fewer than k fall on one side of it; the
    interval has the largest k for which that is rarer than 5 % (binomial). Fewer than six samples bound nothing.

    Args:
        samples: (n,); any that are not finite are left out.

    Raises:
        ValueError: no sample is finite.
    """
    values = np.asarray(samples, dtype=float).ravel()
    values = np.sort(values[np.isfinite(values)])
    n = len(values)
    if n == 0:
        raise ValueError("no finite sample")
    k = max((k for k in range(n // 2 + 1) if 2.0 * bdtr(k - 1, n, 0.5) <= 1.0 - LEVEL), default=0)
    low, high = (values[k - 1], values[n - k]) if k else (-math.inf, math.inf)
    return Interval(float(np.median(values)), float(low), float(high), n)


def distance_interval(samples: ArrayLike, references: ArrayLike) -> Interval:
    """Squared distance of two mean profiles, over the square of the reference, with its jackknife interval.

    With the differences d_k of paired samples, |mean d|^2 overestimates the square of the expectation by the noise of
    the d_k; the sum of d_k . d_l over pairs k != l does not, so that the distance of equal profiles is zero on average,
    and may come out below.

    Args:
        samples: (n, n_bins), a profile of each replica; a replica with a value that is not finite is left out.
        references: the same shape and replicas.

    Returns:
        The distance; an infinite interval for two replicas.

    Raises:
        ValueError: fewer than two replicas, or references whose mean is zero everywhere.
    """
    profiles, wanted = (np.asarray(part, dtype=float) for part in (samples, references))
    sound = np.isfinite(profiles).all(1) & np.isfinite(wanted).all(1)
    profiles, wanted = profiles[sound], wanted[sound]
    n = len(profiles)
    if n < 2:
        raise ValueError(f"a distance of means needs two replicas or more, got {n}")
    if not wanted.mean(0).any():
        raise ValueError("the reference is zero everywhere")

    def distance(kept: NDArray[np.bool_]) -> float:
        d = (profiles - wanted)[kept]
        m = len(d)
        square = ((d.sum(0) ** 2).sum() - (d**2).sum()) / (m * (m - 1))
        return float(square / (wanted[kept].mean(0) ** 2).sum())

    value = distance(np.ones(n, dtype=bool))
    if n == 2:
        return Interval(value, -math.inf, math.inf, 2)
    left_out = np.array([distance(np.arange(n) != k) for k in range(n)])
    half = _half_width(math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum())), n)
    return Interval(value, value - half, value + half, n)


def distance_from_interval(samples: Sequence[ArrayLike], references: Sequence[ArrayLike]) -> Interval:
    """Squared distance of mean profiles from those measured elsewhere, over the squares of the latter.

    Both sides are means of independent samples: replicas of what was measured, blocks of the reference. The square of
    the difference of the means less the noise of each, from its own scatter, is zero on average for equal profiles. The
    variance is that of the jackknife over replicas plus that of the jackknife over the blocks of each reference, with
    the degrees of freedom of Welch and Satterthwaite: nothing is assumed of the noise between bins. Where profiles are
    equal, the jackknife finds more than there is (Efron and Stein, Ann. Statist. 9, 586, 1981), and the interval is
    wide.

    Args:
        samples: profiles (n, n_bins) of the same replicas under one or more conditions, of which the distance is the
            mean; a replica with a value that is not finite is left out of all.
        references: (n_blocks, n_bins) blocks of the reference of each; equal rows for one that is exact. Different
            references are independent of each other, equal ones are the same.

    Returns:
        The distance, ``n`` the number of replicas; an infinite interval for two replicas or two blocks.

    Raises:
        ValueError: fewer than two replicas or blocks, or a reference that is zero everywhere.
    """

    def distance(replicas: NDArray[np.float64], blocks: Sequence[NDArray[np.float64]]) -> float:
        return _mean_square(replicas[:, 0], blocks)

    return _jackknife(_sound(samples), _referring(references), distance)


def distance_change_interval(
    samples: Sequence[ArrayLike], before: Sequence[ArrayLike], references: Sequence[ArrayLike]
) -> Interval:
    """By how much :func:`distance_from_interval` of some samples is above that of others, over paired replicas.

    The square of the noise of the reference is in both distances and drops out; what is left is linear in it.

    Args:
        samples: profiles (n, n_bins) by condition; a pair with a value that is not finite is left out.
        before: likewise, those that they are compared with, of the same replicas.
        references: (n_blocks, n_bins) by condition.

    Returns:
        Negative where the samples are nearer; an infinite interval for two replicas or two blocks.

    Raises:
        ValueError: fewer than two replicas or blocks, or a reference that is zero everywhere.
    """

    def change(replicas: NDArray[np.float64], blocks: Sequence[NDArray[np.float64]]) -> float:
        return _mean_square(replicas[:, 0], blocks) - _mean_square(replicas[:, 1], blocks)

    return _jackknife(_sound(samples, before), _referring(references), change)


def _sound(*groups: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """(n, n_groups, n_conditions, n_bins), of the replicas that are finite throughout."""
    profiles = np.moveaxis(np.asarray(groups, dtype=float), 2, 0)
    profiles = profiles[np.isfinite(profiles).all((1, 2, 3))]
    if len(profiles) < 2:
        raise ValueError(f"a distance of means needs two replicas or more, got {len(profiles)}")
    return profiles


def _referring(references: Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
    blocks = [np.asarray(each, dtype=float) for each in references]
    for each in blocks:
        if len(each) < 2:
            raise ValueError(f"the noise of a reference needs two blocks or more, got {len(each)}")
        if not each.any():
            raise ValueError("the reference is zero everywhere")
    return blocks


def _mean_square(profiles: NDArray[np.float64], blocks: Sequence[NDArray[np.float64]]) -> float:
    """Relative squared distance of the expectations, mean over conditions, of profiles (n, n_conditions, n_bins)."""
    squares = []
    for place, wanted in enumerate(blocks):
        mine, mean = profiles[:, place], wanted.mean(0)
        noise = sum(each.var(0, ddof=1).sum() / len(each) for each in (mine, wanted))
        squares.append((((mine.mean(0) - mean) ** 2).sum() - noise) / (mean**2).sum())
    return float(np.mean(squares))


def _jackknife(
    replicas: NDArray[np.float64],
    references: list[NDArray[np.float64]],
    statistic: Callable[[NDArray[np.float64], Sequence[NDArray[np.float64]]], float],
) -> Interval:
    """A statistic of replicas and of the blocks of references, with the jackknife variances of all added up.

    Student's t with the effective degrees of freedom of the sum (Welch, Biometrika 34, 28, 1947).
    """
    # conditions with one reference share its noise
    first = [next(k for k, other in enumerate(references) if np.array_equal(other, each)) for each in references]

    def found(groups: Sequence[NDArray[np.float64]]) -> float:
        return statistic(groups[0], [groups[1 + k] for k in first])

    groups = [replicas, *references]
    n, value = len(replicas), found(groups)
    if min(map(len, groups)) == 2:
        return Interval(value, -math.inf, math.inf, n)
    variances = []
    for place, group in enumerate(groups):
        before, later = groups[:place], groups[place + 1 :]
        left_out = np.array([found([*before, np.delete(group, k, 0), *later]) for k in range(len(group))])
        variances.append((len(group) - 1) / len(group) * float(((left_out - left_out.mean()) ** 2).sum()))
    variance = sum(variances)
    if variance == 0:
        return Interval(value, value, value, n)
    freedom = variance**2 / sum(each**2 / (len(group) - 1) for each, group in zip(variances, groups, strict=True))
    half = float(stdtrit(freedom, 0.5 + 0.5 * LEVEL)) * math.sqrt(variance)
    return Interval(value, value - half, value + half, n)


def exponent_interval(x: ArrayLike, y: ArrayLike) -> Interval:
    """Exponent p of y ~ x^p: the log-log slope of each replica, then their mean.

    Args:
        x: (n_x,), positive.
        y: (n_replicas, n_x), positive; a replica with another value is left out.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean_interval(slopes(np.log(np.asarray(x, dtype=float)), np.log(np.asarray(y, dtype=float))))


def limit_interval(x: ArrayLike, y: ArrayLike, power: float) -> Interval:
    """Limit x -> 0 of y = limit + c x^power: each replica's least-squares intercept, then their mean.

    Replicas that share their start between the values of x make the errors of y(x) alike, and the intercept of each
    replica keeps what they share.

    Args:
        x: (n_x,).
        y: (n_replicas, n_x); a replica with a value that is not finite is left out.
        power: leading order in x.
    """
    scale = np.asarray(x, dtype=float) ** power
    values = np.asarray(y, dtype=float)
    return mean_interval(values.mean(-1) - slopes(scale, values) * scale.mean())


def fraction_interval(hits: int, n: int) -> Interval:
    """Fraction of independent trials that hit, with its exact interval (Clopper and Pearson, Biometrika 26, 404, 1934).

    Args:
        hits: trials that hit.
        n: trials, 1 or more.
    """
    tail = 0.5 * (1.0 - LEVEL)
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1.0 - tail)) if hits < n else 1.0
    return Interval(hits / n, low, high, n)


def _half_width(error: float, n: int) -> float:
    return float(stdtrit(n - 1, 0.5 + 0.5 * LEVEL)) * error
