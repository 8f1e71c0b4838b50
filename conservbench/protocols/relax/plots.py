"""Pictures of relaxations: how far forces and energy fall with the steps, and how many starts get there. No torch."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from conservbench.plot import Axis, Line, Plot, line
from conservbench.protocols.curves import drawn, level, median_line
from conservbench.protocols.relax.judge import first_below
from conservbench.units import MILLI, PERCENT

STEPS: Final = Axis("step")

FINEST: Final = 1e-3
"""meV/atom: energies nearer to the lowest are drawn here, which is beyond what single precision tells apart."""

POINTS: Final = 40
"""Points of a curve, which falls by powers of ten."""

_BAND: Final = (
    "Medians over starts, each kept as it ended; the band is the 95 % interval, for which six starts are needed."
)


def plots(data: xr.Dataset) -> list[Plot]:
    """Longest force and energy against the step, and the fraction of starts that reach each threshold.

    Args:
        data: what :func:`conservbench.protocols.relax.measure.measure` returned.
    """
    fixed, variable = (data.isel(start=np.flatnonzero(data.variable_cell == flag)) for flag in (0, 1))
    runs = {str(name): fixed.sel(optimizer=name) for name in data.optimizer.values}
    runs = {name: run for name, run in runs.items() if np.isfinite(run.fmax.values).any()}
    first = variable.isel(optimizer=0)
    cells = {f"{first.optimizer.item()}, cells too": first} if np.isfinite(first.fmax.values).any() else {}
    every = {**runs, **cells}
    made = [_forces(data, every), _convergence(data, every)]
    return drawn([made[0], _energies(runs), made[1]] if "energy" in data else made)


def _forces(data: xr.Dataset, runs: dict[str, xr.Dataset]) -> Plot:
    threshold = float(data.threshold[-1])
    lines = [
        median_line(name, *_held(run, np.maximum(run.fmax.values, threshold)), POINTS) for name, run in runs.items()
    ]
    return Plot(
        "force",
        "Longest force against the step",
        STEPS,
        Axis("longest force", "eV/Å", log=True),
        (*lines, level("converged", data.step, threshold)),
        f"A force that stalls above the dashed line never gets to a minimum. {_BAND}",
    )


def _energies(runs: dict[str, xr.Dataset]) -> Plot:
    """Above the lowest energy that any start in the cell of the system passed through."""
    alike = {name: run.isel(start=np.flatnonzero(run.kind != "strained")) for name, run in runs.items()}
    alike = {name: run for name, run in alike.items() if np.isfinite(run.energy.values).any()}
    lowest = min((float(np.nanmin(run.energy)) for run in alike.values()), default=0.0)
    lines: list[Line] = []
    for name, run in alike.items():
        excess = np.maximum(MILLI * (run.energy.values - lowest), FINEST)
        lines.append(median_line(name, *_held(run, excess), POINTS))
    return Plot(
        "energy",
        "Energy above the lowest that any start passed through",
        STEPS,
        Axis("energy above the lowest", "meV/atom", log=True),
        tuple(lines),
        "The gradient of an energy goes on downwards until it is there; other forces may stop above, or climb again. "
        f"{_BAND}",
    )


def _convergence(data: xr.Dataset, runs: dict[str, xr.Dataset]) -> Plot:
    lines = []
    for name, run in runs.items():
        reached = [np.isfinite(first_below(run, threshold)) for threshold in data.threshold.values]
        lines.append(line(name, data.threshold, [PERCENT * each.mean() for each in reached]))
    return Plot(
        "converged",
        "Starts whose longest force gets below a threshold",
        Axis("threshold", "eV/Å", log=True),
        Axis("converged", "%"),
        tuple(lines),
        "All starts should get below the finest threshold, on the left. No band: the table has the "
        "intervals, which are wide for a few starts.",
    )


def _held(run: xr.Dataset, series: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps up to the last of any start, and the series (n_starts, n_steps) with the last value of each kept after it.

    A start that exploded has none from then on.
    """
    made = np.isfinite(run.fmax.values)
    steps = run.step.values[: int(np.flatnonzero(made.any(0))[-1]) + 1]
    last = len(series[0]) - 1 - made[:, ::-1].argmax(1)
    places = np.minimum(steps, last[:, None])
    held = np.take_along_axis(series, places, axis=1)
    gone = (run.ending.values == "exploded")[:, None] & (steps > last[:, None])
    return steps, np.where(gone, np.nan, held)
