"""Findings of an audit. A pure function of the file; no torch.

An interval of lambda comes from the jackknife over snapshots, so that it holds the spread between snapshots and that of
the probes within them. A value within three times its own measured noise is zero within it: its interval starts at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.statistics import Interval, mean_interval, ratio_interval
from conservbench.units import MILLI

NOISE = 3.0
"""A value below this many times its noise is zero within it."""

LONG_RANGE = 0.5
"""The per-pair asymmetry whose distance is reported."""


def judge(data: xr.Dataset) -> list[Finding]:
    """Findings of one cell; see :func:`conservbench.protocols.audit.measure.measure` for the variables."""
    return [
        _finding(data, "asymmetry", "1", "asymmetry_numerator", _asymmetry),
        _finding(data, "asymmetry_floor", "1", "floor_numerator", _floor),
        _finding(data, "asymmetry_sites", "1", "site_numerator", _sites),
        _finding(data, "asymmetry_exact", "1", "exact_numerator", _exact),
        _finding(data, "asymmetry_range", "Å", "exact_numerator", _range),
        _finding(data, "jacobian_agreement", "1", "scan_error", _agreement),
        _finding(data, "loop_work", "meV", "power", _loop_work),
        _finding(data, "loop_work_relative", "1", "power", _loop_work_relative),
        _finding(data, "energy_consistency", "1", "energy_slope", _energy_consistency),
        _finding(data, "rotation_error", "1", "rotation_deviation", _relative("rotation_deviation")),
        _finding(data, "translation_error", "1", "translation_deviation", _relative("translation_deviation")),
        _finding(data, "permutation_error", "1", "permutation_deviation", _relative("permutation_deviation")),
        _finding(data, "net_force", "eV/Å", "net_force", lambda data: _positive(mean_interval(data["net_force"]))),
        _finding(
            data, "net_torque", "1", "relative_torque", lambda data: _positive(mean_interval(data["relative_torque"]))
        ),
        _uncertainty(data),
    ]


def _finding(
    data: xr.Dataset, metric: str, unit: str, variable: str, make: Callable[[xr.Dataset], Interval | str]
) -> Finding:
    """One finding, or why there is none: ``make`` may return a reason in place of an interval."""
    attrs = data[variable].attrs
    if "outcome" in attrs:
        return Finding(metric, unit, None, Outcome(attrs["outcome"]), attrs["outcome_reason"])
    try:
        made = make(data)
    except ValueError as error:
        return Finding(metric, unit, None, Outcome.FAILED, str(error))
    if isinstance(made, str):
        return Finding(metric, unit, None, reason=made)
    if not math.isfinite(made.value):
        return Finding(metric, unit, None, Outcome.FAILED, "the measured values are not finite")
    return Finding(metric, unit, made)


def _uncertainty(data: xr.Dataset) -> Finding:
    # files of before it was asked for do not hold it
    if "force_spread" not in data:
        return Finding("force_uncertainty", "meV/Å", None, Outcome.UNSUPPORTED, "it was not asked for")
    return _finding(
        data,
        "force_uncertainty",
        "meV/Å",
        "force_spread",
        lambda data: _positive(mean_interval(data["force_spread"])).scaled(MILLI),
    )


def _asymmetry(data: xr.Dataset) -> Interval:
    return _lambda(data, "asymmetry")


def _sites(data: xr.Dataset) -> Interval:
    return _lambda(data, "site")


def _exact(data: xr.Dataset) -> Interval:
    return _lambda(data, "exact")


def _floor(data: xr.Dataset) -> Interval:
    return _root(ratio_interval(data["floor_numerator"], 4.0 * data["floor_denominator"]))


def _lambda(data: xr.Dataset, name: str) -> Interval:
    """Sqrt of the sum of numerators over 4 sums of denominators, jackknifed over the first dimension; at most 1."""
    interval = _root(ratio_interval(data[f"{name}_numerator"], 4.0 * data[f"{name}_denominator"]))
    return _above_noise(replace(interval, high=min(interval.high, 1.0)), _floor(data).value)


def _range(data: xr.Dataset) -> Interval | str:
    """Distance from which on a pair's block of the Jacobian is more antisymmetric than not."""
    numerator, denominator = (data[f"pair_{name}"].to_numpy()[:, 1:] for name in ("numerator", "denominator"))
    count = data["pair_count"].to_numpy()[:, 1:]
    distance = data["distance"].to_numpy()[1:]
    squared = np.divide(numerator, 4.0 * denominator, out=np.zeros_like(numerator), where=denominator > 0)
    share = count / data["pair_count"].sum("distance").to_numpy()[:, None]
    noise = (NOISE * _floor(data).value) ** 2 * 4.0 * data["exact_denominator"].to_numpy()[:, None] * share
    beyond = (squared > LONG_RANGE**2) & (numerator > noise)
    if not beyond.any(1).all():
        return f"no distance within the cell has lambda_ij above {LONG_RANGE}"
    return _positive(mean_interval(distance[beyond.argmax(1)]))


def _agreement(data: xr.Dataset) -> Interval:
    at_plateau = data.isel(step=data.attrs["plateau"])
    return _root(ratio_interval(at_plateau["scan_error"], at_plateau["scan_norm"]))


def _loop_work(data: xr.Dataset) -> Interval:
    """Mean |W|: the sign of a work changes with the direction of the loop, so its mean is no measure."""
    work, error = _work(data)
    return _above_noise(_positive(mean_interval(np.abs(work))), float(error.mean())).scaled(MILLI)


def _loop_work_relative(data: xr.Dataset) -> Interval:
    work, error = _work(data)
    path = np.abs(data["power"].to_numpy()).mean(1)
    return _above_noise(_positive(ratio_interval(np.abs(work), path)), float(error.sum() / path.sum()))


def _work(data: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Work round each loop in eV and a bound of its integration error: the change from half the images."""
    power = data["power"].to_numpy()
    work = power.mean(1)
    return work, np.abs(work - power[:, ::2].mean(1))


def _energy_consistency(data: xr.Dataset) -> Interval:
    power, slope = data["power"].to_numpy(), data["energy_slope"].to_numpy()
    return _root(ratio_interval((slope + power) ** 2, power**2))


def _relative(variable: str) -> Callable[[xr.Dataset], Interval]:
    def relative(data: xr.Dataset) -> Interval:
        squares = (data[variable] ** 2).mean("trial")
        return _root(ratio_interval(squares, data["force_rms"] ** 2))

    return relative


def _root(interval: Interval) -> Interval:
    return interval.map(lambda value: math.sqrt(max(value, 0.0)))


def _positive(interval: Interval) -> Interval:
    return replace(interval, low=max(interval.low, 0.0))


def _above_noise(interval: Interval, noise: float) -> Interval:
    if interval.value > NOISE * noise:
        return interval
    return replace(interval, low=0.0, high=max(interval.high, NOISE * noise))
