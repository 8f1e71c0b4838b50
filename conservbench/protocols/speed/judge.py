"""Judge times: medians over rounds, growth with the number of atoms, and ratios within a round. No torch.

What a busy moment of the machine lengthens is one round, and medians are not moved by a few of them; ratios are taken
within a round, which hits all sizes and schemes alike. Intervals are by order statistics over rounds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from conservbench.outcome import Outcome
from conservbench.protocols.base import Finding
from conservbench.provenance import on_one_machine
from conservbench.statistics import Interval, median_interval, slopes
from conservbench.units import PERCENT

BARE, PER_ATOM, MEGABYTES, RATE, SHARE = "1", "µs/atom", "MB", "ns/day", "%"

MICROSECONDS: Final = 1e6
"""Of a second."""

MEGABYTE: Final = 1e6
"""Bytes."""

DAY: Final = 86400.0
"""Seconds."""

BUSY: Final = 0.1
"""Share of waiting from which a machine is called busy."""

_SCRAPS: Final = 1e5
"""Bytes that the account of memory leaves open at least, also in a file that does not say what it does."""

_ASTRAY: Final = "a step left the physical range"

_DISTURBED: Final = "others had the processor in between: what they do to its caches counts"


def judge(data: xr.Dataset) -> list[Finding]:
    """Findings of one cell, by the metrics of the protocol card.

    Args:
        data: what :func:`conservbench.protocols.speed.measure.measure` returned.
    """
    n_atoms = int(data.attrs["n_atoms"])
    sizes = [int(size) for size in data["size"].values]
    findings: list[Finding] = []
    for size in sizes:
        seconds = data.step_seconds.sel(size=size)
        findings.append(_median(f"time_{size // n_atoms}", PER_ATOM, seconds * MICROSECONDS / size, data, size))
    for size in sizes:
        peaks = data.memory.sel(size=size) / MEGABYTE
        findings.append(_memory(f"memory_{size // n_atoms}", peaks, data, size))
    own = data.step_seconds.sel(size=n_atoms)
    force = data.force_seconds.sel(size=n_atoms)
    findings += [
        # 1 fs is 1e-6 ns
        _median("ns_per_day", RATE, 1e-6 * data.attrs["time_step"] * DAY / own, data, n_atoms),
        _exponent(data),
        _median("force_time", PER_ATOM, force * MICROSECONDS / n_atoms, data, n_atoms),
        _median("engine", SHARE, PERCENT * (1.0 - force / own), data, n_atoms),
        _batch_gain(data, own),
        _speedup(data, own),
        _waiting(data),
    ]
    return findings


def compare(data: xr.Dataset, twin: xr.Dataset) -> list[Finding]:
    """The time of the twin's steps over one's own, if both were measured since the machine was started.

    Args:
        data: of a row that is not of gradient forces.
        twin: of its twin with gradient forces.
    """
    metric = "speedup_twin"
    if not on_one_machine(json.loads(each.attrs.get("provenance", "{}")) for each in (data, twin)):
        reason = "its twin was not measured on the same machine since that was started"
        return [Finding(metric, BARE, None, Outcome.UNSUPPORTED, reason)]
    mine, other = (each.step_seconds.sel(size=int(each.attrs["n_atoms"])) for each in (data, twin))
    try:
        interval = median_ratio(other, mine)
    except ValueError:  # no round has a time
        return [Finding(metric, BARE, None, Outcome.EXPLODED, _ASTRAY)]
    waiting = [_share_waited(each) for each in (data, twin)]
    busy = any(share is not None and share.value > BUSY for share in waiting)
    return [Finding(metric, BARE, interval, reason=_DISTURBED if busy else "")]


def median_ratio(numerators: ArrayLike, denominators: ArrayLike) -> Interval:
    """Ratio of the medians of two independent samples of positive numbers.

    Its interval is put together from those of both logarithms: the distances of the ends from the estimates add in
    square (Zou and Donner, Stat. Med. 27, 1693, 2008).

    Args:
        numerators: (n,).
        denominators: (m,).

    Raises:
        ValueError: no sample is finite.
    """
    top, bottom = (median_interval(np.log(np.asarray(part, dtype=float))) for part in (numerators, denominators))
    value = top.value - bottom.value
    below = math.hypot(top.value - top.low, bottom.high - bottom.value)
    above = math.hypot(top.high - top.value, bottom.value - bottom.low)
    return Interval(value, value - below, value + above, min(top.n, bottom.n)).map(np.exp)


def _median(metric: str, unit: str, samples: xr.DataArray, data: xr.Dataset, size: int) -> Finding:
    return _guarded(metric, unit, lambda: median_interval(samples), data, size)


def _guarded(metric: str, unit: str, statistic: Callable[[], Interval], data: xr.Dataset, size: int | str) -> Finding:
    """A finding at one size, or why there is none."""
    left_out: dict[str, Any] = json.loads(data.attrs["left_out"])
    if str(size) in left_out:
        outcome, reason = left_out[str(size)]
        return Finding(metric, unit, None, Outcome(outcome), reason)
    try:
        return Finding(metric, unit, statistic())
    except ValueError:  # no round has a time
        return Finding(metric, unit, None, Outcome.EXPLODED, _ASTRAY)


def _memory(metric: str, peaks: xr.DataArray, data: xr.Dataset, size: int) -> Finding:
    if str(size) not in json.loads(data.attrs["left_out"]) and not bool(np.isfinite(peaks).any()):
        reason = "the peak of resident memory can be told on Linux with glibc, and on CUDA devices, only"
        return Finding(metric, MEGABYTES, None, Outcome.UNSUPPORTED, reason)
    return _guarded(metric, MEGABYTES, lambda: resolved(median_interval(peaks), resolution(data)), data, size)


def resolution(data: xr.Dataset) -> float:
    """MB that the account of memory leaves open, alike in all trials, on the machine that was measured."""
    return float(data.attrs.get("memory_resolution", _SCRAPS)) / MEGABYTE


def resolved(peak: Interval, width: float) -> Interval:
    """The interval of a peak, wider by what the account of memory leaves open; memory does not shrink."""
    return Interval(peak.value, max(0.0, peak.low - width), peak.high + width, peak.n)


def _exponent(data: xr.Dataset) -> Finding:
    """Exponent p of the time of a step ~ n^p: the log-log slope over the sizes of each round."""
    whole = data.step_seconds.dropna("size")
    if whole.sizes["size"] < 2:
        return Finding("exponent", BARE, None, Outcome.UNSUPPORTED, "one size only")
    exponents = slopes(np.log(whole["size"]), np.log(whole.transpose("round", "size")))
    return Finding("exponent", BARE, median_interval(exponents))


def _batch_gain(data: xr.Dataset, own: xr.DataArray) -> Finding:
    """Time per replica alone over that in the batch."""
    metric = "batch_gain"
    if "batch_step_seconds" not in data:
        return _guarded(metric, BARE, lambda: median_interval(own), data, "batch")
    gains = own * data.attrs["replicas"] / data.batch_step_seconds
    return _guarded(metric, BARE, lambda: median_interval(gains), data, "batch")


def _speedup(data: xr.Dataset, own: xr.DataArray) -> Finding:
    """Time of a step with gradient forces over that of the scheme, round by round."""
    metric = "speedup"
    if data.attrs["scheme"] == "gradient":
        reason = "gradient forces are what others are compared with"
        return Finding(metric, BARE, None, Outcome.UNSUPPORTED, reason)
    if "gradient" in json.loads(data.attrs["left_out"]):
        return _guarded(metric, BARE, lambda: median_interval(own), data, "gradient")
    if "gradient_step_seconds" not in data:
        reason = "the model has no gradient forces: see the speed-up by twin"
        return Finding(metric, BARE, None, Outcome.UNSUPPORTED, reason)
    ratios = data.gradient_step_seconds / own
    return _guarded(metric, BARE, lambda: median_interval(ratios), data, "gradient")


def _waiting(data: xr.Dataset) -> Finding:
    """Share of the time on the wall in which others had the processor, which is no part of any other metric."""
    metric = "waiting"
    share = _share_waited(data)
    if share is None:
        return Finding(metric, SHARE, None, Outcome.UNSUPPORTED, "nothing tells here: times are those on the wall")
    return Finding(metric, SHARE, share.scaled(PERCENT), reason=_DISTURBED if share.value > BUSY else "")


def _share_waited(data: xr.Dataset) -> Interval | None:
    """Of the wall clock, over all sizes; None where nothing tells."""
    if not bool(np.isfinite(data.waited_seconds).any()):
        return None
    waited = data.waited_seconds.sum("size")
    return median_interval(waited / (waited + data.step_seconds.sum("size")))
