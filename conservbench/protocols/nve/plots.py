"""Pictures of NVE: what the energy and the temperature do, and how the drift depends on the time step. No torch."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from conservbench.plot import Axis, Line, Plot
from conservbench.protocols.curves import drawn, in_stretches, interval_line, replica_lines
from conservbench.protocols.nve.judge import ORDER
from conservbench.statistics import limit_interval, mean_interval, slopes
from conservbench.units import MILLI

TIME: Final = Axis("time", "ps")

POINTS: Final = 60
"""Points of a curve: there are few curves here, and the energy is what all look at."""

_BAND: Final = (
    "The band is the 95 % interval of the mean over replicas; of those that exploded the first is drawn by itself."
)


def plots(data: xr.Dataset) -> list[Plot]:
    """Energy and temperature against time, and the drift against the time step where there are several.

    Args:
        data: what :func:`conservbench.protocols.nve.measure.measure` returned.
    """
    made = []
    if "total_energy" in data:
        gain = MILLI * (data.total_energy - data.total_energy.isel(time=0))
        made.append(
            Plot(
                "energy",
                "Total energy less that at the start",
                TIME,
                Axis("E(t) - E(0)", "meV/atom"),
                _by_time_step(data, gain),
                f"Forces that conserve the energy give a level line, and a slope is their drift. {_BAND}",
            )
        )
    made.append(
        Plot(
            "temperature",
            "Temperature without a bath",
            TIME,
            Axis("temperature", "K"),
            _by_time_step(data, in_stretches(data.temperature)),
            "Work that no energy accounts for shows as heat: the temperature goes on rising or falling. Means over "
            f"stretches of time. {_BAND}",
        )
    )
    if "total_energy" in data and data.sizes["time_step"] > 1:
        made.append(
            Plot(
                "drift",
                "Drift of the total energy against the time step",
                Axis("time step", "fs"),
                Axis("drift", "meV/atom/ps"),
                _drifts(data),
                "The error of the integrator vanishes towards a time step of 0, where what is left is the drift of the "
                "forces. Bars are 95 % intervals over the replicas that lasted at every time step.",
            )
        )
    return drawn(made)


def _by_time_step(data: xr.Dataset, series: xr.DataArray) -> tuple[Line, ...]:
    lines = []
    for step in data.time_step.values:
        lasted = data.explosion_time.sel(time_step=step).isnull()
        lines += replica_lines(f"{step:g} fs", series.time, series.sel(time_step=step), lasted, POINTS)
    return tuple(lines)


def _drifts(data: xr.Dataset) -> tuple[Line, ...]:
    """Of the replicas that lasted at every time step, and the limit of their drifts."""
    lasted = data.explosion_time.isnull().all("time_step").values
    if not lasted.any():
        return ()
    drifts = MILLI * slopes(data.time, data.total_energy.isel(replica=np.flatnonzero(lasted)))
    return (
        interval_line("measured", data.time_step, [mean_interval(each) for each in drifts]),
        interval_line("in the limit", [0.0], [limit_interval(data.time_step, drifts.T, ORDER)]),
    )
