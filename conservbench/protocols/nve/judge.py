"""Judge NVE trajectories: drift, fluctuation, how both depend on the time step, and explosions. No torch.

Each replica gives one number to a metric; values and intervals are over replicas. Replicas that exploded give none, and
every finding that misses them says so by its outcome and reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.protocols.survivors import first_explosion, never_exploded, of_survivors
from conservbench.statistics import (
    Interval,
    exponent_interval,
    fluctuations,
    limit_interval,
    mean_interval,
    slope_interval,
    slopes,
)
from conservbench.units import MILLI

ORDER: Final = 2
"""Order of velocity Verlet and r-RESPA: the energy error of smooth conservative forces falls like dt^2."""

UNITS: Final = {
    "drift": "meV/atom/ps",
    "temperature_drift": "K/ps",
    "fluctuation": "meV/atom",
    "drift_ratio": "1",
    "drift_dt0": "meV/atom/ps",
    "order": "1",
    "explosion_time": "ps",
}
"""Unit of each metric."""

Series = NDArray[np.float64]


def judge(data: xr.Dataset) -> list[Finding]:
    """Findings of one cell, by the metrics of the protocol card.

    Args:
        data: what :func:`conservbench.protocols.nve.measure.measure` returned.
    """
    # of the main time step, (n_replicas, n_times), and of all of them, (n_time_steps, n_replicas, n_times)
    main = data.isel(time_step=0)
    findings = [
        _of_replicas("drift", main, _drift),
        _of_replicas("temperature_drift", main, _temperature_drift),
        _of_replicas("fluctuation", main, _fluctuation),
        _of_replicas("drift_ratio", main, _drift_ratio),
        _of_replicas("drift_dt0", data, _drift_dt0),
        _of_replicas("order", data, _order),
    ]
    return [*findings, _explosion_time(main)]


def _drift(data: xr.Dataset) -> Interval:
    return slope_interval(data.time, data.total_energy).scaled(MILLI)


def _temperature_drift(data: xr.Dataset) -> Interval:
    return slope_interval(data.time, data.temperature)


def _fluctuation(data: xr.Dataset) -> Interval:
    return mean_interval(MILLI * fluctuations(data.time, data.total_energy))


def _drift_ratio(data: xr.Dataset) -> Interval:
    """|fitted drift over the run| / standard deviation of the kinetic energy: both of the whole system (MLIPAudit)."""
    run = float(data.time[-1] - data.time[0])
    return mean_interval(np.abs(slopes(data.time, data.total_energy)) * run / data.kinetic_energy.std("time"))


def _drift_dt0(data: xr.Dataset) -> Interval:
    """Limit dt -> 0 of the drift: what is left is the forces' own."""
    drifts = MILLI * slopes(data.time, data.total_energy)
    return limit_interval(data.time_step, drifts.T, ORDER)


def _order(data: xr.Dataset) -> Interval:
    """Exponent p of fluctuation ~ dt^p."""
    return exponent_interval(data.time_step, fluctuations(data.time, data.total_energy).T)


_NEEDS_STEPS: Final = ("drift_dt0", "order")
_NEEDS_ENERGY: Final = ("drift", "fluctuation", "drift_ratio", "drift_dt0", "order")


def _of_replicas(metric: str, data: xr.Dataset, statistic: Callable[[xr.Dataset], Interval]) -> Finding:
    """One finding from the replicas that lasted at the time steps given."""
    unit = UNITS[metric]
    if metric in _NEEDS_ENERGY and "total_energy" not in data:
        return Finding(metric, unit, None, Outcome.UNSUPPORTED, "the model has no energy: see the heating")
    if metric in _NEEDS_STEPS and data.sizes["time_step"] < 2:
        return Finding(metric, unit, None, Outcome.UNSUPPORTED, "one time step only")
    ends = data.explosion_time.isnull()
    lasted = (ends.all("time_step") if "time_step" in ends.dims else ends).values
    return of_survivors(metric, unit, lasted, lambda: statistic(data.isel(replica=np.flatnonzero(lasted))))


def _explosion_time(main: xr.Dataset) -> Finding:
    """Time of the first explosion at the main time step, bracketed by samples; a lower bound where there is none."""
    metric, ends = "explosion_time", main.explosion_time.values
    n, lost = len(ends), int(np.isfinite(ends).sum())
    first = first_explosion(main.time, ends, n)
    if first is None:
        bound = never_exploded(main.time, n)
        return Finding(metric, UNITS[metric], bound, reason=f"none of {n} exploded: a lower bound")
    return Finding(metric, UNITS[metric], first, Outcome.EXPLODED, f"{lost} of {n} replicas exploded")
