"""Pictures of one rung: errors by the size of the force, the density of states, and what fidelity draws. No torch."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from conservbench.plot import MOST_POINTS, Axis, Plot, line
from conservbench.protocols.complexity.judge import along_path, densities
from conservbench.protocols.curves import drawn, mean_line
from conservbench.protocols.fidelity.plots import of_crystal, of_motion

_PARTS: Final = 12
"""Points of the error by the size of the force, each of as many atoms."""


def plots(data: xr.Dataset) -> list[Plot]:
    """Of labels and of a crystal at rest, or of a system in motion.

    Args:
        data: what :func:`conservbench.protocols.complexity.measure.measure` returned.
    """
    made = [_errors(data)] if "force" in data else []
    if "rdf" in data:
        made += of_motion(data)
    if "spectrum" in data and bool(data.explosion_time.isnull().any()):
        made.append(_spectrum(data))
    if "frequency" in data:
        made += [*of_crystal(along_path(data)), _density(data)]
    return drawn(made)


def _errors(data: xr.Dataset) -> Plot:
    size = np.linalg.norm(data.force_label.values, axis=1)
    square = ((data.force - data.force_label) ** 2).mean("axis").values
    parts = [part for part in np.array_split(np.argsort(size, kind="stable"), _PARTS) if len(part)]
    # forces of perfect crystals vanish by symmetry: no axis in powers of ten has a place for them
    points = [(size[part].mean(), 1e3 * np.sqrt(square[part].mean())) for part in parts if size[part].mean() > 1e-3]
    x, y = np.array(points).reshape(-1, 2).T
    return Plot(
        "force_errors",
        "Force error by the size of the force",
        Axis("size of the labelled force", "eV/Å", log=True),
        Axis("root mean square error", "meV/Å", log=True),
        (line("", x, y),),
        "Atoms of all test frames in twelve parts of equal number. An error that grows with the force is of hot and "
        "distorted structures; one that does not vanish with it is of the crystal too.",
    )


def _spectrum(data: xr.Dataset) -> Plot:
    sound = data.spectrum.values[data.explosion_time.isnull().values]
    return Plot(
        "spectrum",
        "Vibrational spectrum of the trajectory",
        Axis("frequency", "THz"),
        Axis("density of states", "1/THz"),
        (mean_line("", data.vibration, sound, MOST_POINTS),),
        "The Fourier transform of the autocorrelation of velocities, by mass: lines are as wide as one over the "
        "longest lag. What it has at zero is diffusion. The band is the 95 % interval of the mean over the replicas "
        "that lasted.",
    )


def _density(data: xr.Dataset) -> Plot:
    at, found, wanted = densities(data)
    return Plot(
        "density",
        "Vibrational density of states of the crystal at rest",
        Axis("frequency", "THz"),
        Axis("density of states", "1/THz"),
        (line("", at, found), line("reference", at, wanted, style="reference")),
        "The curve should lie on the dashed one of the reference; half the area between them is the error. An "
        "imaginary frequency is drawn below 0. There is no statistical error.",
    )
