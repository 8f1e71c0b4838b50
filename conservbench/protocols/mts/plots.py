"""Pictures of multiple time steps: what each stride changes, how energy flows in, and what it saves. No torch."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from conservbench.plot import Axis, Line, Plot, line
from conservbench.protocols.base import Finding
from conservbench.protocols.curves import drawn, interval_line, level, replica_lines, size_line
from conservbench.protocols.mts.judge import drift_of, rdf_of, speedup_in_theory, temperature_of
from conservbench.statistics import median_interval
from conservbench.units import MILLI

STRIDE: Final = Axis("inner steps in an outer one", log=True)

MOST_STRIDES: Final = 6
"""Strides whose energy is drawn: more curves nobody tells apart."""

_INSIDE: Final = (
    "A stride whose whole bar is below the limit is inside. Bars are 95 % intervals over replicas, without a lower "
    "half where they hold 0; a stride at which all exploded has none."
)


def plots(data: xr.Dataset) -> list[Plot]:
    """The energy at each stride; drift, temperature, g(r) and time against the stride.

    Args:
        data: what :func:`conservbench.protocols.mts.measure.measure` returned.
    """
    main = data.isel(time_step=0)
    kelvin = data.attrs["temperature_limit"] * data.attrs["target_temperature"]
    strides = [int(stride) for stride in data.stride.values]
    longer = [stride for stride in strides if stride > 1]
    made = [_energy(main), _drift(data, strides)] if "total_energy" in data else []
    made += [
        Plot(
            "temperature",
            "Temperature less that at stride 1",
            STRIDE,
            Axis("|temperature difference|", "K", log=True),
            (_sweep("", longer, [temperature_of(main, each) for each in longer]), level("limit", strides, kelvin)),
            f"The energy may be conserved and the temperature still be shifted. {_INSIDE}",
        ),
    ]
    if "rdf" in data:
        made.append(
            Plot(
                "rdf",
                "Distance of g(r) from that at stride 1",
                STRIDE,
                Axis("|squared distance|, relative", log=True),
                (
                    _sweep("", longer, [rdf_of(main, each) for each in longer]),
                    level("limit", strides, data.attrs["rdf_limit"]),
                ),
                f"Noise alone gives 0 on average. {_INSIDE}",
            ),
        )
    return drawn([*made, _speed(data, longer)])


def _energy(main: xr.Dataset) -> Plot:
    chosen = main.stride.values[: 1 if main.sizes["stride"] == 1 else None]
    places = np.unique(np.round(np.linspace(0, len(chosen) - 1, min(len(chosen), MOST_STRIDES))).astype(int))
    lines: list[Line] = []
    for stride in chosen[places]:
        run = main.sel(stride=stride)
        gain = MILLI * (run.total_energy - run.total_energy.isel(time=0))
        lines += replica_lines(f"stride {stride}", run.time, gain, run.explosion_time.isnull())
    return Plot(
        "energy",
        "Total energy less that of the first block",
        Axis("time", "ps"),
        Axis("E(t) - E(0)", "meV/atom"),
        tuple(lines),
        "Energy flows in where the outer step is near half a period of a fast mode, slowly at first. The band is the "
        "95 % interval of the mean over replicas; of those that exploded the first is drawn by itself.",
    )


def _drift(data: xr.Dataset, strides: list[int]) -> Plot:
    several = data.sizes["time_step"] > 1
    lines = [
        _sweep(
            f"{float(step):g} fs" if several else "",
            strides,
            [drift_of(data.sel(time_step=step), stride) for stride in strides],
        )
        for step in data.time_step
    ]
    return Plot(
        "drift",
        "Drift of the total energy against the stride",
        STRIDE,
        Axis("|drift|", "meV/atom/ps", log=True),
        (*lines, level("limit", strides, data.attrs["drift_limit"])),
        _INSIDE,
    )


def _speed(data: xr.Dataset, longer: list[int]) -> Plot:
    ratios = [median_interval(data.seconds_gradient / data.seconds_mts.sel(stride=each)) for each in longer]
    cost = median_interval(data.seconds_gradient / data.seconds_direct).value
    every = sorted({1, *longer})
    return Plot(
        "speedup",
        "Times faster than gradient forces at every step",
        STRIDE,
        Axis("speed-up"),
        (
            interval_line("measured", longer, ratios),
            line("in theory", every, [speedup_in_theory(cost, each) for each in every]),
        ),
        f"In theory a fast force that is {cost:.3g} times cheaper can save no more than that, however long the stride. "
        "Bars are 95 % intervals of the median over rounds; fewer than six rounds have none.",
    )


def _sweep(name: str, strides: list[int], findings: list[Finding]) -> Line:
    return size_line(name, strides, [finding.interval for finding in findings])
