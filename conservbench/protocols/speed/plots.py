"""Pictures of times: against the number of atoms, memory likewise, and round by round. No torch."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from conservbench.plot import Axis, Line, Plot, line
from conservbench.protocols.speed.judge import MEGABYTE, MICROSECONDS, resolution
from conservbench.statistics import Interval, median_interval

ATOMS = Axis("number of atoms", log=True)


def plots(data: xr.Dataset) -> list[Plot]:
    """Pictures of one cell.

    Args:
        data: what :func:`conservbench.protocols.speed.measure.measure` returned.
    """
    sizes = data["size"]
    drawn = [_time(data, sizes)]
    # less cannot be told from nothing
    peaks = (data.memory / MEGABYTE).where(lambda growth: growth.median("trial") >= resolution(data))
    if bool(peaks.notnull().any()):
        drawn.append(_memory(peaks))
    return [*drawn, _rounds(data)]


def _time(data: xr.Dataset, sizes: xr.DataArray) -> Plot:
    scale = MICROSECONDS / sizes
    return Plot(
        "time",
        "Time of a step per atom",
        ATOMS,
        Axis("time per atom and step", "µs", log=True),
        (
            _over_rounds("step", data.step_seconds * scale),
            _over_rounds("of it in the model", data.force_seconds * scale),
        ),
        "Level where time grows like the number of atoms, falling where a fixed cost counts; the band is the 95 %"
        " interval of the median over rounds. Compare curves of one machine only.",
    )


def _memory(peaks: xr.DataArray) -> Plot:
    return Plot(
        "memory",
        "Memory of a step",
        ATOMS,
        Axis("growth at the peak", "MB", log=True),
        (_over_rounds("", peaks),),
        "What a step needs beyond what is held between steps: it says how many atoms fit. The band is the 95 % interval"
        " of the median over trials.",
    )


def _rounds(data: xr.Dataset) -> Plot:
    whole = data.step_seconds.dropna("size", how="all")
    lines = tuple(
        line(
            f"{int(size)} atoms",
            data["round"] + 1,
            whole.sel(size=size) / whole.sel(size=size).median(),
            style="points",
        )
        for size in whole["size"].values
    )
    return Plot(
        "rounds",
        "Time of a step in each round over its median",
        Axis("round"),
        Axis("time / median"),
        lines,
        "Points far above 1 are moments at which the machine was busy; all sizes should show them in the same rounds.",
    )


def _over_rounds(name: str, values: xr.DataArray) -> Line:
    """Median and its interval at each size that was measured."""
    found = [_interval(values.sel(size=size)) for size in values["size"].values]
    low, middle, high = ([getattr(interval, end) for interval in found] for end in ("low", "value", "high"))
    return line(name, values["size"], middle, low, high)


def _interval(samples: xr.DataArray) -> Interval:
    if not np.isfinite(samples).any():
        return Interval(math.nan, math.nan, math.nan, 0)
    return median_interval(samples)
