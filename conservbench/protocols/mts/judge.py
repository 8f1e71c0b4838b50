"""Judge multiple time steps: what each stride changes, the largest that changes nothing, and what it saves. No torch.

Each replica gives one number to a metric; values and intervals are over replicas, those of times over rounds. Strides
share their starts, so that temperature and g(r) are compared replica by replica with those at stride 1. Replicas that
exploded give no number, and every finding that misses them says so; a stride at which one exploded is outside the gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.protocols.survivors import of_survivors
from conservbench.statistics import Interval, distance_interval, mean_interval, median_interval, slope_interval
from conservbench.units import MILLI

Verdict = Literal["inside", "outside", "unclear"]

DRIFT, KELVIN, BARE = "meV/atom/ps", "K", "1"


def judge(data: xr.Dataset) -> list[Finding]:
    """Findings of one cell, by the metrics of the protocol card.

    Args:
        data: what :func:`conservbench.protocols.mts.measure.measure` returned.
    """
    main = data.isel(time_step=0)
    strides = [int(stride) for stride in data.stride.values]
    largest = _largest("largest_stride", BARE, main, 1.0)
    findings = [largest, *_savings(largest, data), _bath(data, "svr"), _bath(data, "langevin")]
    for stride in strides:
        findings += [drift_of(main, stride), *([] if stride == 1 else [temperature_of(main, stride)])]
        findings += [] if stride == 1 else [rdf_of(main, stride), _speedup(data, stride)]
    return [*findings, *_bath_drifts(data), _exploding(main), _finest(data)]


def drift_of(data: xr.Dataset, stride: int) -> Finding:
    """Slope of the total energy at one stride."""
    metric = f"drift_{stride}"
    if "total_energy" not in data:
        return Finding(metric, DRIFT, None, Outcome.UNSUPPORTED, "the model has no energy")
    return _of_replicas(
        metric,
        DRIFT,
        data.sel(stride=[stride]),
        lambda part: slope_interval(part.time, part.total_energy.isel(stride=0)).scaled(MILLI),
    )


def temperature_of(data: xr.Dataset, stride: int) -> Finding:
    """Mean temperature at one stride less that at stride 1, replica by replica."""

    def shift(part: xr.Dataset) -> Interval:
        means = part.temperature.mean("time")
        return mean_interval(means.sel(stride=stride) - means.sel(stride=1))

    return _of_replicas(f"temperature_{stride}", KELVIN, data.sel(stride=[1, stride]), shift)


def rdf_of(data: xr.Dataset, stride: int) -> Finding:
    """Distance of g(r) at one stride from that at stride 1."""
    metric = f"rdf_{stride}"
    if "rdf" not in data:
        return Finding(metric, BARE, None, Outcome.UNSUPPORTED, "only periodic systems have a g(r)")
    return _of_replicas(
        metric,
        BARE,
        data.sel(stride=[1, stride]),
        lambda part: distance_interval(part.rdf.sel(stride=stride), part.rdf.sel(stride=1)),
    )


def verdict_of(data: xr.Dataset, stride: int) -> tuple[Verdict, str]:
    """Whether one stride is inside the gate, and what says so.

    Args:
        data: at one time step; drift, temperature and, of a periodic system, g(r) must all be inside the limits that
            the file carries.
        stride: which.
    """
    lost = int(data.explosion_time.sel(stride=stride).notnull().sum())
    if lost:
        return "outside", f"{lost} of {data.sizes['replica']} replicas exploded"
    checks = [("drift", drift_of(data, stride), data.attrs["drift_limit"])]
    if stride > 1:
        kelvin = data.attrs["temperature_limit"] * data.attrs["target_temperature"]
        checks.append(("temperature", temperature_of(data, stride), kelvin))
        if "rdf" in data:
            checks.append(("g(r)", rdf_of(data, stride), data.attrs["rdf_limit"]))
    verdicts = {name: _against(finding.interval, limit) for name, finding, limit in checks}
    found: Verdict
    for found in ("outside", "unclear"):
        guilty = [name for name, verdict in verdicts.items() if verdict == found]
        if guilty:
            return found, f"{', '.join(guilty)} {found}"
    return "inside", ""


def speedup_in_theory(cost_ratio: float, stride: int) -> float:
    """Speed-up over gradient forces at every step, F / (1 + (F - 1) / M): one gradient and M - 1 direct forces."""
    if math.isinf(cost_ratio):
        return stride if cost_ratio > 0 else -math.inf
    return cost_ratio * stride / (stride + cost_ratio - 1.0)


def _largest(metric: str, unit: str, data: xr.Dataset, step: float) -> Finding:
    """The largest stride, times ``step``, up to which all are inside the gate; the end is the largest not excluded.

    Where not even the longest stride tried is excluded, nothing bounds the largest: the end is infinity.
    """
    value, high = 0, 0.0
    sure, reasons = True, []
    if "total_energy" not in data:
        return Finding(metric, unit, None, Outcome.UNSUPPORTED, "the model has no energy")
    for stride in (int(each) for each in data.stride.values):
        verdict, why = verdict_of(data, stride)
        sure = sure and verdict == "inside"
        value = stride if sure else value
        if why:
            reasons.append(f"stride {stride}: {why}")
        if verdict == "outside":
            break
        high = float(stride)
    else:
        high = math.inf
        reasons.append(f"stride {stride}, the longest tried, is not excluded: a lower bound")
    interval = Interval(float(value), float(value), high, data.sizes["replica"]).scaled(step)
    return Finding(metric, unit, interval, reason="; ".join(reasons))


def _savings(largest: Finding, data: xr.Dataset) -> list[Finding]:
    """Speed-up at the largest stride, measured and in theory, and the cost ratio that theory takes."""
    ratio = median_interval(data.seconds_gradient / data.seconds_direct)
    found = [Finding("cost_ratio", BARE, ratio)]
    stride = 0 if largest.interval is None else int(largest.interval.value)
    if not stride:
        first, _, _ = largest.reason.partition(";")
        reason = first if largest.interval is None else f"no stride is surely inside: {first}"
        missing = [Finding(name, BARE, None, Outcome.UNSUPPORTED, reason) for name in ("speedup", "speedup_theory")]
        return [*missing, *found]
    theory = ratio.map(lambda cost: speedup_in_theory(cost, stride))
    return [Finding("speedup", BARE, _speedup(data, stride).interval), Finding("speedup_theory", BARE, theory), *found]


def _speedup(data: xr.Dataset, stride: int) -> Finding:
    """Time of gradient forces at every step over that of one stride, round by round."""
    ratios = data.seconds_gradient / data.seconds_mts.sel(stride=stride)
    return Finding(f"speedup_{stride}", BARE, median_interval(ratios))


def _bath(data: xr.Dataset, kind: str) -> Finding:
    """Mean temperature under a bath less its target, at the stride of the card."""
    metric = f"temperature_{kind}"
    if kind not in data.get("bath", []):
        return Finding(metric, KELVIN, None, Outcome.UNSUPPORTED, "this bath was not run")
    target = data.attrs["target_temperature"]
    return _of_replicas(
        metric,
        KELVIN,
        data.sel(bath=[kind]),
        lambda part: mean_interval(part.bath_temperature.isel(bath=0).mean("bath_time") - target),
        "bath",
    )


def _bath_drifts(data: xr.Dataset) -> list[Finding]:
    """Slope of the conserved quantity under each bath."""
    if "bath_conserved" not in data:
        return []
    return [
        _of_replicas(
            f"drift_{kind}",
            DRIFT,
            data.sel(bath=[kind]),
            lambda part: slope_interval(part.bath_time, part.bath_conserved.isel(bath=0)).scaled(MILLI),
            "bath",
        )
        for kind in data.bath.values
    ]


def _exploding(main: xr.Dataset) -> Finding:
    """The smallest stride at which a replica exploded; a lower bound where none did."""
    lost = main.explosion_time.notnull().any("replica")
    strides, n = main.stride.values[lost.values], main.sizes["replica"]
    last = float(main.stride[-1])
    if not len(strides):
        reason = "none exploded: a lower bound"
        return Finding("exploding_stride", BARE, Interval(last, last, math.inf, n), reason=reason)
    first = float(strides[0])
    before = main.stride.values[main.stride.values < first]
    low = float(before[-1]) if len(before) else 0.0
    return Finding("exploding_stride", BARE, Interval(first, low, first, n), Outcome.EXPLODED)


def _finest(data: xr.Dataset) -> Finding:
    """The largest outer step inside the gate at the finest inner time step: resonance knows the outer step alone."""
    metric = "outer_step_fine"
    if data.sizes["time_step"] < 2:
        return Finding(metric, "fs", None, Outcome.UNSUPPORTED, "one time step only")
    finest = float(data.time_step.min())
    return _largest(metric, "fs", data.sel(time_step=finest), finest)


def _against(interval: Interval | None, limit: float) -> Verdict:
    if interval is None:
        return "unclear"
    if interval.low >= limit or interval.high <= -limit:
        return "outside"
    return "inside" if -limit < interval.low and interval.high < limit else "unclear"


def _of_replicas(
    metric: str, unit: str, data: xr.Dataset, statistic: Callable[[xr.Dataset], Interval], along: str = "stride"
) -> Finding:
    """One finding from the replicas that lasted in all runs given, which are along ``stride`` or ``bath``."""
    ends = data.explosion_time if along == "stride" else data.bath_explosion_time
    lasted: NDArray[np.bool_] = ends.isnull().all(along).values
    return of_survivors(metric, unit, lasted, lambda: statistic(data.isel(replica=np.flatnonzero(lasted))))
