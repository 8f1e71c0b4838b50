"""Findings from the replicas that lasted, and when the others exploded. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.statistics import Interval


def of_survivors(metric: str, unit: str, lasted: NDArray[np.bool_], statistic: Callable[[], Interval]) -> Finding:
    """One metric from the replicas that lasted; its outcome says so where others exploded.

    Args:
        metric: its key.
        unit: of the interval.
        lasted: (n_replicas,) which ones did.
        statistic: of those; a ValueError says that there is none, such as the logarithm of an energy that never moves.
    """
    n, n_lasted = len(lasted), int(lasted.sum())
    if n_lasted == 0:
        return Finding(metric, unit, None, Outcome.EXPLODED, f"{n} of {n} replicas exploded")
    try:
        interval = statistic()
    except ValueError as error:
        return Finding(metric, unit, None, Outcome.UNSUPPORTED, str(error))
    if n_lasted == n:
        return Finding(metric, unit, interval)
    reason = f"{n - n_lasted} of {n} replicas exploded and are left out"
    return Finding(metric, unit, interval, Outcome.EXPLODED, reason)


def first_explosion(times: ArrayLike, ends: ArrayLike, n: int) -> Interval | None:
    """Time of the first explosion, bracketed by samples; None where there was none.

    Args:
        times: (n_times,) of the samples.
        ends: sample at which each replica was found exploded, of any shape; NaN for one that lasted.
        n: replicas.
    """
    samples, found = np.asarray(times, dtype=float), np.asarray(ends, dtype=float)
    if not np.isfinite(found).any():
        return None
    first = float(np.nanmin(found))
    before = samples[samples < first]
    return Interval(first, float(before[-1]) if len(before) else 0.0, first, n)


def never_exploded(times: ArrayLike, n: int) -> Interval:
    """The lower bound that a record without explosions gives."""
    run = float(np.asarray(times, dtype=float)[-1])
    return Interval(run, run, math.inf, n)
