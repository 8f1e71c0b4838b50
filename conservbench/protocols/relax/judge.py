"""Judge relaxations: how many converge, in how many steps, how far, and whether to one minimum. No torch.

Each start gives one number to a metric; values and intervals are over starts. What starts in fixed cells say and what
those with variable cells say are metrics of their own. Starts that did not converge, those of the twin in a comparison
too, show in the outcome and the reason of what they are missing from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.protocols.relax.minima import distances, largest_group, unlikeness
from conservbench.protocols.relax.settings import MINIMUM_FMAX, SPEED_FMAX, key_of
from conservbench.statistics import Interval, fraction_interval, mean_interval, median_interval, ratio_interval
from conservbench.units import MILLI, PERCENT

SAME: Final = 0.02
"""Å: minima whose surroundings differ by less are the same; what differs by a bond differs by ten times as much."""
SAME_ENERGY: Final = 1e-6
"""eV/atom: two energies of one function agree so well on the same structures."""

Series = NDArray[np.float64]


def unit_of(metric: str) -> str:
    """Unit of a metric."""
    return next((unit for part, unit in _UNITS.items() if part in metric), "1")


_UNITS: Final = {
    "converged": "%",
    "orbits": "%",
    "same_minimum": "%",
    "floor": "eV/Å",
    "rmsd": "Å",
    "energy_spread": "meV/atom",
    "volume": "Å^3/atom",
    "regret": "meV/atom",
}


def judge(data: xr.Dataset) -> list[Finding]:
    """Findings of one cell, by the metrics of the protocol card.

    Args:
        data: what :func:`conservbench.protocols.relax.measure.measure` returned.
    """
    fixed, variable = (data.isel(start=np.flatnonzero(data.variable_cell == flag)) for flag in (0, 1))
    findings = []
    for name in data.optimizer.values:
        findings += _descents(f"{name}_", fixed.sel(optimizer=name), data.threshold.values)
    return [*findings, *_minima(fixed.isel(optimizer=0)), *_cells(variable.isel(optimizer=0))]


def compare(data: xr.Dataset, twin: xr.Dataset) -> list[Finding]:
    """What relaxing with other forces costs in energy, and saves in time, against the gradient of the same network.

    Args:
        data: of the row.
        twin: of its twin, from the same starts.
    """
    ours, theirs = (_main_fixed(part) for part in (data, twin))
    return [_regret(ours, theirs), _speedup(data, ours, theirs)]


def first_below(run: xr.Dataset, threshold: float) -> Series:
    """(n_starts,) steps after which the force that finishes the relaxation first was below; NaN where it never was."""
    below = (run.fmax.values < threshold) & (run.step.values >= run.handover.values[:, None])
    return np.where(below.any(1), below.argmax(1), np.nan)


def _main_fixed(data: xr.Dataset) -> xr.Dataset:
    return data.isel(optimizer=0, start=np.flatnonzero(data.variable_cell == 0))


def _last(run: xr.Dataset, name: str) -> Series:
    """(n_starts,) the last value of each series; NaN for a start that has none."""
    series = run[name].values
    last = series.shape[1] - 1 - np.isfinite(series)[:, ::-1].argmax(1)
    return np.asarray(np.take_along_axis(series, last[:, None], axis=1)[:, 0])


def _at_rest(run: xr.Dataset) -> NDArray[np.bool_]:
    """(n_starts,) whether each ended in a minimum that can be compared."""
    ending = run.ending.values
    return (ending == "converged") | ((_last(run, "fmax") < MINIMUM_FMAX) & (ending != "exploded"))


def _failures(run: xr.Dataset, reached: NDArray[np.bool_]) -> tuple[Outcome, str]:
    """How the starts ended that did not reach something, and why, in one line."""
    n, missing = len(reached), ~reached
    if not missing.any():
        return Outcome.COMPLETED, ""
    lost = int((run.ending.values[missing] == "exploded").sum())
    climbed = int((_last(run, "fmax")[missing] > run.fmax.values[missing, 0]).sum())
    orbits = int(run.closed_orbit.values[missing].sum())
    parts = [f"{int(missing.sum())} of {n} did not converge"]
    if orbits:
        parts.append(f"{orbits} in closed orbits")
    if climbed:
        parts.append(f"{climbed} with greater forces than at the start")
    if lost:
        parts.append(f"{lost} exploded")
    return (Outcome.EXPLODED if lost else Outcome.NOT_CONVERGED), ", ".join(parts)


def _failures_of_either(ours: xr.Dataset, mine: NDArray[np.bool_], its: NDArray[np.bool_]) -> tuple[Outcome, str]:
    """How a comparison ended of starts that did not reach something, or whose twins did not, which it leaves out."""
    outcome, reason = _failures(ours, mine)
    if its.all():
        return outcome, reason
    which = ", ".join(str(start) for start in ours.start.values[~its])
    said = f"its twin did not converge from {int((~its).sum())} of {len(its)} (start {which}), left out"
    outcome = Outcome.NOT_CONVERGED if outcome is Outcome.COMPLETED else outcome
    return outcome, f"{reason}; {said}" if reason else said


def _percentage(hits: int, n: int) -> Interval:
    return fraction_interval(hits, n).scaled(PERCENT)


def _descents(prefix: str, run: xr.Dataset, thresholds: Series) -> list[Finding]:
    """All that one optimiser says in fixed cells."""
    failure = str(run.failure.item()) if "failure" in run else ""
    if not failure:
        convergence = [finding for threshold in thresholds for finding in _convergence(prefix, run, threshold)]
        return [*convergence, _floor(f"{prefix}floor", run), _orbits(f"{prefix}orbits", run)]
    keys = [f"{what}_{key_of(threshold)}" for threshold in thresholds for what in ("converged", "steps")]
    metrics = [f"{prefix}{key}" for key in (*keys, "floor", "orbits")]
    return [Finding(metric, unit_of(metric), None, Outcome.FAILED, failure) for metric in metrics]


def _convergence(prefix: str, run: xr.Dataset, threshold: float) -> list[Finding]:
    """Fraction that reaches a threshold, a measurement that is whole whatever it is, and the steps of those that do."""
    first = first_below(run, threshold)
    reached = np.isfinite(first)
    outcome, reason = _failures(run, reached)
    fraction, steps = f"{prefix}converged_{key_of(threshold)}", f"{prefix}steps_{key_of(threshold)}"
    whole = Outcome.EXPLODED if outcome is Outcome.EXPLODED else Outcome.COMPLETED
    return [
        Finding(fraction, unit_of(fraction), _percentage(int(reached.sum()), len(first)), whole, reason),
        Finding(steps, "1", mean_interval(first) if reached.any() else None, outcome, reason),
    ]


def _floor(metric: str, run: xr.Dataset) -> Finding:
    """Median of the lowest longest force of each start: a bound, the last threshold, where more than half converge.

    A start that converges was stopped at the last threshold, and counts as that: what it stopped at below says nothing,
    and nothing bounds it from below. Starts that do not are higher by powers of ten, so that no mean speaks for both
    kinds. The interval of six starts reaches up to the highest of them, that of fewer to infinity.
    """
    end = float(run.threshold.values[-1])
    finishing = np.where(run.step.values >= run.handover.values[:, None], run.fmax.values, np.nan)
    lowest = np.where(np.isfinite(finishing), finishing, np.inf).min(1, initial=np.inf)
    outcome, reason = _failures(run, run.ending.values == "converged")
    kept = np.isfinite(lowest) & (run.ending.values != "exploded")
    if not kept.any():
        return Finding(metric, unit_of(metric), None, outcome, reason)
    interval = median_interval(np.maximum(lowest[kept], end))
    interval = replace(interval, low=-math.inf) if interval.low <= end else interval
    return Finding(metric, unit_of(metric), interval, outcome, reason)


def _orbits(metric: str, run: xr.Dataset) -> Finding:
    caught = run.closed_orbit.values > 0
    reason = "keeps moving and comes back to where it was" if caught.any() else ""
    return Finding(metric, unit_of(metric), _percentage(int(caught.sum()), len(caught)), reason=reason)


def _minima(run: xr.Dataset) -> list[Finding]:
    """Whether the rattled and the thermal starts, all in the same cell, end in one minimum.

    The minimum that is counted is the one that most ended in, so that n different ones give 1/n.
    """
    run = run.isel(start=np.flatnonzero(run.kind != "strained"))
    metrics = ("same_minimum", "minimum_rmsd", "energy_spread")
    ended = _at_rest(run)
    outcome, reason = _failures(run, ended)
    n = int(ended.sum())
    if n < 2:
        reason = (
            f"{n} of {len(ended)} starts in the cell of the system ended below {MINIMUM_FMAX:g} eV/Å: none to compare"
        )
        # a set of starts too small to compare is no failure of the forces
        outcome = outcome if len(ended) > 1 else Outcome.UNSUPPORTED
        return [Finding(metric, unit_of(metric), None, outcome, reason) for metric in metrics]
    found = run.isel(start=np.flatnonzero(ended))
    structures = found.positions.values, found.cell.values[0], found.number.values
    apart, alike = distances(*structures), largest_group(unlikeness(*structures), SAME)
    farthest = float(apart.max())
    findings = [
        Finding(metrics[0], unit_of(metrics[0]), _percentage(alike, n), outcome, reason),
        Finding(metrics[1], unit_of(metrics[1]), Interval(farthest, farthest, math.inf, n), outcome, reason),
    ]
    if "energy" not in run:
        return [
            *findings,
            Finding(metrics[2], unit_of(metrics[2]), None, Outcome.UNSUPPORTED, "the model has no energy"),
        ]
    spread = MILLI * float(np.ptp(_last(found, "energy")))
    # other starts can only add to what these differ by
    return [*findings, Finding(metrics[2], unit_of(metrics[2]), Interval(spread, spread, math.inf, n), outcome, reason)]


def _cells(run: xr.Dataset) -> list[Finding]:
    """Convergence of cell and atoms together, and the volume they end with."""
    metrics = (f"cell_converged_{key_of(SPEED_FMAX)}", f"cell_steps_{key_of(SPEED_FMAX)}", "cell_volume")
    why = str(run.attrs.get("variable_cell_reason", ""))
    if why or not run.sizes["start"]:
        reason = why or "no starts with a variable cell: the settings have none, or the system is no crystal"
        outcome = Outcome(run.attrs.get("variable_cell_outcome") or Outcome.UNSUPPORTED)
        return [Finding(metric, unit_of(metric), None, outcome, reason) for metric in metrics]
    convergence = _convergence("cell_", run, SPEED_FMAX)
    ended = _at_rest(run)
    outcome, reason = _failures(run, ended)
    volumes = np.abs(np.linalg.det(run.cell.values[ended])) / run.attrs["n_atoms"]
    interval = mean_interval(volumes) if ended.any() else None
    return [*convergence, Finding(metrics[2], unit_of(metrics[2]), interval, outcome, reason)]


def _regret(ours: xr.Dataset, theirs: xr.Dataset) -> Finding:
    """Final energy less the twin's from the same start, where the twin found a minimum to compare with."""
    metric = "regret"
    if "energy" not in ours or "energy" not in theirs:
        return Finding(metric, unit_of(metric), None, Outcome.UNSUPPORTED, "the model or its twin has no energy")
    if (np.abs(ours.energy.values[:, 0] - theirs.energy.values[:, 0]) > SAME_ENERGY).any():
        reason = "its energy is not that of its twin: they differ at the starts"
        return Finding(metric, unit_of(metric), None, Outcome.UNSUPPORTED, reason)
    whole, its = ours.ending.values != "exploded", _at_rest(theirs)
    outcome, reason = _failures_of_either(ours, _at_rest(ours), its)
    kept = whole & its
    if not kept.any():
        # without a minimum of its twin it is not the row that is at fault
        outcome = Outcome.EXPLODED if its.any() or not whole.any() else Outcome.NOT_CONVERGED
        return Finding(metric, unit_of(metric), None, outcome, reason)
    excess = MILLI * (_last(ours, "energy") - _last(theirs, "energy"))[kept]
    return Finding(metric, unit_of(metric), mean_interval(excess), outcome, reason)


def _speedup(data: xr.Dataset, ours: xr.Dataset, theirs: xr.Dataset) -> Finding:
    """Cost of the twin over cost of both legs, in gradient calls, from the starts that both relax."""
    metric = "handover_speedup"
    if data.attrs["scheme"] != "mts":
        return Finding(
            metric, "1", None, Outcome.UNSUPPORTED, f"nothing is handed over under {data.attrs['scheme']} forces"
        )
    steps, alone = first_below(ours, SPEED_FMAX), first_below(theirs, SPEED_FMAX)
    kept = np.isfinite(steps) & np.isfinite(alone)
    outcome, reason = _failures_of_either(ours, np.isfinite(steps), np.isfinite(alone))
    if not kept.any():
        return Finding(metric, "1", None, outcome, reason)
    price = cost_ratio(data)
    if not math.isfinite(price):
        return Finding(metric, "1", None, Outcome.UNSUPPORTED, "calls could not be timed")
    handover = ours.handover.values
    # the structure at the handover is evaluated by both
    cost = (handover + 1) / price + steps - handover + 1
    interval = ratio_interval((alone + 1)[kept], cost[kept])
    said = f"a gradient call costs {price:.2f} direct ones here"
    return Finding(metric, "1", interval, outcome, f"{reason}; {said}" if reason else said)


def cost_ratio(data: xr.Dataset) -> float:
    """Time of a gradient call over that of a direct one: the median of pairs made side by side."""
    times: Mapping[str, Series] = {
        channel: data.call_time.sel(channel=channel).values for channel in ("gradient", "direct")
    }
    return float(np.median(times["gradient"] / times["direct"]))
